# SPDX-License-Identifier: Apache-2.0
"""Tasks of the simulated vCenter: ``vim.Task``, ``vim.TaskManager``, and how other objects start one.

A task goes queued -> running -> success | error. Its ``info`` is followed with a property collector like any
other property, and it stands in its entity's ``recentTask`` (and in the TaskManager's) until ten minutes after
it ended; then the object itself goes, as in vCenter.

Not promised: task history collectors, parent and child tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import GetWsdlMethod

from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

RECENT_SECONDS = 600.0
"""How long an ended task stays in ``recentTask``: the API says "recently completed", vCenter keeps ten minutes."""

Work = Callable[["Task"], None]

_State = vim.TaskInfo.State


def operation_name(description_id: str) -> str:
    """WSDL operation of a description id: ``HostSystem.enterStandbyMode`` -> ``PowerDownHostToStandBy_Task``."""
    kind, _, verb = description_id.rpartition(".")
    method = f"{verb[:1].upper()}{verb[1:]}"
    try:
        return str(getattr(vim, kind)._GetMethodInfo(method).wsdlName)
    except AttributeError:  # not named after a public method
        return f"{method}_Task"


class Task(ManagedObject):
    """One running or recently ended operation. Whoever started it drives it with the verbs below."""

    vmodl: ClassVar[type] = vim.Task

    def __init__(
        self,
        world: World,
        moid: str,
        entity: ManagedObject | None,
        description_id: str,
        *,
        user: str = "",
        cancelable: bool = False,
    ) -> None:
        super().__init__(world, moid)
        self.entity = entity
        self.on_cancel: Callable[[], None] | None = None
        info = vim.TaskInfo(
            key=moid,
            task=self.ref,
            descriptionId=description_id,
            state=_State.queued,
            cancelled=False,
            cancelable=cancelable,
            reason=vim.TaskReasonUser(userName=user),
            queueTime=world.clock.now(),
            eventChainId=int(moid.rpartition("-")[2]),
        )
        try:
            info.name = GetWsdlMethod("urn:vim25", operation_name(description_id))
        except KeyError:  # vCenter's own operations (Drm...) have no public method, and so no name
            info.name = None
        if entity is not None and issubclass(entity.vmodl, vim.ManagedEntity):
            info.entity = entity.ref
            info.entityName = entity.get("name")
        self.props["info"] = info

    @property
    def info(self) -> Any:
        """The ``vim.TaskInfo``."""
        return self.props["info"]

    @property
    def ended(self) -> bool:
        """True once the task is in success or error: no verb changes it any more."""
        return self.info.state in (_State.success, _State.error)

    def running(self) -> None:
        """queued -> running. Nothing happens in any other state."""
        if self.info.state == _State.queued:
            self.info.startTime = self.world.clock.now()
            self.set("info.state", _State.running)

    def progress(self, percent: int) -> None:
        """Say how far it is (0..100); ignored once ended."""
        if not self.ended:
            self.running()
            self.set("info.progress", percent)

    def succeed(self, result: Any = None) -> None:
        """End well. ``result`` is a pyVmomi value or a managed object. Ignored once it has ended."""
        if not self.ended:
            self.running()
            self.info.result = result.ref if isinstance(result, ManagedObject) else result
            self._end(_State.success)

    def fail(self, fault: Any) -> None:
        """End with a pyVmomi fault. Ignored once ended."""
        if not self.ended:
            self.running()
            if not fault.msg:
                fault.msg = type(fault).__name__.rpartition(".")[2]
            self.info.error = fault
            self._end(_State.error)

    def cancel(self) -> None:
        """What ``CancelTask`` does: calls ``on_cancel`` (undo the work) and ends with ``RequestCanceled``."""
        if self.ended:
            raise vim.fault.InvalidState(msg="The task has already ended.")
        if not self.info.cancelable:
            raise vmodl.fault.NotSupported(msg=f"Task {self.moid} cannot be cancelled.")
        self.info.cancelled = True
        undo, self.on_cancel = self.on_cancel, None
        if undo is not None:
            undo()
        self.fail(vmodl.fault.RequestCanceled(msg="The task was canceled by a user."))

    @soap("CancelTask")
    def cancel_task(self, call: Call) -> None:
        """As documented: InvalidState when it has ended, NotSupported when it cannot be cancelled."""
        if self.entity is not None and self.info.reason.userName != call.user:
            call.require("Global.CancelTask", self.entity)
        self.cancel()

    def _end(self, state: Any) -> None:
        self.info.completeTime = self.world.clock.now()
        self.set("info.state", state)
        self.world.clock.after(RECENT_SECONDS, self._forget)

    def _forget(self) -> None:
        for holder in (self.entity, self.world.objects.get("TaskManager")):
            if holder is not None and holder.moid in self.world.objects:
                _write_recent(holder, [ref for ref in holder.props.get("recentTask") or () if ref._moId != self.moid])
        self.world.remove(self)


class TaskManager(ManagedObject):
    """``vim.TaskManager``: the list of recent tasks."""

    vmodl: ClassVar[type] = vim.TaskManager

    def __init__(self, world: World) -> None:
        super().__init__(world, "TaskManager")
        self.props.update(recentTask=vim.Task.Array(), maxCollector=32)


def start_task(
    world: World,
    entity: ManagedObject | None,
    descriptionId: str,  # noqa: N803 - the API's own name
    work: Work | None = None,
    *,
    user: str = "",
    cancelable: bool = False,
    on_cancel: Callable[[], None] | None = None,
) -> Task:
    """Create a task on ``entity`` and return it.

    With ``work`` the task starts running as soon as the caller's turn is over, and a pyVmomi fault raised by ``work``
    ends it in error; ``work`` itself calls :meth:`Task.succeed`, now or later. Without it the caller drives the task.
    ``user`` is who asked (``com.vmware.vim.eam`` for what EAM does); ``on_cancel`` implies ``cancelable``.
    """
    task = Task(
        world, world.new_moid("task"), entity, descriptionId, user=user, cancelable=cancelable or on_cancel is not None
    )
    task.on_cancel = on_cancel
    world.add(task)
    for holder in (entity, world.objects.get("TaskManager")):
        if holder is not None:
            _write_recent(holder, [*(holder.props.get("recentTask") or ()), task.ref])
    if work is not None:
        chosen = work

        def begin() -> None:
            if task.ended:
                return
            task.running()
            try:
                chosen(task)
            except vmodl.MethodFault as fault:
                task.fail(fault)

        world.clock.after(0.0, begin)
    return task


def _write_recent(holder: ManagedObject, refs: list[Any]) -> None:
    holder.set("recentTask", vim.Task.Array(refs))
