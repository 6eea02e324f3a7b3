# SPDX-License-Identifier: Apache-2.0
"""Simulated vCenters for tests: a factory fixture, a plain pyVmomi client, and the check that nothing was left open."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import SoapStubAdapter, eam

from vcenter_eam_plugin.simulator.server import Simulator

MAX_SESSIONS = 3
"""More than one plugin and one operator need."""
EAM_VERSION = "eam.version.version9_0"


@pytest.fixture
def make_simulator() -> Iterator[Callable[..., Simulator]]:
    """``make_simulator(hosts=..., knobs=...)`` gives a started simulator; all are stopped at the end of the test.

    A simulator that failed in its own code fails the test that drove it there.
    """
    made: list[Simulator] = []

    def make(**kwargs: Any) -> Simulator:
        one = Simulator(**kwargs)
        one.start()
        made.append(one)
        return one

    yield make
    for one in made:
        one.stop()
    assert [error for one in made for error in one.errors] == []


@pytest.fixture
def simulator(make_simulator: Callable[..., Simulator]) -> Simulator:
    """A simulator of three hosts in two clusters."""
    return make_simulator()


@contextmanager
def connected(simulator: Simulator, user: str | None = None, password: str | None = None) -> Iterator[Any]:
    """A plain pyVmomi ``ServiceInstance``, logged in, with the simulator's CA verified; logged out at the end."""
    instance = SmartConnect(
        host=simulator.host,
        port=simulator.port,
        user=user or simulator.user,
        pwd=password or simulator.password,
        sslContext=ssl.create_default_context(cafile=str(simulator.ca_file)),
    )
    try:
        yield instance
    finally:
        Disconnect(instance)
        instance._stub.DropConnections()


def eam_manager(simulator: Simulator, instance: Any, version: str = EAM_VERSION) -> Any:
    """The EAM root object, with the session of a vCenter connection."""
    stub = SoapStubAdapter(
        host=simulator.host,
        port=simulator.port,
        path="/eam/sdk",
        version=version,
        sslContext=ssl.create_default_context(cafile=str(simulator.ca_file)),
        poolSize=0,
    )
    stub.cookie = instance._stub.cookie
    return eam.EsxAgentManager("EsxAgentManager", stub)


def wait_for(condition: Callable[[], Any], seconds: float = 10.0, what: str = "") -> Any:
    """The condition's first true value, asked every 10 ms; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what or condition}")
        gevent.sleep(0.01)


def assert_no_leaks(simulator: Simulator, *, sessions: int = MAX_SESSIONS, collectors: int = 0) -> None:
    """At most so many sessions and property collectors are open, and nothing failed inside the simulator."""
    assert simulator.errors == []
    opened = simulator.sessions.active
    assert len(opened) <= sessions, [f"{one.user_name} {one.agent}" for one in opened]
    found = simulator.collectors()
    assert len(found) <= collectors, [one.moid for one in found]
