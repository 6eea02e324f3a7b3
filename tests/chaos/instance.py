# SPDX-License-Identifier: Apache-2.0
"""One daemon of the rig: its process from start to start, its configuration, and what its log tells of its leads."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import gevent

from tests.chaos.records import Instance, Term
from tests.support.processes import DaemonProcess
from vcenter_eam_plugin import failpoints

LOOK = 0.02
"""Seconds between two looks at log and process: how late a term or an end is noticed."""

STOP_SECONDS = 15.0
"""For an orderly end, which promises 5 s; on a machine that is three times slower."""

_STARTED = re.compile(r"Starting, version")
_CONNECTED = re.compile(r"Connected to \S+ \(")
_LEADS = re.compile(r"Leading from now on, epoch (\d+)\.")
_ENDED = re.compile(r"The lead of \S+ has ended|Not leading any more")


class PluginInstance:
    """``client`` is the address from which its calls reach the simulator."""

    def __init__(self, name: str, directory: Path, configuration: str, client: str) -> None:
        directory.mkdir(parents=True)
        conf_file = directory / "vcenter_eam.conf"
        conf_file.write_text(configuration)
        self.name = name
        self.client = client
        self.daemon = DaemonProcess(directory, conf_file, "tests.chaos.watched")
        self.past: list[Instance] = []
        self.terms: list[Term] = []
        self.frozen = False
        self.connected = False
        """Whether the process that runs has found its vCenter: it stands by, or leads."""
        self.armed = ""
        """The fail-point of the process that runs, or an empty string."""
        self._now: Instance | None = None
        self._term: Term | None = None
        self._read = 0
        self._rest = ""
        self._expected = ""
        self._started = False
        self._watching = gevent.spawn(self._watch)

    # --- what is done to it -------------------------------------------------------------------------------

    def start(self, failpoint: str = "") -> None:
        assert self._now is None
        self._expected, self.armed = "", failpoint
        self._started = self.connected = False
        self.daemon.start({failpoints.VARIABLE: failpoint} if failpoint else None)
        assert self.daemon.process is not None
        self._now = Instance(self.name, self.daemon.process.pid, self.client, time.monotonic())

    def kill(self) -> None:
        """SIGKILL; nothing if it has ended already."""
        self._end("killed", signal.SIGKILL)

    def stop(self) -> float:
        """SIGTERM; seconds until it had ended in order."""
        began = time.monotonic()
        self._end("stopped", signal.SIGTERM)
        return time.monotonic() - began

    def freeze(self) -> None:
        """SIGSTOP."""
        if self._signal(signal.SIGSTOP):
            self.frozen = True

    def thaw(self) -> None:
        if self.frozen:
            self._signal(signal.SIGCONT)
        self.frozen = False

    def close(self) -> None:
        self.thaw()
        self._expected = "stopped"
        self.daemon.close()
        self._watching.kill()

    # --- what is seen -------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._now is not None

    @property
    def leads(self) -> bool:
        return self._term is not None

    def lives(self) -> Iterator[Instance]:
        """All processes there were."""
        yield from self.past
        if self._now is not None:
            yield self._now

    def leads_had(self) -> Iterator[Term]:
        """All terms there were, the present one without an end."""
        yield from self.terms
        if self._term is not None:
            yield self._term

    @property
    def log(self) -> str:
        return self.daemon.log_file.read_text("utf-8", "replace") if self.daemon.log_file.exists() else ""

    # --- inside -------------------------------------------------------------------------------------------

    def _signal(self, number: int) -> bool:
        process = self.daemon.process
        if process is None or process.poll() is not None:
            return False
        os.kill(process.pid, number)
        return True

    def _end(self, how: str, number: int) -> None:
        if self._now is None:
            return
        self._expected = how
        self.thaw()
        self._signal(number)
        process = self.daemon.process
        assert process is not None
        process.wait(STOP_SECONDS)
        while self._now is not None:  # until the watcher has written it down
            gevent.sleep(LOOK)

    def _watch(self) -> None:
        while True:
            self._look()
            gevent.sleep(LOOK)

    def _look(self) -> None:
        process = self.daemon.process
        ended = self._now is not None and process is not None and process.poll() is not None
        self._read_log()
        if not ended:
            return
        assert self._now is not None
        assert process is not None
        now = time.monotonic()
        self._end_term(now)
        how = self._expected
        if not how:
            how = "failpoint" if self.armed and process.returncode == -signal.SIGKILL else "died"
        elif how == "stopped" and process.returncode != 0 and self._started:
            how = "died"  # before its start it has no order to end in
        one = self._now
        self.past.append(Instance(one.name, one.pid, one.client, one.began, now, how))
        self._now, self.connected = None, False

    def _read_log(self) -> None:
        if not self.daemon.log_file.exists():
            return
        with self.daemon.log_file.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        *lines, self._rest = (self._rest + data.decode("utf-8", "replace")).split("\n")
        for line in lines:
            now = time.monotonic()
            if _STARTED.search(line):
                self._started = True
            elif _CONNECTED.search(line):
                self.connected = True
            elif (found := _LEADS.search(line)) and self._now is not None:
                self._end_term(now)
                self._term = Term(self.name, self._now.pid, int(found[1]), now)
            elif _ENDED.search(line):
                self._end_term(now)

    def _end_term(self, now: float) -> None:
        if self._term is not None:
            one, self._term = self._term, None
            self.terms.append(Term(one.instance, one.pid, one.epoch, one.began, now))
