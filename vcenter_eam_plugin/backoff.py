# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next attempt: doubling, bounded, with jitter."""

from __future__ import annotations

import random

FIRST, MOST = 1.0, 10.0
"""Seconds. A third of the 30 s in which the bus must equal the truth once a fault is healed, however long it lasted;
the rest is for the login and the reads. One refused request in 10 s is no load, not even for a vCenter that starts."""


class Backoff:
    """Jitter of a fifth keeps several greenlets, and several instances, from meeting at a server that starts."""

    def __init__(self, first: float = FIRST, most: float = MOST) -> None:
        self._first = first
        self._most = most
        self._interval = first

    def next(self, least: float = 0.0) -> float:
        """Seconds to wait now, at least ``least``; the next answer is twice as long."""
        interval = max(self._interval, least)
        self._interval = min(self._interval * 2, self._most)
        return max(interval * random.uniform(0.8, 1.2), least)  # noqa: S311 - spreads retries, guards nothing

    def reset(self) -> None:
        """It worked: begin anew next time."""
        self._interval = self._first
