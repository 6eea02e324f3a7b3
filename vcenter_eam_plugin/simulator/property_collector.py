# SPDX-License-Identifier: Apache-2.0
"""The simulated ``vmodl.query.PropertyCollector``: retrieval, filters, and updates with real versions.

Cost follows what changed: one hub listens to the world and knows, per object, which filters care; each filter keeps
the paths that changed since its last update; the XML of a property's value is made once per change and shared by
all filters and clients of one API version.

Versions grow with every update set. A client that asks with the version before the last set gets that set again (its
response was lost), unless that version was a truncated set's, which is good once; any other old or unknown version is
an ``InvalidCollectorVersion``. An update set and a page of ``RetrievePropertiesEx`` hold at most :data:`PAGE` objects,
as many as a vCenter gives by default.

Not promised: ``add`` and ``remove`` of single array elements (arrays are assigned whole), ``RetrieveContents``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import gevent
from gevent.event import Event
from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import XMLNS_XSD, Array, Enum, GetQualifiedWsdlName, GetWsdlName

from vcenter_eam_plugin.simulator.authorization import reading
from vcenter_eam_plugin.simulator.property_paths import all_properties, covers, declared_type, read, touches
from vcenter_eam_plugin.simulator.selection import Finder, Selection, Walk
from vcenter_eam_plugin.simulator.wire import Encoder, Raw, escape
from vcenter_eam_plugin.simulator.world import ManagedObject, World, soap

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.session_manager import Session, WireCall

PAGE = 100
"""Objects per update set and per page, at most."""
BATCH_SECONDS = 0.002
"""After the first change a waiting client gets what else changes within this time: one operation changes several."""
LISTENING_SECONDS = 1.0
"""How often a waiting call looks whether its client is still connected: a dead client's wait would last for ever."""
DEFAULT_COLLECTOR = "propertyCollector"

_Collector = vmodl.query.PropertyCollector
_MISSING = vmodl.query.PropertyCollector.MissingProperty
_NO_VALUE = ""
_NOTHING: frozenset[str] = frozenset()

EMPTY_READS = "empty_reads"
HALF_READS = "half_reads"
MISSING_SET = "missing_set"
PERMISSION_GAP = "permission_gap"
SMALL_PAGES = "small_pages"
CREATES_NOTHING = "creates_nothing"
EFFECTS = frozenset({EMPTY_READS, HALF_READS, MISSING_SET, PERMISSION_GAP, SMALL_PAGES, CREATES_NOTHING})
"""Effects of faults by name that the dispatcher puts on a call."""
_HIDING = frozenset({HALF_READS, PERMISSION_GAP})


