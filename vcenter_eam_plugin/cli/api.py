# SPDX-License-Identifier: Apache-2.0
"""The client of a running service: JSON over HTTP on the unix socket in its state directory."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vcenter_eam_plugin.domain import errors
from vcenter_eam_plugin.domain.errors import PlanChanged, PluginError, PrivilegeMissing, ProtocolError, Unavailable

ANSWER_SECONDS = 60.0
"""For an answer that is made from what the service knows."""
SOCKET = "control.sock"
MOST_ANSWERED = 64 * 1024 * 1024
"""Bytes of one answer, or of one line of an operation's progress: that of 2,500 hosts has 4 MiB. What answers may be
something else than this service, and a command must not take all memory of the machine that the service runs on."""


class Api:
    """``directory`` is the state directory of the service, ``seconds`` what an answer may take.

    Raises the errors that the service raised, by their name.
    """

    def __init__(self, directory: Path, *, seconds: float = ANSWER_SECONDS) -> None:
        self._path = directory / SOCKET
        self._seconds = seconds

    def get(self, path: str) -> Any:
        """A GET's JSON."""
        return self._answer("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """A POST's JSON."""
        return self._answer("POST", path, body)

    def follow(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A POST's lines of JSON, as they come. Raises before the first when it is refused."""
        connection = _Connection(self._path, None)  # a repair takes minutes, and says nothing meanwhile
        try:
            answer = self._ask(connection, "POST", path, body)
            while line := answer.readline(MOST_ANSWERED + 1):
                yield self._read(line)
        except (OSError, http.client.HTTPException) as exc:
            raise Unavailable(
                f"The service at {self._path} went away before the operation ended.",
                remedy="What EAM was asked for it goes on with; see the status once the service runs again.",
            ) from exc
        finally:
            connection.close()

    def _answer(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        connection = _Connection(self._path, self._seconds)
        try:
            return self._read(self._ask(connection, method, path, body).read(MOST_ANSWERED + 1))
        except (OSError, http.client.HTTPException) as exc:
            raise Unavailable(f"The service at {self._path} does not answer: {exc}.") from exc
        finally:
            connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any] | None
    ) -> http.client.HTTPResponse:
        try:
            connection.connect()
        except PermissionError as exc:
            raise PrivilegeMissing(
                f"This user may not use {self._path}.", remedy="Run the command as the user of the service, or as root."
            ) from exc
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            raise Unavailable(
                f"No service runs here: nobody listens at {self._path}.",
                remedy="Start it (systemctl start contrail-vcenter-eam-plugin, or contrail-vcenter-eam-plugin -c FILE),"
                " or name its configuration by -c: the socket is in its state_directory.",
            ) from exc
        connection.request(method, path, None if body is None else json.dumps(body), {"Host": "localhost"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise _raised(self._read(answer.read(MOST_ANSWERED + 1)), answer.status)
        return answer

    def _read(self, text: bytes) -> Any:
        if len(text) > MOST_ANSWERED:
            size = f"{MOST_ANSWERED // 1024**2} MiB"
            raise ProtocolError(f"What answers at {self._path} sends more than {size} at once; is it this service?")
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise ProtocolError(f"What answers at {self._path} is not understood; is it this service?") from exc


class _Connection(http.client.HTTPConnection):
    """HTTP to a unix socket, whose path may be longer than a socket address holds."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


def _raised(told: Any, status: int) -> PluginError:
    """The service's error, as it was raised there."""
    error = told.get("error", {}) if isinstance(told, dict) else {}
    error = error if isinstance(error, dict) else {}
    kind = getattr(errors, str(error.get("kind")), None)
    message, remedy = str(error.get("message") or f"HTTP status {status}."), str(error.get("remedy", ""))
    if kind is PlanChanged:
        preview = error.get("preview")
        return PlanChanged(message, remedy=remedy, preview=preview if isinstance(preview, dict) else None)
    if isinstance(kind, type) and issubclass(kind, PluginError):
        return kind(message, remedy=remedy)
    return PluginError(message, remedy=remedy)
