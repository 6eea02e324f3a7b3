# SPDX-License-Identifier: Apache-2.0
"""A host's Agent VM settings: the datastore and the network that its agent VMs get.

The write replaces both: a field left unset clears that setting (vSphere API reference, HostEsxAgentHostManager).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import vim

from vcenter_eam_plugin.simulator.managed_entity import writes
from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.datastore import Datastore
    from vcenter_eam_plugin.simulator.host_system import HostSystem
    from vcenter_eam_plugin.simulator.network import Network


class EsxAgentHostManager(ManagedObject):
    """``vim.host.EsxAgentHostManager`` of one host."""

    vmodl: ClassVar[type] = vim.host.EsxAgentHostManager

    def __init__(self, world: World, host: HostSystem) -> None:
        super().__init__(world, f"esxAgentHostManager-{host.moid.rpartition('-')[2]}")
        self.host = host
        self.datastore: Datastore | None = None
        self.network: Network | None = None

    @property
    def parent(self) -> HostSystem:
        """The host: privileges are checked along this line."""
        return self.host

    def prop_configInfo(self) -> Any:  # noqa: N802 - named after the property
        return vim.host.EsxAgentHostManager.ConfigInfo(
            agentVmDatastore=self.datastore.ref if self.datastore is not None else None,
            agentVmNetwork=self.network.ref if self.network is not None else None,
        )

    def write(self, datastore: Datastore | None, network: Network | None) -> None:
        """Replace both settings."""
        changed = []
        if datastore is not self.datastore:
            self.datastore = datastore
            changed.append("agentVmDatastore")
        if network is not self.network:
            self.network = network
            changed.append("agentVmNetwork")
        for name in changed:
            self.touch(f"configInfo.{name}")
            self.host.touch(f"summary.config.{name}")

    @writes("EsxAgentHostManagerUpdateConfig", "Host.Config.Settings")
    def update_config(self, call: Call, configInfo: Any) -> None:  # noqa: N803 - the API's names
        """Replace both settings; ``HostConfigFault`` when the host does not have the datastore or the network."""
        datastore = self._on_host(configInfo.agentVmDatastore, self.host.datastores)
        network = self._on_host(configInfo.agentVmNetwork, self.host.networks)
        if not self.host.connected:
            raise vim.fault.HostConfigFault(msg=f"Host {self.host.name} is not connected.")
        self.write(datastore, network)

    def _on_host(self, ref: Any, offered: dict[str, Any]) -> Any:
        if ref is None:
            return None
        if ref._moId not in offered:
            raise vim.fault.HostConfigFault(msg=f"{ref._moId} is not available on host {self.host.name}.")
        return offered[ref._moId]
