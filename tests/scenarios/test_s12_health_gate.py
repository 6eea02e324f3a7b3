# SPDX-License-Identifier: Apache-2.0
"""S12: with the health gate, EAM calls a ContrailVM available once its vRouter answers, and DRS waits for that."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from tests.support.bench import Bench
from tests.support.rabbit import free_port
from tests.support.scenario import assert_can_be_followed
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.domain import health
from vcenter_eam_plugin.domain.health import NOT_INSTALLED, OnDeadline
from vcenter_eam_plugin.simulator.knobs import Knobs

NEVER = 3600.0
"""Seconds until the vRouter answers, for one that is not installed."""


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vRouter of the simulator is up in tenths of a second."""
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.2)


MakeGated = Callable[..., Bench]


@pytest.fixture
def make_gated(make_bench: Callable[..., Bench]) -> MakeGated:
    """``make_gated(hosts=..., vrouter_start=...)``: where our account may mark, not started yet."""

    def make(hosts: int = 1, *, clusters: int = 1, **knobs: Any) -> Bench:
        # A port of its own: the addresses are those of every simulator on this machine.
        keep = {"mark_allowed_for_users": True, "vrouter_port": free_port()}
        return make_bench(hosts=hosts, clusters=clusters, knobs=Knobs(**{**keep, **knobs}))

    return make


def marks(bench: Bench) -> int:
    return len(bench.writes("MarkAsAvailable"))


def agent_of(bench: Bench, name: str) -> Any:
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    return next(agent for agent in agency.agents.values() if agent.host.name == name)


def reasons(bench: Bench, host: str, since: int = 0) -> list[str]:
    return [m["reason"] for m in bench.messages[since:] if m["key"] and m["esxi"]["name"] == host]


def test_it_is_held_until_the_vrouter_answers(make_gated: MakeGated) -> None:
    """S12: STARTING while the guest runs without its vRouter, ACTIVE once that answers; nothing is alarmed."""
    bench = make_gated(2, vrouter_start=2.0)
    bench.start(health_gate=True)
    for name in bench.names():
        bench.wait_for_state(name, "STARTING")
    bench.wait_for(lambda: all(bench.vcenter.agent_vm(name).heartbeat for name in bench.names()), "guests are up")
    bench.wait_for(lambda: NOT_INSTALLED in reasons(bench, bench.names()[0]), "it says what it waits for")
    assert marks(bench) == 0
    bench.wait_until_active()
    assert bench.simulator.vcenter.vrouters.listening, "the vRouters answer"
    assert marks(bench) == 2
    assert bench.alarms() == {}
    assert bench.heard(bench.names()[0])[-2:] == ["STARTING", "ACTIVE"]
    assert_can_be_followed(bench.messages)


def test_it_is_marked_when_it_answers_and_not_when_eam_is_read_next(make_gated: MakeGated) -> None:
    """Bug: nobody came back after a probe, so a held ContrailVM waited for the poll."""
    bench = make_gated(vrouter_start=1.0)
    bench.start(health_gate=True, poll_seconds=300.0)
    bench.wait_until_active()
    assert marks(bench) == 1


def test_drs_uses_the_host_once_it_is_available(make_gated: MakeGated) -> None:
    """S12: this is what the gate is for: no tenant VM is placed where no vRouter answers."""
    bench = make_gated(vrouter_start=NEVER)
    bench.start(health_gate=True)
    (host,) = bench.vcenter.hosts()
    bench.wait_for(lambda: NOT_INSTALLED in reasons(bench, host.name), "held")
    task = bench.vcenter.power_on(bench.vcenter.add_tenant(host, on=False))
    bench.wait_for(lambda: str(task.info.state) in ("success", "error"), "DRS has answered")
    assert "InsufficientAgentVmsDeployed" in repr(task.info.error)


