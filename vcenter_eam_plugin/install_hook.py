# SPDX-License-Identifier: Apache-2.0
"""Runs the operator's command for a ContrailVM whose vRouter is not installed: once per VM, in the background.

The command gets the host's facts as one JSON object on standard input, never on its command line, where others
could read them; and of our environment only what every program needs, because ours, and even more so a host
process's, may hold passwords. Which VMs it ran for is remembered over restarts.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gevent
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


class InstallHook:
    """``facts_of`` gives what the command reads, for a host, a VM and its address."""

    def __init__(
        self,
        command: Sequence[str],
        remembered: Path,
        facts_of: Callable[[str, str, str], dict[str, Any]],
        log: logging.Logger,
    ) -> None:
        self._command = list(command)
        self._remembered = remembered
        self._facts_of = facts_of
        self._log = log
        self._done = self._read()
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

    def _read(self) -> list[str]:
        try:
            known = json.loads(self._remembered.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return []
        return [str(vm) for vm in known] if isinstance(known, list) else []

    def _remember(self, vm: str) -> None:
        """Whole or not at all: half a list would have every command run again."""
        self._write([*self._done, vm][-KEPT:])

    def _write(self, done: list[str]) -> None:
        beside = self._remembered.with_suffix(".new")
        with os.fdopen(open_private(beside), "w", encoding="utf-8") as file:
            json.dump(done, file)
        beside.replace(self._remembered)
        self._done = done
