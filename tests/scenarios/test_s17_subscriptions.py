# SPDX-License-Identifier: Apache-2.0
"""S17: PropertyCollector updates are the truth, EAM's and vCenter's events wake up; losing events costs time alone."""

import time
from collections.abc import Callable

import pytest

from tests.support.bench import Bench
from tests.support.scenario import Wire, assert_can_be_followed
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.vsphere import session

RARELY = 300.0
"""Seconds between polls: whatever happens sooner was woken up."""
QUICK = 5.0
"""Seconds on a busy machine, for what takes EAM itself about one."""


def test_with_events_nothing_waits_for_the_poll(bench: Bench) -> None:
    """S17: deployment, power-off, repair, maintenance and removal, all with a poll every five minutes."""
    began = time.monotonic()
    bench.start(poll_seconds=RARELY)
    bench.wait_until_active()
    host = bench.vcenter.hosts()[0]
    bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host.name, "POWERED_OFF")
    bench.wait_until_active(host.name)
    bench.vcenter.enter_maintenance(host)
    bench.wait_for_state(host.name, "MAINTENANCE")
    bench.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    bench.vcenter.exit_maintenance(host)
    bench.wait_until_active(host.name)
    added = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_until_active(added.name)
    bench.vcenter.remove_host(host)
    bench.wait_for(lambda: bench.state(host.name) is None, "it is removed")
    assert time.monotonic() - began < 4 * QUICK
    assert_can_be_followed(bench.messages)


def test_an_issue_that_no_property_shows_is_seen_by_its_event(make_bench: Callable[..., Bench]) -> None:
    """S17: agent issues are in EAM alone; its event is what wakes the poll."""
    bench = make_bench(hosts=2, clusters=1)
    bench.start(poll_seconds=RARELY, auto_resolve=())
    bench.wait_until_active()
    (cluster,) = bench.vcenter.clusters()
    bench.vcenter.disable_cluster(cluster)
    bench.wait_for(lambda: bench.unit.pipeline.status()["agency"]["status"] == "red", "the agency is red", QUICK)
    bench.vcenter.enable_cluster(cluster)
    bench.wait_for(lambda: bench.unit.pipeline.status()["agency"]["status"] == "green", "and green again", QUICK)


def no_events(bench: Bench) -> None:
    bench.simulator.faults.inject("raise_fault", method="CreateCollectorForEvents", fault="vim.fault.NoPermission")


def test_without_permission_for_events_everything_converges_by_polling(bench: Bench) -> None:
    """S17: the same life, without one event."""
    no_events(bench)
    wire = Wire(bench.simulator)
    bench.start(poll_seconds=1.0)
    bench.wait_until_active()
    host = bench.vcenter.hosts()[0]
    bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: "MISSING" in bench.heard(host.name), "it is reported")
    bench.wait_until_active(host.name)
    added = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_until_active(added.name)
    assert wire.count("CreateCollectorForEvents") >= 1
    assert wire.count("SetCollectorPageSize") == 0, "the fault was met: there is no event collector"
    assert_can_be_followed(bench.messages)


def test_properties_need_no_events_and_no_poll(make_bench: Callable[..., Bench]) -> None:
    """S17: power and maintenance are properties; without events and without polls they are told at once."""
    bench = make_bench(hosts=2, clusters=1)
    bench.start()
    bench.wait_until_active()
    bench.stop()
    no_events(bench)
    bench.start(poll_seconds=RARELY, mode=Mode.OBSERVE)
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches again")
    off, away = bench.vcenter.hosts()
    bench.vcenter.power_off(bench.vcenter.agent_vm(off))
    bench.wait_for(lambda: bench.state(off.name) == "POWERED_OFF", "reported", QUICK)
    bench.vcenter.disconnect(away)
    bench.wait_for(lambda: bench.state(away.name) == "UNREACHABLE", "reported", QUICK)
    assert bench.messages[-1]["last_state"] == "ACTIVE"


@pytest.mark.parametrize("fault", ["network_cut", "session_kill", "collector_lost", "half_open"])
def test_what_happened_in_a_gap_is_found_by_listing_and_comparing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """S17: a host removed, one added, one in maintenance, while nothing could be heard of it: deletions included."""
    monkeypatch.setattr(session, "WAIT_MARGIN_SECONDS", 0.5)  # how soon a server that never answers is given up
    bench.start(vcenter={"vc_call_timeout": 1.0, "vc_wait_seconds": 1})
    bench.wait_until_active()
    removed, changed, untouched = bench.vcenter.hosts()
    since, listings = len(bench.messages), bench.unit.pipeline.inventory.listings
    bench.simulator.faults.inject(fault)
    bench.vcenter.remove_host(removed)
    bench.vcenter.enter_maintenance(changed)
    added = bench.vcenter.add_host(bench.vcenter.clusters()[0], "new.dc0.example")
    if fault in ("network_cut", "half_open"):
        bench.wait_for(lambda: changed.in_maintenance, "the host is in maintenance")
        bench.wait_for(lambda: not bench.unit.pipeline.inventory.live, "the gap is noticed")
        bench.simulator.faults.clear()
    bench.wait_for(lambda: bench.unit.pipeline.inventory.listings > listings, "it was listed anew")
    bench.wait_for(lambda: bench.state(removed.name) is None, "the removal is told")
    # EAM may have told that the agent is gone before the inventory tells that the host is.
    assert set(bench.heard(removed.name, since)[:-1]) <= {"REMOVING", "PENDING"}
    assert bench.heard(removed.name, since)[-1] == "REMOVED"
    bench.wait_for_state(changed.name, "MAINTENANCE")
    bench.wait_until_active(added.name)
    assert bench.heard(untouched.name, since) == []
    assert_can_be_followed(bench.messages)


@pytest.mark.parametrize("fault", ["eam_down", "eam_not_initialized", "http_503"])
def test_eam_that_is_away_or_still_loading_deletes_nothing(bench: Bench, fault: str) -> None:
    """S17: the inventory goes on; EAM's part is caught up with."""
    bench.start(poll_seconds=1.0)
    bench.wait_until_active()
    host, since = bench.vcenter.hosts()[0], len(bench.messages)
    bench.simulator.faults.inject(fault, path="/eam/sdk")
    bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host.name, "POWERED_OFF")
    assert bench.writes("Resolve") == []
    bench.simulator.faults.clear()
    bench.wait_until_active(host.name)
    for other in bench.names()[1:]:
        assert bench.heard(other, since) == []
    assert not {"REMOVED", "REMOVING", "PENDING"} & {m["state"] for m in bench.messages[since:]}


def test_a_host_that_crashes_is_unreachable_with_its_last_state_and_comes_back(bench: Bench) -> None:
    """S17: connection state is a property of the host."""
    bench.start()
    bench.wait_until_active()
    host, since = bench.vcenter.hosts()[0], len(bench.messages)
    bench.vcenter.crash(host)
    bench.wait_for_state(host.name, "UNREACHABLE")
    message = next(m for m in bench.messages[since:] if m["state"] == "UNREACHABLE")
    assert (message["old_state"], message["last_state"]) == ("ACTIVE", "ACTIVE")
    bench.vcenter.recover(host)
    bench.wait_until_active(host.name)
    assert bench.heard(host.name, since)[0] == "UNREACHABLE"
    assert_can_be_followed(bench.messages)
