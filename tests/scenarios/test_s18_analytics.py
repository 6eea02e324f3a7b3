# SPDX-License-Identifier: Apache-2.0
"""S18: what is published reaches Contrail's analytics as UVEs, and the Java plugin's map, over a whole installation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.support.bench import Bench
from tests.support.collector import Collector
from tests.support.proxy import Proxy
from vcenter_eam_plugin.host_analytics import HostAnalytics
from vcenter_eam_plugin.service import Service

VROUTER, ESXI = "ObjectVRouter", "ObjectServerTable"


def esxi_of(collector: Collector, table: str) -> dict[str, str]:
    """ESXi host -> state, of those that a table has."""
    return {held["esxi_name"]: held["state"] for held in collector.tables[table].values()}


def test_each_contrailvm_is_at_its_vrouter_and_says_why_it_is_down(make_bench: Callable[..., Bench]) -> None:
    """New at the ESXi host's key, in service at the vRouter's; still there in maintenance; gone with the host. When the
    plugin stops it takes back what it told, since the host's generator lives on."""
    bench = make_bench(hosts=2, clusters=1)
    collector = Collector()
    bench.start(endpoints=(lambda service: HostAnalytics(service, collector),))
    first, second = bench.names()
    bench.wait_until_active()
    bench.wait_for(
        lambda: esxi_of(collector, VROUTER) == {first: "ACTIVE", second: "ACTIVE"}, "both are at their vRouters"
    )
    assert collector.tables[ESXI] == {}
    vms = {bench.vcenter.agent_vm(name).guest_host_name for name in (first, second)}
    assert set(collector.tables[VROUTER]) == vms
    bench.vcenter.enter_maintenance(first)
    bench.wait_for(lambda: esxi_of(collector, VROUTER)[first] == "MAINTENANCE", "why its vRouter is down")
    bench.wait_for(lambda: not bench.vcenter.agent_vm(first).on, "it is off")
    bench.wait_for_state(first, "MAINTENANCE")
    bench.vcenter.remove_host(first)
    bench.wait_for(lambda: esxi_of(collector, VROUTER) == {second: "ACTIVE"}, "the host's is gone")
    assert collector.tables[ESXI] == {}
    bench.stop()
    assert collector.keys() == set()


def test_whoever_leads_tells(make_bench: Callable[..., Bench]) -> None:
    """S19: a host that leads no more takes back what it told, and tells it again when it leads again."""
    bench, leading = make_bench(hosts=2, clusters=1), [True]
    collector = Collector()
    bench.start(is_master=lambda: leading[0], endpoints=(lambda service: HostAnalytics(service, collector),))
    bench.wait_until_active()
    bench.wait_for(lambda: len(collector.tables[VROUTER]) == 2, "both are told")
    leading[0] = False
    bench.wait_for(lambda: collector.keys() == set(), "all was taken back")
    leading[0] = True
    bench.wait_for(lambda: len(collector.tables[VROUTER]) == 2, "both are told again")


class BehindProxy:
    """The service as the bridge sees it, with the broker behind a proxy: its connection alone can be broken."""

    def __init__(self, service: Service, proxy: Proxy) -> None:
        self.units, self.log = service.units, service.log
        self.broker = replace(service.broker, hosts=(("127.0.0.1", proxy.port),))


def test_what_it_missed_while_its_connection_was_lost_comes_at_once(make_bench: Callable[..., Bench]) -> None:
    """A private queue keeps nothing: what was said meanwhile comes by a snapshot that is asked for."""
    bench = make_bench(hosts=2, clusters=1)
    collector = Collector()
    with Proxy(bench.broker.hosts[0]).running() as proxy:
        bench.start(
            endpoints=(lambda service: HostAnalytics(BehindProxy(service, proxy), collector),)  # type: ignore[arg-type]
        )
        first, second = bench.names()
        bench.wait_until_active()
        bench.wait_for(lambda: len(collector.tables[VROUTER]) == 2, "both are told")
        proxy.refuse()
        bench.wait_for(lambda: proxy.connections == 0, "its connection is lost, and with it the queue")
        before = len(bench.messages)
        bench.vcenter.remove_host(first)
        bench.wait_for(lambda: any(m["oper"] == "DELETE" for m in bench.messages[before:]), "others hear that it left")
        assert set(esxi_of(collector, VROUTER)) == {first, second}
        proxy.heal()
        bench.wait_for(lambda: esxi_of(collector, VROUTER) == {second: "ACTIVE"}, "it is told")
        bench.stop()


def test_the_map_of_the_java_plugin_follows_the_hosts(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    """LP 1716167: a line for each host, none for one that left, in the file that was there, beside lines of others."""
    path = tmp_path / "ESXiToVRouterIp.map"
    path.write_text("theirs:10.9.9.9\n")
    inode = path.stat().st_ino
    bench = make_bench(hosts=2, clusters=1)
    bench.start(defaults={"vrouter_map_file": path})
    first, second = bench.names()
    bench.wait_until_active()
    vms = {name: bench.vcenter.agent_vm(name).address for name in (first, second)}

    def lines() -> set[str]:
        return set(path.read_text().splitlines())

    bench.wait_for(lambda: {f"{name}:{vms[name]}" for name in vms} <= lines(), "a line for each")
    bench.vcenter.enter_maintenance(first)
    bench.wait_for_state(first, "MAINTENANCE")
    bench.vcenter.remove_host(first)
    bench.wait_for(lambda: f"{first}:{vms[first]}" not in lines(), "the line of the host that left is gone")
    assert {"theirs:10.9.9.9", f"{second}:{vms[second]}"} <= lines()
    assert path.stat().st_ino == inode
    assert bench.alarms() == {}
    path.write_text(f"{second}:10.9.9.9\n")
    bench.wait_for(lambda: "vrouter-map" in bench.alarms(), "a line that says something else is an alarm")
    path.write_text("")
    bench.wait_for(lambda: f"{second}:{vms[second]}" in lines() and not bench.alarms(), "and is over with it")
