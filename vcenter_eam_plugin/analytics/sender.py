# SPDX-License-Identifier: Apache-2.0
"""Where UVEs go: to a collector through pysandesh, or as JSON lines to whoever reads.

pysandesh and the package that Contrail's build makes of ``contrail_vm_status.sandesh`` are not on PyPI: both are
imported when they are asked for, and what lacks is said in one sentence. Facts about pysandesh are from its public
source (contrail-common, ``sandesh/library/python``); none of it could be run where this was written.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from vcenter_eam_plugin.analytics.definition import NAME, UVE
from vcenter_eam_plugin.analytics.uve import STRUCT, ContrailVMIssue, ContrailVMViolation, Uve
from vcenter_eam_plugin.domain.errors import ConfigurationError

Send = Callable[[Uve], object]
"""Takes a UVE; what it raises ends whoever sends."""

NO_HTTP = -1
"""``http_port`` that has pysandesh serve no introspect page."""

_REFUSED = -1
"""What ``send()`` of a UVE returns when pysandesh did not take it."""


def json_line(uve: Uve) -> str:
    """One line: the struct under its table and key, ``data`` null when it is deleted."""
    line = {
        "table": uve.place.table,
        "key": uve.place.key,
        "struct": STRUCT,
        "deleted": uve.deleted,
        "data": uve.status,
    }
    return msgspec.json.encode(line).decode()


class SandeshSender:
    """Sends through a generator: ``sandesh`` is a pysandesh ``Sandesh`` after ``init_generator``, ``types`` the
    generated ``contrail_vm_status.ttypes``.

    The generator keeps what was sent and syncs it with whichever collector it connects to, so a collector that is away
    costs nothing here. Raises ConfigurationError when the generator cannot be taught our UVE.
    """

    def __init__(self, sandesh: Any, types: Any, log: logging.Logger) -> None:
        self._sandesh = sandesh
        self._types = types
        self._log = log
        self._refused = False
        _register(sandesh, types)

    def __call__(self, uve: Uve) -> None:
        """Hand one over. A generator that takes nothing (its sending is disabled) is logged once, and once when it does
        again; what it remembers it sends then."""
        data = getattr(self._types, STRUCT)(name=uve.place.key)
        if uve.status is None:
            data.deleted = True
        else:
            for name in uve.status.__struct_fields__:
                setattr(data, name, self._value(getattr(uve.status, name)))
        message = getattr(self._types, UVE)(table=uve.place.table, data=data, sandesh=self._sandesh)
        refused = message.send(sandesh=self._sandesh) == _REFUSED
        if refused != self._refused:
            self._refused = refused
            said = "does not take UVEs; its own log says why" if refused else "takes UVEs again"
            self._log.warning("The sandesh generator %s.", said)

    def _value(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return [self._value(each) for each in value]
        if isinstance(value, (ContrailVMIssue, ContrailVMViolation)):
            return getattr(self._types, type(value).__name__)(**msgspec.structs.asdict(value))
        return value


def generated_types() -> Any:
    """The generated module. Raises ConfigurationError that says what lacks."""
    _pysandesh("pysandesh.sandesh_base")
    try:
        return importlib.import_module(f"{NAME}.ttypes")
    except ImportError as exc:
        raise ConfigurationError(
            f"The Python package {NAME} is not there; Contrail's build makes it of {NAME}.sandesh ({exc}).",
            remedy="docs/analytics.md says how; --json prints the UVEs without it.",
        ) from exc


def new_generator(collectors: Sequence[str], source: str) -> Any:
    """A generator of our own, for a process that has none; ``collectors`` are ``address:port``, ``source`` our host.

    Raises ConfigurationError when pysandesh lacks.
    """
    sandesh = _pysandesh("pysandesh.sandesh_base").Sandesh()
    module = "contrail-vcenter-eam-plugin"
    sandesh.init_generator(module, source, "Config", "0", list(collectors), module, NO_HTTP, [NAME])
    return sandesh


def _pysandesh(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ConfigurationError(
            f"pysandesh, the library by which Contrail's services talk to a collector, cannot be imported ({exc}).",
            remedy="Run this where Contrail's Python packages are installed; --json prints the UVEs without it.",
        ) from exc


def _register(sandesh: Any, types: Any) -> None:
    """Make a generator know our UVE, as ``init_generator`` does with the packages that are named to it.

    A host named its own packages long before it loaded us; a UVE that is not registered is refused by ``send()``.
    """
    uve_module = _pysandesh("pysandesh.sandesh_uve")
    kinds = _pysandesh("pysandesh.gen_py.sandesh.ttypes").SandeshType
    try:
        known = sandesh._uve_type_maps.get_uve_type_map(UVE)  # there is no public way to ask
        if known is None:
            uve_module.SandeshUVEPerTypeMap(sandesh, kinds.UVE, getattr(types, UVE), getattr(types, STRUCT))
    except (AttributeError, TypeError) as exc:
        raise ConfigurationError(
            f"The sandesh generator of this process cannot be taught {UVE} ({exc}).",
            remedy=f"Name the package {NAME} in its init_generator().",
        ) from exc