class PropertyHub:
    """Listens to the world for all filters, and holds the encoded values."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._watchers: dict[str, dict[Filter, None]] = {}
        self._values: dict[str, dict[tuple[str, str], str]] = {}
        self.open_collectors = 0
        """Created collectors that are open; each session's own is not counted."""
        self.most_collectors = 0
        """The most that were open at any one time."""
        world.listeners.append(self)

    def object_added(self, obj: ManagedObject) -> None:
        """Something pointed at the object before it was there: who did must walk again."""
        for watcher in tuple(self._watchers.get(obj.moid, ())):
            watcher.walk_anew()

    def object_removed(self, obj: ManagedObject) -> None:
        """Filters that select it or walk through it tell their clients that it left."""
        self._values.pop(obj.moid, None)
        for watcher in tuple(self._watchers.get(obj.moid, ())):
            watcher.walk_anew()

    def object_changed(self, obj: ManagedObject, path: str) -> None:
        """Forget the encodings that the change touches and tell the filters that care."""
        held = self._values.get(obj.moid)
        if held:
            for key in [key for key in held if touches(key[0], path)]:
                del held[key]
        for watcher in tuple(self._watchers.get(obj.moid, ())):
            watcher.hear(obj, path)

    def watch(self, moids: Iterable[str], watcher: Filter) -> None:
        """From now on ``watcher`` hears of these objects."""
        for moid in moids:
            self._watchers.setdefault(moid, {})[watcher] = None

    def unwatch(self, moids: Iterable[str], watcher: Filter) -> None:
        """No more."""
        for moid in moids:
            watchers = self._watchers.get(moid)
            if watchers is not None:
                watchers.pop(watcher, None)
                if not watchers:
                    del self._watchers[moid]

    def count(self, change: int) -> None:
        """A collector was created (1) or is gone (-1)."""
        self.open_collectors += change
        self.most_collectors = max(self.most_collectors, self.open_collectors)

    def hidden(self, call: WireCall) -> frozenset[str]:
        """Hosts that this call does not get to see."""
        if not call.effects & _HIDING:
            return _NOTHING
        hosts = sorted(moid for moid, obj in self.world.objects.items() if issubclass(obj.vmodl, vim.HostSystem))
        return frozenset(hosts[::2])

    def value(self, obj: ManagedObject, path: str, call: WireCall, heads: dict[str, Any]) -> str:
        """``<val ...>`` of a property, empty when unset. Values that depend on who asks are not kept.

        ``heads`` is one dict for all reads of the same object in one answer.
        """
        if path == "host" and issubclass(obj.vmodl, vim.ComputeResource) and (hidden := self.hidden(call)):
            seen = [ref for ref in read(obj, path, heads) if ref._moId not in hidden]
            return encode(obj.vmodl, path, seen, call.encoder)
        personal = getattr(obj, "property_for", None)
        if personal is not None:
            return encode(obj.vmodl, path, personal(call.session, path), call.encoder)
        held = self._values.setdefault(obj.moid, {})
        key = (path, call.encoder.version)
        text = held.get(key)
        if text is None:
            own = getattr(obj, "encode_property", None)
            text = own(path, call.encoder) if own is not None else None
            if text is None:
                text = encode(obj.vmodl, path, read(obj, path, heads), call.encoder)
            held[key] = text
        return text


def encode(kind: Any, path: str, value: Any, encoder: Encoder) -> str:
    """``<val xsi:type=...>`` of a value at a path of a type; empty text for unset.

    The declared type decides between ``xsd:int`` and ``xsd:long`` and makes native lists and texts what the schema
    calls them: clients of typed languages refuse anything else.
    """
    if value is None:
        return _NO_VALUE
    declared = declared_type(kind, path)
    if isinstance(value, list) and not isinstance(value, Array):
        value = declared(value)
    elif type(value) in (int, float) and declared is not None and declared is not object:
        namespace, name = GetQualifiedWsdlName(declared)
        if namespace == XMLNS_XSD:
            return f'<val xsi:type="xsd:{name}">{value}</val>'
    elif type(value) is str and isinstance(declared, type) and issubclass(declared, Enum):
        value = declared(value)
    return encoder.value("val", value)


class PropertySets:
    """The compiled ``propSet`` of a filter spec: which paths of which types."""

    def __init__(self, prop_set: Iterable[Any]) -> None:
        self._specs: list[tuple[type, tuple[str, ...]]] = []
        self._by_kind: dict[type, tuple[str, ...] | None] = {}
        for spec in prop_set or ():
            if spec.all:
                self._specs.append((spec.type, all_properties(spec.type)))
                continue
            for path in spec.pathSet or ():
                if declared_type(spec.type, path) is None:
                    raise vmodl.query.InvalidProperty(
                        name=path, msg=f"{GetWsdlName(spec.type)} has no property {path!r}."
                    )
            self._specs.append((spec.type, tuple(spec.pathSet or ())))

    def paths(self, kind: type) -> tuple[str, ...] | None:
        """Paths asked of an object of ``kind``; ``None`` when no property set is for its type."""
        if kind not in self._by_kind:
            fitting = [paths for wanted, paths in self._specs if issubclass(kind, wanted)]
            self._by_kind[kind] = tuple(dict.fromkeys(itertools.chain(*fitting))) if fitting else None
        return self._by_kind[kind]


