# SPDX-License-Identifier: Apache-2.0
"""A clean record passes, and each checker finds its fault in it: a checker that cannot fail is worth nothing.

Hypothesis tells the story around the fault; the fault itself is seeded by hand.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.chaos import checkers
from tests.chaos.checkers import CONVERGENCE, KINDS, WINDOW, check, unconverged
from tests.chaos.oracle import Class
from tests.chaos.records import Applied, Fault, Instance, Received, Record, Term
from tests.unit.chaos.stories import (
    BEGAN,
    CLIENTS,
    VCENTER,
    WORDS,
    WORKERS,
    Story,
    classes,
    go_on,
    some_steps,
    truth_of,
)

Steps = list[tuple[Any, ...]]
few = settings(max_examples=60, deadline=None)


def found(record: Record) -> set[str]:
    """The kinds of what is found."""
    verdict = check(record)
    assert verdict.ok is not bool(verdict.findings)
    assert {finding.kind for finding in verdict.findings} == {kind for kind, count in verdict.counts.items() if count}
    return {finding.kind for finding in verdict.findings}


def without(record: Record, *messages: Received) -> Record:
    """Copies are gone with them."""
    ids = {message.body["id"] for message in messages}
    return dataclasses.replace(record, messages=tuple(one for one in record.messages if one.body["id"] not in ids))


def received(time: float, message: Received, **changes: Any) -> Received:
    body = {**message.body, **changes}
    return Received(time, json.dumps(body).encode(), body)


# --- a clean record -------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(some_steps)
def test_a_clean_record_passes(told: Steps) -> None:
    verdict = check(go_on(Story(), told).record())
    assert verdict.ok, verdict.findings
    assert tuple(verdict.counts) == KINDS


def test_the_figures_count_what_they_say() -> None:
    story = Story()
    for of in (Class.UNUSABLE, Class.USABLE):
        story.change("host-1", of, delay=0.2, pause=8.0)
    story.repeat(-1)
    story.write()
    story.take_over()
    found = check(story.record()).figures
    assert found == {
        "hosts": 1,
        "final states": 2,
        "messages": 7,
        "duplicates": 1,
        "coalesced": 0,
        "messages of an ended lead": 0,
        "writes": 1,
        "leads": 2,
        "convergence seconds": 0.0,
    }


# --- lost -------------------------------------------------------------------------------------------------------


@few
@given(some_steps, classes, classes, some_steps)
def test_a_final_state_that_was_never_told_is_lost(before: Steps, final: Class, after: Class, then: Steps) -> None:
    """Also when the same was true, and told, before or after it."""
    story = go_on(Story(), before)
    assume(final not in (after, story.told.get("host-1", Class.GONE)))
    story.untold("host-1", final, 8.0)
    story.change("host-1", after, pause=8.0)
    assert found(go_on(story, then).record()) == {"lost"}


def test_the_same_told_of_a_later_time_does_not_stand_in_for_it() -> None:
    """Each message tells when its state was seen."""
    story = Story()
    story.change("host-1", Class.USABLE, pause=8.0)
    story.untold("host-1", Class.UNUSABLE, 8.0)
    story.change("host-1", Class.RESTING, pause=8.0)
    story.change("host-1", Class.UNUSABLE)
    story.change("host-1", Class.RESTING, pause=8.0)
    (finding,) = check(story.record()).findings
    assert "was unusable from +8.00 s on" in finding.text


def test_what_was_true_for_a_moment_may_be_skipped() -> None:
    story = Story()
    story.change("host-1", Class.USABLE, pause=8.0)
    story.untold("host-1", Class.UNUSABLE, 4.9)
    story.change("host-1", Class.RESTING, pause=8.0)
    assert found(story.record()) == set()


@pytest.mark.parametrize("disturbed", ["a fault", "no leader"])
def test_what_was_true_while_all_was_disturbed_may_be_skipped(disturbed: str) -> None:
    story = Story()
    story.change("host-1", Class.USABLE, pause=8.0)
    since = story.now
    story.untold("host-1", Class.UNUSABLE, 8.0)
    if disturbed == "a fault":
        story.faults.append(Fault("broker-pause", "broker", since + 3.0, story.now))
    else:
        term = story.terms.pop()
        story.terms.append(Term(term.instance, term.pid, term.epoch, term.began, since + 1.0))
        story.terms.append(Term("b", 2, term.epoch + 1, story.now))
    story.change("host-1", Class.RESTING, pause=8.0)
    assert found(story.record()) == set()


def test_the_last_state_is_final_however_short() -> None:
    story = Story()
    story.change("host-1", Class.USABLE, pause=8.0)
    story.faults.append(Fault("broker-pause", "broker", story.now, story.now + 1.0))
    story.untold("host-1", Class.UNUSABLE, 1.0)
    record = story.record()
    assert found(dataclasses.replace(record, ended=record.healed)) >= {"lost", "unconverged"}


def test_two_finals_told_the_other_way_round_are_a_loss() -> None:
    """Only what comes in its order tells anybody anything."""
    story = Story()
    story.change("host-1", Class.USABLE, pause=8.0)
    one = story.change("host-1", Class.UNUSABLE, pause=8.0)
    two = story.change("host-1", Class.RESTING, pause=8.0)
    assert one is not None
    assert two is not None
    swapped = without(story.record(), one, two)
    later = (received(two.time, two, seq=one.body["seq"]), received(two.time + 1, one, seq=two.body["seq"]))
    assert "lost" in found(dataclasses.replace(swapped, messages=(*swapped.messages, *later)))


@few
@given(some_steps, classes, st.sampled_from([0.3, 8.0]), classes, st.booleans(), some_steps)
def test_a_message_that_was_taken_in_and_never_came_is_lost(
    before: Steps, dropped: Class, pause: float, after: Class, snapshot: bool, then: Steps
) -> None:
    """However short it was true, and when a snapshot has said so since: nothing counts as sent before it was."""
    story = go_on(Story(), before)
    story.change("host-1", Class.UNREACHABLE)
    assume(dropped is not Class.UNREACHABLE and after is not dropped)
    message = story.change("host-1", dropped, pause=pause)
    if snapshot:
        story.snapshot()
        story.now += 1.0
    assert message is not None
    assert story.change("host-1", after, pause=8.0) is not None
    verdict = check(without(go_on(story, then).record(), message))
    assert any("builds on" in finding.text for finding in verdict.findings)


def test_over_a_change_of_lead_there_is_no_chain_and_of_one_alone_there_is() -> None:
    """Who hands over drops what is unsent; one alone sends it after its restart."""
    story = Story()
    story.change("host-1", Class.USABLE)
    message = story.change("host-1", Class.UNUSABLE)
    assert message is not None
    story.take_over()
    story.change("host-1", Class.USABLE)
    record = without(story.record(), message)
    assert found(record) == set()
    alone = dataclasses.replace(record, instances=(Instance("a", 1, CLIENTS["a"], BEGAN),))
    assert "lost" in found(alone)


# --- unexpected ---------------------------------------------------------------------------------------------------


@few
@given(some_steps, classes, classes, some_steps)
def test_an_invented_state_at_rest_is_unexpected(before: Steps, true: Class, invented: Class, then: Steps) -> None:
    story = go_on(Story(), before)
    story.now += CONVERGENCE  # what was true before may be under way no longer
    story.change("host-1", true, pause=8.0)
    story.now += CONVERGENCE
    assume(invented not in (true, story.truth["host-1"]))
    message = story.publish("host-1", invented, story.now, oper="UPDATE")
    story.now += 8.0
    story.told["host-1"] = invented
    story.change("host-1", true)
    record = go_on(story, then).record()
    verdict = check(record)
    assert [finding.kind for finding in verdict.findings] == ["unexpected"], verdict.findings
    assert str(message.body["state"]) in verdict.findings[0].text


def test_a_word_in_between_is_not_at_rest() -> None:
    """STARTING for a moment, until EAM was read: nobody could act on it."""
    story = Story()
    story.change("host-1", Class.USABLE, pause=40.0)
    story.publish("host-1", Class.UNUSABLE, story.now, oper="UPDATE")
    story.publish("host-1", Class.USABLE, story.now + 4.9, oper="UPDATE")
    story.now += 10
    assert found(story.record()) == set()


def test_a_host_that_never_was_is_unexpected() -> None:
    story = Story()
    story.publish("host-9", Class.USABLE, story.now, oper="CREATE")
    assert found(story.record()) == {"unexpected"}


# --- the stream ----------------------------------------------------------------------------------------------------


@few
@given(some_steps, st.integers(0, 1000))
def test_a_copy_with_another_body_is_unequal(told: Steps, which: int) -> None:
    record = go_on(Story(), told).record()
    original = record.messages[which % len(record.messages)]
    copy = received(record.ended, original, reason="another")
    assert found(dataclasses.replace(record, messages=(*record.messages, copy))) == {"unequal"}


@few
@given(some_steps, classes, classes, some_steps)
def test_a_seq_that_goes_back_is_disordered(before: Steps, one: Class, two: Class, then: Steps) -> None:
    story = go_on(Story(), before)
    first, second = story.change("host-1", one), story.change("host-1", two)
    assume(first is not None and second is not None)
    assert first is not None
    assert second is not None
    messages = [
        second if message is first else first if message is second else message
        for message in go_on(story, then).record().messages
    ]
    assert "disordered" in found(dataclasses.replace(story.record(), messages=tuple(messages)))


@pytest.mark.parametrize(("late", "kinds"), [(WINDOW, set()), (WINDOW + 1, {"disordered"})])
def test_one_window_of_a_lead_that_ended_may_come_late(late: int, kinds: set[str]) -> None:
    """It is stale, and a consumer applies none of it."""
    story = Story()
    story.change("host-1", Class.USABLE, pause=8.0)
    old, seq = story.epoch, story.seq
    story.take_over()
    new, own = story.epoch, story.seq
    story.epoch, story.seq = old, seq
    for _ in range(late):
        story.publish("host-2", Class.UNUSABLE, story.now, oper="UPDATE")
        story.applied.pop()
    story.epoch, story.seq = new, own
    verdict = check(story.record())
    assert {finding.kind for finding in verdict.findings} == kinds
    assert verdict.figures["messages of an ended lead"] == late


@few
@given(some_steps, some_steps)
def test_a_stale_epoch_that_was_applied_is_found(before: Steps, then: Steps) -> None:
    """Of any key: consumers apply nothing of a lower epoch."""
    story = go_on(Story(), before)
    old = story.epoch
    story.take_over()
    body = {"key": f"host-2.{VCENTER}", "fq_name": [VCENTER], "epoch": old, "seq": story.seq + 5}
    story.applied.append(Applied(story.now, body))
    assert found(go_on(story, then).record()) == {"stale"}


def test_an_epoch_that_was_taken_twice_is_found() -> None:
    story = Story()
    story.terms.append(Term("b", 2, story.epoch, BEGAN + 1))
    assert "stale" in found(story.record())


# --- the leads -----------------------------------------------------------------------------------------------------


@few
@given(some_steps, st.booleans())
def test_writes_of_a_lead_that_ended_are_found_beyond_one_per_worker(told: Steps, too_many: bool) -> None:
    story = go_on(Story(), told)
    deposed = story.leader
    story.take_over()
    story.now += 5.0
    for _ in range(WORKERS + too_many):
        story.write(deposed)
    assert found(story.record()) == ({"unled"} if too_many else set())


def test_one_that_does_not_know_yet_that_it_was_deposed_counts_as_deposed() -> None:
    """It was frozen: by its own log it leads still."""
    story = Story()
    story.now += 10.0
    story.terms.append(Term("b", 2, story.epoch + 1, story.now))
    story.now += 5.0
    for _ in range(WORKERS + 1):
        story.write("a")
    verdict = check(story.record())
    assert verdict.counts["unled"] == 1
    assert "a called Resolve at +15.00 s; its epoch" in verdict.findings[0].text


def test_a_write_of_one_that_never_led_is_found() -> None:
    story = Story()
    story.now += 5.0
    story.write("b")
    assert found(story.record()) == {"unled"}


def test_a_write_of_somebody_else_is_nobodys_affair() -> None:
    story = Story()
    story.write()
    entry = story.journal[-1]
    story.journal[-1] = dataclasses.replace(entry, fields={**entry.fields, "client": "127.0.0.1"})
    story.terms.clear()
    assert "unled" not in found(story.record())


def test_an_instance_that_ended_by_itself_is_found_in_its_own_run_alone() -> None:
    story = Story()
    story.instances.append(Instance("a", 9, CLIENTS["a"], BEGAN, BEGAN + 1, "died"))
    story.instances.append(Instance("a", 8, CLIENTS["a"], BEGAN - 9, BEGAN - 1, "died"))
    assert check(story.record()).counts["died"] == 1


# --- convergence ---------------------------------------------------------------------------------------------------


@few
@given(some_steps, classes)
def test_a_host_that_was_not_told_in_the_end_has_not_converged(told: Steps, last: Class) -> None:
    story = go_on(Story(), told)
    before = len(story.messages)
    assume(story.change("host-1", last) is not None)
    record = story.record()
    record = dataclasses.replace(record, messages=record.messages[:before])
    assert found(record) >= {"lost", "unconverged"}
    (words,) = unconverged(record.journal, record.messages)
    assert "esx-host-1" in words
    assert f"is {last}" in words


@pytest.mark.parametrize(("seconds", "kinds"), [(29.9, set()), (30.1, {"unconverged"})])
def test_thirty_seconds_after_the_last_fault_it_is_too_late(seconds: float, kinds: set[str]) -> None:
    story = Story()
    story.change("host-1", Class.USABLE, pause=8.0)
    story.unseen("host-2", Class.UNUSABLE)
    story.change("host-1", Class.RESTING)
    record = story.record()
    *messages, last = record.messages
    late = received(record.healed + seconds, last)
    record = dataclasses.replace(record, messages=(*messages, late), ended=record.healed + 60.0)
    assert found(record) == kinds
    assert check(record).figures["convergence seconds"] == pytest.approx(seconds)


def test_while_it_waits_the_rig_learns_who_is_not_told() -> None:
    story = Story()
    story.change("host-1", Class.USABLE)
    story.happen("host-2", Class.UNUSABLE)
    story.happen("host-3", Class.GONE)
    assert unconverged(story.journal, story.messages) == ["esx-host-2 (host-2) is unusable, the bus says nothing"]
    story.tell("host-2", story.now)
    assert unconverged(story.journal, story.messages) == []


def test_a_snapshot_that_came_whole_tells_who_is_gone_and_no_other_does() -> None:
    """How a lost deletion is healed."""
    story = Story()
    story.change("host-1", Class.USABLE)
    story.change("host-2", Class.USABLE)
    story.happen("host-2", Class.GONE)
    assert len(unconverged(story.journal, story.messages)) == 1
    story.told["host-2"] = Class.GONE
    story.snapshot()
    assert unconverged(story.journal, story.messages) == []
    item = story.messages[-2]
    assert item.body["snapshot"]["phase"] == "ITEM"
    (words,) = unconverged(story.journal, [one for one in story.messages if one is not item])
    assert "esx-host-2" in words


def test_a_host_out_of_scope_is_nobodys_affair() -> None:
    story = Story()
    story.happen("host-1", Class.USABLE)
    story.journal[-1].fields.update(agent=None, vm=None, compute_resource="domain-c9")  # type: ignore[attr-defined]
    assert found(story.record()) >= {"lost", "unconverged"}
    assert check(story.record(), scope={"domain-c1"}).ok


def test_a_class_has_a_word_and_a_truth_in_these_stories() -> None:
    """Or hypothesis would tell less than it seems."""
    for of in Class:
        assert checkers.class_of_state(WORDS[of]) is of
        assert checkers.class_of_truth(truth_of(of)) is of
