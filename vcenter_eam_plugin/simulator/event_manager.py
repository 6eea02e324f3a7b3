# SPDX-License-Identifier: Apache-2.0
"""The simulated ``vim.event.EventManager`` and its history collectors.

Events get their key, chain id, time and text when they are posted, as in vCenter, and stay in ``world.events``.
A collector's ``latestPage`` is a property like any other, so a property collector follows it; as in vCenter the
whole page is sent again on every change, newest first, and it stops at the page size: events beyond it are lost
to who only looks at the page.

Not promised: event history on disk, alarms, tasks' event chains, localised messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import GetWsdlName

from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.faults import Faults
    from vcenter_eam_plugin.simulator.wire import Encoder

DEFAULT_PAGE = 10
"""``latestPage`` length of a new collector: the API reference's default."""
MAX_PAGE = 1000
"""Largest page and largest read: vCenter's documented limit."""
FIRST_KEY = 1000
LOWEST_KEY = -(2**31)
"""What follows the largest ``int``."""
BURST, BURST_SECONDS = 30, 30.0
"""vCenter's burst filter: of so many identical events within so long the database keeps no more."""


def event_type_id(event: Any) -> str:
    """``vim.event.HostAddedEvent`` for classes, the ``eventTypeId`` for ``EventEx`` and ``ExtendedEvent``."""
    own = getattr(event, "eventTypeId", None)
    return own or f"vim.event.{GetWsdlName(type(event))}"


def _family(event: Any) -> set[str]:
    """Every name a filter may give for this event: its type id and those of its base classes, long and short."""
    names = {event_type_id(event)}
    for base in type(event).__mro__:
        if isinstance(base, type) and issubclass(base, vim.event.Event):
            names |= {GetWsdlName(base), f"vim.event.{GetWsdlName(base)}"}
    return names


class EventFilter:
    """Compiled ``vim.event.EventFilterSpec``. Raises ``vmodl.fault.InvalidArgument`` for what is not simulated."""

    def __init__(self, world: World, spec: Any) -> None:
        self._world = world
        self._types = set(spec.eventTypeId or ()) | set(spec.type or ())
        self._classes = tuple(kind for kind in self._types if isinstance(kind, type))
        self._names = {kind for kind in self._types if isinstance(kind, str)}
        self._begin = spec.time.beginTime if spec.time else None
        self._end = spec.time.endTime if spec.time else None
        self._users = set(spec.userName.userList or ()) if spec.userName else set()
        self._chain = spec.eventChainId
        self.maximum = min(spec.maxCount or MAX_PAGE, MAX_PAGE)
        self._entity = spec.entity
        if self._entity is not None and world.find(self._entity.entity) is None:
            raise vmodl.fault.ManagedObjectNotFound(obj=self._entity.entity, msg="The filter's entity does not exist.")

    def matches(self, event: Any) -> bool:
        """True when the event passes every part of the filter."""
        if self._types and not (isinstance(event, self._classes) or self._names & _family(event)):
            return False
        if (self._begin and event.createdTime < self._begin) or (self._end and event.createdTime > self._end):
            return False
        if self._users and event.userName not in self._users:
            return False
        if self._chain is not None and event.chainId != self._chain:
            return False
        return self._entity is None or self._about(event)

    def _about(self, event: Any) -> bool:
        wanted, how = self._entity.entity._moId, self._entity.recursion
        for moid in _entities(event):
            if how != "children" and moid == wanted:
                return True
            if how != "self" and wanted in self._ancestors(moid):
                return True
        return False

    def _ancestors(self, moid: str) -> Iterable[str]:
        obj = self._world.objects.get(moid)
        while obj is not None:
            parent = obj.get("parent")
            if parent is None:
                return
            yield parent._moId
            obj = self._world.find(parent)


def _entities(event: Any) -> Iterable[str]:
    for argument, field in (
        ("vm", "vm"),
        ("host", "host"),
        ("computeResource", "computeResource"),
        ("datacenter", "datacenter"),
        ("ds", "datastore"),
        ("net", "network"),
        ("dvs", "dvs"),
    ):
        holder = getattr(event, argument, None)
        if holder is not None:
            yield getattr(holder, field)._moId
    if getattr(event, "objectId", None):
        yield event.objectId


