# SPDX-License-Identifier: Apache-2.0
"""How long ContrailVMs are in their states: the times of those that left one, and who is in one for longest.

Counted from what this process saw. A restart begins anew, so the first time of each ContrailVM is too short, and is
left out of what is counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from vcenter_eam_plugin.domain.status import ContrailVm, State

BOUNDS = (1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Seconds. What EAM does takes seconds to minutes, what waits for a person hours, and maintenance a day."""


@dataclass(slots=True)
class Durations:
    """A histogram. ``counts`` has one entry more than :data:`BOUNDS`: what is longer than all of them."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


@dataclass(slots=True)
class _Stay:
    state: State
    since: float
    whole: bool
    """Whether its beginning was seen."""


class TimeInState:
    """All ContrailVMs of one vCenter. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.ended: dict[State, Durations] = {}
        """By state, of every stay that began and ended before our eyes."""
        self._stays: dict[str, _Stay] = {}

    def see(self, changed: Iterable[ContrailVm], now: float) -> None:
        """Take in statuses that may have changed."""
        for status in changed:
            stay = self._stays.get(status.key)
            if stay is not None and stay.state is status.state:
                continue
            if stay is not None and stay.whole:
                self.ended.setdefault(stay.state, Durations()).add(now - stay.since)
            if status.state is State.REMOVED:
                self._stays.pop(status.key, None)
            else:
                self._stays[status.key] = _Stay(status.state, now, stay is not None)

    def since(self, key: str) -> float | None:
        """Since when it is in its state, as far as this process knows."""
        stay = self._stays.get(key)
        return stay.since if stay is not None else None
