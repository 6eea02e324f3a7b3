# SPDX-License-Identifier: Apache-2.0
"""What the pages show, as plain values: made of what the service knows, without asking any server.

Templates only arrange it. What is long (every host of a fleet) is given piece by piece, so that whoever writes the
page can let others run in between.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.domain.errors import PluginError, UnknownTarget
from vcenter_eam_plugin.domain.facts import EamStatus, IssueFacts
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.issues import IssueType, Radius, issue_type
from vcenter_eam_plugin.domain.operations import describe, resolve_steps
from vcenter_eam_plugin.domain.status import ContrailVm, State, Violation
from vcenter_eam_plugin.domain.upgrade import Upgrade
from vcenter_eam_plugin.domain.violations import advice
from vcenter_eam_plugin.history import Entry
from vcenter_eam_plugin.pipeline import Pipeline
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.turns import Turns
from vcenter_eam_plugin.unit import Unit
from vcenter_eam_plugin.web.faces import FACES, NEEDS_SOMEBODY, WORST_FIRST
from vcenter_eam_plugin.web.pages import Part, Shown

ROOMY = 64
"""Hosts on one page up to which each is a tile with its name; more are a letter each."""
MOST_TROUBLES = 25
"""Rows of the overview's table of hosts that need somebody; the grid shows all."""
ON_A_PAGE = 100
"""Rows of a long table: of a plan, of what waits, of the hosts with one issue."""
MOST_KINDS = 8
"""Kinds of steps that are listed before a service is activated; more are a link to the plan."""
_SAY_MOST = ("failed", "running", "begun", "waiting", "done")
"""Outcomes of steps, in the order of interest while an operation goes on."""
_BAR = 1000.0
"""Width of the bar of states, in units of its own."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the hosts is to be shown: a state (empty: all), and a text that name, cluster or reason contains."""

    state: str = ""
    text: str = ""

    def fits(self, status: ContrailVm) -> bool:
        if self.state and status.state.value != self.state:
            return False
        text = self.text.casefold()
        return not text or text in f"{status.esxi.name}\n{status.esxi.cluster}\n{status.reason}".casefold()


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster, or one standalone host, with its hosts by name. Two datacenters may have one of the same name."""

    vcenter: str
    moref: str
    name: str
    datacenter: str
    hosts: tuple[ContrailVm, ...]
    counts: tuple[tuple[State, int], ...]
    retreat: bool


@dataclass(frozen=True, slots=True)
class IssueGroup:
    """One type of issue in one vCenter: all of its hosts, and those on the page that ``part`` is."""

    vcenter: str
    kind: IssueType
    policy: str
    hosts: tuple[IssueOn, ...]
    part: Part

    @property
    def listed(self) -> Sequence[IssueOn]:
        return self.part.of(self.hosts)

    @property
    def shown(self) -> Shown:
        return self.part.shown(len(self.hosts))


@dataclass(frozen=True, slots=True)
class IssueOn:
    """An issue on one host; ``status`` is ``None`` for one of the agency alone."""

    status: ContrailVm | None
    description: str
    solvable: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """One piece of the bar of states."""

    state: State
    count: int
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class PlanPicture:
    """What would be done now in one vCenter, one page of it. ``trouble``: why no plan is known, or empty.

    ``elsewhere`` names the instance that leads, where it is not this one; ``doing`` is what is on its way already.
    """

    name: str
    mode: str
    closed: str
    elsewhere: str
    doing: str
    trouble: str
    lines: Sequence[dict[str, str]]
    notes: Sequence[str]
    total_lines: int
    total_notes: int
    shown: Shown


@dataclass(frozen=True, slots=True)
class KindOfStep:
    """Steps that say the same, of an activation: how many, on whom if it is only one."""

    text: str
    radius: str
    count: int
    target: str


@dataclass(frozen=True, slots=True)
class SwitchPicture:
    """What it means to activate or pause one vCenter now: what is planned, as ``digest`` says, kind by kind.

    ``elsewhere`` names the instance that would have to be told instead. ``stays``: a restart begins in mode act.
    """

    vcenter: str
    mode: str
    elsewhere: str
    trouble: str
    steps: int
    waits: int
    kinds: tuple[KindOfStep, ...]
    more: int
    radius: str
    digest: str
    stays: bool


@dataclass(frozen=True, slots=True)
class HostPicture:
    """Everything of one host."""

    unit: Unit
    status: ContrailVm
    lines: tuple[Entry, ...]
    issues: tuple[tuple[IssueType, str, bool], ...]
    broken: tuple[tuple[Violation, str], ...]
    """Rules, each with what to do."""
    planned: tuple[tuple[str, str], ...]
    waiting: tuple[str, ...]
    settings: Mapping[str, str]


def by_name(status: ContrailVm) -> tuple[Any, ...]:
    """A key that has esx-2 before esx-10."""
    parts = re.split(r"(\d+)", status.esxi.name)
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], status.esxi.moref


def statuses(unit: Unit) -> tuple[ContrailVm, ...]:
    """Of all hosts; none before everything was read once."""
    return unit.pipeline.fleet.statuses() if unit.pipeline is not None else ()


def count_hosts(service: Service) -> int:
    return sum(len(statuses(unit)) for unit in service.units)


def overview(unit: Unit) -> dict[str, Any]:
    """One vCenter: what its ``status`` says, and the agency's colour with its reasons, counts by state, the upgrade."""
    told = unit.status()
    pipeline = unit.pipeline
    found = statuses(unit)
    counts = Counter(status.state for status in found)
    return {
        **told,
        "closed": unit.gate.closed(),
        "elsewhere": unit.led_elsewhere(),
        "hosts": len(found),
        "counts": [(state, counts[state]) for state in FACES if counts[state]],
        "bars": bars(counts),
        "active": counts[State.ACTIVE],
        "agency_reasons": _agency_reasons(pipeline.fleet) if pipeline is not None else [],
        "agency_trouble": _agency_trouble(pipeline.fleet) if pipeline is not None else "",
        "upgrade": upgrade_words(pipeline.upgrades.status()) if pipeline is not None else None,
    }


