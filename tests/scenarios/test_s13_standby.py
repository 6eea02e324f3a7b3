# SPDX-License-Identifier: Apache-2.0
"""S13: a host with a ContrailVM may sleep. Tenants leave first, the ContrailVM last; it comes back with the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from tests.support.bench import Bench
from tests.support.rules import Watched, has_ended, wait_for_violation, wait_until_kept
from tests.support.scenario import assert_can_be_followed

FIRST = "dpm_agent_off_before_tenants"


@pytest.fixture
def pair(make_bench: Callable[..., Bench]) -> Bench:
    """Two healthy hosts in one cluster."""
    bench = make_bench(hosts=2, clusters=1)
    bench.start()
    bench.wait_until_active()
    return bench


def sleeps(host: Any) -> bool:
    return host.get("runtime.standbyMode") == "in"


def put_to_sleep(bench: Bench, host: Any) -> None:
    bench.vcenter.enter_standby(host)
    bench.wait_for(lambda: sleeps(host), f"{host.name} sleeps")
    bench.wait_for_state(host.name, "STANDBY")


def test_down_last_and_back_with_the_host(pair: Bench) -> None:
    """S13, rule kept: STANDBY from when it begins, then ACTIVE; the tenant has left before, and EAM's issue is left."""
    host, other = pair.vcenter.hosts()
    vm, tenant, watched = pair.vcenter.agent_vm(host), pair.vcenter.add_tenant(host), Watched(pair)
    put_to_sleep(pair, host)
    assert tenant.on
    assert tenant.host is other
    assert not vm.on
    pair.wait_for(
        lambda: [i.type for i in pair.unit.pipeline.fleet.status(host.moid).eam.issues] == ["HostInStandbyMode"],
        "EAM's issue is seen; its Resolve would wake the host",
    )
    gevent.sleep(0.5)  # past the grace time
    assert watched.heard(host.name) == ["STANDBY"]
    pair.vcenter.wake(host)
    pair.wait_until_active(host.name)
    assert watched.heard(host.name) in (["STANDBY", "STARTING", "ACTIVE"], ["STANDBY", "ACTIVE"])
    assert pair.vcenter.agent_vm(host) is vm
    watched.assert_kept(host.name)
    assert_can_be_followed(pair.messages)


def test_the_contrailvm_leaves_first(pair: Bench) -> None:
    """S13, rule broken: named while tenants still run there, and over once they have left."""
    pair.simulator.knobs.change({"dpm_agent_first": True})
    host = pair.vcenter.hosts()[0]
    pair.vcenter.add_tenant(host)
    watched = Watched(pair)
    pair.vcenter.enter_standby(host)
    assert "1 tenant VM" in wait_for_violation(pair, host.name, FIRST)
    pair.wait_for(lambda: sleeps(host), "the host sleeps")
    wait_until_kept(pair, host.name)
    assert watched.heard(host.name) == ["STANDBY"], "it is no other state"
    pair.vcenter.wake(host)
    pair.wait_until_active(host.name)
    assert watched.writes() == []
    watched.assert_no_alarm(host.name)


def test_a_tenant_that_cannot_leave_keeps_it_up(pair: Bench) -> None:
    """S13: a cluster without DRS. The host does not get to sleep, the ContrailVM serves, and after a cancel all is
    as it was."""
    host = pair.vcenter.hosts()[0]
    pair.vcenter.set_drs(host.compute_resource, False)
    tenant, vm, watched = pair.vcenter.add_tenant(host), pair.vcenter.agent_vm(host), Watched(pair)
    task = pair.vcenter.enter_standby(host, timeout=1)
    pair.wait_for_state(host.name, "STANDBY")
    pair.wait_for(lambda: has_ended(task), "it is given up")
    assert str(task.info.state) == "error"
    assert vm.on
    assert tenant.on
    pair.wait_until_active(host.name)
    watched.assert_kept(host.name)


