# SPDX-License-Identifier: Apache-2.0
"""Simulated VMs: power, reconfiguration, storage; what is refused, and what listeners hear."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import eam, vim

from tests.unit.simulator.lab import Lab
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.tenants import new_tenant
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine

Operation = vim.vm.device.VirtualDeviceSpec.Operation


def tenant(lab: Lab) -> VirtualMachine:
    return new_tenant(lab.host, "tenant")


def fault(lab: Lab, task: Task) -> Any:
    lab.until(lambda: task.ended)
    return task.info.error


def edit(lab: Lab, vm: VirtualMachine, **fields: Any) -> Any:
    return fault(lab, vm.reconfig_task(lab.call, spec=vim.vm.ConfigSpec(**fields)))


def nic(network: Any, key: int = -1) -> Any:
    backing = vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName=network.name, network=network.ref)
    return vim.vm.device.VirtualVmxnet3(key=key, backing=backing)


def test_power_cycle_and_its_events() -> None:
    """Each operation posts its event and refuses the state that is already there."""
    lab = Lab()
    vm = tenant(lab)
    assert isinstance(fault(lab, vm.power_on_task(lab.call)), vim.fault.InvalidPowerState)
    assert fault(lab, vm.suspend_task(lab.call)) is None
    assert vm.power == "suspended"
    assert fault(lab, vm.power_on_task(lab.call)) is None
    assert fault(lab, vm.reset_task(lab.call)) is None
    assert isinstance(fault(lab, vm.destroy_task(lab.call)), vim.fault.InvalidPowerState)
    assert fault(lab, vm.power_off_task(lab.call)) is None
    assert isinstance(fault(lab, vm.power_off_task(lab.call)), vim.fault.InvalidPowerState)
    assert fault(lab, vm.destroy_task(lab.call)) is None
    assert not vm.alive
    names = [name for name in lab.events() if name.startswith("Vm")]
    assert names == [
        "VmSuspendedEvent",
        "VmPoweredOnEvent",
        "VmResettingEvent",
        "VmPoweredOffEvent",
        "VmRemovedEvent",
    ]
    assert lab.world.events[-1].userName == "admin"
    assert lab.world.events[-1].host.host == lab.host.ref


def test_destroyed_while_an_operation_runs() -> None:
    """The operation's task ends with ManagedObjectNotFound, and nothing else happens."""
    lab = Lab()
    vm = tenant(lab)
    task = vm.power_off_task(lab.call)
    lab.do.destroy(vm)
    assert type(fault(lab, task)).__name__.endswith("ManagedObjectNotFound")


def test_agent_vm_guest() -> None:
    """Heartbeat, tools, guest name and address come with the guest and go with the power."""
    lab = Lab()
    lab.deployed()
    vm = lab.vm
    assert vm.get("guestHeartbeatStatus") == "green"
    assert vm.get("guest.toolsRunningStatus") == "guestToolsRunning"
    assert vm.get("guest.ipAddress") == vm.get("summary.guest.ipAddress") == "127.77.0.1"
    assert vm.get("guest.hostName") == "contrailvm-1"
    lab.do.power_off(vm)
    lab.settle()
    assert vm.get("guestHeartbeatStatus") == "gray"
    assert vm.get("guest.ipAddress") is None


def test_reconfigure_sizes_options_and_reservations() -> None:
    """``extraConfig`` merges by key, an empty value removes; sizes only while powered off."""
    lab = Lab()
    vm = tenant(lab)
    option = vim.option.OptionValue
    assert edit(lab, vm, extraConfig=[option(key="guestinfo.a", value="1"), option(key="b", value="2")]) is None
    assert edit(lab, vm, extraConfig=[option(key="guestinfo.a", value="3"), option(key="b", value="")]) is None
    assert [(o.key, o.value) for o in vm.get("config.extraConfig")] == [("guestinfo.a", "3")]
    assert isinstance(edit(lab, vm, memoryMB=4096), vim.fault.InvalidPowerState)
    lab.do.power_off(vm)
    lab.settle()
    allocation = vim.ResourceAllocationInfo(reservation=4096)
    assert edit(lab, vm, memoryMB=4096, numCPUs=4, memoryAllocation=allocation, annotation="x") is None
    config = vm.get("config")
    assert (config.hardware.memoryMB, config.hardware.numCPU, config.annotation) == (4096, 4, "x")
    assert config.memoryAllocation.reservation == 4096
    assert vm.get("summary.config.memorySizeMB") == 4096


