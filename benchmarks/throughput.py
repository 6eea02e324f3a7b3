# SPDX-License-Identifier: Apache-2.0
"""The core alone: observations as vCenter's watcher makes them -> fleet -> outbox -> publisher -> confirmed.

Each host's ContrailVM changes several times, a piece of the hosts in each observation, as fast as it is taken in. Held
against pipelined publishing of the very same messages (:mod:`benchmarks.bare_publisher`).
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import gevent

from benchmarks.bare_publisher import BarePublisher, bare_publisher
from benchmarks.rabbit import empty, rabbit
from benchmarks.row import Effort, Row, at_least
from tests.support.facts import CLUSTER, VCENTER, a_cluster, a_host, a_vm, an_agency, an_agent
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.bus import outbox as bus_outbox
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.publisher import Publisher
from vcenter_eam_plugin.delivery import Delivery
from vcenter_eam_plugin.domain.facts import VmPower
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.observations import AgencyObserved, AgentsObserved, InventoryObserved, Observation
from vcenter_eam_plugin.leadership import Alone

GOAL = at_least(0.5)
LEAST_CHANGES = 5000
"""Of one run: it takes a second at least."""
PIECE = 50
"""Hosts that change in one observation."""


def measure(effort: Effort) -> Iterator[Row]:
    """One row a size; the goal is held at one of them."""
    with tempfile.TemporaryDirectory() as folder, rabbit() as settings:
        exchange, port = settings.exchange, settings.hosts[0][1]
        with bare_publisher(port, settings.vhost, exchange, Path(folder)) as floor:
            for hosts in effort.sizes:
                yield _of(effort, hosts, settings, floor, Path(folder))


def _of(effort: Effort, hosts: int, settings: BrokerSettings, floor: BarePublisher, folder: Path) -> Row:
    flow = Flow(settings, folder / f"{hosts}.outbox", hosts)
    try:
        cpu: list[float] = []

        def ours() -> float:
            empty(settings)
            began, cpu_began = time.perf_counter(), time.process_time()
            changes = flow.change(max(1, LEAST_CHANGES // hosts))
            cpu.append((time.process_time() - cpu_began) / changes)
            return changes / (time.perf_counter() - began)

        def alone() -> float:
            rows = flow.take_sent()
            empty(settings)
            return len(rows) / floor.publish(rows)

        value, bare, ratio = effort.paired(ours, alone)
    finally:
        flow.end()
    goal = effort.goal_at(hosts, GOAL)
    note = f"{min(cpu) * 1e6:.0f} us of CPU a change"
    return effort.row("throughput", value, unit="changes/s", floor=bare, ratio=ratio, goal=goal, hosts=hosts, note=note)


class Flow:
    """Fleet, outbox, publisher and what joins them, as the pipeline composes them. All ContrailVMs are ACTIVE."""

    def __init__(self, settings: BrokerSettings, path: Path, hosts: int) -> None:
        log = logging.getLogger("benchmark")
        self._hosts = hosts
        self._sent: list[bus_outbox.Row] = []
        self._outbox = _Noting(self._sent, path)
        self._publisher = Publisher(settings, self._outbox)
        self._fleet = Fleet(VCENTER, [CLUSTER])
        self._delivery = Delivery(
            self._fleet,
            self._outbox,
            self._publisher,
            leadership=Alone("benchmark"),
            snapshot_seconds=0.0,
            clock=time.monotonic,
            alarms=Alarms(log, time.time),
            log=log,
        )
        self._running = gevent.spawn(self._publisher.run)
        self._turn = itertools.cycle((VmPower.POWERED_OFF, VmPower.SUSPENDED))
        self._delivery.tick()
        numbers = range(hosts)
        self._see(AgencyObserved(1.0, an_agency(), tuple(f"agent-{n}" for n in numbers)))
        self._see(AgentsObserved(tuple(an_agent(n) for n in numbers)))
        everything = tuple(a_host(n) for n in numbers), tuple(a_vm(n) for n in numbers)
        self._see(InventoryObserved(2.0, (a_cluster(),), *everything, complete=True))
        self._wait_until_sent()
        self._sent.clear()

    def change(self, times: int) -> int:
        """Each ContrailVM changes so often; returns how many changes were confirmed."""
        for _ in range(times):
            power = next(self._turn)
            for first in range(0, self._hosts, PIECE):
                numbers = range(first, min(first + PIECE, self._hosts))
                self._see(InventoryObserved(time.monotonic(), vms=tuple(a_vm(n, power=power) for n in numbers)))
                gevent.sleep(0)  # where the watcher waits for the next update set
        self._wait_until_sent()
        assert len(self._sent) == times * self._hosts
        return len(self._sent)

    def take_sent(self) -> list[bus_outbox.Row]:
        """What was confirmed since the last call."""
        taken = self._sent[:]
        self._sent.clear()
        return taken

    def end(self) -> None:
        self._publisher.stop()
        self._running.get(timeout=10)
        self._outbox.close()

    def _see(self, observation: Observation) -> None:
        changed = self._fleet.apply(observation)
        self._delivery.publish(changed)
        while self._fleet.owed:
            self._delivery.publish(self._fleet.go_on())

    def _wait_until_sent(self) -> None:
        while self._outbox.backlog:
            gevent.sleep(0.001)


class _Noting(Outbox):
    """Keeps what was confirmed: the floor publishes the same."""

    def __init__(self, sent: list[bus_outbox.Row], path: Path) -> None:
        super().__init__(path, vcenter_uuid=VCENTER, publisher="benchmark", now=time.time, bound=10**9)
        self._sent = sent

    def confirm(self, rows):  # type: ignore[no-untyped-def]
        rows = list(rows)
        super().confirm(rows)
        self._sent += rows
