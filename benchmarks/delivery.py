# SPDX-License-Identifier: Apache-2.0
"""The whole way: a change in a simulated vCenter -> the service -> confirmed by a quorum queue of RabbitMQ.

- ``latency``: hosts change one after the other, 20 a second. Held against the barest loop that does the same
  (:mod:`benchmarks.bare_loop`), on a vCenter of its own, so that neither sees the other's changes.
- ``burst``: every host changes at once. Held against publishing the same messages alone, pipelined.
- ``restart``: the service is stopped and started again, and nothing changed meanwhile. Counts messages of changes.

Simulators, broker and floors are processes of their own; the service runs in this one, patched as the daemon is.
"""

from __future__ import annotations

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent

from benchmarks.bare_loop import NAME, BareLoop, bare_loop
from benchmarks.bare_publisher import bare_publisher
from benchmarks.rabbit import empty, rabbit
from benchmarks.row import Effort, Row, at_most, exactly
from benchmarks.simulated_vcenter import SimulatedVCenter, Times, simulated_vcenter
from tests.support.contrailvm import contrail_vm
from tests.support.rabbit import free_port
from vcenter_eam_plugin.bus import outbox
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.config import (
    Configuration,
    DefaultsConfig,
    EamConfig,
    IntrospectConfig,
    Mode,
    VCenterConfig,
    VCenterUnit,
)
from vcenter_eam_plugin.domain.status import Event
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.simulator.sample_ovf import write_sample

RATE = 20.0
"""Changes a second."""
CHANGES, QUICK_CHANGES = 100, 40
"""Of one run."""
HOSTS_OF_A_CLUSTER = 50
"""vSphere has clusters of up to 96 hosts."""
START_SECONDS = 600.0
"""For the deployment of 5,000 ContrailVMs, on a machine that is slow."""
SECONDS = 60.0
"""For everything else."""

P50, P99, BURST, RESTART = at_most(1.5), at_most(2), at_most(3), exactly(0)


def measure(effort: Effort) -> Iterator[Row]:
    """Four rows a size; the goals are held at one of them."""
    # As the daemon does: what was imported is not walked through again.
    gc.collect()
    gc.freeze()
    with rabbit() as broker:
        for hosts in effort.sizes:
            with tempfile.TemporaryDirectory(prefix="eam-benchmark-") as folder:
                yield from _of(effort, hosts, broker, Path(folder))


