# SPDX-License-Identifier: Apache-2.0
"""Repairs stay within their budgets, and the breaker opens on failures: design section 5."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.contrailvm import contrail_vm
from vcenter_eam_plugin.domain.budgets import (
    BACKOFF_FIRST,
    BACKOFF_MOST,
    BREAKER_COOLDOWN,
    BREAKER_FAILURES,
    BREAKER_SPAN,
    HOUR,
    REPAIR_DEADLINE,
    RESOLVE_SETTLES,
    Ledger,
    Limits,
)
from vcenter_eam_plugin.domain.status import State

C = "domain-c1"


def start(ledger: Ledger, number: int, now: float, cluster: str = C) -> None:
    verdict = ledger.ask(cluster, f"host-{number}", now)
    assert verdict.allowed, verdict.reason
    ledger.start(cluster, f"host-{number}", now)


def succeed(ledger: Ledger, number: int, now: float) -> None:
    ledger.observe(contrail_vm(number, State.ACTIVE), False, now, now)


def fail(ledger: Ledger, number: int, now: float) -> None:
    ledger.observe(contrail_vm(number, State.POWERED_OFF), True, now, now)


def room(ledger: Ledger, now: float) -> int:
    """How many repairs may still start."""
    count = 0
    while ledger.ask(C, f"host-9{count}", now).allowed:
        ledger.start(C, f"host-9{count}", now)
        count += 1
    for n in range(count):
        ledger.abandon(f"host-9{n}", now)
    return count


def test_slow_start_1_2_4() -> None:
    """Each success proves that repairs work: one at once, then two, then four, and no more."""
    ledger, now, rooms = Ledger(Limits(at_once=4)), 1000.0, []
    for number in range(5):
        rooms.append(room(ledger, now))
        start(ledger, number, now)
        succeed(ledger, number, now + 20)
        now += 30
    assert rooms == [1, 2, 4, 4, 4]


def test_a_window_never_opens_beyond_the_limit() -> None:
    """max_concurrent_repairs of 3 is three, though the window doubles."""
    ledger, now = Ledger(Limits(at_once=3)), 1000.0
    for number in range(4):
        start(ledger, number, now)
        succeed(ledger, number, now + 20)
        now += 30
    assert room(ledger, now) == 3


def test_one_at_once_per_host() -> None:
    """A host whose repair is running waits for its end."""
    ledger = Ledger(Limits())
    start(ledger, 1, 1000.0)
    verdict = ledger.ask(C, "host-1", 1001.0)
    assert not verdict.allowed
    assert verdict.ask_again > 1001.0


def test_so_many_an_hour() -> None:
    """The hour slides: as many as the first hour allowed, then one more for each that is an hour old."""
    ledger, now = Ledger(Limits(at_once=4, per_hour=3)), 1000.0
    for number in range(3):
        start(ledger, number, now)
        succeed(ledger, number, now + 20)
        now += 30
    verdict = ledger.ask(C, "host-7", now)
    assert not verdict.allowed
    assert verdict.ask_again == 1000.0 + HOUR
    assert not ledger.ask(C, "host-7", verdict.ask_again - 0.1).allowed
    assert ledger.ask(C, "host-7", verdict.ask_again).allowed
    assert ledger.ask("domain-c2", "host-8", now).allowed, "per cluster"


def test_an_hourly_budget_of_nothing_is_nothing() -> None:
    """Bug: asking with no repair in the books raised IndexError."""
    assert not Ledger(Limits(per_hour=0)).ask(C, "host-1", 5.0).allowed


def test_back_off_per_host_doubles_to_a_bound() -> None:
    """A host that fails again and again is asked about less and less; a success forgets it."""
    ledger, now, waits = Ledger(Limits()), 1000.0, []
    for _ in range(9):
        start(ledger, 1, now)
        fail(ledger, 1, now + RESOLVE_SETTLES + 1)
        ended = now + RESOLVE_SETTLES + 1
        ledger.close_breaker(C)
        verdict = ledger.ask(C, "host-1", ended)
        waits.append(verdict.ask_again - ended)
        now = verdict.ask_again
    assert waits == [min(BACKOFF_FIRST * 2**n, BACKOFF_MOST) for n in range(9)]
    start(ledger, 1, now)
    succeed(ledger, 1, now + 20)
    assert ledger.ask(C, "host-1", now + 21).allowed


def test_a_read_too_soon_is_no_failure() -> None:
    """EAM drops the issue when the work starts, a moment after it answered; old green is no success either."""
    ledger = Ledger(Limits())
    start(ledger, 1, 1000.0)
    fail(ledger, 1, 1000.0 + RESOLVE_SETTLES)
    ledger.observe(contrail_vm(1, State.ACTIVE), False, 999.0, 1001.0)
    assert ledger.running(C) == 1


def test_the_breaker_opens_after_failures_in_a_short_time_and_says_so() -> None:
    """Three failed repairs in ten minutes stop the cluster, and no other; a person may close it."""
    ledger, now = Ledger(Limits()), 1000.0
    for number in range(BREAKER_FAILURES):
        assert ledger.open_breakers(now) == ()
        start(ledger, number, now)
        now += RESOLVE_SETTLES + 1
        fail(ledger, number, now)
    assert ledger.open_breakers(now) == (C,)
    verdict = ledger.ask(C, "host-50", now)
    assert (verdict.allowed, verdict.ask_again) == (False, now + BREAKER_COOLDOWN)
    assert ledger.ask("domain-c2", "host-51", now).allowed
    assert room(ledger, now + BREAKER_COOLDOWN) == 1, "one tests whether the cause is gone"
    ledger.close_breaker(C)
    assert ledger.ask(C, "host-50", now).allowed
    assert ledger.open_breakers(now) == ()


def test_failures_far_apart_open_nothing() -> None:
    """Three in a day are not three in ten minutes."""
    ledger, now = Ledger(Limits()), 1000.0
    for number in range(2 * BREAKER_FAILURES):
        start(ledger, number, now)
        fail(ledger, number, now + RESOLVE_SETTLES + 1)
        now += BREAKER_SPAN / 2 + RESOLVE_SETTLES + 2
        assert ledger.open_breakers(now) == ()


def test_a_repair_without_an_end_is_a_failed_one() -> None:
    """A deployment that hangs must not hold its place for ever."""
    ledger = Ledger(Limits())
    start(ledger, 1, 1000.0)
    assert ledger.expire(1000.0 + REPAIR_DEADLINE) == ()
    assert ledger.expire(1001.0 + REPAIR_DEADLINE) == ("host-1",)
    assert ledger.running(C) == 0
    assert not ledger.ask(C, "host-1", 1002.0 + REPAIR_DEADLINE).allowed


def test_interrupted_is_neither_success_nor_failure() -> None:
    """S10: an operator's maintenance in the middle of a repair says nothing about repairs."""
    for state in (State.MAINTENANCE, State.STANDBY, State.UNREACHABLE, State.REMOVING):
        ledger = Ledger(Limits())
        start(ledger, 1, 1000.0)
        ledger.observe(contrail_vm(1, state), True, 1020.0, 1020.0)
        assert ledger.running(C) == 0
        assert ledger.ask(C, "host-1", 1021.0).allowed


