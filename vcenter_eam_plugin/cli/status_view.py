# SPDX-License-Identifier: Apache-2.0
"""How ``status`` and ``host`` are drawn: of what the API answered and the time of day, and of nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from vcenter_eam_plugin.cli.text import clean

MOST_LISTED = 60
"""Hosts: of more than this only those are listed that are not ACTIVE, or where a rule is broken, unless all are asked
for."""

_COLOURS = {"ACTIVE": "green", "MAINTENANCE": "cyan", "STANDBY": "cyan", "DEPLOYING": "yellow", "STARTING": "yellow"}
"""The others are red: no vRouter, and something to look at."""
_SOURCES = {"inventory": "inventory of vCenter", "events": "events of vCenter", "eam": "runtime of EAM"}
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))
_STARVED_MS = 1000.0
"""Held so long without computing: heartbeats and the lead are in danger if it goes on."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the service answered: its vCenters, and those of its hosts that were asked for. ``chosen``: by state.
    ``loop``: how long its event loop was held."""

    vcenters: Sequence[Mapping[str, Any]]
    hosts: Sequence[Mapping[str, Any]]
    chosen: bool = False
    loop: Mapping[str, Any] | None = None


def status(seen: Seen, now: float, *, everything: bool = False) -> Group:
    """All of it. ``now`` is POSIX seconds."""
    waiting = {each["name"]: each.get("waiting", {}) for each in seen.vcenters}
    every = everything or seen.chosen or len(seen.hosts) <= MOST_LISTED
    parts: list[RenderableType] = [*_loop(seen.loop), *(line for each in seen.vcenters for line in _vcenter(each))]
    for (vcenter, cluster), hosts in _by_cluster(seen.hosts).items():
        several = f"{vcenter}: " if len(seen.vcenters) > 1 else ""
        listed = hosts if every else [host for host in hosts if host["state"] != "ACTIVE" or host["violations"]]
        parts += ["", Text(clean(f"{several}{cluster}: {counts(hosts)}"), style="bold")]
        if listed:
            parts.append(_table(listed, waiting.get(vcenter, {}), now))
        if len(listed) < len(hosts):
            parts.append(Text(f"  {len(hosts) - len(listed)} ACTIVE, not listed (--all)", style="dim"))
    return Group(*parts)


def counts(hosts: Sequence[Mapping[str, Any]]) -> str:
    """``64 hosts: 60 ACTIVE, 4 FAULTY``, the most frequent first."""
    states = Counter(host["state"] for host in hosts).most_common()
    return f"{len(hosts)} host{'s' * (len(hosts) != 1)}, " + ", ".join(f"{count} {state}" for state, count in states)


def age(seconds: float) -> str:
    """In one unit, as people say it: ``45s``, ``3m``, ``2h``, ``5d``."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"


def since(host: Mapping[str, Any], now: float) -> str:
    """How long the state has lasted; ``>3m`` where it began before the service looked."""
    if host.get("since") is None:
        return "-"
    return ("" if host["since_known"] else ">") + age(now - host["since"])


def moment(at: float) -> str:
    """Local time of a POSIX second."""
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def state_text(state: str) -> Text:
    """The word, in its colour."""
    return Text(state, style=_COLOURS.get(state, "red"))


def why(host: Mapping[str, Any], waiting: Iterable[str] = ()) -> str:
    """Everything there is to say about a host, in one line: reason, issues, what is waited for, broken rules."""
    issues = [issue["type"] for issue in host["eam"]["issues"] if issue["type"] not in host["reason"]]
    parts = [part for part in (host["reason"], *dict.fromkeys(issues), *waiting) if part]
    broken = "; ".join(violation["name"] for violation in host["violations"])
    return "; ".join(parts) + (f" [RULE BROKEN: {broken}]" if broken else "")


def _by_cluster(hosts: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """By vCenter and cluster, each in order of its name; a cluster's name may stand in two datacenters."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for host in hosts:
        esxi = host["esxi"]
        found.setdefault((host["vcenter"], esxi["cluster"] or "-", esxi["datacenter"]), []).append(host)
    return {(vcenter, f"{cluster} in {at}" if at else cluster): found[vcenter, cluster, at]
            for vcenter, cluster, at in sorted(found)}  # fmt: skip


def _loop(loop: Mapping[str, Any] | None) -> Iterator[RenderableType]:
    """Only where somebody should look: everything that the service does waits while its loop is held.

    A hold that is short and not computing is a machine that has other things to do, and nothing to mend.
    """
    if loop is None:
        return
    longest = loop["longest_in_last_minute"]
    if longest["cpu_ms"] <= loop["limit_ms"] and longest["ms"] < _STARVED_MS:
        return
    where = f" at {longest['where']}" if longest["where"] else ""
    text = f"the event loop was held for {longest['ms']:.0f} ms, {longest['cpu_ms']:.0f} of it computing{where}"
    if longest["cpu_ms"] <= loop["limit_ms"]:
        text += ": this machine is short of processor time"
    yield Text(clean(f"in the last minute {text}"), style="yellow")


def _vcenter(each: Mapping[str, Any]) -> Iterator[RenderableType]:
    states = ", ".join(f"{count} {state}" for state, count in each.get("states", {}).items())
    states = states or ("no ContrailVM" if each.get("ready") else "nothing read yet")
    leader = each.get("leader")
    leading = "leading" if each.get("leading") else f"standby of {leader}" if leader else "not leading"
    agency = each.get("agency")
    yield Text(clean(f"{each['name']}: {each['vcenter']}, mode {each['mode']}, {leading}; {states}"))
    yield Text(clean(f"  agency {agency['moref']}, {agency['status']}" if agency else "  no agency"))
    if each.get("ovf_url"):
        yield Text(clean(f"  EAM fetches the ContrailVM from {each['ovf_url']}"))
    if each.get("retreat"):
        yield Text(clean(f"  in retreat, until vcenter-eam return: {', '.join(each['retreat'])}"), style="yellow")
    if each.get("doing"):
        yield Text(clean(f"  {each['doing']}"), style="bold")
    for name, source in each.get("sources", {}).items():
        if not source["live"]:
            reason = f": {source['why']}" if source["why"] else ""
            stale = f"stale since {source['stale_since']} ({source['stale_seconds']} s)"
            yield Text(clean(f"  {_SOURCES[name]} {stale}{reason}"), style="yellow")
    if each.get("sources") and all(source["live"] for source in each["sources"].values()):
        yield Text("  inventory, events and EAM live")
    for alarm in each["alarms"]:
        yield Text(clean(f"  ALARM {alarm['name']}: {alarm['text']}"), style="red")


def _table(hosts: Sequence[Mapping[str, Any]], waiting: Mapping[str, Sequence[str]], now: float) -> Table:
    table = Table()
    for column in ("host", "ContrailVM", "state", "since", "vRouter", "issue, reason"):
        table.add_column(column, overflow="fold")
    for host in hosts:
        vm, vrouter = host["vm"] or {}, host["vrouter"]
        use = "usable" if vrouter["active"] else "no"
        table.add_row(
            escape(clean(host["esxi"]["name"])),
            escape(clean(vm.get("name") or "-")),
            state_text(host["state"]),
            since(host, now),
            escape(clean(" ".join(filter(None, (use, vrouter["ip"] or vm.get("ip")))))),
            escape(clean(why(host, waiting.get(host["esxi"]["moref"], ())))),
        )
    return table
