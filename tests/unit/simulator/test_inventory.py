# SPDX-License-Identifier: Apache-2.0
"""The simulated inventory: how it is built, and how clients and people change it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pyVmomi import eam, vim, vmodl

from tests.unit.simulator.lab import Lab
from vcenter_eam_plugin.simulator.compute_resource import ComputeResource
from vcenter_eam_plugin.simulator.folder import Folder
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.inventory import build, cluster_names
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.tenants import new_tenant
from vcenter_eam_plugin.simulator.world import ManualClock, World


def outcome(lab: Lab, task: Task) -> Any:
    """The task's result, or its fault."""
    lab.until(lambda: task.ended)
    return task.info.error or task.info.result


def spec(name: str) -> Any:
    return vim.host.ConnectSpec(hostName=name, userName="root", password="x", force=False)


def test_build_deals_hosts_and_clusters_out() -> None:
    """S04: two datacenters have clusters of the same name; hosts are named after their datacenter."""
    lab = Lab(hosts=5, clusters=4, datacenters=2)
    names = [(c.datacenter.name if c.datacenter else "", c.name, len(c.hosts)) for c in lab.vcenter.clusters()]
    assert names == [("DC0", "ClusterA", 2), ("DC1", "ClusterA", 1), ("DC0", "ClusterB", 1), ("DC1", "ClusterB", 1)]
    assert [host.name for host in lab.vcenter.hosts()] == [
        "esx-01.dc0.example",
        "esx-01.dc1.example",
        "esx-02.dc0.example",
        "esx-02.dc1.example",
        "esx-03.dc0.example",
    ]


def test_every_host_has_shared_and_local_storage_and_networks() -> None:
    """A local datastore is one host's own; shared storage and networks are everybody's, a distributed one too."""
    lab = Lab(hosts=2)
    first, second = lab.vcenter.hosts()
    shared = set(first.datastores) & set(second.datastores)
    assert [lab.world.objects[moid].get("name") for moid in shared] == ["shared-dc0"]
    assert len(first.datastores) == 2
    assert {network.name for network in first.networks.values()} == {"VM Network", "fab-pg", "dvpg-dc0"}
    datastore = lab.vcenter.datacenters()[0].shared_datastores[0]
    assert [mount.key for mount in datastore.get("host")] == [first.ref, second.ref]
    assert datastore.get("summary.multipleHostAccess") is True


def test_a_datastore_is_unmounted_on_one_host_and_still_listed_there() -> None:
    """As vSphere does it: the mount says so, and a host with VMs there keeps it."""
    lab = Lab(hosts=2)
    first, second = lab.vcenter.hosts()
    shared = lab.vcenter.datacenters()[0].shared_datastores[0]
    lab.do.unmount_datastore(first, "shared-dc0")
    state = {each.key: (each.mountInfo.mounted, each.mountInfo.accessible) for each in shared.get("host")}
    assert state == {first.ref: (False, False), second.ref: (True, True)}
    assert shared.ref in list(first.get("datastore"))
    assert shared.get("summary.accessible") is True
    lab.do.unmount_datastore(second, "shared-dc0")
    assert shared.get("summary.accessible") is False, "of no host"
    lab.do.unmount_datastore(first, "shared-dc0", False)
    lab.do.add_tenant(first)
    with pytest.raises(vim.fault.ResourceInUse):
        lab.do.unmount_datastore(first, "shared-dc0")


def test_a_datastore_is_put_into_maintenance_and_taken_out() -> None:
    lab = Lab(hosts=1)
    shared = lab.vcenter.datacenters()[0].shared_datastores[0]
    assert shared.get("summary.maintenanceMode") == "normal"
    lab.do.datastore_maintenance(shared)
    assert shared.get("summary.maintenanceMode") == "inMaintenance"
    lab.do.datastore_maintenance(shared, False)
    assert shared.get("summary.maintenanceMode") == "normal"


def test_counts_that_make_no_sense_are_refused() -> None:
    """ValueError, before anything is built."""
    with pytest.raises(ValueError, match="negative"):
        build(World(ManualClock()), hosts=-1)


def test_without_clusters_hosts_are_standalone() -> None:
    """Each has a compute resource of its own, of its own name."""
    lab = Lab(hosts=2, clusters=0)
    for host in lab.vcenter.hosts():
        assert host.compute_resource.vmodl is vim.ComputeResource
        assert host.compute_resource.name == host.name


def test_cluster_names_go_on_after_z() -> None:
    """``ClusterZ``, then ``ClusterAA``; never the same twice."""
    names = cluster_names()
    first = [next(names) for _ in range(800)]
    assert first[25:28] == ["ClusterZ", "ClusterAA", "ClusterAB"]
    assert len(set(first)) == 800


