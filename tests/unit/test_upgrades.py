# SPDX-License-Identifier: Apache-2.0
"""S03: what begins an upgrade, what is on disk before it, and whose new VM is looked for."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.facts import CLUSTER, a_fleet, a_host, an_agency, an_agent
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.domain.budgets import Ledger, Limits
from vcenter_eam_plugin.domain.errors import ConfigurationError, OvfError, PrivilegeMissing, Unavailable, WrongState
from vcenter_eam_plugin.domain.facts import AgentFacts, HookFacts, HookState
from vcenter_eam_plugin.domain.observations import AgentsObserved
from vcenter_eam_plugin.domain.planner import Desired, Planner
from vcenter_eam_plugin.domain.upgrade import Phase
from vcenter_eam_plugin.gate import Gate
from vcenter_eam_plugin.upgrades import LOOK_AT, LOOK_SECONDS, Upgrades

NEW = "http://ovf.example/new/contrail.ovf"


class Eam:
    """Takes one agency's package, or raises."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bool]] = []
        self.error: Exception | None = None
        self.answer_lost = False
        self.agency = an_agency()
        self.on_disk: list[bool] = []
        self.path: Path | None = None

    def set_package(self, agency: str, url: str, certificate: str | None, *, hold: bool) -> None:
        assert self.path is not None
        self.on_disk.append(self.path.exists())
        if self.error and not self.answer_lost:
            raise self.error
        self.written.append((url, hold))
        self.agency = replace(self.agency, ovf_url=url)
        if self.error:
            raise self.error

    def read_agency(self, moref: str) -> Any:
        return self.agency


class Bench:
    def __init__(self, path: Path, hosts: int = 3) -> None:
        self.path = path
        self.now = 1000.0
        self.fleet = a_fleet(*(a_host(n) for n in range(1, hosts + 1)))
        self.planner = Planner(Desired((CLUSTER,)), Ledger(Limits()))
        self.gate = Gate(act=True, is_leader=lambda: True)
        self.alarms = Alarms(logging.getLogger("test.upgrades"), lambda: self.now)
        self.eam = Eam()
        self.eam.path = path
        self.read: list[str | None] = []
        self.looked = 0
        self.upgrades = self.again()

    def again(self) -> Upgrades:
        """As after a restart."""
        return Upgrades(
            self.path,
            self.fleet,
            self.planner,
            self.eam,  # type: ignore[arg-type]
            self.gate,
            look_at_everything=self.look,
            read_soon=self.read.append,
            publish=lambda statuses: None,
            wall_clock=lambda: self.now,
            alarms=self.alarms,
            log=logging.getLogger("test.upgrades"),
        )

    def look(self) -> None:
        self.looked += 1

    def see(self, *agents: AgentFacts) -> None:
        self.now += LOOK_SECONDS
        self.fleet.apply(AgentsObserved(tuple(replace(agent, read_began=self.now) for agent in agents)))
        self.upgrades.tick()


def holding(number: int) -> AgentFacts:
    return replace(
        an_agent(number, hook=HookState.PROVISIONED), hook=HookFacts(f"vm-new-{number}", HookState.PROVISIONED)
    )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "x.upgrade.json")


def test_it_is_on_disk_before_eam_is_told_and_told_with_the_hold(bench: Bench) -> None:
    """S03: ended in between, the held VMs are known to be ours."""
    bench.upgrades.start(NEW)
    assert bench.eam.on_disk == [True]
    assert bench.eam.written == [(NEW, True)]
    assert bench.looked == 1
    assert bench.again().status() == bench.upgrades.status()


@pytest.mark.parametrize("error", [OvfError("no such URL"), PrivilegeMissing("EAM.Modify"), WrongState("no")])
def test_what_eam_refuses_is_no_upgrade(bench: Bench, error: Exception) -> None:
    """Bug: after a URL that EAM cannot fetch, an upgrade was under way that never began, and no other could begin."""
    bench.eam.error = error
    with pytest.raises(type(error)):
        bench.upgrades.start(NEW)
    assert bench.upgrades.status() is None
    assert not bench.path.exists()
    bench.eam.error = None
    bench.upgrades.start(NEW)


