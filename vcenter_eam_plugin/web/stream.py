# SPDX-License-Identifier: Apache-2.0
"""What changes, as server-sent events, for whoever looks on: GET /api/v1/stream.

=========  ===========================================================================================
change     a list of hosts, each with its newest state: ``vcenter``, ``host`` (moref), ``name``,
           ``cluster`` (moref), ``state``, ``letter``, ``group``, ``reason``, ``at`` (POSIX seconds)
summary    something else than a host changed: modes, alarms, streams, backlog, leader, the agency
reset      what was missed cannot be told any more (a restart, or very many changes): load the page again
=========  ===========================================================================================

``id`` is ``PROCESS.NUMBER``. Who comes back with it (``Last-Event-ID``, or ``?since=`` at first) gets what is newer.
Nothing is queued for anybody: a follower is handed the newest state of each host that changed since its number, so a
slow one costs no memory, and one that takes nothing for 30 seconds is hung up on by the server's send time-out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gevent
import msgspec
from flask import Blueprint, Response, request

from vcenter_eam_plugin.domain.errors import Unavailable
from vcenter_eam_plugin.history import Change
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.unit import Unit
from vcenter_eam_plugin.web.app import error_answer
from vcenter_eam_plugin.web.faces import FACES

MOST_FOLLOWERS = 24
"""Each holds one of the server's 64 connections."""
LOOK_SECONDS = 0.5
"""Between looks at what has no change of its own: a backlog, an alarm. One look serves all followers."""
HEARTBEAT_SECONDS = 10.0
"""Without anything to say: a follower that has gone is noticed, and proxies keep the connection."""
LONGEST_SECONDS = 300.0
"""Then it has to come again, so that a session that ended, or a token that was changed, ends what it sees."""
AT_ONCE = 200
"""Hosts in one event; others run between two."""
GATHER_SECONDS = 0.05
"""After a first change, for those that come with it: EAM and vCenter tell of one thing in several pieces."""
RETRY_MILLISECONDS = 1000


class Stream:
    """Of one service. ``name`` tells this process from one before it."""

    def __init__(self, service: Service, redact: Callable[[str], str], name: str) -> None:
        self.name = name
        self._service = service
        self._redact = redact
        self._followers = 0
        self._looked_at = float("-inf")
        self._seen: Any = None
        self._summary = 0
        self.blueprint = Blueprint("stream", __name__)
        self.blueprint.add_url_rule("/api/v1/stream", view_func=self.stream)

    def stream(self) -> Response:
        if self._followers >= MOST_FOLLOWERS:
            answer = error_answer(Unavailable("Too many follow the changes already.", remedy="Try again in a while."))
            answer.headers["Retry-After"] = "30"
            return answer
        since = request.headers.get("Last-Event-ID") or request.args.get("since", "")
        return Response(
            self._follow(since), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no", "Vary": "Cookie"}
        )

    def _follow(self, since: str) -> Iterator[bytes]:
        self._followers += 1
        try:
            yield from self._events(since)
        finally:
            self._followers -= 1

    def _events(self, since: str) -> Iterator[bytes]:
        history = self._service.history
        ends = time.monotonic() + LONGEST_SECONDS
        spoke = time.monotonic()
        number = self._number_of(since)
        summary = self._look()
        yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
        while time.monotonic() < ends:
            changes = None if number is None else history.since(number)
            if changes is None:
                number = history.number
                yield self._event("reset", number, {})
            elif changes:
                for start in range(0, len(changes), AT_ONCE):
                    piece = changes[start : start + AT_ONCE]
                    number = piece[-1].number
                    yield self._event("change", number, told(piece))
                    gevent.sleep(0)
                spoke = time.monotonic()
            assert number is not None
            if history.wait(number, LOOK_SECONDS):
                gevent.sleep(GATHER_SECONDS)
            found = self._look()
            if found != summary:
                summary, spoke = found, time.monotonic()
                yield self._event("summary", number, {})
            elif time.monotonic() - spoke > HEARTBEAT_SECONDS:
                spoke = time.monotonic()
                yield b": still here\n\n"

    def _number_of(self, since: str) -> int | None:
        """``None`` for a position of another process, or none at all that is one."""
        if not since:
            return self._service.history.number
        name, _, number = since.partition(".")
        return int(number) if name == self.name and number.isascii() and number.isdecimal() else None

    def _event(self, kind: str, number: int, data: Any) -> bytes:
        text = self._redact(msgspec.json.encode(data).decode())
        return f"id: {self.name}.{number}\nevent: {kind}\ndata: {text}\n\n".encode()

    def _look(self) -> int:
        """A number that grows with everything of a summary that changes."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS * 0.9:
            self._looked_at = now
            seen = [_summary(unit) for unit in self._service.units]
            if seen != self._seen:
                self._seen = seen
                self._summary += 1
        return self._summary


def told(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Changes, as the page's script reads them."""
    return [
        {
            "vcenter": change.vcenter,
            "host": change.status.esxi.moref,
            "name": change.status.esxi.name,
            "cluster": change.status.esxi.compute_resource,
            "state": change.status.state.value,
            "letter": FACES[change.status.state].letter,
            "group": FACES[change.status.state].group.value,
            "reason": change.status.reason,
            "at": change.at,
        }
        for change in changes
    ]


def _summary(unit: Unit) -> Any:
    """What of a vCenter is worth a look when it changes; ages are not."""
    told = unit.status()
    sources = {name: (each["live"], each["why"]) for name, each in told.get("sources", {}).items()}
    publisher = {name: value for name, value in told.get("publisher", {}).items() if name not in _EVER_CHANGING}
    upgrade, issues = None, 0
    if unit.pipeline is not None:
        upgrade = unit.pipeline.upgrades.status()
        issues = sum(len(agent.issues) for agent in unit.pipeline.fleet.agents.values())
    return {**told, "sources": sources, "publisher": publisher, "closed": unit.gate.closed()}, upgrade, issues


_EVER_CHANGING = frozenset({"oldest_unsent_age", "confirmed"})
