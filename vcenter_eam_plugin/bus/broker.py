# SPDX-License-Identifier: Apache-2.0
"""Where the brokers are, how to reach one, and what stands there: exchange and default queue.

The one place that knows kombu's connection and the errors of amqp; publisher and consumer both build on it.

Promised: every blocking step has a deadline, because neither kombu nor amqp has one by default (measured: a frozen
broker holds a publish for ever); no error, repr or log line holds a password. Not promised: anything durable on
``memory://``, kombu's transport inside one process, which has neither confirms nor returns; it is for the demo.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp
import gevent
import kombu
from kombu.transport import pyamqp

from vcenter_eam_plugin.domain.errors import (
    BrokerRefused,
    CertificateRejected,
    ConfigurationError,
    LoginRefused,
    PluginError,
    ProtocolError,
    Unavailable,
)

log = logging.getLogger(__name__)

EXCHANGE = "vcenter_eam.contrailvm-update"
QUEUE = "vcenter_eam.analytics"
BINDING = "contrailvm.#"
"""All messages, whatever the event, cluster and host."""

QUEUE_LENGTH = 100_000
"""Messages; 2,500 hosts could change state 40 times while no consumer runs. Beyond it the oldest go, and the next
snapshot heals what the consumer missed."""

MEMORY_POLLING = 0.01
"""Seconds; kombu's default of one second makes each message on memory:// wait 0.7 s (measured)."""

_CLOSE_WAIT = 1.0
"""Seconds for a polite goodbye; a dead broker does not answer it."""

