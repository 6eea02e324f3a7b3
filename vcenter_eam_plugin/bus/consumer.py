# SPDX-License-Identifier: Apache-2.0
"""A small library for those who listen: every message once, the newest per ContrailVM, in one callback.

    consumer = Consumer("amqp://user:password@host/", print, queue="vcenter_eam.my-service")
    consumer.run()            # in a greenlet of its own; consumer.stop() from another

With ``queue`` named, the queue is durable and shared by all who name it, and nothing is missed while nobody listens,
up to its length. Without, the queue is private and lives as long as the connection: good for looking on.

A message is acknowledged after the callback returned: when the callback raises, :meth:`Consumer.run` raises the same,
and from a named queue the message comes again, to this Consumer when it is run again or to another. What is no message
of ours is logged, acknowledged and skipped, whatever it is: anybody may publish on the exchange. Not promised: that a
private queue sees what happened while the connection was lost; the next snapshot (hourly) heals the view.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import kombu
from gevent.event import Event as Signal

from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.view import Applied, Deduplicator, View, checked
from vcenter_eam_plugin.domain.errors import PluginError

log = logging.getLogger(__name__)

_PREFETCH = 100
"""Messages on their way to us unacknowledged, so that a slow callback does not pull the whole queue into memory."""

MOST_BYTES = 1 << 20
"""Of one message; ours have a few kilobytes. What is larger is not decoded: as objects it would be tenfold."""

_POLL = 0.2
"""Seconds that one read waits: how late :meth:`Consumer.stop` is noticed."""

_NOT_OURS = (LookupError, TypeError, ValueError, OverflowError, RecursionError)
"""What a body that is none of ours, or was made to hurt, raises while it is read."""

_GRACE = 2.0
"""Seconds to hand a heartbeat to a broker that may be frozen."""


def _take_as_sent(channel: Any) -> None:
    """Have kombu leave bodies as they are: by a header of the message it unpacks them on arrival.

    What cannot be unpacked then looks like a broken broker and comes again with each new connection; what swells takes
    all memory. Ours are never packed.
    """
    convert = channel.message_to_python

    def as_sent(raw: Any) -> Any:
        headers = raw.get("headers") if isinstance(raw, dict) else raw.properties.get("application_headers")
        if isinstance(headers, dict):
            headers.pop("compression", None)
        return convert(raw)

    channel.message_to_python = as_sent


class Consumer:
    """See the module's text. ``settings`` may be a URL; for one that starts with ``memory:`` too.

    ``callback`` gets each message as a dict, without duplicates and without stale ones. ``on_dropped`` gets the keys
    that a snapshot showed to be gone. ``on_trouble`` is called with each error that is being retried.
    ``view.states`` holds the newest message per key. ``ready`` is set while the queue stands and is read.
    """

    def __init__(
        self,
        settings: BrokerSettings | str,
        callback: Callable[[dict[str, Any]], object],
        *,
        queue: str | None = None,
        on_dropped: Callable[[tuple[str, ...]], object] | None = None,
        on_trouble: Callable[[PluginError], object] | None = None,
    ) -> None:
        self._settings = BrokerSettings.from_url(settings) if isinstance(settings, str) else settings
        self._callback = callback
        self._queue = queue
        self._on_dropped = on_dropped
        self._on_trouble = on_trouble
        self._seen = Deduplicator()
        self._owed: dict[str, Applied] = {}
        """Messages whose callback raised: they are in the view, and their callback is due when they come again."""
        self.view = View()
        self.skipped = 0
        """Messages that were none of ours; each is in the log, and acknowledged, so that it does not come again."""
        self.duplicates = 0
        self.stale = 0
        self.ready = Signal()
        self._failed: Exception | None = None
        self._stopping = Signal()
        self._ended = Signal()

    def run(self) -> None:
        """Listen until :meth:`stop`. What time may heal is retried; LoginRefused, BrokerRefused and their like are
        raised, as is whatever the callback raises."""
        attempt = failures = 0
        try:
            while not self._stopping.is_set():
                self.ready.clear()
                try:
                    self._listen(attempt)
                except PluginError as exc:
                    if not exc.retry:
                        raise
                    if self._on_trouble:
                        self._on_trouble(exc)
                    else:
                        log.warning("%s", exc)
                    failures = 0 if self.ready.is_set() else failures + 1
                    attempt += 1
                    pause = self._settings.retry_first * 2 ** min(failures, 16)
                    self._stopping.wait(min(pause, self._settings.retry_longest))
        finally:
            self.ready.clear()
            self._ended.set()

    def stop(self, timeout: float = 5.0) -> bool:
        """End :meth:`run`; returns whether it ended within ``timeout`` seconds. Not from within the callback."""
        self._stopping.set()
        return bool(self._ended.wait(timeout))

    def _listen(self, attempt: int) -> None:
        where = self._settings.name(attempt)
        connection = broker.connect(self._settings, attempt)
        polite = False
        try:
            with broker.translated(where, "open a channel"), broker.deadline(self._settings.connect_timeout):
                channel = connection.channel()
                channel.basic_qos(0, _PREFETCH, False)
            _take_as_sent(channel)
            queue = self._declare(channel, where)
            consumer = kombu.Consumer(
                channel, [queue], on_message=self._received, on_decode_error=self._skip, auto_declare=False
            )
            with (
                broker.translated(where, f"read queue {queue.name!r}"),
                broker.deadline(self._settings.connect_timeout),
            ):
                consumer.consume()
            self.ready.set()
            while not self._stopping.is_set():
                self._read(connection, where)
            polite = True
        finally:
            broker.close(connection, polite=polite)

    def _declare(self, channel: Any, where: str) -> Any:
        exchange = broker.exchange(self._settings)
        broker.declare_exchange(self._settings, channel, where)
        if self._queue is not None:
            broker.declare_queue(self._settings, channel, where, self._queue)
            return kombu.Queue(self._queue, exchange, broker.BINDING, durable=True)
        private = kombu.Queue(
            f"vcenter_eam.{uuid4().hex}", exchange, broker.BINDING, durable=False, exclusive=True, auto_delete=True
        )
        with broker.translated(where, "declare a private queue"), broker.deadline(self._settings.connect_timeout):
            private(channel).declare()
        return private

    def _read(self, connection: Any, where: str) -> None:
        self._failed = None
        with broker.translated(where, "read messages"):
            with suppress(TimeoutError):
                connection.drain_events(timeout=_POLL)
            with broker.deadline(_GRACE):
                connection.heartbeat_check()
        if self._failed is not None:
            raise self._failed

    def _received(self, message: Any) -> None:
        try:
            self._handle(message)
        except Exception as exc:  # noqa: BLE001 - carried out of kombu's loop, and raised by _read as it was
            self._failed = exc
            return
        message.ack()

    def _handle(self, message: Any) -> None:
        try:
            if len(message.body) > MOST_BYTES:
                raise ValueError(f"it has {len(message.body)} bytes")
            content = json.loads(message.body)
            checked(content)
            message_id = content["id"]
            applied = self._owed.get(message_id) or self._take_in(message_id, content)
        except _NOT_OURS as exc:
            self._warn(exc)
            return
        if applied is None:
            return
        self._owed[message_id] = applied
        self._callback(content)
        if applied.dropped and self._on_dropped:
            self._on_dropped(applied.dropped)
        del self._owed[message_id]

    def _take_in(self, message_id: str, content: dict[str, Any]) -> Applied | None:
        """What is new in it; ``None`` when nothing is."""
        if self._seen.seen(message_id):
            self.duplicates += 1
            return None
        applied = self.view.apply(content)
        if not applied.fresh:
            self.stale += 1
            return None
        return applied

    def _skip(self, message: Any, exc: Exception) -> None:
        """kombu could not even unpack it."""
        self._warn(exc)
        message.ack()

    def _warn(self, exc: Exception) -> None:
        self.skipped += 1
        log.warning("A message that is none of ours was skipped: %s: %s", type(exc).__name__, str(exc)[:200])
