# SPDX-License-Identifier: Apache-2.0
"""What really happened in the simulated vCenter, in order: what clients did, and what became true.

Tests and the demo compare what a client *said* with what is written here. Append-only and in memory; an entry is
never changed. Not promised: anything about reads.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol


class _Clock(Protocol):
    def now(self) -> dt.datetime: ...
    def monotonic(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``kind`` is ``call`` (a client's write), ``truth`` (a host's state), ``stimulus`` or ``eam``."""

    seq: int
    monotonic: float
    wall: dt.datetime
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON can hold it."""
        return {"seq": self.seq, "monotonic": self.monotonic, "wall": self.wall.isoformat(), "kind": self.kind} | {
            "fields": self.fields
        }


class Journal:
    """The list. ``truth`` entries are written only when a host's truth differs from the last one written."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._seq = itertools.count(1)
        self._truths: dict[str, dict[str, Any]] = {}
        self.entries: list[Entry] = []

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, kind: str, **fields: Any) -> Entry:
        """Append one entry; values must be plain data."""
        entry = Entry(next(self._seq), self._clock.monotonic(), self._clock.now(), kind, fields)
        self.entries.append(entry)
        return entry

    def call(self, user: str, method: str, obj: str, **fields: Any) -> None:
        """A client's write: ``user`` called ``method`` on the object with moid ``obj``; ``client``, among the fields,
        is the address it came from, where it is known."""
        self.add("call", user=user, method=method, object=obj, **fields)

    def truth(self, host: str, state: dict[str, Any]) -> None:
        """What is true of a host now; nothing is written when that is no news."""
        if self._truths.get(host) != state:
            self._truths[host] = state
            self.add("truth", host=host, **state)

    def truth_of(self, host: str) -> dict[str, Any] | None:
        """The last truth written of a host (moid)."""
        return self._truths.get(host)

    def calls(self, method: str | None = None) -> list[Entry]:
        """The clients' writes, all or those of one method, in order."""
        return [e for e in self.entries if e.kind == "call" and (method is None or e.fields["method"] == method)]
