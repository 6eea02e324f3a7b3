# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that breaks on command, for any server: cut what is open, refuse, or swallow without a word.

TLS passes through unread. Faults of the protocol itself are the simulator's affair; these are the network's.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Group
from gevent.server import StreamServer


class Proxy:
    """``port`` on the loopback, at ``address``, forwards to ``target`` until told otherwise."""

    def __init__(self, target: tuple[str, int], address: str = "127.0.0.1") -> None:
        self._target = target
        self._open: set[Any] = set()
        self._forgotten: set[Any] = set()
        self._pumps = Group()
        self._flowing = Event()
        self._flowing.set()
        self._refusing = False
        self._dribbling = False
        self.accepted = 0
        """Connections that clients ever made."""
        self._server = StreamServer((address, 0), self._serve)

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def connections(self) -> int:
        """Connections that clients hold open."""
        return len(self._open)

    def cut(self) -> None:
        """Close every open connection, as a server does with idle ones. New ones are served."""
        for client in tuple(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Close every connection, new ones too, until :meth:`heal`."""
        self._refusing = True
        self.cut()

    def turn_to(self, target: tuple[str, int]) -> None:
        """From now on connections go there; those that are open are closed."""
        self._target = target
        self.cut()

    def half_open(self) -> None:
        """Connections stay, nothing passes any more, until :meth:`heal`."""
        self._flowing.clear()

    def forget(self) -> None:
        """What is open stays open and nothing passes on it, ever; new connections are served. As a firewall does."""
        self._forgotten |= self._open

    def dribble(self) -> None:
        """Pass a byte of the answers now and then, until :meth:`heal`: always alive, never done."""
        self._dribbling = True

    def heal(self) -> None:
        """Serve again."""
        self._dribbling = False
        self._refusing = False
        self._flowing.set()

    def _serve(self, client: Any, _address: Any) -> None:
        self.accepted += 1
        if self._refusing:
            client.close()
            return
        self._open.add(client)
        try:
            with socket.create_connection(self._target) as server:
                there = self._pumps.spawn(self._pump, client, server, client, False)
                back = self._pumps.spawn(self._pump, server, client, client, True)
                gevent.joinall([there, back])
        except OSError:
            pass  # the server is gone: the client sees its connection close
        finally:
            self._open.discard(client)
            self._forgotten.discard(client)
            client.close()

    def _pump(self, source: Any, sink: Any, client: Any, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                if client in self._forgotten:
                    continue
                while answers and self._dribbling and data:
                    sink.sendall(data[:1])
                    data = data[1:]
                    gevent.sleep(0.05)
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def running(self) -> Iterator[Proxy]:
        """Serve inside the block; everything is closed afterwards."""
        self._server.start()
        try:
            yield self
        finally:
            self._server.stop()
            self.cut()
            self._pumps.kill()


class Tunnel(Proxy):
    """vCenter's HTTP port as far as its SDK tunnel goes: CONNECT to a name that only vCenter knows."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(target)
        self.asked: list[str] = []
        """First lines of the requests that came."""

    def _serve(self, client: Any, address: Any) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            if not (data := client.recv(1)):
                return
            request += data
        self.asked.append(request.split(b"\r\n")[0].decode())
        if not self.asked[-1].startswith("CONNECT sdkTunnel:8089 "):
            client.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")
            client.close()
            return
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        super()._serve(client, address)
