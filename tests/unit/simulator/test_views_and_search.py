# SPDX-License-Identifier: Apache-2.0
"""Views and the search index of the simulator: what a client finds, and when it stops finding it."""

from __future__ import annotations

import pytest
from pyVmomi import vim, vmodl

from tests.support.simulator_calls import Bench


def names(refs: object) -> list[str]:
    return sorted(ref.name for ref in refs)  # type: ignore[attr-defined]


def test_container_views_are_recursive_or_not_and_by_type(bench: Bench) -> None:
    manager, root = bench.content.viewManager, bench.content.rootFolder
    assert names(manager.CreateContainerView(root, [], False).view) == ["DC0"]
    assert names(manager.CreateContainerView(root, [vim.ClusterComputeResource], True).view) == ["ClusterA", "ClusterB"]
    everything = {type(ref) for ref in manager.CreateContainerView(root, [], True).view}
    assert {vim.Datacenter, vim.Folder, vim.HostSystem, vim.Datastore, vim.ResourcePool} <= everything
    assert len(manager.viewList) == 3


def test_container_views_change_with_the_inventory(bench: Bench) -> None:
    view = bench.content.viewManager.CreateContainerView(bench.content.rootFolder, [vim.HostSystem], True)
    assert len(view.view) == 3
    bench.simulator.vcenter.stimuli.add_host("ClusterA", "esx-99.example")
    bench.clock.advance(1)
    assert "esx-99.example" in names(view.view)
    bench.simulator.vcenter.stimuli.remove_host("esx-99.example")
    bench.clock.advance(1)
    assert len(view.view) == 3
    view.DestroyView()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        _ = view.view


def test_a_view_of_no_container_is_refused(bench: Bench) -> None:
    with pytest.raises(vmodl.fault.InvalidArgument):
        bench.content.viewManager.CreateContainerView(bench.remote(bench.hosts[0]).datastore[0], [], True)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        bench.content.viewManager.CreateContainerView(vim.Folder("group-d4711", bench.stub), [], True)


def test_list_views_are_edited_and_lose_what_leaves_the_inventory(bench: Bench) -> None:
    first, second, third = (bench.remote(host) for host in bench.hosts)
    view = bench.content.viewManager.CreateListView([first])
    unknown = vim.HostSystem("host-4711")
    assert [ref._moId for ref in view.ModifyListView([second, unknown], [])] == ["host-4711"]
    assert [ref._moId for ref in view.view] == [first._moId, second._moId]
    assert list(view.ResetListView([second, third])) == []
    bench.simulator.vcenter.stimuli.remove_host(bench.hosts[2])
    bench.clock.advance(1)
    assert [ref._moId for ref in view.view] == [second._moId]
    copy = bench.content.viewManager.CreateListViewFromView(view)
    assert [ref._moId for ref in copy.view] == [second._moId]


def test_search_by_path_name_and_uuid(bench: Bench) -> None:
    index, host = bench.content.searchIndex, bench.remote(bench.hosts[0])
    cluster = index.FindByInventoryPath("DC0/host/ClusterA")
    assert cluster.name == "ClusterA"
    assert index.FindByInventoryPath(f"/DC0/host/ClusterA/{host.name}") == host
    assert index.FindByInventoryPath("/DC0/host/Nothing") is None
    assert index.FindByInventoryPath("/DC0/Nothing/Nothing") is None
    assert index.FindChild(cluster.parent, "ClusterB").name == "ClusterB"
    assert index.FindChild(cluster.parent, "Nothing") is None
    assert index.FindByDnsName(None, host.name, False) == host
    uuid = host.summary.hardware.uuid
    assert index.FindByUuid(None, uuid.upper(), False) == host
    assert list(index.FindAllByUuid(None, uuid, False)) == [host]
    datacenter = index.FindByInventoryPath("DC0")
    assert index.FindByUuid(datacenter, uuid, False) == host
    assert index.FindByUuid(None, "none", True) is None
    assert index.FindByIp(None, "192.0.2.1", True) is None
