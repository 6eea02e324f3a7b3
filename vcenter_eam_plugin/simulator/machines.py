# SPDX-License-Identifier: Apache-2.0
"""What is on a machine when it leaves a vCenter, and comes back with it.

Removing a host takes its VMs out of the inventory, not off the machine: they run on, and when the machine is added
again vCenter discovers them, under new references. A machine is known by its name.

Not promised: what was configured of those VMs beyond their sizes, and VMs of a machine that is gone for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from vcenter_eam_plugin.simulator.virtual_machine import PowerState, VirtualMachine

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.host_system import HostSystem

DISCOVERED = "Discovered virtual machine"
"""vCenter's folder for VMs that come with a host."""


@dataclass(frozen=True, slots=True)
class LeftVm:
    """One VM on a machine that is in no inventory."""

    name: str
    agent: bool
    power: Any
    datastore: str
    networks: tuple[str, ...]
    memory_mb: int
    cpus: int
    disk_bytes: int
    address: str | None


def keep(host: HostSystem) -> None:
    """A host is about to leave: remember what is on the machine."""
    if host.world.knobs.removed_host_keeps_vms and host.vms:
        host.world.machines[host.name] = [
            LeftVm(
                vm.name,
                vm.is_agent,
                vm.power if host.powered else PowerState.poweredOff,
                vm.datastore_object.name,
                tuple(network.name for network in vm.networks),
                vm.memory_mb,
                vm.cpus,
                vm.disk_bytes,
                vm.address,
            )
            for vm in host.vms.values()
        ]


def bring_back(host: HostSystem) -> None:
    """A machine joins: vCenter discovers what is on it."""
    for left in host.world.machines.pop(host.name, ()):
        _discover(host, left)


def _discover(host: HostSystem, left: LeftVm) -> None:
    datacenter: Any = host.datacenter
    stores = list(host.datastores.values())
    store = next((one for one in stores if one.name == left.datastore), None)
    if store is None:  # a local datastore comes back with its machine, under another name
        store = next(one for one in stores if not one.shared)
    folder = datacenter.vm_folder.child(DISCOVERED) or datacenter.vm_folder.new_folder(DISCOVERED)
    name, number = left.name, 0
    while folder.child(name) is not None:
        number += 1
        name = f"{left.name} ({number})"
    vm = VirtualMachine(
        host.world,
        name,
        folder,
        host=host,
        pool=host.compute_resource.root_pool,
        datastore=store,
        network=None,
        agent=left.agent,
        memory_mb=left.memory_mb,
        cpus=left.cpus,
        disk_bytes=left.disk_bytes,
    )
    vm.networks = [network for network in host.networks.values() if network.name in left.networks]
    vm.address = left.address
    if left.power != PowerState.poweredOff:
        vm.boots = 1
        vm.props["runtime"].powerState = left.power
    host.world.add(vm)
    folder.put(vm)
    vm.pool.put(vm)
    host.put_vm(vm)
    if left.disk_bytes:
        store.take(left.disk_bytes)
    vm.post(vim.event.VmDiscoveredEvent(template=False))
    vm.set_heartbeat(vm.is_agent and host.world.knobs.heartbeats)
