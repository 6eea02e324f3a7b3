# SPDX-License-Identifier: Apache-2.0
"""What to do: (desired, fleet, budgets) -> actions.

The planner only ever looks at what was observed. Maintenance is (should run: no, may keep what it has: yes):
on a host that is in, entering or leaving maintenance or standby, or cannot be reached, nothing is resolved. Its
Agent VM settings are written in maintenance too: a host is added in it, and EAM deploys the moment it leaves. A
hook is answered while a host leaves: the leaving ends only when the ContrailVM is on. Actions that a person must
consent to are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from vcenter_eam_plugin.domain.actions import (
    Action,
    CreateAgency,
    ExtendScope,
    MarkAvailable,
    Probe,
    Provision,
    Rename,
    Resolve,
    SetHolds,
    ShrinkScope,
    WriteSettings,
)
from vcenter_eam_plugin.domain.budgets import Ledger
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.facts import (
    AgentFacts,
    ConnectionState,
    EamStatus,
    GoalState,
    HookFacts,
    HookState,
    HostFacts,
    HostPower,
    StandbyMode,
)
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.health import HealthGate, HealthRules, Step
from vcenter_eam_plugin.domain.issues import CATALOGUE, Policy, issue_type
from vcenter_eam_plugin.domain.lifecycle import host_available, is_leaving
from vcenter_eam_plugin.domain.settings_rules import SettingsRules
from vcenter_eam_plugin.domain.status import State
from vcenter_eam_plugin.domain.upgrade import Phase, Upgrade, admits, waits_for_turn

DEFAULT_AUTO_RESOLVE = frozenset(
    name for name, row in CATALOGUE.items() if row.policy in (Policy.AUTO, Policy.AUTO_AFTER_FIX)
)
"""What is resolved without asking unless the configuration says less. It can never say more."""


_OFF = (State.POWERED_OFF, State.SUSPENDED)

SETTINGS_SEEN_SECONDS = 15.0
"""A property update takes milliseconds; after this the write is taken for lost and made again."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What the operator wants. ``scope`` holds morefs; ``power_off_grace`` seconds (a person may be at work)."""

    scope: tuple[str, ...]
    rules: SettingsRules = field(default_factory=SettingsRules)
    auto_resolve: frozenset[str] = DEFAULT_AUTO_RESOLVE
    agent_name: str = "ContrailVM"
    power_off_grace: float = 30.0
    hold_after_provisioning: bool = False
    hold_after_power_on: bool = False


class Plan(msgspec.Struct, frozen=True, gc=False):
    """Actions to take now, why others wait, and when to plan again (monotonic seconds, ``None`` = on change)."""

    actions: tuple[Action, ...] = ()
    waiting: tuple[str, ...] = ()
    again_at: float | None = None