_QUORUM_SINCE = (3, 8)
"""RabbitMQ release that brought quorum queues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Trust and identity towards the brokers; ``ca_file`` ``None`` trusts the system's authorities."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """The brokers of one cluster, and our names there. Times in seconds.

    ``hosts`` are tried in turn. ``password`` is called at each login, so a changed secret is used. An empty
    ``queue`` declares no default queue. ``confirm_timeout`` bounds what one of at most ``window``
    messages may take.
    """

    hosts: tuple[tuple[str, int], ...] = (("localhost", 5672),)
    user: str = "guest"
    password: Callable[[], str] = field(default=lambda: "guest", repr=False)
    vhost: str = "/"
    tls: Tls | None = None
    heartbeat: int = 10
    exchange: str = EXCHANGE
    queue: str = QUEUE
    queue_length: int = QUEUE_LENGTH
    window: int = 250
    """Messages: the broker confirms some 5,000 a second, and may be silent for 50 ms while it writes to its disk."""
    connect_timeout: float = 5.0
    confirm_timeout: float = 10.0
    retry_first: float = 0.2
    retry_longest: float = 5.0
    """Longest pause between attempts: healed within seconds of the broker's return, not minutes."""
    memory: bool = False

    @classmethod
    def from_url(cls, url: str, **changes: Any) -> BrokerSettings:
        """From ``amqp://user:password@host:port/vhost``, ``amqps://...`` or ``memory://``.

        Raises ConfigurationError, which never quotes the URL: it may hold a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise ConfigurationError("The broker's URL cannot be read: check host and port.") from exc
        if parts.scheme == "memory":
            return replace(cls(hosts=(("memory", 0),), memory=True), **changes)
        if parts.scheme not in {"amqp", "amqps", "pyamqp"}:
            raise ConfigurationError(
                f"A broker cannot be reached by {parts.scheme or 'no scheme'}://.",
                remedy="Use amqp://, amqps:// or, for the demo, memory://.",
            )
        secure = parts.scheme == "amqps"
        password = unquote(parts.password) if parts.password is not None else "guest"
        settings = cls(
            hosts=((parts.hostname or "localhost", port or (5671 if secure else 5672)),),
            user=unquote(parts.username) if parts.username else "guest",
            password=lambda: password,
            # kombu and Contrail write the vhost "/" as a double slash, or leave it out
            vhost=unquote(parts.path[1:]) or "/",
            tls=Tls() if secure else None,
        )
        return replace(settings, **changes)

    def name(self, index: int) -> str:
        """What to call the broker in a sentence: ``host:port/vhost``, without credentials."""
        if self.memory:
            return "memory://"
        host, port = self.hosts[index % len(self.hosts)]
        return f"{host}:{port}{'' if self.vhost.startswith('/') else '/'}{self.vhost}"


class _Connection(pyamqp.Connection):  # type: ignore[misc] # kombu has no types
    """Closes its socket also when a deadline of ours ends the handshake, which amqp does not foresee."""

    def connect(self, callback: Any = None) -> Any:
        try:
            return super().connect(callback)
        except BaseException:
            self.collect()
            raise


class _Transport(pyamqp.Transport):  # type: ignore[misc] # kombu has no types
    Connection = _Connection


def connect(settings: BrokerSettings, index: int = 0, **callbacks: Callable[..., Any]) -> Any:
    """An open kombu connection to the host at ``index`` (modulo their number).

    ``callbacks`` are ``on_blocked`` and ``on_unblocked``. Raises LoginRefused, BrokerRefused, CertificateRejected,
    Unavailable or ProtocolError.
    """
    if settings.memory:
        return kombu.Connection("memory://", transport_options={"polling_interval": MEMORY_POLLING}).ensure_connection()
    host, port = settings.hosts[index % len(settings.hosts)]
    with translated(settings.name(index), f"log in as {settings.user!r}", login=True):
        connection = kombu.Connection(
            transport=_Transport,
            hostname=host,
            port=port,
            userid=settings.user,
            password=settings.password(),
            virtual_host=settings.vhost,
            heartbeat=settings.heartbeat,
            connect_timeout=settings.connect_timeout,
            ssl=_ssl_options(settings, host),
            transport_options={**callbacks, "client_properties": {"connection_name": "contrail-vcenter-eam-plugin"}},
        )
        try:
            # amqp's own time-out starts anew at each frame of the handshake
            with deadline(settings.connect_timeout):
                # kombu tries once more by itself, by default after two seconds; the pauses are ours to make
                connection.ensure_connection(
                    max_retries=1, interval_start=0, interval_step=0, reraise_as_library_errors=False
                )
        except ssl.SSLCertVerificationError as exc:
            close(connection, polite=False)
            shown = _certificate(host, port, settings.connect_timeout)
            raise CertificateRejected(
                f"Broker {settings.name(index)} shows {shown}, which is not trusted: {exc.verify_message.rstrip('.')}.",
                remedy="Set kombu_ssl_ca_certs to the authority that signed it, if it is the right broker.",
            ) from exc
        except ssl.SSLError as exc:
            close(connection, polite=False)
            raise Unavailable(
                f"Broker {settings.name(index)} does not agree on TLS with us: {_text(exc)}.",
                remedy="Check that this port speaks TLS, and kombu_ssl_certfile if the broker asks for a certificate.",
            ) from exc
        except BaseException:
            close(connection, polite=False)
            raise
    return connection


def write(channel: Any, frames: bytes) -> None:
    """Send frames that were encoded by us. Raises what amqp raises on a connection that is lost."""
    connection = channel.connection
    if connection is None or not connection.connected:
        raise amqp.RecoverableConnectionError("connection already closed")
    connection.transport.write(frames)
    connection.bytes_sent += 1  # or amqp would send a heartbeat beside them


def close(connection: Any, *, polite: bool) -> None:
    """End a connection; never raises and never takes longer than about a second. ``polite`` says goodbye first."""
    with gevent.Timeout(_CLOSE_WAIT, False):
        try:
            if not polite and hasattr(connection._connection, "collect"):
                # Cuts the socket: the handshake of an orderly close would wait for a broker that may be frozen.
                connection._connection.collect()
            connection.release()
        except Exception:  # it is given up either way, and its errors were reported where they mattered
            log.debug("closing a broken broker connection", exc_info=True)


def exchange(settings: BrokerSettings) -> Any:
    """Durable topic exchange of our own: never ``vnc_config.object-update``, where a strange body breaks everybody."""
    return kombu.Exchange(settings.exchange, type="topic", durable=True)


def declare_exchange(settings: BrokerSettings, channel: Any, broker: str) -> None:
    """Declare our exchange. Raises BrokerRefused when one of another kind has its name, or we may not."""
    doing = f"declare exchange {settings.exchange!r}"
    with translated(broker, doing, exchange=settings.exchange), deadline(settings.connect_timeout):
        exchange(settings)(channel).declare()


def declare(settings: BrokerSettings, channel: Any, broker: str) -> None:
    """Declare exchange and default queue, and bind them. A channel that met an error is dead afterwards."""
    declare_exchange(settings, channel, broker)
    if settings.queue:
        declare_queue(settings, channel, broker, settings.queue)


def declare_queue(settings: BrokerSettings, channel: Any, broker: str, name: str) -> None:
    """Declare a durable queue and bind it to all messages: quorum where the broker has it, classic else.

    A queue of that name with other arguments, say from before an upgrade of the broker, is used as it stands.
    """
    arguments: dict[str, Any] = {"x-max-length": settings.queue_length, "x-overflow": "drop-head"}
    if server_version(channel.connection) >= _QUORUM_SINCE:
        arguments["x-queue-type"] = "quorum"
    queue = kombu.Queue(name, exchange(settings), BINDING, durable=True, queue_arguments=arguments)
    doing = f"declare queue {name!r}"
    with translated(broker, doing, exchange=settings.exchange), deadline(settings.connect_timeout):
        if settings.memory:
            queue(channel).declare()
            return
        try:
            # On a channel of its own: a refusal closes the channel.
            with channel.connection.channel() as attempt:
                queue(attempt).declare()
        except amqp.exceptions.PreconditionFailed as exc:
            log.warning("Queue %r on %s exists with other arguments and is used as it is: %s", name, broker, exc)
            queue(channel).queue_declare(passive=True)
            queue(channel).queue_bind()


def server_version(connection: Any) -> tuple[int, ...]:
    """Release of the broker as numbers; ``()`` when it does not say."""
    version = str((getattr(connection, "server_properties", None) or {}).get("version", ""))
    return tuple(int(part) for part in version.split(".") if part.isdigit())


class _OverdueError(Exception):
    """A deadline of ours passed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End what takes longer; to be used within :func:`translated`.

    A gevent time-out, because amqp's own starts anew with each frame. It is told apart from one that a caller set
    around us, and it is no TimeoutError while it unwinds: amqp swallows those.
    """
    timer = gevent.Timeout.start_new(seconds)
    try:
        yield
    except gevent.Timeout as exc:
        if exc is not timer:
            raise
        raise _OverdueError(seconds) from None
    finally:
        timer.close()


@contextmanager
def translated(broker: str, doing: str, *, login: bool = False, exchange: str = "") -> Iterator[None]:
    """Turn what amqp, TLS or the socket raised into one sentence: tried to do what, at which broker, and why not."""
    try:
        yield
    except PluginError:
        raise
    except amqp.exceptions.AccessRefused as exc:
        if login:
            raise LoginRefused(
                f"Broker {broker} refused to {doing}: {_text(exc)}.", remedy="Check rabbit_user and rabbit_password."
            ) from exc
        raise BrokerRefused(
            f"Broker {broker} does not allow us to {doing}: {_text(exc)}.",
            remedy=f"Give the user configure, write and read permission on {exchange or 'the vhost'}.",
        ) from exc
    except (amqp.exceptions.NotAllowed, amqp.exceptions.PreconditionFailed, amqp.exceptions.NotFound) as exc:
        raise BrokerRefused(
            f"Broker {broker} refused to {doing}: {_text(exc)}.",
            remedy="Check rabbit_vhost, and that exchange and queue of that name are not somebody else's.",
        ) from exc
    except _OverdueError as exc:
        raise Unavailable(f"Broker {broker} did not answer in {exc.seconds:g} s when we tried to {doing}.") from exc
    except (OSError, amqp.exceptions.AMQPError) as exc:
        what = "cannot be reached" if login else f"was lost when we tried to {doing}"
        raise Unavailable(f"Broker {broker} {what}: {_text(exc)}.") from exc
    except Exception as exc:
        # What answers there does not speak AMQP as we know it: amqp then raises whatever it stumbles upon.
        why = f"{type(exc).__name__}: {exc}"
        raise ProtocolError(f"What answers as broker {broker} cannot be understood ({why}).") from exc


def _text(exc: BaseException) -> str:
    """The broker's or the system's own words; amqp's ``str()`` wraps them in the method's name and number."""
    words = getattr(exc, "reply_text", None) or getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return str(words).rstrip(".")


def _certificate(host: str, port: int, seconds: float) -> str:
    """Subject and SHA-256 thumbprint of what a server shows, for a person who must decide. Trusts and sends nothing."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            deadline(seconds),
            socket.create_connection((host, port), seconds) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            der = secure.getpeercert(binary_form=True) or b""
        # Here alone: 8 MiB that a daemon with the right certificates never needs.
        from cryptography import x509  # noqa: PLC0415

        subject = x509.load_der_x509_certificate(der).subject.rfc4514_string() or "empty"
    except (OSError, ValueError, _OverdueError):
        return "a certificate"
    thumbprint = ":".join(f"{byte:02X}" for byte in hashlib.sha256(der).digest())
    return f"a certificate with subject {subject} and SHA-256 thumbprint {thumbprint}"


def _ssl_options(settings: BrokerSettings, host: str) -> Any:
    if settings.tls is None:
        return False
    context = {
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": host,
        "ca_certs": settings.tls.ca_file and str(settings.tls.ca_file),
        "certfile": settings.tls.cert_file and str(settings.tls.cert_file),
        "keyfile": settings.tls.key_file and str(settings.tls.key_file),
    }
    return {name: value for name, value in context.items() if value is not None}
