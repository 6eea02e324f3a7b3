# SPDX-License-Identifier: Apache-2.0
"""S10: a host's maintenance takes its ContrailVM down and brings it back; it is no alarm and nothing to repair."""

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from pyVmomi import vim

from tests.support.bench import Bench
from tests.support.rules import Watched, has_ended, of_host, violations_now, wait_for_violation, wait_until_kept
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


LATE = "late_power_on_after_maintenance"
HANGS = "exit_maintenance_hangs"


@pytest.fixture
def impatient(make_bench: Callable[..., Bench], quick_looks: None) -> Bench:
    """Two healthy hosts in one cluster, and a service that calls late what takes longer than a moment."""
    bench = make_bench(hosts=2, clusters=1)
    start_impatient(bench)
    bench.wait_until_active()
    return bench


def start_impatient(bench: Bench) -> None:
    bench.start(late_power_on_seconds=0.5, exit_hangs_seconds=0.5)


def enter(bench: Bench, host: Any) -> None:
    bench.vcenter.enter_maintenance(host)
    bench.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    bench.wait_for_state(host.name, "MAINTENANCE")


def test_a_power_on_in_time_is_not_late(impatient: Bench) -> None:
    """S10, rule kept: the host is out of maintenance only when its ContrailVM runs."""
    host = impatient.vcenter.hosts()[0]
    watched = Watched(impatient)
    enter(impatient, host)
    task = impatient.vcenter.exit_maintenance(host)
    impatient.wait_for(lambda: has_ended(task), "the host is back")
    assert impatient.vcenter.agent_vm(host).on
    impatient.wait_until_active(host.name)
    watched.assert_kept(host.name)


def test_eam_powers_it_on_late(impatient: Bench) -> None:
    """S10, rule broken: the host serves without its ContrailVM. Named, left to EAM, and over when it runs."""
    impatient.simulator.knobs.change({"late_power_on_after_maintenance": True, "broken_rule_delay": 2.5})
    host = impatient.vcenter.hosts()[0]
    watched = Watched(impatient)
    enter(impatient, host)
    impatient.vcenter.exit_maintenance(host)
    wait_for_violation(impatient, host.name, LATE)
    assert not impatient.vcenter.agent_vm(host).on
    assert impatient.state(host.name) == "STARTING"
    impatient.wait_until_active(host.name)
    wait_until_kept(impatient, host.name)
    assert watched.violations(host.name) == {LATE}
    assert watched.writes() == []
    assert_no_repair_and_no_alarm(impatient, host.name, watched.since)
    assert_can_be_followed(impatient.messages)


def test_the_service_is_restarted_while_it_is_late(impatient: Bench) -> None:
    """S10: who starts now cannot know since when; what was published goes on until it is over."""
    impatient.simulator.knobs.change({"late_power_on_after_maintenance": True, "broken_rule_delay": 5.0})
    host = impatient.vcenter.hosts()[0]
    enter(impatient, host)
    impatient.vcenter.exit_maintenance(host)
    wait_for_violation(impatient, host.name, LATE)
    impatient.stop()
    since = len(impatient.messages)
    start_impatient(impatient)
    impatient.wait_for(lambda: any(m["snapshot"] and not m["key"] for m in impatient.messages[since + 1 :]), "snapshot")
    assert LATE in violations_now(impatient, host.name)
    impatient.wait_until_active(host.name)
    wait_until_kept(impatient, host.name)
    over = next(m for m in of_host(impatient, host.name, since) if not m["violations"])
    assert over["vm"]["power"] == "poweredOn", "it was over when the ContrailVM ran, and not before"


def test_the_exit_hangs_on_the_contrailvm(impatient: Bench) -> None:
    """S10: EAM does nothing any more, and vCenter waits for its VMs. Said while it lasts; EAM's coming back ends it."""
    host = impatient.vcenter.hosts()[0]
    watched = Watched(impatient)
    enter(impatient, host)
    impatient.vcenter.freeze_eam()
    task = impatient.vcenter.exit_maintenance(host)
    assert "log in" in wait_for_violation(impatient, host.name, HANGS)
    assert not has_ended(task)
    assert impatient.state(host.name) in ("MAINTENANCE", "STARTING")
    impatient.vcenter.thaw_eam()
    impatient.wait_until_active(host.name)
    wait_until_kept(impatient, host.name)
    assert watched.violations(host.name) == {HANGS}
    assert watched.writes() == []
    assert_no_repair_and_no_alarm(impatient, host.name, watched.since)


