# SPDX-License-Identifier: Apache-2.0
"""What a person asked for and what the planner wants do not cross, and nothing is destroyed on an empty answer."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from tests.support.facts import AGENCY
from vcenter_eam_plugin.carrier import Carrier
from vcenter_eam_plugin.domain.errors import Unavailable
from vcenter_eam_plugin.domain.issues import Radius
from vcenter_eam_plugin.domain.requests import DestroyAgency, StartUpgrade, Step
from vcenter_eam_plugin.domain.upgrade import Phase
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.gate import Gate
from vcenter_eam_plugin.workers import AGENCY_KEY, Workers
from vcenter_eam_plugin.workqueue import WorkQueue


class Bench:
    """A carrier whose pipeline is nothing but what the step needs."""

    def __init__(self) -> None:
        log = logging.getLogger("test.carrier")
        nothing: Any = SimpleNamespace()
        actor: Any = SimpleNamespace(package=SimpleNamespace(certificate=lambda: None))
        self.gate = Gate(act=True, is_leader=lambda: True)
        self.workers = Workers(
            WorkQueue(lambda: 0.0), nothing, nothing, actor, self.gate, agency_refused=nothing, read_soon=nothing,
            clock=lambda: 0.0, alarms=nothing, log=log,
        )  # fmt: skip
        self.begun: list[str] = []
        self.alive = True
        upgrades = SimpleNamespace(
            start=lambda url, *_, **__: self.begun.append(url), status=lambda: SimpleNamespace(phase=Phase.DONE)
        )
        pipeline: Any = SimpleNamespace(
            workers=self.workers, upgrades=upgrades, session=SimpleNamespace(alive=lambda: self.alive)
        )
        self.carrier = Carrier(pipeline, self.gate, lambda: 0.0, log)

    def do(self, what: Any) -> str:
        return self.carrier.do(Step("x", "x", Radius.AGENT_VM_LOST, what), lambda _: None)


def test_an_upgrade_begins_only_when_nobody_else_is_about_to_write_the_agency() -> None:
    """Bug: an Update writes the whole configuration. A worker that had read it before the upgrade's write put the old
    package back with its own, and took the hold away that keeps EAM from replacing every ContrailVM at once."""
    bench = Bench()
    with bench.workers.turn(AGENCY_KEY):
        asked = gevent.spawn(bench.do, StartUpgrade(AGENCY, "http://ovf.example/new.ovf", False))
        gevent.sleep(0)
        assert bench.begun == []
    asked.get(timeout=5)
    assert bench.begun == ["http://ovf.example/new.ovf"]


def test_an_agency_is_not_destroyed_on_the_word_of_a_dead_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Design section 3: an expired session can answer empty, without an error; suspect reads delete nothing."""
    bench = Bench()
    bench.alive = False
    destroyed: list[str] = []
    monkeypatch.setattr(EamClient, "agents_of", lambda *_: ())
    monkeypatch.setattr(EamClient, "destroy", lambda _, moref: destroyed.append(moref))
    with pytest.raises(Unavailable, match="not logged in"):
        bench.do(DestroyAgency(AGENCY))
    assert destroyed == []
    assert bench.gate.mode == "act"
