# SPDX-License-Identifier: Apache-2.0
"""An agency: a configuration, a scope of compute resources, and one agent per host in it.

Not promised: VIBs, agencies whose VMs the client provisions itself, IP pools (all ``NotSupported``).
"""

from __future__ import annotations

import copy
import itertools
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import eam, vim, vmodl

from vcenter_eam_plugin.simulator.agent import Agent
from vcenter_eam_plugin.simulator.compute_resource import ComputeResource
from vcenter_eam_plugin.simulator.datacenter import Datacenter
from vcenter_eam_plugin.simulator.eam_issues import Issue, Problem, Remedy, event_id
from vcenter_eam_plugin.simulator.eam_object import EamObject
from vcenter_eam_plugin.simulator.folder import Folder
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.managed_entity import writes
from vcenter_eam_plugin.simulator.resource_pool import ResourcePool
from vcenter_eam_plugin.simulator.world import Call, soap

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.esx_agent_manager import EsxAgentManager

NAME_LIMIT, NAME_LIMIT_WITH_UUID = 70, 43
"""Longest ``agentName``; a UUID in the VM's name takes the rest."""
ENABLED, DISABLED, UNINSTALLED = "enabled", "disabled", "uninstalled"
AGENTS_PLACE = "ESX Agents"
"""Name of the folder and of the resource pool that EAM makes for agent VMs."""


