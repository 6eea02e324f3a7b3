# SPDX-License-Identifier: Apache-2.0
"""One session with one vCenter, shared by everybody who talks to it and to its EAM.

All calls go through stubs that belong to the session's whole life: a new login changes the cookie they share
and nothing else, so managed objects stay usable. What a session owns on the server (views, property
collectors, event collectors) is gone after a new login; ``generation`` tells.

Every call ends: a socket time-out and a deadline around it bound each one. A call that ends so, or whose
greenlet is killed, closes its connection.

Not promised: that a call which failed half-way had no effect. Calls that change something are made with
``idempotent=False``; they start on a fresh connection and are never sent twice, unless the server said that it
refused the session before looking at the call.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import gevent
from gevent.lock import BoundedSemaphore
from pyVmomi import SoapStubAdapter, vim
from pyVmomi.VmomiSupport import GetServiceVersions, versionIdMap

from vcenter_eam_plugin.domain.errors import (
    CertificateRejected,
    ConfigurationError,
    LoginRefused,
    PluginError,
    ProtocolError,
    SessionExpired,
    Unavailable,
    WrongState,
)
from vcenter_eam_plugin.domain.understanding import understood
from vcenter_eam_plugin.vsphere.answer import Answer
from vcenter_eam_plugin.vsphere.decoding import Decoding
from vcenter_eam_plugin.vsphere.faults import STALE_CONNECTION, translate

log = logging.getLogger(__name__)
T = TypeVar("T")

#: A long poll's answer may come this much after its time: network, and a server that is busy. With the wait
#: itself (10 s by default) this is how long a dead peer can go unnoticed, and it must fit into the 30 s in which
#: what is published equals the truth again.
WAIT_MARGIN_SECONDS = 10.0
#: The deadline lies behind the socket time-out: it catches what that cannot, a server that dribbles for ever.
DEADLINE_MARGIN_SECONDS = 5.0
#: Connections idle for longer are not used again. vCenter's proxy closes idle ones after a few minutes, and a
#: request on a connection that is being closed fails without telling whether it was carried out.
POOL_IDLE_SECONDS = 20.0
#: Connections kept for the next call. A burst opens more; those are closed afterwards.
POOL_SIZE = 8
#: The kernel gives up a connection whose peer acknowledges nothing for so long: a vCenter that lost its power, a
#: firewall that forgot us. Else a request on it would take the whole of its time-out, and there may be several.
DEAD_PEER_SECONDS = 10
KEEP_ALIVE_SECONDS = 3
#: After a refused login the same password is not offered again for so long: most vCenters lock an account
#: after five attempts.
REFUSED_SECONDS = 60.0
#: After a new login that was made although vCenter accepted the old session, so long no other for that reason.
DISPUTED_SECONDS = 60.0
#: Logging out is a courtesy at shutdown; it must not hold that up.
LOGOUT_SECONDS = 5.0

#: First vCenter level -> newest EAM API it speaks, newest first. From the issue events in the event catalogues
#: of live vCenters; there is no version document for EAM as there is for vim25. A stub of a *lower* version
#: silently drops newer fields when it writes (``folders``, ``agentVmDatastore``), so the newest right one is used.
EAM_VERSIONS: tuple[tuple[tuple[int, ...], str], ...] = (
    ((9, 0), "eam.version.version9_0"),
    ((8, 0, 3), "eam.version.version8_3"),
    ((8, 0, 2), "eam.version.version8_2"),
    ((7, 0, 3), "eam.version.version7_6"),
    ((7, 0, 1), "eam.version.version7_2"),
    ((7, 0), "eam.version.version7_1"),
)
#: Where vCenter asks for client certificates: an address that only its own HTTP port knows (the SDK tunnel).
SDK_TUNNEL = ("sdkTunnel", 8089)
#: Servers below 7.0 are not supported, but are not refused for it either: govmomi's simulator says 6.5.
EAM_VERSION_BEFORE = "eam.version.version6_5"

_USED_OF_CONTENT = (
    "sessionManager",
    "propertyCollector",
    "viewManager",
    "eventManager",
    "searchIndex",
    "rootFolder",
    "extensionManager",
    "authorizationManager",
)
_PLAIN_MOREF = re.compile(r"[\w.-]+", re.ASCII)
_ANY_MOREF = "any-moref"
_USER_AGENT = "contrail-vcenter-eam-plugin"
"""vCenter shows it beside each session."""
_VERSION_REFUSED = "Unsupported version"
"""What vSphere's servers say, before looking at the call, to a version URI that they have never heard of."""
_SESSION_COOKIE = re.compile(r'vmware_soap_session=("[^"]*"|[^;,\s]*)')
_VERSION = re.compile(rb"<version>\s*([^<\s]+)\s*</version>")


