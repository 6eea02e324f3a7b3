# SPDX-License-Identifier: Apache-2.0
"""Fleet: any order of observations, duplicates, late and partial reads included, ends in the same truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.facts import (
    CLUSTER,
    VCENTER,
    a_cluster,
    a_fleet,
    a_host,
    a_vm,
    an_agency,
    an_agent,
)
from vcenter_eam_plugin.domain.facts import (
    AgencyFacts,
    AgentFacts,
    ConnectionState,
    EamStatus,
    GoalState,
    HookFacts,
    HookState,
    HostFacts,
    HostTask,
    VmFacts,
    VmPower,
)
from vcenter_eam_plugin.domain.fleet import DERIVED_AT_ONCE, Fleet
from vcenter_eam_plugin.domain.observations import AgencyObserved, AgentsObserved, InventoryObserved, Observation
from vcenter_eam_plugin.domain.status import ContrailVm, State

ELSEWHERE = "domain-c9"
"""A cluster that is not in the scope."""


def states(fleet: Fleet) -> dict[str, State]:
    return {status.esxi.moref: status.state for status in fleet.statuses()}


# --- single promises ---------------------------------------------------------------------------------------


def test_nothing_is_said_before_every_source_was_read_completely_once() -> None:
    """Promise: nothing before each source's first complete read; then everything at once."""
    fleet = Fleet(VCENTER, [CLUSTER])
    steps: list[Observation] = [
        InventoryObserved(1.0, (a_cluster(),), (a_host(),), ()),
        AgencyObserved(2.0, an_agency()),
        AgencyObserved(3.0, an_agency(), ("agent-1",)),
        InventoryObserved(4.0, (a_cluster(),), (a_host(),), (), complete=True),
        AgentsObserved((an_agent(read_began=5.0),)),
    ]
    for step in steps:
        assert fleet.apply(step) == ()
        assert not fleet.ready
        assert fleet.statuses() == ()
        assert fleet.status("host-1") is None
    (status,) = fleet.apply(InventoryObserved(6.0, vms=(a_vm(),)))
    assert fleet.ready
    assert fleet.given_out
    assert status.state is State.ACTIVE
    assert status.key == f"host-1.{VCENTER}"
    assert fleet.host_of(status.key) == "host-1"


def test_a_restart_says_what_left_while_nobody_looked() -> None:
    """Design section 6: a restart diffs the world with the last accepted state, deletions included."""
    before = a_fleet(a_host(1), a_host(2))
    baseline = {status.key: status for status in before.statuses()}
    fleet = Fleet(VCENTER, [CLUSTER], baseline)
    fleet.apply(AgencyObserved(20.0, an_agency(), ("agent-1",)))
    fleet.apply(AgentsObserved((an_agent(1, read_began=21.0),)))
    first = fleet.apply(InventoryObserved(22.0, (a_cluster(),), (a_host(1),), (a_vm(1),), complete=True))
    assert [(s.esxi.moref, s.state) for s in first] == [("host-1", State.ACTIVE), ("host-2", State.REMOVED)]
    assert first[1].esxi.name == "esx-2.example"


def test_a_host_that_was_removed_may_leave_the_inventory_too() -> None:
    """Bug: a host moved out of the scope was REMOVED, and its leaving the inventory then raised KeyError (S04)."""
    fleet = a_fleet(a_host(1), a_host(2))
    fleet.apply(AgencyObserved(20.0, an_agency(), ("agent-2",)))
    (removed,) = fleet.apply(InventoryObserved(21.0, hosts=(a_host(1, compute_resource=ELSEWHERE),)))
    assert removed.state is State.REMOVED
    assert fleet.apply(InventoryObserved(22.0, gone=("host-1",))) == ()
    assert states(fleet) == {"host-2": State.ACTIVE}


