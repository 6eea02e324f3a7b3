# SPDX-License-Identifier: Apache-2.0
"""S04: the scope follows the configuration by inventory path, only ever grows by itself, and hosts may move in it."""

from collections.abc import Callable

import pytest
from pyVmomi import eam, vim

from tests.support.bench import Bench
from tests.support.scenario import assert_can_be_followed
from tests.support.simulator import connected, eam_manager


def scope(bench: Bench) -> set[str]:
    """Paths that the agency covers, as vCenter has them."""
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    return {f"/{c.datacenter.name}/host/{c.name}" for c in agency.scope()}


@pytest.fixture
def twins(make_bench: Callable[..., Bench]) -> Bench:
    """Two datacenters, each with a ClusterA of one host."""
    return make_bench(hosts=2, clusters=2, datacenters=2)


def test_a_cluster_is_found_by_its_path_among_others_of_the_same_name(twins: Bench) -> None:
    """S04: DC1's ClusterA is in scope, DC0's is left alone."""
    twins.start(clusters=("/DC1/host/ClusterA",))
    (inside,) = twins.vcenter.clusters()[1].hosts.values()
    twins.wait_until_active(inside.name)
    assert scope(twins) == {"/DC1/host/ClusterA"}
    message = twins.listener.view.states[f"{inside.moid}.{message_uuid(twins)}"]
    assert message["fq_name"][1:] == ["DC1", "ClusterA", inside.name]
    assert len(twins.listener.view.states) == 1


def message_uuid(bench: Bench) -> str:
    return str(bench.unit.session.instance_uuid)


@pytest.mark.parametrize(
    ("name", "word"), [("ClusterA", "ambiguous"), ("ClusterX", "no cluster or standalone host is called")]
)
def test_an_ambiguous_or_unknown_name_is_an_error_that_lists_the_candidates(
    twins: Bench, quick_retries: None, name: str, word: str
) -> None:
    """S04: nothing is deployed on a guess; once the name means one cluster, it goes on."""
    twins.start(clusters=(name,))
    twins.wait_for(lambda: "connect" in twins.alarms(), "the alarm")
    text = twins.alarms()["connect"]
    assert word in text
    assert "/DC0/host/ClusterA" in text
    assert "/DC1/host/ClusterA" in text
    assert twins.unit.first_error.exit_code == 6
    assert twins.writes() == []
    if name == "ClusterA":
        twins.vcenter.rename(twins.vcenter.clusters()[0], "Old")
    else:
        twins.vcenter.rename(twins.vcenter.clusters()[1], "ClusterX")
    twins.wait_until_active(*[host.name for host in twins.vcenter.clusters()[1].hosts.values()])
    assert twins.alarms() == {}


def test_a_cluster_added_to_the_configuration_extends_the_scope(bench: Bench) -> None:
    """S04: one Update, and the ContrailVMs that stand are not touched."""
    first, _ = bench.vcenter.clusters()
    bench.start(clusters=("/DC0/host/ClusterA",))
    inside = [host.name for host in first.hosts.values()]
    bench.wait_until_active(*inside)
    vms = [bench.vcenter.agent_vm(name).moid for name in inside]
    bench.stop()
    since = len(bench.messages)
    bench.start(clusters=("/DC0/host/ClusterA", "/DC0/host/ClusterB"))
    bench.wait_until_active()
    assert scope(bench) == {"/DC0/host/ClusterA", "/DC0/host/ClusterB"}
    assert len(bench.writes("Update")) == 1
    assert [bench.vcenter.agent_vm(name).moid for name in inside] == vms
    assert all(bench.heard(name, since) == [] for name in inside)


