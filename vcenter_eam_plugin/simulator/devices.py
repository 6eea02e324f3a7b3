# SPDX-License-Identifier: Apache-2.0
"""Virtual devices: what a new VM has, how a reconfiguration changes it, and what a power-on demands.

Network adapters stand on standard or distributed port groups that the host has; their MAC addresses are given or
assigned, and unique. PCI passthrough and SR-IOV adapters name a card of the host, and a VM that has one starts only
with all its memory reserved. Faults are those that vCenter answers for the same mistake, as far as they are
documented.

Not promised: controllers, disks beyond the first, hot-plug rules, network resource pools.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyVmomi import vim
from pyVmomi.VmomiSupport import long

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.host_system import HostSystem
    from vcenter_eam_plugin.simulator.network import Network
    from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine

Ethernet = vim.vm.device.VirtualEthernetCard
Sriov = vim.vm.device.VirtualSriovEthernetCard
Passthrough = vim.vm.device.VirtualPCIPassthrough
Verb = vim.vm.device.VirtualDeviceSpec.Operation

FIRST_NIC, FIRST_PCI, FIRST_OTHER = 4000, 13000, 20000
"""Keys that vCenter gives to new network adapters and PCI devices."""
LAST_NIC = FIRST_NIC + 9
"""A VM has at most ten network adapters."""
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


# Cards of a host ---------------------------------------------------------------------------------------------------

CARDS: tuple[tuple[str, str, int, int], ...] = (
    ("0000:18:00.0", "Ethernet Controller X710", 0x1572, 0),
    ("0000:3b:00.0", "Ethernet Controller E810-C, SR-IOV", 0x1592, 8),
    ("0000:5e:00.0", "Ethernet Controller XXV710, passthrough", 0x158B, 0),
    ("0000:5e:00.1", "Ethernet Controller XXV710, passthrough", 0x158B, 0),
)
"""PCI cards of every simulated host: id, name, device id, and virtual functions (0: no SR-IOV)."""
INTEL = 0x8086 - 0x10000
"""The vendor id; the API has it as a signed short."""


def pci_devices() -> Any:
    """``hardware.pciDevice``."""
    return vim.host.PciDevice.Array(
        vim.host.PciDevice(
            id=card,
            classId=0x200,
            bus=_signed_byte(int(card[5:7], 16)),
            slot=int(card[8:10], 16),
            function=int(card[11]),
            vendorId=INTEL,
            subVendorId=INTEL,
            vendorName="Intel(R)",
            deviceId=device,
            subDeviceId=0,
            deviceName=name,
        )
        for card, name, device, _ in CARDS
    )


def passthru_infos() -> Any:
    """``config.pciPassthruInfo``: the last two cards are given to VMs whole, the second in virtual functions."""
    infos = []
    for card, _, _, functions in CARDS:
        whole = card.startswith("0000:5e")
        common = {
            "id": card,
            "dependentDevice": card,
            "passthruEnabled": whole,
            "passthruCapable": True,
            "passthruActive": whole,
        }
        if functions:
            infos.append(
                vim.host.SriovInfo(
                    **common,
                    sriovEnabled=True,
                    sriovCapable=True,
                    sriovActive=True,
                    numVirtualFunctionRequested=functions,
                    numVirtualFunction=functions,
                    maxVirtualFunctionSupported=64,
                )
            )
        else:
            infos.append(vim.host.PciPassthruInfo(**common))
    return vim.host.PciPassthruInfo.Array(infos)


def _signed_byte(value: int) -> int:
    return value - 256 if value > 127 else value


# What a new VM has -------------------------------------------------------------------------------------------------


def assigned_mac(number: int) -> str:
    """An address in VMware's range for assigned ones, one per VM and adapter."""
    return f"00:50:56:{0x80 | number >> 16 & 0x3F:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def serial_of(vm: VirtualMachine) -> int:
    """The number in the VM's moid."""
    return int(vm.moid.rpartition("-")[2])


def initial_devices(vm: VirtualMachine) -> Any:
    """A disk, and one adapter per network."""
    disk = vim.vm.device.VirtualDisk(
        key=2000,
        controllerKey=1000,
        unitNumber=0,
        capacityInKB=long(vm.disk_bytes // 1024),
        deviceInfo=vim.Description(label="Hard disk 1", summary=f"{vm.disk_bytes // 1024} KB"),
        backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            fileName=vm.path.replace(".vmx", ".vmdk"), diskMode="persistent", datastore=vm.datastore_object.ref
        ),
    )
    devices = [disk]
    for number, network in enumerate(vm.networks):
        devices.append(
            vim.vm.device.VirtualVmxnet3(
                key=FIRST_NIC + number,
                controllerKey=100,
                unitNumber=7 + number,
                deviceInfo=vim.Description(label=f"Network adapter {number + 1}", summary=network.name),
                backing=_backing_for(network),
                addressType="assigned",
                macAddress=assigned_mac(serial_of(vm) << 4 | number),
            )
        )
    return vim.vm.device.VirtualDevice.Array(devices)


