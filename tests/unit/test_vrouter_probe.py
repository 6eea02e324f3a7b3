# SPDX-License-Identifier: Apache-2.0
"""S12: a vRouter agent is asked over HTTP; it is inside a guest, so whatever it answers must do no harm."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.server import StreamServer

from tests.support.rabbit import free_port
from vcenter_eam_plugin import vrouter_probe
from vcenter_eam_plugin.domain.health import NOT_INSTALLED
from vcenter_eam_plugin.simulator.vrouter import node_status
from vcenter_eam_plugin.vrouter_probe import MOST_BYTES, MOST_WORDS, PATH, Probed, probe

LOOPBACK = "127.0.0.1"
Serve = Callable[[Callable[[socket.socket], None]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(handle)`` gives the port of a server that reads a request and leaves the rest to ``handle``."""
    servers: list[StreamServer] = []

    def start(handle: Callable[[socket.socket], None]) -> int:
        def handled(connection: socket.socket, _: object) -> None:
            with connection:
                connection.recv(4096)
                with contextlib.suppress(OSError):  # the probe had enough
                    handle(connection)

        server = StreamServer((LOOPBACK, 0), handled)
        server.start()
        servers.append(server)
        return int(server.server_port)

    yield start
    for server in servers:
        server.stop(timeout=0)


def page(body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + body)


def test_functional_is_healthy_and_it_was_asked_for_node_status(serve: Serve) -> None:
    """S12: what a real agent answers, at the page that Contrail has for it."""
    asked: list[bytes] = []
    server = StreamServer(
        (LOOPBACK, 0), lambda connection, _: asked.append(connection.recv(4096)) or connection.close()
    )
    server.start()
    probe(LOOPBACK, server.server_port)
    server.stop(timeout=0)
    assert asked[0].startswith(f"GET {PATH} HTTP/1.1\r\n".encode())
    assert probe(LOOPBACK, serve(page(node_status("vrouter-1", "Functional")))) == Probed(True)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            node_status("v", "Non-Functional", "No BGP peer"),
            "the vRouter agent is Non-Functional: No BGP peer",
        ),
        (node_status("v", "Non-Functional"), "the vRouter agent is Non-Functional: no reason given"),
        (node_status("v", ""), "the vRouter agent is unknown: no reason given"),
        (
            node_status("v", "Functional").replace(b"contrail-vrouter-agent", b"contrail-control"),
            "NodeStatus does not name contrail-vrouter-agent",
        ),
        (b"<__NodeStatusUVE_list/>", "NodeStatus does not name contrail-vrouter-agent"),
        (b"", "answers something else than NodeStatus"),
        (b"\x00\xff garbage \xfe", "answers something else than NodeStatus"),
        (b"<html><body>Functional", "answers something else than NodeStatus"),
        (node_status("v", "Functional")[:-40], "answers something else than NodeStatus"),
        (b"<a>" * 5000 + b"</a>" * 5000, "answers something else than NodeStatus"),
        (b'<?xml version="1.0" encoding="no-such"?><a/>', "answers something else than NodeStatus"),
    ],
)
def test_everything_else_is_not(serve: Serve, body: bytes, reason: str) -> None:
    """S12: never an exception, and a reason that a person can use."""
    seen = probe(LOOPBACK, serve(page(body)))
    assert not seen.healthy
    assert reason in seen.reason


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "302 Found\r\nLocation: /elsewhere"])
def test_another_status_is_not_healthy(serve: Serve, status: str) -> None:
    """S12: nor is it followed to where a guest would like us to go."""
    seen = probe(LOOPBACK, serve(page(node_status("v", "Functional"), status)))
    assert not seen.healthy
    assert f"HTTP status {status[:3]}" in seen.reason


def test_nothing_installed_is_said_so() -> None:
    """S20: the guest runs, and nothing listens where the agent would."""
    assert probe(LOOPBACK, free_port()) == Probed(False, NOT_INSTALLED)


