# SPDX-License-Identifier: Apache-2.0
"""Sends what waits in the outbox to the broker, and takes it out when the broker confirmed it.

One greenlet owns the connection: it publishes, reads and heartbeats; two on one channel corrupt it (measured). Up to a
window of messages is on its way at any time: what is confirmed makes room for what comes next, and nobody waits for a
whole window (docs/adr/0035). It sleeps until the outbox has something new or the broker says something, whichever is
first. A message that is not confirmed in time, or any error, has the connection thrown away, because a late confirm
would be taken for another message's; what was not confirmed goes out again, as the same bytes under the same id.

- Unroutable or refused (nack): that message, and all later ones of its key, wait with growing pauses while the
  others go on. It is loud: logged once, and in :meth:`Publisher.status` until it is over. Exchange and default
  queue are declared again before the retry, since a deleted queue is the likely reason. A snapshot that was refused in
  part is worth nothing to consumers, so :meth:`Publisher.take_torn` tells when to send another.
- Blocked (``connection.blocked``, the broker's memory or disk alarm): nothing is sent, the connection is kept.
- Several brokers are tried in turn.

Not promised: exactly once. On ``memory://`` nothing is confirmed; a message counts as sent when it was handed over.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import Any

import gevent
from gevent.event import Event as Signal

from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.frames import CONTENT_ENCODING, CONTENT_TYPE, DELIVERY_PERSISTENT, Frames, headers_of
from vcenter_eam_plugin.bus.outbox import Outbox, Row
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.errors import NotConfirmed, PluginError, ProtocolError
from vcenter_eam_plugin.domain.status import Event
from vcenter_eam_plugin.turns import LOOK_AT_SOCKETS

log = logging.getLogger(__name__)

_TICK = 1.0
"""Seconds between two looks at an idle connection: amqp wants its heartbeat checked about once a second."""

_FRAMES_PER_LOOK = 100
"""Frames taken in by one look: a broker that sends without end does not hold the greenlet."""

_AT_ONCE = 16
"""Messages written by one system call, and sent between two looks: a broker that is blocked says so before the socket
is full."""

_NOT_NOW = 1e-6
"""Seconds to wait for a frame that should be there. Not 0: amqp then spins within a frame of which a part is there, and
nothing else of the process runs until the rest comes."""

_PART = 4
"""The part of a window that is taken out of the outbox together, and noted together as confirmed, while there is more
to do: a transaction for each message cost more than the message."""

_HOLD_FIRST = 0.5
"""Seconds until a refused message is tried again; doubles each time."""

_HOLD_LONGEST = 10.0
"""Seconds; a third of the 30 s in which the bus must equal the truth once a fault is healed."""

_READ = 1
"""The event of libev and libuv that gevent's watchers mean by readable."""


class LinkState(StrEnum):
    """How it stands with the broker, named by what a person must do: nothing, wait, or mend."""

    CONNECTING = "connecting"
    UP = "up"
    BLOCKED = "blocked"
    """The broker is out of memory or disk and takes nothing until that is mended there."""
    DOWN = "down"
    """Cannot be reached; time or the other brokers may heal it."""
    REFUSED = "refused"
    """Login, permission or declaration was refused: somebody must change something. We go on trying."""
    STOPPED = "stopped"


def _go_on() -> None:
    """What is called between two steps when nobody wants to know."""


@dataclass(slots=True)
class _Held:
    """One key whose next message was refused. ``until`` is monotonic."""

    until: float
    pause: float
    why: str


