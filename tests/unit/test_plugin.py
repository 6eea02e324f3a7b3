# SPDX-License-Identifier: Apache-2.0
"""What a host process must be able to rely on, whatever we do wrong: design section 7."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import gevent
import pytest

from tests.support.collector import Generator, pysandesh
from vcenter_eam_plugin import plugin as module
from vcenter_eam_plugin import unit as unit_module
from vcenter_eam_plugin.brokers import broker_settings
from vcenter_eam_plugin.config import from_sections
from vcenter_eam_plugin.leadership import Alone
from vcenter_eam_plugin.plugin import EamPlugin
from vcenter_eam_plugin.unit import Unit

__all__ = ["pysandesh"]

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


class UnstartedService:
    """What an endpoint asks for when it is made."""

    log = logging.getLogger("test.plugin")


class RecordedService:
    """Takes what it is given; its endpoints are those that the real one would make."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, *_: Any, **given: Any) -> None:
        RecordedService.made.append(given)

    @classmethod
    def endpoints(cls) -> list[str]:
        """The kinds of the ways in and out that the last one was given."""
        makers = cls.made[-1]["endpoints"]
        return [
            make.__qualname__ if isinstance(make, type) else type(make(UnstartedService())).__name__ for make in makers
        ]

    def start(self) -> None: ...

    def status(self) -> dict[str, Any]:
        return {"vcenters": []}

    def greenlets(self) -> dict[str, Any]:
        return {}

    def stop(self, timeout: float) -> None: ...


class BrokenGenerator:
    """A host's sandesh that raises when it is asked what it knows."""

    @property
    def _uve_type_maps(self) -> Any:
        raise AssertionError


@pytest.mark.usefixtures("pysandesh")
def test_a_hosts_sandesh_tells_analytics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Service", RecordedService)
    plugin = EamPlugin(conf_sections=SECTIONS, sandesh=Generator())
    plugin.start()
    assert plugin.status()["analytics"] == "told through the host's sandesh"
    assert "HostAnalytics" in RecordedService.endpoints()
    plugin.stop()


@pytest.mark.parametrize(
    ("sandesh", "installed", "says"),
    [
        (None, False, "not told: the host handed over no sandesh"),
        (object(), False, "not told: pysandesh, the library"),
        (object(), True, "not told: The sandesh generator of this process cannot be taught"),
        (BrokenGenerator(), True, "not told: unexpected error: AssertionError"),
    ],
)
def test_a_sandesh_that_cannot_carry_our_uves_is_no_trouble(
    sandesh: Any, installed: bool, says: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Hosts hand it to every plugin; pysandesh is not installed here."""
    if installed:
        request.getfixturevalue("pysandesh")
    monkeypatch.setattr(module, "Service", RecordedService)
    plugin = EamPlugin(conf_sections=SECTIONS, sandesh=sandesh)
    plugin.start()
    status = plugin.status()
    assert status["running"]
    assert status["analytics"].startswith(says)
    assert "HostAnalytics" not in RecordedService.endpoints()
    plugin.stop()
