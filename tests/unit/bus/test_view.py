# SPDX-License-Identifier: Apache-2.0
"""What a consumer must do with the stream, whatever order and however often it comes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from vcenter_eam_plugin.bus.view import Applied, Deduplicator, View
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.messages import Message, Stamp
from vcenter_eam_plugin.domain.status import Event, State

OTHER_VCENTER = "00000000-0000-4000-8000-000000000000"


def stamp(seq: int, epoch: int = 10, vcenter: str = VCENTER) -> Stamp:
    return Stamp(vcenter_uuid=vcenter, publisher="p", epoch=epoch, seq=seq, timestamp=0)


def received(message: Message) -> dict[str, Any]:
    """As it comes off the bus."""
    body: dict[str, Any] = json.loads(messages.encode(message))
    return body


def said(host: int, seq: int, state: State = State.ACTIVE, epoch: int = 10) -> dict[str, Any]:
    message = messages.state_message(
        stamp(seq, epoch), contrail_vm(host, state), event=Event.STATE, old_state=State.PENDING
    )
    return received(message)


def bracket(seq: int, hosts: list[int], epoch: int = 10, name: str = "s1") -> list[dict[str, Any]]:
    """A snapshot that names ``hosts``, from position ``seq`` on."""
    count = len(hosts)
    items = [
        messages.snapshot_item(stamp(seq + n, epoch), contrail_vm(host), name, count)
        for n, host in enumerate(hosts, start=1)
    ]
    return [
        received(messages.snapshot_begin(stamp(seq, epoch), name, count)),
        *map(received, items),
        received(messages.snapshot_end(stamp(seq + count + 1, epoch), name, count)),
    ]


def apply_all(view: View, stream: list[dict[str, Any]]) -> list[Applied]:
    return [view.apply(message) for message in stream]


def test_the_newest_wins_whatever_comes_last() -> None:
    """P3: `(epoch, seq)` orders all; a higher epoch beats every seq of a lower one."""
    view = View()
    assert view.apply(said(1, 5, State.ACTIVE)).fresh
    assert not view.apply(said(1, 4, State.FAULTY)).fresh
    assert view.apply(said(1, 1, State.MISSING, epoch=11)).fresh
    assert not view.apply(said(1, 99, State.ACTIVE)).fresh
    assert view.states[key_of(1)]["state"] == "MISSING"


def test_a_late_message_does_not_bring_back_what_was_deleted() -> None:
    view = View()
    apply_all(view, [said(1, 1), said(1, 3, State.REMOVED)])
    assert not view.apply(said(1, 2)).fresh
    assert view.states == {}
    assert view.apply(said(1, 4)).fresh


def test_a_snapshot_drops_whom_it_does_not_name() -> None:
    """A lost DELETE is healed."""
    view = View()
    apply_all(view, [said(1, 1), said(2, 2), said(3, 3)])
    *_, end = apply_all(view, bracket(10, [1, 3]))
    assert end == Applied(fresh=True, dropped=(key_of(2),))
    assert set(view.states) == {key_of(1), key_of(3)}


def test_a_snapshot_that_did_not_come_whole_drops_nobody() -> None:
    view = View()
    apply_all(view, [said(1, 1), said(2, 2)])
    begin, first, _, end = bracket(10, [1, 3])
    assert apply_all(view, [begin, first, end])[-1] == Applied(fresh=False)
    assert set(view.states) == {key_of(1), key_of(2)}


def test_who_came_after_the_begin_is_kept_although_not_named() -> None:
    view = View()
    begin, item, end = bracket(10, [1])
    apply_all(view, [begin, item, said(2, 50), end])
    assert set(view.states) == {key_of(1), key_of(2)}


def test_an_item_counts_even_when_newer_news_of_its_key_came_first() -> None:
    view = View()
    begin, item, end = bracket(10, [1])
    assert apply_all(view, [said(1, 99, State.FAULTY), begin, item, end])[-1].fresh
    assert view.states[key_of(1)]["state"] == "FAULTY"


def test_joining_in_the_middle_of_a_snapshot_drops_nobody() -> None:
    view = View()
    apply_all(view, [said(7, 1)])
    _, item, end = bracket(10, [1])
    assert not apply_all(view, [item, end])[-1].fresh
    assert set(view.states) == {key_of(1), key_of(7)}


def test_a_deposed_leader_is_not_believed_after_the_new_ones_snapshot() -> None:
    """P5: it may not bring back what the new leader's snapshot did not name, nor drop anybody with its own."""
    view = View()
    apply_all(view, [said(1, 1), said(2, 2), *bracket(10, [1], epoch=20)])
    assert not view.apply(said(2, 500, State.FAULTY, epoch=10)).fresh
    stale = bracket(900, [2], epoch=10, name="old")
    assert not any(applied.fresh for applied in apply_all(view, stale))
    assert set(view.states) == {key_of(1)}