class Publisher:
    """See the module's text. ``run()`` is the body of one greenlet; the other methods may be called from any.

    ``clock`` gives monotonic seconds. ``on_state`` is called with :meth:`status` whenever its ``state``, ``broker``
    or ``held`` changed, from the publisher's greenlet: it must not block. ``after_publish`` is called when messages
    were handed over and none of them is confirmed, ``after_confirm`` when the broker has some that the outbox has, too.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        outbox: Outbox,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_state: Callable[[dict[str, Any]], object] | None = None,
        after_publish: Callable[[], object] = _go_on,
        after_confirm: Callable[[], object] = _go_on,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._after_publish = after_publish
        self._after_confirm = after_confirm
        self._clock = clock
        self._on_state = on_state
        self._state = LinkState.CONNECTING
        self._broker = ""
        self._last_error = ""
        self._logged = ""
        """The sentence that was logged last: a broker that lets us in and confirms nothing is one line, not many."""
        self._confirmed = 0
        self._connects = 0
        self._refused = 0
        self._held: dict[str | None, _Held] = {}
        self._told: tuple[object, ...] = ()
        self._paused = False
        self._torn = False
        self._news = True
        """Whether the outbox may have something that was not offered."""
        self._part = max(settings.window // _PART, 1)
        self._wake = Signal()
        self._stopping = Signal()
        self._ended = Signal()
        self._greenlet: Any = None
        self._link: _Link | None = None
        self._link_served = False

    # --- for the others ----------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._news = True
        self._wake.set()

    def pause(self) -> None:
        """Send nothing more, at once: another instance leads. The connection is kept; one window may be under way."""
        self._paused = True

    def resume(self) -> None:
        """Send again."""
        self._paused = False
        self.wake()

    def take_torn(self) -> bool:
        """Whether part of a snapshot was refused, and all is taken by now: no consumer had it whole, so that it showed
        nobody who is gone. True once for each time."""
        torn = self._torn and not self._held
        self._torn = self._torn and not torn
        return torn

    def stop(self, timeout: float = 5.0) -> bool:
        """Send what can be sent, then end. Returns whether the outbox was emptied within ``timeout`` seconds.

        A publisher that has not begun does not begin any more.
        """
        self._stopping.set()
        self._wake.set()
        if self._greenlet is not None and not self._ended.wait(timeout):
            # The outbox is consistent at every switch: what is unconfirmed goes out at the next start.
            self._greenlet.kill(block=True, timeout=timeout)
        return self._outbox.backlog == 0

    def status(self) -> dict[str, Any]:
        """For page, API and CLI: ``state``, ``connected``, ``broker``, ``backlog``, ``oldest_unsent_age`` (seconds or
        None), ``confirmed``, ``refused`` (messages) and ``connects`` (to a broker), each since the start,
        ``held`` (keys whose next message was refused), ``held_reason``, ``quarantined`` (keys), ``last_error``.
        ``backlog`` is None when the outbox cannot be read."""
        reason = next(iter(self._held.values())).why if self._held else ""
        backlog: int | None = None
        age: float | None = None
        error = self._last_error
        try:
            backlog, age = self._outbox.backlog, self._outbox.oldest_unsent_age
        except PluginError as exc:
            error = str(exc)
        return {
            "state": str(self._state),
            "connected": self._state in {LinkState.UP, LinkState.BLOCKED},
            "broker": self._broker,
            "backlog": backlog,
            "oldest_unsent_age": age,
            "confirmed": self._confirmed,
            "connects": self._connects,
            "refused": self._refused,
            "held": len(self._held),
            "held_reason": reason,
            "quarantined": sorted(self._outbox.quarantined),
            "last_error": error,
        }

    # --- the greenlet ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Publish until :meth:`stop`. Raises nothing: every error is reported and tried again, with back-off."""
        self._greenlet = gevent.getcurrent()
        attempt = failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    self._serve(attempt)
                except PluginError as exc:
                    self._failed(exc)
                except Exception as exc:
                    log.exception("Publishing failed in a way that nobody foresaw; the connection is made anew.")
                    self._failed(ProtocolError(f"Publishing failed: {type(exc).__name__}: {exc}."))
                else:
                    return
                # One that served for a while was not a failed attempt: begin again with the short pause.
                failures = 0 if self._link_served else failures + 1
                attempt += 1
                self._pause(failures)
        finally:
            self._close_link(polite=False)
            self._state = LinkState.STOPPED
            self._tell()
            self._ended.set()

    def _serve(self, attempt: int) -> None:
        """One connection, from login to its end: returns when stopped and drained, raises when it is lost."""
        self._link_served = False
        self._news = True
        self._broker = self._settings.name(attempt)
        link = self._link = _Link(self._settings, attempt, self._clock, self._blocked_changed)
        try:
            link.declare()
            self._connects += 1
            self._enter(LinkState.UP)
            self._last_error = ""
            log.info("Publishing on %r at broker %s.", self._settings.exchange, self._broker)
            while True:
                self._wake.clear()
                offered = self._offer(link)
                link.look()
                if self._settle(link, self._part) or offered or link.says_more or self._settle(link, 1):
                    continue
                if self._stopping.is_set() and not link.on_their_way:
                    break
                link.wait(self._wake, self._seconds_to_wait(link))
                self._news = True  # or it is time to look: whoever wrote may have ended before it could say so
        except PluginError:
            # Those that were confirmed before it broke need not go out again.
            self._took(link.take_settled()[0])
            raise
        finally:
            # A polite goodbye to a broker in trouble would be one more wait.
            self._close_link(polite=sys.exception() is None)

    def _offer(self, link: _Link) -> bool:
        """Send what there is and has room; whether there was anything."""
        on_their_way = link.on_their_way
        room = self._settings.window - len(on_their_way)
        if link.blocked or self._paused or (on_their_way and room < self._part):
            return False
        now, sent = self._clock(), {row.key for row in on_their_way}
        due = [key for key, held in self._held.items() if held.until <= now and key not in sent]
        if not due and not self._news:
            return False
        if due:
            link.declare()
        self._news = False  # before: what comes while we look is news again
        held = [key for key in self._held if key not in due and key not in sent]
        rows = self._outbox.pending(room, held=held, on_their_way=on_their_way)
        if rows:
            self._news = True
            link.send(rows)
            self._after_publish()
        elif not on_their_way:
            for key in due:
                del self._held[key]  # its messages were dropped: nothing is held back any more
        return bool(rows)

    def _settle(self, link: _Link, least: int) -> bool:
        """Note what the broker took or refused if it is so much at least; whether it was."""
        if link.settled < least:
            return False
        confirmed, refused = link.take_settled()
        self._took(confirmed)
        self._refused += len(refused)
        for row, why in refused:
            before = self._held.get(row.key)
            pause = min(before.pause * 2, _HOLD_LONGEST) if before else _HOLD_FIRST
            if not self._held:
                log.error("Broker %s does not take message %s (%s): %s.", self._broker, row.id, row.routing_key, why)
            self._held[row.key] = _Held(self._clock() + pause, pause, why)
            self._torn = self._torn or row.event is Event.SYNC
        self._tell()
        self._link_served = self._news = True
        return True

    def _took(self, rows: list[Row]) -> None:
        if not rows:
            return
        self._after_confirm()
        self._outbox.confirm(rows)
        self._logged = ""
        self._confirmed += len(rows)
        had = bool(self._held)
        for row in rows:
            self._held.pop(row.key, None)
        if had and not self._held:
            log.warning("Broker %s takes all messages again.", self._broker)

    def _seconds_to_wait(self, link: _Link) -> float:
        now = self._clock()
        return min([_TICK, link.seconds_left, *(max(held.until - now, 0.0) for held in self._held.values())])

    def _pause(self, failures: int) -> None:
        """Back off after a whole turn through the brokers; at once to the next broker before that."""
        turns = failures // len(self._settings.hosts)
        pause = min(self._settings.retry_first * 2 ** min(turns, 16), self._settings.retry_longest)
        # Spread, so that many plugins do not come back to a restarted broker in step
        self._stopping.wait(pause * random.uniform(0.7, 1.0))  # noqa: S311 - no secret

    def _failed(self, exc: PluginError) -> None:
        sentence = str(exc)
        if sentence != self._logged:
            log.error("%s", sentence)
            self._logged = sentence
        self._last_error = sentence
        self._enter(LinkState.DOWN if exc.retry else LinkState.REFUSED)

    def _blocked_changed(self, blocked: bool) -> None:
        if blocked:
            log.error("Broker %s takes no messages: its memory or disk alarm is raised.", self._broker)
        else:
            log.warning("Broker %s takes messages again.", self._broker)
        self._enter(LinkState.BLOCKED if blocked else LinkState.UP)

    def _enter(self, state: LinkState) -> None:
        self._state = state
        self._tell()

    def _tell(self) -> None:
        now = (self._state, self._broker, len(self._held))
        if now == self._told:
            return
        self._told = now
        if self._on_state is None:
            return
        try:
            self._on_state(self.status())
        except Exception:
            log.exception("on_state failed")

    def _close_link(self, *, polite: bool) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close(polite=polite)


