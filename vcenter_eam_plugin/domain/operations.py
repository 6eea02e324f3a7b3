# SPDX-License-Identifier: Apache-2.0
"""What a person may ask for, and what it would do: a request becomes a preview, and nothing else happens here.

A preview lists every step with the most it touches, the word that a person must type before it is done, and a digest
of all of it. Whoever carries it out makes the preview anew and compares the digests, so that what is done is what was
shown. Nothing here asks a server: a preview is made of what is known, and each step is looked at again before it is
taken.

Not promised: that a step succeeds, or that nothing happens between preview and step beyond what the digest covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

import msgspec

from vcenter_eam_plugin.domain.actions import Action, CreateAgency, ExtendScope, MarkAvailable, Resolve, WriteSettings
from vcenter_eam_plugin.domain.errors import ConfigurationError, WrongState
from vcenter_eam_plugin.domain.facts import (
    AgencyFacts,
    AgentFacts,
    ComputeResourceFacts,
    EamStatus,
    GoalState,
    HostFacts,
    VmPower,
)
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.issues import IssueType, Policy, Radius, issue_type
from vcenter_eam_plugin.domain.lifecycle import host_available
from vcenter_eam_plugin.domain.names import find_compute_resource, find_host
from vcenter_eam_plugin.domain.planner import Desired, Plan

_BREADTH = tuple(Radius)
"""Radii from the smallest to the largest, as they are declared."""
_CONSENT = (Radius.AGENT_VM_LOST, Radius.HOST)
"""What touches as much as this is done only when a person has typed the word."""


class Operation(StrEnum):
    """What may be asked for; the words are those of the command line and the API."""

    APPLY = "apply"
    RESOLVE = "resolve"
    RELEASE = "release"
    POWER_OFF = "power-off"
    DELETE = "delete"
    SCOPE_REMOVE = "scope-remove"
    UNINSTALL = "uninstall"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``target`` is a host, an inventory path or nothing, as the operation has it; ``everything`` is ``--all``.

    ``vcenter`` names one of several; empty: the only one, or the only one that knows the target.
    """

    operation: Operation
    vcenter: str = ""
    target: str = ""
    everything: bool = False

    def describe(self) -> str:
        """For the log: ``resolve esx-1``, ``apply``."""
        return " ".join(filter(None, (self.operation.value, "--all" if self.everything else "", self.target)))


# --- what a step does -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResolveIssue:
    """Have EAM remediate one issue of one agent, because a person says so."""

    host: str
    agent: str
    issue: str


@dataclass(frozen=True, slots=True)
class Release:
    """Mark a held ContrailVM as available, healthy or not."""

    host: str
    agent: str
    hook: str


@dataclass(frozen=True, slots=True)
class PowerOff:
    """Power a ContrailVM off."""

    host: str
    vm: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a ContrailVM that is off, with its disks."""

    host: str
    vm: str


@dataclass(frozen=True, slots=True)
class RemoveScope:
    """Take a compute resource out of the agency's scope: EAM deletes the ContrailVMs there."""

    agency: str
    compute_resource: str


@dataclass(frozen=True, slots=True)
class Uninstall:
    """Have EAM remove every ContrailVM, and see to it that it does."""

    agency: str


@dataclass(frozen=True, slots=True)
class DestroyAgency:
    """Remove the agency once nothing is left of it, and act no more."""

    agency: str


Do = Action | ResolveIssue | Release | PowerOff | Delete | RemoveScope | Uninstall | DestroyAgency


@dataclass(frozen=True, slots=True)
class Step:
    """One step: on whom (a name for people), what will happen, the most it touches."""

    target: str
    text: str
    radius: Radius
    do: Do


@dataclass(frozen=True, slots=True)
class Preview:
    """What carrying out a request would do now. ``notes`` say what it would not do, and why.

    ``acknowledge`` is the word that a person must type, or empty when none is needed. ``confirm``: it is harmless, but
    touches so much that a person should have seen it.
    """

    request: Request
    vcenter: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    acknowledge: str = ""

    @property
    def radius(self) -> Radius:
        """The most that any step touches."""
        return max((step.radius for step in self.steps), key=_BREADTH.index, default=Radius.NOTHING)

    @property
    def confirm(self) -> bool:
        several = self.request.operation is Operation.APPLY or self.request.everything
        return several and not self.acknowledge and bool(self.steps)

    @property
    def digest(self) -> str:
        """Two previews with the same digest do the same to the same objects, and were shown the same way."""
        basis = [
            self.request.operation.value,
            self.vcenter,
            self.acknowledge,
            *((step.target, step.text, step.radius.value, repr(step.do)) for step in self.steps),
        ]
        return sha256(msgspec.json.encode(basis)).hexdigest()[:16]

    def plain(self) -> dict[str, Any]:
        """As the API gives it."""
        return {
            "operation": self.request.operation.value,
            "target": self.request.target,
            "vcenter": self.vcenter,
            "lines": [{"target": step.target, "text": step.text, "radius": step.radius.value} for step in self.steps],
            "notes": list(self.notes),
            "radius": self.radius.value,
            "acknowledge": self.acknowledge,
            "confirm": self.confirm,
            "digest": self.digest,
        }


