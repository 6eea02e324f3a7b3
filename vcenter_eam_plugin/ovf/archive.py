# SPDX-License-Identifier: Apache-2.0
"""Where the files of an ``.ova`` lie inside it, so that they can be served from there without unpacking.

An OVA is a tar archive in the ustar format (DSP0243, section 5.3). Only regular members at the top level are taken,
with long names and large sizes as pax or GNU tar write them; links, directories, sparse and any other members are
refused. Headers alone are read, and no more than a bounded number of bytes for each.

Not promised: compressed archives. What else GNU tar can write is refused with a sentence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vcenter_eam_plugin.domain.errors import OvfError
from vcenter_eam_plugin.ovf.descriptor import is_plain_name

_BLOCK = 512
_MOST_MEMBERS = 10_100
"""Somewhat more than the chunks that one descriptor may reference."""
_MOST_HEADERS = 3 * _MOST_MEMBERS
"""Each member may have a pax header of its own."""
_MOST_PAX_BYTES = 64 << 10
"""A pax header holds a name, a size and times."""
_MOST_PAX_RECORDS = 64
_OCTAL = re.compile(rb"[0-7]{1,12}")
_REGULAR = (b"0", b"\0")
_REPACK = "Pack it anew: tar --format=ustar -cf NAME.ova NAME.ovf NAME.mf DISKS..."


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive: its bytes are ``[offset, offset + size)`` of it."""

    name: str
    offset: int
    size: int


def read_members(path: Path) -> tuple[Member, ...]:
    """The files of an archive in their order. Raises OvfError when it is none, or has what it must not have."""
    members: list[Member] = []
    names: set[str] = set()
    try:
        with path.open("rb") as file:
            for member in _scan(file, path):
                if member.name in names:
                    raise OvfError(f"The archive {path} has two files named {member.name!r}.", remedy=_REPACK)
                names.add(member.name)
                members.append(member)
                if len(members) > _MOST_MEMBERS:
                    raise OvfError(f"The archive {path} has more than {_MOST_MEMBERS} files.")
    except OSError as exc:
        raise OvfError(f"The archive {path} cannot be read: {exc.strerror}.") from exc
    if not members or not members[0].name.lower().endswith(".ovf"):
        first = f"its first file is {members[0].name!r}" if members else "it is empty"
        raise OvfError(f"{path} is no OVA: {first}, and the OVF descriptor must come first.", remedy=_REPACK)
    return tuple(members)


def _scan(file: BinaryIO, path: Path) -> Iterator[Member]:
    end = file.seek(0, os.SEEK_END)
    at = 0
    pax: dict[str, str] = {}
    headers = 0
    while at < end:
        headers += 1
        if headers > _MOST_HEADERS:
            raise OvfError(f"The archive {path} has more than {_MOST_HEADERS} headers.")
        file.seek(at)
        header = file.read(_BLOCK)
        if header.count(0) == len(header):
            return  # zeros close the archive; what follows is padding
        if len(header) < _BLOCK or not _checksum_fits(header) or header[257:262] != b"ustar":
            what = "is no tar archive" if at == 0 else f"is damaged at byte {at}"
            raise OvfError(f"{path} {what}.", remedy="Copy it anew, or pack it anew as a tar archive, not compressed.")
        kind = header[156:157]
        size = _size(header, path)
        if kind == b"x":
            pax = _read_pax(file, size, path)
        elif kind == b"g":
            pass  # holds for all members: comments, as git archive writes; a name or size for all would be nonsense
        elif kind in _REGULAR:
            size = _pax_size(pax, size, path)
            member = Member(_name(header, pax, path), at + _BLOCK, size)
            if at + _BLOCK + size > end:
                raise OvfError(f"{path} is cut short within {member.name!r}.", remedy="Copy it anew.")
            pax = {}
            yield member
        else:
            name = header[:100].split(b"\0")[0].decode("utf-8", "replace")
            raise OvfError(f"The archive {path} has {name!r}, which is not a regular file.", remedy=_REPACK)
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK


def _checksum_fits(header: bytes) -> bool:
    return _octal(header[148:156]) == sum(header[:148]) + 8 * ord(" ") + sum(header[156:])


def _size(header: bytes, path: Path) -> int:
    field = header[124:136]
    if field[0] == 0x80:  # GNU tar, from 8 GiB on: binary
        return int.from_bytes(field[1:], "big")
    size = _octal(field)
    if size is None:
        raise OvfError(f"{path} is damaged: a size in it is no number.", remedy="Copy it anew.")
    return size


def _octal(field: bytes) -> int | None:
    """The number in a field. Digits alone: what ``int`` takes for one may have a sign, and lead backwards."""
    digits = field.strip(b"\0 ") or b"0"
    return int(digits, 8) if _OCTAL.fullmatch(digits) else None


def _name(header: bytes, pax: dict[str, str], path: Path) -> str:
    if "path" in pax:
        name = pax["path"]
    else:
        raw = header[:100].split(b"\0")[0]
        # Only POSIX has the prefix there; GNU's own magic is "ustar" and two blanks.
        prefix = header[345:500].split(b"\0")[0] if header[262:263] == b"\0" else b""
        name = (prefix + b"/" + raw if prefix else raw).decode("utf-8", "replace")
    name = name.removeprefix("./")
    if not is_plain_name(name) or "\ufffd" in name:
        raise OvfError(f"The archive {path} has {name!r}, which is not a plain file name at its top.", remedy=_REPACK)
    return name


def _read_pax(file: BinaryIO, size: int, path: Path) -> dict[str, str]:
    """Records of the form ``<length> <key>=<value>\\n``, each length that of the whole record."""
    damaged = OvfError(f"{path} is damaged: a pax header in it cannot be read.", remedy=_REPACK)
    if size > _MOST_PAX_BYTES:
        raise damaged
    rest = file.read(size)
    found: dict[str, str] = {}
    records = 0
    while rest:
        records += 1
        if records > _MOST_PAX_RECORDS:
            raise damaged
        digits, space, _ = rest.partition(b" ")
        if not space or not digits.isdigit() or len(digits) > 6 or not len(digits) + 1 < int(digits) <= len(rest):
            raise damaged
        record, rest = rest[len(digits) + 1 : int(digits)], rest[int(digits) :]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not equals:
            raise damaged
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    if any(key.startswith("GNU.sparse") for key in found):
        raise OvfError(f"The archive {path} has a sparse file: its bytes are not all there.", remedy=_REPACK)
    return found


def _pax_size(pax: dict[str, str], size: int, path: Path) -> int:
    text = pax.get("size", "")
    if not text:
        return size
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise OvfError(f"{path} is damaged: a size in it is no number.", remedy="Copy it anew.")
    return int(text)
