# SPDX-License-Identifier: Apache-2.0
"""Simulated resource pools: a tree per compute resource that VMs stand in.

Not promised: any effect of shares, reservations and limits.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import long

from vcenter_eam_plugin.simulator.managed_entity import ManagedEntity, refs, writes
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.world import Call, World


class ResourcePool(ManagedEntity):
    """``vim.ResourcePool``. The root pool's parent is the compute resource."""

    vmodl: ClassVar[type] = vim.ResourcePool
    rename_privilege: ClassVar[str | None] = "Resource.RenamePool"

    def __init__(self, world: World, name: str, parent: ManagedEntity, owner: ManagedEntity) -> None:
        super().__init__(world, world.new_moid("resgroup"), name, parent)
        self.pools: dict[str, ResourcePool] = {}
        self.vms: dict[str, ManagedEntity] = {}
        self.owner = owner

    def prop_owner(self) -> Any:
        return self.owner.ref

    def prop_resourcePool(self) -> Any:  # noqa: N802 - named after the property
        return refs(vim.ResourcePool, self.pools.values())

    def prop_vm(self) -> Any:
        return refs(vim.VirtualMachine, self.vms.values())

    def prop_config(self) -> Any:
        own = self.props.get("config")
        return own if own is not None else _unlimited(self.ref)

    def prop_runtime(self) -> Any:
        def usage() -> Any:
            return vim.ResourcePool.ResourceUsage(
                reservationUsed=long(0),
                reservationUsedForVm=long(0),
                unreservedForPool=long(0),
                unreservedForVm=long(0),
                overallUsage=long(0),
                maxUsage=long(0),
            )

        green = vim.ManagedEntity.Status.green
        return vim.ResourcePool.RuntimeInfo(memory=usage(), cpu=usage(), overallStatus=green)

    def prop_summary(self) -> Any:
        return vim.ResourcePool.Summary(name=self.name, config=self.prop_config(), runtime=self.prop_runtime())

    def create(self, name: str, config: Any = None) -> ResourcePool:
        """Add a child pool; ``DuplicateName`` when there is one of that name."""
        for other in self.pools.values():
            if other.name == name:
                raise vim.fault.DuplicateName(name=name, object=other.ref)
        pool = self.world.add(ResourcePool(self.world, name, self, self.owner))
        if config is not None:
            pool.props["config"] = config
        self.pools[pool.moid] = pool
        self.touch("resourcePool")
        return pool

    def put(self, vm: ManagedEntity) -> None:
        """Take a VM in."""
        self.vms[vm.moid] = vm
        self.touch("vm")

    def drop(self, vm: ManagedEntity) -> None:
        """Let a VM go."""
        if self.vms.pop(vm.moid, None) is not None:
            self.touch("vm")

    def remove_tree(self) -> None:
        """Leave the inventory with all child pools."""
        for pool in tuple(self.pools.values()):
            pool.remove_tree()
        if isinstance(self.parent, ResourcePool) and self.parent.pools.pop(self.moid, None) is not None:
            self.parent.touch("resourcePool")
        self.leave()

    @writes("CreateResourcePool", "Resource.CreatePool")
    def create_resource_pool(self, call: Call, name: str, spec: Any) -> ResourcePool:
        """As documented."""
        return self.create(name, spec)

    @writes("Destroy_Task", "Resource.DeletePool")
    def destroy_task(self, call: Call) -> Task:
        """Remove the pool; its VMs and child pools move to its parent. The root pool cannot be destroyed."""

        def work() -> None:
            above = self.parent
            if not isinstance(above, ResourcePool):
                raise vmodl.fault.NotSupported(msg="The root resource pool cannot be destroyed.")
            for vm in tuple(self.vms.values()):
                self.drop(vm)
                above.put(vm)
                vm.set("resourcePool", above.ref)
            for pool in tuple(self.pools.values()):
                self.pools.pop(pool.moid)
                above.pools[pool.moid] = pool
                pool.move_under(above)
            above.pools.pop(self.moid, None)
            above.touch("resourcePool")
            self.leave()

        return self.operate("ResourcePool.destroy", call.user, work)

    @writes("UpdateConfig", "Resource.EditPool")
    def update_config(self, call: Call, name: str | None = None, config: Any = None) -> None:
        """As documented: both parts are optional."""
        if name:
            self.rename(name, call.user)
        if config is not None:
            self.set("config", config)


def _unlimited(entity: Any) -> Any:
    def allocation() -> Any:
        shares = vim.SharesInfo(shares=4000, level=vim.SharesInfo.Level.normal)
        return vim.ResourceAllocationInfo(
            reservation=long(0), expandableReservation=True, limit=long(-1), shares=shares
        )

    return vim.ResourceConfigSpec(entity=entity, cpuAllocation=allocation(), memoryAllocation=allocation())
