# SPDX-License-Identifier: Apache-2.0
"""The event loop is watched, and whoever works long gives the others their turn: design section 3."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import gevent
import pytest

from tests.support.loop_judge import LoopJudge, judged
from tests.support.rabbit import wait_for
from vcenter_eam_plugin import loop_watch, turns
from vcenter_eam_plugin.loop_watch import LIMIT, LoopWatch
from vcenter_eam_plugin.turns import SLICE, Turns

LOG = logging.getLogger("test.loop")


def compute(seconds: float) -> None:
    """Hold the loop, by CPU time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(100))


def in_a_greenlet(work: Callable[..., object], *arguments: object) -> None:
    """Run it, and let the loop come round once more: only then is a hold over."""
    gevent.spawn(work, *arguments).join()
    gevent.sleep(0.01)


def product_code(source: str) -> Callable[..., None]:
    """A function ``work`` that looks as if it stood in the package."""
    namespace: dict[str, object] = {"gevent": gevent, "compute": compute, "Turns": Turns}
    exec(compile(source, loop_watch.__file__.replace("loop_watch", "made_up"), "exec"), namespace)
    work = namespace["work"]
    assert callable(work)
    return work


@pytest.fixture
def watch() -> Iterator[LoopWatch]:
    one = LoopWatch(LOG)
    one.start()
    gevent.sleep(0.01)
    yield one
    one.stop()


def test_a_hold_is_seen_with_its_share_of_computing(watch: LoopWatch) -> None:
    """What computes for too long."""
    in_a_greenlet(compute, LIMIT * 1.2)
    told = watch.status()
    assert told["over_limit"] >= 1
    assert told["most_cpu_ms"] >= LIMIT * 1e3
    assert told["longest"]["cpu_ms"] >= LIMIT * 1e3
    assert told["longest"]["ms"] >= told["longest"]["cpu_ms"] - 1.0  # the two clocks are not read in one moment
    assert told["longest_in_last_minute"] == told["longest"]


def test_a_wait_of_the_thread_is_seen_and_told_from_computing(watch: LoopWatch) -> None:
    """Waiting for a disk holds the loop as computing does."""
    in_a_greenlet(loop_watch._sleep, LIMIT * 20)  # not gevent's: it blocks the thread
    told = watch.status()
    assert told["over_limit"] >= 1
    assert told["longest"]["ms"] >= LIMIT * 20e3
    assert told["longest"]["cpu_ms"] < LIMIT * 1e3


def test_waiting_holds_nothing(watch: LoopWatch) -> None:
    """A loop that has nothing to do is not held, however long that lasts."""
    gevent.sleep(LIMIT * 3)
    assert watch.status()["longest"]["cpu_ms"] < LIMIT * 1e3


def test_pieces_between_which_nobody_looks_at_sockets_are_one_hold(watch: LoopWatch) -> None:
    """Bug: gevent.sleep(0) lets greenlets run, and neither timers nor sockets; with Turns they have theirs."""

    def work(give: Callable[[], None]) -> None:
        for _ in range(20):
            compute(0.008)
            give()

    late: list[float] = []

    def heartbeat() -> None:
        while True:
            began = time.thread_time()
            gevent.sleep(0.001)
            late.append(time.thread_time() - began)

    beating = gevent.spawn(heartbeat)
    gevent.sleep(0.01)
    in_a_greenlet(work, lambda: gevent.sleep(0))
    assert max(late) > LIMIT, "this is why Turns do not sleep for 0"
    late.clear()
    gevent.spawn(work, Turns().give).join()
    beating.kill()
    assert max(late) < LIMIT


def test_no_turn_is_given_before_it_is_time() -> None:
    """A loop over a handful of hosts is not slowed down; the first turn comes after two slices, others after one."""
    ran: list[int] = []
    gevent.spawn(ran.append, 1)
    turn = Turns()
    turn.give()
    compute(SLICE * 1.5)
    turn.give()
    assert ran == []
    for number in (1, 2):
        compute(SLICE * 1.5)
        turn.give()
        assert len(ran) == number
        gevent.spawn(ran.append, 1)


def test_it_is_said_once_a_minute(
    watch: LoopWatch, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for many holds: the first at once, what came meanwhile a minute later."""
    monkeypatch.setattr(loop_watch, "LOG_SECONDS", 3.0)
    for _ in range(3):
        in_a_greenlet(compute, LIMIT * 1.2)
    assert len(caplog.records) == 1
    assert "1 time(s)" in caplog.text
    wait_for(lambda: len(caplog.records) == 2, what="the second line")
    assert "2 time(s)" in caplog.records[1].getMessage()


def test_who_held_it_is_told_where_that_was_asked_for() -> None:
    """At SYS_DEBUG the daemon says where it was."""
    one = LoopWatch(LOG, explain=True)
    one.start()
    gevent.sleep(0.01)
    for longer in range(1, 11):
        in_a_greenlet(compute, LIMIT * 4 * longer)
        where = one.status()["longest"]["where"]
        if where:
            break  # else the thread that looks was given no core meanwhile
    one.stop()
    assert "test_loop_watch.py" in where
    assert "compute" in where


def test_a_minute_later_the_last_minute_is_quiet_again(watch: LoopWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happened at the start is not shown as if it were now."""
    in_a_greenlet(compute, LIMIT * 1.2)
    later = time.perf_counter() + 80.0
    monkeypatch.setattr(loop_watch.time, "perf_counter", lambda: later)
    told = watch.status()
    monkeypatch.undo()
    assert told["longest_in_last_minute"]["ms"] == 0
    assert told["longest"]["ms"] >= LIMIT * 1e3


# --- what judges the scenarios -----------------------------------------------------------------------------

HOLDS = {
    "in one go": "def work():\n    compute(0.3)",
    "in pieces between which nobody looks at sockets": (
        "def work():\n    for _ in range(30):\n        compute(0.01)\n        gevent.sleep(0)"
    ),
}


@pytest.mark.parametrize("how", HOLDS)
def test_the_judge_finds_product_code_that_holds_the_loop(how: str) -> None:
    """A judge that cannot fail is worth nothing; 0.3 s are a hold on a machine that is five times slower, too."""
    work = product_code(HOLDS[how])
    with pytest.raises(AssertionError, match=r"made_up\.py:\d+ work"), judged():
        gevent.spawn(work).join()


def test_the_judge_leaves_turns_waiting_and_others_alone() -> None:
    """Pieces with turns, a wait of the thread, code of a test, and the simulator's are no holds of the product."""
    in_turns = product_code(
        "def work():\n    turns = Turns()\n    for _ in range(50):\n        compute(0.01)\n        turns.give()"
    )
    simulator = product_code("def work(): compute(0.3)").__code__
    simulator = simulator.replace(co_filename=simulator.co_filename.replace("made_up", "simulator/made_up"))
    judge = LoopJudge()
    judge.start()
    for work in (in_turns, lambda: loop_watch._sleep(0.3), lambda: compute(0.3), lambda: exec(simulator)):
        gevent.spawn(work).join()
    judge.stop()
    judge.assert_nothing_held()
    assert judge.longest < LIMIT


def test_a_slice_leaves_room_for_a_dozen() -> None:
    """The two figures belong together."""
    assert turns.SLICE * 12 <= LIMIT