def _named(path: str, value: str) -> str:
    return f"<name>{escape(path)}</name>{value}"


def _missing(path: str, fault: Any, encoder: Encoder) -> str:
    return encoder.typed("missingSet", _MISSING(path=path, fault=fault), _MISSING)


def _reference(tag: str, obj_type: str, moid: str) -> str:
    return f'<{tag} type="{obj_type}">{escape(moid)}</{tag}>'


def refusal(obj: ManagedObject, call: WireCall) -> Any:
    """The fault that keeps the caller from reading an object's properties, or ``None``."""
    if MISSING_SET in call.effects:
        return vim.fault.NotAuthenticated(
            object=obj.ref, privilegeId="System.Read", msg="The session is not authenticated."
        )
    try:
        kind: Any = obj.vmodl
        call.require(reading(kind), obj)
    except vmodl.MethodFault as fault:
        return fault
    return None


class Filter(ManagedObject):
    """``PropertyCollector.Filter``: what is selected, what changed since the client was last told."""

    vmodl: ClassVar[type] = vmodl.query.PropertyCollector.Filter

    def __init__(self, collector: PropertyCollector, moid: str, spec: Any, partial: bool) -> None:
        super().__init__(collector.world, moid)
        self.props.update(spec=spec, partialUpdates=partial)
        self._collector = collector
        self._partial = partial
        self._sets = PropertySets(spec.propSet)
        self._selection = Selection(spec.objectSet)
        self._walk = Walk(self._selection, collector.find)
        if self._walk.missing and not spec.reportMissingObjectsInResults:
            raise no_such_object(self._walk.missing[0])
        self._interest: set[str] = set()
        self._known: dict[str, dict[str, str]] = {}
        self._kinds: dict[str, str] = {}
        self._pending: dict[str, set[str]] = {}
        self._moved: dict[str, None] = {}
        self._anew = False
        self._hidden = _NOTHING
        self._watch()
        self.restart()

    def restart(self) -> None:
        """The client starts over: everything selected is news."""
        self._known.clear()
        self._pending = {moid: set() for moid in self._current()}

    def hear(self, obj: ManagedObject, path: str) -> None:
        """An object that this filter cares about changed."""
        news = False
        if obj.moid in self._walk.selected:
            paths = self._sets.paths(obj.vmodl)
            if paths and any(touches(wanted, path) for wanted in paths):
                self._pending.setdefault(obj.moid, set()).add(path)
                news = True
        if self._walk.follows(obj.moid, path):
            self._moved[obj.moid] = None
            news = True
        if news:
            self._collector.wake()

    def walk_anew(self) -> None:
        """What is selected must be found again from the roots, at the next update."""
        self._anew = True
        self._collector.wake()

    def _watch(self) -> None:
        interest = self._walk.interest()
        self._collector.hub.watch(interest - self._interest, self)
        self._collector.hub.unwatch(self._interest - interest, self)
        self._interest = interest

    def _current(self) -> dict[str, None]:
        """What is selected now; objects that came or went become pending."""
        if not self._anew and not self._moved:
            return self._walk.selected
        before = dict(self._walk.selected)
        moved, self._moved = self._moved, {}
        if self._anew or not all(self._walk.advance(moid) for moid in moved):
            self._anew = False
            self._walk = Walk(self._selection, self._collector.find)
        self._watch()
        for moid in self._walk.selected:
            if moid not in before:
                self._pending.setdefault(moid, set())
        for moid in before:
            if moid not in self._walk.selected:
                self._pending.setdefault(moid, set())
        return self._walk.selected

    def take(self, budget: int, call: WireCall) -> tuple[str, int]:
        """Up to ``budget`` object updates as XML, and how many; what is taken counts as told."""
        selected = self._current()
        self._hide(call)
        parts: list[str] = []
        while self._pending and len(parts) < budget:
            moid = next(iter(self._pending))
            paths = self._pending.pop(moid)
            text = self._update(moid, paths, moid in selected and moid not in self._hidden, call)
            if text:
                parts.append(text)
        return "".join(parts), len(parts)

    def _hide(self, call: WireCall) -> None:
        """Hosts that this call does not get to see leave, and come back with the first call that does."""
        hidden = self._collector.hub.hidden(call)
        if hidden == self._hidden:
            return
        for moid in hidden ^ self._hidden:
            if moid in self._walk.selected:
                self._pending.setdefault(moid, set())
        for moid in self._walk.selected:
            if (obj := self._collector.find(moid)) is not None and issubclass(obj.vmodl, vim.ComputeResource):
                self._pending.setdefault(moid, set()).add("host")
        self._hidden = hidden

    @property
    def behind(self) -> bool:
        """True when there is more to tell."""
        return bool(self._pending or self._moved or self._anew)

    def _update(self, moid: str, changed: set[str], selected: bool, call: WireCall) -> str:
        known = self._known.get(moid)
        obj = self._collector.find(moid) if selected else None
        if obj is None:
            if known is None:
                return ""
            del self._known[moid]
            call.told[self._kinds[moid]] += 1
            return f"<objectSet><kind>leave</kind>{_reference('obj', self._kinds.pop(moid), moid)}</objectSet>"
        paths = self._sets.paths(obj.vmodl)
        if paths is None:
            return ""
        name = GetWsdlName(obj.vmodl)
        if known is None:
            kind, known = "enter", {}
            self._known[moid], self._kinds[moid] = known, name
            body = "".join(self._first(obj, paths, known, call))
        else:
            kind = "modify"
            body = "".join(self._changes(obj, paths, changed, known, call))
            if not body:
                return ""
        call.told[name] += 1
        return f"<objectSet><kind>{kind}</kind>{_reference('obj', name, moid)}{body}</objectSet>"

    def _first(self, obj: ManagedObject, paths: Iterable[str], known: dict[str, str], call: WireCall) -> Iterator[str]:
        fault = refusal(obj, call)
        if fault is not None:
            yield from (_missing(path, fault, call.encoder) for path in paths)
            return
        heads: dict[str, Any] = {}
        for path in paths:
            value = known[path] = self._collector.hub.value(obj, path, call, heads)
            if value:
                yield f"<changeSet>{_change(path, value)}</changeSet>"

    def _changes(
        self, obj: ManagedObject, paths: Iterable[str], changed: set[str], known: dict[str, str], call: WireCall
    ) -> Iterator[str]:
        fault = refusal(obj, call)
        heads: dict[str, Any] = {}
        for path in paths:
            hits = [change for change in changed if touches(path, change)]
            if not hits:
                continue
            if fault is not None:
                known.pop(path, None)
                yield _missing(path, fault, call.encoder)
                continue
            value = self._collector.hub.value(obj, path, call, heads)
            if value == known.get(path):
                continue
            known[path] = value
            below = [hit for hit in hits if covers(path, hit) and hit != path]
            if self._partial and value and below and len(below) == len(hits):
                for hit in sorted(below):
                    part = self._collector.hub.value(obj, hit, call, heads)
                    yield f"<changeSet>{_change(hit, part)}</changeSet>"
            else:
                yield f"<changeSet>{_change(path, value)}</changeSet>"

    @soap("DestroyPropertyFilter")
    def destroy(self, call: WireCall) -> None:
        """End it; its objects are not reported as left."""
        call.session.drop(self)

    def dispose(self) -> None:
        """Called once when it is destroyed or its session ends."""
        self._collector.filters.pop(self.moid, None)
        self._collector.hub.unwatch(self._interest, self)
        self._interest = set()


