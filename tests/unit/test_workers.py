# SPDX-License-Identifier: Apache-2.0
"""The workers: plan anew, act through the gate, and be honest about what failed. Planner, gate and queue are real."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from time import thread_time

import gevent
import pytest

from tests.support.facts import CLUSTER, a_fleet, a_host, an_agency, an_agent
from vcenter_eam_plugin import failpoints
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.domain.actions import Action, CreateAgency, MarkAvailable, Resolve, WriteSettings
from vcenter_eam_plugin.domain.budgets import Ledger, Limits
from vcenter_eam_plugin.domain.errors import ObjectGone, OvfError, PrivilegeMissing, Unavailable, WrongState
from vcenter_eam_plugin.domain.facts import HookState
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.observations import AgencyObserved, InventoryObserved
from vcenter_eam_plugin.domain.planner import Desired, Plan, Planner
from vcenter_eam_plugin.domain.settings_rules import SettingsRules
from vcenter_eam_plugin.gate import Gate
from vcenter_eam_plugin.tally import Tally
from vcenter_eam_plugin.turns import SLICE
from vcenter_eam_plugin.workers import AGENCY_KEY, REFUSED_RETRY, SAME_AGAIN, Workers
from vcenter_eam_plugin.workqueue import WorkQueue


class Actor:
    """Does what the test says: books the action, and fails if the test wants it."""

    def __init__(self) -> None:
        self.done: list[Action] = []
        self.how: Callable[[Action], None] = lambda _: None

    def do(self, action: Action) -> None:
        self.done.append(action)
        self.how(action)


class Bench:
    """Workers over this fleet, in act mode, with a clock that the test moves."""

    def __init__(self, fleet: Fleet) -> None:
        self.now = 5000.0
        self.fleet = fleet
        self.actor = Actor()
        self.leader = True
        self.gate = Gate(act=True, is_leader=lambda: self.leader)
        self.tally = Tally()
        self.refusals: list[str] = []
        self.read: list[str | None] = []
        log = logging.getLogger("test.workers")
        self.alarms = Alarms(log, lambda: self.now)
        desired = Desired(scope=(CLUSTER,), rules=SettingsRules(("*",), ("*",)), power_off_grace=30.0)
        self.planner = Planner(desired, Ledger(Limits()))
        self.queue = WorkQueue(lambda: self.now)
        self.workers = Workers(
            self.queue,
            fleet,
            self.planner,
            self.actor,  # type: ignore[arg-type]
            self.gate,
            agency_refused=self.refusals.append,
            read_soon=self.read.append,
            clock=lambda: self.now,
            alarms=self.alarms,
            log=log,
            tally=self.tally,
        )
        self.greenlet: gevent.Greenlet | None = None

    def work(self, *keys: str) -> list[Action]:
        """Have the worker look at these keys, and at what has fallen due; returns what was done."""
        self.actor.done.clear()
        if self.greenlet is None:
            self.greenlet = gevent.spawn(self.workers.run)
        for host in self.fleet.hosts:
            self.planner.observe(self.fleet, host, self.now)
        for key in keys:
            self.queue.add(key)
        self.queue.add("nothing")  # wakes the worker to look at the clock
        with gevent.Timeout(5):
            while len(self.queue) or self.queue.working:
                gevent.sleep(0)
        return list(self.actor.done)

    def alarm(self, name: str) -> str | None:
        return next((alarm.text for alarm in self.alarms if alarm.name == name), None)


Make = Callable[[Fleet], Bench]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Bench] = []

    def start(fleet: Fleet) -> Bench:
        made.append(Bench(fleet))
        return made[-1]

    yield start
    for bench in made:
        bench.queue.close()
        if bench.greenlet is not None:
            bench.greenlet.get(timeout=5)


def missing() -> Fleet:
    """One host whose ContrailVM is to be deployed again."""
    return a_fleet(a_host(), agents=(an_agent(1, "VmNotDeployed", vm=None),))


def no_agency() -> Fleet:
    fleet = a_fleet(a_host())
    fleet.apply(AgencyObserved(20.0, None))
    return fleet


RESOLVE = Resolve("host-1", "agent-1", "VmNotDeployed")


def test_act_mode_acts_and_observe_mode_only_plans(make: Make) -> None:
    """Design section 1: observe mode watches and plans, and changes nothing until it is activated."""
    bench = make(missing())
    bench.gate = bench.workers._gate = Gate(act=False, is_leader=lambda: True)
    assert bench.work(AGENCY_KEY, "host-1") == []
    assert bench.workers.plan() == {"host-1": Plan((RESOLVE,))}
    bench.gate.activate()
    bench.workers.look_at_everything()
    assert bench.work() == [RESOLVE]


def test_paused_or_not_leading_does_nothing(make: Make) -> None:
    """`pause` stops acting at any time; a standby does not act."""
    bench = make(missing())
    bench.gate.pause()
    assert bench.work("host-1") == []
    bench.gate.activate()
    bench.leader = False
    assert bench.work("host-1") == []
    bench.leader = True
    assert bench.work("host-1") == [RESOLVE]


def test_the_failpoint_after_a_plan_lies_before_its_first_action(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: and where nothing may be done there is nothing to die between."""
    bench = make(missing())
    done_by_then: list[int] = []
    monkeypatch.setattr(
        failpoints, "reach", lambda point: done_by_then.append(len(bench.actor.done)) if point == "after-plan" else None
    )
    bench.leader = False
    bench.work("host-1")
    assert done_by_then == []
    bench.leader = True
    assert bench.work("host-1") == [RESOLVE]
    assert done_by_then == [0]


