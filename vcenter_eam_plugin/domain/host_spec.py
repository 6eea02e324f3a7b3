# SPDX-License-Identifier: Apache-2.0
"""What the ContrailVM of each host is to look like: defaults, patterns, and what is said of single hosts.

Three kinds of layers, each over the one before: the defaults, every pattern that fits (in their order), the host's own
entry. A value of a later layer replaces an earlier one, lists as a whole; ``guestinfo`` alone is merged by key. So a
host that nobody wrote down gets the defaults and whatever patterns fit it.

MAC addresses that are not given are derived from the host's key, so that a ContrailVM that EAM made anew has those of
its predecessor.

Not promised: that the host has what is asked for; :mod:`~vcenter_eam_plugin.domain.customisation` tells.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from fnmatch import fnmatchcase

from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.settings_rules import SettingsRules

#: Contrail's other services know a ContrailVM by this beginning of its name.
NAME_PREFIX = "ContrailVM"
DEFAULT_NAME = "ContrailVM-{datacenter}-{host}"
#: vCenter's longest name of a virtual machine.
NAME_LIMIT = 80
#: Network adapters, SR-IOV cards included, that a virtual machine can have.
ADAPTER_LIMIT = 10
#: Mistakes of single hosts that are told at once; all of these hosts are refused all the same.
MOST_TOLD = 100
PLACEHOLDERS = ("datacenter", "cluster", "host")

_PLACEHOLDER = re.compile(r"\{(\w*)\}")
#: First derived address. VMware keeps 00:50:56:00:00:00 to 00:50:56:3F:FF:FF for addresses that are set by hand.
_FIRST_MAC = 0x005056000000
#: Of the 22 free bits the lowest four count a VM's adapters; the rest is for the host.
_ADAPTER_BITS = 4
_HOST_NUMBERS = 1 << (22 - _ADAPTER_BITS)
#: Derived addresses of SR-IOV cards come after those of the virtual adapters.
_FIRST_SRIOV = ADAPTER_LIMIT
SRIOV_LIMIT = (1 << _ADAPTER_BITS) - _FIRST_SRIOV


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentity:
    """What rules go by. ``key`` is ``<host moref>.<vCenter instanceUuid>``, ``vcenter`` the vCenter's name."""

    key: str
    name: str
    cluster: str
    datacenter: str
    vcenter: str = ""


