# SPDX-License-Identifier: Apache-2.0
"""S20: a ContrailVM on a new host with no hand on anything, at a cost that does not grow with what exists."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.bench import Bench
from tests.support.scenario import Wire, assert_can_be_followed
from vcenter_eam_plugin.config import Mode

RARELY = 300.0
"""Seconds between polls, so that what is counted is what the new host caused."""
SLACK = 20
"""Calls: how often a wait returned or EAM was looked at depends on time, not on the size of the fleet."""


def calls_for_one_new_host(bench: Bench) -> tuple[Counter[str], list[Any]]:
    """What we called and what we wrote from its arrival until it is ACTIVE, in a fleet that is all well."""
    wire = Wire(bench.simulator)
    bench.start(poll_seconds=RARELY)
    bench.wait_until_active()
    writes, before = len(bench.writes()), len(wire.calls)
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_until_active(host.name)
    ours = [call for call in bench.writes()[writes:] if call.fields["user"] == bench.simulator.user]
    return wire.methods(before), ours


def test_from_an_empty_vcenter_to_a_served_host_by_itself(make_bench: Callable[..., Bench]) -> None:
    """S20: clusters exist, hosts come later; agency, settings, ContrailVM and messages follow by themselves."""
    bench = make_bench(hosts=0, clusters=2)
    bench.start()
    bench.wait_for(lambda: bench.simulator.vcenter.eam.agencies, "the agency is made")
    began = time.monotonic()
    host = bench.vcenter.add_host("ClusterB")
    bench.wait_until_active(host.name)
    assert time.monotonic() - began < 10
    message = next(iter(bench.listener.view.states.values()))
    assert message["vrouter"]["active"] is True
    assert message["vm"]["power"] == "poweredOn"
    assert message["eam"]["status"] == "green"
    assert bench.alarms() == {}
    assert_can_be_followed(bench.messages)


def test_what_a_new_host_costs_does_not_grow_with_the_fleet(make_bench: Callable[..., Bench]) -> None:
    """S20: 2 hosts or 24, with or without tenant VMs: the same calls, and one write of settings."""
    small, written_small = calls_for_one_new_host(make_bench(hosts=2, clusters=1))
    large, written_large = calls_for_one_new_host(make_bench(hosts=24, clusters=1, tenants_per_host=5))
    print(f"2 hosts: {sum(small.values())} calls {dict(small)}\n24 hosts: {sum(large.values())} calls {dict(large)}")
    for written in (written_small, written_large):
        methods = [call.fields["method"] for call in written]
        assert methods.count("EsxAgentHostManagerUpdateConfig") == 1
        assert set(methods) <= {"EsxAgentHostManagerUpdateConfig", "Resolve"}
        assert methods.count("Resolve") <= 2, "at most once for each of the two settings"
    assert sum(large.values()) <= sum(small.values()) + SLACK, (small, large)
    assert large["AgentQueryRuntime"] <= small["AgentQueryRuntime"] + SLACK / 2


def test_several_new_hosts_at_once_are_all_served(make_bench: Callable[..., Bench]) -> None:
    """S20: a rack arrives; no one is forgotten and nothing is written twice."""
    bench = make_bench(hosts=1, clusters=1)
    bench.start()
    bench.wait_until_active()
    added = [bench.vcenter.add_host("ClusterA").name for _ in range(8)]
    bench.wait_until_active(*added)
    assert len(bench.writes("EsxAgentHostManagerUpdateConfig")) == 9
    assert len(bench.writes("CreateAgency")) == 1
    assert_can_be_followed(bench.messages)


def test_in_observe_mode_the_new_host_is_told_and_left_alone(bench: Bench) -> None:
    """S20: hands off also means ours."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    writes = len(bench.writes())
    bench.start(mode=Mode.OBSERVE)
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_for_state(host.name, "BLOCKED")
    assert len(bench.writes()) == writes
    assert settings_plan(bench, host) == [f"set the unset Agent VM settings of {host.moid} by rule"]


def settings_plan(bench: Bench, host: Any) -> list[str]:
    return [action.describe() for action in bench.unit.pipeline.workers.plan()[host.moid].actions]


def test_a_host_added_while_vcenter_is_out_of_reach_is_served_afterwards(bench: Bench) -> None:
    """S20: nobody has to tell us what we missed."""
    bench.start()
    bench.wait_until_active()
    bench.simulator.faults.inject("http_503")
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_for(lambda: bench.unit.pipeline.inventory.last_error is not None, "the trouble is noticed")
    bench.simulator.faults.clear()
    bench.wait_until_active(host.name)
    assert_can_be_followed(bench.messages)
