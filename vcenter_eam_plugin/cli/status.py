# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam status``: how the running service and its ContrailVMs are."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from gevent.event import Event
from rich.console import Group
from rich.live import Live
from rich.text import Text

from vcenter_eam_plugin.cli.api import Api
from vcenter_eam_plugin.cli.client import api, service_options
from vcenter_eam_plugin.cli.common import until_stopped
from vcenter_eam_plugin.cli.completion import complete_clusters
from vcenter_eam_plugin.cli.consent import console, json_option
from vcenter_eam_plugin.cli.status_view import Seen
from vcenter_eam_plugin.cli.status_view import status as drawn
from vcenter_eam_plugin.cli.text import clean
from vcenter_eam_plugin.domain.errors import PluginError, Unavailable, UnknownTarget
from vcenter_eam_plugin.domain.names import candidates
from vcenter_eam_plugin.domain.status import State

WATCH_SECONDS = 2.0
"""Between two looks, of two requests each: one request per second."""
_REST = 10.0
"""A service that took so long to answer is left alone for ten times as long: watching must not be its main work."""


@click.command("status")
@click.option("--cluster", default="", metavar="NAME", shell_complete=complete_clusters, help="One cluster alone.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in State], case_sensitive=False),
    help="Hosts in this state alone; may be repeated.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="List every host; else of more than 60 those with something to say: not ACTIVE, or a rule is broken.",
)
@click.option("--watch", is_flag=True, help="Go on, drawn anew in place, until Ctrl-C.")
@service_options
@json_option
def command(
    paths: tuple[Path, ...],
    vcenter: str,
    as_json: bool,
    cluster: str,
    states: tuple[str, ...],
    everything: bool,
    watch: bool,
) -> None:
    """Show how the running service and its ContrailVMs are.

    Of each cluster: its hosts, their ContrailVM, its state and since when (`>3m`: since before the service looked),
    whether its vRouter can be used, and what is wrong.

    Example: vcenter-eam status --cluster ClusterA --state FAULTY --state BLOCKED --watch

    Example: vcenter-eam status --json | jq '.vcenters[].alarms'
    """
    service = api(paths)

    def look() -> Seen:
        return _look(service, vcenter, cluster, states)

    if not watch:
        seen = look()
        if as_json:
            click.echo(_plain(seen))
        else:
            console().print(drawn(seen, time.time(), everything=everything))
        return
    with until_stopped() as stop:
        if sys.stdout.isatty() and not as_json:
            _watch(look, stop, everything=everything)
        else:
            _follow(look, stop, everything=everything, as_json=as_json)


def _look(service: Api, vcenter: str, cluster: str, states: tuple[str, ...]) -> Seen:
    told, hosts = service.get("/api/v1/status"), service.get("/api/v1/hosts")["hosts"]
    hosts = [host for host in hosts if vcenter in ("", host["vcenter"])]
    if cluster:
        hosts = _in_cluster(hosts, cluster)
    return Seen(
        [each for each in told["vcenters"] if vcenter in ("", each["name"])],
        [host for host in hosts if not states or host["state"] in states],
        chosen=bool(states),
        loop=told.get("loop"),
    )


def _in_cluster(hosts: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """By its name, ``Datacenter/Name``, path or moref. Raises UnknownTarget, with those that there are."""
    text = name.strip().rstrip("/")
    known: set[str] = set()
    found = []
    for host in hosts:
        esxi = host["esxi"]
        short = f"{esxi['datacenter']}/{esxi['cluster']}"
        known.add(short)
        under = text.startswith(f"/{esxi['datacenter']}/host/") and text.endswith(f"/{esxi['cluster']}")
        if under or text in (esxi["cluster"], short, esxi["compute_resource"]):
            found.append(host)
    if not found:
        raise UnknownTarget(
            f"No cluster with hosts of ours is called {name!r}; there are: {candidates(text, sorted(known))}."
        )
    return found


def _plain(seen: Seen) -> str:
    return json.dumps({"vcenters": seen.vcenters, "hosts": seen.hosts, "loop": seen.loop})


def _watch(look: Callable[[], Seen], stop: Event, *, everything: bool) -> None:
    """In place, cut to the terminal's height. A service that goes away is waited for."""
    seen = look()  # the first error ends the command, as without --watch
    trouble, took = "", 0.0
    with Live(console=console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            parts: list[Any] = [drawn(seen, time.time(), everything=everything)]
            if trouble:
                parts.insert(0, Text(clean(f"No longer current: {trouble} Trying again."), style="bold red"))
            live.update(Group(*parts), refresh=True)
            if stop.wait(max(WATCH_SECONDS, took * _REST)):
                return
            began = time.monotonic()
            try:
                seen, trouble = look(), ""
            except PluginError as exc:
                trouble = exc.message
            took = time.monotonic() - began


def _follow(look: Callable[[], Seen], stop: Event, *, everything: bool, as_json: bool) -> None:
    """Where nothing can be drawn in place: all of it, each time that something changed."""
    shown = ""
    while True:
        began = time.monotonic()
        try:
            seen = look()
        except Unavailable as exc:
            if not shown:
                raise
            click.echo(f"vcenter-eam: {exc.message} Trying again.", err=True)
        else:
            # What runs on by itself is no news.
            news = json.dumps([[each["alarms"], each.get("states")] for each in seen.vcenters] + [seen.hosts])
            if news != shown:
                shown = news
                if as_json:
                    click.echo(_plain(seen))
                else:
                    console().print(drawn(seen, time.time(), everything=everything), "")
        if stop.wait(max(WATCH_SECONDS, (time.monotonic() - began) * _REST)):
            return
