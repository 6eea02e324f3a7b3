# SPDX-License-Identifier: Apache-2.0
"""S01: the OVF package over HTTP, and only that."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import http.client
import json
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ovf import ENVELOPE, envelope, manifest, write_archive, write_certificate
from tests.support.simulator import wait_for
from vcenter_eam_plugin.domain.errors import ConfigurationError, OvfError
from vcenter_eam_plugin.ovf.certificate import read_certificate
from vcenter_eam_plugin.ovf.descriptor import MOST_DESCRIPTOR_BYTES, Disk, Reference, parse_descriptor
from vcenter_eam_plugin.ovf.index import Index
from vcenter_eam_plugin.ovf.package import open_package
from vcenter_eam_plugin.ovf.server import OvfServer

LOG = logging.getLogger("test.ovf")


def write_package(folder: Path, *files: str, name: str = "contrail.ovf", content: bytes = b"disk") -> Path:
    """A descriptor that references these files, and the files."""
    folder.mkdir(parents=True, exist_ok=True)
    references = "".join(f'<File ovf:href="{file}" ovf:id="{n}"/>' for n, file in enumerate(files))
    path = folder / name
    path.write_text(
        f'<Envelope xmlns="{ENVELOPE}" xmlns:ovf="{ENVELOPE}"><References>{references}</References></Envelope>', "utf-8"
    )
    for file in files:
        if "/" not in file and file not in ("", ".", "..") and "\\" not in file:
            (folder / file).write_bytes(content)
    return path


def write_manifest(folder: Path, algorithm: str = "SHA256", **instead: str) -> Path:
    """A manifest of what lies in the folder; ``instead`` gives wrong digests by the file's name without suffix."""
    path = folder / "contrail.mf"
    files = sorted(file for file in folder.iterdir() if file.suffix in (".ovf", ".vmdk"))
    path.write_text(
        "".join(
            f"{algorithm}({file.name})= "
            f"{instead.get(file.stem) or hashlib.new(algorithm.lower(), file.read_bytes()).hexdigest()}\n"
            for file in files
        )
    )
    return path


# --- the package -------------------------------------------------------------------------------------------


def test_a_package_is_its_descriptor_its_references_and_its_manifest(tmp_path: Path) -> None:
    """What belongs to it is served; what else lies in the folder is not."""
    path = write_package(tmp_path, "disk1.vmdk", "disk2.vmdk")
    write_manifest(tmp_path)
    (tmp_path / "secret.txt").write_text("not yours")
    package = open_package(path)
    assert package.descriptor == "contrail.ovf"
    assert set(package.files) == {"contrail.ovf", "contrail.mf", "disk1.vmdk", "disk2.vmdk"}


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    """Design section 5: EAM takes the same URL for the same content and never looks again."""
    one = open_package(write_package(tmp_path / "1", "disk1.vmdk"))
    assert open_package(write_package(tmp_path / "2", "disk1.vmdk")).digest == one.digest
    others = [
        write_package(tmp_path / "3", "disk1.vmdk", content=b"newer"),
        write_package(tmp_path / "4", "disk2.vmdk"),
        write_package(tmp_path / "5", "disk1.vmdk", name="other.ovf"),
    ]
    digests = {open_package(path).digest for path in others} | {one.digest}
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("href", "sentence"),
    [
        ("/etc/passwd", "not a plain file name"),
        ("../secret.txt", "not a plain file name"),
        ("a\\b.vmdk", "not a plain file name"),
        ("http://elsewhere.example/disk.vmdk", "not a plain file name"),
        ("..", "not a plain file name"),
        ("", "not beside it"),
    ],
)
def test_references_that_lead_elsewhere_are_refused(tmp_path: Path, href: str, sentence: str) -> None:
    """The descriptor comes from outside: it must not name files of this machine."""
    with pytest.raises(OvfError, match=sentence):
        open_package(write_package(tmp_path / "package", href))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """One clear sentence: which file."""
    path = write_package(tmp_path, "disk1.vmdk")
    (tmp_path / "disk1.vmdk").unlink()
    with pytest.raises(OvfError, match=r"disk1\.vmdk"):
        open_package(path)
    with pytest.raises(OvfError, match="No such file"):
        open_package(tmp_path / "none.ovf")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not well-formed"),
        (b"<Envelope", "not well-formed"),
        (b"\x00\x01", "not well-formed"),
        (b"<?xml version='1.0' encoding='no-such'?><a/>", "not well-formed"),
        (b"<html/>", "root element is html"),
        (b"<Envelope/>", "root element is Envelope"),
        (b" " * (MOST_DESCRIPTOR_BYTES + 1), "larger than 8 MiB"),
    ],
)
def test_what_is_no_descriptor_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    """OVF malformed: one clear sentence."""
    (tmp_path / "contrail.ovf").write_bytes(content)
    with pytest.raises(OvfError, match=sentence):
        open_package(tmp_path / "contrail.ovf")


