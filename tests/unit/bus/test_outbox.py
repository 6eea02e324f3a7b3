# SPDX-License-Identifier: Apache-2.0
"""The outbox: a change, its record and its message are one; nothing is told twice, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from vcenter_eam_plugin.bus.outbox import Outbox, Row
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.errors import ConfigurationError, ProtocolError, Unavailable
from vcenter_eam_plugin.domain.messages import Message, Oper, Phase
from vcenter_eam_plugin.domain.status import Event, State

A, B, C = State.ACTIVE, State.POWERED_OFF, State.FAULTY


class Clock:
    """POSIX seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reopen(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Outbox]]:
    """Opens the same file again, as a restart does; the one before is closed, as by the end of its process."""
    opened: list[Outbox] = []

    def make(*, bound: int = 1000, epoch: bool = True) -> Outbox:
        while opened:
            opened.pop().close()
        outbox = Outbox(tmp_path / "state" / "outbox.db", vcenter_uuid=VCENTER, publisher="p1", now=clock, bound=bound)
        opened.append(outbox)
        if epoch:
            outbox.take_epoch()
        return outbox

    yield make
    while opened:
        opened.pop().close()


@pytest.fixture
def outbox(reopen: Callable[..., Outbox]) -> Outbox:
    return reopen()


def waiting(outbox: Outbox) -> list[Message]:
    """All waiting messages, without offering them: read beside the outbox's own methods."""
    return [messages.decode(body) for (body,) in outbox._db.execute("SELECT body FROM message ORDER BY seq")]


def told(outbox: Outbox) -> list[tuple[str, Oper, Event, State | None, State | None]]:
    return [(str(m.key).split(".")[0], m.oper, m.event, m.old_state, m.state) for m in waiting(outbox)]


def send_all(outbox: Outbox) -> list[Row]:
    sent: list[Row] = []
    while rows := outbox.pending(1000):
        outbox.confirm(rows)
        sent += rows
    return sent


# --- what becomes a message --------------------------------------------------------------------------------


def test_a_change_becomes_one_message_and_no_change_becomes_none(outbox: Outbox) -> None:
    """S18: CREATE, then `state`, then `detail`; the same record again says nothing."""
    outbox.accept([contrail_vm(1, B)])
    assert outbox.accept([contrail_vm(1, B)]) == ()
    outbox.accept([contrail_vm(1, A)])
    (detail,) = outbox.accept([contrail_vm(1, A, "guest tools are old")])
    assert told(outbox) == [
        ("host-1", Oper.CREATE, Event.STATE, None, B),
        ("host-1", Oper.UPDATE, Event.STATE, B, A),
        ("host-1", Oper.UPDATE, Event.DETAIL, A, A),
    ]
    assert (detail.event, detail.old_state, detail.key) == (Event.DETAIL, A, key_of(1))
    assert detail.message_id == waiting(outbox)[2].id


def test_removed_is_told_once_and_a_host_that_returns_is_created_again(outbox: Outbox) -> None:
    outbox.accept([contrail_vm(1)])
    outbox.accept([contrail_vm(1, State.REMOVED)])
    assert outbox.accept([contrail_vm(1, State.REMOVED)]) == ()
    assert outbox.last_accepted() == {}
    outbox.accept([contrail_vm(1)])
    assert told(outbox)[1:] == [
        ("host-1", Oper.DELETE, Event.STATE, A, State.REMOVED),
        ("host-1", Oper.CREATE, Event.STATE, None, A),
    ]


def test_one_key_twice_in_one_call_is_two_changes(outbox: Outbox) -> None:
    """The second is compared with the first, not with what stood before the call."""
    changes = outbox.accept([contrail_vm(1, A), contrail_vm(1, B), contrail_vm(1, B)])
    assert [(change.old_state, change.status.state) for change in changes] == [(None, A), (A, B)]
    assert outbox.last_accepted() == {key_of(1): contrail_vm(1, B)}


def test_the_world_names_what_is_gone(outbox: Outbox) -> None:
    """After any gap, list and diff, deletions included; the DELETE says where the ContrailVM was, and is not active."""
    outbox.reconcile([contrail_vm(1), contrail_vm(2), contrail_vm(3)])
    send_all(outbox)
    changes = outbox.reconcile([contrail_vm(2), contrail_vm(3, B)])
    assert [(change.key, change.status.state) for change in changes] == [(key_of(3), B), (key_of(1), State.REMOVED)]
    gone = waiting(outbox)[1]
    assert (gone.oper, gone.old_state) == (Oper.DELETE, A)
    assert gone.esxi == contrail_vm(1).esxi
    assert gone.vrouter is not None
    assert not gone.vrouter.active
    assert set(outbox.last_accepted()) == {key_of(2), key_of(3)}


