# SPDX-License-Identifier: Apache-2.0
"""Two instances, one vCenter, a real ZooKeeper: one leads, the other watches, and takes over.

Proves S19's second machine, and the promises about leadership (P5, P6) with whole services in one process; whole
processes that are killed and stopped are the chaos rig's.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import gevent
import pytest

from tests.support.bench import Bench
from tests.support.rabbit import free_port
from tests.support.zookeeper import ZooKeeperNode
from vcenter_eam_plugin.config import ZookeeperConfig
from vcenter_eam_plugin.domain.errors import WrongState
from vcenter_eam_plugin.options import Address
from vcenter_eam_plugin.service import Service

SESSION = 4.0


class Pair:
    """Services "a" and "b", each with a state directory of its own."""

    def __init__(self, bench: Bench, zookeeper: ZooKeeperNode) -> None:
        self.bench = bench
        self._zookeeper = zookeeper
        self.services: dict[str, Service] = {}

    def start(self, name: str, **eam: object) -> Service:
        whole = self.bench.configuration(
            defaults={
                "state_directory": self.bench.directory / name,
                "ovf_server_port": self.bench.ovf_port if name == "a" else free_port(),
                "ovf_base_url": f"http://127.0.0.1:{self.bench.ovf_port}",
            },
            **eam,
        )
        servers = (Address("127.0.0.1", self._zookeeper.port),)
        configuration = replace(whole, zookeeper=ZookeeperConfig(zookeeper_servers=servers, zk_timeout=SESSION))
        service = self.services[name] = Service(configuration, broker=self.bench.broker)
        service.name = name
        service.start()
        return service

    def stop(self, name: str) -> None:
        service = self.services.pop(name)
        service.stop()
        assert [each for each, greenlet in service.greenlets().items() if not greenlet.dead] == []

    def leading(self) -> list[str]:
        return [name for name, one in self.services.items() if self.status(one).get("leading")]

    @staticmethod
    def status(service: Service) -> dict[str, object]:
        return dict(service.status()["vcenters"][0])

    def wait_until_leading(self, name: str) -> None:
        self.bench.wait_for(lambda: self.leading() == [name], f"{name} leads")

    def wait_until_watching(self, name: str) -> None:
        """Until a standby has seen everything, and knows who leads."""
        service = self.services[name]
        self.bench.wait_for(
            lambda: self.status(service).get("ready") and self.status(service).get("leader"), f"{name} watches"
        )


@pytest.fixture
def pair(make_bench: Callable[..., Bench], zookeeper: ZooKeeperNode) -> Iterator[Pair]:
    pair = Pair(make_bench(hosts=2, clusters=1), zookeeper)
    pair.bench.plugins = 2
    yield pair
    for name in tuple(pair.services):
        pair.stop(name)


def test_s19_the_standby_watches_and_takes_over(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """S19, P5, P6: one tells and acts; after its orderly end the other does, within a second or so, by a snapshot.

    It is told that it leads: the look now and then, switched off here, is for what nobody tells."""
    bench = pair.bench
    pair.start("a")
    pair.wait_until_leading("a")
    bench.wait_until_active()
    pair.start("b")
    pair.wait_until_watching("b")
    assert pair.leading() == ["a"]
    assert pair.status(pair.services["b"])["leader"] == "a"
    assert pair.status(pair.services["b"])["states"] == {"ACTIVE": 2}, "a standby holds the same picture"
    before, writes = len(bench.messages), len(bench.writes())
    epoch = max(m["epoch"] for m in bench.messages)
    standby = pair.services["b"].units[0].pipeline
    assert standby is not None
    monkeypatch.setattr("vcenter_eam_plugin.pipeline.TICK", 3600.0)
    standby.look_at_leadership()
    gevent.idle()
    began = time.monotonic()
    pair.stop("a")
    pair.wait_until_leading("b")
    print(f"take-over {time.monotonic() - began:.2f} s after the leader was told to stop")
    bench.wait_for(
        lambda: any(m["snapshot"] and m["snapshot"]["phase"] == "END" for m in bench.messages[before:]), "the snapshot"
    )
    assert {m["epoch"] > epoch for m in bench.messages[before:]} == {True}
    assert len(bench.writes()) == writes, "taking over changes nothing"
    assert {bench.state(name) for name in bench.names()} == {"ACTIVE"}
    host = bench.names()[0]
    bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: "POWERED_OFF" in bench.heard(host, before), "the new leader tells")
    bench.wait_for_state(host, "ACTIVE")  # and repairs


def test_s19_what_was_decided_holds_for_whoever_leads(pair: Pair) -> None:
    """S19: paused and drained, the leader ends; the next one neither repairs nor deploys, until it is told to."""
    bench = pair.bench
    pair.start("a")
    pair.wait_until_leading("a")
    bench.wait_until_active()
    pair.start("b")
    pair.wait_until_watching("b")
    with pytest.raises(WrongState, match="a leads"):
        pair.services["b"].pause()
    (cluster,) = bench.vcenter.clusters()
    unit = pair.services["a"].units[0]
    assert unit.pipeline is not None
    unit.pipeline.retreat(cluster.moid, on=True)
    pair.services["a"].pause()
    agreed = unit._leadership._agreed  # type: ignore[union-attr]
    bench.wait_for(lambda: agreed["pause"] == b"true" and cluster.moid.encode() in agreed["retreat"], "it is written")
    pair.stop("a")
    pair.wait_until_leading("b")
    after = pair.services["b"].units[0]
    assert after.pipeline is not None
    assert pair.status(pair.services["b"])["mode"] == "paused"
    assert after.pipeline.fleet.retreat == {cluster.moid}
    pair.services["b"].activate()
    assert pair.status(pair.services["b"])["mode"] == "act"
    pair.start("a")  # its own file says paused; what stands in ZooKeeper is newer
    pair.wait_until_watching("a")
    bench.wait_for(lambda: after._leadership._agreed["pause"] == b"false", "it is written")  # type: ignore[union-attr]
    pair.stop("b")
    pair.wait_until_leading("a")
    assert pair.status(pair.services["a"])["mode"] == "act"


def test_p05_a_frozen_zookeeper_stops_everybody_and_loses_nothing(pair: Pair, zookeeper: ZooKeeperNode) -> None:
    """P5: without an answer nobody acts or tells; what happened meanwhile is told once it is back."""
    bench = pair.bench
    pair.start("a")
    pair.wait_until_leading("a")
    bench.wait_until_active()
    host = bench.names()[0]
    zookeeper.freeze()
    try:
        bench.wait_for(lambda: not pair.leading(), "the lead is given up")
        silent, writes = len(bench.messages), len(bench.writes("Resolve"))
        bench.vcenter.power_off(bench.vcenter.agent_vm(host))
        unit = pair.services["a"].units[0]
        bench.wait_for(lambda: pair.status(pair.services["a"])["states"] != {"ACTIVE": 2}, "it is seen")
        bench.wait_for(lambda: "election" in unit.alarms, "the reason is an alarm")
        gevent.sleep(0.5)  # longer than a look at what is to be done
        assert len(bench.messages) == silent
        assert len(bench.writes("Resolve")) == writes
    finally:
        zookeeper.thaw()
    pair.wait_until_leading("a")
    bench.wait_for(lambda: bench.heard(host, silent)[-1:] == ["ACTIVE"], "it is told and repaired")
    assert "election" not in pair.services["a"].units[0].alarms
