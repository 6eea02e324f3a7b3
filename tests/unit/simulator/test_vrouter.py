# SPDX-License-Identifier: Apache-2.0
"""Powered-on ContrailVMs answer as a vRouter agent's introspect does, each on an address of its own."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.unit.simulator.lab import Lab
from vcenter_eam_plugin.simulator.vrouter import VRouters


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.1.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def lab() -> Lab:
    return Lab(hosts=3, vrouter_net="127.1", vrouter_port=free_port())


@pytest.fixture
def vrouters(lab: Lab) -> Iterator[VRouters]:
    made = VRouters(lab.world)
    yield made
    made.close()


def ask(lab: Lab, address: str, path: str = "/Snh_SandeshUVECacheReq?x=NodeStatus") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, lab.knobs.vrouter_port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def state_of(body: bytes) -> Any:
    return ET.fromstring(body).findtext(".//ProcessStatus/state")


def test_each_vm_answers_on_its_own_address(lab: Lab, vrouters: VRouters) -> None:
    """Name and state as Contrail's agent gives them; the same port on every address."""
    agency = lab.deployed()
    lab.until(lambda: len(vrouters.listening) == 3)
    names = set()
    for agent in agency.agents.values():
        assert agent.vm is not None
        assert agent.vm.address is not None
        status, body = ask(lab, agent.vm.address)
        assert (status, state_of(body)) == (200, "Functional")
        names.add(ET.fromstring(body).findtext(".//NodeStatus/name"))
    assert len(names) == 3
    assert ask(lab, "127.1.0.1", "/")[0] == 404


def test_it_comes_and_goes_with_the_vm(lab: Lab, vrouters: VRouters) -> None:
    """Not before the guest is up, and not after it is off."""
    agency = lab.create()
    lab.until(lambda: agency.agents and lab.do.agent_vm(lab.host) is not None and lab.vm.on)
    assert vrouters.listening == ()
    with pytest.raises(ConnectionRefusedError):
        ask(lab, "127.1.0.1")
    lab.until(lambda: len(vrouters.listening) == 3)
    lab.do.power_off(lab.vm)
    lab.until(lambda: len(vrouters.listening) == 2)
    with pytest.raises(ConnectionRefusedError):
        ask(lab, "127.1.0.1")


def test_state_can_be_set(lab: Lab, vrouters: VRouters) -> None:
    """A vRouter agent that is not well says so itself."""
    lab.deployed()
    lab.until(lambda: len(vrouters.listening) == 3)
    vrouters.set_state(lab.vm, "Non-Functional", "Number of connections:1, Expected:2 & more")
    assert state_of(ask(lab, "127.1.0.1")[1]) == "Non-Functional"


def test_limit(lab: Lab, vrouters: VRouters) -> None:
    """At most so many sockets, however many hosts."""
    lab.knobs.vrouter_limit = 2
    lab.deployed()
    lab.settle()
    assert len(vrouters.listening) == 2


def test_taken_address_is_noted(lab: Lab, vrouters: VRouters) -> None:
    """Another simulator may have the address: that VM cannot be asked, the others can."""
    with socket.socket() as other:
        other.bind(("127.1.0.1", lab.knobs.vrouter_port))
        other.listen()
        lab.deployed()
        lab.settle()
    assert len(vrouters.listening) == 2
    assert [entry.fields["address"] for entry in lab.vcenter.journal if entry.kind == "vrouter"] == ["127.1.0.1"]
