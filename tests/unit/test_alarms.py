# SPDX-License-Identifier: Apache-2.0
"""Alarms: raised once, cleared once, logged at transitions alone. And the back-off between attempts."""

from __future__ import annotations

import logging

import pytest

from vcenter_eam_plugin.alarms import Alarm, Alarms
from vcenter_eam_plugin.backoff import FIRST, MOST, Backoff


class Clock:
    """POSIX seconds that only the test moves."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_condition_that_lasts_is_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Only transitions are logged, with the time since the first."""
    clock = Clock()
    alarms = Alarms(logging.getLogger("test.alarms"), clock)
    with caplog.at_level(logging.INFO):
        for _ in range(1000):
            alarms.raise_("vcenter", "vCenter does not answer.")
            clock.now += 1
        assert "vcenter" in alarms
        assert list(alarms) == [Alarm("vcenter", "vCenter does not answer.", 1_700_000_000.0)]
        for _ in range(3):
            alarms.clear("vcenter")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "after 1000 s" in caplog.text
    assert list(alarms) == []


def test_a_new_text_is_said_and_keeps_the_time(caplog: pytest.LogCaptureFixture) -> None:
    """The reason changed; the trouble began when it began. The oldest comes first."""
    clock = Clock()
    alarms = Alarms(logging.getLogger("test.alarms"), clock)
    alarms.raise_("bus", "refused")
    clock.now += 5
    alarms.raise_("vcenter", "gone")
    clock.now += 5
    alarms.raise_("bus", "unreachable")
    assert [(a.name, a.text, a.since - 1_700_000_000.0) for a in alarms] == [
        ("bus", "unreachable", 0.0),
        ("vcenter", "gone", 5.0),
    ]
    assert len(caplog.records) == 3


def test_clearing_what_is_not_open_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever succeeds clears, without asking first."""
    Alarms(logging.getLogger("test.alarms"), Clock()).clear("vcenter")
    assert caplog.records == []


def test_back_off_doubles_to_a_bound_and_begins_anew() -> None:
    """Each wait lies within a fifth of 1, 2, 4 ... 60 seconds."""
    backoff = Backoff()
    for exponent in range(10):
        middle = min(FIRST * 2**exponent, MOST)
        assert 0.8 * middle <= backoff.next() <= 1.2 * middle
    backoff.reset()
    assert backoff.next() <= 1.2 * FIRST


def test_at_least_means_at_least() -> None:
    """Bug: the jitter went below it, so a refused login was repeated up to a fifth sooner than may lock no account."""
    assert min(Backoff().next(least=30.0) for _ in range(300)) >= 30.0
    spread = {Backoff().next(least=30.0) for _ in range(300)}
    assert max(spread) > 33.0
