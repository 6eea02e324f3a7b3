# SPDX-License-Identifier: Apache-2.0
"""Our frames of a message are those that amqp writes for it, byte for byte."""

from __future__ import annotations

from types import SimpleNamespace

import amqp
import pytest
from amqp.method_framing import frame_writer
from amqp.serialization import dumps
from amqp.spec import Basic
from hypothesis import given
from hypothesis import strategies as st

from vcenter_eam_plugin.bus.frames import CONTENT_ENCODING, CONTENT_TYPE, DELIVERY_PERSISTENT, Frames, headers_of
from vcenter_eam_plugin.bus.outbox import Row
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.status import Event

LEAST_FRAME = 4096
"""Bytes: what AMQP has every peer accept."""
short = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
rows = st.builds(
    Row,
    seq=st.just(1),
    id=short,
    key=st.none(),
    event=st.sampled_from(Event),
    oper=st.just("UPDATE"),
    routing_key=short,
    timestamp=st.integers(0, 4_000_000_000_000_000),
    source=short,
    body=st.binary(max_size=300) | st.integers(0, 20_000).map(bytes),
)


def by_amqp(row: Row, channel: int, exchange: str, most: int) -> bytes:
    written: list[bytes] = []
    connection = SimpleNamespace(frame_max=most, bytes_sent=0)
    write = frame_writer(connection, SimpleNamespace(write=lambda frames: written.append(bytes(frames))))
    message = amqp.Message(
        row.body,
        content_type=CONTENT_TYPE,
        content_encoding=CONTENT_ENCODING,
        application_headers=headers_of(row),
        delivery_mode=DELIVERY_PERSISTENT,
        message_id=row.id,
        type=messages.event_type(row.event),
        timestamp=row.timestamp // 1_000_000,
    )
    write(1, channel, Basic.Publish, dumps("Bssbb", (0, exchange, row.routing_key, True, False)), message)
    return b"".join(written)


@given(row=rows, channel=st.integers(1, 65535), exchange=short)
def test_they_are_what_amqp_writes(row: Row, channel: int, exchange: str) -> None:
    """Also of a body that needs several frames, and of one that is empty."""
    ours = Frames(channel, exchange, LEAST_FRAME).of(row)
    assert ours == by_amqp(row, channel, exchange, LEAST_FRAME)


def test_what_amqp_cannot_say_is_refused() -> None:
    """And not cut: a routing key that is another one goes to other queues."""
    row = Row(1, "id", None, Event.STATE, "UPDATE", "k" * 256, 0, "source", b"{}")
    with pytest.raises(ValueError, match=r"range\(0, 256\)"):
        Frames(1, "exchange", LEAST_FRAME).of(row)
