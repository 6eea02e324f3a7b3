# SPDX-License-Identifier: Apache-2.0
"""The web server for the network: the JSON API of the control socket, behind a guard, on ``[INTROSPECT]``'s address.

On loopback over plain HTTP by default; anything that others can reach speaks TLS only (config.py refuses the rest). An
address that is taken is an alarm, and is tried again; the service runs on without it.

A peer can cost us little: requests are bounded in size and in the time they may take to arrive, connections in
number. A connection is dropped that has not brought its next request whole in time. Not promised: that whoever may
connect cannot take all connections for a while; operators then have the control socket.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import ssl
import time
from io import BytesIO
from typing import Any

import gevent
from flask import Flask
from gevent.pool import Pool
from gevent.pywsgi import Input, LoggingLogAdapter, WSGIHandler, WSGIServer

from vcenter_eam_plugin.config import IntrospectConfig
from vcenter_eam_plugin.ovf.certificate import server_context
from vcenter_eam_plugin.redaction import Redactor, secrets_of
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.web.access import Attempts, Sessions, Token
from vcenter_eam_plugin.web.app import MAX_BODY, create_app
from vcenter_eam_plugin.web.guard import Guard, Rules
from vcenter_eam_plugin.web.login import add_login
from vcenter_eam_plugin.web.page import Page
from vcenter_eam_plugin.web.stream import Stream
from vcenter_eam_plugin.web.templates_compiled import COMPILED

MOST_AT_ONCE = 64
"""Connections; the next ones wait in the kernel's queue until one of these ends."""
MAX_HEADERS = 16 * 1024
"""Bytes of all header lines of a request."""
REQUEST_SECONDS = 10.0
"""For a request to arrive whole, from the end of the one before it on: so also how long an idle connection is kept."""
SEND_SECONDS = 30.0
"""For a peer to take a piece of an answer."""
STOP_SECONDS = 0.5
RETRY_SECONDS = 10.0
"""Between two attempts to get an address that is taken: after a restart the process before may still be leaving."""
_ALARM = "introspect"
_RANDOM_BYTES = 32


class WebServer:
    """An endpoint of the service: it starts and stops it. See the module.

    Raises ConfigurationError when certificate and key cannot be used.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.configuration.introspect
        self._log = service.log.getChild("web")
        self._tls = _tls_of(self._settings)
        self._server: WSGIServer | None = None
        self._starting: gevent.Greenlet | None = None

    def start(self) -> None:
        """Serve from now on; what goes wrong is an alarm of every vCenter."""
        if not self._settings.http_server_ip:
            self._log.info("Nothing is served over the network: http_server_ip is empty.")
        elif not self._listen():
            self._starting = gevent.spawn(self._keep_trying)

    def stop(self) -> None:
        """Serve no more."""
        if self._starting is not None:
            self._starting.kill()
            self._starting = None
        server, self._server = self._server, None
        if server is not None:
            server.stop(timeout=STOP_SECONDS)

    @property
    def url(self) -> str:
        """Where it is served, without a slash at the end; empty while it is not."""
        if self._server is None:
            return ""
        host = self._server.server_host
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._server.server_port}"

    def _keep_trying(self) -> None:
        while not self._listen():
            gevent.sleep(RETRY_SECONDS)

    def _listen(self) -> bool:
        """Whether the address was to be had."""
        where = (self._settings.http_server_ip, self._settings.introspect_port)
        try:
            # By hand, because gevent leaves a socket open whose address it cannot have.
            listener = socket.create_server(where, family=socket.AF_INET6 if ":" in where[0] else socket.AF_INET)
        except OSError as exc:
            why = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror
            for unit in self._service.units:
                unit.alarms.raise_(
                    _ALARM,
                    f"Status page and API are not served: {where[0]} port {where[1]} cannot be had: {why}. It is tried "
                    "again; end what has it, or choose another http_server_ip or introspect_port.",
                )
            return False
        listener.setblocking(False)
        self._serve(listener)
        for unit in self._service.units:
            unit.alarms.clear(_ALARM)
        self._log.info("Serving status and API at %s.", self.url)
        return True

    def _serve(self, listener: socket.socket) -> None:
        tls = {} if self._tls is None else {"ssl_context": self._tls}
        self._server = _Server(
            listener,
            self._application(),
            spawn=Pool(MOST_AT_ONCE),
            log=LoggingLogAdapter(self._log, logging.DEBUG),
            error_log=LoggingLogAdapter(self._log, logging.DEBUG),
            handler_class=_Handler,
            environ={"SERVER_NAME": self._settings.http_server_ip},  # else gevent asks DNS for one
            **tls,
        )
        self._server.start()

    def _application(self) -> Flask:
        app = create_app(self._service)
        redact = Redactor(lambda: secrets_of(self._service.configuration), time.monotonic)
        settings = self._settings
        token = Token(settings.introspect_token)
        guard = Guard(
            Rules(
                names=frozenset({"localhost", *(name.lower() for name in settings.introspect_names)}),
                reading_is_free=not settings.exposed,
                tls=self._tls is not None,
            ),
            token,
            Sessions(token, time.monotonic, lambda: secrets.token_urlsafe(_RANDOM_BYTES)),
            Attempts(time.monotonic),
            self._log,
        )
        guard.protect(app)
        add_login(app, guard, tls=self._tls is not None)
        stream = Stream(self._service, redact, str(secrets.token_hex(4)))
        app.register_blueprint(Page(self._service, stream.name).blueprint)
        app.register_blueprint(stream.blueprint)
        app.jinja_env.bytecode_cache = COMPILED
        return app


def _tls_of(settings: IntrospectConfig) -> ssl.SSLContext | None:
    certificate, key = settings.introspect_ssl_certfile, settings.introspect_ssl_keyfile
    if certificate is None or key is None:
        return None
    return server_context(
        certificate, key, who="The web server", options="introspect_ssl_certfile, introspect_ssl_keyfile"
    )


class _Refused(ValueError):
    """A request that is not read to its end; ``answer`` is sent, and the connection closed."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.answer = (
            status[:3],
            f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode("ascii"),
        )