def test_entities_are_not_followed(tmp_path: Path) -> None:
    """A descriptor must not read files of this machine, nor grow without bound."""
    (tmp_path / "secret.txt").write_text("disk1.vmdk")
    (tmp_path / "contrail.ovf").write_text(
        f'<!DOCTYPE x [<!ENTITY e SYSTEM "secret.txt">]><Envelope xmlns="{ENVELOPE}" xmlns:ovf="{ENVELOPE}">'
        f'<References><File ovf:href="disk1.vmdk">&e;</File></References></Envelope>'
    )
    (tmp_path / "disk1.vmdk").write_bytes(b"disk")
    assert set(open_package(tmp_path / "contrail.ovf").files) == {"contrail.ovf", "disk1.vmdk"}


@pytest.mark.parametrize(
    ("capacity", "units", "expected"),
    [
        ("10", "byte * 2^30", 10 << 30),
        ("10", "byte*2^20", 10 << 20),
        ("3", "byte * 10^9", 3 * 10**9),
        ("512", "", 512),
        ("512", "byte", 512),
        ("${disk.size}", "byte * 2^30", 0),
        ("10", "furlong", 0),
        ("9" * 30, "", 0),
    ],
)
def test_what_a_disk_takes_when_it_is_full(capacity: str, units: str, expected: int) -> None:
    """Units as DSP0004 writes them; what is not understood counts as nothing."""
    unit = f' ovf:capacityAllocationUnits="{units}"' if units else ""
    disk = f'<DiskSection><Disk ovf:capacity="{capacity}"{unit} ovf:diskId="d1"/></DiskSection>'
    about = parse_descriptor(envelope("a.vmdk", body=disk).encode(), "a test")
    assert (about.disk_bytes, about.file_bytes) == (expected, 0)


def test_what_a_descriptor_says(tmp_path: Path) -> None:
    """Schema, references, disks, networks, properties: what a person and EAM must know of a package."""
    path = tmp_path / "c.ovf"
    (tmp_path / "disk.vmdk").write_bytes(b"disk")
    path.write_text(
        f'''<Envelope xmlns="{ENVELOPE}" xmlns:ovf="{ENVELOPE}">
        <References><File ovf:href="disk.vmdk" ovf:id="file1" ovf:size="4"/></References>
        <DiskSection><Disk ovf:capacity="10" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="d1"
            ovf:fileRef="file1"/></DiskSection>
        <NetworkSection><Network ovf:name="management"/><Network ovf:name="fabric"/></NetworkSection>
        <VirtualSystem ovf:id="vm"><Name>ContrailVM</Name>
          <ProductSection ovf:class="net" ovf:instance="1"><Version>R5.1</Version>
            <Property ovf:key="ip" ovf:userConfigurable="true"/><Property ovf:key="mask"/></ProductSection>
          <ProductSection><Property ovf:key="root" ovf:userConfigurable="1" ovf:password="true"/></ProductSection>
        </VirtualSystem></Envelope>'''
    )
    about = open_package(path).about
    assert (about.name, about.version) == ("ContrailVM", "R5.1")
    assert about.references == (Reference("disk.vmdk", 4),)
    assert (about.file_bytes, about.disk_bytes) == (4, 10 << 30)
    assert about.disks == (Disk("d1", "10", "byte * 2^30", "file1"),)
    assert about.networks == ("management", "fabric")
    assert about.required_properties() == ("net.ip.1", "root")
    assert [item.key for item in about.properties if item.password] == ["root"]


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA384", "SHA512"])
def test_a_disk_that_is_not_what_the_manifest_expects_is_refused(tmp_path: Path, algorithm: str) -> None:
    """S01, bad input: the sentence names the file, and both digests."""
    path = write_package(tmp_path, "disk1.vmdk", "disk2.vmdk")
    write_manifest(tmp_path, algorithm)
    assert len(open_package(path).files) == 4
    (tmp_path / "disk2.vmdk").write_bytes(b"dusk")
    is_now = hashlib.new(algorithm.lower(), b"dusk").hexdigest()
    was = hashlib.new(algorithm.lower(), b"disk").hexdigest()
    with pytest.raises(OvfError, match=f"'disk2.vmdk'.*{algorithm} {is_now} instead of {was}"):
        open_package(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("SHA256(disk1.vmdk)= 00", "cannot be understood at line 1"),
        ("\nMD5(disk1.vmdk)= " + "0" * 32, "cannot be understood at line 2"),
        ("disk1.vmdk", "cannot be understood at line 1"),
        (f"SHA1(x)= {'0' * 40}\nSHA1(x)= {'0' * 40}", "names 'x' twice"),
        (f"SHA1(x)= {'0' * 40}", "has no digest of 'contrail.ovf'"),
        ("", "has no digest of 'contrail.ovf'"),
    ],
)
def test_a_manifest_that_says_nothing_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """What it leaves out could be anything."""
    path = write_package(tmp_path, "disk1.vmdk")
    path.with_suffix(".mf").write_text(text)
    with pytest.raises(OvfError, match=sentence):
        open_package(path)