@dataclass(frozen=True, slots=True)
class Sight:
    """What a preview is made of: one vCenter as it is known now. ``plans`` is what the planner would do, by key."""

    vcenter: str
    fleet: Fleet
    desired: Desired
    plans: Mapping[str, Plan] = field(default_factory=dict)
    stopped: tuple[str, ...] = ()
    """Compute resources in which repairs are stopped, because several failed."""


def preview(request: Request, sight: Sight) -> Preview:
    """What the request would do. Raises UnknownTarget, WrongState, ConfigurationError for what cannot be asked."""
    if not sight.fleet.given_out:
        raise WrongState(f"{sight.vcenter}: vCenter has not been read completely yet.", remedy="Try again soon.")
    targeted = request.operation in _PREVIEWS_OF_ONE
    if request.operation in (Operation.RESOLVE, Operation.RELEASE):
        if bool(request.target) == request.everything:
            raise ConfigurationError(f"{request.operation.value}: name a host, or ask for all of them (--all).")
        targeted = not request.everything
    elif request.everything or targeted != bool(request.target):
        raise ConfigurationError(
            f"{request.operation.value} needs {'a target' if targeted else 'no target'}, and is not for all at once."
        )
    made = _PREVIEWS_OF_ONE[request.operation] if targeted else _PREVIEWS_OF_ALL[request.operation]
    return made(request, sight)


# --- the plan ---------------------------------------------------------------------------------------------


def _apply(request: Request, sight: Sight) -> Preview:
    steps, notes = [], []
    for key, plan in sight.plans.items():
        who = _name(sight.fleet, key)
        for action in plan.actions:
            steps.append(Step(who, _describe(action, sight.fleet), action.radius, action))
        notes += [f"{who}: {why}" for why in plan.waiting]
    word = _agency_name(sight.fleet) if any(step.radius in _CONSENT for step in steps) else ""
    return Preview(request, sight.vcenter, tuple(steps), tuple(notes), word)


def _describe(action: Action, fleet: Fleet) -> str:
    """The action in names; its own words are in morefs."""
    match action:
        case CreateAgency(scope=scope):
            return f"create the agency over {', '.join(_path(fleet, moref) for moref in scope)}"
        case ExtendScope(add=add):
            return f"add {', '.join(_path(fleet, moref) for moref in add)} to the agency's scope"
        case WriteSettings():
            return "set its unset Agent VM settings by rule"
        case Resolve(issue=issue):
            return _resolve_text(issue_type(issue))
        case MarkAvailable(hook=hook):
            return f"mark its ContrailVM as available (hook {hook})"
        case _:
            return action.describe()


# --- issues -----------------------------------------------------------------------------------------------


def _resolve(request: Request, sight: Sight) -> Preview:
    host = _host(request, sight)
    agent = sight.fleet.agent_on(host.moref)
    if agent is None:
        raise WrongState(f"{host.name}: EAM has no agent there, so there is nothing to resolve.")
    steps, refused = resolve_steps(host, agent)
    if refused and not steps:
        raise WrongState(f"{host.name}: nothing can be resolved. {' '.join(refused)}")
    word = host.name if any(step.radius in _CONSENT for step in steps) else ""
    return Preview(request, sight.vcenter, steps, refused, word)


def _resolve_all(request: Request, sight: Sight) -> Preview:
    steps: list[Step] = []
    notes = [
        f"Repairs were stopped in {_path(sight.fleet, moref)} because several failed; they begin again."
        for moref in sight.stopped
    ]
    for host in _by_name(sight.fleet.hosts.values()):
        agent = sight.fleet.agent_on(host.moref)
        if agent is None:
            continue
        found, refused = resolve_steps(host, agent)
        for step in found:
            if step.radius is Radius.HOST:
                notes.append(f"{host.name}: left out, for it touches the host: resolve it alone, by its name.")
            else:
                steps.append(step)
        notes += [f"{host.name}: {why}" for why in refused]
    word = _agency_name(sight.fleet) if any(step.radius in _CONSENT for step in steps) else ""
    return Preview(request, sight.vcenter, tuple(steps), tuple(notes), word)


