# SPDX-License-Identifier: Apache-2.0
"""What breaks, and how it is mended: each nemesis is a kind, a target, what to inject and what heals it.

Not promised: that a healed server serves at the very moment; a killed one does, because it is waited for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.installation import Installation
from tests.chaos.instance import PluginInstance
from tests.support.processes import SimulatorProcess
from tests.support.proxy import Proxy
from tests.support.rabbit import RabbitNode
from tests.support.zookeeper import ZooKeeperNode
from vcenter_eam_plugin import failpoints

FAILPOINTS = tuple(failpoints.POINTS)

MOST_VISITS = 12
"""A fail-point strikes at one of its first so many visits, so that it strikes within the fault and not always first."""

DROP_AFTER = (1, 20_000)
"""Bytes: from the first of a handshake to the midst of a large answer."""

DELAY = (0.05, 0.6)
"""Seconds."""

VCENTER_FAULTS: dict[str, dict[str, float]] = {
    "collector_lost": {},
    "empty_reads": {},
    "missing_set": {},
    "http_503": {},
    "eam_down": {},
    "half_open": {},
    "slow": {"delay": 1.0},
    "lost_response": {"probability": 0.2},
    "truncated_response": {"probability": 0.3},
}
"""Of the simulator's own catalogue, with their limits."""


@dataclass(frozen=True, slots=True)
class Nemesis:
    """``resource`` is what it breaks: two nemeses of one resource must not overlap.

    ``inject`` gets the chance to decide what it leaves open. ``seconds`` is for how long it may last, least and most.
    ``weight``: how often it is chosen, beside the others.
    """

    kind: str
    target: str
    resource: str
    inject: Callable[[random.Random], object]
    heal: Callable[[], object]
    seconds: tuple[float, float]
    weight: float = 1.0


def nemeses(here: Installation) -> list[Nemesis]:
    """All that there are for this installation, always in the same order."""
    found = [*_of_broker(here.rabbit), *_of_vcenter(here.simulator)]
    for one in here.instances.values():
        found += _of_plugin(one)
    for number, node in enumerate(here.ensemble.nodes if here.ensemble else (), start=1):
        found += _of_zookeeper(node, number)
    if here.ensemble is not None:
        found.append(_outage(here.ensemble.nodes))
    groups: dict[str, list[Proxy]] = {}
    for name, proxy in here.proxies.items():
        groups.setdefault(_group(name), []).append(proxy)
    for name, proxies in groups.items():
        found += _of_proxies(name, proxies)
    return found


def _group(proxy: str) -> str:
    """A client's ways to the members of an ensemble break together: one alone is as if the member were away."""
    client, server, *_ = [*proxy.split("-"), ""]
    return f"{client}-{server}" if server else client


def _plainly(act: Callable[[], object]) -> Callable[[random.Random], object]:
    """An injection that leaves nothing to chance."""
    return lambda _: act()


def _of_plugin(one: PluginInstance) -> list[Nemesis]:
    def arm(chance: random.Random) -> None:
        one.kill()
        one.start(f"{chance.choice(FAILPOINTS)}:kill:{chance.randint(1, MOST_VISITS)}")

    def disarm() -> None:
        one.kill()
        one.start()

    return [
        Nemesis("plugin-kill", one.name, one.name, _plainly(one.kill), one.start, (0.2, 3.0), 3.0),
        Nemesis("plugin-pause", one.name, one.name, _plainly(one.freeze), one.thaw, (1.0, 8.0), 3.0),
        Nemesis("plugin-stop", one.name, one.name, _plainly(one.stop), one.start, (0.0, 2.0), 1.0),
        Nemesis("failpoint", one.name, one.name, arm, disarm, (3.0, 7.0), 2.0),
    ]


def _of_broker(rabbit: RabbitNode) -> list[Nemesis]:
    def crash() -> None:
        rabbit.kill()
        rabbit.start()

    return [
        Nemesis("broker-kill", "broker", "broker", _plainly(rabbit.kill), rabbit.start, (0.0, 2.0), 2.0),
        Nemesis("broker-pause", "broker", "broker", _plainly(rabbit.freeze), rabbit.thaw, (1.0, 8.0), 2.0),
        # What was sent to it while it hung it never saw.
        Nemesis("broker-hang", "broker", "broker", _plainly(rabbit.freeze), crash, (1.0, 4.0), 1.0),
        Nemesis("broker-block", "broker", "broker", _plainly(rabbit.block), rabbit.unblock, (1.0, 4.0), 1.0),
    ]


def _of_zookeeper(node: ZooKeeperNode, number: int) -> list[Nemesis]:
    name = f"zookeeper-{number}"
    return [
        Nemesis("zookeeper-kill", name, "zookeeper", _plainly(node.kill), node.start, (0.5, 4.0)),
        Nemesis("zookeeper-pause", name, "zookeeper", _plainly(node.freeze), node.thaw, (1.0, 8.0)),
    ]


def _outage(nodes: list[ZooKeeperNode]) -> Nemesis:
    """Two of three: no majority, so nobody may lead."""

    def freeze() -> None:
        for node in nodes[:2]:
            node.freeze()

    def thaw() -> None:
        for node in nodes[:2]:
            node.thaw()

    return Nemesis("zookeeper-outage", "zookeeper", "zookeeper", _plainly(freeze), thaw, (2.0, 7.0))


def _of_vcenter(simulator: SimulatorProcess) -> list[Nemesis]:
    def kill_sessions() -> None:
        simulator.control("POST", "faults", {"name": "session_kill"})

    def inject(chance: random.Random) -> None:
        name = chance.choice(tuple(VCENTER_FAULTS))
        simulator.control("POST", "faults", {"name": name, **VCENTER_FAULTS[name]})

    def heal() -> None:
        simulator.control("DELETE", "faults")

    return [
        Nemesis("session-kill", "vcenter", "vcenter", _plainly(kill_sessions), heal, (0.0, 0.0), 2.0),
        Nemesis("vcenter-fault", "vcenter", "vcenter", inject, heal, (1.0, 5.0), 2.0),
    ]


def _of_proxies(name: str, proxies: list[Proxy]) -> list[Nemesis]:
    def each(act: Callable[[Proxy], None]) -> Callable[[], None]:
        def do() -> None:
            for proxy in proxies:
                act(proxy)

        return do

    def delay(chance: random.Random) -> None:
        seconds = chance.uniform(*DELAY)
        each(lambda proxy: proxy.delay(seconds))()

    def drop(chance: random.Random) -> None:
        count = chance.randint(*DROP_AFTER)
        each(lambda proxy: proxy.drop_after(count))()

    heal = each(Proxy.heal)
    return [
        Nemesis("proxy-cut", name, name, _plainly(each(Proxy.cut)), heal, (0.0, 0.0), 0.5),
        Nemesis("proxy-refuse", name, name, _plainly(each(Proxy.refuse)), heal, (0.5, 6.0), 0.5),
        Nemesis("proxy-delay", name, name, delay, heal, (1.0, 5.0), 0.5),
        Nemesis("proxy-half-open", name, name, _plainly(each(Proxy.half_open)), heal, (1.0, 8.0), 0.5),
        Nemesis("proxy-swallow", name, name, _plainly(each(Proxy.swallow)), heal, (0.5, 6.0), 0.5),
        Nemesis("proxy-drop", name, name, drop, heal, (1.0, 5.0), 0.5),
    ]
