# SPDX-License-Identifier: Apache-2.0
"""What a run of the chaos rig leaves behind: plain data, for checkers that are pure functions over it.

All times are seconds of one clock, CLOCK_MONOTONIC of the machine, which every process reads alike
(``time.monotonic()``); that of the simulator's journal too.

The rig gives a :class:`Record` to ``checkers.check``, which answers a :class:`Verdict`. While it waits for
convergence it asks ``checkers.unconverged(truths, messages)`` again and again: the hosts of which the newest
message does not say what is true, in words; empty when all is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One line of the simulator's journal, as ``GET /simulator/journal`` gives it; ``time`` is its ``monotonic``.

    ``kind`` is ``truth`` (``fields`` as of ``simulator/truth.py``: host, name, present, maintenance, vm_power ...),
    ``call`` (a client's write: user, method, object, and ``client``: the address it came from, which is an
    instance's own, see :class:`Instance`), ``stimulus`` or ``eam``.
    """

    seq: int
    time: float
    kind: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it lay in the recorder's durable queue, in order of receipt, duplicates included.

    ``raw`` is the body as published, ``body`` the same as JSON. ``redelivered``: the broker says that it gave the
    message to the recorder before, so that a duplicate is the recorder's and not the publisher's.
    """

    time: float
    raw: bytes
    body: Mapping[str, Any]
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """One message that the consumer library handed to its callback: no duplicate, and not stale by its own rules."""

    time: float
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Instance:
    """One process of a daemon, from start to end; a restarted one is a new entry under the same ``name``.

    ``name`` is the rig's (``a``, ``b``); its messages are known by their epoch, which is a :class:`Term`'s. ``client``
    is the address from which its calls reach the simulator. ``ended`` is None while it runs; ``how`` says how it ended:
    ``killed``, ``failpoint``, ``stopped`` (in order) or ``died`` (nobody asked for it: always a finding).
    """

    name: str
    pid: int
    client: str
    began: float
    ended: float | None = None
    how: str = ""


@dataclass(frozen=True, slots=True)
class Term:
    """One lead, as the instance's own log tells it, seen a few hundredths of a second late.

    ``ended`` is when it logged the end of its lead, or when its process ended; None while it leads. An instance that
    is frozen does not log: its term ends after it is thawed, or with its process.
    """

    instance: str
    pid: int
    epoch: int
    began: float
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, from its injection to its healing (``ended``: the nemesis had healed it).

    ``kind`` is ``plugin-kill``, ``plugin-pause``, ``broker-kill``, ``broker-pause``, ``zookeeper-kill``,
    ``zookeeper-pause``, ``proxy-cut``, ``proxy-delay``, ``proxy-half-open``, ``proxy-drop``, ``session-kill``,
    ``failpoint`` ...; ``target`` what it hit: ``a``, ``broker``, ``zookeeper-2``, ``a-vcenter``, ``after-publish`` ...
    """

    kind: str
    target: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Record:
    """One run. ``healed`` is when the last fault was healed and the storm over; ``ended`` when the rig stopped waiting.

    ``workers`` is how many requests an instance has under way at most: what may still come of a lead that ended.
    ``session_timeout`` is that of the instances' ZooKeeper sessions. ``journal`` goes back to the simulator's start and
    ``messages`` to that of the recorder, beyond ``began``: what was true before a run is part of its truth.
    """

    seed: int
    began: float
    healed: float
    ended: float
    session_timeout: float
    workers: int
    journal: tuple[JournalEntry, ...]
    messages: tuple[Received, ...]
    applied: tuple[Applied, ...]
    instances: tuple[Instance, ...]
    terms: tuple[Term, ...]
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be. ``kind`` is a key of :attr:`Verdict.counts`; ``text`` says what, of whom, when."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checkers say. ``counts`` holds every kind, in the order in which it is printed, with 0 where all is
    well: lost, unexpected, unequal (duplicates with another body), disordered, unconverged, stale (epochs applied),
    unled (writes by a non-leader beyond what may be under way), died.

    ``figures`` are for the report alone: messages, duplicates, longest convergence in seconds ...
    """

    counts: Mapping[str, int]
    findings: tuple[Finding, ...]
    figures: Mapping[str, float]

    @property
    def ok(self) -> bool:
        return not any(self.counts.values())
