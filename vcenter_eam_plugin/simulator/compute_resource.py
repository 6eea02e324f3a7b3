# SPDX-License-Identifier: Apache-2.0
"""Simulated compute resources: clusters, and the compute resource that every standalone host has.

Not promised: resource figures beyond sums, recommendations, images (a cluster can *say* that it is managed with
one, because EAM behaves differently there).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import vim
from pyVmomi.VmomiSupport import long, short

from vcenter_eam_plugin.simulator import drs, machines
from vcenter_eam_plugin.simulator.admission import advanced_info, usage
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.managed_entity import VCENTER, ManagedEntity, refs, writes
from vcenter_eam_plugin.simulator.resource_pool import ResourcePool
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.world import Call, World, soap

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.folder import Folder
    from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine


class ComputeResource(ManagedEntity):
    """``vim.ComputeResource`` of one standalone host, and base of clusters."""

    vmodl: ClassVar[type] = vim.ComputeResource
    rename_privilege: ClassVar[str | None] = "Host.Inventory.RenameCluster"
    move_privilege: ClassVar[str] = "Host.Inventory.MoveCluster"
    letter: ClassVar[str] = "s"
    is_cluster: ClassVar[bool] = False

    def __init__(self, world: World, name: str, folder: Folder) -> None:
        super().__init__(world, world.new_moid("domain").replace("-", f"-{self.letter}"), name, folder)
        self.hosts: dict[str, HostSystem] = {}
        self.root_pool = world.add(ResourcePool(world, "Resources", self, self))
        self.lifecycle_managed = False
        self.disabled = False
        self.props.update(resourcePool=self.root_pool.ref, configurationEx=self._new_configuration())

    def _new_configuration(self) -> Any:
        return vim.ComputeResource.ConfigInfo(vmSwapPlacement="vmDirectory")

    def prop_host(self) -> Any:
        return refs(vim.HostSystem, self.hosts.values())

    def prop_datastore(self) -> Any:
        return refs(vim.Datastore, {d.moid: d for h in self.hosts.values() for d in h.datastores.values()}.values())

    def prop_network(self) -> Any:
        return refs(vim.Network, {n.moid: n for h in self.hosts.values() for n in h.networks.values()}.values())

    def prop_lifecycleManaged(self) -> Any:  # noqa: N802 - named after the property
        return self.lifecycle_managed

    def _summary_values(self) -> dict[str, Any]:
        usable = [host for host in self.hosts.values() if host.can_run]
        return {
            "totalCpu": 76800 * len(self.hosts),
            "totalMemory": long(sum(host.memory_mb for host in self.hosts.values()) << 20),
            "numCpuCores": short(min(32 * len(self.hosts), 32767)),
            "numCpuThreads": short(min(64 * len(self.hosts), 32767)),
            "effectiveCpu": 76800 * len(usable),
            "effectiveMemory": long(sum(host.memory_mb for host in usable)),
            "numHosts": len(self.hosts),
            "numEffectiveHosts": len(usable),
            "overallStatus": self.props["overallStatus"],
        }

    def prop_summary(self) -> Any:
        return vim.ComputeResource.Summary(**self._summary_values())

    def describe(self, event: Any) -> None:
        event.computeResource = vim.event.ComputeResourceEventArgument(name=self.name, computeResource=self.ref)

    def place(self, vm: VirtualMachine, *, besides: HostSystem) -> HostSystem | None:
        """Another host for a VM; a standalone host has none to offer."""
        return None

    @property
    def drs(self) -> bool:
        """DRS is on."""
        return False

    @property
    def ha(self) -> bool:
        """vSphere HA is on."""
        return False

    # Hosts --------------------------------------------------------------------------------------------------

    def put_host(self, host: HostSystem) -> None:
        """A host comes in."""
        self.hosts[host.moid] = host
        host.compute_resource = self
        self.touch("host")

    def drop_host(self, host: HostSystem) -> None:
        """A host leaves."""
        if self.hosts.pop(host.moid, None) is not None:
            self.touch("host")

    def take_host(self, host: HostSystem) -> None:
        """Move a host in from wherever it is; a standalone host's own compute resource goes."""
        source = host.compute_resource
        if source is self:
            return
        source.drop_host(host)
        self.put_host(host)
        for vm in host.vms.values():
            vm.pool.drop(vm)
            vm.pool = self.root_pool
            self.root_pool.put(vm)
            vm.set("resourcePool", self.root_pool.ref)
        host.move_under(self)
        if not source.is_cluster:
            source.remove()

    def remove(self, user: str = VCENTER) -> None:
        """Leave the inventory with all hosts."""
        for host in tuple(self.hosts.values()):
            host.remove(user)
        holder: Any = self.parent
        holder.drop(self)
        self.root_pool.remove_tree()
        self.leave()

    # Operations ---------------------------------------------------------------------------------------------

    @writes("ReconfigureComputeResource_Task", "Host.Inventory.EditCluster")
    def reconfigure_task(self, call: Call, spec: Any, modify: bool) -> Task:
        """Change HA, DRS and DPM settings (clusters) or the swap placement; ``modify`` false resets what is unset."""
        return self.operate(
            "ComputeResource.reconfigureEx", call.user, lambda: self.reconfigure(spec, modify, call.user)
        )

    def reconfigure(self, spec: Any, modify: bool, user: str = VCENTER) -> None:
        """Apply a configuration specification."""
        if not modify:
            self.props["configurationEx"] = self._new_configuration()
        if spec.vmSwapPlacement is not None:
            self.props["configurationEx"].vmSwapPlacement = spec.vmSwapPlacement
        self._configure(spec)
        self.touch("configurationEx")

    def _configure(self, spec: Any) -> None:
        """What a kind of compute resource has beyond the swap placement."""

    @writes("Destroy_Task", "Host.Inventory.DeleteCluster")
    def destroy_task(self, call: Call) -> Task:
        """Remove it with all its hosts."""
        return self.operate(f"{type(self).__name__}.destroy", call.user, lambda: self.remove(call.user))


