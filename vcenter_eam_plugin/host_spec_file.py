# SPDX-License-Identifier: Apache-2.0
"""Reads the host specification file: YAML, with the line of every mistake.

The document is never turned into objects by the YAML library: its node tree is walked by the definitions below. So
nothing but text, lists and mappings has a meaning, a MAC address is never taken for a number to the base of 60, and
every value knows its line. Anchors and aliases are refused, because defaults and patterns are there for that, and
because a small file with aliases can be endless.

A mistake in one host's entry refuses that host; one in the defaults, the patterns or the form of the file refuses the
file. The keys of a Contrail API ``node`` (``esxi_info``) are used where they exist.

Not promised: that the hosts, port groups or devices exist; that shows when a ContrailVM is compared with its entry.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vcenter_eam_plugin.domain.credentials import credential_sign
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.host_spec import (
    ADAPTER_LIMIT,
    DEFAULT_NAME,
    SRIOV_LIMIT,
    HostEntry,
    HostSpecs,
    Layer,
    Match,
    NetworkKind,
    NicSpec,
    Pattern,
    PciSpec,
    SriovSpec,
    given_macs,
    pci_id,
    unknown_placeholder,
)

T = TypeVar("T")

#: 2,500 hosts with ten adapters each take about 2 MB.
SIZE_LIMIT = 8 << 20
#: vSphere keeps guestinfo within the VM's configuration file; this is far above what an address or a name needs.
VALUE_LIMIT = 16 << 10
#: Largest virtual machine that vSphere 7 and later know.
CPU_LIMIT = 768
MEMORY_LIMIT_MB = 24 << 20
DERIVED = "derived"
#: The deepest value is in an adapter of a host; more is a mistake.
DEPTH_LIMIT = 32
#: Values, lists and mappings. 2,500 hosts with ten adapters each have 300,000; each takes about 1 kB while it is read.
NODE_LIMIT = 500_000
#: Of the passthrough devices of one virtual machine; above what vSphere allows.
PCI_LIMIT = 64
#: Characters of a name or a pattern; vSphere's own limit for names is 80, for DNS names 255.
TEXT_LIMIT = 1000
#: Mistakes that are told: of the file, and of one host. Nobody reads more at once, and a program that wrote the file
#: made the same one thousands of times.
MOST_PROBLEMS = 100
MOST_PROBLEMS_OF_A_HOST = 10
#: Entries of one name (each for another cluster) that are compared with each other.
MOST_NAMESAKES = 50

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_GUESTINFO_KEY = re.compile(r"guestinfo\.[A-Za-z0-9_.-]+")
#: Written by VMware Tools and by vSphere itself; a value of ours would be overwritten, or break them.
_RESERVED_KEYS = ("guestinfo.ovfenv", "guestinfo.vmtools.", "guestinfo.toolsinfo", "guestinfo.appinfo")
_LOGIN_KEYS = {"username", "password"}
_TRUE, _FALSE = {"true", "yes", "on"}, {"false", "no", "off"}
_PLAIN_TAG = "tag:yaml.org,2002:"
_Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

_NETWORK_ALIASES = {"pg": "port_group", "switch_name": "switch", "sw_type": "type"}
_KINDS = {"standard": NetworkKind.STANDARD, "distributed": NetworkKind.DISTRIBUTED, "dvs": NetworkKind.DISTRIBUTED}


def load(path: Path, *, vm_name_format: str = DEFAULT_NAME) -> HostSpecs:
    """The file's content. Raises ConfigurationError naming file, line and reason for what concerns more than one host.

    What concerns one host alone is in :attr:`HostSpecs.problems`, and raised when that host is asked for.
    """
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"The host specification {path} cannot be read: {exc.strerror}.") from exc
    if len(raw) > SIZE_LIMIT:
        raise ConfigurationError(f"The host specification {path} has {len(raw)} bytes; at most {SIZE_LIMIT} are read.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = raw[: exc.start].count(b"\n") + 1
        raise ConfigurationError(f"{path}, line {line}: not UTF-8.") from exc
    return parse(text, str(path), vm_name_format=vm_name_format)


def parse(text: str, source: str, *, vm_name_format: str = DEFAULT_NAME) -> HostSpecs:
    """As :func:`load`, of text. ``source`` is the name used in errors."""
    try:
        _check_form(text, source)
        root = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{source}{where}: not valid YAML: {exc.problem or exc.context}.") from exc
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: characters that YAML does not have
        raise ConfigurationError(f"{source}: not valid YAML: {exc}.") from exc
    reader = _Reader()
    specs = reader.document(root, source, vm_name_format) if root is not None else None
    if reader.problems:
        listed = "\n".join(f"{source}, {problem}" for problem in _first(reader.sorted_problems(), MOST_PROBLEMS))
        raise ConfigurationError(f"The host specification is not used:\n{listed}")
    return specs or HostSpecs(source=source, vm_name_format=vm_name_format)


def _check_form(text: str, source: str) -> None:
    """Refuse what would make the tree endless or too deep: composing it recurses, in C without a limit."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, _Loader)):
        if number > NODE_LIMIT:
            raise ConfigurationError(f"{source}: more than {NODE_LIMIT} values; that is no host specification.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        where = f"{source}, line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise ConfigurationError(
                f"{where}: anchors and aliases (&, *) are not used here; use defaults or patterns."
            )
        if depth > DEPTH_LIMIT:
            raise ConfigurationError(f"{where}: not valid YAML for this: nested more than {DEPTH_LIMIT} deep.")


class _Mistake(Exception):
    """One mistake at one line; collected, never seen outside."""

    def __init__(self, node: yaml.Node, text: str) -> None:
        super().__init__(text)
        self.line = _line(node)


class _Reader:
    """Walks the node tree. ``problems`` collects; each part goes on after a mistake, so that all are shown at once."""

    def __init__(self) -> None:
        self.problems: list[tuple[int, str]] = []
        self._hints = MOST_PROBLEMS
        """How often a close match is still searched for: each search costs as much as reading some hundred values."""

    def sorted_problems(self) -> tuple[str, ...]:
        return tuple(f"line {line}: {text}" for line, text in sorted(self.problems))

    def _complain(self, node: yaml.Node, text: str) -> None:
        self._keep(_line(node), text)

    def _keep(self, line: int, text: str) -> None:
        if len(self.problems) <= MOST_PROBLEMS:  # one more than is told, so that it shows that there are more
            self.problems.append((line, text))

    # --- the document --------------------------------------------------------------------------------------

    def document(self, root: yaml.Node, source: str, vm_name_format: str) -> HostSpecs:
        parts = self._mapping(root, ("defaults", "patterns", "hosts"), "the file")
        defaults = Layer()
        if (node := parts.get("defaults")) is not None:
            found = self._mapping(node, _LAYER_KEYS, "defaults")
            defaults = self._layer(node, found, shared=True)
        patterns = [self._pattern(node) for node in self._items(parts.get("patterns"), "patterns")]
        hosts = [self._host(node) for node in self._items(parts.get("hosts"), "hosts")]
        return HostSpecs(
            source=source,
            defaults=defaults,
            patterns=[pattern for pattern in patterns if pattern is not None],
            hosts=_cross_checked([host for host in hosts if host is not None]),
            vm_name_format=vm_name_format,
        )

    def _pattern(self, node: yaml.Node) -> Pattern | None:
        found = self._mapping(node, ("match", *_LAYER_KEYS), "a pattern")
        match = found.pop("match", None)
        if match is None:
            self._complain(node, "a pattern needs match, with at least one of: " + ", ".join(_MATCH_KEYS))
            return None
        named = self._mapping(match, _MATCH_KEYS, "match")
        if not named:
            self._complain(match, "match names nothing; what holds for all hosts belongs to defaults")
        values = {_MATCH_KEYS[key]: self._try(_text, value) for key, value in named.items()}
        return Pattern(match=Match(**values), layer=self._layer(node, found, shared=True))

    def _host(self, node: yaml.Node) -> HostEntry | None:
        outer, self.problems = self.problems, []
        found = self._mapping(node, (*_SELECTORS, "name", *_LAYER_KEYS), "a host's entry", logins=True)
        named, other = found.pop("esxi_name", None), found.pop("name", None)
        if named is not None and other is not None:
            self._complain(other, "esxi_name and name both say which host it is; give one of them")
        named = named or other
        name = self._try(_text, named) if named is not None else None
        if not name:
            # Nobody can tell whose entry this is, so it cannot be one host's mistake.
            self._complain(node, "a host's entry needs esxi_name, the host's name in vCenter")
            own, self.problems = self.problems, outer
            for line, text in own:
                self._keep(line, text)
            return None
        selectors = {key: self._try(_text, found.pop(key)) for key in ("datacenter", "cluster") if key in found}
        vcenter = self._try(_text, found.pop("vcenter_server")) if "vcenter_server" in found else None
        layer = self._layer(node, found, shared=False)
        own, self.problems = self.problems, outer
        return HostEntry(
            name=name,
            line=_line(node),
            cluster=selectors.get("cluster"),
            datacenter=selectors.get("datacenter"),
            vcenter=vcenter,
            layer=layer,
            problems=_first(
                [f"line {line}: host {name}: {text}" for line, text in sorted(own)], MOST_PROBLEMS_OF_A_HOST
            ),
        )

    # --- a layer -------------------------------------------------------------------------------------------

    def _layer(self, node: yaml.Node, found: Mapping[str, yaml.Node], *, shared: bool) -> Layer:
        values: dict[str, Any] = {"line": _line(node)}
        for key, value in found.items():
            field, read = _LAYER_KEYS[key]
            values[field] = self._try(functools.partial(read, self), value)
        layer = Layer(**values)
        if shared:
            for mac in given_macs(layer):
                self._complain(node, f"the MAC address {mac} would go to several hosts; give it in a host's entry")
            if layer.vm_name is not None and "{host}" not in layer.vm_name:
                self._complain(found["vm_name"], "vm_name of several hosts needs {host}")
        elif layer.macs is not None and any(nic.mac for nic in layer.networks or ()):
            self._complain(found["mac"], "addresses are given under mac and under networks; use one of the two")
        return layer

    def _try(self, read: Callable[[yaml.Node], T], node: yaml.Node) -> T | None:
        try:
            return read(node)
        except _Mistake as mistake:
            self._keep(mistake.line, str(mistake))
            return None

    # --- YAML's forms --------------------------------------------------------------------------------------

    def _mapping(
        self,
        node: yaml.Node,
        allowed: Mapping[str, object] | Sequence[str],
        what: str,
        *,
        aliases: Mapping[str, str] | None = None,
        logins: bool = False,
    ) -> dict[str, yaml.Node]:
        """The values by key. Unknown keys and keys given twice are complained about and left out."""
        found: dict[str, yaml.Node] = {}
        if not isinstance(node, yaml.MappingNode):
            self._complain(node, f"{what} must be a mapping (key: value)")
            return found
        for key_node, value in node.value:
            written = str(key_node.value)
            key = (aliases or {}).get(written, written)
            if logins and key in _LOGIN_KEYS:
                self._complain(key_node, f"{key} has no place here: the plugin never logs in to a host; remove it")
            elif key not in allowed:
                self._complain(key_node, f"unknown key {_shown(written)}; {self._hint(written, list(allowed))}")
            elif key in found:
                self._complain(key_node, f"{key} is given twice")
            else:
                found[key] = value
        return found

    def _hint(self, written: str, allowed: list[str]) -> str:
        self._hints -= 1
        close = difflib.get_close_matches(written, allowed, n=1) if self._hints >= 0 else ()
        return f"{f'did you mean {close[0]}? ' if close else ''}allowed: {', '.join(allowed)}"

    def _items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        if node is None or _is_null(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._complain(node, f"{what} must be a list (- ...)")
            return []
        return list(node.value)

    # --- values --------------------------------------------------------------------------------------------

    def name_template(self, node: yaml.Node) -> str:
        text = _text(node)
        if unknown := unknown_placeholder(text):
            raise _Mistake(node, f"unknown placeholder {{{unknown}}}; allowed: {{datacenter}}, {{cluster}}, {{host}}")
        return text

    def networks(self, node: yaml.Node) -> tuple[NicSpec, ...]:
        items = self._items(node, "networks")
        if len(items) > ADAPTER_LIMIT:
            raise _Mistake(node, f"{len(items)} networks; a virtual machine can have {ADAPTER_LIMIT}")
        return tuple(NicSpec(**self._adapter(item, "a network", ())) for item in items)

    def sr_iov(self, node: yaml.Node) -> tuple[SriovSpec, ...]:
        items = self._items(node, "sr_iov")
        if len(items) > SRIOV_LIMIT:
            raise _Mistake(node, f"{len(items)} SR-IOV cards; at most {SRIOV_LIMIT} are supported")
        found = []
        for item in items:
            values = self._adapter(item, "an SR-IOV card", ("device",))
            if values.get("device") and values.get("port_group"):
                found.append(SriovSpec(**values))
            elif isinstance(item, yaml.MappingNode):
                self._complain(item, "an SR-IOV card needs device and port_group")
        return tuple(found)

    def _adapter(self, node: yaml.Node, what: str, more: tuple[str, ...]) -> dict[str, Any]:
        found = self._mapping(node, (*_ADAPTER_KEYS, *more), what, aliases=_NETWORK_ALIASES)
        values: dict[str, Any] = {"line": _line(node)}
        reads: dict[str, tuple[str, Callable[[yaml.Node], Any]]] = {
            "port_group": ("port_group", _text),
            "switch": ("switch", _text),
            "type": ("kind", _kind),
            "mac": ("mac", _mac),
            "device": ("device", _pci),
        }
        for key, value in found.items():
            field, read = reads[key]
            values[field] = self._try(read, value)
        return values

    def macs(self, node: yaml.Node) -> tuple[str | None, ...]:
        if isinstance(node, yaml.SequenceNode):
            if len(node.value) > ADAPTER_LIMIT:
                raise _Mistake(
                    node, f"{len(node.value)} addresses; a virtual machine can have {ADAPTER_LIMIT} adapters"
                )
            return tuple(self._try(_mac, item) for item in self._items(node, "mac"))
        return (_mac(node),)

    def pci(self, node: yaml.Node) -> tuple[PciSpec, ...]:
        found: list[PciSpec] = []
        items = self._items(node, "pci_passthrough")
        if len(items) > PCI_LIMIT:
            raise _Mistake(node, f"{len(items)} PCI devices; at most {PCI_LIMIT} are supported")
        for item in items:
            device = self._try(_pci, item)
            if device is None:
                continue
            if "." in device and any(one.device == device for one in found):
                self._complain(item, f"PCI device {device} is given twice")
            found.append(PciSpec(device=device, line=_line(item)))
        return tuple(found)

    def guestinfo(self, node: yaml.Node) -> dict[str, str | None]:
        if not isinstance(node, yaml.MappingNode):
            raise _Mistake(node, "guestinfo must be a mapping (key: value)")
        names = [str(key.value) for key, _ in node.value]
        found: dict[str, str | None] = {}
        for key, value in self._mapping(node, dict.fromkeys(names), "guestinfo").items():
            full = key if key.startswith("guestinfo.") else f"guestinfo.{key}"
            if not _GUESTINFO_KEY.fullmatch(full):
                self._complain(
                    value, f"{_shown(key)} cannot be a guestinfo key: letters, digits, dot, dash and underscore"
                )
            elif full.lower().startswith(_RESERVED_KEYS):
                self._complain(value, f"{full} belongs to VMware Tools or vSphere")
            elif full in found:
                self._complain(value, f"{full} is given twice")
            elif _is_null(value):
                found[full] = None
            else:
                text = self._try(_value, value)
                if text is not None and (sign := credential_sign(full, text)):
                    self._complain(
                        value,
                        f"{full} is refused: {sign}, and guestinfo can be read by everybody who may look at the VM",
                    )
                found[full] = text
        return found

    def patterns(self, node: yaml.Node) -> tuple[str, ...]:
        if isinstance(node, yaml.SequenceNode):
            read = [self._try(_text, item) for item in self._items(node, "this")]
            return tuple(one for one in read if one is not None)
        return (_text(node),)


_SELECTORS = ("esxi_name", "datacenter", "cluster", "vcenter_server")
_MATCH_KEYS = {"host": "host", "cluster": "cluster", "datacenter": "datacenter", "vcenter_server": "vcenter"}
_ADAPTER_KEYS = ("port_group", "switch", "type", "mac")


def _first(problems: Sequence[str], most: int) -> tuple[str, ...]:
    """The first ones, and that there are more."""
    return tuple(problems) if len(problems) <= most else (*problems[:most], "and there are more mistakes")


def _shown(text: str) -> str:
    """What was written, short enough to be read."""
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _PLAIN_TAG + "null"


def _scalar(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.tag.startswith(_PLAIN_TAG):
        raise _Mistake(node, "a single plain value is expected here")
    return str(node.value)


def _text(node: yaml.Node) -> str:
    text = _scalar(node).strip()
    if not text or _is_null(node):
        raise _Mistake(node, "a value is missing")
    if not text.isprintable():
        raise _Mistake(node, "the value has line breaks or control characters")
    if len(text) > TEXT_LIMIT:
        raise _Mistake(node, f"the value is longer than {TEXT_LIMIT} characters")
    return text


def _value(node: yaml.Node) -> str:
    text = _scalar(node)
    if not text:
        raise _Mistake(node, "an empty value would take the key out of the VM; leave it away, or write ~")
    if len(text.encode()) > VALUE_LIMIT:
        raise _Mistake(node, f"the value is longer than {VALUE_LIMIT} bytes")
    if any(ord(char) < ord(" ") and char not in "\t\n\r" for char in text):
        raise _Mistake(node, "the value has control characters")
    if unknown := unknown_placeholder(text):
        raise _Mistake(node, f"unknown placeholder {{{unknown}}}; allowed: {{datacenter}}, {{cluster}}, {{host}}")
    return text


def _whole(node: yaml.Node, low: int, high: int, step: int = 1) -> int:
    text = _scalar(node)
    if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high or int(text) % step:
        kind = f"a multiple of {step}" if step > 1 else "a whole number"
        raise _Mistake(node, f"{_shown(text)} is not {kind} from {low} to {high}")
    return int(text)


def _flag(node: yaml.Node) -> bool:
    text = _scalar(node).lower()
    if text not in _TRUE | _FALSE:
        raise _Mistake(node, f"{_shown(text)} is neither true nor false")
    return text in _TRUE


def _mac(node: yaml.Node) -> str | None:
    text = _scalar(node).strip().lower().replace("-", ":")
    if _is_null(node) or text == DERIVED:
        return None
    if not _MAC.fullmatch(text):
        raise _Mistake(node, f"{_shown(text)} is not a MAC address (00:50:56:05:ba:ba), nor 'derived'")
    octets = [int(part, 16) for part in text.split(":")]
    if octets[0] & 1 or not any(octets):
        raise _Mistake(node, f"{text} is no address of one adapter (multicast, or zero)")
    if octets[:3] == [0x00, 0x50, 0x56] and octets[3] > 0x3F:
        raise _Mistake(node, f"{text}: vCenter gives these out itself; by hand 00:50:56:00:00:00 to 00:50:56:3f:ff:ff")
    return text


def _kind(node: yaml.Node) -> NetworkKind:
    text = _scalar(node).lower()
    if text not in _KINDS:
        raise _Mistake(node, f"{_shown(text)} is not a type of network; allowed: {', '.join(_KINDS)}")
    return _KINDS[text]


def _pci(node: yaml.Node) -> str:
    try:
        return pci_id(_text(node))
    except ValueError as exc:
        raise _Mistake(node, str(exc)) from exc


_LAYER_KEYS: dict[str, tuple[str, Callable[[_Reader, yaml.Node], Any]]] = {
    "vm_name": ("vm_name", _Reader.name_template),
    "cpus": ("cpus", lambda _, node: _whole(node, 1, CPU_LIMIT)),
    "memory_mb": ("memory_mb", lambda _, node: _whole(node, 256, MEMORY_LIMIT_MB, 4)),
    "reserve_memory": ("reserve_memory", lambda _, node: _flag(node)),
    "cpu_reservation_mhz": ("cpu_reservation_mhz", lambda _, node: _whole(node, 0, 10_000_000)),
    "networks": ("networks", _Reader.networks),
    "mac": ("macs", _Reader.macs),
    "sr_iov": ("sr_iov", _Reader.sr_iov),
    "pci_passthrough": ("pci_passthrough", _Reader.pci),
    "guestinfo": ("guestinfo", _Reader.guestinfo),
    "datastore": ("datastores", _Reader.patterns),
    "agent_network": ("agent_networks", _Reader.patterns),
}
"""Key -> the field of :class:`Layer`, and how its value is read."""


def _cross_checked(hosts: list[HostEntry]) -> list[HostEntry]:
    """What is wrong between entries is wrong with both of them."""
    added: dict[int, list[str]] = {}

    def complain(number: int, text: str) -> None:
        entry = hosts[number]
        told = added.setdefault(number, [])
        if len(told) < MOST_PROBLEMS_OF_A_HOST:
            told.append(f"line {entry.line}: host {entry.name}: {text}")

    def both(first: int, second: int, text: str) -> None:
        for one, other in ((first, hosts[second]), (second, hosts[first])):
            complain(one, f"{text} {other.name} in line {other.line}")

    by_mac: dict[str, int] = {}
    by_name: dict[str, list[int]] = {}
    for number, entry in enumerate(hosts):
        namesakes = by_name.setdefault(entry.name.lower(), [])
        for other in namesakes:
            if entry.overlaps(hosts[other]):
                both(other, number, "is described twice; see")
                break
        if len(namesakes) < MOST_NAMESAKES:
            namesakes.append(number)
        else:
            complain(number, f"there are more than {MOST_NAMESAKES} entries of this name")
        named = given_macs(entry.layer)
        for mac in sorted(set(named)):
            if named.count(mac) > 1:
                complain(number, f"the MAC address {mac} is given twice")
            first = by_mac.setdefault(mac, number)
            if first != number:
                both(first, number, f"the MAC address {mac} is also that of")
    return [
        dataclasses.replace(entry, problems=(*entry.problems, *added.get(number, ())))
        for number, entry in enumerate(hosts)
    ]
