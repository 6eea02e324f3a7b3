# SPDX-License-Identifier: Apache-2.0
"""The JSON API: whatever is asked, an answer or an error object with a status of the asker's; never "unexpected".

And the other way round: what the commands of ``vcenter-eam`` do with a service that answers nonsense.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent.server import StreamServer
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.generate import damaged, fewer, in_time, one_sentence
from tests.support.simulator import wait_for
from vcenter_eam_plugin.cli.api import SOCKET, Api
from vcenter_eam_plugin.config import Configuration, DefaultsConfig, EamConfig, Mode, VCenterConfig, VCenterUnit
from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.domain.requests import Operation
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.simulator.server import Simulator
from vcenter_eam_plugin.web import control
from vcenter_eam_plugin.web.app import PEER, create_app
from vcenter_eam_plugin.web.control import ControlSocket

GETS = ("/api/v1/status", "/api/v1/hosts", "/api/v1/scope", "/api/v1/upgrades", "/api/v1/plan")
POSTS = ("/api/v1/preview", "/api/v1/apply", "/api/v1/activate", "/api/v1/pause")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that observes a simulated vCenter: two vCenters by name, of which one cannot be reached."""
    simulator = Simulator()
    simulator.start()
    directory = tmp_path_factory.mktemp("service")
    login = VCenterConfig(
        vc_host=simulator.host,
        vc_port=simulator.port,
        vc_username=simulator.user,
        vc_password=Secret(simulator.password),
        vc_ca_certs=Path(simulator.ca_file),
        vc_wait_seconds=5,
    )
    nowhere = VCenterConfig(vc_host="127.0.0.1", vc_port=1, vc_username="u", vc_password=Secret("p"))
    eam = EamConfig(mode=Mode.OBSERVE, clusters=("ClusterA",))
    made = Service(
        Configuration(
            defaults=DefaultsConfig(state_directory=directory / "state"),
            vcenters=(VCenterUnit("one", login, eam), VCenterUnit("two", nowhere, eam)),
        ),
        endpoints=(ControlSocket,),
    )
    made.start()
    wait_for(lambda: made.units[0].pipeline is not None and made.units[0].pipeline.fleet.given_out, 20, "connected")
    yield made
    made.stop()
    simulator.stop()


@pytest.fixture(scope="module")
def client(service: Service) -> Any:
    client = create_app(service).test_client()
    client.environ_base[PEER] = "somebody"
    return client


def check(status: int, body: bytes, log: pytest.LogCaptureFixture | None = None) -> None:
    """An answer, or the error object."""
    assert status < 500 or status == 503, (status, body[:500])
    if status >= 300:
        assert status >= 400
        error = json.loads(body)["error"]
        assert set(error) >= {"kind", "message", "remedy", "exit_code"}
        assert 0 < len(error["message"]) < 9000
        assert "Traceback" not in error["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TEXTS = st.sampled_from(
    ["", "one", "two", "nobody", "\ud800", "\0", "x" * 5000, "../..", "ClusterA", "a\nb", "\u202e", "%s"]
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "operation": st.sampled_from([each.value for each in Operation]) | JSON,
        "vcenter": TEXTS | JSON,
        "target": TEXTS | st.text(max_size=20) | JSON,
        "everything": st.booleans() | JSON,
        "at_once": st.booleans() | JSON,
        "digest": TEXTS | JSON,
        "acknowledge": TEXTS | JSON,
        "nonsense": JSON,
    },
)
GOOD = json.dumps({"operation": "resolve", "vcenter": "one", "target": "esx-1", "everything": False}).encode()


@given(path=st.sampled_from(POSTS), asked=REQUESTS)
@example(path="/api/v1/preview", asked={"operation": "resolve", "target": "\ud800"})
@example(path="/api/v1/pause", asked={"vcenter": "\ud800"})
@example(path="/api/v1/preview", asked={"operation": "resolve", "vcenter": "x" * 50_000})
def test_any_request(client: Any, path: str, asked: dict[str, Any]) -> None:
    with in_time(asked):
        answer = client.post(path, data=json.dumps(asked))
        check(answer.status_code, answer.get_data())


@given(
    path=st.sampled_from(POSTS), body=damaged(GOOD, telling=(b"\\ud800", b"\\u0000", b"1e999")) | st.binary(max_size=50)
)
@example(path="/api/v1/preview", body=b'{"vcenter":"\xff"}')
@example(path="/api/v1/pause", body=b"[" * 60_000)
@example(path="/api/v1/pause", body=b'{"x":' * 10_000)
@example(path="/api/v1/pause", body=b"x" * 100_000)
@example(path="/api/v1/pause", body=b"\xef\xbb\xbf{}")
def test_any_body(client: Any, path: str, body: bytes) -> None:
    with in_time(body):
        answer = client.post(path, data=body)
        check(answer.status_code, answer.get_data())


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONSENSE", "PATCH"]),
    path=st.sampled_from(
        [*GETS, *POSTS, "", "/", "/v1", "//api/v1/apply", "/api/v1/status/", "/api/../v1", "/static/x"]
    )
    | st.text(st.characters(codec="utf-8", exclude_characters="?#"), max_size=20).map(lambda text: f"/{text}"),
    query=st.dictionaries(
        st.sampled_from(["vcenter", "x", ""]), TEXTS.filter(str.isascii) | st.text(max_size=8), max_size=2
    ),
)
@example(method="POST", path="//api/v1/apply", query={})
@example(method="GET", path="/api/v1/plan", query={"vcenter": "\ud800".encode("utf-8", "replace").decode()})
def test_any_path(client: Any, method: str, path: str, query: dict[str, str]) -> None:
    with in_time(path):
        answer = client.open(path, method=method, query_string=query)
        if method not in ("HEAD", "OPTIONS"):
            check(answer.status_code, answer.get_data())


