# SPDX-License-Identifier: Apache-2.0
"""The ticker follows leadership whatever else is in trouble."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import gevent
from gevent.event import Event

from vcenter_eam_plugin import pipeline as module
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.domain.errors import Unavailable
from vcenter_eam_plugin.pipeline import Pipeline


def test_leadership_is_followed_while_vcenter_hangs_and_the_disk_is_full(monkeypatch: Any) -> None:
    """Bug: the ticker itself kept the session alive, so with a vCenter that did not answer a lost lead was noticed a
    call's time-out later; and an upgrade's state that could not be written ended it, for up to a minute."""
    monkeypatch.setattr(module, "TICK", 0.0)
    monkeypatch.setattr(module, "KEEP_ALIVE", 0.0)
    ticks: list[int] = []

    def cannot_be_written() -> None:
        raise Unavailable("The upgrade's state cannot be written: No space left on device.")

    pipeline = Pipeline.__new__(Pipeline)
    pipeline._stopping, pipeline._tick_now = Event(), Event()
    pipeline._clock = lambda: 0.0
    pipeline._log = logging.getLogger("test.pipeline")
    pipeline.alarms = Alarms(pipeline._log, lambda: 0.0)
    parts: dict[str, Any] = {
        "session": SimpleNamespace(keep_alive=Event().wait),  # it never answers
        "delivery": SimpleNamespace(tick=lambda: ticks.append(1), leads=lambda: True),
        "upgrades": SimpleNamespace(tick=cannot_be_written),
        "planner": SimpleNamespace(
            ledger=SimpleNamespace(expire=lambda _: (), take_freed=set, open_breakers=lambda _: ())
        ),
        "intake": SimpleNamespace(tick=lambda: None),
        "fleet": SimpleNamespace(owed=()),
        "_leadership": SimpleNamespace(trouble=lambda: ""),
    }
    for name, part in parts.items():
        setattr(pipeline, name, part)
    ticker, keeper = gevent.spawn(pipeline._tick_loop), gevent.spawn(pipeline._keep_alive_loop)
    try:
        with gevent.Timeout(5):
            while len(ticks) < 3:
                gevent.sleep(0)
                assert not ticker.ready()
        assert "upgrade" in pipeline.alarms
    finally:
        gevent.killall([ticker, keeper])
