# SPDX-License-Identifier: Apache-2.0
"""A start of the intake against a vCenter of recorded bytes (:mod:`benchmarks.replay`), in a process of its own.

*inventory*: from the first connection, through login, places, collector, filters, view and pages to the whole listing
of all hosts and agent VMs, proven complete; held against one ``RetrievePropertiesEx`` of the same properties of the
same objects by plain pyVmomi, on a connection that is open already. *agents*: the runtimes of all agents as facts, on
connections that are open; held against the same requests, made beforehand, over as many connections, whose answers are
read and not decoded.
"""

from __future__ import annotations

import gc
import http.client
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gevent.pool import Pool

from benchmarks.recorded import Recorded, agent_requests, by_pyvmomi, everything_read, pyvmomi_stub, recorded, settings
from benchmarks.replay import COOKIE, Replaying, replaying
from benchmarks.row import Effort, Row, at_most
from vcenter_eam_plugin.eam.client import READS_AT_ONCE, EamClient
from vcenter_eam_plugin.vsphere.session import Session


def measure(effort: Effort) -> Iterator[Row]:
    """Two rows a size."""
    for hosts in effort.sizes:
        found = recorded(hosts)
        with tempfile.TemporaryDirectory() as folder, replaying(found.record, Path(folder)) as server:
            yield _inventory(effort, hosts, found, server)
            yield _agents(effort, hosts, found, server)


def _inventory(effort: Effort, hosts: int, found: Recorded, server: Replaying) -> Row:
    asked = Session(settings(server.port, server.ca_file))
    asked.open()
    stub = pyvmomi_stub(server.port, server.ca_file, found.version, COOKIE)
    retrieve = by_pyvmomi(stub, asked.content)

    def ours() -> float:
        gc.collect()
        session = Session(settings(server.port, server.ca_file))
        began = time.perf_counter()
        session.open()
        logged_in = time.perf_counter()
        _, seconds = everything_read(session, found.scope, found.vms)
        assert not session.fallen_back, session.fallen_back
        session.drop_idle_connections()
        return logged_in - began + seconds

    def floor() -> float:
        gc.collect()
        began = time.perf_counter()
        result = retrieve()
        seconds = time.perf_counter() - began
        assert len(result.objects) == 2 * hosts
        return seconds

    value, alone, ratio = effort.paired(ours, floor)
    note = "floor: one RetrievePropertiesEx by pyVmomi"
    goal = effort.goal_at(hosts, at_most(0.6))
    return effort.row(
        "cold start, inventory", value, unit="s", floor=alone, ratio=ratio, hosts=hosts, goal=goal, note=note
    )


def _agents(effort: Effort, hosts: int, found: Recorded, server: Replaying) -> Row:
    session = Session(settings(server.port, server.ca_file))
    session.open()
    client = EamClient(session)
    requests = agent_requests(session, found.agents)
    context = ssl.create_default_context(cafile=server.ca_file)
    connections = [http.client.HTTPSConnection("127.0.0.1", server.port, context=context) for _ in range(READS_AT_ONCE)]

    def ours() -> float:
        gc.collect()
        began = time.perf_counter()
        read = client.read_agents(found.agents)
        seconds = time.perf_counter() - began
        assert len(read.agents) == hosts
        return seconds

    def raw(lot: tuple[http.client.HTTPSConnection, list[bytes]]) -> None:
        connection, bodies = lot
        for body in bodies:
            connection.request("POST", "/eam/sdk", body, {"Cookie": COOKIE, "Content-Type": "text/xml; charset=UTF-8"})
            connection.getresponse().read()

    def floor() -> float:
        gc.collect()
        lots = [(one, requests[n::READS_AT_ONCE]) for n, one in enumerate(connections)]
        began = time.perf_counter()
        Pool(READS_AT_ONCE).map(raw, lots)
        return time.perf_counter() - began

    value, alone, ratio = effort.paired(ours, floor)
    assert not session.fallen_back, session.fallen_back
    goal = effort.goal_at(hosts, at_most(1.5))
    note = f"floor: raw over {READS_AT_ONCE} connections; {value / hosts * 1e3:.2f} ms an agent"
    return effort.row(
        "cold start, agents", value, unit="s", floor=alone, ratio=ratio, hosts=hosts, goal=goal, note=note
    )