def bars(counts: Mapping[State, int]) -> list[Bar]:
    """The pieces of the bar of states, side by side."""
    total, x, pieces = sum(counts.values()), 0.0, []
    for state in FACES:
        if counts.get(state):
            width = _BAR * counts[state] / total
            pieces.append(Bar(state, counts[state], round(x, 2), round(width, 2)))
            x += width
    return pieces


def _agency_reasons(fleet: Fleet) -> list[tuple[IssueType, int]]:
    """Why the agency has its colour: types of issues, and how many of each; the most frequent first."""
    if fleet.agency is None:
        return []
    counts = Counter(issue.type for issue in _all_issues(fleet))
    return [(issue_type(name), count) for name, count in counts.most_common()]


def _agency_trouble(fleet: Fleet) -> str:
    if fleet.foreign:
        owners = ", ".join(sorted(each.owner or each.solution_id for each in fleet.foreign))
        return f"An agency of our name belongs to somebody else ({owners})."
    return fleet.agency_refusal


def _all_issues(fleet: Fleet) -> Iterator[IssueFacts]:
    """Of the agents, as read last, and of the agency itself."""
    for agent in fleet.agents.values():
        yield from agent.issues
    if fleet.agency is not None:
        yield from (issue for issue in fleet.agency.issues if issue.agent is None)


def upgrade_words(upgrade: Upgrade | None) -> dict[str, Any] | None:
    """An upgrade for people."""
    if upgrade is None:
        return None
    return {
        "phase": "paused" if upgrade.paused else upgrade.phase.value,
        "admitted": len(upgrade.admitted),
        "of": len(upgrade.old),
        "why": upgrade.why,
        "url": upgrade.url,
    }


