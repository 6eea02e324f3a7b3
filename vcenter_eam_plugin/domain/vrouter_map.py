# SPDX-License-Identifier: Apache-2.0
"""What belongs in ``ESXiToVRouterIp.map``, by which the Java contrail-vcenter-plugin finds the vRouter of an ESXi host.

A line is ``<ESXi name or address>:<vRouter address>``. The file is somebody else's too: Contrail's installer writes it,
and people do. So a line is *ours* when we wrote it and nobody has changed it since, or when it says already what we
would write. Ours are corrected, and removed when their host is gone; every other line stays as it is, byte by byte,
and one that contradicts what we see is told.

The reader splits at the colon, so IPv6 addresses cannot be in it. Facts: contrail-vcenter-plugin, VCenterDB.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

import msgspec


class Line(msgspec.Struct, frozen=True):
    """What we wrote to the right of a colon, and for the ContrailVM of which key."""

    vrouter: str
    key: str


@dataclass(frozen=True, slots=True)
class MapHost:
    """An ESXi host of ours. ``address`` and ``vrouter`` are IPv4 addresses, ``None`` while they are not known."""

    key: str
    name: str
    address: str | None
    vrouter: str | None

    @property
    def vcenter(self) -> str:
        return self.key.partition(".")[2]


@dataclass(frozen=True, slots=True)
class Merged:
    """The file as it should be, which of its lines are ours, and what a person should look at, one sentence each."""

    text: str
    ours: Mapping[str, Line]
    contradictions: tuple[str, ...]


def is_ipv4(text: str | None) -> bool:
    """Whether it is an address that the file can hold."""
    try:
        IPv4Address(text or "")
    except AddressValueError:
        return False
    return True


def merge(text: str, ours: Mapping[str, Line], hosts: Collection[MapHost], complete: Collection[str]) -> Merged:
    """Bring the file's ``text`` up to date. ``complete`` are the vCenters (by instanceUuid) whose hosts are all in
    ``hosts``: only of those is a host that is not named gone.

    A host whose ContrailVM has no address now (it is off) keeps its line, and a host whose address is not known keeps
    the line of the address that it had.
    """
    wanted = _wanted(hosts, ours)
    here = {host.key for host in hosts}
    known = {host.key for host in hosts if is_ipv4(host.vrouter)}
    stale = {
        left
        for left, line in ours.items()
        if left not in wanted
        and (line.key in known or (line.key not in here and line.key.partition(".")[2] in complete))
    }
    lines: list[str] = []
    kept: dict[str, Line] = {}
    seen: set[str] = set()
    contradictions: list[str] = []
    for line in text.splitlines(keepends=True):
        left, right = _parse(line)
        is_ours = left in ours and ours[left].vrouter == right and left not in seen
        seen.add(left)
        if is_ours and left in stale:
            continue
        if is_ours and left in wanted:
            lines.append(line if wanted[left].vrouter == right else f"{left}:{wanted[left].vrouter}\n")
            kept[left] = wanted[left]
            continue
        lines.append(line)
        if is_ours:
            kept[left] = ours[left]
        elif left in wanted and wanted[left].vrouter == right:
            kept[left] = wanted[left]
        elif left in wanted:
            contradictions.append(
                f"The line {line.strip()!r} is not ours, and the ContrailVM there has {wanted[left].vrouter}."
            )
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    for left in sorted(wanted.keys() - seen):
        lines.append(f"{left}:{wanted[left].vrouter}\n")
        kept[left] = wanted[left]
    return Merged("".join(lines), kept, tuple(contradictions))


def _wanted(hosts: Collection[MapHost], ours: Mapping[str, Line]) -> dict[str, Line]:
    """Left side -> line. What two hosts would have is left out: whichever stood there would be wrong for one."""
    wanted: dict[str, Line] = {}
    twice: set[str] = set()
    known = {host.address for host in hosts if host.address}
    for host in hosts:
        if not is_ipv4(host.vrouter):
            continue
        line = Line(str(host.vrouter), host.key)
        for left in _lefts(host, ours, known):
            if left in wanted:
                twice.add(left)
            wanted[left] = line
    return {left: line for left, line in wanted.items() if left not in twice}


def _lefts(host: MapHost, ours: Mapping[str, Line], known: Collection[str]) -> set[str]:
    """``known`` are addresses that hosts have now: one of them is no longer that of a host that had it before."""
    if host.address is None:
        addresses = {left for left, line in ours.items() if line.key == host.key and is_ipv4(left)}.difference(known)
    else:
        addresses = {host.address}
    return {left for left in {host.name, *addresses} if left and ":" not in left and left == left.strip()}


def _parse(line: str) -> tuple[str, str]:
    left, _, right = line.partition(":")
    return left.strip(), right.strip()