@pytest.mark.parametrize("drip", [False, True], ids=["silent", "a byte at a time"])
def test_a_slow_one_is_given_up_in_time(serve: Serve, monkeypatch: pytest.MonkeyPatch, drip: bool) -> None:
    """S12: the whole probe has a deadline, not each read of it."""
    monkeypatch.setattr(vrouter_probe, "PROBE_TIMEOUT", 0.4)

    def slow(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while drip:
            connection.sendall(b"<")
            gevent.sleep(0.05)
        gevent.sleep(30)

    port = serve(slow)
    began = time.monotonic()
    seen = probe(LOOPBACK, port)
    assert time.monotonic() - began < 3
    assert seen == Probed(False, f"the vRouter agent at {LOOPBACK} did not answer within 0.4 s")


def test_one_that_hangs_up_is_not_healthy(serve: Serve) -> None:
    """S12: closed without a word, and in the middle of one."""
    seen = probe(LOOPBACK, serve(lambda connection: None))
    assert not seen.healthy
    assert seen.reason.startswith(f"the vRouter agent at {LOOPBACK} cannot be reached: ")
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + node_status("v", "Functional")[:-100]
    assert not probe(LOOPBACK, serve(lambda connection: connection.sendall(short))).healthy


def test_a_huge_answer_is_read_up_to_a_bound(serve: Serve) -> None:
    """S12: a guest cannot fill our memory; what is cut off is no NodeStatus."""
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n<a>")
        while sent < 200 * MOST_BYTES:
            sent += connection.send(b"x" * 65536)

    seen = probe(LOOPBACK, serve(endless))
    assert not seen.healthy
    assert sent < 20 * MOST_BYTES, "what the sockets buffer"


HOSTILE = b"""<?xml version="1.0"?><!DOCTYPE x [
<!ENTITY file SYSTEM "file:///etc/passwd"><!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">
<!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;"><!ENTITY f "&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;">
<!ENTITY ok "Functional">]>
<x><ProcessStatus><module_id>contrail-vrouter-agent</module_id><state>%s</state>
<description>%s</description></ProcessStatus></x>"""


@pytest.mark.parametrize(
    ("state", "text"), [(b"no", b"&file;"), (b"no", b"&f;&f;&f;"), (b"&ok;", b""), (b"&file;", b"")]
)
def test_entities_are_never_expanded(serve: Serve, state: bytes, text: bytes) -> None:
    """S12: no file of ours, no explosion, and no health by a trick."""
    seen = probe(LOOPBACK, serve(page(HOSTILE % (state, text))))
    assert not seen.healthy
    assert "root:" not in seen.reason
    assert "haha" not in seen.reason


def test_nothing_is_fetched_that_the_answer_names(serve: Serve) -> None:
    """S12: an external DTD stays where it is."""
    fetched: list[int] = []
    other = serve(lambda connection: fetched.append(1))
    body = f'<!DOCTYPE x SYSTEM "http://{LOOPBACK}:{other}/x.dtd">'.encode() + node_status("v", "Functional")[22:]
    probe(LOOPBACK, serve(page(body)))
    assert fetched == []


def test_what_the_guest_says_of_itself_is_short_and_one_line(serve: Serve) -> None:
    """Bug: a description of a megabyte, with line breaks, went into the state's reason, to the log and onto the bus."""
    seen = probe(LOOPBACK, serve(page(node_status("v", "Non-Functional", "forged\nline " + "x" * 100_000))))
    assert "\n" not in seen.reason
    assert len(seen.reason) < MOST_WORDS + 100
    assert "forged line" in seen.reason


@pytest.mark.parametrize(
    "address", ["x" * 70 + ".example", "a..b", "no such host", "\x00", "1.2.3.4\r\nHost: x", "fe80::1", ""]
)
def test_an_address_that_is_none_is_an_answer_too(address: str) -> None:
    """Bug: what a guest calls its address may not even be a host name; a UnicodeError ended the worker."""
    seen = probe(address, free_port())
    assert not seen.healthy
    assert seen.reason
