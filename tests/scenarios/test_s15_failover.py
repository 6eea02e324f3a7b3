# SPDX-License-Identifier: Apache-2.0
"""S15: when a host is lost, HA starts its tenants elsewhere, but not its ContrailVM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from tests.support.bench import Bench
from tests.support.rules import Watched, violations_now, wait_for_violation, wait_until_kept
from tests.support.scenario import assert_can_be_followed

LOST = frozenset({"UNREACHABLE"})
ELSEWHERE = "ha_restarted_elsewhere"


@pytest.fixture
def pair(make_bench: Callable[..., Bench]) -> Bench:
    """Two healthy hosts in one cluster with HA."""
    bench = make_bench(hosts=2, clusters=1)
    bench.vcenter.set_ha(bench.vcenter.clusters()[0])
    bench.start()
    bench.wait_until_active()
    return bench


def lose(bench: Bench, host: Any) -> None:
    bench.vcenter.crash(host)
    bench.wait_for_state(host.name, "UNREACHABLE")


def see_snapshot(bench: Bench, since: int) -> None:
    bench.wait_for(lambda: any(m["snapshot"] and not m["key"] for m in bench.messages[since + 1 :]), "the snapshot")


def test_tenants_go_and_the_contrailvm_stays(pair: Bench) -> None:
    """S15, rule kept: UNREACHABLE with the last state, for as long as it takes; then back, the VM the same."""
    host, other = pair.vcenter.hosts()
    vm, tenant, watched = pair.vcenter.agent_vm(host), pair.vcenter.add_tenant(host), Watched(pair)
    lose(pair, host)
    pair.wait_for(lambda: tenant.host is other and tenant.on, "HA has started the tenant")
    gevent.sleep(0.5)  # past the grace time
    assert vm.host is host
    assert watched.heard(host.name) == ["UNREACHABLE"]
    assert pair.messages[-1]["vrouter"]["active"] is False
    pair.vcenter.recover(host)
    pair.wait_until_active(host.name)
    assert pair.vcenter.agent_vm(host) is vm
    watched.assert_kept(host.name, besides=LOST)
    assert_can_be_followed(pair.messages)


def test_ha_starts_it_elsewhere(pair: Bench) -> None:
    """S15, rule broken: named on the lost host, with the place. Back again, it is somewhere else until somebody
    moves it; the host where it is is not concerned."""
    pair.simulator.knobs.change({"ha_restarts_elsewhere": True})
    host, other = pair.vcenter.hosts()
    vm, watched = pair.vcenter.agent_vm(host), Watched(pair)
    lose(pair, host)
    assert other.name in wait_for_violation(pair, host.name, ELSEWHERE)
    assert pair.state(host.name) == "UNREACHABLE"
    pair.vcenter.recover(host)
    pair.wait_for_state(host.name, "FAULTY")
    wait_for_violation(pair, host.name, "agent_vm_on_other_host")
    assert ELSEWHERE not in violations_now(pair, host.name)
    pair.vcenter.migrate(vm, host)
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)
    assert watched.violations(other.name) == set()
    assert watched.writes() == []
    watched.assert_no_alarm(host.name, besides=LOST | {"FAULTY"})
    assert_can_be_followed(pair.messages)


@pytest.mark.parametrize("verb", ["disconnect", "not_responding"])
def test_contact_is_lost_and_the_host_runs_on(pair: Bench, verb: str) -> None:
    """S15: the ContrailVM never stopped. One UNREACHABLE, one way back, whoever disconnected it."""
    host = pair.vcenter.hosts()[0]
    vm, watched = pair.vcenter.agent_vm(host), Watched(pair)
    boots = vm.boots
    getattr(pair.vcenter, verb)(host)
    pair.wait_for_state(host.name, "UNREACHABLE")
    gevent.sleep(0.5)  # past the grace time
    pair.vcenter.reconnect(host)
    pair.wait_until_active(host.name)
    assert vm.boots == boots
    assert [s for s in watched.heard(host.name) if s != "STARTING"] == ["UNREACHABLE", "ACTIVE"]
    watched.assert_kept(host.name, besides=LOST)


@pytest.mark.parametrize("broken", [False, True], ids=["kept", "broken"])
def test_the_service_is_stopped_and_started_while_the_host_is_lost(pair: Bench, broken: bool) -> None:
    """S15: lost before and after is no message; that HA broke its rule meanwhile is seen from the first look on."""
    pair.simulator.knobs.change({"ha_restarts_elsewhere": broken, "ha_failover": 1.0})
    host, other = pair.vcenter.hosts()
    vm = pair.vcenter.agent_vm(host)
    lose(pair, host)
    pair.stop()
    watched = Watched(pair)
    if broken:
        pair.wait_for(lambda: vm.host is other, "HA has started it elsewhere")
    pair.start()
    see_snapshot(pair, watched.since)
    if broken:
        wait_for_violation(pair, host.name, ELSEWHERE)
    gevent.sleep(0.5)  # past the grace time
    assert watched.heard(host.name) == []
    assert pair.state(host.name) == "UNREACHABLE"
    pair.vcenter.recover(host)
    if broken:
        pair.wait_for(lambda: host.connected, "it is back")
        pair.vcenter.migrate(vm, host)
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)
    assert watched.writes() == []


def test_lost_while_the_service_was_down(pair: Bench) -> None:
    """S15: it is told at the start, with the state that was last true."""
    host = pair.vcenter.hosts()[0]
    pair.stop()
    watched = Watched(pair)
    pair.vcenter.crash(host)
    pair.start()
    pair.wait_for_state(host.name, "UNREACHABLE")
    assert watched.heard(host.name) == ["UNREACHABLE"]
    assert next(m for m in pair.messages[watched.since :] if m["event"] == "state")["last_state"] == "ACTIVE"
    pair.vcenter.recover(host)
    pair.wait_until_active(host.name)
    watched.assert_kept(host.name, besides=LOST)


@pytest.mark.parametrize("moment", ["maintenance", "repair"])
def test_lost_in_the_middle_of_something(pair: Bench, moment: str) -> None:
    """S15, S10, S08: whatever was going on is not gone on with on a host that is away; back, it is served."""
    host = pair.vcenter.hosts()[0]
    vm = pair.vcenter.agent_vm(host)
    if moment == "maintenance":
        pair.simulator.knobs.change({"evacuate": 5.0})
        pair.vcenter.enter_maintenance(host)
        pair.wait_for_state(host.name, "MAINTENANCE")
    else:
        pair.simulator.knobs.change({"power_on": 1.0})
        pair.vcenter.power_off(vm)
        pair.wait_for(lambda: pair.writes("Resolve"), "the repair has begun")
    watched = Watched(pair)
    lose(pair, host)
    gevent.sleep(0.5)  # past the grace time
    pair.vcenter.recover(host)
    pair.wait_until_active(host.name)
    watched.assert_kept(host.name, besides=LOST)


def test_a_lost_host_that_is_removed(pair: Bench) -> None:
    """S15: it never comes back, and its key ends; the VM that HA started elsewhere against the rule goes with EAM."""
    pair.simulator.knobs.change({"ha_restarts_elsewhere": True})
    host, other = pair.vcenter.hosts()
    watched = Watched(pair)
    lose(pair, host)
    wait_for_violation(pair, host.name, ELSEWHERE)
    name = host.name
    pair.vcenter.remove_host(host)
    pair.wait_for(lambda: pair.state(name) is None, "its key has ended")
    assert watched.heard(name)[-1] == "REMOVED"
    assert pair.state(other.name) == "ACTIVE"
    assert watched.writes() == []


def test_without_ha_nothing_is_started_anywhere(pair: Bench) -> None:
    """S15: HA is off."""
    host, _ = pair.vcenter.hosts()
    pair.vcenter.set_ha(host.compute_resource, False)
    pair.simulator.knobs.change({"ha_restarts_elsewhere": True})
    tenant, watched = pair.vcenter.add_tenant(host), Watched(pair)
    lose(pair, host)
    gevent.sleep(0.5)  # longer than a failover takes
    assert tenant.host is host
    pair.vcenter.recover(host)
    pair.wait_until_active(host.name)
    watched.assert_kept(host.name, besides=LOST)