class _Link:
    """One open connection with one channel. Raises PluginError subclasses only; after one it must be closed."""

    def __init__(
        self,
        settings: BrokerSettings,
        index: int,
        clock: Callable[[], float],
        on_blocked: Callable[[bool], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._broker = settings.name(index)
        self._on_blocked = on_blocked
        self.blocked = False
        self.says_more = False
        """The broker had more to say than one look takes in."""
        self._tag = 0
        self._open: dict[int, tuple[Row, float]] = {}
        """By tag, in order: what is not confirmed, and when (monotonic) it was sent."""
        self._confirmed: list[Row] = []
        self._refused: list[tuple[Row, str]] = []
        self._unroutable: dict[str, str] = {}
        self._excused_at = float("-inf")
        """When the broker was last known to be blocked: it says why it is silent."""
        self._beat_at = clock()
        self._readable: Any = None
        self._connection = broker.connect(
            settings,
            index,
            on_blocked=lambda _reason: self._block(True),
            on_unblocked=lambda: self._block(False),
        )
        try:
            with broker.translated(self._broker, "open a channel"), broker.deadline(settings.connect_timeout):
                self._channel = self._connection.channel()
                # memory:// has none.
                self._confirms = hasattr(self._channel, "confirm_select")
                if self._confirms:
                    amqp = self._connection.connection
                    self._frames = Frames(self._channel.channel_id, settings.exchange, amqp.frame_max)
                    self._channel.confirm_select()
                    self._channel.events["basic_ack"].add(self._acked)
                    self._channel.events["basic_nack"].add(self._nacked)
                    self._channel.events["basic_return"].add(self._returned)
                    self._readable = gevent.get_hub().loop.io(amqp.sock.fileno(), _READ)
        except BaseException:
            self.close(polite=False)
            raise

    def declare(self) -> None:
        """Exchange, default queue and binding."""
        broker.declare(self._settings, self._channel, self._broker)

    @property
    def on_their_way(self) -> list[Row]:
        """What was sent, up to :meth:`take_settled`."""
        return [row for row, _ in self._open.values()] + self._confirmed + [row for row, _ in self._refused]

    @property
    def settled(self) -> int:
        """How much :meth:`take_settled` would give."""
        return len(self._confirmed) + len(self._refused)

    def take_settled(self) -> tuple[list[Row], list[tuple[Row, str]]]:
        """What the broker confirmed, and what it refused, with the reason, since the last call."""
        settled = self._confirmed, self._refused
        self._confirmed, self._refused = [], []
        return settled

    @property
    def seconds_left(self) -> float:
        """Until the oldest confirm is overdue."""
        if not self._open:
            return float("inf")
        _, sent_at = next(iter(self._open.values()))
        return max(sent_at, self._excused_at) + self._settings.confirm_timeout - self._clock()

    def send(self, rows: list[Row]) -> None:
        """Hand them over, unless the broker says meanwhile that it takes none; what becomes of them is known later."""
        if not self._confirms:
            self._hand_over(rows)
            return
        with (
            broker.translated(self._broker, f"publish {len(rows)} messages"),
            broker.deadline(self._settings.confirm_timeout),
        ):
            for first in range(0, len(rows), _AT_ONCE):
                self._send(rows[first : first + _AT_ONCE])
                self.says_more = self._read_frames()  # where others get their turn
                if self.blocked:
                    break

    def _hand_over(self, rows: list[Row]) -> None:
        """On memory://, where what is handed over counts as sent."""
        for row in rows:
            self._channel.basic_publish(self._message(row), self._settings.exchange, row.routing_key)
        self._confirmed += rows
        gevent.sleep(0)  # it never waits for anything; the listener in this process wants its turn

    def look(self) -> None:
        """Take in what the broker has to say, and keep the heartbeat. Raises NotConfirmed when a confirm is overdue."""
        if not self._confirms:
            return
        was_blocked = self.blocked
        with (
            broker.translated(self._broker, "keep the connection"),
            broker.deadline(self._settings.confirm_timeout),
        ):
            self.says_more = self._read_frames()
            self._beat()
        if self.blocked or was_blocked:
            # Throwing the connection away would only send everything twice.
            self._excused_at = self._clock()
        if self.seconds_left <= 0:
            raise NotConfirmed(
                f"Broker {self._broker} did not confirm {len(self._open)} messages"
                f" in {self._settings.confirm_timeout:g} s; they are sent again."
            )

    def wait(self, signal: Signal, seconds: float) -> None:
        """Until ``signal`` is set, which the broker does, too, when it says something; so many seconds at most."""
        if self._readable is None:
            signal.wait(seconds)
            return
        self._readable.start(signal.set)
        try:
            signal.wait(max(seconds, 0.0))
        finally:
            self._readable.stop()

    def close(self, *, polite: bool) -> None:
        if self._readable is not None:
            self._readable.close()
        broker.close(self._connection, polite=polite)

    def _send(self, rows: list[Row]) -> None:
        now = self._clock()
        for row in rows:
            self._tag += 1
            self._open[self._tag] = row, now
        # Not basic_publish: it looks for frames before each message, and spins when it meets a part of one.
        broker.write(self._channel, b"".join(map(self._frames.of, rows)))

    def _message(self, row: Row) -> Any:
        return self._channel.prepare_message(
            row.body,
            content_type=CONTENT_TYPE,
            content_encoding=CONTENT_ENCODING,
            headers=headers_of(row),
            properties={
                "delivery_mode": DELIVERY_PERSISTENT,
                "message_id": row.id,
                "type": messages.event_type(row.event),
                "timestamp": row.timestamp // 1_000_000,
            },
        )

    def _read_frames(self) -> bool:
        """Take in the frames that are there; whether there may be more.

        Not ``drain_events``: it reads on, with its time begun anew, until a frame has a result, and heartbeats and
        ``connection.blocked`` have none.
        """
        for _ in range(_FRAMES_PER_LOOK):
            try:
                self._connection.connection.blocking_read(_NOT_NOW)
            except TimeoutError:
                return False
        gevent.sleep(LOOK_AT_SOCKETS)
        return True

    def _beat(self) -> None:
        if self._clock() >= self._beat_at:
            self._connection.heartbeat_check()
            self._beat_at = self._clock() + _TICK

    def _block(self, blocked: bool) -> None:
        self.blocked = blocked
        self._on_blocked(blocked)

    def _acked(self, tag: int, multiple: bool) -> None:
        for row in self._settled(tag, multiple):
            # An unroutable message is returned first, and then confirmed.
            why = self._unroutable.pop(row.id, None)
            if why is None:
                self._confirmed.append(row)
            else:
                self._refused.append((row, f"no queue is bound for it ({why})"))

    def _nacked(self, tag: int, multiple: bool) -> None:
        why = "the broker answered nack: a queue is full or in trouble"
        self._refused += [(row, why) for row in self._settled(tag, multiple)]

    def _settled(self, tag: int, multiple: bool) -> list[Row]:
        tags = list(takewhile(lambda known: known <= tag, self._open)) if multiple else [tag]
        return [self._open.pop(known)[0] for known in tags if known in self._open]

    def _returned(self, error: Exception, _exchange: str, _routing_key: str, message: Any) -> None:
        self._unroutable[str(message.properties.get("message_id"))] = str(getattr(error, "reply_text", None) or error)
