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
- A damaged file is kept aside and told of, at the start and in use; a new one is begun (:attr:`Outbox.generation`), and
  every ContrailVM is announced anew. What had not been sent is lost with it; the snapshot heals it.

Not promised: that the last transactions outlive a power cut of the machine (``synchronous=NORMAL``); what is lost
then is seen again by the comparison at restart, and may be told twice. The bound is soft: at worst one message per
key, and the DELETEs, stand above it. One process owns the file. A call with many records lets other greenlets run in
between, within its transaction; a second call waits for the first.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from uuid import UUID

import msgspec
from gevent.lock import RLock

from vcenter_eam_plugin.bus import outbox_file
from vcenter_eam_plugin.bus.outbox_file import DamagedError
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.errors import ConfigurationError, PluginError, ProtocolError, Unavailable, WrongState
from vcenter_eam_plugin.domain.status import ContrailVm, Event, State, VRouter, event_between
from vcenter_eam_plugin.turns import Turns

log = logging.getLogger(__name__)

DEFAULT_BOUND = 4096
"""Messages; the backlog at which Contrail's API server refuses requests (``rabbit_max_pending_updates``)."""

_ANEW_PAUSE = 600.0
"""Seconds between two damaged files put aside by one process: a dying disk is not filled with them."""

_AT_ONCE = 50
"""Messages written by one statement, which takes less than a millisecond."""

_GONE = "the host is no longer in the scope"