def eam_version(api_version: str) -> str:
    """pyVmomi's name of the EAM version to speak with a vCenter whose ``about.apiVersion`` is this."""
    level = tuple(int(part) for part in re.findall(r"\d+", api_version))
    for first, version in EAM_VERSIONS:
        if level >= first:
            return version
    return EAM_VERSION_BEFORE


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Where and how to log in.

    As a user, ``password`` is called for each login and never kept. As a vCenter extension, by ``client_cert`` and
    ``client_key`` (PEM files; the key's may be the certificate's), through vCenter's SDK tunnel at ``tunnel_port``
    unless that is 0. ``extension_key`` without a certificate: the user is that extension's service account.

    Trust is by ``ca_file`` (PEM), else by ``thumbprint``
    (SHA-256 or SHA-1 of the certificate, with or without colons), else by the system's authorities;
    ``insecure`` trusts anybody. ``call_timeout`` and ``wait_seconds`` (longest single wait for updates) are
    in seconds.
    """

    host: str
    port: int = 443
    username: str = ""
    password: Callable[[], str] = field(default=str, repr=False)
    extension_key: str = ""
    client_cert: str | None = None
    client_key: str | None = None
    tunnel_port: int = 0
    ca_file: str | None = None
    thumbprint: str | None = None
    insecure: bool = False
    call_timeout: float = 30.0
    wait_seconds: int = 10

    @property
    def principal(self) -> str:
        """Who logs in, for people: a user name, or an extension's key."""
        return self.extension_key if self.client_cert else self.username


class _Connection(http.client.HTTPSConnection):
    """Reads answers in bounded pieces, and leaves no socket open.

    Also when the way to it or the TLS handshake ends badly, where gevent's own socket leaves it open. And it
    closes an answer that was not read to its end: one with which the server hangs up belongs to nobody else.
    """

    answer: Any = None

    response_class = Answer
    _held: list[bytes] | None = None

    def request(self, *args: Any, **kw: Any) -> None:
        """In one write: http.client makes two, which are two records of TLS and may be two packets."""
        self._held = held = list[bytes]()
        try:
            super().request(*args, **kw)
        finally:
            self._held = None
        super().send(b"".join(held))

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)

    def getresponse(self) -> http.client.HTTPResponse:
        self.answer = super().getresponse()
        return cast(http.client.HTTPResponse, self.answer)

    def close(self) -> None:
        super().close()
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.close()

    def connect(self) -> None:
        try:
            http.client.HTTPConnection.connect(self)
        except BaseException:
            self.close()
            raise
        plain = self.sock
        _notice_dead_peer(plain)
        try:
            context: ssl.SSLContext = self._context  # type: ignore[attr-defined] # http.client keeps it there
            self.sock = context.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock.do_handshake()
        except BaseException:
            self.close()
            plain.close()
            raise


