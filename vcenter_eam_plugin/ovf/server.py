# SPDX-License-Identifier: Apache-2.0
"""The web server that EAM fetches the ContrailVM from (S01).

It serves the files of known packages under ``/ovf/<digest>/<name>`` and nothing else: names are looked up in a
table, never joined to a path. It must run for as long as the agency lives, because every redeployment downloads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import gevent
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.ovf.package import Package, open_package

_CHUNK = 256 << 10
"""Bytes per read and write: large enough for speed, small enough that other greenlets run in between."""
_CONNECTIONS = 256
"""A whole fleet that redeploys asks for no more at once: vCenter itself fetches, host by host."""
_TYPES = {".ovf": "text/xml", ".mf": "text/plain"}

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class OvfServer:
    """Serves packages on ``address`` (host, port). ``base_url`` is how vCenter reaches it; else the address is used."""

    def __init__(self, address: tuple[str, int], base_url: str, logger: logging.Logger) -> None:
        self._log = logger
        self._base_url = base_url.rstrip("/")
        self._packages: dict[str, Package] = {}
        self._server = WSGIServer(address, self._answer, spawn=Pool(_CONNECTIONS), log=None, error_log=logger)

    def start(self) -> None:
        """Listen. Raises ConfigurationError when the address is not to be had."""
        try:
            self._server.start()
        except OSError as exc:
            host, port = self._server.address[:2]
            raise ConfigurationError(
                f"The OVF server cannot listen on {host}:{port}: {exc.strerror}.",
                remedy="Choose another ovf_server_ip or ovf_server_port.",
            ) from exc

    def stop(self) -> None:
        self._server.stop(timeout=1)

    def publish(self, path: Path) -> str:
        """Serve a package; returns the URL of its descriptor. Raises OvfError. Reads all of it, off the event loop."""
        package = gevent.get_hub().threadpool.apply(open_package, (path,))
        self._packages[package.digest] = package
        url = f"{self._base()}/ovf/{package.digest}/{quote(package.descriptor)}"
        self._log.info("Serving the OVF package %s at %s.", path, url)
        return url

    def _base(self) -> str:
        if self._base_url:
            return self._base_url
        host = self._server.server_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.server_port}"

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")])
            return []
        # WSGI hands bytes over as if they were Latin-1.
        file = self._find(environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"))
        try:
            opened = file.open("rb") if file is not None else None
        except OSError as exc:
            self._log.error("%s of the OVF package cannot be read any more: %s.", file, exc.strerror)
            opened = None
        if file is None or opened is None:
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        size = file.stat().st_size
        kind = _TYPES.get(file.suffix, "application/octet-stream")
        start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(size))])
        if method == "HEAD":
            opened.close()
            return []
        self._log.info("OVF download of %s by %s.", file.name, environ.get("REMOTE_ADDR"))
        return _chunks(opened)

    def _find(self, path: str) -> Path | None:
        parts = path.split("/")
        if len(parts) != 4 or parts[:2] != ["", "ovf"]:
            return None
        package = self._packages.get(parts[2])
        return package.files.get(parts[3]) if package is not None else None


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk
