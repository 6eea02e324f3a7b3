# SPDX-License-Identifier: Apache-2.0
"""What happened to each ContrailVM lately, for people who look: the outbox knows the last state alone.

Fed where changes are published, on a standby too, and kept in memory: a restart begins with what it finds. A follower
keeps the number of the last change that it saw and asks for what is newer. Of a host that changed several times in
between it gets the newest state, so however slow it is, nothing is queued for it.

Not promised: what was before the start, or more than :data:`MOST_PER_HOST` changes of one host.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec
from gevent.event import Event

from vcenter_eam_plugin.domain.status import ContrailVm, State

MOST_PER_HOST = 50
"""Entries: one that comes up passes five states, so these are its last ten lives. docs/adr/0031 has the cost."""
MOST_GONE = 1000
"""Removed hosts that followers are still told of; who is further behind begins anew."""


class Entry(msgspec.Struct, frozen=True):
    """One line of a host's story. ``at`` is POSIX seconds; ``found``: it was so when we began to look."""

    at: float
    state: State
    reason: str
    found: bool = False
    issues: tuple[str, ...] = ()
    """Exact types of the issues that EAM showed."""


class Change(msgspec.Struct, frozen=True):
    """The newest status of one host, with the number of the change that brought it."""

    number: int
    vcenter: str
    at: float
    status: ContrailVm


class History:
    """All vCenters of one process. ``wall_clock`` gives POSIX seconds."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._now = wall_clock
        # Lists, short as most are: an empty deque has room for 64.
        self._lines: dict[tuple[str, str], list[Entry]] = {}
        self._newest: OrderedDict[tuple[str, str], Change] = OrderedDict()
        self._gone: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._number = 0
        self._forgotten = 0
        self._news = Event()

    @property
    def number(self) -> int:
        """Of the last change; 0 before the first."""
        return self._number

    def record(self, vcenter: str, changed: Sequence[ContrailVm]) -> None:
        """Take in what changed, in the order in which it was seen."""
        if not changed:
            return
        now = self._now()
        for status in changed:
            self._number += 1
            key = (vcenter, status.esxi.moref)
            if status.state is State.REMOVED:
                self._lines.pop(key, None)
                self._gone[key] = None
            else:
                self._gone.pop(key, None)
                self._add_line(key, status, now)
            self._newest[key] = Change(self._number, vcenter, now, status)
            self._newest.move_to_end(key)
        while len(self._gone) > MOST_GONE:
            key, _ = self._gone.popitem(last=False)
            self._forgotten = max(self._forgotten, self._newest.pop(key).number)
        news, self._news = self._news, Event()
        news.set()

    def lines(self, vcenter: str, host: str) -> tuple[Entry, ...]:
        """The story of one host (moref), newest first."""
        return tuple(reversed(self._lines.get((vcenter, host), ())))

    def since(self, number: int) -> Sequence[Change] | None:
        """The newest status of each host that changed after ``number``, in order; ``None`` when that is too long ago to
        tell, or was never reached."""
        if not self._forgotten <= number <= self._number:
            return None
        found = []
        for change in reversed(self._newest.values()):
            if change.number <= number:
                break
            found.append(change)
        found.reverse()
        return found

    def wait(self, number: int, seconds: float) -> bool:
        """Wait for a change after ``number``, or so long; whether there is one."""
        if self._number <= number:
            self._news.wait(seconds)
        return self._number > number

    def _add_line(self, key: tuple[str, str], status: ContrailVm, now: float) -> None:
        lines = self._lines.get(key)
        found = lines is None
        if lines is None:
            lines = self._lines[key] = []
        reason = "; ".join((status.reason, *(violation.text for violation in status.violations)))
        issues = tuple(sys.intern(name) for name in sorted({issue.type for issue in status.eam.issues}))
        last = lines[-1] if lines else None
        if last is None or (last.state, last.reason, last.issues) != (status.state, reason, issues):
            # The same few sentences stand in thousands of lines.
            lines.append(Entry(now, status.state, sys.intern(reason), found, issues))
            del lines[:-MOST_PER_HOST]