class _Stub(SoapStubAdapter):  # type: ignore[misc]
    """pyVmomi's stub with our cookie rule, our deadline, our errors, and no connection left behind.

    pyVmomi overwrites a stub's cookie by *any* ``Set-Cookie``; EAM's web server may set one of its own, and
    that would lose the vCenter session. Here the cookie comes from the session and answers change nothing.
    """

    def __init__(self, session: Session, path: str, version: str, timeout: float) -> None:
        self._session = session
        self._deadline = timeout + DEADLINE_MARGIN_SECONDS
        self._busy: dict[Any, Any] = {}
        self._decoding = Decoding(self, session.fallen_back)
        self._requests: dict[tuple[Any, str, str], tuple[bytes, bytes, bytes]] = {}
        super().__init__(
            host=session.settings.host,
            port=session.settings.port,
            path=path,
            version=version,
            sslContext=self._context(),
            httpConnectionTimeout=timeout,
            connectionPoolTimeout=POOL_IDLE_SECONDS,
            poolSize=POOL_SIZE,
        )
        self.scheme: Callable[..., _Connection] = _Connection

    def _context(self) -> ssl.SSLContext:
        return self._session.tls_context()

    @property
    def cookie(self) -> str:
        return self._session.cookie

    @cookie.setter
    def cookie(self, value: str) -> None:
        """Ignored on purpose, see the class."""

    def speak(self, version: str) -> None:
        """Use another API version from now on: the server may have been upgraded, or restored."""
        if version != self.version:
            del self.version  # ComputeVersionInfo never goes down from a version that is set
            self.ComputeVersionInfo(version)

    def GetConnection(self) -> Any:  # noqa: N802 - pyVmomi's name
        connection = super().GetConnection()
        self._busy[gevent.getcurrent()] = connection
        self._session.check_thumbprint(connection)
        return connection

    def ReturnConnection(self, connection: Any) -> None:  # noqa: N802 - pyVmomi's name
        self._busy.pop(gevent.getcurrent(), None)
        super().ReturnConnection(connection)

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outerStub: Any = None) -> Any:  # noqa: ARG002, N802, N803
        """As pyVmomi's: the result, or the fault as an exception. But answers are decoded by :class:`Decoding`."""
        where = f"{self._session.name}: {info.wsdlName or info.name} on {mo._GetMoId()}"
        with self.bounded(where):
            status, result = self._exchanged(mo, info, args)
            if status == 200:
                return result
            if not isinstance(result, Exception):
                raise TypeError(f"{type(result).__name__} in place of a fault")
            raise result

    def _exchanged(self, mo: Any, info: Any, args: Any) -> tuple[int, Any]:
        headers = {
            "Cookie": self.cookie,
            "SOAPAction": self.versionId,
            "Content-Type": "text/xml; charset=UTF-8",
            "User-Agent": _USER_AGENT,
            "Accept-Encoding": "gzip, deflate",
        }
        request = self.SerializeRequest(mo, info, args)
        connection = self.GetConnection()
        try:
            connection.request("POST", self.path, request, headers)
            answer = connection.getresponse()
            cookie = answer.getheader("Set-Cookie")
            if cookie:
                self.cookie = cookie
            result = self._decoding.result(mo, info, answer)
            answer.read()  # what follows the end, so that it is not in the way of the next answer
        except BaseException:
            # The server is probably sick: whatever else lies in the pool is not used again.
            connection.close()
            self.DropConnections()
            raise
        self.ReturnConnection(connection)
        return answer.status, result

    def SerializeRequest(self, mo: Any, info: Any, args: Any) -> bytes:  # noqa: N802 - pyVmomi's name
        """As pyVmomi's. One without arguments differs from the last of its kind in the object's moref alone."""
        if args or not _PLAIN_MOREF.fullmatch(mo._GetMoId()):
            return cast(bytes, super().SerializeRequest(mo, info, args))
        key = (type(mo), info.wsdlName, self.version)
        parts = self._requests.get(key)
        if parts is None:
            request = super().SerializeRequest(type(mo)(_ANY_MOREF, self), info, args)
            parts = self._requests[key] = request.partition(_ANY_MOREF.encode())
        before, _, after = parts
        moref: str = mo._GetMoId()
        return before + moref.encode() + after

    def get(self, path: str) -> tuple[int, bytes]:
        """A plain HTTP GET of a small document, with the same trust and deadline."""
        with self.bounded(f"{self._session.name}: GET {path}"):
            connection = self.GetConnection()
            connection.request("GET", path, headers={"Cookie": self.cookie})
            answer = connection.getresponse()
            body = answer.read()
            self.ReturnConnection(connection)
            return answer.status, body

    def bounded(self, where: str) -> _Bounded:
        return _Bounded(self, where)

    def abandon(self) -> None:
        """Close the connection that this greenlet was using: a killed call leaves it half-read."""
        connection = self._busy.pop(gevent.getcurrent(), None)
        if connection is not None:
            connection.close()


