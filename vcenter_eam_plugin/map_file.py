# SPDX-License-Identifier: Apache-2.0
"""Keeps ``ESXiToVRouterIp.map`` up to date for the Java contrail-vcenter-plugin on this machine. Leading or not: each
machine has a file of its own.

The file is written in place, because a container has that one file mounted: a new file under its name would not be
seen. So what is about to be written is kept in the state directory first, and is written again if a process was killed
meanwhile. In between a reader finds whole lines: shorter text is filled up with empty lines, which the reader skips,
before the file is cut.

Not promised: one version for a reader that reads in several pieces while it is written. The Java plugin reads the file
once, at its start, and must be restarted to read it again.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import gevent
import msgspec
from gevent.pool import Pool

from vcenter_eam_plugin.domain.errors import PluginError, Unavailable
from vcenter_eam_plugin.domain.status import ContrailVm
from vcenter_eam_plugin.domain.vrouter_map import Line, MapHost, is_ipv4, merge
from vcenter_eam_plugin.state_file import StateFile
from vcenter_eam_plugin.unit import Unit

INTERVAL = 5.0
"""Seconds between two looks. The reader reads at its own start alone, so nobody waits for it."""

_MODE = 0o644
_ALARM = "vrouter-map"


class _Written(msgspec.Struct):
    """Which lines are ours; and while the file is being written, all of what it is to be."""

    ours: dict[str, Line] = {}
    pending: str | None = None


class MapFile:
    """The file, and the memory of which lines are ours. Raises ConfigurationError when that cannot be read."""

    def __init__(self, path: Path, memory: Path) -> None:
        self.path = path
        self._memory = StateFile(
            memory, _Written, what="Which lines of the vRouter map are ours", without="stale lines stay in the map"
        )
        self._written = self._memory.read() or _Written()

    def update(self, hosts: Sequence[MapHost], complete: Iterable[str]) -> tuple[str, ...]:
        """Bring the file up to date; returns what contradicts it. Raises Unavailable when it cannot be written."""
        try:
            if self._written.pending is not None:
                _write_in_place(self.path, self._written.pending)
                self._remember(_Written(self._written.ours))
            text = self._read()
            merged = merge(text, self._written.ours, hosts, frozenset(complete))
            if merged.text != text:
                self._remember(_Written(dict(merged.ours), merged.text))
                _write_in_place(self.path, merged.text)
            if _Written(dict(merged.ours)) != self._written:
                self._remember(_Written(dict(merged.ours)))
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
            raise Unavailable(f"The vRouter map {self.path} cannot be written: {reason}.") from exc
        return merged.contradictions

    def _read(self) -> str:
        try:
            handle = _open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return ""
        with open(handle, "rb") as file:  # noqa: PTH123 - it is open already
            return file.read().decode()

    def _remember(self, written: _Written) -> None:
        self._memory.write(written)
        self._written = written


def _open(path: Path, how: int) -> int:
    """A descriptor of a regular file; anything else (a pipe would have us wait for ever) is an OSError."""
    handle = os.open(path, how | os.O_NONBLOCK | os.O_CLOEXEC, _MODE)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(None, "it is no regular file")
    return handle


def _write_in_place(path: Path, text: str) -> None:
    """Replace the content and keep the file: whole lines at any moment, as far as one write is one."""
    content = text.encode()
    handle = _open(path, os.O_RDWR | os.O_CREAT)
    try:
        filled = content.ljust(os.fstat(handle).st_size, b"\n")
        done = 0
        while done < len(filled):
            done += os.pwrite(handle, filled[done:], done)
        os.fsync(handle)
        os.ftruncate(handle, len(content))
        os.fsync(handle)
    finally:
        os.close(handle)


class Addresses:
    """IPv4 addresses of host names, asked of the system's resolver: a few at a time, and seldom again."""

    AT_ONCE = 20
    PATIENCE = 2.0
    """Seconds that one look may take for all of its questions."""
    AGAIN = 600.0
    """Seconds until a name is asked for again, found or not."""

    def __init__(self, clock: Callable[[], float], resolve: Callable[[str], str | None] | None = None) -> None:
        self._clock = clock
        self._resolve = resolve or _resolve
        self._found: dict[str, tuple[float, str | None]] = {}

    def look_up(self, names: Iterable[str]) -> Mapping[str, str | None]:
        """Name -> address, ``None`` for what is not known, or not yet."""
        names = sorted(set(names))
        now = self._clock()
        due = [name for name in names if name not in self._found or now - self._found[name][0] > self.AGAIN]
        pool = Pool(self.AT_ONCE)
        asked = {name: pool.spawn(self._resolve, name) for name in due[: self.AT_ONCE]}
        gevent.joinall(list(asked.values()), timeout=self.PATIENCE)
        for name, question in asked.items():
            address = question.value if question.successful() else None
            known = self._found.get(name, (now, None))[1]
            self._found[name] = now, address or known
            question.kill(block=False)
        return {name: self._found.get(name, (now, None))[1] for name in names}


def _resolve(name: str) -> str | None:
    if is_ipv4(name):
        return name
    try:
        answers = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return str(answers[0][4][0]) if answers else None


class MapKeeper:
    """Writes the map from what the units see, until it is killed."""

    def __init__(self, map_file: MapFile, units: Sequence[Unit], log: logging.Logger) -> None:
        self._map = map_file
        self._units = units
        self._log = log
        self._addresses = Addresses(time.monotonic)
        self._left_out: set[str] = set()

    def run(self) -> None:
        """Look, write, wait; what goes wrong is an alarm of every vCenter."""
        while True:
            try:
                self._look()
            except Exception:  # noqa: BLE001 - the last line of defence: the map is the least of what depends on us
                self._log.exception("Looking after the vRouter map ended unexpectedly; it is tried again.")
            gevent.sleep(INTERVAL)

    def _look(self) -> None:
        seen = [unit for unit in self._units if unit.pipeline is not None and unit.pipeline.fleet.given_out]
        if not seen:
            return
        fleets = [unit.pipeline.fleet for unit in seen if unit.pipeline is not None]
        statuses = [status for fleet in fleets for status in fleet.statuses()]
        addresses = self._addresses.look_up(status.esxi.name for status in statuses)
        hosts = [self._host(status, addresses[status.esxi.name]) for status in statuses]
        complete = {fleet.instance_uuid for fleet in fleets}
        try:
            # Syncing a file can take longer than anything may hold the loop.
            told = gevent.get_hub().threadpool.apply(self._map.update, (hosts, complete))
        except PluginError as exc:
            told = (str(exc),)
        for unit in self._units:
            if told:
                unit.alarms.raise_(_ALARM, " ".join(told))
            else:
                unit.alarms.clear(_ALARM)

    def _host(self, status: ContrailVm, address: str | None) -> MapHost:
        vrouter = status.vrouter.ip
        if vrouter and not is_ipv4(vrouter) and vrouter not in self._left_out:
            self._left_out.add(vrouter)
            self._log.warning(
                "The vRouter map has no line for %s: %s is no IPv4 address, and the map holds no others.",
                status.esxi.name,
                vrouter,
            )
        return MapHost(status.key, status.esxi.name, address, vrouter)