def test_what_became_of_each_plan_is_counted(make: Make) -> None:
    """Metrics: refused by the gate, carried out, failed, postponed; nothing to do counts as nothing."""
    bench = make(missing())
    bench.leader = False
    bench.work("host-1")
    bench.leader = True
    bench.work("host-1")
    bench.work("host-1")  # EAM does not show an effect yet
    bench.now += SAME_AGAIN + 1
    bench.actor.how = raising(Unavailable("EAM is starting."))
    bench.work("host-1")
    bench.work("elsewhere")
    assert bench.tally.plans["refused"] == 1
    assert bench.tally.plans["carried out"] == 1
    assert bench.tally.plans["failed"] == 1
    assert bench.tally.plans["postponed"] >= 1
    assert bench.tally.plans["waiting"] == 0


@pytest.mark.parametrize("how", ["pause", "leadership"])
def test_a_gate_that_closes_before_the_write_is_no_failure(make: Make, how: str) -> None:
    """Bug: a pause between plan and write raised an alarm, and for the agency published every host as BLOCKED."""
    bench = make(no_agency())

    def close_the_gate(_: Action) -> None:
        if how == "pause":
            bench.gate.pause()
        else:
            bench.leader = False
        bench.gate.check()

    bench.actor.how = close_the_gate
    assert bench.work(AGENCY_KEY) == [CreateAgency((CLUSTER,))]
    assert list(bench.alarms) == []
    assert bench.refusals == []
    bench.actor.how = lambda _: None
    bench.leader = True
    bench.gate.activate()
    bench.workers.look_at_everything()
    assert bench.work() == [CreateAgency((CLUSTER,))], "at once, without a back-off"


def test_what_time_can_heal_is_tried_again_soon_and_quietly(make: Make) -> None:
    """EAM away for a moment: back-off that doubles, no alarm; the truth is read again meanwhile."""
    bench = make(missing())
    bench.actor.how = raising(Unavailable("EAM is starting."))
    assert bench.work("host-1") == [RESOLVE]
    assert bench.read == ["host-1"]
    assert bench.work("host-1") == [], "not before its time, however often it is added"
    bench.now += 1.3
    assert bench.work() == [RESOLVE]
    bench.now += 1.3
    assert bench.work() == []
    bench.now += 1.3
    bench.actor.how = raising(ObjectGone("The agent is gone."))
    assert bench.work() == [RESOLVE]
    assert list(bench.alarms) == []


