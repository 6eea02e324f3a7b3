# SPDX-License-Identifier: Apache-2.0
"""A directory over plain HTTP: what tests of EAM need of an OVF server, whatever ours can do besides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gevent.pywsgi import WSGIServer


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Base URL of ``directory`` for as long as the block lasts; its files alone, no sub-directories."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        file = directory / Path(environ["PATH_INFO"]).name
        if not file.is_file():
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        body = file.read_bytes()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body] if environ["REQUEST_METHOD"] == "GET" else []

    server = WSGIServer(("127.0.0.1", 0), answer, log=None)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.stop()