def test_removed_is_said_once() -> None:
    """Promise of apply: REMOVED ones for the last time, however often such a host is seen again."""
    fleet = a_fleet(a_host(1), a_host(2))
    fleet.apply(AgencyObserved(20.0, an_agency(), ("agent-2",)))
    outside = a_host(1, compute_resource=ELSEWHERE)
    assert [s.state for s in fleet.apply(InventoryObserved(21.0, hosts=(outside,)))] == [State.REMOVED]
    renamed = replace(outside, name="esx-1b.example")
    assert fleet.apply(InventoryObserved(22.0, hosts=(renamed,))) == ()
    (again,) = fleet.apply(InventoryObserved(23.0, hosts=(a_host(1),)))
    assert again.state is State.PENDING


def test_an_agent_ahead_of_the_inventory_says_nothing_of_its_host() -> None:
    """Bug: a host just added was announced as REMOVING when EAM's agent was read before the host was (S09)."""
    fleet = a_fleet(a_host(1))
    assert fleet.apply(AgencyObserved(20.0, an_agency(), ("agent-1", "agent-2"))) == ()
    assert fleet.apply(AgentsObserved((an_agent(2, vm=None, status=EamStatus.YELLOW, read_began=21.0),))) == ()
    (seen,) = fleet.apply(InventoryObserved(22.0, hosts=(a_host(2),)))
    assert seen.state is State.DEPLOYING


def test_a_late_read_of_an_agent_that_is_no_member_any_more_counts_for_nothing() -> None:
    """Bug: a read that was on its way while the agent left brought it back, for up to a minute."""
    fleet = a_fleet(a_host(1), a_host(2))
    fleet.apply(InventoryObserved(20.0, gone=("host-1",)))
    fleet.apply(AgencyObserved(21.0, an_agency(), ("agent-2",)))
    assert fleet.apply(AgentsObserved((an_agent(1, read_began=20.5),))) == ()
    assert states(fleet) == {"host-2": State.ACTIVE}


def test_an_older_read_never_replaces_a_newer_one() -> None:
    """Promise: facts of an older agent read never replace those of a newer one."""
    fleet = a_fleet(a_host(1))
    fleet.apply(AgentsObserved((an_agent(1, "VmCorrupted", read_began=30.0),)))
    assert fleet.apply(AgentsObserved((an_agent(1, read_began=29.0),))) == ()
    assert states(fleet) == {"host-1": State.FAULTY}


@pytest.mark.parametrize("blink", [{"power": VmPower.POWERED_OFF}, {"host": "host-2"}, {"connection": "inaccessible"}])
def test_active_only_by_a_read_that_began_after_the_last_change_of_the_vm(blink: dict[str, Any]) -> None:
    """Promise: green from before the change is no evidence; until EAM was read again it is STARTING."""
    fleet = a_fleet(a_host(1))
    fleet.apply(InventoryObserved(30.0, vms=(a_vm(1, **blink),)))
    fleet.apply(InventoryObserved(40.0, vms=(a_vm(1),)))
    assert states(fleet) == {"host-1": State.STARTING}
    for read_began in (39.0, 40.0):
        fleet.apply(AgentsObserved((an_agent(1, read_began=read_began),)))
        assert states(fleet) == {"host-1": State.STARTING}
    fleet.apply(AgentsObserved((an_agent(1, read_began=40.5),)))
    assert states(fleet) == {"host-1": State.ACTIVE}


def test_active_needs_a_new_read_after_the_host_came_back() -> None:
    """The same for the host: what EAM said before a disconnect proves nothing after it."""
    fleet = a_fleet(a_host(1))
    fleet.apply(InventoryObserved(30.0, hosts=(a_host(1, connection=ConnectionState.NOT_RESPONDING),)))
    lost = fleet.status("host-1")
    assert lost is not None
    assert (lost.state, lost.last_state) == (State.UNREACHABLE, State.ACTIVE)
    (back,) = fleet.apply(InventoryObserved(40.0, hosts=(a_host(1),)))
    assert (back.state, back.last_state) == (State.STARTING, None)
    fleet.apply(AgentsObserved((an_agent(1, read_began=41.0),)))
    assert states(fleet) == {"host-1": State.ACTIVE}


