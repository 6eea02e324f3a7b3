# SPDX-License-Identifier: Apache-2.0
"""How the bytes of a package leave: by the kernel, from a thread, whoever takes them and however it ends."""

from __future__ import annotations

import logging
import os
import socket

import gevent
import pytest
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool

from tests.support.rabbit import wait_for
from vcenter_eam_plugin.ovf import server
from vcenter_eam_plugin.ovf.server import _Body

BYTES = bytes(range(256)) * 32768
"""8 MiB: more than a socket takes in one go."""


@pytest.fixture
def body(tmp_path):
    (tmp_path / "disk").write_bytes(BYTES)
    files = ThreadPool(1)
    one = _Body(os.open(tmp_path / "disk", os.O_RDONLY), files, logging.getLogger("test"), "disk")
    yield one
    one.close()
    files.kill()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_slow_peer_gets_every_byte_in_order(body, pair):
    ours, theirs = pair
    body.select(1000, len(BYTES) - 7)
    sending = gevent.spawn(body.send_to, ours)
    got = bytearray()
    while len(got) < len(BYTES) - 1007:
        gevent.sleep(0.001)
        got += theirs.recv(300_000)
    sending.get(timeout=10)
    assert got == BYTES[1000:-7]


def test_a_file_that_ends_before_its_time_ends_the_download(body, pair):
    ours, theirs = pair
    body.select(0, len(BYTES) + 1)
    reading = gevent.spawn(lambda: [None for _ in iter(lambda: theirs.recv(1 << 20), b"")])
    with pytest.raises(OSError, match="ended before its time"):
        body.send_to(ours)
    reading.kill()


def test_a_killed_download_ends_with_its_thread_and_not_before(body, pair, monkeypatch):
    """The thread works with the numbers of file and socket: closed under it, they would soon be somebody else's."""
    lock = get_original("_thread", "allocate_lock")()
    lock.acquire()
    entered = []

    def stuck(*_):
        entered.append(True)
        lock.acquire()
        return 1

    monkeypatch.setattr(server, "_send_some", stuck)
    body.select(0, 10)
    sending = gevent.spawn(body.send_to, pair[0])
    wait_for(lambda: entered, what="the thread is at work")
    sending.kill(block=False)
    gevent.sleep(0.05)
    ended_before = sending.dead
    lock.release()
    assert not ended_before
    sending.join(10)
    assert sending.dead
