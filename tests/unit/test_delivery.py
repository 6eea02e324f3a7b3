# SPDX-License-Identifier: Apache-2.0
"""From the fleet to the outbox while we lead: design section 6. The outbox is the real one, on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.facts import CLUSTER, VCENTER, a_cluster, a_host, a_vm, an_agency, an_agent
from tests.support.outboxes import rot
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.delivery import Delivery
from vcenter_eam_plugin.domain.errors import Unavailable
from vcenter_eam_plugin.domain.facts import VmPower
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.observations import AgencyObserved, AgentsObserved, InventoryObserved, Observation
from vcenter_eam_plugin.domain.status import ContrailVm, State
from vcenter_eam_plugin.leadership import HostSays

HOUR = 3600.0


class SickOutbox(Outbox):
    """The outbox, and a disk that can be full."""

    full = False
    at_work = 0
    within: Callable[[], None] | None = None
    """What happens while a piece is taken in: the outbox lets other greenlets run in between."""

    def take_epoch(self, elected: int | None = None) -> int:
        self._check()
        return super().take_epoch(elected)

    def accept(self, statuses):  # type: ignore[no-untyped-def]
        self._check()
        self.at_work += 1
        assert self.at_work == 1, "two at once, and no telling which is later"
        happens, self.within = self.within, None
        if happens is not None:
            happens()
        try:
            return super().accept(statuses)
        finally:
            self.at_work -= 1

    def drop_unsent(self) -> int:
        self._check()
        return super().drop_unsent()

    def _check(self) -> None:
        if self.full:
            raise Unavailable("The outbox cannot be written: the disk is full.")


class PublisherStub:
    """What delivery asks of the publisher: to be woken, and to speak only while we lead."""

    def __init__(self) -> None:
        self.speaking = True  # as the real one, unless it is told to be silent
        self.woken = 0
        self.torn = False

    def wake(self) -> None:
        self.woken += 1

    def pause(self) -> None:
        self.speaking = False

    def resume(self) -> None:
        self.speaking = True

    def take_torn(self) -> bool:
        torn, self.torn = self.torn, False
        return torn


class Bench:
    """A fleet of two hosts, an outbox on disk, and a clock and a leadership that the test moves."""

    def __init__(self, path: Path, snapshot_seconds: float = HOUR) -> None:
        self.now = 1000.0
        self.leader = True
        self.outbox = SickOutbox(path, vcenter_uuid=VCENTER, publisher="p1", now=lambda: 1_700_000_000.0 + self.now)
        self.publisher = PublisherStub()
        self.fleet = Fleet(VCENTER, [CLUSTER], self.outbox.last_accepted())
        log = logging.getLogger("test.delivery")
        self.alarms = Alarms(log, lambda: self.now)
        self.delivery = Delivery(
            self.fleet,
            self.outbox,
            self.publisher,  # type: ignore[arg-type]
            leadership=HostSays(lambda: self.leader, "us", log),
            snapshot_seconds=snapshot_seconds,
            clock=lambda: self.now,
            alarms=self.alarms,
            log=log,
        )

    def see(self, *observations: Observation) -> tuple[ContrailVm, ...]:
        changed: tuple[ContrailVm, ...] = ()
        for observation in observations:
            changed = self.fleet.apply(observation)
            self.delivery.publish(changed)
        return changed

    def see_everything(self, *numbers: int) -> None:
        self.see(
            AgencyObserved(1.0, an_agency(), tuple(f"agent-{n}" for n in numbers)),
            AgentsObserved(tuple(an_agent(n) for n in numbers)),
            InventoryObserved(
                2.0, (a_cluster(),), tuple(a_host(n) for n in numbers), tuple(a_vm(n) for n in numbers), complete=True
            ),
        )

    def power_off(self, number: int) -> None:
        self.now += 1
        self.see(InventoryObserved(self.now, vms=(a_vm(number, power=VmPower.POWERED_OFF),)))

    def sent(self) -> list[str]:
        """Everything that waits, in order, as the broker would confirm it: the event words of the routing keys."""
        events = []
        while rows := self.outbox.pending(100):
            events += [row.routing_key.split(".")[1] + " " + row.routing_key.split(".")[3] for row in rows]
            self.outbox.confirm(rows)
        return events


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "outbox.sqlite")
    yield bench
    bench.outbox.close()


SNAPSHOT = ["sync -", "sync host-1", "sync host-2", "sync -"]


def test_nothing_leaves_before_everything_was_read_and_we_lead(bench: Bench) -> None:
    """A standby holds the same picture and sends nothing; nor does a leader that has not read everything."""
    bench.see(AgencyObserved(1.0, an_agency(), ("agent-1", "agent-2")))
    assert bench.delivery.tick()
    assert bench.outbox.backlog == 0
    bench.leader = False
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.power_off(1)
    assert bench.outbox.backlog == 0
    assert not bench.publisher.speaking


def test_taking_the_lead_compares_the_whole_fleet_and_sends_a_snapshot(bench: Bench) -> None:
    """Everything is new to an empty outbox; the bracket follows the changes."""
    bench.see_everything(1, 2)
    assert bench.outbox.backlog == 0
    assert bench.delivery.tick()
    assert not bench.delivery.tick()
    assert bench.sent() == ["state host-1", "state host-2", *SNAPSHOT]
    assert bench.publisher.speaking
    assert bench.publisher.woken
    assert bench.delivery.leads()


def test_changes_go_out_as_they_are_seen(bench: Bench) -> None:
    """S18: one message per change, none for what stayed."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()
    bench.power_off(2)
    assert bench.sent() == ["state host-2"]
    bench.power_off(2)
    assert bench.sent() == []


