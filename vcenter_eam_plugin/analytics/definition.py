# SPDX-License-Identifier: Apache-2.0
"""Writes ``contrail_vm_status.sandesh`` from the code, so that the definition and the mapping are one.

    python -m vcenter_eam_plugin.analytics.definition > vcenter_eam_plugin/analytics/contrail_vm_status.sandesh

Contrail's build makes the Python package ``contrail_vm_status`` of it (``env.SandeshGenPy``). A test compares the file
with this.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import resources
from typing import Any, get_args, get_type_hints

import msgspec

from vcenter_eam_plugin.analytics.uve import (
    SERVER_TABLE,
    STRUCT,
    ContrailVMIssue,
    ContrailVMStatus,
    ContrailVMViolation,
)

NAME = "contrail_vm_status"
"""Of the file, and of the package that the build makes of it."""

UVE = f"{STRUCT}UVE"
"""The class that is sent; ``table`` of its constructor says where to."""

_SCALARS: dict[Any, str] = {str: "string", bool: "bool", int: "u64"}

_HEAD = f"""\
/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Generated: python -m vcenter_eam_plugin.analytics.definition
 *
 * What contrail-vcenter-eam-plugin tells analytics of each ContrailVM. The table is given with each UVE: that of the
 * vRouter once it is known, else {SERVER_TABLE} with the name of the ESXi host; docs/analytics.md.
 */
"""


def definition() -> str:
    """The whole file."""
    status = [
        f'    1: string name (key="{SERVER_TABLE}")',
        "    2: optional bool deleted",
        *(f"    {number}: optional {kind} {name}" for number, (name, kind) in enumerate(_fields(ContrailVMStatus), 3)),
    ]
    parts = [_HEAD]
    for part in (ContrailVMIssue, ContrailVMViolation):
        lines = [f"    {number}: {kind} {name}" for number, (name, kind) in enumerate(_fields(part), 1)]
        parts.append("\n".join([f"struct {part.__name__} {{", *lines, "}", ""]))
    parts.append("\n".join([f"struct {STRUCT} {{", *status, "}", ""]))
    parts.append(f"uve sandesh {UVE} {{\n    1: {STRUCT} data\n}}\n")
    return "\n".join(parts)


def shipped() -> str:
    """The file as it was installed."""
    return resources.files(__package__).joinpath(f"{NAME}.sandesh").read_text("utf-8")


def _fields(kind: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    hints = get_type_hints(kind)
    for name in kind.__struct_fields__:
        hint = hints[name]
        yield name, _SCALARS.get(hint) or f"list<{get_args(hint)[0].__name__}>"


if __name__ == "__main__":
    sys.stdout.write(definition())
