# SPDX-License-Identifier: Apache-2.0
"""What a consumer must do with the messages to hold the truth; pure, so any consumer can copy it.

The stream comes at least once, may come late, and may have lost deletions to a bound or to a change of leader. The
rules: forget a message whose ``id`` was seen; forget one of a lower epoch than the last of its vCenter, because its
sender does not lead any more; per ``key`` keep the greatest ``(epoch, seq)``; at the END of a snapshot that came whole,
drop the keys of that vCenter that it did not name, and believe nothing older than it.

Messages are mappings, as decoded from JSON, so that fields of a newer version do no harm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_MEMORY = 10_000
"""Ids to remember: many windows of the publisher, which is what can come twice after a lost connection."""

Position = tuple[int, int]
"""``(epoch, seq)``: orders all messages of one vCenter."""


class Deduplicator:
    """Remembers the last ``memory`` ids. Forgetting one costs nothing but a stale message, which a View drops."""

    def __init__(self, memory: int = DEFAULT_MEMORY) -> None:
        self._memory = memory
        self._ids: OrderedDict[str, None] = OrderedDict()

    def seen(self, message_id: str) -> bool:
        """Whether this id came before; from now on it did."""
        if message_id in self._ids:
            self._ids.move_to_end(message_id)
            return True
        self._ids[message_id] = None
        if len(self._ids) > self._memory:
            self._ids.popitem(last=False)
        return False


@dataclass(slots=True)
class _Snapshot:
    """An open bracket."""

    id: str
    begin: Position
    named: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a message did. ``fresh``: it is news, or part of a snapshot; not ``fresh``: stale, ignore it.

    ``dropped`` are the keys that the END of a snapshot showed to be gone.
    """

    fresh: bool
    dropped: tuple[str, ...] = ()


class View:
    """The newest message per key, over all vCenters that publish. Removed keys are not in it."""

    def __init__(self) -> None:
        self._states: dict[str, Mapping[str, Any]] = {}
        self._positions: dict[str, Position] = {}
        self._vcenter_of: dict[str, str] = {}
        self._open: dict[str, _Snapshot] = {}
        self._floor: dict[str, Position] = {}

    @property
    def states(self) -> Mapping[str, Mapping[str, Any]]:
        """Key -> newest message."""
        return self._states

    def apply(self, message: Mapping[str, Any]) -> Applied:
        """Take in one message. Raises KeyError, TypeError or ValueError for what is no message of ours."""
        position = (int(message["epoch"]), int(message["seq"]))
        vcenter = str(message["fq_name"][0])
        snapshot, deleted = message["snapshot"], message["oper"] == "DELETE"
        if message["key"] is None:
            phase, name, count = snapshot["phase"], snapshot["id"], snapshot["count"]
            self._fence(vcenter, position)
            return self._bracket(vcenter, position, phase, name, count)
        key = str(message["key"])
        self._fence(vcenter, position)
        running = self._open.get(vcenter)
        if snapshot is not None and running is not None and snapshot["id"] == running.id:
            running.named.add(key)
        last = max(self._positions.get(key, (0, 0)), self._floor.get(vcenter, (0, 0)))
        if position <= last:
            return Applied(fresh=False)
        self._positions[key] = position
        self._vcenter_of[key] = vcenter
        if deleted:
            # Its position stays: an older message that comes late must not bring it back.
            self._states.pop(key, None)
        else:
            self._states[key] = message
        return Applied(fresh=True)

    def _fence(self, vcenter: str, position: Position) -> None:
        """A new epoch is a new leader, who tells everything anew: nothing of the former one counts from now on."""
        self._floor[vcenter] = max(self._floor.get(vcenter, (0, 0)), (position[0], 0))

    def _bracket(self, vcenter: str, position: Position, phase: str, snapshot_id: str, count: int) -> Applied:
        running = self._open.get(vcenter)
        if position <= self._floor.get(vcenter, (0, 0)):
            return Applied(fresh=False)
        if phase == "BEGIN":
            if running is not None and running.begin >= position:
                return Applied(fresh=False)
            self._open[vcenter] = _Snapshot(snapshot_id, position)
            return Applied(fresh=True)
        if running is None or running.id != snapshot_id:
            return Applied(fresh=False)
        del self._open[vcenter]
        if len(running.named) != count:
            # We did not get it all: it says nothing about who is gone.
            return Applied(fresh=False)
        return Applied(fresh=True, dropped=self._close(vcenter, running))

    def _close(self, vcenter: str, snapshot: _Snapshot) -> tuple[str, ...]:
        ours = [key for key, of in self._vcenter_of.items() if of == vcenter]
        old = [key for key in ours if key not in snapshot.named and self._positions[key] < snapshot.begin]
        dropped = tuple(sorted(key for key in old if key in self._states))
        for key in old:
            self._states.pop(key, None)
            del self._positions[key], self._vcenter_of[key]
        self._floor[vcenter] = snapshot.begin
        return dropped
