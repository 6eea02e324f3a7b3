# SPDX-License-Identifier: Apache-2.0
"""The web server that EAM fetches the ContrailVM from (S01).

It serves the files of published packages under ``/ovf/<digest>/<name>`` and nothing else: names are looked up in a
table, never joined to a path. It must run for as long as the agency lives, because every redeployment downloads; so
every package that was ever published stays served while its files are there, also after a restart.

What is served is what was published: a file that was touched since is read again first, and refused if it differs.
Files are opened and read by threads, so that a slow disk holds nobody up. Without TLS the kernel sends them, and their
bytes never come here; with it they come a small piece at a time. Neither memory nor the event loop feels their size.

Not promised: authentication (EAM knows none for a package), compression, several ranges in one answer.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import gevent
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from gevent.threadpool import ThreadPool

from vcenter_eam_plugin.domain.errors import ConfigurationError, OvfError
from vcenter_eam_plugin.ovf.certificate import PinnedCertificate, read_certificate, server_context
from vcenter_eam_plugin.ovf.conditions import FAILED, NOT_MODIFIED, PARTIAL, UNSATISFIABLE, http_date, select
from vcenter_eam_plugin.ovf.handler import HEAD_SECONDS, PatientHandler
from vcenter_eam_plugin.ovf.index import Index
from vcenter_eam_plugin.ovf.package import Layout, Package, Piece, Stamp, hash_piece, inspect, measure, stamp_of

_CHUNK = 256 << 10
"""Bytes per read and write: large enough for speed, small enough that other greenlets run in between."""
_SENT_AT_ONCE = 8 << 20
"""Bytes that the kernel is asked to send by itself: more than a socket takes in one go."""
_CONNECTIONS = 256
"""A whole fleet that redeploys asks for no more at once: vCenter itself fetches, host by host."""
_THREADS = 6
"""That read files: a slow disk or a package being measured leaves some over for the others."""
_IDLE_SECONDS = 60.0
"""After which a peer that neither sends nor takes anything is let go: it would hold a connection for ever."""
_VERIFY_SECONDS = 20.0
"""For which a request waits while a touched file is read again; then it is told to come back."""
_VERDICTS = 256
"""Of touched files, remembered; they are few unless somebody touches them all the time."""
_OUR_URL = re.compile(r"(https?://[^/]+(?:/.*)?)/ovf/([0-9a-f]{64})/[^/]+")
_TYPES = {".ovf": "text/xml", ".mf": "text/plain", ".cert": "text/plain"}

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class OvfServer:
    """Serves packages on ``address`` (host, port). ``base_url`` is how vCenter reaches it; else the address is used.

    ``certificate`` and ``key`` (PEM files) make it speak HTTPS; ``index`` is where it keeps what it published.
    Raises ConfigurationError when certificate and key cannot be used.
    """

    def __init__(
        self,
        address: tuple[str, int],
        base_url: str,
        logger: logging.Logger,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        index: Path | None = None,
    ) -> None:
        self._log = logger
        self._base_url = base_url.rstrip("/")
        self._index = Index(index, logger)
        self._files = ThreadPool(_THREADS)
        self._publishing = BoundedSemaphore()
        self._announced: set[str] = set()
        self._verdicts: dict[tuple[Piece, Stamp], AsyncResult] = {}
        self.certificate: PinnedCertificate | None = None
        tls: dict[str, Any] = {}
        if certificate is not None and key is not None:
            tls["ssl_context"] = server_context(
                certificate, key, who="The OVF server", options="ovf_server_cert, ovf_server_key"
            )
            self.certificate = read_certificate(certificate)
        self._server = _Server(
            address,
            self._answer,
            spawn=Pool(_CONNECTIONS),
            log=None,
            error_log=logger,
            handler_class=_Handler,
            **tls,
        )

    def start(self) -> None:
        """Listen, and serve what was published before. Raises ConfigurationError when the address is not to be had."""
        self._index.load()
        try:
            self._server.start()
        except OSError as exc:
            host, port = self._server.address[:2]
            raise ConfigurationError(
                f"The OVF server cannot listen on {host}:{port}: {exc.strerror}.",
                remedy="Choose another ovf_server_ip or ovf_server_port.",
            ) from exc

    def stop(self) -> None:
        """Let downloads go, and the address. A thread that is still reading a disk ends by itself."""
        self._server.stop(timeout=1)
        with gevent.Timeout(1, False):
            self._files.kill()

    def publish(self, path: Path) -> str:
        """Serve a package; returns the URL of its descriptor. Raises OvfError. Reads all of it, off the event loop."""
        return self.url_of(self.open(path))

    def open(self, path: Path) -> Package:
        """Serve a package from now on, and after a restart. Raises OvfError, and serves nothing new.

        All of it is read, off the event loop, unless it was published before and its files were not touched since.
        """
        with self._publishing:  # vCenters may share a package: it is read once
            layout: Layout = self._in_thread(inspect, path.absolute())
            package = self._index.recognise(layout)
            if package is None:
                package = self._in_thread(measure, layout)
                self._index.add(package)
            url = self.url_of(package)
            if url not in self._announced:
                self._announced.add(url)
                self._log.info("Serving the OVF package %s at %s.", path, url)
        return package

    def _in_thread(self, read: Callable[..., Any], what: object) -> Any:
        """What ``read`` returns. Its OvfError is handed over as a value: gevent prints a traceback for a raised one."""
        result, error = self._files.apply(_caught, (read, what))
        if error is not None:
            raise error
        return result

    def url_of(self, package: Package) -> str:
        """The URL of a package's descriptor; its other files are beside it."""
        return f"{self._base()}/ovf/{package.digest}/{quote(package.descriptor)}"

    def trouble(self, url: str) -> str | None:
        """Why an agency that points to ``url`` could not redeploy: a sentence; ``None`` when nothing is known.

        Files are looked at, not read. A URL that no instance of this service made is somebody else's: nothing is known.
        """
        match = _OUR_URL.fullmatch(url)
        if match is None:
            return None
        base, digest = match.groups()
        if base != self._base():
            return (
                f"The agency fetches its OVF package from {base}, and this service serves at {self._base()}. Serve "
                "where the agency looks (ovf_base_url, ovf_server_port), or upgrade the agency."
            )
        places = self._index.located(digest)
        gone = [self._files.apply(_first_gone, (list(entry.files.values()),)) for entry in places]
        if None in gone:
            return None
        why = f"it was published from {places[0].source}, but {gone[0]}" if places else "it was never published here"
        return (
            f"The agency's OVF package {url} cannot be served: {why}. Put it back (or name it in ovf_package), or "
            "upgrade the agency."
        )

    def _base(self) -> str:
        if self._base_url:
            return self._base_url
        host = self._server.server_host
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._server.server_port}"

    # --- requests -----------------------------------------------------------------------------------------

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")])
            return []
        # WSGI hands bytes over as if they were Latin-1.
        name, pieces = self._find(environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"))
        opened: tuple[Piece, int] | None = None
        try:
            for piece in pieces:
                if (file := self._open(piece)) is not None:
                    opened = (piece, file)
                    break
        except gevent.Timeout:
            start_response("503 Service Unavailable", [("Retry-After", "30"), ("Content-Length", "0")])
            return []
        if opened is None:
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        body = _Body(opened[1], self._files, self._log, name)
        try:
            return self._send(environ, start_response, opened[0], body, name)
        except BaseException:
            body.close()
            raise

    def _send(
        self, environ: dict[str, Any], start_response: StartResponse, piece: Piece, body: _Body, name: str
    ) -> Iterable[bytes]:
        headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key[:5] == "HTTP_"}
        etag, modified = f'"{piece.sha256}"', piece.stamp[3] // 1_000_000_000
        method = environ["REQUEST_METHOD"]
        chosen = select(method, headers, size=piece.size, etag=etag, modified=modified)
        answer = [("ETag", etag), ("Last-Modified", http_date(modified)), ("Accept-Ranges", "bytes")]
        if chosen.status == NOT_MODIFIED:
            body.close()
            start_response(chosen.status, answer)
            return []
        if chosen.status in (FAILED, UNSATISFIABLE):
            body.close()
            if chosen.status == UNSATISFIABLE:
                answer.append(("Content-Range", f"bytes */{piece.size}"))
            start_response(chosen.status, [*answer, ("Content-Length", "0")])
            return []
        answer.append(("Content-Type", _TYPES.get(PurePath(name).suffix, "application/octet-stream")))
        answer.append(("Content-Length", str(chosen.end - chosen.start)))
        if chosen.status == PARTIAL:
            answer.append(("Content-Range", f"bytes {chosen.start}-{chosen.end - 1}/{piece.size}"))
        start_response(chosen.status, answer)
        if method == "HEAD":
            body.close()
            return []
        self._log.info("OVF download of %s by %s.", name, environ.get("REMOTE_ADDR"))
        body.select(piece.offset + chosen.start, piece.offset + chosen.end)
        return body

    def _find(self, path: str) -> tuple[str, list[Piece]]:
        """The name that a path asks for, and every place where these bytes were published from."""
        parts = path.split("/")
        if len(parts) != 4 or parts[:2] != ["", "ovf"]:
            return "", []
        digest, name = parts[2:]
        return name, [entry.files[name] for entry in self._index.located(digest) if name in entry.files]

    def _open(self, piece: Piece) -> int | None:
        """A file descriptor of what was published; ``None`` if it is not that any more. Raises gevent.Timeout."""
        try:
            file, stamp = self._files.apply(_open_file, (piece.path,))
        except OSError as exc:
            self._log.error("%s of an OVF package cannot be read any more: %s.", piece.path, exc.strerror)
            return None
        try:
            same = stamp == piece.stamp or self._verified(piece, stamp)
        except BaseException:
            os.close(file)
            raise
        if same:
            return int(file)
        os.close(file)
        self._log.error(
            "%s was changed since it was published as part of an OVF package, and is not served under that URL any "
            "more. Put back what it was; or publish what it is now by an upgrade.",
            piece.path,
        )
        return None

    def _verified(self, piece: Piece, stamp: Stamp) -> bool:
        """Whether a file that was touched still has the bytes that were published. Read once, whoever asks."""
        verdict = self._verdicts.get((piece, stamp))
        if verdict is None:
            if len(self._verdicts) >= _VERDICTS:
                self._verdicts.clear()
            verdict = self._verdicts[piece, stamp] = self._files.spawn(_is_published, piece, stamp)
        return bool(verdict.get(timeout=_VERIFY_SECONDS))


