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

from vcenter_eam_plugin.domain.actions import (
    Action,
    CreateAgency,
    ExtendScope,
    MarkAvailable,
    Probe,
    Provision,
    Resolve,
    ShrinkScope,
    WriteSettings,
)
from vcenter_eam_plugin.domain.errors import ConfigurationError, UnknownTarget, WrongState
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
from vcenter_eam_plugin.domain.requests import (
    Adopt,
    Delete,
    DestroyAgency,
    Operation,
    PowerOff,
    Preview,
    Release,
    RemoveScope,
    Request,
    ResolveIssue,
    SetRetreat,
    StartUpgrade,
    SteerUpgrade,
    Step,
    Uninstall,
)
from vcenter_eam_plugin.domain.upgrade import Phase, Upgrade, may_go_on_at_once

__all__ = ["Held", "Operation", "Preview", "Request", "Sight", "Step", "describe", "held_in", "preview",
           "preview_release", "resolve_steps"]  # fmt: skip

_CONSENT = (Radius.AGENT_VM_LOST, Radius.HOST)
"""What touches as much as this is done only when a person has typed the word."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a preview is made of: one vCenter as it is known now. ``plans`` is what the planner would do, by key."""

    vcenter: str
    fleet: Fleet
    desired: Desired
    plans: Mapping[str, Plan] = field(default_factory=dict)
    stopped: tuple[str, ...] = ()
    """Compute resources in which repairs are stopped, because several failed."""
    package: str = ""
    """The URL that an upgrade would have EAM fetch."""
    upgrade: Upgrade | None = None
    may_mark: bool = True
    """Whether EAM lets our account answer hooks."""


def preview(request: Request, sight: Sight) -> Preview:
    """What the request would do. Raises UnknownTarget, WrongState, ConfigurationError for what cannot be asked."""
    if not sight.fleet.given_out:
        raise WrongState(f"{sight.vcenter}: vCenter has not been read completely yet.", remedy="Try again soon.")
    operation, one, everyone = request.operation, bool(request.target), request.everything
    if one and everyone:
        raise ConfigurationError(f"{operation.value}: name one, or ask for all of them; not both.")
    made = (_PREVIEWS_OF_ONE if one else _PREVIEWS_OF_ALL).get(operation)
    if made is None or (not one and everyone != (operation in _FOR_ALL)):
        needs = "a target" if operation in _PREVIEWS_OF_ONE else "no target"
        raise ConfigurationError(f"{operation.value} needs {needs}{' or --all' if operation in _FOR_ALL else ''}.")
    return made(request, sight)


# --- the plan ---------------------------------------------------------------------------------------------


def _apply(request: Request, sight: Sight) -> Preview:
    steps, notes = [], []
    for key, plan in sight.plans.items():
        who = _name(sight.fleet, key)
        for action in plan.actions:
            steps.append(Step(who, describe(action, sight.fleet), action.radius, action))
        notes += [f"{who}: {why}" for why in plan.waiting]
    word = _agency_name(sight.fleet) if any(step.radius in _CONSENT for step in steps) else ""
    return Preview(request, sight.vcenter, tuple(steps), tuple(notes), word)


def describe(action: Action, fleet: Fleet) -> str:
    """The action in names; its own words are in morefs."""
    text = action.describe()
    match action:
        case CreateAgency(scope=scope):
            text = f"create the agency over {_paths(fleet, scope)}"
        case ExtendScope(add=add):
            text = f"add {_paths(fleet, add)} to the agency's scope"
        case ShrinkScope(remove=remove):
            text = f"take {_paths(fleet, remove)} out of the agency's scope (retreat)"
        case WriteSettings():
            text = "set its unset Agent VM settings by rule"
        case Resolve(issue=issue):
            text = _resolve_text(issue_type(issue))
        case Provision(vm=vm):
            text = f"customise its held ContrailVM ({vm}) and mark it as available"
        case Probe(ip=ip):
            text = f"ask its vRouter at {ip} whether it works"
        case MarkAvailable(hook=hook, released=why):
            text = f"mark its ContrailVM as available (hook {hook})" + (f": {why}" if why else "")
    return text


def _paths(fleet: Fleet, morefs: Iterable[str]) -> str:
    return ", ".join(_path(fleet, moref) for moref in morefs)


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
    replaces: bool = False
    """An older ContrailVM goes on beside it until it is let go: an upgrade in which its turn has not come."""


