# SPDX-License-Identifier: Apache-2.0
"""What a bridge knew, over its restarts: the newest message of each ContrailVM, and its vRouter's name, in sqlite.

A queue gives each message once, so a bridge that starts again would know nothing of the ContrailVMs that have not
changed, until the next snapshot. A row is written before its message is acknowledged, so the two stay together.

Not promised: that an open snapshot is continued, or that a power cut costs nothing (a killed process does not): the
next snapshot heals what was missed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vcenter_eam_plugin.domain.errors import ConfigurationError, Unavailable

_OPEN_WAIT = 1.0
"""Seconds to wait for a predecessor that is just ending before we say that the file is in use."""


class Memory:
    """One file, one process. Raises ConfigurationError for a file that cannot be used, Unavailable when it is in use or
    cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.touch(mode=0o600)  # it tells the whole fleet's state, like the outbox
            self._db = sqlite3.connect(path, isolation_level=None, timeout=_OPEN_WAIT, check_same_thread=False)
        except (OSError, sqlite3.Error) as exc:
            raise ConfigurationError(
                f"What the bridge remembers cannot be kept in {path}: {exc}.", remedy="Name another file."
            ) from exc
        try:
            with self._translated():
                # Exclusive: two bridges on one queue would each get a part of the messages.
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS known "
                    "(key TEXT PRIMARY KEY, vrouter TEXT NOT NULL, message TEXT NOT NULL) WITHOUT ROWID"
                )
        except BaseException:
            self._db.close()
            raise

    def known(self) -> list[tuple[dict[str, Any], str]]:
        """Each message, with the vRouter's name, the oldest first: a view takes no message of an earlier leader."""
        with self._translated():
            rows = self._db.execute("SELECT message, vrouter FROM known").fetchall()
        known = [(json.loads(message), vrouter) for message, vrouter in rows]
        return sorted(known, key=lambda each: (each[0]["epoch"], each[0]["seq"]))

    def keep(self, message: Mapping[str, Any], vrouter: str) -> None:
        """This is the newest message of its key now."""
        with self._translated():
            self._db.execute(
                "INSERT OR REPLACE INTO known VALUES (?, ?, ?)", (message["key"], vrouter, json.dumps(message))
            )

    def forget(self, keys: Iterable[str]) -> None:
        """These are gone."""
        with self._translated():
            self._db.executemany("DELETE FROM known WHERE key = ?", [(key,) for key in keys])

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as exc:
            if "locked" in str(exc):
                raise Unavailable(
                    f"{self._path} is in use: another bridge reads this queue.", remedy="One bridge is enough."
                ) from exc
            raise Unavailable(f"What the bridge remembers cannot be written to {self._path}: {exc}.") from exc
        except sqlite3.Error as exc:
            raise ConfigurationError(
                f"What the bridge remembers in {self._path} cannot be read: {exc}.",
                remedy="Move the file away; the next snapshot tells everything again.",
            ) from exc
