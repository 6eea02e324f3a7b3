# SPDX-License-Identifier: Apache-2.0
"""S14: when a host restarts, its ContrailVM is started before the tenants that ran there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from pyVmomi import vim

from tests.support.bench import Bench
from tests.support.rules import Watched, has_ended, of_host, wait_for_violation, wait_until_kept
from tests.support.scenario import assert_can_be_followed
from vcenter_eam_plugin.simulator.knobs import Knobs

LOST = frozenset({"UNREACHABLE"})
NOT_FIRST = "agent_not_first_after_restart"
NEVER = 3600.0
"""Seconds until HA starts tenants elsewhere: the host is back before."""


@pytest.fixture
def pair(make_bench: Callable[..., Bench]) -> Bench:
    """Two healthy hosts in one cluster with HA, which is slow to start tenants elsewhere."""
    bench = make_bench(hosts=2, clusters=1, knobs=Knobs(ha_failover=NEVER))
    bench.vcenter.set_ha(bench.vcenter.clusters()[0])
    bench.start()
    bench.wait_until_active()
    return bench


def restart(bench: Bench, host: Any) -> None:
    bench.vcenter.crash(host)
    bench.wait_for_state(host.name, "UNREACHABLE")
    bench.vcenter.recover(host)


def started(bench: Bench, vms: list[Any]) -> list[str]:
    """Names of these VMs in the order of their last power-on, as vCenter's events have it."""
    names = [event.vm.name for event in bench.simulator.world.events if isinstance(event, vim.event.VmPoweredOnEvent)]
    latest = {vm.name: max(i for i, name in enumerate(names) if name == vm.name) for vm in vms if vm.name in names}
    return sorted(latest, key=lambda name: latest[name])


def test_first_itself_and_then_the_tenants(pair: Bench) -> None:
    """S14, rule kept: UNREACHABLE, then STARTING and ACTIVE; nobody repairs, and no rule was broken."""
    host = pair.vcenter.hosts()[0]
    vm, watched = pair.vcenter.agent_vm(host), Watched(pair)
    tenants = [pair.vcenter.add_tenant(host, f"tenant-{n}") for n in range(2)]
    restart(pair, host)
    pair.wait_until_active(host.name)
    pair.wait_for(lambda: all(tenant.on for tenant in tenants), "the tenants are back")
    assert started(pair, [*tenants, vm])[0] == vm.name
    assert pair.vcenter.agent_vm(host) is vm
    assert watched.heard(host.name) in (["UNREACHABLE", "STARTING", "ACTIVE"], ["UNREACHABLE", "ACTIVE"])
    lost = next(m for m in pair.messages[watched.since :] if m["state"] == "UNREACHABLE")
    assert lost["last_state"] == "ACTIVE"
    watched.assert_kept(host.name, besides=LOST)
    assert_can_be_followed(pair.messages)


def test_tenants_are_started_first(pair: Bench) -> None:
    """S14, rule broken: named while the ContrailVM is off, and over when it runs; not called S12's rule as well."""
    pair.simulator.knobs.change({"agent_not_first_after_restart": True})
    host, other = pair.vcenter.hosts()
    pair.vcenter.add_tenant(host)
    watched = Watched(pair)
    restart(pair, host)
    assert "1 tenant VM" in wait_for_violation(pair, host.name, NOT_FIRST)
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)
    assert watched.violations(host.name) == {NOT_FIRST, "tenants_on_unusable_host"}
    assert watched.violations(other.name) == set()
    assert watched.writes() == []
    watched.assert_no_alarm(host.name, besides=LOST)


def test_a_restart_in_maintenance(pair: Bench) -> None:
    """S14, S10: an ESXi update. It stays MAINTENANCE or lost until it leaves, and nothing is late or first."""
    host = pair.vcenter.hosts()[0]
    watched = Watched(pair)
    pair.vcenter.enter_maintenance(host)
    pair.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    restart(pair, host)
    pair.wait_for_state(host.name, "MAINTENANCE")
    gevent.sleep(0.5)  # past the grace time
    assert not pair.vcenter.agent_vm(host).on
    task = pair.vcenter.exit_maintenance(host)
    pair.wait_until_active(host.name)
    pair.wait_for(lambda: has_ended(task), "the host is back")
    watched.assert_kept(host.name, besides=LOST)


