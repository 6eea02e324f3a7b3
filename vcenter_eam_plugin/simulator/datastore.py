# SPDX-License-Identifier: Apache-2.0
"""Simulated datastores: capacity, free space, and the hosts that mount them.

Not promised: files, browsing, storage clusters, policies; that anything leaves a datastore in maintenance, or is
refused there, which belongs to storage clusters.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from pyVmomi import vim
from pyVmomi.VmomiSupport import long

from vcenter_eam_plugin.simulator.managed_entity import ManagedEntity, refs
from vcenter_eam_plugin.simulator.world import World

TIB = 1 << 40


class Datastore(ManagedEntity):
    """``vim.Datastore``. Deployed agent VMs take space and give it back."""

    vmodl: ClassVar[type] = vim.Datastore
    rename_privilege: ClassVar[str | None] = "Datastore.Rename"
    move_privilege: ClassVar[str] = "Datastore.Move"

    def __init__(
        self, world: World, name: str, parent: ManagedEntity, *, capacity: int, free: int, shared: bool
    ) -> None:
        super().__init__(world, world.new_moid("datastore"), name, parent)
        self.capacity = capacity
        self.free = free
        self.shared = shared
        self.accessible = True
        self.maintenance = vim.Datastore.Summary.MaintenanceModeState.normal
        self.hosts: dict[str, ManagedEntity] = {}
        self.unmounted: set[str] = set()
        """Hosts that list it and have it unmounted."""

    @property
    def url(self) -> str:
        """``ds:///vmfs/volumes/<uuid>/``, as vSphere writes it."""
        return f"ds:///vmfs/volumes/{uuid.uuid5(uuid.NAMESPACE_OID, self.moid)}/"

    def prop_summary(self) -> Any:
        return vim.Datastore.Summary(
            datastore=self.ref,
            name=self.name,
            url=self.url,
            capacity=long(self.capacity),
            freeSpace=long(self.free),
            uncommitted=long(0),
            accessible=self.accessible and not self.hosts.keys() <= self.unmounted,
            multipleHostAccess=len(self.hosts) > 1,
            type="VMFS",
            maintenanceMode=self.maintenance,
        )

    def prop_info(self) -> Any:
        return vim.Datastore.Info(
            name=self.name,
            url=self.url,
            freeSpace=long(self.free),
            maxFileSize=long(62 * TIB),
            maxMemoryFileSize=long(62 * TIB),
            timestamp=self.world.clock.now(),
        )

    def prop_host(self) -> Any:
        def mount(host: ManagedEntity) -> Any:
            info = vim.host.MountInfo(
                path=self.url,
                accessMode="readWrite",
                mounted=host.moid not in self.unmounted,
                accessible=self.usable_on(host),
            )
            return vim.Datastore.HostMount(key=host.ref, mountInfo=info)

        return vim.Datastore.HostMount.Array([mount(host) for host in self.hosts.values()])

    def prop_vm(self) -> Any:
        vms = (vm for host in self.hosts.values() for vm in getattr(host, "vms", {}).values())
        return refs(vim.VirtualMachine, (vm for vm in vms if vm.datastore_object is self))

    def usable_on(self, host: ManagedEntity) -> bool:
        """Whether a host can write to it."""
        return self.accessible and host.moid not in self.unmounted

    def unmount(self, host: ManagedEntity, off: bool) -> None:
        """Unmount it on a host, which goes on listing it, or mount it again. ``ResourceInUse`` while VMs are there."""
        if off and any(vm.datastore_object is self for vm in getattr(host, "vms", {}).values()):
            raise vim.fault.ResourceInUse(type=vim.Datastore, name=self.name)
        (self.unmounted.add if off else self.unmounted.discard)(host.moid)
        self.touch("host")
        self.touch("summary.accessible")

    def set_maintenance(self, on: bool) -> None:
        """Be in maintenance mode, or not any more."""
        states = vim.Datastore.Summary.MaintenanceModeState
        self.maintenance = states.inMaintenance if on else states.normal
        self.touch("summary.maintenanceMode")

    def take(self, size: int) -> None:
        """Use space; a negative size gives it back."""
        self.resize(self.free - size)

    def resize(self, free: int) -> None:
        """Set the free space, in bytes."""
        self.free = max(0, min(free, self.capacity))
        self.touch("summary.freeSpace")
        self.touch("info.freeSpace")

    def set_accessible(self, accessible: bool) -> None:
        """Lose or regain the storage; VMs on it become inaccessible or come back."""
        self.accessible = accessible
        self.touch("summary.accessible")
        for host in self.hosts.values():
            for vm in getattr(host, "vms", {}).values():
                if vm.datastore_object is self:
                    vm.refresh_connection()

    def describe(self, event: Any) -> None:
        event.ds = vim.event.DatastoreEventArgument(name=self.name, datastore=self.ref)