def test_a_deposed_leader_is_not_believed_from_the_new_ones_first_word_on() -> None:
    """P5: what it had under way may come before the new one has told of that ContrailVM, and is stale all the same."""
    view = View()
    apply_all(view, [said(1, 1), said(2, 2)])
    begin, *rest = bracket(10, [1, 2], epoch=20)
    assert view.apply(begin).fresh
    assert not view.apply(said(2, 500, State.FAULTY, epoch=10)).fresh
    assert [applied.fresh for applied in apply_all(view, rest)] == [True, True, True]
    assert view.states[key_of(2)]["state"] == "ACTIVE"


def test_the_epochs_of_one_vcenter_say_nothing_about_another() -> None:
    view = View()
    assert view.apply(received(messages.snapshot_begin(stamp(1, epoch=20, vcenter=OTHER_VCENTER), "s9", 0))).fresh
    assert view.apply(said(1, 1, epoch=10)).fresh


def test_the_snapshot_of_one_vcenter_says_nothing_about_another() -> None:
    view = View()
    apply_all(view, [said(1, 1)])
    begin = messages.snapshot_begin(stamp(50, vcenter=OTHER_VCENTER), "s9", 0)
    end = messages.snapshot_end(stamp(51, vcenter=OTHER_VCENTER), "s9", 0)
    assert apply_all(view, [received(begin), received(end)])[-1] == Applied(fresh=True)
    assert set(view.states) == {key_of(1)}


@pytest.mark.parametrize("broken", [{}, {"epoch": "x", "seq": 1}, {"epoch": 1, "seq": 2, "fq_name": []}])
def test_what_is_no_message_of_ours_is_an_error_and_changes_nothing(broken: dict[str, Any]) -> None:
    view = View()
    with pytest.raises((KeyError, TypeError, ValueError, IndexError)):
        view.apply(broken)
    assert view.states == {}


def test_the_memory_of_ids_is_bounded() -> None:
    seen = Deduplicator(memory=3)
    assert [seen.seen(name) for name in "abcabc"] == [False, False, False, True, True, True]
    seen.seen("d")
    assert [seen.seen("d"), seen.seen("a")] == [True, False]


CHANGES = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([State.ACTIVE, State.FAULTY, State.REMOVED])), min_size=1, max_size=12
)


@given(changes=CHANGES, data=st.data())
def test_any_order_and_any_repetition_gives_the_same_view(
    changes: list[tuple[int, State]], data: st.DataObject
) -> None:
    """Consumers can restore order: the end depends on the messages alone."""
    stream = [said(host, seq, state) for seq, (host, state) in enumerate(changes, start=1)]
    mixed = data.draw(st.permutations(stream + stream))
    in_order, out_of_order = View(), View()
    apply_all(in_order, stream)
    apply_all(out_of_order, mixed)
    assert in_order.states == out_of_order.states


@given(known=st.sets(st.integers(1, 5)), real=st.sets(st.integers(1, 5)), data=st.data())
def test_a_snapshot_heals_any_view_even_when_each_message_comes_twice(
    known: set[int], real: set[int], data: st.DataObject
) -> None:
    """Redelivery repeats a run of messages from some point on; the view ends up with whom the snapshot names."""
    view, seen = View(), Deduplicator()
    apply_all(view, [said(host, host) for host in sorted(known)])
    stream = bracket(10, sorted(real))
    lost_confirm = data.draw(st.integers(0, len(stream)))
    again_from = data.draw(st.integers(0, lost_confirm))
    for message in stream[:lost_confirm] + stream[again_from:]:
        if not seen.seen(message["id"]):
            view.apply(message)
    assert set(view.states) == {key_of(host) for host in real}
