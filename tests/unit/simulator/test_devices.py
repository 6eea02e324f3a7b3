# SPDX-License-Identifier: Apache-2.0
"""S20: what a ContrailVM is customised with in the simulator: adapters, MACs, PCI cards, SR-IOV, reservations."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from tests.unit.simulator.lab import Lab
from vcenter_eam_plugin.simulator.devices import cards_of
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.tenants import new_tenant
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine

Spec = vim.vm.device.VirtualDeviceSpec
Ethernet = vim.vm.device.VirtualEthernetCard
PASSTHROUGH, SRIOV, PLAIN = "0000:5e:00.0", "0000:3b:00.0", "0000:18:00.0"
GIVEN = "00:50:56:2a:00:01"


def fault(lab: Lab, task: Task) -> Any:
    lab.until(lambda: task.ended)
    return task.info.error


def add(lab: Lab, vm: VirtualMachine, *devices: Any, **fields: Any) -> Any:
    changes = [Spec(operation=Spec.Operation.add, device=device) for device in devices]
    return fault(lab, vm.reconfig_task(lab.call, spec=vim.vm.ConfigSpec(deviceChange=changes, **fields)))


def nic(name: str = "fab-pg", mac: str | None = None) -> Any:
    card = vim.vm.device.VirtualVmxnet3(key=-1, backing=Ethernet.NetworkBackingInfo(deviceName=name))
    if mac is not None:
        card.macAddress, card.addressType = mac, "manual"
    return card


def distributed(lab: Lab, **changes: Any) -> Any:
    switch = lab.vcenter.datacenters()[0].switch
    fields = {"switchUuid": switch.uuid, "portgroupKey": switch.portgroups[0].moid, **changes}
    backing = Ethernet.DistributedVirtualPortBackingInfo(port=vim.dvs.PortConnection(**fields))
    return vim.vm.device.VirtualVmxnet3(key=-1, backing=backing)


def passthrough(card: str = PASSTHROUGH) -> Any:
    backing = vim.vm.device.VirtualPCIPassthrough.DeviceBackingInfo(
        id=card, deviceId="158b", systemId="x", vendorId=-32634, deviceName="card"
    )
    return vim.vm.device.VirtualPCIPassthrough(key=-1, backing=backing)


def sriov(card: str = SRIOV) -> Any:
    function = vim.vm.device.VirtualPCIPassthrough.DeviceBackingInfo(
        id=card, deviceId="0", systemId="x", vendorId=0, deviceName=""
    )
    backing = vim.vm.device.VirtualSriovEthernetCard.SriovBackingInfo(physicalFunctionBacking=function)
    return vim.vm.device.VirtualSriovEthernetCard(
        key=-1, sriovBacking=backing, backing=Ethernet.NetworkBackingInfo(deviceName="fab-pg")
    )


def off(lab: Lab, name: str = "vm") -> VirtualMachine:
    return new_tenant(lab.host, name, on=False)


def macs(vm: VirtualMachine) -> list[str]:
    return [card.macAddress for card in cards_of(vm.get("config"))]


def test_adapters_on_standard_and_distributed_port_groups() -> None:
    """They come in the order given, labelled on, with addresses that vCenter assigned, and ``network`` follows."""
    lab = Lab()
    vm = off(lab)
    assert add(lab, vm, nic(), distributed(lab)) is None
    cards = list(cards_of(vm.get("config")))
    assert [card.key for card in cards] == [4000, 4001, 4002]
    assert [card.deviceInfo.label for card in cards] == [f"Network adapter {n}" for n in (1, 2, 3)]
    assert len(set(macs(vm))) == 3
    assert {card.addressType for card in cards} == {"assigned"}
    assert [ref._moId for ref in vm.get("network")] == list(lab.host.networks)


@pytest.mark.parametrize("wrong", ["no-such-network", "portgroup", "switch"])
def test_an_adapter_on_a_network_that_the_host_does_not_have(wrong: str) -> None:
    """InvalidDeviceBacking, and nothing else of the reconfiguration is applied."""
    lab = Lab()
    vm = off(lab)
    changes = {"portgroup": {"portgroupKey": "dvportgroup-99"}, "switch": {"switchUuid": "another"}}
    card = distributed(lab, **changes[wrong]) if wrong in changes else nic(wrong)
    error = add(lab, vm, nic(), card, annotation="x")
    assert isinstance(error, vim.fault.InvalidDeviceBacking)
    assert error.deviceIndex == 1
    assert (len(macs(vm)), vm.get("config.annotation")) == (1, "")


def test_an_eleventh_adapter_is_too_many() -> None:
    """TooManyDevices."""
    lab = Lab()
    assert isinstance(add(lab, off(lab), *(nic() for _ in range(10))), vim.fault.TooManyDevices)


def test_a_given_mac_is_kept_and_refused_to_others() -> None:
    """Case does not matter; the same VM, a second VM, and one that vCenter assigned are all found."""
    lab = Lab()
    vm, other = off(lab), off(lab, "other")
    assert add(lab, vm, nic(mac=GIVEN.upper())) is None
    assert macs(vm)[1] == GIVEN
    assert isinstance(add(lab, vm, nic(mac=GIVEN)), vim.fault.InvalidDeviceSpec)
    assert isinstance(add(lab, other, nic(mac=GIVEN)), vim.fault.InvalidDeviceSpec)
    assert isinstance(add(lab, other, nic(mac=macs(vm)[0])), vim.fault.InvalidDeviceSpec)
    assert isinstance(add(lab, vm, nic(mac=macs(other)[0])), vim.fault.InvalidDeviceSpec)
    lab.do.destroy(vm)
    assert add(lab, other, nic(mac=GIVEN)) is None


def test_duplicate_macs_may_be_allowed_with_an_event() -> None:
    """The knob off: both have it, and vCenter says so."""
    lab = Lab(refuse_duplicate_macs=False)
    vm, other = off(lab), off(lab, "other")
    assert add(lab, vm, nic(mac=GIVEN)) is None
    assert add(lab, other, nic(mac=GIVEN)) is None
    event = next(event for event in lab.world.events if isinstance(event, vim.event.VmMacConflictEvent))
    assert (event.conflictedVm.name, event.mac) == ("vm", GIVEN)


@pytest.mark.parametrize("mac", ["nonsense", "01:50:56:00:00:01", "00:50:56:00:00"])
def test_what_is_no_adapters_address(mac: str) -> None:
    """No address, a multicast address, half an address: InvalidDeviceSpec."""
    lab = Lab()
    assert isinstance(add(lab, off(lab), nic(mac=mac)), vim.fault.InvalidDeviceSpec)


def test_an_edit_without_address_keeps_the_address() -> None:
    """An adapter moves to another network and is the same adapter."""
    lab = Lab()
    vm = off(lab)
    before = macs(vm)
    card = nic()
    card.key = 4000
    change = Spec(operation=Spec.Operation.edit, device=card)
    assert fault(lab, vm.reconfig_task(lab.call, spec=vim.vm.ConfigSpec(deviceChange=[change]))) is None
    assert macs(vm) == before
    assert [lab.host.networks[ref._moId].name for ref in vm.get("network")] == ["fab-pg"]


def test_the_cards_of_a_host() -> None:
    """``hardware.pciDevice`` lists them; ``config.pciPassthruInfo`` says which go whole and which in functions."""
    lab = Lab()
    cards = {card.id for card in lab.host.get("hardware.pciDevice")}
    infos = {info.id: info for info in lab.host.get("config.pciPassthruInfo")}
    assert set(infos) == cards
    assert [card for card, info in infos.items() if info.passthruActive] == [PASSTHROUGH, "0000:5e:00.1"]
    assert [card for card, info in infos.items() if getattr(info, "sriovActive", False)] == [SRIOV]
    assert infos[SRIOV].numVirtualFunction == 8


@pytest.mark.parametrize("device", [passthrough("0000:ff:00.0"), passthrough(PLAIN), sriov(PASSTHROUGH)])
def test_a_card_that_the_host_has_not_or_does_not_give(device: Any) -> None:
    """InvalidDeviceBacking."""
    lab = Lab()
    assert isinstance(add(lab, off(lab), device), vim.fault.InvalidDeviceBacking)


@pytest.mark.parametrize("kind", [passthrough, sriov])
def test_a_vm_with_a_card_starts_only_with_all_memory_reserved(kind: Any) -> None:
    """The power-on fails with vCenter's words; a reservation of all, or the lock to it, lets it start."""
    lab = Lab()
    vm = off(lab)
    assert add(lab, vm, kind()) is None
    error = fault(lab, lab.do.power_on(vm))
    assert isinstance(error, vim.fault.GenericVmConfigFault)
    assert "sched.mem.min" in error.reason
    part = vim.ResourceAllocationInfo(reservation=1024)
    assert add(lab, vm, memoryAllocation=part) is None
    assert isinstance(fault(lab, lab.do.power_on(vm)), vim.fault.GenericVmConfigFault)
    assert add(lab, vm, memoryAllocation=vim.ResourceAllocationInfo(reservation=2048)) is None
    assert fault(lab, lab.do.power_on(vm)) is None
    lab.do.power_off(vm)
    lab.settle()
    assert add(lab, vm, memoryReservationLockedToMax=True, memoryMB=4096) is None
    assert fault(lab, lab.do.power_on(vm)) is None