class Agency(EamObject):
    """``eam.Agency``."""

    vmodl: ClassVar[type] = eam.Agency

    def __init__(self, manager: EsxAgentManager, settings: Any, goal: str, user: str, *, extension: bool) -> None:
        super().__init__(manager.world, str(uuid.uuid4()), manager)
        self.settings = settings
        self.former: list[Any] = []
        """Configurations before this one, oldest first: what a backup may hold."""
        self.goal = goal
        self.solution = user
        self.owner = None if extension else user
        self.agents: dict[str, Agent] = {}
        self.destroying = False
        self.lost = False
        self._watched: dict[str, ComputeResource] = {}
        self._colours: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._scheduled = False
        self._settled = False
        self._foreign: dict[int, Any] = {}
        self.status = "yellow"

    # What it is ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """``agencyName``."""
        return str(self.settings.agencyName)

    @property
    def agent_name(self) -> str:
        """``agentName``; the agency's name when it is unset."""
        return str(self.settings.agentName or self.settings.agencyName)

    @property
    def hold_after_provisioning(self) -> bool:
        """Wait for ``MarkAsAvailable`` before the first power-on."""
        return bool(self.settings.manuallyMarkAgentVmAvailableAfterProvisioning)

    @property
    def hold_after_power_on(self) -> bool:
        """Wait for ``MarkAsAvailable`` after a power-on."""
        return bool(self.settings.manuallyMarkAgentVmAvailableAfterPowerOn)

    def scope(self) -> list[ComputeResource]:
        """The compute resources of its scope that (still) exist."""
        if self.settings.scope is None:
            return []
        found = (self.world.find(ref) for ref in self.settings.scope.computeResource)
        return [resource for resource in found if isinstance(resource, ComputeResource)]

    def blocked_by_disabled_cluster(self, host: HostSystem) -> bool:
        """The host's cluster is disabled: nothing is begun there."""
        return host.compute_resource.disabled

    def names(self) -> dict[str, Any]:
        """The fields that name the agency in an issue."""
        return {
            "agency": self.ref,
            "agencyName": self.name,
            "solutionId": self.solution,
            "solutionName": self.solution,
        }

    def holders(self) -> Iterable[EamObject]:
        return (self, *self.agents.values())

    def require_visible_to(self, session: Any, user: str) -> None:
        """Solutions do not see others' agencies."""
        if self.manager.is_extension(session) and user != self.solution:
            raise eam.fault.NotAuthorized(msg="The agency belongs to another solution.")

    # Agents -------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look soon at which hosts are in scope."""
        if not self._scheduled:
            self._scheduled = True
            self.world.clock.after(self.world.knobs.eam_reaction, self._look)

    def _look(self) -> None:
        self._scheduled = False
        if self.lost or not self.alive or self.manager.frozen:
            return
        scope = self.scope()
        self._watch(scope)
        disabled = [resource for resource in scope if resource.disabled]
        self._file_disabled(bool(disabled))
        wanted = {host.moid: host for resource in scope for host in resource.hosts.values()}
        if self.goal == UNINSTALLED:
            wanted = {moid: host for moid, host in wanted.items() if moid in self.agents}
        for moid, agent in tuple(self.agents.items()):
            if moid in wanted:
                agent.rejoin_scope()
            else:
                agent.leave_scope()
                agent.wake()
        for moid, host in wanted.items():
            if moid not in self.agents:
                self._add_agent(host)
        for agent in self.agents.values():
            if agent.host.compute_resource.disabled or disabled or agent.removing:
                agent.wake()
        self._settled = True
        self._recolour()
        if self.destroying and not self.agents:
            self.manager.agency_ended(self)

    @property
    def alive(self) -> bool:
        """False once it has been destroyed."""
        return self.world.objects.get(self.moid) is self

    def _add_agent(self, host: HostSystem) -> None:
        agent = Agent(self, host)
        self.agents[host.moid] = agent
        self._colours[agent.status] += 1
        self.world.add(agent)
        agent.notify("agent.created")
        self.touch("agent")
        agent.wake()

    def agent_ended(self, agent: Agent) -> None:
        """An agent has left the world."""
        if self.agents.get(agent.host.moid) is agent:
            del self.agents[agent.host.moid]
            self._colours[agent.status] -= 1
            self.touch("agent")
        self._recolour()
        self.wake()

    def _watch(self, scope: list[ComputeResource]) -> None:
        now = {resource.moid: resource for resource in scope}
        for moid in self._watched.keys() - now.keys():
            self._watched[moid].unwatch(self.wake)
        for moid in now.keys() - self._watched.keys():
            now[moid].watch(self.wake)
        self._watched = now

    def _file_disabled(self, disabled: bool) -> None:
        standing = next((issue for issue in self.issues.values() if issue.type == "AgencyDisabled"), None)
        if self.world.knobs.eam_level < (7, 6):
            return
        if disabled and standing is None:
            issue = self.manager.new_issue(Problem("AgencyDisabled"))
            self.issues[issue.key] = issue
            self.manager.notify(event_id("AgencyDisabled").removeprefix("com.vmware.vim.eam."))
        elif not disabled and standing is not None:
            del self.issues[standing.key]
            self.manager.notify("issue.resolved")
            for agent in self.agents.values():
                agent.goal_changed()

    # Colour -------------------------------------------------------------------------------------------------

    def agent_coloured(self, before: str, after: str) -> None:
        """An agent changed colour."""
        self._colours[before] -= 1
        self._colours[after] += 1
        self._recolour()

    def issues_changed(self) -> None:
        """An agent's issues changed."""
        self.touch("runtime")

    def _recolour(self) -> None:
        if self.issues or self._foreign or self._colours["red"] > 0:
            status = "red"
        elif self._colours["yellow"] > 0 or not self._settled or self.destroying:
            status = "yellow"
        else:
            status = "green"
        if status != self.status:
            self.status = status
            self.touch("runtime")
            self.manager.notify("agency.statusChanged")

    def issue_value(self, issue: Issue) -> Any:
        foreign = self._foreign.get(issue.key)
        return foreign if foreign is not None else issue.value(**self.names())

    def issue_values(self, keys: Any = None) -> Any:
        values = super().issue_values(keys)
        extra = [issue for key, issue in self._foreign.items() if keys is None or key in keys]
        return eam.issue.Issue.Array([*values, *extra])

    def resolve_one(self, issue: Issue) -> bool:
        return issue.remedy is not Remedy.NONE  # the agency's own issue goes only with its cause

    def _resolve(self, user: str, keys: list[int]) -> list[int]:
        mine = [key for key in keys if self._foreign.pop(key, None) is not None]
        self._recolour()
        return [key for key in super()._resolve(user, keys) if key not in mine]

    # Placement ----------------------------------------------------------------------------------------------

    def next_vm_name(self, folder: Folder) -> str:
        """``ContrailVM (1)``, ``ContrailVM (2)`` ...: each number once, and none that the folder has already."""
        if self.settings.useUuidVmName:
            return f"{self.agent_name}-{uuid.uuid4()}"
        return next(name for n in self._numbers if folder.child(name := f"{self.agent_name} ({n})") is None)

    def placement(self, host: HostSystem) -> tuple[Folder, ResourcePool]:
        """Where the VM of a host goes: as configured, else EAM's own folder and pool, which it makes when missing."""
        datacenter = host.datacenter
        assert isinstance(datacenter, Datacenter)
        return self._folder(datacenter), self._pool(host.compute_resource)

    def _folder(self, datacenter: Datacenter) -> Folder:
        for choice in self.settings.folders:
            found = self.world.find(choice.folderId)
            if choice.datacenterId._moId == datacenter.moid and isinstance(found, Folder):
                return found
        own = datacenter.vm_folder.child(AGENTS_PLACE)
        return own if isinstance(own, Folder) else datacenter.vm_folder.new_folder(AGENTS_PLACE)

    def _pool(self, resource: ComputeResource) -> ResourcePool:
        for choice in self.settings.resourcePools:
            found = self.world.find(choice.resourcePoolId)
            if choice.computeResourceId._moId == resource.moid and isinstance(found, ResourcePool):
                return found
        root = resource.root_pool
        if not getattr(resource, "drs", True):
            return root  # without DRS a cluster has no pools besides its root
        for pool in root.pools.values():
            if pool.name == AGENTS_PLACE:
                return pool
        return root.create(AGENTS_PLACE)

    # Goal ---------------------------------------------------------------------------------------------------

    def set_goal(self, goal: str) -> None:
        """Work towards another goal from now on."""
        if goal != self.goal:
            self.goal = goal
            self.manager.notify("agency.goalstate")
            self.touch("runtime")
            for agent in self.agents.values():
                agent.goal_changed()
            self.wake()

    def begin_destruction(self) -> None:
        """Remove every agent, then leave."""
        if not self.destroying:
            self.destroying = True
            self.set_goal(UNINSTALLED)
            self.wake()

    def take_new_moid(self) -> None:
        """Be the same under another reference, as after a restore of EAM's database."""
        self.world.remove(self)
        self.moid = str(uuid.uuid4())
        self.world.add(self)
        for agent in self.agents.values():
            agent.take_new_moid()

    def forget(self) -> None:
        """Disappear without removing anything, as after a restore of EAM's database."""
        self.lost = True
        for resource in self._watched.values():
            resource.unwatch(self.wake)
        for agent in self.agents.values():
            agent.abandon()

    def _require_changeable(self, call: Call) -> None:
        self.require_visible(call)
        if self.destroying:
            raise eam.fault.InvalidState(msg=f"Agency {self.name} is being destroyed.")

    # The API ------------------------------------------------------------------------------------------------

    def prop_solutionId(self) -> Any:  # noqa: N802 - named after the property
        return self.solution

    def prop_owner(self) -> Any:
        return self.owner

    def prop_config(self) -> Any:
        return self.settings

    def prop_agent(self) -> Any:
        return eam.Agent.Array([agent.ref for agent in self.agents.values()])

    def prop_runtime(self) -> Any:
        return eam.EamObject.RuntimeInfo(
            status=self.status, issue=self.issue_values(), goalState=self.goal, entity=self.ref
        )

    @soap("QuerySolutionId", "EAM.View")
    def query_solution_id(self, call: Call) -> str:
        """As the property."""
        self.require_visible(call)
        return self.solution

    @soap("QueryConfig", "EAM.View")
    def query_config(self, call: Call) -> Any:
        """As the property: with defaults filled in."""
        self.require_visible(call)
        return self.settings

    @soap("AgencyQueryRuntime", "EAM.View")
    def query_runtime(self, call: Call) -> Any:
        """As the property."""
        self.require_visible(call)
        return self.prop_runtime()

    @soap("QueryAgent", "EAM.View")
    def query_agent(self, call: Call) -> Any:
        """As the property."""
        self.require_visible(call)
        return self.prop_agent()

    @writes("Update", "EAM.Modify")
    def update(self, call: Call, config: Any) -> None:
        """Take another configuration and act on the difference; unset fields stay as they are (knob)."""
        self._require_changeable(call)
        merged = merge(self.settings, config) if self.world.knobs.update_unset_keeps else with_defaults(config)
        if not merged.agencyName:
            merged.agencyName = self.settings.agencyName
        self.manager.validate(merged, before=self.settings)
        self.former.append(self.settings)
        self.configure(merged)

    def configure(self, settings: Any) -> None:
        """Work by another configuration from now on."""
        self.settings = settings
        self.manager.notify("agency.updated")
        self.touch("config")
        for agent in self.agents.values():
            agent.retry()
        self.wake()

    @writes("Agency_Enable", "EAM.Modify")
    def enable(self, call: Call) -> None:
        """Goal enabled; not supported any more once it was uninstalled."""
        self._require_changeable(call)
        if self.goal == UNINSTALLED:
            raise eam.fault.InvalidState(msg="An uninstalled agency cannot be enabled again.")
        self.set_goal(ENABLED)

    @writes("Agency_Disable", "EAM.Modify")
    def disable(self, call: Call) -> None:
        """Goal disabled: VMs are deployed and off."""
        self._require_changeable(call)
        if self.goal == UNINSTALLED:
            raise eam.fault.InvalidState(msg="An uninstalled agency cannot be disabled.")
        self.set_goal(DISABLED)

    @writes("Uninstall", "EAM.Modify")
    def uninstall(self, call: Call) -> None:
        """Goal uninstalled: every agent is removed, the agency stays."""
        self._require_changeable(call)
        self.set_goal(UNINSTALLED)

    @writes("DestroyAgency", "EAM.Modify")
    def destroy_agency(self, call: Call) -> None:
        """Remove every agent, then the agency."""
        self.require_visible(call)
        self.begin_destruction()

    @writes("AddIssue", "EAM.Modify")
    def add_issue(self, call: Call, issue: Any) -> Any:
        """File a client's issue; key and time are EAM's. ``InvalidArgument`` for a type that nobody registered."""
        self._require_changeable(call)
        if isinstance(issue, eam.issue.ExtensibleIssue):
            raise vmodl.fault.InvalidArgument(invalidProperty="issue.typeId")
        stamp = self.manager.new_issue(Problem("AgencyDisabled"))
        issue.key, issue.time = stamp.key, stamp.time
        self._foreign[stamp.key] = issue
        self._recolour()
        self.touch("runtime")
        return issue

    @writes("RegisterAgentVm", "EAM.Modify")
    def register_agent_vm(self, call: Call, agentVm: Any) -> None:  # noqa: N803 - the API's names
        """Only for VMs that the client provisions itself."""
        raise vmodl.fault.NotSupported(msg="Agencies with manually provisioned VMs are not simulated.")

    @writes("UnregisterAgentVm", "EAM.Modify")
    def unregister_agent_vm(self, call: Call, agentVm: Any) -> None:  # noqa: N803
        """Only for VMs that the client provisions itself."""
        raise vmodl.fault.NotSupported(msg="Agencies with manually provisioned VMs are not simulated.")


_FLAGS = (
    "manuallyMarkAgentVmAvailableAfterProvisioning",
    "manuallyMarkAgentVmAvailableAfterPowerOn",
    "manuallyProvisioned",
    "manuallyMonitored",
    "bypassVumEnabled",
    "preferHostConfiguration",
    "useUuidVmName",
)


def with_defaults(config: Any) -> Any:
    """A copy with every unset flag at its documented default."""
    made = copy.deepcopy(config)
    for flag in _FLAGS:
        if getattr(made, flag) is None:
            setattr(made, flag, False)
    if made.optimizedDeploymentEnabled is None:
        made.optimizedDeploymentEnabled = True
    if made.scope is None:
        made.scope = eam.Agency.ComputeResourceScope(computeResource=vim.ComputeResource.Array())
    return made


def merge(old: Any, new: Any) -> Any:
    """``old`` with what ``new`` sets. An empty array cannot be told from an unset one, and counts as unset."""
    made = copy.deepcopy(old)
    for prop in new._GetPropertyList():
        value = getattr(new, prop.name)
        if value is not None and not (isinstance(value, list) and not value):
            setattr(made, prop.name, copy.deepcopy(value))
    return made
