# SPDX-License-Identifier: Apache-2.0
"""The promises of delivery, each by its number, against a real RabbitMQ with something in between that breaks.

P1 and P2 over kills of the process are in test_outbox_faults.py and the scenario test_killed_daemon.py.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.support.bench import Bench
from tests.support.confirm_proxy import Confirm, ConfirmProxy
from tests.support.contrailvm import VCENTER, contrail_vm
from tests.support.publishing import Running, SecondClient
from tests.support.rabbit import RabbitNode, take_all, wait_for
from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.view import View
from vcenter_eam_plugin.domain.status import State

STATES = (State.ACTIVE, State.POWERED_OFF, State.FAULTY, State.REMOVED)


@pytest.fixture
def proxy(broker_settings: BrokerSettings) -> Iterator[ConfirmProxy]:
    with ConfirmProxy(broker_settings.hosts[0]).running() as proxy:
        yield proxy


class Plugin:
    """The plugin's way out: an outbox on disk and a publisher behind the proxy. It can be killed and started again."""

    def __init__(self, settings: BrokerSettings, path: Path) -> None:
        self._settings = settings
        self._path = path
        self.start()

    def start(self) -> None:
        # A low bound, so that states coalesce while the broker is away.
        self.outbox = Outbox(self._path, vcenter_uuid=VCENTER, publisher="p", now=time.time, bound=100)
        self.outbox.take_epoch()
        self.running = Running(self._settings, self.outbox)

    def kill(self) -> None:
        """Within a round if it falls so: nothing is put in order but the file handle, which the system closes too."""
        self.running.greenlet.kill()
        self.outbox.close()

    def say(self, *statuses: Any) -> None:
        self.running.say(*statuses)

    def end(self) -> None:
        self.running.wait_sent(60)
        assert self.running.publisher.stop(5)
        self.running.greenlet.get(timeout=5)
        self.outbox.close()


class Nemesis:
    """One fault after another, each for about a second, in an order of chance."""

    def __init__(self, proxy: ConfirmProxy, node: RabbitNode, direct: BrokerSettings, plugin: Plugin) -> None:
        self._proxy = proxy
        self._node = node
        self._direct = direct
        self._plugin = plugin

    def torment(self, chance: random.Random) -> None:
        faults = [
            self.cut,
            self.close,
            self.lose_confirms,
            self.nack,
            self.shuffle,
            self.refuse,
            self.freeze,
            self.kill,
        ]
        rounds = faults * 2
        chance.shuffle(rounds)
        for fault in rounds:
            fault(chance)
            gevent.sleep(chance.uniform(0.05, 0.3))  # some work between two faults; how much is chance

    def cut(self, _chance: random.Random) -> None:
        self._proxy.cut()

    def close(self, _chance: random.Random) -> None:
        self._node.close_connections(self._direct.vhost)

    def lose_confirms(self, chance: random.Random) -> None:
        self._tampering(lambda confirm: [confirm] if chance.random() < 0.5 else [])

    def nack(self, chance: random.Random) -> None:
        self._tampering(lambda confirm: [replace(confirm, ok=chance.random() < 0.7)])

    def unbind(self, _chance: random.Random) -> None:
        """What is sent now is gone at the broker; the plugin binds its queue again when it tries again."""
        with SecondClient(self._direct) as channel:
            channel.queue_unbind(self._direct.queue, self._direct.exchange, broker.BINDING)
        gevent.sleep(1.0)

    def shuffle(self, chance: random.Random) -> None:
        held: list[Confirm] = []

        def in_pairs_backwards(confirm: Confirm) -> list[Confirm]:
            held.append(confirm)
            if len(held) < 2 and chance.random() < 0.7:
                return []
            out, held[:] = held[::-1], []
            return out

        self._tampering(in_pairs_backwards)

    def refuse(self, _chance: random.Random) -> None:
        self._proxy.refuse()
        gevent.sleep(0.5)
        self._proxy.heal()

    def freeze(self, _chance: random.Random) -> None:
        self._node.freeze()
        try:
            gevent.sleep(1.0)
        finally:
            self._node.thaw()

    def kill(self, _chance: random.Random) -> None:
        self._plugin.kill()
        self._plugin.start()

    def _tampering(self, tamper: Callable[[Confirm], list[Confirm]]) -> None:
        self._proxy.tamper = tamper
        gevent.sleep(1.0)
        self._proxy.tamper = None