def test_the_vm_of_a_hook_brings_its_changes_along() -> None:
    """Bug: power changes were counted per host only for the agent's VM, so a VM followed by its hook came up ACTIVE
    by a read that began before its power-on."""
    fleet = a_fleet(a_host(1))
    hooked = an_agent(1, status=EamStatus.YELLOW, hook=HookState.PROVISIONED, read_began=20.0)
    fleet.apply(AgentsObserved((replace(hooked, hook=HookFacts("vm-9", HookState.PROVISIONED)),)))
    assert fleet.agent_vms() == ("vm-1", "vm-9")
    new = a_vm(9, host="host-1", power=VmPower.POWERED_OFF)
    fleet.apply(InventoryObserved(21.0, vms=(new,)))
    fleet.apply(InventoryObserved(25.0, vms=(replace(new, power=VmPower.POWERED_ON),)))
    fleet.apply(AgentsObserved((an_agent(1, vm="vm-9", read_began=24.0),)))
    assert states(fleet) == {"host-1": State.STARTING}
    fleet.apply(AgentsObserved((an_agent(1, vm="vm-9", read_began=26.0),)))
    assert states(fleet) == {"host-1": State.ACTIVE}


def test_an_agent_without_a_host_silences_nobody() -> None:
    """Bug: an agent whose host left, with a VM that exists no more, kept the whole fleet from ever being ready."""
    fleet = Fleet(VCENTER, [CLUSTER])
    fleet.apply(AgencyObserved(1.0, an_agency(), ("agent-1", "agent-2")))
    fleet.apply(AgentsObserved((an_agent(1), an_agent(2, "VmNotDeployed", host=None))))
    fleet.apply(InventoryObserved(2.0, (a_cluster(),), (a_host(1),), (a_vm(1),), gone=("vm-2",), complete=True))
    assert states(fleet) == {"host-1": State.ACTIVE}


def test_an_agent_forgotten_for_a_moment_finds_its_vm_again() -> None:
    """Bug: the VM was forgotten with the agent, but stayed on the list of those watched, so nobody ever told of it."""
    fleet = a_fleet(a_host(1))
    fleet.apply(AgencyObserved(20.0, an_agency(), ()))
    assert states(fleet) == {"host-1": State.PENDING}
    fleet.apply(AgencyObserved(21.0, an_agency(), ("agent-1",)))
    fleet.apply(AgentsObserved((an_agent(1, read_began=22.0),)))
    assert states(fleet) == {"host-1": State.ACTIVE}


def test_a_redeployed_vm_is_a_new_vm_under_the_same_key() -> None:
    """Design section 3, identity: S08, deleted and deployed again."""
    fleet = a_fleet(a_host(1))
    (missing,) = fleet.apply(InventoryObserved(20.0, gone=("vm-1",)))
    assert missing.state is State.MISSING
    fleet.apply(AgentsObserved((an_agent(1, vm="vm-2", status=EamStatus.YELLOW, read_began=21.0),)))
    fleet.apply(InventoryObserved(22.0, vms=(a_vm(2, host="host-1"),)))
    fleet.apply(AgentsObserved((an_agent(1, vm="vm-2", read_began=23.0),)))
    status = fleet.status("host-1")
    assert status is not None
    assert (status.key, status.state, status.vm.moref if status.vm else None) == (missing.key, State.ACTIVE, "vm-2")


def test_while_an_old_agent_is_removed_the_one_that_stays_counts() -> None:
    """A host back in scope has two agents for a moment."""
    fleet = a_fleet(a_host(1))
    old = an_agent(1, goal=GoalState.UNINSTALLED, status=EamStatus.YELLOW, read_began=22.0)
    new = an_agent(2, host="host-1", vm=None, status=EamStatus.YELLOW, read_began=21.0)
    fleet.apply(AgencyObserved(20.0, an_agency(), ("agent-1", "agent-2")))
    fleet.apply(AgentsObserved((old, new)))
    agent = fleet.agent_on("host-1")
    assert agent is not None
    assert agent.moref == "agent-2"
    fleet.apply(AgentsObserved((), gone=("agent-2",)))
    assert states(fleet) == {"host-1": State.REMOVING}


