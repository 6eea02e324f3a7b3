# SPDX-License-Identifier: Apache-2.0
"""Tenant VMs of the simulated vCenter: how one comes to be, with nothing in it that costs before somebody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyVmomi import vim

from vcenter_eam_plugin.simulator.datacenter import Datacenter
from vcenter_eam_plugin.simulator.virtual_machine import PowerState, VirtualMachine

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.host_system import HostSystem


def new_tenant(host: HostSystem, name: str, *, on: bool = True, user: str | None = None) -> VirtualMachine:
    """A tenant VM on a host, at once and without asking anybody; with ``user`` its creation is an event.

    Raises ``DuplicateName`` when the datacenter's VM folder has that name.
    """
    world, datacenter = host.world, host.datacenter
    assert isinstance(datacenter, Datacenter)
    datacenter.vm_folder.require_free(name)
    pool = host.compute_resource.root_pool
    vm = VirtualMachine(
        world,
        name,
        datacenter.vm_folder,
        host=host,
        pool=pool,
        datastore=datacenter.shared_datastores[0],
        network=datacenter.networks[0],
    )
    if on:
        vm.props["runtime"].powerState = PowerState.poweredOn
    world.add(vm)
    host.put_vm(vm)
    pool.put(vm)
    datacenter.vm_folder.put(vm)
    if user is not None:
        vm.post(vim.event.VmCreatedEvent(template=False), user)
    return vm
