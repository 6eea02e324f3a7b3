# SPDX-License-Identifier: Apache-2.0
"""The simulated ESX Agent Manager: creates agencies, checks their configuration, and posts EAM's events.

Who sees what (ESX Agent Manager API reference): a user with ``EAM.View`` sees all agencies, a vCenter extension its
own. Events are as the event catalogues of real vCenters list them; whether those name host and VM is not known, so
by default they do not (knob ``eam_events_name_objects``).

Not promised: VIBs, VUM, cluster-bound agents, maintenance of hosts for VIB work.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

from pyVmomi import eam, vim, vmodl

from vcenter_eam_plugin.simulator.agency import (
    DISABLED,
    ENABLED,
    NAME_LIMIT,
    NAME_LIMIT_WITH_UUID,
    UNINSTALLED,
    Agency,
    with_defaults,
)
from vcenter_eam_plugin.simulator.agent import Agent
from vcenter_eam_plugin.simulator.compute_resource import ComputeResource
from vcenter_eam_plugin.simulator.datacenter import Datacenter
from vcenter_eam_plugin.simulator.eam_issues import EVENT_TEXTS, Issue, Problem
from vcenter_eam_plugin.simulator.eam_object import EamObject
from vcenter_eam_plugin.simulator.eam_watch import EamWatch
from vcenter_eam_plugin.simulator.folder import Folder
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.managed_entity import writes
from vcenter_eam_plugin.simulator.ovf_download import OvfProblem, OvfSource, Reason
from vcenter_eam_plugin.simulator.resource_pool import ResourcePool
from vcenter_eam_plugin.simulator.virtual_machine import EAM, VirtualMachine
from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

PREFIX = "com.vmware.vim.eam."
"""Of the type ids of EAM's events."""
POLICIES = ("singleHost", "multipleHosts")
"""Maintenance mode policies; they concern VIB work only."""
_NOT_SIMULATED = ("vibUrl", "vibName")
"""Agent configuration fields for VIBs."""


class EamLogin(ManagedObject):
    """Marks a session that EAM knows; it goes with the session."""

    vmodl: ClassVar[type] = eam.EamObject

    def __init__(self, manager: EsxAgentManager, moid: str) -> None:
        super().__init__(manager.world, moid)
        self._manager = manager

    def dispose(self) -> None:
        """The session has ended."""
        self._manager.notify("logout")


