# SPDX-License-Identifier: Apache-2.0
"""S02: one login serves vCenter and EAM, its end is survived, and a wrong password is said and not hammered."""

from collections.abc import Callable
from pathlib import Path

import gevent
import pytest

from tests.support.bench import Bench
from tests.support.scenario import Wire, assert_can_be_followed
from tests.support.simulator import MAX_SESSIONS, assert_no_leaks
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.options import Secret


def quiet_period(bench: Bench, polls: int = 2) -> None:
    """Until EAM was read so many times more: whatever was going to happen has happened."""
    for _ in range(polls):
        before = bench.unit.pipeline.poll.read_at
        bench.unit.pipeline.poll.wake()
        bench.wait_for(lambda before=before: bench.unit.pipeline.poll.read_at != before, "another poll")


def test_one_login_serves_vcenter_and_eam(bench: Bench) -> None:
    """S02: EAM is authenticated by the vCenter session's cookie; nothing else logs in."""
    wire = Wire(bench.simulator)
    bench.start()
    bench.wait_until_active()
    assert wire.count("Login") == 1
    assert {call.user for call in wire.calls if call.path == "/eam/sdk"} == {bench.simulator.user}
    assert_no_leaks(bench.simulator, sessions=1, collectors=1)


def test_a_session_that_is_killed_is_renewed_once_and_no_change_is_lost(bench: Bench) -> None:
    """S02: the change happens while nobody is logged in; both intakes notice the loss, and one of them logs in."""
    wire = Wire(bench.simulator)
    bench.start(mode=Mode.ACT, auto_resolve=())
    bench.wait_until_active()
    off, gone, stays = bench.names()
    bench.simulator.faults.inject("session_kill")
    bench.vcenter.power_off(bench.vcenter.agent_vm(off))
    bench.vcenter.remove_host(gone)
    bench.wait_for_state(off, "POWERED_OFF")
    bench.wait_for(lambda: bench.state(gone) is None, f"{gone} is gone")
    assert bench.heard(gone)[-1] == "REMOVED"
    assert bench.state(stays) == "ACTIVE"
    quiet_period(bench)
    assert wire.count("Login") == 2, "one at the start, one after the kill"
    assert_can_be_followed(bench.messages)
    assert_no_leaks(bench.simulator, sessions=1, collectors=1)


def test_many_kills_leave_no_session_and_no_collector_behind(bench: Bench) -> None:
    """S02."""
    bench.start()
    bench.wait_until_active()
    inventory = bench.unit.pipeline.inventory
    for _ in range(4):
        listings = inventory.listings
        bench.simulator.faults.inject("session_kill")
        bench.wait_for(lambda before=listings: inventory.listings > before and inventory.live, "it watches again")
        assert len(bench.simulator.sessions.active) <= MAX_SESSIONS
    quiet_period(bench)
    assert_no_leaks(bench.simulator, sessions=1, collectors=1)
    assert [m for m in bench.messages if m["oper"] == "DELETE"] == []


def test_eam_alone_refusing_the_session_is_survived(bench: Bench) -> None:
    """S02: EAM answers InvalidLogin while vCenter is content, as after a restart of its service."""
    bench.start()
    bench.wait_until_active()
    bench.simulator.faults.inject("not_authenticated_once", path="/eam/sdk", count=2)
    host = bench.names()[0]
    since = len(bench.messages)
    bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: "ACTIVE" in bench.heard(host, since), "it was deployed again")
    assert not bench.simulator.faults.active, "the fault was met"


def test_a_cookie_of_eams_own_does_not_replace_the_sessions(bench: Bench) -> None:
    """S02: EAM's web server sets a JSESSIONID; a client that takes it for the session logs in for ever."""
    wire = Wire(bench.simulator)
    bench.simulator.faults.inject("set_cookie_overwrite")
    bench.start()
    bench.wait_until_active()
    quiet_period(bench)
    assert wire.count("Login") == 1