class EventManager(ManagedObject):
    """``vim.event.EventManager``; installs itself as ``world.post_event``."""

    vmodl: ClassVar[type] = vim.event.EventManager

    def __init__(self, world: World) -> None:
        super().__init__(world, "EventManager")
        self.props.update(maxCollector=1000)
        self._next_key = FIRST_KEY
        self._followers: list[EventHistoryCollector] = []
        self.faults: Faults | None = None
        world.post_event = self.post

    def on(self, fault: str) -> bool:
        """Whether this fault is on."""
        return self.faults is not None and self.faults.on(fault)

    def look_again(self) -> None:
        """Faults that change pages came or went."""
        for follower in tuple(self._followers):
            follower.touch("latestPage")

    def wrap_keys(self) -> None:
        """The next event has the lowest key that there is."""
        self._next_key = LOWEST_KEY

    def history(self, wanted: EventFilter, count: int | None = None) -> list[Any]:
        """What the database has for who did not listen; see :func:`newest`."""
        events = self.world.events
        return newest(_consolidated(events) if self.on("events_consolidated") else events, wanted, count)

    def prop_latestEvent(self) -> Any:  # noqa: N802 - computed property of the API
        """The newest event, unset before the first."""
        return self.world.events[-1] if self.world.events else None

    def prop_description(self) -> Any:
        """Categories only: the catalogue of a real vCenter is megabytes that nobody here reads."""
        return vim.event.EventDescription(
            category=[
                vim.ElementDescription(key=key, label=key.capitalize(), summary=key)
                for key in ("info", "warning", "error", "user")
            ]
        )

    def post(self, event: Any) -> None:
        """Stamp an event (key, chain, time, user and text where unset), keep it, and tell the collectors."""
        event.key = self._next_key
        self._next_key += 1
        event.chainId = event.chainId or event.key
        event.createdTime = event.createdTime or self.world.clock.now()
        event.userName = event.userName or ""
        if event.fullFormattedMessage is None:
            event.fullFormattedMessage = getattr(event, "message", None) or event_type_id(event)
        self.world.events.append(event)
        self.touch("latestEvent")
        for follower in tuple(self._followers):
            follower.hear(event)

    @soap("CreateCollectorForEvents")
    def create_collector(self, call: Call, filter: Any) -> EventHistoryCollector:
        """A history collector that belongs to the caller's session."""
        collector = EventHistoryCollector(self, call.session.new_moid(), EventFilter(self.world, filter), filter)
        self._followers.append(collector)
        collector.on_destroy = lambda: self._followers.remove(collector)
        call.session.adopt(collector)
        return collector

    @soap("QueryEvents")
    def query_events(self, call: Call, filter: Any) -> Any:
        """The newest ``maxCount`` (1,000 at most) matching events, oldest first."""
        return vim.event.Event.Array(self.history(EventFilter(self.world, filter)))

    @soap("PostEvent", privilege="Global.LogEvent")
    def post_event(self, call: Call, eventToPost: Any, taskInfo: Any = None) -> None:  # noqa: N803 - the API's names
        """Post a client's event; key and time are always the server's."""
        if taskInfo is not None:
            eventToPost.chainId = taskInfo.eventChainId
        eventToPost.createdTime = self.world.clock.now()
        eventToPost.userName = call.user
        self.post(eventToPost)

    @soap("LogUserEvent", privilege="Global.LogEvent")
    def log_user_event(self, call: Call, entity: Any, msg: str) -> None:
        """A user-defined event on an entity."""
        self.post(
            vim.event.GeneralUserEvent(
                entity=vim.event.ManagedEntityEventArgument(
                    entity=entity, name=self.world.objects[entity._moId].get("name")
                ),
                message=msg,
                userName=call.user,
            )
        )


def _consolidated(events: Iterable[Any]) -> list[Any]:
    """What the burst filter leaves: it tells events apart by what they are about, and not by their text."""
    kept: list[Any] = []
    recent: dict[Any, list[Any]] = {}
    for event in events:
        times = recent.setdefault((event_type_id(event), *_entities(event)), [])
        times[:] = [at for at in times if (event.createdTime - at).total_seconds() < BURST_SECONDS]
        if len(times) < BURST:
            kept.append(event)
        times.append(event.createdTime)
    return kept