def resolve_steps(host: HostFacts, agent: AgentFacts) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """What of a host's issues a person may have resolved, and why the rest may not be."""
    if agent.status is not EamStatus.RED:
        return (), ()
    steps, refused = [], []
    for name in sorted({issue.type for issue in agent.issues}):
        row = issue_type(name)
        why = _why_not(row, host)
        if why:
            refused.append(f"{row.name} ({row.meaning}): {why}")
        else:
            steps.append(
                Step(host.name, _resolve_text(row), row.radius, ResolveIssue(host.moref, agent.moref, row.name))
            )
    return tuple(steps), tuple(refused)


def _why_not(row: IssueType, host: HostFacts) -> str:
    """Resolving what EAM cannot remediate only hides it, so not even a person is offered to."""
    if row.policy is Policy.WAIT or (row.policy is Policy.NEVER and row.radius is not Radius.HOST):
        return row.advice
    if row.radius is not Radius.HOST and not host_available(host):
        return "the host is not available; resolving it now could take the host out of maintenance or standby."
    return ""


def _resolve_text(row: IssueType) -> str:
    return f"resolve {row.name} ({row.meaning}). {row.advice}"


# --- holds ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """A ContrailVM that EAM holds until it is marked as available."""

    host: str
    name: str
    agent: str
    hook: str
    vm_name: str


def held_in(fleet: Fleet) -> tuple[Held, ...]:
    """What is held, as the fleet knows it."""
    found = []
    for host in fleet.hosts.values():
        agent = fleet.agent_on(host.moref)
        if agent is not None and agent.hook is not None:
            found.append(Held(host.moref, host.name, agent.moref, agent.hook.state.value, agent.vm_name))
    return tuple(found)


def preview_release(request: Request, vcenter: str, held: Iterable[Held], hosts: Iterable[HostFacts]) -> Preview:
    """What a release would do. It needs no more than what is held: after a blackout there may be nothing else.

    Raises UnknownTarget and WrongState.
    """
    chosen = sorted(held, key=lambda each: each.name)
    if not request.everything:
        host = find_host(vcenter, list(hosts), request.target)
        chosen = [each for each in chosen if each.host == host.moref]
        if not chosen:
            raise WrongState(f"{host.name}: its ContrailVM is not held; there is nothing to release.")
    steps = tuple(
        Step(
            each.name,
            f"mark {each.vm_name} as available (hook {each.hook}), whether its vRouter answers or not",
            Radius.AGENT_VM,
            Release(each.host, each.agent, each.hook),
        )
        for each in chosen
    )
    return Preview(request, vcenter, steps)


def _release(request: Request, sight: Sight) -> Preview:
    return preview_release(request, sight.vcenter, held_in(sight.fleet), sight.fleet.hosts.values())


# --- one ContrailVM ---------------------------------------------------------------------------------------


def _power_off(request: Request, sight: Sight) -> Preview:
    host = _host(request, sight)
    vm, power = _vm_of(sight, host)
    if power is VmPower.POWERED_OFF:
        raise WrongState(f"{host.name}: its ContrailVM is off already.")
    return Preview(request, sight.vcenter, (_off(sight, host, vm),), _afterwards(sight, host, "on"), host.name)


def _delete(request: Request, sight: Sight) -> Preview:
    host = _host(request, sight)
    vm, power = _vm_of(sight, host)
    gone = Step(
        host.name,
        f"delete {sight.fleet.vms[vm].name} with its disks; what was installed on it is lost",
        Radius.AGENT_VM_LOST,
        Delete(host.moref, vm),
    )
    steps = (gone,) if power is VmPower.POWERED_OFF else (_off(sight, host, vm), gone)
    return Preview(request, sight.vcenter, steps, _afterwards(sight, host, "there"), host.name)


def _off(sight: Sight, host: HostFacts, vm: str) -> Step:
    status = sight.fleet.status(host.moref)
    state = f", which is {status.state.value}" if status is not None else ""
    return Step(
        host.name,
        f"power off {sight.fleet.vms[vm].name}{state}: tenant VMs on the host lose their network, and EAM turns red",
        Radius.AGENT_VM,
        PowerOff(host.moref, vm),
    )


