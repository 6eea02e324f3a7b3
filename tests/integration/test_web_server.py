# SPDX-License-Identifier: Apache-2.0
"""The web server: who may do what over the network, and what a peer can cost us. Real sockets, TLS and requests."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from pathlib import Path

import gevent
import pytest

from tests.support.ovf import write_certificate
from tests.support.simulator import wait_for
from tests.support.web import TOKEN, Answer, Web
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.web import server
from vcenter_eam_plugin.web.app import MAX_BODY

READS = ("/api/v1/status", "/api/v1/hosts", "/api/v1/scope", "/api/v1/upgrades", "/api/v1/session", "/")
READS += ("/api/v1/issues", "/api/v1/greenlets", "/api/v1/openapi.json", "/metrics")
CHANGES = ("/api/v1/preview", "/api/v1/apply", "/api/v1/activate", "/api/v1/pause", "/logout")


@pytest.fixture
def quiet(web: Web) -> Web:
    """Running, observing: nothing changes by itself."""
    web.start(mode=Mode.OBSERVE)
    return web


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_certificate(tmp_path / "tls", "web", "localhost")


@pytest.fixture
def exposed(web: Web, pair: tuple[Path, Path]) -> Web:
    """As others reach it: on every address, with TLS. The client trusts the certificate, and connects to localhost."""
    certificate, key = pair
    web.tls = ssl.create_default_context(cafile=str(certificate.with_suffix(".ca")))
    web.start(
        mode=Mode.OBSERVE,
        introspect={
            "http_server_ip": "0.0.0.0",
            "introspect_ssl_certfile": certificate,
            "introspect_ssl_keyfile": key,
            "introspect_names": ("eam.example",),
        },
    )
    return web


def mode(web: Web) -> str:
    return str(web.bench.unit.status()["mode"])


def audit(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.endswith(".audit")]


# --- who may ------------------------------------------------------------------------------------------------------


def test_by_default_it_is_for_this_machine_which_may_read_and_change_nothing(web: Web) -> None:
    """Issue 4: loopback by default; without a token nothing can be changed over the network, and it says so."""
    web.start(token=None)
    assert web.address[0] == "127.0.0.1"
    assert web.ask("GET", "/healthz").json() == {"alive": True}
    assert [web.ask("GET", path).status for path in READS] == [200] * len(READS)
    assert web.ask("GET", "/api/v1/status").json()["vcenters"][0]["name"] == "test"
    refused = web.ask("POST", "/api/v1/pause", {})
    assert refused.status == 403
    assert "vcenter-eam on the machine" in refused.json()["error"]["remedy"]
    assert mode(web) == "act"
    for empty in ("", "none"):
        assert web.ask("POST", "/api/v1/pause", {}, bearer=empty).status == 401
        assert web.log_in(empty).status == 401
    assert mode(web) == "act"


def test_the_token_allows_what_changes_and_the_audit_says_who(quiet: Web, caplog: pytest.LogCaptureFixture) -> None:
    """Issue 4: a token for anything that changes; the audit line tells how it was shown and from where."""
    with caplog.at_level(logging.WARNING):
        assert [quiet.ask("POST", path, {}).status for path in CHANGES] == [401] * len(CHANGES)
        assert quiet.ask("POST", "/api/v1/activate", {}, bearer=TOKEN[:-1] + "x").status == 401
        assert mode(quiet) == "observe"
        assert audit(caplog) == []
        assert quiet.ask("POST", "/api/v1/activate", {}, bearer=TOKEN).status == 200
    assert mode(quiet) == "act"
    assert audit(caplog) == ["token, from 127.0.0.1 told test to activate."]


def test_whoever_shows_a_wrong_token_is_refused_even_what_is_free(quiet: Web) -> None:
    """A client whose token went out of date should hear of it, and not look as if all were well."""
    assert quiet.ask("GET", "/api/v1/status", bearer="wrong").status == 401
    assert quiet.ask("GET", "/api/v1/status", Authorization=f"Basic {TOKEN}").status == 401
    assert quiet.ask("GET", "/api/v1/status", bearer=TOKEN).status == 200


def test_where_others_reach_it_reading_needs_the_token_too(exposed: Web) -> None:
    """ADR 0026: only whether the process answers, and the login, are for everybody."""
    assert exposed.ask("GET", "/healthz").status == 200
    assert exposed.ask("GET", "/login").status == 200
    assert exposed.ask("GET", "/readyz").status in (200, 503)
    for path in (*READS, "/api/v1/nothing"):
        assert exposed.ask("GET", path).status == 401, path
        shown = exposed.ask("GET", path, bearer=TOKEN)
        assert shown.status == (404 if path.endswith("nothing") else 200)
    page = exposed.ask("GET", "/", Accept="text/html,*/*;q=0.8")
    assert (page.status, page.headers["location"]) == (303, "/login")


def test_a_token_file_that_changes_counts_at_once_and_an_empty_one_lets_nobody_in(web: Web, tmp_path: Path) -> None:
    """Rotation; and the trap of an empty secret, which would equal an empty header."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n", "utf-8")
    web.start(token=None, introspect={"introspect_token": Secret(file=file)}, mode=Mode.OBSERVE)
    cookie = web.log_in().cookie
    assert web.ask("GET", "/api/v1/session", Cookie=cookie).json()["may_change"] is True
    file.write_text("another-token-of-the-tests\n", "utf-8")
    assert web.ask("POST", "/api/v1/pause", {}, bearer=TOKEN).status == 401
    assert web.ask("GET", "/api/v1/session", Cookie=cookie).json()["may_change"] is False, "the session outlived it"
    assert web.ask("POST", "/api/v1/pause", {}, bearer="another-token-of-the-tests").status == 200
    file.write_text("", "utf-8")
    assert web.ask("POST", "/api/v1/pause", {}, Authorization="Bearer ").status == 401
    assert web.log_in("").status == 401
    file.unlink()
    gone = web.ask("POST", "/api/v1/pause", {}, bearer=TOKEN)
    assert gone.status == 503
    assert str(file) not in gone.body.decode()


