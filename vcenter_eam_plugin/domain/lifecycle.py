# SPDX-License-Identifier: Apache-2.0
"""The ContrailVM state table, and nothing else.

:data:`RULES` is read from top to bottom; the first rule that fits the evidence gives state and reason. The
table knows neither I/O nor time: whoever gathers the evidence says whether a read is recent enough
(``settled``). The diagram in the documentation is generated from this table.

Why a table over evidence and not transitions between states: every source is level-triggered, so what is
true now depends on what is seen now. Nothing may depend on having seen what was in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from vcenter_eam_plugin.domain.facts import (
    AgentFacts,
    ConnectionState,
    EamStatus,
    GoalState,
    HookState,
    HostFacts,
    HostPower,
    HostTask,
    IssueFacts,
    StandbyMode,
    VmFacts,
    VmPower,
)
from vcenter_eam_plugin.domain.issues import HOST_UNAVAILABLE_TYPES, issue_type
from vcenter_eam_plugin.domain.status import State


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """Everything the state of one ContrailVM depends on.

    ``wanted``: the host is in the scope, and the agency is to keep agents there.
    ``settled``: the agent was read after the last power, host or connection change of host and VM; until
    then EAM's "green" may be older than what happened.
    ``host_settled``: the same for changes of the host alone.
    ``vm_gone``: the agent names a VM that the inventory saw leaving.
    ``agency_trouble``: why there is no agency of ours, or empty.
    ``replacing``: an upgrade is to replace the VM, which served its tenants when that began.
    ``note``: what a pending hook waits for, why its step failed, or what keeps EAM from deploying, as whoever works
    on it found out.

    One is made for every change: a frozen dataclass costs six times as much to make (measured).
    """

    wanted: bool
    host: HostFacts | None
    agent: AgentFacts | None
    vm: VmFacts | None
    settled: bool
    host_settled: bool
    vm_gone: bool = False
    agency_trouble: str = ""
    note: str = ""
    replacing: bool = False

    @property
    def issue(self) -> IssueFacts | None:
        """The issue that says most: one about the VM or its deployment before one about the host."""
        if self.agent is None or not self.agent.issues:
            return None
        return min(self.agent.issues, key=lambda issue: (issue.type in HOST_UNAVAILABLE_TYPES, issue.type))


def host_available(host: HostFacts) -> bool:
    """Whether a ContrailVM should run there now: not in, entering or leaving maintenance or standby, not away."""
    return (
        host.connection is ConnectionState.CONNECTED
        and host.power is HostPower.POWERED_ON
        and host.standby is StandbyMode.NONE
        and not host.in_maintenance
        and host.task is None
    )


def is_leaving(host: HostFacts) -> bool:
    """Whether a host is out of maintenance or standby but for the end of the task, which waits for the ContrailVM."""
    return (
        host.connection is ConnectionState.CONNECTED
        and host.power is HostPower.POWERED_ON
        and host.standby in (StandbyMode.NONE, StandbyMode.EXITING)
        and not host.in_maintenance
        and host.task in (HostTask.EXITING_MAINTENANCE, HostTask.EXITING_STANDBY)
    )


# --- what the evidence shows; each predicate is one column of the table ------------------------------------


def _is_standby(e: Evidence) -> bool:
    host = e.host
    return host is not None and (
        host.standby in (StandbyMode.ENTERING, StandbyMode.IN)
        or host.power is HostPower.STAND_BY
        or host.task is HostTask.ENTERING_STANDBY
    )


def _is_maintenance(e: Evidence) -> bool:
    return e.host is not None and (e.host.in_maintenance or e.host.task is HostTask.ENTERING_MAINTENANCE)


def _is_unreachable(e: Evidence) -> bool:
    return e.host is None or e.host.connection is not ConnectionState.CONNECTED


def _is_coming_back(e: Evidence) -> bool:
    """The host left maintenance or standby, or is about to, and EAM has not followed yet."""
    leaving = e.host is not None and is_leaving(e.host)
    return leaving or not e.host_settled or _issue_is_about_the_host(e)


def _status(e: Evidence, status: EamStatus) -> bool:
    return e.agent is not None and e.agent.status is status


def _hook(e: Evidence, *states: HookState) -> bool:
    return e.agent is not None and e.agent.hook is not None and e.agent.hook.state in states


def _power(e: Evidence, power: VmPower) -> bool:
    return e.vm is not None and e.vm.power is power


def _issue_state(e: Evidence) -> State | None:
    return issue_type(e.issue.type).state if e.issue is not None else None


def _issue_is_about_the_host(e: Evidence) -> bool:
    return e.issue is not None and e.issue.type in HOST_UNAVAILABLE_TYPES


def _waits_for_partial_maintenance(e: Evidence) -> bool:
    """EAM wants to deploy or to power on, and the host's partial maintenance mode hinders it. No property says so."""
    down = e.vm is None or _power(e, VmPower.POWERED_OFF)
    return down and e.issue is not None and e.issue.type == "HostInPartialMaintenanceMode"


