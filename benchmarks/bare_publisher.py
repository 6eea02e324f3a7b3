# SPDX-License-Identifier: Apache-2.0
"""The floor of delivery: py-amqp alone publishes messages, pipelined, to where ours go, and waits for all confirms.

    python -m benchmarks.bare_publisher PORT VHOST EXCHANGE

A process of its own, which nothing patched: plain sockets, no outbox, nothing encoded. Each line of standard input is a
file of messages (:func:`write_messages`), read before the time begins; each line of output is the seconds it took.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

import amqp

from vcenter_eam_plugin.bus.outbox import Row
from vcenter_eam_plugin.domain import messages

IN_FLIGHT = 1000
"""Messages that are not confirmed yet, at most: ten times as many as ours has by default; more was no quicker."""

Ready = list[tuple[str, str, dict[str, Any]]]


class BarePublisher:
    """The process, from the side that drives it."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._file = folder / "messages.pickle"

    def publish(self, rows: Iterable[Row]) -> float:
        """Seconds until all of them were confirmed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._file.write_bytes(pickle.dumps([(row.body.decode(), row.routing_key, _properties(row)) for row in rows]))
        self._process.stdin.write(f"{self._file}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


@contextmanager
def bare_publisher(port: int, vhost: str, exchange: str, folder: Path) -> Iterator[BarePublisher]:
    """A process that ends with the block."""
    command = [sys.executable, "-m", "benchmarks.bare_publisher", str(port), vhost, exchange]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield BarePublisher(process, folder)
        finally:
            process.kill()


def _properties(row: Row) -> dict[str, Any]:
    """As the publisher sends them."""
    return {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
        "message_id": row.id,
        "type": messages.event_type(row.event),
        "timestamp": row.timestamp // 1_000_000,
        "application_headers": {
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": row.id,
            "cloudEvents:source": row.source,
            "cloudEvents:type": messages.event_type(row.event),
            "cloudEvents:time": datetime.fromtimestamp(row.timestamp / 1e6, UTC).isoformat(),
        },
    }


class Confirming:
    """A channel, and how many of its messages are confirmed."""

    def __init__(self, port: int, vhost: str, exchange: str) -> None:
        self._exchange = exchange
        self.connection = amqp.Connection(f"127.0.0.1:{port}", virtual_host=vhost)
        self.connection.connect()
        self._channel = self.connection.channel()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._acked)
        self._sent = 0
        self._open: dict[int, None] = {}

    def send(self, body: str, routing_key: str, properties: dict[str, Any]) -> None:
        self._channel.basic_publish(
            amqp.Message(body, **properties), exchange=self._exchange, routing_key=routing_key, mandatory=True
        )
        self._sent += 1
        self._open[self._sent] = None

    def wait(self, at_most: int) -> None:
        """Until no more than so many are on their way."""
        while len(self._open) > at_most:
            self.connection.drain_events(timeout=60)

    def _acked(self, tag: int, multiple: bool) -> None:
        for known in list(takewhile(lambda known: known <= tag, self._open)) if multiple else [tag]:
            del self._open[known]


def main(port: str, vhost: str, exchange: str) -> None:
    """See the module."""
    channel = Confirming(int(port), vhost, exchange)
    for line in sys.stdin:
        ready: Ready = pickle.loads(Path(line.strip()).read_bytes())
        began = time.perf_counter()
        for body, routing_key, properties in ready:
            channel.send(body, routing_key, properties)
            channel.wait(IN_FLIGHT)
        channel.wait(0)
        print(json.dumps(time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