def test_no_address_is_waited_for(make_gated: MakeGated) -> None:
    """S12: tools that never come up: there is nobody to ask."""
    bench = make_gated(heartbeats=False)
    bench.start(health_gate=True)
    (name,) = bench.names()
    bench.wait_for_state(name, "STARTING")
    bench.wait_for(lambda: "address" in str(bench.unit.pipeline.status()["waiting"]), "it says what it waits for")
    assert marks(bench) == 0


def test_one_that_is_not_functional_says_why(make_gated: MakeGated) -> None:
    """S12: the vRouter's own words, on the bus; and once it is well, it is marked."""
    bench = make_gated(vrouter_start=0.5)
    bench.start(health_gate=True)
    (name,) = bench.names()
    vm = bench.wait_for(lambda: bench.vcenter.agent_vm(name), "the VM is there")
    bench.simulator.vcenter.vrouters.set_state(vm, "Non-Functional", "Number of BGP peers is 0")
    bench.wait_for(
        lambda: "the vRouter agent is Non-Functional: Number of BGP peers is 0" in reasons(bench, name), "the reason"
    )
    assert marks(bench) == 0
    bench.simulator.vcenter.vrouters.set_state(vm, "Functional")
    bench.wait_until_active()


# --- a vRouter that never answers ----------------------------------------------------------------------------


def test_without_a_vrouter_the_command_is_run_once_per_vm(make_gated: MakeGated) -> None:
    """S20: with the host's facts on standard input; what it installs is found by the next probe."""
    bench = make_gated(2, vrouter_start=NEVER)
    record = bench.directory / "installed"
    script = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write(sys.stdin.read() + '\\n')"
    bench.start(health_gate=True, install_command=(sys.executable, "-c", script, str(record)))
    bench.wait_for(lambda: record.exists() and len(record.read_text().splitlines()) == 2, "it ran for both")
    gevent.sleep(0.8)  # several probes more
    bench.stop()
    bench.start(health_gate=True, install_command=(sys.executable, "-c", script, str(record)))
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches again")
    bench.wait_for(lambda: "not installed" in str(bench.unit.pipeline.status()["waiting"]), "it was asked again")
    gevent.sleep(0.5)
    facts = [json.loads(line) for line in record.read_text().splitlines()]
    assert sorted(one["host"] for one in facts) == sorted(bench.names())
    for one in facts:
        vm = bench.vcenter.agent_vm(one["host"])
        assert (one["vm"], one["ip"]) == (vm.moid, vm.address)
        assert one["cluster"] == bench.vcenter.clusters()[0].name
    assert marks(bench) == 0
    assert {bench.state(name) for name in bench.names()} == {"STARTING"}


def test_on_the_deadline_it_is_released_with_an_alarm(make_gated: MakeGated) -> None:
    """S12: after a blackout the controllers that it needs may be tenants waiting for it."""
    bench = make_gated(2, vrouter_start=NEVER)
    bench.start(health_gate=True, health_deadline_seconds=1.0)
    bench.wait_until_active()
    alarms = bench.alarms()
    assert sorted(alarms) == sorted(f"released:{host.moid}" for host in bench.vcenter.hosts())
    assert (
        "released after 1 s without health: vRouter not installed"
        in alarms[f"released:{bench.vcenter.hosts()[0].moid}"]
    )
    assert marks(bench) == 2


def test_or_it_is_held_for_ever(make_gated: MakeGated) -> None:
    """S12: on_health_deadline = hold: until it is healthy."""
    bench = make_gated(vrouter_start=NEVER)
    bench.start(health_gate=True, health_deadline_seconds=1.0, on_health_deadline=OnDeadline.HOLD)
    (name,) = bench.names()
    bench.wait_for(lambda: NOT_INSTALLED in reasons(bench, name), "held")
    gevent.sleep(1.5)  # past the deadline
    assert (marks(bench), bench.state(name)) == (0, "STARTING")
    bench.simulator.knobs.change({"vrouter_start": 0.1})
    bench.simulator.vcenter.vrouters._follow(bench.vcenter.agent_vm(name))
    bench.wait_until_active()


