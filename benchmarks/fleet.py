# SPDX-License-Identifier: Apache-2.0
"""Several vCenters shared out among instances: four simulators, two daemons, an election per vCenter by ZooKeeper.

Each vCenter is led by one of them, and the other stands by, warm. What a vCenter costs its leader and what it costs a
standby, and how long it takes until one instance that is killed is replaced. docs/scaling.md reckons with it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import gevent

from benchmarks.installation import Daemon, VCenter, broker_and_folder, daemon, vcenter
from benchmarks.processes import resident_kib
from benchmarks.row import Effort, Row, exactly
from tests.support.zookeeper import ZooKeeperNode

VCENTERS = 4
HOSTS = 625
"""Of each vCenter."""
SECONDS = 60.0
SESSION = 6.0
"""Seconds until ZooKeeper takes an instance that is silent for gone."""

ELECTION = """
[ZOOKEEPER]
zookeeper_servers = 127.0.0.1:{port}
zk_timeout = {session}
"""


def measure(effort: Effort) -> Iterator[Row]:
    """See the module. Not in a quick run: it starts seven servers, and the tests of the election hold its one goal."""
    if effort.quick:
        return
    with ExitStack() as stack:
        broker, folder = stack.enter_context(broker_and_folder())
        keeper = ZooKeeperNode(folder / "zookeeper")
        stack.callback(keeper.kill)
        keeper.start()
        more = ELECTION.format(port=keeper.port, session=SESSION)
        vcenters = {f"v{n}": stack.enter_context(vcenter(folder / f"v{n}", HOSTS)) for n in range(VCENTERS)}
        first, second = (stack.enter_context(daemon(folder / f"{n}", broker, vcenters, more)) for n in "ab")
        yield from _measured(effort, first, second, vcenters)


def _measured(effort: Effort, first: Daemon, second: Daemon, vcenters: dict[str, VCenter]) -> Iterator[Row]:
    total = VCENTERS * HOSTS
    first.start()
    first.wait_for_states("every ContrailVM is ACTIVE", ACTIVE=total)
    second.start()
    second.wait_for_states("the standby has seen them all", ACTIVE=total)
    for one in (first, second):
        one.wait_until_idle()
    leaders = Counter(name for one in (first, second) for name in one.leads())
    yield effort.row(
        "fleet: leaders of each vCenter", max(leaders[name] for name in vcenters), unit="instances", goal=exactly(1),
        hosts=total, note=f"{VCENTERS} vCenters, two instances",
    )  # fmt: skip
    cpu, began = (first.cpu, second.cpu), time.monotonic()
    gevent.sleep(SECONDS)
    shares = [
        (one.cpu - before) / (time.monotonic() - began) * 100 for one, before in zip((first, second), cpu, strict=True)
    ]
    for who, one, share in zip(("leader", "standby"), (first, second), shares, strict=True):
        note = f"leads {len(one.leads())} of {VCENTERS}; {resident_kib(one.pid) / 1024:.0f} MiB RSS"
        yield effort.row(f"fleet: {who} idle", share, unit="% of a core", hosts=total, note=note)
    killed = time.monotonic()
    first.kill()
    second.wait_for(lambda: len(second.leads()) == VCENTERS, "the other leads all")
    yield effort.row(
        "fleet: taken over", time.monotonic() - killed, unit="s", hosts=total,
        note=f"all {VCENTERS}, after SIGKILL; ZooKeeper's session is {SESSION:.0f} s of it at most",
    )  # fmt: skip