def _backing_for(network: Network) -> Any:
    if network.vmodl is vim.dvs.DistributedVirtualPortgroup:
        port = vim.dvs.PortConnection(switchUuid=getattr(network, "switch_uuid", ""), portgroupKey=network.moid)
        return Ethernet.DistributedVirtualPortBackingInfo(port=port)
    return Ethernet.NetworkBackingInfo(deviceName=network.name, network=network.ref)


# Changing them -----------------------------------------------------------------------------------------------------


def change_device(vm: VirtualMachine, config: Any, change: Any, index: int) -> None:
    """Apply one ``VirtualDeviceSpec`` to a copy of the configuration. Raises what vCenter would."""
    device = change.device
    devices = list(config.hardware.device)
    at = next((i for i, old in enumerate(devices) if old.key == device.key), None)
    if change.operation == Verb.add:
        if at is not None or device.key is None or device.key < 0:
            device.key = _new_key(device, devices, index)
        _check(vm, config, device, None, index)
        _label(device, devices)
        devices.append(device)
    elif at is None:
        raise vim.fault.InvalidDeviceSpec(property=f"deviceChange[{index}].device.key", deviceIndex=index)
    elif change.operation == Verb.remove:
        devices.pop(at)
    else:
        _check(vm, config, device, devices[at], index)
        if device.deviceInfo is None:
            device.deviceInfo = devices[at].deviceInfo
        devices[at] = device
    config.hardware.device = vim.vm.device.VirtualDevice.Array(devices)


def _new_key(device: Any, devices: list[Any], index: int) -> int:
    first = FIRST_NIC if isinstance(device, Ethernet) else FIRST_PCI if isinstance(device, Passthrough) else FIRST_OTHER
    taken = {old.key for old in devices}
    key = next(key for key in range(first, first + len(taken) + 1) if key not in taken)
    if first == FIRST_NIC and key > LAST_NIC:
        raise vim.fault.TooManyDevices(property=f"deviceChange[{index}].device")
    return key


def _label(device: Any, devices: list[Any]) -> None:
    if device.deviceInfo is not None:
        return
    kind: Any = Ethernet if isinstance(device, Ethernet) else Passthrough if isinstance(device, Passthrough) else None
    if kind is None:
        return
    number = 1 + sum(isinstance(old, kind) for old in devices)
    name = "Network adapter" if kind is Ethernet else "PCI device"
    backing = device.backing
    summary = getattr(backing, "deviceName", None) or getattr(backing, "id", None) or ""
    device.deviceInfo = vim.Description(label=f"{name} {number}", summary=summary)


def _check(vm: VirtualMachine, config: Any, device: Any, before: Any, index: int) -> None:
    place = {"property": f"deviceChange[{index}].device.backing", "deviceIndex": index}
    if isinstance(device, Ethernet):
        if device.backing is None and before is not None:
            device.backing = before.backing
        if network_of(vm.host, device) is None:
            raise vim.fault.InvalidDeviceBacking(**place, msg=f"Host {vm.host.name} does not have this network.")
        _check_mac(vm, config, device, before, index)
    if isinstance(device, Sriov):
        wanted = _card_of(device)
        if wanted not in {card for card, _, _, functions in CARDS if functions}:
            raise vim.fault.InvalidDeviceBacking(**place, msg=f"Host {vm.host.name} has no SR-IOV card {wanted!r}.")
    if isinstance(device, Passthrough):
        wanted = _card_of(device)
        if wanted not in {info.id for info in passthru_infos() if info.passthruActive}:
            raise vim.fault.InvalidDeviceBacking(
                **place, msg=f"Host {vm.host.name} has no passthrough device {wanted!r}."
            )