class EsxAgentManager(EamObject):
    """``eam.EsxAgentManager``; its moid is its type's name."""

    vmodl: ClassVar[type] = eam.EsxAgentManager

    def __init__(self, world: World, root: Folder, ovf: OvfSource) -> None:
        super().__init__(world, "EsxAgentManager", self)
        self.parent = root  # type: ignore[assignment] # privileges are checked along this line
        self.ovf = ovf
        self.agencies: dict[str, Agency] = {}
        self.frozen = False
        self.owners: dict[str, Agent] = {}
        """Agents by the moids of their VMs."""
        self.watch = EamWatch(self)
        world.listeners.append(self.watch)
        self._keys = itertools.count(1)
        self._policy = POLICIES[0]

    # For agencies and agents --------------------------------------------------------------------------------

    def new_issue(self, problem: Problem) -> Issue:
        """A new issue; its key is used once on this server."""
        clock = self.world.clock
        return Issue(next(self._keys), clock.now(), clock.monotonic(), problem)

    def file_again(self, holder: EamObject) -> None:
        """Give an object's standing issues new keys and times, when the knob says that it is time."""
        after, now = self.world.knobs.issue_regenerate_seconds, self.world.clock.monotonic()
        if after <= 0:
            return
        for key, issue in tuple(holder.issues.items()):
            if now - issue.filed_at >= after:
                del holder.issues[key]
                fresh = self.new_issue(issue.problem)
                holder.issues[fresh.key] = fresh

    def notify(self, what: str, host: HostSystem | None = None, vm: VirtualMachine | None = None) -> None:
        """Post an EAM event into vCenter's stream."""
        event = vim.event.EventEx(eventTypeId=f"{PREFIX}{what}", severity="info", userName=EAM)
        event.message = EVENT_TEXTS.get(what, what)
        if self.world.knobs.eam_events_name_objects and host is not None and host.alive:
            for thing in (vm, host, *host.ancestors()):
                if thing is not None:
                    thing.describe(event)
        self.world.post_event(event)

    def met(self, session: Any) -> None:
        """A session is used at EAM's endpoint; the first time that is a login, and a logout when the session ends."""
        if session is None or not self.world.knobs.eam_session_events:
            return
        if not any(isinstance(obj, EamLogin) for obj in session.objects.values()):
            session.adopt(EamLogin(self, session.new_moid()))
            self.notify("login.succeeded")

    def refused(self, fault: Any) -> None:
        """A call ended in a fault: who may not do what is told in the event stream."""
        if not self.world.knobs.eam_session_events:
            return
        if isinstance(fault, eam.fault.InvalidLogin):
            where = self.parent.ref if self.parent is not None else None
            event = vim.event.ExtendedEvent(eventTypeId=f"{PREFIX}login.invalid", userName=EAM, managedObject=where)
            self.world.post_event(event)
        elif isinstance(fault, eam.fault.NotAuthorized):
            self.notify("unauthorized.access")

    def is_extension(self, session: Any) -> bool:
        """The session is one of a vCenter extension, and not of a user."""
        return bool(getattr(session, "is_extension", False))

    def solution_ended(self, key: str) -> None:
        """An extension was unregistered: its agencies are destroyed with all their VMs."""
        for agency in tuple(self.agencies.values()):
            if agency.owner is None and agency.solution == key:
                agency.begin_destruction()

    def freeze(self) -> None:
        """EAM hangs: it answers, and does nothing any more."""
        self.frozen = True

    def thaw(self) -> None:
        """EAM works again, and looks at everything."""
        self.frozen = False
        self.watch.look_again()
        for agency in self.agencies.values():
            agency.wake()
            for agent in agency.agents.values():
                agent.wake()

    def lose(self, agency: Agency) -> None:
        """An agency is gone from EAM's database, as after a restore; its VMs belong to nobody."""
        agency.forget()
        for agent in agency.agents.values():
            self.world.remove(agent)
        self.agency_ended(agency)

    def restore(self, agency: Agency, back: int = 0) -> None:
        """EAM's database was restored: the agency and its agents are there, under other references.

        The configuration is that of ``back`` updates ago.
        """
        self.agencies.pop(agency.moid)
        agency.take_new_moid()
        self.agencies[agency.moid] = agency
        self.touch("agency")
        if back:
            settings = agency.former[-back]
            del agency.former[-back:]
            agency.configure(settings)

    def agency_ended(self, agency: Agency) -> None:
        """An agency leaves the world."""
        self.agencies.pop(agency.moid, None)
        self.world.remove(agency)
        self.touch("agency")
        self.notify("agency.destroyed")

    # Checking a configuration -------------------------------------------------------------------------------

    def validate(self, config: Any, before: Any = None) -> None:
        """Raise the documented fault for a configuration that cannot be accepted. Tries URLs that are new."""
        self._validate_agents(config)
        self._validate_scope(config)
        known = [_source(agent) for agent in before.agentConfig] if before is not None else []
        for agent in config.agentConfig:
            if agent.ovfPackageUrl and _source(agent) not in known:
                self._try_url(agent)

    def _validate_agents(self, config: Any) -> None:
        if not config.agencyName:
            raise vmodl.fault.InvalidArgument(invalidProperty="agencyConfigInfo.agencyName")
        if config.manuallyProvisioned or config.manuallyMonitored or config.ipPool is not None:
            raise vmodl.fault.NotSupported(msg="Manually provisioned VMs and IP pools are not simulated.")
        if not config.agentConfig:
            raise eam.fault.InvalidAgentConfiguration(
                invalidField="agentConfig", msg="There is no agent configuration."
            )
        limit = NAME_LIMIT_WITH_UUID if config.useUuidVmName else NAME_LIMIT
        if len(config.agentName or "") > limit or (config.useUuidVmName and not config.agentName):
            raise eam.fault.InvalidAgentConfiguration(
                invalidField="agentName", msg=f"The agent name must be given and be no longer than {limit} characters."
            )
        for agent in config.agentConfig:
            if any(getattr(agent, field) for field in _NOT_SIMULATED):
                raise vmodl.fault.NotSupported(msg="VIBs are not simulated.")
            if agent.authenticationScheme not in (None, "NONE"):
                raise vmodl.fault.NotSupported(msg="OVF packages on the vCenter itself are not simulated.")
            if agent.ovfDiskProvisioning not in (None, "none", "thin", "thick"):
                raise eam.fault.InvalidAgentConfiguration(
                    invalidAgentConfiguration=agent, invalidField="ovfDiskProvisioning"
                )

    def _validate_scope(self, config: Any) -> None:
        scope = config.scope
        if scope is not None and not isinstance(scope, eam.Agency.ComputeResourceScope):
            raise eam.fault.InvalidAgencyScope(msg="The scope is not one of compute resources.")
        refs = list(scope.computeResource) if scope is not None else []
        unknown = [ref for ref in refs if not isinstance(self.world.find(ref), ComputeResource)]
        wrong = [
            choice.resourcePoolId._moId
            for choice in config.resourcePools
            if not isinstance(pool := self.world.find(choice.resourcePoolId), ResourcePool)
            or pool.owner.moid != choice.computeResourceId._moId
        ]
        wrong += [
            choice.folderId._moId
            for choice in config.folders
            if not isinstance(folder := self.world.find(choice.folderId), Folder)
            or not isinstance(folder.datacenter, Datacenter)
            or folder.datacenter.moid != choice.datacenterId._moId
        ]
        if unknown or wrong:
            fault = eam.fault.InvalidAgencyScope(msg=f"Not in this vCenter: {[ref._moId for ref in unknown] + wrong}.")
            fault.unknownComputeResource = vim.ComputeResource.Array(unknown)
            raise fault
        disabled = [ref for ref in refs if getattr(self.world.find(ref), "disabled", False)]
        if disabled and self.world.knobs.eam_level >= (7, 6):
            fault = eam.fault.DisabledClusterFault(msg="A cluster of the scope is disabled.")
            fault.disabledComputeResource = vim.ComputeResource.Array(disabled)
            raise fault

    def _try_url(self, agent: Any) -> None:
        url = agent.ovfPackageUrl
        try:
            self.ovf.check(url, agent.ovfSslTrust)
        except OvfProblem as problem:
            if problem.reason is Reason.FORMAT:
                return  # found out when it is deployed
            if problem.reason is Reason.CERTIFICATE and self.world.knobs.eam_level >= (8, 2):
                raise eam.fault.CertificateNotTrustedFault(url=url, msg=str(problem)) from problem
            raise eam.fault.InvalidUrl(
                url=url,
                malformedUrl=problem.reason is Reason.MALFORMED_URL,
                unknownHost=problem.reason is Reason.UNKNOWN_HOST,
                connectionRefused=problem.reason in (Reason.REFUSED, Reason.CERTIFICATE),
                responseCode=problem.status,
                msg=str(problem),
            ) from problem

    # The API ------------------------------------------------------------------------------------------------

    def prop_agency(self) -> Any:
        return eam.Agency.Array([agency.ref for agency in self.agencies.values()])

    def property_for(self, session: Any, name: str) -> Any:
        """A property as a session reads it: an extension sees its own agencies only."""
        if name == "agency" and session is not None:
            return self._visible_to(session, session.user_name)
        return super().property_for(session, name)

    def _visible_to(self, session: Any, user: str) -> Any:
        everything = not self.is_extension(session)
        shown = [agency.ref for agency in self.agencies.values() if everything or agency.solution == user]
        return eam.Agency.Array(shown)

    def prop_issue(self) -> Any:
        return eam.issue.Issue.Array()

    @soap("QueryAgency", "EAM.View")
    def query_agency(self, call: Call) -> Any:
        """All agencies, for an extension its own."""
        return self._visible_to(call.session, call.user)

    @writes("CreateAgency", "EAM.Modify")
    def create_agency(self, call: Call, agencyConfigInfo: Any, initialGoalState: str) -> Agency:  # noqa: N803
        """Check the configuration (URLs included) and begin; deployment goes on afterwards."""
        if initialGoalState not in (ENABLED, DISABLED, UNINSTALLED):
            raise vmodl.fault.InvalidArgument(invalidProperty="initialGoalState")
        settings = with_defaults(agencyConfigInfo)
        self.validate(settings)
        agency = self.world.add(
            Agency(self, settings, initialGoalState, call.user, extension=self.is_extension(call.session))
        )
        self.agencies[agency.moid] = agency
        self.touch("agency")
        self.notify("agency.create")
        agency.wake()
        return agency

    @soap("ScanForUnknownAgentVm", "EAM.View")
    def scan_for_unknown_agent_vm(self, call: Call) -> None:
        """Deprecated: unknown agent VMs are cleaned up without being asked."""

    @soap("GetMaintenanceModePolicy")
    def get_maintenance_mode_policy(self, call: Call) -> str:
        """As set."""
        return self._policy

    @writes("SetMaintenanceModePolicy")
    def set_maintenance_mode_policy(self, call: Call, policy: str) -> None:
        """Kept, and without effect: it concerns VIB work."""
        if policy not in POLICIES:
            raise vmodl.fault.InvalidArgument(invalidProperty="policy")
        self._policy = policy


def _source(agent: Any) -> tuple[str | None, str]:
    """From where an agent configuration has its OVF, and by what that server is trusted."""
    return agent.ovfPackageUrl, repr(agent.ovfSslTrust)
