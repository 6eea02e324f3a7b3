# SPDX-License-Identifier: Apache-2.0
"""A proxy before a real RabbitMQ that reads the broker's answers and tampers with its confirms alone.

It makes a broker deterministic that confirms out of order, many at once, some with nack, or whose confirms get lost
while everything else passes: AMQP 0-9-1 allows all of it, and a healthy node does it when it pleases.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.support.proxy import Proxy

_METHOD_FRAME = 1
_BASIC, _ACK, _NACK = 60, 80, 120
_MULTIPLE = 1


@dataclass(frozen=True, slots=True)
class Confirm:
    """``basic.ack``, or ``basic.nack`` when not ``ok``."""

    tag: int
    ok: bool = True
    multiple: bool = False


Tamper = Callable[[Confirm], Iterable[Confirm]]
"""Given one confirm of the broker, for a single tag: what is to be sent to the client now."""


class ConfirmProxy(Proxy):
    """``tamper`` may be set at any time; ``None`` passes everything."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(target)
        self.tamper: Tamper | None = None

    def _pump(self, source: Any, sink: Any, client: Any, answers: bool) -> None:
        if not answers:
            super()._pump(source, sink, client, answers)
            return
        settled = _Settled()
        with contextlib.suppress(OSError):
            while frame := _frame_of(source):
                self._flowing.wait()
                sink.sendall(self._tampered(frame, settled))
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _tampered(self, frame: bytes, settled: _Settled) -> bytes:
        kind, channel, _size, class_, method = struct.unpack_from(">BHIHH", frame.ljust(11, b"\0"))
        if (kind, class_) != (_METHOD_FRAME, _BASIC) or method not in {_ACK, _NACK}:
            return frame
        tag, bits = struct.unpack_from(">QB", frame, 11)
        single = [Confirm(one, ok=method == _ACK) for one in settled.tags(tag, bool(bits & _MULTIPLE))]
        if self.tamper is None:
            return frame
        return b"".join(_encoded(channel, out) for confirm in single for out in self.tamper(confirm))


class _Settled:
    """Which tags of one connection the broker has confirmed; gives out those that a confirm is for."""

    def __init__(self) -> None:
        self._below = 1
        self._above = set[int]()

    def tags(self, tag: int, multiple: bool) -> list[int]:
        tags = [one for one in range(self._below, tag + 1) if one not in self._above] if multiple else [tag]
        self._above.update(tags)
        while self._below in self._above:
            self._above.remove(self._below)
            self._below += 1
        return tags


def _encoded(channel: int, confirm: Confirm) -> bytes:
    payload = struct.pack(">HHQB", _BASIC, _ACK if confirm.ok else _NACK, confirm.tag, confirm.multiple)
    return struct.pack(">BHI", _METHOD_FRAME, channel, len(payload)) + payload + b"\xce"


def _frame_of(source: Any) -> bytes:
    """The next whole frame; empty at the end of the stream."""
    header = _exactly(source, 7)
    if len(header) < 7:
        return b""
    (size,) = struct.unpack_from(">I", header, 3)
    return header + _exactly(source, size + 1)


def _exactly(source: Any, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := source.recv(size - len(data))):
        data += more
    return data
