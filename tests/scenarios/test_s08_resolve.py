# SPDX-License-Identifier: Apache-2.0
"""S08: issues are resolved by themselves, in budgets, and only where and when that is right."""

import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from pyVmomi import vim

from tests.support.bench import Bench
from tests.support.scenario import assert_can_be_followed
from vcenter_eam_plugin.config import Mode


def power_off_all(bench: Bench) -> None:
    for host in bench.vcenter.hosts():
        bench.vcenter.power_off(bench.vcenter.agent_vm(host))


def ours(bench: Bench, since: int = 0) -> list[Any]:
    """What was written in our name, from the write with index ``since`` on."""
    return [call for call in bench.writes()[since:] if call.fields["user"] == bench.simulator.user]


def red_for(bench: Bench, issue: str, hosts: int) -> Callable[[], bool]:
    """Whether so many hosts are seen with this issue, each read since it was filed."""

    def seen() -> bool:
        statuses = bench.unit.pipeline.fleet.statuses()
        return sum(any(i.type == issue for i in status.eam.issues) for status in statuses) == hosts

    return seen


@pytest.mark.parametrize(
    ("verb", "issue"), [("power_off", "VmPoweredOff"), ("suspend", "VmSuspended"), ("destroy", "VmNotDeployed")]
)
def test_it_is_repaired_by_one_resolve_of_the_agent(bench: Bench, verb: str, issue: str) -> None:
    """S08: powered off -> powered on, missing -> deployed again; by Agent.Resolve, never by ResolveAll."""
    bench.start()
    bench.wait_until_active()
    host, since = bench.vcenter.hosts()[0], len(bench.writes())
    vm = bench.vcenter.agent_vm(host)
    other = bench.vcenter.agent_vm(bench.vcenter.hosts()[1]).moid
    getattr(bench.vcenter, verb)(vm)
    bench.wait_for(lambda: len(bench.heard(host.name)) and bench.heard(host.name)[-1] != "ACTIVE", "it is reported")
    bench.wait_until_active(host.name)
    assert [call.fields["method"] for call in ours(bench, since)] == ["Resolve"]
    (agent,) = host.agents.values()
    assert ours(bench, since)[0].fields["object"] == agent.moid
    assert (bench.vcenter.agent_vm(host) is vm) == (verb != "destroy")
    assert bench.vcenter.agent_vm(bench.vcenter.hosts()[1]).moid == other
    assert_can_be_followed(bench.messages)


def test_several_at_once_stay_within_the_limit_and_all_come_back(make_bench: Callable[..., Bench]) -> None:
    """S08: at most max_concurrent_repairs run in a cluster, and the next begins when one has ended."""
    bench = make_bench(hosts=6, clusters=1)
    bench.start(max_concurrent_repairs=2)
    bench.wait_until_active()
    most = 0
    began = time.monotonic()
    power_off_all(bench)
    ledger = bench.unit.pipeline.planner.ledger
    (cluster,) = bench.vcenter.clusters()

    def done() -> bool:
        nonlocal most
        most = max(most, ledger.running(cluster.moid))
        repaired = len(bench.writes("Resolve")) == 6
        return repaired and all(vm.on for vm in map(bench.vcenter.agent_vm, bench.vcenter.hosts()))

    bench.wait_for(done, "all are on again")
    bench.wait_until_active()
    assert most == 2
    assert len(bench.writes("Resolve")) == 6
    assert time.monotonic() - began < 10, "the next repair waits for the one before, and for nothing else"
    assert_can_be_followed(bench.messages)


def test_the_hourly_budget_is_kept_and_said(make_bench: Callable[..., Bench]) -> None:
    """S08: what is over the budget waits, and the status says so."""
    bench = make_bench(hosts=3, clusters=1)
    bench.start(repairs_per_hour=2)
    bench.wait_until_active()
    power_off_all(bench)
    bench.wait_for(lambda: len(bench.writes("Resolve")) == 2, "two repairs")
    bench.wait_for(
        lambda: any("within the hour" in w for w in sum(bench.unit.pipeline.status()["waiting"].values(), [])),
        "why the third waits",
    )
    bench.wait_for(lambda: bench.unit.pipeline.status()["states"] == {"ACTIVE": 2, "POWERED_OFF": 1}, "two are back")
    assert len(bench.writes("Resolve")) == 2


def test_observe_mode_writes_nothing_at_all_until_it_is_activated(bench: Bench) -> None:
    """S08: not the agency, not the hosts' settings; what it would do is in the plan."""
    bench.start(mode=Mode.OBSERVE)
    for host in bench.names():
        bench.wait_for_state(host, "PENDING")
    plan = bench.wait_for(bench.unit.pipeline.workers.plan, "a plan")
    assert any("create the agency" in action.describe() for action in plan["agency"].actions)
    bench.wait_for(lambda: not len(bench.unit.pipeline.workers.queue), "everything was looked at")
    assert bench.writes() == []
    bench.service.activate()
    bench.wait_until_active()
    assert len(bench.writes("CreateAgency")) == 1


def test_a_pause_stops_repairs_and_activation_makes_up_for_it(bench: Bench) -> None:
    """S08: watching and publishing go on meanwhile."""
    bench.start()
    bench.wait_until_active()
    bench.service.pause()
    since = len(bench.writes())
    power_off_all(bench)
    added = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    for host in bench.names()[:3]:
        bench.wait_for_state(host, "POWERED_OFF")
    bench.wait_for_state(added.name, "BLOCKED")
    bench.wait_for(red_for(bench, "VmPoweredOff", 3), "the issues are seen")
    assert bench.unit.status()["mode"] == "paused"
    bench.wait_for(lambda: not len(bench.unit.pipeline.workers.queue), "everything was looked at")
    gevent.sleep(0.5)  # longer than the grace time, in which nothing would happen anyway
    assert ours(bench, since) == []
    bench.service.activate()
    bench.wait_until_active()