def newest(events: Sequence[Any], wanted: EventFilter, count: int | None = None) -> list[Any]:
    """The newest matching events (``count``, or the filter's own maximum), oldest first."""
    limit = wanted.maximum if count is None else count
    found: list[Any] = []
    for event in reversed(events):
        if len(found) >= limit:
            break
        if wanted.matches(event):
            found.append(event)
    found.reverse()
    return found


class EventHistoryCollector(ManagedObject):
    """``vim.event.EventHistoryCollector``: a latest page (newest first) and a position to read from, both ways."""

    vmodl: ClassVar[type] = vim.event.EventHistoryCollector

    def __init__(self, manager: EventManager, moid: str, wanted: EventFilter, spec: Any) -> None:
        super().__init__(manager.world, moid)
        self._manager = manager
        self.props["filter"] = spec
        self.on_destroy: Callable[[], None] = lambda: None
        self._wanted = wanted
        self._page_size = DEFAULT_PAGE
        self._page: list[Any] = manager.history(wanted, DEFAULT_PAGE)
        # The reading position: keys up to and including this one lie behind it.
        self._position = self._before_page()

    def prop_latestPage(self) -> Any:  # noqa: N802 - computed property of the API
        """The newest events that match, newest first."""
        return vim.event.Event.Array(self._shown())

    def _shown(self) -> list[Any]:
        if self._manager.on("events_hidden"):
            return []
        page = self._page[::-1]
        # Any order that is neither time's nor its reverse, and the same each time.
        return page[::2] + page[1::2][::-1] if self._manager.on("events_unordered") else page

    def encode_property(self, path: str, encoder: Encoder) -> str | None:
        """``latestPage`` from cached encodings of its events: the whole page is sent again for each new event."""
        if path != "latestPage":
            return None
        return encoder.any_array("val", "ArrayOfEvent", (encoder.cached("Event", event) for event in self._shown()))

    def hear(self, event: Any) -> None:
        """A new event: joins the page if it matches."""
        if self._wanted.matches(event):
            self._page = [*self._page[-self._page_size + 1 :], event] if self._page_size > 1 else [event]
            self.touch("latestPage")

    def _before_page(self) -> int:
        return self._page[0].key - 1 if self._page else FIRST_KEY - 1

    def _matching(self) -> list[Any]:
        return [event for event in self.world.events if self._wanted.matches(event)]

    @soap("ReadNextEvents")
    def read_next(self, call: Call, maxCount: int) -> Any:  # noqa: N803 - the API's name
        """Up to ``maxCount`` events after the position, oldest first; moves the position."""
        after = [event for event in self._matching() if event.key > self._position][: _positive(maxCount)]
        if after:
            self._position = after[-1].key
        return vim.event.Event.Array(after)

    @soap("ReadPreviousEvents")
    def read_previous(self, call: Call, maxCount: int) -> Any:  # noqa: N803 - the API's name
        """Up to ``maxCount`` events before the position, newest first; moves the position."""
        before = [event for event in self._matching() if event.key <= self._position][-_positive(maxCount) :]
        if before:
            self._position = before[0].key - 1
        return vim.event.Event.Array(reversed(before))

    @soap("RewindCollector")
    def rewind(self, call: Call) -> None:
        """Position before the oldest event: ReadNext then reads all."""
        self._position = FIRST_KEY - 1

    @soap("ResetCollector")
    def reset(self, call: Call) -> None:
        """Position just before the latest page, as on creation: ReadNext gives the page, ReadPrevious what is older."""
        self._position = self._before_page()

    @soap("SetCollectorPageSize")
    def set_page_size(self, call: Call, maxCount: int) -> None:  # noqa: N803 - the API's name
        """Length of ``latestPage`` from now on."""
        self._page_size = _positive(maxCount)
        self._page = self._manager.history(self._wanted, self._page_size)
        self.touch("latestPage")

    @soap("DestroyCollector")
    def destroy(self, call: Call) -> None:
        """End it."""
        call.session.drop(self)

    def dispose(self) -> None:
        """Called once when it is destroyed or its session ends."""
        self.on_destroy()


def _positive(count: int) -> int:
    if not 0 < count <= MAX_PAGE:
        raise vmodl.fault.InvalidArgument(
            invalidProperty="maxCount", msg=f"maxCount must be 1..{MAX_PAGE}, not {count}."
        )
    return count
