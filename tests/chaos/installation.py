# SPDX-License-Identifier: Apache-2.0
"""Everything that runs: simulator, broker, ZooKeeper, daemons, a fault proxy in front of each server for each client.

Servers are real, private, and on free ports of loopback. Whatever was started ends with the block, also when the rig
fails. Each instance reaches the simulator from an address of its own, by which the journal tells their writes apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore

from tests.chaos.instance import PluginInstance
from tests.chaos.recorder import Recorder
from tests.chaos.records import Applied, Instance, JournalEntry, Term
from tests.support.daemon_file import daemon_file
from tests.support.processes import SimulatorProcess, simulator_process
from tests.support.proxy import Proxy
from tests.support.rabbit import RabbitNode, free_port, wait_for
from tests.support.zookeeper import ZooKeeperEnsemble
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.consumer import Consumer

HOSTS, CLUSTERS = 4, 2

SESSION_TIMEOUT = 4.0
"""Seconds, of the instances' ZooKeeper sessions: short, so that a lost leader is replaced within a run of 15 s."""

START_SECONDS = 60.0
"""Until a daemon leads; 2 to 6 on an idle machine."""

CONSUMER = "chaos.consumer"

KNOBS = ("deploy=0.4", "power_on=0.3", "heartbeat=0.2", "evacuate=0.3", "boot=0.5")
"""A little slower than the defaults, so that faults fall into the midst of something."""


@dataclass(frozen=True, slots=True)
class Hold:
    """An instance's event loop was held from ``at`` for ``seconds``, ``computed`` of them by its own computing."""

    instance: str
    at: float
    seconds: float
    computed: float


