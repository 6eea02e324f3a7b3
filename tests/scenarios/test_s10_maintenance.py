# SPDX-License-Identifier: Apache-2.0
"""S10: a host's maintenance takes its ContrailVM down and brings it back; it is no alarm and nothing to repair."""

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from pyVmomi import vim

from tests.support.bench import Bench
from tests.support.scenario import assert_can_be_followed
from tests.support.simulator import connected
from vcenter_eam_plugin.simulator.host_system import ENTERING, EXITING, IN

ALARMING = {"POWERED_OFF", "SUSPENDED", "MISSING", "FAULTY", "BLOCKED", "UNREACHABLE", "REMOVING", "REMOVED"}


@pytest.fixture
def pair(make_bench: Callable[..., Bench]) -> Bench:
    """Two healthy hosts in one cluster."""
    bench = make_bench(hosts=2, clusters=1)
    bench.start()
    bench.wait_until_active()
    return bench


def assert_no_repair_and_no_alarm(bench: Bench, host: str, since: int) -> None:
    assert not ALARMING & set(bench.heard(host, since)), bench.heard(host, since)
    assert bench.writes("Resolve") == []
    assert bench.alarms() == {}
    other = next(name for name in bench.names() if name != host)
    assert bench.heard(other, since) == []


def watching(bench: Bench) -> bool:
    return bool(bench.unit.pipeline and bench.unit.pipeline.fleet.given_out and bench.unit.pipeline.inventory.live)


def test_in_and_out(pair: Bench) -> None:
    """S10: MAINTENANCE from the moment it begins to enter, then STARTING and ACTIVE; the VM is the same."""
    host, since = pair.vcenter.hosts()[0], len(pair.messages)
    vm = pair.vcenter.agent_vm(host)
    pair.vcenter.enter_maintenance(host)
    pair.wait_for_state(host.name, "MAINTENANCE")
    pair.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    assert not vm.on
    pair.wait_for(lambda: pair.messages[-1]["esxi"]["maintenance"], "the bus says so")
    pair.wait_for(
        lambda: [i.type for i in pair.unit.pipeline.fleet.status(host.moid).eam.issues] == ["HostInMaintenanceMode"],
        "EAM's issue is seen",
    )
    gevent.sleep(0.5)  # past the grace time
    assert pair.heard(host.name, since) == ["MAINTENANCE"]
    pair.vcenter.exit_maintenance(host)
    pair.wait_until_active(host.name)
    assert pair.heard(host.name, since) in (["MAINTENANCE", "STARTING", "ACTIVE"], ["MAINTENANCE", "ACTIVE"])
    assert pair.vcenter.agent_vm(host) is vm
    assert_no_repair_and_no_alarm(pair, host.name, since)
    assert_can_be_followed(pair.messages)


def test_while_entering_the_power_off_is_explained_by_the_task(pair: Bench) -> None:
    """S10: inMaintenanceMode is false for as long as it enters, and EAM powers the VM off in that time."""
    pair.simulator.knobs.change({"enter_maintenance": 1.5})
    host, since = pair.vcenter.hosts()[0], len(pair.messages)
    pair.vcenter.enter_maintenance(host)
    pair.wait_for(lambda: not pair.vcenter.agent_vm(host).on, "EAM powers it off")
    pair.wait_for(
        lambda: any(m["vm"]["power"] == "poweredOff" for m in pair.messages[since:]), "the bus says that it is off"
    )
    assert not host.in_maintenance
    pair.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    assert pair.heard(host.name, since) == ["MAINTENANCE"]
    assert_no_repair_and_no_alarm(pair, host.name, since)


def test_entering_that_is_cancelled_brings_it_back(pair: Bench) -> None:
    """S10: the operator changes his mind while tenants are being moved away."""
    pair.simulator.knobs.change({"evacuate": 5.0})
    host, since = pair.vcenter.hosts()[0], len(pair.messages)
    task = pair.vcenter.enter_maintenance(host)
    pair.wait_for_state(host.name, "MAINTENANCE")
    cancel(pair, task)
    pair.wait_until_active(host.name)
    assert pair.heard(host.name, since) in (["MAINTENANCE", "STARTING", "ACTIVE"], ["MAINTENANCE", "ACTIVE"])
    assert_no_repair_and_no_alarm(pair, host.name, since)


