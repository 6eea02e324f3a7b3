# SPDX-License-Identifier: Apache-2.0
"""A client of the web server that does what it is told, also what no browser would."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.bench import Bench
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.service import Endpoint, Service
from vcenter_eam_plugin.web.server import WebServer

TOKEN = "4b1d-token-of-the-tests-0f7e"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def cookie(self) -> str:
        """``name=value`` of the cookie that it sets."""
        return self.headers["set-cookie"].partition(";")[0]


class Web:
    """The web server of a bench's service."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.tls: ssl.SSLContext | None = None
        self.server: WebServer | None = None

    def start(
        self,
        *,
        token: str | None = TOKEN,
        introspect: dict[str, Any] | None = None,
        also: Sequence[Callable[[Service], Endpoint]] = (),
        **changes: Any,
    ) -> None:
        """Start the bench's service with it, and with other endpoints; ``token`` may be ``None``."""

        def make(service: Service) -> WebServer:
            self.server = WebServer(service)
            return self.server

        given = {} if token is None else {"introspect_token": Secret(token)}
        self.bench.start(endpoints=(make, *also), introspect={**given, **(introspect or {})}, **changes)

    @property
    def address(self) -> tuple[str, int]:
        assert self.server is not None
        parts = urlsplit(self.server.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return "localhost" if parts.hostname == "0.0.0.0" else parts.hostname, parts.port

    @property
    def origin(self) -> str:
        assert self.server is not None
        return self.server.url

    def ask(
        self, method: str, path: str, body: Any = None, *, bearer: str | None = None, **headers: str | None
    ) -> Answer:
        """One request. ``headers``: ``Sec_Fetch_Site="same-origin"``; ``Host=None`` leaves it out."""
        sent: dict[str, str | None] = {"Host": f"{self.address[0]}:{self.address[1]}"}
        if bearer is not None:
            sent["Authorization"] = f"Bearer {bearer}"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = self.connection()
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            if raw is not None:
                connection.putheader("Content-Length", str(len(raw)))
            connection.endheaders(raw)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def connection(self) -> http.client.HTTPConnection:
        host, port = self.address
        if self.tls is None:
            return http.client.HTTPConnection(host, port, timeout=30)
        return http.client.HTTPSConnection(host, port, timeout=30, context=self.tls)

    def log_in(self, token: str = TOKEN) -> Answer:
        """As a browser sends the form."""
        return self.ask(
            "POST",
            "/login",
            f"token={token}".encode(),
            Content_Type="application/x-www-form-urlencoded",
            Origin=self.origin,
            Sec_Fetch_Site="same-origin",
        )


@pytest.fixture
def web(make_bench: Callable[..., Bench]) -> Web:
    """Not started; of a vCenter with one host, which is enough to have something to change."""
    return Web(make_bench(hosts=1, clusters=1))
