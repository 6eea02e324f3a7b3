# SPDX-License-Identifier: Apache-2.0
"""How an operation is shown while it is on its way: bars on a terminal, lines in a file.

On a terminal there is one bar over all steps, one more for a step that counts its hosts, and above them one line for
each step that failed, which stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from vcenter_eam_plugin.cli.text import clean

_MARKS = {"begun": "...", "running": "...", "done": "done", "failed": "FAILED"}
WIDTH = 48
"""Characters of what is being done; the bars begin behind it."""


class View(Protocol):
    """Told of each event of an operation."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def event(self, event: Mapping[str, Any]) -> None: ...


class Lines:
    """A line for what each step does, and for its end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Of one step; the others say nothing that a person does not know."""
        if event["kind"] == "step" and (event["detail"] or event["outcome"] == "begun"):
            about = event["detail"] or event["text"]
            click.echo(
                clean(f"{event['number']}/{event['of']} {_MARKS[event['outcome']]:6} {event['target']}: {about}")
            )


class Bars:
    """See the module."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._all: TaskID | None = None
        self._steps: dict[int, TaskID] = {}
        self._failed = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def event(self, event: Mapping[str, Any]) -> None:
        """Of one step, or the end."""
        if event["kind"] == "end":
            self._describe(self._whole(event["done"] + event["failed"]), self._summary(event["done"]))
        if event["kind"] != "step":
            return
        whole = self._whole(event["of"])
        if event["outcome"] in ("begun", "running"):
            if event.get("stays"):
                self._say(event, "yellow", "...")
            self._describe(whole, f"{event['target']}: {event['detail'] or event['text']}")
            if counted := event.get("progress"):
                self._count(event["number"], event["target"], *counted)
            return
        counting = self._steps.pop(event["number"], None)
        if counting is not None:
            self._progress.remove_task(counting)
        if event["outcome"] == "failed":
            self._failed += 1
            self._say(event, "red", "FAILED")
        self._progress.advance(whole)

    def _say(self, event: Mapping[str, Any], style: str, mark: str) -> None:
        text = escape(clean(f"{event['target']}: {event['detail']}"))
        self._progress.console.print(f"[{style}]{mark}[/] {text}", highlight=False, soft_wrap=True)

    def _whole(self, steps: int) -> TaskID:
        if self._all is None:
            self._all = self._progress.add_task("", total=steps)
        return self._all

    def _count(self, number: int, target: str, done: int, total: int) -> None:
        task = self._steps.get(number)
        if task is None:
            task = self._steps[number] = self._progress.add_task("", total=total)
        self._describe(task, f"  {target}, hosts")
        self._progress.update(task, completed=done, total=total)

    def _describe(self, task: TaskID, text: str) -> None:
        shown = clean(text)
        shown = shown if len(shown) <= WIDTH else f"{shown[: WIDTH - 1]}…"
        self._progress.update(task, description=escape(shown.ljust(WIDTH)))

    def _summary(self, done: int) -> str:
        return f"{done} done" + (f", {self._failed} failed" if self._failed else "")
