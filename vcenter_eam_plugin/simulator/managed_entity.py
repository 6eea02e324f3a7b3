# SPDX-License-Identifier: Apache-2.0
"""What all inventory objects have in common: a name, a parent, tasks, events, and who watches them.

Not promised: alarms, custom fields, tags, permissions on single objects.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from pyVmomi import vim, vmodl

from vcenter_eam_plugin.simulator.task import Task, start_task
from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

F = TypeVar("F", bound=Callable[..., Any])

Done = Callable[[Any], None]
"""Called once when an operation has ended: with ``None``, or with the fault that ended it."""

VCENTER = "com.vmware.vcenter"
"""User name of what vCenter does by itself."""


def writes(name: str, privilege: str | None = None) -> Callable[[F], F]:
    """As :func:`soap`, for operations that change something: each call is also written into the journal."""

    def mark(method: F) -> F:
        @functools.wraps(method)
        def journalled(self: ManagedObject, call: Call, *args: Any, **kwargs: Any) -> Any:
            self.world.journal.call(call.user, name, self.moid, client=call.address)
            return method(self, call, *args, **kwargs)

        return soap(name, privilege)(journalled)  # type: ignore[return-value]

    return mark


class ManagedEntity(ManagedObject):
    """Base of folders, datacenters, compute resources, hosts, VMs, datastores, networks and pools.

    ``watchers`` are called after every write to the object, without arguments: they look for themselves.
    """

    vmodl: ClassVar[type] = vim.ManagedEntity
    rename_privilege: ClassVar[str | None] = None
    """What renaming needs; ``None`` for what cannot be renamed."""
    move_privilege: ClassVar[str] = "Folder.Move"
    """What moving into another folder needs."""

    def __init__(self, world: World, moid: str, name: str, parent: ManagedEntity | None) -> None:
        super().__init__(world, moid)
        self.watchers: tuple[Callable[[], None], ...] = ()
        self.parent = parent
        self.props.update(
            name=name,
            parent=parent.ref if parent is not None else None,
            overallStatus=vim.ManagedEntity.Status.green,
            configStatus=vim.ManagedEntity.Status.green,
            alarmActionsEnabled=True,
            recentTask=vim.Task.Array(),
        )

    @property
    def name(self) -> str:
        """The display name."""
        return str(self.props["name"])

    @property
    def alive(self) -> bool:
        """False once the object has left the inventory."""
        return self.world.objects.get(self.moid) is self

    def set(self, path: str, value: Any) -> None:
        super().set(path, value)
        self.signal()

    def touch(self, path: str) -> None:
        super().touch(path)
        self.signal()

    def signal(self) -> None:
        """Tell the watchers to look again."""
        for look in self.watchers:
            look()

    def watch(self, look: Callable[[], None]) -> None:
        """Add a watcher."""
        self.watchers = (*self.watchers, look)

    def unwatch(self, look: Callable[[], None]) -> None:
        """Remove a watcher; nothing happens when it is none."""
        self.watchers = tuple(other for other in self.watchers if other != look)

    def ancestors(self) -> Iterator[ManagedEntity]:
        """Parent, its parent, and so on up to the root folder."""
        above = self.parent
        while above is not None:
            yield above
            above = above.parent

    @property
    def datacenter(self) -> ManagedEntity | None:
        """The datacenter above (or the object itself if it is one)."""
        for obj in (self, *self.ancestors()):
            if obj.vmodl is vim.Datacenter:
                return obj
        return None

    def move_under(self, parent: ManagedEntity) -> None:
        """Change the parent; the lists of children are the callers' affair."""
        self.parent = parent
        self.set("parent", parent.ref)

    def leave(self) -> None:
        """Leave the inventory: references to the object then find nothing."""
        self.world.remove(self)
        self.signal()

    def remove(self, user: str = VCENTER) -> None:
        """Leave parent and inventory at once, with whatever is in it."""
        holder: Any = self.parent
        holder.drop(self)
        self.leave()

    # Tasks and events ---------------------------------------------------------------------------------------

    def operate(
        self,
        description: str,
        user: str,
        work: Callable[[], Any],
        *,
        delay: float | None = None,
        done: Done | None = None,
    ) -> Task:
        """Start a task that does ``work`` after ``delay`` seconds (knob ``task``) and ends as ``work`` does."""
        clock = self.world.clock
        wait = self.world.knobs.task if delay is None else delay

        def begin(task: Task) -> None:
            clock.after(wait, lambda: finish(task))

        def finish(task: Task) -> None:
            fault: Any = None
            try:
                task.succeed(work())
            except vmodl.MethodFault as raised:
                fault = raised
                task.fail(fault)
            if done is not None:
                done(fault)

        return start_task(self.world, self, description, begin, user=user)

    def post(self, event: Any, user: str = VCENTER) -> None:
        """Post a vim event about this object, with the arguments that name it and what it is in."""
        event.userName = user
        for obj in (self, *self.ancestors()):
            obj.describe(event)
        self.world.post_event(event)

    def describe(self, event: Any) -> None:
        """Fill the event argument that stands for this kind of object; most kinds have none."""

    # Operations ---------------------------------------------------------------------------------------------

    def rename(self, name: str, user: str = VCENTER) -> None:
        """Take a new name; ``InvalidName`` or ``DuplicateName`` when the parent cannot have a child of that name."""
        before, holder = self.name, self.parent
        if name == before:
            return
        if holder is not None:
            holder.require_free(name)
        self.set("name", name)
        if holder is not None:
            holder.renamed(self, before)

    def require_free(self, name: str) -> None:
        """Raise for a name that a new child cannot have; only folders mind."""

    def renamed(self, child: ManagedEntity, before: str) -> None:
        """A child was renamed; only folders mind."""

    @writes("Rename_Task")
    def rename_task(self, call: Call, newName: str) -> Task:  # noqa: N803 - the API's name
        """Rename; ``InvalidName`` when it is empty, ``DuplicateName`` when a sibling has it."""
        if self.rename_privilege is None:
            raise vmodl.fault.NotSupported(msg=f"{self.name} cannot be renamed.")
        call.require(self.rename_privilege, self)
        if not newName:
            raise vim.fault.InvalidName(name=newName, entity=self.ref)
        return self.operate(f"{type(self).__name__}.rename", call.user, lambda: self.rename(newName, call.user))


def refs(kind: Any, objects: Any) -> Any:
    """A pyVmomi array (of ``kind``) of references to simulator objects."""
    return kind.Array([obj.ref for obj in objects])
