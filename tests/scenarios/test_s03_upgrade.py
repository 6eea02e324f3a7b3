# SPDX-License-Identifier: Apache-2.0
"""S03: a new OVF package reaches one canary, then waves, and stops at the first failure; restarts change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer

from tests.support.bench import Bench
from tests.support.scenario import assert_can_be_followed
from vcenter_eam_plugin.domain import upgrade as rules
from vcenter_eam_plugin.domain.errors import OvfError, WrongState
from vcenter_eam_plugin.domain.facts import AgencyFacts
from vcenter_eam_plugin.domain.upgrade import Phase, Upgrade
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.sample_ovf import write_sample
from vcenter_eam_plugin.workers import AGENCY_KEY


class Packages:
    """An OVF server of a release manager: every version stays where it is, under ``/<version>/``."""

    def __init__(self, directory: Path) -> None:
        self._folder = write_sample(directory).parent
        self._name = write_sample(directory).name
        self._server = WSGIServer(("127.0.0.1", 0), self._answer, log=None)
        self._server.start()
        self.stop = self._server.stop

    def url(self, version: int) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{version}/{self._name}"

    def _answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = (self._folder / Path(environ["PATH_INFO"]).name).read_bytes()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


@pytest.fixture
def packages(tmp_path: Path) -> Iterator[Packages]:
    packages = Packages(tmp_path / "release")
    yield packages
    packages.stop()


@pytest.fixture(autouse=True)
def quick_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five minutes until a host has failed are half a second."""
    monkeypatch.setattr(rules, "FAILED_SECONDS", 0.5)


class Fleet:
    """A healthy fleet at version 1."""

    def __init__(self, bench: Bench, packages: Packages, **config: Any) -> None:
        self.bench = bench
        self.packages = packages
        self.config = {"ovf_package": None, "ovf_url": packages.url(1), **config}
        bench.start(**self.config)
        bench.wait_until_active()
        self.old = self.vms()

    def vms(self) -> dict[str, Any]:
        return {name: self.bench.vcenter.agent_vm(name) for name in self.bench.names()}

    def start(self, **options: Any) -> Upgrade:
        pipeline = self.bench.unit.pipeline
        with pipeline.workers.turn(AGENCY_KEY):  # as the command does: the agency is written as a whole
            return pipeline.upgrades.start(self.packages.url(2), **options)

    def restart(self) -> None:
        self.bench.stop()
        self.bench.start(**self.config)
        self.bench.wait_for(lambda: self.bench.unit.pipeline and self.bench.unit.pipeline.fleet.given_out, "it watches")

    @property
    def status(self) -> Upgrade:
        status = self.bench.unit.pipeline.upgrades.status()
        assert status is not None
        return status

    def agents(self) -> dict[str, Any]:
        (agency,) = self.bench.simulator.vcenter.eam.agencies.values()
        return {agent.host.name: agent for agent in agency.agents.values()}

    def upgraded(self) -> set[str]:
        """Hosts whose agent has a VM of version 2, running."""
        return {
            name
            for name, agent in self.agents().items()
            if agent.vm is not None and agent.vm.on and agent.build.url == self.packages.url(2)
        }

    def held(self) -> set[str]:
        return {name for name, agent in self.agents().items() if agent.hook == "provisioned"}

    def wait_for_phase(self, phase: Phase) -> None:
        self.bench.wait_for(lambda: self.status.phase is phase, f"the upgrade is {phase}: {self.status}")

    def names_of(self, morefs: tuple[str, ...]) -> list[str]:
        names = {host.moid: host.name for host in self.bench.vcenter.hosts()}
        return [names[moref] for moref in morefs]

    def watch(self) -> list[tuple[str, ...]]:
        """Which hosts were admitted, as it grew, from now on."""
        seen: list[tuple[str, ...]] = []
        upgrades = self.bench.unit.pipeline.upgrades
        take = upgrades._take

        def noted(upgrade: Upgrade | None) -> None:
            if upgrade is not None and (not seen or seen[-1] != upgrade.admitted):
                seen.append(upgrade.admitted)
            take(upgrade)

        upgrades._take = noted
        return seen