def test_a_cluster_taken_out_of_the_file_stays_watched_while_the_agency_covers_it() -> None:
    """Design section 5, scope: updates only add by themselves, so its ContrailVMs are still there."""
    fleet = a_fleet(a_host(1), a_host(2, compute_resource="domain-c2"), agency=an_agency(scope=(CLUSTER, "domain-c2")))
    assert states(fleet) == {"host-1": State.ACTIVE, "host-2": State.ACTIVE}
    assert fleet.set_scope(["domain-c2"]) == ()
    (left,) = fleet.apply(AgencyObserved(20.0, an_agency(scope=("domain-c2",)), None))
    assert (left.esxi.moref, left.state) == ("host-1", State.REMOVING)


def test_a_foreign_agency_blocks_every_host_and_says_whose_it_is() -> None:
    """Design section 5: another owner, or several: refuse and list them."""
    fleet = a_fleet(a_host(1))
    foreign = an_agency(moref="agency-2", owner="EXAMPLE\\other")
    (status,) = fleet.apply(AgencyObserved(20.0, None, None, (foreign,)))
    assert status.state is State.BLOCKED
    assert "EXAMPLE\\other" in status.reason
    (free,) = fleet.apply(AgencyObserved(21.0, None))
    assert free.state is State.PENDING


def test_a_refusal_is_shown_once_and_taken_back() -> None:
    """None of ours and it may not be created: BLOCKED, with the reason."""
    fleet = a_fleet(a_host(1))
    fleet.apply(AgencyObserved(20.0, None))
    (status,) = fleet.refuse_agency("agent VMs stand in the scope already")
    assert (status.state, status.reason) == (State.BLOCKED, "agent VMs stand in the scope already")
    assert fleet.refuse_agency("agent VMs stand in the scope already") == ()
    (status,) = fleet.refuse_agency("")
    assert status.state is State.PENDING


def test_a_renamed_cluster_is_a_change_of_its_hosts() -> None:
    """The cluster's name is part of every record under it."""
    fleet = a_fleet(a_host(1))
    (status,) = fleet.apply(InventoryObserved(20.0, (a_cluster(name="renamed"),)))
    assert status.esxi.cluster == "renamed"


# --- any order of everything -------------------------------------------------------------------------------


@dataclass
class Truth:
    """One host of the world, with what EAM has on it. ``deployed`` counts the VMs that it has had."""

    number: int
    here: bool = True
    in_scope: bool = True
    in_maintenance: bool = False
    task: HostTask | None = None
    connection: ConnectionState = ConnectionState.CONNECTED
    agent: int = 1
    vm: int | None = 1
    vm_exists: bool = True
    power: VmPower = VmPower.POWERED_ON
    working: bool = False
    deployed: int = 1

    @property
    def has_agent(self) -> bool:
        return self.here and self.in_scope

    @property
    def agent_moref(self) -> str:
        return f"agent-{self.number}-{self.agent}"

    @property
    def vm_moref(self) -> str | None:
        return None if self.vm is None else f"vm-{self.number}-{self.vm}"

    def host_facts(self) -> HostFacts:
        return a_host(
            self.number,
            compute_resource=CLUSTER if self.in_scope else ELSEWHERE,
            in_maintenance=self.in_maintenance,
            task=self.task,
            connection=self.connection,
        )

    def vm_facts(self) -> tuple[VmFacts, ...]:
        if self.vm is None or not self.vm_exists:
            return ()
        return (a_vm(self.number, moref=self.vm_moref, power=self.power),)

    def agent_facts(self, read_began: float) -> AgentFacts:
        healthy = self.vm_exists and self.vm is not None and self.power is VmPower.POWERED_ON
        issue = "VmPoweredOff" if self.vm_exists and self.vm is not None else "VmNotDeployed"
        issues = () if healthy or self.working else (issue,)
        agent = an_agent(self.number, *issues, moref=self.agent_moref, vm=self.vm_moref, read_began=read_began)
        return replace(agent, status=EamStatus.YELLOW) if self.working else agent


@dataclass
class Seen:
    """What was last delivered of an object, and when that last differed from before."""

    value: object = None
    changed_at: float = float("-inf")


