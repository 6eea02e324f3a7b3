# SPDX-License-Identifier: Apache-2.0
"""The consumer library against a real RabbitMQ and against memory://."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from tests.support.rabbit import RabbitNode, take_all, wait_for
from vcenter_eam_plugin.bus import broker, document
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.consumer import Consumer
from vcenter_eam_plugin.bus.outbox import Outbox, Row
from vcenter_eam_plugin.bus.publisher import Publisher
from vcenter_eam_plugin.domain.errors import BrokerRefused, LoginRefused
from vcenter_eam_plugin.domain.status import State

A, B = State.ACTIVE, State.POWERED_OFF


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "o.db", vcenter_uuid=VCENTER, publisher="p1", now=time.time)
    box.take_epoch()
    yield box
    box.close()


class Listening:
    """A consumer in its greenlet."""

    def __init__(self, settings: BrokerSettings | str, callback: Any = None, **options: Any) -> None:
        self.got: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        self.consumer = Consumer(settings, callback or self.got.append, on_dropped=self.dropped.extend, **options)
        self.greenlet = gevent.spawn(self.consumer.run)
        assert self.consumer.ready.wait(20)

    @property
    def heard(self) -> list[tuple[str, str]]:
        return [(message["key"].split(".")[0], message["state"]) for message in self.got if message["key"]]

    def stop(self) -> None:
        began = time.monotonic()
        assert self.consumer.stop()
        assert time.monotonic() - began < 2
        self.greenlet.get(timeout=1)


Listen = Callable[..., Listening]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Starts consumers; asserts that each ends promptly when another greenlet says so."""
    started: list[Listening] = []

    def start(settings: BrokerSettings | str, callback: Any = None, **options: Any) -> Listening:
        started.append(Listening(settings, callback, **options))
        return started[-1]

    yield start
    for one in started:
        if not one.greenlet.dead:
            one.stop()


def send(settings: BrokerSettings, *rows: Row) -> None:
    """Put rows on the exchange as they are, as often as they are named."""
    connection = broker.connect(settings)
    try:
        channel = connection.channel()
        producer = connection.Producer(channel, auto_declare=False)
        broker.declare_exchange(settings, channel, "test")
        for row in rows:
            producer.publish(
                row.body, exchange=settings.exchange, routing_key=row.routing_key, content_type="application/json"
            )
    finally:
        broker.close(connection, polite=True)


def take(outbox: Outbox) -> list[Row]:
    """All waiting rows, confirmed."""
    taken: list[Row] = []
    while rows := outbox.pending(100):
        outbox.confirm(rows)
        taken += rows
    return taken


def test_each_message_once_and_only_news(broker_settings: BrokerSettings, outbox: Outbox, listen: Listen) -> None:
    """Duplicates and what is older than the newest of its key are not called back; the view holds the newest."""
    outbox.accept([contrail_vm(1, A), contrail_vm(2, A), contrail_vm(1, B), contrail_vm(1, State.FAULTY)])
    first, second, off, faulty = take(outbox)
    one = listen(broker_settings)
    send(broker_settings, first, first, second, faulty, off, first, faulty)
    wait_for(lambda: one.consumer.duplicates + one.consumer.stale == 4, what="all seven deliveries")
    assert one.heard == [("host-1", "ACTIVE"), ("host-2", "ACTIVE"), ("host-1", "FAULTY")]
    assert (one.consumer.duplicates, one.consumer.stale) == (3, 1)
    states = one.consumer.view.states
    assert {key: message["state"] for key, message in states.items()} == {key_of(1): "FAULTY", key_of(2): "ACTIVE"}


def test_a_snapshot_tells_who_is_gone(broker_settings: BrokerSettings, outbox: Outbox, listen: Listen) -> None:
    """A consumer that missed the DELETE learns it from the bracket."""
    one = listen(broker_settings)
    outbox.accept([contrail_vm(1), contrail_vm(2)])
    send(broker_settings, *take(outbox))
    outbox.accept([contrail_vm(1, State.REMOVED)])
    take(outbox)
    outbox.snapshot()
    send(broker_settings, *take(outbox))
    wait_for(lambda: one.dropped, what="the END")
    assert one.dropped == [key_of(1)]
    assert set(one.consumer.view.states) == {key_of(2)}


def test_a_named_queue_keeps_what_came_while_nobody_listened(
    broker_settings: BrokerSettings, outbox: Outbox, listen: Listen
) -> None:
    """The default queue is declared by the publisher; whoever comes later finds it all."""
    publisher = Publisher(broker_settings, outbox)
    outbox.accept([contrail_vm(1), contrail_vm(2)])
    running = gevent.spawn(publisher.run)
    wait_for(lambda: outbox.backlog == 0, what="an empty outbox")
    assert publisher.stop(5)
    running.get(timeout=5)
    one = listen(broker_settings, queue=broker_settings.queue)
    wait_for(lambda: len(one.got) == 2, what="both messages")
    one.stop()
    again = listen(broker_settings, queue=broker_settings.queue)
    outbox.accept([contrail_vm(2, B)])
    send(broker_settings, *take(outbox))
    wait_for(lambda: again.got, what="the news")
    assert again.heard == [("host-2", "POWERED_OFF")], "acknowledged messages came again"


