# SPDX-License-Identifier: Apache-2.0
"""What a listener ends up with, whatever the way did to the stream: each example is a history of leaders and a way.

The newest leader's messages come in its own order, since one channel and one queue carry them; runs of them come twice
after a lost confirm. Whatever deposed leaders said, and still say, may be lost, come twice, and stand anywhere between.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.contrailvm import contrail_vm, key_of
from tests.unit.bus.test_view import bracket, received, said, stamp
from vcenter_eam_plugin.bus.view import Deduplicator, View
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.status import State

Body = dict[str, Any]

STATES = (State.ACTIVE, State.POWERED_OFF, State.FAULTY, State.REMOVED)
CHANGE = st.tuples(st.integers(1, 4), st.sampled_from(STATES))
STEPS = st.lists(st.one_of(CHANGE, st.just("snapshot"), st.just("cut snapshot")), max_size=8)
TERMS = st.lists(STEPS, min_size=1, max_size=3)


class Leader:
    """One term: what is true to it, and what it says. It knows at its beginning what was true then."""

    def __init__(self, epoch: int, truth: dict[int, State], chance: random.Random) -> None:
        self.epoch = epoch
        self.truth = dict(truth)
        self.said: list[Body] = []
        self._seq = 0
        self._chance = chance

    def step(self, step: Any) -> None:
        if step == "snapshot":
            self.said += self._bracket()
        elif step == "cut snapshot":
            whole = self._bracket()
            lost = self._chance.randrange(len(whole))
            self.said += whole[:lost] + whole[lost + self._chance.randint(1, len(whole)) :]
        else:
            host, state = step
            self.truth[host] = state
            if state is State.REMOVED:
                del self.truth[host]
            self._seq += 1
            self.said.append(said(host, self._seq, state, self.epoch))

    def _bracket(self) -> list[Body]:
        count, name = len(self.truth), f"s{self.epoch}.{self._seq}"
        begin = self._seq + 1
        self._seq += count + 2
        items = [
            messages.snapshot_item(stamp(begin + n, self.epoch), contrail_vm(host, state), name, count)
            for n, (host, state) in enumerate(sorted(self.truth.items()), start=1)
        ]
        first = messages.snapshot_begin(stamp(begin, self.epoch), name, count)
        last = messages.snapshot_end(stamp(begin + count + 1, self.epoch), name, count)
        return [received(message) for message in (first, *items, last)]


def history(terms: list[Any], chance: random.Random) -> list[Leader]:
    """Leaders one after another, each with its snapshot first. All but the last go on for a while."""
    leaders: list[Leader] = []
    truth: dict[int, State] = {}
    for epoch, steps in enumerate(terms, start=10):
        leader = Leader(epoch, truth, chance)
        for step in ("snapshot", *steps):
            leader.step(step)
        truth = dict(leader.truth)
        leaders.append(leader)
    for deposed in leaders[:-1]:
        for _ in range(chance.randrange(4)):
            deposed.step(chance.choice([(chance.randint(1, 4), chance.choice(STATES)), "snapshot", "cut snapshot"]))
    return leaders


def with_runs_again(stream: list[Body], chance: random.Random) -> list[Body]:
    """As after lost confirms: from some point on it goes back a little."""
    result: list[Body] = []
    for number, message in enumerate(stream):
        result.append(message)
        if chance.random() < 0.2:
            result += stream[chance.randint(max(0, number - 6), number) : number + 1]
    return result


def mixed(new: list[Body], old: list[Body], chance: random.Random) -> list[Body]:
    """``old`` in any order, any of it lost or doubled, anywhere between ``new`` in its order."""
    kept = [message for message in old for _ in range(chance.choice([0, 1, 1, 2]))]
    chance.shuffle(kept)
    places = ["new"] * len(new) + ["old"] * len(kept)
    chance.shuffle(places)
    both = {"new": iter(new), "old": iter(kept)}
    return [next(both[place]) for place in places]


def states_of(view: View) -> dict[str, str]:
    return {key: str(message["state"]) for key, message in view.states.items()}


def as_states(truth: dict[int, State]) -> dict[str, str]:
    return {key_of(host): str(state) for host, state in truth.items()}


@settings(max_examples=300, deadline=None)
@given(terms=TERMS, chance=st.randoms(use_true_random=False), memory=st.sampled_from([1, 3, 10_000]))
def test_the_end_is_the_truth_whatever_deposed_leaders_say_between(
    terms: list[Any], chance: random.Random, memory: int
) -> None:
    """P3, P4, P5: duplicates, reordering, lower epochs and brackets cut short; even if ids are soon forgotten."""
    *deposed, leader = history(terms, chance)
    stream = mixed(with_runs_again(leader.said, chance), [m for one in deposed for m in one.said], chance)
    view, seen = View(), Deduplicator(memory)
    newest = 0
    for message in stream:
        if seen.seen(message["id"]):
            continue
        applied = view.apply(message)
        newest = max(newest, message["epoch"])
        assert not applied.fresh or message["epoch"] == newest, "an older epoch was believed after a newer one"
    assert states_of(view) == as_states(leader.truth)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, chance=st.randoms(use_true_random=False))
def test_in_any_order_at_all_nothing_that_came_is_forgotten(steps: list[Any], chance: random.Random) -> None:
    """One term without loss, shuffled and doubled, brackets torn apart: the end depends on the messages alone."""
    leader = Leader(10, {}, chance)
    for step in steps:
        leader.step(step)
    stream = leader.said * 2
    chance.shuffle(stream)
    view = View()
    for message in stream:
        view.apply(message)
    assert states_of(view) == as_states(leader.truth)


@settings(max_examples=200, deadline=None)
@given(terms=TERMS, chance=st.randoms(use_true_random=False), lost=st.floats(0, 1))
def test_whatever_was_lost_one_whole_snapshot_heals_it(terms: list[Any], chance: random.Random, lost: float) -> None:
    """The bound of the queue, a private queue's gap: any part of what was said is missing, then comes a snapshot."""
    leaders = history(terms, chance)
    everything = [m for one in leaders for m in one.said if chance.random() >= lost]
    leader = leaders[-1]
    leader.step("snapshot")
    view = View()
    for message in (*everything, *leader.said[-len(leader.truth) - 2 :]):
        view.apply(message)
    assert states_of(view) == as_states(leader.truth)


def test_a_deposed_leader_is_not_believed_even_before_the_new_ones_snapshot() -> None:
    """P5, design section 6: consumers apply none of it, because its epoch is lower; of no key, and no bracket of it."""
    view = View()
    view.apply(said(1, 1, epoch=20))
    assert not view.apply(said(2, 500, epoch=10)).fresh
    assert not any(view.apply(message).fresh for message in bracket(900, [2, 3], epoch=10, name="old"))
    assert set(view.states) == {key_of(1)}


def test_the_epoch_of_one_vcenter_says_nothing_about_another() -> None:
    other = said(2, 1, epoch=10)
    other["fq_name"] = ["00000000-0000-4000-8000-000000000000", *other["fq_name"][1:]]
    view = View()
    view.apply(said(1, 1, epoch=20))
    assert view.apply(other).fresh


def test_what_is_no_message_of_ours_moves_nothing() -> None:
    """Bug: one without `oper` moved its key's position, so that the next good one was taken for stale."""
    view = View()
    for name in ("oper", "snapshot", "fq_name"):
        broken = said(1, 99, epoch=99)
        del broken[name]
        with pytest.raises(ValueError):  # noqa: PT011 - any sentence will do
            view.apply(broken)
    assert view.apply(said(1, 1, epoch=10)).fresh