class _Body:
    """The bytes of an answer, read by a thread, one chunk at a time. WSGI calls ``close`` however it ends.

    A thread that is at work when its greenlet is killed goes on with the numbers of its descriptors. The greenlet waits
    for it, so that file and connection are closed, and their numbers free for others, only when it is through.
    """

    def __init__(self, file: int, files: ThreadPool, logger: logging.Logger, name: str) -> None:
        self._file: int | None = file
        self._files = files
        self._log = logger
        self._name = name
        self._at = self._end = 0

    def select(self, start: int, end: int) -> None:
        """Which bytes of the file."""
        self._at, self._end = start, end

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._file is None or self._at >= self._end:
            raise StopIteration
        chunk: bytes = self._in_thread(os.pread, self._file, min(_CHUNK, self._end - self._at), self._at)
        self._go_on(len(chunk))
        return chunk

    def send_to(self, sock: socket.socket) -> None:
        """All of it, by the kernel. Raises OSError; a peer that takes nothing for too long is one."""
        while self._file is not None and self._at < self._end:
            sent = self._in_thread(_send_some, sock.fileno(), self._file, self._at, self._end - self._at)
            if sent is not None:
                self._go_on(sent)
            else:
                sock.sendall(next(self))  # it is full: this waits, with the connection's time-out

    def _go_on(self, size: int) -> None:
        if not size:
            # The length was told already, so all that is left is to hang up.
            self._log.error("%s of an OVF package was cut short while it was being downloaded.", self._name)
            raise OSError(errno.EPIPE, "the file ended before its time")
        self._at += size

    def _in_thread(self, read: Callable[..., Any], *args: object) -> Any:
        working = self._files.spawn(read, *args)
        try:
            return working.get()
        finally:
            working.wait()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