def test_a_large_vcenter_builds_in_seconds() -> None:
    """Promise: 2,500 hosts and 20,000 tenant VMs. Measured at about 3 s; the bound allows for a busy machine."""
    world = World(ManualClock())
    began = time.process_time()
    inventory = build(world, hosts=2500, clusters=40, tenants_per_host=8)
    assert time.process_time() - began < 20
    assert len(inventory.hosts()) == 2500
    assert sum(len(host.vms) for host in inventory.hosts()) == 20000


def test_add_host_by_the_api() -> None:
    """S09: AddHost_Task; the cluster's ``host`` list, events, and no Agent VM settings."""
    lab = Lab(settings=False)
    cluster = lab.vcenter.clusters()[0]
    ref = outcome(lab, cluster.add_host_task(lab.call, spec=spec("new.example"), asConnected=True))
    host = lab.world.find(ref)
    assert isinstance(host, HostSystem)
    assert ref in list(cluster.get("host"))
    assert host.agent_settings.datastore is None
    assert lab.events()[-2:] == ["HostAddedEvent", "HostConnectedEvent"]
    again = outcome(lab, cluster.add_host_task(lab.call, spec=spec("new.example"), asConnected=True))
    assert isinstance(again, vim.fault.AlreadyConnected)
    with pytest.raises(vim.fault.InvalidName):
        cluster.add_host_task(lab.call, spec=vim.host.ConnectSpec(force=False), asConnected=True)


def test_add_host_disconnected() -> None:
    """``asConnected`` false: it is there, and disconnected."""
    lab = Lab()
    cluster = lab.vcenter.clusters()[0]
    ref = outcome(lab, cluster.add_host_task(lab.call, spec=spec("new.example"), asConnected=False))
    lab.settle()
    assert lab.world.find(ref).get("runtime.connectionState") == "disconnected"  # type: ignore[union-attr]


def test_move_host_by_the_api_needs_maintenance() -> None:
    """S04: MoveInto_Task refuses a working host of another cluster; ``parent`` and both ``host`` lists follow."""
    lab = Lab(hosts=2, clusters=2)
    first, second = lab.vcenter.clusters()
    host = next(iter(first.hosts.values()))
    refused = outcome(lab, second.move_into_task(lab.call, host=[host.ref]))
    assert isinstance(refused, vim.fault.InvalidState)
    lab.do.enter_maintenance(host)
    lab.until(lambda: host.in_maintenance)
    assert outcome(lab, second.move_into_task(lab.call, host=[host.ref])) is None
    assert host.get("parent") == second.ref
    assert list(first.get("host")) == []
    assert host.ref in list(second.get("host"))


def test_standalone_host_moves_into_a_cluster_and_out_again() -> None:
    """Its own compute resource goes, and comes again when it is moved into a folder."""
    lab = Lab()
    host = lab.do.add_standalone_host()
    resource, cluster = host.compute_resource, lab.vcenter.clusters()[0]
    assert outcome(lab, cluster.move_host_into_task(lab.call, host=host.ref)) is None
    assert not resource.alive
    lab.do.enter_maintenance(host)
    lab.until(lambda: host.in_maintenance)
    folder = lab.vcenter.datacenters()[0].host_folder
    assert outcome(lab, folder.move_into_folder_task(lab.call, list=[host.ref])) is None
    assert not host.compute_resource.is_cluster
    assert host.compute_resource.parent is folder


def test_folders_and_clusters_by_the_api() -> None:
    """CreateFolder, CreateClusterEx, AddStandaloneHost_Task, MoveIntoFolder_Task, and what they refuse."""
    lab = Lab()
    hosts = lab.vcenter.datacenters()[0].host_folder
    prod = hosts.create_folder(lab.call, name="prod")
    das = vim.cluster.ConfigSpecEx(dasConfig=vim.cluster.DasConfigInfo(enabled=True))
    cluster = prod.create_cluster_ex(lab.call, name="ClusterA", spec=das)
    assert cluster.get("configurationEx.dasConfig.enabled") is True
    assert cluster.get("configurationEx.drsConfig.enabled") is True, "what a spec leaves out stays"
    with pytest.raises(vim.fault.DuplicateName):
        prod.create_cluster_ex(lab.call, name="ClusterA", spec=das)
    with pytest.raises(vmodl.fault.NotSupported):
        lab.vcenter.datacenters()[0].vm_folder.create_cluster_ex(lab.call, name="C", spec=das)
    ref = outcome(lab, prod.add_standalone_host_task(lab.call, spec=spec("alone.example"), addConnected=True))
    assert isinstance(lab.world.find(ref), ComputeResource)
    original = lab.vcenter.clusters()[0]
    assert isinstance(outcome(lab, prod.move_into_folder_task(lab.call, list=[original.ref])), vim.fault.DuplicateName)
    original.rename("ClusterB")
    assert outcome(lab, prod.move_into_folder_task(lab.call, list=[original.ref])) is None
    assert original.parent is prod
    assert original.ref not in list(hosts.get("childEntity"))
    assert isinstance(outcome(lab, prod.move_into_folder_task(lab.call, list=[prod.ref])), vim.fault.InvalidFolder)