MakeFleet = Callable[..., Fleet]


@pytest.fixture
def make_fleet(make_bench: Callable[..., Bench], packages: Packages) -> MakeFleet:
    def make(hosts: int = 6, *, clusters: int = 2, config: dict[str, Any] | None = None, **knobs: Any) -> Fleet:
        knobs = {"mark_allowed_for_users": True, **knobs}
        return Fleet(make_bench(hosts=hosts, clusters=clusters, knobs=Knobs(**knobs)), packages, **(config or {}))

    return make


# --- the way it should go ----------------------------------------------------------------------------------


def test_canary_then_waves(make_fleet: MakeFleet) -> None:
    """S03: one, two, two, one; never more old VMs go at once than a wave has; the hold is given back at the end."""
    fleet = make_fleet()
    bench, admitted = fleet.bench, fleet.watch()
    since = len(bench.messages)
    most = 0
    assert fleet.start(wave_size=2).phase is Phase.HOLDING
    while fleet.status.phase is not Phase.DONE:
        down = {name for name, agent in fleet.agents().items() if agent.vm is None or not agent.vm.on}
        most = max(most, len(down))
        if fleet.status.phase in (Phase.HOLDING, Phase.CANARY):
            assert len(down) <= 1
        gevent.sleep(0.01)
    assert most <= 2
    assert [len(hosts) for hosts in admitted] == [0, 1, 3, 5, 6]
    bench.wait_until_active()
    assert fleet.upgraded() == set(bench.names())
    assert not set(fleet.old.values()) & set(fleet.vms().values())
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    bench.wait_for(lambda: not agency.hold_after_provisioning, "the hold is given back")
    assert {m["event"] for m in bench.messages[since:]} <= {"state", "detail"}
    for name in bench.names():
        assert not {"FAULTY", "MISSING", "BLOCKED"} & set(bench.heard(name, since)), bench.heard(name, since)
    assert bench.alarms() == {}
    assert bench.writes("Resolve") == []
    assert_can_be_followed(bench.messages)


def test_whose_turn_has_not_come_is_as_active_as_before(make_fleet: MakeFleet) -> None:
    """Bug: with a new VM held beside it, a ContrailVM that runs and serves its tenants was said to be STARTING."""
    fleet = make_fleet(3)
    bench, since = fleet.bench, len(fleet.bench.messages)
    fleet.start(wave_size=1)
    bench.unit.pipeline.upgrades.pause()
    bench.wait_for(lambda: len(fleet.held()) == 3, "all are held")
    key = f"{bench.vcenter.hosts()[1].moid}.{bench.unit.session.instance_uuid}"
    bench.wait_for(lambda: bench.listener.view.states[key]["eam"]["hook"] == "provisioned", "the hook is on the bus")
    gevent.sleep(0.5)
    for name in bench.names():
        assert bench.heard(name, since) == []
    message = bench.listener.view.states[key]
    assert message["vrouter"]["active"] is True
    assert "new VM" in message["reason"]
    bench.unit.pipeline.upgrades.resume()
    fleet.wait_for_phase(Phase.DONE)


def test_the_hold_that_is_configured_stays(make_fleet: MakeFleet) -> None:
    """S03, S20: each new VM is customised in its turn and gets the name of the one that it replaces."""
    fleet = make_fleet(3, config={"hold_after_provisioning": True})
    bench = fleet.bench
    names = {host: vm.name for host, vm in fleet.old.items()}
    fleet.start(wave_size=4)
    fleet.wait_for_phase(Phase.DONE)
    bench.wait_until_active()
    bench.wait_for(lambda: {host: vm.name for host, vm in fleet.vms().items()} == names, "the names")
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    assert agency.hold_after_provisioning
    assert bench.alarms() == {}


