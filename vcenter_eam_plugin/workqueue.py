# SPDX-License-Identifier: Apache-2.0
"""A queue of keys to look at again.

- *Fair*: keys come out in the order in which they were added.
- *Stingy*: a key is never worked on twice at once, and collapses when it is added often.
- A key that is added while it is worked on comes out once more afterwards.
- ``add_at`` adds later; the earliest of several times counts. Time is passed in.

Handlers only compute a key and add it; one function does the work, and looks at the truth of that moment.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

from gevent.event import Event


class WorkQueue:
    """Keys are strings. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ready: deque[str] = deque()
        self._dirty: set[str] = set()
        self._working: set[str] = set()
        self._later: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        self._wake = Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._dirty)

    @property
    def working(self) -> int:
        """Keys that are being worked on."""
        return len(self._working)

    @property
    def later(self) -> int:
        """Keys that are to be looked at when their time comes."""
        return len(self._due)

    def add(self, key: str) -> None:
        """Have the key looked at soon."""
        if self._closed or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._ready.append(key)
            self._wake.set()

    def add_at(self, key: str, at: float) -> None:
        """Have the key looked at when the clock shows ``at``, or sooner if it is added meanwhile."""
        if not self._closed and at < self._due.get(key, float("inf")):
            self._due[key] = at
            heapq.heappush(self._later, (at, key))
            self._wake.set()

    def get(self) -> str | None:
        """Next key; waits for one. ``None`` once the queue is closed. Follow each with :meth:`done`."""
        while not self._closed:
            wait = self._move_due()
            if self._ready:
                key = self._ready.popleft()
                self._dirty.discard(key)
                self._working.add(key)
                return key
            self._wake.clear()
            self._wake.wait(wait)
        return None

    def done(self, key: str) -> None:
        """The work on a key has ended, well or not."""
        self._working.discard(key)
        if key in self._dirty:
            self._ready.append(key)
            self._wake.set()

    def close(self) -> None:
        """Let every waiting :meth:`get` return ``None``; nothing more is added."""
        self._closed = True
        self._wake.set()

    def _move_due(self) -> float | None:
        """Add what has fallen due; returns the seconds until the next, ``None`` when there is none."""
        now = self._clock()
        while self._later:
            at, key = self._later[0]
            if self._due.get(key) != at:
                heapq.heappop(self._later)
            elif at <= now:
                heapq.heappop(self._later)
                del self._due[key]
                self.add(key)
            else:
                return at - now
        return None