def test_an_exit_that_hangs_is_given_up(impatient: Bench) -> None:
    """S10: the operator's own deadline. The host is out, its ContrailVM is not on: it does not hang, it is late."""
    host = impatient.vcenter.hosts()[0]
    enter(impatient, host)
    impatient.vcenter.freeze_eam()
    impatient.vcenter.exit_maintenance(host, timeout=2)
    wait_for_violation(impatient, host.name, HANGS)
    wait_for_violation(impatient, host.name, LATE)
    assert list(violations_now(impatient, host.name)) == [LATE]
    impatient.vcenter.thaw_eam()
    impatient.wait_until_active(host.name)
    wait_until_kept(impatient, host.name)
    assert impatient.writes("Resolve") == []


def test_disconnected_in_maintenance_and_back(impatient: Bench) -> None:
    """S10, S15: UNREACHABLE and MAINTENANCE again; the exit is judged as any other."""
    host = impatient.vcenter.hosts()[0]
    watched = Watched(impatient)
    enter(impatient, host)
    impatient.vcenter.disconnect(host)
    impatient.wait_for_state(host.name, "UNREACHABLE")
    impatient.vcenter.reconnect(host)
    impatient.wait_for_state(host.name, "MAINTENANCE")
    impatient.vcenter.exit_maintenance(host)
    impatient.wait_until_active(host.name)
    watched.assert_kept(host.name, besides=frozenset({"UNREACHABLE"}))


def test_tenants_that_cannot_leave_keep_the_contrailvm_on(pair: Bench) -> None:
    """S10: a cluster without DRS. Entering does not end, the vRouter serves, and given up it is as it was."""
    host = pair.vcenter.hosts()[0]
    pair.vcenter.set_drs(host.compute_resource, False)
    tenant, watched = pair.vcenter.add_tenant(host), Watched(pair)
    task = pair.vcenter.enter_maintenance(host, timeout=1)
    pair.wait_for_state(host.name, "MAINTENANCE")
    pair.wait_for(lambda: has_ended(task), "it is given up")
    assert pair.vcenter.agent_vm(host).on
    assert tenant.on
    pair.wait_until_active(host.name)
    watched.assert_kept(host.name)


def test_partial_maintenance_leaves_what_runs_alone(pair: Bench) -> None:
    """S10: a quick patch of the host. The ContrailVM runs on, and there is nothing to tell."""
    host = pair.vcenter.hosts()[0]
    watched = Watched(pair)
    pair.vcenter.partial_maintenance(host)
    pair.vcenter.disconnect(pair.vcenter.hosts()[1])
    pair.wait_for_state(pair.vcenter.hosts()[1].name, "UNREACHABLE")  # what came before it has been seen
    pair.vcenter.partial_maintenance(host, False)
    watched.assert_kept(pair.vcenter.hosts()[1].name, besides=frozenset({"UNREACHABLE"}))


def test_powered_off_in_partial_maintenance_waits_for_its_end(pair: Bench) -> None:
    """S10, S08: EAM cannot power it on meanwhile and says so; nobody resolves that, and its end is enough."""
    host = pair.vcenter.hosts()[0]
    pair.vcenter.partial_maintenance(host)
    pair.vcenter.power_off(pair.vcenter.agent_vm(host))
    pair.wait_for(
        lambda: [m for m in of_host(pair, host.name) if "HostInPartialMaintenanceMode" in str(m["eam"]["issues"])],
        "EAM's issue is on the bus",
    )
    resolved = len(pair.writes("Resolve"))
    gevent.sleep(0.5)  # past the grace time
    assert pair.state(host.name) == "MAINTENANCE"
    assert len(pair.writes("Resolve")) == resolved <= 1
    pair.vcenter.partial_maintenance(host, False)
    pair.wait_until_active(host.name)
    assert pair.alarms() == {}
