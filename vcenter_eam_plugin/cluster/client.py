# SPDX-License-Identifier: Apache-2.0
"""The connection to ZooKeeper: one session per process, shared by the elections of all its vCenters.

kazoo reconnects by itself, for ever. Not promised: that the session is the same afterwards; elections look.
"""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
from kazoo.client import KazooClient
from kazoo.handlers.gevent import SequentialGeventHandler
from kazoo.retry import KazooRetry

from vcenter_eam_plugin.domain.errors import ConfigurationError

log = logging.getLogger(__name__)

RETRY_LONGEST = 2.0
"""Seconds between attempts to connect. A session outlives a lost connection by its time-out alone, so a server that is
back must be found soon; a standby asks no more often than a browser would."""

LOOK = 5.0
"""Seconds between looks whether kazoo has given up for good."""

LEAST_TIMEOUT = 4.0
"""Seconds; the least time-out that a server with the default tickTime of 2 s gives to a session (feasibility, 6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooKeeperSettings:
    """``hosts`` is ``host:port``, several separated by commas. ``timeout`` in seconds is what is asked for.

    With ``tls`` the servers' certificates and names are verified; ``ca_file`` ``None`` trusts the system's authorities.
    """

    hosts: str
    timeout: float = 10.0
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class _Handler(SequentialGeventHandler):  # type: ignore[misc] # kazoo has no types
    """Makes the connections, so that ``zookeeper_ssl_ca_cert`` is all that is trusted: kazoo would trust the system's
    authorities as well. ``trouble`` is what went wrong with the last one."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self._context = context
        self.trouble = ""

    def create_connection(self, address: tuple[str, int], hostname: str = "", timeout: float = 0.0, **_: Any) -> Any:
        """As kazoo calls it: ``address`` is resolved, ``hostname`` is how the server is called."""
        plain = None
        try:
            plain = gevent.socket.create_connection(address, timeout)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secure = plain if self._context is None else self._context.wrap_socket(plain, server_hostname=hostname)
        except OSError as exc:  # ssl.SSLError is one
            if plain is not None:
                plain.close()
            why = getattr(exc, "verify_message", "") or exc.strerror or str(exc)
            self.trouble = f"{hostname}:{address[1]}: {why}"
            raise
        self.trouble = ""
        return secure


class ZooKeeper:
    """A client with what kazoo keeps to itself: the session's time-out as it was negotiated, and a bounded end.

    ``client`` may be a host process's own, which is then neither started nor stopped here.
    """

    def __init__(self, client: Any, *, owned: bool, asked: float) -> None:
        self.client = client
        self._owned = owned
        self._asked = asked
        self._negotiated: float | None = None
        self._watching: gevent.Greenlet | None = None
        if owned:
            self._note_negotiated()

    @classmethod
    def connect_to(cls, settings: ZooKeeperSettings, log: logging.Logger) -> ZooKeeper:
        """A client of our own, not started yet. Raises ConfigurationError when its TLS files cannot be used."""
        if not log.isEnabledFor(logging.DEBUG):
            log.setLevel(logging.ERROR)  # kazoo tells of each attempt; that nobody can be elected is an alarm
        client = KazooClient(
            hosts=settings.hosts,
            timeout=settings.timeout,
            handler=_Handler(_context(settings) if settings.tls else None),
            connection_retry=KazooRetry(
                max_tries=-1, delay=0.1, backoff=2, max_delay=RETRY_LONGEST, sleep_func=gevent.sleep
            ),
            # Commands are tried again by whoever sent them, who knows whether they are still wanted.
            command_retry=KazooRetry(max_tries=0, sleep_func=gevent.sleep),
            logger=log,
        )
        return cls(client, owned=True, asked=settings.timeout)

    @classmethod
    def of_host(cls, client: Any) -> ZooKeeper:
        """A host process's client. What it negotiated is not to be had, so the least that is usual is believed."""
        asked = client._session_timeout / 1000.0  # kazoo has no other way to tell
        return cls(client, owned=False, asked=min(asked, LEAST_TIMEOUT))

    @property
    def session_timeout(self) -> float:
        """Seconds after which the servers end a session from which they heard nothing."""
        return self._negotiated if self._negotiated is not None else self._asked

    def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._owned:
            self.client.start_async()
            self._watching = gevent.spawn(self._keep_connecting)

    def stop(self, timeout: float) -> None:
        """End the session, so that what hangs on it is gone at once and not after its time-out; within ``timeout``."""
        if self._watching is None:
            return
        self._watching.kill()
        with gevent.Timeout(timeout, False), suppress(Exception):  # servers that do not answer end it by themselves
            self.client.stop()
            self.client.close()

    def greenlets(self) -> dict[str, gevent.Greenlet]:
        """Ours, by name."""
        return {"zookeeper": self._watching} if self._watching is not None else {}

    def trouble(self) -> str:
        """What went wrong with the last attempt to connect, if it went wrong."""
        return str(getattr(self.client.handler, "trouble", ""))

    def _keep_connecting(self) -> None:
        """kazoo tries again for ever, but for errors that it does not foresee: those end its session for good."""
        while True:
            gevent.sleep(LOOK)
            if self.client._connection.connection_stopped.is_set():
                log.error("kazoo has given up its connection to ZooKeeper; starting it again.")
                with suppress(Exception):
                    self.client.start_async()

    def _note_negotiated(self) -> None:
        """kazoo uses the negotiated time-out, and tells it to nobody: it is what a lead may be built upon."""
        connection = self.client._connection
        connect = connection._connect

        def noted(*arguments: Any) -> Any:
            read_timeout, connect_timeout = connect(*arguments)
            self._negotiated = read_timeout * 1.5 / 1000.0  # it reads for two thirds of the session's time-out
            return read_timeout, connect_timeout

        connection._connect = noted


def _context(settings: ZooKeeperSettings) -> ssl.SSLContext:
    """Verifies certificates and names. Made at the start: kazoo would try again for ever with unreadable files."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file, lambda: b"")
    except OSError as exc:
        raise ConfigurationError(
            f"Section [ZOOKEEPER]: the TLS files cannot be used: {exc.strerror or exc}.",
            remedy="Check zookeeper_ssl_ca_cert, zookeeper_ssl_certificate and zookeeper_ssl_keyfile: PEM, a key "
            "without a password, and the certificate's own.",
        ) from exc
    return context
