# SPDX-License-Identifier: Apache-2.0
"""S01: an .ova is served from inside the tar, so where its files lie must be right, and nothing else may be there."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.ovf import envelope, manifest, write_archive
from vcenter_eam_plugin.domain.errors import OvfError
from vcenter_eam_plugin.ovf.archive import read_members
from vcenter_eam_plugin.ovf.package import open_package

FORMATS = [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\\", exclude_categories=["Cc", "Cs"]), min_size=1)


def contents(path: Path) -> dict[str, bytes]:
    whole = path.read_bytes()
    return {m.name: whole[m.offset : m.offset + m.size] for m in read_members(path)}


@given(
    files=st.dictionaries(NAMES.filter(lambda n: n not in (".", "..")), st.binary(max_size=1500), max_size=4),
    format=st.sampled_from(FORMATS),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_members_are_where_tar_put_them(tmp_path: Path, files: dict[str, bytes], format: int) -> None:
    """Whatever the names (long ones, beyond ASCII), sizes and format: the same bytes. GNU's long names are refused."""
    path = tmp_path / "x.ova"
    try:
        write_archive(path, {"c.ovf": b"first", **files}, format)
    except ValueError:
        return  # a name that ustar cannot hold
    if format == tarfile.GNU_FORMAT and any(len(name.encode()) > 100 for name in files):
        with pytest.raises(OvfError, match="not a regular file"):
            read_members(path)
        return
    assert contents(path) == {"c.ovf": b"first", **files}


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_a_damaged_archive_never_leads_outside(tmp_path: Path, data: st.DataObject) -> None:
    """Any bytes changed, any length cut: one sentence, or members that lie within the file."""
    path = write_archive(
        tmp_path / "x.ova",
        {"c.ovf": b"a" * 700, "long" * 30 + ".vmdk": b"b" * 3},
        tarfile.PAX_FORMAT,
    )
    whole = bytearray(path.read_bytes()[: data.draw(st.integers(0, 5120))])
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, 5119), st.integers(0, 255)), max_size=4)):
        if place < len(whole):
            whole[place] = byte
    path.write_bytes(whole)
    try:
        members = read_members(path)
    except OvfError:
        return
    assert all(m.offset >= 0 and m.offset + m.size <= len(whole) and "/" not in m.name for m in members)


def member(name: str = "x", size: int = 0, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        (member(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "not a regular file"),
        (member(type=tarfile.LNKTYPE, linkname="c.ovf"), "not a regular file"),
        (member(type=tarfile.DIRTYPE), "not a regular file"),
        (member(type=tarfile.CHRTYPE), "not a regular file"),
        (member(type=tarfile.FIFOTYPE), "not a regular file"),
        (member(type=tarfile.GNUTYPE_SPARSE), "not a regular file"),
        (member("a/b"), "not a plain file name"),
        (member("../b"), "not a plain file name"),
        (member("/etc/passwd"), "not a plain file name"),
        (member(".."), "not a plain file name"),
        (member("a\\b"), "not a plain file name"),
        (member("a\nb"), "not a plain file name"),
        (member("c.ovf"), "two files named 'c.ovf'"),
        (member(pax_headers={"path": "../b"}), "not a plain file name"),
        (member(pax_headers={"GNU.sparse.map": "0,1"}), "sparse"),
        (member(pax_headers={"size": "-1"}), "no number"),
        (member(pax_headers={"size": "99999999"}), "cut short within 'x'"),
        (member(pax_headers={"comment": "x" * 70_000}), "pax header in it cannot be read"),
    ],
)
def test_members_that_are_no_plain_files_are_refused(tmp_path: Path, info: tarfile.TarInfo, sentence: str) -> None:
    """An archive comes from outside: it must not name other files, of the machine or of itself."""
    path = write_archive(tmp_path / "x.ova", {"c.ovf": b"<a/>"})
    header = info.tobuf(tarfile.PAX_FORMAT) if info.pax_headers else info.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(path.read_bytes()[:1024] + header + bytes(1024))
    with pytest.raises(OvfError, match=sentence):
        read_members(path)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_disk_of_more_than_eight_gigabytes(tmp_path: Path, format: int) -> None:
    """ustar's octal size ends at 8 GiB; both ways around that are read. (The file is sparse.)"""
    size = 9 << 30
    head = write_archive(tmp_path / "x.ova", {"c.ovf": b"<a/>"}).read_bytes()[:1024]
    header = member("disk.vmdk", size).tobuf(format)
    with (tmp_path / "x.ova").open("wb") as file:
        file.write(head + header)
        file.truncate(len(head + header) + size + 1024)
    disk = read_members(tmp_path / "x.ova")[1]
    assert (disk.name, disk.size, disk.offset) == ("disk.vmdk", size, len(head + header))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it is empty"),
        (bytes(10240), "it is empty"),
        (b"PK\x03\x04" * 200, "is no tar archive"),
        (b"x", "is no tar archive"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    """One sentence."""
    (tmp_path / "x.ova").write_bytes(content)
    with pytest.raises(OvfError, match=sentence):
        read_members(tmp_path / "x.ova")


def test_a_compressed_archive_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Its bytes are not in the file."""
    path = write_archive(tmp_path / "x.ova", {"c.ovf": b"<a/>"})
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(OvfError, match=r"is no tar archive.*not compressed"):
        read_members(path)


def test_the_descriptor_comes_first(tmp_path: Path) -> None:
    """DSP0243, section 5.3."""
    path = write_archive(tmp_path / "x.ova", {"disk.vmdk": b"d", "c.ovf": b"<a/>"})
    with pytest.raises(OvfError, match=r"its first file is 'disk\.vmdk'.*must come first"):
        read_members(path)


# --- as a package -------------------------------------------------------------------------------------------


def package_files(disk: bytes = b"disk" * 300) -> dict[str, bytes]:
    return {"c.ovf": envelope("disk 1.vmdk").encode(), "disk 1.vmdk": disk}


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA512"])
def test_an_archive_is_a_package_of_what_its_descriptor_references(tmp_path: Path, algorithm: str) -> None:
    """What else is in the archive is not part of it; and its digest is that of the same files in a folder."""
    files = package_files()
    files["c.mf"] = manifest(files, algorithm)
    package = open_package(write_archive(tmp_path / "x.ova", {**files, "other.txt": b"not yours"}))
    assert set(package.files) == set(files)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert open_package(tmp_path / "c.ovf").digest == package.digest
    whole = io.BytesIO((tmp_path / "x.ova").read_bytes()).getvalue()
    for name, piece in package.files.items():
        assert whole[piece.offset : piece.offset + piece.size] == files[name]


def test_a_reference_that_is_not_in_the_archive_is_named(tmp_path: Path) -> None:
    """Not even when it lies beside the archive."""
    (tmp_path / "disk 1.vmdk").write_bytes(b"beside")
    path = write_archive(tmp_path / "x.ova", {"c.ovf": envelope("disk 1.vmdk").encode()})
    with pytest.raises(OvfError, match=r"references 'disk 1\.vmdk', which is not in the archive"):
        open_package(path)


def test_an_archive_whose_disk_is_not_what_the_manifest_expects(tmp_path: Path) -> None:
    """The sentence names the file and both digests."""
    files = package_files()
    files["c.mf"] = manifest({**files, "disk 1.vmdk": b"another"})
    with pytest.raises(OvfError, match=r"'disk 1\.vmdk'.*SHA256 [0-9a-f]{64} instead of [0-9a-f]{64}"):
        open_package(write_archive(tmp_path / "x.ova", files))
