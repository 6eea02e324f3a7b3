# SPDX-License-Identifier: Apache-2.0
"""The durable memory between what was seen and what was told: one sqlite file per vCenter.

A change, the last accepted record of its key and its message are written in ONE transaction, and a message is
deleted only when the broker confirmed it. So a kill at any moment loses nothing and tells nothing twice under
two ids: after a restart the world is compared with the last accepted records, unchanged means no message.

- Order: messages leave in the order of ``seq``; one batch never holds two messages of one key, so that a refused
  message is never overtaken by a later one of its key.
- Bound: when more than ``bound`` messages wait, a new change of a key swallows those of its older messages that
  were never offered to the broker (``coalesced`` counts them). A DELETE is never swallowed.
- What cannot be encoded is quarantined by key and reported; it never blocks the others.

Not promised: that the last transactions outlive a power cut of the machine (``synchronous=NORMAL``); what is lost
then is seen again by the comparison at restart, and may be told twice. The bound is soft: at worst one message per
key, and the DELETEs, stand above it. One process owns the file. A call with many records lets other greenlets run in
between, within its transaction; a second call waits for the first.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

import gevent
import msgspec
from gevent.lock import RLock

from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.errors import ConfigurationError, ProtocolError, Unavailable, WrongState
from vcenter_eam_plugin.domain.status import ContrailVm, Event, State, VRouter, event_between

log = logging.getLogger(__name__)

DEFAULT_BOUND = 4096
"""Messages; the backlog at which Contrail's API server refuses requests (``rabbit_max_pending_updates``)."""

_OPEN_WAIT = 1.0
"""Seconds to wait for a predecessor that is just ending before we say that the file is in use."""

_AT_ONCE = 100
"""Records until the hub gets its turn: some 10 ms, where 2,500 hosts at once would stop it for 0.2 s (measured)."""

_NO_OUTBOX = ("not a database", "malformed", "already exists")
"""How sqlite says that a file is not what we wrote."""

_DAMAGED = (*_NO_OUTBOX, "no such table", "no such column", "Could not decode")
"""How it says so of what is in the file, once its tables should stand."""

_GONE = "the host is no longer in the scope"

_MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE accepted (key TEXT PRIMARY KEY, status BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE message (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        key TEXT,
        event TEXT NOT NULL,
        oper TEXT NOT NULL,
        routing_key TEXT NOT NULL,
        timestamp INTEGER NOT NULL,
        offered INTEGER NOT NULL DEFAULT 0,
        coalesced INTEGER NOT NULL,
        base BLOB,
        body BLOB NOT NULL
    );
    CREATE INDEX message_of_key ON message (key, seq);
    """,
)
"""Script n takes a file from ``user_version`` n to n + 1. Never edit one that was released: append.

``message.base`` is the record that consumers hold before this message: coalescing compares with it.
``offered`` is set, durably, before a message first goes to the broker: from then on it may have arrived.
AUTOINCREMENT keeps ``seq`` from being used again after its row was confirmed and deleted.
"""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """One change that was taken in. ``old_state`` is ``None`` for a key that was not known.

    ``message_id`` and ``seq`` are ``None`` when coalescing left nothing to say: the key is back at what was sent last.
    """

    key: str
    event: Event
    old_state: State | None
    status: ContrailVm
    message_id: str | None
    seq: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """One message that waits. ``key`` is ``None`` for the brackets of a snapshot; ``timestamp`` in microseconds.

    ``source`` and ``id`` together are unique: the attributes of CloudEvents.
    """

    seq: int
    id: str
    key: str | None
    event: Event
    oper: str
    routing_key: str
    timestamp: int
    source: str
    body: bytes


class Outbox:
    """See the module's text. All methods raise :class:`Unavailable` when the file cannot be read or written.

    ``now`` gives POSIX seconds. ``publisher`` names this instance in the messages. Call :meth:`take_epoch` once
    before the first change.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        vcenter_uuid: str,
        publisher: str,
        now: Callable[[], float],
        bound: int = DEFAULT_BOUND,
    ) -> None:
        try:
            UUID(vcenter_uuid)
        except ValueError as exc:
            raise ProtocolError(f"The vCenter calls itself {vcenter_uuid!r}, which is no instanceUuid.") from exc
        self._path = os.fspath(path)
        self._vcenter_uuid = vcenter_uuid
        self._publisher = publisher
        self._now = now
        self._bound = bound
        self._epoch: int | None = None
        self._quarantined: dict[str, str] = {}
        self._lock = RLock()
        self._db = self._open()
        try:
            self._claim()
            self._accepted = self._load()
            self._check_readable()
        except BaseException:
            self._db.close()
            raise

    # --- what is known -----------------------------------------------------------------------------------

    @property
    def vcenter_uuid(self) -> str:
        return self._vcenter_uuid

    @property
    def epoch(self) -> int:
        """Our term; 0 before :meth:`take_epoch`."""
        return self._epoch or 0

    @property
    def backlog(self) -> int:
        """Messages that the broker has not confirmed."""
        with self._reading():
            return int(self._db.execute("SELECT count(*) FROM message").fetchone()[0])

    @property
    def oldest_unsent_age(self) -> float | None:
        """Seconds since the oldest unconfirmed message was taken in; ``None`` when all are confirmed."""
        with self._reading():
            row = self._db.execute("SELECT timestamp FROM message ORDER BY seq LIMIT 1").fetchone()
        return None if row is None else max(0.0, self._now() - row[0] / 1e6)

    @property
    def quarantined(self) -> Mapping[str, str]:
        """Key -> why its record cannot be sent. A key leaves it with its next record that can be."""
        return MappingProxyType(self._quarantined)

    def last_accepted(self) -> dict[str, ContrailVm]:
        """What consumers know once the backlog is sent. Removed keys are not in it."""
        return dict(self._accepted)

    # --- taking in ---------------------------------------------------------------------------------------

    @property
    def last_epoch(self) -> int:
        """The greatest epoch that was ever taken with this file; 0 if none was."""
        with self._reading():
            stored = self._db.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
        return int(stored[0]) if stored else 0

    def take_epoch(self, elected: int | None = None) -> int:
        """Begin a new term: greater than every earlier one of this file, whatever the clock did. On disk on return.

        ``elected`` comes with an election, which was told :attr:`last_epoch`. Raises WrongState for one below that.
        """
        with self._writing(durable=True):
            last = self.last_epoch
            epoch = max(int(self._now() * 1000), last + 1) if elected is None else elected
            if epoch <= last:
                raise WrongState(f"The elected epoch {epoch} is not above {last}, which {self._path} has seen.")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (str(epoch),))
        self._epoch = epoch
        return epoch

    def accept(self, statuses: Iterable[ContrailVm]) -> tuple[Accepted, ...]:
        """Take in the records of some keys: those that changed get a message. One transaction, all or nothing."""
        accepted: list[Accepted] = []
        memory = dict[str, ContrailVm | None]()
        with self._writing():
            room = self._bound - self.backlog
            for number, status in enumerate(statuses, start=1):
                if number % _AT_ONCE == 0:
                    gevent.sleep(0)
                old = memory[status.key] if status.key in memory else self._accepted.get(status.key)
                event = event_between(old, status)
                if event is None:
                    self._quarantined.pop(status.key, None)
                    continue
                blob = self._checked(status)
                if blob is None:
                    continue
                change = self._enqueue(status, old, event, coalesce=room <= 0)
                accepted.append(change)
                room -= change.seq is not None
                if status.state is State.REMOVED:
                    self._db.execute("DELETE FROM accepted WHERE key = ?", (status.key,))
                    memory[status.key] = None
                else:
                    self._db.execute("INSERT OR REPLACE INTO accepted VALUES (?, ?)", (status.key, blob))
                    memory[status.key] = status
        # The memory follows the file only once the transaction stands.
        for key, kept in memory.items():
            if kept is None:
                self._accepted.pop(key, None)
            else:
                self._accepted[key] = kept
        return tuple(accepted)

    def reconcile(self, statuses: Iterable[ContrailVm]) -> tuple[Accepted, ...]:
        """Take in the whole world: a known key that it does not name was removed while nobody looked."""
        world = list(statuses)
        named = {status.key for status in world}
        with self._lock:
            gone = [_removed(status) for key, status in sorted(self._accepted.items()) if key not in named]
            return self.accept(world + gone)

    def snapshot(self) -> str:
        """Put a bracket with every last accepted record into the queue; returns the snapshot's id.

        An older snapshot that is still waiting is dropped: this one says it all.
        """
        with self._writing():
            self._db.execute("DELETE FROM message WHERE event = ? AND offered = 0", (Event.SYNC,))
            begin = self._stamp()
            count = len(self._accepted)
            snapshot_id = begin.message_id
            self._insert(messages.snapshot_begin(begin, snapshot_id, count))
            for number, (_, status) in enumerate(sorted(self._accepted.items()), start=1):
                if number % _AT_ONCE == 0:
                    gevent.sleep(0)
                self._insert(messages.snapshot_item(self._stamp(), status, snapshot_id, count))
            self._insert(messages.snapshot_end(self._stamp(), snapshot_id, count))
        return snapshot_id

    # --- giving out --------------------------------------------------------------------------------------

    def pending(self, limit: int, *, held: Sequence[str | None] = ()) -> list[Row]:
        """The next messages in order, at most ``limit``; those of the keys in ``held`` wait (``None``: brackets).

        They count as offered from now on: each stays, byte by byte, until :meth:`confirm` or :meth:`drop_unsent`.
        The batch ends before a key's second message, and before the END of a snapshot unless it stands first, so
        that what is refused is never overtaken by what builds on it.
        """
        with self._writing():
            found = self._db.execute(
                "SELECT seq, id, key, event, oper, routing_key, timestamp, body FROM message"
                " WHERE ifnull(key, '') NOT IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?",
                (msgspec.json.encode([key or "" for key in held]).decode(), limit),
            ).fetchall()
            rows: list[Row] = []
            source = messages.source(self._vcenter_uuid)
            keys = set[str | None]()
            for seq, message_id, key, event, oper, routing_key, timestamp, body in found:
                if key in keys or (key is None and rows):
                    break
                keys.add(key)
                rows.append(Row(seq, message_id, key, Event(event), oper, routing_key, timestamp, source, body))
            self._db.executemany(
                "UPDATE message SET offered = 1 WHERE seq = ? AND offered = 0", [(row.seq,) for row in rows]
            )
        return rows

    def confirm(self, rows: Iterable[Row]) -> None:
        """The broker has them."""
        with self._writing():
            self._db.executemany("DELETE FROM message WHERE seq = ?", [(row.seq,) for row in rows])

    def drop_unsent(self) -> int:
        """Leadership is lost: another instance speaks now. Returns how many messages were dropped.

        The last accepted records go back to what the never offered messages built upon, so that a change is told
        when we lead again and it still stands. What was offered may have arrived; the snapshot at take-over heals it.
        """
        back: dict[str, bytes | None] = {}
        with self._writing():
            for key, base in self._db.execute(
                "SELECT key, base FROM message WHERE offered = 0 AND event != ? ORDER BY seq DESC", (Event.SYNC,)
            ):
                back[key] = base
            for key, base in back.items():
                if base is None:
                    self._db.execute("DELETE FROM accepted WHERE key = ?", (key,))
                else:
                    self._db.execute("INSERT OR REPLACE INTO accepted VALUES (?, ?)", (key, base))
            dropped = self._db.execute("DELETE FROM message").rowcount
        self._accepted = self._load()
        return dropped

    def close(self) -> None:
        """Give the file free. Nothing is lost; the outbox cannot be used any more."""
        self._db.close()

    # --- inside ------------------------------------------------------------------------------------------

    def _enqueue(self, status: ContrailVm, old: ContrailVm | None, event: Event, *, coalesce: bool) -> Accepted:
        base = old
        swallowed = 0
        say: Event | None = event
        if coalesce and status.state is not State.REMOVED:
            base, swallowed = self._swallow(status.key, old)
            say = event_between(base, status)
        old_state = old.state if old else None
        if say is None:
            return Accepted(key=status.key, event=event, old_state=old_state, status=status, message_id=None, seq=None)
        told = base.state if base else None
        message = messages.state_message(self._stamp(), status, event=say, old_state=told, coalesced=swallowed)
        self._insert(message, base)
        return Accepted(
            key=status.key, event=event, old_state=old_state, status=status, message_id=message.id, seq=message.seq
        )

    def _swallow(self, key: str, old: ContrailVm | None) -> tuple[ContrailVm | None, int]:
        """Delete the key's waiting messages that nobody can have seen; returns what stands before them, and how many.

        A message that was offered, a DELETE, or an item of a snapshot is a wall: consumers see it, so the next
        message must start from there.
        """
        base, swallowed = old, 0
        rows = self._db.execute(
            "SELECT seq, event, oper, offered, coalesced, base FROM message WHERE key = ? ORDER BY seq DESC", (key,)
        ).fetchall()
        for seq, event, oper, offered, coalesced, blob in rows:
            if offered or event == Event.SYNC or oper == messages.Oper.DELETE:
                break
            self._db.execute("DELETE FROM message WHERE seq = ?", (seq,))
            base = None if blob is None else _decode(blob)
            swallowed += 1 + coalesced
        return base, swallowed

    def _insert(self, message: messages.Message, base: ContrailVm | None = None) -> None:
        self._db.execute(
            "INSERT INTO message (seq, id, key, event, oper, routing_key, timestamp, coalesced, base, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                message.seq,
                message.id,
                message.key,
                message.event,
                message.oper,
                messages.routing_key(message),
                message.timestamp,
                message.coalesced,
                None if base is None else msgspec.json.encode(base),
                messages.encode(message),
            ),
        )

    def _stamp(self) -> messages.Stamp:
        if self._epoch is None:
            raise RuntimeError("take_epoch() comes before the first change: no message may go out without a term")
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'message'").fetchone()
        return messages.Stamp(
            vcenter_uuid=self._vcenter_uuid,
            publisher=self._publisher,
            epoch=self._epoch,
            seq=(row[0] if row else 0) + 1,
            timestamp=int(self._now() * 1_000_000),
        )

    def _checked(self, status: ContrailVm) -> bytes | None:
        """The record as bytes, proven to be sendable and readable again; ``None`` puts its key into quarantine."""
        try:
            blob = msgspec.json.encode(status)
            if _decode(blob) != status:
                why = "it does not read back as it was written"
            elif len(messages.routing_key_of(Event.DETAIL, status.esxi).encode()) > messages.ROUTING_KEY_LIMIT:
                why = "its routing key is longer than AMQP allows"
            else:
                self._quarantined.pop(status.key, None)
                return blob
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError, msgspec.MsgspecError) as exc:
            why = str(exc)
        key = str(status.key).encode("utf-8", "backslashreplace").decode()
        if self._quarantined.get(key) != why:
            log.error("The record of %s cannot be sent and is left out until its next change: %s.", key, why)
        self._quarantined[key] = why
        return None

    def _load(self) -> dict[str, ContrailVm]:
        with self._reading():
            rows = self._db.execute("SELECT key, status FROM accepted").fetchall()
        try:
            return {str(key): _decode(blob) for key, blob in rows}
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
            raise self._damaged(str(exc)[:200]) from exc

    def _check_readable(self) -> None:
        """At the start, and not in the middle of sending: what sqlite gives back may be damaged all the same."""
        try:
            _ = self.last_epoch, self.oldest_unsent_age
            with self._reading():
                events = self._db.execute("SELECT DISTINCT event FROM message").fetchall()
                strange = self._db.execute(
                    "SELECT count(*) FROM message WHERE typeof(body) != 'blob' OR typeof(id) != 'text' OR"
                    " typeof(routing_key) != 'text' OR typeof(timestamp) != 'integer'"
                    " OR typeof(base) NOT IN ('blob', 'null')"
                ).fetchone()[0]
            for (event,) in events:
                Event(event)
        except (TypeError, ValueError) as exc:
            raise self._damaged(str(exc)[:200]) from exc
        if strange:
            raise self._damaged("what waits is no messages")

    def _open(self) -> sqlite3.Connection:
        try:
            if self._path != ":memory:":
                Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self._path, timeout=_OPEN_WAIT, isolation_level=None)
        except (OSError, sqlite3.Error) as exc:
            raise self._unusable(exc, _NO_OUTBOX) from exc
        try:
            # Exclusive: a second process on the same file would send our messages again and give seq out twice.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            self._migrate(db)
        except sqlite3.Error as exc:
            db.close()
            raise self._unusable(exc, _NO_OUTBOX) from exc
        except BaseException:
            db.close()
            raise
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(_MIGRATIONS):
            raise ConfigurationError(
                f"The outbox {self._path} was written by a newer release (format {version}, known {len(_MIGRATIONS)}).",
                remedy="Install that release again, or move the file away: every ContrailVM is then announced anew.",
            )
        for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
            db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")
        # Takes the exclusive lock now, not at the first change.
        db.execute("BEGIN IMMEDIATE")
        db.execute("COMMIT")

    def _claim(self) -> None:
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('vcenter_uuid', ?)", (self._vcenter_uuid,))
            owner = self._db.execute("SELECT value FROM meta WHERE name = 'vcenter_uuid'").fetchone()[0]
        if owner != self._vcenter_uuid:
            raise ConfigurationError(
                f"The outbox {self._path} belongs to vCenter {owner}, and we are connected to {self._vcenter_uuid}.",
                remedy="Check vc_host; if the vCenter was really replaced, move the file away.",
            )

    def _unusable(self, exc: Exception, damaged: Sequence[str] = _DAMAGED) -> Exception:
        text = str(exc)
        if "locked" in text:
            return ConfigurationError(
                f"The outbox {self._path} is in use by another process.",
                remedy="Stop it, or give this instance another state_directory.",
            )
        if any(sign in text for sign in damaged):
            return self._damaged(text)
        return Unavailable(
            f"The outbox {self._path} cannot be used: {text}.",
            remedy="Check the free space and the permissions of its directory.",
        )

    def _damaged(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"The outbox {self._path} is damaged or no outbox ({why}).",
            remedy="Move the file away: every ContrailVM is then announced anew.",
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise self._unusable(exc) from exc

    @contextmanager
    def _writing(self, *, durable: bool = False) -> Iterator[None]:
        self._lock.acquire()
        try:
            if durable:
                self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if durable:
                    self._db.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as exc:
            raise self._unusable(exc) from exc
        finally:
            self._lock.release()


def _decode(blob: bytes) -> ContrailVm:
    return msgspec.json.decode(blob, type=ContrailVm)


def _removed(status: ContrailVm) -> ContrailVm:
    return msgspec.structs.replace(
        status,
        state=State.REMOVED,
        reason=_GONE,
        last_state=None,
        vrouter=VRouter(active=False, name=status.vrouter.name, ip=status.vrouter.ip),
    )
