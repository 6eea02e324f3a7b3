# SPDX-License-Identifier: Apache-2.0
"""The OVF server, which anybody on the network may ask: nothing but the package is reachable, nobody keeps others out,
and what is asked costs a line in the log at most."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.generate import damaged, in_time
from tests.support.ovf import envelope
from vcenter_eam_plugin.ovf import handler, server
from vcenter_eam_plugin.ovf.server import OvfServer

DISK = bytes(range(256)) * 40
SECRET = b"top-secret"


class Serving:
    """A server with one package, beside which lies what nobody may get at."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "ovf"
        self.folder.mkdir(parents=True)
        (directory / "secret").write_bytes(SECRET)
        (self.folder / "secret").write_bytes(SECRET)
        (self.folder / "disk.vmdk").write_bytes(DISK)
        (self.folder / "c.ovf").write_text(envelope("disk.vmdk"))
        self.log = logging.getLogger("fuzz.ovf")
        self.server = OvfServer(("127.0.0.1", 0), "", self.log, index=directory / "index.json")
        self.server.start()
        url = self.server.publish(self.folder / "c.ovf")
        self.port = int(url.split(":")[2].split("/")[0])
        self.base = "/" + url.split("/", 3)[3].rpartition("/")[0]

    def talk(self, sent: bytes, *, end: bool = True) -> bytes:
        """Everything that is answered to these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            answered = b""
            try:
                sock.sendall(sent)
                if end:
                    sock.shutdown(socket.SHUT_WR)
                while piece := sock.recv(65536):
                    answered += piece
            except (BrokenPipeError, ConnectionResetError):
                pass  # it hung up on us, which is an answer
            return answered

    def serves(self) -> bool:
        """Whether the next download is right."""
        return self.talk(request(f"{self.base}/disk.vmdk")).endswith(b"\r\n\r\n" + DISK)


def request(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "Connection: close", "", ""]).encode(
        "latin-1", "replace"
    )


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    made = Serving(tmp_path_factory.mktemp("serving"))
    yield made
    made.server.stop()


def judge(serving: Serving, sent: bytes, answered: bytes, stderr: str) -> None:
    assert SECRET not in answered
    statuses = [int(line[9:12]) for line in answered.split(b"\r\n") if line[:7] == b"HTTP/1." and line[9:12].isdigit()]
    assert all(status < 500 for status in statuses), answered[:300]
    assert b"Traceback" not in answered
    assert "Traceback" not in stderr, stderr[-1500:]
    assert serving.serves()


SEGMENTS = st.sampled_from(
    ["..", ".", "", "secret", "c.ovf", "disk.vmdk", "%2e%2e", "%2E%2E%2Fsecret", "%00", "%", "%zz",
     "%c0%ae%c0%ae", "\\", "~",
     "ovf", "etc", "passwd", "c.ovf%00.html", "disk.vmdk/", "C:", "*", "x" * 3000, "\xff", ";", "DISK.VMDK"]
) | st.text(st.characters(max_codepoint=255, exclude_characters=" \r\n"), max_size=5)  # fmt: skip


@given(
    under=st.booleans(), segments=st.lists(SEGMENTS, max_size=6), query=st.sampled_from(["", "?x=../secret", "#c.ovf"])
)
@example(under=True, segments=["..", "secret"], query="")
@example(under=True, segments=["secret"], query="")
def test_paths(
    serving: Serving, capfd: pytest.CaptureFixture[str], under: bool, segments: list[str], query: str
) -> None:
    capfd.readouterr()
    path = "/".join([serving.base if under else "", *segments]) + query
    sent = request(path or "/")
    with in_time(sent):
        answered = serving.talk(sent)
    judge(serving, sent, answered, capfd.readouterr().err)
    if answered.startswith(b"HTTP/1.1 200"):
        assert answered.endswith((DISK, b"</Envelope>"))


VALUES = st.sampled_from(
    ["bytes=0-", "bytes=-1", "bytes=5-3", "bytes=0-0,1-1", "bytes=" + "9" * 19 + "-", "bytes=-" + "9" * 19,
     "bytes=--1", "lines=0-1",
     "bytes=0-" + "9" * 500, "bytes=" + "0-1," * 1000, "*", '"x"', 'W/"x"', '"' * 500, ",".join(['W/"x"'] * 300),
     "Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 99 Foo 99999 99:99:99 GMT", "Thu, 01 Jan 0000 00:00:00 +9999", "0", "-1",
     "Sun, 06 Nov 1994 08:49:37 +99999999999", "9" * 30, "\xff", ""]
) | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=20)  # fmt: skip
HEADERS = st.sampled_from(
    ["Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Host",
     "Content-Length",
     "Transfer-Encoding", "Connection", "Upgrade", "Expect", "Accept-Encoding", "X_Y"]
)  # fmt: skip


@given(
    headers=st.lists(st.tuples(HEADERS, VALUES), max_size=5),
    method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "get", "TRACE", "CONNECT"]),
)
def test_headers(
    serving: Serving, capfd: pytest.CaptureFixture[str], headers: list[tuple[str, str]], method: str
) -> None:
    capfd.readouterr()
    sent = request(f"{serving.base}/disk.vmdk", *(f"{name}: {value}" for name, value in headers), method=method)
    with in_time(sent):
        answered = serving.talk(sent)
    judge(serving, sent, answered, capfd.readouterr().err)


TELLING = (
    b"GET / HTTP/1.1\r\n\r\n", b"GET /\r\n", b"HTTP/0.9", b"HTTP/9.9", b"X: y\r\n" * 150,
    b"X: " + b"y" * 70_000 + b"\r\n",
    b"Content-Length: 99999999999\r\n", b"Transfer-Encoding: chunked\r\n", b" folded\r\n",
    b"\x16\x03\x01\x02\x00", b"A" * 9000,
)  # fmt: skip


@given(data=st.data())
def test_bytes(serving: Serving, capfd: pytest.CaptureFixture[str], data: st.DataObject) -> None:
    """Also several requests in one go, and TLS where none is spoken."""
    one = request(f"{serving.base}/c.ovf").replace(b"Connection: close\r\n", b"")
    sent = data.draw(damaged(one, one * 3, one[:40], telling=TELLING) | st.binary(max_size=60))
    capfd.readouterr()
    with in_time(sent):
        answered = serving.talk(sent)
    judge(serving, sent, answered, capfd.readouterr().err)


def test_a_flood_of_headers_is_no_traceback(serving: Serving, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    answered = serving.talk(request("/", *(f"X-{number}: y" for number in range(500))))
    assert answered.startswith(b"HTTP/1.1 400")
    assert "Traceback" not in capfd.readouterr().err


def test_many_requests_on_one_connection(serving: Serving) -> None:
    """Pipelined: each answered in turn."""
    one = request(f"{serving.base}/disk.vmdk", "Range: bytes=0-9").replace(b"Connection: close\r\n", b"")
    assert serving.talk(one * 200).count(b"HTTP/1.1 206") == 200


def drips(serving: Serving, sent: bytes) -> Callable[[], bool]:
    """A peer that sends a byte now and then and never ends; says whether it was let go."""
    sock = socket.create_connection(("127.0.0.1", serving.port))
    over: list[bool] = []

    def drip() -> None:
        try:
            for at in range(len(sent)):
                sock.sendall(sent[at : at + 1])
                gevent.sleep(0.02)
            while sock.recv(4096):
                pass
        except OSError:
            pass
        over.append(True)
        sock.close()

    gevent.spawn(drip)
    return lambda: bool(over)


@pytest.mark.parametrize("what", ["request line", "headers", "body"])
def test_slow_peers_do_not_keep_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """As many as there are places, each of them a byte at a time: after the time for a head they are gone."""
    monkeypatch.setattr(handler, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(server, "_CONNECTIONS", 8)
    serving = Serving(tmp_path)
    sent = {
        "request line": b"G" * 8000,
        "headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000,
        "body": b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
    }[what]
    try:
        slow = [drips(serving, sent) for _ in range(8)]
        began = time.monotonic()
        assert serving.serves()
        assert time.monotonic() - began < 15
        deadline = time.monotonic() + 15
        while not all(over() for over in slow) and time.monotonic() < deadline:
            gevent.sleep(0.05)
        assert all(over() for over in slow)
    finally:
        serving.server.stop()