def test_when_the_callback_raises_the_message_is_not_lost(
    broker_settings: BrokerSettings, outbox: Outbox, listen: Listen
) -> None:
    """run() raises the callback's own error, and the next consumer gets the message."""
    settings = replace(broker_settings, queue="")

    def refuse(message: dict[str, Any]) -> None:
        raise LookupError(message["key"])

    one = listen(settings, refuse, queue="mine")
    outbox.accept([contrail_vm(1)])
    send(settings, *take(outbox))
    with pytest.raises(LookupError, match=r"host-1\."):
        one.greenlet.get(timeout=20)
    again = listen(settings, queue="mine")
    wait_for(lambda: again.got, what="the message")
    assert again.heard == [("host-1", "ACTIVE")]


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b'{"id": "x"}',
        b'{"id": ["x"]}',
        b'{"id": "x", "epoch": null, "seq": 1}',
        b'{"id": "x", "epoch": Infinity, "seq": 1, "fq_name": ["v"], "snapshot": null, "oper": "UPDATE", "key": "k"}',
        b'{"id": "x", "epoch": 1, "seq": 1, "fq_name": ["v"], "snapshot": null, "oper": "UPDATE", "key": null}',
        b'{"id": "x", "epoch": 1, "seq": 1, "fq_name": ["v"], "snapshot": [], "oper": "SYNC", "key": null}',
        b"[" * 100_000,
    ],
    ids=lambda body: body[:40].decode("ascii", "replace"),
)
def test_what_is_no_message_of_ours_is_skipped(
    body: bytes, broker_settings: BrokerSettings, outbox: Outbox, listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may publish on the exchange; that must not stop the consumer. It does not come again either."""
    one = listen(broker_settings, queue="mine")
    outbox.accept([contrail_vm(1)])
    (row,) = take(outbox)
    send(broker_settings, msgspec.structs.replace(row, body=body), row)
    wait_for(lambda: one.got, what="the good one")
    assert one.heard == [("host-1", "ACTIVE")]
    assert "A message that is none of ours was skipped" in caplog.text
    one.stop()
    assert take_all(broker_settings, "mine") == []


@pytest.mark.parametrize(
    ("properties", "heard"),
    [
        ({"headers": {"compression": "zlib"}}, True),
        ({"headers": {"compression": "no-such-thing"}}, True),
        ({"content_type": "application/x-python-serialize"}, True),
        ({"content_encoding": "no-such-thing"}, True),
    ],
    ids=str,
)
def test_properties_that_do_not_fit_the_body_do_no_harm(
    properties: dict[str, Any], heard: bool, broker_settings: BrokerSettings, outbox: Outbox, listen: Listen
) -> None:
    """Bug: a body that could not be unpacked as its header said tore the connection down, and came again without end.

    What the body says counts, where it can be read at all; nothing is ever unpickled.
    """
    trouble: list[Exception] = []
    one = listen(broker_settings, queue="mine", on_trouble=trouble.append)
    outbox.accept([contrail_vm(1), contrail_vm(2)])
    first, second = take(outbox)
    connection = broker.connect(broker_settings)
    try:
        producer = connection.Producer(connection.channel(), auto_declare=False)
        route = {"exchange": broker_settings.exchange, "routing_key": first.routing_key}
        producer.publish(first.body, **route, **{"content_type": "application/json", **properties})
    finally:
        broker.close(connection, polite=True)
    send(broker_settings, second)
    wait_for(lambda: ("host-2", "ACTIVE") in one.heard, what="the good one")
    assert one.heard == [("host-1", "ACTIVE")] * heard + [("host-2", "ACTIVE")]
    assert trouble == []
    one.stop()
    assert take_all(broker_settings, "mine") == []


def test_a_callback_that_raised_gets_the_message_when_the_same_consumer_runs_again(
    broker_settings: BrokerSettings, outbox: Outbox
) -> None:
    """Bug: who called run() again lost that message: it was taken for a duplicate, and acknowledged."""
    heard: list[str] = []
    dropped: list[str] = []

    def fails_at_first(message: dict[str, Any]) -> None:
        heard.append(message["snapshot"]["phase"] if message["snapshot"] else message["state"])
        if heard.count(heard[-1]) == 1:
            raise LookupError(heard[-1])

    consumer = Consumer(broker_settings, fails_at_first, queue="mine", on_dropped=dropped.extend)
    consumer.view.apply(json.loads(gone_long_ago(outbox).body))
    outbox.accept([contrail_vm(1)])
    outbox.snapshot()
    connection = broker.connect(broker_settings)
    try:
        broker.declare_exchange(broker_settings, channel := connection.channel(), "test")
        broker.declare_queue(broker_settings, channel, "test", "mine")
    finally:
        broker.close(connection, polite=True)
    send(broker_settings, *take(outbox))
    for _ in range(4):
        with pytest.raises(LookupError):
            consumer.run()
    running = gevent.spawn(consumer.run)
    wait_for(lambda: len(heard) == 8, what="each twice")
    assert heard == ["ACTIVE", "ACTIVE", "BEGIN", "BEGIN", "ITEM", "ITEM", "END", "END"]
    wait_for(lambda: dropped == [key_of(9)], what="the snapshot's news")
    assert consumer.duplicates == 0
    assert consumer.stop()
    running.get(timeout=1)


def gone_long_ago(outbox: Outbox) -> Row:
    """host-9, whose removal no consumer was told of."""
    outbox.accept([contrail_vm(9)])
    (row,) = take(outbox)
    outbox.accept([contrail_vm(9, State.REMOVED)])
    take(outbox)
    return row


def test_a_connection_that_breaks_is_made_again(
    broker_settings: BrokerSettings, outbox: Outbox, listen: Listen, rabbit_node: RabbitNode
) -> None:
    """A forced close by the broker: the trouble is told, and listening goes on with the same view."""
    trouble: list[Exception] = []
    one = listen(broker_settings, queue="mine", on_trouble=trouble.append)
    rabbit_node.close_connections(broker_settings.vhost)
    wait_for(lambda: trouble, what="the trouble")
    assert one.consumer.ready.wait(20)
    outbox.accept([contrail_vm(1)])
    send(broker_settings, *take(outbox))
    wait_for(lambda: one.got, what="the message")
    assert len(trouble) == 1


def test_a_refused_login_ends_it_with_one_clear_sentence(broker_settings: BrokerSettings) -> None:
    """Nothing that time heals: a command line must say it and end."""
    with pytest.raises(LoginRefused, match=r"refused to log in as 'guest'.*Check rabbit_user and rabbit_password"):
        Consumer(replace(broker_settings, password=lambda: "wrong"), print).run()
    with pytest.raises(BrokerRefused, match="refused to log in"):
        Consumer(replace(broker_settings, vhost="nowhere"), print).run()


def test_the_consumer_that_the_page_shows(
    broker_settings: BrokerSettings, outbox: Outbox, rabbit_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/messages.md: as it stands there, but for the broker's address."""
    code = re.sub(r'^url = ".*"$', f'url = "{rabbit_url}"', document.CONSUMER, flags=re.MULTILINE)
    names: dict[str, Any] = {}
    running = gevent.spawn(exec, code, names)
    wait_for(lambda: "consumer" in names and names["consumer"].ready.is_set(), what="it listens")
    outbox.accept([contrail_vm(1, A), contrail_vm(2, A)])
    outbox.accept([contrail_vm(1, B)])
    send(broker_settings, *take(outbox))
    outbox.accept([contrail_vm(2, State.REMOVED)])
    take(outbox)
    outbox.snapshot()
    send(broker_settings, *take(outbox))
    wait_for(lambda: set(names["consumer"].view.states) == {key_of(1)}, what="the END")
    assert names["consumer"].stop()
    running.get(timeout=5)
    assert capsys.readouterr().out.splitlines() == [
        "esx-1.dc0.example None -> ACTIVE",
        "esx-2.dc0.example None -> ACTIVE",
        "esx-1.dc0.example ACTIVE -> POWERED_OFF",
        f"not there any more: {key_of(2)}",
    ]


def test_memory_transport(outbox: Outbox, listen: Listen) -> None:
    """The demo's broker: publisher and listener in one process, within milliseconds, both ended in order."""
    settings = BrokerSettings.from_url("memory://", exchange="test-memory", queue="test-memory")
    one = listen(settings)
    publisher = Publisher(settings, outbox)
    running = gevent.spawn(publisher.run)
    outbox.accept([contrail_vm(1), contrail_vm(2)])
    outbox.accept([contrail_vm(1, B)])
    outbox.snapshot()
    publisher.wake()
    wait_for(lambda: len(one.got) == 7, 5, "three changes and a snapshot of two")
    assert one.heard[:3] == [("host-1", "ACTIVE"), ("host-2", "ACTIVE"), ("host-1", "POWERED_OFF")]
    assert publisher.status()["connected"]
    assert publisher.stop(5)
    running.get(timeout=1)
