# SPDX-License-Identifier: Apache-2.0
"""Simulator, daemon and RabbitMQ as three processes; the daemon gets SIGKILL in every step of the story.

Proves S18 over kills: nothing is lost, nothing is told twice under two ids, and what was told equals the truth.
"""

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gevent
import kombu
import pytest

from tests.support.daemon_file import daemon_file
from tests.support.processes import DaemonProcess, SimulatorProcess, daemon_process, simulator_process
from tests.support.rabbit import RabbitNode
from vcenter_eam_plugin.bus.broker import QUEUE
from vcenter_eam_plugin.bus.consumer import Consumer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STEP_SECONDS = 30.0


@pytest.fixture
def listener(rabbit_url: str) -> Iterator[Consumer]:
    """Looks on through a private queue; what it knows says when a step is over."""
    consumer = Consumer(rabbit_url, lambda _: None)
    listening = gevent.spawn(consumer.run)
    consumer.ready.wait(10)
    yield consumer
    consumer.stop()
    listening.join(5)


def everything_published(rabbit_url: str) -> list[dict[str, Any]]:
    """All messages of the durable default queue, in order, duplicates included."""
    found = []
    with kombu.Connection(rabbit_url) as connection:
        channel = connection.channel()
        while (message := channel.basic_get(QUEUE, no_ack=True)) is not None:
            found.append(json.loads(message.body))
    return found


def expected_state(truth: dict[str, Any]) -> str:
    """What must be published of a host at rest; written without a look at the plugin's own table."""
    if truth["maintenance"] is not None:
        return "MAINTENANCE"
    return "ACTIVE" if truth["vm_power"] == "poweredOn" and truth["available"] else "not at rest"


def test_no_kill_loses_or_repeats_a_state(
    tmp_path: Path, rabbit_node: RabbitNode, rabbit_vhost: str, rabbit_url: str, listener: Consumer
) -> None:
    """S18: the daemon is killed in each step, at a moment of chance, and after it."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    knobs = ("deploy=0.4", "power_on=0.3", "heartbeat=0.2", "evacuate=0.3")
    with simulator_process(tmp_path, "--hosts", "3", *(f"--knob={knob}" for knob in knobs)) as simulator:
        conf_file = tmp_path / "vcenter_eam.conf"
        conf_file.write_text(
            daemon_file(
                simulator.about,
                tmp_path,
                DEFAULTS={"log_level": "SYS_DEBUG"},
                EAM={"power_off_grace_seconds": 0.3},
                RABBIT={"rabbit_hosts": f"127.0.0.1:{rabbit_node.port}", "rabbit_vhost": rabbit_vhost},
            )
        )
        with daemon_process(tmp_path, conf_file) as daemon:
            story = Story(simulator, daemon, listener, chance)
            story.tell()
            daemon.wait_until_leading()
            assert daemon.terminate() == 0, "SIGTERM ends it in order"
        truth = simulator.truth()

    published = everything_published(rabbit_url)
    unique = list({message["id"]: message for message in published}.values())
    states_of: dict[str, list[str]] = defaultdict(list)
    positions: dict[str, tuple[int, int]] = {}
    for message in unique:
        if message["key"] is None or message["oper"] == "SYNC":
            continue
        position = (message["epoch"], message["seq"])
        assert position > positions.get(message["key"], (0, 0)), "per key, (epoch, seq) grows"
        positions[message["key"]] = position
        if message["event"] == "state":
            states_of[message["key"]].append(message["state"])
    for key, states in states_of.items():
        assert all(one != other for one, other in pairwise(states)), (key, states)
    for message in published:
        assert message == next(m for m in unique if m["id"] == message["id"]), "a duplicate is the same message"
    names = {message["key"]: message["esxi"]["name"] for message in unique if message["key"]}
    ends = {names[key]: states[-1] for key, states in states_of.items()}
    gone = {name for name, state in ends.items() if state == "REMOVED"}
    assert gone == {"esx-04.dc0.example"}
    assert {name: state for name, state in ends.items() if name not in gone} == {
        name: expected_state(fields) for name, fields in truth.items()
    }
    assert story.kills == 14


class Story:
    """The steps of the demo, each with a kill in its midst and one after it."""

    def __init__(
        self, simulator: SimulatorProcess, daemon: DaemonProcess, listener: Consumer, chance: random.Random
    ) -> None:
        self._simulator = simulator
        self._daemon = daemon
        self._listener = listener
        self._chance = chance
        self.kills = 0

    def tell(self) -> None:
        one, two, three, new = (f"esx-0{n}.dc0.example" for n in (1, 2, 3, 4))
        do = self._simulator.do
        self._step(lambda: None, {one: "ACTIVE", two: "ACTIVE", three: "ACTIVE"})
        self._step(lambda: do("add_host", cluster="ClusterA", name=new), {new: "ACTIVE"})
        self._step(lambda: do("enter_maintenance", host=one), {one: "MAINTENANCE"}, at_rest="in")
        self._step(lambda: do("exit_maintenance", host=one), {one: "ACTIVE"})
        self._step(lambda: do("power_off", vm=self._simulator.agent_vm(two)), {two: "ACTIVE"})
        self._step(lambda: do("destroy", vm=self._simulator.agent_vm(three)), {three: "ACTIVE"})
        self._step(lambda: do("remove_host", host=new), {new: None})

    def _step(self, act: Callable[[], Any], ends: dict[str, str | None], at_rest: str | None = None) -> None:
        if self._daemon.process is None or self._daemon.process.poll() is not None:
            self._daemon.start()
        act()
        # A moment of chance is the point: it falls before, between and after reads, writes and confirms.
        gevent.sleep(self._chance.uniform(0.0, 1.5))
        self._kill_and_start()
        self._wait_for(ends, at_rest)
        self._kill_and_start()

    def _kill_and_start(self) -> None:
        self._daemon.kill()
        self.kills += 1
        self._daemon.start()

    def _wait_for(self, ends: dict[str, str | None], at_rest: str | None) -> None:
        deadline = time.monotonic() + STEP_SECONDS
        while not (self._truth_is(ends, at_rest) and self._heard() == self._heard() | ends):
            assert time.monotonic() < deadline, (ends, self._heard(), self._daemon.log_file.read_text()[-3000:])
            gevent.sleep(0.1)

    def _truth_is(self, ends: dict[str, str | None], at_rest: str | None) -> bool:
        truth = self._simulator.truth()
        return all(
            name not in truth if state is None else
            name in truth and expected_state(truth[name]) == state and truth[name]["maintenance"] == at_rest
            for name, state in ends.items()
        )  # fmt: skip

    def _heard(self) -> dict[str, str | None]:
        heard: dict[str, str | None] = {m["esxi"]["name"]: m["state"] for m in self._listener.view.states.values()}
        heard.setdefault("esx-04.dc0.example", None)
        return heard