def clusters(unit: Unit, wanted: Wanted) -> Iterator[Cluster]:
    """By name, without those in which nothing is wanted."""
    fleet = unit.pipeline.fleet if unit.pipeline is not None else None
    if fleet is None:
        return
    found: dict[str, list[ContrailVm]] = {}
    for status in fleet.statuses():
        found.setdefault(status.esxi.compute_resource, []).append(status)
    for moref, members in sorted(found.items(), key=lambda item: (item[1][0].esxi.cluster.casefold(), item[0])):
        shown = sorted(filter(wanted.fits, members), key=by_name)
        if not shown:
            continue
        counts = Counter(status.state for status in members)
        yield Cluster(
            unit.name,
            moref,
            members[0].esxi.cluster or moref,
            members[0].esxi.datacenter,
            tuple(shown),
            tuple((state, counts[state]) for state in FACES if counts[state]),
            moref in fleet.retreat,
        )


def troubles(units: Iterable[Unit]) -> tuple[list[tuple[str, ContrailVm]], int]:
    """Hosts that need somebody, the worst first, and how many more there are than are listed.

    A broken rule needs somebody whatever the state: HA that counts ContrailVMs leaves all of them ACTIVE.
    """
    found = [
        (unit.name, status)
        for unit in units
        for status in statuses(unit)
        if status.state in NEEDS_SOMEBODY or status.violations
    ]
    found.sort(key=lambda each: (WORST_FIRST.index(each[1].state), each[0], by_name(each[1])))
    return found[:MOST_TROUBLES], max(len(found) - MOST_TROUBLES, 0)


def issue_groups(unit: Unit, part: Part) -> list[IssueGroup]:
    """By type, that on most hosts first; of each type one page."""
    pipeline = unit.pipeline
    if pipeline is None:
        return []
    fleet = pipeline.fleet
    found: dict[str, list[IssueOn]] = {}
    turns = Turns()
    for status in sorted((each for each in fleet.statuses() if each.eam.issues), key=by_name):
        turns.give()
        solvable = _solvable(fleet, status.esxi.moref)
        for issue in status.eam.issues:
            found.setdefault(issue.type, []).append(IssueOn(status, issue.description, issue.type in solvable))
    for own in fleet.agency.issues if fleet.agency is not None else ():
        if own.agent is None and own.host is None:
            found.setdefault(own.type, []).append(IssueOn(None, own.description, False))
    groups = [
        IssueGroup(
            unit.name, issue_type(name), _policy(pipeline, issue_type(name)), tuple(hosts), part.within(len(hosts))
        )
        for name, hosts in found.items()
    ]
    return sorted(groups, key=lambda group: (-len(group.hosts), group.kind.name))


def _solvable(fleet: Fleet, host: str) -> set[str]:
    """Types of the issues on a host that a person may have resolved now."""
    agent, facts = fleet.agent_on(host), fleet.hosts.get(host)
    if agent is None or facts is None or agent.status is not EamStatus.RED:
        return set()
    return {step.do.issue for step in resolve_steps(facts, agent)[0] if hasattr(step.do, "issue")}


_POLICIES = {
    "auto": "resolved by itself, within the budgets",
    "auto_after_fix": "its cause is mended, then EAM looks again",
    "ask": "a person decides",
    "never": "never resolved by itself: that would do harm, or only hide it",
    "wait": "goes when its cause does",
}


def _policy(pipeline: Pipeline, kind: IssueType) -> str:
    policy = kind.policy.value
    if policy in ("auto", "auto_after_fix") and kind.name not in pipeline.planner.desired.auto_resolve:
        policy = "ask"
    return _POLICIES[policy]


def plan_picture(service: Service, unit: Unit, part: Part) -> PlanPicture:
    """The plan of one vCenter as it is now."""
    shown, trouble = _plan(service, unit)
    lines, notes = shown.get("lines", ()), shown.get("notes", ())
    longest = max(len(lines), len(notes))
    here = part.within(longest)
    return PlanPicture(
        name=unit.name,
        mode=unit.gate.mode,
        closed=unit.gate.closed(),
        elsewhere=unit.led_elsewhere(),
        doing=unit.pipeline.doing() if unit.pipeline is not None else "",
        trouble=trouble,
        lines=here.of(lines),
        notes=here.of(notes),
        total_lines=len(lines),
        total_notes=len(notes),
        shown=here.shown(longest),
    )