# --- again and again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["maintenance", "power off", "reboot"])
def test_after_each_power_on_it_is_held_again(make_gated: MakeGated, how: str) -> None:
    """S12: healthy before says nothing about afterwards."""
    bench = make_gated()
    bench.start(health_gate=True)
    bench.wait_until_active()
    (host,) = bench.vcenter.hosts()
    assert marks(bench) == 1
    bench.simulator.knobs.change({"vrouter_start": 1.5})
    since = len(bench.messages)
    if how == "maintenance":
        bench.vcenter.enter_maintenance(host)
        bench.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
        bench.vcenter.exit_maintenance(host)
    elif how == "power off":
        bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    else:
        bench.vcenter.reboot(host)
    bench.wait_for(lambda: NOT_INSTALLED in reasons(bench, host.name, since), "it is held and asked again")
    assert marks(bench) == 1
    bench.wait_until_active(host.name)
    assert marks(bench) == 2
    assert not host.in_maintenance
    assert_can_be_followed(bench.messages)


def test_a_deadline_counts_from_this_power_on(make_gated: MakeGated) -> None:
    """S12: an hour in maintenance is no hour of waiting for the vRouter."""
    bench = make_gated(vrouter_start=NEVER)
    bench.start(health_gate=True, health_deadline_seconds=4.0)
    (host,) = bench.vcenter.hosts()
    bench.wait_for(lambda: NOT_INSTALLED in reasons(bench, host.name), "held")
    bench.vcenter.enter_maintenance(host)
    bench.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    gevent.sleep(4.0)
    bench.simulator.knobs.change({"vrouter_start": 0.2})
    bench.vcenter.exit_maintenance(host)
    bench.wait_until_active()
    assert bench.alarms() == {}, "it was healthy, and not released"


def test_a_restart_in_the_middle_goes_on_holding(make_gated: MakeGated) -> None:
    """S12: what is held is EAM's to remember."""
    bench = make_gated(vrouter_start=3.0)
    bench.start(health_gate=True)
    (name,) = bench.names()
    bench.wait_for(lambda: NOT_INSTALLED in reasons(bench, name), "held")
    bench.stop()
    assert marks(bench) == 0
    bench.start(health_gate=True)
    bench.wait_until_active()
    assert marks(bench) == 1


def test_in_observe_mode_it_is_told_and_not_answered(make_gated: MakeGated) -> None:
    """S12: a duty of whoever acts."""
    bench = make_gated(vrouter_start=NEVER)
    bench.start(health_gate=True)
    (name,) = bench.names()
    bench.wait_for(lambda: NOT_INSTALLED in reasons(bench, name), "held")
    bench.stop()
    bench.simulator.knobs.change({"vrouter_start": 0.1})
    bench.simulator.vcenter.vrouters._follow(bench.vcenter.agent_vm(name))
    bench.start(health_gate=True, mode=Mode.OBSERVE)
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches again")
    gevent.sleep(1)
    assert (marks(bench), bench.state(name)) == (0, "STARTING")
    bench.unit.activate()
    bench.wait_until_active()


# --- who may not mark ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("provisioning", [False, True], ids=["after power-on", "after provisioning too"])
def test_where_marking_is_refused_the_holds_are_cleared_and_nobody_loops(
    make_gated: MakeGated, provisioning: bool
) -> None:
    """S12, design section 5: one alarm, both flags off, and the ContrailVMs run all the same."""
    bench = make_gated(3, mark_allowed_for_users=False)
    bench.start(health_gate=True, hold_after_provisioning=provisioning)
    bench.wait_until_active()
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    assert not agency.hold_after_provisioning
    assert not agency.hold_after_power_on
    assert "hold flags of the agency are cleared" in bench.alarms()["may-not-mark"]
    writes = len(bench.writes())
    gevent.sleep(1.5)
    assert len(bench.writes()) == writes, "nothing is tried again and again"
    assert marks(bench) <= 4, "one for each that was being worked on"
    assert_can_be_followed(bench.messages)
