# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam demo --story full``: walks every row on the simulator, and says of each whether it came out."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import gevent
from pyVmomi import vmodl
from rich.console import Console
from rich.table import Table

from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.consumer import Consumer
from vcenter_eam_plugin.cli.demo_setting import KNOBS, configuration
from vcenter_eam_plugin.cli.full_story import FULL_STORY, NotSeenError, Play, Row
from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.server import Simulator

ROW_SECONDS = 45.0
"""Most rows take two to ten seconds; one that waits for a single thing this long has failed."""
QUICK = {name: seconds / 3 for name, seconds in KNOBS.items()}
"""Nobody reads along while seventeen rows are walked."""


@dataclass(frozen=True, slots=True)
class Told:
    """How a row came out."""

    row: Row
    ok: bool
    happened: str
    published: tuple[str, ...]
    seconds: float

    def plain(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "kind": "row",
            "row": self.row.name,
            "title": self.row.title,
            "ok": self.ok,
            "happened": self.happened,
            "published": list(self.published),
            "seconds": round(self.seconds, 2),
        }


class Walk:
    """The stage that the rows play on."""

    def __init__(self, broker: BrokerSettings, directory: Path) -> None:
        knobs = Knobs()
        knobs.change({**QUICK, "mark_allowed_for_users": True, "broken_rule_delay": 4.0})
        self.simulator = Simulator(hosts=3, clusters=2, knobs=knobs, directory=directory / "simulator")
        self.simulator.start()
        self.service = Service(
            configuration(
                self.simulator,
                directory,
                hold_after_provisioning=True,
                late_power_on_seconds=1.0,
                slots_seconds=1.0,
                poll_seconds=2.0,
            ),
            broker=broker,
        )
        self._messages: list[dict[str, Any]] = []
        self._began = 0
        self._news = gevent.event.Event()
        self.listener = Consumer(broker, self._hear)

    def run(self, say: Callable[[Told], None]) -> list[Told]:
        """Walk all rows; ``say`` is called after each."""
        listening = gevent.spawn(self.listener.run)
        self.listener.ready.wait(10)
        told: list[Told] = []
        try:
            for cluster in self.simulator.vcenter.clusters():
                self.simulator.vcenter.stimuli.set_ha(cluster)
                self.simulator.vcenter.stimuli.set_drs(cluster)
            self.service.start()
            for row in FULL_STORY:
                told.append(self._tell(row))
                say(told[-1])
        finally:
            self.service.stop()
            self.listener.stop()
            listening.kill(timeout=1)
            self.simulator.stop()
        return told

    def _tell(self, row: Row) -> Told:
        began = time.monotonic()
        self._began = len(self._messages)
        play = Play(self)
        try:
            row.play(play)
        except NotSeenError as exc:
            play.say(f"NOT SEEN: {exc}.")
            ok = False
        except (PluginError, vmodl.MethodFault, LookupError, OSError) as exc:
            play.say(f"REFUSED: {type(exc).__name__}: {exc}")
            ok = False
        else:
            ok = True
        return Told(row, ok, " ".join(play.happened), self._published(), time.monotonic() - began)

    def _published(self) -> tuple[str, ...]:
        """What was published since the row began, in few words."""
        lines: dict[str, list[str]] = {}
        for message in self._messages[self._began :]:
            if message["key"] is None or message["event"] == "sync":
                continue
            said = lines.setdefault(message["esxi"]["name"].split(".")[0], [])
            if message["event"] == "state":
                said.append(message["state"])
            said += [f"!{v['name']}" for v in message["violations"] if f"!{v['name']}" not in said]
        return tuple(f"{host}: {' > '.join(said)}" for host, said in lines.items() if said)

    # --- what rows ask of their stage ---------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + ROW_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise NotSeenError(what)
            self._news.clear()
            self._news.wait(0.1)

    def heard(self, host: str) -> list[str]:
        return [
            m["state"] for m in self._messages[self._began :] if m["event"] == "state" and m["esxi"]["name"] == host
        ]

    def newest(self, host: str) -> Mapping[str, Any] | None:
        return next((m for m in self.listener.view.states.values() if m["esxi"]["name"] == host), None)

    def violations(self, host: str) -> set[str]:
        return {
            violation["name"]
            for m in self._messages[self._began :]
            if m["key"] is not None and m["esxi"]["name"] == host
            for violation in m["violations"]
        }

    def _hear(self, message: dict[str, Any]) -> None:
        self._messages.append(message)
        self._news.set()


def run_full_story(broker: BrokerSettings, *, as_json: bool) -> bool:
    """Walk all rows and show how they came out; whether all of them did."""

    def say(told: Told) -> None:
        if as_json:
            click.echo(json.dumps(told.plain()))
        else:
            click.echo(f"{told.row.name}  {'pass' if told.ok else 'FAIL'}  {told.seconds:5.1f} s  {told.row.title}")

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vcenter-eam-demo-") as directory:
        told = Walk(broker, Path(directory)).run(say)
    ok = len(told) == len(FULL_STORY) and all(each.ok for each in told)
    if as_json:
        passed = sum(each.ok for each in told)
        seconds = round(time.monotonic() - began, 2)
        click.echo(json.dumps({"kind": "summary", "ok": ok, "rows": len(told), "passed": passed, "seconds": seconds}))
    else:
        _show(told)
    return ok


def _show(told: list[Told]) -> None:
    table = Table(title="Every row, on the simulator", title_style="bold", show_lines=True)
    for column in ("row", "what happened", "what was published", ""):
        table.add_column(column)
    for each in sorted(told, key=lambda t: t.row.name):
        table.add_row(each.row.name, each.happened, "\n".join(each.published) or "-", "pass" if each.ok else "FAIL")
    console = Console()
    console.print(table, width=max(console.width, 110))