class _Bounded:
    """``with`` around one exchange: deadline, translated errors, and a closed connection if it did not end well."""

    def __init__(self, stub: _Stub, where: str) -> None:
        self._stub = stub
        self._where = where
        self._timer = gevent.Timeout(stub._deadline)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, kind: Any, exc: BaseException | None, trace: Any) -> None:
        self._timer.close()
        if exc is None:
            return
        self._stub.abandon()
        if exc is self._timer or isinstance(exc, TimeoutError):
            # Whatever else lies in the pools went the same way; the next calls shall not find that out one by one.
            self._stub._session.drop_idle_connections()
        if exc is self._timer:
            raise Unavailable(f"{self._where}: no answer within {self._stub._deadline:g} s.") from exc
        if isinstance(exc, PluginError) or not isinstance(exc, (Exception, SystemExit)):
            return  # ours already, or a greenlet being killed, or somebody else's timeout
        raise self._stub._session.translate(exc, self._where) from exc


class Session:
    """See the module. ``clock`` gives monotonic seconds."""

    def __init__(self, settings: SessionSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.name = f"{settings.host}:{settings.port}" if settings.port != 443 else settings.host
        self.generation = 0
        """Grows with each login. 0: never logged in."""
        self.cookie = ""
        self.about: Any = None
        self.content: Any = None
        self.is_extension = False
        """Whether vCenter takes this session for one of an extension, as of the last login."""
        self.identities: tuple[str, ...] = (settings.principal,)
        """Names under which vCenter and EAM know whoever is logged in: user names, or an extension's key."""
        self.clock = clock
        self.fallen_back: Counter[str] = Counter()
        """Answers that had to be decoded the slow way, by method. See :mod:`vcenter_eam_plugin.vsphere.decoding`."""
        self._key: str | None = None
        self._lock = BoundedSemaphore(1)
        self._vim: _Stub | None = None
        self._wait: _Stub | None = None
        self._eam: _Stub | None = None
        self._disputed_at: float | None = None
        self._refused: tuple[bytes, float, LoginRefused] | None = None

    def __repr__(self) -> str:
        return f"<Session {self.settings.principal} at {self.name}, generation {self.generation}>"

    # --- life ------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Log in, unless done already. Raises LoginRefused, CertificateRejected, Unavailable ..."""
        if not self.cookie:
            self.renew(self.generation)

    def renew(self, generation: int) -> None:
        """Log in again, unless somebody did since ``generation``. One login at a time: who waits shares it."""
        with self._lock:
            if self.generation == generation:
                with understood(f"{self.name}: the login"):
                    self._login()

    def close(self) -> None:
        """Log out and drop all connections. Never raises for what the server does: it may be gone."""
        with self._lock:
            self._leave()

    def alive(self) -> bool:
        """Ask the server whether this session is logged in. Raises Unavailable when it cannot be asked.

        A read that came back empty or with everything in ``missingSet`` counts for something only if this
        says true afterwards: an expired session can answer empty, without any fault.
        """
        if self.content is None or self._key is None:
            return False
        try:
            current = self._attempt(lambda: self.content.sessionManager.currentSession, idempotent=True)
        except SessionExpired:
            return False
        with understood(f"{self.name}: currentSession"):
            return current is not None and current.key == self._key

    def keep_alive(self) -> None:
        """Touch the session so that it does not idle out; log in again if it did."""
        generation = self.generation
        if not self.alive():
            self.renew(generation)

    # --- calls -----------------------------------------------------------------------------------------

    def call(self, fn: Callable[..., T], *args: Any, idempotent: bool = True, renew: bool = True, **kw: Any) -> T:
        """Call a method of a managed object of this session; everything it raises is the domain's.

        A session that has ended is renewed and the call made again: the server refused it before looking at
        it, so that is safe for any call. ``renew=False`` raises SessionExpired instead, for those who must
        build up their server-side objects anew.
        """
        if not self.cookie:
            self.renew(self.generation)
        generation = self.generation
        try:
            return self._attempt(lambda: fn(*args, **kw), idempotent=idempotent)
        except SessionExpired as exc:
            if not renew:
                raise
            self._judge_dispute(generation, exc)
        self.renew(generation)
        return self._attempt(lambda: fn(*args, **kw), idempotent=idempotent)

    def _judge_dispute(self, generation: int, exc: SessionExpired) -> None:
        """A session that vCenter accepts and EAM does not: a new one may help once, but not every few seconds.

        Each new login ends the inventory's stream too, so an EAM whose link to vCenter is broken would have the
        whole inventory listed again and again.
        """
        # the generation is looked at again, since somebody may have renewed the session while we asked
        if self.generation != generation or not self.alive() or self.generation != generation:
            return
        if self._disputed_at is not None and self.clock() < self._disputed_at + DISPUTED_SECONDS:
            raise SessionExpired(
                f"{exc.message.rstrip('.')}, says the server, though vCenter accepts it and a new one changed nothing.",
                remedy="If it is EAM that says so, it has lost vCenter: look at the service vmware-eam.",
            ) from exc
        self._disputed_at = self.clock()

    def _attempt(self, work: Callable[[], T], *, idempotent: bool) -> T:
        if not idempotent:
            self._drop_connections()
        try:
            return work()
        except Unavailable as exc:
            # A connection that the server closed while it lay in the pool says nothing about the server.
            if not (idempotent and isinstance(exc.__cause__, STALE_CONNECTION)):
                raise
        return work()

    @property
    def key(self) -> str:
        """The session's key, by which vCenter names it to others. Raises Unavailable when nobody is logged in."""
        if self._key is None:
            raise Unavailable(f"{self.name}: not logged in.")
        return self._key

    @property
    def instance_uuid(self) -> str:
        """``about.instanceUuid`` of the vCenter; identifies it whatever its name or address."""
        return cast(str, self.about.instanceUuid)

    def vim_stub(self) -> Any:
        """Stub for ordinary calls at ``/sdk``."""
        return self._opened(self._vim)

    def wait_stub(self) -> Any:
        """Stub for the long poll: the same session, but connections and a time-out of its own."""
        return self._opened(self._wait)

    def eam_stub(self) -> Any:
        """Stub for ``/eam/sdk`` at the EAM version that fits the vCenter."""
        return self._opened(self._eam)

    def _opened(self, stub: _Stub | None) -> _Stub:
        if stub is None:
            raise Unavailable(f"{self.name}: not connected yet.")
        return stub

    # --- trust -----------------------------------------------------------------------------------------

    def tls_context(self) -> ssl.SSLContext:
        """A context as the settings say. With a thumbprint alone, :meth:`check_thumbprint` is what trusts."""
        try:
            context = ssl.create_default_context(cafile=self.settings.ca_file)
        except OSError as exc:
            raise ConfigurationError(
                f"{self.name}: the CA file {self.settings.ca_file!r} cannot be read: {exc}."
            ) from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.settings.insecure or (self.settings.thumbprint and not self.settings.ca_file):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def check_thumbprint(self, connection: Any) -> None:
        """Raise CertificateRejected unless the peer shows the pinned certificate (if one is pinned)."""
        if self.settings.insecure or not self.settings.thumbprint:
            return
        wanted = self.settings.thumbprint.replace(":", "").strip().lower()
        shown = connection.sock.getpeercert(binary_form=True)
        digest = hashlib.sha256 if len(wanted) == 64 else hashlib.sha1
        if digest(shown).hexdigest() != wanted:
            raise CertificateRejected(
                f"{self.name}: the server shows another certificate than the pinned one: {_describe(shown)}.",
                remedy="If the certificate was renewed, set the new thumbprint.",
            )

    def translate(self, exc: BaseException, where: str) -> PluginError:
        """The domain's error for ``exc``; a rejected certificate is fetched again to tell whose it is."""
        made = translate(exc, where, self.settings.principal)
        if isinstance(made, CertificateRejected):
            made.message = f"{made.message} It is {self._shown_certificate()}."
            made.remedy = "Set the CA file that signed it, or this thumbprint if it is the right server."
        return made

    def _shown_certificate(self) -> str:
        """What the server shows, fetched without trusting it: nothing is sent, the certificate alone is read."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        address = (self.settings.host, self.settings.port)
        try:
            with (
                gevent.Timeout(LOGOUT_SECONDS, TimeoutError),
                socket.create_connection(address) as plain,
                context.wrap_socket(plain, server_hostname=self.settings.host) as tls,
            ):
                shown = tls.getpeercert(binary_form=True)
        except OSError:
            return "not to be had a second time"
        return _describe(shown or b"")

    # --- login -----------------------------------------------------------------------------------------

    def _login(self) -> None:
        """Under the lock. The cookie of a former session is given up first, so that no half-dead one stays."""
        offered, log_in = self._by_certificate() if self.settings.client_cert else self._by_password()
        if self._refused is not None:
            refused, at, error = self._refused
            if refused == offered and self.clock() < at + REFUSED_SECONDS:
                raise LoginRefused(error.message, remedy=error.remedy)
        self._leave()
        login = _LoginStub(self, "/sdk", "vim.version.version10", self.settings.call_timeout)
        try:
            login.speak(self._negotiate(login))
            content: Any = vim.ServiceInstance("ServiceInstance", login).RetrieveContent()
            if content.about.apiType != "VirtualCenter":
                raise ConfigurationError(
                    f"{self.name} is {content.about.fullName}, not a vCenter.", remedy="Name the vCenter, not a host."
                )
            if content.sessionManager is None:  # optional in the schema; every vCenter has one
                raise ProtocolError(
                    f"{self.name} does not answer as a vCenter does: it names no session manager.",
                    remedy="Check host and port.",
                )
            try:
                cookie, session = log_in(login, content.sessionManager)
            except LoginRefused as exc:
                self._refused = (offered, self.clock(), exc)
                raise
            self._refused = None
            self._take(login, cookie, content, session)
        finally:
            login.DropConnections()

    def _by_password(self) -> tuple[bytes, _LogIn]:
        """What is offered, as a digest, and how to log in with it."""
        password = self.settings.password()

        def log_in(login: _LoginStub, manager: Any) -> tuple[str, Any]:
            session = manager.Login(self.settings.username, password, None)
            return login.learned, session

        return hashlib.sha256(password.encode()).digest(), log_in

    def _by_certificate(self) -> tuple[bytes, _LogIn]:
        """The same. The session's cookie comes over the tunnel and serves everywhere."""
        settings = self.settings
        try:
            files = [Path(name).read_bytes() for name in (settings.client_cert, settings.client_key) if name]
        except OSError as exc:
            raise ConfigurationError(f"{self.name}: the client certificate cannot be read: {exc}.") from exc

        def log_in(login: _LoginStub, manager: Any) -> tuple[str, Any]:
            stub = _CertificateStub(self, "/sdk", login.version, settings.call_timeout)
            try:
                manager = vim.SessionManager(manager._GetMoId(), stub)
                session = manager.LoginExtensionByCertificate(settings.extension_key, None)
            except (LoginRefused, WrongState) as exc:
                if not isinstance(exc.__cause__, (vim.fault.InvalidLogin, vim.fault.NoClientCertificate)):
                    raise
                raise self._certificate_refused(exc.__cause__) from exc.__cause__
            finally:
                stub.DropConnections()
            return stub.learned, session

        return hashlib.sha256(b"\0".join(files)).digest(), log_in

    def _certificate_refused(self, fault: Any) -> LoginRefused:
        key = self.settings.extension_key
        if isinstance(fault, vim.fault.NoClientCertificate):
            way = f"port {self.settings.tunnel_port}" if self.settings.tunnel_port else f"port {self.settings.port}"
            return LoginRefused(
                f"{self.name}: the certificate of the extension {key!r} did not reach vCenter through {way}.",
                remedy="Something on the way ends TLS; check vc_tunnel_port.",
            )
        return LoginRefused(
            f"{self.name}: vCenter refused the certificate of the extension {key!r}: there is no such extension, or it "
            f"has another certificate.",
            remedy="Register it with this certificate: vcenter-eam extension register.",
        )

    def _leave(self) -> None:
        """Log out of what is left of the session: one that answers but is of no use must not stay behind."""
        if self._vim is not None and self.cookie:
            with contextlib.suppress(PluginError), gevent.Timeout(LOGOUT_SECONDS, False):
                self.content.sessionManager.Logout()  # if this fails it ends by itself after its idle time
        self.cookie, self._key = "", None
        self.drop_idle_connections()

    def _take(self, login: _LoginStub, cookie: str, content: Any, session: Any) -> None:
        found = _SESSION_COOKIE.search(cookie)
        if found is None:
            raise ProtocolError(f"{self.name}: the login was accepted, but no session cookie came with it.")
        if not session.key:
            raise ProtocolError(f"{self.name}: the login was accepted, but the session has no key.")
        uuid = content.about.instanceUuid
        if str(UUID(uuid)) != uuid.lower():  # files of the state directory are named after it
            raise ProtocolError(f"{self.name} calls itself {uuid[:40]!r}, which is no instanceUuid.")
        timeout = self.settings.call_timeout
        if self._vim is None or self._wait is None or self._eam is None:
            wait = self.settings.wait_seconds + WAIT_MARGIN_SECONDS
            self._vim = _Stub(self, "/sdk", login.version, timeout)
            self._wait = _Stub(self, "/sdk", login.version, wait)
            self._eam = _EamStub(self, "/eam/sdk", eam_version(content.about.apiVersion), timeout)
        self._vim.speak(login.version)
        self._wait.speak(login.version)
        self._eam.speak(eam_version(content.about.apiVersion))
        # The content's objects hang on the login stub: move them to the one that stays.
        for name in _USED_OF_CONTENT:
            former = getattr(content, name)
            if former is not None:
                setattr(content, name, type(former)(former._GetMoId(), self._vim))
        self.about, self.content = content.about, content
        self.is_extension = bool(session.extensionSession)
        key = self.settings.extension_key if self.is_extension else ""
        self.identities = tuple(dict.fromkeys(filter(None, (key, session.userName, self.settings.username))))
        self._key = session.key
        self.cookie = found.group(0)
        self.generation += 1

    def _negotiate(self, stub: _Stub) -> str:
        """The newest vim version that both sides know, by the server's list of versions."""
        status, body = stub.get("/sdk/vimServiceVersions.xml")
        if status in {502, 503, 504}:
            raise Unavailable(f"{self.name}: vCenter is starting or overloaded (HTTP {status}).")
        offered = {text.decode("ascii", "replace") for text in _VERSION.findall(body)} if status == 200 else set()
        for version in GetServiceVersions("vim25"):
            if versionIdMap.get(version) in offered:
                return cast(str, version)
        raise ProtocolError(
            f"{self.name} does not answer as a vCenter does (vimServiceVersions.xml: HTTP {status}).",
            remedy="Check host and port.",
        )

    def drop_idle_connections(self) -> None:
        """The next calls connect anew; those under way go on."""
        self._drop_connections()
        if self._wait is not None:
            self._wait.DropConnections()

    def _drop_connections(self) -> None:
        for stub in (self._vim, self._eam):
            if stub is not None:
                stub.DropConnections()


class _EamStub(_Stub):
    """Steps down when the server does not know the version: nothing tells beforehand which one its EAM speaks."""

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outerStub: Any = None) -> Any:  # noqa: N802, N803
        while True:
            version = self.version
            try:
                return super().InvokeMethod(mo, info, args, outerStub)
            except ProtocolError as exc:
                if _VERSION_REFUSED not in str(exc) or not self._step_down(version):
                    raise

    def _step_down(self, refused: str) -> bool:
        """Speak the next lower version, unless somebody went down meanwhile. False: there is none that serves."""
        known = [version for _, version in EAM_VERSIONS]
        if self.version == refused:
            if refused not in known[:-1]:
                return False
            self.speak(known[known.index(refused) + 1])
            log.warning("%s: EAM does not speak %s; trying %s.", self._session.name, refused, self.version)
        return True


