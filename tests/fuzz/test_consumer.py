# SPDX-License-Identifier: Apache-2.0
"""What comes from the bus: a message that is none of ours is skipped and said, and the next one of ours is heard."""

from __future__ import annotations

import json
import logging
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.generate import damaged, fewer, in_time
from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from tests.support.rabbit import wait_for
from vcenter_eam_plugin.bus import broker, view
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.consumer import MOST_BYTES, Consumer
from vcenter_eam_plugin.bus.outbox import Outbox, Row
from vcenter_eam_plugin.bus.view import View
from vcenter_eam_plugin.cli.listen import line
from vcenter_eam_plugin.domain.status import State


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Messages as they are published: a change, and a snapshot of two."""
    box = Outbox(tmp_path_factory.mktemp("box") / "o.db", vcenter_uuid=VCENTER, publisher="p", now=time.time)
    box.take_epoch()
    box.accept([contrail_vm(1), contrail_vm(2)])
    box.snapshot()
    found = []
    while batch := box.pending(100):
        found += batch
        box.confirm(batch)
    box.close()
    return found


def apply(known: View, body: bytes) -> None:
    """As a consumer does; only ValueError says that it is none of ours."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return
    before = (dict(known.states), dict(known._positions))
    with in_time(body):
        try:
            known.apply(content)
        except ValueError:
            assert (dict(known.states), dict(known._positions)) == before, "a message that was refused left a mark"
            return
        assert json.dumps(dict(known.states))
        assert line(content).isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MISSING = "a field that is left out"
FIELDS = (
    "id",
    "epoch",
    "seq",
    "key",
    "oper",
    "event",
    "fq_name",
    "snapshot",
    "esxi",
    "timestamp",
    "state",
    "old_state",
)


@given(data=st.data())
def test_any_value_in_any_field(rows: list[Row], data: st.DataObject) -> None:
    """Before each message of ours, the same one with a few fields changed or missing."""
    known = View()
    number = data.draw(st.integers(0, len(rows) - 1))
    changes = data.draw(st.dictionaries(st.sampled_from(FIELDS), JSON | st.just(MISSING), min_size=1, max_size=3))
    for row in rows[number:]:
        content = json.loads(row.body) | changes
        apply(known, json.dumps({name: value for name, value in content.items() if value != MISSING}).encode())
        apply(known, row.body)


@given(data=st.data())
def test_damaged_bodies(rows: list[Row], data: st.DataObject) -> None:
    known = View()
    number = data.draw(st.integers(0, len(rows) - 1))
    apply(
        known,
        data.draw(damaged(rows[number].body, telling=(b"null", b"Infinity", b'"epoch":1e400', b"[]", b"\\ud800"))),
    )
    for row in rows:
        apply(known, row.body)


def test_refused_messages_leave_the_position_of_their_key_alone(rows: list[Row]) -> None:
    """Half a message with a great number would have the next, true one dropped as stale: a silent loss."""
    known = View()
    broken = json.loads(rows[0].body)
    del broken["oper"]
    broken["seq"] += 100
    with pytest.raises(ValueError, match="operation"):
        known.apply(broken)
    assert known.apply(json.loads(rows[0].body)).fresh


