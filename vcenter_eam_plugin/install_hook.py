# SPDX-License-Identifier: Apache-2.0
"""Runs the operator's command for a ContrailVM whose vRouter is not installed: once per VM, in the background.

The command gets the host's facts as one JSON object on standard input, never on its command line, where others
could read them. Which VMs it ran for is remembered over restarts.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gevent

COMMAND_SECONDS = 1800.0
"""Installing packages in a guest takes minutes; a command without an end after half an hour is stuck."""
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
        self._running: list[gevent.Greenlet] = []

    def __call__(self, host: str, vm: str, ip: str) -> None:
        """Run the command for this VM, unless it ran for it before. Returns at once."""
        if vm in self._done:
            return
        self._done = [*self._done, vm][-KEPT:]
        # Before it runs: a command that kills us must not run again and again.
        self._remembered.write_text(json.dumps(self._done), "utf-8")
        self._running = [g for g in self._running if not g.dead]
        self._running.append(gevent.spawn(self._run, vm, json.dumps(self._facts_of(host, vm, ip))))

    def stop(self) -> None:
        """End commands that still run."""
        gevent.killall(self._running, timeout=1)

    def _run(self, vm: str, facts: str) -> None:
        self._log.info("Running %s for %s.", self._command[0], vm)
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own command, without a shell
                self._command,
                input=facts,
                text=True,
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
        except (OSError, ValueError):
            return []
        return [str(vm) for vm in known] if isinstance(known, list) else []
