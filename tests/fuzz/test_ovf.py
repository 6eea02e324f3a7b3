# SPDX-License-Identifier: Apache-2.0
"""OVF packages: whatever lies in the folder or the archive, a package whose bytes lie within it, or an OvfError."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.generate import damaged, in_time, one_sentence
from tests.support.ovf import ENVELOPE, envelope, manifest, write_archive
from vcenter_eam_plugin.domain.errors import OvfError
from vcenter_eam_plugin.ovf.archive import read_members
from vcenter_eam_plugin.ovf.descriptor import is_plain_name, parse_descriptor
from vcenter_eam_plugin.ovf.manifest import parse_manifest
from vcenter_eam_plugin.ovf.package import Package, open_package

DISK = b"disk" * 300
DESCRIPTOR = envelope("disk.vmdk", properties=['ovf:key="a" ovf:userConfigurable="true"']).encode()
FILES = {"c.ovf": DESCRIPTOR, "disk.vmdk": DISK}
MANIFEST = manifest(FILES)
CHUNKED = envelope("x").replace('ovf:href="x"', 'ovf:href="d.vmdk" ovf:size="10" ovf:chunkSize="4"').encode()
XML = (b"<!DOCTYPE a [<!ENTITY e 'x'>]>", b"&e;", b"<!--", b"<![CDATA[", b"<?xml version='1.0' encoding='utf-7'?>",
       b"ovf:size='-1'", b"ovf:chunkSize='1'", b"../", b"xmlns:ovf=''")  # fmt: skip


def attempt(path: Path) -> Package | None:
    """The package, or ``None`` when an OvfError said why not. Its bytes are what was measured, within the folder."""
    with in_time(path):
        try:
            package = open_package(path)
        except OvfError as exc:
            one_sentence(exc)
            return None
    for name, piece in package.files.items():
        assert is_plain_name(name)
        assert piece.path.parent == path.parent
        assert 0 <= piece.offset <= piece.offset + piece.size <= piece.path.stat().st_size
        held = piece.path.read_bytes()[piece.offset : piece.offset + piece.size]
        assert hashlib.sha256(held).hexdigest() == piece.sha256
    return package


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for packages, and beside it what nobody may get at."""
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "ovf"
    folder.mkdir()
    return folder