class _LoginStub(_Stub):
    """The stub of one login: alone it may learn a cookie, and nobody else uses it meanwhile."""

    learned = ""

    @property
    def cookie(self) -> str:
        return self.learned.partition(";")[0]

    @cookie.setter
    def cookie(self, value: str) -> None:
        if "vmware_soap_session=" in value:
            self.learned = value


class _CertificateStub(_LoginStub):
    """Shows the client certificate, through the SDK tunnel where there is one."""

    def __init__(self, session: Session, path: str, version: str, timeout: float) -> None:
        super().__init__(session, path, version, timeout)
        if session.settings.tunnel_port:
            self.scheme = self._through_tunnel

    def _context(self) -> ssl.SSLContext:
        context = super()._context()
        settings = self._session.settings
        assert settings.client_cert is not None

        def no_password() -> str:
            raise ConfigurationError(
                f"The key of the client certificate {settings.client_cert} has a password.",
                remedy="Keep it without one, in a file that only the service may read.",
            )

        try:
            context.load_cert_chain(settings.client_cert, settings.client_key, no_password)
        except OSError as exc:  # ssl.SSLError is one
            raise ConfigurationError(
                f"The client certificate {settings.client_cert} with the key in "
                f"{settings.client_key or 'the same file'} cannot be used: {exc.strerror or exc}.",
                remedy="Both must be PEM, and the key must be that of the first certificate.",
            ) from exc
        return context

    def _through_tunnel(self, host: str, port: int, **arguments: Any) -> _Connection:  # noqa: ARG002 - pyVmomi's call
        """A connection to the SDK tunnel. vCenter shows its own certificate there, so its own name is verified."""
        connection = _Connection(host, self._session.settings.tunnel_port, **arguments)
        connection.set_tunnel(*SDK_TUNNEL)
        return connection