def test_a_view_does_not_grow_without_bound(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who may publish, and publishes a new key, vCenter and snapshot each time."""
    monkeypatch.setattr(view, "MOST_KEYS", 50)
    known = View()
    refused = 0
    for number in range(400):
        content = json.loads(rows[number % len(rows)].body)
        content["fq_name"][0] = f"vcenter-{number}"
        content["key"] = content["key"] and f"host-{number}.x"
        try:
            known.apply(content)
        except ValueError:
            refused += 1
    assert refused > 200
    assert max(len(held) for held in (known._positions, known._open, known._floor, known.states)) <= 50


# --- through a real broker -----------------------------------------------------------------------------


class Listener:
    """A consumer in its greenlet, and what it heard."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.heard: list[dict[str, Any]] = []
        self.settings = settings
        self.consumer = Consumer(settings, self.heard.append, queue="fuzz")
        self.greenlet = gevent.spawn(self.consumer.run)
        assert self.consumer.ready.wait(20)
        self.connection = broker.connect(settings)
        self.producer = self.connection.Producer(self.connection.channel(), auto_declare=False)
        self.sequence = 10_000

    def publish(self, body: bytes, **properties: Any) -> None:
        arguments: dict[str, Any] = {"content_type": "application/json", "content_encoding": "binary", **properties}
        self.producer.publish(body, exchange=self.settings.exchange, routing_key="contrailvm.state.c.h", **arguments)

    def hears_the_next(self, good: bytes) -> None:
        """A message of ours comes through, whatever came before it."""
        self.sequence += 1
        content = json.loads(good)
        content["seq"], content["id"] = self.sequence, f"good-{self.sequence}"
        self.publish(json.dumps(content).encode())
        wait_for(
            lambda: self.greenlet.dead or any(one["id"] == content["id"] for one in self.heard), 20, "the next message"
        )
        assert not self.greenlet.dead, self.greenlet.value
        self.heard.clear()

    def close(self) -> None:
        broker.close(self.connection, polite=True)
        assert self.consumer.stop()
        self.greenlet.get(timeout=1)


@pytest.fixture(scope="module")
def listener(rabbit_node: Any) -> Iterator[Listener]:
    vhost = rabbit_node.make_vhost()
    settings = BrokerSettings.from_url(f"amqp://guest:guest@127.0.0.1:{rabbit_node.port}/{vhost}", connect_timeout=5.0)
    made = Listener(settings)
    yield made
    made.close()
    rabbit_node.drop_vhost(vhost)


DEEP = b"[" * 100_000
HEADERS = st.dictionaries(
    st.sampled_from(["compression", "id", "x-death", "task", "content_encoding", "\ud7ff"]),
    st.sampled_from(["application/x-gzip", "x", -1, 2**40, None, True, {"a": [1]}, "y" * 2000, 0.5]),
    max_size=3,
)


@fewer(0.7)
@given(
    body=st.binary(max_size=300) | st.builds(lambda tree: json.dumps(tree).encode(), JSON),
    content_type=st.sampled_from(
        ["application/json", "application/x-python-serialize", "application/data", "text/plain", "", "x" * 200, "yaml"]
    ),
    content_encoding=st.sampled_from(["utf-8", "binary", "utf-16", "gzip", "nonsense", "base64", ""]),
    headers=HEADERS,
)
@example(body=DEEP, content_type="application/json", content_encoding="utf-8", headers={})
@example(body=b'{"a":' * 50_000, content_type="application/json", content_encoding="utf-8", headers={})
@example(
    body=b"cos\nsystem\n(S'exit 1'\ntR.",
    content_type="application/x-python-serialize",
    content_encoding="binary",
    headers={},
)
@example(body=b"\x1f\x8b", content_type="x", content_encoding="binary", headers={"compression": "application/x-gzip"})
def test_poison_is_skipped_and_the_next_message_is_heard(
    listener: Listener, rows: list[Row], body: bytes, content_type: str, content_encoding: str, headers: dict[str, Any]
) -> None:
    listener.publish(body, content_type=content_type, content_encoding=content_encoding, headers=headers)
    listener.hears_the_next(rows[0].body)


def test_poison_is_counted_logged_and_gone(
    listener: Listener, rows: list[Row], caplog: pytest.LogCaptureFixture
) -> None:
    """On a durable queue what is not acknowledged would come again for ever."""
    before = listener.consumer.skipped
    epoch = json.loads(rows[0].body) | {"epoch": float("inf"), "id": "i"}
    poison = [b"no json", DEEP, json.dumps(epoch).encode(), b"\xff", b" " * (MOST_BYTES + 1), b"[]", b'"\\ud800"']
    with caplog.at_level(logging.WARNING):
        for body in poison:
            listener.publish(body)
        listener.hears_the_next(rows[0].body)
    assert listener.consumer.skipped - before == len(poison)
    assert len([r for r in caplog.records if "none of ours" in r.message]) == len(poison)
    assert max(len(record.getMessage()) for record in caplog.records) < 1000


def test_a_packed_body_is_not_unpacked(listener: Listener, rows: list[Row]) -> None:
    """kombu unpacks by a header, on arrival: 64 MB of 64 kB, and from there gigabytes."""
    packed = zlib.compress(b" " * (64 << 20))
    tracemalloc.start()
    try:
        listener.publish(packed, headers={"compression": "application/x-gzip"})
        listener.hears_the_next(rows[0].body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20, f"{peak >> 20} MiB"


def test_ten_thousand_large_ids_are_not_remembered(listener: Listener, rows: list[Row]) -> None:
    """The memory for duplicates holds 10,000 ids; each as large as a message it would be gigabytes."""
    tracemalloc.start()
    try:
        for number in range(200):
            listener.publish(json.dumps(json.loads(rows[0].body) | {"id": f"{number}" + "x" * 100_000}).encode())
        listener.hears_the_next(rows[0].body)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10 << 20, f"{held >> 20} MiB"


def test_a_removed_key_is_known_by_its_state(rows: list[Row]) -> None:
    """The seeds are messages of ours, so that a green run means something."""
    known = View()
    for row in rows:
        known.apply(json.loads(row.body))
    assert set(known.states) == {key_of(1), key_of(2)}
    assert {message["state"] for message in known.states.values()} == {State.ACTIVE.value}