def test_reconfigure_devices() -> None:
    """Adapters are added with a MAC, edited, removed; ``network`` follows; a wrong key changes nothing."""
    lab = Lab()
    vm = tenant(lab)
    fabric = next(network for network in lab.host.networks.values() if network.name == "fab-pg")
    change = vim.vm.device.VirtualDeviceSpec
    assert edit(lab, vm, deviceChange=[change(operation=Operation.add, device=nic(fabric))]) is None
    cards = [d for d in vm.get("config.hardware.device") if isinstance(d, vim.vm.device.VirtualEthernetCard)]
    assert len(cards) == 2
    assert len({card.macAddress for card in cards}) == 2
    assert all(card.macAddress.startswith("00:50:56:") for card in cards)
    assert [ref._moId for ref in vm.get("network")] == [vm.networks[0].moid, fabric.moid]
    assert vm.get("summary.config.numEthernetCards") == 2
    bad = change(operation=Operation.remove, device=nic(fabric, key=9999))
    assert isinstance(edit(lab, vm, annotation="y", deviceChange=[bad]), vim.fault.InvalidDeviceSpec)
    assert vm.get("config.annotation") == ""
    moved = cards[1]
    group = list(lab.host.networks.values())[2]
    port = vim.dvs.PortConnection(switchUuid=group.switch_uuid, portgroupKey=group.moid)
    moved.backing = vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=port)
    assert edit(lab, vm, deviceChange=[change(operation=Operation.edit, device=moved)]) is None
    assert list(lab.host.networks)[2] in [ref._moId for ref in vm.get("network")]
    assert edit(lab, vm, deviceChange=[change(operation=Operation.remove, device=moved)]) is None
    assert len(vm.get("network")) == 1


def test_reconfigure_checks_the_change_version_and_the_name() -> None:
    """ConcurrentAccess for an old ``changeVersion``; DuplicateName for a taken name; both change nothing."""
    lab = Lab()
    vm = tenant(lab)
    version = vm.get("config.changeVersion")
    assert edit(lab, vm, changeVersion=version, annotation="1") is None
    assert isinstance(edit(lab, vm, changeVersion=version, annotation="2"), vim.fault.ConcurrentAccess)
    new_tenant(lab.host, "other")
    assert isinstance(edit(lab, vm, name="other", annotation="3"), vim.fault.DuplicateName)
    assert vm.get("config.annotation") == "1"
    assert edit(lab, vm, name="renamed") is None
    assert (vm.name, vm.get("config.name")) == ("renamed", "renamed")
    assert "VmRenamedEvent" in lab.events()


def test_agent_vm_takes_space_and_gives_it_back() -> None:
    """The datastore's free space follows deployment and deletion."""
    lab = Lab()
    datastore = lab.vcenter.datacenters()[0].shared_datastores[0]
    before = datastore.get("summary.freeSpace")
    lab.deployed()
    assert datastore.get("summary.freeSpace") == before - (1 << 30)
    lab.do.destroy(lab.vm)
    assert datastore.get("summary.freeSpace") == before


def test_full_datastore_blocks_deployment() -> None:
    """``InsufficientSpace``; active, so Resolve tries again."""
    lab = Lab()
    datastore = lab.vcenter.datacenters()[0].shared_datastores[0]
    lab.do.fill_datastore(datastore)
    agency = lab.create()
    lab.until(lambda: lab.issue_types(agency) == ["InsufficientSpace"])
    lab.do.fill_datastore(datastore, free=1 << 40)
    agency.resolve_all(lab.call)
    lab.until(lambda: agency.status == "green")


def test_renamed_agent_vm_keeps_its_agent() -> None:
    """EAM joins by reference, not by name."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.rename(lab.vm, "somebody's name")
    lab.settle()
    assert lab.agent(agency).query_runtime(lab.call).vmName == "somebody's name"
    assert agency.status == "green"


@pytest.mark.parametrize(
    ("fields", "privilege"),
    [
        ({"name": "x"}, "Rename"),
        ({"extraConfig": [vim.option.OptionValue(key="a", value="1")]}, "AdvancedConfig"),
        ({"deviceChange": [vim.vm.device.VirtualDeviceSpec()]}, "AddRemoveDevice"),
        ({"memoryMB": 1, "changeVersion": "1"}, "Memory"),
        ({"guestId": "x"}, "Settings"),
    ],
)
def test_reconfigure_needs_a_privilege_per_kind_of_change(fields: dict[str, Any], privilege: str) -> None:
    """As vCenter checks it: what is changed decides what is needed."""
    lab = Lab()
    vm = tenant(lab)
    caller = lab.caller("guest", lacks=f"VirtualMachine.Config.{privilege}")
    with pytest.raises(eam.fault.NotAuthorized):
        vm.reconfig_task(caller, spec=vim.vm.ConfigSpec(**fields))


@pytest.mark.parametrize("operation", ["shutdown_guest", "unregister_vm"])
def test_lesser_operations(operation: str) -> None:
    """ShutdownGuest needs tools; UnregisterVM needs power off."""
    lab = Lab()
    vm = tenant(lab)
    with pytest.raises((vim.fault.ToolsUnavailable, vim.fault.InvalidPowerState)):
        getattr(vm, operation)(lab.call)
    assert vm.alive
    assert vm.on


def test_shutdown_of_an_agent_vms_guest_is_a_power_off() -> None:
    """S07: however it was switched off, EAM reports it."""
    lab = Lab()
    agency = lab.deployed()
    lab.vm.shutdown_guest(lab.call)
    lab.until(lambda: lab.issue_types(agency) == ["VmPoweredOff"])
