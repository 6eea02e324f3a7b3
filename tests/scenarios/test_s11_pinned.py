# SPDX-License-Identifier: Apache-2.0
"""S11: DRS leaves each ContrailVM on its host. One that is elsewhere all the same is said, and left to a person."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.bench import Bench
from tests.support.rules import Watched, wait_for_violation, wait_until_kept
from tests.support.scenario import assert_can_be_followed

MOVED = "agent_vm_on_other_host"


@pytest.fixture
def pair(make_bench: Callable[..., Bench]) -> Bench:
    """Two healthy hosts in one cluster."""
    bench = make_bench(hosts=2, clusters=1)
    bench.start()
    bench.wait_until_active()
    return bench


def test_drs_balances_tenants_around_it(pair: Bench) -> None:
    """S11, rule kept: tenant VMs move, the ContrailVM does not, and nobody hears of anything."""
    full, empty = pair.vcenter.hosts()
    vm, watched = pair.vcenter.agent_vm(full), Watched(pair)
    tenants = [pair.vcenter.add_tenant(full, f"tenant-{n}") for n in range(4)]
    while pair.vcenter.balance(full.compute_resource) is not None:
        pass
    assert {tenant.host for tenant in tenants} == {full, empty}, "DRS was at work"
    assert vm.host is full
    pair.vcenter.disconnect(empty)
    pair.wait_for_state(empty.name, "UNREACHABLE")  # what came before it has been seen
    watched.assert_kept(empty.name, besides=frozenset({"UNREACHABLE"}))


def test_drs_that_treats_it_as_any_other_vm(pair: Bench) -> None:
    """S11, rule broken: the violation names where it is; nothing is repaired, and back home it is over."""
    pair.simulator.knobs.change({"drs_ignores_agents": True})
    host, other = pair.vcenter.hosts()
    vm, watched = pair.vcenter.agent_vm(host), Watched(pair)
    for _ in range(2):
        pair.vcenter.add_tenant(host)
    assert pair.vcenter.balance(host.compute_resource) is vm, "the ContrailVM was moved"
    assert other.name in wait_for_violation(pair, host.name, MOVED)
    pair.wait_for_state(host.name, "FAULTY")
    pair.vcenter.migrate(vm, host)
    wait_until_kept(pair, host.name)
    pair.wait_until_active(host.name)
    assert watched.violations(other.name) == set()
    assert watched.writes() == []
    watched.assert_no_alarm(host.name, besides=frozenset({"FAULTY"}))
    assert_can_be_followed(pair.messages)


def test_moved_away_when_its_host_enters_maintenance(pair: Bench) -> None:
    """S11, S10: evacuated like a tenant. It stays MAINTENANCE, and is said before and after the host is back."""
    pair.simulator.knobs.change({"drs_ignores_agents": True})
    host, other = pair.vcenter.hosts()
    vm, watched = pair.vcenter.agent_vm(host), Watched(pair)
    pair.vcenter.enter_maintenance(host)
    wait_for_violation(pair, host.name, MOVED)
    pair.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    assert watched.heard(host.name) == ["MAINTENANCE"]
    pair.vcenter.exit_maintenance(host)
    pair.wait_for_state(host.name, "FAULTY")
    wait_for_violation(pair, host.name, MOVED)
    pair.vcenter.migrate(vm, host)
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)
    assert watched.violations(host.name) == {MOVED}
    assert watched.heard(other.name) == []
    assert watched.writes() == []


def test_moved_while_nobody_looked(pair: Bench) -> None:
    """S11: the service was stopped meanwhile; it says so from its first look on."""
    host, other = pair.vcenter.hosts()
    vm = pair.vcenter.agent_vm(host)
    pair.stop()
    task = pair.vcenter.migrate(vm, other)
    pair.wait_for(lambda: vm.host is other, f"it is elsewhere: {task.info}")
    watched = Watched(pair)
    pair.start()
    assert other.name in wait_for_violation(pair, host.name, MOVED)
    pair.stop()
    pair.start()
    pair.vcenter.migrate(vm, host)
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)
    assert watched.heard(other.name) == []
    assert watched.writes() == []


def test_its_host_is_lost_while_it_is_elsewhere(pair: Bench) -> None:
    """S11, S15: what was a move by hand looks like HA's doing then; the old name is over, and both in the end."""
    host, other = pair.vcenter.hosts()
    vm = pair.vcenter.agent_vm(host)
    pair.vcenter.migrate(vm, other)
    wait_for_violation(pair, host.name, MOVED)
    pair.vcenter.crash(host)
    pair.wait_for_state(host.name, "UNREACHABLE")
    wait_for_violation(pair, host.name, "ha_restarted_elsewhere")
    pair.vcenter.recover(host)
    wait_for_violation(pair, host.name, MOVED)
    pair.vcenter.migrate(vm, host)
    pair.wait_until_active()
    wait_until_kept(pair, host.name)


def test_a_cluster_without_drs(pair: Bench) -> None:
    """S11: there is nobody to move anything, and nothing to say; a person who moves it is noticed as well."""
    host, other = pair.vcenter.hosts()
    vm, watched = pair.vcenter.agent_vm(host), Watched(pair)
    pair.vcenter.set_drs(host.compute_resource, False)
    pair.vcenter.add_tenant(host)
    assert pair.vcenter.balance(host.compute_resource) is None
    watched.assert_kept()
    pair.vcenter.migrate(vm, other)
    wait_for_violation(pair, host.name, MOVED)
    pair.vcenter.migrate(vm, host)
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)
