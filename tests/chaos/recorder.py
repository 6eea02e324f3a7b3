# SPDX-License-Identifier: Apache-2.0
"""Keeps every message that the broker ever gave out, with the time of its receipt: what the checkers believe.

Not the consumer library, which is under test too: this one forgets nothing, sorts nothing and asks nothing.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import gevent
import kombu
from amqp.exceptions import AMQPError
from gevent.event import Event

from tests.chaos.records import Received
from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.domain.errors import PluginError

QUEUE = "chaos.recorder"
PREFETCH = 200
POLL = 0.2
PAUSE = 0.1
"""Seconds until a broker that is away is tried again: it is the rig's own, and on loopback."""


class Recorder:
    """``settings`` lead past all proxies and have no heartbeat. ``run`` is the body of one greenlet; ``ready`` is set
    while it listens."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._stopping = False
        self.messages: list[Received] = []
        self.ready = Event()

    def run(self) -> None:
        while not self._stopping:
            try:
                self._listen()
            except (OSError, PluginError, AMQPError):
                gevent.sleep(PAUSE)  # killed or frozen by a nemesis: what waits in the queue comes later
            finally:
                self.ready.clear()

    def stop(self) -> None:
        self._stopping = True

    def _listen(self) -> None:
        connection = broker.connect(self._settings)
        try:
            channel = connection.channel()
            channel.basic_qos(0, PREFETCH, False)
            broker.declare_exchange(self._settings, channel, "the recorder's")
            broker.declare_queue(self._settings, channel, "the recorder's", QUEUE)
            queue = kombu.Queue(QUEUE, broker.exchange(self._settings), broker.BINDING, durable=True)
            kombu.Consumer(channel, [queue], on_message=self._received, auto_declare=False, accept=["json"]).consume()
            self.ready.set()
            while not self._stopping:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=POLL)
        finally:
            broker.close(connection, polite=False)

    def _received(self, message: Any) -> None:
        raw = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        redelivered = bool(message.delivery_info["redelivered"])
        self.messages.append(Received(time.monotonic(), raw, json.loads(raw), redelivered))
        message.ack()
