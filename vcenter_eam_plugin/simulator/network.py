# SPDX-License-Identifier: Apache-2.0
"""Simulated networks: standard port groups and distributed ones.

Not promised: traffic, port allocation, distributed switches beyond their name and UUID.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from pyVmomi import vim

from vcenter_eam_plugin.simulator.managed_entity import ManagedEntity, refs
from vcenter_eam_plugin.simulator.world import World


class Network(ManagedEntity):
    """``vim.Network``: what VMs connect to. ``hosts`` are those that have it."""

    vmodl: ClassVar[type] = vim.Network
    rename_privilege: ClassVar[str | None] = "Network.Config"
    move_privilege: ClassVar[str] = "Network.Move"
    prefix: ClassVar[str] = "network"

    def __init__(self, world: World, name: str, parent: ManagedEntity) -> None:
        super().__init__(world, world.new_moid(self.prefix), name, parent)
        self.hosts: dict[str, ManagedEntity] = {}

    def prop_summary(self) -> Any:
        return vim.Network.Summary(network=self.ref, name=self.name, accessible=bool(self.hosts), ipPoolName="")

    def prop_host(self) -> Any:
        return refs(vim.HostSystem, self.hosts.values())

    def prop_vm(self) -> Any:
        vms = (vm for host in self.hosts.values() for vm in getattr(host, "vms", {}).values())
        return refs(vim.VirtualMachine, (vm for vm in vms if self in vm.networks))

    def describe(self, event: Any) -> None:
        event.net = vim.event.NetworkEventArgument(name=self.name, network=self.ref)


class DistributedVirtualSwitch(ManagedEntity):
    """``vim.dvs.VmwareDistributedVirtualSwitch``: what distributed port groups name as theirs."""

    vmodl: ClassVar[type] = vim.dvs.VmwareDistributedVirtualSwitch
    rename_privilege: ClassVar[str | None] = "DVSwitch.Modify"

    def __init__(self, world: World, name: str, parent: ManagedEntity) -> None:
        super().__init__(world, world.new_moid("dvs"), name, parent)
        self.portgroups: list[DistributedVirtualPortgroup] = []

    @property
    def uuid(self) -> str:
        """In the form that vSphere writes them: sixteen bytes."""
        digits = uuid.uuid5(uuid.NAMESPACE_OID, f"switch {self.moid}").hex
        pairs = [digits[at : at + 2] for at in range(0, 32, 2)]
        return f"{' '.join(pairs[:8])}-{' '.join(pairs[8:])}"

    def prop_uuid(self) -> Any:
        return self.uuid

    def prop_portgroup(self) -> Any:
        return refs(vim.dvs.DistributedVirtualPortgroup, self.portgroups)

    def describe(self, event: Any) -> None:
        event.dvs = vim.event.DvsEventArgument(name=self.name, dvs=self.ref)


class DistributedVirtualPortgroup(Network):
    """``vim.dvs.DistributedVirtualPortgroup``; its ``key`` is its moid, as in vCenter."""

    vmodl: ClassVar[type] = vim.dvs.DistributedVirtualPortgroup
    prefix: ClassVar[str] = "dvportgroup"

    def __init__(self, world: World, name: str, parent: ManagedEntity, switch: DistributedVirtualSwitch) -> None:
        super().__init__(world, name, parent)
        self.switch = switch

    @property
    def switch_uuid(self) -> str:
        """UUID of the distributed switch that it belongs to."""
        return self.switch.uuid

    def prop_key(self) -> Any:
        return self.moid

    def prop_config(self) -> Any:
        return vim.dvs.DistributedVirtualPortgroup.ConfigInfo(
            key=self.moid,
            name=self.name,
            distributedVirtualSwitch=self.switch.ref,
            numPorts=8,
            type="earlyBinding",
            policy=vim.dvs.DistributedVirtualPortgroup.PortgroupPolicy(
                blockOverrideAllowed=True,
                shapingOverrideAllowed=False,
                vendorConfigOverrideAllowed=False,
                livePortMovingAllowed=False,
                portConfigResetAtDisconnect=True,
            ),
        )