def test_a_card_goes_to_one_running_vm() -> None:
    """The second VM with the same passthrough card does not start until the first is off; nor does it migrate."""
    lab = Lab(hosts=2)
    vms = [off(lab, name) for name in ("a", "b")]
    for vm in vms:
        assert add(lab, vm, passthrough(), memoryReservationLockedToMax=True) is None
    assert fault(lab, lab.do.power_on(vms[0])) is None
    assert "in use" in fault(lab, lab.do.power_on(vms[1])).reason
    error = fault(lab, lab.do.migrate(vms[0], lab.vcenter.hosts()[1]))
    assert isinstance(error, vim.fault.DisallowedMigrationDeviceAttached)
    lab.do.power_off(vms[0])
    lab.settle()
    assert fault(lab, lab.do.power_on(vms[1])) is None


def test_virtual_functions_run_out() -> None:
    """Eight functions are eight adapters."""
    lab = Lab()
    vms = [off(lab, f"vm-{number}") for number in range(2)]
    for vm in vms:
        assert add(lab, vm, *(sriov() for _ in range(4)), memoryReservationLockedToMax=True) is None
        assert fault(lab, lab.do.power_on(vm)) is None
    ninth = off(lab, "ninth")
    assert add(lab, ninth, sriov(), memoryReservationLockedToMax=True) is None
    assert "in use" in fault(lab, lab.do.power_on(ninth)).reason