def test_a_disk_of_another_size_than_the_descriptor_says(tmp_path: Path) -> None:
    """A copy that broke off is seen without a manifest, too, and before it is read."""
    path = write_package(tmp_path, "disk1.vmdk")
    path.write_text(path.read_text().replace("<File ", '<File ovf:size="5" '))
    with pytest.raises(OvfError, match=r"says that 'disk1.vmdk' has 5 bytes; it has 4"):
        open_package(path)


def test_a_disk_in_chunks(tmp_path: Path) -> None:
    """DSP0243: the reference's name, a dot and nine digits."""
    path = write_package(tmp_path, "disk1.vmdk")
    path.write_text(path.read_text().replace("<File ", '<File ovf:size="5" ovf:chunkSize="3" '))
    for number in range(2):
        (tmp_path / f"disk1.vmdk.{number:09d}").write_bytes(b"x")
    assert set(open_package(path).files) == {"contrail.ovf", "disk1.vmdk.000000000", "disk1.vmdk.000000001"}
    path.write_text(path.read_text().replace('size="5"', 'size="999999999"'))
    with pytest.raises(OvfError, match="in chunks, without a size that fits"):
        open_package(path)


def test_a_reference_is_a_url(tmp_path: Path) -> None:
    """Bug: "disk%201.vmdk" was asked for as "disk 1.vmdk", and not found."""
    package = open_package(write_package(tmp_path, "disk%201.vmdk"))
    assert package.files["disk 1.vmdk"] == package.files["disk%201.vmdk"]
    assert set(open_package(write_package(tmp_path / "2", "%2e%2e", "%2fetc%2fpasswd")).files) == {
        "contrail.ovf",
        "%2e%2e",
        "%2fetc%2fpasswd",
    }


# --- the server --------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[OvfServer]:
    server = OvfServer(("127.0.0.1", 0), "", LOG)
    server.start()
    yield server
    server.stop()


