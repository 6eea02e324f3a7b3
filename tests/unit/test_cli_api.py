# SPDX-License-Identifier: Apache-2.0
"""The client of the control socket, against something else than the service."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gevent.server import StreamServer

from vcenter_eam_plugin.cli import api
from vcenter_eam_plugin.cli.api import SOCKET, Api
from vcenter_eam_plugin.domain.errors import ProtocolError

MOST = 2000
ENDLESS = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n\r\n"


class Stranger:
    """Answers every request with ``status`` and then ``x`` for as long as somebody takes it."""

    def __init__(self, directory: Path, status: bytes) -> None:
        self.sent = 0
        self._status = status
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(directory / SOCKET))
        listener.listen()
        listener.setblocking(False)
        self.server = StreamServer(listener, self._serve)
        self.server.start()

    def _serve(self, peer: socket.socket, _: object) -> None:
        try:
            peer.recv(65536)
            peer.sendall(ENDLESS % self._status)
            while True:
                peer.sendall(b"x" * MOST)
                self.sent += MOST
        except OSError:
            pass  # it has hung up


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stranger]]:
    monkeypatch.setattr(api, "MOST_ANSWERED", MOST)
    made: list[Stranger] = []

    def make(status: bytes = b"200 OK") -> Stranger:
        made.append(Stranger(tmp_path, status))
        return made[0]

    yield make
    for each in made:
        each.server.stop()
    gc.collect()


@pytest.mark.parametrize("status", [b"200 OK", b"500 Internal Server Error"])
@pytest.mark.parametrize("how", ["get", "post", "follow"])
def test_an_answer_without_end_is_an_error_and_not_all_memory(
    stranger: Callable[..., Stranger], tmp_path: Path, how: str, status: bytes
) -> None:
    """Whatever listens at the socket: what comes is bounded, an error's text and a line of progress too."""
    there = stranger(status)
    client = Api(tmp_path, seconds=10)
    asked: dict[str, Callable[[], object]] = {
        "get": lambda: client.get("/api/v1/status"),
        "post": lambda: client.post("/api/v1/preview", {}),
        "follow": lambda: list(client.follow("/api/v1/apply", {})),
    }
    with pytest.raises(ProtocolError, match=r"more than .* at once; is it this service"):
        asked[how]()
    assert there.sent < 4_000_000, "what the kernel holds for a socket, and no more"
