# SPDX-License-Identifier: Apache-2.0
"""What a host offers to the virtual machines on it: networks, and PCI cards with the host's system id.

Not promised: configuration options, datastores, sizes; a host is always named, or that of the VM is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import vim

from vcenter_eam_plugin.simulator import devices
from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.host_system import HostSystem


class EnvironmentBrowser(ManagedObject):
    """``vim.EnvironmentBrowser``. vCenter has one for each compute resource; here each host has its own."""

    vmodl: ClassVar[type] = vim.EnvironmentBrowser

    def __init__(self, world: World, host: HostSystem) -> None:
        super().__init__(world, self._moid(host))
        self.host = host

    @staticmethod
    def _moid(host: HostSystem) -> str:
        return f"envbrowser-{host.moid.rpartition('-')[2]}"

    @classmethod
    def of(cls, host: HostSystem) -> EnvironmentBrowser:
        """The host's, made when somebody asks for it: few do."""
        found = host.world.objects.get(cls._moid(host))
        return found if isinstance(found, cls) else host.world.add(cls(host.world, host))

    @property
    def parent(self) -> HostSystem:
        """The host: privileges are checked along this line."""
        return self.host

    @soap("QueryConfigTarget", "System.View")
    def query_config_target(self, call: Call, host: Any = None) -> Any:
        """As documented, for the host of the VM."""
        cards, states = devices.pci_devices(), {info.id: info for info in devices.passthru_infos()}
        common = {"systemId": self.host.hardware_uuid}
        whole = [
            vim.vm.PciPassthroughInfo(name=card.deviceName, pciDevice=card, **common)
            for card in cards
            if states[card.id].passthruActive
        ]
        shared = [
            vim.vm.SriovInfo(name=card.deviceName, pciDevice=card, virtualFunction=False, pnic="", **common)
            for card in cards
            if getattr(states[card.id], "sriovActive", False)
        ]
        networks = [
            vim.vm.NetworkInfo(name=one.name, network=one.prop_summary())
            for one in self.host.networks.values()
            if one.vmodl is vim.Network
        ]
        return vim.vm.ConfigTarget(
            numCpus=64, numCpuCores=32, numNumaNodes=2, pciPassthrough=whole, sriov=shared, network=networks
        )
