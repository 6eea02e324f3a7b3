# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that breaks on command, for any server: cut what is open, refuse, delay, or swallow without a word.

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
    """``port`` on the loopback, at ``address``, forwards to ``target`` until told otherwise.

    ``spares`` are asked in turn when ``target`` refuses, as behind a virtual address. ``source`` is the address from
    which the target sees the clients come.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *spares: tuple[str, int],
        address: str = "127.0.0.1",
        source: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._targets = (target, *spares)
        self._source = source
        self._open: set[Any] = set()
        self._forgotten: set[Any] = set()
        self._pumps = Group()
        self._flowing = Event()
        self._flowing.set()
        self._refusing = False
        self._dribbling = False
        self._swallowing = False
        self._robbed: set[Any] = set()
        self._delay = 0.0
        self._let_pass: int | None = None
        self.accepted = 0
        """Connections that clients ever made."""
        self._server = StreamServer((address, port), self._serve)

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
        self._targets = (target,)
        self.cut()

    def half_open(self) -> None:
        """Connections stay, nothing passes any more, until :meth:`heal`."""
        self._flowing.clear()

    def forget(self) -> None:
        """What is open stays open and nothing passes on it, ever; new connections are served. As a firewall does."""
        self._forgotten |= self._open

    def swallow(self) -> None:
        """Take everything and pass nothing. :meth:`heal` then closes what lost something: no stream has a hole."""
        self._swallowing = True

    def dribble(self) -> None:
        """Pass a byte of the answers now and then, until :meth:`heal`: always alive, never done."""
        self._dribbling = True

    def delay(self, seconds: float) -> None:
        """Hold each piece back for so long, in both directions, until :meth:`heal`."""
        self._delay = seconds

    def drop_after(self, count: int) -> None:
        """Close each connection, new ones too, once so many more bytes of its came one way, until :meth:`heal`."""
        self._let_pass = count

    def heal(self) -> None:
        """Serve again."""
        self._swallowing = False
        for robbed in self._robbed:
            with contextlib.suppress(OSError):
                robbed.shutdown(socket.SHUT_RDWR)
        self._robbed.clear()
        self._delay = 0.0
        self._let_pass = None
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
            with self._connect() as server:
                there = self._pumps.spawn(self._pump, client, server, client, False)
                back = self._pumps.spawn(self._pump, server, client, client, True)
                gevent.joinall([there, back])
        except OSError:
            pass  # the server is gone: the client sees its connection close
        finally:
            self._open.discard(client)
            self._forgotten.discard(client)
            client.close()

    def _connect(self) -> socket.socket:
        for target in self._targets[:-1]:
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(target, source_address=(self._source, 0))
        return socket.create_connection(self._targets[-1], source_address=(self._source, 0))

    def _pump(self, source: Any, sink: Any, client: Any, answers: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                if client in self._forgotten:
                    continue
                if self._swallowing:
                    self._robbed |= {source, sink}
                    continue
                if self._delay:
                    gevent.sleep(self._delay)
                if self._let_pass is None:
                    passed = 0
                elif passed + len(data) > self._let_pass:
                    sink.sendall(data[: self._let_pass - passed])
                    break
                else:
                    passed += len(data)
                while answers and self._dribbling and data:
                    sink.sendall(data[:1])
                    data = data[1:]
                    gevent.sleep(0.05)
                sink.sendall(data)
        for one in (source, sink):
            self._robbed.discard(one)
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