@dataclass
class World:
    """The whole truth, and the reads of it."""

    hosts: list[Truth] = field(default_factory=lambda: [Truth(n) for n in (1, 2, 3)])
    agency: bool = True
    now: float = 100.0

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def members(self) -> list[Truth]:
        return [h for h in self.hosts if h.has_agent] if self.agency else []

    def agency_facts(self) -> AgencyFacts | None:
        return an_agency() if self.agency else None

    def whole_inventory(self, at: float) -> InventoryObserved:
        listed = [h for h in self.hosts if h.has_agent]
        vms = tuple(vm for h in self.members() for vm in h.vm_facts())
        return InventoryObserved(at, (a_cluster(),), tuple(h.host_facts() for h in listed), vms, complete=True)

    def agency_read(self) -> AgencyObserved:
        members = tuple(h.agent_moref for h in self.members()) if self.agency else None
        return AgencyObserved(self.now, self.agency_facts(), members)

    def everything(self) -> list[Observation]:
        """One complete read of all sources, as the edges do it: VMs that EAM names and nobody has are told gone."""
        inventory = self.whole_inventory(self.tick())
        agency = self.agency_read()
        began = self.tick()
        agents = AgentsObserved(tuple(h.agent_facts(began) for h in self.members()))
        gone = tuple(h.vm_moref for h in self.members() if h.vm_moref is not None and not h.vm_exists)
        return [inventory, agency, agents, InventoryObserved(began, vms=inventory.vms, gone=gone)]


