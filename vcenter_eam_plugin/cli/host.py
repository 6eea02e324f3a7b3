# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam host NAME``: everything about one host."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from vcenter_eam_plugin.cli.client import api, service_options
from vcenter_eam_plugin.cli.completion import complete_hosts
from vcenter_eam_plugin.cli.consent import console, json_option
from vcenter_eam_plugin.cli.events import line
from vcenter_eam_plugin.cli.status_view import moment, since, state_text
from vcenter_eam_plugin.cli.text import clean

LAST = 20
"""Events that are shown unless more are asked for."""


@click.command("host")
@click.argument("name", metavar="HOST", shell_complete=complete_hosts)
@click.option(
    "--events", "last", default=LAST, show_default=True, type=click.IntRange(0, 1000), help="How many events."
)
@service_options
@json_option
def command(name: str, last: int, paths: tuple[Path, ...], vcenter: str, as_json: bool) -> None:
    """Show everything about HOST: states, issues with advice, plan, events.

    HOST is a name or a moref.

    Example: vcenter-eam host esx-01.example
    """
    service = api(paths)
    host = service.get(f"/api/v1/hosts/{quote(name, safe='')}?{urlencode({'vcenter': vcenter})}")
    asked = {"host": host["esxi"]["moref"], "vcenter": host["vcenter"], "limit": last}
    events = service.get(f"/api/v1/events?{urlencode(asked)}")["events"] if last else []
    if as_json:
        click.echo(json.dumps({"host": host, "events": events}))
    else:
        console().print(drawn(host, events, time.time()))


def drawn(host: Mapping[str, Any], events: Sequence[Mapping[str, Any]], now: float) -> Group:
    """For a person. ``now`` is POSIX seconds."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for what, said in _facts(host, now):
        grid.add_row(what, said if isinstance(said, Text) else escape(clean(said)))
    parts: list[RenderableType] = [grid]
    for title, lines in (("Issues", _issues(host)), ("Plan", _plan(host["plan"])), ("Events", map(line, events))):
        told = list(lines)
        parts += ["", Text(title, style="bold")]
        parts += [Text(f"  {clean(each)}") for each in told] or [Text("  none", style="dim")]
    return Group(*parts)


def _facts(host: Mapping[str, Any], now: float) -> Iterator[tuple[str, str | Text]]:
    esxi, vm, eam, settings, vrouter = host["esxi"], host["vm"], host["eam"], host["settings"], host["vrouter"]
    began = f"since {moment(host['since'])}" if host["since"] is not None else "since when is not known"
    before = "" if host["since_known"] or host["since"] is None else ", or before"
    yield "host", f"{esxi['name']} ({esxi['moref']}) in {esxi['cluster']}, {esxi['datacenter']}, {host['vcenter']}"
    yield "state", state_text(host["state"])
    yield "", f"{began}{before} ({since(host, now)}); {host['reason'] or 'no reason given'}"
    if host["last_state"]:
        yield "last state", host["last_state"]
    mode = "in maintenance" if esxi["maintenance"] else f"standby {esxi['standby']}"
    yield "ESXi", ", ".join(filter(None, (esxi["connection"], esxi["power"], mode, esxi["task"])))
    yield "settings", f"datastore {settings['datastore'] or 'unset'}, network {settings['network'] or 'unset'}"
    if vm:
        place = "" if vm["host"] in (None, esxi["moref"]) else f", on another host: {vm['host']}"
        yield "ContrailVM", f"{vm['name']} ({vm['moref']}), {vm['power']}, heartbeat {vm['heartbeat']}{place}"
        yield "", f"address {vm['ip'] or 'unknown'}, instance uuid {vm['instance_uuid'] or 'unknown'}"
    else:
        yield "ContrailVM", "none"
    use = "usable" if vrouter["active"] else "not usable"
    yield "vRouter", " ".join(filter(None, (use, vrouter["name"], vrouter["ip"])))
    if eam["agent"]:
        yield "EAM", f"agent {eam['agent']} of {eam['agency']}, {eam['status']}, goal {eam['goal']}"
    else:
        yield "EAM", "no agent"
    if eam["hook"]:
        yield "held", f"hook {eam['hook']}: EAM waits until the ContrailVM is marked as available"
    for violation in host["violations"]:
        yield "RULE BROKEN", f"{violation['name']}: {violation['text']}. {violation['advice']}"
    yield "key", host["key"]


def _issues(host: Mapping[str, Any]) -> Iterator[str]:
    for issue in host["issues"]:
        yield f"{issue['type']}: {issue['meaning']}"
        if issue["description"]:
            yield f"  EAM says: {issue['description']}"
        yield f"  Resolve touches at most: {issue['radius']}; policy {issue['policy']}. {issue['advice']}"


def _plan(plan: Mapping[str, Any]) -> Iterator[str]:
    for action in plan["actions"]:
        yield f"{action['text']} (touches: {action['radius']})"
    for reason in plan["waiting"]:
        yield f"waits: {reason}"
    if plan["again_in"] is not None:
        yield f"is planned anew in {plan['again_in']:.0f} s"
    if plan["actions"] and plan["closed"]:
        yield f"none of it is done: {plan['closed']}"
