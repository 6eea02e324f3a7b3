# SPDX-License-Identifier: Apache-2.0
"""A message as the bytes that go to the broker: ``basic.publish`` of AMQP 0-9-1, with the properties that ours carry.

amqp writes the same bytes (``tests/unit/bus/test_frames.py`` holds ours against its), but walks through the format of
each method, property and header anew for every message, which was a quarter of all that a change costs. Ours has one
shape, so what never changes is encoded once (docs/adr/0035). amqp does everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct

from vcenter_eam_plugin.bus.outbox import Row
from vcenter_eam_plugin.domain import messages

DELIVERY_PERSISTENT = 2
CONTENT_TYPE, CONTENT_ENCODING = "application/json", "utf-8"

_METHOD, _HEADER, _BODY = 1, 2, 3
"""Types of frames (AMQP 0-9-1, 4.2.3)."""
_END = b"\xce"
_AROUND = 8
"""Bytes of a frame beside its payload: type, channel and length before it, its end after it."""
_FRAME = Struct(">BHI")
_PUBLISH = Struct(">HHH").pack(60, 40, 0)
"""Class basic, method publish, and the ticket that nobody uses any more."""
_MANDATORY = b"\x01"
"""The bits of the method: mandatory, not immediate."""
_CONTENT = Struct(">HHQH")
"""Class, weight, size of the body, and which properties there are."""
_PROPERTIES = 0xF0E0
"""content_type, content_encoding, headers, delivery_mode; message_id, timestamp, type."""
_LONG = Struct(">I")
_LONG_LONG = Struct(">Q")
_LONG_TEXT = Struct(">cI")


def headers_of(row: Row) -> dict[str, str]:
    """What every message says in its headers: the attributes of CloudEvents (its binding to AMQP)."""
    return {
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": row.id,
        "cloudEvents:source": row.source,
        "cloudEvents:type": messages.event_type(row.event),
        "cloudEvents:time": datetime.fromtimestamp(row.timestamp / 1e6, UTC).isoformat(),
    }


class Frames:
    """For one channel and one exchange; no frame is longer than ``most`` bytes, as was agreed with the broker.

    Raises ValueError for an exchange, a routing key or an id of more than 255 bytes, which AMQP cannot say.
    """

    def __init__(self, channel: int, exchange: str, most: int) -> None:
        self._channel = channel
        self._most = most - _AROUND
        self._publish = _PUBLISH + _short(exchange)
        self._kind = _short(CONTENT_TYPE) + _short(CONTENT_ENCODING)

    def of(self, row: Row) -> bytes:
        """All frames of one message."""
        return b"".join(self._parts(row))

    def _parts(self, row: Row) -> Iterator[bytes]:
        body = row.body
        yield from self._frame(_METHOD, self._publish + _short(row.routing_key) + _MANDATORY)
        yield from self._frame(_HEADER, _CONTENT.pack(60, 0, len(body), _PROPERTIES) + self._properties(row))
        for first in range(0, len(body), self._most):
            yield from self._frame(_BODY, body[first : first + self._most])

    def _frame(self, kind: int, payload: bytes) -> tuple[bytes, bytes, bytes]:
        return _FRAME.pack(kind, self._channel, len(payload)), payload, _END

    def _properties(self, row: Row) -> bytes:
        table = b"".join(_name(name) + _long_text(value) for name, value in headers_of(row).items())
        return b"".join((
            self._kind,
            _LONG.pack(len(table)), table,
            bytes((DELIVERY_PERSISTENT,)),
            _short(row.id),
            _LONG_LONG.pack(row.timestamp // 1_000_000),
            _short(messages.event_type(row.event)),
        ))  # fmt: skip


def _short(text: str) -> bytes:
    said = text.encode()
    return bytes((len(said),)) + said


_name = lru_cache(maxsize=16)(_short)
"""Of a header: the same few in every message."""


def _long_text(text: str) -> bytes:
    said = text.encode()
    return _LONG_TEXT.pack(b"S", len(said)) + said
