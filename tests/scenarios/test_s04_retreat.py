# SPDX-License-Identifier: Apache-2.0
"""S04: a cluster is drained of its ContrailVMs by a switch and gets them back; what a path was outlives the path."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from tests.support.bench import Bench
from tests.support.scenario import assert_can_be_followed


def scope(bench: Bench) -> set[str]:
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    return {cluster.name for cluster in agency.scope()}


def hosts_of(cluster: Any) -> list[str]:
    return [host.name for host in cluster.hosts.values()]


def restart(bench: Bench) -> None:
    if bench.service is not None:
        bench.stop()
    bench.start(clusters=("/DC0/host/ClusterA", "/DC0/host/ClusterB"))
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches")


@pytest.fixture
def served(bench: Bench) -> Bench:
    restart(bench)
    bench.wait_until_active()
    return bench


def drain(bench: Bench, cluster: Any) -> None:
    bench.unit.pipeline.retreat(cluster.moid, True)
    bench.wait_for(lambda: all(bench.vcenter.agent_vm(name) is None for name in hosts_of(cluster)), "EAM drains it")
    bench.wait_for(lambda: all(bench.state(name) is None for name in hosts_of(cluster)), "the bus says so")


def test_a_cluster_is_drained_and_served_again(served: Bench) -> None:
    """S04: REMOVING, REMOVED, and back; the other cluster is not touched, and nothing is repaired meanwhile."""
    bench = served
    kept, drained = bench.vcenter.clusters()
    vms, since = [bench.vcenter.agent_vm(name) for name in hosts_of(kept)], len(bench.messages)
    drain(bench, drained)
    assert scope(bench) == {kept.name}
    for name in hosts_of(drained):
        assert bench.heard(name, since)[-1] == "REMOVED"
        assert not {"MISSING", "FAULTY", "BLOCKED"} & set(bench.heard(name, since))
    gevent.sleep(0.5)
    assert bench.writes("Resolve") == []
    assert bench.alarms() == {}
    bench.unit.pipeline.retreat(drained.moid, False)
    bench.wait_until_active(*hosts_of(drained))
    assert scope(bench) == {kept.name, drained.name}
    assert [bench.vcenter.agent_vm(name) for name in hosts_of(kept)] == vms
    assert all(bench.heard(name, since) == [] for name in hosts_of(kept))
    assert_can_be_followed(bench.messages)


def test_retreat_is_remembered_over_a_restart(served: Bench) -> None:
    """S04: the configuration still names the cluster; the switch counts."""
    bench = served
    _, drained = bench.vcenter.clusters()
    drain(bench, drained)
    writes = len(bench.writes())
    restart(bench)
    gevent.sleep(0.5)
    assert len(bench.writes()) == writes
    assert all(bench.vcenter.agent_vm(name) is None for name in hosts_of(drained))
    bench.unit.pipeline.retreat(drained.moid, False)
    bench.wait_until_active()


def test_a_host_added_to_a_drained_cluster_waits(served: Bench) -> None:
    """S04, S09: neither settings nor a ContrailVM, until the cluster is served again."""
    bench = served
    _, drained = bench.vcenter.clusters()
    drain(bench, drained)
    host = bench.vcenter.add_host(drained)
    gevent.sleep(0.7)
    assert bench.vcenter.agent_vm(host) is None
    assert bench.state(host.name) is None
    bench.unit.pipeline.retreat(drained.moid, False)
    bench.wait_until_active(*hosts_of(drained))


def test_retreat_asked_for_while_vcenter_is_out_of_reach_is_done_afterwards(served: Bench) -> None:
    """S04: the switch is a wish that is remembered, not one write."""
    bench = served
    _, drained = bench.vcenter.clusters()
    bench.simulator.faults.inject("http_503")
    bench.unit.pipeline.retreat(drained.moid, True)
    bench.wait_for(lambda: bench.unit.pipeline.inventory.last_error is not None, "the trouble is noticed")
    bench.simulator.faults.clear()
    bench.wait_for(lambda: all(bench.vcenter.agent_vm(name) is None for name in hosts_of(drained)), "EAM drains it")


def test_when_paused_a_retreat_waits(served: Bench) -> None:
    """S04: the gate is asked before the write."""
    bench = served
    kept, drained = bench.vcenter.clusters()
    bench.unit.gate.pause()
    bench.unit.pipeline.retreat(drained.moid, True)
    gevent.sleep(0.5)
    assert scope(bench) == {kept.name, drained.name}
    bench.unit.activate()
    bench.wait_for(lambda: scope(bench) == {kept.name}, "it is drained")


def test_the_last_cluster_is_not_drained(served: Bench) -> None:
    """S04: an agency without a scope is uninstalled, not emptied; that is another command."""
    bench = served
    first, last = bench.vcenter.clusters()
    drain(bench, first)
    writes = len(bench.writes("Update"))
    bench.unit.pipeline.retreat(last.moid, True)
    gevent.sleep(0.5)
    assert scope(bench) == {last.name}
    assert len(bench.writes("Update")) == writes


# --- a path that no longer resolves ------------------------------------------------------------------------


def test_a_cluster_deleted_before_a_restart_keeps_its_moref_and_the_others_go_on(served: Bench) -> None:
    """S04: an alarm that names the path and what it was; no connect error, no guess."""
    bench = served
    left, gone = bench.vcenter.clusters()
    bench.stop()
    bench.vcenter.remove_cluster(gone)
    since = len(bench.messages)
    restart(bench)
    alarm = bench.alarms()["scope"]
    assert "/DC0/host/ClusterB" in alarm
    assert f"It keeps {gone.moid}" in alarm
    assert "connect" not in bench.alarms()
    name = hosts_of(left)[0]
    bench.vcenter.power_off(bench.vcenter.agent_vm(name))
    bench.wait_for(lambda: "POWERED_OFF" in bench.heard(name, since), "the others are watched")
    bench.wait_until_active(name)
    host = bench.vcenter.add_host(left)
    bench.wait_until_active(host.name)
    assert_can_be_followed(bench.messages)


def test_a_cluster_renamed_before_a_restart_is_still_ours(served: Bench) -> None:
    """S04: its ContrailVMs are neither removed nor forgotten; naming it anew in the configuration ends the alarm."""
    bench = served
    first, renamed = bench.vcenter.clusters()
    vms = [bench.vcenter.agent_vm(name) for name in hosts_of(renamed)]
    bench.stop()
    bench.vcenter.rename(renamed, "Renamed")
    since, writes = len(bench.messages), len(bench.writes("Update"))
    restart(bench)
    assert f"It keeps {renamed.moid}" in bench.alarms()["scope"]
    name = hosts_of(renamed)[0]
    bench.vcenter.power_off(bench.vcenter.agent_vm(name))
    bench.wait_for(lambda: "POWERED_OFF" in bench.heard(name, since), "it is watched")
    bench.wait_until_active(name)
    bench.stop()
    bench.start(clusters=(f"/DC0/host/{first.name}", "/DC0/host/Renamed"))
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches")
    assert bench.alarms() == {}
    assert [bench.vcenter.agent_vm(name) for name in hosts_of(renamed)] == vms
    assert len(bench.writes("Update")) == writes


def test_without_what_was_remembered_a_path_that_is_gone_is_an_error(served: Bench, quick_retries: None) -> None:
    """S04: on a new machine nobody knows what it was; nothing is done on a guess."""
    bench = served
    bench.stop()
    bench.vcenter.rename(bench.vcenter.clusters()[1], "Renamed")
    writes = len(bench.writes())
    bench.start(
        clusters=("/DC0/host/ClusterA", "/DC0/host/ClusterB"),
        defaults={"state_directory": bench.directory / "another"},
    )
    bench.wait_for(lambda: "connect" in bench.alarms(), "the alarm")
    assert "/DC0/host/Renamed" in bench.alarms()["connect"], "what there is is listed"
    assert len(bench.writes()) == writes
