# SPDX-License-Identifier: Apache-2.0
"""The ContrailVM state table: one row per rule, and what holds for every evidence there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.facts import a_host, a_vm, an_agent, an_issue
from vcenter_eam_plugin.domain.facts import (
    ConnectionState,
    EamStatus,
    GoalState,
    HookFacts,
    HookState,
    HostPower,
    HostTask,
    StandbyMode,
    VmPower,
)
from vcenter_eam_plugin.domain.issues import CATALOGUE
from vcenter_eam_plugin.domain.lifecycle import RULES, Evidence, Rule, classify, host_available, is_leaving
from vcenter_eam_plugin.domain.status import State

OFF = a_vm(power=VmPower.POWERED_OFF)
YELLOW = an_agent(status=EamStatus.YELLOW)
ASLEEP = {"connection": ConnectionState.NOT_RESPONDING, "power": HostPower.STAND_BY, "standby": StandbyMode.IN}
IN_MAINTENANCE = a_host(in_maintenance=True)
ENTERING = a_host(task=HostTask.ENTERING_MAINTENANCE)
LEAVING = a_host(task=HostTask.EXITING_MAINTENANCE)
LATE = {"settled": False, "host_settled": False}


def evidence(**changes: Any) -> Evidence:
    """A healthy ContrailVM, but for these changes."""
    values: dict[str, Any] = {
        "wanted": True, "host": a_host(), "agent": an_agent(), "vm": a_vm(), "settled": True, "host_settled": True,
    }  # fmt: skip
    return Evidence(**values | changes)


REPLACED = replace(an_agent(hook=HookState.PROVISIONED), hook=HookFacts("vm-new", HookState.PROVISIONED))


TABLE: list[tuple[str, State, dict[str, Any]]] = [
    # (label of the rule that decides, state, what differs from a healthy ContrailVM)
    ("out of scope, nothing left", State.REMOVED, {"wanted": False, "agent": None, "vm": None}),
    ("out of scope, nothing left", State.REMOVED, {"wanted": False, "agent": None, "vm": None, "host": None}),
    ("out of scope, agent or VM left", State.REMOVING, {"wanted": False}),
    ("out of scope, agent or VM left", State.REMOVING, {"wanted": False, "agent": None}),
    ("out of scope, agent or VM left", State.REMOVING, {"wanted": False, "vm": None, "host": IN_MAINTENANCE}),
    # S13: asleep looks like not responding
    ("host in standby or entering it", State.STANDBY, {"host": a_host(**ASLEEP)}),
    ("host in standby or entering it", State.STANDBY, {"host": a_host(standby=StandbyMode.ENTERING)}),
    ("host in standby or entering it", State.STANDBY, {"host": a_host(task=HostTask.ENTERING_STANDBY)}),
    ("host in standby or entering it", State.STANDBY, {"host": a_host(power=HostPower.STAND_BY)}),
    ("host not connected", State.UNREACHABLE, {"host": a_host(connection=ConnectionState.DISCONNECTED)}),
    ("host not connected", State.UNREACHABLE, {"host": a_host(connection=ConnectionState.NOT_RESPONDING)}),
    ("host not connected", State.UNREACHABLE, {"host": None}),
    # S10: neither on the way in nor inside is an alarm, whatever EAM and the VM show
    ("host in maintenance or entering it", State.MAINTENANCE, {"host": IN_MAINTENANCE}),
    ("host in maintenance or entering it", State.MAINTENANCE, {"host": ENTERING, "vm": OFF}),
    ("host in maintenance or entering it", State.MAINTENANCE,
     {"host": IN_MAINTENANCE, "vm": OFF, "agent": an_agent(1, "VmPoweredOff")}),
    ("no agency of ours, and it may not be created", State.BLOCKED,
     {"agent": None, "vm": None, "agency_trouble": "the agency belongs to somebody else"}),
    ("no agent", State.PENDING, {"agent": None, "vm": None}),
    ("agent's goal is uninstalled", State.REMOVING, {"agent": an_agent(goal=GoalState.UNINSTALLED)}),
    # S07: deleted
    ("the VM left the inventory, EAM still names it", State.MISSING, {"vm": None, "vm_gone": True}),
    ("EAM names a VM not read yet", State.DEPLOYING, {"vm": None}),
    # S10: not in maintenance by its own properties, but EAM may do nothing there
    ("no VM or VM off, host in partial maintenance", State.MAINTENANCE,
     {"vm": OFF, "agent": an_agent(1, "HostInPartialMaintenanceMode")}),
    ("no VM or VM off, host in partial maintenance", State.MAINTENANCE,
     {"vm": None, "agent": an_agent(1, "HostInPartialMaintenanceMode", vm=None)}),
    ("no VM, host just came back", State.DEPLOYING,
     {"vm": None, "agent": an_agent(1, "VmRequiresHostOutOfMaintenanceMode", vm=None)}),
    # S09: Agent VM settings that point to nothing are said instead of what EAM makes of them
    ("no VM, red, and known why", State.BLOCKED,
     {"vm": None, "agent": an_agent(1, "VmNotDeployed", vm=None), "note": "the datastore is not accessible"}),
    ("no VM, red", State.MISSING, {"vm": None, "agent": an_agent(1, "VmNotDeployed", vm=None)}),
    # S09: without settings deployment stops, and it is said why
    ("no VM, red", State.BLOCKED, {"vm": None, "agent": an_agent(1, "NoAgentVmDatastore", vm=None)}),
    ("no VM, red", State.FAULTY, {"vm": None, "agent": an_agent(1, "SomethingNew", vm=None)}),
    ("no VM, red", State.FAULTY, {"vm": None, "agent": an_agent(vm=None, status=EamStatus.RED)}),
    # an issue of the VM says more than one of the host that is back already
    ("no VM, red", State.MISSING,
     {"vm": None, "agent": an_agent(1, "HostInMaintenanceMode", "VmNotDeployed", vm=None)}),
    ("no VM", State.DEPLOYING, {"vm": None, "agent": replace(YELLOW, vm=None)}),
    ("VM suspended", State.SUSPENDED, {"vm": a_vm(power=VmPower.SUSPENDED)}),
    ("VM off, held", State.PROVISIONED, {"vm": OFF, "agent": an_agent(hook=HookState.PROVISIONED)}),
    ("VM off, held", State.PROVISIONED, {"vm": OFF, "agent": an_agent(hook=HookState.PRE_POWER_ON)}),
    ("VM off, EAM is working", State.STARTING, {"vm": OFF, "agent": YELLOW}),
    ("VM off, host just came back", State.STARTING, {"vm": OFF, **LATE}),
    ("VM off, host just came back", State.STARTING, {"vm": OFF, "agent": an_agent(1, "HostInMaintenanceMode")}),
    # S10: the task of leaving waits for the ContrailVM to be on, with EAM read since and not at work yet
    ("VM off, host just came back", State.STARTING, {"vm": OFF, "host": LEAVING}),
    ("VM off, an issue keeps it so", State.FAULTY, {"vm": OFF, "agent": an_agent(1, "InvalidConfig")}),
    # S07: powered off
    ("VM off", State.POWERED_OFF, {"vm": OFF, "agent": an_agent(1, "VmPoweredOff")}),
    ("VM off", State.POWERED_OFF, {"vm": OFF, "settled": False}),
    ("VM on, not connected", State.FAULTY, {"vm": a_vm(connection="inaccessible")}),
    # S15: started on another host
    ("VM on, elsewhere", State.FAULTY, {"vm": a_vm(host="host-2")}),
    ("VM on, held", State.STARTING, {"agent": an_agent(hook=HookState.POWERED_ON)}),
    ("VM on, EAM not read since", State.STARTING, {"settled": False}),
    # S03: held, a new VM takes nothing from the one that runs
    ("VM on, its replacement is made or held", State.ACTIVE, {"agent": REPLACED}),
    ("VM on, its replacement is made or held", State.ACTIVE, {"agent": YELLOW, "replacing": True}),
    ("VM on, green", State.ACTIVE, {"replacing": True}),
    ("no VM", State.DEPLOYING, {"agent": YELLOW, "vm": None, "vm_gone": True, "replacing": True}),
    ("the VM left the inventory, EAM still names it", State.MISSING, {"vm": None, "vm_gone": True, "replacing": True}),
    ("VM on, EAM not read since", State.STARTING, {"agent": REPLACED, **LATE}),
    ("VM on, red for a fault", State.FAULTY, {"agent": replace(REPLACED, status=EamStatus.RED,
                                                              issues=(an_issue("VmCorrupted"),))}),
    ("VM on, EAM is working", State.STARTING, {"agent": YELLOW}),
    ("VM on, red for a fault", State.FAULTY, {"agent": an_agent(1, "VmCorrupted")}),
    ("VM on, red for a fault", State.FAULTY, {"agent": an_agent(status=EamStatus.RED)}),
    ("VM on, EAM's issue is out of date", State.STARTING, {"agent": an_agent(1, "VmPoweredOff")}),
    ("VM on, green", State.ACTIVE, {}),
    ("VM on, green", State.ACTIVE, {"vm": a_vm(host=None)}),
]  # fmt: skip


def deciding_rule(e: Evidence) -> Rule:
    return next(rule for rule in RULES if rule.when(e))


@pytest.mark.parametrize(("label", "state", "changes"), TABLE)
def test_table(label: str, state: State, changes: dict[str, Any]) -> None:
    """Each row: this rule decides, and this is the state; with a reason for a person."""
    e = evidence(**changes)
    assert deciding_rule(e).label == label
    got, reason = classify(e)
    assert got is state
    assert reason


def test_every_rule_is_reached_by_some_row() -> None:
    """No rule is shadowed by one above it, and none was added without a row here."""
    assert [rule.label for rule in RULES if rule.label not in {label for label, _, _ in TABLE}] == []
    assert len({rule.label for rule in RULES}) == len(RULES)


# --- what holds for every evidence -------------------------------------------------------------------------

hosts = st.builds(
    a_host,
    st.just(1),
    connection=st.sampled_from(ConnectionState),
    power=st.sampled_from(HostPower),
    standby=st.sampled_from(StandbyMode),
    in_maintenance=st.booleans(),
    task=st.none() | st.sampled_from(HostTask),
)
vms = st.builds(
    a_vm,
    st.just(1),
    power=st.sampled_from(VmPower),
    connection=st.sampled_from(["connected", "disconnected", "inaccessible"]),
    host=st.sampled_from(["host-1", "host-2", None]),
)
issue_lists = st.lists(st.sampled_from([*sorted(CATALOGUE), "SomethingNew"]), max_size=3)
agents = st.builds(
    lambda issues, hook, status, goal, vm: replace(an_agent(1, *issues, hook=hook), status=status, goal=goal, vm=vm),
    issue_lists,
    st.none() | st.sampled_from(HookState),
    st.sampled_from(EamStatus),
    st.sampled_from(GoalState),
    st.sampled_from(["vm-1", None]),
)
evidences = st.builds(
    Evidence,
    wanted=st.booleans(),
    host=st.none() | hosts,
    agent=st.none() | agents,
    vm=st.none() | vms,
    settled=st.booleans(),
    host_settled=st.booleans(),
    vm_gone=st.booleans(),
    agency_trouble=st.sampled_from(["", "somebody else's"]),
)
ALARM_STATES = {State.POWERED_OFF, State.SUSPENDED, State.MISSING, State.FAULTY, State.BLOCKED}


@settings(deadline=None, max_examples=400, derandomize=True)
@given(evidences)
def test_every_evidence_gets_a_state_and_a_reason(e: Evidence) -> None:
    """Promise: the table is total."""
    state, reason = classify(e)
    assert state in State
    assert reason


@settings(deadline=None, max_examples=400, derandomize=True)
@given(evidences)
def test_a_host_in_or_entering_maintenance_or_standby_is_never_an_alarm(e: Evidence) -> None:
    """S10, S13: being off is right there, whatever EAM and the VM show."""
    host = e.host or a_host()
    for one in (
        replace(host, in_maintenance=True),
        replace(host, task=HostTask.ENTERING_MAINTENANCE),
        replace(host, task=HostTask.ENTERING_STANDBY),
        replace(host, standby=StandbyMode.IN),
    ):
        assert classify(msgspec.structs.replace(e, host=one))[0] not in ALARM_STATES


@settings(deadline=None, max_examples=400, derandomize=True)
@given(evidences)
def test_active_needs_everything_at_once(e: Evidence) -> None:
    """Promise: ACTIVE says that tenant VMs may run there, so nothing may speak against it."""
    if classify(e)[0] is not State.ACTIVE:
        return
    assert e.wanted
    assert e.settled
    assert e.host is not None
    assert e.host.connection is ConnectionState.CONNECTED
    assert not e.host.in_maintenance
    assert e.agent is not None
    assert e.agent.status is EamStatus.GREEN
    assert e.agent.hook is None or e.agent.hook.state is HookState.PROVISIONED
    assert e.vm is not None
    assert e.vm.power is VmPower.POWERED_ON
    assert e.vm.connection == "connected"
    assert e.vm.host in (None, e.host.moref)


@pytest.mark.parametrize(
    ("changes", "available", "leaving"),
    [
        ({}, True, False),
        ({"in_maintenance": True}, False, False),
        ({"in_maintenance": True, "task": HostTask.EXITING_MAINTENANCE}, False, False),
        ({"task": HostTask.EXITING_MAINTENANCE}, False, True),
        ({"task": HostTask.EXITING_STANDBY, "standby": StandbyMode.EXITING}, False, True),
        ({"task": HostTask.EXITING_MAINTENANCE, "connection": ConnectionState.DISCONNECTED}, False, False),
        ({"task": HostTask.ENTERING_MAINTENANCE}, False, False),
        ({"standby": StandbyMode.EXITING}, False, False),
        ({"connection": ConnectionState.NOT_RESPONDING, "power": HostPower.UNKNOWN}, False, False),
    ],
)
def test_where_a_contrailvm_should_run(changes: dict[str, Any], available: bool, leaving: bool) -> None:
    """Design section 5: no host in, entering or leaving maintenance or standby is one to repair on."""
    host = a_host(**changes)
    assert (host_available(host), is_leaving(host)) == (available, leaving)