# --- on the socket -------------------------------------------------------------------------------------

REQUEST = (
    b"POST /api/v1/preview HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
)
SEEDS = (
    REQUEST % (len(GOOD), GOOD),
    b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /api/v1/pause HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
)
TELLING = (
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999\r\n", b"HTTP/0.9",
    b"HTTP/9.9", b"Host: \xff\r\n", b"X: y\r\n" * 150, b"X: " + b"y" * 9000 + b"\r\n", b" : \r\n",
    b"ffffffff\r\n", b"zz\r\n", b"%00",
    b"%ff", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"vcenter=%ed%a0%80",
)  # fmt: skip


def talk(path: Path, sent: bytes) -> bytes:
    """Everything that the socket answers to these bytes."""
    with socket.socket(socket.AF_UNIX) as sock, control.short_path(path) as short:
        sock.settimeout(20)
        sock.connect(short)
        answered = b""
        try:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65536):
                answered += piece
        except (BrokenPipeError, ConnectionResetError):
            pass  # it hung up on us, which is an answer
        return answered


@fewer(0.8)
@given(sent=damaged(*SEEDS, telling=TELLING))
@example(sent=SEEDS[0].replace(b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 200 + b"\r\n"))
@example(sent=SEEDS[2] + b"\r\n2\r\n{}\r\n0\r\n\r\n")
@example(sent=SEEDS[2].replace(b"chunked", b"chunked\r\x0b") + b"\r\n\r\n2\r\n{}\r\n")
@example(sent=SEEDS[1].replace(b"HTTP/1.1", b"HTTP/1"))
@example(sent=SEEDS[2].replace(b"2\r\n", b"zz\r\n"))
@example(sent=SEEDS[2][:-5])
@example(sent=SEEDS[0][:-10])
def test_any_bytes_on_the_socket(service: Service, capfd: pytest.CaptureFixture[str], sent: bytes) -> None:
    """Statuses below 500, no traceback on stderr, and the next command is served."""
    capfd.readouterr()
    path = service.configuration.defaults.state_directory / control.NAME
    with in_time(sent):
        answered = talk(path, sent)
    for status in http_statuses(answered):
        assert status < 500 or status == 503, answered[:500]
    assert "Traceback" not in capfd.readouterr().err
    assert Api(path.parent).get("/api/v1/status")["vcenters"]


def http_statuses(answered: bytes) -> list[int]:
    return [int(line[9:12]) for line in answered.split(b"\r\n") if line[:7] == b"HTTP/1." and line[9:12].isdigit()]


# --- a service that answers nonsense -------------------------------------------------------------------

ANSWERS = tuple(
    b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    for status, body in (
        (b"200 OK", b'{"vcenters":[]}'),
        (
            b"409 Conflict",
            b'{"error":{"kind":"PlanChanged","message":"m","remedy":"r","exit_code":12,"preview":{"a":1}}}',
        ),
        (b"404 Not Found", b'{"error":{"kind":"UnknownTarget","message":"m","remedy":"","exit_code":14}}'),
    )
)
WORDS = (
    b"Transfer-Encoding: chunked\r\n",
    b"null",
    b"[]",
    b'"PluginError"',
    b'"Mapping"',
    b'"ClassVar"',
    b"7",
    b"[" * 99_999,
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Callable[[bytes], None]]]:
    """A state directory whose socket answers what it is told."""
    directory = tmp_path_factory.mktemp("hostile")
    said = [b""]

    def serve(sock: Any, _address: Any) -> None:
        with sock:
            sock.recv(65536)
            with contextlib.suppress(OSError):  # it had heard enough
                sock.sendall(said[0])

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / SOCKET))
    listener.listen()
    server = StreamServer(listener, serve)
    server.start()
    yield directory, lambda answer: said.__setitem__(0, answer)
    server.stop()


@given(answer=damaged(*ANSWERS, telling=WORDS) | st.binary(max_size=60))
@example(answer=ANSWERS[1].replace(b'{"a":1}', b"[1]    "))
@example(answer=ANSWERS[1].replace(b'"PlanChanged"', b'["Mapping"]  '))
@example(answer=b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000)
@example(answer=b"HTTP/1.1 200 OK\r\n\r\n" + b"1" * 10_000)
def test_a_service_that_answers_nonsense(hostile: tuple[Path, Callable[[bytes], None]], answer: bytes) -> None:
    """The command line ends with a sentence, and not with a traceback."""
    directory, say = hostile
    say(answer)
    api = Api(directory)
    for ask in (lambda: api.get("/api/v1/status"), lambda: list(api.follow("/api/v1/apply", {}))):
        with in_time(answer):
            try:
                ask()
            except PluginError as exc:
                one_sentence(exc)
