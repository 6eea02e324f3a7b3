# SPDX-License-Identifier: Apache-2.0
"""S16: HA's admission control does not count ContrailVMs in its slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyVmomi import vim

from tests.support.bench import Bench
from tests.support.rules import Watched, of_host, violations_now, wait_for_violation, wait_until_kept
from tests.support.scenario import Wire

COUNTED = "slots_count_agents"
ASKED = "RetrieveDasAdvancedRuntimeInfo"

pytestmark = pytest.mark.usefixtures("quick_looks")


@pytest.fixture
def make_pair(make_bench: Callable[..., Bench]) -> Callable[[], Bench]:
    """Two healthy hosts in a cluster whose HA reserves one host in slots, looked at several times a second."""

    def make(hosts: int = 2, clusters: int = 1) -> Bench:
        bench = make_bench(hosts=hosts, clusters=clusters)
        for cluster in bench.vcenter.clusters():
            bench.vcenter.set_ha(cluster)
            bench.vcenter.set_admission(cluster, 1)
        bench.start(slots_seconds=0.2)
        bench.wait_until_active()
        return bench

    return make


@pytest.fixture
def pair(make_pair: Callable[[], Bench]) -> Bench:
    return make_pair()


def wait_for_looks(bench: Bench, wire: Wire, looks: int = 2) -> None:
    """Until HA was asked so often from now on, by one who has a single cluster."""
    until = wire.count(ASKED) + looks
    bench.wait_for(lambda: wire.count(ASKED) >= until, f"{looks} looks at HA")


def test_tenants_alone_are_counted(pair: Bench) -> None:
    """S16, rule kept: with tenants on and off, moved and started, there is nothing to say."""
    wire, watched = Wire(pair.simulator), Watched(pair)
    host, other = pair.vcenter.hosts()
    tenant = pair.vcenter.add_tenant(host)
    pair.vcenter.add_tenant(other, on=False)
    wait_for_looks(pair, wire)
    pair.vcenter.migrate(tenant, other)
    pair.vcenter.add_tenant(host)
    wait_for_looks(pair, wire)
    watched.assert_kept()


def test_contrailvms_are_counted(make_pair: Callable[..., Bench]) -> None:
    """S16, rule broken: named on each host of that cluster, and over when it is kept again; no state changes."""
    pair = make_pair()
    pair.simulator.knobs.change({"slots_count_agents": True})
    watched = Watched(pair)
    for name in pair.names():
        wait_for_violation(pair, name, COUNTED)
        assert {m["event"] for m in of_host(pair, name, watched.since)} == {"detail"}
    pair.simulator.knobs.change({"slots_count_agents": False})
    for name in pair.names():
        wait_until_kept(pair, name)
    assert watched.writes() == []
    watched.assert_no_alarm()


def test_a_host_is_lost_while_they_are_counted(pair: Bench) -> None:
    """S16: a cluster that is not at rest cannot be judged; what was seen of it stands until it can."""
    pair.simulator.knobs.change({"slots_count_agents": True})
    host, other = pair.vcenter.hosts()
    wait_for_violation(pair, other.name, COUNTED)
    wire, since = Wire(pair.simulator), len(pair.messages)
    pair.vcenter.crash(host)
    pair.wait_for_state(host.name, "UNREACHABLE")
    wait_for_looks(pair, wire)
    assert COUNTED in violations_now(pair, other.name)
    assert [m for m in of_host(pair, other.name, since) if not m["violations"]] == []
    pair.vcenter.recover(host)
    pair.wait_until_active(host.name)
    pair.simulator.knobs.change({"slots_count_agents": False})
    wait_until_kept(pair, other.name)
    wait_until_kept(pair, host.name)


def test_maintenance_is_no_reason_to_suspect_ha(pair: Bench) -> None:
    """S16, S10: numbers that were read one after the other differ while VMs come and go."""
    host = pair.vcenter.hosts()[0]
    wire, watched = Wire(pair.simulator), Watched(pair)
    pair.vcenter.add_tenant(host)
    pair.vcenter.enter_maintenance(host)
    pair.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    wait_for_looks(pair, wire)
    pair.vcenter.exit_maintenance(host)
    pair.wait_until_active(host.name)
    wait_for_looks(pair, wire)
    watched.assert_kept(host.name)


def test_ha_is_switched_off_and_on(pair: Bench) -> None:
    """S16: without HA there are no slots, and what was said of them is over."""
    pair.simulator.knobs.change({"slots_count_agents": True})
    host = pair.vcenter.hosts()[0]
    wait_for_violation(pair, host.name, COUNTED)
    pair.vcenter.set_ha(host.compute_resource, False)
    wait_until_kept(pair, host.name)
    pair.vcenter.set_ha(host.compute_resource)
    wait_for_violation(pair, host.name, COUNTED)
    assert pair.alarms() == {}


def percentage(bench: Bench, cluster: Any) -> None:
    policy = vim.cluster.FailoverResourcesAdmissionControlPolicy(
        cpuFailoverResourcesPercent=25, memoryFailoverResourcesPercent=25
    )
    config = vim.cluster.DasConfigInfo(admissionControlPolicy=policy)
    cluster.reconfigure(vim.cluster.ConfigSpecEx(dasConfig=config), True, "operator")


def test_another_policy_has_no_slots(pair: Bench) -> None:
    """S16: percentages are reserved; there is nothing to look at, and nothing to say."""
    pair.simulator.knobs.change({"slots_count_agents": True})
    (cluster,) = pair.vcenter.clusters()
    percentage(pair, cluster)
    for name in pair.names():
        wait_until_kept(pair, name)
    wire, watched = Wire(pair.simulator), Watched(pair)
    wait_for_looks(pair, wire)
    watched.assert_kept()


def test_one_cluster_of_two(make_pair: Callable[..., Bench]) -> None:
    """S16: the one where it is kept is not blamed for the other."""
    bench = make_pair(hosts=2, clusters=2)
    one, other = bench.vcenter.clusters()
    bench.vcenter.set_ha(one, False)
    bench.simulator.knobs.change({"slots_count_agents": True})
    first, second = (next(iter(cluster.hosts.values())) for cluster in (one, other))
    watched = Watched(bench)
    wait_for_violation(bench, second.name, COUNTED)
    assert watched.violations(first.name) == set()


def test_the_service_is_restarted_while_they_are_counted(pair: Bench) -> None:
    """S16: it was seen twice before it was said; a restart neither ends it nor asks for that again."""
    pair.simulator.knobs.change({"slots_count_agents": True})
    host = pair.vcenter.hosts()[0]
    wait_for_violation(pair, host.name, COUNTED)
    pair.stop()
    since = len(pair.messages)
    wire = Wire(pair.simulator)
    pair.start(slots_seconds=0.2)
    wait_for_looks(pair, wire, looks=3)
    assert [m for m in of_host(pair, host.name, since) if not m["violations"]] == []
    pair.simulator.knobs.change({"slots_count_agents": False})
    wait_until_kept(pair, host.name)