# --- restart -------------------------------------------------------------------------------------------------


def test_a_restart_tells_only_what_changed_while_down(reopen: Callable[..., Outbox]) -> None:
    """P12: unchanged means no message, changed-while-down means one, gone-while-down a DELETE."""
    world = [contrail_vm(host) for host in range(50)]
    first = reopen()
    first.reconcile(world)
    send_all(first)
    assert reopen().reconcile(world) == ()
    changes = reopen().reconcile([contrail_vm(0, B), *world[2:]])
    assert [(change.key, change.status.state) for change in changes] == [(key_of(0), B), (key_of(1), State.REMOVED)]


def test_what_was_not_confirmed_goes_out_again_as_the_same_bytes(reopen: Callable[..., Outbox]) -> None:
    """P1, P4: a kill between publish and confirm leaves a duplicate with the same id and body, never a loss."""
    first = reopen()
    first.accept([contrail_vm(1), contrail_vm(2)])
    offered = first.pending(10)
    first.confirm(offered[:1])
    assert reopen().pending(10) == offered[1:]


def test_seq_and_epoch_grow_over_restart_even_when_the_clock_goes_back(
    reopen: Callable[..., Outbox], clock: Clock
) -> None:
    """P3, P5: a confirmed row frees no seq, and a term is never given out twice."""
    first = reopen()
    epoch = first.epoch
    assert epoch == int(clock.now * 1000)
    first.accept([contrail_vm(1)])
    (sent,) = send_all(first)
    clock.now -= 3600
    second = reopen()
    assert second.epoch == epoch + 1
    second.accept([contrail_vm(1, B)])
    (row,) = second.pending(1)
    assert row.seq == sent.seq + 1
    clock.now += 7200
    assert second.take_epoch() == int(clock.now * 1000)


def test_without_a_term_nothing_is_taken_in(reopen: Callable[..., Outbox]) -> None:
    outbox = reopen(epoch=False)
    with pytest.raises(RuntimeError, match="take_epoch"):
        outbox.accept([contrail_vm(1)])
    assert outbox.last_accepted() == {}


# --- one transaction ------------------------------------------------------------------------------------------


def test_a_call_that_fails_in_the_middle_changes_nothing(outbox: Outbox) -> None:
    """P2: neither file nor memory keeps half a call."""
    outbox.accept([contrail_vm(1)])

    def broken() -> Iterator[object]:
        yield contrail_vm(1, B)
        yield contrail_vm(2)
        raise LookupError

    with pytest.raises(LookupError):
        outbox.accept(broken())  # type: ignore[arg-type]
    assert told(outbox) == [("host-1", Oper.CREATE, Event.STATE, None, A)]
    assert outbox.last_accepted() == {key_of(1): contrail_vm(1)}
    assert len(outbox.accept([contrail_vm(1, B)])) == 1


def test_a_full_disk_is_one_sentence_and_heals(outbox: Outbox) -> None:
    """Disk full while accepting: Unavailable, nothing half done, and the same change is taken in later."""
    outbox.accept([contrail_vm(0)])
    pages = outbox._db.execute("PRAGMA page_count").fetchone()[0]
    outbox._db.execute(f"PRAGMA max_page_count = {pages}")
    world = [contrail_vm(host, reason="x" * 2000) for host in range(20)]
    with pytest.raises(Unavailable, match=r"outbox\.db cannot be used: database or disk is full.*Check the free space"):
        outbox.accept(world)
    assert set(outbox.last_accepted()) == {key_of(0)}
    outbox._db.execute("PRAGMA max_page_count = 1000000")
    assert len(outbox.accept(world)) == 20


def test_many_records_let_others_run_and_a_second_call_waits(outbox: Outbox) -> None:
    """2,500 hosts at once do not hold the event loop, and what comes meanwhile is taken in after them, not between."""
    turns = 0

    def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    ticking = gevent.spawn(tick)
    first = gevent.spawn(outbox.reconcile, [contrail_vm(host) for host in range(2500)])
    second = gevent.spawn(outbox.accept, [contrail_vm(7, B)])
    rows = gevent.spawn(outbox.pending, 1)
    gevent.joinall([first, second, rows], raise_error=True)
    ticking.kill()
    assert turns >= 25
    assert [(change.key, change.old_state) for change in second.value] == [(key_of(7), A)]
    assert [row.key for row in rows.value] == [key_of(0)]
    assert outbox.last_accepted()[key_of(7)].state is B