def test_with_the_health_gate_a_wave_waits_for_its_vrouters(make_fleet: MakeFleet) -> None:
    """S03, S12: a canary whose vRouter does not answer has not come up."""
    fleet = make_fleet(3, config={"health_gate": True})
    bench = fleet.bench
    bench.simulator.knobs.change({"vrouter_start": 8.0})  # long enough to be looked at on a slow machine
    fleet.start(wave_size=2)
    fleet.wait_for_phase(Phase.CANARY)
    bench.wait_for(lambda: len(fleet.upgraded()) == 1, "the canary runs")
    bench.simulator.knobs.change({"vrouter_start": 0.1})  # of those that start from here on
    gevent.sleep(0.5)
    assert len(fleet.status.admitted) == 1
    fleet.wait_for_phase(Phase.DONE)
    bench.wait_until_active()


def test_all_at_once_needs_no_hold(make_fleet: MakeFleet) -> None:
    """S03: where marking is refused, it is the only way, and it is refused unless asked for."""
    fleet = make_fleet(3, mark_allowed_for_users=False)
    bench = fleet.bench
    bench.unit.pipeline.planner.may_mark = False
    with pytest.raises(WrongState, match="Waves need the hold"):
        fleet.start()
    assert bench.writes("Update") == []
    fleet.start(all_at_once=True)
    fleet.wait_for_phase(Phase.DONE)
    bench.wait_until_active()
    assert fleet.upgraded() == set(bench.names())
    assert bench.writes("MarkAsAvailable") == []


def test_all_at_once_with_a_configured_hold_customises_all_the_same(make_fleet: MakeFleet) -> None:
    """S03, S20: nobody is started as something else than its host specification says."""
    fleet = make_fleet(3, config={"hold_after_provisioning": True})
    bench = fleet.bench
    fleet.start(all_at_once=True)
    fleet.wait_for_phase(Phase.DONE)
    bench.wait_until_active()
    assert len(bench.writes("MarkAsAvailable")) == 6
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    assert agency.hold_after_provisioning


# --- people ------------------------------------------------------------------------------------------------


def test_a_pause_keeps_the_rest_and_resume_goes_on(make_fleet: MakeFleet) -> None:
    """S03: who was admitted goes on to its end."""
    fleet = make_fleet()
    bench = fleet.bench
    fleet.start(wave_size=2)
    fleet.wait_for_phase(Phase.CANARY)
    bench.unit.pipeline.upgrades.pause()
    (canary,) = fleet.names_of(fleet.status.admitted)
    bench.wait_for(lambda: fleet.upgraded() == {canary}, "the canary has its new VM")
    gevent.sleep(1)
    assert (len(fleet.status.admitted), fleet.status.paused) == (1, True)
    for name, vm in fleet.old.items():
        assert name == canary or vm.on, "the others are served by the old one"
    bench.unit.pipeline.upgrades.resume()
    fleet.wait_for_phase(Phase.DONE)


def test_what_may_not_begin_says_why_and_changes_nothing(make_fleet: MakeFleet) -> None:
    """S03: the same URL, a second upgrade, nothing to pause, and a URL that EAM cannot fetch."""
    fleet = make_fleet(2, clusters=1)
    upgrades = fleet.bench.unit.pipeline.upgrades
    with pytest.raises(WrongState, match=r"deploys .* already"):
        upgrades.start(fleet.packages.url(1))
    with pytest.raises(WrongState, match="No upgrade is under way"):
        upgrades.pause()
    with pytest.raises(OvfError):
        upgrades.start("http://127.0.0.1:9/contrail.ovf")
    assert upgrades.status() is None, "a URL that EAM refuses is no upgrade"
    (agency,) = fleet.bench.simulator.vcenter.eam.agencies.values()
    assert not agency.hold_after_provisioning
    fleet.start()
    with pytest.raises(WrongState, match="under way"):
        upgrades.start(fleet.packages.url(3))
    fleet.wait_for_phase(Phase.DONE)
    with pytest.raises(WrongState, match="No upgrade is under way"):
        upgrades.resume()


def test_when_paused_nothing_begins(make_fleet: MakeFleet) -> None:
    """S03: the gate is asked before the write, and nothing is remembered."""
    fleet = make_fleet(2, clusters=1)
    fleet.bench.unit.gate.pause()
    with pytest.raises(WrongState, match="paused"):
        fleet.start()
    assert fleet.bench.unit.pipeline.upgrades.status() is None
    assert fleet.bench.writes("Update") == []


