# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam demo``: simulator, OVF server, plugin and a listener on the bus tell the story in one process.

The listener hears what any consumer would hear; the table and the timeline come from its messages alone.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import gevent
import psutil
from gevent.event import Event

from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.consumer import Consumer
from vcenter_eam_plugin.cli.common import until_stopped
from vcenter_eam_plugin.cli.demo_setting import KNOBS, configuration
from vcenter_eam_plugin.cli.demo_view import JsonView, LineView, LiveView, StoryView
from vcenter_eam_plugin.cli.full_demo import run_full_story
from vcenter_eam_plugin.cli.story import STORY, Chapter, Step
from vcenter_eam_plugin.domain.errors import Unavailable
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.server import Simulator

STEP_DEADLINE = 60.0
"""Seconds; a step takes one to five, so one that takes a minute has failed."""
READING_PAUSE = 1.5
"""Seconds between steps when a person watches."""
QUIET = 0.3
"""Seconds without a message before the next step begins, so that each message belongs to the step that caused it."""


class Demo:
    """One telling of the story. ``broker`` is where plugin and listener meet."""

    def __init__(self, broker: BrokerSettings, view: StoryView, directory: Path, *, reading_pause: float) -> None:
        knobs = Knobs()
        knobs.change(KNOBS)
        self.simulator = Simulator(hosts=3, clusters=2, knobs=knobs, directory=directory / "simulator")
        self._broker = broker
        self._view = view
        self._directory = directory
        self._reading_pause = reading_pause
        self._chapter: Chapter | None = None
        self._heard = Event()
        self._last_message = 0.0
        self.chapters: list[Chapter] = []
        self.service: Service | None = None
        self.listener = Consumer(broker, self._hear)

    def tell(self) -> bool:
        """Tell the whole story; whether every step came out as promised."""
        for step in STORY:
            chapter = self._tell_step(step)
            self._view.step_ended(chapter)
            if not chapter.told:
                return False
        return True

    @contextmanager
    def running(self) -> Iterator[None]:
        """Simulator and listener, and, from the first step on, the plugin."""
        self.simulator.start()
        listening = gevent.spawn(self.listener.run)
        try:
            gevent.wait([self.listener.ready, listening], count=1)
            if not self.listener.ready.is_set():
                listening.get()
            yield
        finally:
            if self.service is not None:
                self.service.stop()
            self.listener.stop()
            listening.kill(timeout=1)
            self.simulator.stop()

    def summary(self, seconds: float) -> dict[str, Any]:
        """The end of it: per step the states heard of each host it was about, and figures."""
        return {
            "kind": "summary",
            "ok": len(self.chapters) == len(STORY) and all(chapter.told for chapter in self.chapters),
            "steps": [
                {
                    "step": chapter.step.name,
                    "title": chapter.step.title,
                    "ok": chapter.told,
                    "seconds": round(chapter.seconds, 2),
                    "messages": chapter.messages,
                    "states": chapter.states,
                }
                for chapter in self.chapters
            ],
            "messages": sum(chapter.messages for chapter in self.chapters),
            "duplicates": self.listener.duplicates,
            "states": {message["esxi"]["name"]: message["state"] for message in self.listener.view.states.values()},
            "trouble": self._trouble(),
            "seconds": round(seconds, 2),
            "memory_mib": round(psutil.Process().memory_info().rss / 2**20, 1),
        }

    def _tell_step(self, step: Step) -> Chapter:
        began = time.monotonic()
        self._chapter = chapter = Chapter(step, {})
        self.chapters.append(chapter)
        self._view.step_began(step)
        chapter.expected = step.act(self.simulator.vcenter.stimuli)
        if self.service is None:
            self.service = Service(configuration(self.simulator, self._directory), broker=self._broker)
            self.service.start()
        while not chapter.told and time.monotonic() < began + STEP_DEADLINE:
            self._heard.clear()
            self._heard.wait(0.5)
        chapter.seconds = time.monotonic() - began
        if chapter.told:
            self._wait_until_quiet()
            gevent.sleep(self._reading_pause)
        return chapter

    def _wait_until_quiet(self) -> None:
        """Details (an address, a heartbeat) follow the state; they belong to this step."""
        while (rest := self._last_message + QUIET - time.monotonic()) > 0:
            gevent.sleep(rest)

    def _hear(self, message: dict[str, Any]) -> None:
        self._last_message = time.monotonic()
        if self._chapter is None:
            return
        self._chapter.hear(message)
        self._view.message(message, self._chapter.step, self.listener.view.states)
        self._heard.set()

    def _trouble(self) -> list[str]:
        if self.service is None:
            return []
        return [alarm["text"] for vcenter in self.service.status()["vcenters"] for alarm in vcenter["alarms"]]


@click.command("demo")
@click.option("--broker", default="memory://", show_default=True, metavar="URL", help="amqp://... for a real RabbitMQ.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per message received, and a summary last.")
@click.option(
    "--story",
    type=click.Choice(["short", "full"]),
    default="short",
    show_default=True,
    help="full: walk every row that the system must do.",
)
@click.option("--keep", is_flag=True, help="Stay up after the story, and say where the simulated vCenter is.")
def command(broker: str, as_json: bool, story: str, keep: bool) -> None:
    """Tell the whole story against a simulated vCenter.

    Three hosts get their ContrailVM, one is added, one goes through maintenance; a ContrailVM is powered off, one is
    deleted, and a host is removed. Exits with 0 when all of it was heard on the bus as it should be.

    Example: vcenter-eam demo --story full
    """
    if story == "full":
        _quiet()
        if not run_full_story(BrokerSettings.from_url(broker), as_json=as_json):
            raise Unavailable("Not every row came out as it should.")
        return
    view: StoryView = JsonView() if as_json else LiveView() if sys.stdout.isatty() else LineView()
    _quiet()
    with tempfile.TemporaryDirectory(prefix="vcenter-eam-demo-") as directory, until_stopped() as stop:
        began = time.monotonic()
        demo = Demo(
            BrokerSettings.from_url(broker), view, Path(directory), reading_pause=0.0 if as_json else READING_PAUSE
        )
        with demo.running(), view:
            telling = gevent.spawn(demo.tell)
            gevent.wait([telling, stop], count=1)
            interrupted = not telling.ready()
            telling.kill()
            summary = demo.summary(time.monotonic() - began)
            view.ended(summary)
            if keep and not interrupted:
                view.keep(demo.simulator)
                stop.wait()
        if telling.exception is not None:
            raise telling.exception
        if not summary["ok"] and not interrupted:
            trouble = " ".join(summary["trouble"]) or "No alarm is open."
            raise Unavailable(f"The story did not come out as it should. {trouble}")
    if interrupted:
        raise click.exceptions.Exit(130)


def _quiet() -> None:
    """The story is the output; the log would only run through it."""
    logging.getLogger("vcenter_eam_plugin").addHandler(logging.NullHandler())
    logging.getLogger("vcenter_eam_plugin").propagate = False
