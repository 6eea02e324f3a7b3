# SPDX-License-Identifier: Apache-2.0
"""One subscription to vCenter's inventory: a property collector with its filters and views, within one login.

It ends by raising, and is not begun again: :class:`vcenter_eam_plugin.vsphere.inventory.Inventory` makes another one.
What it promises of a listing, and what it asks before it calls something gone, is said there.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.util import wrap_errors
from pyVmomi import vim, vmodl

from vcenter_eam_plugin.domain.errors import (
    ObjectGone,
    PluginError,
    ProtocolError,
    SessionExpired,
    SilentlyExpired,
    StreamReset,
    SuspectRead,
    Unavailable,
)
from vcenter_eam_plugin.domain.facts import (
    ComputeResourceFacts,
    ConnectionState,
    HostFacts,
    HostPower,
    HostTask,
    StandbyMode,
    VmFacts,
    VmPower,
)
from vcenter_eam_plugin.domain.observations import InventoryObserved
from vcenter_eam_plugin.turns import Turns
from vcenter_eam_plugin.vsphere import events
from vcenter_eam_plugin.vsphere.properties import (
    MOST_PAGES,
    PAGE,
    check_missing,
    filter_spec,
    object_spec,
    property_spec,
    read_objects,
    traversal,
)
from vcenter_eam_plugin.vsphere.scope import compute_resource_type, list_compute_resources
from vcenter_eam_plugin.vsphere.session import Session

log = logging.getLogger(__name__)
E_ = TypeVar("E_", ConnectionState, HostPower, StandbyMode, VmPower)

COMPUTE_PATHS = ("name", "host")
HOST_PATHS = (
    "name",
    "parent",
    "recentTask",
    "runtime.connectionState",
    "runtime.powerState",
    "runtime.standbyMode",
    "runtime.inMaintenanceMode",
    "summary.config.agentVmDatastore",
    "summary.config.agentVmNetwork",
)
VM_PATHS = (
    "name",
    "runtime.powerState",
    "runtime.host",
    "runtime.connectionState",
    "guestHeartbeatStatus",
    "guest.ipAddress",
    "guest.hostName",
    "config.instanceUuid",
)
TASK_PATHS = ("info.state",)
_REFERENCES = frozenset({"parent", "runtime.host", "summary.config.agentVmDatastore", "summary.config.agentVmNetwork"})
_LISTS = frozenset({"host", "recentTask"})
"""Of references."""

#: ``TaskInfo.descriptionId`` of what takes a host into or out of service.
HOST_TASKS = {
    "HostSystem.enterMaintenanceMode": HostTask.ENTERING_MAINTENANCE,
    "HostSystem.exitMaintenanceMode": HostTask.EXITING_MAINTENANCE,
    # the descriptions of a vCenter's TaskManager name the two modes so, others go by the method's name
    "HostSystem.enterStandbyMode": HostTask.ENTERING_STANDBY,
    "HostSystem.exitStandbyMode": HostTask.EXITING_STANDBY,
    "HostSystem.powerDownToStandBy": HostTask.ENTERING_STANDBY,
    "HostSystem.powerUpFromStandBy": HostTask.EXITING_STANDBY,
}
RUNNING = ("queued", "running")

#: Without an event collector (a missing privilege, too many collectors) one is asked for again this often.
EVENTS_RETRY_SECONDS = 20.0
#: VMs added to or taken from the view by one request: pyVmomi writes a request in one go.
VMS_AT_ONCE = 250


class CancelledError(Exception):
    """Our own cancel ended the wait."""


class Stream:
    """One property collector with its filters and views, within one login. It ends by raising."""

    def __init__(
        self, session: Session, clock: Callable[[], float], scope: tuple[str, ...], known: frozenset[str]
    ) -> None:
        self.owned: list[tuple[int, Callable[[], Any]]] = []
        """What must be given back to the server: (login generation, call)."""
        self.ended = Event()
        self._session = session
        self._clock = clock
        self._scope = scope
        self._known = known
        self.events_error: PluginError | None = None
        """Why this stream has no events, while it has none."""
        self._events_asked_at = float("-inf")
        self._generation = session.generation
        self._version = ""
        self._asked: Any = None
        """The greenlet that asks for the next page, while it does."""
        self._collector: Any = None
        self._waiter: Any = None
        self._vm_view: Any = None
        self._task_view: Any = None
        self._page_of = ""
        """Moref of the event collector; empty when events are not watched."""
        self._pages: set[str] = set()
        self._in_view: frozenset[str] = frozenset()
        self._view_lock = BoundedSemaphore(1)
        self._places: dict[str, ComputeResourceFacts] = {}
        self._objects: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._tasks: dict[str, tuple[str, HostTask]] = {}
        """Running tasks that take a host in or out of service: task -> (host, what)."""
        self._judged: dict[str, tuple[str, ...]] = {}
        """Per host the recent tasks that were looked at already."""
        self._ended_tasks: set[str] = set()

    # --- set-up ----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Create collector, views and filters. Nothing here may log in anew: they would belong to nobody."""
        content = self._session.content
        stub = self._session.vim_stub()
        self._places = {facts.moref: facts for facts in list_compute_resources(self._session)}
        self._collector = self._create(content.propertyCollector.CreatePropertyCollector)
        self._own(self._collector.DestroyPropertyCollector)
        self._waiter = vmodl.query.PropertyCollector(self._collector._GetMoId(), self._session.wait_stub())
        self._vm_view = self._list_view(content)
        self._task_view = self._list_view(content)
        members = traversal("members", vim.view.ListView, "view")
        compute = [compute_resource_type(moref)(moref, stub) for moref in self._scope]
        hosts = traversal("hosts", vim.ComputeResource, "host")
        if compute:
            self._filter(
                [object_spec(one, [hosts]) for one in compute],
                [property_spec(vim.ComputeResource, COMPUTE_PATHS), property_spec(vim.HostSystem, HOST_PATHS)],
            )
        self._filter([object_spec(self._vm_view, [members], skip=True)], [property_spec(vim.VirtualMachine, VM_PATHS)])
        self._filter([object_spec(self._task_view, [members], skip=True)], [property_spec(vim.Task, TASK_PATHS)])
        self._watch_events(content)

    def _watch_events(self, content: Any) -> None:
        """Events are hints: without them everything works, later. A refusal is said, passed over, and asked again."""
        self._events_asked_at = self._clock()
        try:
            collector = self._create(content.eventManager.CreateCollectorForEvents, events.filter_spec())
            self._own(collector.DestroyCollector)
            self._call(collector.SetCollectorPageSize, events.PAGE_SIZE)
        except (Unavailable, StreamReset):
            raise
        except PluginError as exc:
            if self.events_error is None:
                log.warning("Events are not watched, so changes are noticed later: %s", exc)
            self.events_error = exc
            return
        self.events_error = None
        self._page_of = collector._GetMoId()
        self._filter([object_spec(collector)], [property_spec(vim.event.EventHistoryCollector, ["latestPage"])])

    def _list_view(self, content: Any) -> Any:
        view = self._create(content.viewManager.CreateListView)
        self._own(view.DestroyView)
        return view

    def _filter(self, objects: list[Any], properties: list[Any]) -> None:
        self._create(self._collector.CreateFilter, filter_spec(objects, properties), False)

    def _own(self, destroy: Callable[[], Any]) -> None:
        self.owned.append((self._generation, lambda: self._session.call(destroy, renew=False)))

    def _create(self, fn: Callable[..., Any], *args: Any) -> Any:
        """A server that is out of collectors may answer nothing instead of a fault."""
        made = self._call(fn, *args)
        if made is None:
            raise ProtocolError(
                f"{self._session.name}: nothing came of {fn.__name__}; it may be out of collectors or filters."
            )
        return made

    def _call(self, fn: Callable[..., Any], *args: Any) -> Any:
        self._same_login()
        return self._session.call(fn, *args, renew=False)

    def _same_login(self) -> None:
        if self._session.generation != self._generation or not self._session.cookie:
            raise StreamReset(f"{self._session.name}: a new session began, so the collector of the old one is gone.")

    # --- for other greenlets ---------------------------------------------------------------------------

    def follow(self, wanted: frozenset[str]) -> tuple[str, ...]:
        """Make the view hold these VMs; returns those that are proven not to exist (any more).

        They are not asked for again. Raises SuspectRead when one exists after all.
        """
        with self._view_lock:
            if self._vm_view is None:
                return ()  # still being set up; the one who does it follows afterwards
            add, remove = sorted(wanted - self._in_view), sorted(self._in_view - wanted)
            unknown: list[str] = []
            while add or remove:
                some, others = add[:VMS_AT_ONCE], remove[:VMS_AT_ONCE]
                found = self._call(
                    self._vm_view.ModifyListView,
                    [vim.VirtualMachine(moref) for moref in some],
                    [vim.VirtualMachine(moref) for moref in others],
                )
                self._in_view = self._in_view.union(some).difference(others)
                add, remove = add[VMS_AT_ONCE:], remove[VMS_AT_ONCE:]
                unknown += [vm._GetMoId() for vm in found or ()]
            gone = tuple(unknown)
            self._prove_gone(dict.fromkeys(gone, vim.VirtualMachine))
            return gone

    def cancel(self) -> None:
        """End the wait that is under way; the waiting greenlet then looks at why."""
        if self._collector is not None:
            with contextlib.suppress(PluginError):
                self._call(self._collector.CancelWaitForUpdates)

    # --- reading ---------------------------------------------------------------------------------------

    def listing(self, interrupted: Callable[[], bool]) -> InventoryObserved:
        """The whole of it: all pages of the first update set, proven complete.

        The list of watched VMs waits for its end: one that was added between two pages may be in neither.
        """
        with self._view_lock:
            return self._listing(interrupted)

    def _listing(self, interrupted: Callable[[], bool]) -> InventoryObserved:
        for _ in range(MOST_PAGES):
            result = self._wait(interrupted, seconds=0)
            if result is None:
                break
            self._apply(result)
            if not result.truncated:
                break
        else:
            raise ProtocolError(f"{self._session.name}: the listing has no end: more than {MOST_PAGES} pages.")
        self._judge_tasks(self._objects)
        self._prove_complete()
        observation = self._observation(self._objects, (), complete=True)
        self._prove_answered()
        return observation

    def next(self, interrupted: Callable[[], bool]) -> InventoryObserved | None:
        """What the next update set changed in hosts and VMs, if it did. Waits."""
        if self.events_error is not None and self._clock() - self._events_asked_at >= EVENTS_RETRY_SECONDS:
            self._watch_events(self._session.content)
        result = self._wait(interrupted, seconds=self._session.settings.wait_seconds)
        if result is None:
            # An expired session may answer "nothing new" for ever.
            self._prove_alive()
            return None
        changed, gone = self._apply(result)
        if gone:
            with self._view_lock:  # what we took from the view ourselves leaves too, maybe before that call returns
                asked = {moref: kind for moref, kind in gone.items() if self._is_wanted(moref, kind)}
            self._prove_gone(asked)
            self._prove_answered()
        changed |= self._judge_tasks(changed)
        if not changed and not gone:
            return None
        return self._observation(changed, tuple(gone), complete=False)

    def _is_wanted(self, moref: str, kind: Any) -> bool:
        return moref in self._in_view if issubclass(kind, vim.VirtualMachine) else True

    def _wait(self, interrupted: Callable[[], bool], seconds: int) -> Any:
        """The next page of updates. Where there are more, the one after it is asked for at once: while this one is
        taken in, vCenter makes that one."""
        if interrupted():
            raise CancelledError
        try:
            result = self._ask(seconds) if self._asked is None else self._answer()
        except PluginError:
            if interrupted():
                raise CancelledError from None
            raise
        if result is not None:
            self._version = result.version
            if result.truncated:
                self._asked = gevent.spawn(wrap_errors(Exception, self._ask), seconds)
        return result

    def _ask(self, seconds: int) -> Any:
        self._same_login()
        options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=seconds, maxObjectUpdates=PAGE)
        return self._session.call(self._waiter.WaitForUpdatesEx, self._version, options, renew=False)

    def _answer(self) -> Any:
        """To what was asked ahead."""
        answer = self._asked.get()
        self._asked = None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self) -> None:
        """Nothing is asked any more. What the server must take back stands in ``owned``."""
        if self._asked is not None:
            self._asked.kill()
        self.ended.set()

    def _apply(self, result: Any) -> tuple[set[str], dict[str, Any]]:
        """Take one update set in; returns morefs that changed, and that are said to be gone with their types."""
        try:
            return self._applied(result)
        except SilentlyExpired:
            # Nothing else might ever ask for a new session: its other calls may be answered as if it lived.
            self._session.renew(self._generation)
            raise

    def _applied(self, result: Any) -> tuple[set[str], dict[str, Any]]:
        changed: set[str] = set()
        gone: dict[str, Any] = {}
        for filter_set in result.filterSet or ():
            self._check_missing_objects(filter_set)
            for update in filter_set.objectSet or ():
                moref = sys.intern(update.obj._GetMoId())
                check_missing(self._session, moref, update.missingSet or ())
                if update.kind == "leave":
                    kind = self._forget(moref)
                    if kind is not None:
                        gone[moref] = kind
                        changed.discard(moref)
                    continue
                gone.pop(moref, None)
                changed |= self._take(update, moref)
        return changed, gone

    def _check_missing_objects(self, filter_set: Any) -> None:
        for missing in filter_set.missingSet or ():
            check_missing(self._session, missing.obj._GetMoId(), [_MissingObject(missing.fault)])

    def _take(self, update: Any, moref: str) -> set[str]:
        kind = type(update.obj)
        _, props = self._objects.get(moref, (kind, {}))
        if update.kind == "enter":
            props = {}
        for change in update.changeSet or ():
            # pyVmomi's names are objects that the garbage collector walks through: 40,000 with 2,500 hosts
            name = sys.intern(str(change.name))
            # a property that became unset comes as assign without value, or as a removal
            if change.op == "assign" and change.val is not None:
                props[name] = _kept(name, change.val)
            else:
                props.pop(name, None)
        self._objects[moref] = (kind, props)
        if issubclass(kind, vim.Task):
            return self._task_moved(moref, props)
        if issubclass(kind, vim.event.EventHistoryCollector):
            self._pages.add(moref)
            return set()
        return {moref}

    def _forget(self, moref: str) -> Any:
        """The type of what left, if others are to hear that it did."""
        kind, _ = self._objects.pop(moref, (None, None))
        return None if kind is None or issubclass(kind, (vim.Task, vim.event.EventHistoryCollector)) else kind

    def _task_moved(self, moref: str, props: dict[str, Any]) -> set[str]:
        """A followed task ended: its host is no longer on its way in or out."""
        if props.get("info.state") in RUNNING or moref not in self._tasks:
            return set()
        self._ended_tasks.add(moref)
        host, _ = self._tasks.pop(moref)
        return {host} if host in self._objects else set()

    def take_page(self) -> list[Any] | None:
        """The page of recent events if the last update set brought one, once. An empty page is one, too."""
        if self._page_of not in self._pages:
            return None
        self._pages.discard(self._page_of)
        _, props = self._objects[self._page_of]
        return list(props.get("latestPage", ()))

    def _judge_tasks(self, changed: Iterable[str]) -> set[str]:
        """Look once at each new recent task of these hosts; follow those that matter. Returns the hosts concerned."""
        new: dict[str, str] = {}
        for moref in changed:
            kind, props = self._objects[moref]
            if _is_host(kind):
                recent = _tasks_of(props)
                judged = self._judged.get(moref, ())
                new.update((task, moref) for task in recent if task not in judged)
                self._judged[moref] = recent
        started = {
            moref: (new[moref], HOST_TASKS[description])
            for moref, (description, state) in self._read_tasks(sorted(new)).items()
            if description in HOST_TASKS and state in RUNNING
        }
        self._tasks.update(started)
        if started or self._ended_tasks:
            unknown = self._call(
                self._task_view.ModifyListView,
                [vim.Task(moref) for moref in sorted(started)],
                [vim.Task(moref) for moref in sorted(self._ended_tasks)],
            )
            self._ended_tasks.clear()
            for task in unknown or ():  # gone already: nobody would tell when it ended
                self._tasks.pop(task._GetMoId(), None)
        return {host for host, _ in started.values()}

    def _read_tasks(self, morefs: list[str]) -> dict[str, tuple[str, str]]:
        """Description id and state of each task that still exists."""
        read = read_objects(self._session, vim.Task, morefs, ["info.descriptionId", "info.state"])
        tasks = {
            moref: (task.props["info.descriptionId"], task.props["info.state"])
            for moref, task in read.items()
            if "info.descriptionId" in task.props and "info.state" in task.props
        }
        stub = self._session.vim_stub()
        for moref in morefs:
            if moref not in tasks:  # gone, or left out: ask for it alone before believing that
                with contextlib.suppress(ObjectGone):
                    info = self._call(getattr, vim.Task(moref, stub), "info")
                    tasks[moref] = (info.descriptionId, info.state)
        return tasks

    # --- proof -----------------------------------------------------------------------------------------

    def _prove_alive(self) -> None:
        self._same_login()
        if not self._session.alive():
            # The session answers but is nobody's: a new one is needed even where nothing else would ask for it.
            self._session.renew(self._generation)
            raise SessionExpired(f"{self._session.name}: the session has ended; what it answered last is not used.")

    def _prove_answered(self) -> None:
        """As :meth:`_prove_alive`, after an answer from which others would conclude that something is gone."""
        try:
            self._prove_alive()
        except SessionExpired as exc:
            raise SilentlyExpired(exc.message) from exc

    def _prove_complete(self) -> None:
        """Whatever should be in the listing and is not must be proven gone."""
        expected: dict[str, Any] = {moref: compute_resource_type(moref) for moref in self._scope}
        for kind, props in tuple(self._objects.values()):
            if issubclass(kind, vim.ComputeResource):
                expected.update((host, vim.HostSystem) for host in props.get("host", ()))
        # A cluster's own list may be as short as the rest of the answer, so what was there before counts as well.
        expected.update(dict.fromkeys(self._known, vim.HostSystem))
        expected.update(dict.fromkeys(self._in_view, vim.VirtualMachine))
        self._prove_gone({moref: kind for moref, kind in expected.items() if moref not in self._objects})

    def _prove_gone(self, left_out: Mapping[str, Any]) -> None:
        """Each of these must not exist any more, or be a host outside of the scope; each is asked for by itself.

        Raises SuspectRead for one that is where it was, PrivilegeMissing for one that may not be looked at.
        """
        stub = self._session.vim_stub()
        for moref, kind in left_out.items():
            try:
                parent = self._call(getattr, kind(moref, stub), "parent")
            except ObjectGone:
                continue
            if issubclass(kind, vim.HostSystem) and parent is not None and parent._GetMoId() not in self._scope:
                continue
            raise SuspectRead(f"{self._session.name}: an answer left out {moref}, which exists; it is not used.")

    # --- facts -----------------------------------------------------------------------------------------

    def _observation(self, morefs: Iterable[str], gone: tuple[str, ...], *, complete: bool) -> InventoryObserved:
        compute = []
        hosts = []
        vms = []
        turns = Turns()
        for moref in morefs:
            turns.give()
            kind, props = self._objects[moref]
            try:
                if issubclass(kind, vim.ComputeResource):
                    compute.append(self._compute_resource(moref, kind, props))
                elif issubclass(kind, vim.HostSystem):
                    hosts.append(self._host(moref, props))
                elif issubclass(kind, vim.VirtualMachine):
                    vms.append(_vm(moref, props))
            except KeyError as exc:
                raise ProtocolError(f"{self._session.name}: {moref} was answered without {exc}.") from exc
        return InventoryObserved(
            at=self._clock(),
            compute_resources=tuple(compute),
            hosts=tuple(hosts),
            vms=tuple(vms),
            gone=gone,
            complete=complete,
            scope=frozenset(self._scope) if complete else None,
        )

    def _compute_resource(self, moref: str, kind: Any, props: dict[str, Any]) -> ComputeResourceFacts:
        place = self._places.get(moref)
        folder = "" if place is None else place.path.rpartition("/")[0]
        return ComputeResourceFacts(
            moref=moref,
            name=props["name"],
            path=f"{folder}/{props['name']}",
            datacenter="" if place is None else place.datacenter,
            is_cluster=issubclass(kind, vim.ClusterComputeResource),
            hosts=props.get("host", ()),
        )

    def _host(self, moref: str, props: dict[str, Any]) -> HostFacts:
        running = [self._tasks[task][1] for task in _tasks_of(props) if task in self._tasks]
        return HostFacts(
            moref=moref,
            name=props["name"],
            compute_resource=props["parent"],
            connection=_enum(props["runtime.connectionState"], ConnectionState.NOT_RESPONDING),
            power=_enum(props.get("runtime.powerState"), HostPower.UNKNOWN),
            standby=_enum(props.get("runtime.standbyMode"), StandbyMode.NONE),
            in_maintenance=bool(props["runtime.inMaintenanceMode"]),
            task=running[-1] if running else None,
            agent_datastore=props.get("summary.config.agentVmDatastore"),
            agent_network=props.get("summary.config.agentVmNetwork"),
        )


