# SPDX-License-Identifier: Apache-2.0
"""The analytics bridge at a real RabbitMQ, fed by the real publisher; what it sends goes into a collector's double."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.support.collector import Collector
from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from tests.support.rabbit import RabbitNode, wait_for
from tests.unit.analytics.test_uve import a_vm
from vcenter_eam_plugin.analytics.bridge import Bridge
from vcenter_eam_plugin.analytics.memory import Memory
from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.publisher import Publisher
from vcenter_eam_plugin.domain.status import State

CODE = "from vcenter_eam_plugin.cli.main import main; main(prog_name='vcenter-eam')"
ESXI = "ObjectServerTable"
VROUTER = "ObjectVRouter"


def at_host(number: int) -> tuple[str, str]:
    return ESXI, f"esx-{number}.dc0.example"


@pytest.fixture
def outbox(tmp_path: Path, broker_settings: BrokerSettings) -> Iterator[Outbox]:
    """What is accepted there is published."""
    box = Outbox(tmp_path / "o.db", vcenter_uuid=VCENTER, publisher="p1", now=time.time)
    box.take_epoch()
    publisher = Publisher(broker_settings, box)
    running = gevent.spawn(publisher.run)
    wait_for(lambda: publisher.status()["connected"], what="the publisher is connected")
    yield box
    assert publisher.stop(5)
    running.get(timeout=5)
    box.close()


Start = Callable[..., Bridge]


@pytest.fixture
def start(broker_settings: BrokerSettings) -> Iterator[Start]:
    """Starts bridges; each must end in order."""
    running: list[tuple[Bridge, gevent.Greenlet]] = []

    def make(send: Any, **options: Any) -> Bridge:
        bridge = Bridge(broker_settings, send, **options)
        running.append((bridge, gevent.spawn(bridge.run)))
        assert bridge.consumer.ready.wait(20)
        return bridge

    yield make
    for bridge, greenlet in running:
        bridge.stop()
        greenlet.get(timeout=5)


def test_what_analytics_holds_follows_what_is_published(outbox: Outbox, start: Start) -> None:
    """S18: new at its host, then at its vRouter, still there while it is off, gone with DELETE."""
    collector = Collector()
    start(collector)
    outbox.accept([a_vm(1, State.PENDING), a_vm(2)])
    wait_for(lambda: collector.keys() == {at_host(1), at_host(2)}, what="both hosts")
    outbox.accept([a_vm(1, vrouter="vr1")])
    wait_for(lambda: collector.keys() == {(VROUTER, "vr1"), at_host(2)}, what="the move to the vRouter's key")
    outbox.accept([a_vm(1, State.MAINTENANCE)])
    wait_for(lambda: collector.tables[VROUTER]["vr1"]["state"] == "MAINTENANCE", what="maintenance")
    outbox.accept([a_vm(2, State.REMOVED)])
    wait_for(lambda: collector.keys() == {(VROUTER, "vr1")}, what="the deletion")


def test_a_snapshot_takes_away_whom_it_does_not_name(
    outbox: Outbox, start: Start, broker_settings: BrokerSettings
) -> None:
    """A DELETE that was lost (a queue at its bound) is healed, in analytics too."""
    collector = Collector()
    bridge = start(collector)
    outbox.accept([a_vm(1), a_vm(2)])
    wait_for(lambda: len(collector.keys()) == 2, what="both hosts")
    bridge.stop()
    # What the bridge does not hear: it reads a private queue, which is gone now.
    again = Bridge(broker_settings, collector)
    for message in bridge.consumer.view.states.values():
        again.consumer.view.apply(message)
        again.uves.apply(message)
    outbox.accept([a_vm(1, State.REMOVED)])
    wait_for(lambda: outbox.backlog == 0, what="the DELETE is confirmed")
    running = gevent.spawn(again.run)
    assert again.consumer.ready.wait(20)
    taken = collector.taken
    outbox.snapshot()
    wait_for(lambda: collector.keys() == {at_host(2)}, what="the END")
    assert collector.taken == taken + 1, "what did not change was sent again"
    assert again.stop()
    running.get(timeout=5)


def test_a_bridge_that_starts_again_knows_what_it_knew(
    outbox: Outbox, start: Start, broker_settings: BrokerSettings, tmp_path: Path
) -> None:
    """The queue gave each message once. The new one tells everything, at the right keys, and then what came since."""
    memory = Memory(tmp_path / "a.sqlite")
    first = start(Collector(), queue=broker_settings.queue, memory=memory)
    outbox.accept([a_vm(1, vrouter="vr1"), a_vm(2), a_vm(3)])
    outbox.take_epoch()  # another leader: what it says of one comes after all that the first said
    outbox.accept([a_vm(1, State.MAINTENANCE), a_vm(3, State.REMOVED)])
    wait_for(lambda: len(first.uves.live) == 2 and first.uves.live, what="two are left")
    first.stop()
    memory.close()
    outbox.accept([a_vm(2, State.FAULTY)])
    collector = Collector()
    again = start(collector, queue=broker_settings.queue, memory=Memory(tmp_path / "a.sqlite"))
    assert set(again.consumer.view.states) == {key_of(1), key_of(2)}, "a snapshot could not drop what is not in it"
    wait_for(lambda: collector.tables[ESXI].get(at_host(2)[1], {}).get("state") == "FAULTY", what="what came since")
    assert collector.keys() == {(VROUTER, "vr1"), at_host(2)}
    assert collector.tables[VROUTER]["vr1"]["state"] == "MAINTENANCE"


def test_when_sending_fails_the_message_is_not_lost(
    outbox: Outbox, broker_settings: BrokerSettings, tmp_path: Path
) -> None:
    def refuse(_: object) -> None:
        raise LookupError

    memory = Memory(tmp_path / "a.sqlite")
    outbox.accept([a_vm(1)])
    with pytest.raises(LookupError):
        Bridge(broker_settings, refuse, queue=broker_settings.queue, memory=memory).run()
    assert list(memory.known()) == []
    collector = Collector()
    again = Bridge(broker_settings, collector, queue=broker_settings.queue, memory=memory)
    running = gevent.spawn(again.run)
    wait_for(lambda: collector.keys() == {at_host(1)}, what="the message, again")
    assert again.stop()
    running.get(timeout=5)
    memory.close()


def test_what_cannot_be_told_is_skipped_and_the_rest_goes_on(
    outbox: Outbox, start: Start, broker_settings: BrokerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Of another release, or somebody else's: raised, it would come again for ever."""
    collector = Collector()
    start(collector)
    strange = {"id": "x", "epoch": 1, "seq": 1, "fq_name": [VCENTER], "snapshot": None, "key": "k", "oper": "UPDATE"}
    with broker.connect(broker_settings) as connection:
        connection.Producer(connection.channel()).publish(
            json.dumps(strange), exchange=broker_settings.exchange, routing_key="contrailvm.state.-.-"
        )
    outbox.accept([a_vm(1)])
    wait_for(lambda: collector.keys() == {at_host(1)}, what="the good one")
    assert "A message was not told to analytics: version None" in caplog.text