def ask(
    url: str, path: str | None = None, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request(method, path or parts.path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_every_file_of_the_package_is_served_beside_the_descriptor(tmp_path: Path, server: OvfServer) -> None:
    """S01: EAM asks for the descriptor, then for what it references, by the same path."""
    content = os.urandom(600_000)
    url = server.publish(write_package(tmp_path, "disk1.vmdk", content=content))
    status, headers, body = ask(url)
    assert (status, headers["Content-Type"]) == (200, "text/xml")
    assert body == (tmp_path / "contrail.ovf").read_bytes()
    folder = urlsplit(url).path.rpartition("/")[0]
    status, headers, body = ask(url, f"{folder}/disk1.vmdk")
    assert (status, body == content, headers["Content-Length"]) == (200, True, "600000")
    status, headers, body = ask(url, f"{folder}/disk1.vmdk", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "600000", b"")


@pytest.mark.parametrize("name", ["Contrail VM.ovf", "contrail-ü.ovf", "a#b?c%20.ovf"])
def test_names_that_a_url_must_quote(tmp_path: Path, server: OvfServer, name: str) -> None:
    """Bug: the URL carried the name as it is, and names beyond ASCII were not found."""
    path = write_package(tmp_path, name=name)
    url = server.publish(path)
    assert url.isascii()
    assert " " not in url
    assert ask(url)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/", "/ovf", "/ovf/{digest}", "/ovf/{digest}/", "/ovf/{digest}/secret.txt", "/ovf/{digest}/../../secret.txt",
        "/ovf/{digest}/%2e%2e%2fsecret.txt", "/ovf/{digest}/disk1.vmdk/", "/ovf/0000/contrail.ovf",
        "//ovf/{digest}/contrail.ovf", "/ovf/{digest}/contrail.ovf%00", "/ovf/{digest}/%ff%fe",
    ],
)  # fmt: skip
def test_nothing_else_is_served(tmp_path: Path, server: OvfServer, path: str) -> None:
    """Names are looked up in a table, never joined to a path."""
    (tmp_path / "secret.txt").write_text("not yours")
    url = server.publish(write_package(tmp_path, "disk1.vmdk"))
    digest = urlsplit(url).path.split("/")[2]
    assert ask(url, path.format(digest=digest))[::2] == (404, b"")


