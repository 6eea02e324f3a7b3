# SPDX-License-Identifier: Apache-2.0
"""Simulated datacenters, with the storage and the networks that all their hosts share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import vim, vmodl

from vcenter_eam_plugin.simulator.datastore import TIB, Datastore
from vcenter_eam_plugin.simulator.managed_entity import VCENTER, ManagedEntity, refs, writes
from vcenter_eam_plugin.simulator.network import (
    DistributedVirtualPortgroup,
    DistributedVirtualSwitch,
    Network,
)
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine
from vcenter_eam_plugin.simulator.world import Call, World

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.folder import Folder


class Datacenter(ManagedEntity):
    """``vim.Datacenter``."""

    vmodl: ClassVar[type] = vim.Datacenter
    rename_privilege: ClassVar[str | None] = "Datacenter.Rename"
    move_privilege: ClassVar[str] = "Datacenter.Move"
    vm_folder: Folder
    host_folder: Folder
    datastore_folder: Folder
    network_folder: Folder
    switch: DistributedVirtualSwitch

    def __init__(self, world: World, name: str, parent: Folder) -> None:
        super().__init__(world, world.new_moid("datacenter"), name, parent)
        self.shared_datastores: list[Datastore] = []
        self.networks: list[Network] = []
        self._locals = 0

    def furnish(self, vm: Folder, host: Folder, datastore: Folder, network: Folder) -> None:
        """Take the four folders and make what all hosts share."""
        self.vm_folder, self.host_folder, self.datastore_folder, self.network_folder = vm, host, datastore, network
        self.props.update(
            vmFolder=vm.ref, hostFolder=host.ref, datastoreFolder=datastore.ref, networkFolder=network.ref
        )
        self.shared_datastores.append(
            self.new_datastore(f"shared-{self.name.lower()}", capacity=100 * TIB, free=80 * TIB, shared=True)
        )
        for name in ("VM Network", "fab-pg"):
            self.networks.append(self._new_network(Network(self.world, name, network)))
        self.switch = self.world.add(DistributedVirtualSwitch(self.world, f"dvs-{self.name.lower()}", network))
        network.put(self.switch)
        group = DistributedVirtualPortgroup(self.world, f"dvpg-{self.name.lower()}", network, self.switch)
        self.switch.portgroups.append(group)
        self.networks.append(self._new_network(group))

    def _new_network(self, network: Network) -> Network:
        self.world.add(network)
        self.network_folder.put(network)
        return network

    def new_datastore(self, name: str, *, capacity: int, free: int, shared: bool) -> Datastore:
        """Add a datastore that no host has mounted yet. Sizes in bytes."""
        datastore = self.world.add(
            Datastore(self.world, name, self.datastore_folder, capacity=capacity, free=free, shared=shared)
        )
        self.datastore_folder.put(datastore)
        return datastore

    def new_local_datastore(self) -> Datastore:
        """The datastore on a new machine's own disk."""
        self._locals += 1
        return self.new_datastore(f"local-{self._locals}", capacity=TIB, free=TIB * 9 // 10, shared=False)

    def prop_datastore(self) -> Any:
        return refs(vim.Datastore, (d for d in self.datastore_folder.children.values() if isinstance(d, Datastore)))

    def prop_network(self) -> Any:
        return refs(vim.Network, (n for n in self.network_folder.children.values() if isinstance(n, Network)))

    def describe(self, event: Any) -> None:
        event.datacenter = vim.event.DatacenterEventArgument(name=self.name, datacenter=self.ref)

    def remove(self, user: str = VCENTER) -> None:
        """Leave the inventory with everything in it."""
        for folder in (self.host_folder, self.vm_folder, self.datastore_folder, self.network_folder):
            folder.remove(user)
        holder: Any = self.parent
        holder.drop(self)
        self.leave()

    @writes("PowerOnMultiVM_Task", "System.View")
    def power_on_multi_vm_task(self, call: Call, vm: Sequence[Any], option: Any = ()) -> Task:
        """Power VMs on where DRS wants them. The result tells which were begun, and why others were not."""
        found = [self._vm(ref) for ref in vm]
        for one in found:
            call.require("VirtualMachine.Interact.PowerOn", one)

        def work() -> Any:
            result = vim.cluster.PowerOnVmResult()
            for one in found:
                try:
                    one.placement()
                except vmodl.MethodFault as fault:
                    result.notAttempted.append(vim.cluster.NotAttemptedVmInfo(vm=one.ref, fault=fault))
                else:
                    task = one.power_on(call.user)
                    result.attempted.append(vim.cluster.AttemptedVmInfo(vm=one.ref, task=task.ref))
            return result

        return self.operate("Datacenter.powerOnVm", call.user, work)

    def _vm(self, ref: Any) -> VirtualMachine:
        found = self.world.find(ref)
        if not isinstance(found, VirtualMachine):
            raise vmodl.fault.ManagedObjectNotFound(obj=ref)
        return found

    @writes("Destroy_Task", "Datacenter.Delete")
    def destroy_task(self, call: Call) -> Task:
        """Remove it with everything in it."""
        return self.operate("Datacenter.destroy", call.user, lambda: self.remove(call.user))