# --- the command -----------------------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CODE, "analytics-bridge", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_json_prints_each_uve_and_ends_on_sigterm(outbox: Outbox, rabbit_url: str) -> None:
    process = run("--json", "--broker", rabbit_url)
    try:
        assert process.stderr
        assert process.stdout
        said = process.stderr.readline()
        assert "listening at" in said, said + process.stderr.read()
        outbox.accept([contrail_vm(1)])
        line = json.loads(process.stdout.readline())
        assert (line["table"], line["key"], line["deleted"]) == (*at_host(1), False)
        assert line["data"]["contrail_vm_key"] == key_of(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_without_pysandesh_it_says_what_lacks_and_touches_nothing(rabbit_url: str, tmp_path: Path) -> None:
    process = run("--broker", rabbit_url, "--memory", str(tmp_path / "a.sqlite"))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, ""), err
    assert len(err.splitlines()) == 1
    assert err.startswith("vcenter-eam: pysandesh, the library")
    assert "--json prints the UVEs" in err
    assert list(tmp_path.iterdir()) == []


def test_wrong_password_ends_with_its_exit_code(rabbit_node: RabbitNode, rabbit_vhost: str) -> None:
    process = run("--json", "--broker", f"amqp://guest:hunter2@127.0.0.1:{rabbit_node.port}/{rabbit_vhost}")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "hunter2" not in err


def test_definition_prints_the_sandesh_file() -> None:
    process = run("--definition")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == (Path(__file__).parents[2] / "vcenter_eam_plugin/analytics/contrail_vm_status.sandesh").read_text()
