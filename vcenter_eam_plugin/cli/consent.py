# SPDX-License-Identifier: Apache-2.0
"""What every command that changes something goes through: preview, consent, progress, exit code.

The preview is always shown first. What needs a typed word asks for it on a terminal, or takes it from
``--acknowledge``; a wrong or missing one changes nothing. With ``--json`` nothing is ever asked: the preview is the
first object, and each event of the operation one more.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vcenter_eam_plugin.cli.progress import Bars, Lines, View
from vcenter_eam_plugin.cli.text import clean
from vcenter_eam_plugin.domain.errors import NotAcknowledged, NotAllDone, PlanChanged

_COLOURS = {"nothing": "green", "agent VM": "yellow", "agent VM is deleted": "red", "host": "bold red"}


class Asked(Protocol):
    """Who can show what would be done, and do it."""

    def preview(self) -> dict[str, Any]: ...
    def carry_out(self, digest: str, acknowledge: str) -> Iterator[dict[str, Any]]: ...


def consent_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that changes something."""
    for option in (
        click.option("--acknowledge", metavar="NAME", help="The word that the preview asks to be typed, for scripts."),
        click.option("--yes", is_flag=True, help="Do not ask where no typed word is needed."),
        click.option("--digest", metavar="DIGEST", help="Only if the preview still has this digest."),
        click.option("--preview", "preview_only", is_flag=True, help="Show what would be done, and do nothing."),
        json_option,
    ):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="JSON objects, one a line; never asks anything.")


def carry_out(
    asked: Asked,
    *,
    acknowledge: str | None,
    yes: bool,
    digest: str | None,
    preview_only: bool,
    as_json: bool,
) -> None:
    """Show, ask, do, and say what came of it. Raises NotAcknowledged, PlanChanged and NotAllDone."""
    shown = asked.preview()
    if as_json:
        click.echo(json.dumps({"kind": "preview", **shown}))
    else:
        show_preview(shown)
    if preview_only or not shown["lines"]:
        return
    word = _ask(shown, acknowledge, sure=yes or digest is not None, silent=as_json)
    try:
        ended = _report(asked.carry_out(digest or shown["digest"], word), as_json=as_json)
    except PlanChanged as exc:
        if as_json:
            click.echo(json.dumps({"kind": "preview", **exc.preview}))
        else:
            show_preview(exc.preview)
        raise
    if not ended.get("ok"):
        raise NotAllDone(
            f"{ended.get('failed', 'some')} step(s) were not done.", remedy="What is said above tells why."
        )


def show_preview(shown: Mapping[str, Any], title: str = "") -> None:
    """For a person: each step with what it touches, what is left out, and the digest. ``title``: what is shown, unless
    it is the operation."""
    title = title or f"{shown['operation']} {shown['target']}".strip()
    if shown["lines"]:
        table = Table(title=clean(f"{title} in {shown['vcenter']}"), title_justify="left")
        for column in ("on", "what would be done", "touches"):
            table.add_column(column, overflow="fold")
        for line in shown["lines"]:
            radius = f"[{_COLOURS.get(line['radius'], 'red')}]{escape(line['radius'])}[/]"
            table.add_row(escape(clean(line["target"])), escape(clean(line["text"])), radius)
        console().print(table)
    else:
        click.echo(clean(f"{title} in {shown['vcenter']}: there is nothing to do, no action is planned."))
    for note in shown["notes"]:
        click.echo(clean(f"  {note}"))
    click.echo(f"  digest {shown['digest']}")


def at_terminal() -> bool:
    """Whether there is somebody to be asked."""
    return sys.stdin.isatty()


def console() -> Console:
    """Wide enough where nobody's terminal bounds it, so that a script's log is not broken up."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def _ask(shown: Mapping[str, Any], acknowledge: str | None, *, sure: bool, silent: bool) -> str:
    """The word to hand over. The service decides whether it is the right one."""
    word = str(shown["acknowledge"])
    if acknowledge is not None:
        return acknowledge
    can_ask = at_terminal() and not silent
    if word:
        return str(click.prompt(f"Type {word} to go on", default="", show_default=False)) if can_ask else ""
    if shown["confirm"] and not sure:
        if not can_ask:
            raise NotAcknowledged(
                "Nothing was changed: nobody can be asked here.",
                remedy="Read the preview; then give --yes, or its --digest.",
            )
        if not click.confirm("Do it?", default=False):
            raise NotAcknowledged("Nothing was changed.")
    return ""


def _report(events: Iterator[dict[str, Any]], *, as_json: bool) -> dict[str, Any]:
    ended: dict[str, Any] = {}
    view: View = Lines() if as_json or not sys.stdout.isatty() else Bars(console())
    with view:
        for event in events:
            if as_json:
                click.echo(json.dumps(event))
            else:
                view.event(event)
            if event["kind"] == "end":
                ended = event
    return ended