def _of(effort: Effort, hosts: int, broker: BrokerSettings, folder: Path) -> Iterator[Row]:
    clusters = -(-hosts // HOSTS_OF_A_CLUSTER)
    where = broker.hosts[0][1], broker.vhost, broker.exchange
    with ExitStack() as stack:
        watched = stack.enter_context(simulated_vcenter(hosts, clusters, folder / "ours"))
        of_floor = stack.enter_context(simulated_vcenter(hosts, clusters, folder / "floor"))
        body = folder / "body.json"
        body.write_text(_a_body(folder, NAME))
        bare = stack.enter_context(bare_loop(of_floor.about, *where, body))
        assert bare.hosts == hosts
        alone = stack.enter_context(bare_publisher(*where, folder))
        installation = Installation(watched, broker, folder)
        changes = QUICK_CHANGES if effort.quick else CHANGES
        with installation.running():
            wait_for(lambda: installation.states() == {"ACTIVE": hosts}, START_SECONDS, "every ContrailVM is ACTIVE")
            watched.call("quiet")
            pairs = []
            for _ in range(effort.runs + 1):
                ours = installation.one_by_one(changes)
                pairs.append((ours, _by_the_bare_loop(of_floor, bare, changes)))
            yield from _latency(effort, hosts, pairs[1:])  # the first pair warms up

            def all_at_once() -> float:
                empty(broker)
                return installation.burst()

            def published_alone() -> float:
                rows = installation.take_confirmed()
                empty(broker)
                return alone.publish(rows)

            value, bare_seconds, ratio = effort.paired(all_at_once, published_alone)
            goal = effort.goal_at(hosts, BURST)
            yield effort.row("burst", value, unit="s", floor=bare_seconds, ratio=ratio, goal=goal, hosts=hosts)
        yield installation.restart(effort, hosts)


def _by_the_bare_loop(vcenter: SimulatedVCenter, bare: BareLoop, changes: int) -> list[float]:
    bare.begin(changes)
    changed = vcenter.call("one_by_one", changes, RATE)
    return _seconds(changed, bare.told())


def _latency(effort: Effort, hosts: int, pairs: list[tuple[list[float], list[float]]]) -> Iterator[Row]:
    for percent, goal in ((50, P50), (99, P99)):
        found = [(_percentile(ours, percent), _percentile(floor, percent)) for ours, floor in pairs]
        yield effort.row(
            f"latency p{percent}",
            statistics.median(ours for ours, _ in found) * 1e3,
            unit="ms",
            floor=statistics.median(floor for _, floor in found) * 1e3,
            ratio=statistics.median(ours / floor for ours, floor in found),
            goal=effort.goal_at(hosts, goal),
            hosts=hosts,
        )


class Installation:
    """The service on one simulated vCenter, and what the broker confirmed to it."""

    def __init__(self, vcenter: SimulatedVCenter, broker: BrokerSettings, folder: Path) -> None:
        self._vcenter = vcenter
        self._broker = broker
        self._folder = folder
        self._ovf_port = free_port()
        self._service: Service | None = None
        self._confirmed: list[tuple[outbox.Row, float]] = []

    @contextmanager
    def running(self, **eam: Any) -> Iterator[None]:
        """The service, from its start to its end; keywords change ``[EAM]``."""
        with _noted(self._confirmed):
            self._service = Service(self._configuration(eam), broker=self._broker)
            self._service.start()
            try:
                yield
            finally:
                self._service.stop()

    def states(self) -> dict[str, int]:
        """How many ContrailVMs are in each state, once nothing waits to be sent."""
        told = self._status()
        return told["states"] if told.get("publisher", {}).get("backlog") == 0 else {}

    def one_by_one(self, changes: int) -> list[float]:
        """Seconds from each change to its confirm."""
        self._confirmed.clear()
        changed = self._vcenter.call("one_by_one", changes, RATE)
        self._wait_for_changes(len(changed))
        return _seconds(changed, self._told())

    def burst(self) -> float:
        """Seconds from the last of all changes to the last confirm."""
        self._confirmed.clear()
        changed = self._vcenter.call("all_at_once")
        self._wait_for_changes(len(changed))
        return max(self._told().values()) - max(changed.values())

    def take_confirmed(self) -> list[outbox.Row]:
        """The messages of the last call."""
        return [row for row, _ in self._confirmed]

    def restart(self, effort: Effort, hosts: int) -> Row:
        """Start again, where nothing changed, until all is known and the snapshot of the start is out."""
        self._confirmed.clear()
        began = time.monotonic()
        with self.running(poll_seconds=2.0):
            wait_for(lambda: self._snapshots() and self.states() == {"ACTIVE": hosts}, START_SECONDS, "it serves again")
            seconds = time.monotonic() - began
            gevent.sleep(2.5)  # a poll more: what was to be told late would have been
        changes = self._changes()
        note = f"all is known and told after {seconds:.1f} s"
        goal = effort.goal_at(hosts, RESTART)
        return effort.row("restart", changes, unit="messages", goal=goal, hosts=hosts, note=note)

    def _wait_for_changes(self, number: int) -> None:
        wait_for(lambda: self._changes() >= number, SECONDS, f"{number} changes are confirmed")

    def _changes(self) -> int:
        """Messages of changes that were confirmed."""
        return sum(row.event is not Event.SYNC for row, _ in self._confirmed)

    def _told(self) -> Times:
        """When each name was confirmed."""
        names: Times = {}
        for row, at in self._confirmed:
            if row.event is not Event.SYNC:
                names[json.loads(row.body)["esxi"]["name"]] = at
        return names

    def _snapshots(self) -> int:
        """Those that are out as a whole."""
        return sum(b'"END"' in row.body for row, _ in self._confirmed if row.key is None)

    def _status(self) -> dict[str, Any]:
        assert self._service is not None
        found: dict[str, Any] = self._service.status()["vcenters"][0]
        return found

    def _configuration(self, changes: dict[str, Any]) -> Configuration:
        about = self._vcenter.about
        login = VCenterConfig(
            vc_host=about["host"],
            vc_port=int(about["port"]),
            vc_username=about["user"],
            vc_password=Secret(about["password"]),
            vc_ca_certs=Path(about["ca_file"]),
        )
        eam: dict[str, Any] = {
            "mode": Mode.ACT,
            "clusters": tuple(about["clusters"]),
            "ovf_package": write_sample(self._folder / "ovf"),
            "agent_vm_datastore": ("shared-*",),
            "agent_vm_network": ("VM Network",),
        }
        return Configuration(
            defaults=DefaultsConfig(state_directory=self._folder / "state", ovf_server_port=self._ovf_port),
            vcenters=(VCenterUnit("benchmark", login, EamConfig(**eam | changes)),),
            introspect=IntrospectConfig(introspect_port=0),
        )


@contextmanager
def _noted(confirmed: list[tuple[outbox.Row, float]]) -> Iterator[None]:
    """Where the publisher says that the broker has them: what it says, and when."""
    confirm = Outbox.confirm

    def noting(self: Outbox, rows: list[outbox.Row]) -> None:
        at = time.monotonic()
        confirmed.extend((row, at) for row in rows)
        confirm(self, rows)

    Outbox.confirm = noting  # type: ignore[method-assign,assignment] # the service makes its own
    try:
        yield
    finally:
        Outbox.confirm = confirm  # type: ignore[method-assign]


def _a_body(folder: Path, name: str) -> str:
    """A message as ours are, about a host of that name."""
    box = Outbox(
        folder / "template.outbox",
        vcenter_uuid=contrail_vm(1).key.partition(".")[2],
        publisher="benchmark",
        now=time.time,
    )
    box.take_epoch()
    box.accept([contrail_vm(1)])
    [row] = box.pending(1)
    box.close()
    return row.body.decode().replace(contrail_vm(1).esxi.name, name)


def _seconds(changed: Times, told: Times) -> list[float]:
    return [told[name] - at for name, at in changed.items()]


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Until it is true, looked at seldom: looking costs, too. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        gevent.sleep(0.05)