# --- browsers -----------------------------------------------------------------------------------------------------


def test_a_browser_logs_in_and_out_and_changes_things_in_between(quiet: Web, caplog: pytest.LogCaptureFixture) -> None:
    """Issue 4: a strict, script-proof cookie for the token, a second secret against forgery, and an end to it."""
    form = quiet.ask("GET", "/login")
    assert form.status == 200
    assert b'type="password"' in form.body
    entered = quiet.log_in()
    assert (entered.status, entered.headers["location"]) == (303, "/")
    attributes = {part.strip() for part in entered.headers["set-cookie"].split(";")[1:]}
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= attributes
    assert not any(part.startswith(("Domain", "Max-Age", "Expires")) for part in attributes)
    cookie = entered.cookie
    assert cookie.startswith(f"vcenter_eam_{quiet.address[1]}=")
    about = quiet.ask("GET", "/api/v1/session", Cookie=cookie).json()
    assert about["may_change"] is True
    with caplog.at_level(logging.WARNING):
        for forged in (None, "", "x", cookie.partition("=")[2]):
            assert quiet.ask("POST", "/api/v1/activate", {}, Cookie=cookie, X_CSRF_Token=forged).status == 403
        assert mode(quiet) == "observe"
        own = {"Cookie": cookie, "X_CSRF_Token": about["csrf"], "Origin": quiet.origin, "Sec_Fetch_Site": "same-origin"}
        assert quiet.ask("POST", "/api/v1/activate", {}, **own).status == 200
    assert mode(quiet) == "act"
    (line,) = audit(caplog)
    assert re.fullmatch(r"session [0-9a-f]{8}, from 127\.0\.0\.1 told test to activate\.", line)
    page = quiet.ask("GET", "/", Cookie=cookie).body.decode()
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None
    left = quiet.ask(
        "POST",
        "/logout",
        f"csrf={found[1]}".encode(),
        Cookie=cookie,
        Content_Type="application/x-www-form-urlencoded",
        Origin=quiet.origin,
    )
    assert left.status == 303
    assert quiet.ask("POST", "/api/v1/pause", {}, **own).status == 401


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},  # another service of the same host
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # the same, as a browser calls it
        {"Origin": "http://127.0.0.1:{port}.evil.example"},
    ],
)
@pytest.mark.parametrize("how", ["session", "bearer", "login"])
def test_a_page_of_somebody_else_changes_nothing(quiet: Web, foreign: dict[str, str], how: str) -> None:
    """Issue 4: safe against CSRF, even for a page that got hold of all else."""
    cookie = quiet.log_in().cookie
    csrf = quiet.ask("GET", "/api/v1/session", Cookie=cookie).json()["csrf"]
    headers = {name: value.replace("{port}", str(quiet.address[1])) for name, value in foreign.items()}
    if how == "session":
        answer = quiet.ask("POST", "/api/v1/activate", {}, Cookie=cookie, X_CSRF_Token=csrf, **headers)
    elif how == "bearer":
        answer = quiet.ask("POST", "/api/v1/activate", {}, bearer=TOKEN, **headers)
    else:
        answer = quiet.ask("POST", "/login", f"token={TOKEN}".encode(), **headers)
        assert "set-cookie" not in answer.headers
    assert answer.status == 403
    assert mode(quiet) == "observe"


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:8115", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "localhost/",
     "localhost:x", "[::1", "localhost evil.example"],
)  # fmt: skip
def test_a_name_that_is_not_ours_is_refused(quiet: Web, host: str | None) -> None:
    """DNS rebinding: a foreign name that resolves to us must not make a visitor's browser read for its page."""
    for bearer in (None, TOKEN):
        assert quiet.ask("GET", "/api/v1/hosts", bearer=bearer, Host=host).status == 421


