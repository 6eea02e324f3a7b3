# SPDX-License-Identifier: Apache-2.0
"""What a consumer must do with the messages to hold the truth; pure, so any consumer can copy it.

The stream comes at least once, may come late, and may have lost deletions to a bound or to a change of leader. The
rules: forget a message whose ``id`` was seen; believe nothing of a lower ``epoch`` than the highest seen from that
vCenter; per ``key`` keep the greatest ``(epoch, seq)``; at the END of a snapshot that came whole, drop the keys of that
vCenter that it did not name, and believe nothing older than it.

Messages are mappings, as decoded from JSON, so that fields of a newer version do no harm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_CHARACTERS = 512
"""Of a key, an id, or a vCenter's uuid; ours have less than 100. What is longer is no message of ours."""

MOST_KEYS = 100_000
"""ContrailVMs, and vCenters: forty times what one vCenter can have. A view does not grow beyond."""

MOST_NUMBER = 2**63 - 1
"""Of an epoch, a sequence number or a count: what a database or another language holds."""

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


def checked(message: Any) -> None:
    """Raise ValueError unless a message has what its order and its place go by, each of its kind.

    All of it before any of it is believed: half a message must not move the position of its key, behind which the next
    one would be dropped.
    """
    if not isinstance(message, Mapping):
        raise ValueError("it is no object")  # noqa: TRY004 - one error for all that is not ours
    if "key" not in message or "snapshot" not in message:
        raise ValueError("it has no key, or says nothing of a snapshot")
    named = message.get("fq_name")
    texts = [message.get("id"), message.get("oper"), named[0] if isinstance(named, list) and named else None]
    numbers = [message.get("epoch"), message.get("seq")]
    key, snapshot = message.get("key"), message.get("snapshot")
    if key is not None:
        texts.append(key)
    if snapshot is not None:
        if not isinstance(snapshot, Mapping):
            raise ValueError("its snapshot is none")
        texts += [snapshot.get("id"), snapshot.get("phase")]
        numbers.append(snapshot.get("count"))
    elif key is None:
        raise ValueError("it has neither key nor snapshot")
    if not all(isinstance(text, str) and len(text) <= MOST_CHARACTERS for text in texts):
        raise ValueError("its id, key, name or operation is none of ours")
    if not all(type(number) is int and 0 <= number <= MOST_NUMBER for number in numbers):
        raise ValueError("its epoch, number or count is none")


class View:
    """The newest message per key, over all vCenters that publish. Removed keys are not in it."""

    def __init__(self) -> None:
        self._states: dict[str, Mapping[str, Any]] = {}
        self._positions: dict[str, Position] = {}
        self._vcenter_of: dict[str, str] = {}
        self._open: dict[str, _Snapshot] = {}
        self._floor: dict[str, Position] = {}
        self._epoch: dict[str, int] = {}
        """vCenter -> the highest epoch seen: who speaks in a lower one leads no more, whatever else it says."""

    @property
    def states(self) -> Mapping[str, Mapping[str, Any]]:
        """Key -> newest message."""
        return self._states

    def apply(self, message: Mapping[str, Any]) -> Applied:
        """Take in one message. Raises ValueError for what is no message of ours, and then changes nothing."""
        checked(message)
        position = (message["epoch"], message["seq"])
        vcenter = message["fq_name"][0]
        snapshot, oper, key = message["snapshot"], message["oper"], message["key"]
        if key is not None:
            self._check_room(key, vcenter)
        bracket = None if snapshot is None else (snapshot["phase"], snapshot["id"], snapshot["count"])
        if position[0] < self._epoch.get(vcenter, 0):
            return Applied(fresh=False)
        self._epoch[vcenter] = position[0]
        if key is None and bracket is not None:
            return self._bracket(vcenter, position, *bracket)
        running = self._open.get(vcenter)
        if bracket is not None and running is not None and bracket[1] == running.id:
            running.named.add(key)
        last = max(self._positions.get(key, (0, 0)), self._floor.get(vcenter, (0, 0)))
        if position <= last:
            return Applied(fresh=False)
        self._positions[key] = position
        self._vcenter_of[key] = vcenter
        if oper == "DELETE":
            # Its position stays: an older message that comes late must not bring it back.
            self._states.pop(key, None)
        else:
            self._states[key] = message
        return Applied(fresh=True)

    def _check_room(self, key: str, vcenter: str) -> None:
        if (key not in self._positions and len(self._positions) >= MOST_KEYS) or (
            vcenter not in self._floor and len(self._floor) + len(self._open) >= MOST_KEYS
        ):
            raise ValueError(f"there are {MOST_KEYS} keys already")

    def _bracket(self, vcenter: str, position: Position, phase: str, snapshot_id: str, count: int) -> Applied:
        running = self._open.get(vcenter)
        if position <= self._floor.get(vcenter, (0, 0)):
            return Applied(fresh=False)
        if vcenter not in self._floor and vcenter not in self._open and len(self._floor) + len(self._open) >= MOST_KEYS:
            raise ValueError(f"there are {MOST_KEYS} vCenters already")
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
