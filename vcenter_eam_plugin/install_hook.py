# SPDX-License-Identifier: Apache-2.0
"""Runs the operator's command for a ContrailVM whose vRouter is not installed: once per VM, in the background.

The command gets the host's facts as one JSON object on standard input, never on its command line, where others
could read them; and of our environment only what every program needs, because ours, and even more so a host
process's, may hold passwords. Which VMs it ran for is remembered over restarts; a memory that cannot be read is kept
aside and said (:attr:`InstallHook.trouble`), since the command then runs once more for whoever still waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from vcenter_eam_plugin.domain.errors import Unavailable
from vcenter_eam_plugin.permissions import open_private

COMMAND_SECONDS = 1800.0
"""Installing packages in a guest takes minutes; a command without an end after half an hour is stuck."""
AT_ONCE = 8
"""Commands that run side by side: after the first deployment every ContrailVM of a fleet wants one."""
INHERITED = re.compile(r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|LANG|LANGUAGE|LC_[A-Z]+")
"""Names of the environment variables that the command gets. What else it needs, it can set itself."""
KEPT = 10_000
"""VMs to remember: several respawns of a whole fleet."""

_UNKNOWN = (
    "which ContrailVMs install_command ran for is not known any more, and it runs once more for each whose vRouter "
    "does not answer"
)
_MEND = (
    "Look at the disk; to have what it ran for back, stop the service and put the mended file (a JSON list of VM "
    "morefs) in its place. Then move the damaged one away: this alarm ends with the next start."
)


class InstallHook:
    """``facts_of`` gives what the command reads, for a host, a VM and its address; ``wall_clock`` POSIX seconds.

    ``trouble`` says what is to be done about a memory that could not be read, now or at an earlier start; empty when
    there is none.
    """

    def __init__(
        self,
        command: Sequence[str],
        remembered: Path,
        facts_of: Callable[[str, str, str], dict[str, Any]],
        log: logging.Logger,
        wall_clock: Callable[[], float],
    ) -> None:
        self._command = list(command)
        self._remembered = remembered
        self._facts_of = facts_of
        self._log = log
        self._done, self.trouble = self._read(wall_clock())
        self._running: dict[str, gevent.Greenlet] = {}
        self._turns = BoundedSemaphore(AT_ONCE)

    def __call__(self, host: str, vm: str, ip: str) -> None:
        """Run the command for this VM, unless it ran for it before. Returns at once."""
        self._running = {name: greenlet for name, greenlet in self._running.items() if not greenlet.dead}
        if vm not in self._done and vm not in self._running:
            self._running[vm] = gevent.spawn(self._run, vm, json.dumps(self._facts_of(host, vm, ip)))

    @property
    def done(self) -> tuple[str, ...]:
        """The VMs (morefs) that it ran for, oldest first."""
        return tuple(self._done)

    def take_done(self, vms: Sequence[str]) -> None:
        """Those that the instance that led before us ran it for. Raises Unavailable when they cannot be remembered."""
        try:
            self._write(list(vms))
        except OSError as exc:
            raise Unavailable(f"{self._remembered} cannot be written: {exc.strerror}.") from exc

    def stop(self) -> None:
        """End commands that still run; those that had no turn yet have theirs after the next start."""
        gevent.killall(list(self._running.values()), timeout=1)

    def _run(self, vm: str, facts: str) -> None:
        with self._turns:
            try:
                self._remember(vm)  # before it runs: a command that kills us must not run again and again
            except OSError as exc:
                self._log.error("%s does not run for %s: %s cannot be written: %s.", self._command[0], vm,
                                self._remembered, exc.strerror)  # fmt: skip
                return
            self._run_now(vm, facts)

    def _run_now(self, vm: str, facts: str) -> None:
        self._log.info("Running %s for %s.", self._command[0], vm)
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own command, without a shell
                self._command,
                env={name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)},
                input=facts,
                encoding="utf-8",
                errors="replace",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            self._log.error("%s for %s did not work: %s.", self._command[0], vm, exc)
            return
        level = logging.INFO if done.returncode == 0 else logging.ERROR
        self._log.log(level, "%s for %s ended with %d. %s", self._command[0], vm, done.returncode, done.stderr[-500:])

    def _read(self, now: float) -> tuple[list[str], str]:
        """The VMs, and what is wrong."""
        try:
            known = msgspec.json.decode(self._remembered.read_bytes(), type=list[str])
        except FileNotFoundError:
            return [], self._about_those_aside()
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as exc:
            return [], self._set_aside(exc, now)
        return known, self._about_those_aside()

    def _set_aside(self, why: Exception, now: float) -> str:
        """Or the first command that runs would write over what somebody may still mend."""
        aside = self._remembered.with_name(
            f"{self._remembered.name}.damaged-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
        )
        said = f"{self._remembered} cannot be read ({getattr(why, 'strerror', None) or str(why)[:200]})"
        try:
            self._remembered.replace(aside)
        except OSError as exc:
            said += f", nor be kept aside ({exc.strerror}): {_UNKNOWN}. {_MEND}"
            self._log.error("%s", said)
            return said
        self._log.error("%s and is kept as %s: %s.", said, aside, _UNKNOWN)
        return self._about_those_aside()

    def _about_those_aside(self) -> str:
        found = sorted(map(str, self._remembered.parent.glob(f"{self._remembered.name}.damaged-*")))
        if not found:
            return ""
        return f"{self._remembered} could not be read and is kept as {', '.join(found)}: {_UNKNOWN}. {_MEND}"

    def _remember(self, vm: str) -> None:
        """Whole or not at all: half a list would have every command run again."""
        self._write([*self._done, vm][-KEPT:])

    def _write(self, done: list[str]) -> None:
        beside = self._remembered.with_suffix(".new")
        with os.fdopen(open_private(beside), "w", encoding="utf-8") as file:
            json.dump(done, file)
        beside.replace(self._remembered)
        self._done = done