def test_destroying_a_folder_takes_everything_along() -> None:
    """Hosts and their VMs go with the folder; a datacenter's own folders cannot be destroyed."""
    lab = Lab()
    datacenter = lab.vcenter.datacenters()[0]
    prod = datacenter.host_folder.new_folder("prod")
    host = prod.new_standalone_host("alone.example")
    assert outcome(lab, prod.destroy_task(lab.call)) is None
    assert not host.alive
    assert isinstance(outcome(lab, datacenter.host_folder.destroy_task(lab.call)), vmodl.fault.NotSupported)
    outcome(lab, datacenter.destroy_task(lab.call))
    left = [obj for obj in lab.world.objects.values() if obj.vmodl is not vim.Task]
    assert [obj.moid for obj in left] == [lab.vcenter.root.moid, "EsxAgentManager"]


def test_rename_keeps_names_unique() -> None:
    """``DuplicateName`` for a sibling's name; an empty name is ``InvalidName``."""
    lab = Lab(hosts=2, clusters=2)
    first, _ = lab.vcenter.clusters()
    assert isinstance(outcome(lab, first.rename_task(lab.call, newName="ClusterB")), vim.fault.DuplicateName)
    with pytest.raises(vim.fault.InvalidName):
        first.rename_task(lab.call, newName="")
    assert outcome(lab, first.rename_task(lab.call, newName="ClusterC")) is None
    with pytest.raises(eam.fault.NotAuthorized):
        first.rename_task(lab.caller("guest", lacks="Host.Inventory.RenameCluster"), newName="ClusterD")
    with pytest.raises(vmodl.fault.NotSupported):
        lab.host.rename_task(lab.call, newName="other.example")
    holder = first.parent
    assert isinstance(holder, Folder)
    assert holder.child("ClusterC") is first
    assert holder.child("ClusterA") is None


def test_tree_is_walkable_from_the_root() -> None:
    """What a ContainerView needs: childEntity, the datacenter's folders, host and vm lists, resource pools."""
    lab = Lab()
    vm = new_tenant(lab.host, "tenant")
    (datacenter_ref,) = lab.vcenter.root.get("childEntity")
    datacenter = lab.world.find(datacenter_ref)
    assert datacenter is not None
    folder = lab.world.find(datacenter.get("hostFolder"))
    assert folder is not None
    cluster = lab.world.find(folder.get("childEntity")[0])
    assert cluster is not None
    assert list(cluster.get("host")) == [lab.host.ref]
    assert list(lab.host.get("vm")) == [vm.ref]
    pool = lab.world.find(cluster.get("resourcePool"))
    assert pool is not None
    assert list(pool.get("vm")) == [vm.ref]
    assert pool.get("owner") == cluster.ref
    assert vm.get("resourcePool") == pool.ref


def test_resource_pools_by_the_api() -> None:
    """Create, rename, destroy; the VMs of a destroyed pool move up."""
    lab = Lab()
    root = lab.host.compute_resource.root_pool
    pool = root.create_resource_pool(lab.call, name="gold", spec=root.get("config"))
    with pytest.raises(vim.fault.DuplicateName):
        root.create_resource_pool(lab.call, name="gold", spec=None)
    vm = new_tenant(lab.host, "tenant")
    root.drop(vm)
    pool.put(vm)
    pool.update_config(lab.call, name="silver")
    assert pool.name == "silver"
    assert outcome(lab, pool.destroy_task(lab.call)) is None
    assert vm.get("resourcePool") == root.ref
    assert list(root.get("resourcePool")) == []
    assert isinstance(outcome(lab, root.destroy_task(lab.call)), vmodl.fault.NotSupported)


def test_verbs_find_by_name_moid_and_object() -> None:
    """Names that are unknown or ambiguous are errors that say so."""
    lab = Lab(hosts=2, clusters=2, datacenters=2)
    host = lab.host
    for what in (host, host.name, host.moid):
        assert lab.do.find(HostSystem, what) is host
    with pytest.raises(LookupError, match="2 objects"):
        lab.do.add_host("ClusterA")
    with pytest.raises(LookupError, match="0 objects"):
        lab.do.crash("nobody")


def test_verbs_by_name() -> None:
    """The control endpoint's way: plain values in, a moid or nothing out; only verbs can be called."""
    lab = Lab()
    moid = lab.do.run("add_host", cluster="ClusterA", name="new.example")
    assert lab.world.objects[moid].get("name") == "new.example"
    assert lab.do.run("crash", host="new.example") is None
    with pytest.raises(LookupError, match="no verb"):
        lab.do.run("find", kind="x")
    assert [entry.fields["verb"] for entry in lab.vcenter.journal if entry.kind == "stimulus"] == ["add_host", "crash"]
