# SPDX-License-Identifier: Apache-2.0
"""Which objects a property filter selects: object specs and traversal specs, walked and kept current.

A :class:`Walk` remembers every edge that it followed. When a property that was followed changes, only what came
newly into reach is visited; only when something went out of reach is everything walked again. So a host added to
2,500 costs one visit, and a change of no followed property costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyVmomi import vmodl

from vcenter_eam_plugin.simulator.property_paths import declared_type, read, touches
from vcenter_eam_plugin.simulator.world import ManagedObject

_Collector = vmodl.query.PropertyCollector
Finder = Callable[[Any], ManagedObject | None]


class Step:
    """One compiled traversal spec: from objects of ``kind`` along ``path``; ``then`` are the steps from there."""

    __slots__ = ("kind", "path", "skip", "then")

    def __init__(self, kind: type, path: str, skip: bool) -> None:
        self.kind = kind
        self.path = path
        self.skip = skip
        self.then: tuple[Step, ...] = ()


def compile_steps(select_set: Iterable[Any]) -> tuple[Step, ...]:
    """Compile a ``selectSet``. Selections by name may point forward, backward and to themselves.

    Raises ``InvalidArgument`` for an unknown name and ``InvalidProperty`` for a path that its type lacks.
    """
    select_set = tuple(select_set or ())
    named: dict[str, Step] = {}
    compiled: dict[int, Step] = {}

    def declare(spec: Any) -> None:
        if not isinstance(spec, _Collector.TraversalSpec):
            return
        if declared_type(spec.type, spec.path) is None:
            raise vmodl.query.InvalidProperty(
                name=spec.path, msg=f"{spec.type.__name__} has no property {spec.path!r}."
            )
        step = compiled[id(spec)] = Step(spec.type, spec.path, bool(spec.skip))
        if spec.name:
            named.setdefault(spec.name, step)
        for inner in spec.selectSet or ():
            declare(inner)

    def resolve(spec: Any) -> Step:
        if not isinstance(spec, _Collector.TraversalSpec):
            if spec.name not in named:
                raise vmodl.fault.InvalidArgument(
                    invalidProperty="selectSet", msg=f"There is no traversal spec named {spec.name!r}."
                )
            return named[spec.name]
        step = compiled[id(spec)]
        step.then = tuple(resolve(inner) for inner in spec.selectSet or ())
        return step

    for spec in select_set:
        declare(spec)
    return tuple(resolve(spec) for spec in select_set)


class Selection:
    """The compiled ``objectSet`` of a filter spec."""

    def __init__(self, object_set: Iterable[Any]) -> None:
        self.roots = tuple((spec.obj, bool(spec.skip), compile_steps(spec.selectSet)) for spec in object_set or ())


class Walk:
    """The objects that a selection reaches now, in order of discovery."""

    def __init__(self, selection: Selection, find: Finder) -> None:
        self._selection = selection
        self._find = find
        self.missing: list[Any] = []
        self.selected: dict[str, None] = {}
        self.unresolved: set[str] = set()
        self._edges: dict[str, dict[Step, tuple[str, ...]]] = {}
        for ref, skip, steps in selection.roots:
            if find(ref) is None:
                self.missing.append(ref)
                self.unresolved.add(ref._moId)
            else:
                self._arrive(ref._moId, skip, steps)

    def _arrive(self, moid: str, skip: bool, steps: tuple[Step, ...]) -> None:
        obj = self._find(moid)
        if obj is None:
            self.unresolved.add(moid)
            return
        if not skip:
            self.selected.setdefault(moid)
        for step in steps:
            if issubclass(obj.vmodl, step.kind):
                followed = self._edges.setdefault(moid, {})
                if step not in followed:
                    followed[step] = targets = _targets(obj, step)
                    for target in targets:
                        self._arrive(target, step.skip, step.then)

    def follows(self, moid: str, path: str) -> bool:
        """True when the walk went along a property that a change at ``path`` touches."""
        return any(touches(step.path, path) for step in self._edges.get(moid, ()))

    def advance(self, moid: str) -> bool:
        """Follow the changed edges of one object. False when something went out of reach: walk anew then."""
        obj = self._find(moid)
        if obj is None:
            return False
        for step, before in tuple(self._edges.get(moid, {}).items()):
            now = _targets(obj, step)
            if set(before) - set(now):
                return False
            self._edges[moid][step] = now
            known = set(before)
            for target in now:
                if target not in known:
                    self._arrive(target, step.skip, step.then)
        return True

    def interest(self) -> set[str]:
        """Every object whose change may matter: selected, walked through, or pointed at and not there (yet)."""
        return {*self.selected, *self._edges, *self.unresolved}


def _targets(obj: ManagedObject, step: Step) -> tuple[str, ...]:
    value = read(obj, step.path)
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(ref._moId for ref in value)
    return (value._moId,)
