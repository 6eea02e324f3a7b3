# SPDX-License-Identifier: Apache-2.0
"""What an OVF descriptor says: the files it references, its disks, networks and properties.

The descriptor comes from outside, so it is parsed without entities, DTDs or network, and names only plain files.
Source: DSP0243 (OVF) 1.1: References, DiskSection, NetworkSection, ProductSection.
Not promised: validation against the schema; vCenter's import has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vcenter_eam_plugin.domain.errors import OvfError

_NAMESPACES = (
    "http://schemas.dmtf.org/ovf/envelope/1",
    "http://schemas.dmtf.org/ovf/envelope/2",
)
MOST_DESCRIPTOR_BYTES = 8 << 20
"""A descriptor is some tens of kilobytes; a larger one is no descriptor, and is not parsed."""
MOST_REFERENCES = 10_000
"""Files and chunks of files. DSP0243 numbers chunks with nine digits; no tool makes so many."""
_NAME_BYTES = 255
"""No file system of ours has longer names, and asking one for them is an error of its own."""
_DIGITS = 20
"""Of a number of bytes: more than 64 bits hold is none."""
_SHOWN = 100
"""Characters of a name that are quoted."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A file of the package. ``size`` in bytes as the descriptor has it, if it says; of a chunk it never does."""

    name: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Disk:
    """``capacity`` as written, in ``units`` (bytes when empty); ``file`` is the id of a reference, empty for none."""

    disk_id: str
    capacity: str
    units: str
    file: str


@dataclass(frozen=True, slots=True)
class Property:
    """``key`` is what the OVF environment calls it: ``class.key.instance``, without what is not given.

    EAM must be given each one that is ``user_configurable``; ``password`` says that it is meant to stay hidden.
    """

    key: str
    user_configurable: bool
    password: bool


@dataclass(frozen=True, slots=True)
class Descriptor:
    """See the module. ``name`` is the virtual system's; ``version`` the product's. Both may be empty."""

    name: str
    version: str
    references: tuple[Reference, ...]
    disks: tuple[Disk, ...]
    networks: tuple[str, ...]
    properties: tuple[Property, ...]

    def required_properties(self) -> tuple[str, ...]:
        """Keys that EAM must be given a value for: it refuses to deploy when one is missing (EAM API reference)."""
        return tuple(item.key for item in self.properties if item.user_configurable)

    @property
    def file_bytes(self) -> int:
        """Of all files together, as far as it says: less than that no deployed VM takes."""
        return sum(reference.size or 0 for reference in self.references)

    @property
    def disk_bytes(self) -> int:
        """Of all disks when full, as far as their capacity is understood: what a thick-provisioned VM takes."""
        return sum(map(_capacity, self.disks))


_MULTIPLES = re.compile(r"bytes?( \* (2|10)\^(\d{1,2}))?")
"""Units as DSP0004 writes them (annex C.1): ``byte * 2^30``."""


def _capacity(disk: Disk) -> int:
    """In bytes; 0 for a capacity that a property is to give, or that is written otherwise."""
    found = _MULTIPLES.fullmatch(" ".join(disk.units.replace("*", " * ").split()) or "byte")
    if found is None or not (disk.capacity.isascii() and disk.capacity.isdigit() and len(disk.capacity) < _DIGITS):
        return 0
    return int(disk.capacity) * (int(found[2]) ** int(found[3]) if found[1] else 1)


def parse_descriptor(text: bytes, where: str) -> Descriptor:
    """Read a descriptor. ``where`` names it in sentences. Raises OvfError."""
    if len(text) > MOST_DESCRIPTOR_BYTES:
        raise OvfError(f"{where} is no OVF descriptor: it is larger than {MOST_DESCRIPTOR_BYTES >> 20} MiB.")
    # Here alone: 4 MiB that a daemon whose package somebody else serves never needs.
    from lxml import etree  # noqa: PLC0415

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(text, parser)
    except etree.XMLSyntaxError as exc:
        raise OvfError(f"The OVF descriptor {where} is not well-formed XML: {exc}.") from exc
    for namespace in _NAMESPACES:
        if root.tag == f"{{{namespace}}}Envelope":
            return _Reader(root, f"{{{namespace}}}", where).read()
    raise OvfError(f"{where} is no OVF descriptor: its root element is {etree.QName(root).localname}, not Envelope.")