class AnyOrder(RuleBasedStateMachine):
    """Edges that read a changing world, and deliver in any order what may be delivered in any order."""

    @initialize()
    def start(self) -> None:
        self.world = World()
        self.fleet = Fleet(VCENTER, [CLUSTER])
        self.on_their_way: list[AgentsObserved] = []
        self.agency_on_its_way: AgencyObserved | None = None
        self.last: Observation | None = None
        self.told: dict[str, ContrailVm] = {}
        self.vms_seen: dict[str, Seen] = {}
        self.hosts_seen: dict[str, Seen] = {}
        self.ever_out: set[str] = set()
        self.inventory_complete = self.agency_read_once = False

    # --- the world changes

    @rule(index=st.integers(0, 2), power=st.sampled_from(VmPower))
    def power_changes(self, index: int, power: VmPower) -> None:
        self.world.hosts[index].power = power

    @rule(index=st.integers(0, 2))
    def vm_is_deleted(self, index: int) -> None:
        self.world.hosts[index].vm_exists = False

    @rule(index=st.integers(0, 2), working=st.booleans())
    def vm_is_deployed(self, index: int, working: bool) -> None:
        host = self.world.hosts[index]
        host.deployed += 1
        host.vm, host.vm_exists, host.power, host.working = host.deployed, True, VmPower.POWERED_ON, working

    @rule(index=st.integers(0, 2), maintenance=st.booleans(), task=st.none() | st.sampled_from(HostTask))
    def maintenance_changes(self, index: int, maintenance: bool, task: HostTask | None) -> None:
        self.world.hosts[index].in_maintenance, self.world.hosts[index].task = maintenance, task

    @rule(index=st.integers(0, 2), connection=st.sampled_from(ConnectionState))
    def connection_changes(self, index: int, connection: ConnectionState) -> None:
        self.world.hosts[index].connection = connection

    @rule(index=st.integers(0, 2), here=st.booleans(), in_scope=st.booleans())
    def host_comes_or_goes(self, index: int, here: bool, in_scope: bool) -> None:
        host = self.world.hosts[index]
        had = host.has_agent
        host.here, host.in_scope = here, in_scope
        if not host.has_agent:
            self.ever_out.add(f"host-{host.number}")
        elif not had:
            host.agent += 1
            host.deployed += 1
            host.vm, host.vm_exists = host.deployed, True

    @rule(there=st.booleans())
    def agency_comes_or_goes(self, there: bool) -> None:
        self.world.agency = there

    # --- the edges read

    @rule(index=st.integers(0, 2))
    def inventory_tells_of_a_host(self, index: int) -> None:
        host, at = self.world.hosts[index], self.world.tick()
        if host.here:
            self.deliver(InventoryObserved(at, hosts=(host.host_facts(),)))
        else:
            self.deliver(InventoryObserved(at, gone=(f"host-{host.number}",)))

    @rule(index=st.integers(0, 2))
    def inventory_tells_of_a_vm(self, index: int) -> None:
        host, at = self.world.hosts[index], self.world.tick()
        if host.vm_facts():
            self.deliver(InventoryObserved(at, vms=host.vm_facts()))
        elif host.vm_moref is not None:
            self.deliver(InventoryObserved(at, gone=(host.vm_moref,)))

    @rule(index=st.integers(0, 2))
    def a_vm_blinks(self, index: int) -> None:
        """Off and on again, both seen: what EAM said before proves nothing any more."""
        for power in (VmPower.POWERED_OFF, VmPower.POWERED_ON):
            self.world.hosts[index].power = power
            self.inventory_tells_of_a_vm(index)

    @rule()
    def inventory_lists_everything(self) -> None:
        self.inventory_complete = True
        self.deliver(self.world.whole_inventory(self.world.tick()))

    @rule(some=st.sets(st.integers(0, 2), min_size=1))
    def a_read_of_agents_leaves(self, some: set[int]) -> None:
        began = self.world.tick()
        agents = tuple(h.agent_facts(began) for h in self.world.members() if h.number - 1 in some)
        self.on_their_way.append(AgentsObserved(agents))

    @precondition(lambda self: self.on_their_way)
    @rule(data=st.data(), again=st.booleans())
    def a_read_of_agents_arrives(self, data: st.DataObject, again: bool) -> None:
        """Whichever; one that stays on its way arrives once more later, as a duplicate."""
        read = data.draw(st.sampled_from(self.on_their_way))
        if not again:
            self.on_their_way.remove(read)
        self.deliver(read)

    @rule()
    def a_read_of_the_agency_leaves(self) -> None:
        """The poll reads it, one at a time."""
        self.world.tick()
        self.agency_on_its_way = self.world.agency_read()

    @precondition(lambda self: self.agency_on_its_way is not None)
    @rule(with_members=st.booleans())
    def the_read_of_the_agency_arrives(self, with_members: bool) -> None:
        read, self.agency_on_its_way = self.agency_on_its_way, None
        assert read is not None
        self.agency_read_once = True
        self.deliver(read if with_members else replace(read, agents=None))

    @precondition(lambda self: self.last is not None)
    @rule()
    def the_last_one_comes_again(self) -> None:
        """Promise: an observation twice is an observation once."""
        assert self.last is not None
        assert self.fleet.apply(self.last) == ()

    @rule(late_ones=st.booleans())
    def everything_is_read(self, late_ones: bool) -> None:
        """Promise: after one complete read of everything the picture is that of a fresh Fleet with the same truth."""
        self.inventory_complete = self.agency_read_once = True
        self.agency_on_its_way = None
        fresh = Fleet(VCENTER, [CLUSTER])
        for observation in self.world.everything():
            self.deliver(observation)
            fresh.apply(observation)
        assert fresh.ready
        assert by_host(self.fleet) == by_host(fresh)
        if late_ones:
            for read in self.on_their_way:
                self.deliver(read)
            assert by_host(self.fleet) == by_host(fresh)

    # --- what must hold

    def deliver(self, observation: Observation) -> None:
        self.note(observation)
        given_out_before = self.fleet.given_out
        changed = self.fleet.apply(observation)
        self.last = observation
        keys = [status.key for status in changed]
        assert len(keys) == len(set(keys))
        for status in changed:
            host = status.esxi.moref
            if status.state is State.REMOVED:
                assert given_out_before, "nothing was said before that could be taken back"
                assert host in self.ever_out, "REMOVED, though it was in inventory and scope all the time"
                self.told.pop(status.key)
            else:
                assert self.told.get(status.key) != status
                self.told[status.key] = status

    def note(self, observation: Observation) -> None:
        """Book independently of Fleet when each host and VM was last seen to change."""
        if not isinstance(observation, InventoryObserved):
            return
        for vm in observation.vms:
            self.see(self.vms_seen, vm.moref, (vm.power, vm.host, vm.connection), observation.at)
        for host in observation.hosts:
            value = (host.connection, host.power, host.standby, host.in_maintenance, host.task)
            self.see(self.hosts_seen, host.moref, value, observation.at)

    @staticmethod
    def see(book: dict[str, Seen], moref: str, value: object, at: float) -> None:
        seen = book.get(moref)
        if seen is None:
            book[moref] = Seen(value)
        elif seen.value != value:
            seen.value, seen.changed_at = value, at

    @invariant()
    def nothing_before_ready(self) -> None:
        """Promise: nothing before each source's first complete read."""
        if self.fleet.statuses():
            assert self.inventory_complete
            assert self.agency_read_once

    @invariant()
    def what_was_told_is_what_is(self) -> None:
        """Promise of apply: whoever takes in all that it returned holds the same picture."""
        assert self.told == {status.key: status for status in self.fleet.statuses()}

    @invariant()
    def active_is_proven(self) -> None:
        """Promise: ACTIVE needs an agent read that began after the last power change of host and VM."""
        for status in self.fleet.statuses():
            if status.state is not State.ACTIVE:
                continue
            agent = self.fleet.agent_on(status.esxi.moref)
            assert agent is not None
            assert status.vm is not None
            assert agent.read_began > self.vms_seen[status.vm.moref].changed_at
            assert agent.read_began > self.hosts_seen[status.esxi.moref].changed_at

    @invariant()
    def nothing_is_kept_for_ever(self) -> None:
        """What is kept is bounded by what exists, not by what has ever been."""
        assert len(self.fleet.agents) <= 3
        assert self.fleet.agents.keys() <= (self.fleet.members or frozenset())


