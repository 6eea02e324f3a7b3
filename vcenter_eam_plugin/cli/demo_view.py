# SPDX-License-Identifier: Apache-2.0
"""How the demo is shown: live on a terminal, line by line in a file, or as JSON objects.

All three show what the listener on the bus received, and nothing else.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import click
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vcenter_eam_plugin.cli.story import Chapter, Step
from vcenter_eam_plugin.simulator.server import Simulator

States = Mapping[str, Mapping[str, Any]]

_GOOD, _BUSY, _RESTING = ("ACTIVE",), ("PENDING", "DEPLOYING", "PROVISIONED", "STARTING", "REMOVING"), (
    "MAINTENANCE", "STANDBY", "REMOVED",
)  # fmt: skip
TIMELINE = 14
"""Messages that stay in sight; a terminal of 24 lines holds no more beside the table."""


def colour(state: str) -> str:
    """What a state looks like; the word itself is always there too."""
    if state in _GOOD:
        return "bold green"
    if state in _BUSY:
        return "yellow"
    return "cyan" if state in _RESTING else "bold red"


class StoryView:
    """Told of everything as it happens."""

    def __init__(self) -> None:
        self._said: dict[str | None, tuple[object, ...]] = {}

    def is_news(self, message: Mapping[str, Any]) -> bool:
        """Whether a line about it reads differently from the last about this host: a heartbeat alone does not."""
        says = (message["oper"], message["state"], message["reason"], message["snapshot"])
        known, self._said[message["key"]] = self._said.get(message["key"]), says
        return known != says

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def step_began(self, step: Step) -> None:
        """The next step is about to be done."""

    def message(self, message: Mapping[str, Any], step: Step, states: States) -> None:
        """The listener received a message; ``states`` is what it knows now."""

    def step_ended(self, chapter: Chapter) -> None:
        """The step is over, told or not."""

    def ended(self, summary: Mapping[str, Any]) -> None:
        """The story is over."""

    def keep(self, simulator: Simulator) -> None:
        """Everything stays up: say where."""


class JsonView(StoryView):
    """One object per message, as it was published, with ``step``; the summary last."""

    def message(self, message: Mapping[str, Any], step: Step, states: States) -> None:  # noqa: ARG002
        click.echo(json.dumps({**message, "step": step.name}))

    def ended(self, summary: Mapping[str, Any]) -> None:
        click.echo(json.dumps(summary))

    def keep(self, simulator: Simulator) -> None:
        click.echo(_where(simulator), err=True)


class LineView(StoryView):
    """For a file or a pipe: a line per message."""

    def step_began(self, step: Step) -> None:
        click.echo(f"\n== {step.title}")

    def message(self, message: Mapping[str, Any], step: Step, states: States) -> None:  # noqa: ARG002
        if self.is_news(message):
            click.echo(f"   {_line(message)}")

    def step_ended(self, chapter: Chapter) -> None:
        click.echo(f"   {'done' if chapter.told else 'NOT DONE'} after {chapter.seconds:.1f} s")

    def ended(self, summary: Mapping[str, Any]) -> None:
        Console(width=110).print(_summary_table(summary))
        click.echo(_figures(summary))

    def keep(self, simulator: Simulator) -> None:
        click.echo(_where(simulator))


class LiveView(StoryView):
    """A table of every ContrailVM, and a timeline of what was received, redrawn in place."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._title = "Starting"
        self._states: States = {}
        self._timeline: deque[Text] = deque(maxlen=TIMELINE)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def step_began(self, step: Step) -> None:
        self._title = step.title
        self._draw()

    def message(self, message: Mapping[str, Any], step: Step, states: States) -> None:  # noqa: ARG002
        self._states = states
        text = Text(_line(message), no_wrap=True, overflow="ellipsis")
        if message["state"] is not None:
            text.highlight_words([message["state"]], colour(message["state"]))
        if self.is_news(message):
            self._timeline.append(text)
        self._draw()

    def ended(self, summary: Mapping[str, Any]) -> None:
        self._draw()
        self._live.stop()
        self._console.print(_summary_table(summary))
        self._console.print(_figures(summary), highlight=False)

    def keep(self, simulator: Simulator) -> None:
        self._console.print(_where(simulator), highlight=False)

    def _draw(self) -> None:
        table = Table(expand=True, title=self._title, title_style="bold")
        for column in ("cluster", "host", "ContrailVM", "state", "vRouter", "reason"):
            table.add_column(column, no_wrap=True, overflow="ellipsis", ratio=3 if column == "reason" else None)
        rows = sorted(self._states.values(), key=lambda m: (m["esxi"]["cluster"], m["esxi"]["name"]))
        for message in rows:
            vm = message["vm"]
            table.add_row(
                message["esxi"]["cluster"],
                message["esxi"]["name"],
                vm["name"] if vm else "-",
                Text(message["state"], style=colour(message["state"])),
                "usable" if message["vrouter"]["active"] else "-",
                message["reason"],
            )
        timeline = Panel(Group(*self._timeline), title="received on the bus", title_align="left")
        self._live.update(Group(table, timeline), refresh=True)


def _line(message: Mapping[str, Any]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(message["timestamp"] / 1e6))
    if message["key"] is None:
        snapshot = message["snapshot"]
        return f"{at}  {message['oper']:<6}  snapshot of {snapshot['count']}: {snapshot['phase'].lower()}"
    old, new = message["old_state"], message["state"]
    change = new if old in (None, new) else f"{old} -> {new}"
    return f"{at}  {message['oper']:<6}  {message['esxi']['name']:<20}  {change:<24}  {message['reason']}"


def _summary_table(summary: Mapping[str, Any]) -> Table:
    table = Table(title="What was heard on the bus", title_style="bold")
    for column in ("step", "host", "states in order", "s", ""):
        table.add_column(column)
    for step in summary["steps"]:
        first = True
        for host, states in step["states"].items() or [("-", [])]:
            table.add_row(
                step["step"] if first else "",
                host,
                " > ".join(states),
                f"{step['seconds']:.1f}" if first else "",
                ("ok" if step["ok"] else "FAILED") if first else "",
            )
            first = False
    return table


def _figures(summary: Mapping[str, Any]) -> str:
    verdict = "The whole story was told." if summary["ok"] else "The story was NOT told to its end."
    return (
        f"{verdict} {summary['messages']} messages received, {summary['duplicates']} duplicates, "
        f"{summary['seconds']:.0f} s, {summary['memory_mib']:.0f} MiB."
    )


def _where(simulator: Simulator) -> str:
    return (
        f"Still up, Ctrl-C ends it: {simulator.url}  user {simulator.user}  password {simulator.password}  "
        f"CA file {simulator.ca_file}"
    )
