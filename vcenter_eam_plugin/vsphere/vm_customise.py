# SPDX-License-Identifier: Apache-2.0
"""Reads a ContrailVM as it is, and makes it what it is to be: one reconfiguration and one renaming.

Only while the VM is off; a name can be given at any time. The reconfiguration carries the version that the change
was made for, so that it never goes over somebody else's. Whether it had its effect is read afterwards.

Not promised: that a VM with passed-through devices starts; whether a device is free shows at power-on alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyVmomi import vim
from pyVmomi.VmomiSupport import long

from vcenter_eam_plugin.domain.customisation import (
    VMXNET3,
    AddPci,
    Change,
    NetworkOffer,
    NicShape,
    PciOffer,
    PciShape,
    PutNic,
    PutSriov,
    RemoveDevice,
    Rename,
    ReserveCpu,
    ReserveMemory,
    SetCpus,
    SetExtra,
    SetMemory,
    SriovShape,
    VmShape,
    plan_customisation,
)
from vcenter_eam_plugin.domain.errors import PluginError, Unavailable, WrongState
from vcenter_eam_plugin.domain.facts import VmPower
from vcenter_eam_plugin.domain.host_spec import HostSpec, NetworkKind, pci_id
from vcenter_eam_plugin.vsphere.properties import (
    Read,
    filter_spec,
    object_spec,
    property_spec,
    read_objects,
    retrieve,
    traversal,
)
from vcenter_eam_plugin.vsphere.session import Session
from vcenter_eam_plugin.vsphere.tasks import run_task

#: Reading, changing and reading again converges at once, unless the server numbers the adapters otherwise than it was
#: asked to; then the second round puts that right.
ROUNDS = 3
GUESTINFO = "guestinfo."

_VM_PATHS = (
    "name",
    "runtime.host",
    "runtime.powerState",
    "config.changeVersion",
    "config.hardware",
    "config.extraConfig",
    "config.memoryReservationLockedToMax",
    "config.memoryAllocation",
    "config.cpuAllocation",
)
_HOST_PATHS = ("name",)
_DEVICE_PATHS = ("hardware.pciDevice", "config.pciPassthruInfo")
_device = vim.vm.device
_Operation = _device.VirtualDeviceSpec.Operation
_MANUAL = "manual"
"""``VirtualEthernetCardMacType`` of an address that somebody gave."""


def customise(
    session: Session,
    vm: str,
    spec: HostSpec,
    *,
    rename: bool = True,
    before_write: Callable[[], None] = lambda: None,
) -> tuple[Change, ...]:
    """Make the VM what ``spec`` wants, and see that it is. What was changed; empty when nothing had to be.

    ``rename=False`` is for an upgrade, while the predecessor still has the name: without it the VM keeps EAM's. It
    gets its own by a later call, which renames it even while it is on. ``before_write`` is asked before each request
    that changes something; what it raises ends the work there.

    Raises StepImpossible, or the domain's error that names the step; the VM may then be changed in part.
    """

    def remaining() -> tuple[Change, ...]:
        changes = plan_customisation(spec, read_shape(session, vm, devices=spec.needs_devices))
        return tuple(change for change in changes if rename or not isinstance(change, Rename))

    done: list[Change] = []
    for _ in range(ROUNDS):
        changes = remaining()
        if not changes:
            return tuple(done)
        apply(session, vm, changes, before_write)
        done += changes
    if left := remaining():
        listed = "; ".join(change.text for change in left)
        raise WrongState(f"{session.name}: {vm} was reconfigured {ROUNDS} times and still wants: {listed}.")
    return tuple(done)


# --- reading ---------------------------------------------------------------------------------------------


def read_shape(session: Session, vm: str, *, devices: bool = True) -> VmShape:
    """The VM and what its host offers, in two or three requests. ``devices=False`` leaves out the host's PCI devices.

    Raises ObjectGone when the VM does not exist any more, Unavailable when vCenter cannot show it now.
    """
    session.open()
    read = _read_vm(session, vm)
    host = read.props["runtime.host"]._GetMoId()
    host_name, networks, offers = _read_host(session, host, devices)
    hardware = read.props["config.hardware"]
    by_kind = _sorted_devices(hardware.device)
    return VmShape(
        moref=vm,
        name=read.props["name"],
        host=host,
        host_name=host_name,
        power=VmPower(read.props["runtime.powerState"]),
        cpus=hardware.numCPU,
        cores_per_socket=hardware.numCoresPerSocket or 1,
        memory_mb=int(hardware.memoryMB),
        memory_locked=bool(read.props.get("config.memoryReservationLockedToMax", False)),
        memory_reservation_mb=_reservation(read.props.get("config.memoryAllocation")),
        cpu_reservation_mhz=_reservation(read.props.get("config.cpuAllocation")),
        nics=tuple(_nic_shape(card, networks) for card in by_kind["nic"]),
        sriov=tuple(_sriov_shape(card, networks) for card in by_kind["sriov"]),
        pci=tuple(PciShape(key=one.key, device=_normal(one.backing.id)) for one in by_kind["pci"]),
        extra={
            option.key: str(option.value)
            for option in read.props.get("config.extraConfig") or ()
            if option.key.startswith(GUESTINFO)
        },
        host_networks=networks,
        host_devices=offers,
    )


def _read_vm(session: Session, vm: str) -> Read:
    read = read_objects(session, vim.VirtualMachine, [vm], _VM_PATHS).get(vm)
    if read is None:
        session.call(getattr, vim.VirtualMachine(vm, session.vim_stub()), "name")  # raises ObjectGone if that is why
        raise Unavailable(f"{session.name}: {vm} was answered without its properties; it is not used.")
    missing = [
        path for path in ("name", "runtime.host", "runtime.powerState", "config.hardware") if path not in read.props
    ]
    if missing:
        raise Unavailable(f"{session.name}: vCenter shows no {', '.join(missing)} of {vm}; its host may be away.")
    return read


def _read_host(
    session: Session, host: str, devices: bool
) -> tuple[str, tuple[NetworkOffer, ...], tuple[PciOffer, ...] | None]:
    reference = vim.HostSystem(host, session.vim_stub())
    paths = _HOST_PATHS + (_DEVICE_PATHS if devices else ())
    spec = filter_spec(
        [object_spec(reference, [traversal("network", vim.HostSystem, "network")])],
        [
            property_spec(vim.HostSystem, paths),
            property_spec(vim.Network, ["name"]),
            property_spec(
                vim.dvs.DistributedVirtualPortgroup, ["name", "key", "config.distributedVirtualSwitch", "config.uplink"]
            ),
        ],
    )
    read = retrieve(session, spec)
    itself = next((one for one in read if one.moref == host), None)
    if itself is None:
        raise Unavailable(f"{session.name}: the host {host} was answered without its properties; it is not used.")
    groups = [one for one in read if issubclass(one.kind, vim.Network) and not one.props.get("config.uplink")]
    switches = _read_switches(session, groups)
    offers = None
    if devices and "hardware.pciDevice" in itself.props:
        offers = _pci_offers(itself.props["hardware.pciDevice"], itself.props.get("config.pciPassthruInfo") or ())
    name = itself.props.get("name", host)
    return name, tuple(sorted((_offer(one, switches) for one in groups), key=lambda one: (one.name, one.moref))), offers


def _read_switches(session: Session, groups: Iterable[Read]) -> dict[str, Read]:
    references = [
        one.props["config.distributedVirtualSwitch"] for one in groups if "config.distributedVirtualSwitch" in one.props
    ]
    morefs = {reference._GetMoId() for reference in references}
    return read_objects(session, vim.DistributedVirtualSwitch, sorted(morefs), ["name", "uuid"])


def _offer(read: Read, switches: dict[str, Read]) -> NetworkOffer:
    name = read.props.get("name", read.moref)
    if not issubclass(read.kind, vim.dvs.DistributedVirtualPortgroup):
        kind = None if issubclass(read.kind, vim.OpaqueNetwork) else NetworkKind.STANDARD
        return NetworkOffer(moref=read.moref, name=name, kind=kind)
    reference = read.props.get("config.distributedVirtualSwitch")
    switch = switches.get(reference._GetMoId()) if reference is not None else None
    # Without its switch's uuid nothing can be connected to a distributed port group.
    return NetworkOffer(
        moref=read.moref,
        name=name,
        kind=NetworkKind.DISTRIBUTED if switch is not None and "uuid" in switch.props else None,
        switch=switch.props.get("name", "") if switch is not None else "",
        switch_uuid=switch.props.get("uuid", "") if switch is not None else "",
        portgroup_key=read.props.get("key", read.moref),
    )


def _pci_offers(devices: Iterable[Any], states: Iterable[Any]) -> tuple[PciOffer, ...]:
    passthrough = {_normal(state.id) for state in states if state.passthruActive}
    sriov = {_normal(state.id) for state in states if isinstance(state, vim.host.SriovInfo) and state.sriovActive}
    return tuple(
        PciOffer(
            id=_normal(one.id),
            # The API has these as signed 16-bit numbers.
            model=f"{one.vendorId & 0xFFFF:04x}:{one.deviceId & 0xFFFF:04x}",
            name=one.deviceName or "",
            passthrough=_normal(one.id) in passthrough,
            sriov=_normal(one.id) in sriov,
        )
        for one in devices
    )


def _normal(device: str | None) -> str:
    """An address as the domain writes it; older hosts leave the PCI domain away. Other text is kept."""
    try:
        return pci_id(device or "")
    except ValueError:
        return device or ""


def _reservation(allocation: Any) -> int:
    return int(getattr(allocation, "reservation", None) or 0)


def _sorted_devices(devices: Iterable[Any]) -> dict[str, list[Any]]:
    """Adapters, SR-IOV cards and passed-through devices, by key: the guest sees them in that order."""
    found: dict[str, list[Any]] = {"nic": [], "sriov": [], "pci": []}
    for one in sorted(devices, key=lambda device: int(device.key)):
        if isinstance(one, _device.VirtualSriovEthernetCard):
            found["sriov"].append(one)
        elif isinstance(one, _device.VirtualEthernetCard):
            found["nic"].append(one)
        elif isinstance(one, _device.VirtualPCIPassthrough) and isinstance(
            one.backing, _device.VirtualPCIPassthrough.DeviceBackingInfo
        ):
            found["pci"].append(one)
    return found


def _nic_shape(card: Any, networks: Sequence[NetworkOffer]) -> NicShape:
    kind = type(card).__name__.rpartition(".")[2].removeprefix("Virtual").lower()
    return NicShape(
        key=card.key,
        kind=VMXNET3 if type(card) is _device.VirtualVmxnet3 else kind,
        network=_network_of(card.backing, networks),
        mac=(card.macAddress or "").lower(),
        manual=(card.addressType or "").lower() == _MANUAL,
        connects=card.connectable is None or bool(card.connectable.startConnected),
    )


def _sriov_shape(card: Any, networks: Sequence[NetworkOffer]) -> SriovShape:
    physical = card.sriovBacking.physicalFunctionBacking if card.sriovBacking is not None else None
    return SriovShape(
        key=card.key,
        device=_normal(physical.id) if physical is not None else "",
        network=_network_of(card.backing, networks),
        mac=(card.macAddress or "").lower(),
        manual=(card.addressType or "").lower() == _MANUAL,
    )


def _network_of(backing: Any, networks: Sequence[NetworkOffer]) -> str | None:
    if isinstance(backing, _device.VirtualEthernetCard.DistributedVirtualPortBackingInfo):
        key = backing.port.portgroupKey
        return next((one.moref for one in networks if one.portgroup_key and one.portgroup_key == key), None)
    if isinstance(backing, _device.VirtualEthernetCard.NetworkBackingInfo):
        if backing.network is not None:
            return str(backing.network._GetMoId())
        standard = (one for one in networks if one.kind is NetworkKind.STANDARD)
        return next((one.moref for one in standard if one.name == backing.deviceName), None)
    return None


# --- changing --------------------------------------------------------------------------------------------


def apply(
    session: Session, vm: str, changes: Sequence[Change], before_write: Callable[[], None] = lambda: None
) -> None:
    """Carry the changes out: one reconfiguration, all or nothing, then the new name. Nothing for no changes.

    A new name alone is given while the VM is on, too. Raises WrongState when it is not off or was changed since, and
    the domain's error that names the step.
    """
    if not changes:
        return
    session.open()
    target = vim.VirtualMachine(vm, session.vim_stub())
    read = _read_vm(session, vm)
    name = read.props["name"]
    renames = [change for change in changes if isinstance(change, Rename)]
    rest = [change for change in changes if not isinstance(change, Rename)]
    power = read.props["runtime.powerState"]
    if rest and power != VmPower.POWERED_OFF:
        raise WrongState(f"{session.name}: {name} ({vm}) is {power}; a ContrailVM is changed only while it is off.")
    if rest:
        builder = _SpecBuilder(session, target, read)
        spec = builder.build(rest)
        before_write()
        try:
            run_task(session, target.ReconfigVM_Task, spec)
        except PluginError as exc:
            step = builder.step_of(exc.__cause__) or "; ".join(change.text for change in rest)
            raise _at_step(exc, name, step) from exc
    for change in renames:
        before_write()
        try:
            run_task(session, target.Rename_Task, change.name)
        except PluginError as exc:
            raise _at_step(exc, name, change.text) from exc


def _at_step(exc: PluginError, name: str, step: str) -> PluginError:
    """The same kind of error, which tells at what it happened."""
    return type(exc)(f"{name}: {step}: {exc.message}", remedy=exc.remedy)


class _SpecBuilder:
    """One ``ConfigSpec`` from changes. Devices are edited from what was read, so that nothing else in them is lost."""

    def __init__(self, session: Session, target: Any, read: Read) -> None:
        self._session = session
        self._target = target
        self._read = read
        self._devices = {one.key: one for one in read.props["config.hardware"].device}
        self._target_pci: dict[str, Any] | None = None
        self._device_steps: list[Change] = []

    def build(self, changes: Sequence[Change]) -> Any:
        spec = vim.vm.ConfigSpec(changeVersion=self._read.props.get("config.changeVersion"))
        for change in changes:
            match change:
                case SetCpus():
                    spec.numCPUs = change.cpus
                    spec.numCoresPerSocket = change.cores_per_socket
                case SetMemory():
                    spec.memoryMB = long(change.mb)
                case ReserveMemory():
                    spec.memoryReservationLockedToMax = True
                    spec.memoryAllocation = vim.ResourceAllocationInfo(reservation=long(change.mb))
                case ReserveCpu():
                    spec.cpuAllocation = vim.ResourceAllocationInfo(reservation=long(change.mhz))
                case SetExtra():
                    spec.extraConfig.append(vim.option.OptionValue(key=change.key, value=change.value))
                case RemoveDevice() | PutNic() | PutSriov() | AddPci():
                    spec.deviceChange.append(self._device_change(change, -100 - len(self._device_steps)))
                    self._device_steps.append(change)
        return spec

    def step_of(self, fault: Any) -> str:
        """Which device a fault is about; empty when it does not say."""
        index = getattr(fault, "deviceIndex", None)
        steps = self._device_steps
        return steps[index].text if isinstance(index, int) and 0 <= index < len(steps) else ""

    def _device_change(self, change: RemoveDevice | PutNic | PutSriov | AddPci, new_key: int) -> Any:
        """``new_key`` is negative: the server gives the real one, in the order of the changes."""
        match change:
            case RemoveDevice():
                return _change(_Operation.remove, self._present(change.key, change.text))
            case PutNic():
                return self._put_nic(change, new_key)
            case PutSriov():
                return self._put_sriov(change, new_key)
            case AddPci():
                card = _device.VirtualPCIPassthrough(
                    key=new_key, backing=self._pci_backing(change.device.id, "pciPassthrough", change.text)
                )
                return _change(_Operation.add, card)

    def _put_nic(self, change: PutNic, new_key: int) -> Any:
        if change.key is None:
            card = _device.VirtualVmxnet3(key=new_key, wakeOnLanEnabled=True)
        else:
            card = self._present(change.key, change.text)
        return self._put_card(card, change.key is None, change.network, change.mac)

    def _put_sriov(self, change: PutSriov, new_key: int) -> Any:
        if change.key is None:
            backing = self._pci_backing(change.device.id, "sriov", change.text)
            card = _device.VirtualSriovEthernetCard(
                key=new_key,
                sriovBacking=_device.VirtualSriovEthernetCard.SriovBackingInfo(physicalFunctionBacking=backing),
            )
        else:
            card = self._present(change.key, change.text)
        return self._put_card(card, change.key is None, change.network, change.mac)

    def _put_card(self, card: Any, add: bool, network: NetworkOffer | None, mac: str) -> Any:
        if network is not None:
            card.backing = _network_backing(network)
        card.addressType = _MANUAL
        card.macAddress = mac
        connectable = card.connectable or _device.VirtualDevice.ConnectInfo(allowGuestControl=True, connected=False)
        connectable.startConnected = True
        card.connectable = connectable
        return _change(_Operation.add if add else _Operation.edit, card)

    def _present(self, key: int, step: str) -> Any:
        found = self._devices.get(key)
        if found is None:
            raise WrongState(f"{self._session.name}: {step}: the VM has no device {key} any more.")
        return copy.deepcopy(found)

    def _pci_backing(self, device: str, kind: str, step: str) -> Any:
        """What names a host's device to a VM. The host's system id stands in the configuration target alone."""
        if self._target_pci is None:
            browser = self._session.call(getattr, self._target, "environmentBrowser")
            offer = self._session.call(browser.QueryConfigTarget, self._read.props["runtime.host"])
            self._target_pci = {
                f"{name} {_normal(one.pciDevice.id)}": one
                for name in ("pciPassthrough", "sriov")
                for one in getattr(offer, name, None) or ()
            }
        found = self._target_pci.get(f"{kind} {device}")
        if found is None:
            raise WrongState(f"{self._session.name}: {step}: the host does not offer it to virtual machines now.")
        one = found.pciDevice
        return _device.VirtualPCIPassthrough.DeviceBackingInfo(
            id=one.id,
            deviceId=f"{one.deviceId & 0xFFFF:x}",
            vendorId=one.vendorId,
            systemId=found.systemId,
            deviceName=one.deviceName or "",
        )


def _change(operation: Any, device: Any) -> Any:
    return _device.VirtualDeviceSpec(operation=operation, device=device)


def _network_backing(network: NetworkOffer) -> Any:
    if network.kind is NetworkKind.DISTRIBUTED:
        port = vim.dvs.PortConnection(switchUuid=network.switch_uuid, portgroupKey=network.portgroup_key)
        return _device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=port)
    return _device.VirtualEthernetCard.NetworkBackingInfo(deviceName=network.name, network=vim.Network(network.moref))