PARTS = (
    st.sampled_from(
        ["..", ".", "", "ovf", "secret.txt", "disk1.vmdk", "contrail.ovf", "*", "etc", "passwd", "~", "{digest}"]
    )
    | st.sampled_from(["%2e%2e", "%2f", "%5c", "%00", "%ff", "..%2f..%2fetc%2fpasswd", "disk1%2evmdk", ";", "?", "#"])
    | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=8)
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[OvfServer, str]:
    """A server that is asked without a network, and the digest of the one package that it has."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "secret.txt").write_text("not yours")
    server = OvfServer(("127.0.0.1", 0), "http://x", LOG)
    return server, server.open(write_package(folder, "disk1.vmdk")).digest


@given(parts=st.lists(PARTS, max_size=7) | st.lists(PARTS, max_size=3).map(lambda rest: ["ovf", "{digest}", *rest]))
@settings(max_examples=500, deadline=None)
def test_no_path_leads_out_of_the_package(published: tuple[OvfServer, str], parts: list[str]) -> None:
    """For any path: a file of the package under exactly its own URL, or nothing."""
    server, digest = published
    path = "/" + "/".join(parts).replace("{digest}", digest)
    statuses: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": unquote(path, "latin-1"), "QUERY_STRING": ""}
    body = server._answer(environ, lambda status, headers: statuses.append(status))
    got = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    name = unquote(path).removeprefix(f"/ovf/{digest}/")
    if f"/ovf/{digest}/{name}" == unquote(path) and name in ("contrail.ovf", "disk1.vmdk"):
        assert (statuses, b"disk" in got) == (["200 OK"], True)
    else:
        assert (statuses, got) == (["404 Not Found"], b"")


def test_a_download_that_broke_off_goes_on(tmp_path: Path, server: OvfServer) -> None:
    """S01: range and conditional requests, over the wire."""
    content = os.urandom(600_000)
    url = server.publish(write_package(tmp_path, "disk1.vmdk", content=content)).replace("contrail.ovf", "disk1.vmdk")
    status, whole, _ = ask(url, method="HEAD")
    assert (status, whole["Accept-Ranges"], whole["ETag"]) == (200, "bytes", f'"{hashlib.sha256(content).hexdigest()}"')
    for validator in (whole["ETag"], whole["Last-Modified"]):
        status, headers, body = ask(url, headers={"Range": "bytes=300000-", "If-Range": validator})
        assert (status, headers["Content-Range"]) == (206, "bytes 300000-599999/600000")
        assert (headers["Content-Length"], body == content[300_000:]) == ("300000", True)
    status, headers, body = ask(url, headers={"Range": "bytes=300000-", "If-Range": '"older"'})
    assert (status, body == content) == (200, True)
    status, headers, body = ask(url, headers={"Range": "bytes=600000-"})
    assert (status, headers["Content-Range"], body) == (416, "bytes */600000", b"")
    assert ask(url, headers={"If-None-Match": whole["ETag"]})[::2] == (304, b"")
    assert ask(url, headers={"If-Match": '"older"'})[::2] == (412, b"")
    status, headers, body = ask(url, method="HEAD", headers={"Range": "bytes=0-1"})
    assert (status, headers["Content-Length"], body) == (200, "600000", b"")


def test_one_connection_serves_many_requests(tmp_path: Path, server: OvfServer) -> None:
    """Answers of every kind end where they say, so the next request is understood."""
    url = urlsplit(server.publish(write_package(tmp_path, "disk1.vmdk")))
    folder = url.path.rpartition("/")[0]
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    with contextlib.closing(connection):
        for path, headers, status, body in (
            ("disk1.vmdk", {}, 200, b"disk"),
            ("none.vmdk", {}, 404, b""),
            ("disk1.vmdk", {"Range": "bytes=1-2"}, 206, b"is"),
            ("disk1.vmdk", {"Range": "bytes=9-"}, 416, b""),
            ("disk1.vmdk", {"If-None-Match": "*"}, 304, b""),
            ("disk1.vmdk", {"If-Match": '"x"'}, 412, b""),
            ("disk1.vmdk", {}, 200, b"disk"),
        ):
            connection.request("GET", f"{folder}/{path}", headers=headers)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (status, body)


def test_an_archive_is_served_from_inside(tmp_path: Path, server: OvfServer) -> None:
    """S01: not unpacked; ranges are those of the file, not of the archive."""
    content = os.urandom(300_000)
    files = {"c.ovf": envelope("disk1.vmdk").encode(), "disk1.vmdk": content}
    files["c.mf"] = manifest(files)
    url = server.publish(write_archive(tmp_path / "x.ova", {**files, "secret.txt": b"not yours"}))
    assert url.endswith("/c.ovf")
    assert [ask(url.replace("c.ovf", name))[::2] == (200, body) for name, body in files.items()] == [True] * 3
    assert ask(url.replace("c.ovf", "secret.txt"))[0] == 404
    assert ask(url.replace("c.ovf", "disk1.vmdk"), headers={"Range": "bytes=-5"})[::2] == (206, content[-5:])
    assert list(tmp_path.iterdir()) == [tmp_path / "x.ova"]


def test_a_file_that_was_overwritten_is_not_served_under_the_old_digest(
    tmp_path: Path, server: OvfServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The digest in the URL is a promise. Put back, or only touched, the same bytes are served again."""
    url = server.publish(write_package(tmp_path, "disk1.vmdk")).replace("contrail.ovf", "disk1.vmdk")
    disk = tmp_path / "disk1.vmdk"
    os.utime(disk, (1, 1))
    assert ask(url)[::2] == (200, b"disk")
    disk.write_bytes(b"dusk")
    assert ask(url)[::2] == (404, b"")
    assert f"{disk} was changed since it was published" in caplog.text
    disk.unlink()
    disk.write_bytes(b"disk")
    assert ask(url)[::2] == (200, b"disk")


def test_a_file_that_shrinks_during_the_download_ends_it(tmp_path: Path, server: OvfServer) -> None:
    """The length was told; the client must see that it did not get all, and the server lives on."""
    with (write_package(tmp_path, "disk1.vmdk").parent / "disk1.vmdk").open("wb") as file:
        file.truncate(64 << 20)
    url = urlsplit(server.publish(tmp_path / "contrail.ovf").replace("contrail.ovf", "disk1.vmdk"))
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", url.path)
        answer = connection.getresponse()
        answer.read(1)
        os.truncate(tmp_path / "disk1.vmdk", 100)
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
    assert ask(url.geturl(), url.path.replace("disk1.vmdk", "contrail.ovf"))[0] == 200