def _change(path: str, value: str) -> str:
    """A property that became unset is an assignment of nothing."""
    return f"<name>{escape(path)}</name><op>assign</op>{value}"


def no_such_object(ref: Any) -> Any:
    """The fault for a reference to nothing, worded as vCenter does."""
    name = f"{type(ref).__name__}:{ref._moId}"
    return vmodl.fault.ManagedObjectNotFound(
        obj=ref, msg=f"The object '{name}' has already been deleted or has not been completely created"
    )


class PropertyCollector(ManagedObject):
    """One collector of one session: its filters share one version and one waiting call."""

    vmodl: ClassVar[type] = vmodl.query.PropertyCollector

    def __init__(self, hub: PropertyHub, session: Session, moid: str) -> None:
        super().__init__(hub.world, moid)
        self.hub = hub
        self.filters: dict[str, Filter] = {}
        self._session = session
        self._news = Event()
        self._turn = 0
        self._disposed = False
        self._version = 0
        self._truncated = False
        self._replay: tuple[str, Raw] | None = None
        self._pages: dict[str, _Pages] = {}
        self._tokens = itertools.count(1)

    def prop_filter(self) -> Any:
        """The filters of this collector."""
        return _Collector.Filter.Array([one.ref for one in self.filters.values()])

    @property
    def find(self) -> Finder:
        """Objects as this session sees them."""
        return self._session.find

    @property
    def waiting(self) -> bool:
        """True while a client waits for updates here."""
        return self._waiters > 0

    _waiters = 0

    def wake(self) -> None:
        """There may be news."""
        self._news.set()

    # Filters and collectors ------------------------------------------------------------------------------------

    @soap("CreateFilter")
    def create_filter(self, call: WireCall, spec: Any, partialUpdates: bool) -> Filter | None:  # noqa: N803 - API's name
        """A filter that reports from the next update on."""
        if CREATES_NOTHING in call.effects:
            return None
        one = Filter(self, call.session.new_moid(), spec, partialUpdates)
        self.filters[one.moid] = one
        call.session.adopt(one)
        self.wake()
        return one

    @soap("CreatePropertyCollector")
    def create_collector(self, call: WireCall) -> PropertyCollector | None:
        """A further collector of the same session, with filters, version and wait of its own."""
        if CREATES_NOTHING in call.effects:
            return None
        one = PropertyCollector(self.hub, call.session, call.session.new_moid())
        self.hub.count(1)
        call.session.adopt(one)
        return one

    @soap("DestroyPropertyCollector")
    def destroy(self, call: WireCall) -> None:
        """End it and its filters; the one that every session has cannot be destroyed."""
        if self.moid == DEFAULT_COLLECTOR:
            raise vmodl.fault.NotSupported(msg="The session's own property collector cannot be destroyed.")
        call.session.drop(self)

    def dispose(self) -> None:
        """Called once when it is destroyed or its session ends."""
        self._disposed = True
        if self.moid != DEFAULT_COLLECTOR:
            self.hub.count(-1)
        for one in tuple(self.filters.values()):
            self._session.drop(one)
        self.wake()

    def lose(self) -> None:
        """Forget the version, as a vCenter does that restarted this service: any version is invalid then."""
        self._version += 1000
        self._replay = None
        self.wake()

    # Updates -------------------------------------------------------------------------------------------------

    @soap("WaitForUpdatesEx")
    def wait_for_updates_ex(self, call: WireCall, version: str = "", options: Any = None) -> Raw | None:
        """The next update set. ``maxWaitSeconds`` 0 answers at once, unset waits until there is one."""
        seconds = options.maxWaitSeconds if options is not None else None
        limit = options.maxObjectUpdates if options is not None else None
        if (seconds is not None and seconds < 0) or (limit is not None and limit <= 0):
            raise vmodl.fault.InvalidArgument(invalidProperty="options", msg="Wait options must be positive.")
        return self._wait(call, version, seconds, _page_size(call, limit))

    @soap("WaitForUpdates")
    def wait_for_updates(self, call: WireCall, version: str = "") -> Raw | None:
        """The old form: no time limit, no truncation."""
        return self._wait(call, version, None, None)

    @soap("CheckForUpdates")
    def check_for_updates(self, call: WireCall, version: str = "") -> Raw | None:
        """The old form: answers at once, nothing when there is no news."""
        return self._wait(call, version, 0, None)

    @soap("CancelWaitForUpdates")
    def cancel_wait(self, call: WireCall) -> None:
        """Whoever waits here gets ``RequestCanceled``; nothing happens when nobody does."""
        self._turn += 1
        self.wake()

    def _wait(self, call: WireCall, version: str, seconds: float | None, limit: int | None) -> Raw | None:
        repeat = self._accept(version)
        if repeat is not None:
            return repeat
        # A second wait on the same collector ends the first one, whose client has gone or lost its mind.
        self._turn += 1
        mine = self._turn
        self.wake()
        began = time.monotonic()  # real time, as the wait itself is, whatever the world's clock
        at_version = self._version
        self._waiters += 1
        try:
            while True:
                self._news.clear()
                text = self._take(call, limit)
                if text is not None:
                    return text
                left = None if seconds is None else seconds - (time.monotonic() - began)
                if left is not None and left <= 0:
                    return None
                if self._news.wait(LISTENING_SECONDS if left is None else min(left, LISTENING_SECONDS)):
                    gevent.sleep(BATCH_SECONDS)
                elif call.gone():
                    return None
                if not self._session.quiet:
                    self._still_wanted(mine, at_version)
        finally:
            self._waiters -= 1

    def _still_wanted(self, turn: int, version: int) -> None:
        if self._session.ended:
            raise vim.fault.NotAuthenticated(
                object=self.ref, privilegeId="System.View", msg="The session is not authenticated."
            )
        if self._disposed:
            raise no_such_object(self.ref)
        if self._turn != turn:
            raise vmodl.fault.RequestCanceled(msg="The request was canceled.")
        if self._version != version:
            raise vmodl.query.InvalidCollectorVersion(msg="The collector was lost.")

    def _accept(self, version: str) -> Raw | None:
        """Take the client's version as acknowledgement; the last set again when its response was lost."""
        if not version:
            self._replay, self._truncated = None, False
            for one in self.filters.values():
                one.restart()
            return None
        if version == str(self._version):
            self._replay = None
            return None
        if self._replay is not None and version == self._replay[0]:
            return self._replay[1]
        raise vmodl.query.InvalidCollectorVersion(msg=f"The version {version!r} is not known.")

    def _take(self, call: WireCall, limit: int | None) -> Raw | None:
        sets: list[str] = []
        if EMPTY_READS not in call.effects:
            budget = limit if limit is not None else 10**9
            for one in self.filters.values():
                text, count = one.take(budget, call)
                if text:
                    filter_ref = _reference("filter", "PropertyFilter", one.moid)
                    sets.append(f"<filterSet>{filter_ref}{text}</filterSet>")
                    budget -= count
                if budget <= 0:
                    break
        if not sets:
            return None
        previous = str(self._version)
        self._version += 1
        # A truncated set's version may be used once, so the set that follows it is never sent again.
        replayable, self._truncated = not self._truncated, False
        if limit is not None:
            self._truncated = any(one.behind for one in self.filters.values())
        flag = "<truncated>true</truncated>" if self._truncated else ""
        text = Raw(f"<returnval><version>{self._version}</version>{''.join(sets)}{flag}</returnval>")
        self._replay = (previous, text) if replayable else None
        return text

    # Retrieval -----------------------------------------------------------------------------------------------

    @soap("RetrievePropertiesEx")
    def retrieve_ex(self, call: WireCall, specSet: Any, options: Any = None) -> Raw | None:  # noqa: N803 - API's name
        """The first page; unset when nothing is selected, as in vCenter."""
        limit = options.maxObjects if options is not None else None
        if limit is not None and limit <= 0:
            raise vmodl.fault.InvalidArgument(invalidProperty="options.maxObjects", msg="maxObjects must be positive.")
        return self._page(call, "", _Pages(self._plan(call, specSet), _page_size(call, limit)))

    @soap("ContinueRetrievePropertiesEx")
    def retrieve_continue(self, call: WireCall, token: str) -> Raw | None:
        """The next page of a token; each token is good once."""
        return self._page(call, token, self._claim(token))

    @soap("CancelRetrievePropertiesEx")
    def retrieve_cancel(self, call: WireCall, token: str) -> None:
        """Forget the rest of a retrieval."""
        self._claim(token)

    @soap("RetrieveProperties")
    def retrieve(self, call: WireCall, specSet: Any) -> Raw:  # noqa: N803 - the API's name
        """The old form: everything at once."""
        plan = self._plan(call, specSet)
        return Raw("".join(content(self, obj, paths, call, "returnval") for obj, paths in plan))

    def _claim(self, token: str) -> _Pages:
        pages = self._pages.pop(token, None)
        if pages is None:
            raise vmodl.fault.InvalidArgument(invalidProperty="token", msg=f"The token {token!r} is not known.")
        return pages

    def _plan(self, call: WireCall, spec_set: Any) -> Iterator[tuple[ManagedObject, tuple[str, ...]]]:
        """What to read, checked whole before the first object is encoded."""
        plan: list[tuple[str, tuple[str, ...]]] = []
        hidden = self.hub.hidden(call)
        for spec in spec_set:
            sets = PropertySets(spec.propSet)
            walk = Walk(Selection(spec.objectSet), self.find)
            if walk.missing and not spec.reportMissingObjectsInResults:
                raise no_such_object(walk.missing[0])
            for moid in walk.selected:
                obj = self.find(moid)
                paths = sets.paths(obj.vmodl) if obj is not None and moid not in hidden else None
                if paths is not None:
                    plan.append((moid, paths))
        if EMPTY_READS in call.effects:
            plan.clear()
        return ((obj, paths) for moid, paths in plan if (obj := self.find(moid)) is not None)

    def _page(self, call: WireCall, token: str, pages: _Pages) -> Raw | None:
        parts = [content(self, obj, paths, call, "objects") for obj, paths in pages.next()]
        if not parts and not token:
            return None
        if pages.more:
            token = str(next(self._tokens))
            self._pages[token] = pages
            head = f"<token>{token}</token>"
        else:
            head = ""
        return Raw(f"<returnval>{head}{''.join(parts)}</returnval>")