def test_a_host_that_does_not_wake_stays_in_standby(pair: Bench) -> None:
    """S13: a dead management board. Nothing of ours is wrong, so nothing is alarmed or tried."""
    host = pair.vcenter.hosts()[0]
    watched = Watched(pair)
    put_to_sleep(pair, host)
    pair.vcenter.wake_fails(host)
    task = pair.vcenter.wake(host)
    pair.wait_for(lambda: has_ended(task), "the wake-up has failed")
    assert str(task.info.state) == "error"
    pair.wait_for_state(host.name, "STANDBY")
    gevent.sleep(0.5)  # past the grace time
    assert sleeps(host)
    assert set(watched.heard(host.name)) <= {"STANDBY", "STARTING"}
    pair.vcenter.wake_fails(host, False)
    pair.vcenter.wake(host)
    pair.wait_until_active(host.name)
    watched.assert_kept(host.name)


def test_asleep_before_it_was_deployed(make_bench: Callable[..., Bench]) -> None:
    """S13: DPM at work while EAM deploys. It sleeps undisturbed, and is served when it wakes."""
    bench = make_bench(hosts=2, clusters=1)
    bench.simulator.knobs.change({"deploy": 2.0})
    bench.start()
    host, other = bench.vcenter.hosts()
    bench.wait_for_state(host.name, "DEPLOYING")
    since = len(bench.messages)
    put_to_sleep(bench, host)
    bench.wait_until_active(other.name)
    gevent.sleep(0.5)  # past the grace time
    assert sleeps(host)
    assert bench.heard(host.name, since) == ["STANDBY"]
    bench.vcenter.wake(host)
    bench.wait_until_active()
    assert bench.writes("Resolve") == []
    assert bench.alarms() == {}


@pytest.mark.parametrize("woken", ["while it is down", "afterwards"])
def test_the_service_is_stopped_and_started_while_a_host_sleeps(pair: Bench, woken: str) -> None:
    """S13: asleep before and after is no message; woken meanwhile is one change."""
    host = pair.vcenter.hosts()[0]
    put_to_sleep(pair, host)
    pair.stop()
    watched = Watched(pair)
    if woken == "while it is down":
        pair.vcenter.wake(host)
        vm = pair.vcenter.agent_vm(host)
        pair.wait_for(lambda: vm.heartbeat, "the ContrailVM is back")
        pair.start()
        pair.wait_until_active(host.name)
        assert watched.heard(host.name)[-1] == "ACTIVE"
    else:
        pair.start()
        pair.wait_for(
            lambda: any(m["snapshot"] and not m["key"] for m in pair.messages[watched.since + 1 :]), "the snapshot"
        )
        gevent.sleep(0.5)  # past the grace time
        assert watched.heard(host.name) == []
        assert sleeps(host)
        pair.vcenter.wake(host)
        pair.wait_until_active(host.name)
    watched.assert_kept(host.name)
    assert_can_be_followed(pair.messages)


def test_put_to_sleep_in_the_middle_of_a_repair(pair: Bench) -> None:
    """S13, S08: what is being repaired is let go when the host goes; nobody wakes it for that."""
    pair.simulator.knobs.change({"power_on": 1.0})
    host = pair.vcenter.hosts()[0]
    pair.vcenter.power_off(pair.vcenter.agent_vm(host))
    pair.wait_for(lambda: pair.writes("Resolve"), "the repair has begun")
    watched = Watched(pair)
    put_to_sleep(pair, host)
    gevent.sleep(0.5)  # past the grace time
    assert sleeps(host)
    assert pair.state(host.name) == "STANDBY"
    pair.vcenter.wake(host)
    pair.wait_until_active(host.name)
    assert watched.writes() == []
    assert pair.alarms() == {}


def test_lost_on_its_way_to_sleep(pair: Bench) -> None:
    """S13: nobody knows whether it got there; it is UNREACHABLE, and back when it is back."""
    pair.simulator.knobs.change({"evacuate": 5.0})
    host = pair.vcenter.hosts()[0]
    watched = Watched(pair)
    pair.vcenter.enter_standby(host)
    pair.wait_for_state(host.name, "STANDBY")
    pair.vcenter.crash(host)
    pair.wait_for_state(host.name, "UNREACHABLE")
    pair.vcenter.recover(host)
    pair.wait_until_active(host.name)
    watched.assert_kept(host.name, besides=frozenset({"UNREACHABLE"}))