@dataclass(slots=True)
class Planner:
    """Plans one host, or the agency. ``may_mark`` turns false when EAM refused ``MarkAsAvailable`` to our account."""

    desired: Desired
    ledger: Ledger
    health: HealthGate = field(default_factory=lambda: HealthGate(HealthRules()))
    rules_of: Callable[[HostFacts], SettingsRules] | None = None
    """Agent VM settings rules of one host, where they differ from ``desired.rules``. Raises ConfigurationError."""
    name_of: Callable[[HostFacts], str] | None = None
    """What the ContrailVM of a host is to be called; ``None`` leaves EAM's names. Raises ConfigurationError."""
    upgrade: Upgrade | None = None
    """The upgrade under way, which says whose new VM may go on."""
    may_mark: bool = True
    _since: dict[str, tuple[State, float]] = field(default_factory=dict)
    _renamed: set[str] = field(default_factory=set)
    _settings_backoff: dict[str, tuple[float, float, str]] = field(default_factory=dict)

    # --- what happened ------------------------------------------------------------------------------------

    def observe(self, fleet: Fleet, host: str, now: float) -> None:
        """Note a host's present state: grace times and running repairs depend on it."""
        status, agent = fleet.status(host), fleet.agent_on(host)
        if status is None or agent is None:
            self.ledger.abandon(host, now)
        if status is None:
            self._since.pop(host, None)
            self._settings_backoff.pop(host, None)
            return
        known = self._since.get(host)
        if known is None or known[0] is not status.state:
            self._since[host] = (status.state, now)
        if agent is not None:
            self.ledger.observe(status, agent.status is EamStatus.RED, agent.read_began, now)

    def settings_refused(self, host: str, why: str, now: float) -> None:
        """No rule fits, or vCenter refused: ask again at growing intervals, and say why meanwhile."""
        _, interval, _ = self._settings_backoff.get(host, (0.0, 15.0, ""))
        interval = min(interval * 2, 600.0)
        self._settings_backoff[host] = (now + interval, interval, why)

    def settings_pending(self, host: str, now: float) -> None:
        """They were written; until the inventory shows it there is nothing to write again."""
        self._settings_backoff[host] = (now + SETTINGS_SEEN_SECONDS, 15.0, "the Agent VM settings were just written")

    def rules_for(self, host: HostFacts) -> SettingsRules:
        """Which Agent VM settings this host may be given. Raises ConfigurationError when its entry is refused."""
        return self.rules_of(host) if self.rules_of is not None else self.desired.rules

    # --- what to do ---------------------------------------------------------------------------------------

    def plan_agency(self, fleet: Fleet) -> Plan:
        """Make the agency exist and cover the scope. Only ever adds."""
        if not fleet.given_out:
            return Plan(waiting=("vCenter has not been read completely yet",))
        if fleet.foreign or fleet.unseen_owner:
            return Plan(waiting=("an agency of our name belongs to somebody else",))
        if fleet.agency is None:
            # EAM refuses a scope with a compute resource that is gone; one that comes back is added then.
            scope = tuple(moref for moref in self.desired.scope if moref in fleet.compute_resources)
            return Plan((CreateAgency(scope),)) if scope else Plan()
        agency = fleet.agency
        if agency.goal is not GoalState.ENABLED:
            return Plan(waiting=(f"the agency's goal state is {agency.goal.value}",))
        actions: list[Action] = []
        wanted = tuple(m for m in self.desired.scope if m not in fleet.retreat)
        missing = tuple(m for m in wanted if m not in agency.scope and m in fleet.compute_resources)
        if missing:
            actions.append(ExtendScope(agency.moref, missing))
        drained = tuple(m for m in agency.scope if m in fleet.retreat)
        waiting: tuple[str, ...] = ()
        if drained and set(agency.scope) - set(drained):
            actions.append(ShrinkScope(agency.moref, drained))
        elif drained:
            waiting = ("an agency without a scope is none: to drain the last cluster, uninstall",)
        waves = self.upgrade is not None and not self.upgrade.all_at_once and self.upgrade.phase is not Phase.DONE
        # Without the hold EAM replaces at once whatever has its successor held beside it: never by ourselves.
        wanted_at_once = self.upgrade is not None and self.upgrade.all_at_once
        replaced = any(agent.is_replaced for agent in fleet.agents.values())
        keep = agency.hold_after_provisioning and not wanted_at_once and (waves or replaced)
        hold = (
            keep or ((self.desired.hold_after_provisioning or waves) and self.may_mark),
            (self.desired.hold_after_power_on or self.health.rules.gate) and self.may_mark,
        )
        if hold != (agency.hold_after_provisioning, agency.hold_after_power_on):
            actions.append(SetHolds(agency.moref, *hold))
        return Plan(tuple(actions), waiting)

    def plan_host(self, fleet: Fleet, host_moref: str, now: float) -> Plan:
        """What one host needs now."""
        host = fleet.hosts.get(host_moref)
        if not fleet.given_out or fleet.foreign or fleet.unseen_owner or host is None or not fleet.wants_agent(host):
            return Plan()
        settings = self._plan_settings(host, now)
        agent = fleet.agent_on(host_moref)
        available = host_available(host)
        if agent is None or not (available or is_leaving(host)):
            self.health.over(host_moref)  # its next power-on is judged anew, even if the end of this one is never seen
            return settings
        if agent.hook is not None:
            return _joined(settings, self._plan_hook(fleet, host, agent, agent.hook, now))
        self.health.over(host_moref)
        if not available:
            return settings
        return _joined(
            _joined(settings, self._plan_name(fleet, host, agent)), self._plan_repair(fleet, host, agent, now)
        )

    def renamed(self, fleet: Fleet, vm: str) -> None:
        """Its name was set; until the inventory shows it there is nothing to set again."""
        self._renamed = {known for known in self._renamed if known in fleet.vms} | {vm}

    def _plan_name(self, fleet: Fleet, host: HostFacts, agent: AgentFacts) -> Plan:
        """An upgraded ContrailVM gets its name once its predecessor, which had it, is gone."""
        vm = fleet.vms.get(agent.vm or "")
        if self.name_of is None or vm is None or agent.status is not EamStatus.GREEN or vm.moref in self._renamed:
            return Plan()
        if not vm.name.startswith(f"{self.desired.agent_name} ("):
            return Plan()  # not EAM's name any more: it has ours, or one that a person gave it
        try:
            name = self.name_of(host)
        except ConfigurationError as exc:
            return Plan(waiting=(str(exc),))
        return Plan((Rename(host.moref, vm.moref, name),)) if vm.name != name else Plan()

    def _plan_hook(self, fleet: Fleet, host: HostFacts, agent: AgentFacts, hook: HookFacts, now: float) -> Plan:
        if not self.may_mark:
            return Plan(waiting=("EAM refuses MarkAsAvailable to our account",))
        if hook.state is not HookState.POWERED_ON:
            replaces = agent.is_replaced
            if (replaces and not admits(self.upgrade, host.moref)) or waits_for_turn(self.upgrade, host.moref, hook.vm):
                return Plan(waiting=("the new VM waits for its turn in the upgrade",))
            return Plan((Provision(host.moref, agent.moref, hook.vm, hook.state.value, replaces),))
        vm = fleet.vms.get(hook.vm)
        ip = vm.ip if vm is not None else None
        verdict = self.health.judge(host.moref, hook.vm, ip, now)
        match verdict.step:
            case Step.PROBE:
                action = Probe(host.moref, agent.moref, hook.vm, ip or "")
                return Plan((action,), (verdict.reason,), verdict.again_at)
            case Step.WAIT:
                return Plan(waiting=(verdict.reason,), again_at=verdict.again_at)
            case _:
                return Plan((MarkAvailable(host.moref, agent.moref, hook.state.value, verdict.reason),))

    def _plan_settings(self, host: HostFacts, now: float) -> Plan:
        try:
            rules = self.rules_for(host)
        except ConfigurationError as exc:
            return Plan(waiting=(str(exc),))
        unset = (host.agent_datastore is None and rules.datastores) or (host.agent_network is None and rules.networks)
        if not unset:
            self._settings_backoff.pop(host.moref, None)
            return Plan()
        if not _can_be_written_to(host):
            return Plan()
        not_before, _, why = self._settings_backoff.get(host.moref, (now, 0.0, ""))
        if now < not_before:
            return Plan(waiting=(why,), again_at=not_before)
        return Plan((WriteSettings(host.moref),))

    def _plan_repair(self, fleet: Fleet, host: HostFacts, agent: AgentFacts, now: float) -> Plan:
        if agent.status is not EamStatus.RED or not agent.issues:
            return Plan()
        if not fleet.is_settled(agent):
            return Plan(waiting=("the agent is read again first",))
        waiting: list[str] = []
        for issue in sorted(agent.issues, key=lambda i: i.type):
            row = issue_type(issue.type)
            if row.policy not in (Policy.AUTO, Policy.AUTO_AFTER_FIX) or row.name not in self.desired.auto_resolve:
                waiting.append(f"{row.name} is not resolved by itself. {row.advice}")
                continue
            if row.policy is Policy.AUTO_AFTER_FIX and not _is_fixed(row.name, host):
                waiting.append(f"{row.name}: {row.advice}")
                continue
            state, since = self._since.get(host.moref, (None, now))
            # EAM may say so before the inventory does: the state then is not POWERED_OFF yet.
            if (state in _OFF or row.state in _OFF) and now < since + self.desired.power_off_grace:
                return Plan(
                    waiting=("it was powered off a moment ago; somebody may be at work on it",),
                    again_at=since + self.desired.power_off_grace,
                )
            verdict = self.ledger.ask(host.compute_resource, host.moref, now)
            if not verdict.allowed:
                return Plan(waiting=(*waiting, verdict.reason), again_at=verdict.ask_again)
            return Plan((Resolve(host.moref, agent.moref, issue.type),), tuple(waiting))
        return Plan(waiting=tuple(waiting))


def _joined(one: Plan, other: Plan) -> Plan:
    times = [at for at in (one.again_at, other.again_at) if at is not None]
    return Plan(one.actions + other.actions, one.waiting + other.waiting, min(times) if times else None)


def _can_be_written_to(host: HostFacts) -> bool:
    return (
        host.connection is ConnectionState.CONNECTED
        and host.power is HostPower.POWERED_ON
        and host.standby is StandbyMode.NONE
    )


def _is_fixed(issue: str, host: HostFacts) -> bool:
    if issue == "NoAgentVmDatastore":
        return host.agent_datastore is not None
    return host.agent_network is not None