class _Pages:
    """What is left of a retrieval."""

    def __init__(self, plan: Iterator[tuple[ManagedObject, tuple[str, ...]]], size: int) -> None:
        self._plan = plan
        self._size = size
        self._ahead: tuple[ManagedObject, tuple[str, ...]] | None = None
        self.more = True

    def next(self) -> list[tuple[ManagedObject, tuple[str, ...]]]:
        """The next page; looks one object ahead, because a token for nothing would be a lie."""
        page = [self._ahead] if self._ahead is not None else []
        page += itertools.islice(self._plan, self._size - len(page))
        self._ahead = next(self._plan, None)
        self.more = self._ahead is not None
        return page


def _page_size(call: WireCall, wanted: int | None) -> int:
    return 1 if SMALL_PAGES in call.effects else min(wanted or PAGE, PAGE)


def content(collector: PropertyCollector, obj: ManagedObject, paths: Iterable[str], call: WireCall, tag: str) -> str:
    """One ``ObjectContent``."""
    fault = refusal(obj, call)
    heads: dict[str, Any] = {}
    parts: list[str] = []
    for path in paths:
        if fault is not None:
            parts.append(_missing(path, fault, call.encoder))
        elif value := collector.hub.value(obj, path, call, heads):
            parts.append(f"<propSet>{_named(path, value)}</propSet>")
    reference = _reference("obj", GetWsdlName(obj.vmodl), obj.moid)
    return f"<{tag}>{reference}{''.join(parts)}</{tag}>"
