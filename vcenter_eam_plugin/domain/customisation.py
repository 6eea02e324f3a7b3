# SPDX-License-Identifier: Apache-2.0
"""The difference between a ContrailVM as it is and as it is to be.

A pure comparison: applied once, a second one finds nothing. What the specification does not name is left alone.

Adapters are kept in order, because the vRouter tells them apart by it: those that are in place are edited, and from the
first one that cannot become what is wanted all are taken out and put in again.

Not promised: that the server accepts the changes, or that they still fit when they are sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.facts import VmPower
from vcenter_eam_plugin.domain.host_spec import HostSpec, NetworkKind, NicSpec, PciSpec, SriovSpec, is_model

VMXNET3 = "vmxnet3"


class StepImpossible(ConfigurationError):
    """What is wanted does not fit host or VM. ``step`` is the first of the steps that cannot be done."""

    def __init__(self, message: str, *, step: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.step = step


# --- what there is ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOffer:
    """A network of the host. ``kind`` ``None`` is one that no adapter of ours can be put on (an opaque network).

    ``switch`` and ``switch_uuid`` are of the distributed switch; a standard port group has none.
    """

    moref: str
    name: str
    kind: NetworkKind | None
    switch: str = ""
    switch_uuid: str = ""
    portgroup_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PciOffer:
    """A PCI device of the host. ``id`` is its address, ``model`` vendor and device (``8086:1572``).

    ``passthrough`` and ``sriov`` tell whether the host has handed it out for that; both take a reboot of the host.
    """

    id: str
    model: str
    name: str = ""
    passthrough: bool = False
    sriov: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NicShape:
    """A network adapter. ``network`` is the moref, ``None`` when it is on none or on an unknown one."""

    key: int
    kind: str
    network: str | None
    mac: str
    manual: bool
    connects: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SriovShape:
    """An SR-IOV card. ``device`` is the address of the physical function."""

    key: int
    device: str
    network: str | None
    mac: str
    manual: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PciShape:
    """A device of the host that is passed through."""

    key: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VmShape:
    """A VM as it is, with what its host offers. Lists are in the order in which the guest sees them.

    ``host_devices`` is ``None`` when they were not read. ``extra`` holds the ``guestinfo.*`` keys alone.
    """

    moref: str
    name: str
    host: str
    host_name: str
    power: VmPower
    cpus: int
    cores_per_socket: int
    memory_mb: int
    memory_locked: bool
    memory_reservation_mb: int
    cpu_reservation_mhz: int
    nics: tuple[NicShape, ...]
    sriov: tuple[SriovShape, ...] = ()
    pci: tuple[PciShape, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    host_networks: tuple[NetworkOffer, ...] = ()
    host_devices: tuple[PciOffer, ...] | None = None


# --- what is to be done ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetCpus:
    """``cores_per_socket`` is given when the present number would not divide ``cpus``."""

    cpus: int
    cores_per_socket: int | None = None

    @property
    def text(self) -> str:
        return f"set {self.cpus} CPUs"


@dataclass(frozen=True, slots=True)
class SetMemory:
    mb: int

    @property
    def text(self) -> str:
        return f"set {self.mb} MB of memory"


@dataclass(frozen=True, slots=True)
class ReserveMemory:
    """All of it. ``mb`` is the VM's memory as it will be."""

    mb: int

    @property
    def text(self) -> str:
        return f"reserve all memory ({self.mb} MB)"


@dataclass(frozen=True, slots=True)
class ReserveCpu:
    mhz: int

    @property
    def text(self) -> str:
        return f"reserve {self.mhz} MHz"


@dataclass(frozen=True, slots=True)
class RemoveDevice:
    key: int
    what: str

    @property
    def text(self) -> str:
        return f"remove {self.what}"


@dataclass(frozen=True, slots=True)
class PutNic:
    """Edit the adapter ``key``, or add one when it is ``None``. ``network`` ``None`` leaves it where it is."""

    number: int
    key: int | None
    network: NetworkOffer | None
    mac: str

    @property
    def text(self) -> str:
        where = f" on {self.network.name}" if self.network else ""
        return f"{'add' if self.key is None else 'set'} network adapter {self.number}{where} with MAC {self.mac}"


@dataclass(frozen=True, slots=True)
class PutSriov:
    """Edit the SR-IOV card ``key``, or add one when it is ``None``."""

    number: int
    key: int | None
    device: PciOffer
    network: NetworkOffer
    mac: str

    @property
    def text(self) -> str:
        verb = "add" if self.key is None else "set"
        return f"{verb} SR-IOV card {self.number} of {self.device.id} on {self.network.name} with MAC {self.mac}"


@dataclass(frozen=True, slots=True)
class AddPci:
    device: PciOffer

    @property
    def text(self) -> str:
        return f"pass through PCI device {self.device.id}"


