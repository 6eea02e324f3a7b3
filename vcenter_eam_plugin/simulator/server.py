# SPDX-License-Identifier: Apache-2.0
"""The simulated vCenter as a process part: HTTPS on gevent, a world behind it, started and stopped as one.

:class:`Simulator` is all that others need: it makes certificates, world, inventory, EAM and endpoints, and tells
address, login and CA file. It listens where it is told, on a loopback address unless told otherwise.

Not promised: HTTP/2, compression, and survival of what it holds: a simulator that stops forgets everything.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import select
import shutil
import socket as sockets
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from xml.sax.saxutils import escape

import gevent
import gevent.socket
from gevent import monkey, ssl
from gevent.event import Event
from gevent.pool import Group, Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from vcenter_eam_plugin.simulator import certificates, inventory, loopback
from vcenter_eam_plugin.simulator.authorization import AuthorizationManager, Users
from vcenter_eam_plugin.simulator.control import Control
from vcenter_eam_plugin.simulator.dispatch import COOKIE, EAM_PATH, VIM_PATH, Dispatcher, cookie_of, method_of
from vcenter_eam_plugin.simulator.event_manager import EventManager
from vcenter_eam_plugin.simulator.extension_manager import ExtensionManager
from vcenter_eam_plugin.simulator.faults import Fault, Faults
from vcenter_eam_plugin.simulator.journal import Journal
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.property_collector import (
    DEFAULT_COLLECTOR,
    EMPTY_READS,
    MISSING_SET,
    PropertyCollector,
    PropertyHub,
)
from vcenter_eam_plugin.simulator.search_index import SearchIndex
from vcenter_eam_plugin.simulator.service_instance import OptionManager, ServiceInstance
from vcenter_eam_plugin.simulator.session_manager import SessionManager
from vcenter_eam_plugin.simulator.task import TaskManager
from vcenter_eam_plugin.simulator.view_manager import ViewManager
from vcenter_eam_plugin.simulator.world import Timer, World

log = logging.getLogger(__name__)

XML = "text/xml; charset=utf-8"
MAX_BODY = 16 * 1024 * 1024
"""Largest request read: a filter over a whole inventory is far smaller, and nobody shall fill the memory."""
BACKLOG = 256
"""Connections that may wait to be accepted: a client with a large pool opens them all at once."""

_POLLRDHUP: int | None = getattr(select, "POLLRDHUP", None)
_poll: Callable[[], Any] = monkey.get_original("select", "poll")  # asked without waiting, so it holds up nobody

_STATUS = {200: "200 OK", 500: "500 Internal Server Error"}
_UNAVAILABLE = b"<html><body><h1>503 Service Unavailable</h1></body></html>"
_GARBLED = b'<?xml version="1.0"?><soapenv:Envelope><returnval type="">'


class GeventClock:
    """Real time; delayed work runs in greenlets of one group, so that stopping the simulator ends it."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def now(self) -> dt.datetime:
        """UTC now."""
        return dt.datetime.now(dt.UTC)

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()

    def after(self, seconds: float, work: Callable[[], None]) -> Timer:
        """Run ``work`` in a greenlet of its own after ``seconds``; an error in it is logged."""
        greenlet = gevent.Greenlet(_guarded, work)
        self._group.add(greenlet)
        greenlet.start_later(seconds)
        return _GreenletTimer(greenlet)


class _GreenletTimer:
    def __init__(self, greenlet: Any) -> None:
        self._greenlet = greenlet

    def cancel(self) -> None:
        # Work that cancels its own timer is running already, and shall go on.
        if self._greenlet is not gevent.getcurrent():
            self._greenlet.kill(block=False)