_LogIn = Callable[[_LoginStub, Any], tuple[str, Any]]
"""Logs in with the given session manager; returns the cookie and the ``UserSession``."""


def _notice_dead_peer(sock: Any) -> None:
    """Both are needed: a request that is not acknowledged, and a wait that has nothing to acknowledge."""
    probes = DEAD_PEER_SECONDS // KEEP_ALIVE_SECONDS
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEP_ALIVE_SECONDS),
        ("TCP_KEEPINTVL", KEEP_ALIVE_SECONDS),
        ("TCP_KEEPCNT", probes),
        ("TCP_USER_TIMEOUT", DEAD_PEER_SECONDS * 1000),
    ):
        if hasattr(socket, option):  # Linux has them all
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _describe(der: bytes) -> str:
    """Subject, validity and SHA-256 thumbprint of a certificate, for a person who must decide."""
    thumbprint = ":".join(f"{byte:02X}" for byte in hashlib.sha256(der).digest())
    # Here alone: 8 MiB that a daemon with the right certificates never needs.
    from cryptography import x509  # noqa: PLC0415

    try:
        subject = x509.load_der_x509_certificate(der).subject.rfc4514_string() or "empty"
    except ValueError:
        subject = "unreadable"
    return f"a certificate with subject {subject} and SHA-256 thumbprint {thumbprint}"