def test_a_restart_sends_what_changed_meanwhile_and_no_more(bench: Bench, tmp_path: Path) -> None:
    """Design section 6: unchanged means no change message, changed-while-down means one, gone is a deletion."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()
    bench.outbox.close()
    again = Bench(tmp_path / "outbox.sqlite")
    try:
        again.delivery.tick()
        again.see_everything(2)
        assert again.sent() == ["state host-1", "sync -", "sync host-2", "sync -"]
        assert [s.state for s in again.outbox.last_accepted().values()] == [State.ACTIVE]
    finally:
        again.outbox.close()


def test_a_standby_does_not_say_what_its_earlier_life_left(bench: Bench, tmp_path: Path) -> None:
    """Bug: a leader that was killed and came back as a standby sent its old messages while another led."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.outbox.close()
    again = Bench(tmp_path / "outbox.sqlite")
    try:
        again.leader = False
        assert not again.publisher.speaking, "from the beginning"
        again.delivery.tick()
        assert (again.publisher.speaking, again.outbox.backlog) == (False, 6)
        again.leader = True
        again.delivery.tick()
        assert again.publisher.speaking
    finally:
        again.outbox.close()


def test_a_snapshot_that_was_refused_in_part_is_sent_again(bench: Bench) -> None:
    """Bug: a consumer that missed a deletion kept the ContrailVM until the next hour."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()
    bench.publisher.torn = True
    bench.delivery.tick()
    assert bench.sent() == SNAPSHOT
    bench.delivery.tick()
    assert bench.sent() == []


def test_losing_the_lead_drops_what_is_unsent_and_taking_it_begins_an_epoch(bench: Bench) -> None:
    """Design section 6: what a later leader must not send is gone; our next term tells how it is by then."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()
    first = bench.outbox.epoch
    bench.power_off(1)
    bench.leader = False
    assert not bench.delivery.leads()
    assert not bench.delivery.tick()
    assert (bench.outbox.backlog, bench.publisher.speaking) == (0, False)
    bench.power_off(2)
    assert bench.outbox.backlog == 0
    bench.leader = True
    assert bench.delivery.tick()
    assert bench.outbox.epoch > first
    assert bench.sent() == ["state host-1", "state host-2", *SNAPSHOT]


def test_a_snapshot_hourly_and_on_request(bench: Bench) -> None:
    """Any bound is healed by the next snapshot."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()
    bench.now += HOUR - 1
    bench.delivery.tick()
    assert bench.sent() == []
    bench.now += 1
    bench.delivery.tick()
    assert bench.sent() == SNAPSHOT
    bench.delivery.tick()
    assert bench.sent() == []
    bench.delivery.request_snapshot()
    assert bench.sent() == SNAPSHOT
    bench.leader = False
    bench.delivery.tick()
    bench.delivery.request_snapshot()
    assert bench.sent() == []


def test_no_hourly_snapshot_when_none_is_wanted(tmp_path: Path) -> None:
    """0 sends one at each take of leadership alone."""
    bench = Bench(tmp_path / "outbox.sqlite", snapshot_seconds=0.0)
    bench.delivery.tick()
    bench.see_everything(1, 2)
    assert bench.sent()[-4:] == SNAPSHOT
    bench.now += 100 * HOUR
    bench.delivery.tick()
    assert bench.sent() == []
    bench.outbox.close()


def test_a_full_disk_loses_no_change(bench: Bench) -> None:
    """Promise: at least once of every final state; one alarm meanwhile, and everything is compared after it."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()
    bench.outbox.full = True
    bench.power_off(1)
    bench.delivery.tick()
    assert "outbox" in bench.alarms
    assert bench.sent() == []
    bench.outbox.full = False
    bench.delivery.tick()
    assert "outbox" not in bench.alarms
    assert bench.sent() == ["state host-1", *SNAPSHOT]