def test_addresses_localhost_and_listed_names_are_ours(exposed: Web) -> None:
    port = exposed.address[1]
    for host in (f"localhost:{port}", "LOCALHOST", "127.0.0.1", f"[::1]:{port}", "192.0.2.7", "EAM.example:443"):
        assert exposed.ask("GET", "/healthz", Host=host).status == 200, host
    assert exposed.ask("GET", "/healthz", Host="other.example").status == 421


def test_two_hosts_in_one_request_are_refused(quiet: Web) -> None:
    raw = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert said(quiet, raw).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("path", ["/healthz", "/", "/login", "/api/v1/status", "/api/v1/nothing"])
def test_every_answer_tells_browsers_to_keep_frame_and_run_nothing(exposed: Web, path: str) -> None:
    """Issue 4: also on errors and redirections; and no page has anything inline that the policy would stop."""
    for bearer in (None, TOKEN):
        answer = exposed.ask("GET", path, bearer=bearer)
        policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "max-age" in answer.headers["strict-transport-security"]
        assert "access-control-allow-origin" not in answer.headers
        assert not re.search(rb"<script(?! src=\"/static/)|<style|style=| on[a-z]+=|javascript:", answer.body)


def test_the_cookie_of_a_server_with_tls_is_for_tls_alone(exposed: Web) -> None:
    port = exposed.address[1]
    exposed_origin = f"https://localhost:{port}"
    entered = exposed.ask("POST", "/login", f"token={TOKEN}".encode(), Host=f"localhost:{port}", Origin=exposed_origin,
                          Content_Type="application/x-www-form-urlencoded")  # fmt: skip
    assert entered.status == 303
    assert "Secure" in entered.headers["set-cookie"]
    assert entered.cookie.startswith("__Host-")
    assert exposed.ask("GET", "/api/v1/status", Cookie=entered.cookie).status == 200


def test_style_and_script_are_for_everybody_and_nothing_else_is(exposed: Web) -> None:
    """The login has a style, too; what is below it in the file system is nobody's."""
    for name in ("page.css", "page.js", "icon.svg"):
        answer = exposed.ask("GET", f"/static/{name}")
        assert answer.status == 200
        assert "unsafe" not in answer.headers["content-security-policy"]
    for path in ("/static/../page.py", "/static/..%2fpage.py", "/static/%2e%2e/page.py"):
        assert exposed.ask("GET", path).status in (401, 404), path
        assert exposed.ask("GET", path, bearer=TOKEN).status == 404, path
    assert exposed.ask("POST", "/static/page.css", {}).status == 401
    for path in ("/", "/issues", "/plan", "/delivery", "/api/v1/stream", "/preview?operation=apply"):
        assert exposed.ask("GET", path).status == 401, path