def test_what_a_person_must_mend_is_an_alarm_and_tried_rarely(make: Make) -> None:
    """A missing privilege: the sentence as an alarm, tried again after half a minute, over with the first success."""
    bench = make(missing())
    bench.actor.how = raising(PrivilegeMissing("EAM.Modify is missing.", remedy="Grant it."))
    bench.work("host-1")
    assert bench.alarm("act:host-1") == "EAM.Modify is missing. Grant it."
    assert bench.refusals == []
    bench.now += REFUSED_RETRY - 0.1
    assert bench.work("host-1") == []
    assert bench.alarm("act:host-1")
    bench.now += REFUSED_RETRY * 0.5
    bench.actor.how = lambda _: None
    assert bench.work("host-1") == [RESOLVE]
    assert list(bench.alarms) == []


def test_an_agency_that_may_not_be_created_blocks_and_says_why(make: Make) -> None:
    """OVF missing: hosts are BLOCKED with that sentence, and it is tried on."""
    bench = make(no_agency())
    bench.actor.how = raising(OvfError("There is no OVF package."))
    bench.work(AGENCY_KEY)
    assert bench.refusals == ["There is no OVF package."]
    assert bench.alarm("act:agency")
    assert bench.read == [None]
    bench.actor.how = raising(Unavailable("EAM is away."))
    bench.now += 2 * REFUSED_RETRY
    bench.work()
    assert bench.refusals == ["There is no OVF package."], "time heals that one"


def test_a_wrong_state_with_the_gate_open_is_a_failure(make: Make) -> None:
    """A ContrailVM that stands in the scope already: said, and not taken for a pause."""
    bench = make(no_agency())
    bench.actor.how = raising(WrongState("Agent VMs stand in the scope already."))
    bench.work(AGENCY_KEY)
    assert bench.refusals == ["Agent VMs stand in the scope already."]


def test_an_alarm_stays_while_its_cause_waits(make: Make) -> None:
    """Bug: settings refused by vCenter raised an alarm that the next look, a moment later, took back."""
    bench = make(a_fleet(a_host(agent_datastore=None)))

    def refuse(action: Action) -> None:
        bench.planner.settings_refused("host-1", "Host.Config.Settings is missing", bench.now)
        raise PrivilegeMissing("Host.Config.Settings is missing on esx-1.")

    bench.actor.how = refuse
    assert bench.work("host-1") == [WriteSettings("host-1")]
    assert bench.work("host-1") == []
    assert bench.workers.waiting == {"host-1": ("Host.Config.Settings is missing",)}
    assert bench.alarm("act:host-1")
    bench.now += 100
    assert bench.work() == [WriteSettings("host-1")]
    bench.fleet.apply(InventoryObserved(30.0, hosts=(a_host(),)))
    assert bench.work("host-1") == []
    assert list(bench.alarms) == []
    assert bench.workers.waiting == {}


def test_settings_made_by_hand_end_the_alarm(make: Make) -> None:
    """Bug: the alarm that no rule fits asked to set it on the host, and stayed for ever when that was done."""
    bench = make(a_fleet(a_host(agent_network=None)))

    def nothing_fits(_: Action) -> None:
        bench.planner.settings_refused("host-1", "no network fits", bench.now)
        bench.alarms.raise_("agent-vm-settings:host-1", "esx-1: no network fits. Set it on the host.")

    bench.actor.how = nothing_fits
    bench.work("host-1")
    bench.work("host-1")
    assert bench.alarm("agent-vm-settings:host-1")
    bench.fleet.apply(InventoryObserved(30.0, hosts=(a_host(),)))
    bench.work("host-1")
    assert list(bench.alarms) == []


def test_a_host_that_left_leaves_no_alarm(make: Make) -> None:
    """What is said of it goes with it."""
    bench = make(missing())
    bench.actor.how = raising(PrivilegeMissing("EAM.Modify is missing."))
    bench.work("host-1")
    bench.fleet.apply(AgencyObserved(30.0, an_agency(), ()))
    bench.fleet.apply(InventoryObserved(31.0, gone=("host-1",)))
    assert bench.work("host-1") == []
    assert list(bench.alarms) == []