def test_a_replacement_that_nobody_asked_for_waits(make_fleet: MakeFleet) -> None:
    """S03: somebody else writes a new URL into the agency: with the hold, the old ContrailVMs go on."""
    fleet = make_fleet(2, clusters=1, config={"hold_after_provisioning": True})
    bench = fleet.bench
    agency: AgencyFacts = bench.unit.pipeline.fleet.agency
    bench.unit.pipeline.workers.actor.eam.set_package(agency.moref, fleet.packages.url(2), None, hold=True)
    bench.wait_for(lambda: len(fleet.held()) == 2, "both are held")
    bench.unit.pipeline.poll.read_everything()  # EAM says nothing of it: else it is seen within ten minutes
    bench.wait_for(lambda: "waits for its turn" in str(bench.unit.pipeline.status()["waiting"]), "it says so")
    gevent.sleep(0.5)
    assert fleet.upgraded() == set()
    assert all(vm.on for vm in fleet.old.values())


# --- what goes wrong ---------------------------------------------------------------------------------------


def test_where_eam_stops_the_old_vm_first_it_stops_before_anybody_is_admitted(make_fleet: MakeFleet) -> None:
    """S03: not measured on a real EAM, so it is verified: how many are affected is said, and resume goes on."""
    fleet = make_fleet(4, upgrade_keeps_old_in_hold=False)
    bench = fleet.bench
    fleet.start(wave_size=2)
    fleet.wait_for_phase(Phase.STOPPED)
    assert fleet.status.admitted == ()
    assert "4 host(s) are not upgraded" in fleet.status.why
    assert fleet.status.why in bench.alarms()["upgrade-stopped"]
    gevent.sleep(0.5)
    assert bench.writes("MarkAsAvailable") == []
    bench.unit.pipeline.upgrades.resume()
    fleet.wait_for_phase(Phase.DONE)
    bench.wait_until_active()
    assert fleet.upgraded() == set(bench.names())
    assert "upgrade-stopped" not in bench.alarms()


def test_a_canary_that_fails_stops_it_and_the_others_keep_the_old_one(make_fleet: MakeFleet) -> None:
    """S03: its new VM does not stay on; one host is concerned and no other, until a person has looked."""
    fleet = make_fleet(4, config={"auto_resolve": ()})
    bench = fleet.bench
    fleet.start(wave_size=2)
    fleet.wait_for_phase(Phase.CANARY)
    bench.unit.pipeline.upgrades.pause()
    (canary,) = fleet.names_of(fleet.status.admitted)
    bench.wait_for(lambda: fleet.upgraded() == {canary}, "the canary has its new VM")
    bench.vcenter.power_off(fleet.agents()[canary].vm)
    fleet.wait_for_phase(Phase.STOPPED)
    assert f"{canary} did not come up with the new package" in bench.alarms()["upgrade-stopped"]
    gevent.sleep(0.5)
    for name in set(bench.names()) - {canary}:
        assert fleet.old[name].on
        assert bench.state(name) == "ACTIVE"
    bench.vcenter.power_on(fleet.agents()[canary].vm)
    bench.wait_for_state(canary, "ACTIVE")
    bench.unit.pipeline.upgrades.resume()
    fleet.wait_for_phase(Phase.DONE)


@pytest.mark.parametrize("phase", [Phase.HOLDING, Phase.CANARY, Phase.WAVES, Phase.STOPPED])
def test_a_restart_in_the_middle_goes_on_from_there(make_fleet: MakeFleet, phase: Phase) -> None:
    """S03: whom it admitted, that it was paused or stopped: all of it is on disk before it is done."""
    fleet = make_fleet(upgrade_keeps_old_in_hold=phase is not Phase.STOPPED)
    bench = fleet.bench
    fleet.start(wave_size=2)
    if phase is not Phase.HOLDING:
        fleet.wait_for_phase(phase)
    before = fleet.status
    fleet.restart()
    assert fleet.status.url == before.url
    assert fleet.status.admitted[: len(before.admitted)] == before.admitted
    if phase is Phase.STOPPED:
        assert fleet.status.phase is Phase.STOPPED
        assert "upgrade-stopped" in bench.alarms()
        bench.unit.pipeline.upgrades.resume()
    fleet.wait_for_phase(Phase.DONE)
    bench.wait_until_active()
    assert fleet.upgraded() == set(bench.names())
    assert len([call for call in bench.writes("Update") if call.fields["user"] == bench.simulator.user]) <= 3


