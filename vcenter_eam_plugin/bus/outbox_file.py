# SPDX-License-Identifier: Apache-2.0
"""The outbox's sqlite file: opened for one process alone, brought to today's format, and kept aside when damaged.

A file of an older release is migrated, one of a newer release is refused untouched. A damaged file is renamed, never
deleted, so that a new one can be begun: a service that waits for a person to move a file away is as good as lost.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from vcenter_eam_plugin.domain.errors import ConfigurationError, PluginError, Unavailable
from vcenter_eam_plugin.domain.status import Event

log = logging.getLogger(__name__)

_OPEN_WAIT = 1.0
"""Seconds to wait for a predecessor that is just ending before we say that the file is in use."""

_ASIDE = "damaged"
"""A file kept aside is called ``<outbox>.damaged-<UTC time>``."""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_IN_USE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

MIGRATIONS = (
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
    """
    CREATE TABLE offered (seq INTEGER PRIMARY KEY);
    INSERT INTO offered SELECT seq FROM message WHERE offered = 1;
    CREATE TABLE message_2 (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        key TEXT,
        event TEXT NOT NULL,
        oper TEXT NOT NULL,
        routing_key TEXT NOT NULL,
        timestamp INTEGER NOT NULL,
        coalesced INTEGER NOT NULL,
        base BLOB,
        body BLOB NOT NULL
    );
    INSERT INTO message_2 SELECT seq, id, key, event, oper, routing_key, timestamp, coalesced, base, body FROM message;
    DELETE FROM sqlite_sequence WHERE name = 'message_2';
    INSERT INTO sqlite_sequence SELECT 'message_2', seq FROM sqlite_sequence WHERE name = 'message';
    DROP TABLE message;
    ALTER TABLE message_2 RENAME TO message;
    CREATE INDEX message_of_key ON message (key, seq);
    """,
)
"""Script n takes a file from ``user_version`` n to n + 1. Never edit one that was released: append.

``message.base`` is the record that consumers hold before this message: coalescing compares with it.
``offered`` names each message that is given to the broker, durably, before it is: from then on it may have arrived.
A table of its own, because a mark in the message had every page of bodies written once more; and no index of ``id``,
which is made of ``epoch`` and ``seq``. Together they were a third of what the transactions cost.
AUTOINCREMENT keeps ``seq`` from being used again after its row was confirmed and deleted.
"""

_CHECKPOINT_PAGES = 4000
"""Pages of 4 KiB in the journal before they go into the file, which waits for the disk. A page that was written often
since goes there once, so a burst waits a quarter as often as with sqlite's 1000. Reading so much at a start: 20 ms."""


class DamagedError(Exception):
    """The file is no sqlite database, or its pages contradict each other."""


def is_damage(exc: Exception) -> bool:
    """Whether sqlite says that the file itself is broken, not that it cannot be used just now."""
    return _primary(exc) in _DAMAGE


def unusable(path: str, exc: Exception) -> PluginError:
    """The sentence for what sqlite or the system raised about the file, damage apart."""
    if _primary(exc) in _IN_USE:
        return ConfigurationError(
            f"The outbox {path} is in use by another process.",
            remedy="Stop it, or give this instance another state_directory.",
        )
    return Unavailable(
        f"The outbox {path} cannot be used: {str(exc).rstrip('.')}.",
        remedy="Check the free space and the permissions of its directory.",
    )


def open_database(path: str) -> sqlite3.Connection:
    """The file in today's format, locked for us alone and read through once; a missing or empty one is begun.

    Raises DamagedError, ConfigurationError (in use, or of a newer release) or Unavailable.
    """
    try:
        if path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            _make_private(Path(path))
        db = sqlite3.connect(path, timeout=_OPEN_WAIT, isolation_level=None)
    except (OSError, sqlite3.Error) as exc:
        raise unusable(path, exc) from exc
    try:
        # Exclusive: a second process on the same file would send our messages again and give seq out twice.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        _check(db, path)
        _migrate(db, path)
    except sqlite3.Error as exc:
        db.close()
        if is_damage(exc):
            raise DamagedError(str(exc)) from exc
        raise unusable(path, exc) from exc
    except BaseException:
        db.close()
        raise
    try:
        _check_contents(db)
    except (sqlite3.Error, ValueError) as exc:  # tables that are not there, text that is none
        db.close()
        if _primary(exc) in _IN_USE:
            raise unusable(path, exc) from exc
        raise DamagedError(str(exc)[:200]) from exc
    except BaseException:
        db.close()
        raise
    return db


def set_aside(path: str, now: float) -> str:
    """Rename a damaged file, which nobody has open, and its journal; returns its new name. ``now`` in POSIX seconds.

    Raises Unavailable when the directory does not allow it.
    """
    base = f"{path}.{_ASIDE}-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
    name, number = base, 1
    while Path(name).exists():
        number += 1
        name = f"{base}-{number}"
    try:
        Path(path).rename(name)
        # What the journal holds belongs to that file. A new one must not meet it.
        if Path(f"{path}-wal").exists():
            Path(f"{path}-wal").rename(f"{name}-wal")
    except OSError as exc:
        raise unusable(path, exc) from exc
    return name


def kept_aside(path: str) -> list[str]:
    """Damaged files of earlier times that nobody has moved away."""
    found = Path(path).parent.glob(f"{Path(path).name}.{_ASIDE}-*")
    return sorted(str(one) for one in found if not one.name.endswith("-wal"))


def _make_private(path: Path) -> None:
    """Make the file, or close it to others if it is there; sqlite gives those beside it the same mode. Raises OSError.

    By its name and not by a descriptor: closing one would take away the locks that sqlite holds on the file.
    """
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        if each.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if each.exists():
            each.chmod(0o600)
    if not path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))


def _check(db: sqlite3.Connection, path: str) -> None:
    """Read every page (4 ms per MB): damage that shows at the start is mended before anything builds on it."""
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise DamagedError(found)
    # sqlite takes the missing end of a page for zeros. What the journal holds is the file's, so it comes first.
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = Path(path).stat().st_size if path != ":memory:" else 0
    if size % db.execute("PRAGMA page_size").fetchone()[0]:
        raise DamagedError("it was cut within a page")


def _check_contents(db: sqlite3.Connection) -> None:
    """At the start, and not in the middle of sending: sound pages may hold what was never ours. Raises DamagedError,
    sqlite3.Error, ValueError."""
    for (epoch,) in db.execute("SELECT value FROM meta WHERE name = 'epoch'"):
        int(epoch)
    for (event,) in db.execute("SELECT DISTINCT event FROM message"):
        Event(event)
    strange = db.execute(
        "SELECT count(*) FROM message WHERE typeof(body) != 'blob' OR typeof(id) != 'text' OR"
        " typeof(routing_key) != 'text' OR typeof(timestamp) != 'integer' OR typeof(base) NOT IN ('blob', 'null')"
    ).fetchone()[0]
    if strange:
        raise DamagedError("what waits is no messages")


def _migrate(db: sqlite3.Connection, path: str) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise ConfigurationError(
            f"The outbox {path} was written by a newer release (format {version}, known {len(MIGRATIONS)}).",
            remedy="Install that release again, or move the file away: every ContrailVM is then announced anew.",
        )
    if version == 0:
        log.warning("The outbox %s is empty: every ContrailVM is announced anew.", path)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")
    # Takes the exclusive lock now, not at the first change.
    db.execute("BEGIN IMMEDIATE")
    db.execute("COMMIT")


def _primary(exc: Exception) -> int:
    """sqlite's result code without its extension; 0 when the error is not sqlite's."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF
