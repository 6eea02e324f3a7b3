# SPDX-License-Identifier: Apache-2.0
"""S07: a ContrailVM that was powered off or deleted is reported at once, and the agency goes red."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.scenario import assert_can_be_followed
from vcenter_eam_plugin.config import Mode

AT_ONCE = 1.0
"""Seconds on a busy machine with two cores; measured: some tens of milliseconds."""


@pytest.fixture
def watched(bench: Bench) -> Bench:
    """A healthy fleet that is looked at only, so that nothing is repaired under the test's eyes."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    since = len(bench.messages)
    bench.start(mode=Mode.OBSERVE)
    bench.wait_for(lambda: any(m["snapshot"] and not m["key"] for m in bench.messages[since + 1 :]), "the snapshot")
    return bench


def truth_at(bench: Bench, since: int, host: Any, **wanted: Any) -> float:
    """When (POSIX seconds) the simulated host's truth became so, by the journal from an index on."""
    entries = bench.simulator.journal.entries[since:]
    entries = [e for e in entries if e.kind == "truth" and e.fields["host"] == host.moid]
    return next(e.wall.timestamp() for e in entries if all(e.fields.get(k) == v for k, v in wanted.items()))


@pytest.mark.parametrize(
    ("verb", "state", "truth", "issue"),
    [
        ("power_off", "POWERED_OFF", {"vm_power": "poweredOff"}, "VmPoweredOff"),
        ("suspend", "SUSPENDED", {"vm_power": "suspended"}, "VmSuspended"),
        ("destroy", "MISSING", {"vm": None}, "VmNotDeployed"),
    ],
)
def test_it_is_on_the_bus_at_once_and_the_agency_is_red(
    watched: Bench, record_property: Callable[[str, object], None], verb: str, state: str, truth: dict[str, Any],
    issue: str,
) -> None:  # fmt: skip
    """S07: and EAM's issue follows, as a detail of the same state."""
    bench = watched
    host = bench.vcenter.hosts()[0]
    heard_at: list[float] = []
    callback = bench.listener._callback

    def note(message: dict[str, Any]) -> None:
        if message["state"] == state and not heard_at:
            heard_at.append(time.time())
        callback(message)

    bench.listener._callback = note
    since = len(bench.simulator.journal)
    getattr(bench.vcenter, verb)(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host.name, state)
    milliseconds = (heard_at[0] - truth_at(bench, since, host, **truth)) * 1000
    record_property("milliseconds_from_truth_to_listener", round(milliseconds, 1))
    print(f"{verb}: {milliseconds:.0f} ms from vCenter's truth to the listener")
    assert milliseconds < AT_ONCE * 1000
    bench.wait_for(
        lambda: issue in [i["type"] for i in bench.listener.view.states[message_key(bench, host)]["eam"]["issues"]],
        "the issue is on the bus",
    )
    bench.wait_for(lambda: bench.unit.pipeline.status()["agency"]["status"] == "red", "the agency is red")
    message = bench.listener.view.states[message_key(bench, host)]
    assert (message["state"], message["eam"]["status"], message["vrouter"]["active"]) == (state, "red", False)
    for other in bench.names()[1:]:
        assert bench.state(other) == "ACTIVE", "the others are not affected"
    assert_can_be_followed(bench.messages)


def message_key(bench: Bench, host: Any) -> str:
    return f"{host.moid}.{bench.unit.session.instance_uuid}"


def test_deleted_while_powered_off_is_two_reports(watched: Bench) -> None:
    """S07: each step of a person who cleans up the wrong VM."""
    bench = watched
    host, since = bench.names()[0], len(bench.messages)
    bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host, "POWERED_OFF")
    bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host, "MISSING")
    assert bench.heard(host, since) == ["POWERED_OFF", "MISSING"]


def test_powered_off_and_on_again_by_a_person_is_active_again(watched: Bench) -> None:
    """S07: nobody has to acknowledge what is well again."""
    bench = watched
    host, since = bench.names()[0], len(bench.messages)
    vm = bench.vcenter.agent_vm(host)
    bench.vcenter.power_off(vm)
    bench.wait_for_state(host, "POWERED_OFF")
    bench.vcenter.power_on(vm)
    bench.wait_for_state(host, "ACTIVE")
    assert bench.heard(host, since)[0] == "POWERED_OFF"
    bench.wait_for(lambda: bench.unit.pipeline.status()["agency"]["status"] == "green", "the agency is green")


def test_a_damaged_vm_is_faulty_and_waits_for_a_person(make_bench: Callable[..., Bench]) -> None:
    """S07: VmCorrupted is not resolved by itself: that would delete the VM with what is on its disks."""
    bench = make_bench(hosts=1, clusters=1)
    bench.start()
    bench.wait_until_active()
    (host,) = bench.names()
    bench.vcenter.corrupt(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host, "FAULTY")
    assert "VmCorrupted" in bench.messages[-1]["reason"]
    bench.wait_for(
        lambda: any("VmCorrupted" in why for why in sum(bench.unit.pipeline.status()["waiting"].values(), [])),
        "it is said what it waits for",
    )
    assert bench.writes("Resolve") == []
    assert bench.vcenter.agent_vm(host) is not None


def test_what_happened_while_nobody_watched_is_reported_once_at_the_start(bench: Bench) -> None:
    """S07: the service was down; one message per ContrailVM says what became of it."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    off, deleted, untouched = bench.names()
    since = len(bench.messages)
    bench.vcenter.power_off(bench.vcenter.agent_vm(off))
    bench.vcenter.destroy(bench.vcenter.agent_vm(deleted))
    bench.start(mode=Mode.OBSERVE)
    bench.wait_for_state(off, "POWERED_OFF")
    bench.wait_for_state(deleted, "MISSING")
    assert bench.heard(off, since) == ["POWERED_OFF"]
    assert bench.heard(deleted, since) == ["MISSING"]
    assert bench.heard(untouched, since) == []
