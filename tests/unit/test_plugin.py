# SPDX-License-Identifier: Apache-2.0
"""What a host process must be able to rely on, whatever we do wrong: design section 7."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import gevent
import pytest

from vcenter_eam_plugin import plugin as module
from vcenter_eam_plugin import unit as unit_module
from vcenter_eam_plugin.brokers import broker_settings
from vcenter_eam_plugin.config import from_sections
from vcenter_eam_plugin.leadership import Alone
from vcenter_eam_plugin.plugin import EamPlugin
from vcenter_eam_plugin.unit import Unit

SECTIONS = {
    "VCENTER": {"vc_host": "vc.example", "vc_username": "contrail@vsphere.local", "vc_password": "secret"},
    "EAM": {"clusters": "/DC0/host/ClusterA"},
    "RABBIT": {"rabbit_server": "127.0.0.1"},
}


class BrokenService:
    """Starts half of itself, and then shows a bug."""

    made: ClassVar[list[BrokenService]] = []

    def __init__(self, *_: Any, **__: Any) -> None:
        self.stopped = False
        BrokenService.made.append(self)

    def start(self) -> None:
        raise KeyError("a bug")

    def stop(self, timeout: float) -> None:
        self.stopped = True


def test_a_start_that_breaks_in_the_middle_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: what had started by then (OVF server, other vCenters) ran on, and nobody could stop it any more."""
    monkeypatch.setattr(module, "Service", BrokenService)
    plugin = EamPlugin(conf_sections=SECTIONS)
    plugin.start()
    assert plugin.status() == {"running": False, "reason": "unexpected error: KeyError", "vcenters": []}
    (service,) = BrokenService.made
    assert service.stopped
    plugin.stop()


def test_a_wrong_value_is_a_status_and_not_an_exception() -> None:
    """It never raises into its host; the reason names section and value."""
    plugin = EamPlugin(conf_sections=SECTIONS | {"EAM": {"clusters": "/DC0/host/ClusterA", "mode": "perhaps"}})
    plugin.start()
    assert not plugin.status()["running"]
    assert "[EAM]" in plugin.status()["reason"]
    assert "perhaps" in plugin.status()["reason"]
    assert plugin.greenlets() == []
    plugin.stop()


def test_an_unexpected_error_while_connecting_is_an_alarm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bug: it ended the greenlet that connects, without an alarm, and the daemon waited for it for ever."""
    configuration = from_sections(SECTIONS)

    def broken(self: Unit) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(unit_module.Unit, "_connect", broken)
    unit = Unit(
        configuration.vcenters[0],
        configuration.rabbit,
        broker_settings(configuration.rabbit),
        tmp_path,
        publisher_name="p1",
        package=None,  # type: ignore[arg-type]
        elect=lambda _uuid, _least: Alone("p1"),
        log=logging.getLogger("test.unit"),
    )
    unit.start()
    try:
        assert unit.first_attempt.wait(5)
        with gevent.Timeout(5):
            while "connect" not in unit.alarms:
                gevent.sleep(0.001)
        assert "KeyError" in next(iter(unit.alarms)).text
    finally:
        unit.stop(1.0)