def test_clients_that_go_away_leave_nothing_open(tmp_path: Path, server: OvfServer) -> None:
    """EAM gives a download up: the file is closed, and no traceback is printed."""
    with (write_package(tmp_path, "disk1.vmdk").parent / "disk1.vmdk").open("wb") as file:
        file.truncate(64 << 20)
    url = urlsplit(server.publish(tmp_path / "contrail.ovf").replace("contrail.ovf", "disk1.vmdk"))
    for _ in range(5):
        with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as client:
            client.sendall(f"GET {url.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.recv(100)

    def still_open() -> bool:
        return any(str(tmp_path) in os.path.realpath(file) for file in Path("/proc/self/fd").iterdir())

    wait_for(lambda: not still_open(), what="the files are closed")


# --- what was published is remembered ------------------------------------------------------------------------


def test_after_a_restart_every_digest_is_served_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Design section 5: also those that are no longer configured, and without reading gigabytes anew."""
    index = tmp_path / "index.json"
    old = write_package(tmp_path / "1", "disk1.vmdk")
    new = write_archive(tmp_path / "2.ova", {"c.ovf": envelope().encode()})
    first = OvfServer(("127.0.0.1", 0), "", LOG, index=index)
    first.start()
    urls = [urlsplit(first.publish(path)).path for path in (old, new)]
    first.stop()
    assert index.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr("vcenter_eam_plugin.ovf.server.measure", lambda layout: pytest.fail("it was read again"))
    second = OvfServer(("127.0.0.1", 0), "", LOG, index=index)
    second.start()
    try:
        base = second.publish(new)
        assert urlsplit(base).path == urls[1]
        assert [ask(base, path)[0] for path in urls] == [200, 200]
    finally:
        second.stop()


def test_a_package_that_was_touched_is_read_again(tmp_path: Path) -> None:
    """Its digest is found anew; the old one is not served with new bytes."""
    server = OvfServer(("127.0.0.1", 0), "http://x", LOG, index=tmp_path / "index.json")
    path = write_package(tmp_path / "1", "disk1.vmdk")
    one = server.publish(path)
    (tmp_path / "1" / "disk1.vmdk").write_bytes(b"dusk")
    two = server.publish(path)
    write_manifest(tmp_path / "1")
    assert len({one, two, server.publish(path)}) == 3


def test_the_same_package_in_two_places(tmp_path: Path, server: OvfServer) -> None:
    """It is served for as long as one of them is there."""
    urls = {server.publish(write_package(tmp_path / place, "disk1.vmdk")) for place in "12"}
    (url,) = urls
    for place in "21":
        assert ask(url)[0] == 200
        assert server.trouble(url) is None
        (tmp_path / place / "contrail.ovf").unlink()
    assert ask(url)[0] == 404
    assert "No such file" in (server.trouble(url) or "")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"version": 9, "packages": []}', '{"version": 1, "packages": [{"digest": "x"}]}', "[" * 100_000],
)
def test_a_damaged_index_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    """It is said, and what is configured is served all the same."""
    index = tmp_path / "index.json"
    index.write_text(content)
    server = OvfServer(("127.0.0.1", 0), "", LOG, index=index)
    server.start()
    try:
        assert ask(server.publish(write_package(tmp_path / "1")))[0] == 200
    finally:
        server.stop()
    assert "index.damaged" in caplog.text
    assert (tmp_path / "index.damaged").read_text() == content
    assert '"digest"' in index.read_text()


@pytest.mark.parametrize(
    "harm",
    [
        lambda item: item["files"].update({"../x": item["files"]["contrail.ovf"]}),
        lambda item: item["files"]["contrail.ovf"].update(offset=-1),
        lambda item: item["files"]["contrail.ovf"].update(size="4"),
        lambda item: item["files"]["contrail.ovf"].update(stamp=[1]),
        lambda item: item["files"]["contrail.ovf"].update(sha256="x"),
        lambda item: item.update(digest="x"),
        lambda item: item.update(descriptor="other.ovf"),
    ],
)
def test_an_index_with_what_cannot_be_is_not_used(tmp_path: Path, harm: Callable[[Any], Any]) -> None:
    """Half an index could serve the wrong bytes."""
    index = tmp_path / "index.json"
    OvfServer(("127.0.0.1", 0), "http://x", LOG, index=index).publish(write_package(tmp_path / "1"))
    document = json.loads(index.read_text())
    harm(document["packages"][0])
    index.write_text(json.dumps(document))
    loaded = Index(index, LOG)
    loaded.load()
    assert loaded.entries() == ()


def test_an_index_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Serving goes on."""
    server = OvfServer(("127.0.0.1", 0), "http://x", LOG, index=tmp_path / "none" / "index.json")
    server.publish(write_package(tmp_path / "1"))
    assert "cannot be written: No such file or directory" in caplog.text


def test_what_an_agency_could_not_redeploy_from(tmp_path: Path) -> None:
    """A sentence for each: another place, an unknown digest, a file that is gone; nothing for somebody else's URL."""
    server = OvfServer(("127.0.0.1", 0), "http://x:1", LOG)
    url = server.publish(write_package(tmp_path, "disk1.vmdk"))
    assert server.trouble(url) is None
    assert server.trouble("https://elsewhere.example/contrail.ovf") is None
    assert "serves at http://x:1" in (server.trouble(url.replace("x:1", "x:2")) or "")
    assert "never published here" in (server.trouble(f"http://x:1/ovf/{'0' * 64}/contrail.ovf") or "")
    (tmp_path / "disk1.vmdk").write_bytes(b"other length")
    assert "disk1.vmdk was changed" in (server.trouble(url) or "")


# --- HTTPS -----------------------------------------------------------------------------------------------------


def test_https_with_our_own_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """S01: the certificate that is shown is the one to pin. Who speaks plain HTTP there is a line in the log."""
    certificate, key = write_certificate(tmp_path)
    server = OvfServer(("127.0.0.1", 0), "", LOG, certificate=certificate, key=key)
    server.start()
    try:
        url = urlsplit(server.publish(write_package(tmp_path, "disk1.vmdk")))
        assert (url.scheme, server.certificate is not None) == ("https", True)
        assert server.certificate is not None
        context = ssl.create_default_context(cadata=server.certificate.pem)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=10, context=context)
        with contextlib.closing(connection):
            connection.request("GET", url.path)
            assert connection.getresponse().status == 200
            assert isinstance(connection.sock, ssl.SSLSocket)
            assert connection.sock.getpeercert(binary_form=True) == server.certificate.der
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(url.geturl())
        wait_for(lambda: "could not talk TLS with 127.0.0.1" in caplog.text, what="it is logged")
    finally:
        server.stop()


