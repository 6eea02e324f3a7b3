# SPDX-License-Identifier: Apache-2.0
"""An OVF package on disk: a descriptor with its files beside it, or an ``.ova`` that holds them all.

A package is looked at in two steps. :func:`inspect` finds which files belong to it and where their bytes are: quick.
:func:`measure` reads every byte for the digests and holds them against the manifest: seconds to minutes.
What was measured once can be recognised by its stamps without being read again.

Not promised: that files stay as they were; who serves them looks at the stamp each time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from vcenter_eam_plugin.domain.errors import OvfError
from vcenter_eam_plugin.ovf.archive import read_members
from vcenter_eam_plugin.ovf.descriptor import (
    MOST_DESCRIPTOR_BYTES,
    Descriptor,
    is_plain_name,
    parse_descriptor,
)
from vcenter_eam_plugin.ovf.manifest import MOST_MANIFEST_BYTES, Expected, parse_manifest

_CHUNK = 1 << 20
_BESIDE = (".mf", ".cert")
"""Files that belong to a package by their name alone: the manifest and its signature."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, length, times in ns of the last change of content and of anything: the same file, untouched."""


def stamp_of(stat: os.stat_result) -> Stamp:
    """See :data:`Stamp`."""
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of a package: ``size`` bytes of ``path`` from ``offset`` on. ``sha256`` is empty until measured."""

    path: Path
    offset: int
    size: int
    stamp: Stamp
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """A package before its bytes were read. ``files`` maps the name in a URL to where it is."""

    source: Path
    descriptor: str
    about: Descriptor
    files: dict[str, Piece]


@dataclass(frozen=True, slots=True)
class Package:
    """``files`` maps the name in a URL to where its bytes are; ``descriptor`` is the name of the ``.ovf``.

    ``digest`` is SHA-256 over names and contents: it stands in the URL, because EAM takes the same URL for the
    same content and never looks again.
    """

    source: Path
    descriptor: str
    about: Descriptor
    files: dict[str, Piece]
    digest: str


def open_package(path: Path) -> Package:
    """Read a package whole. Raises OvfError that says which file is missing or wrong."""
    return measure(inspect(path))


def inspect(path: Path) -> Layout:
    """Find the files of a package. Raises OvfError that says which one is missing or wrong."""
    layout = _inspect_archive(path) if path.suffix.lower() == ".ova" else _inspect_folder(path)
    for reference in layout.about.references:
        piece = layout.files[reference.name]
        if reference.size is not None and reference.size != piece.size:
            raise OvfError(
                f"The OVF descriptor of {path} says that {reference.name!r} has {reference.size} bytes; "
                f"it has {piece.size}.",
                remedy="Copy the package anew.",
            )
    # A reference is a URL: "disk%201.vmdk" is asked for as what it stands for.
    for name in list(layout.files):
        plain = unquote(name)
        if plain not in layout.files and is_plain_name(plain):
            layout.files[plain] = layout.files[name]
    return layout


def measure(layout: Layout) -> Package:
    """Read every byte: the digests, and whether they are what the manifest expects. Raises OvfError."""
    expected = _manifest(layout)
    measured: dict[Piece, str] = {}
    for name, piece in layout.files.items():
        if piece in measured:
            continue
        wanted = expected.get(name)
        sha256, digest = _hash(piece, name, wanted.algorithm if wanted is not None else "sha256")
        if wanted is not None and wanted.digest != digest:
            raise OvfError(
                f"{name!r} of the OVF package {layout.source} is not what its manifest expects: "
                f"{wanted.algorithm.upper()} {digest} instead of {wanted.digest}.",
                remedy="Copy the package anew; or, if it was changed on purpose, make its manifest anew.",
            )
        measured[piece] = sha256
    return with_digests(layout, {name: measured[piece] for name, piece in layout.files.items()})


def with_digests(layout: Layout, sha256: Mapping[str, str]) -> Package:
    """The package of ``layout``, whose files are known to have these digests."""
    files = {name: replace(piece, sha256=sha256[name]) for name, piece in layout.files.items()}
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{files[name].sha256}\n".encode())
    return Package(layout.source, layout.descriptor, layout.about, files, whole.hexdigest())


def hash_piece(piece: Piece) -> str:
    """SHA-256 of the bytes that are there now. Raises OSError; a file that became too short has another digest."""
    return _digests(piece, ("sha256",))["sha256"]


def _inspect_folder(path: Path) -> Layout:
    own = _whole_file(path, f"The OVF descriptor {path} cannot be read")
    about = _describe(own, str(path))
    files = {path.name: own}
    for suffix in _BESIDE:
        beside = path.with_suffix(suffix)
        if beside.is_file():
            files[beside.name] = _whole_file(beside, f"{beside} of the OVF package cannot be read")
    for reference in about.references:
        file = path.parent / reference.name
        if not reference.name or not file.is_file():
            raise OvfError(f"The OVF descriptor {path} references {reference.name!r}, which is not beside it.")
        files[reference.name] = _whole_file(file, f"{file} of the OVF package cannot be read")
    return Layout(path, path.name, about, files)


def _inspect_archive(path: Path) -> Layout:
    whole = _whole_file(path, f"The archive {path} cannot be read")
    inside = {member.name: replace(whole, offset=member.offset, size=member.size) for member in read_members(path)}
    descriptor = next(iter(inside))
    about = _describe(inside[descriptor], f"{descriptor} in {path}")
    names = [descriptor, *(str(Path(descriptor).with_suffix(suffix)) for suffix in _BESIDE)]
    files = {name: inside[name] for name in names if name in inside}
    for reference in about.references:
        if reference.name not in inside:
            raise OvfError(f"{descriptor} in {path} references {reference.name!r}, which is not in the archive.")
        files[reference.name] = inside[reference.name]
    return Layout(path, descriptor, about, files)


def _describe(piece: Piece, where: str) -> Descriptor:
    return parse_descriptor(_read(piece, MOST_DESCRIPTOR_BYTES + 1, f"The OVF descriptor {where}"), where)


def _manifest(layout: Layout) -> dict[str, Expected]:
    """What the manifest expects of each file. One that it leaves out could be anything, so that is refused."""
    name = str(Path(layout.descriptor).with_suffix(".mf"))
    piece = layout.files.get(name)
    if piece is None:
        return {}
    where = f"{name} of {layout.source}"
    if piece.size > MOST_MANIFEST_BYTES:
        raise OvfError(f"The manifest {where} is larger than {MOST_MANIFEST_BYTES >> 20} MiB.")
    expected = parse_manifest(_read(piece, MOST_MANIFEST_BYTES, f"The manifest {where}"), where)
    wanted = (layout.descriptor, *(reference.name for reference in layout.about.references))
    if missing := [file for file in wanted if file not in expected]:
        raise OvfError(
            f"The manifest {where} has no digest of {missing[0]!r}.", remedy="Make the manifest anew, or remove it."
        )
    return expected


def _whole_file(path: Path, trouble: str) -> Piece:
    try:
        stat = path.stat()
    except OSError as exc:
        raise OvfError(f"{trouble}: {exc.strerror}.") from exc
    return Piece(path, 0, stat.st_size, stamp_of(stat))


def _read(piece: Piece, most: int, what: str) -> bytes:
    try:
        with piece.path.open("rb") as file:
            file.seek(piece.offset)
            return file.read(min(piece.size, most))
    except OSError as exc:
        raise OvfError(f"{what} cannot be read: {exc.strerror}.") from exc


def _hash(piece: Piece, name: str, algorithm: str) -> tuple[str, str]:
    """SHA-256, and the digest that the manifest uses, in one reading."""
    try:
        digests = _digests(piece, {"sha256", algorithm})
    except OSError as exc:
        raise OvfError(f"{name!r} of the OVF package cannot be read from {piece.path}: {exc.strerror}.") from exc
    return digests["sha256"], digests[algorithm]


def _digests(piece: Piece, algorithms: set[str] | tuple[str, ...]) -> dict[str, str]:
    running = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with piece.path.open("rb", buffering=0) as file:
        file.seek(piece.offset)
        left = piece.size
        while left and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            for digest in running.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in running.items()}