def test_a_greenlet_killed_in_the_middle_changes_nothing(outbox: Outbox) -> None:
    big = gevent.spawn(outbox.accept, [contrail_vm(host) for host in range(1000)])
    gevent.sleep(0)
    big.kill()
    assert (outbox.backlog, outbox.last_accepted()) == (0, {})
    assert len(outbox.accept([contrail_vm(1)])) == 1


# --- quarantine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poison", "why"),
    [
        (contrail_vm(2, reason="\ud800"), "surrogates"),
        (contrail_vm(2, reason=object()), "unsupported"),  # type: ignore[arg-type]
        (contrail_vm(2, reason=7), "Expected `str`"),  # type: ignore[arg-type]
        (contrail_vm("x" * 250), "routing key"),
    ],
)
def test_what_cannot_be_encoded_never_blocks_the_rest(
    outbox: Outbox, poison: object, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out, reported once by key, and forgotten when the key's next record is in order."""
    key = poison.key  # type: ignore[attr-defined]
    for _ in range(2):
        outbox.accept([contrail_vm(1), poison, contrail_vm(3)])  # type: ignore[list-item]
    assert [name for name, *_ in told(outbox)] == ["host-1", "host-3"]
    assert list(outbox.quarantined) == [key]
    assert why in outbox.quarantined[key]
    assert len(caplog.records) == 1
    if key == key_of(2):
        outbox.accept([contrail_vm(2)])
        assert outbox.quarantined == {}
        assert len(waiting(outbox)) == 3


def test_a_poisoned_record_does_not_make_its_key_look_removed(outbox: Outbox) -> None:
    """In a reconcile it is named, so no DELETE follows: consumers keep its last good state."""
    outbox.reconcile([contrail_vm(1), contrail_vm(2)])
    assert outbox.reconcile([contrail_vm(1), contrail_vm(2, reason="\udfff")]) == ()
    assert outbox.last_accepted()[key_of(2)] == contrail_vm(2)


# --- giving out -------------------------------------------------------------------------------------------------


def test_a_batch_holds_one_message_per_key_in_order(outbox: Outbox) -> None:
    """P3: a refused message is not overtaken by a later one of its key, since that is never in the same batch."""
    outbox.accept([contrail_vm(1, A), contrail_vm(2, A), contrail_vm(1, B), contrail_vm(3, A)])
    first = outbox.pending(10)
    assert [row.key for row in first] == [key_of(1), key_of(2)]
    assert outbox.pending(1) == first[:1]
    outbox.confirm(first)
    assert [row.key for row in outbox.pending(10)] == [key_of(1), key_of(3)]


def test_held_keys_wait_and_the_others_go_on(outbox: Outbox) -> None:
    outbox.accept([contrail_vm(1, A), contrail_vm(2, A), contrail_vm(1, B), contrail_vm(3, A)])
    assert [row.key for row in outbox.pending(10, held=[key_of(1)])] == [key_of(2), key_of(3)]


def test_what_is_on_its_way_is_not_given_out_again_and_not_overtaken(outbox: Outbox) -> None:
    """P3: while a message may still be refused, nothing of its key follows it, nor what comes after that."""
    outbox.accept([contrail_vm(1, A), contrail_vm(2, A), contrail_vm(3, A), contrail_vm(1, B), contrail_vm(4, A)])
    first = outbox.pending(2)
    assert [row.key for row in first] == [key_of(1), key_of(2)]
    second = outbox.pending(10, on_their_way=first)
    assert [row.key for row in second] == [key_of(3)]
    outbox.confirm(first[:1])
    third = outbox.pending(10, on_their_way=[first[1], *second])
    assert [row.key for row in third] == [key_of(1), key_of(4)]
    assert [row.key for row in outbox.pending(10)] == [key_of(2), key_of(3), key_of(1), key_of(4)]


def test_a_snapshot_begins_and_ends_when_nothing_is_on_its_way(outbox: Outbox) -> None:
    """Its END counts items: one that is on its way may yet be refused, and so may what stood before its BEGIN."""
    outbox.accept([contrail_vm(1)])
    outbox.snapshot()
    change = outbox.pending(10)
    assert [row.event for row in change] == [Event.STATE]
    assert outbox.pending(10, on_their_way=change) == []
    outbox.confirm(change)
    begin = outbox.pending(1)
    item = outbox.pending(10, on_their_way=begin)
    assert [row.key for row in (*begin, *item)] == [None, key_of(1)]
    outbox.confirm(begin)
    assert outbox.pending(10, on_their_way=item) == []
    outbox.confirm(item)
    assert [row.key for row in outbox.pending(10)] == [None]


def test_backlog_and_age(outbox: Outbox, clock: Clock) -> None:
    assert (outbox.backlog, outbox.oldest_unsent_age) == (0, None)
    outbox.accept([contrail_vm(1)])
    clock.now += 12.5
    outbox.accept([contrail_vm(2)])
    assert (outbox.backlog, outbox.oldest_unsent_age) == (2, 12.5)


# --- the bound --------------------------------------------------------------------------------------------------


def test_above_the_bound_the_newest_state_stands_for_those_before_it(reopen: Callable[..., Outbox]) -> None:
    """The count says how many it swallowed, and old_state is what consumers really hold."""
    outbox = reopen(bound=1)
    outbox.accept([contrail_vm(1, A)])
    send_all(outbox)
    for state in (B, C, State.MISSING, State.DEPLOYING):
        outbox.accept([contrail_vm(1, state)])
    (message,) = waiting(outbox)
    assert (message.old_state, message.state, message.coalesced) == (A, State.DEPLOYING, 3)


def test_what_came_earlier_in_the_same_call_is_swallowed_too(reopen: Callable[..., Outbox]) -> None:
    """It is not in the file yet when the next of its key comes."""
    outbox = reopen(bound=0)
    outbox.accept([contrail_vm(1, A)])
    send_all(outbox)
    outbox.accept([contrail_vm(1, B), contrail_vm(2, A), contrail_vm(1, C)])
    assert [(m.key, m.old_state, m.state, m.coalesced) for m in waiting(outbox)] == [
        (key_of(2), None, A, 0),
        (key_of(1), A, C, 1),
    ]


def test_coalescing_back_to_what_was_sent_says_nothing_at_all(reopen: Callable[..., Outbox]) -> None:
    """Else two `state` messages of equal state would stand side by side."""
    outbox = reopen(bound=0)
    outbox.accept([contrail_vm(1, A)])
    send_all(outbox)
    outbox.accept([contrail_vm(1, B)])
    (change,) = outbox.accept([contrail_vm(1, A)])
    assert (change.event, change.old_state, change.message_id, change.seq) == (Event.STATE, B, None, None)
    assert waiting(outbox) == []
    outbox.accept([contrail_vm(1, B)])
    outbox.accept([contrail_vm(1, A, "new reason")])
    assert told(outbox) == [("host-1", Oper.UPDATE, Event.DETAIL, A, A)]


def test_a_delete_is_never_coalesced(reopen: Callable[..., Outbox]) -> None:
    outbox = reopen(bound=0)
    for state in (A, State.REMOVED, B, C, State.REMOVED, A, B):
        outbox.accept([contrail_vm(1, state)])
    assert [(oper, old, new) for _, oper, _, old, new in told(outbox)] == [
        (Oper.CREATE, None, A),
        (Oper.DELETE, A, State.REMOVED),
        (Oper.CREATE, None, C),
        (Oper.DELETE, C, State.REMOVED),
        (Oper.CREATE, None, B),
    ]


def test_what_was_offered_stays_even_over_a_restart(reopen: Callable[..., Outbox]) -> None:
    """It may have arrived: replacing it would leave consumers with a state that nothing ever takes back."""
    outbox = reopen(bound=0)
    outbox.accept([contrail_vm(1, A)])
    send_all(outbox)
    outbox.accept([contrail_vm(1, B)])
    (offered,) = outbox.pending(10)
    outbox = reopen(bound=0)
    outbox.accept([contrail_vm(1, C)])
    outbox.accept([contrail_vm(1, A)])
    assert [(old, new) for *_, old, new in told(outbox)] == [(A, B), (B, A)]
    assert outbox.pending(10) == [offered]


# --- snapshot ---------------------------------------------------------------------------------------------------


def test_a_snapshot_is_a_bracket_with_everybody_in_it(outbox: Outbox) -> None:
    outbox.accept([contrail_vm(2, B), contrail_vm(1)])
    send_all(outbox)
    snapshot_id = outbox.snapshot()
    rows = send_all(outbox)
    found = [messages.decode(row.body) for row in rows]
    assert [(m.oper, m.snapshot.phase, m.key, m.state) for m in found if m.snapshot] == [
        (Oper.SYNC, Phase.BEGIN, None, None),
        (Oper.SYNC, Phase.ITEM, key_of(1), A),
        (Oper.SYNC, Phase.ITEM, key_of(2), B),
        (Oper.SYNC, Phase.END, None, None),
    ]
    assert {(m.snapshot.id, m.snapshot.count) for m in found if m.snapshot} == {(snapshot_id, 2)}
    assert [row.routing_key for row in rows] == [
        "contrailvm.sync.-.-",
        "contrailvm.sync.domain-c7.host-1",
        "contrailvm.sync.domain-c7.host-2",
        "contrailvm.sync.-.-",
    ]
    assert outbox.reconcile([contrail_vm(2, B), contrail_vm(1)]) == ()


def test_the_end_is_never_sent_together_with_what_it_counts(outbox: Outbox) -> None:
    """A key that still waits for an older message of its own must not be overtaken by the END."""
    outbox.accept([contrail_vm(1, A), contrail_vm(1, B), contrail_vm(1, C)])
    outbox.snapshot()
    phases = []
    while rows := outbox.pending(100):
        outbox.confirm(rows)
        phases.append([(m.snapshot.phase if m.snapshot else m.state) for m in (messages.decode(r.body) for r in rows)])
    assert phases == [[A], [B], [C], [Phase.BEGIN, Phase.ITEM], [Phase.END]]


def test_a_new_snapshot_replaces_one_that_still_waits(outbox: Outbox) -> None:
    """A broker that is away for a week finds one snapshot, not 168."""
    outbox.accept([contrail_vm(1)])
    for _ in range(5):
        last = outbox.snapshot()
    assert [m.snapshot.id for m in waiting(outbox) if m.snapshot] == [last] * 3


def test_a_snapshot_is_a_wall_for_coalescing(reopen: Callable[..., Outbox]) -> None:
    """A sent, B waits, a snapshot says B, A again: saying nothing would leave consumers with the snapshot's B."""
    outbox = reopen(bound=0)
    outbox.accept([contrail_vm(1, A)])
    send_all(outbox)
    outbox.accept([contrail_vm(1, B)])
    outbox.snapshot()
    outbox.accept([contrail_vm(1, A)])
    assert [(m.old_state, m.state) for m in waiting(outbox) if m.event is Event.STATE] == [(A, B), (B, A)]


# --- leadership ---------------------------------------------------------------------------------------------------


def test_dropping_the_unsent_makes_the_next_reconcile_tell_it_again(outbox: Outbox) -> None:
    """Leadership lost: nothing more goes out; leading again, what nobody was told is told, and nothing twice."""
    outbox.accept([contrail_vm(1, A), contrail_vm(2, A), contrail_vm(3, A)])
    send_all(outbox)
    outbox.accept([contrail_vm(1, B), contrail_vm(1, C), contrail_vm(2, State.REMOVED), contrail_vm(4)])
    assert outbox.drop_unsent() == 4
    assert outbox.pending(10) == []
    outbox.take_epoch()
    outbox.reconcile([contrail_vm(1, C), contrail_vm(3, A), contrail_vm(4)])
    assert told(outbox) == [
        ("host-1", Oper.UPDATE, Event.STATE, A, C),
        ("host-4", Oper.CREATE, Event.STATE, None, A),
        ("host-2", Oper.DELETE, Event.STATE, A, State.REMOVED),
    ]


def test_dropping_what_was_offered_leaves_it_as_told(outbox: Outbox) -> None:
    """It may have arrived; telling it again under a new id would repeat it. The snapshot at take-over heals a loss."""
    outbox.accept([contrail_vm(1, A)])
    outbox.pending(1)
    assert outbox.drop_unsent() == 1
    assert outbox.reconcile([contrail_vm(1, A)]) == ()


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_directory_that_cannot_be_made_is_one_sentence(reopen: Callable[..., Outbox], tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the way")
    with pytest.raises(Unavailable, match=r"cannot be used.*Check the free space and the permissions"):
        reopen()


def test_two_on_one_file_is_refused(outbox: Outbox, tmp_path: Path, clock: Clock) -> None:
    """Two would give seq out twice."""
    with pytest.raises(ConfigurationError, match="in use by another process"):
        Outbox(tmp_path / "state" / "outbox.db", vcenter_uuid=VCENTER, publisher="p2", now=clock)
    assert len(outbox.accept([contrail_vm(1)])) == 1


def test_the_file_of_another_vcenter_is_refused(reopen: Callable[..., Outbox], tmp_path: Path, clock: Clock) -> None:
    """Else a wrong vc_host would publish the removal of every ContrailVM."""
    reopen().close()
    with pytest.raises(ConfigurationError, match="belongs to vCenter 52f3b0a1"):
        Outbox(
            tmp_path / "state" / "outbox.db",
            vcenter_uuid="00000000-0000-4000-8000-000000000000",
            publisher="p1",
            now=clock,
        )


def test_a_vcenter_without_uuid_is_refused(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(ProtocolError, match="no instanceUuid"):
        Outbox(tmp_path / "o.db", vcenter_uuid="vcenter", publisher="p1", now=clock)