def held_in(fleet: Fleet) -> tuple[Held, ...]:
    """What is held, as the fleet knows it."""
    found = []
    for host in fleet.hosts.values():
        agent = fleet.agent_on(host.moref)
        if agent is not None and agent.hook is not None:
            found.append(
                Held(host.moref, host.name, agent.moref, agent.hook.state.value, agent.vm_name, agent.is_replaced)
            )
    return tuple(found)


def preview_release(request: Request, vcenter: str, held: Iterable[Held], hosts: Mapping[str, str]) -> Preview:
    """What a release would do. It needs no more than what is held, and hosts' names by moref: after a blackout there
    may be nothing else.

    What waits for its turn in an upgrade is let go by name alone: all of it at once would take the ContrailVM from
    under the tenants of the whole fleet. Raises UnknownTarget and WrongState.
    """
    chosen = sorted(held, key=lambda each: each.name)
    notes: tuple[str, ...] = ()
    if request.everything:
        waiting = [each.name for each in chosen if each.replaces]
        chosen = [each for each in chosen if not each.replaces]
        if waiting:
            notes = (
                f"Left out, for their ContrailVM would be replaced before its turn in the upgrade: "
                f"{', '.join(waiting)}. Release such a host alone, by its name.",
            )
    else:
        host = find_host(vcenter, hosts, request.target)
        chosen = [each for each in chosen if each.host == host]
        if not chosen:
            raise WrongState(f"{hosts[host]}: its ContrailVM is not held; there is nothing to release.")
    steps = tuple(
        Step(
            each.name,
            _release_text(each),
            Radius.AGENT_VM_LOST if each.replaces else Radius.AGENT_VM,
            Release(each.host, each.agent, each.hook),
        )
        for each in chosen
    )
    return Preview(request, vcenter, steps, notes)


def _release_text(held: Held) -> str:
    if held.replaces:
        return "let the new ContrailVM go on: EAM deletes the one that runs now, and tenant VMs lose their network"
    return f"mark {held.vm_name} as available (hook {held.hook}), whether its vRouter answers or not"


def _release(request: Request, sight: Sight) -> Preview:
    return preview_release(request, sight.vcenter, held_in(sight.fleet), _names(sight.fleet))


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
    losing, names = _hosts_of(fleet, target)
    step = Step(
        target.path,
        f"leaves the agency's scope; EAM deletes the ContrailVM of {losing} host(s){names}",
        Radius.AGENT_VM_LOST,
        RemoveScope(agency.moref, target.moref),
    )
    return Preview(request, sight.vcenter, (step,), (), target.path)


def _hosts_of(fleet: Fleet, target: ComputeResourceFacts) -> tuple[int, str]:
    names = [host.name for host in _by_name(fleet.hosts.values()) if host.compute_resource == target.moref]
    return len(names), f": {', '.join(names)}" if names else ""


def _retreat(request: Request, sight: Sight) -> Preview:
    fleet, agency = sight.fleet, _agency(sight)
    target = find_compute_resource(sight.vcenter, _in_scope(fleet, agency), request.target)
    if target.moref in fleet.retreat:
        raise WrongState(f"{target.path} is in retreat already.", remedy="Take it back by `return`.")
    if not set(agency.scope) - fleet.retreat - {target.moref}:
        raise WrongState(f"{target.path} is all that the agency covers.", remedy="Uninstall the agency instead.")
    losing, names = _hosts_of(fleet, target)
    step = Step(
        target.path,
        f"goes into retreat; EAM deletes the ContrailVM of {losing} host(s){names}",
        Radius.AGENT_VM_LOST,
        SetRetreat(target.moref, on=True),
    )
    notes = ("It stays so, also over restarts, until `return`.",)
    return Preview(request, sight.vcenter, (step,), notes, target.path)


def _return(request: Request, sight: Sight) -> Preview:
    fleet = sight.fleet
    drained = [
        fleet.compute_resources.get(moref) or ComputeResourceFacts(moref, moref, moref, "", True, ())
        for moref in sorted(fleet.retreat)
    ]
    target = find_compute_resource(f"{sight.vcenter}, in retreat", drained, request.target)
    again, names = _hosts_of(fleet, target)
    step = Step(
        target.path,
        f"is taken back; EAM deploys a ContrailVM to {again} host(s){names}",
        Radius.AGENT_VM,
        SetRetreat(target.moref, on=False),
    )
    return Preview(request, sight.vcenter, (step,))


