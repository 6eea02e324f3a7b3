# SPDX-License-Identifier: Apache-2.0
"""The work queue: fair, stingy, and never the same key twice at once."""

from __future__ import annotations

from collections import Counter

import gevent
from gevent.event import Event
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vcenter_eam_plugin.workqueue import WorkQueue


class Clock:
    """Monotonic seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def drain(queue: WorkQueue) -> list[str]:
    """Every key that is ready, worked on and done."""
    keys = []
    while len(queue):
        key = queue.get()
        assert key is not None
        keys.append(key)
        queue.done(key)
    return keys


def test_first_come_first_served_and_often_is_once() -> None:
    """Fair and stingy: an item collapses when added often."""
    queue = WorkQueue(Clock())
    for key in ("b", "a", "b", "c", "a", "b"):
        queue.add(key)
    assert drain(queue) == ["b", "a", "c"]


def test_added_while_worked_on_comes_once_more_afterwards() -> None:
    """Never worked on twice at once; and what changed meanwhile is not missed."""
    queue = WorkQueue(Clock())
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert queue.get() == "b"
    assert (len(queue), queue.working) == (1, 2)
    queue.done("a")
    assert queue.get() == "a"
    queue.done("a")
    queue.done("b")
    assert (len(queue), queue.working) == (0, 0)


def test_later_is_later_and_the_earliest_time_counts() -> None:
    """add_at: not before its time, once, and an ordinary add does not wait for it."""
    clock = Clock()
    queue = WorkQueue(clock)
    queue.add_at("a", 130.0)
    queue.add_at("a", 110.0)
    queue.add_at("a", 120.0)
    queue.add_at("b", 105.0)
    queue.add("c")
    assert drain(queue) == ["c"]
    clock.now = 110.0
    queue.add("d")
    assert drain(queue) == ["d", "b", "a"]
    clock.now = 200.0
    queue.add("d")
    assert drain(queue) == ["d"]


def test_a_waiting_worker_is_woken_by_an_add_and_by_the_end() -> None:
    """get waits; it ends with None once the queue is closed, whoever waits and whatever is left."""
    queue, got = WorkQueue(Clock()), []
    waiting = Event()

    def work() -> None:
        waiting.set()
        while (key := queue.get()) is not None:
            got.append(key)
            queue.done(key)

    workers = [gevent.spawn(work) for _ in range(3)]
    waiting.wait(5)
    gevent.idle()
    queue.add("a")
    queue.add_at("b", 100.0)
    with gevent.Timeout(5):
        while got != ["a", "b"]:
            gevent.idle()
    queue.add_at("far", 1e9)
    queue.close()
    queue.add("late")
    queue.add_at("late", 0.0)
    assert len(gevent.joinall(workers, timeout=5)) == 3
    assert got == ["a", "b"]
    assert queue.get() is None


def test_a_time_that_falls_due_wakes_a_waiting_worker() -> None:
    """The wait is no longer than to the next time; here the clock has moved on by then."""
    clock = Clock()
    queue = WorkQueue(clock)
    worker = gevent.spawn(queue.get)
    gevent.idle()
    queue.add_at("a", 100.005)
    gevent.idle()
    clock.now = 101.0
    assert worker.get(timeout=5) == "a"


class AnyUse(RuleBasedStateMachine):
    """Any order of adds, gets and dones keeps the promises; nothing added is lost."""

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.queue = WorkQueue(self.clock)
        self.working: set[str] = set()
        self.due: set[str] = set()
        self.later: dict[str, float] = {}
        self.order: list[str] = []

    @rule(key=st.sampled_from("abcd"))
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.due.add(key)

    @rule(key=st.sampled_from("abcd"), seconds=st.sampled_from([1.0, 5.0, 9.0]))
    def add_later(self, key: str, seconds: float) -> None:
        at = self.clock.now + seconds
        self.queue.add_at(key, at)
        self.later[key] = min(at, self.later.get(key, at))

    @rule(seconds=st.sampled_from([1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    def fall_due(self) -> None:
        for key, at in list(self.later.items()):
            if at <= self.clock.now:
                self.due.add(key)
                del self.later[key]

    @precondition(lambda self: self.due - self.working)
    @rule()
    def get(self) -> None:
        self.fall_due()
        key = self.queue.get()
        assert key is not None
        assert key not in self.working, "twice at once"
        assert key in self.due
        self.due.remove(key)
        self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.remove(key)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.queue.working == len(self.working)
        assert len(self.queue) == len(self.due)

    def teardown(self) -> None:
        for key in sorted(self.working):
            self.queue.done(key)
        self.fall_due()
        self.queue.add("end")
        left = Counter(drain(self.queue))
        assert left == Counter(self.due | {"end"})


AnyUse.TestCase.settings = settings(deadline=None, derandomize=True, max_examples=60, stateful_step_count=30)
TestAnyUse = AnyUse.TestCase
