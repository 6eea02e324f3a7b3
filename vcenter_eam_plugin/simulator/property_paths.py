# SPDX-License-Identifier: Apache-2.0
"""Property paths of managed objects: are they possible, what do they mean, do two of them touch each other.

A path is what the API takes: ``runtime.powerState``, ``config.hardware.device[4000].backing``. Pure functions over
pyVmomi's type tables; no state but caches of what the tables say.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

from pyVmomi import VmomiSupport
from pyVmomi.VmomiSupport import DataObject, GetVmodlType
from pyVmomi.VmomiSupport import ManagedObject as Reference

from vcenter_eam_plugin.simulator.world import ManagedObject

_SEGMENT = re.compile(r'([A-Za-z_]\w*)(?:\["?([^"\]]+)"?\])?(?:\.|$)')


@lru_cache(maxsize=4096)
def segments(path: str) -> tuple[tuple[str, str | None], ...]:
    """(name, key in brackets or ``None``) of each step; ``()`` when the text is no path."""
    found: list[tuple[str, str | None]] = []
    position = 0
    while position < len(path):
        match = _SEGMENT.match(path, position)
        if match is None:
            return ()
        found.append((match[1], match[2]))
        position = match.end()
    return tuple(found) if path and not path.endswith(".") else ()


def covers(outer: str, inner: str) -> bool:
    """True when ``inner`` is ``outer`` or lies below it."""
    return inner.startswith(outer) and (len(inner) == len(outer) or inner[len(outer)] in ".[")


def touches(one: str, other: str) -> bool:
    """True when a change at one path may change the value at the other."""
    return covers(one, other) or covers(other, one)


@cache
def _children() -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """Data types by the name of their parent type, each with its own fields: for fields that only a subclass has."""
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for definition in VmomiSupport._wsdlDefMap.values():
        if len(definition) == 5 and definition[2]:  # a data type: name, WSDL name, parent, version, fields
            found.setdefault(definition[2], []).append(
                (definition[0], tuple(field[0] for field in definition[4] or ()))
            )
    return found


def _field_type(kind: Any, name: str) -> Any:
    """Type of a field of a data type or of one of its subclasses; ``None`` when none has it."""
    try:
        return kind._GetPropertyInfo(name).type
    except AttributeError:
        pass
    open_ = [kind.__name__]
    while open_:
        for child, fields in _children().get(open_.pop(), ()):
            if name in fields:
                return GetVmodlType(child)._GetPropertyInfo(name).type
            open_.append(child)
    return None


@lru_cache(maxsize=16384)
def declared_type(kind: Any, path: str) -> Any:
    """pyVmomi type that the schema declares at a path of a managed object type, ``None`` when the path is impossible.

    A field that only a subclass of the declared data type has is possible (``configurationEx.dasConfig``).
    """
    found = kind
    for name, key in segments(path) or (("", None),):
        if found is None or not issubclass(found, Reference | DataObject):
            return None
        if found is not kind and issubclass(found, Reference):
            return None  # a path does not lead into another managed object
        found = _field_type(found, name) if found is not kind else _property_type(kind, name)
        if key is not None:
            if found is None or not issubclass(found, list):
                return None
            found = found.Item
    return found


def _property_type(kind: Any, name: str) -> Any:
    try:
        return kind._GetPropertyInfo(name).type
    except AttributeError:
        return None


@cache
def all_properties(kind: Any) -> tuple[str, ...]:
    """Names of all properties of a managed object type, its bases' first."""
    return tuple(info.name for info in kind._GetPropertyList())


def read(obj: ManagedObject, path: str, heads: dict[str, Any] | None = None) -> Any:
    """Value at a path, ``None`` when unset or when the value there is of a class without that field.

    ``heads`` keeps the object's top-level values between reads of one answer: some are costly to compute.
    """
    (name, key), *rest = segments(path)
    try:
        if heads is None:
            value = obj.get(name)
        elif name in heads:
            value = heads[name]
        else:
            value = heads[name] = obj.get(name)
        value = _element(value, key)
        for name, key in rest:
            if value is None:
                return None
            value = _element(getattr(value, name), key)
    except AttributeError:
        return None
    return value


def _element(value: Any, key: str | None) -> Any:
    """The element of an array that has that key; the value itself when no key is asked for."""
    if key is None or value is None:
        return value
    return next((item for item in value if str(getattr(item, "key", None)) == key), None)