def is_plain_name(name: str) -> bool:
    """Whether it can only be a file beside the descriptor."""
    return (
        name not in ("", ".", "..")
        and len(name.encode("utf-8", "replace")) <= _NAME_BYTES
        and not any(char in "/\\" or ord(char) < 32 or ord(char) == 127 for char in name)
    )


class _Reader:
    def __init__(self, root: Any, ovf: str, where: str) -> None:
        self._root = root
        self._ovf = ovf
        self._where = where

    def read(self) -> Descriptor:
        system = self._root.find(f"{self._ovf}VirtualSystem")
        sections = [] if system is None else system.findall(f"{self._ovf}ProductSection")
        return Descriptor(
            name="" if system is None else self._text(system, "Name") or self._get(system, "id"),
            version=next(filter(None, (self._text(section, "Version") for section in sections)), ""),
            references=self._bounded(self._references()),
            disks=tuple(
                Disk(
                    self._get(item, "diskId"),
                    self._get(item, "capacity"),
                    self._get(item, "capacityAllocationUnits"),
                    self._get(item, "fileRef"),
                )
                for item in self._all("DiskSection", "Disk")
            ),
            networks=tuple(self._get(item, "name") for item in self._all("NetworkSection", "Network")),
            properties=tuple(
                Property(
                    ".".join(filter(None, (self._get(section, "class"), key, self._get(section, "instance")))),
                    self._get(item, "userConfigurable") in ("true", "1"),
                    self._get(item, "password") in ("true", "1"),
                )
                for section in sections
                for item in section.findall(f"{self._ovf}Property")
                if (key := self._get(item, "key"))
            ),
        )

    def _bounded(self, found: Iterator[Reference]) -> tuple[Reference, ...]:
        """One element may stand for thousands of chunks, and a descriptor holds 100,000 elements."""
        references = tuple(islice(found, MOST_REFERENCES + 1))
        if len(references) > MOST_REFERENCES:
            raise OvfError(f"The OVF descriptor {self._where} references more than {MOST_REFERENCES} files.")
        return references

    def _references(self) -> Iterator[Reference]:
        for item in self._all("References", "File"):
            name = self._get(item, "href")
            if name and not is_plain_name(name):
                raise OvfError(
                    f"The OVF descriptor {self._where} references {name[:_SHOWN]!r}, which is not a plain "
                    "file name beside it.",
                    remedy="Put all files of the package into one folder.",
                )
            size, chunk = self._number(item, "size"), self._number(item, "chunkSize")
            if not chunk:
                yield Reference(name, size)
                continue
            count = -(-(size or 0) // chunk)
            if not 0 < count <= MOST_REFERENCES:
                raise OvfError(
                    f"The OVF descriptor {self._where} says that {name[:_SHOWN]!r} is in chunks, without a "
                    f"size that fits: size {size}, chunks of {chunk} bytes."
                )
            yield from (Reference(f"{name}.{number:09d}", None) for number in range(count))

    def _number(self, item: Any, name: str) -> int | None:
        text = self._get(item, name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < _DIGITS):
            raise OvfError(
                f"The OVF descriptor {self._where} has a file whose {name} is {text[:40]!r}, no number of bytes."
            )
        return int(text)

    def _all(self, section: str, element: str) -> Any:
        return self._root.iterfind(f"{self._ovf}{section}/{self._ovf}{element}")

    def _get(self, item: Any, name: str) -> str:
        return str(item.get(f"{self._ovf}{name}", ""))

    def _text(self, item: Any, name: str) -> str:
        return str(item.findtext(f"{self._ovf}{name}") or "").strip()