def test_an_unexplained_power_off_is_left_alone_for_the_grace_time(make_bench: Callable[..., Bench]) -> None:
    """S08: a person may be at work; the repair comes after the grace time and not before."""
    grace = 2.0
    bench = make_bench(hosts=1, clusters=1)
    bench.start(power_off_grace_seconds=grace)
    bench.wait_until_active()
    (host,) = bench.vcenter.hosts()
    off_at = time.monotonic()
    bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host.name, "POWERED_OFF")
    bench.wait_until_active(host.name)
    (resolve,) = bench.writes("Resolve")
    assert resolve.monotonic - off_at >= grace


def test_a_person_who_powers_it_on_within_the_grace_time_is_not_helped(make_bench: Callable[..., Bench]) -> None:
    """S08: no write of ours at all."""
    bench = make_bench(hosts=1, clusters=1)
    bench.start(power_off_grace_seconds=1.0)
    bench.wait_until_active()
    (host,) = bench.vcenter.hosts()
    vm = bench.vcenter.agent_vm(host)
    bench.vcenter.power_off(vm)
    bench.wait_for_state(host.name, "POWERED_OFF")
    bench.vcenter.power_on(vm)
    bench.wait_until_active(host.name)
    gevent.sleep(1.2)  # past the grace time
    assert bench.writes("Resolve") == []


@pytest.mark.parametrize("moment", ["entering", "in", "leaving"])
def test_nothing_is_done_on_a_host_that_is_in_or_on_its_way_into_or_out_of_maintenance(
    make_bench: Callable[..., Bench], moment: str
) -> None:
    """S08: whatever EAM shows red there; Resolve would take the host out of maintenance."""
    bench = make_bench(hosts=2, clusters=1)
    bench.start()
    bench.wait_until_active()
    host = bench.vcenter.hosts()[0]
    if moment == "entering":
        bench.simulator.knobs.change({"evacuate": 1.5})
    bench.vcenter.enter_maintenance(host)
    bench.wait_for_state(host.name, "MAINTENANCE")
    if moment != "entering":
        bench.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
        bench.wait_for(red_for(bench, "HostInMaintenanceMode", 1), "EAM's issue is seen")
    if moment == "leaving":
        bench.simulator.knobs.change({"exit_maintenance": 1.0, "power_on": 1.0})
        bench.vcenter.exit_maintenance(host)
        bench.wait_until_active(host.name)
    else:
        bench.vcenter.destroy(bench.vcenter.agent_vm(host))
        bench.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
        gevent.sleep(0.6)  # past the grace time and several looks
        assert host.in_maintenance
        assert bench.state(host.name) == "MAINTENANCE"
    assert bench.writes("Resolve") == []
    assert bench.writes("ResolveAll") == []


def test_a_list_in_the_configuration_can_only_allow_less(make_bench: Callable[..., Bench]) -> None:
    """S08: an issue type left out of auto_resolve waits for a person."""
    bench = make_bench(hosts=2, clusters=1)
    bench.start(auto_resolve=("VmPoweredOff", "NoAgentVmDatastore", "NoAgentVmNetwork"))
    bench.wait_until_active()
    deleted, off = bench.vcenter.hosts()
    bench.vcenter.destroy(bench.vcenter.agent_vm(deleted))
    bench.wait_for_state(deleted.name, "MISSING")
    bench.vcenter.power_off(bench.vcenter.agent_vm(off))
    bench.wait_for_state(off.name, "POWERED_OFF")
    bench.wait_until_active(off.name)
    assert bench.state(deleted.name) == "MISSING"
    waiting = bench.unit.pipeline.status()["waiting"][deleted.moid]
    assert any("VmNotDeployed is not resolved by itself" in why for why in waiting)


def test_a_vm_that_cannot_start_is_not_tried_again_and_again(make_bench: Callable[..., Bench]) -> None:
    """S08: EAM's Resolve powers it on, vCenter refuses: InvalidConfig is for a person, and nothing more is written."""

    bench = make_bench(hosts=1, clusters=1)
    bench.start()
    bench.wait_until_active()
    (host,) = bench.vcenter.hosts()
    vm = bench.vcenter.agent_vm(host)
    vm.power_on_fault = vim.fault.InsufficientResourcesFault(msg="no memory")
    bench.vcenter.power_off(vm)
    bench.wait_for_state(host.name, "FAULTY")
    assert "InvalidConfig" in bench.messages[-1]["reason"]
    writes = len(bench.writes())
    gevent.sleep(1.0)
    assert len(bench.writes()) == writes
    assert len(bench.writes("Resolve")) == 1


def test_a_pause_outlives_a_restart(bench: Bench) -> None:
    """S08: paused by a person, started again by a supervisor: still nothing is written, until it is activated."""
    bench.start()
    bench.wait_until_active()
    assert bench.service is not None
    bench.service.pause()
    bench.stop()
    host = bench.vcenter.hosts()[0]
    bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    writes = len(bench.writes())
    service = bench.start()
    bench.wait_for_state(host.name, "POWERED_OFF")
    assert service.status()["vcenters"][0]["mode"] == "paused"
    assert len(bench.writes()) == writes
    service.activate()
    bench.wait_until_active(host.name)