# --- secrets ------------------------------------------------------------------------------------------------------


def test_neither_token_nor_cookie_nor_csrf_stands_in_any_answer_url_or_log_line(
    quiet: Web, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 4: nothing secret in URLs, and what somebody put there all the same is not logged."""
    with caplog.at_level(logging.DEBUG):
        cookie = quiet.log_in().cookie
        secret = cookie.partition("=")[2]
        answers: list[Answer] = [quiet.ask("GET", path, Cookie=cookie) for path in ("/", "/api/v1/status", "/login")]
        quiet.ask("GET", f"/api/v1/status?token={TOKEN}")
        quiet.ask("POST", "/api/v1/pause", {}, bearer="wrong" + TOKEN)
        quiet.ask("POST", "/api/v1/pause", {"vcenter": TOKEN}, bearer=TOKEN)
        said(quiet, f"{TOKEN}\r\n\r\n".encode())
        said(quiet, f"GET / HTTP/9 {TOKEN}\r\n\r\n".encode())
    for answer in answers:
        assert TOKEN.encode() not in answer.body
        assert secret.encode() not in answer.body
        assert TOKEN not in str(answer.headers)
    logged = [f"{record.getMessage()} {record.exc_text}" for record in caplog.records if ".web" in record.name]
    assert logged
    assert not [line for line in logged if TOKEN in line or secret in line]
    assert "***" in repr(quiet.bench.service.configuration.introspect)  # type: ignore[union-attr]


def test_guessing_is_slowed_by_address_and_the_right_token_waits_too(
    quiet: Web, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 4: brute force. Who is logged in is not thrown out by somebody who guesses."""
    cookie = quiet.log_in().cookie
    with caplog.at_level(logging.WARNING):
        answers = [quiet.ask("POST", "/api/v1/pause", {}, bearer=f"guess{n}") for n in range(8)]
    assert [answer.status for answer in answers[:5]] == [401] * 5
    assert 429 in [answer.status for answer in answers]
    refused = quiet.ask("POST", "/api/v1/pause", {}, bearer=TOKEN)
    if refused.status == 429:  # unless the machine was slow enough for the wait to be over
        assert int(refused.headers["retry-after"]) >= 1
        assert quiet.log_in().status == 429
    assert quiet.ask("GET", "/api/v1/status", Cookie=cookie).status == 200
    assert any("A wrong token was shown (bearer) from 127.0.0.1." in r.getMessage() for r in caplog.records)
    wait_for(
        lambda: quiet.ask("POST", "/api/v1/pause", {}, bearer=TOKEN).status == 200, what="the wait is over", seconds=20
    )


# --- what a peer can cost us ---------------------------------------------------------------------------------------


def said(web: Web, raw: bytes) -> bytes:
    """What is answered to these bytes, until the server hangs up."""
    with socket.create_connection(web.address, timeout=20) as peer:
        peer.sendall(raw)
        return heard(peer)


def heard(peer: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    text = b""
    try:
        while chunk := peer.recv(65536):
            text += chunk
    except ConnectionResetError:
        pass
    return text


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (f"POST /api/v1/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode(), 413),
        (b"POST /api/v1/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /api/v1/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 411),
        (b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\n{}", 411),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 4000 + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", 400),
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00 not http\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_what_is_too_large_or_not_understood_is_refused_before_it_is_read(quiet: Web, raw: bytes, status: int) -> None:
    """Issue 4: bounds of body, headers and line; two lengths are no request. The server goes on."""
    assert said(quiet, raw).startswith(f"HTTP/1.1 {status} ".encode())
    assert quiet.ask("GET", "/healthz").status == 200


def test_a_client_that_asks_first_may_send_its_body(quiet: Web) -> None:
    """curl sends Expect: 100-continue with larger bodies."""
    raw = (
        f"POST /api/v1/pause HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
        "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    with socket.create_connection(quiet.address, timeout=10) as peer:
        peer.sendall(raw.encode())
        assert peer.recv(100).startswith(b"HTTP/1.1 100 ")
        peer.sendall(b"{}")
        assert b"HTTP/1.1 200 " in peer.recv(1000)
    assert mode(quiet) in ("paused", "observe")


def test_one_connection_serves_several_requests(quiet: Web) -> None:
    connection = quiet.connection()
    for body in (b"{}", b'{"vcenter": "test"}', b"{}"):
        connection.request("POST", "/api/v1/pause", body, {"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"{}")
    connection.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits that a test can wait for."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(server, "MOST_AT_ONCE", 4)


def test_slow_and_silent_clients_are_dropped_so_that_others_get_their_turn(
    hasty: None, web: Web, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Issue 4: a bounded number of connections, each with a deadline that sending a byte now and then does not move."""
    web.start(mode=Mode.OBSERVE)
    begun = [
        b"",
        b"GET /heal",
        b"GET /healthz HTTP/1.1\r\nHost: local",
        b"POST /api/v1/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ]
    peers = [socket.create_connection(web.address, timeout=10) for _ in begun * 2]
    began = time.monotonic()
    for peer, text in zip(peers, begun * 2, strict=True):
        peer.sendall(text)

    def drip() -> None:
        while True:
            for peer, text in zip(peers, begun * 2, strict=True):
                gevent.sleep(0.05)
                try:
                    peer.sendall(b"a" if text else b"")
                except OSError:
                    return

    dripping = gevent.spawn(drip)
    try:
        assert web.ask("GET", "/healthz").status == 200
        assert time.monotonic() - began < 20
        assert [heard(peer) for peer in peers] == [b""] * len(peers)
    finally:
        dripping.kill()
        for peer in peers:
            peer.close()
    assert "Traceback" not in capfd.readouterr().err
    assert [r for r in caplog.records if r.levelno > logging.INFO and r.name.endswith(".web")] == []


def test_a_peer_that_speaks_no_tls_or_none_of_ours_is_let_go(hasty: None, exposed: Web) -> None:
    """Issue 4: TLS 1.2 at least; nobody who stays silent holds a connection for long."""
    host = ("127.0.0.1", exposed.address[1])
    assert b"200" not in said(exposed, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert said(exposed, b"") == b""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)), socket.create_connection(host, timeout=10) as raw:
        old.wrap_socket(raw)
    assert exposed.ask("GET", "/healthz").status == 200


# --- starting and stopping ------------------------------------------------------------------------------------------


def test_a_taken_port_is_an_alarm_until_it_is_free(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 4: the service runs on without it, and takes the port once it can."""
    monkeypatch.setattr(server, "RETRY_SECONDS", 0.1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        web.start(introspect={"introspect_port": port})
        web.bench.wait_until_active()
        assert f"127.0.0.1 port {port} cannot be had" in web.bench.alarms()["introspect"]
        assert web.origin == ""
    web.bench.wait_for(lambda: web.origin, "it is served")
    assert "introspect" not in web.bench.alarms()
    assert web.ask("GET", "/healthz").status == 200


def test_a_service_whose_port_stays_taken_stops_in_order(web: Web) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        web.start(introspect={"introspect_port": other.getsockname()[1]})
        web.bench.stop()


def test_without_an_address_nothing_is_served(web: Web) -> None:
    web.start(introspect={"http_server_ip": ""})
    assert web.origin == ""
    assert web.bench.alarms() == {}


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_it_serves_over_ipv6_too(web: Web) -> None:
    web.start(introspect={"http_server_ip": "::1"})
    assert web.ask("GET", "/healthz", Host=f"[::1]:{web.address[1]}").status == 200


def test_a_key_of_another_certificate_ends_the_start_with_a_sentence(web: Web, tmp_path: Path) -> None:
    one, two = (write_certificate(tmp_path, name)[index] for index, name in enumerate(("one", "two")))
    with pytest.raises(ConfigurationError, match=r"The web server cannot use .*introspect_ssl_keyfile"):
        web.start(introspect={"introspect_ssl_certfile": one, "introspect_ssl_keyfile": two})
    web.bench.service = None


def test_stopping_lets_go_of_the_port_and_of_whoever_is_connected(quiet: Web) -> None:
    where = quiet.address
    idle = socket.create_connection(where, timeout=10)
    idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert idle.recv(10) == b"HTTP/1.1 2"
    quiet.bench.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, timeout=2)
    assert heard(idle).endswith(b'{"alive":true}')
    idle.close()
