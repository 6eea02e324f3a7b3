# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam events``: the audit trail, from the running service, or from its file when none runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from vcenter_eam_plugin.audit import MOST_ANSWERED, NAME, AuditFile, Kind, Query, plain, select
from vcenter_eam_plugin.cli.api import Api
from vcenter_eam_plugin.cli.client import service_options
from vcenter_eam_plugin.cli.common import load_configuration, until_stopped
from vcenter_eam_plugin.cli.completion import complete_hosts
from vcenter_eam_plugin.cli.consent import json_option
from vcenter_eam_plugin.cli.status_view import moment
from vcenter_eam_plugin.cli.text import clean
from vcenter_eam_plugin.domain.errors import PrivilegeMissing, Unavailable

FOLLOW_SECONDS = 1.0
"""Between two looks for what is new."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment_of(text: str, now: float) -> float:
    """``2h`` ago, or a local time as ISO 8601 has it: POSIX seconds. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found:
        return now - int(found[1]) * _SECONDS[found[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except OverflowError as exc:
        raise ValueError(text) from exc


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> float:
    try:
        return moment_of(value, time.time()) if value else 0.0
    except ValueError as exc:
        says = f"{value!r} is neither an age (30m, 2h, 5d) nor a time (2026-11-28T18:00)."
        raise click.BadParameter(says, ctx, param) from exc


def line(event: Mapping[str, Any]) -> str:
    """One entry for a person: when, what kind, of whom, what, why, who, and what came of it."""
    whose = event["name"] or event["host"] or event["vcenter"] or "-"
    text = f"{moment(event['at'])} {event['kind']:9} {whose:24} {event['text']}"
    text += f": {event['why']}" if event["why"] else ""
    text += f" [{event['who']}]" if event["who"] else ""
    return text + (f" -> {event['result']}" if event["result"] else "")


@click.command("events")
@click.option(
    "--host", default="", metavar="NAME", shell_complete=complete_hosts, help="Of one host, by name or moref."
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([kind.value for kind in Kind], case_sensitive=False),
    help="Of this kind alone; may be repeated.",
)
@click.option(
    "--since", callback=_moment, metavar="WHEN", help="Not older: an age (30m, 2h, 5d) or a time (2026-11-28T18:00)."
)
@click.option(
    "--limit",
    default=200,
    show_default=True,
    type=click.IntRange(1, MOST_ANSWERED),
    metavar="N",
    help="The newest N of them.",
)
@click.option("--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@service_options
@json_option
def command(
    paths: tuple[Path, ...],
    vcenter: str,
    as_json: bool,
    host: str,
    kinds: tuple[str, ...],
    since: float,
    limit: int,
    follow: bool,
) -> None:
    """Show what happened: the audit trail, the oldest first.

    States, issues, actions with why and what came of them, operations with who asked, alarms, and leadership, as
    this instance saw them. When no service runs, its file is read.

    Example: vcenter-eam events --host esx-01.example --since 2h

    Example: vcenter-eam events --kind operation --kind action --follow
    """
    directory = load_configuration(paths, need_vcenter=False).defaults.state_directory
    source = _Source(directory)
    query = Query(since=since, host=host, kinds=tuple(map(Kind, kinds)), vcenter=vcenter, limit=limit)

    def show(query: Query) -> int:
        found = source.read(query)
        for event in found:
            click.echo(json.dumps(event) if as_json else clean(line(event)))
        return int(found[-1]["id"]) if found else query.after

    last = show(query)
    if last == query.after and not follow:
        click.echo("vcenter-eam: no such entry is in the audit trail.", err=True)
    if follow:
        with until_stopped() as stop:
            while not stop.wait(FOLLOW_SECONDS):
                last = show(msgspec.structs.replace(query, after=last, since=0.0, limit=MOST_ANSWERED))


class _Source:
    """The service, or its file; it may start or end meanwhile."""

    def __init__(self, directory: Path) -> None:
        self._api = Api(directory)
        self._path = directory / NAME
        self._said = False

    def read(self, query: Query) -> list[dict[str, Any]]:
        """Raises what the service said, or Unavailable when there is neither service nor file."""
        asked = {
            name: value for name in ("since", "after", "host", "vcenter", "limit") if (value := getattr(query, name))
        }
        try:
            found: list[dict[str, Any]] = self._api.get(
                f"/api/v1/events?{urlencode([*asked.items(), *(('kind', kind.value) for kind in query.kinds)])}"
            )["events"]
        except Unavailable as exc:
            return self._from_file(query, exc)
        self._said = False
        return found

    def _from_file(self, query: Query, no_service: Unavailable) -> list[dict[str, Any]]:
        try:
            self._path.lstat()
            found = [plain(entry) for entry in select(AuditFile(self._path).newest_first(), query)]
        except FileNotFoundError:
            raise no_service from None
        except PermissionError as exc:
            raise PrivilegeMissing(
                f"This user may not read {self._path}.",
                remedy="Run the command as the user of the service, or as root.",
            ) from exc
        except OSError as exc:
            raise Unavailable(f"{self._path} cannot be read: {exc.strerror}.") from exc
        if not self._said:
            self._said = True
            click.echo(f"vcenter-eam: {no_service.message} Read from {self._path}.", err=True)
        return found