class _Handler(PatientHandler):
    """One connection. What the network does to it is nobody's mistake: no traceback."""

    def read_request(self, raw_requestline: str) -> bool:
        """A download has no body. One would be read to its end before the next request, however slowly it comes."""
        read = super().read_request(raw_requestline)
        if self.content_length:
            raise ValueError("a request for a file has no body")
        return read

    def process_result(self) -> None:
        """A file goes out by the kernel where nothing has to be encrypted."""
        if not isinstance(self.result, _Body) or self.server.ssl_enabled:
            super().process_result()
            return
        self.write(b"")  # the head
        self.result.send_to(self.socket)

    def handle_error(self, kind: Any, value: Any, trace: Any) -> None:
        if not issubclass(kind, OSError):
            super().handle_error(kind, value, trace)
            return
        self.server.error_log.write(f"An OVF download by {self.client_address[0]} broke off: {value}.")
        self.close_connection = True


class _Server(WSGIServer):  # type: ignore[misc] # gevent has no types
    """With a limit to how long a peer may be idle."""

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """With TLS: a peer that speaks something else, or does not trust us, is a line in the log."""
        client_socket.settimeout(_IDLE_SECONDS)
        try:
            with gevent.Timeout(HEAD_SECONDS, TimeoutError("the handshake did not end in time")):
                tls = self.wrap_socket(client_socket, **self.ssl_args)
            with contextlib.closing(tls):
                return self.handle(tls, address)
        except OSError as exc:  # ssl.SSLError and socket.timeout are such
            why = exc.reason if isinstance(exc, ssl.SSLError) else exc
            self.error_log.write(f"The OVF server could not talk TLS with {address[0]}: {why}.")
            client_socket.close()
            return None

    def handle(self, sock: socket.socket, address: Any) -> None:
        sock.settimeout(_IDLE_SECONDS)
        super().handle(sock, address)