class NetworkKind(StrEnum):
    """What a port group is part of."""

    STANDARD = "standard"
    DISTRIBUTED = "distributed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NicSpec:
    """One vmxnet3 adapter. Without ``port_group`` it stays where EAM put it; ``mac`` ``None`` means derived.

    ``switch`` and ``kind`` tell port groups of the same name apart. ``line`` is where it was written, for errors.
    """

    port_group: str | None = None
    switch: str | None = None
    kind: NetworkKind | None = None
    mac: str | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SriovSpec:
    """One SR-IOV card: a virtual function of the physical function ``device`` on a port group."""

    device: str
    port_group: str
    switch: str | None = None
    kind: NetworkKind | None = None
    mac: str | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PciSpec:
    """A host's device to be passed through: an address (``0000:04:00.0``), or vendor and device (``8086:1572``)."""

    device: str
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one part of the file says; ``None`` says nothing. ``guestinfo`` values ``None`` take a key back."""

    line: int = 0
    vm_name: str | None = None
    cpus: int | None = None
    memory_mb: int | None = None
    reserve_memory: bool | None = None
    cpu_reservation_mhz: int | None = None
    networks: tuple[NicSpec, ...] | None = None
    macs: tuple[str | None, ...] | None = None
    sr_iov: tuple[SriovSpec, ...] | None = None
    pci_passthrough: tuple[PciSpec, ...] | None = None
    guestinfo: Mapping[str, str | None] | None = None
    datastores: tuple[str, ...] | None = None
    agent_networks: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Shell patterns, compared without regard to case; ``None`` fits everything."""

    host: str | None = None
    cluster: str | None = None
    datacenter: str | None = None
    vcenter: str | None = None

    def fits(self, host: HostIdentity) -> bool:
        pairs = (
            (self.host, host.name),
            (self.cluster, host.cluster),
            (self.datacenter, host.datacenter),
            (self.vcenter, host.vcenter),
        )
        return all(pattern is None or fnmatchcase(name.lower(), pattern.lower()) for pattern, name in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A layer for all hosts that fit."""

    match: Match
    layer: Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEntry:
    """What is said of one host. Names are compared as they are, without regard to case; ``None`` fits all.

    ``problems`` are what is wrong with this entry, each with its line: this host is refused, the others go on.
    """

    name: str
    line: int
    cluster: str | None = None
    datacenter: str | None = None
    vcenter: str | None = None
    layer: Layer = Layer()
    problems: tuple[str, ...] = ()

    def fits(self, host: HostIdentity) -> bool:
        pairs = (
            (self.name, host.name),
            (self.cluster, host.cluster),
            (self.datacenter, host.datacenter),
            (self.vcenter, host.vcenter),
        )
        return all(wanted is None or wanted.lower() == name.lower() for wanted, name in pairs)

    def overlaps(self, other: HostEntry) -> bool:
        """True when one host could fit both."""
        pairs = (
            (self.name, other.name),
            (self.cluster, other.cluster),
            (self.datacenter, other.datacenter),
            (self.vcenter, other.vcenter),
        )
        return all(a is None or b is None or a.lower() == b.lower() for a, b in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """What one host's ContrailVM is to look like. ``None`` leaves something as EAM made it.

    ``networks`` are in order, with every MAC address known; ``exact_networks`` says that there are to be no others.
    ``guestinfo`` has full keys (``guestinfo.x``). ``source`` is the file it comes from, for errors.
    """

    vm_name: str
    cpus: int | None = None
    memory_mb: int | None = None
    reserve_memory: bool = False
    cpu_reservation_mhz: int | None = None
    networks: tuple[NicSpec, ...] = ()
    exact_networks: bool = False
    sr_iov: tuple[SriovSpec, ...] | None = None
    pci_passthrough: tuple[PciSpec, ...] | None = None
    guestinfo: Mapping[str, str] = field(default_factory=dict)
    datastores: tuple[str, ...] | None = None
    agent_networks: tuple[str, ...] | None = None
    source: str = ""

    @property
    def needs_devices(self) -> bool:
        """True when the host's PCI devices matter; reading them costs."""
        return bool(self.sr_iov or self.pci_passthrough)

    def settings_rules(self, rules: SettingsRules) -> SettingsRules:
        """The rules for this host's Agent VM settings: what the file says of the host goes before ``rules``."""
        return SettingsRules(
            datastores=rules.datastores if self.datastores is None else self.datastores,
            networks=rules.networks if self.agent_networks is None else self.agent_networks,
        )


class HostSpecs:
    """The whole file; or, without arguments, no file: then ContrailVMs are named, and nothing else is changed."""

    def __init__(
        self,
        *,
        source: str = "",
        defaults: Layer | None = None,
        patterns: Sequence[Pattern] = (),
        hosts: Sequence[HostEntry] = (),
        vm_name_format: str = DEFAULT_NAME,
    ) -> None:
        self.source = source
        self._defaults = Layer() if defaults is None else defaults
        self._patterns = tuple(patterns)
        self._hosts = tuple(hosts)
        self._name_format = vm_name_format
        self._by_name: dict[str, list[HostEntry]] = {}
        for entry in hosts:
            self._by_name.setdefault(entry.name.lower(), []).append(entry)
        self._given = {mac: entry for entry in hosts for mac in given_macs(entry.layer)}

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with single hosts' entries, each with file and line; these hosts are refused.

        Of very many the first :data:`MOST_TOLD`, and how many more.
        """
        told = [f"{self.source}, {problem}" for entry in self._hosts for problem in entry.problems]
        more = [f"and {len(told) - MOST_TOLD} more"] if len(told) > MOST_TOLD else []
        return (*told[:MOST_TOLD], *more)

    def unmatched(self, hosts: Iterable[HostIdentity]) -> tuple[str, ...]:
        """Entries that fit none of ``hosts``, each with file and line: a host name with a slip of the pen."""
        met = {id(entry) for host in hosts for entry in self._entries(host)}
        return tuple(
            f"{self.source}, line {entry.line}: no such host: {entry.name}"
            for entry in self._hosts
            if id(entry) not in met
        )

    def _entries(self, host: HostIdentity) -> list[HostEntry]:
        return [entry for entry in self._by_name.get(host.name.lower(), ()) if entry.fits(host)]

    def for_host(self, host: HostIdentity) -> HostSpec:
        """What is wanted for this host. Raises ConfigurationError when its entry is refused; others go on."""
        entries = self._entries(host)
        if problems := [problem for entry in entries for problem in entry.problems]:
            raise self._refuse(problems)
        layers = [
            self._defaults,
            *(pattern.layer for pattern in self._patterns if pattern.match.fits(host)),
            *(entry.layer for entry in entries),
        ]
        merged = _merge(layers)
        line = max((layer.line for layer in layers), default=0)
        if problems := _contradictions(merged):
            raise self._refuse([f"line {line}: host {host.name}: {problem}" for problem in problems])
        networks = self._with_macs(host, merged)
        sriov = merged.sr_iov
        if sriov is not None:
            sriov = tuple(
                SriovSpec(
                    device=card.device,
                    port_group=card.port_group,
                    switch=card.switch,
                    kind=card.kind,
                    mac=card.mac or self._derived(host, _FIRST_SRIOV + number, card.line),
                    line=card.line,
                )
                for number, card in enumerate(sriov)
            )
        return HostSpec(
            vm_name=vm_name(merged.vm_name or self._name_format, host),
            cpus=merged.cpus,
            memory_mb=merged.memory_mb,
            # A device of the host reads and writes the guest's memory by itself, so none of it may be swapped out.
            reserve_memory=bool(merged.reserve_memory or sriov or merged.pci_passthrough),
            cpu_reservation_mhz=merged.cpu_reservation_mhz,
            networks=networks,
            exact_networks=merged.networks is not None,
            sr_iov=sriov,
            pci_passthrough=merged.pci_passthrough,
            guestinfo={
                key: fill(value, host) for key, value in sorted((merged.guestinfo or {}).items()) if value is not None
            },
            datastores=merged.datastores,
            agent_networks=merged.agent_networks,
            source=self.source,
        )

    def _refuse(self, problems: Sequence[str]) -> ConfigurationError:
        more = [f"and {len(problems) - MOST_TOLD} more"] if len(problems) > MOST_TOLD else []
        return ConfigurationError(
            "; ".join([*(f"{self.source}, {problem}" for problem in problems[:MOST_TOLD]), *more]) + ".",
            remedy="Correct the file; other hosts are not concerned.",
        )

    def _with_macs(self, host: HostIdentity, layer: Layer) -> tuple[NicSpec, ...]:
        macs = layer.macs or ()
        networks = layer.networks
        if networks is None:
            networks = tuple(NicSpec(line=layer.line) for _ in macs)
        return tuple(
            NicSpec(
                port_group=nic.port_group,
                switch=nic.switch,
                kind=nic.kind,
                mac=(macs[number] if number < len(macs) else None) or nic.mac or self._derived(host, number, nic.line),
                line=nic.line,
            )
            for number, nic in enumerate(networks)
        )

    def _derived(self, host: HostIdentity, number: int, line: int) -> str:
        mac = derived_mac(host.key, number)
        owner = self._given.get(mac)
        if owner is not None:
            raise self._refuse(
                [
                    f"line {line}: host {host.name}: the derived address {mac} is given to {owner.name} in line"
                    f" {owner.line}; give one of the two another"
                ]
            )
        return mac


def derived_mac(key: str, number: int) -> str:
    """The MAC address of adapter ``number`` (from 0, at most 15) of the host with this key.

    The same for ever, and different for all hosts of one vCenter as long as the numbers in their morefs differ by less
    than 262,144, since it counts on from those. The start depends on the vCenter; hosts of *different* vCenters may
    meet all the same.
    """
    moref, _, vcenter = key.partition(".")
    digits = re.fullmatch(r"\D*(\d+)", moref)
    counted = int(digits[1]) if digits else uuid.uuid5(uuid.NAMESPACE_OID, key).int
    start = uuid.uuid5(uuid.NAMESPACE_OID, vcenter).int
    value = _FIRST_MAC + ((start + counted) % _HOST_NUMBERS << _ADAPTER_BITS) + number
    return ":".join(f"{value >> shift & 0xFF:02x}" for shift in range(40, -8, -8))


def given_macs(layer: Layer) -> tuple[str, ...]:
    """All MAC addresses that a layer names."""
    nics = [nic.mac for nic in layer.networks or ()]
    cards = [card.mac for card in layer.sr_iov or ()]
    return tuple(mac for mac in (*(layer.macs or ()), *nics, *cards) if mac is not None)


def vm_name(template: str, host: HostIdentity) -> str:
    """A ContrailVM's name: it begins with ``ContrailVM`` and has at most 80 characters, and stays different if cut."""
    name = fill(template, host)
    if not name.startswith(NAME_PREFIX):
        name = f"{NAME_PREFIX}-{name}"
    if len(name) <= NAME_LIMIT:
        return name
    mark = uuid.uuid5(uuid.NAMESPACE_OID, name).hex[:8]
    return f"{name[: NAME_LIMIT - len(mark) - 1]}-{mark}"


def fill(template: str, host: HostIdentity) -> str:
    """``template`` with its placeholders replaced; other braces stay as they are."""
    values = {"datacenter": host.datacenter, "cluster": host.cluster, "host": host.name}
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)


