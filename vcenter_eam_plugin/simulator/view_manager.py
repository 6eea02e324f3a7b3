# SPDX-License-Identifier: Apache-2.0
"""The simulated ``vim.view.ViewManager`` with its container and list views.

A view belongs to its session and is an object like any other: a property collector filter that starts from its
``view`` property follows it, objects that come and go included.

Not promised: inventory views.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import ManagedObject as Reference

from vcenter_eam_plugin.simulator.property_collector import no_such_object
from vcenter_eam_plugin.simulator.world import ManagedObject, World, soap

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.session_manager import Session, WireCall

_BELOW: tuple[tuple[type, tuple[str, ...]], ...] = (
    (vim.Folder, ("childEntity",)),
    (vim.Datacenter, ("vmFolder", "hostFolder", "datastoreFolder", "networkFolder")),
    (vim.ComputeResource, ("host", "resourcePool")),
    (vim.ResourcePool, ("resourcePool", "vm")),
    (vim.HostSystem, ("vm",)),
)
"""What a container view finds below each kind of container, by the API reference of ContainerView."""
_STRUCTURE = frozenset(path for _, paths in _BELOW for path in paths)


def _children(obj: ManagedObject) -> list[str]:
    found: list[str] = []
    for kind, paths in _BELOW:
        if issubclass(obj.vmodl, kind):
            for path in paths:
                value = obj.get(path)
                if isinstance(value, list):
                    found += [ref._moId for ref in value]
                elif value is not None:
                    found.append(value._moId)
    return found


class _View(ManagedObject):
    """What both kinds have in common."""

    def __init__(self, session: Session, moid: str) -> None:
        super().__init__(session.manager.world, moid)
        self._session = session

    def dispose(self) -> None:
        """Called once when it is destroyed or its session ends."""


class ListView(_View):
    """A list that the client edits. Objects that leave the inventory leave the list."""

    vmodl: ClassVar[type] = vim.view.ListView

    def __init__(self, session: Session, moid: str, refs: Any) -> None:
        super().__init__(session, moid)
        self._members: dict[str, Any] = {}
        self._add(refs)
        self.world.listeners.append(self)

    def prop_view(self) -> Any:
        """The members."""
        return Reference.Array(self._members.values())

    def _add(self, refs: Any) -> list[Any]:
        unresolved = []
        for ref in refs or ():
            if self._session.find(ref) is None:
                unresolved.append(ref)
            else:
                self._members[ref._moId] = ref
        return unresolved

    @soap("ModifyListView")
    def modify(self, call: WireCall, add: Any = (), remove: Any = ()) -> Any:
        """Add and remove members; returns those to add that do not exist."""
        for ref in remove or ():
            self._members.pop(ref._moId, None)
        unresolved = self._add(add)
        self.touch("view")
        return Reference.Array(unresolved)

    @soap("ResetListView")
    def reset(self, call: WireCall, obj: Any = ()) -> Any:
        """Replace the members; returns those that do not exist."""
        self._members.clear()
        unresolved = self._add(obj)
        self.touch("view")
        return Reference.Array(unresolved)

    @soap("DestroyView")
    def destroy(self, call: WireCall) -> None:
        """End it."""
        call.session.drop(self)

    def dispose(self) -> None:
        self.world.listeners.remove(self)

    def object_added(self, obj: ManagedObject) -> None:
        """Nothing: members are only what the client names."""

    def object_changed(self, obj: ManagedObject, path: str) -> None:
        """Nothing: the list does not depend on properties."""

    def object_removed(self, obj: ManagedObject) -> None:
        """A member that is no more."""
        if self._members.pop(obj.moid, None) is not None:
            self.touch("view")


class ContainerView(_View):
    """Everything of some types below a container; found again, when asked for, after the structure changed."""

    vmodl: ClassVar[type] = vim.view.ContainerView

    def __init__(self, session: Session, moid: str, container: ManagedObject, kinds: Any, recursive: bool) -> None:
        super().__init__(session, moid)
        self._container = container
        self._kinds = tuple(kinds or ())
        self._recursive = recursive
        self._members: Any = None
        self._nodes: set[str] = set()
        self.props.update(container=container.ref, type=list(kinds or ()), recursive=recursive)
        self.world.listeners.append(self)

    def prop_view(self) -> Any:
        """The members now."""
        if self._members is None:
            self._find()
        return self._members

    def _find(self) -> None:
        self._nodes = {self._container.moid}
        members: list[Any] = []
        open_ = _children(self._container)[::-1]
        while open_:
            moid = open_.pop()
            obj = self.world.objects.get(moid)
            if moid in self._nodes or obj is None:
                continue
            self._nodes.add(moid)
            if not self._kinds or issubclass(obj.vmodl, self._kinds):
                members.append(obj.ref)
            if self._recursive:
                open_ += _children(obj)[::-1]
        self._members = Reference.Array(members)

    @soap("DestroyView")
    def destroy(self, call: WireCall) -> None:
        """End it."""
        call.session.drop(self)

    def dispose(self) -> None:
        self.world.listeners.remove(self)

    def object_added(self, obj: ManagedObject) -> None:
        """Nothing: it counts once a container names it."""

    def object_changed(self, obj: ManagedObject, path: str) -> None:
        """A container of ours got or lost a child."""
        if self._members is not None and path in _STRUCTURE and obj.moid in self._nodes:
            self._members = None
            self.touch("view")

    def object_removed(self, obj: ManagedObject) -> None:
        """A member that is no more, whether or not its container says so already."""
        if self._members is not None and obj.moid in self._nodes:
            self._members = None
            self.touch("view")


class ViewManager(ManagedObject):
    """Makes views; ``viewList`` is the asking session's."""

    vmodl: ClassVar[type] = vim.view.ViewManager

    def __init__(self, world: World) -> None:
        super().__init__(world, "ViewManager")

    def property_for(self, session: Session | None, name: str) -> Any:
        """The views of whoever asks."""
        if name == "viewList" and session is not None:
            return vim.view.View.Array(one.ref for one in session.objects.values() if isinstance(one, _View))
        return self.get(name)

    @soap("CreateContainerView", privilege="System.View")
    def create_container_view(
        self,
        call: WireCall,
        container: Any,
        recursive: bool,
        type: Any = (),
    ) -> ContainerView:
        """A view of what lies below a folder, datacenter, compute resource, pool or host."""
        holder = call.session.find(container)
        if holder is None:
            raise no_such_object(container)
        if not issubclass(holder.vmodl, tuple(kind for kind, _ in _BELOW)):
            raise vmodl.fault.InvalidArgument(invalidProperty="container", msg=f"{container._moId} is no container.")
        view = ContainerView(call.session, call.session.new_moid(), holder, type, recursive)
        call.session.adopt(view)
        return view

    @soap("CreateListView", privilege="System.View")
    def create_list_view(self, call: WireCall, obj: Any = ()) -> ListView:
        """A view of the given objects; those that do not exist are left out."""
        view = ListView(call.session, call.session.new_moid(), obj)
        call.session.adopt(view)
        return view

    @soap("CreateListViewFromView", privilege="System.View")
    def create_list_view_from_view(self, call: WireCall, view: Any) -> ListView:
        """A list view of what another view holds now."""
        other = call.session.find(view)
        if other is None:
            raise no_such_object(view)
        return self.create_list_view(call, other.get("view"))
