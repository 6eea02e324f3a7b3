# SPDX-License-Identifier: Apache-2.0
"""S12: no tenant VM comes to a host whose ContrailVM is not available; who is without network is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.rules import (
    Watched,
    has_ended,
    of_host,
    violations_now,
    wait_for_violation,
    wait_until_kept,
)
from tests.support.scenario import Wire, assert_can_be_followed

HERE = "tenants_on_unusable_host"
MOVED = "tenant_moved_to_unusable_host"

HOURS = 3600.0
"""A grace time in which nobody repairs what was powered off."""

pytestmark = pytest.mark.usefixtures("quick_looks")


@pytest.fixture
def pair(make_bench: Callable[..., Bench]) -> Bench:
    """Two healthy hosts in one cluster; a ContrailVM that is powered off stays off."""
    bench = make_bench(hosts=2, clusters=1)
    bench.start(power_off_grace_seconds=HOURS)
    bench.wait_until_active()
    return bench


def power_off(bench: Bench, host: Any) -> Any:
    vm = bench.vcenter.agent_vm(host)
    bench.vcenter.power_off(vm)
    bench.wait_for_state(host.name, "POWERED_OFF")
    return vm


def outcome(bench: Bench, task: Any) -> str:
    """Class name of what a task failed with, or nothing."""
    bench.wait_for(lambda: has_ended(task), "the task has ended")
    return type(task.info.error).__name__.rpartition(".")[2] if task.info.error is not None else ""


def test_drs_refuses_the_host_until_its_contrailvm_is_back(pair: Bench) -> None:
    """S12, rule kept: not by migration, not by power-on, not by balancing; afterwards all of it goes."""
    host, other = pair.vcenter.hosts()
    tenants = [pair.vcenter.add_tenant(other, f"tenant-{n}") for n in range(3)]
    watched = Watched(pair)
    vm = power_off(pair, host)
    assert outcome(pair, pair.vcenter.migrate(tenants[0], host)) == "InsufficientAgentVmsDeployed"
    assert pair.vcenter.balance(host.compute_resource) is None
    started = pair.vcenter.add_tenant(host, "tenant-that-starts", on=False)
    assert outcome(pair, pair.vcenter.power_on(started)) == ""
    assert started.host is other, "DRS started it where a vRouter is"
    pair.vcenter.power_on(vm)
    pair.wait_until_active(host.name)
    assert outcome(pair, pair.vcenter.migrate(tenants[0], host)) == ""
    assert pair.vcenter.balance(host.compute_resource) is not None
    watched.assert_kept(host.name, besides=frozenset({"POWERED_OFF"}))


def test_drs_that_moves_a_tenant_there(pair: Bench) -> None:
    """S12, rule broken: that somebody came, and how many are without network; both over once it is ACTIVE."""
    host, other = pair.vcenter.hosts()
    tenant, watched = pair.vcenter.add_tenant(other), Watched(pair)
    vm = power_off(pair, host)
    pair.simulator.knobs.change({"drs_ignores_agents": True})
    assert outcome(pair, pair.vcenter.migrate(tenant, host)) == ""
    wait_for_violation(pair, host.name, MOVED)
    assert violations_now(pair, host.name)[HERE].startswith("1 tenant VM")
    assert pair.state(host.name) == "POWERED_OFF", "a violation does not change the state"
    assert {m["event"] for m in of_host(pair, host.name, watched.since) if m["violations"]} == {"detail"}
    pair.vcenter.power_on(vm)
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)
    assert watched.violations(other.name) == set()
    assert watched.writes() == []
    assert_can_be_followed(pair.messages)


def test_the_tenants_of_a_host_that_loses_its_contrailvm(pair: Bench) -> None:
    """S12: nobody moved them there; that they are without network is said, and follows who leaves."""
    host, other = pair.vcenter.hosts()
    tenants = [pair.vcenter.add_tenant(host, f"tenant-{n}") for n in range(2)]
    pair.vcenter.add_tenant(host, "tenant-that-is-off", on=False)
    watched = Watched(pair)
    vm = power_off(pair, host)
    assert wait_for_violation(pair, host.name, HERE).startswith("2 tenant VM")
    pair.vcenter.migrate(tenants[0], other)
    pair.wait_for(lambda: violations_now(pair, host.name)[HERE].startswith("1 tenant VM"), "one has left")
    pair.vcenter.power_off(tenants[1])
    wait_until_kept(pair, host.name)
    pair.vcenter.power_on(vm)
    pair.wait_until_active(host.name)
    assert watched.violations(host.name) == {HERE}


def test_one_that_left_and_came_back_has_come(pair: Bench) -> None:
    """S12: a tenant that was there before is known, but not one that comes back while there is no vRouter."""
    host, other = pair.vcenter.hosts()
    tenant = pair.vcenter.add_tenant(host)
    power_off(pair, host)
    wait_for_violation(pair, host.name, HERE)
    pair.vcenter.migrate(tenant, other)
    wait_until_kept(pair, host.name)
    pair.simulator.knobs.change({"drs_ignores_agents": True})
    pair.vcenter.migrate(tenant, host)
    wait_for_violation(pair, host.name, MOVED)
    pair.vcenter.destroy(tenant)
    wait_until_kept(pair, host.name)


def test_a_host_that_is_added_with_its_tenants(pair: Bench) -> None:
    """S12, S09: they were there first, so nobody broke a rule; they wait for the network until it is ACTIVE."""
    pair.simulator.knobs.change({"deploy": 1.5})
    elsewhere = pair.vcenter.add_cluster("not-ours")
    host = pair.vcenter.add_host(elsewhere)
    pair.vcenter.add_tenant(host)
    watched = Watched(pair)
    pair.vcenter.move_host(host, pair.vcenter.clusters()[0])
    wait_for_violation(pair, host.name, HERE)
    assert pair.state(host.name) != "ACTIVE"
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)
    assert watched.violations(host.name) == {HERE}
    assert pair.alarms() == {}


def test_without_drs_nobody_refuses_and_it_is_said_all_the_same(pair: Bench) -> None:
    """S12: a cluster without DRS. A tenant that is started there has no network, whoever started it."""
    host, _ = pair.vcenter.hosts()
    pair.vcenter.set_drs(host.compute_resource, False)
    tenant = pair.vcenter.add_tenant(host, on=False)
    vm = power_off(pair, host)
    assert outcome(pair, pair.vcenter.power_on(tenant)) == ""
    assert tenant.host is host
    wait_for_violation(pair, host.name, MOVED)
    pair.vcenter.power_on(vm)
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)


def test_the_service_is_restarted_while_tenants_are_without_network(pair: Bench) -> None:
    """S12: the violation stands as long as it lasts; a restart neither ends it nor makes another of it."""
    host, _ = pair.vcenter.hosts()
    pair.vcenter.add_tenant(host)
    vm = power_off(pair, host)
    wait_for_violation(pair, host.name, HERE)
    pair.stop()
    watched = Watched(pair)
    pair.start(power_off_grace_seconds=HOURS)
    pair.wait_for(lambda: any(m["snapshot"] and not m["key"] for m in pair.messages[watched.since + 1 :]), "snapshot")
    pair.wait_for(lambda: pair.unit.pipeline.fleet.violations(host.moid), "it has looked")
    assert [m["violations"] for m in of_host(pair, host.name, watched.since) if not m["violations"]] == []
    assert watched.violations(host.name) == {HERE}
    pair.vcenter.power_on(vm)
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)


def test_vcenter_does_not_answer_while_it_looks(pair: Bench) -> None:
    """S12: what was seen stands until it is seen otherwise; a new login ends the doubt."""
    host, _ = pair.vcenter.hosts()
    tenant = pair.vcenter.add_tenant(host)
    watched = Watched(pair)
    power_off(pair, host)
    wait_for_violation(pair, host.name, HERE)
    pair.simulator.faults.inject(name="http_503", path="/sdk", count=5)
    pair.unit.pipeline.rules.wake()
    pair.simulator.faults.inject(name="session_kill")
    pair.vcenter.destroy(tenant)
    wait_until_kept(pair, host.name)
    found = [bool(m["violations"]) for m in of_host(pair, host.name, watched.since)]
    assert found == [*sorted(found[:-1]), False], "told once, and ended once"


def test_hosts_that_are_well_are_not_asked_for_their_tenants(pair: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """S12: the cost follows what is wrong, not how many tenants there are."""
    host, _ = pair.vcenter.hosts()
    pair.vcenter.add_tenant(host)
    looks = 0
    look = pair.unit.pipeline.rules.look

    def counted() -> None:
        nonlocal looks
        looks += 1
        look()

    monkeypatch.setattr(pair.unit.pipeline.rules, "look", counted)
    wire = Wire(pair.simulator)
    pair.unit.pipeline.rules.wake()
    pair.wait_for(lambda: looks > 5, "it has looked several times")
    assert wire.count("RetrievePropertiesEx") == 0
    power_off(pair, host)
    wait_for_violation(pair, host.name, HERE)
    assert wire.count("RetrievePropertiesEx") > 0
