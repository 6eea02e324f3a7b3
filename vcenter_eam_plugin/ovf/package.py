# SPDX-License-Identifier: Apache-2.0
"""An OVF package on disk: the descriptor, and the files that it references.

Only what is needed to serve it safely: which files belong to it, and a digest of their content. The descriptor
comes from outside, so it is parsed without entities, DTDs or network. Source: DSP0243 (OVF), section 7.1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from vcenter_eam_plugin.domain.errors import OvfError

_NAMESPACES = (
    "http://schemas.dmtf.org/ovf/envelope/1",
    "http://schemas.dmtf.org/ovf/envelope/2",
)
_CHUNK = 1 << 20
_MANIFEST_SUFFIX = ".mf"
MOST_DESCRIPTOR_BYTES = 8 << 20
"""A descriptor is some tens of kilobytes; a larger one is no descriptor, and is not parsed."""


@dataclass(frozen=True, slots=True)
class Package:
    """``files`` maps the name in a URL to the file on disk; ``descriptor`` is the name of the ``.ovf``.

    ``digest`` is SHA-256 over names and contents: it stands in the URL, because EAM takes the same URL for the
    same content and never looks again.
    """

    descriptor: str
    files: dict[str, Path]
    digest: str


def open_package(path: Path) -> Package:
    """Read a package. Raises OvfError that says which file is missing or wrong; reads every byte (takes time)."""
    names = _references(path)
    files = {path.name: path}
    manifest = path.with_suffix(_MANIFEST_SUFFIX)
    if manifest.is_file():
        files[manifest.name] = manifest
    for name in names:
        file = path.parent / name
        if "/" in name or "\\" in name or name in (".", ".."):
            raise OvfError(
                f"The OVF descriptor {path} references {name!r}, which is not a plain file name beside it.",
                remedy="Put all files of the package into one folder.",
            )
        if not file.is_file():
            raise OvfError(f"The OVF descriptor {path} references {name!r}, which is not beside it.")
        files[name] = file
    return Package(path.name, files, _digest(files))


def _references(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_DESCRIPTOR_BYTES + 1)
    except OSError as exc:
        raise OvfError(f"The OVF descriptor {path} cannot be read: {exc.strerror}.") from exc
    if len(text) > MOST_DESCRIPTOR_BYTES:
        raise OvfError(f"{path} is no OVF descriptor: it is larger than {MOST_DESCRIPTOR_BYTES >> 20} MiB.")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(text, parser)
    except etree.XMLSyntaxError as exc:
        raise OvfError(f"The OVF descriptor {path} is not well-formed XML: {exc}.") from exc
    for namespace in _NAMESPACES:
        if root.tag == f"{{{namespace}}}Envelope":
            elements = root.iterfind(f"{{{namespace}}}References/{{{namespace}}}File")
            return [str(element.get(f"{{{namespace}}}href", "")) for element in elements]
    raise OvfError(f"{path} is no OVF descriptor: its root element is {etree.QName(root).localname}, not Envelope.")


def _digest(files: dict[str, Path]) -> str:
    whole = hashlib.sha256()
    for name in sorted(files):
        try:
            with files[name].open("rb") as file:
                content = hashlib.sha256()
                while chunk := file.read(_CHUNK):
                    content.update(chunk)
        except OSError as exc:
            raise OvfError(f"{files[name]} of the OVF package cannot be read: {exc.strerror}.") from exc
        whole.update(f"{name}\0{content.hexdigest()}\n".encode())
    return whole.hexdigest()
