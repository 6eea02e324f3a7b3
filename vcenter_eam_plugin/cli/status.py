# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam status``: how the running service and its ContrailVMs are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from vcenter_eam_plugin.cli.client import api, service_options
from vcenter_eam_plugin.cli.consent import clean, console, json_option

_COLOURS = {"ACTIVE": "green", "MAINTENANCE": "cyan", "STANDBY": "cyan", "DEPLOYING": "yellow", "STARTING": "yellow"}
"""The others are red: no vRouter, and something to look at."""
_SOURCES = {"inventory": "inventory of vCenter", "events": "events of vCenter", "eam": "runtime of EAM"}


@click.command("status")
@service_options
@json_option
def command(paths: tuple[Path, ...], vcenter: str, as_json: bool) -> None:
    """Show how the running service and its ContrailVMs are.

    Example: vcenter-eam status --json | jq '.vcenters[].alarms'
    """
    service = api(paths)
    status, hosts = service.get("/api/v1/status"), service.get("/api/v1/hosts")["hosts"]
    chosen = [each for each in status["vcenters"] if vcenter in ("", each["name"])]
    hosts = [host for host in hosts if vcenter in ("", host["vcenter"])]
    if as_json:
        click.echo(json.dumps({"vcenters": chosen, "hosts": hosts, "loop": status["loop"]}))
        return
    _show_loop(status["loop"])
    for each in chosen:
        _show_vcenter(each)
    _show_hosts(hosts, {each["name"]: each.get("waiting", {}) for each in chosen})


def _show_loop(loop: dict[str, Any]) -> None:
    """Only where something is wrong: everything that the service does waits while its loop is held."""
    longest = loop["longest_in_last_minute"]
    if longest["ms"] > loop["limit_ms"]:
        where = f" at {longest['where']}" if longest["where"] else ""
        text = f"the event loop was held for {longest['ms']:.0f} ms, {longest['cpu_ms']:.0f} of it computing{where}"
        click.secho(clean(f"in the last minute {text}"), fg="yellow")


def _show_vcenter(each: dict[str, Any]) -> None:
    counts = ", ".join(f"{count} {state}" for state, count in each.get("states", {}).items())
    counts = counts or ("no ContrailVM" if each.get("ready") else "nothing read yet")
    leader = each.get("leader")
    leading = "leading" if each.get("leading") else f"standby of {leader}" if leader else "not leading"
    agency = each.get("agency")
    click.echo(clean(f"{each['name']}: {each['vcenter']}, mode {each['mode']}, {leading}; {counts}"))
    click.echo(clean(f"  agency {agency['moref']}, {agency['status']}" if agency else "  no agency"))
    for name, source in each.get("sources", {}).items():
        if not source["live"]:
            why = f": {source['why']}" if source["why"] else ""
            age = f"stale since {source['stale_since']} ({source['stale_seconds']} s)"
            click.secho(clean(f"  {_SOURCES[name]} {age}{why}"), fg="yellow")
    if each.get("sources") and all(source["live"] for source in each["sources"].values()):
        click.echo("  inventory, events and EAM live")
    for alarm in each["alarms"]:
        click.secho(clean(f"  ALARM {alarm['name']}: {alarm['text']}"), fg="red")


def _show_hosts(hosts: list[dict[str, Any]], waiting: dict[str, dict[str, list[str]]]) -> None:
    """``waiting``: by vCenter and host, why nothing is done just now."""
    table = Table()
    for column in ("host", "cluster", "state", "ContrailVM", "address", "reason"):
        table.add_column(column, overflow="fold")
    for host in hosts:
        vm, esxi = host["vm"] or {}, host["esxi"]
        violations = "; ".join(violation["name"] for violation in host["violations"])
        reason = "; ".join((host["reason"], *waiting[host["vcenter"]].get(esxi["moref"], ())))
        if violations:
            reason = f"{reason} [RULE BROKEN: {violations}]"
        state = f"[{_COLOURS.get(host['state'], 'red')}]{host['state']}[/]"
        cells = (escape(clean(text)) for text in (vm.get("name") or "-", vm.get("ip") or "-", reason))
        table.add_row(escape(clean(esxi["name"])), escape(clean(esxi["cluster"])), state, *cells)
    console().print(table)
