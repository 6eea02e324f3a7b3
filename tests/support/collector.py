# SPDX-License-Identifier: Apache-2.0
"""A contrail-collector with its generator, as far as UVEs go: neither can be had here.

It behaves as the public sources say (contrail-common ``sandesh_uve.py`` and ``sandesh_base.py``, contrail-analytics
``alarmgen.py``): a UVE is kept by table and key; fields that are not set keep their earlier value; ``deleted`` takes it
away, and one that is sent after that begins anew; a UVE that is not registered with the generator is refused; alarm
rules are evaluated per key over the structs that are there.
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections import defaultdict
from typing import Any

import pytest

from vcenter_eam_plugin.analytics.definition import NAME, shipped
from vcenter_eam_plugin.analytics.sender import json_line
from vcenter_eam_plugin.analytics.uve import Uve


class Collector:
    """``tables[table][key]`` is what analytics holds of our struct. Called with a UVE it takes it in."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.taken = 0

    def __call__(self, uve: Uve) -> None:
        line = json.loads(json_line(uve))
        self.take(line["table"], line["key"], line["data"])

    def take(self, table: str, key: str, fields: dict[str, Any] | None) -> None:
        """``fields`` that are set, or ``None`` for a deletion."""
        self.taken += 1
        if fields is None:
            del self.tables[table][key]  # a deletion of what is not there is a mistake of ours
        else:
            self.tables[table].setdefault(key, {}).update(fields)

    def keys(self) -> set[tuple[str, str]]:
        """Every table and key that there is."""
        return {(table, key) for table, held in self.tables.items() for key in held}


# --- alarm rules -------------------------------------------------------------------------------------------------

_COMPARE = {
    "==": lambda found, wanted: found == wanted,
    "!=": lambda found, wanted: found != wanted,
    "in": lambda found, wanted: isinstance(wanted, list) and found in wanted,
    "not in": lambda found, wanted: not isinstance(wanted, list) or found not in wanted,
    ">": lambda found, wanted: wanted is None or (found is not None and found > wanted),
}


def raised(alarm: dict[str, Any], structs: dict[str, Any]) -> bool:
    """Whether an alarm object's rules hold for one key with these structs (``{"ContrailVMStatus": {...}}``)."""
    return any(all(_holds(each, structs) for each in rule["and_list"]) for rule in alarm["alarm_rules"]["or_list"])


def _holds(condition: dict[str, Any], structs: dict[str, Any]) -> bool:
    value: Any = structs
    for step in condition["operand1"].split("."):
        if value is None:
            return False  # a path that ends early compares with nothing
        value = value.get(step)
    return bool(_COMPARE[condition["operation"]](value, json.loads(condition["operand2"]["json_value"])))


# --- pysandesh ---------------------------------------------------------------------------------------------------


class Generator:
    """Stands for pysandesh's ``Sandesh``; what is sent through it reaches ``collector``."""

    def __init__(self) -> None:
        self.collector = Collector()
        self.disabled = False
        self.initiated: tuple[Any, ...] = ()
        self._uve_type_maps = _TypeMaps()

    def init_generator(self, *arguments: Any) -> None:
        self.initiated = arguments
        for package in arguments[7]:
            module = sys.modules[f"{package}.ttypes"]
            for uve_type, data_type in module._SANDESH_UVE_LIST:
                _PerTypeMap(self, _KINDS.UVE, uve_type, data_type)


class _KINDS:
    UVE = object()


class _TypeMaps:
    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def get_uve_type_map(self, name: str) -> Any:
        return self.known.get(name)


class _PerTypeMap:
    def __init__(self, sandesh: Generator, kind: object, uve_type: type, data_type: type) -> None:
        assert kind is _KINDS.UVE
        assert uve_type.__name__ not in sandesh._uve_type_maps.known, "registered twice"
        sandesh._uve_type_maps.known[uve_type.__name__] = self


def _generated(text: str) -> types.ModuleType:
    """What the sandesh compiler makes of a file, as far as we use it: no field that the file does not name."""
    module = types.ModuleType(f"{NAME}.ttypes")
    for name, body in re.findall(r"^struct (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        setattr(module, name, _struct(name, re.findall(r"^ +\d+: (?:optional )?\S+ (\w+)", body, re.MULTILINE)))
    ((uve, data),) = re.findall(r"^uve sandesh (\w+) \{\n +1: (\w+) data\n\}", text, re.MULTILINE)

    class UveBase:
        def __init__(self, *, table: str, data: Any, sandesh: Generator) -> None:
            self.table, self.data = table, data

        def send(self, *, sandesh: Generator) -> int:
            if sandesh.disabled or sandesh._uve_type_maps.get_uve_type_map(type(self).__name__) is None:
                return -1
            fields = {name: _plain(value) for name, value in vars(self.data).items() if value is not None}
            name = fields.pop("name")
            sandesh.collector.take(self.table, name, None if fields.pop("deleted", False) else fields)
            return 0

    setattr(module, uve, type(uve, (UveBase,), {}))
    module._SANDESH_UVE_LIST = [(getattr(module, uve), getattr(module, data))]  # type: ignore[attr-defined]
    return module


def _struct(name: str, fields: list[str]) -> type:
    def init(self: Any, **values: Any) -> None:
        for field in fields:
            object.__setattr__(self, field, values.pop(field, None))
        assert not values, f"{name} has no {sorted(values)}"

    def set_known(self: Any, field: str, value: Any) -> None:
        assert field in fields, f"{name} has no {field}"
        object.__setattr__(self, field, value)

    return type(name, (), {"__init__": init, "__setattr__": set_known})


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return vars(value) if hasattr(value, "__dict__") else value


@pytest.fixture
def pysandesh(monkeypatch: pytest.MonkeyPatch) -> type[Generator]:
    """pysandesh and the generated package can be imported, as where Contrail's Python packages are installed."""
    parts: dict[str, dict[str, Any]] = {
        "pysandesh": {},
        "pysandesh.sandesh_base": {"Sandesh": Generator},
        "pysandesh.sandesh_uve": {"SandeshUVEPerTypeMap": _PerTypeMap},
        "pysandesh.gen_py": {},
        "pysandesh.gen_py.sandesh": {},
        "pysandesh.gen_py.sandesh.ttypes": {"SandeshType": _KINDS},
        NAME: {},
    }
    for name, content in parts.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, f"{NAME}.ttypes", _generated(shipped()))
    return Generator
