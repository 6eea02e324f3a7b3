# SPDX-License-Identifier: Apache-2.0
"""A vCenter of recorded bytes, in a process of its own: ``python -m benchmarks.replay RECORD CERTIFICATE KEY``.

It looks a request up by its whole body and sends what was answered to it, over TLS, in one write: so little computing
that what is measured is the client. A request that was not recorded is held and never answered, as a long poll is that
has nothing to say. What was answered to one request several times is answered in turn.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ovf import write_certificate

HOLD_SECONDS = 60.0
COOKIE = 'vmware_soap_session="recorded"'
_LOGIN = b"<Login "
_LENGTH = b"content-length:"


@dataclass(slots=True)
class Record:
    """Answers by the request's body, the first line for a GET; in the order in which they were given."""

    answers: dict[str, list[str]] = field(default_factory=dict)

    def add(self, request: bytes, answer: bytes) -> None:
        """One exchange."""
        self.answers.setdefault(request.decode(), []).append(answer.decode())


@dataclass(frozen=True, slots=True)
class Replaying:
    """Where it listens, and whom to trust."""

    port: int
    ca_file: str


@contextlib.contextmanager
def replaying(record: Record, folder: Path) -> Iterator[Replaying]:
    """The server, ready; it ends with the block."""
    certificate, key = write_certificate(folder, "replay")
    file = folder / "record.json"
    file.write_text(json.dumps(record.answers))
    command = [sys.executable, "-m", "benchmarks.replay", str(file), str(certificate), str(key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield Replaying(int(server.stdout.readline()), str(folder / "replay.ca"))
        finally:
            server.terminate()


class _Server:
    def __init__(self, file: Path) -> None:
        recorded: dict[str, list[str]] = json.loads(file.read_text())
        self._answers = {key.encode(): [_framed(key, answer) for answer in some] for key, some in recorded.items()}
        self._turn = dict.fromkeys(self._answers, 0)

    def serve(self, sock: ssl.SSLSocket) -> None:
        """One connection, until the client leaves it."""
        with contextlib.suppress(OSError), sock:
            sock.do_handshake()
            seen = b""
            while True:
                request, seen = _request(sock, seen)
                if not request:
                    return
                some = self._answers.get(request)
                if some is None:
                    time.sleep(HOLD_SECONDS)
                    return
                turn = self._turn[request]
                self._turn[request] = turn + 1
                sock.sendall(some[turn % len(some)])


def _framed(request: str, answer: str) -> bytes:
    body = answer.encode()
    cookie = f"Set-Cookie: {COOKIE}; Path=/; HttpOnly\r\n" if _LOGIN.decode() in request else ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\n{cookie}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _request(sock: ssl.SSLSocket, seen: bytes) -> tuple[bytes, bytes]:
    """The body of the next request, or the first line of one that has none; and what was read beyond it."""
    while b"\r\n\r\n" not in seen:
        some = sock.recv(65536)
        if not some:
            return b"", b""
        seen += some
    head, _, seen = seen.partition(b"\r\n\r\n")
    at = head.lower().find(_LENGTH)
    if at < 0:
        return head.partition(b"\r\n")[0], seen
    length = int(head[at + len(_LENGTH) :].partition(b"\r\n")[0])
    while len(seen) < length:
        some = sock.recv(65536)
        if not some:
            return b"", b""
        seen += some
    return seen[:length], seen[length:]


def main(file: str, certificate: str, key: str) -> None:
    """Serve until terminated; the port is told on standard output."""
    server = _Server(Path(file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            plain, _ = listener.accept()
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=server.serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
