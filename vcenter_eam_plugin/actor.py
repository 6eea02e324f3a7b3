# SPDX-License-Identifier: Apache-2.0
"""Carries out the planner's actions, one at a time per key, each after a second look at the truth.

A return value is never taken for success: after each action the truth is read again, and what became of it
comes back as an observation. The gate (mode, pause, leadership) is asked again right before each write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vcenter_eam_plugin.agency_memory import AgencyMemory
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.domain import customisation
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
    kind_of,
)
from vcenter_eam_plugin.domain.errors import ObjectGone, PluginError, PrivilegeMissing, WrongState
from vcenter_eam_plugin.domain.facts import AgencyFacts, AgentFacts
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.health import NOT_INSTALLED
from vcenter_eam_plugin.domain.host_spec import HostIdentity, HostSpecs
from vcenter_eam_plugin.domain.observations import AgentsObserved, Observation
from vcenter_eam_plugin.domain.planner import Planner
from vcenter_eam_plugin.domain.settings_rules import decide_settings, unusable_settings
from vcenter_eam_plugin.eam.agency import AgencySpec
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.gate import Gate
from vcenter_eam_plugin.tally import Tally
from vcenter_eam_plugin.vrouter_probe import Probed
from vcenter_eam_plugin.vsphere import host_settings
from vcenter_eam_plugin.vsphere.agent_vms import StandingVm, find_agent_vms
from vcenter_eam_plugin.vsphere.session import Session
from vcenter_eam_plugin.vsphere.vm_customise import apply, customise


class PackageSource(Protocol):
    """Where EAM fetches the ContrailVM from. ``url`` raises OvfError when there is nothing to fetch."""

    def url(self) -> str: ...

    def certificate(self) -> str | None:
        """The certificate that EAM is to trust for that URL, in PEM; ``None`` leaves it to vCenter's trusted roots."""


@dataclass(frozen=True, slots=True)
class AgencyTemplate:
    """What a new agency is made of, besides its scope and its package's URL."""

    name: str
    agent_name: str
    ovf_properties: tuple[tuple[str, str], ...]
    hold_after_provisioning: bool
    hold_after_power_on: bool


@dataclass(slots=True)
class Actor:
    """See the module. ``observe`` takes what the second look saw; ``read_soon`` has the poll look again.

    ``probe`` asks a vRouter at an address; ``install`` is told of a host, a VM and its address where none answers;
    ``note`` shows in the state's reason what a held ContrailVM waits for.
    """

    session: Session
    eam: EamClient
    memory: AgencyMemory
    fleet: Fleet
    planner: Planner
    gate: Gate
    alarms: Alarms
    package: PackageSource
    template: AgencyTemplate
    host_specs: HostSpecs
    identity_of: Callable[[str], HostIdentity]
    probe: Callable[[str], Probed]
    install: Callable[[str, str, str], None] | None
    note: Callable[[str, str], None]
    clock: Callable[[], float]
    observe: Callable[[Observation], None]
    read_soon: Callable[[str | None], None]
    log: logging.Logger
    tally: Tally = field(default_factory=Tally)

    def do(self, action: Action) -> None:
        """Carry out one action, or find that it is no longer to be done. Raises the domain's errors."""
        with self.tally.action(kind_of(action)):
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case CreateAgency():
                self._create_agency(action)
            case ExtendScope():
                self._extend_scope(action)
            case SetHolds():
                self._set_holds(action)
            case WriteSettings():
                self._write_settings(action)
            case Resolve():
                self._resolve(action)
            case ShrinkScope():
                self._shrink_scope(action)
            case Provision():
                self._provision(action)
            case Rename():
                self._rename(action)
            case Probe():
                self._probe(action)
            case MarkAvailable():
                self._mark_available(action)

    # --- the agency ---------------------------------------------------------------------------------------

    def _create_agency(self, action: CreateAgency) -> None:
        """Only when it is certain that there is none, and that no other ContrailVM stands where ours would go."""
        agencies = self.eam.agencies()
        found = self.memory.judge(agencies)
        if found.ours is not None or found.foreign or found.unseen or not self.session.alive():
            self.read_soon(None)
            return
        standing = self._unexplained_agent_vms(agencies, action.scope)
        if standing:
            names = ", ".join(f"{vm.name} on {vm.host_name}" for vm in standing[:5])
            more = f" and {len(standing) - 5} more" if len(standing) > 5 else ""
            raise WrongState(
                f"The agency {self.template.name} was not created: agent VMs stand in the scope already "
                f"({names}{more}).",
                remedy="Adopt the agency they belong to, or remove them.",
            )
        spec = AgencySpec(
            name=self.template.name,
            agent_name=self.template.agent_name,
            ovf_url=self.package.url(),
            ovf_properties=self.template.ovf_properties,
            scope=action.scope,
            hold_after_provisioning=self.template.hold_after_provisioning,
            hold_after_power_on=self.template.hold_after_power_on,
            ovf_certificate_pem=self.package.certificate(),
        )
        self.gate.check()
        self.log.info("Creating the agency %s over %s.", spec.name, ", ".join(action.scope))
        self.eam.create_agency(spec)
        self.read_soon(None)

    def _unexplained_agent_vms(self, agencies: Sequence[AgencyFacts], scope: Sequence[str]) -> list[StandingVm]:
        """ContrailVMs that no agency of ours explains. Another vendor's agents stand beside ours by right.

        An agent VM of no visible agency is what a lost agency leaves behind: creating a second agency over it
        would have EAM delete the one and deploy the other.
        """
        standing = find_agent_vms(self.session, scope)
        if not standing:
            return []
        agents = [moref for agency in agencies for moref in self.eam.agents_of(agency.moref)]
        explained = {agent.vm for agent in self.eam.read_agents(agents).agents}
        return [vm for vm in standing if vm.named_contrailvm or vm.moref not in explained]

    def _extend_scope(self, action: ExtendScope) -> None:
        self.gate.check()
        self.log.info("Adding %s to the agency's scope.", ", ".join(action.add))
        self.eam.extend_scope(action.agency, action.add)
        self.read_soon(None)

    def _shrink_scope(self, action: ShrinkScope) -> None:
        self.gate.check()
        self.log.warning("Taking %s out of the agency's scope: they are in retreat.", ", ".join(action.remove))
        self.eam.shrink_scope(action.agency, action.remove)
        self.read_soon(None)

    def _set_holds(self, action: SetHolds) -> None:
        self.gate.check()
        self.log.info("Changing the agency: %s.", action.describe())
        self.eam.set_holds(action.agency, action.after_provisioning, action.after_power_on)
        self.read_soon(None)

    # --- one host -----------------------------------------------------------------------------------------

    def _write_settings(self, action: WriteSettings) -> None:
        now = self.clock()
        name = self._host_name(action.host)
        try:
            choices = host_settings.read_choices(self.session, action.host)
            host = self.fleet.hosts.get(action.host)
            if host is None:
                raise ObjectGone(f"{name} left the inventory while its settings were read.")
            decision = decide_settings(choices, self.planner.rules_for(host))
            if decision.datastore is not None or decision.network is not None:
                self.gate.check()
                self.log.info(
                    "Setting Agent VM settings of %s: datastore %s, network %s.",
                    name,
                    decision.datastore.name if decision.datastore else "as it is",
                    decision.network.name if decision.network else "as it is",
                )
                host_settings.write(
                    self.session,
                    action.host,
                    datastore=decision.datastore.moref if decision.datastore else None,
                    network=decision.network.moref if decision.network else None,
                )
        except PluginError as exc:
            if not exc.retry and not self.gate.closed():  # what time heals is tried again soon, by whoever called us
                self.planner.settings_refused(action.host, str(exc), now)
            raise
        alarm = f"agent-vm-settings:{action.host}"
        if decision.missing:
            why = "; ".join(decision.missing)
            self.planner.settings_refused(action.host, why, now)
            self.alarms.raise_(alarm, f"{name}: {why}. Widen the rule, or set it on the host.")
        else:
            # The write is seen as a property change; until then the planner must not write again.
            self.planner.settings_pending(action.host, now)
            self.alarms.clear(alarm)
        self.read_soon(action.host)

    def _resolve(self, action: Resolve) -> None:
        agent = self._look_again(action)
        if agent is None:
            return
        if agent.vm is None:
            self._check_settings(action.host)
            if not self._is_planned(action):
                return  # reading took its time: the host may be on its way into maintenance by now
        keys = tuple(issue.key for issue in agent.issues if issue.type == action.issue)
        host = self.fleet.hosts[action.host]
        now = self.clock()
        self.gate.check()
        # Booked before the call: one whose answer is lost may have been carried out.
        self.planner.ledger.start(host.compute_resource, action.host, now)
        self.log.info("Resolving %s on %s.", action.issue, self._host_name(action.host))
        try:
            not_found = self.eam.resolve(action.agent, keys)
        except (ObjectGone, WrongState, PrivilegeMissing):
            self.planner.ledger.give_up(action.host, self.clock())
            raise
        if not_found:
            # Gone in between, or not resolvable now: what is seen from here on tells which, as with any repair.
            self.log.info("EAM took up only some of %s on %s.", action.issue, self._host_name(action.host))
        self.read_soon(action.host)

    def _provision(self, action: Provision) -> None:
        """Customise the held VM, then let it go. What fails leaves it held, and says which step."""
        if self._look_again(action) is None:
            return
        self.gate.check()
        try:
            spec = self.host_specs.for_host(self.identity_of(action.host))
            changes = customise(self.session, action.vm, spec, rename=not action.replaces, before_write=self.gate.check)
        except PluginError as exc:
            self.note(action.host, f"hook step failed: {exc}")
            raise
        for change in changes:
            self.log.info("ContrailVM on %s (%s): %s.", self._host_name(action.host), action.vm, change.text)
        self.note(action.host, "")
        if self._is_planned(action):  # it may have taken minutes: the host or the upgrade may be elsewhere by now
            self._mark(action)

    def _rename(self, action: Rename) -> None:
        self.gate.check()
        apply(self.session, action.vm, (customisation.Rename(name=action.name),))
        self.planner.renamed(self.fleet, action.vm)
        self.log.info("ContrailVM on %s (%s) renamed to %s.", self._host_name(action.host), action.vm, action.name)

    def _probe(self, action: Probe) -> None:
        """Ask the vRouter; the answer decides the next plan, and shows in the state's reason meanwhile."""
        seen = self.probe(action.ip)
        if action.host not in self.fleet.hosts:
            return  # it left meanwhile
        now = self.clock()
        self.planner.health.probed(action.host, action.vm, healthy=seen.healthy, reason=seen.reason, now=now)
        self.note(action.host, seen.reason)
        if seen.healthy:
            self.read_soon(action.host)  # what was read last may be as old as the poll; then it is marked at once
        elif seen.reason == NOT_INSTALLED and self.install is not None:
            self.gate.check()
            self.install(action.host, action.vm, action.ip)

    def _check_settings(self, host: str) -> None:
        """Before a deployment is tried again: does the host have what its Agent VM settings name?

        Raises WrongState when it has not, and shows it as the reason; only a person changes what is set.
        """
        trouble = unusable_settings(host_settings.read_choices(self.session, host))
        self.note(host, trouble)
        if trouble:
            raise WrongState(f"{self._host_name(host)}: {trouble}.")

    def _mark_available(self, action: MarkAvailable) -> None:
        if self._look_again(action) is None:
            return
        self.gate.check()
        if action.released:
            self.alarms.raise_(f"released:{action.host}", f"{self._host_name(action.host)}: {action.released}")
        else:
            self.alarms.clear(f"released:{action.host}")
        self.note(action.host, "")
        self._mark(action)

    def _mark(self, action: Provision | MarkAvailable) -> None:
        self.gate.check()
        self.log.info("Marking the ContrailVM on %s as available (%s).", self._host_name(action.host), action.hook)
        try:
            self.eam.mark_available(action.agent)
        except PrivilegeMissing as exc:
            # Marking again and again would hold every host for ever; without the holds EAM goes on by itself.
            self.planner.may_mark = False
            done = (
                "The hold flags of the agency are cleared, but for an upgrade's while its new VMs are held. Log in as "
                "a vCenter extension, and start the service again, to have holds."
            )
            self.alarms.raise_("may-not-mark", f"{exc} {done}")
            raise
        self.read_soon(action.host)

    def _look_again(self, action: Resolve | Provision | MarkAvailable) -> AgentFacts | None:
        """Read the agent anew and plan anew; ``None`` when the action is no longer part of the plan."""
        seen = self.eam.read_agents([action.agent])
        self.observe(seen)
        if not isinstance(seen, AgentsObserved) or not seen.agents:
            return None
        return seen.agents[0] if self._is_planned(action) else None

    def _is_planned(self, action: Resolve | Provision | MarkAvailable) -> bool:
        """By what is known now; costs no call."""
        return action in self.planner.plan_host(self.fleet, action.host, self.clock()).actions

    def _host_name(self, moref: str) -> str:
        host = self.fleet.hosts.get(moref)
        return host.name if host is not None else moref