def fresh(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


# --- the descriptor and the manifest -------------------------------------------------------------------


@given(text=damaged(DESCRIPTOR, CHUNKED, telling=XML))
@example(text=DESCRIPTOR)
@example(text=CHUNKED)
@example(text=b"<?xml version='1.0' encoding='nonsense'?>" + DESCRIPTOR)
@example(text=DESCRIPTOR.decode().encode("utf-16"))
@example(text=b"")
@example(text=b"<a:b/>")
def test_damaged_descriptors(text: bytes) -> None:
    with in_time(text):
        try:
            about = parse_descriptor(text, "c.ovf")
        except OvfError as exc:
            one_sentence(exc)
            return
    assert all(is_plain_name(reference.name) for reference in about.references if reference.name)


def doctype(*entities: str) -> str:
    return f"<!DOCTYPE x [{''.join(entities)}]>"


def entity(name: str, text: str) -> str:
    return f"<!ENTITY {name} '{text}'>"


LAUGHS = doctype(entity("e0", "lol"), *(entity(f"e{n}", f"&e{n - 1};" * 10) for n in range(1, 12)))
HEAD = f'<Envelope xmlns="{ENVELOPE}" xmlns:ovf="{ENVELOPE}"><References>'
TAIL = "</References></Envelope>"
ATTRIBUTES = " ".join(f"a{n}='x'" for n in range(100_000))
BOMBS = {
    "entities": LAUGHS + HEAD + "<File ovf:href='&e11;'/>" + TAIL,
    "entities in text": LAUGHS + envelope(body="<VirtualSystem><Name>&e11;</Name></VirtualSystem>"),
    "one large entity often": doctype(entity("e", "A" * 100_000)) + HEAD + "<File ovf:href='&e;'/>" * 5000 + TAIL,
    "chunks": HEAD + "<File ovf:href='d' ovf:size='10000' ovf:chunkSize='1'/>" * 3000 + TAIL,
    "files": HEAD + "<File ovf:href='d'/>" * 200_000 + TAIL,
    "deep": HEAD + "<a>" * 200_000,
    "attributes": f"{HEAD}<File {ATTRIBUTES}/>{TAIL}",
    "name": f"{HEAD}<File ovf:href='{'d' * 4_000_000}'/>{TAIL}",
}
"""Descriptors of which little text makes much."""


@pytest.mark.parametrize("what", BOMBS)
def test_descriptors_that_swell(what: str) -> None:
    """8 MiB may be read; what comes of them must not be gigabytes, nor take minutes."""
    text = BOMBS[what].encode()
    tracemalloc.start()
    try:
        with in_time(what):
            try:
                found = len(parse_descriptor(text, "c.ovf").references)
            except OvfError as exc:
                found = 0
                one_sentence(exc)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found <= 10_100
    assert peak < 150 << 20, f"{peak >> 20} MiB"


def test_a_descriptor_reads_no_file_and_asks_no_server(tmp_path: Path) -> None:
    """External entities and DTDs, by file and by network."""
    secret = tmp_path / "secret"
    secret.write_text("top-secret")
    for way in (f'<!ENTITY x SYSTEM "file://{secret}">', f'<!ENTITY % x SYSTEM "file://{secret}"> %x;', ""):
        subset = f"<!DOCTYPE Envelope SYSTEM 'http://127.0.0.1:1/x.dtd' [{way}]>"
        body = "<VirtualSystem ovf:id='v'><Name>&x;</Name></VirtualSystem>" if way else ""
        text = envelope(body=body).encode()
        try:
            said = repr(parse_descriptor(subset.encode() + text, "c.ovf"))
        except OvfError as exc:
            said = one_sentence(exc)
        assert "top-secret" not in said


@given(text=damaged(MANIFEST, telling=(b"SHA256(", b")= ", b"SHA1(x)=", b"\xe2\x80\xa8", b"\x0b")))
@example(text=b"SHA256(" + b")" * 200_000)
@example(text=b"SHA1(" + b")=" * 200_000)
@example(text=b"SHA1" + b" " * 400_000)
def test_damaged_manifests(text: bytes) -> None:
    with in_time(text):
        try:
            parse_manifest(text, "c.mf")
        except OvfError as exc:
            one_sentence(exc)


# --- a folder ------------------------------------------------------------------------------------------

NAMES = st.one_of(
    st.sampled_from(
        ["../secret", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "d%2fsecret", "%2e%2e%2fsecret", "disk.vmdk",
         "d" * 300, "d%00x", "\ud800", "c.ovf", "c.mf", "link", "pipe", "folder", "%", "%zz", "d%0a"]
    ),
    st.text(max_size=20),
)  # fmt: skip


@given(names=st.lists(NAMES, max_size=3), present=st.booleans())
@example(names=["d" * 300], present=False)
@example(names=["é" * 200], present=False)
def test_folders_that_reference_anything(place: Path, names: list[str], present: bool) -> None:
    fresh(place)
    (place / "folder").mkdir()
    if present:
        for name in names:
            if is_plain_name(name) and "\ud800" not in name and len(name.encode()) < 255 and name != "folder":
                (place / name).write_bytes(DISK)
    escaped = [name.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;") for name in names]
    (place / "c.ovf").write_bytes(envelope(*escaped).encode("utf-8", "replace"))
    attempt(place / "c.ovf")


# --- an archive ----------------------------------------------------------------------------------------


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


MEMBERS = st.builds(
    member,
    st.one_of(NAMES.filter(lambda name: "\ud800" not in name), st.just("disk.vmdk"), st.just("./disk.vmdk")),
    st.binary(max_size=600),
    type=st.sampled_from(
        [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
         tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"V", b"\xff"]
    ),
    linkname=st.sampled_from(["", "../secret", "/etc/passwd", "c.ovf"]),
    mode=st.sampled_from([0o644, 0o4755]),
    pax_headers=st.dictionaries(
        st.sampled_from(["path", "size", "linkpath", "GNU.sparse.name", "GNU.sparse.major", "hdrcharset", "x"]),
        st.sampled_from(["../secret", "0", "1", "99999999999999999999", "-1", "disk.vmdk", "1e3", "", "\u0665"]),
        max_size=2,
    ),
)  # fmt: skip


@given(
    members=st.lists(MEMBERS, max_size=4),
    format=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_archives_with_any_members(place: Path, members: list[tuple[tarfile.TarInfo, bytes]], format: int) -> None:
    path = place / "x.ova"
    with tarfile.open(path, "w", format=format) as archive:
        for info, content in [member("c.ovf", DESCRIPTOR), member("disk.vmdk", DISK), *members]:
            try:
                archive.addfile(info, io.BytesIO(content))
            except ValueError:
                return  # what tar cannot write
    attempt(path)
    try:
        found = read_members(path)
    except OvfError:
        return
    assert len({one.name for one in found}) == len(found)
    assert all(is_plain_name(one.name) for one in found)


def checksummed(header: bytes) -> bytes:
    """The header with the checksum that makes it believed."""
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


def sample(format: int) -> bytes:
    path = io.BytesIO()
    with tarfile.open(fileobj=path, mode="w", format=format) as archive:
        for name, content in {"c.ovf": DESCRIPTOR, "c.mf": MANIFEST, "disk.vmdk": DISK}.items():
            archive.addfile(member(name, content)[0], io.BytesIO(content))
    return path.getvalue()


SAMPLES = tuple(sample(format) for format in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
FIELDS = {"name": (0, 100), "size": (124, 12), "type": (156, 1), "magic": (257, 8), "prefix": (345, 155)}


@st.composite
def believed(draw: st.DrawFn) -> bytes:
    """Archives with fields of their headers overwritten, and the checksums right again."""
    whole = bytearray(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(1, 4))):
        block = draw(st.integers(0, len(whole) // 512 - 1)) * 512
        at, length = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
        value = draw(
            st.binary(max_size=length)
            | st.sampled_from(
                [b"-0000001000", b"-1", b"-777", b"77777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"0o17", b"1_0",
                 b"", b"x", b"g", b"K", b"../../secret", b"+10", b" 10 "]
            )
        )  # fmt: skip
        whole[block + at : block + at + length] = value[:length].ljust(length, b"\0")
        whole[block : block + 512] = checksummed(bytes(whole[block : block + 512]))
    return bytes(whole)


def negative(kind: bytes, size: bytes) -> bytes:
    """A header that says that less than nothing follows it."""
    header = bytearray(SAMPLES[0][:512])
    header[156:157] = kind
    header[124:136] = size.ljust(12, b"\0")
    return checksummed(bytes(header)) + SAMPLES[0]


@given(content=believed())
@example(content=negative(b"g", b"-0000001000"))
@example(content=negative(b"x", b"-0000001000"))
@example(content=negative(b"x", b"-1"))
@example(content=negative(b"0", b"-0000001000"))
def test_archives_with_headers_that_lie(place: Path, content: bytes) -> None:
    """Sizes below zero once sent the reader round and round in one place."""
    path = place / "x.ova"
    path.write_bytes(content)
    attempt(path)


@given(content=damaged(*SAMPLES))
def test_damaged_archives(place: Path, content: bytes) -> None:
    path = place / "x.ova"
    path.write_bytes(content)
    attempt(path)


def test_an_archive_of_headers_alone(place: Path) -> None:
    """Nothing but pax headers, for ever: as many headers as an archive may have members, and no more."""
    records = b"".join(b"6 a=b\n" for _ in range(10_000))
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    one = info.tobuf() + records + b"\0" * (-len(records) % 512)
    path = place / "x.ova"
    with path.open("wb") as file:
        for _ in range(400):
            file.write(one)
    attempt(path)


def test_a_sparse_archive_of_an_exabyte_is_not_read(place: Path) -> None:
    """A size in the header that the file has only by its holes: hashing it would take years."""
    path = write_archive(place / "x.ova", {"c.ovf": DESCRIPTOR})
    with path.open("r+b") as file:
        info = tarfile.TarInfo("disk.vmdk")
        info.size = 1 << 43
        at = 512 + -(-len(DESCRIPTOR) // 512) * 512
        file.seek(at)
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        os.truncate(path, at + 512 + 4096)
    assert attempt(path) is None
