# SPDX-License-Identifier: Apache-2.0
"""The outbox by itself: one change of each host is taken in, offered to the publisher and noted as confirmed.

Held against SQLite alone, which writes the same bodies and deletes them, in the same number of transactions. No goal:
it explains what of the delivery's rows is the outbox.
"""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.row import Effort, Row
from tests.support.contrailvm import VCENTER, contrail_vm
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.domain.status import ContrailVm

WINDOW = 64
"""Messages offered at once, as the publisher does."""


def measure(effort: Effort) -> Iterator[Row]:
    """One row a size."""
    for hosts in effort.sizes:
        with tempfile.TemporaryDirectory() as folder:
            yield _of(effort, hosts, Path(folder))


def _of(effort: Effort, hosts: int, folder: Path) -> Row:
    vms = [contrail_vm(host) for host in range(hosts)]
    bodies: list[bytes] = []
    numbered = itertools.count()

    def ours() -> float:
        bodies.clear()
        return _through_the_outbox(folder / f"{next(numbered)}.outbox", vms, bodies)

    def floor() -> float:
        return _through_sqlite(folder / f"{next(numbered)}.sqlite", bodies)

    value, alone, ratio = effort.paired(ours, floor)
    each = f"{value / hosts * 1e6:.0f} us a change"
    return effort.row("outbox", value, unit="s", floor=alone, ratio=ratio, hosts=hosts, note=each)


def _through_the_outbox(path: Path, vms: list[ContrailVm], bodies: list[bytes]) -> float:
    outbox = Outbox(path, vcenter_uuid=VCENTER, publisher="benchmark", now=time.time)
    try:
        outbox.take_epoch()
        began = time.perf_counter()
        outbox.accept(vms)
        while rows := outbox.pending(WINDOW):
            bodies += [row.body for row in rows]
            outbox.confirm(rows)
        return time.perf_counter() - began
    finally:
        outbox.close()


def _through_sqlite(path: Path, bodies: list[bytes]) -> float:
    with sqlite3.connect(path, isolation_level=None) as db:
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
        db.execute("CREATE TABLE message (seq INTEGER PRIMARY KEY, body BLOB)")
        began = time.perf_counter()
        db.execute("BEGIN")
        db.executemany("INSERT INTO message (body) VALUES (?)", [(body,) for body in bodies])
        db.execute("COMMIT")
        for first in range(1, len(bodies) + 1, WINDOW):
            db.execute("BEGIN")
            window = range(first, first + WINDOW)
            db.execute("SELECT body FROM message WHERE seq IN (SELECT value FROM json_each(?))", (str([*window]),))
            db.executemany("DELETE FROM message WHERE seq = ?", [(seq,) for seq in window])
            db.execute("COMMIT")
        return time.perf_counter() - began
