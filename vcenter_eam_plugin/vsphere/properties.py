# SPDX-License-Identifier: Apache-2.0
"""Reading properties of many objects in few requests, and telling a complete answer from a suspect one.

Not promised: a snapshot. Pages of one read may be moments apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pyVmomi import vim, vmodl

from vcenter_eam_plugin.domain.errors import PrivilegeMissing, ProtocolError, SessionExpired, SilentlyExpired
from vcenter_eam_plugin.domain.understanding import understood
from vcenter_eam_plugin.vsphere.session import Session

#: Objects per page: as many as a vCenter gives at most unless it is told otherwise. Each page is a round trip.
PAGE = 100
#: Objects named in one request: pyVmomi writes a request in one go, about 0.1 ms per object.
NAMED_AT_ONCE = 100
#: Of one read: 200,000 objects, where a vCenter has at most 2,500 hosts.
MOST_PAGES = 2000

_Collector = vmodl.query.PropertyCollector


@dataclass(frozen=True, slots=True)
class Read:
    """One object as one read showed it; a property that is unset is not in ``props``."""

    moref: str
    kind: type
    props: Mapping[str, Any]


def property_spec(kind: Any, paths: Sequence[str]) -> Any:
    """Which properties of one type."""
    return _Collector.PropertySpec(type=kind, pathSet=list(paths), all=False)


def traversal(name: str, kind: Any, path: str, then: Sequence[Any] = ()) -> Any:
    """Follow ``path`` of objects of type ``kind``, and ``then`` the given selections."""
    return _Collector.TraversalSpec(name=name, type=kind, path=path, skip=False, selectSet=list(then))


def selection(name: str) -> Any:
    """A traversal defined elsewhere in the same filter, by its name: this is how recursion is written."""
    return _Collector.SelectionSpec(name=name)


def object_spec(obj: Any, select: Sequence[Any] = (), *, skip: bool = False) -> Any:
    """Where to start. ``skip``: start there but do not report the object itself."""
    return _Collector.ObjectSpec(obj=obj, skip=skip, selectSet=list(select))


def filter_spec(objects: Sequence[Any], properties: Sequence[Any]) -> Any:
    """One filter. Objects that do not exist are reported as missing and do not spoil the whole read."""
    return _Collector.FilterSpec(objectSet=list(objects), propSet=list(properties), reportMissingObjectsInResults=True)


def batched(morefs: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Morefs in as many requests as it takes not to hold the event loop by writing one."""
    rest = iter(morefs)
    while some := tuple(islice(rest, NAMED_AT_ONCE)):
        yield some


def check_missing(session: Session, moref: str, missing: Iterable[Any]) -> None:
    """Raise for a ``missingSet`` that means the *read* is wrong, not the object.

    A session that has ended may answer HTTP 200 with every property in ``missingSet``: SilentlyExpired. A
    privilege that is missing would look like an empty vCenter: PrivilegeMissing.
    """
    for entry in missing:
        fault: Any = entry.fault
        fault = getattr(fault, "fault", None) or fault
        if isinstance(fault, vim.fault.NotAuthenticated):
            raise SilentlyExpired(
                f"{session.name}: {moref} was answered without its properties: the session has ended."
            )
        if isinstance(fault, vim.fault.NoPermission):
            privilege = fault.privilegeId or "System.Read"
            raise PrivilegeMissing(
                f"{session.name}: the account {session.settings.username!r} lacks {privilege} to read"
                f" {entry.path} of {moref}.",
                remedy="Add it to the account's role, with propagation.",
            )


def retrieve(session: Session, spec: Any) -> list[Read]:
    """All objects that the filter selects, over all pages.

    A session that answers without saying that it has ended is renewed here, as :meth:`Session.call` does for one
    that says so; otherwise such answers would go on for ever. Raises SessionExpired when that does not help.
    """
    generation = session.generation
    with understood(f"{session.name}: RetrievePropertiesEx"):
        try:
            return _retrieve(session, spec)
        except SessionExpired:
            session.renew(generation)
        return _retrieve(session, spec)


def _retrieve(session: Session, spec: Any) -> list[Read]:
    collector = session.content.propertyCollector
    options = _Collector.RetrieveOptions(maxObjects=PAGE)
    found: list[Read] = []
    result = session.call(collector.RetrievePropertiesEx, [spec], options)
    while result is not None:
        for content in result.objects or ():
            moref = content.obj._GetMoId()
            check_missing(session, moref, content.missingSet or ())
            props = {prop.name: prop.val for prop in content.propSet or ()}
            found.append(Read(moref, type(content.obj), props))
        if not result.token:
            break
        if len(found) > PAGE * MOST_PAGES:
            raise ProtocolError(f"{session.name}: RetrievePropertiesEx has no end: more than {MOST_PAGES} pages.")
        # The token belongs to this session: a new one could not go on with it.
        result = session.call(collector.ContinueRetrievePropertiesEx, result.token, renew=False)
    return found


def read_objects(session: Session, kind: Any, morefs: Iterable[str], paths: Sequence[str]) -> dict[str, Read]:
    """The same properties of several objects of one type, by moref; those that do not exist are left out."""
    stub = session.vim_stub()
    found: dict[str, Read] = {}
    for some in batched(morefs):
        spec = filter_spec([object_spec(kind(moref, stub)) for moref in some], [property_spec(kind, paths)])
        found.update((read.moref, read) for read in retrieve(session, spec))
    return found