def test_a_refused_call_is_a_failed_repair() -> None:
    """The call raised, so there is nothing to wait for."""
    ledger = Ledger(Limits())
    start(ledger, 1, 1000.0)
    ledger.give_up("host-1", 1001.0)
    assert not ledger.ask(C, "host-1", 1002.0).allowed
    assert ledger.running(C) == 0


class Books(RuleBasedStateMachine):
    """Whoever asks before each start stays within every budget, in any order of ends."""

    @initialize(at_once=st.integers(1, 5), per_hour=st.integers(0, 6))
    def open(self, at_once: int, per_hour: int) -> None:
        self.ledger, self.limits, self.now = Ledger(Limits(at_once, per_hour)), Limits(at_once, per_hour), 0.0
        self.started: list[float] = []
        self.failed: list[float] = []
        self.running: dict[int, float] = {}
        self.stopped_until = 0.0

    @rule(seconds=st.sampled_from([1.0, 20.0, 400.0, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        late = {n for n, began in self.running.items() if self.now - began > REPAIR_DEADLINE}
        assert set(self.ledger.expire(self.now)) == {f"host-{n}" for n in late}
        for n in late:
            self.ended(n, failed=True)

    @rule(number=st.integers(0, 7))
    def ask_and_start(self, number: int) -> None:
        verdict = self.ledger.ask(C, f"host-{number}", self.now)
        if not verdict.allowed:
            assert verdict.reason
            assert verdict.ask_again > self.now, "asked again at once for ever"
            return
        assert number not in self.running
        assert self.now >= self.stopped_until
        self.ledger.start(C, f"host-{number}", self.now)
        self.running[number] = self.now
        self.started.append(self.now)

    @rule(number=st.integers(0, 7), how=st.sampled_from([State.ACTIVE, State.POWERED_OFF, State.MAINTENANCE]))
    def it_is_seen(self, number: int, how: State) -> None:
        self.now += 1
        began = self.running.get(number)
        self.ledger.observe(contrail_vm(number, how), how is State.POWERED_OFF, self.now, self.now)
        if began is not None and (how is not State.POWERED_OFF or self.now > began + RESOLVE_SETTLES):
            self.ended(number, failed=how is State.POWERED_OFF)

    @rule(number=st.integers(0, 7))
    def the_host_leaves(self, number: int) -> None:
        self.ledger.abandon(f"host-{number}", self.now)
        self.running.pop(number, None)

    def ended(self, number: int, *, failed: bool) -> None:
        del self.running[number]
        if failed:
            self.failed = [at for at in self.failed if self.now - at < BREAKER_SPAN] + [self.now]
            if len(self.failed) >= BREAKER_FAILURES:
                self.failed, self.stopped_until = [], self.now + BREAKER_COOLDOWN

    @invariant()
    def within_budgets(self) -> None:
        assert self.ledger.running(C) == len(self.running) <= self.limits.at_once
        assert len([at for at in self.started if self.now - at < HOUR]) <= self.limits.per_hour


Books.TestCase.settings = settings(deadline=None, derandomize=True, max_examples=60, stateful_step_count=40)
TestBooks = Books.TestCase


def test_after_the_pause_one_failed_repair_opens_the_breaker_again() -> None:
    """The first repair after the breaker's time is a test: if it fails, the cause is still there."""
    ledger, now = Ledger(Limits()), 1000.0
    for number in range(BREAKER_FAILURES):
        start(ledger, number, now)
        fail(ledger, number, now + RESOLVE_SETTLES + 1)
    later = now + BREAKER_COOLDOWN + 100
    assert not ledger.ask(C, "host-7", now + 60).allowed
    start(ledger, 7, later)
    fail(ledger, 7, later + RESOLVE_SETTLES + 1)
    assert ledger.open_breakers(later + RESOLVE_SETTLES + 2) == (C,)