@dataclass(frozen=True, slots=True)
class SetExtra:
    key: str
    value: str

    @property
    def text(self) -> str:
        return f"set {self.key}"


@dataclass(frozen=True, slots=True)
class Rename:
    name: str

    @property
    def text(self) -> str:
        return f"rename to {self.name}"


Change = (
    SetCpus | SetMemory | ReserveMemory | ReserveCpu | RemoveDevice | PutNic | PutSriov | AddPci | SetExtra | Rename
)


# --- the comparison --------------------------------------------------------------------------------------


def plan_customisation(spec: HostSpec, shape: VmShape) -> tuple[Change, ...]:
    """What to change, in order; empty when the VM is as wanted.

    Raises StepImpossible, naming every step that the host or the VM does not allow, with its line in the file.
    """
    comparison = _Comparison(spec, shape)
    changes = comparison.changes()
    if comparison.problems:
        raise StepImpossible(
            f"{shape.name} on {shape.host_name}: " + "; ".join(text for _, text in comparison.problems) + ".",
            step=comparison.problems[0][0],
            remedy="Correct the host or the file; the ContrailVM stays held meanwhile.",
        )
    return tuple(changes)


class _Comparison:
    """One comparison; ``problems`` are (step, sentence)."""

    def __init__(self, spec: HostSpec, shape: VmShape) -> None:
        self.spec = spec
        self.shape = shape
        self.problems: list[tuple[str, str]] = []

    def changes(self) -> list[Change]:
        found: list[Change] = [*self._sizes(), *self._nics(), *self._sriov(), *self._pci()]
        found += [SetExtra(k, v) for k, v in sorted(self.spec.guestinfo.items()) if self.shape.extra.get(k) != v]
        if self.spec.vm_name != self.shape.name:
            found.append(Rename(self.spec.vm_name))
        return found

    def _sizes(self) -> list[Change]:
        spec, shape = self.spec, self.shape
        found: list[Change] = []
        if spec.cpus is not None and spec.cpus != shape.cpus:
            # the server refuses a number of CPUs that does not fill its sockets
            found.append(SetCpus(spec.cpus, 1 if spec.cpus % shape.cores_per_socket else None))
        memory = shape.memory_mb if spec.memory_mb is None else spec.memory_mb
        if memory != shape.memory_mb:
            found.append(SetMemory(memory))
        if spec.reserve_memory and not (shape.memory_locked and shape.memory_reservation_mb == memory):
            found.append(ReserveMemory(memory))
        if spec.cpu_reservation_mhz is not None and spec.cpu_reservation_mhz != shape.cpu_reservation_mhz:
            found.append(ReserveCpu(spec.cpu_reservation_mhz))
        return found

    def _nics(self) -> list[Change]:
        found: list[Change] = []
        kept = 0  # adapters that stay, at their place
        for nic, _ in zip(self.shape.nics, self.spec.networks, strict=False):
            if self.spec.exact_networks and nic.kind != VMXNET3:
                break
            kept += 1
        if self.spec.exact_networks:
            surplus = list(enumerate(self.shape.nics))[kept:]
            found += [RemoveDevice(nic.key, f"network adapter {at + 1} ({nic.kind})") for at, nic in surplus]
        for number, wanted in enumerate(self.spec.networks):
            present = self.shape.nics[number] if number < len(self.shape.nics) else None
            network = self._network_for(f"network {number + 1}", wanted, present, stays=number < kept)
            mac = wanted.mac or ""
            if number >= kept:
                if network is not None:
                    found.append(PutNic(number + 1, None, network, mac))
                continue
            assert present is not None
            moved = network is not None and network.moref != present.network
            if moved or not present.manual or present.mac.lower() != mac or not present.connects:
                found.append(PutNic(number + 1, present.key, network if moved else None, mac))
        return found

    def _network_for(self, step: str, wanted: NicSpec, present: NicShape | None, *, stays: bool) -> NetworkOffer | None:
        if wanted.port_group is not None:
            return self._network(step, wanted)
        if present is None:
            self._cannot(step, wanted.line, "names no port group, and the VM has no such adapter to be left as it is")
            return None
        if stays:
            return None
        # Made anew, but where EAM had put it.
        offer = next((one for one in self.shape.host_networks if one.moref == present.network), None)
        if offer is None or offer.kind is None:
            self._cannot(step, wanted.line, "must be made anew, and is on an unknown network; name its port group")
            return None
        return offer

    def _network(self, step: str, wanted: NicSpec | SriovSpec) -> NetworkOffer | None:
        named = [one for one in self.shape.host_networks if one.name == wanted.port_group]
        fitting = [
            one
            for one in named
            if one.kind is not None
            and wanted.kind in {None, one.kind}
            and (wanted.switch is None or wanted.switch == one.switch)
        ]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            where = ", ".join(sorted(one.switch or "standard" for one in fitting))
            self._cannot(
                step,
                wanted.line,
                f"port group {wanted.port_group!r} is there more than once ({where}); name the switch",
            )
        elif named:
            kinds = ", ".join(sorted(f"{one.kind or 'opaque'} {one.switch}".strip() for one in named))
            self._cannot(step, wanted.line, f"port group {wanted.port_group!r} is another than asked for: {kinds}")
        else:
            names = ", ".join(sorted({one.name for one in self.shape.host_networks if one.kind})) or "none"
            self._cannot(step, wanted.line, f"port group {wanted.port_group!r} is not on the host; it has: {names}")
        return None

    def _sriov(self) -> list[Change]:
        if self.spec.sr_iov is None:
            return []
        found: list[Change] = []
        wanted = [self._sriov_parts(number, card) for number, card in enumerate(self.spec.sr_iov)]
        kept = 0
        for card, (device, _, _) in zip(self.shape.sriov, wanted, strict=False):
            if device is None or card.device != device.id:
                break
            kept += 1
        found += [RemoveDevice(card.key, f"SR-IOV card of {card.device}") for card in self.shape.sriov[kept:]]
        for number, (device, network, mac) in enumerate(wanted):
            if device is None or network is None:
                continue
            if number >= kept:
                found.append(PutSriov(number + 1, None, device, network, mac))
                continue
            present = self.shape.sriov[number]
            if present.network != network.moref or not present.manual or present.mac.lower() != mac:
                found.append(PutSriov(number + 1, present.key, device, network, mac))
        return found

    def _sriov_parts(self, number: int, card: SriovSpec) -> tuple[PciOffer | None, NetworkOffer | None, str]:
        step = f"SR-IOV card {number + 1}"
        network = self._network(step, card)
        present = self.shape.sriov[number].device if number < len(self.shape.sriov) else None
        candidates = self._candidates(step, card.line, card.device)
        ready = [one for one in candidates if one.sriov]
        if candidates and not ready:
            self._cannot(step, card.line, f"SR-IOV is not active on {_listed(candidates)}; enable it on the host")
        # several cards may share one physical function
        device = next((one for one in ready if one.id == present), ready[0] if ready else None)
        return device, network, card.mac or ""

    def _pci(self) -> list[Change]:
        if self.spec.pci_passthrough is None:
            return []
        present = {one.device: one for one in self.shape.pci}
        chosen: list[PciOffer] = []
        # Addresses first: a device that is named must not be taken by a rule for its model.
        for number, wanted in sorted(enumerate(self.spec.pci_passthrough), key=lambda pair: is_model(pair[1].device)):
            device = self._device(f"PCI device {number + 1}", wanted, {one.id for one in chosen}, present)
            if device is not None:
                chosen.append(device)
        keep = {one.id for one in chosen}
        found: list[Change] = [
            RemoveDevice(one.key, f"PCI device {one.device}") for one in self.shape.pci if one.device not in keep
        ]
        found += [AddPci(one) for one in sorted(chosen, key=lambda one: one.id) if one.id not in present]
        return found

    def _device(self, step: str, wanted: PciSpec, taken: set[str], present: Mapping[str, PciShape]) -> PciOffer | None:
        candidates = self._candidates(step, wanted.line, wanted.device)
        # What the VM has already counts as ready: while it is in use the host may show it otherwise.
        ready = [one for one in candidates if one.passthrough or one.id in present]
        if candidates and not ready:
            self._cannot(
                step, wanted.line, f"passthrough is not active on {_listed(candidates)}; enable it on the host"
            )
            return None
        free = sorted((one for one in ready if one.id not in taken), key=lambda one: (one.id not in present, one.id))
        if ready and not free:
            self._cannot(step, wanted.line, f"the host has only {len(ready)} of {wanted.device} ready for passthrough")
        return free[0] if free else None

    def _candidates(self, step: str, line: int, device: str) -> list[PciOffer]:
        offers = self.shape.host_devices
        if offers is None:
            self._cannot(step, line, "the host's PCI devices are not known")
            return []
        found = sorted((one for one in offers if device in {one.id, one.model}), key=lambda one: one.id)
        if not found:
            ready = _listed([one for one in offers if one.passthrough or one.sriov])
            self._cannot(step, line, f"the host has no PCI device {device}; ready for a VM are: {ready}")
        return found

    def _cannot(self, step: str, line: int, why: str) -> None:
        where = f" ({self.spec.source}, line {line})" if self.spec.source and line else ""
        self.problems.append((step, f"{step}{where}: {why}"))


def _listed(devices: Sequence[PciOffer]) -> str:
    return ", ".join(f"{one.id} ({one.model})" for one in devices) or "none"
