# SPDX-License-Identifier: Apache-2.0
"""Server-sent events over TCP: what changes is told once, in order, and to whoever may see it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from tests.support.web import TOKEN, Web
from vcenter_eam_plugin.web import stream as module

Event = tuple[str, str, Any]


class Following:
    """A client of the stream: ``next`` gives (id, event, data) of what is told, heartbeats left out."""

    def __init__(self, web: Web, path: str = "/api/v1/stream", **headers: str) -> None:
        self.connection = web.connection()
        self.connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        self.answer: http.client.HTTPResponse = self.connection.getresponse()

    def next(self, kind: str | None = None) -> Event:
        while True:
            fields: dict[str, str] = {}
            with gevent.Timeout(30):
                while (line := self.answer.readline().decode().rstrip("\n")) or not fields:
                    name, _, value = line.partition(": ")
                    if name and value:
                        fields[name] = value
            if "event" in fields and kind in (None, fields["event"]):
                return fields["id"], fields["event"], json.loads(fields["data"])

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


@pytest.fixture
def follow(web: Web) -> Iterator[Callable[..., Following]]:
    made: list[Following] = []

    def begin(*args: str, **headers: str) -> Following:
        made.append(Following(web, *args, **headers))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def test_a_change_is_told_and_who_comes_back_misses_nothing(web: Web, follow: Callable[..., Following]) -> None:
    web.start()
    web.bench.wait_until_active()
    following = follow()
    assert following.answer.headers["content-type"].startswith("text/event-stream")
    assert following.answer.headers["cache-control"] == "no-store"
    (host,) = web.bench.vcenter.hosts()
    web.bench.vcenter.enter_maintenance(host)
    position, _, data = following.next("change")
    assert data[-1]["name"] == host.name
    assert data[-1]["vcenter"] == "test"
    while data[-1]["state"] != "MAINTENANCE":
        position, _, data = following.next("change")
    following.close()
    web.bench.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    web.bench.vcenter.exit_maintenance(host)
    web.bench.wait_for_state(host.name, "ACTIVE")
    again = follow(Last_Event_ID=position)
    newer, _, data = again.next("change")
    assert [(each["host"], each["state"]) for each in data] == [(host.moid, "ACTIVE")]
    assert int(newer.partition(".")[2]) > int(position.partition(".")[2])
    # What is not a host is told as well.
    web.bench.unit.pause()
    assert again.next()[1:] == ("summary", {})


@pytest.mark.parametrize("position", ["another.3", "nonsense", "{own}.999999", "{own}.-1", "{own}.x"])
def test_a_position_that_means_nothing_begins_anew(web: Web, follow: Callable[..., Following], position: str) -> None:
    """A restart, or a client that makes one up."""
    web.start()
    web.bench.wait_until_active()
    first = follow()
    web.bench.unit.pause()
    own = first.next("summary")[0].partition(".")[0]
    told = follow(Last_Event_ID=position.replace("{own}", own)).next()
    assert told[1:] == ("reset", {})


def test_the_stream_is_as_guarded_as_what_it_tells_of(web: Web, follow: Callable[..., Following]) -> None:
    """ADR 0026: a wrong token is refused; and a stream ends in time for a session that ended to be noticed."""
    web.start()
    assert follow(Authorization="Bearer wrong").answer.status == 401
    assert follow(Authorization=f"Bearer {TOKEN}").answer.status == 200
    assert follow(Host="evil.example").answer.status == 421


def test_so_many_follow_and_no_more(
    web: Web, follow: Callable[..., Following], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds a connection; who left makes room."""
    monkeypatch.setattr(module, "MOST_FOLLOWERS", 2)
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.2)
    web.start()
    first = follow()
    first.answer.readline()
    follow().answer.readline()
    refused = follow()
    assert refused.answer.status == 503
    assert refused.answer.headers["retry-after"]
    first.close()
    with gevent.Timeout(20):
        while follow().answer.status != 200:
            gevent.sleep(0.1)


def test_a_stream_ends_by_itself(web: Web, follow: Callable[..., Following], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 0.5)
    web.start()
    following = follow()
    with gevent.Timeout(20):
        assert b"retry:" in following.answer.read()


def test_what_is_told_is_searched_for_secrets() -> None:
    """Issue 4: an answer that is streamed does not pass what looks for them in all others."""
    stream = module.Stream(None, lambda text: text.replace("hunter2-hunter2", "***"), "name")  # type: ignore[arg-type]
    told = stream._event("change", 7, [{"reason": "the password hunter2-hunter2 is wrong"}])
    assert told == b'id: name.7\nevent: change\ndata: [{"reason":"the password *** is wrong"}]\n\n'