def test_two_restarts_in_a_row(pair: Bench) -> None:
    """S14: lost again before the ContrailVM was up; it ends ACTIVE, and nothing is repaired on the way."""
    pair.simulator.knobs.change({"power_on": 1.0})
    host = pair.vcenter.hosts()[0]
    pair.vcenter.add_tenant(host)
    watched = Watched(pair)
    restart(pair, host)
    pair.wait_for_state(host.name, "STARTING")
    restart(pair, host)
    pair.wait_until_active(host.name)
    assert watched.heard(host.name).count("UNREACHABLE") == 2
    watched.assert_kept(host.name, besides=LOST)


@pytest.mark.parametrize("missed", ["the whole restart", "the return"])
def test_the_service_was_down_meanwhile(pair: Bench, missed: str) -> None:
    """S14: what is as it was is no message; what came back meanwhile is."""
    host = pair.vcenter.hosts()[0]
    vm, watched = pair.vcenter.agent_vm(host), Watched(pair)
    if missed == "the return":
        pair.vcenter.crash(host)
        pair.wait_for_state(host.name, "UNREACHABLE")
        pair.stop()
        pair.vcenter.recover(host)
    else:
        pair.stop()
        pair.vcenter.reboot(host)
    pair.wait_for(lambda: host.boots == 2 and vm.heartbeat, "the ContrailVM is back")
    since = len(pair.messages)
    pair.start()
    pair.wait_for(lambda: any(m["snapshot"] and not m["key"] for m in pair.messages[since + 1 :]), "the snapshot")
    pair.wait_until_active(host.name)
    assert watched.heard(host.name) == (["UNREACHABLE", "ACTIVE"] if missed == "the return" else [])
    watched.assert_kept(host.name, besides=LOST)


def test_started_again_while_tenants_wait_for_it(pair: Bench) -> None:
    """S14: the rule is broken, and the service is restarted in the middle: the violation goes on, and ends once."""
    pair.simulator.knobs.change({"agent_not_first_after_restart": True, "broken_rule_delay": 4.0})
    host = pair.vcenter.hosts()[0]
    pair.vcenter.add_tenant(host)
    restart(pair, host)
    wait_for_violation(pair, host.name, NOT_FIRST)
    pair.stop()
    since = len(pair.messages)
    pair.start()
    pair.wait_for(lambda: any(m["snapshot"] and not m["key"] for m in pair.messages[since + 1 :]), "the snapshot")
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)
    over = next(m for m in of_host(pair, host.name, since) if NOT_FIRST not in str(m["violations"]))
    assert over["vm"]["power"] == "poweredOn", "it was over when the ContrailVM ran, and not before"


def test_without_ha_nobody_starts_tenants_and_the_contrailvm_comes_all_the_same(pair: Bench) -> None:
    """S14: HA is off. EAM starts the ContrailVM, whoever starts the others."""
    host = pair.vcenter.hosts()[0]
    pair.vcenter.set_ha(host.compute_resource, False)
    tenant, watched = pair.vcenter.add_tenant(host), Watched(pair)
    restart(pair, host)
    pair.wait_until_active(host.name)
    assert not tenant.on
    watched.assert_kept(host.name, besides=LOST)


def test_eam_is_down_when_the_host_comes_back(pair: Bench) -> None:
    """S14: the ContrailVM waits for EAM; tenants that somebody starts meanwhile are said to be without network."""
    host = pair.vcenter.hosts()[0]
    tenant, watched = pair.vcenter.add_tenant(host), Watched(pair)
    pair.vcenter.freeze_eam()
    pair.simulator.knobs.change({"drs_ignores_agents": True})
    restart(pair, host)
    pair.wait_for(lambda: host.connected, "it is back")
    pair.vcenter.power_on(tenant)
    wait_for_violation(pair, host.name, NOT_FIRST)
    pair.vcenter.thaw_eam()
    pair.wait_until_active(host.name)
    wait_until_kept(pair, host.name)
    assert watched.writes() == []