class _Bounded:
    """The lines of a request's headers, up to ``MAX_HEADERS`` bytes."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = MAX_HEADERS

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise _Refused("431 Request Header Fields Too Large")
        return line


class _Handler(WSGIHandler):  # type: ignore[misc] # gevent has no types
    """One connection. Each request has to arrive whole, within bounds and in time, before anything looks at it."""

    _body = b""

    def handle_one_request(self) -> Any:
        self._deadline = gevent.Timeout.start_new(REQUEST_SECONDS)
        try:
            return super().handle_one_request()
        except gevent.Timeout as exc:
            if exc is not self._deadline:
                raise
            return None  # close the connection
        finally:
            self._deadline.close()

    def MessageClass(self, file: Any, *args: Any) -> Any:  # noqa: N802 - gevent's name
        return super().MessageClass(_Bounded(file), *args)

    def read_request(self, raw_requestline: str) -> bool:
        """Everything of the request, its body too. Raises ValueError when it is not to be answered."""
        super().read_request(raw_requestline)
        if self.request_version not in ("HTTP/1.0", "HTTP/1.1"):
            raise _Refused("505 HTTP Version Not Supported")
        if "transfer-encoding" in self.headers:  # two ways to say a length are one too many
            raise _Refused("411 Length Required")
        if len(self.headers.get_all("content-length", ())) > 1 or len(self.headers.get_all("host", ())) > 1:
            raise _Refused("400 Bad Request")
        length = self.content_length or 0
        if length > MAX_BODY:
            raise _Refused("413 Content Too Large")
        if length and self.headers.get("expect", "").lower() == "100-continue":
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body = self.rfile.read(length) if length else b""
        if len(self._body) < length:
            raise _Refused("400 Bad Request")
        self._deadline.close()  # how long the answer takes is ours
        return True

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        self.wsgi_input = Input(BytesIO(self._body), len(self._body))
        environ["wsgi.input"] = self.wsgi_input
        environ["wsgi.input_terminated"] = True
        return environ

    def _handle_client_error(self, ex: Exception) -> Any:
        refused = ex if isinstance(ex, _Refused) else _Refused("400 Bad Request")
        # What was sent is not quoted: it may be a secret that went the wrong way.
        self.server.error_log.write(f"A request from {self.client_address[0]} was refused: {refused}.")
        return refused.answer

    def format_request(self) -> str:
        # Without the query, where somebody may have put what does not belong there.
        path = (self.path or "").partition("?")[0]
        return f"{self.client_address[0]} {self.command} {path!r} {self.code}"

    def handle_error(self, kind: Any, value: Any, trace: Any) -> None:
        if not issubclass(kind, OSError):
            super().handle_error(kind, value, trace)
            return
        self.server.error_log.write(f"An answer to {self.client_address[0]} broke off: {value}.")
        self.close_connection = True


class _Server(WSGIServer):  # type: ignore[misc] # gevent has no types
    """With limits to how long a peer may take."""

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        """With TLS: a peer that speaks something else, or does not trust us, is a line in the log."""
        # The handshake apart: gevent does not close a socket whose handshake a timeout ends.
        wrapped = self.wrap_socket(client_socket, do_handshake_on_connect=False, **self.ssl_args)
        try:
            if self._shake_hands(wrapped, address):
                self.handle(wrapped, address)
        finally:
            wrapped.close()

    def _shake_hands(self, wrapped: Any, address: Any) -> bool:
        why: object = "not in time"
        with gevent.Timeout(REQUEST_SECONDS, False):
            try:
                wrapped.do_handshake()
            except OSError as exc:  # ssl.SSLError is one
                why = exc.reason if isinstance(exc, ssl.SSLError) else exc
            else:
                return True
        self.error_log.write(f"No TLS with {address[0]}: {why}.")
        return False

    def handle(self, sock: socket.socket, address: Any) -> None:
        sock.settimeout(SEND_SECONDS)
        super().handle(sock, address)
