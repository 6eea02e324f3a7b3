# SPDX-License-Identifier: Apache-2.0
"""The fault proxy itself: a fault that does not happen makes every test of a fault worthless."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from tests.support.proxy import Proxy
from tests.support.rabbit import free_port


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that answers what it is told, after the address it was told from."""

    def serve(client: Any, address: Any) -> None:
        client.sendall(f"{address[0]}\n".encode())
        while data := client.recv(65536):
            client.sendall(data)

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    yield "127.0.0.1", int(server.server_port)
    server.stop()


def connect(proxy: Proxy) -> tuple[socket.socket, str]:
    """A connection, and the address that the server sees."""
    client = socket.create_connection(("127.0.0.1", proxy.port), 5)
    address = b""
    while not address.endswith(b"\n"):
        piece = client.recv(1)
        if not piece:
            raise ConnectionResetError
        address += piece
    return client, address.decode().strip()


def test_it_comes_from_the_source_and_asks_the_spare(echo: tuple[str, int]) -> None:
    with Proxy(("127.0.0.1", free_port()), echo, source="127.0.0.12").running() as proxy:
        client, address = connect(proxy)
        client.close()
        assert address == "127.0.0.12"


def test_a_delay_holds_back_both_ways_until_healed(echo: tuple[str, int]) -> None:
    with Proxy(echo).running() as proxy:
        client, _ = connect(proxy)
        with client:
            proxy.delay(0.3)
            began = time.monotonic()
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            assert time.monotonic() - began >= 0.6
            proxy.heal()
            client.settimeout(0.3)
            client.sendall(b"y")
            assert client.recv(1) == b"y"


def test_each_connection_ends_after_so_many_bytes(echo: tuple[str, int]) -> None:
    with Proxy(echo).running() as proxy:
        old, _ = connect(proxy)
        proxy.drop_after(10)
        old.sendall(b"0123456")
        gevent.sleep(0)
        assert old.recv(100) == b"0123456", "fewer pass"
        old.sendall(b"789ab")
        assert old.makefile("rb").read() in (b"", b"789"), "no more than ten come through, then it is closed"
        new, _ = connect(proxy)
        new.sendall(b"x" * 100)
        assert len(new.makefile("rb").read()) <= 10
        proxy.heal()
        healed, _ = connect(proxy)
        healed.sendall(b"x" * 100)
        assert len(healed.makefile("rb").read(100)) == 100
        for client in (old, new, healed):
            client.close()


def test_half_open_passes_nothing_and_loses_nothing(echo: tuple[str, int]) -> None:
    with Proxy(echo).running() as proxy:
        client, _ = connect(proxy)
        with client:
            proxy.half_open()
            client.sendall(b"x")
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(1)
            proxy.heal()
            client.settimeout(5)
            assert client.recv(1) == b"x"


def test_what_is_swallowed_never_comes_and_ends_its_connection(echo: tuple[str, int]) -> None:
    with Proxy(echo).running() as proxy:
        robbed, _ = connect(proxy)
        spared, _ = connect(proxy)
        with robbed, spared:
            proxy.swallow()
            robbed.sendall(b"x")
            robbed.settimeout(0.2)
            with pytest.raises(TimeoutError):
                robbed.recv(1)
            proxy.heal()
            robbed.settimeout(5)
            assert robbed.recv(1) == b""
            spared.sendall(b"y")
            assert spared.recv(1) == b"y"
