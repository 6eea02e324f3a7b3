# SPDX-License-Identifier: Apache-2.0
"""A process that is the daemon's way from the fleet to the broker, without a vCenter: it changes states as fast as they
are confirmed, and says how much memory it holds.

    python -c 'import tests.support.gevent_patch; from tests.support.delivery_child import main; main()' \\
        HOST:PORT VHOST DIRECTORY MARKS

``MARKS`` is a comma-separated list of numbers of changes. At each it waits until all is confirmed, and prints one line
of JSON; then it goes on when it reads a line.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import gevent

from tests.support.facts import CLUSTER, VCENTER, a_cluster, a_host, a_vm, an_agency, an_agent
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.publisher import Publisher
from vcenter_eam_plugin.delivery import Delivery
from vcenter_eam_plugin.domain.facts import VmPower
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.observations import AgencyObserved, AgentsObserved, InventoryObserved
from vcenter_eam_plugin.leadership import Alone

HOSTS = 250
PIECE = 50
"""Hosts that change in one observation."""
MOST_WAITING = 1000
"""Messages; below the outbox's bound, so that each change is a message of its own."""
QUEUE_LENGTH = 5000
"""Messages the broker keeps; what is measured is our memory, not its."""


class Flow:
    """Fleet, outbox, publisher and what joins them, as the pipeline composes them."""

    def __init__(self, settings: BrokerSettings, directory: Path) -> None:
        log = logging.getLogger("child")
        self.connects = 0
        outbox = Outbox(directory / "outbox.sqlite", vcenter_uuid=VCENTER, publisher="child", now=time.time)
        self.publisher = Publisher(settings, outbox, on_state=self._link_changed)
        self.fleet = Fleet(VCENTER, [CLUSTER], outbox.last_accepted())
        self.delivery = Delivery(
            self.fleet,
            outbox,
            self.publisher,
            leadership=Alone("child"),
            snapshot_seconds=20.0,
            clock=time.monotonic,
            alarms=Alarms(log, time.time),
            log=log,
        )
        self._state = ""
        self._outbox = outbox
        self._running = gevent.spawn(self.publisher.run)

    def _link_changed(self, status: dict[str, Any]) -> None:
        self.connects += status["state"] == "up" != self._state
        self._state = status["state"]

    def see(self, *observations: Any) -> int:
        """What the pipeline does with an observation; how many ContrailVMs changed."""
        changes = 0
        for observation in observations:
            changed = self.fleet.apply(observation)
            while changed or self.fleet.owed:
                self.delivery.publish(changed)
                changes += len(changed)
                changed = self.fleet.go_on()
        return changes

    def begin(self) -> None:
        self.delivery.tick()
        numbers = range(1, HOSTS + 1)
        self.see(
            AgencyObserved(1.0, an_agency(), tuple(f"agent-{n}" for n in numbers)),
            AgentsObserved(tuple(an_agent(n) for n in numbers)),
            InventoryObserved(
                2.0, (a_cluster(),), tuple(a_host(n) for n in numbers), tuple(a_vm(n) for n in numbers), complete=True
            ),
        )

    def change_until(self, changes: int, target: int) -> int:
        """All hosts in turn, a piece at a time, until ``target`` changes were made; how many there are then."""
        while changes < target:
            turn, first = divmod(changes, HOSTS)
            power = (VmPower.POWERED_OFF, VmPower.SUSPENDED)[turn % 2]
            vms = tuple(a_vm(n, power=power) for n in range(first + 1, first + 1 + PIECE))
            made = self.see(InventoryObserved(time.monotonic(), vms=vms))
            assert made == PIECE, made
            changes += made
            self.delivery.tick()
            self.wait_until_at_most(MOST_WAITING)
        return changes

    def wait_until_at_most(self, waiting: int) -> None:
        while self._outbox.backlog > waiting:
            gevent.sleep(0.005)

    def report(self, changes: int, connects: int) -> dict[str, Any]:
        """Once all is confirmed, and the connection was made so often: each was broken while we changed things."""
        while self.connects < connects:
            gevent.sleep(0.005)
        self.wait_until_at_most(0)
        gc.collect()
        confirmed = self.publisher.status()["confirmed"]
        return {"changes": changes, "rss": rss(), "confirmed": confirmed, "connects": self.connects}

    def end(self) -> None:
        self.publisher.stop()
        self._running.get(timeout=10)
        self._outbox.close()


def rss() -> int:
    """Bytes of this process that are in memory."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def main() -> None:
    where, vhost, directory, marks = sys.argv[1:]
    host, _, port = where.partition(":")
    settings = BrokerSettings(
        hosts=((host, int(port)),), vhost=vhost, queue_length=QUEUE_LENGTH, retry_first=0.05, retry_longest=0.5
    )
    flow = Flow(settings, Path(directory))
    flow.begin()
    changes = 0
    for connects, mark in enumerate(map(int, marks.split(",")), start=1):
        changes = flow.change_until(changes, mark)
        print(json.dumps(flow.report(changes, connects)), flush=True)
        sys.stdin.readline()
    flow.end()