def test_leadership_with_a_full_disk_waits_for_it(bench: Bench) -> None:
    """Bug: the error ended the greenlet that looks at leadership, and unsent messages of a lost term stayed."""
    bench.see_everything(1, 2)
    bench.outbox.full = True
    assert not bench.delivery.tick()
    assert "outbox" in bench.alarms
    assert not bench.delivery.leads()
    bench.outbox.full = False
    assert bench.delivery.tick()
    assert "outbox" not in bench.alarms
    bench.sent()
    bench.power_off(1)
    bench.outbox.full, bench.leader = True, False
    bench.delivery.tick()
    assert (bench.delivery.leads(), bench.publisher.speaking) == (False, False)
    bench.outbox.full = False
    bench.delivery.tick()
    assert bench.outbox.backlog == 0
    assert "outbox" not in bench.alarms


@pytest.mark.parametrize("finds", ["the publisher", "a change"])
def test_an_outbox_that_rots_in_use_is_begun_anew_and_everything_is_told(
    bench: Bench, tmp_path: Path, finds: str
) -> None:
    """Whoever's call it is in which the damage shows: every ContrailVM is announced, and the snapshot names them all.

    One that named the changed ones alone would have consumers drop the others.
    """
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()
    epoch = bench.outbox.epoch
    rot(tmp_path / "outbox.sqlite", bench.outbox)
    if finds == "the publisher":
        with pytest.raises(Unavailable, match="begun anew"):
            bench.outbox.pending(10)
    bench.power_off(1)
    bench.delivery.tick()
    assert bench.sent() == ["state host-1", "state host-2", *SNAPSHOT]
    assert bench.outbox.epoch == epoch, "our term goes on"
    assert {s.esxi.moref: s.state for s in bench.outbox.last_accepted().values()} == {
        "host-1": State.POWERED_OFF,
        "host-2": State.ACTIVE,
    }
    bench.delivery.tick()
    (alarm,) = bench.alarms
    assert alarm.name == "outbox-damaged"
    assert str(next(tmp_path.glob("outbox.sqlite.damaged-*"))) in alarm.text


@pytest.mark.parametrize("comparing", [True, False])
def test_what_is_seen_while_the_outbox_is_at_work_is_told_after_it(bench: Bench, comparing: bool) -> None:
    """Bug: the outbox lets others run within a large piece, and then an older state could be taken in after a newer one
    and stand as the truth until the next change."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()
    if comparing:
        bench.delivery.compare_everything()

    def meanwhile() -> None:
        bench.power_off(1)
        bench.outbox.within = lambda: bench.see(InventoryObserved(bench.now, vms=(a_vm(1, power=VmPower.SUSPENDED),)))

    bench.outbox.within = meanwhile
    bench.power_off(2)
    assert {s.esxi.moref: s.state for s in bench.outbox.last_accepted().values()} == {
        "host-1": State.SUSPENDED,
        "host-2": State.POWERED_OFF,
    }


def test_leadership_lost_while_the_outbox_is_at_work_ends_it(bench: Bench) -> None:
    """What was seen after that is not for us to tell."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()

    def meanwhile() -> None:
        bench.leader = False
        bench.power_off(1)

    bench.outbox.within = meanwhile
    bench.power_off(2)
    bench.delivery.tick()
    assert bench.outbox.backlog == 0
    bench.leader = True
    bench.delivery.tick()
    assert bench.sent() == ["state host-1", "state host-2", *SNAPSHOT]


def test_a_trouble_elsewhere_has_everything_compared(bench: Bench) -> None:
    """A change that was lost on its way is found by the next tick."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()
    bench.fleet.apply(InventoryObserved(bench.now, vms=(a_vm(1, power=VmPower.POWERED_OFF),)))
    bench.delivery.tick()
    assert bench.sent() == []
    bench.delivery.compare_everything()
    bench.delivery.tick()
    assert bench.sent() == ["state host-1", *SNAPSHOT]


def test_a_lead_lost_for_a_moment_ends_the_term_and_what_was_seen_meanwhile_is_told(bench: Bench) -> None:
    """S19: between two ticks another may have begun a higher term; ours must not go on with what it did not see."""
    bench.delivery.tick()
    bench.see_everything(1, 2)
    bench.sent()
    first = bench.outbox.epoch
    bench.leader = False
    bench.power_off(1)
    bench.leader = True
    assert not bench.delivery.leads(), "until the next term has begun"
    bench.now += 1
    assert bench.delivery.tick()
    assert bench.delivery.leads()
    assert bench.outbox.epoch > first
    assert "state host-1" in bench.sent()
