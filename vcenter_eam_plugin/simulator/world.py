# SPDX-License-Identifier: Apache-2.0
"""The simulated vCenter's state: managed objects, their properties, and who is told when one changes.

Nothing here knows SOAP, sockets or sessions. A managed object is a Python object with a *vmodl type* and a
*moid*; its properties are pyVmomi values by top-level name, read and written by dotted path
(``runtime.powerState``). Each write tells the listeners which object and which path changed, so that a
property collector's cost follows what changed and not what exists.

Time is passed in: ``Clock`` gives it and runs delayed work. The server uses gevent's, tests may use
:class:`ManualClock` and step it.
"""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol, TypeVar

from vcenter_eam_plugin.simulator.journal import Journal
from vcenter_eam_plugin.simulator.knobs import Knobs

T = TypeVar("T", bound="ManagedObject")

EVENTS_KEPT = 100_000
"""Events held for queries; a vCenter keeps 30 days of them, a simulator what fits a modest memory."""


class Timer(Protocol):
    """Handle of delayed work."""

    def cancel(self) -> None:
        """Forget the work if it has not run yet."""


class Clock(Protocol):
    """Source of time. ``now`` is wall-clock UTC, ``monotonic`` seconds; ``after`` runs ``work`` later."""

    def now(self) -> dt.datetime: ...
    def monotonic(self) -> float: ...
    def after(self, seconds: float, work: Callable[[], None]) -> Timer: ...


class _ManualTimer:
    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work

    def cancel(self) -> None:
        self.work = None


