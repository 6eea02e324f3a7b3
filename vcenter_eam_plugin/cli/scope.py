# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam scope``: what the agency covers, and taking some of it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from vcenter_eam_plugin.cli.client import api, operate, service_options
from vcenter_eam_plugin.cli.completion import complete_paths
from vcenter_eam_plugin.cli.consent import consent_options, console, json_option
from vcenter_eam_plugin.cli.text import clean

_COLUMNS = ("path", "configured", "in_agency", "in_inventory", "retreat", "hosts")


@click.group("scope")
def command() -> None:
    """Show what the agency covers, or take a cluster out of it."""


@command.command("show")
@service_options
@json_option
def show(paths: tuple[Path, ...], vcenter: str, as_json: bool) -> None:
    """Show clusters and standalone hosts: configured, covered, in retreat.

    Example: vcenter-eam scope show
    """
    rows = [row for row in api(paths).get("/api/v1/scope")["scope"] if vcenter in ("", row["vcenter"])]
    if as_json:
        click.echo(json.dumps({"scope": rows}))
        return
    table = Table()
    for column in _COLUMNS:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in _COLUMNS))
    console().print(table)


@command.command("remove")
@click.argument("path", shell_complete=complete_paths)
@service_options
@consent_options
def remove(path: str, paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Take PATH out of the agency's scope: EAM deletes the ContrailVMs there.

    Take it out of `clusters` in the configuration first, or it would be added again. Its path must be typed. A
    cluster that left the inventory is named by its moref.

    Example: vcenter-eam scope remove /DC0/host/Old --acknowledge /DC0/host/Old
    """
    operate(paths, vcenter, {"operation": "scope-remove", "target": path}, **consent)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(clean(value))
