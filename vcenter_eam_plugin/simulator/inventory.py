# SPDX-License-Identifier: Apache-2.0
"""Builds the simulated vCenter's inventory: datacenters, clusters, hosts, storage, networks and tenant VMs.

``clusters`` and ``hosts`` count the whole vCenter; both are dealt out in turn. Clusters are named per datacenter
(``ClusterA``, ``ClusterB`` ...), so two datacenters have clusters of the same name, as happens.
"""

from __future__ import annotations

from collections.abc import Iterator

from vcenter_eam_plugin.simulator.compute_resource import ClusterComputeResource, new_host
from vcenter_eam_plugin.simulator.datacenter import Datacenter
from vcenter_eam_plugin.simulator.esx_agent_manager import EsxAgentManager
from vcenter_eam_plugin.simulator.folder import Folder
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.journal import Journal
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.ovf_download import OvfDownloader, OvfSource
from vcenter_eam_plugin.simulator.stimuli import Stimuli
from vcenter_eam_plugin.simulator.tenants import new_tenant
from vcenter_eam_plugin.simulator.truth import TruthRecorder
from vcenter_eam_plugin.simulator.vrouter import VRouters
from vcenter_eam_plugin.simulator.world import World

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Inventory:
    """One simulated vCenter's objects, with the verbs that move them (``stimuli``) and its EAM (``eam``)."""

    def __init__(self, world: World, ovf: OvfSource) -> None:
        self.world = world
        self.root = world.add(Folder(world, "Datacenters", None, "d"))
        self.eam = world.add(EsxAgentManager(world, self.root, ovf))
        self.stimuli = Stimuli(world, self.root, self.eam)
        self.truth = TruthRecorder(world)
        self.vrouters = VRouters(world)
        self.ovf = ovf

    def close(self) -> None:
        """Stop downloads under way and every vRouter's introspect."""
        self.ovf.close()
        self.vrouters.close()

    @property
    def knobs(self) -> Knobs:
        """The world's knobs."""
        return self.world.knobs

    @property
    def journal(self) -> Journal:
        """The world's journal."""
        return self.world.journal

    def datacenters(self) -> list[Datacenter]:
        """All datacenters."""
        return list(self.world.each(Datacenter))

    def clusters(self) -> list[ClusterComputeResource]:
        """All clusters."""
        return list(self.world.each(ClusterComputeResource))

    def hosts(self) -> list[HostSystem]:
        """All hosts, standalone ones included."""
        return list(self.world.each(HostSystem))


def cluster_names() -> Iterator[str]:
    """``ClusterA`` ... ``ClusterZ``, ``ClusterAA``, ``ClusterAB`` ..."""
    prefix = ""
    count = 0
    while True:
        yield from (f"Cluster{prefix}{letter}" for letter in LETTERS)
        high, low = divmod(count, len(LETTERS))
        prefix = (LETTERS[high - 1] if high else "") + LETTERS[low]
        count += 1


def build(
    world: World,
    *,
    hosts: int = 3,
    clusters: int = 2,
    datacenters: int = 1,
    tenants_per_host: int = 0,
    knobs: Knobs | None = None,
    ovf: OvfSource | None = None,
) -> Inventory:
    """Make a vCenter; without clusters the hosts are standalone. EAM downloads for real unless ``ovf`` is given.

    Raises ``ValueError`` for counts that make no sense.
    """
    if hosts < 0 or clusters < 0 or tenants_per_host < 0 or datacenters < 1:
        raise ValueError("hosts, clusters and tenants must not be negative, and there is at least one datacenter")
    if knobs is not None:
        world.knobs = knobs
    inventory = Inventory(world, ovf if ovf is not None else OvfDownloader(world.knobs))
    centers = [inventory.root.new_datacenter(f"DC{number}") for number in range(datacenters)]
    names = [cluster_names() for _ in centers]
    made = [centers[n % datacenters].host_folder.new_cluster(next(names[n % datacenters])) for n in range(clusters)]
    serial = [0] * datacenters
    for number in range(hosts):
        at = centers.index(made[number % clusters].datacenter) if made else number % datacenters  # type: ignore[arg-type]
        serial[at] += 1
        name = f"esx-{serial[at]:02d}.{centers[at].name.lower()}.example"
        if made:
            host = new_host(made[number % clusters], name)
        else:
            host = next(iter(centers[at].host_folder.new_standalone_host(name).hosts.values()))
        for tenant in range(tenants_per_host):
            new_tenant(host, f"tenant-{number + 1}-{tenant + 1}")
    inventory.truth.start()
    return inventory