def _vm_is_expected(e: Evidence) -> bool:
    """EAM names a VM that the inventory has neither shown yet nor seen leaving."""
    return e.agent is not None and e.agent.vm is not None and e.vm is None and not e.vm_gone


# --- reasons ---------------------------------------------------------------------------------------------


def _issue_reason(e: Evidence) -> str:
    if e.issue is None:
        return "EAM shows red without saying why"
    row = issue_type(e.issue.type)
    return f"{row.name}: {row.meaning}. {row.advice}"


def _connection_reason(e: Evidence) -> str:
    if e.host is None:
        return "the host is not in the inventory"
    if e.host.connection is ConnectionState.DISCONNECTED:
        return "host disconnected: connect it again in vCenter"
    return "host not responding: see why vCenter cannot reach it"


def _maintenance_reason(e: Evidence) -> str:
    entered = e.host is not None and e.host.in_maintenance
    return "host in maintenance mode" if entered else "host is entering maintenance mode"


def _standby_reason(e: Evidence) -> str:
    inside = e.host is not None and (e.host.standby is StandbyMode.IN or e.host.power is HostPower.STAND_BY)
    return "host in standby" if inside else "host is entering standby"


def _trouble_reason(e: Evidence) -> str:
    return e.agency_trouble


def _note_reason(e: Evidence) -> str:
    return e.note


def _held_off_reason(e: Evidence) -> str:
    return e.note or "held before its first power-on"


def _held_on_reason(e: Evidence) -> str:
    return e.note or "powered on, held until it is marked as available"


def _vm_connection_reason(e: Evidence) -> str:
    return f"the VM is {e.vm.connection}" if e.vm is not None else ""


def _elsewhere_reason(e: Evidence) -> str:
    return f"the VM runs on another host ({e.vm.host})" if e.vm is not None else ""


@dataclass(frozen=True, slots=True)
class Rule:
    """``state`` holds when ``when`` does; ``reason`` is a sentence, or a function that writes it.

    ``label`` is ``when`` in words: for the diagram and the documentation.
    """

    state: State | None
    label: str
    when: Callable[[Evidence], bool]
    reason: str | Callable[[Evidence], str]