def switch_picture(service: Service, unit: Unit) -> SwitchPicture:
    """What activating or pausing one vCenter would mean."""
    plan, trouble = _plan(service, unit)
    lines = plan.get("lines", ())
    kinds = kinds_of_steps(lines)[:MOST_KINDS]
    return SwitchPicture(
        vcenter=unit.name,
        mode=unit.gate.mode,
        elsewhere=unit.led_elsewhere(),
        trouble=trouble,
        steps=len(lines),
        waits=len(plan.get("notes", ())),
        kinds=kinds,
        more=len(lines) - sum(kind.count for kind in kinds),
        radius=plan.get("radius", ""),
        digest=plan.get("digest", ""),
        stays=unit.config.eam.mode is Mode.ACT,
    )


def kinds_of_steps(lines: Iterable[Mapping[str, str]]) -> tuple[KindOfStep, ...]:
    """Steps of a plan that say the same taken together. What touches most is first, however rare it is, then what is
    done most often."""
    targets: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        targets.setdefault((line["text"], line["radius"]), []).append(line["target"])
    order = [radius.value for radius in Radius]
    kinds = [KindOfStep(*kind, len(on), on[0] if len(on) == 1 else "") for kind, on in targets.items()]
    return tuple(sorted(kinds, key=lambda kind: (-order.index(kind.radius), -kind.count, kind.text)))


def steps_shown(steps: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Steps of an operation, and how many more there are: of very many those that say most, since it is asked twice a
    second how far it is."""
    if len(steps) <= ON_A_PAGE:
        return steps, 0
    telling = sorted(steps, key=lambda step: _SAY_MOST.index(step["outcome"]))
    return telling[:ON_A_PAGE], len(steps) - ON_A_PAGE


def _plan(service: Service, unit: Unit) -> tuple[dict[str, Any], str]:
    """The plan, or nothing and why."""
    try:
        (shown,) = service.operations.plan(unit.name)
    except PluginError as exc:
        return {}, str(exc)
    return shown, ""


def host_picture(service: Service, vcenter: str, moref: str) -> HostPicture:
    """Everything of one host. Raises UnknownTarget."""
    unit = next((unit for unit in service.units if unit.name == vcenter), None)
    if unit is None or unit.pipeline is None:
        raise UnknownTarget(f"No vCenter {vcenter!r} is connected.")
    fleet = unit.pipeline.fleet
    status = fleet.status(moref)
    if status is None:
        raise UnknownTarget(f"{vcenter}: no host {moref!r} is known (any more).")
    solvable = _solvable(fleet, moref)
    issues = tuple((issue_type(each.type), each.description, each.type in solvable) for each in status.eam.issues)
    planned, waiting = _planned(unit.pipeline, moref)
    broken = tuple((each, advice(each.name)) for each in status.violations)
    return HostPicture(
        unit, status, service.history.lines(vcenter, moref), issues, broken, planned, waiting, _settings(fleet, moref)
    )


def _planned(pipeline: Pipeline, host: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """What would be done about a host now, with the most it touches; and why other things wait."""
    if host not in pipeline.fleet.hosts:
        return (), ()
    try:
        plan = pipeline.workers.plan_for(host, time.monotonic())
    except PluginError as exc:
        return (), (str(exc),)
    planned = tuple((describe(action, pipeline.fleet), action.radius.value) for action in plan.actions)
    return planned, tuple(dict.fromkeys((*plan.waiting, *pipeline.workers.waiting.get(host, ()))))


def _settings(fleet: Fleet, host: str) -> dict[str, str]:
    facts = fleet.hosts.get(host)
    if facts is None:
        return {}
    return {
        "Agent VM datastore": facts.agent_datastore or "not set",
        "Agent VM network": facts.agent_network or "not set",
    }