@pytest.mark.parametrize("carried_out", [False, True])
def test_a_write_whose_answer_is_lost(bench: Bench, carried_out: bool) -> None:
    """Bug: lost on its way, it could not be made again. Carried out, it is an upgrade like any other."""
    bench.eam.error, bench.eam.answer_lost = Unavailable("the connection broke"), carried_out
    with pytest.raises(Unavailable):
        bench.upgrades.start(NEW)
    assert bench.upgrades.status() is not None
    bench.eam.error = None
    if carried_out:
        with pytest.raises(WrongState, match="under way"):
            bench.upgrades.start(NEW)
    else:
        bench.upgrades.start(NEW)
        assert bench.eam.written == [(NEW, True)]


def test_a_disk_that_is_full_begins_nothing(bench: Bench) -> None:
    """Bug: what could not be remembered was under way all the same, in memory alone."""
    bench.path.with_suffix(".new").mkdir()
    with pytest.raises(Unavailable):
        bench.upgrades.start(NEW)
    assert bench.upgrades.status() is None
    assert bench.eam.written == []


def test_nobody_is_admitted_who_is_not_on_disk(bench: Bench) -> None:
    """S03: a restart must never find fewer admitted than EAM was told to let go."""
    bench.upgrades.start(NEW)
    bench.path.with_suffix(".new").mkdir()
    with pytest.raises(Unavailable):
        bench.see(holding(1))
    status = bench.upgrades.status()
    assert status is not None
    assert status.admitted == ()


def test_new_vms_are_looked_for_a_few_at_a_time(tmp_path: Path) -> None:
    """Bug: EAM says nothing of a VM that it holds, and green agents are read every ten minutes."""
    bench = Bench(tmp_path / "x", hosts=3 * LOOK_AT)
    bench.upgrades.start(NEW)
    status = bench.upgrades.status()
    assert status is not None
    bench.read.clear()
    bench.upgrades.tick()
    assert len(bench.read) == LOOK_AT
    assert bench.read[0] == status.canary
    bench.upgrades.tick()
    assert len(bench.read) == LOOK_AT, "not at every tick"
    bench.see(holding(1), holding(2))
    assert len(bench.read) == 2 * LOOK_AT
    assert not {"host-1", "host-2"} & set(bench.read[LOOK_AT:]), "theirs are seen"


def test_the_old_vm_that_is_gone_is_told_from_the_new_one_that_eam_names(bench: Bench) -> None:
    """Bug: once EAM named the held VM as the agent's own, nobody seemed to be held, and a resume led nowhere."""
    bench.upgrades.start(NEW)
    bench.see(replace(holding(1), vm="vm-new-1"))
    status = bench.upgrades.status()
    assert status is not None
    assert status.phase is Phase.STOPPED
    assert "EAM stopped the old VM" in status.why
    assert "upgrade-stopped" in bench.alarms
    bench.alarms.clear("upgrade-stopped")
    assert bench.again().status() == status
    assert "upgrade-stopped" in bench.alarms, "after a restart too"
    bench.upgrades.resume()
    assert "upgrade-stopped" not in bench.alarms


def test_pause_and_resume_are_on_disk(bench: Bench) -> None:
    bench.upgrades.start(NEW)
    bench.upgrades.pause()
    again = bench.again().status()
    assert again is not None
    assert again.paused
    bench.see(holding(1), holding(2), holding(3))
    status = bench.upgrades.status()
    assert status is not None
    assert status.admitted == ()
    bench.upgrades.resume()
    bench.upgrades.tick()
    status = bench.upgrades.status()
    assert status is not None
    assert status.admitted == (status.canary,)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1}'])
def test_a_file_that_cannot_be_read_is_refused(bench: Bench, text: str) -> None:
    """S03: taken for none, held ContrailVMs would be nobody's."""
    bench.path.write_text(text)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        bench.again()


def test_while_it_is_under_way_the_running_contrailvms_are_active(bench: Bench) -> None:
    """S03: from before its new VM is held until its old one goes off; also after a restart."""
    bench.upgrades.start(NEW)
    yellow = replace(an_agent(2), status=an_agent(2, hook=HookState.PROVISIONED).status)
    for agent in (yellow, holding(2), yellow):
        bench.see(agent)
        status = bench.fleet.status("host-2")
        assert status is not None
        assert status.state == "ACTIVE"
