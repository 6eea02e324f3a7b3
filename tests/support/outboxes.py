# SPDX-License-Identifier: Apache-2.0
"""What can happen to the outbox's file."""

from __future__ import annotations

from pathlib import Path

from vcenter_eam_plugin.bus.outbox import Outbox


def rot(path: Path, outbox: Outbox) -> None:
    """Break the pages under an open outbox, as a dying disk does."""
    outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    outbox._db.execute("PRAGMA cache_size = 0")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    outbox._db.execute("PRAGMA shrink_memory")
