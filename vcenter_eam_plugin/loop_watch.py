# SPDX-License-Identifier: Apache-2.0
"""How long the event loop is held: everything that ran between two of its looks at timers and sockets.

A heartbeat, a lost leadership or an operator's command waits that long. Two watchers of the loop itself measure it:
they cost about a microsecond for each of its rounds and nothing while it waits, trace no greenlet and start no thread,
so that they may run in a host process too, where they see what the host itself holds as well. *Who* held it is looked
at by a thread of its own, and only where that is asked for (the daemon at SYS_DEBUG).

Not promised: that a hold was ours to avoid. The time is wall time: a machine that gives us no core, and a disk that
takes its time, hold the loop all the same. ``cpu_ms`` beside it tells how much of it was computing.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from dataclasses import dataclass
from types import FrameType
from typing import Any

import gevent
import gevent.monkey
from gevent.event import Event

LIMIT = 0.05
"""Seconds that nothing may hold the event loop for; design section 3."""
LOG_SECONDS = 60.0
"""Between two log lines, however often it is held."""
_WINDOW = 10.0
"""Seconds; the longest hold of the last minute is that of six or seven windows."""
_WINDOWS = 6
_LOOK_SECONDS = 0.01
_DEEPEST = 12
"""Innermost calls that are told of a stack: the outer ones are the same in all."""
_HUB = "gevent/hub.py"

# The thread must wait without the loop that it watches.
_start_thread = gevent.monkey.get_original("_thread", "start_new_thread")
_get_ident = gevent.monkey.get_original("_thread", "get_ident")
_sleep = gevent.monkey.get_original("time", "sleep")


@dataclass(frozen=True, slots=True)
class Hold:
    """One hold: seconds in all, and of computing; ``where`` is a stack, if somebody looked."""

    seconds: float = 0.0
    cpu: float = 0.0
    where: str = ""

    def plain(self) -> dict[str, Any]:
        """For people, in milliseconds."""
        return {"ms": round(self.seconds * 1e3, 1), "cpu_ms": round(self.cpu * 1e3, 1), "where": self.where}


class LoopWatch:
    """Watches the loop of the thread that calls :meth:`start`. ``explain``: look at who holds it."""

    def __init__(self, log: logging.Logger, *, explain: bool = False) -> None:
        self._log = log
        self._explain = explain
        self._watchers: list[Any] = []
        self._began = self._cpu_began = 0.0
        """When the loop last looked at timers and sockets; 0: it is doing so."""
        self._longest = Hold()
        self._most_cpu = 0.0
        self._count = 0
        self._window = Hold()
        self._window_ends = 0.0
        self._windows: deque[tuple[float, Hold]] = deque(maxlen=_WINDOWS)
        self._where = ""
        self._unsaid = 0
        self._worst_unsaid = Hold()
        self._to_say = Event()
        self._stopped = True
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Watch from now on."""
        self._stopped = False
        loop = gevent.get_hub().loop
        # First after a look, last before the next: what everybody else does is in between.
        after, before = loop.check(ref=False, priority=loop.MAXPRI), loop.prepare(ref=False, priority=loop.MINPRI)
        after.start(self._looked)
        before.start(self._about_to_look)
        self._watchers = [after, before]
        self._greenlet = gevent.spawn(self._say)
        if self._explain:
            _start_thread(self._look_on, (_get_ident(),))

    def stop(self) -> None:
        """Watch no more; what was seen stays in :meth:`status`."""
        self._stopped = True
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()
        self._watchers = []
        if self._greenlet is not None:
            self._greenlet.kill()

    def greenlets(self) -> dict[str, gevent.Greenlet]:
        """Ours, by name."""
        return {"loop-watch": self._greenlet} if self._greenlet is not None else {}

    def status(self) -> dict[str, Any]:
        """The longest hold since the start and of the last minute, and how many were longer than the limit.

        ``most_cpu_ms`` is the most computing in one hold; below the limit it may be a little too low.
        """
        self._turn_window(time.perf_counter())
        minute = max((self._window, *(hold for _, hold in self._windows)), key=lambda hold: hold.seconds)
        return {
            "limit_ms": LIMIT * 1e3,
            "longest": self._longest.plain(),
            "longest_in_last_minute": minute.plain(),
            "most_cpu_ms": round(self._most_cpu * 1e3, 1),
            "over_limit": self._count,
        }

    # --- in the hub: nothing here may wait ----------------------------------------------------------------

    def _looked(self) -> None:
        self._cpu_began = time.thread_time()
        self._began = time.perf_counter()

    def _about_to_look(self) -> None:
        began, self._began = self._began, 0.0
        if not began:
            return
        now = time.perf_counter()
        held = now - began
        if now >= self._window_ends:
            self._turn_window(now)
        if held > self._window.seconds or held >= LIMIT:
            self._note(held)

    def _note(self, held: float) -> None:
        where, self._where = self._where, ""
        hold = Hold(held, time.thread_time() - self._cpu_began, where if held >= LIMIT else "")
        self._most_cpu = max(self._most_cpu, hold.cpu)
        self._window = max(self._window, hold, key=lambda each: each.seconds)
        self._longest = max(self._longest, hold, key=lambda each: each.seconds)
        if held >= LIMIT:
            self._count += 1
            self._unsaid += 1
            self._worst_unsaid = max(self._worst_unsaid, hold, key=lambda each: each.seconds)
            self._to_say.set()

    def _turn_window(self, now: float) -> None:
        if now < self._window_ends:
            return
        self._windows.append((self._window_ends, self._window))
        self._window, self._window_ends = Hold(), now + _WINDOW
        while self._windows and self._windows[0][0] < now - _WINDOW * _WINDOWS:
            self._windows.popleft()

    # --- beside it ------------------------------------------------------------------------------------------

    def _say(self) -> None:
        """A log's handler may wait for its lock or its disk, which the hub must not."""
        while True:
            self._to_say.wait()
            self._to_say.clear()
            count, hold = self._unsaid, self._worst_unsaid
            self._unsaid, self._worst_unsaid = 0, Hold()
            self._log.warning(
                "The event loop was held above %d ms, %d time(s); the longest was %d ms (%d ms of it computing).%s",
                LIMIT * 1e3,
                count,
                hold.seconds * 1e3,
                hold.cpu * 1e3,
                f" It was at: {hold.where}" if hold.where else "",
            )
            gevent.sleep(LOG_SECONDS)

    def _look_on(self, thread: int) -> None:
        """The body of the thread: where is the loop's, when it has been away for half of what it may?"""
        while not self._stopped:
            _sleep(_LOOK_SECONDS)
            began = self._began
            if began and time.perf_counter() - began > LIMIT / 2:
                frame = sys._current_frames().get(thread)
                # The hub is at work between two greenlets, and says nothing about who is.
                if self._began == began and frame is not None and not frame.f_code.co_filename.endswith(_HUB):
                    self._where = _stack(frame)


def _stack(frame: FrameType | None) -> str:
    calls: list[str] = []
    while frame is not None and len(calls) < _DEEPEST:
        calls.append(f"{'/'.join(frame.f_code.co_filename.split('/')[-2:])}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " > ".join(reversed(calls))