RULES: tuple[Rule, ...] = (
    # Out of scope: nothing is expected of the host any more.
    Rule(State.REMOVED, "out of scope, nothing left", lambda e: not e.wanted and e.agent is None and e.vm is None,
         "the host left the scope"),
    Rule(State.REMOVING, "out of scope, agent or VM left", lambda e: not e.wanted,
         "the host left the scope; EAM removes the ContrailVM"),
    # The host first: what it is on its way to explains everything below. Standby before unreachable, because
    # vCenter shows a sleeping host as not responding.
    Rule(State.STANDBY, "host in standby or entering it", _is_standby, _standby_reason),
    Rule(State.UNREACHABLE, "host not connected", _is_unreachable, _connection_reason),
    Rule(State.MAINTENANCE, "host in maintenance or entering it", _is_maintenance, _maintenance_reason),
    # EAM has not begun.
    Rule(State.BLOCKED, "no agency of ours, and it may not be created",
         lambda e: e.agent is None and bool(e.agency_trouble), _trouble_reason),
    Rule(State.PENDING, "no agent", lambda e: e.agent is None, "EAM has no agent for this host yet"),
    Rule(State.REMOVING, "agent's goal is uninstalled",
         lambda e: e.agent is not None and e.agent.goal is GoalState.UNINSTALLED, "EAM is removing the agent"),
    # No VM.
    Rule(State.MISSING, "the VM left the inventory, EAM still names it", lambda e: e.vm_gone
         and not (e.replacing and _status(e, EamStatus.YELLOW)), "the ContrailVM was deleted"),
    Rule(State.DEPLOYING, "EAM names a VM not read yet", _vm_is_expected, "EAM created the VM"),
    Rule(State.MAINTENANCE, "no VM or VM off, host in partial maintenance", _waits_for_partial_maintenance,
         _issue_reason),
    Rule(State.DEPLOYING, "no VM, host just came back", lambda e: e.vm is None and _issue_is_about_the_host(e),
         "the host came back; EAM is about to deploy"),
    Rule(State.BLOCKED, "no VM, red, and known why", lambda e: e.vm is None and _status(e, EamStatus.RED)
         and bool(e.note), _note_reason),
    Rule(None, "no VM, red", lambda e: e.vm is None and _status(e, EamStatus.RED), _issue_reason),
    Rule(State.DEPLOYING, "no VM", lambda e: e.vm is None, "EAM is deploying the ContrailVM"),
    # A VM that is off.
    Rule(State.SUSPENDED, "VM suspended", lambda e: _power(e, VmPower.SUSPENDED), "the ContrailVM is suspended"),
    Rule(State.PROVISIONED, "VM off, held", lambda e: _power(e, VmPower.POWERED_OFF)
         and _hook(e, HookState.PROVISIONED, HookState.PRE_POWER_ON), _held_off_reason),
    Rule(State.STARTING, "VM off, EAM is working", lambda e: _power(e, VmPower.POWERED_OFF)
         and _status(e, EamStatus.YELLOW), "EAM is about to power it on"),
    Rule(State.STARTING, "VM off, host just came back", lambda e: _power(e, VmPower.POWERED_OFF)
         and _is_coming_back(e), "the host came back; EAM is about to power it on"),
    Rule(State.FAULTY, "VM off, an issue keeps it so", lambda e: _power(e, VmPower.POWERED_OFF)
         and _issue_state(e) is State.FAULTY, _issue_reason),
    Rule(State.POWERED_OFF, "VM off", lambda e: _power(e, VmPower.POWERED_OFF), "the ContrailVM is powered off"),
    # A VM that is on.
    Rule(State.FAULTY, "VM on, not connected", lambda e: e.vm is not None and e.vm.connection != "connected",
         _vm_connection_reason),
    Rule(State.FAULTY, "VM on, elsewhere", lambda e: e.vm is not None and e.host is not None
         and e.vm.host not in (None, e.host.moref), _elsewhere_reason),
    Rule(State.STARTING, "VM on, held", lambda e: _hook(e, HookState.POWERED_ON, HookState.PRE_POWER_ON),
         _held_on_reason),
    Rule(State.STARTING, "VM on, EAM not read since", lambda e: not e.settled,
         "powered on; EAM has not confirmed it since"),
    Rule(State.ACTIVE, "VM on, its replacement is made or held", lambda e: e.agent is not None
         and (e.replacing or e.agent.is_replaced) and not e.agent.issues and _status(e, EamStatus.YELLOW),
         "running; the upgrade makes a new VM beside it, which waits for its turn"),
    Rule(State.STARTING, "VM on, EAM is working", lambda e: _status(e, EamStatus.YELLOW),
         "powered on; EAM waits for it to come up"),
    Rule(State.FAULTY, "VM on, red for a fault", lambda e: _status(e, EamStatus.RED)
         and _issue_state(e) in (State.FAULTY, State.BLOCKED, None), _issue_reason),
    Rule(State.STARTING, "VM on, EAM's issue is out of date", lambda e: _status(e, EamStatus.RED),
         "powered on; EAM has not caught up"),
    Rule(State.ACTIVE, "VM on, green", lambda _: True, "running"),
)  # fmt: skip
"""First match wins. A rule without a state takes it from the issue (:mod:`~vcenter_eam_plugin.domain.issues`)."""


def classify(evidence: Evidence) -> tuple[State, str]:
    """State and reason of one ContrailVM. Total: every evidence gets a state."""
    for rule in RULES:
        if rule.when(evidence):
            state = rule.state or _issue_state(evidence) or State.FAULTY
            return state, rule.reason(evidence) if callable(rule.reason) else rule.reason
    raise AssertionError("the last rule fits everything")
