# SPDX-License-Identifier: Apache-2.0
"""Fails a test in which product code held the event loop; what is judged, and why, is said in docs/adr/0025.

In a bench the simulator, the listener, the service and the test share one process and one loop, and the process shares
two cores with others. So wall time is not looked at, and the loop's lateness as a whole neither: judged is the CPU time
that *one greenlet* of the product takes between two of the loop's looks at timers and sockets. Garbage collection is
taken off, because here it walks through the simulator's world and pytest's. Whose it was, the stacks say that a thread
of the operating system takes meanwhile. On a machine that computes slower at that moment, the limit is wider.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import gevent
import gevent.monkey
import greenlet

from vcenter_eam_plugin.loop_watch import LIMIT

SAMPLE_SECONDS = 0.005
REFERENCE_SECONDS = 0.003
"""CPU time of :func:`_a_piece_of_work` on the machine that the limit was set on, while nothing else ran there."""
NOT_JUDGED = ("simulator/", "cli/", "bus/consumer.py", "bus/view.py")
"""Parts of the package that are no part of a running service: their stacks are somebody else's."""

Stack = tuple[str, ...]
"""``file:line function``, the outermost call first."""

_PACKAGE = "vcenter_eam_plugin/"
_OURSELVES = "loop_judge.py:"
_start_thread = gevent.monkey.get_original("_thread", "start_new_thread")
_allocate_lock = gevent.monkey.get_original("_thread", "allocate_lock")
_get_ident = gevent.monkey.get_original("_thread", "get_ident")


@dataclass(frozen=True, slots=True)
class Hold:
    """What one greenlet took between two looks of the loop: seconds of CPU, and where it was meanwhile."""

    cpu: float
    limit: float
    greenlet: str
    stacks: tuple[Stack, ...]

    def __str__(self) -> str:
        where = "\n".join("    " + " > ".join(stack[-8:]) for stack in dict.fromkeys(self.stacks))
        return f"{self.cpu * 1e3:.0f} ms of CPU time, allowed are {self.limit * 1e3:.0f}, by {self.greenlet}:\n{where}"


class LoopJudge:
    """Watches the thread that calls :meth:`start`."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.holds: list[Hold] = []
        """Those of the product."""
        self.longest = 0.0
        """Seconds: the most that a greenlet of the product was seen to take, as far as there were stacks."""
        self._limit = limit
        self._used: dict[Any, float] = {}
        self._samples: list[tuple[Any, Stack]] = []
        self._running: Any = None
        self._cpu = self._gc = self._gc_began = 0.0
        self._before: Any = None
        self._look: Any = None
        self._thread = self._clock = 0
        self._asked_to_end = _allocate_lock()
        self._ended = _allocate_lock()

    def start(self) -> None:
        self._thread = _get_ident()
        self._clock = time.pthread_getcpuclockid(self._thread)
        self._asked_to_end.acquire()
        self._ended.acquire()
        self._running, self._cpu = greenlet.getcurrent(), time.thread_time()
        self._look = gevent.get_hub().loop.check(ref=False)
        self._look.start(self._looked)
        gc.callbacks.append(self._collected)
        self._before = greenlet.settrace(self._switched)
        _start_thread(self._sample, ())

    def stop(self) -> None:
        greenlet.settrace(self._before)
        gc.callbacks.remove(self._collected)
        self._look.stop()
        self._look.close()
        self._asked_to_end.release()
        self._ended.acquire()
        self._used.clear()
        self._samples.clear()
        self._running = None

    def assert_nothing_held(self) -> None:
        assert not self.holds, "the event loop was held:\n" + "\n".join(map(str, self.holds))

    def _switched(self, event: str, switch: tuple[Any, Any]) -> None:
        origin, target = switch
        now = time.thread_time()
        used = self._used.get(origin, 0.0) + now - self._cpu - self._gc
        if used >= self._limit / 2 and origin is not gevent.get_hub():
            used = self._judge(origin, used)
        self._used[origin] = used
        self._running, self._gc = target, 0.0
        self._cpu = time.thread_time()
        if self._before is not None:
            self._before(event, switch)

    def _judge(self, one: Any, used: float) -> float:
        """Returns what counts on: a hold that was written down is over."""
        stacks = tuple(stack for whose, stack in self._samples if whose is one and _OURSELVES not in stack[-1])
        if sum(map(is_product, stacks)) * 2 <= len(stacks):
            return used
        self.longest = max(self.longest, used)
        if used < self._limit:
            return used
        limit = self._limit * slowness()
        if used < limit:
            return used
        self.holds.append(Hold(used, limit, _name(one), stacks))
        return 0.0

    def _looked(self) -> None:
        self._used.clear()
        self._samples.clear()

    def _collected(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_began = time.thread_time()
        elif self._gc_began:
            self._gc += time.thread_time() - self._gc_began
            self._gc_began = 0.0

    def _sample(self) -> None:
        """The body of the thread, which the loop knows nothing of."""
        while not self._asked_to_end.acquire(True, SAMPLE_SECONDS):
            one, began = self._running, self._cpu
            if time.clock_gettime(self._clock) - began + self._used.get(one, 0.0) < self._limit / 4:
                continue
            frame = sys._current_frames().get(self._thread)
            if self._cpu == began and len(self._samples) < 50:
                self._samples.append((one, _stack(frame)))
        self._ended.release()


@contextmanager
def judged(limit: float = LIMIT) -> Iterator[LoopJudge]:
    """Fails if the product holds the loop within the block."""
    judge = LoopJudge(limit)
    judge.start()
    try:
        yield judge
    finally:
        judge.stop()
    judge.assert_nothing_held()


def is_product(stack: Stack) -> bool:
    """Whether code of a running service is at work, and not the simulator's, a listener's or the test's alone."""
    ours = [call.removeprefix(_PACKAGE) for call in stack if call.startswith(_PACKAGE)]
    return bool(ours) and not any(call.startswith(NOT_JUDGED) for call in ours)


def slowness() -> float:
    """How much slower this machine computes just now than the one that the limit was set on; at least 1."""
    took = []
    for _ in range(3):
        began = time.thread_time()
        _a_piece_of_work()
        took.append(time.thread_time() - began)
    return max(sorted(took)[1] / REFERENCE_SECONDS, 1.0)


def _a_piece_of_work() -> int:
    found = {}
    for number in range(10_000):
        found[str(number % 1000)] = (number, number + 1)
    return len(found)


def _stack(frame: FrameType | None) -> Stack:
    found = []
    while frame is not None:
        found.append(f"{_short(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return tuple(reversed(found))


def _short(filename: str) -> str:
    """From the package's name on; two parts of any other path."""
    _, package, rest = filename.rpartition("/" + _PACKAGE)
    return package.lstrip("/") + rest if package else "/".join(Path(filename).parts[-2:])


def _name(one: Any) -> str:
    return str(getattr(one, "name", "") or type(one).__name__)