def _send_some(sock: int, file: int, start: int, size: int) -> int | None:
    """How many bytes were sent; ``None`` when the socket takes none now, 0 at the end of the file."""
    try:
        return os.sendfile(sock, file, start, min(size, _SENT_AT_ONCE))
    except BlockingIOError:
        return None


def _open_file(path: Path) -> tuple[int, Stamp]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return file, stamp_of(os.fstat(file))
    except OSError:
        os.close(file)
        raise


def _is_published(piece: Piece, stamp: Stamp) -> bool:
    """Whether the file is the one with this stamp, and has the bytes that were published."""
    try:
        digest = hash_piece(piece)
        return digest == piece.sha256 and stamp_of(piece.path.stat()) == stamp
    except OSError:
        return False


def _caught(read: Callable[..., Any], what: object) -> tuple[Any, OvfError | None]:
    try:
        return read(what), None
    except OvfError as exc:
        return None, exc


def _first_gone(pieces: list[Piece]) -> str | None:
    """Which file is not there any more, or has another length; quick, so what was only touched counts as there."""
    for piece in pieces:
        try:
            length = piece.path.stat().st_size
        except OSError as exc:
            return f"{piece.path}: {exc.strerror}"
        if length != piece.stamp[2]:
            return f"{piece.path} was changed"
    return None