def test_a_grace_time_is_kept_without_anybody_asking(make: Make) -> None:
    """The plan says when to look again, and the queue does."""
    bench = make(a_fleet(a_host(), agents=(an_agent(1, "VmPoweredOff"),)))
    assert bench.work("host-1") == []
    assert bench.workers.waiting["host-1"]
    bench.now += 30.0
    assert bench.work() == [Resolve("host-1", "agent-1", "VmPoweredOff")]


def test_a_refused_mark_has_the_holds_looked_at(make: Make) -> None:
    """Design section 5: on NotAuthorized clear both hold flags instead of looping."""
    bench = make(a_fleet(a_host(), agents=(an_agent(hook=HookState.POWERED_ON),), agency=an_agency(
        hold_after_power_on=True)))  # fmt: skip

    def refuse(action: Action) -> None:
        if isinstance(action, MarkAvailable):
            bench.planner.may_mark = False
            raise PrivilegeMissing("EAM refuses MarkAsAvailable.")

    bench.actor.how = refuse
    assert [type(action).__name__ for action in bench.work("host-1")] == ["MarkAvailable", "SetHolds"]


def test_an_error_that_nobody_foresaw_leaves_its_key_free() -> None:
    """One bug must not hold a host for ever: the key is done, and whoever supervises the greenlet starts it again."""
    bench = Bench(missing())
    bench.actor.how = raising(KeyError("a bug"))
    bench.queue.add("host-1")
    for host in bench.fleet.hosts:
        bench.planner.observe(bench.fleet, host, bench.now)
    with pytest.raises(KeyError):
        bench.workers.run()
    assert bench.queue.working == 0


def raising(error: Exception) -> Callable[[Action], None]:
    def how(_: Action) -> None:
        raise error

    return how


def test_what_has_no_effect_yet_is_not_done_as_fast_as_eam_can_be_read(make: Make) -> None:
    """Bug: a hook that EAM takes seconds to drop was answered again after each read, some ten times a second a host;
    the same with an agency that does not take its hold flags."""
    held = make(a_fleet(a_host(), agents=(an_agent(hook=HookState.POWERED_ON),)))
    assert held.work("host-1") == [MarkAvailable("host-1", "agent-1", "poweredOn")]
    for _ in range(5):
        assert held.work("host-1") == []
        held.now += SAME_AGAIN / 6
    held.now += SAME_AGAIN
    assert len(held.work()) == 1, "by itself, without another word of EAM"


def test_the_alarm_of_a_release_ends_with_its_host(make: Make) -> None:
    """Bug: a host that left the inventory kept its alarm for ever."""
    bench = make(a_fleet(a_host()))
    bench.alarms.raise_("released:host-1", "esx-1.example: released without health.")
    bench.work("host-1")
    assert "released:host-1" in bench.alarms
    bench.fleet.apply(InventoryObserved(at=20.0, gone=("host-1",)))
    bench.work("host-1")
    assert "released:host-1" not in bench.alarms


def test_a_plan_of_many_hosts_lets_others_run(make: Make) -> None:
    """Bug: P2. A page or command that asked for the plan of 2,500 hosts held the loop for some 100 ms."""
    bench = make(a_fleet())
    ran: list[float] = []

    def other() -> None:
        while True:
            ran.append(thread_time())
            gevent.sleep(0)

    def slow(_key: str, _now: float) -> Plan:
        done = thread_time() + 2 * SLICE / 3
        while thread_time() < done:
            pass
        return Plan()

    bench.fleet.hosts.update({f"host-{number}": a_host(number) for number in range(20)})
    bench.workers.plan_for = slow  # type: ignore[method-assign] # takes time, as a real one does
    beside = gevent.spawn(other)
    gevent.sleep(0)
    bench.workers.plan()
    beside.kill()
    assert len(ran) >= 10, "after each second host"