class Accepted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One change that was taken in. ``old_state`` is ``None`` for a key that was not known.

    ``message_id`` and ``seq`` are ``None`` when coalescing left nothing to say: the key is back at what was sent last.
    """

    key: str
    event: Event
    old_state: State | None
    status: ContrailVm
    message_id: str | None
    seq: int | None


class Row(msgspec.Struct, frozen=True, gc=False):
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
        self._seq = 0
        """The greatest seq that was ever stamped, as far as this process knows."""
        self._aside = outbox_file.kept_aside(self._path)
        self._anew_at = float("-inf")
        self._homeless = False
        """The damaged file is put aside, and the new one does not stand yet."""
        self.generation = 0
        """Grows when the file was begun anew while in use: what was accepted is forgotten, compare everything."""
        self._db = self._open()
        try:
            self._claim()
            self._accepted = self._load()
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

    @property
    def kept_aside(self) -> tuple[str, ...]:
        """Damaged files of this outbox, by the path they were renamed to, that a person should look at."""
        return tuple(self._aside)

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
            writes = _Writes(self._db, self._last_seq())
            turns = Turns()
            for status in statuses:
                turns.give()
                old = memory[status.key] if status.key in memory else self._accepted.get(status.key)
                event = event_between(old, status)
                if event is None:
                    if old is not None:
                        memory[status.key] = status  # the same, which the fleet keeps, too: not a second one of each
                    self._quarantined.pop(status.key, None)
                    continue
                blob = self._checked(status)
                if blob is None:
                    continue
                change = self._enqueue(writes, status, old, event, coalesce=room <= 0)
                accepted.append(change)
                room -= change.seq is not None
                removed = status.state is State.REMOVED
                writes.remember(status.key, None if removed else blob)
                memory[status.key] = None if removed else status
            writes.flush()
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
            self._db.execute(
                "DELETE FROM message WHERE event = ? AND seq NOT IN (SELECT seq FROM offered)", (Event.SYNC,)
            )
            writes = _Writes(self._db, self._last_seq())
            begin = self._stamp(writes)
            count = len(self._accepted)
            snapshot_id = begin.message_id
            writes.insert(messages.snapshot_begin(begin, snapshot_id, count))
            turns = Turns()
            for _, status in sorted(self._accepted.items()):
                turns.give()
                writes.insert(messages.snapshot_item(self._stamp(writes), status, snapshot_id, count))
            writes.insert(messages.snapshot_end(self._stamp(writes), snapshot_id, count))
            writes.flush()
        return snapshot_id

    # --- giving out --------------------------------------------------------------------------------------

    def pending(self, limit: int, *, held: Sequence[str | None] = (), on_their_way: Collection[Row] = ()) -> list[Row]:
        """The next messages in order, at most ``limit``; those of the keys in ``held`` wait (``None``: brackets).

        They count as offered from now on: each stays, byte by byte, until :meth:`confirm` or :meth:`drop_unsent`.
        ``on_their_way`` were given out before and are neither confirmed nor refused: they are not given out again.
        The batch ends before the second message of a key that is in it or on its way, and before a bracket of a
        snapshot unless that stands first, so that what is refused is never overtaken by what builds on it.
        """
        with self._holding():
            found = self._db.execute(
                "SELECT seq, id, key, event, oper, routing_key, timestamp, body, seq IN (SELECT seq FROM offered)"
                " FROM message"
                " WHERE seq NOT IN (SELECT value FROM json_each(?))"
                " AND ifnull(key, '') NOT IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?",
                (_json([row.seq for row in on_their_way]), _json([key or "" for key in held]), limit),
            ).fetchall()
            rows: list[Row] = []
            new: list[tuple[int]] = []
            source = messages.source(self._vcenter_uuid)
            keys = {row.key for row in on_their_way}
            for seq, message_id, key, event, oper, routing_key, timestamp, body, offered in found:
                if key in keys or (key is None and keys):
                    break
                keys.add(key)
                rows.append(Row(seq, message_id, key, Event(event), oper, routing_key, timestamp, source, body))
                if not offered:
                    new.append((seq,))
            if new:
                with self._writing():
                    self._db.executemany("INSERT INTO offered VALUES (?)", new)
        return rows

    def confirm(self, rows: Iterable[Row]) -> None:
        """The broker has them."""
        numbers = [(row.seq,) for row in rows]
        with self._writing():
            self._db.executemany("DELETE FROM message WHERE seq = ?", numbers)
            self._db.executemany("DELETE FROM offered WHERE seq = ?", numbers)

    def drop_unsent(self) -> int:
        """Leadership is lost: another instance speaks now. Returns how many messages were dropped.

        The last accepted records go back to what the never offered messages built upon, so that a change is told
        when we lead again and it still stands. What was offered may have arrived; the snapshot at take-over heals it.
        """
        back: dict[str, bytes | None] = {}
        with self._writing():
            for key, base in self._db.execute(
                "SELECT key, base FROM message WHERE seq NOT IN (SELECT seq FROM offered) AND event != ?"
                " ORDER BY seq DESC",
                (Event.SYNC,),
            ):
                back[key] = base
            for key, base in back.items():
                if base is None:
                    self._db.execute("DELETE FROM accepted WHERE key = ?", (key,))
                else:
                    self._db.execute("INSERT OR REPLACE INTO accepted VALUES (?, ?)", (key, base))
            dropped = self._db.execute("DELETE FROM message").rowcount
            self._db.execute("DELETE FROM offered")
        self._accepted = self._load()
        return dropped

    def close(self) -> None:
        """Give the file free. Nothing is lost; the outbox cannot be used any more."""
        self._db.close()

    # --- inside ------------------------------------------------------------------------------------------

    def _enqueue(
        self, writes: _Writes, status: ContrailVm, old: ContrailVm | None, event: Event, *, coalesce: bool
    ) -> Accepted:
        base = old
        swallowed = 0
        say: Event | None = event
        if coalesce and status.state is not State.REMOVED:
            writes.flush()  # what is to be swallowed may be among it
            base, swallowed = self._swallow(status.key, old)
            say = event_between(base, status)
        old_state = old.state if old else None
        if say is None:
            return Accepted(key=status.key, event=event, old_state=old_state, status=status, message_id=None, seq=None)
        told = base.state if base else None
        message = messages.state_message(self._stamp(writes), status, event=say, old_state=told, coalesced=swallowed)
        writes.insert(message, base)
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
            "SELECT seq, event, oper, seq IN (SELECT seq FROM offered), coalesced, base FROM message"
            " WHERE key = ? ORDER BY seq DESC",
            (key,),
        ).fetchall()
        for seq, event, oper, offered, coalesced, blob in rows:
            if offered or event == Event.SYNC or oper == messages.Oper.DELETE:
                break
            before = None if blob is None else _read_back(blob)
            if before is None and blob is not None:
                break  # what consumers hold before it cannot be told, so it stays
            self._db.execute("DELETE FROM message WHERE seq = ?", (seq,))
            base = before
            swallowed += 1 + coalesced
        return base, swallowed

    def _last_seq(self) -> int:
        """The greatest that was ever given out with this file."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'message'").fetchone()
        return int(row[0]) if row else 0

    def _stamp(self, writes: _Writes) -> messages.Stamp:
        if self._epoch is None:
            raise RuntimeError("take_epoch() comes before the first change: no message may go out without a term")
        seq = writes.next_seq()
        self._seq = max(self._seq, seq)
        return messages.Stamp(
            vcenter_uuid=self._vcenter_uuid,
            publisher=self._publisher,
            epoch=self._epoch,
            seq=seq,
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
        known = dict[str, ContrailVm]()
        for key, blob in rows:
            status = _read_back(blob)
            if status is None:
                log.error("What was accepted last of %s cannot be read, so it is announced anew.", key)
            else:
                known[key] = status
        return known

    def _open(self) -> sqlite3.Connection:
        try:
            return outbox_file.open_database(self._path)
        except DamagedError as exc:
            self._put_aside(exc)
        return outbox_file.open_database(self._path)

    def _put_aside(self, why: Exception) -> None:
        name = outbox_file.set_aside(self._path, self._now())
        self._aside.append(name)
        log.error(
            "The outbox %s is damaged (%s). It is kept as %s, and a new one is begun: what had not been sent is lost"
            " with it, and every ContrailVM is announced anew.",
            self._path,
            why,
            name,
        )

    def _begin_anew(self, db: sqlite3.Connection, why: sqlite3.Error) -> PluginError:
        """The file broke while we used it, and the caller's call is lost: returns what to tell it."""
        with self._lock:
            if self._stands(db):
                if self._now() < self._anew_at + _ANEW_PAUSE:
                    return outbox_file.unusable(self._path, why)
                self._anew_at = self._now()
                self._accepted.clear()
                self.generation += 1
                self._homeless = True
                db.close()  # before it is renamed: sqlite removes its journal by name
                self._put_aside(why)
                self._settle()
        return Unavailable(f"The outbox {self._path} was damaged and is begun anew.")

    def _settle(self) -> None:
        """Begin a new file with our place in the history, so that nothing told from now on is older than what was told
        before. Raises Unavailable; the next call tries again."""
        db = self._open()
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT OR REPLACE INTO meta VALUES ('vcenter_uuid', ?)", (self._vcenter_uuid,))
            if self._epoch is not None:
                db.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (str(self._epoch),))
            db.execute("DELETE FROM sqlite_sequence WHERE name = 'message'")
            db.execute("INSERT INTO sqlite_sequence VALUES ('message', ?)", (self._seq,))
            db.execute("COMMIT")
        except sqlite3.Error as exc:
            db.close()
            raise outbox_file.unusable(self._path, exc) from exc
        self._db, self._homeless = db, False

    def _claim(self) -> None:
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('vcenter_uuid', ?)", (self._vcenter_uuid,))
            owner = self._db.execute("SELECT value FROM meta WHERE name = 'vcenter_uuid'").fetchone()[0]
        if owner != self._vcenter_uuid:
            raise ConfigurationError(
                f"The outbox {self._path} belongs to vCenter {owner}, and we are connected to {self._vcenter_uuid}.",
                remedy="Check vc_host; if the vCenter was really replaced, move the file away.",
            )

    def _translated(self, db: sqlite3.Connection, exc: sqlite3.Error) -> PluginError:
        return self._begin_anew(db, exc) if outbox_file.is_damage(exc) else outbox_file.unusable(self._path, exc)

    def _usable(self) -> sqlite3.Connection:
        if self._homeless:
            with self._lock:
                if self._homeless:
                    self._settle()
        return self._db

    def _stands(self, db: sqlite3.Connection) -> bool:
        return self._db is db and not self._homeless

    @contextmanager
    def _reading(self) -> Iterator[None]:
        db = self._usable()
        try:
            yield
        except sqlite3.Error as exc:
            raise self._translated(db, exc) from exc

    @contextmanager
    def _holding(self) -> Iterator[sqlite3.Connection]:
        """Nobody else is within a transaction, which others would see half of."""
        with self._lock:
            db = self._usable()
            try:
                yield db
            except sqlite3.Error as exc:
                raise self._translated(db, exc) from exc

    @contextmanager
    def _writing(self, *, durable: bool = False) -> Iterator[None]:
        with self._holding() as db:
            if durable:
                db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield
                db.execute("COMMIT")
            finally:
                if self._stands(db):
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    if durable:
                        db.execute("PRAGMA synchronous = NORMAL")