def _check_mac(vm: VirtualMachine, config: Any, device: Any, before: Any, index: int) -> None:
    if not device.macAddress:
        if before is not None:
            device.macAddress, device.addressType = before.macAddress, before.addressType
        else:
            device.macAddress, device.addressType = assigned_mac(serial_of(vm) << 4 | device.key & 15), "assigned"
        return
    device.macAddress = device.macAddress.lower()
    place = {"property": f"deviceChange[{index}].device.macAddress", "deviceIndex": index}
    if not _MAC.fullmatch(device.macAddress) or int(device.macAddress[:2], 16) & 1:
        raise vim.fault.InvalidDeviceSpec(**place, msg=f"{device.macAddress!r} is not a MAC address of an adapter.")
    if before is not None and before.macAddress == device.macAddress:
        return
    others = (card for card in cards_of(config) if card.key != device.key)
    holder = vm if any(card.macAddress == device.macAddress for card in others) else _holder(vm, device.macAddress)
    if holder is None:
        return
    if vm.world.knobs.refuse_duplicate_macs:
        raise vim.fault.InvalidDeviceSpec(**place, msg=f"VM {holder.name} has the MAC address {device.macAddress}.")
    argument = vim.event.VmEventArgument(name=holder.name, vm=holder.ref)
    vm.post(vim.event.VmMacConflictEvent(template=False, conflictedVm=argument, mac=device.macAddress))


def _holder(vm: VirtualMachine, mac: str) -> VirtualMachine | None:
    """Another VM that has the address. Addresses that vCenter assigned say whose they are."""
    found = vm.world.macs.get(mac)
    if found is None and mac.startswith("00:50:56:"):
        number = int(mac[9:].replace(":", ""), 16)
        found = f"vm-{(number & 0x3FFFFF) >> 4}" if number & 0x800000 else None
    other: Any = vm.world.objects.get(found) if found is not None else None
    if other is None or other is vm or mac not in {card.macAddress for card in cards_of(other.prop_config())}:
        return None
    holder: VirtualMachine = other
    return holder


def note_macs(vm: VirtualMachine, config: Any) -> None:
    """Remember whose the addresses of a new configuration are."""
    for card in cards_of(config):
        vm.world.macs[card.macAddress] = vm.moid


def cards_of(config: Any) -> Iterator[Any]:
    """The network adapters of a configuration."""
    return (device for device in config.hardware.device if isinstance(device, Ethernet))


def network_of(host: HostSystem, card: Any) -> Network | None:
    """The host's network that an adapter stands on; ``None`` when the host has no such network."""
    backing = card.backing
    port, network = getattr(backing, "port", None), getattr(backing, "network", None)
    if port is not None:
        found = host.networks.get(port.portgroupKey or "")
        right = found is not None and port.switchUuid in (None, "", getattr(found, "switch_uuid", None))
        return found if right else None
    if network is not None:
        return host.networks.get(network._moId)
    name = getattr(backing, "deviceName", None)
    return next((one for one in host.networks.values() if one.name == name), None)


def networks_of(host: HostSystem, config: Any) -> list[Network]:
    """The networks of all adapters, each once, in order."""
    found = (network_of(host, card) for card in cards_of(config))
    return list(dict.fromkeys(network for network in found if network is not None))


# Power-on ----------------------------------------------------------------------------------------------------------


def pinned(config: Any) -> list[Any]:
    """Devices that tie a running VM to its host and need all its memory reserved."""
    return [device for device in config.hardware.device if isinstance(device, Passthrough | Sriov)]


def _card_of(device: Any) -> str:
    """Id of the host's card behind a passthrough device or an SR-IOV adapter; empty when it names none."""
    backing = device.backing if isinstance(device, Passthrough) else device.sriovBacking
    if isinstance(device, Sriov) and backing is not None:
        backing = backing.physicalFunctionBacking
    return getattr(backing, "id", None) or ""


def start_fault(vm: VirtualMachine, config: Any) -> Any:
    """What a power-on fails with when the VM's cards do not go (reservation, cards in use); ``None`` if they do."""
    devices = pinned(config)
    if not devices:
        return None
    if vm.reserved_mb < vm.memory_mb:
        return _config_fault(
            f"Invalid memory setting: memory reservation (sched.mem.min) should be equal to memsize({vm.memory_mb})."
        )
    running = (one for one in vm.host.vms.values() if one.on and one is not vm and one.configured)
    others = [device for one in running for device in pinned(one.prop_config())]
    used = Counter(_card_of(device) for device in [*others, *devices])
    room = {card: functions or 1 for card, _, _, functions in CARDS}
    full = next((card for card in map(_card_of, devices) if used[card] > room.get(card, 0)), None)
    return _config_fault(f"Device {full} of host {vm.host.name} is in use.") if full is not None else None


def _config_fault(reason: str) -> Any:
    return vim.fault.GenericVmConfigFault(reason=reason, msg=reason)