def test_a_cluster_taken_out_of_the_configuration_keeps_its_contrailvms_and_they_are_watched(bench: Bench) -> None:
    """S04: removing takes a command of its own; a line lost from a file must not delete VMs, nor blind us."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    since, writes = len(bench.messages), len(bench.writes())
    bench.start(clusters=("/DC0/host/ClusterA",))
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches again")
    bench.wait_for(lambda: bench.messages[-1]["snapshot"] and bench.messages[-1]["key"] is None, "the snapshot")
    assert len(bench.writes()) == writes
    assert [(m["esxi"]["name"], m["state"]) for m in bench.messages[since:] if m["event"] == "state"] == []
    left_out = next(iter(bench.vcenter.clusters()[1].hosts.values()))
    bench.vcenter.power_off(bench.vcenter.agent_vm(left_out))
    bench.wait_for(lambda: "POWERED_OFF" in bench.heard(left_out.name, since), "it is watched")
    bench.wait_until_active(left_out.name)
    assert_can_be_followed(bench.messages)


def test_a_host_moved_between_clusters_in_scope_keeps_its_contrailvm_and_its_key(bench: Bench) -> None:
    """S04: the message names the new cluster; nothing is removed or deployed."""
    bench.start()
    bench.wait_until_active()
    first, second = bench.vcenter.clusters()
    host = next(iter(first.hosts.values()))
    vm, since = bench.vcenter.agent_vm(host).moid, len(bench.messages)
    bench.vcenter.move_host(host, second)
    bench.wait_for(
        lambda: any(m["esxi"]["cluster"] == second.name for m in bench.messages[since:] if m["key"]), "the new cluster"
    )
    bench.wait_for_state(host.name, "ACTIVE")
    assert bench.vcenter.agent_vm(host).moid == vm
    assert {m["oper"] for m in bench.messages[since:]} == {"UPDATE"}
    assert_can_be_followed(bench.messages)


def test_a_host_that_moves_out_of_the_scope_and_back(bench: Bench) -> None:
    """S04: EAM removes its ContrailVM, the bus says REMOVED, and both come back with the host."""
    first, second = bench.vcenter.clusters()
    bench.start(clusters=(f"/DC0/host/{first.name}",))
    inside = [host.name for host in first.hosts.values()]
    bench.wait_until_active(*inside)
    host = next(iter(first.hosts.values()))
    bench.vcenter.move_host(host, second)
    bench.wait_for(lambda: bench.state(host.name) is None, "it is removed")
    assert bench.heard(host.name)[-1] == "REMOVED"
    bench.wait_for(lambda: bench.vcenter.agent_vm(host) is None, "EAM has deleted the VM")
    bench.vcenter.move_host(host, first)
    bench.wait_until_active(host.name)
    created = [m for m in bench.messages if m["key"] and m["esxi"]["name"] == host.name and m["oper"] == "CREATE"]
    assert len(created) == 2
    assert len({m["key"] for m in created}) == 1
    assert_can_be_followed(bench.messages)


def test_a_cluster_that_disappears_is_reported_and_the_rest_goes_on(bench: Bench) -> None:
    """S04: somebody deletes a cluster in scope while the service runs."""
    bench.start()
    bench.wait_until_active()
    first, second = bench.vcenter.clusters()
    gone, left = [h.name for h in second.hosts.values()], [h.name for h in first.hosts.values()]
    bench.vcenter.remove_cluster(second)
    bench.wait_for(lambda: all(bench.state(name) is None for name in gone), "they are removed")
    assert all(bench.heard(name)[-1] == "REMOVED" for name in gone)
    bench.vcenter.enter_maintenance(left[0])
    bench.wait_for_state(left[0], "MAINTENANCE")


def test_a_deleted_cluster_in_the_scope_does_not_stop_the_listing_after_a_gap(bench: Bench) -> None:
    """S04: it stays in the configuration and in the agency; what is left must still be watched after a new login."""
    bench.start()
    bench.wait_until_active()
    first, second = bench.vcenter.clusters()
    left, gone = next(iter(first.hosts.values())), next(iter(second.hosts.values())).name
    bench.vcenter.remove_cluster(second)
    bench.simulator.faults.inject("session_kill")
    bench.wait_for(lambda: bench.state(gone) is None, "the bus says that its host is gone")
    bench.vcenter.enter_maintenance(left)
    bench.wait_for_state(left.name, "MAINTENANCE")


def test_an_agency_that_somebody_extended_is_watched_there_too(bench: Bench) -> None:
    """S04: whatever our agency covers has our ContrailVMs, whoever added it."""
    first, second = bench.vcenter.clusters()
    bench.start(clusters=(f"/DC0/host/{first.name}",))
    bench.wait_until_active(*[host.name for host in first.hosts.values()])
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    with connected(bench.simulator) as instance:
        stub = eam_manager(bench.simulator, instance)._stub
        ours = eam.Agency(agency.moid, stub)
        config = ours.QueryConfig()
        config.scope.computeResource.append(vim.ClusterComputeResource(second.moid))
        ours.Update(config)
    bench.wait_until_active(*[host.name for host in second.hosts.values()])
    added = next(iter(second.hosts.values())).name
    assert not {"REMOVING", "REMOVED"} & set(bench.heard(added))
    assert_can_be_followed(bench.messages)
