# SPDX-License-Identifier: Apache-2.0
"""Each source is said to be live or stale since when; a stale one and an answer that was not believed are alarms."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.domain.errors import PrivilegeMissing, SuspectRead, Unavailable
from vcenter_eam_plugin.intake_watch import STALE_AFTER, SUSPECT_SHOWN, IntakeWatch

STARTED = 1_700_000_000.0
"""2023-11-14T22:13:20Z: the wall clock when the monotonic one says 0."""


class Bench:
    """All is well, at 1000 on the monotonic clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.inventory = SimpleNamespace(stale_since=None, last_error=None, events_stale_since=None, events_error=None)
        self.poll = SimpleNamespace(stale_since=None, last_error=None)
        self.alarms = Alarms(logging.getLogger("test.intake"), lambda: STARTED + self.now)
        self.watch = IntakeWatch(
            self.inventory,
            self.poll,
            vcenter="vc.example",
            alarms=self.alarms,
            clock=lambda: self.now,
            wall_clock=lambda: STARTED + self.now,
        )

    def names(self) -> list[str]:
        self.watch.tick()
        return [alarm.name for alarm in self.alarms]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_all_live(bench: Bench) -> None:
    assert {name: source["live"] for name, source in bench.watch.status().items()} == {
        "inventory": True,
        "events": True,
        "eam": True,
    }
    assert bench.names() == []


@pytest.mark.parametrize(("name", "source"), [("inventory", "inventory"), ("eam", "poll")])
def test_a_stale_source_says_since_when_and_why(bench: Bench, name: str, source: str) -> None:
    """ISO time by the wall clock, and an age that no clock's step changes."""
    setattr(bench, source, getattr(bench, source))
    getattr(bench, source).stale_since = 958.0
    getattr(bench, source).last_error = Unavailable("It is away.")
    shown = bench.watch.status()[name]
    assert shown == {
        "live": False,
        "stale_since": "2023-11-14T22:29:18Z",
        "stale_seconds": 42,
        "why": "It is away.",
    }
    json.dumps(shown)


def test_a_stream_that_is_stale_for_a_minute_is_an_alarm(bench: Bench) -> None:
    bench.inventory.stale_since = bench.now
    bench.inventory.events_stale_since = bench.now
    bench.inventory.last_error = Unavailable("It is away.")
    bench.now += STALE_AFTER - 1
    assert bench.names() == []
    bench.now += 2
    assert bench.names() == ["vcenter"], "and events are not one more"
    bench.inventory.stale_since = bench.inventory.events_stale_since = None
    assert bench.names() == []


def test_events_that_are_refused_for_a_minute_are_an_alarm(bench: Bench) -> None:
    bench.inventory.events_stale_since = bench.now
    bench.inventory.events_error = PrivilegeMissing("The account lacks System.View.")
    bench.now += STALE_AFTER + 1
    assert bench.names() == ["events"]
    assert "System.View" in next(iter(bench.alarms)).text
    assert bench.watch.status()["events"]["live"] is False
    bench.inventory.events_stale_since = bench.inventory.events_error = None
    assert bench.names() == []


def test_an_answer_that_is_not_believed_is_an_alarm_until_all_is_well_for_a_while(bench: Bench) -> None:
    """P8: one alarm, long enough for somebody to see it, and gone by itself."""
    bench.watch.suspect(SuspectRead("An answer left out host-1."))
    bench.watch.suspect(SuspectRead("An answer left out host-1."))
    assert bench.names() == ["suspect-read"]
    bench.poll.stale_since = bench.now
    bench.now += SUSPECT_SHOWN + 1
    assert bench.names() == ["suspect-read"], "EAM has not been read since"
    bench.poll.stale_since = None
    assert bench.names() == []