@pytest.mark.slow
def test_p3_per_key_epoch_and_seq_grow_whatever_happens_between(
    broker_settings: BrokerSettings, proxy: ConfirmProxy, rabbit_node: RabbitNode, tmp_path: Path
) -> None:
    """P3, and P1 and P4 with it: eighteen faults of nine kinds while states change without pause.

    After removing duplicates, (epoch, seq) strictly grows per key; one id is one body; what consumers hold at the end
    is what was accepted.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    settings = replace(broker_settings, hosts=(("127.0.0.1", proxy.port),), confirm_timeout=0.5, connect_timeout=2.0)
    plugin = Plugin(settings, tmp_path / "o.db")
    stop = gevent.event.Event()
    said = 0

    def keep_changing() -> None:
        nonlocal said
        while not stop.wait(0.005):
            said += 1
            plugin.say(contrail_vm(said % 8, chance.choice(STATES), str(said)))
            if said % 200 == 0:
                plugin.outbox.snapshot()

    changing = gevent.spawn(keep_changing)
    Nemesis(proxy, rabbit_node, broker_settings, plugin).torment(random.Random(seed + 1))
    stop.set()
    changing.get()
    truth = {key: (str(status.state), status.reason) for key, status in plugin.outbox.last_accepted().items()}
    plugin.end()

    view = View()
    bodies: dict[str, Any] = {}
    newest: dict[str, tuple[int, int]] = {}
    duplicates = 0
    for message in take_all(broker_settings):
        body = json.loads(message.body)
        if body["id"] in bodies:
            assert bodies[body["id"]] == message.body, "one id, two bodies"
            duplicates += 1
            continue
        bodies[body["id"]] = message.body
        view.apply(body)
        if body["key"] is not None:
            here = (body["epoch"], body["seq"])
            assert here > newest.get(body["key"], (0, 0)), f"{body['key']}: {here} after {newest[body['key']]}"
            newest[body["key"]] = here
    print(f"{said} changes, {len(bodies)} messages, {duplicates} duplicates")
    assert {key: (m["state"], m["reason"]) for key, m in view.states.items()} == truth
    assert duplicates, "no fault fell within a round"


def test_p4_duplicates_have_the_same_source_and_id_and_an_equal_body(
    broker_settings: BrokerSettings, proxy: ConfirmProxy, tmp_path: Path
) -> None:
    """P4: the broker has them and its confirms are dropped on the way, three times over and over a restart."""
    settings = replace(broker_settings, hosts=(("127.0.0.1", proxy.port),), confirm_timeout=0.5)
    proxy.tamper = lambda _confirm: []
    plugin = Plugin(settings, tmp_path / "o.db")
    plugin.say(*(contrail_vm(host) for host in range(30)))
    plugin.outbox.snapshot()
    wait_for(lambda: plugin.running.states.count("down") == 2, what="two rounds without a confirm")
    plugin.kill()
    plugin.start()
    wait_for(lambda: plugin.running.states.count("down") == 1, what="one more")
    proxy.tamper = None
    plugin.end()
    copies: dict[tuple[str, str], list[Any]] = {}
    for message in take_all(broker_settings):
        headers = message.properties["application_headers"]
        body = json.loads(message.body)
        assert headers["cloudEvents:id"] == message.properties["message_id"] == body["id"]
        copies.setdefault((headers["cloudEvents:source"], headers["cloudEvents:id"]), []).append(message)
    assert len(copies) == 30 + 32
    assert sum(len(messages) >= 4 for messages in copies.values()) >= 30, "three were lost, the fourth came through"
    for messages in copies.values():
        assert len({hashlib.sha256(message.body.encode()).hexdigest() for message in messages}) == 1
        assert len({message.delivery_info["routing_key"] for message in messages}) == 1
        assert len({str(message.properties) for message in messages}) == 1


def test_p13_unroutable_is_loud_and_delivered_once_a_queue_is_bound_again(make_bench: Callable[..., Bench]) -> None:
    """P13: the binding is deleted: an alarm that says so, and the message stays in the outbox. Bound again: delivered.

    The whole service, with the queue declared by somebody else (our own is bound again by the plugin itself).
    """
    bench = make_bench(hosts=2, clusters=1)
    bench.broker = settings = replace(bench.broker, queue="")
    with SecondClient(settings) as channel:
        broker.declare_exchange(settings, channel, "test")
        channel.queue_declare("somebodys", durable=True, auto_delete=False)
        channel.queue_bind("somebodys", settings.exchange, "contrailvm.#")
    bench.start()
    bench.wait_until_active()
    publisher = bench.unit.pipeline.delivery.publisher  # type: ignore[union-attr]
    bench.wait_for(lambda: publisher.status()["backlog"] == 0, "everything is sent")
    bench.listener.stop()  # its private queue would take the messages
    wait_for(lambda: bench._listening is not None and bench._listening.dead, what="the listener's end")
    take_all(settings, "somebodys")
    with SecondClient(settings) as channel:
        channel.queue_unbind("somebodys", settings.exchange, "contrailvm.#")
    host = bench.vcenter.hosts()[0]
    bench.vcenter.enter_maintenance(host)
    bench.wait_for(lambda: "bus-refuses" in bench.alarms(), "the alarm")
    assert "The broker refuses messages: no queue is bound for it" in bench.alarms()["bus-refuses"]
    tried = publisher._link._tag  # type: ignore[union-attr]
    bench.wait_for(lambda: publisher._link._tag > tried + 1, "it is tried again")  # type: ignore[union-attr]
    assert publisher.status()["backlog"] >= 1
    assert "bus-refuses" in bench.alarms()
    assert take_all(settings, "somebodys") == []
    with SecondClient(settings) as channel:
        channel.queue_bind("somebodys", settings.exchange, "contrailvm.#")
    bench.wait_for(lambda: publisher.status()["backlog"] == 0, "everything is sent")
    bench.wait_for(lambda: "bus-refuses" not in bench.alarms(), "the alarm is over")
    found = [json.loads(message.body) for message in take_all(settings, "somebodys")]
    assert "MAINTENANCE" in [body["state"] for body in found if body["key"] and body["esxi"]["name"] == host.name]