class ManualClock:
    """A clock that a test moves. ``advance`` runs what falls due, in order of time."""

    def __init__(self, start: dt.datetime | None = None) -> None:
        self._start = start or dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        self._elapsed = 0.0
        self._due: list[tuple[float, int, _ManualTimer]] = []
        self._order = itertools.count()

    def now(self) -> dt.datetime:
        return self._start + dt.timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    def after(self, seconds: float, work: Callable[[], None]) -> Timer:
        timer = _ManualTimer(work)
        heapq.heappush(self._due, (self._elapsed + seconds, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move time on and run everything that falls due on the way."""
        end = self._elapsed + seconds
        while self._due and self._due[0][0] <= end:
            at, _, timer = heapq.heappop(self._due)
            self._elapsed = max(self._elapsed, at)
            if timer.work is not None:
                timer.work()
        self._elapsed = end


class ManagedObject:
    """Base of every simulated managed object.

    ``vmodl`` is the pyVmomi class it stands for (``vim.HostSystem``). Top-level properties live in
    ``self.props``; a subclass may compute one on reading by defining ``prop_<name>(self)`` (for what would
    be costly to hold or to keep current), and must then call :meth:`touch` when its value changes.
    """

    vmodl: ClassVar[type]

    def __init__(self, world: World, moid: str) -> None:
        self.world = world
        self.moid = moid
        self.props: dict[str, Any] = {}

    @property
    def ref(self) -> Any:
        """The managed object reference, as pyVmomi value (``vim.HostSystem('host-12')``)."""
        return self.vmodl(self.moid)

    def get(self, path: str) -> Any:
        """Value at a dotted path; ``None`` when unset. Raises ``AttributeError`` for a path the type lacks."""
        head, *rest = path.split(".")
        compute = getattr(self, f"prop_{head}", None)
        value = compute() if compute is not None else self.props.get(head)
        for name in rest:
            if value is None:
                return None
            value = getattr(value, name)
        return value

    def set(self, path: str, value: Any) -> None:
        """Write one property; listeners hear of it only when the value differs from before."""
        head, *rest = path.split(".")
        if not rest:
            if head in self.props and self.props[head] == value:
                return
            self.props[head] = value
        else:
            holder = self.props[head]
            for name in rest[:-1]:
                holder = getattr(holder, name)
            if getattr(holder, rest[-1]) == value:
                return
            setattr(holder, rest[-1], value)
        self.world.changed(self, path)

    def touch(self, path: str) -> None:
        """Tell listeners that ``path`` changed, for values changed in place or computed."""
        self.world.changed(self, path)


class Listener(Protocol):
    """Who wants to hear of changes (each property collector filter, the EAM rules)."""

    def object_added(self, obj: ManagedObject) -> None: ...
    def object_changed(self, obj: ManagedObject, path: str) -> None: ...
    def object_removed(self, obj: ManagedObject) -> None: ...


class World:
    """All managed objects of one simulated vCenter, by moid; with its knobs, its journal and its event stream."""

    def __init__(self, clock: Clock, knobs: Knobs | None = None) -> None:
        self.clock = clock
        self.knobs = knobs if knobs is not None else Knobs()
        self.journal = Journal(clock)
        self.objects: dict[str, ManagedObject] = {}
        self.listeners: list[Listener] = []
        self.events: deque[Any] = deque(maxlen=EVENTS_KEPT)
        # The event manager puts itself here; it stamps an event (key, time, text) before it joins ``events``.
        self.post_event: Callable[[Any], None] = self.events.append
        self.macs: dict[str, str] = {}
        """Whose a MAC address is, by the VM's moid: those that somebody reconfigured, for finding duplicates."""
        self.machines: dict[str, list[Any]] = {}
        """VMs on machines that left the inventory, by the machine's name."""
        self._counters: dict[str, Iterator[int]] = {}

    def new_moid(self, prefix: str, start: int = 1) -> str:
        """``host-1``, ``host-2`` ...: vCenter's manner of naming, never used twice."""
        counter = self._counters.setdefault(prefix, itertools.count(start))
        return f"{prefix}-{next(counter)}"

    def add(self, obj: T) -> T:
        self.objects[obj.moid] = obj
        for listener in tuple(self.listeners):
            listener.object_added(obj)
        return obj

    def remove(self, obj: ManagedObject) -> None:
        if self.objects.pop(obj.moid, None) is not None:
            for listener in tuple(self.listeners):
                listener.object_removed(obj)

    def changed(self, obj: ManagedObject, path: str) -> None:
        if obj.moid in self.objects:
            for listener in tuple(self.listeners):
                listener.object_changed(obj, path)

    def find(self, ref: Any) -> ManagedObject | None:
        """The object behind a moref (pyVmomi reference or moid), or ``None``."""
        return self.objects.get(ref if isinstance(ref, str) else ref._moId)

    def each(self, cls: type[T]) -> Iterator[T]:
        """All objects of one simulator class, in order of creation."""
        return (obj for obj in tuple(self.objects.values()) if isinstance(obj, cls))


class Call:
    """Who calls: handed to every method as first argument. ``user`` is the login name, ``version`` the wire's.

    ``address`` is where the call came from. ``session`` is opaque to the world; ``require`` raises the fault of the
    endpoint (``vim.fault.NoPermission`` or ``eam.fault.NotAuthorized``) when the caller lacks a privilege on ``obj``.
    """

    def __init__(
        self,
        user: str,
        version: str,
        session: Any,
        require: Callable[[str, ManagedObject], None],
        address: str = "",
    ) -> None:
        self.user = user
        self.version = version
        self.session = session
        self.address = address
        self._require = require

    def require(self, privilege: str, obj: ManagedObject) -> None:
        self._require(privilege, obj)


F = TypeVar("F", bound=Callable[..., Any])


def soap(name: str, privilege: str | None = None) -> Callable[[F], F]:
    """Mark a method as answering the WSDL operation ``name`` (``EnterMaintenanceMode_Task``).

    Called as ``method(self, call, **parameters)`` with the WSDL's parameter names; optional ones that the
    request leaves out are not passed, so they need defaults. ``privilege`` is checked on the object first.
    Raising a pyVmomi fault answers it; a returned ManagedObject becomes its reference.
    """

    def mark(method: F) -> F:
        method.soap_name = name  # type: ignore[attr-defined]
        method.soap_privilege = privilege  # type: ignore[attr-defined]
        return method

    return mark
