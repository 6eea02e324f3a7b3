# SPDX-License-Identifier: Apache-2.0
"""Promise P7 as a test can ask it: change the inventory while a fault lasts, heal it, and compare with the truth.

The truth is read from the simulated vCenter's and its EAM's own objects, and never from what the service saw.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.support.bench import SECONDS, Bench
from tests.support.scenario import assert_can_be_followed

READ = frozenset({"inventory", "eam"})
"""Sources without which nothing is known."""


def truth(bench: Bench) -> dict[str, str]:
    """State of every host by name, from the simulator. A host that is on its way has none that can be published."""
    agents = {
        agent.host.moid: agent
        for agency in bench.simulator.vcenter.eam.agencies.values()
        for agent in agency.agents.values()
    }
    found = {}
    for host in bench.vcenter.hosts():
        agent = agents.get(host.moid)
        if host.in_maintenance:
            found[host.name] = "MAINTENANCE"
        elif agent is not None and agent.status == "green":
            found[host.name] = "ACTIVE"
        else:
            found[host.name] = "on its way"
    return found


def published(bench: Bench) -> dict[str, str]:
    """State of every host by name, from what the listener on the bus holds."""
    return {m["esxi"]["name"]: str(m["state"]) for m in bench.listener.view.states.values()}


class Gap:
    """One run: a host removed, one added, one into maintenance, one out of it, one untouched.

    Needs a bench of four hosts that was started. ``healed_in`` is how long it took from the healing on, in seconds.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.back, self.removed, self.into, self.untouched = bench.vcenter.hosts()
        self.added: Any = None
        self.healed_in = float("nan")
        bench.wait_until_active()
        bench.vcenter.enter_maintenance(self.back)
        bench.wait_for(lambda: self.back.in_maintenance, "vCenter has done it")
        bench.wait_for_state(self.back.name, "MAINTENANCE")
        self.since = len(bench.messages)
        self.listings = bench.unit.pipeline.inventory.listings

    def change(self) -> None:
        """Everything at once, and wait until it has happened in vCenter."""
        vcenter = self.bench.vcenter
        vcenter.remove_host(self.removed)
        vcenter.enter_maintenance(self.into)
        vcenter.exit_maintenance(self.back)
        self.added = vcenter.add_host(vcenter.clusters()[0], "new.dc0.example")
        self.bench.wait_for(lambda: self.into.in_maintenance and not self.back.in_maintenance, "vCenter has done it")

    def notice(self, source: str = "inventory") -> dict[str, Any]:
        """Wait until the service says that this source is stale; returns what it says of it."""
        sources: dict[str, Any] = self.bench.wait_for(
            lambda: not (s := self.bench.unit.status()["sources"])[source]["live"] and s,
            f"{source} is said to be stale",
        )
        assert sources[source]["stale_since"].endswith("Z")
        return dict(sources[source])

    def converge(self, heal: Callable[[], object] = lambda: None) -> None:
        """P7: the published map equals the truth, deletions included, within 30 s of the healing."""
        bench = self.bench
        began = time.monotonic()
        heal()
        bench.wait_for(
            lambda: "on its way" not in truth(bench).values() and published(bench) == truth(bench),
            f"the published map is {truth(bench)}",
            SECONDS,
        )
        self.healed_in = time.monotonic() - began
        expected = {self.back.name: "ACTIVE", self.into.name: "MAINTENANCE"}
        expected |= {self.untouched.name: "ACTIVE", self.added.name: "ACTIVE"}
        assert truth(bench) == expected, "the fault itself has changed nothing in vCenter"
        assert bench.heard(self.removed.name, self.since)[-1] == "REMOVED"
        deleted = [m["esxi"]["name"] for m in bench.messages[self.since :] if m["oper"] == "DELETE"]
        assert deleted == [self.removed.name]
        assert bench.heard(self.untouched.name, self.since) == []
        assert_can_be_followed(bench.messages)
        bench.wait_for(
            lambda: all(bench.unit.status()["sources"][name]["live"] for name in READ),
            "the sources are said to be live",
        )
        assert len(bench.simulator.vcenter.eam.agencies) == 1
        print(f"P7: converged {self.healed_in:.2f} s after the healing")