class Installation:
    """Made by :func:`installation`. ``proxies`` are by client and server: ``a-vcenter``, ``b-zookeeper-2`` ..."""

    def __init__(self, directory: Path, names: Sequence[str], stack: ExitStack) -> None:
        self.directory = directory
        self.ensemble: ZooKeeperEnsemble | None = None
        self.proxies: dict[str, Proxy] = {}
        self.instances: dict[str, PluginInstance] = {}
        self.applied: list[Applied] = []
        self.journal: list[JournalEntry] = []
        self.truths: dict[str, dict[str, Any]] = {}
        """Host (moref) -> its newest truth, of those that are gone too; as of the last :meth:`look`."""
        self._looking = BoundedSemaphore()
        self._stack = stack
        knobs = [f"--knob={knob}" for knob in KNOBS]
        self.simulator: SimulatorProcess = stack.enter_context(
            simulator_process(directory, "--hosts", str(HOSTS), "--clusters", str(CLUSTERS), *knobs)
        )
        self.rabbit = RabbitNode(directory / "rabbit")
        stack.callback(self.rabbit.close)
        if len(names) > 1:
            self.ensemble = ZooKeeperEnsemble(directory / "zookeeper")
            stack.callback(self.ensemble.close)
            starting = gevent.spawn(self.ensemble.start)
            self.rabbit.start()
            starting.get()
        else:
            self.rabbit.start()
        self.vhost = self.rabbit.make_vhost()
        self.recorder = Recorder(self._broker(self.rabbit.port, heartbeat=0))
        self.consumer = Consumer(
            self._broker(self._proxy("consumer-broker", self.rabbit.port), heartbeat=4), self._apply, queue=CONSUMER
        )
        self._listen()
        self._make_instances(names)

    # --- what is seen -------------------------------------------------------------------------------------

    def look(self) -> None:
        """Fetch what is new in the simulator's journal."""
        with self._looking:
            after = self.journal[-1].seq if self.journal else 0
            new = self.simulator.control("GET", f"journal?after={after}")
        for entry in new:
            self.journal.append(JournalEntry(entry["seq"], entry["monotonic"], entry["kind"], entry["fields"]))
            if entry["kind"] == "truth":
                self.truths[entry["fields"]["host"]] = entry["fields"]

    def lives(self) -> tuple[Instance, ...]:
        return tuple(life for one in self.instances.values() for life in one.lives())

    def terms(self) -> tuple[Term, ...]:
        every = [term for one in self.instances.values() for term in one.leads_had()]
        return tuple(sorted(every, key=lambda term: term.began))

    def leader(self) -> PluginInstance | None:
        """Who leads now, by the logs; the one of the newest term when two believe that they do."""
        leading = [(max(t.began for t in one.leads_had()), one) for one in self.instances.values() if one.leads]
        return max(leading, key=lambda each: each[0])[1] if leading else None

    def wait_for_leader(self, seconds: float = START_SECONDS) -> PluginInstance:
        wait_for(lambda: self.leader() is not None, seconds, "somebody leads")
        found = self.leader()
        assert found is not None
        return found

    def holds(self) -> list[Hold]:
        """Every hold of an event loop that was noted."""
        found = []
        for one in self.instances.values():
            path = one.daemon.log_file.parent / "holds"
            lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
            found += [Hold(one.name, *map(float, line)) for line in lines if len(line) == 3]  # the last may be half
        return found

    # --- inside -------------------------------------------------------------------------------------------

    def _broker(self, port: int, *, heartbeat: int) -> BrokerSettings:
        return BrokerSettings.from_url(
            f"amqp://guest:guest@127.0.0.1:{port}/{self.vhost}", heartbeat=heartbeat, retry_longest=1.0
        )

    def _proxy(self, name: str, *targets: int, source: str = "127.0.0.1") -> int:
        first, *spares = [("127.0.0.1", target) for target in targets]
        proxy = self._stack.enter_context(Proxy(first, *spares, source=source).running())
        self.proxies[name] = proxy
        return proxy.port

    def _apply(self, body: dict[str, Any]) -> None:
        self.applied.append(Applied(time.monotonic(), body))

    def _listen(self) -> None:
        listening = [gevent.spawn(self.recorder.run), gevent.spawn(self.consumer.run)]

        def stop() -> None:
            self.recorder.stop()
            self.consumer.stop()
            gevent.joinall(listening, 10)
            gevent.killall(listening)

        self._stack.callback(stop)
        wait_for(lambda: self.recorder.ready.is_set() and self.consumer.ready.is_set(), 30, "both queues are read")
        self.rabbit.settle()

    def _make_instances(self, names: Sequence[str]) -> None:
        about = self.simulator.about
        ovf_ports = [free_port() for _ in names]
        ovf_address = self._proxy("ovf", *ovf_ports)
        for number, (name, ovf_port) in enumerate(zip(names, ovf_ports, strict=True), start=11):
            client = f"127.0.0.{number}"
            elect = {}
            if self.ensemble is not None:
                ports = [
                    self._proxy(f"{name}-zookeeper-{n}", node.port) for n, node in enumerate(self.ensemble.nodes, 1)
                ]
                servers = ",".join(f"127.0.0.1:{port}" for port in ports)
                elect = {"ZOOKEEPER": {"zookeeper_servers": servers, "zk_timeout": SESSION_TIMEOUT}}
            text = daemon_file(
                about,
                self.directory / name,
                shared=self.directory,
                DEFAULTS={"ovf_server_port": ovf_port, "ovf_base_url": f"http://127.0.0.1:{ovf_address}"},
                VCENTER={
                    "vc_port": self._proxy(f"{name}-vcenter", about["port"], source=client),
                    "vc_call_timeout": 10,
                    "vc_wait_seconds": 5,
                },
                EAM={"power_off_grace_seconds": 0.3, "repairs_per_hour": 10000},
                RABBIT={
                    "rabbit_hosts": f"127.0.0.1:{self._proxy(f'{name}-broker', self.rabbit.port)}",
                    "rabbit_vhost": self.vhost,
                    "rabbit_health_check_interval": 4,
                },
                **elect,
            )
            one = self.instances[name] = PluginInstance(name, self.directory / name, text, client)
            self._stack.callback(one.close)
        for one in self.instances.values():
            one.start()
        self.wait_for_leader()
        wait_for(lambda: self.recorder.messages, START_SECONDS, "the leader has declared its queue, and tells")
        self.rabbit.settle()


@contextmanager
def installation(directory: Path, names: Sequence[str] = ("a", "b")) -> Iterator[Installation]:
    """One that is up, with a leader, and that is gone after the block. One name alone: without ZooKeeper."""
    with ExitStack() as stack:
        yield Installation(directory, names, stack)