@pytest.mark.parametrize("fault", ["empty_reads", "missing_set"])
def test_a_dead_session_that_answers_empty_deletes_nothing(bench: Bench, fault: str) -> None:
    """S02: an expired session can answer without any object, or with everything in missingSet, and no error."""
    bench.start()
    bench.wait_until_active()
    listings, since = bench.unit.pipeline.inventory.listings, len(bench.messages)
    injected = bench.simulator.faults.inject(fault, count=6)
    bench.simulator.faults.inject("collector_lost")
    bench.wait_for(lambda: injected.hits >= 2, "the fault is met again and again")
    bench.simulator.faults.clear()
    bench.wait_for(lambda: bench.unit.pipeline.inventory.listings > listings, "it watches again")
    quiet_period(bench)
    assert [(m["oper"], m["state"]) for m in bench.messages[since:]] == []
    host = bench.names()[0]
    bench.vcenter.enter_maintenance(host)
    bench.wait_for_state(host, "MAINTENANCE")


def test_a_wrong_password_is_an_alarm_that_a_right_one_in_the_file_ends(
    bench: Bench, quick_retries: None, tmp_path: Path
) -> None:
    """S02: nothing is touched meanwhile, and the wrong one is not offered often enough to lock the account."""
    wire = Wire(bench.simulator)
    file = tmp_path / "password"
    file.write_text("Tr0ub4dor\n")
    bench.start(vcenter={"vc_password": Secret(file=file)})
    bench.wait_for(lambda: "connect" in bench.alarms(), "the alarm")
    sentence = bench.alarms()["connect"]
    assert bench.simulator.user in sentence
    assert "Tr0ub4dor" not in str(bench.service.status())
    assert bench.service.status()["vcenters"][0]["connected"] is False
    gevent.sleep(0.5)  # several retries would fit; the account must not see them
    assert wire.count("Login") == 1
    assert {call.user for call in wire.calls} == {""}
    file.write_text(bench.simulator.password + "\n")
    bench.wait_until_active()
    assert bench.alarms() == {}


def test_a_password_changed_under_a_running_service_is_read_anew(
    bench: Bench, quick_retries: None, tmp_path: Path
) -> None:
    """S02: the account's password is rotated, the session ends, and the file follows later."""
    file = tmp_path / "password"
    file.write_text(bench.simulator.password)
    bench.start(vcenter={"vc_password": Secret(file=file)})
    bench.wait_until_active()
    host, since = bench.names()[0], len(bench.messages)
    bench.simulator.add_user(bench.simulator.user, "rotated", "all")
    bench.simulator.faults.inject("session_kill")
    bench.vcenter.enter_maintenance(host)
    bench.wait_for(lambda: "eam" in bench.alarms(), "the alarm")
    assert "rotated" not in str(bench.service.status())
    assert bench.messages[since:] == []
    file.write_text("rotated")
    bench.wait_for_state(host, "MAINTENANCE")
    bench.wait_for(lambda: bench.alarms() == {}, "no alarm is left")


def test_vcenter_cut_off_for_a_while_is_caught_up_with(make_bench: Callable[..., Bench]) -> None:
    """S02: connections break and are refused; afterwards the bus tells what happened meanwhile, once."""
    bench = make_bench(hosts=2, clusters=1)
    bench.start()
    bench.wait_until_active()
    bench.simulator.faults.inject("network_cut")
    first, second = bench.names()
    bench.vcenter.enter_maintenance(first)
    bench.vcenter.disconnect(second)
    bench.wait_for(lambda: not bench.unit.pipeline.inventory.live, "the loss is noticed")
    bench.wait_for(lambda: bench.vcenter.hosts()[0].in_maintenance, "the host is in maintenance")
    bench.simulator.faults.clear()
    bench.wait_for_state(first, "MAINTENANCE")
    bench.wait_for_state(second, "UNREACHABLE")
    assert bench.heard(second).count("UNREACHABLE") == 1
    assert_can_be_followed(bench.messages)