def test_a_certificate_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    """Another's key, an encrypted key (OpenSSL must not ask for its password), no certificate at all."""
    certificate, key = write_certificate(tmp_path)
    _, other = write_certificate(tmp_path, "other")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    for chosen, with_key in ((certificate, other), (certificate, locked), (key, key)):
        with pytest.raises(ConfigurationError, match=r"cannot use the certificate.*ovf_server_key"):
            OvfServer(("127.0.0.1", 0), "", LOG, certificate=chosen, key=with_key)
    with pytest.raises(ConfigurationError, match="holds no certificate"):
        read_certificate(key)


def test_only_reading(tmp_path: Path, server: OvfServer) -> None:
    """Nobody uploads here."""
    url = server.publish(write_package(tmp_path))
    status, headers, _ = ask(url, method="PUT")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_file_that_vanished_is_not_there(tmp_path: Path, server: OvfServer, caplog: pytest.LogCaptureFixture) -> None:
    """404 and a line for the operator, and the server lives on."""
    url = server.publish(write_package(tmp_path, "disk1.vmdk"))
    (tmp_path / "disk1.vmdk").unlink()
    assert ask(url, urlsplit(url).path.replace("contrail.ovf", "disk1.vmdk"))[0] == 404
    assert "disk1.vmdk" in caplog.text
    assert ask(url)[0] == 200


def test_every_digest_that_was_published_stays(tmp_path: Path, server: OvfServer) -> None:
    """Design section 5: every digest is served, for as long as the agency lives."""
    old = server.publish(write_package(tmp_path / "1", "disk1.vmdk"))
    new = server.publish(write_package(tmp_path / "2", "disk1.vmdk", content=b"newer"))
    assert old != new
    assert [ask(url)[0] for url in (old, new)] == [200, 200]


def test_the_base_url_is_how_vcenter_reaches_it(tmp_path: Path) -> None:
    """A name or virtual address that stays, and not the address of today."""
    server = OvfServer(("127.0.0.1", 0), "https://ovf.example:8443/", LOG)
    assert server.publish(write_package(tmp_path)).startswith("https://ovf.example:8443/ovf/")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_taken_port_is_a_sentence() -> None:
    """A taken port: what, where, why and what to do. (gevent does not close what it cannot bind.)"""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = OvfServer(("127.0.0.1", port), "", LOG)
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}.*ovf_server_port"):
            server.start()
        del server
        gc.collect()