def unknown_placeholder(template: str) -> str:
    """The first ``{name}`` that is none of ours; empty when there is none."""
    return next((name for name in _PLACEHOLDER.findall(template) if name not in PLACEHOLDERS), "")


def _merge(layers: Sequence[Layer]) -> Layer:
    values: dict[str, object] = {}
    guestinfo: dict[str, str | None] = {}
    for layer in layers:
        guestinfo.update(layer.guestinfo or {})
        for one in fields(Layer):
            value = getattr(layer, one.name)
            if value is not None:
                values[one.name] = value
    values["guestinfo"] = guestinfo
    return Layer(**values)  # type: ignore[arg-type] # each value comes from the field of that name


def _contradictions(layer: Layer) -> list[str]:
    """What only shows when all layers are laid over each other."""
    found: list[str] = []
    networks, sriov, pci = layer.networks, layer.sr_iov or (), layer.pci_passthrough or ()
    if networks is not None and layer.macs is not None and len(layer.macs) > len(networks):
        found.append(f"mac names {len(layer.macs)} addresses, but there are {len(networks)} networks")
    adapters = len(networks if networks is not None else layer.macs or ()) + len(sriov)
    if adapters > ADAPTER_LIMIT:
        found.append(f"{adapters} network adapters; a virtual machine can have {ADAPTER_LIMIT}")
    if layer.reserve_memory is False and (sriov or pci):
        found.append("reserve_memory is off, but passthrough devices need all memory reserved")
    if both := {card.device for card in sriov} & {one.device for one in pci}:
        found.append(f"{min(both)} is named under pci_passthrough and under sr_iov")
    names = [*(layer.macs or ()), *(nic.mac for nic in networks or ()), *(card.mac for card in sriov)]
    given = [mac for mac in names if mac is not None]
    if twice := {mac for mac in given if given.count(mac) > 1}:
        found.append(f"the MAC address {min(twice)} is given twice")
    return found


_PCI_ADDRESS = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])")
_PCI_MODEL = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})")


def is_model(device: str) -> bool:
    """True for vendor and device, false for an address."""
    return _PCI_MODEL.fullmatch(device) is not None


def pci_id(text: str) -> str:
    """An address or model in the one form that is compared; ``4:0.0`` is ``0000:04:00.0``. ValueError for others."""
    wanted = text.strip().lower()
    if is_model(wanted):
        return wanted
    parts = _PCI_ADDRESS.fullmatch(wanted)
    if parts is None:
        raise ValueError(f"{text!r} is neither an address (0000:04:00.0) nor vendor and device (8086:1572)")
    domain, bus, slot, function = (int(part or "0", 16) for part in parts.groups())
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
