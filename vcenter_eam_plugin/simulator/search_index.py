# SPDX-License-Identifier: Apache-2.0
"""The simulated ``vim.SearchIndex``: hosts and VMs by path, name, address and UUID.

Every search looks at all objects of the kind; that is what a search costs here. Not promised: datastore paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from pyVmomi import vim
from pyVmomi.VmomiSupport import ManagedObject as Reference

from vcenter_eam_plugin.simulator.property_paths import read
from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

_CHILDREN: tuple[tuple[type, tuple[str, ...]], ...] = (
    (vim.Folder, ("childEntity",)),
    (vim.Datacenter, ("vmFolder", "hostFolder", "datastoreFolder", "networkFolder")),
    (vim.ComputeResource, ("host", "resourcePool")),
    (vim.ResourcePool, ("resourcePool",)),
)


def children(world: World, obj: ManagedObject) -> Iterator[ManagedObject]:
    """Children by which an inventory path goes down."""
    for kind, paths in _CHILDREN:
        if issubclass(obj.vmodl, kind):
            for path in paths:
                value = obj.get(path)
                for ref in value if isinstance(value, list) else (value,):
                    child = world.find(ref) if ref is not None else None
                    if child is not None:
                        yield child


class SearchIndex(ManagedObject):
    """Needs no privilege but the session: what the caller may not see is not modelled."""

    vmodl: ClassVar[type] = vim.SearchIndex

    def __init__(self, world: World, root: ManagedObject) -> None:
        super().__init__(world, "SearchIndex")
        self._root = root

    @soap("FindByInventoryPath")
    def find_by_inventory_path(self, call: Call, inventoryPath: str) -> ManagedObject | None:  # noqa: N803
        """``DC0/host/folder/cluster``, with or without a leading slash; ``%2f`` stands for a slash in a name."""
        obj: ManagedObject | None = self._root
        for part in inventoryPath.strip("/").split("/"):
            if obj is None:
                return None
            name = part.replace("%2F", "/").replace("%2f", "/")
            obj = next((child for child in children(self.world, obj) if child.get("name") in (name, part)), None)
        return obj

    @soap("FindChild")
    def find_child(self, call: Call, entity: Any, name: str) -> ManagedObject | None:
        """A direct child by name."""
        obj = self.world.objects[entity._moId]
        return next((child for child in children(self.world, obj) if child.get("name") == name), None)

    @soap("FindByUuid")
    def find_by_uuid(
        self,
        call: Call,
        uuid: str,
        vmSearch: bool,  # noqa: N803 - the API's names
        datacenter: Any = None,
        instanceUuid: bool = False,  # noqa: N803
    ) -> ManagedObject | None:
        """The first host or VM of that hardware, BIOS or instance UUID."""
        return next(self._by_uuid(uuid, vmSearch, datacenter, instanceUuid), None)

    @soap("FindAllByUuid")
    def find_all_by_uuid(
        self,
        call: Call,
        uuid: str,
        vmSearch: bool,  # noqa: N803 - the API's names
        datacenter: Any = None,
        instanceUuid: bool = False,  # noqa: N803
    ) -> Any:
        """All of them."""
        return Reference.Array(obj.ref for obj in self._by_uuid(uuid, vmSearch, datacenter, instanceUuid))

    def _by_uuid(self, uuid: str, vm: bool, datacenter: Any, instance: bool) -> Iterator[ManagedObject]:
        path = ("config.instanceUuid" if instance else "config.uuid") if vm else "summary.hardware.uuid"
        return self._all(vm, datacenter, lambda obj: str(read(obj, path)).lower() == uuid.lower())

    @soap("FindByDnsName")
    def find_by_dns_name(
        self,
        call: Call,
        dnsName: str,  # noqa: N803 - the API's names
        vmSearch: bool,  # noqa: N803
        datacenter: Any = None,
    ) -> ManagedObject | None:
        """A host by its name, a VM by its guest's host name."""
        path = "guest.hostName" if vmSearch else "name"
        return next(self._all(vmSearch, datacenter, lambda obj: read(obj, path) == dnsName), None)

    @soap("FindByIp")
    def find_by_ip(
        self,
        call: Call,
        ip: str,
        vmSearch: bool,  # noqa: N803 - the API's names
        datacenter: Any = None,
    ) -> ManagedObject | None:
        """A VM by its guest's address, a host by its name when that is an address."""
        path = "guest.ipAddress" if vmSearch else "name"
        return next(self._all(vmSearch, datacenter, lambda obj: read(obj, path) == ip), None)

    def _all(self, vm: bool, datacenter: Any, matches: Callable[[ManagedObject], bool]) -> Iterator[ManagedObject]:
        kind = vim.VirtualMachine if vm else vim.HostSystem
        for obj in tuple(self.world.objects.values()):
            if issubclass(obj.vmodl, kind) and matches(obj) and (datacenter is None or self._below(obj, datacenter)):
                yield obj

    def _below(self, obj: ManagedObject, datacenter: Any) -> bool:
        while True:
            if obj.moid == datacenter._moId:
                return True
            parent = obj.get("parent")
            above = self.world.find(parent) if parent is not None else None
            if above is None:
                return False
            obj = above