def _vm_of(sight: Sight, host: HostFacts) -> tuple[str, VmPower]:
    agent = sight.fleet.agent_on(host.moref)
    vm = sight.fleet.vms.get(agent.vm or "") if agent is not None else None
    if vm is None:
        raise WrongState(f"{host.name}: there is no ContrailVM.")
    return vm.moref, vm.power


def _afterwards(sight: Sight, host: HostFacts, wanted: str) -> tuple[str, ...]:
    if not host_available(host):
        return ()
    return (
        f"It is repaired after {sight.desired.power_off_grace:g} s, to be {wanted} again. If it is to stay as it is, "
        f"pause first, or put the host into maintenance.",
    )


# --- the agency -------------------------------------------------------------------------------------------


def _scope_remove(request: Request, sight: Sight) -> Preview:
    fleet, agency = sight.fleet, _agency(sight)
    target = find_compute_resource(sight.vcenter, _in_scope(fleet, agency), request.target)
    if target.moref in sight.desired.scope:
        raise WrongState(
            f"{target.path} is still configured, so it would be added again at once.",
            remedy="Take it out of `clusters` in section [EAM], restart the service, and ask again.",
        )
    if agency.scope == (target.moref,):
        raise WrongState(f"{target.path} is all that the agency covers.", remedy="Uninstall the agency instead.")
    losing = [host.name for host in _by_name(fleet.hosts.values()) if host.compute_resource == target.moref]
    names = f": {', '.join(losing)}" if losing else ""
    step = Step(
        target.path,
        f"leaves the agency's scope; EAM deletes the ContrailVM of {len(losing)} host(s){names}",
        Radius.AGENT_VM_LOST,
        RemoveScope(agency.moref, target.moref),
    )
    return Preview(request, sight.vcenter, (step,), (), target.path)


def _in_scope(fleet: Fleet, agency: AgencyFacts) -> list[ComputeResourceFacts]:
    """What the agency covers; a cluster that left the inventory goes by its moref."""
    return [
        fleet.compute_resources.get(moref) or ComputeResourceFacts(moref, moref, moref, "", True, ())
        for moref in agency.scope
    ]


def _uninstall(request: Request, sight: Sight) -> Preview:
    fleet, agency = sight.fleet, _agency(sight)
    agents = [agent for agent in fleet.agents.values() if agent.vm]
    steps = (
        Step(
            agency.name,
            f"uninstall it: EAM powers off and deletes {len(agents)} ContrailVM(s)",
            Radius.AGENT_VM_LOST,
            Uninstall(agency.moref),
        ),
        Step(
            agency.name,
            "destroy the agency once nothing is left of it, and act no more until activated",
            Radius.AGENT_VM_LOST,
            DestroyAgency(agency.moref),
        ),
    )
    notes = ["Set `mode = observe` before the next restart of the service, or it deploys everything again."]
    away = [host.name for host in _by_name(fleet.hosts.values()) if not host_available(host)]
    if away:
        notes.append(f"EAM cannot delete on hosts that are not available; these hold it up: {', '.join(away)}")
    if agency.goal is GoalState.UNINSTALLED:
        notes.append("It is being uninstalled already.")
    return Preview(request, sight.vcenter, steps, tuple(notes), agency.name)


def _agency(sight: Sight) -> AgencyFacts:
    if sight.fleet.agency is None:
        raise WrongState(f"{sight.vcenter}: there is no agency of ours.")
    return sight.fleet.agency


# --- names ------------------------------------------------------------------------------------------------


def _host(request: Request, sight: Sight) -> HostFacts:
    return find_host(sight.vcenter, list(sight.fleet.hosts.values()), request.target)


def _by_name(hosts: Iterable[HostFacts]) -> list[HostFacts]:
    return sorted(hosts, key=lambda host: host.name)


def _name(fleet: Fleet, key: str) -> str:
    host = fleet.hosts.get(key)
    return host.name if host is not None else "agency"


def _path(fleet: Fleet, moref: str) -> str:
    facts = fleet.compute_resources.get(moref)
    return facts.path if facts is not None else moref


def _agency_name(fleet: Fleet) -> str:
    return fleet.agency.name if fleet.agency is not None else "agency"


_PREVIEWS_OF_ONE = {
    Operation.RESOLVE: _resolve,
    Operation.RELEASE: _release,
    Operation.POWER_OFF: _power_off,
    Operation.DELETE: _delete,
    Operation.SCOPE_REMOVE: _scope_remove,
}
_PREVIEWS_OF_ALL = {
    Operation.APPLY: _apply,
    Operation.RESOLVE: _resolve_all,
    Operation.RELEASE: _release,
    Operation.UNINSTALL: _uninstall,
}
