# SPDX-License-Identifier: Apache-2.0
"""Asks a vRouter agent, at its introspect, whether it works.

The page is Contrail's ``NodeStatus`` (``/Snh_SandeshUVECacheReq?x=NodeStatus`` on port 8085): each process has a
``state`` of "Functional" or "Non-Functional". What answers is inside a guest and is not trusted: the answer is
bounded, and parsed without entities or network.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass

import gevent

from vcenter_eam_plugin.domain.health import NOT_INSTALLED

PORT = 8085
"""Introspect of contrail-vrouter-agent."""
PATH = "/Snh_SandeshUVECacheReq?x=NodeStatus"
PROBE_TIMEOUT = 3.0
"""Seconds for the whole probe; an agent on the same network answers in milliseconds."""
MOST_BYTES = 1 << 20
MOST_WORDS = 200
"""Characters of a guest's own text that are passed on."""
AGENT_MODULE = "contrail-vrouter-agent"
FUNCTIONAL = "Functional"


@dataclass(frozen=True, slots=True)
class Probed:
    """``reason`` says why it is not healthy."""

    healthy: bool
    reason: str = ""


def probe(ip: str, port: int = PORT) -> Probed:
    """Ask once. Never raises: whatever goes wrong is an answer."""
    try:
        with gevent.Timeout(PROBE_TIMEOUT):
            return _judge(_fetch(ip, port))
    except ConnectionRefusedError:
        return Probed(False, NOT_INSTALLED)
    except gevent.Timeout:
        return Probed(False, f"the vRouter agent at {ip} did not answer within {PROBE_TIMEOUT:g} s")
    except (
        OSError,
        ValueError,
        http.client.HTTPException,
    ) as exc:  # ValueError: what the guest calls its address is none
        return Probed(
            False, f"the vRouter agent at {_short(ip)} cannot be reached: {_short(str(exc)) or type(exc).__name__}"
        )


def _fetch(ip: str, port: int) -> bytes:
    connection = http.client.HTTPConnection(ip, port, timeout=PROBE_TIMEOUT)
    try:
        connection.request("GET", PATH)
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES)
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"HTTP status {answer.status}")
        return body
    finally:
        connection.close()


def _judge(body: bytes) -> Probed:
    # Here alone: 4 MiB that a daemon without the health gate never needs.
    from lxml import etree  # noqa: PLC0415

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError:
        return Probed(False, "the vRouter agent's introspect answers something else than NodeStatus")
    for process in root.iter("ProcessStatus"):
        if process.findtext("module_id") == AGENT_MODULE:
            state = process.findtext("state") or "unknown"
            if state == FUNCTIONAL:
                return Probed(True)
            detail = process.findtext("description") or "no reason given"
            return Probed(False, f"the vRouter agent is {_short(state)}: {_short(detail)}")
    return Probed(False, f"NodeStatus does not name {AGENT_MODULE}")


def _short(text: str) -> str:
    """What a guest says goes into logs and onto the bus: in one line, and not a megabyte of it."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_WORDS else f"{line[:MOST_WORDS]}..."
