# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of a process: CPU time and memory."""

from __future__ import annotations

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time since its start, of all its threads; in steps of 10 ms."""
    # The name, in brackets, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_kib(pid: int) -> int:
    """Resident memory (RSS) in KiB.

    RSS, because it is what ``ps`` and a container's limit show, and because it does not depend on who else runs: PSS
    and USS of a daemon are larger when it is the only Python on its machine.
    """
    return _field(pid, "status", "VmRSS:")


def most_resident_kib(pid: int) -> int:
    """The most that :func:`resident_kib` ever was."""
    return _field(pid, "status", "VmHWM:")


def anonymous_kib(pid: int) -> int:
    """Memory in KiB that no file is behind: heap and stacks, without code."""
    return _field(pid, "smaps_rollup", "Anonymous:")


def _field(pid: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise LookupError(f"/proc/{pid}/{file} has no {name}")