def _upgrade(request: Request, sight: Sight) -> Preview:
    agency, running = _agency(sight), sight.upgrade
    goes_on = request.at_once and may_go_on_at_once(running, sight.package)
    if running is not None and running.phase is not Phase.DONE and not goes_on:
        raise WrongState(f"An upgrade to {running.url} is under way ({running.phase}).", remedy="Let it end first.")
    if agency.ovf_url == sight.package and not goes_on:
        raise WrongState(f"The agency deploys {sight.package} already.", remedy="Configure the new package first.")
    if not request.at_once and not sight.may_mark:
        raise WrongState(
            "An upgrade in waves needs the hold, and EAM refuses MarkAsAvailable to our account.",
            remedy="Log in as a vCenter extension, or take all hosts at once (--all-at-once).",
        )
    number = sum(agent.vm is not None for agent in sight.fleet.agents.values())
    how = (
        "all at once: every host is without its vRouter meanwhile"
        if request.at_once
        else ("a canary first, then in waves")
    )
    step = Step(
        agency.name,
        f"replace {number} ContrailVM(s), now of {agency.ovf_url or 'no package'}, by {sight.package}; {how}",
        Radius.AGENT_VM_LOST,
        StartUpgrade(agency.moref, sight.package, request.at_once),
    )
    return Preview(request, sight.vcenter, (step,), (), agency.name)


def _steer_upgrade(request: Request, sight: Sight) -> Preview:
    running = sight.upgrade
    if running is None or running.phase is Phase.DONE:
        raise WrongState("No upgrade is under way.")
    pause = request.operation is Operation.UPGRADE_PAUSE
    text = "admit no further host; those admitted go on" if pause else "admit the next hosts"
    why = f" (it was stopped: {running.why})" if running.why and not pause else ""
    step = Step("upgrade", f"{text}{why}", Radius.NOTHING if pause else Radius.AGENT_VM, SteerUpgrade(pause))
    return Preview(request, sight.vcenter, (step,))


def _adopt(request: Request, sight: Sight) -> Preview:
    found = sight.fleet.foreign
    if not found and sight.fleet.unseen_owner:
        raise WrongState(
            f"{sight.vcenter}: an extension can neither see nor use the agency of {sight.fleet.unseen_owner}.",
            remedy="Log in as a user who may see all agencies: adopt it as that user, or uninstall it first.",
        )
    if not found:
        raise WrongState(f"{sight.vcenter}: no agency of our name belongs to somebody else; there is nothing to adopt.")
    chosen = [each for each in found if not request.target or request.target in (each.moref, _owner(each))]
    if len(chosen) != 1:
        names = ", ".join(f"{each.moref} of {_owner(each)}" for each in found)
        raise UnknownTarget(f"{sight.vcenter}: which agency is meant? There are: {names}.")
    (agency,) = chosen
    step = Step(
        agency.name,
        f"{agency.moref} of {_owner(agency)}, over {len(agency.scope)} compute resource(s), is kept as configured here "
        "from now on; its owner may still change it",
        Radius.AGENT_VM,
        Adopt(agency.moref, _owner(agency)),
    )
    return Preview(request, sight.vcenter, (step,), (), agency.name)


def _owner(agency: AgencyFacts) -> str:
    return agency.owner or agency.solution_id


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
    notes = ["The service is paused afterwards, also over restarts: `activate` would deploy everything again."]
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
    return sight.fleet.hosts[find_host(sight.vcenter, _names(sight.fleet), request.target)]


def _names(fleet: Fleet) -> dict[str, str]:
    return {host.moref: host.name for host in fleet.hosts.values()}


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
    Operation.RETREAT: _retreat,
    Operation.RETURN: _return,
    Operation.ADOPT: _adopt,
}
_PREVIEWS_OF_ALL = {
    Operation.APPLY: _apply,
    Operation.RESOLVE: _resolve_all,
    Operation.RELEASE: _release,
    Operation.UPGRADE: _upgrade,
    Operation.UPGRADE_PAUSE: _steer_upgrade,
    Operation.UPGRADE_RESUME: _steer_upgrade,
    Operation.UNINSTALL: _uninstall,
    Operation.ADOPT: _adopt,
}
_FOR_ALL = (Operation.RESOLVE, Operation.RELEASE)
"""They take a host, or ``--all``."""