def test_a_lost_state_directory_in_the_middle_does_not_let_the_fleet_go_at_once(make_fleet: MakeFleet) -> None:
    """Bug: without a remembered upgrade the hold was given back, and with it EAM restarts every held host at once."""
    fleet = make_fleet(4)
    bench = fleet.bench
    fleet.start(wave_size=1)
    bench.unit.pipeline.upgrades.pause()
    bench.wait_for(lambda: len(fleet.held()) == 4, "all are held")
    bench.stop()
    bench.start(**fleet.config, defaults={"state_directory": bench.directory / "another"})
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches")
    gevent.sleep(1)
    assert fleet.upgraded() == set()
    assert len(fleet.held()) == 4
    assert all(vm.on for vm in fleet.old.values())


def test_marking_refused_in_the_middle_does_not_let_the_fleet_go_at_once(make_fleet: MakeFleet) -> None:
    """Bug: to end a loop the holds were cleared, also those that keep the old ContrailVMs running."""
    fleet = make_fleet(4)
    bench = fleet.bench
    fleet.start(wave_size=1)
    bench.unit.pipeline.upgrades.pause()
    bench.wait_for(lambda: len(fleet.held()) == 4, "all are held")
    bench.simulator.knobs.change({"mark_allowed_for_users": False})
    bench.unit.pipeline.upgrades.resume()
    bench.wait_for(lambda: "may-not-mark" in bench.alarms(), "the alarm")
    fleet.wait_for_phase(Phase.STOPPED)
    gevent.sleep(1)
    assert fleet.upgraded() == set()
    assert all(vm.on for vm in fleet.old.values())


@pytest.mark.parametrize("how", ["maintenance", "crash", "removed"])
def test_a_host_that_goes_in_the_middle_does_not_hold_up_the_others(make_fleet: MakeFleet, how: str) -> None:
    """S03, S10, S15: it is upgraded when it is back; one that was removed is no part of it any more."""
    fleet = make_fleet(4)
    bench = fleet.bench
    fleet.start(wave_size=1)
    bench.unit.pipeline.upgrades.pause()
    bench.wait_for(lambda: len(fleet.held()) == 4, "all are held")
    host = next(h for h in bench.vcenter.hosts() if h.moid not in (fleet.status.canary,))
    {"maintenance": bench.vcenter.enter_maintenance, "crash": bench.vcenter.crash,
     "removed": bench.vcenter.remove_host}[how](host)  # fmt: skip
    wanted = {"maintenance": "MAINTENANCE", "crash": "UNREACHABLE", "removed": None}[how]
    bench.wait_for(lambda: bench.state(host.name) == wanted, f"{wanted}")
    bench.unit.pipeline.upgrades.resume()
    if how == "removed":
        fleet.wait_for_phase(Phase.DONE)
        return
    bench.wait_for(lambda: len(fleet.upgraded()) == 3, "the others are upgraded")
    assert fleet.status.phase is Phase.WAVES
    if how == "maintenance":
        bench.wait_for(lambda: host.in_maintenance, "in maintenance")
        bench.vcenter.exit_maintenance(host)
    else:
        bench.vcenter.recover(host)
    fleet.wait_for_phase(Phase.DONE)
    bench.wait_until_active()


def test_a_host_added_in_the_middle_gets_the_new_package(make_fleet: MakeFleet) -> None:
    """S03, S20: held as all are, and let go at once: it replaces nobody."""
    fleet = make_fleet(3)
    bench = fleet.bench
    fleet.start(wave_size=1)
    bench.unit.pipeline.upgrades.pause()
    bench.wait_for(lambda: len(fleet.held()) == 3, "all are held")
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_until_active(host.name)
    assert host.name in fleet.upgraded()
    bench.unit.pipeline.upgrades.resume()
    fleet.wait_for_phase(Phase.DONE)
