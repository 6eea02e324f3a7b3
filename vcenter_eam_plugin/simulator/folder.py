# SPDX-License-Identifier: Apache-2.0
"""Simulated inventory folders: the tree's inner nodes, and where clusters and standalone hosts are made.

Not promised: storage pods, distributed switch creation, virtual machine creation by clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pyVmomi import vim, vmodl

from vcenter_eam_plugin.simulator.compute_resource import ClusterComputeResource, ComputeResource, new_host
from vcenter_eam_plugin.simulator.datacenter import Datacenter
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.managed_entity import VCENTER, ManagedEntity, refs, writes
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.world import Call, World

CHILD_TYPES: dict[str, tuple[Any, ...]] = {
    "d": (vim.Folder, vim.Datacenter),
    "v": (vim.Folder, vim.VirtualMachine, vim.VirtualApp),
    "h": (vim.Folder, vim.ComputeResource),
    "s": (vim.Folder, vim.Datastore, vim.StoragePod),
    "n": (vim.Folder, vim.Network, vim.DistributedVirtualSwitch),
}
"""What each kind of folder may hold; the kind is the letter in its moid (``group-h4``), as in vCenter."""


class Folder(ManagedEntity):
    """``vim.Folder``."""

    vmodl: ClassVar[type] = vim.Folder
    rename_privilege: ClassVar[str | None] = "Folder.Rename"

    def __init__(self, world: World, name: str, parent: ManagedEntity | None, kind: str) -> None:
        super().__init__(world, world.new_moid("group").replace("-", f"-{kind}"), name, parent)
        self.kind = kind
        self.children: dict[str, ManagedEntity] = {}
        self._by_name: dict[str, ManagedEntity] = {}

    def prop_childEntity(self) -> Any:  # noqa: N802 - named after the property
        return refs(vim.ManagedEntity, self.children.values())

    def prop_childType(self) -> Any:  # noqa: N802
        return list(CHILD_TYPES[self.kind])

    def put(self, child: ManagedEntity) -> None:
        """Take a child in."""
        self.children[child.moid] = child
        self._by_name[child.name] = child
        self.touch("childEntity")

    def drop(self, child: ManagedEntity) -> None:
        """Let a child go."""
        if self.children.pop(child.moid, None) is not None:
            del self._by_name[child.name]
            self.touch("childEntity")

    def child(self, name: str) -> ManagedEntity | None:
        """The child of that name; names are unique in a folder."""
        return self._by_name.get(name)

    def renamed(self, child: ManagedEntity, before: str) -> None:
        """A child has another name."""
        del self._by_name[before]
        self._by_name[child.name] = child

    def require_free(self, name: str) -> None:
        """Raise ``InvalidName`` or ``DuplicateName`` for a name that a new child cannot have."""
        if not name:
            raise vim.fault.InvalidName(name=name, entity=self.ref)
        other = self.child(name)
        if other is not None:
            raise vim.fault.DuplicateName(name=name, object=other.ref)

    def _require_kind(self, kind: str) -> None:
        if self.kind != kind:
            raise vmodl.fault.NotSupported(msg=f"Folder {self.name} does not hold such objects.")

    def new_folder(self, name: str) -> Folder:
        """Add a folder of the same kind."""
        self.require_free(name)
        folder = self.world.add(Folder(self.world, name, self, self.kind))
        self.put(folder)
        return folder

    def new_cluster(self, name: str, user: str = VCENTER) -> ClusterComputeResource:
        """Add an empty cluster."""
        self._require_kind("h")
        self.require_free(name)
        cluster = self.world.add(ClusterComputeResource(self.world, name, self))
        self.put(cluster)
        parent = vim.event.FolderEventArgument(name=self.name, folder=self.ref)
        cluster.post(vim.event.ClusterCreatedEvent(parent=parent), user)
        return cluster

    def new_standalone_host(self, name: str, user: str = VCENTER) -> ComputeResource:
        """Add a machine with a compute resource of its own."""
        self._require_kind("h")
        if any(host.name == name for host in self.world.each(HostSystem)):
            raise vim.fault.AlreadyConnected(name=name)
        self.require_free(name)
        resource = self.world.add(ComputeResource(self.world, name, self))
        self.put(resource)
        new_host(resource, name, user)
        return resource

    def new_datacenter(self, name: str, user: str = VCENTER) -> Datacenter:
        """Add a datacenter with its four folders, shared storage and networks."""
        self._require_kind("d")
        self.require_free(name)
        datacenter = self.world.add(Datacenter(self.world, name, self))
        datacenter.furnish(*(self.world.add(Folder(self.world, label, datacenter, kind)) for label, kind in _FOUR))
        self.put(datacenter)
        parent = vim.event.FolderEventArgument(name=self.name, folder=self.ref)
        datacenter.post(vim.event.DatacenterCreatedEvent(parent=parent), user)
        return datacenter

    def move_in(self, entity: ManagedEntity) -> None:
        """Move a child of another folder here, or a host out of its cluster (it becomes a standalone host)."""
        if isinstance(entity, HostSystem):
            self._require_kind("h")
            source = entity.compute_resource
            if source.is_cluster and not entity.in_maintenance:
                raise vim.fault.InvalidState(msg=f"Host {entity.name} is not in maintenance mode.")
            if source.is_cluster:
                resource = self.world.add(ComputeResource(self.world, entity.name, self))
                self.put(resource)
                resource.take_host(entity)
                return
            entity = source
        if not issubclass(entity.vmodl, CHILD_TYPES[self.kind]):
            raise vmodl.fault.NotSupported(msg=f"Folder {self.name} does not hold such objects.")
        if self is entity or entity in self.ancestors():
            raise vim.fault.InvalidFolder(target=self.ref)
        holder: Any = entity.parent
        if holder is not self:
            self.require_free(entity.name)
            holder.drop(entity)
            entity.move_under(self)
            self.put(entity)

    # Operations ---------------------------------------------------------------------------------------------

    @writes("CreateFolder", "Folder.Create")
    def create_folder(self, call: Call, name: str) -> Folder:
        """As documented."""
        return self.new_folder(name)

    @writes("CreateClusterEx", "Host.Inventory.CreateCluster")
    def create_cluster_ex(self, call: Call, name: str, spec: Any) -> ClusterComputeResource:
        """As documented; ``NotSupported`` in a folder that does not hold hosts."""
        cluster = self.new_cluster(name, call.user)
        cluster.reconfigure(spec, True, call.user)
        return cluster

    @writes("CreateCluster", "Host.Inventory.CreateCluster")
    def create_cluster(self, call: Call, name: str, spec: Any) -> ClusterComputeResource:
        """The older form of the same."""
        cluster = self.new_cluster(name, call.user)
        cluster._configure(spec)
        return cluster

    @writes("CreateDatacenter", "Datacenter.Create")
    def create_datacenter(self, call: Call, name: str) -> Datacenter:
        """As documented."""
        return self.new_datacenter(name, call.user)

    @writes("AddStandaloneHost_Task", "Host.Inventory.AddStandaloneHost")
    def add_standalone_host_task(
        self,
        call: Call,
        spec: Any,
        addConnected: bool,  # noqa: N803 - the API's names
        compResSpec: Any = None,  # noqa: N803
        license: str | None = None,
    ) -> Task:
        """Add a machine with a compute resource of its own."""
        self._require_kind("h")
        name = spec.hostName
        if not name:
            raise vim.fault.InvalidName(name=name or "", entity=self.ref)
        return self.operate("Folder.addStandaloneHost", call.user, lambda: self.new_standalone_host(name, call.user))

    @writes("MoveIntoFolder_Task")
    def move_into_folder_task(self, call: Call, list: Sequence[Any]) -> Task:
        """Move entities in, in order; stops at the first that cannot be moved, as documented."""
        for ref in list:
            entity = self.world.find(ref)
            if isinstance(entity, ManagedEntity):
                call.require(entity.move_privilege, entity)

        def work() -> None:
            for ref in list:
                entity = self.world.find(ref)
                if not isinstance(entity, ManagedEntity):
                    raise vmodl.fault.ManagedObjectNotFound(obj=ref)
                self.move_in(entity)

        return self.operate("Folder.moveInto", call.user, work)

    @writes("Destroy_Task", "Folder.Delete")
    def destroy_task(self, call: Call) -> Task:
        """Remove the folder and everything in it; the folders that a datacenter needs cannot be destroyed."""

        def work() -> None:
            if not isinstance(self.parent, Folder):
                raise vmodl.fault.NotSupported(msg=f"Folder {self.name} cannot be destroyed.")
            self.remove(call.user)

        return self.operate("Folder.destroy", call.user, work)

    def remove(self, user: str = VCENTER) -> None:
        """Leave the inventory with all children."""
        for child in tuple(self.children.values()):
            child.remove(user)
        if isinstance(self.parent, Folder):
            self.parent.drop(self)
        self.leave()


_FOUR = (("vm", "v"), ("host", "h"), ("datastore", "s"), ("network", "n"))