def test_an_agent_vm_that_cannot_start_is_an_issue_until_it_is_reconfigured() -> None:
    """S20: InvalidConfig with vCenter's reason; EAM does not try again and again, and goes on when it was repaired."""
    lab = Lab()
    agency = lab.create(manuallyMarkAgentVmAvailableAfterProvisioning=True)
    lab.until(lambda: agency.agents and lab.agent(agency).hook is not None)
    assert add(lab, lab.vm, passthrough()) is None
    lab.agent(agency).mark_as_available(lab.extension_of(agency))
    lab.until(lambda: lab.issue_types(agency) == ["InvalidConfig"])
    tasks = len(lab.vm.get("recentTask"))
    lab.settle(30)
    assert len(lab.vm.get("recentTask")) == tasks
    assert add(lab, lab.vm, memoryReservationLockedToMax=True) is None
    lab.until(lambda: agency.status == "green")


def test_a_rename_to_a_taken_name_fails_in_the_task() -> None:
    """Rename_Task: DuplicateName, and both keep their names."""
    lab = Lab()
    vm, other = off(lab, "a"), off(lab, "b")
    error = fault(lab, vm.rename_task(lab.call, newName="b"))
    assert isinstance(error, vim.fault.DuplicateName)
    assert error.object == other.ref
    assert vm.name == "a"
