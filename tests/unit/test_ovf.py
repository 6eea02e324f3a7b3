# SPDX-License-Identifier: Apache-2.0
"""S01: the OVF package over HTTP, and only that."""

from __future__ import annotations

import gc
import hashlib
import http.client
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from vcenter_eam_plugin.domain.errors import ConfigurationError, OvfError
from vcenter_eam_plugin.ovf.package import MOST_DESCRIPTOR_BYTES, open_package
from vcenter_eam_plugin.ovf.server import OvfServer

ENVELOPE = "http://schemas.dmtf.org/ovf/envelope/1"


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


# --- the server --------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[OvfServer]:
    server = OvfServer(("127.0.0.1", 0), "", logging.getLogger("test.ovf"))
    server.start()
    yield server
    server.stop()


def ask(url: str, path: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request(method, path or parts.path)
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
    server = OvfServer(("127.0.0.1", 0), "https://ovf.example:8443/", logging.getLogger("test.ovf"))
    assert server.publish(write_package(tmp_path)).startswith("https://ovf.example:8443/ovf/")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_taken_port_is_a_sentence() -> None:
    """A taken port: what, where, why and what to do. (gevent does not close what it cannot bind.)"""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = OvfServer(("127.0.0.1", port), "", logging.getLogger("test.ovf"))
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}.*ovf_server_port"):
            server.start()
        del server
        gc.collect()