class _MissingObject:
    """A missing object in the shape of a missing property, so that one rule judges both."""

    path = "the object"

    def __init__(self, fault: Any) -> None:
        self.fault = fault


def _vm(moref: str, props: dict[str, Any]) -> VmFacts:
    return VmFacts(
        moref=moref,
        name=props.get("name", moref),
        host=props.get("runtime.host"),
        power=VmPower(props["runtime.powerState"]),
        connection=str(props.get("runtime.connectionState", "connected")),
        heartbeat=str(props.get("guestHeartbeatStatus", "gray")),
        ip=props.get("guest.ipAddress") or None,
        guest_host_name=props.get("guest.hostName") or None,
        instance_uuid=props.get("config.instanceUuid"),
    )


def _is_host(kind: Any) -> bool:
    return issubclass(kind, vim.HostSystem)


def _tasks_of(props: dict[str, Any]) -> tuple[str, ...]:
    tasks: tuple[str, ...] = props.get("recentTask", ())
    return tasks


def _enum(value: Any, unknown: E_) -> E_:
    """The member for ``value``; a value that vCenter may add one day reads as ``unknown``, the cautious one."""
    try:
        return type(unknown)(value)
    except ValueError:
        return unknown


def _kept(name: str, value: Any) -> Any:
    """A property as it is remembered: references as morefs, since an object of pyVmomi takes the memory of five."""
    if name in _REFERENCES:
        return sys.intern(value._GetMoId())
    if name in _LISTS:
        return tuple(sys.intern(one._GetMoId()) for one in value)
    return value