def cancel(bench: Bench, task: Any) -> None:
    with connected(bench.simulator) as instance:
        vim.Task(task.moid, instance._stub).CancelTask()


@pytest.mark.parametrize("moment", ["entering", "in", "leaving"])
def test_the_service_is_stopped_and_started_in_the_middle(pair: Bench, moment: str) -> None:
    """S10: what it missed it sees; nothing is repaired and no false alarm is told, before or after."""
    host, since = pair.vcenter.hosts()[0], len(pair.messages)
    if moment == "entering":
        pair.simulator.knobs.change({"evacuate": 3.0})
    pair.vcenter.enter_maintenance(host)
    pair.wait_for_state(host.name, "MAINTENANCE")
    if moment != "entering":
        pair.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    if moment == "leaving":
        pair.simulator.knobs.change({"power_on": 3.0})
        pair.vcenter.exit_maintenance(host)
        pair.wait_for(lambda: pair.state(host.name) != "MAINTENANCE", "it is seen to leave")
        if pair.state(host.name) == "ACTIVE":
            pytest.fail("ACTIVE before the VM was on")
    pair.stop()
    assert host.phase == {"entering": ENTERING, "in": IN, "leaving": EXITING}[moment], "the test is too slow"
    pair.start()
    pair.wait_for(lambda: watching(pair), "it watches again")
    if moment == "leaving":
        pair.wait_until_active(host.name)
    else:
        pair.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
        pair.wait_for_state(host.name, "MAINTENANCE")
        gevent.sleep(0.5)  # past the grace time
        assert pair.heard(host.name, since) == ["MAINTENANCE"]
        pair.vcenter.exit_maintenance(host)
        pair.wait_until_active(host.name)
    assert_no_repair_and_no_alarm(pair, host.name, since)
    assert_can_be_followed(pair.messages)


def test_entered_and_left_while_the_service_was_down_is_not_told_at_all(pair: Bench) -> None:
    """S10: unchanged means no message."""
    host = pair.vcenter.hosts()[0]
    pair.stop()
    since = len(pair.messages)
    pair.vcenter.enter_maintenance(host)
    pair.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    task = pair.vcenter.exit_maintenance(host)
    pair.wait_for(lambda: str(task.info.state) == "success", "the host is back")
    pair.wait_for(lambda: pair.vcenter.agent_vm(host).heartbeat, "its guest is up")
    pair.start()
    pair.wait_for(lambda: any(m["snapshot"] and not m["key"] for m in pair.messages[since + 1 :]), "the snapshot")
    assert [m["state"] for m in pair.messages[since:] if m["event"] == "state"] == []
    assert_no_repair_and_no_alarm(pair, host.name, since)


def test_a_host_added_in_maintenance_waits_and_is_served_when_it_leaves(bench: Bench) -> None:
    """S10, S09: EAM's issue there is one whose Resolve would drag the host out; nobody resolves it."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.vcenter.enter_maintenance(host)
    bench.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    bench.start()
    bench.wait_for_state(host.name, "MAINTENANCE")
    gevent.sleep(0.5)  # past the grace time
    assert host.in_maintenance
    assert bench.vcenter.agent_vm(host) is None
    bench.vcenter.exit_maintenance(host)
    bench.wait_until_active(host.name)


def test_a_host_removed_in_maintenance_is_removed(pair: Bench) -> None:
    """S10: the usual way a host leaves for good; the other one is not concerned."""
    host, since = pair.vcenter.hosts()[0], len(pair.messages)
    pair.vcenter.enter_maintenance(host)
    pair.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    pair.wait_for_state(host.name, "MAINTENANCE")
    pair.vcenter.remove_host(host)
    pair.wait_for(lambda: pair.state(host.name) is None, "it is removed")
    assert [s for s in pair.heard(host.name, since) if s != "REMOVING"] == ["MAINTENANCE", "REMOVED"]
    assert pair.messages[-1]["oper"] == "DELETE"