def _guarded(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        log.exception("delayed work failed in the simulator")


class _Handler(WSGIHandler):  # type: ignore[misc] # gevent is untyped
    """A connection that does not wait for acknowledgements and that the application can break off."""

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        # pywsgi writes headers and body separately; with Nagle's algorithm every answer would take 40 ms.
        sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        super().__init__(sock, address, server)

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["simulator.handler"] = self
        return environ

    def break_off(self) -> None:
        """Close the connection under the client."""
        self.close_connection = True
        try:
            self.socket.shutdown(sockets.SHUT_RDWR)
        except OSError:
            log.debug("the connection was gone already")

    @property
    def certificate(self) -> bytes | None:
        """The certificate that the client showed, in DER; not whether anybody trusts it."""
        shown: bytes | None = self.socket.getpeercert(binary_form=True)
        return shown

    def client_gone(self) -> bool:
        """True once the client has closed its end. Where the system cannot tell, nobody is ever gone."""
        if _POLLRDHUP is None:
            return False
        poll = _poll()
        poll.register(self.socket.fileno(), _POLLRDHUP)
        return bool(poll.poll(0))

    def log_request(self) -> None:
        """Nothing: the journal says what happened."""

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        if isinstance(v, OSError):  # the client went, or we broke off
            self.close_connection = True
            return
        super().handle_error(t, v, tb)


class _Server(WSGIServer):  # type: ignore[misc] # gevent is untyped
    """Keeps its connections, to cut them; a failed handshake is the client's affair and no traceback."""

    stop_timeout = 0  # waits may last minutes; stopping ends them

    def __init__(self, listener: Any, app: Any, faults: Faults, **kwargs: Any) -> None:
        super().__init__(listener, app, handler_class=_Handler, spawn=Pool(), log=None, error_log=log, **kwargs)
        self._faults = faults
        self._open: set[Any] = set()

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        if self._faults.on("network_cut"):
            client_socket.close()
            return
        try:
            wrapped = self.wrap_socket(client_socket, **self.ssl_args)
        except (OSError, EOFError) as exc:
            log.debug("handshake with %s failed: %s", address, exc)
            client_socket.close()
            return
        self._open.add(wrapped)
        try:
            self.handle(wrapped, address)
        except ValueError:  # gevent's word for reading a TLS connection that cut() has shut
            if wrapped in self._open:
                raise
        finally:
            self._open.discard(wrapped)
            wrapped.close()

    def cut(self) -> None:
        """Close every open connection."""
        connections, self._open = self._open, set()
        for connection in connections:
            try:
                connection.shutdown(sockets.SHUT_RDWR)
            except OSError:
                log.debug("the connection was gone already")


class Simulator:
    """One simulated vCenter with its ESX Agent Manager.

    ``clock`` is for tests that move time themselves; ``directory`` receives CA file and server key (a temporary one,
    removed at the stop, when not given). Raises ``OSError`` from :meth:`start` when the address cannot be bound.
    """

    def __init__(
        self,
        *,
        hosts: int = 3,
        clusters: int = 2,
        datacenters: int = 1,
        tenants_per_host: int = 0,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        user: str = "administrator@vsphere.local",
        password: str | None = None,
        knobs: Knobs | None = None,
        directory: Path | None = None,
        clock: Any = None,
    ) -> None:
        self.user = user
        self.password = password if password is not None else secrets.token_urlsafe(12)
        self.control_token = secrets.token_urlsafe(24)
        self.host, self.port = listen
        self.thumbprint = ""
        self.faults = Faults()
        self.greenlets = Group()
        self._directory = directory
        self._temporary: str | None = None
        self._ca_file: Path | None = None
        self._server: _Server | None = None
        self._released = Event()
        self._claim: loopback.Claim | None = None
        knobs = knobs if knobs is not None else Knobs()
        self.world = World(clock if clock is not None else GeventClock(self.greenlets), knobs)
        self.users = Users()
        self.users.add(user, self.password, "all")
        self.hub = PropertyHub(self.world)
        self.world.add(TaskManager(self.world))
        self.event_manager = self.world.add(EventManager(self.world))
        self.sessions = self.world.add(SessionManager(self.world, self.users, self.hub))
        self.vcenter = inventory.build(
            self.world,
            hosts=hosts,
            clusters=clusters,
            datacenters=datacenters,
            tenants_per_host=tenants_per_host,
        )
        self.service_instance = self.world.add(ServiceInstance(self.world, self.vcenter.root.ref))
        self.world.add(AuthorizationManager(self.world, self.users))
        self.world.add(OptionManager(self.world))
        self.world.add(ViewManager(self.world))
        self.world.add(SearchIndex(self.world, self.vcenter.root))
        self.sessions.extensions = self.world.add(ExtensionManager(self.world, self.users))
        self.dispatcher = Dispatcher(self.world, self.sessions, self.hub)
        self._control = Control(self)
        self.event_manager.faults = self.faults
        self.faults.at_once.update(
            session_kill=self.sessions.end_all,
            session_kill_quiet=partial(self.sessions.end_all, quiet=True),
            session_goes_empty=partial(self.sessions.haunt_all, EMPTY_READS),
            session_goes_missing=partial(self.sessions.haunt_all, MISSING_SET),
            collector_lost=self._lose_collectors,
            event_keys_wrap=self.event_manager.wrap_keys,
        )
        self.faults.on_change.append(self._faults_changed)

    @property
    def knobs(self) -> Knobs:
        """The world's knobs."""
        return self.world.knobs

    @property
    def journal(self) -> Journal:
        """What really happened."""
        return self.world.journal

    @property
    def errors(self) -> list[BaseException]:
        """What the simulator itself got wrong."""
        return self.dispatcher.errors

    @property
    def url(self) -> str:
        """Address of the vim endpoint; EAM's is ``/eam/sdk`` on the same host and port."""
        return f"https://{self.host}:{self.port}{VIM_PATH}"

    @property
    def ca_file(self) -> Path:
        """PEM file of the CA to trust. Raises ``RuntimeError`` before the start."""
        if self._ca_file is None:
            raise RuntimeError("the simulator has not been started")
        return self._ca_file

    def add_user(self, name: str, password: str, privileges: Iterable[str] | Literal["all"] = ()) -> None:
        """A further login; ``privileges`` as vCenter names them (``Host.Config.Settings``), besides reading."""
        self.users.add(name, password, privileges)

    def collectors(self) -> list[PropertyCollector]:
        """Property collectors that are open: created ones, and sessions' own ones that have filters."""
        return [
            obj
            for session in self.sessions.active
            for obj in session.objects.values()
            if isinstance(obj, PropertyCollector) and (obj.moid != DEFAULT_COLLECTOR or obj.filters)
        ]

    # Life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make certificates, bind, and answer from now on."""
        if self._directory is None:
            self._temporary = tempfile.mkdtemp(prefix="vcenter-simulator-")
        directory = Path(self._temporary) if self._temporary is not None else self._directory
        assert directory is not None
        directory.mkdir(parents=True, exist_ok=True)
        made = certificates.make(directory, self.host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate_file, made.key_file)
        certificates.ask_clients(context)
        try:
            listener = _listen(self.host, self.port)
        except OSError:
            self._remove_directory()
            raise
        if not self.knobs.vrouter_net:
            self._claim = loopback.claim()
            self.knobs.change({"vrouter_net": self._claim.net})
        self._server = _Server(listener, self._application, self.faults, ssl_context=context)
        self._server.start()
        self._ca_file, self.thumbprint = made.ca_file, made.thumbprint
        self.port = listener.getsockname()[1]
        log.info("simulated vCenter at %s", self.url)

    def stop(self) -> None:
        """End every session, listener and greenlet. May be called twice."""
        self.faults.clear()
        self.sessions.end_all()
        if self._server is not None:
            self._server.cut()
            self._server.stop()
            self._server = None
        self.vcenter.close()
        self.greenlets.kill()
        if self._claim is not None:
            self._claim.release()
            self._claim = None
        self._remove_directory()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _remove_directory(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    # HTTP ----------------------------------------------------------------------------------------------------

    def _application(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"].rstrip("/")
        verb = environ["REQUEST_METHOD"]
        if path in (VIM_PATH, EAM_PATH) and verb == "POST":
            return self._soap(path, environ, start_response)
        if path == "/sdk/vimServiceVersions.xml" and verb == "GET":
            return _respond(start_response, "200 OK", XML, self._versions())
        if path.startswith("/simulator/"):
            status, body = self._control.answer(verb, path, environ)
            return _respond(start_response, status, "application/json", body)
        return _respond(start_response, "404 Not Found", "text/plain", b"There is nothing here.\n")

    def _soap(self, path: str, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > MAX_BODY:
            return _respond(start_response, "413 Content Too Large", "text/plain", b"The request is too large.\n")
        # A client that streams sends chunks and no length.
        chunked = environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked"
        body = environ["wsgi.input"].read(MAX_BODY if chunked else length)
        hits = self.faults.take(path, method_of(body)) if self.faults.active else {}
        handler = environ["simulator.handler"]
        early = self._before(hits, handler, environ.get("HTTP_COOKIE"), start_response)
        if early is not None:
            return early
        address = environ.get("REMOTE_ADDR", "")
        client = self.dispatcher.traffic.of(address)
        client.bytes_in += len(body)
        reply = self.dispatcher.answer(
            path,
            body,
            environ.get("HTTP_SOAPACTION", ""),
            environ.get("HTTP_COOKIE"),
            address,
            environ.get("HTTP_USER_AGENT", ""),
            hits,
            handler.client_gone,
            handler.certificate,
        )
        client.bytes_out += len(reply.body)
        headers = []
        if reply.opened is not None:
            headers.append(("Set-Cookie", f'{COOKIE}="{reply.opened}"; Path=/; HttpOnly; Secure;'))
        if "set_cookie_overwrite" in hits:
            headers.append(("Set-Cookie", f"JSESSIONID={secrets.token_hex(16)}; Path=/eam; Secure; HttpOnly"))
        if "lost_response" in hits:
            handler.break_off()
            return _respond(start_response, "200 OK", XML, b"")
        if "garbled_response" in hits:
            return _respond(start_response, "200 OK", XML, _GARBLED)
        if "truncated_response" in hits:
            handler.close_connection = True
            half = reply.body[: len(reply.body) // 2]
            return _respond(start_response, _STATUS[reply.status], XML, half, headers, length=len(reply.body))
        return _respond(start_response, _STATUS[reply.status], XML, reply.body, headers)

    def _before(
        self, hits: dict[str, Fault], handler: _Handler, cookie: str | None, start_response: Callable[..., Any]
    ) -> list[bytes] | None:
        """Faults that strike before the call is carried out; ``None`` to go on."""
        if "slow" in hits:
            gevent.sleep(hits["slow"].delay)
        if "half_open" in hits:
            self._released.wait()
            handler.break_off()
            return _respond(start_response, "200 OK", XML, b"")
        full = "sessions_full" in hits and self.sessions.by_cookie(cookie_of(cookie)) is None
        if full or "http_503" in hits or "eam_down" in hits:
            return _respond(start_response, "503 Service Unavailable", "text/html", _UNAVAILABLE)
        return None

    def _faults_changed(self) -> None:
        if self.faults.on("network_cut") and self._server is not None:
            self._server.cut()
        if self.faults.on("half_open"):
            self._released.clear()
        else:
            self._released.set()
        self.event_manager.look_again()

    def _lose_collectors(self) -> None:
        for session in self.sessions.active:
            for obj in session.objects.values():
                if isinstance(obj, PropertyCollector):
                    obj.lose()

    def _versions(self) -> bytes:
        newest, *older = self.dispatcher.versions(VIM_PATH).published()
        prior = "".join(f"<version>{escape(one)}</version>" for one in older)
        return (
            '<?xml version="1.0" encoding="UTF-8" ?>\n<namespaces version="1.0"><namespace>'
            f"<name>urn:vim25</name><version>{escape(newest)}</version>"
            f"<priorVersions>{prior}</priorVersions></namespace></namespaces>\n"
        ).encode()


def _listen(host: str, port: int) -> Any:
    """A listening socket; closed again when the address cannot be bound."""
    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    listener = gevent.socket.socket(family, sockets.SOCK_STREAM)
    try:
        listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _respond(
    start_response: Callable[..., Any],
    status: str,
    kind: str,
    body: bytes,
    headers: Iterable[tuple[str, str]] = (),
    *,
    length: int | None = None,
) -> list[bytes]:
    size = len(body) if length is None else length
    start_response(status, [("Content-Type", kind), ("Content-Length", str(size)), *headers])
    return [body]
