# SPDX-License-Identifier: Apache-2.0
"""S01: several vCenters fetch multi-gigabyte disks at once: constant memory, and the event loop stays free."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import gevent
import psutil
import pytest

from tests.support.ovf import envelope, write_certificate
from vcenter_eam_plugin.ovf.index import Index
from vcenter_eam_plugin.ovf.package import inspect, with_digests
from vcenter_eam_plugin.ovf.server import OvfServer

LOG = logging.getLogger("test.ovf")
GIB = 1 << 30
DISK = 16 * GIB
"""Sparse: it takes no room; each client fetches a part of it, beyond what 32 bits can count."""
MOST_MEMORY = 32 << 20
"""A chunk of 256 KiB and its copies per client, and what the allocator keeps: nothing that grows with the file."""
MOST_HOLD = 0.05
"""Seconds: nothing holds the event loop longer."""

CLIENT = """
import ssl, sys, urllib.request
url, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
request = urllib.request.Request(url, headers={"Range": f"bytes={first}-{last}"})
context = ssl._create_unverified_context()
buffer, got, marks = bytearray(1 << 20), 0, []
sys.stdin.readline()
with urllib.request.urlopen(request, context=context) as response:
    assert response.status == 206
    while count := response.readinto(buffer):
        if (at := buffer.find(b"mark", 0, count)) >= 0:
            marks.append(first + got + at)
        got += count
print(got, *marks)
"""
CONTROL = """
import sys, time
worst, last = 0.0, time.perf_counter()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.001)[0]:
    now = time.perf_counter()
    worst, last = max(worst, now - last), now
print(worst)
"""
"""What this machine does to a process that does nothing, meanwhile: other processes hold it up just as ours."""


class Hold:
    """In seconds: how long the event loop was held at most, how much of the processor it took at most without letting
    others run, and how long a process beside it was kept waiting."""

    loop = 0.0
    processor = 0.0
    machine = 0.0

    def check(self) -> None:
        print(", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in vars(self).items()))
        assert self.processor < MOST_HOLD
        assert self.loop < MOST_HOLD + 2 * self.machine


@contextlib.contextmanager
def measured_hold() -> Iterator[Hold]:
    hold = Hold()

    def beat() -> None:
        last, used = time.perf_counter(), time.thread_time()
        while True:
            gevent.sleep(0.001)
            now, uses = time.perf_counter(), time.thread_time()
            hold.loop, last = max(hold.loop, now - last), now
            hold.processor, used = max(hold.processor, uses - used), uses

    command = [sys.executable, "-c", f"import select\n{CONTROL}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as control:
        assert control.stdin is not None
        assert control.stdout is not None
        control.stdout.readline()
        beating = gevent.spawn(beat)
        yield hold
        beating.kill()
        control.stdin.close()
        hold.machine = float(control.stdout.read())


def _said(client: subprocess.Popen[str]) -> list[str]:
    with client:
        assert client.stdout is not None
        return client.stdout.read().split()


@pytest.mark.slow
@pytest.mark.parametrize(("tls", "each"), [(False, GIB // 2), (True, GIB // 8)], ids=["http", "https"])
def test_four_clients_at_once(tmp_path: Path, tls: bool, each: int) -> None:
    """Memory and the loop's longest hold while 2 GiB (half a GiB with TLS) go out."""
    path = tmp_path / "c.ovf"
    path.write_text(envelope("disk.vmdk"))
    starts = [GIB, 3 * GIB, 5 * GIB, DISK - each]  # the last one up to the end
    with (tmp_path / "disk.vmdk").open("wb") as file:
        file.truncate(DISK)
        for start in starts:
            file.seek(start + 12345)
            file.write(b"mark")
    # Known from an earlier run, so that 16 GiB are not read for a digest that this test does not need.
    layout = inspect(path)
    known = Index(tmp_path / "index.json", LOG)
    known.add(with_digests(layout, dict.fromkeys(layout.files, "0" * 64)))
    certificate, key = write_certificate(tmp_path) if tls else (None, None)
    server = OvfServer(("127.0.0.1", 0), "", LOG, certificate=certificate, key=key, index=tmp_path / "index.json")
    server.start()
    try:
        url = server.publish(path).replace("c.ovf", "disk.vmdk")
        own = psutil.Process()
        # Starting a process holds the loop, too: they are made before, and wait for their turn.
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", CLIENT, url, str(start), str(start + each - 1)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for start in starts
        ]
        before = most = own.memory_info().rss
        with measured_hold() as hold:
            for client in clients:
                assert client.stdin is not None
                client.stdin.close()
            while any(client.poll() is None for client in clients):
                most = max(most, own.memory_info().rss)
                gevent.sleep(0.05)
        said = [_said(client) for client in clients]
    finally:
        server.stop()
    print(f"{(most - before) >> 20} MiB")
    assert said == [[str(each), str(start + 12345)] for start in starts]
    assert most - before < MOST_MEMORY
    hold.check()


@pytest.mark.slow
def test_publishing_does_not_hold_the_loop(tmp_path: Path) -> None:
    """Every byte is read for its digest: by a thread, in constant memory."""
    path = tmp_path / "c.ovf"
    path.write_text(envelope("disk.vmdk"))
    with (tmp_path / "disk.vmdk").open("wb") as file:
        file.truncate(GIB)
    server = OvfServer(("127.0.0.1", 0), "http://ovf.example", LOG)
    before = psutil.Process().memory_info().rss
    with measured_hold() as hold:
        server.publish(path)
    server.stop()
    assert psutil.Process().memory_info().rss - before < MOST_MEMORY
    hold.check()


def test_a_client_that_says_nothing_is_let_go_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection whose TLS never begins is closed after its time, and said; others are served meanwhile."""
    monkeypatch.setattr("vcenter_eam_plugin.ovf.server.HEAD_SECONDS", 1.0)
    path = tmp_path / "c.ovf"
    path.write_text(envelope("disk.vmdk"))
    (tmp_path / "disk.vmdk").write_bytes(b"disk")
    certificate, key = write_certificate(tmp_path)
    server = OvfServer(("127.0.0.1", 0), "", LOG, certificate=certificate, key=key, index=tmp_path / "index.json")
    server.start()
    try:
        url = server.publish(path).replace("c.ovf", "disk.vmdk")
        port = int(url.split("/")[2].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
            context = ssl._create_unverified_context()
            with urllib.request.urlopen(url, context=context, timeout=20) as answer:
                assert answer.read() == b"disk"
            assert silent.recv(1) == b""
    finally:
        server.stop()
    assert "the handshake did not end in time" in caplog.text