class _Writes:
    """What one transaction adds, gathered: a statement for many rows costs a third of one for each (measured)."""

    def __init__(self, db: sqlite3.Connection, last_seq: int) -> None:
        self._db = db
        self._seq = last_seq
        self._messages: list[tuple[object, ...]] = []
        self._records: dict[str, bytes | None] = {}

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def insert(self, message: messages.Message, base: ContrailVm | None = None) -> None:
        """Have a message wait; ``base`` is what consumers hold before it."""
        self._messages.append(
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
            )
        )
        if len(self._messages) >= _AT_ONCE:
            self.flush()

    def remember(self, key: str, record: bytes | None) -> None:
        """The last accepted record of a key; ``None``: there is none any more."""
        self._records[key] = record

    def flush(self) -> None:
        """Write it."""
        self._db.executemany(
            "INSERT INTO message (seq, id, key, event, oper, routing_key, timestamp, coalesced, base, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self._messages,
        )
        kept = [(key, record) for key, record in self._records.items() if record is not None]
        self._db.executemany("INSERT OR REPLACE INTO accepted VALUES (?, ?)", kept)
        gone = [(key,) for key, record in self._records.items() if record is None]
        self._db.executemany("DELETE FROM accepted WHERE key = ?", gone)
        self._messages.clear()
        self._records.clear()


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(values).decode()


def _decode(blob: bytes) -> ContrailVm:
    return msgspec.json.decode(blob, type=ContrailVm)


def _read_back(blob: bytes) -> ContrailVm | None:
    """A record as some release wrote it; ``None`` when it is rotten, or says what this release does not know."""
    try:
        return _decode(blob)
    except (msgspec.MsgspecError, ValueError):
        return None


def _removed(status: ContrailVm) -> ContrailVm:
    return msgspec.structs.replace(
        status,
        state=State.REMOVED,
        reason=_GONE,
        last_state=None,
        vrouter=VRouter(active=False, name=status.vrouter.name, ip=status.vrouter.ip),
    )