class ClusterComputeResource(ComputeResource):
    """``vim.ClusterComputeResource``."""

    vmodl: ClassVar[type] = vim.ClusterComputeResource
    letter: ClassVar[str] = "c"
    is_cluster: ClassVar[bool] = True

    def _new_configuration(self) -> Any:
        return vim.cluster.ConfigInfoEx(
            vmSwapPlacement="vmDirectory",
            dasConfig=vim.cluster.DasConfigInfo(
                enabled=False,
                admissionControlEnabled=True,
                admissionControlPolicy=vim.cluster.FailoverLevelAdmissionControlPolicy(failoverLevel=1),
            ),
            drsConfig=vim.cluster.DrsConfigInfo(
                enabled=True,
                enableVmBehaviorOverrides=True,
                defaultVmBehavior=vim.cluster.DrsConfigInfo.DrsBehavior.fullyAutomated,
                vmotionRate=3,
            ),
            dpmConfigInfo=vim.cluster.DpmConfigInfo(
                enabled=False, defaultDpmBehavior=vim.cluster.DpmConfigInfo.DpmBehavior.manual, hostPowerActionRate=3
            ),
        )

    @property
    def drs(self) -> bool:
        """DRS is on."""
        return bool(self.props["configurationEx"].drsConfig.enabled)

    @property
    def ha(self) -> bool:
        return bool(self.props["configurationEx"].dasConfig.enabled)

    def prop_summary(self) -> Any:
        return vim.ClusterComputeResource.Summary(
            **self._summary_values(), currentFailoverLevel=0, numVmotions=0, usageSummary=usage(self)
        )

    def place(self, vm: VirtualMachine, *, besides: HostSystem) -> HostSystem | None:
        """With DRS: the host with the fewest VMs among those that may run it."""
        return drs.choose(self, vm, besides=besides) if self.drs else None

    def balance(self, user: str = VCENTER) -> VirtualMachine | None:
        """DRS moves one VM from the fullest host to the emptiest that may run it; ``None`` when all is even."""
        if not self.drs:
            return None
        for source in sorted(self.hosts.values(), key=lambda host: -len(host.vms)):
            for vm in source.vms.values():
                movable = vm.on and source.connected and (not vm.is_agent or self.world.knobs.drs_ignores_agents)
                target = drs.choose(self, vm, besides=source) if movable else None
                if target is not None and len(target.vms) + 1 < len(source.vms):
                    vm.migrate(target, user)
                    return vm
        return None

    def _configure(self, spec: Any) -> None:
        config = self.props["configurationEx"]
        for name in ("dasConfig", "drsConfig"):
            _merge(getattr(config, name), getattr(spec, name, None))
        _merge(config.dpmConfigInfo, getattr(spec, "dpmConfig", None))

    def reconfigure(self, spec: Any, modify: bool, user: str = VCENTER) -> None:
        super().reconfigure(spec, modify, user)
        self.post(vim.event.ClusterReconfiguredEvent(), user)

    def remove(self, user: str = VCENTER) -> None:
        super().remove(user)
        self.post(vim.event.ClusterDestroyedEvent(), user)

    @writes("ReconfigureCluster_Task", "Host.Inventory.EditCluster")
    def reconfigure_cluster_task(self, call: Call, spec: Any, modify: bool) -> Task:
        """The older form of the same."""

        def work() -> None:
            if not modify:
                self.props["configurationEx"] = self._new_configuration()
            self._configure(spec)
            self.touch("configurationEx")
            self.post(vim.event.ClusterReconfiguredEvent(), call.user)

        return self.operate("ClusterComputeResource.reconfigure", call.user, work)

    @soap("RetrieveDasAdvancedRuntimeInfo", "System.Read")
    def retrieve_das_advanced_runtime_info(self, call: Call) -> Any:
        """HA's slots; nothing while HA is off."""
        return advanced_info(self) if self.ha else None

    @writes("AddHost_Task", "Host.Inventory.AddHostToCluster")
    def add_host_task(
        self,
        call: Call,
        spec: Any,
        asConnected: bool,  # noqa: N803 - the API's names
        resourcePool: Any = None,  # noqa: N803
        license: str | None = None,
    ) -> Task:
        """Add a machine by its name; ``AlreadyConnected`` when vCenter has it, ``InvalidName`` without one."""
        name = spec.hostName
        if not name:
            raise vim.fault.InvalidName(name=name or "", entity=self.ref)

        def work() -> HostSystem:
            if any(host.name == name for host in self.world.each(HostSystem)):
                raise vim.fault.AlreadyConnected(name=name)
            host = new_host(self, name, call.user)
            if not asConnected:
                host.disconnect(call.user)
            return host

        return self.operate("ClusterComputeResource.addHost", call.user, work)

    @writes("MoveInto_Task", "Host.Inventory.MoveHost")
    def move_into_task(self, call: Call, host: Sequence[Any]) -> Task:
        """Move hosts in; one that is in another cluster must be in maintenance first."""
        return self.operate("ClusterComputeResource.moveInto", call.user, lambda: self._move(host))

    @writes("MoveHostInto_Task", "Host.Inventory.MoveHost")
    def move_host_into_task(self, call: Call, host: Any, resourcePool: Any = None) -> Task:  # noqa: N803
        """The same for one host."""
        return self.operate("ClusterComputeResource.moveHostInto", call.user, lambda: self._move([host]))

    def _move(self, hosts: Sequence[Any]) -> None:
        found = [self.world.find(ref) for ref in hosts]
        for host in found:
            if not isinstance(host, HostSystem):
                raise vim.fault.InvalidState(msg="A host to move does not exist.")
            if host.compute_resource.is_cluster and not host.in_maintenance:
                raise vim.fault.InvalidState(msg=f"Host {host.name} is not in maintenance mode.")
        for host in found:
            if isinstance(host, HostSystem):
                self.take_host(host)


def _merge(target: Any, spec: Any) -> None:
    """Copy what a specification sets; the info types have the same field names."""
    for field in spec._GetPropertyList() if spec is not None else ():
        value = getattr(spec, field.name)
        if value is not None and not (isinstance(value, list) and not value):
            setattr(target, field.name, value)


def new_host(parent: ComputeResource, name: str, user: str = VCENTER) -> HostSystem:
    """A machine joins: it sees the datacenter's shared storage and networks, and brings a local datastore."""
    world = parent.world
    host = world.add(HostSystem(world, name, parent))
    datacenter: Any = host.datacenter
    host.mount(*datacenter.shared_datastores, datacenter.new_local_datastore(), *datacenter.networks)
    if world.knobs.agent_vm_settings_preset:
        host.agent_settings.write(datacenter.shared_datastores[0], datacenter.networks[0])
    parent.put_host(host)
    host.post(vim.event.HostAddedEvent(), user)
    host.post(vim.event.HostConnectedEvent(), user)
    machines.bring_back(host)
    return host
