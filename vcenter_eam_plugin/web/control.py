# SPDX-License-Identifier: Apache-2.0
"""The JSON API on a unix socket in the state directory, for the commands of whoever runs the service.

The socket's mode, 0600, is the whole of its access control: the user of the service, and root. It is made in a folder
that nobody else may enter and then moved to its place, so it is never open for others, and one that a killed process
left behind is replaced in one step. One that answers belongs to a process that lives, and is left alone.

A socket that cannot be made is an alarm. The service runs on without it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pwd
import shutil
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gevent.pool import Pool
from gevent.pywsgi import LoggingLogAdapter, WSGIServer

from vcenter_eam_plugin.domain.errors import Unavailable
from vcenter_eam_plugin.ovf.handler import PatientHandler
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.web.app import PEER, create_app

NAME = "control.sock"
MOST_AT_ONCE = 32
"""Requests; each is a greenlet, and those who follow an operation stay."""
STOP_SECONDS = 0.5
BACKLOG = 16
_ALARM = "control"


class ControlSocket:
    """An endpoint of the service: it starts and stops it. See the module."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._path = service.configuration.defaults.state_directory / NAME
        self._log = service.log.getChild("control")
        self._server: WSGIServer | None = None
        self._identity: tuple[int, int] | None = None

    def start(self) -> None:
        """Serve from now on; what goes wrong is an alarm of every vCenter."""
        try:
            listener = self._listen()
        except (OSError, Unavailable) as exc:
            why = str(exc) if isinstance(exc, Unavailable) else f"{self._path} cannot be made: {exc.strerror}."
            for unit in self._service.units:
                unit.alarms.raise_(
                    _ALARM, f"Commands of vcenter-eam cannot reach this service: {why} Mend it, then restart."
                )
            return
        self._server = WSGIServer(
            listener,
            create_app(self._service),
            spawn=Pool(MOST_AT_ONCE),
            log=LoggingLogAdapter(self._log, logging.DEBUG),
            error_log=LoggingLogAdapter(self._log, logging.ERROR),
            handler_class=_Handler,
        )
        self._server.start()
        self._log.info("Commands are taken at %s.", self._path)

    def stop(self) -> None:
        """Serve no more, and remove the socket if it is still ours."""
        if self._server is None:
            return
        self._server.stop(timeout=STOP_SECONDS)
        self._server = None
        with contextlib.suppress(OSError):
            if self._identity == _identity(self._path):
                self._path.unlink()

    def _listen(self) -> socket.socket:
        """Raises OSError, or Unavailable when somebody else serves there."""
        self._check_free()
        folder = Path(tempfile.mkdtemp(prefix=".control-", dir=self._path.parent))  # mode 0700
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_path(folder / NAME) as short:
                listener.bind(short)
            (folder / NAME).chmod(0o600)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            self._identity = _identity(folder / NAME)
            (folder / NAME).rename(self._path)
        except BaseException:
            listener.close()
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return listener

    def _check_free(self) -> None:
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise Unavailable(f"{self._path} is something else than a socket, and is left alone.")
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_path(self._path) as short:
                probe.connect(short)
        except ConnectionRefusedError:
            self._log.info("%s was left behind by a process that is gone; replacing it.", self._path)
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                raise
        else:
            raise Unavailable(f"another process serves at {self._path}.")
        finally:
            probe.close()


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of the same place that fits into a socket address, which holds 107 bytes: through its folder's number."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _identity(path: Path) -> tuple[int, int]:
    about = path.lstat()
    return about.st_dev, about.st_ino


class _Handler(PatientHandler):
    """Knows who is at the other end: the kernel says it, so it cannot be made up."""

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        credentials = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", credentials)
        environ[PEER] = f"uid {uid} ({_user(uid)}, pid {pid})"
        return environ


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "no name"