def by_host(fleet: Fleet) -> dict[str, ContrailVm]:
    """Without the one thing that is history: the last state of a host that cannot be reached."""
    return {s.esxi.moref: msgspec.structs.replace(s, last_state=None) for s in fleet.statuses()}


AnyOrder.TestCase.settings = settings(deadline=None, derandomize=True, max_examples=120, stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase


# --- in portions -------------------------------------------------------------------------------------------

MANY = 3 * DERIVED_AT_ONCE + 7


def many(**changes: Any) -> tuple[HostFacts, ...]:
    return tuple(a_host(number, **changes) for number in range(1, MANY + 1))


def everything_owed(fleet: Fleet) -> list[ContrailVm]:
    found: list[ContrailVm] = []
    while fleet.owed:
        found += fleet.go_on()
    return found


def morefs(statuses: Iterable[ContrailVm]) -> set[str]:
    return {status.esxi.moref for status in statuses}


def test_a_large_fleet_is_derived_in_portions_and_then_given_out_in_portions() -> None:
    """Nothing holds the event loop: each call derives or tells some; nobody is told anything before all are known."""
    fleet = a_fleet(*many())
    assert not fleet.given_out
    assert (fleet.statuses(), fleet.status("host-1")) == ((), None)
    calls, derived = [], 0
    while fleet.owed:
        calls.append(fleet.go_on())
        derived += not fleet.given_out
    assert fleet.given_out
    assert derived == MANY // DERIVED_AT_ONCE - 1, "the first was derived when it was seen"
    assert [len(call) for call in calls[:derived]] == [0] * derived
    assert len(calls) == derived + MANY // DERIVED_AT_ONCE + 1
    assert all(len(call) <= DERIVED_AT_ONCE for call in calls)
    told = [status for call in calls for status in call]
    assert [status.esxi.moref for status in told] == sorted(fleet.hosts), "each once"
    assert {status.state for status in told} == {State.ACTIVE}
    assert set(fleet.statuses()) == {fleet.status(host) for host in fleet.hosts}


def test_what_changes_while_a_fleet_is_given_out_is_told_as_it_is_then() -> None:
    """Also where everything is known and some of it was told: nobody hears an old word after a new one."""
    fleet = a_fleet(*many())
    told: list[ContrailVm] = []
    while not fleet.given_out or not told:
        told += fleet.go_on()
    early, late = min(morefs(told)), max(fleet.hosts.keys() - morefs(told))
    changed = tuple(a_host(int(host[5:]), in_maintenance=True) for host in (early, late))
    told += fleet.apply(InventoryObserved(20.0, hosts=changed))
    told += everything_owed(fleet)
    assert [status.state for status in told if status.esxi.moref == early] == [State.ACTIVE, State.MAINTENANCE]
    assert [status.state for status in told if status.esxi.moref == late] == [State.MAINTENANCE]
    assert len(told) == MANY + 1


def test_what_changes_while_a_large_fleet_is_derived_is_given_out_as_it_is_then() -> None:
    """Between two portions anything may be observed, of hosts that were derived and of those that were not."""
    fleet = a_fleet(*many())
    changed = (a_host(1, in_maintenance=True), a_host(99, in_maintenance=True))
    assert fleet.apply(InventoryObserved(20.0, hosts=changed)) == ()
    told = {status.esxi.moref: status.state for status in everything_owed(fleet)}
    assert len(told) == MANY
    assert {host for host, state in told.items() if state is State.MAINTENANCE} == {"host-1", "host-99"}


def test_who_asks_for_a_status_that_is_owed_gets_it_as_it_is_now() -> None:
    """The planner must not see new facts beside an old state."""
    fleet = a_fleet(*many())
    everything_owed(fleet)
    told = list(fleet.apply(InventoryObserved(20.0, hosts=many(in_maintenance=True))))
    assert len(told) == DERIVED_AT_ONCE
    asked = fleet.status(min(fleet.hosts.keys() - morefs(told)))
    assert asked is not None
    assert asked.state is State.MAINTENANCE
    told += everything_owed(fleet)
    assert sorted(status.esxi.moref for status in told) == sorted(fleet.hosts), "each once, that one too"
    assert {status.state for status in told} == {State.MAINTENANCE}


def test_of_what_is_owed_the_newest_alone_is_told() -> None:
    """What would overtake a later word is not told at all."""
    fleet = a_fleet(*many())
    everything_owed(fleet)
    told = fleet.apply(InventoryObserved(20.0, hosts=many(in_maintenance=True)))
    back, lost, noted = sorted(fleet.hosts.keys() - morefs(told))[-3:]
    fleet.status(back)
    fleet.status(lost)
    hosts = (a_host(int(back[5:])), a_host(int(lost[5:]), connection=ConnectionState.NOT_RESPONDING))
    first = fleet.apply(InventoryObserved(21.0, hosts=hosts))
    assert morefs(first) == {back, lost}, "the caller's own at once, and not the others"
    assert morefs(fleet.note(noted, "a word")) == {noted}
    assert not morefs(everything_owed(fleet)) & {back, lost, noted}


def test_a_host_that_left_while_it_was_owed_is_told_to_be_gone_once() -> None:
    """And nothing else of it."""
    fleet = a_fleet(*many())
    everything_owed(fleet)
    told = fleet.apply(InventoryObserved(20.0, hosts=many(in_maintenance=True)))
    left = max(fleet.hosts.keys() - morefs(told))
    number = left[5:]
    assert not fleet.apply(AgentsObserved((), gone=(f"agent-{number}",))) or fleet.owed
    fleet.apply(InventoryObserved(21.0, gone=(f"vm-{number}",)))
    said = [*fleet.apply(InventoryObserved(22.0, gone=(left,))), *everything_owed(fleet)]
    assert [status.state for status in said if status.esxi.moref == left] == [State.REMOVED]
    assert fleet.status(left) is None


def test_a_listing_that_shows_nothing_new_touches_nobody() -> None:
    """After a gap the whole fleet is listed again: it costs what changed."""
    fleet = a_fleet(*many())
    everything_owed(fleet)
    vms = tuple(fleet.vms.values())
    again = InventoryObserved(30.0, (a_cluster(),), many(), vms, complete=True)
    assert fleet.apply(again) == ()
    assert not fleet.owed
    off = replace(vms[5], power=VmPower.POWERED_OFF)
    changed = fleet.apply(replace(again, at=31.0, vms=(*vms[:5], off, *vms[6:])))
    assert [status.vm.moref for status in changed if status.vm] == [off.moref]
