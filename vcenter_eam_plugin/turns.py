# SPDX-License-Identifier: Apache-2.0
"""Long work in pieces: whoever loops over a whole fleet gives the others their turn in between.

Promised: a loop that calls :meth:`Turns.give` between its pieces holds the event loop for about ``SLICE`` and one
piece, however many there are, and timers and sockets are looked at in between. Not promised: that the world is the same
afterwards. A place for a turn is one where it may change, see docs/adr/0025.
"""

from __future__ import annotations

from time import monotonic, thread_time

import gevent

SLICE = 0.003
"""Seconds of CPU time between two turns: a dozen that work at once stay within the 50 ms that the loop may be held.

Not of wall time: where there are too few cores each would wait for the others ever more often, and none get on."""

LOOK_AT_SOCKETS = 1e-6
"""Seconds. Not 0: gevent runs those that slept for 0 fifty times before it looks at timers and sockets again, and with
pieces of 10 ms a heartbeat was 500 ms late (measured)."""


class Turns:
    """One for each loop; the time begins when it is made.

    The clock of CPU time is a system call of 10 us, and most loops are over sooner than a slice, as the reading of each
    of thousands of small answers is: it is looked at when a slice has gone by, so the first turn may come a slice late.
    """

    __slots__ = ("_began", "_since")

    def __init__(self) -> None:
        self._began = monotonic()
        self._since: float | None = None

    def give(self) -> None:
        """Let others run, if it has been long enough. Whatever is called so may be killed or timed out here."""
        if monotonic() - self._began < SLICE:
            return  # no more CPU time than that
        if self._since is None:
            self._since = thread_time()
        elif thread_time() - self._since >= SLICE:
            gevent.sleep(LOOK_AT_SOCKETS)
            self._began = monotonic()
            self._since = thread_time()
