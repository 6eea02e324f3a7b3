# SPDX-License-Identifier: Apache-2.0
"""What happened in one vCenter since the start, counted where it happens.

Plain numbers that nobody decides by. Whoever counts is handed the tally of its vCenter, so that two services in one
process never count into each other; how the numbers are shown is the reader's (``web/metrics.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.domain.time_in_state import TimeInState


class Tally:
    """Only ever grows. Keys are words of the code, never names of hosts: their number is bounded."""

    def __init__(self) -> None:
        self.plans: Counter[str] = Counter()
        """Plans with something to do, by what became of them: ``carried out``, ``failed``, ``waiting`` (all of it for
        a budget, a grace time ...), ``refused`` (nothing may be changed now), ``postponed`` (done just before)."""
        self.actions: Counter[tuple[str, ...]] = Counter()
        """Actions that were begun, by kind and how they ended: ``done``, or the error's name."""
        self.operations: Counter[tuple[str, ...]] = Counter()
        """What people asked for, by operation and ``begun``, or the name of the error that refused it."""
        self.steps: Counter[tuple[str, ...]] = Counter()
        """Steps of operations, by operation and ``done`` or ``failed``."""
        self.times = TimeInState()

    @contextmanager
    def action(self, kind: str) -> Iterator[None]:
        """Around one action: counts how it ended, and lets errors pass."""
        how = "unexpected"
        try:
            yield
            how = "done"
        except PluginError as exc:
            how = type(exc).__name__
            raise
        finally:
            self.actions[kind, how] += 1
