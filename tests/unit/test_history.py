# SPDX-License-Identifier: Apache-2.0
"""What is remembered of each ContrailVM for people who look, and what it costs."""

from __future__ import annotations

import tracemalloc

import gevent
import msgspec
import pytest

from vcenter_eam_plugin.domain.status import ContrailVm, Eam, Esxi, Issue, State, VRouter
from vcenter_eam_plugin.history import MOST_GONE, MOST_PER_HOST, History


def status_of(host: str, state: State, reason: str = "because") -> ContrailVm:
    return ContrailVm(
        key=f"{host}.uuid",
        state=state,
        reason=reason,
        esxi=Esxi(
            moref=host, name=f"{host}.example", compute_resource="domain-c1", cluster="A", datacenter="DC0",
            connection="connected", power="poweredOn", maintenance=False, standby="none",
        ),
        vm=None,
        vrouter=VRouter(active=state is State.ACTIVE),
        eam=Eam(),
    )  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def history(clock: Clock) -> History:
    return History(clock)


def test_a_story_is_told_newest_first_and_says_what_was_found(history: History, clock: Clock) -> None:
    history.record("a", [status_of("host-1", State.ACTIVE)])
    clock.now += 5
    history.record("a", [status_of("host-1", State.POWERED_OFF, "the ContrailVM is powered off")])
    newest, oldest = history.lines("a", "host-1")
    assert (newest.at, newest.state, newest.reason, newest.found) == (
        1005.0, State.POWERED_OFF, "the ContrailVM is powered off", False,
    )  # fmt: skip
    assert (oldest.at, oldest.state, oldest.found) == (1000.0, State.ACTIVE, True)
    assert history.lines("b", "host-1") == (), "morefs repeat between vCenters"


def test_a_detail_is_news_for_a_page_and_no_line_of_the_story(history: History) -> None:
    """A heartbeat or an address changes often; a story of fifty of them would tell nothing."""
    status = status_of("host-1", State.ACTIVE)
    history.record("a", [status])
    vrouter = msgspec.structs.replace(status.vrouter, ip="192.0.2.9")
    history.record("a", [msgspec.structs.replace(status, vrouter=vrouter)])
    assert len(history.lines("a", "host-1")) == 1
    assert history.number == 2
    eam = msgspec.structs.replace(status.eam, issues=(Issue(type="VmPoweredOff"),))
    history.record("a", [msgspec.structs.replace(status, eam=eam)])
    assert history.lines("a", "host-1")[0].issues == ("VmPoweredOff",)


def test_a_follower_gets_the_newest_state_of_each_host_in_order(history: History) -> None:
    """However slow it is: nothing is queued for it."""
    history.record("a", [status_of("host-1", State.PENDING), status_of("host-2", State.PENDING)])
    seen = history.number
    for state in (State.DEPLOYING, State.STARTING, State.ACTIVE):
        history.record("a", [status_of("host-2", state)])
    history.record("a", [status_of("host-1", State.DEPLOYING)])
    changes = history.since(seen)
    assert changes is not None
    assert [(c.status.esxi.moref, c.status.state) for c in changes] == [
        ("host-2", State.ACTIVE), ("host-1", State.DEPLOYING),
    ]  # fmt: skip
    assert [c.number for c in changes] == [5, 6]
    assert history.since(history.number) == []


def test_a_number_that_was_never_reached_or_is_forgotten_is_said_to_be(history: History) -> None:
    """Then a follower begins anew, instead of missing that a host left."""
    history.record("a", [status_of("host-0", State.ACTIVE)])
    assert history.since(2) is None
    for number in range(MOST_GONE + 1):
        history.record("a", [status_of(f"host-{number}", State.REMOVED)])
    assert history.since(1) is None
    assert history.since(2) is not None
    assert history.lines("a", "host-0") == ()


def test_who_waits_is_woken_by_a_change_and_by_nothing_else(history: History) -> None:
    woken: list[bool] = []
    waiting = gevent.spawn(lambda: woken.append(history.wait(0, 30.0)))
    gevent.sleep(0)
    history.record("a", [])
    gevent.sleep(0)
    assert not waiting.ready()
    history.record("a", [status_of("host-1", State.ACTIVE)])
    waiting.join(5)
    assert woken == [True]
    assert not history.wait(history.number, 0.001)


def test_a_story_and_a_fleet_of_them_are_bounded(history: History) -> None:
    """docs/adr/0031: 2,500 hosts that changed 50 times each, with reasons that are few."""
    reasons = [f"EAM is at step {number}" for number in range(10)]
    states = [State.DEPLOYING, State.STARTING]
    hosts = [f"host-{number}" for number in range(2500)]
    plain: dict[str, ContrailVm] = {host: status_of(host, State.PENDING) for host in hosts}
    history.record("a", list(plain.values()))
    tracemalloc.start()
    for turn in range(MOST_PER_HOST + 10):
        for host in hosts[:250]:
            changed = msgspec.structs.replace(plain[host], state=states[turn % 2], reason="".join(reasons[turn % 10]))
            history.record("a", [changed])
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(history.lines("a", "host-1")) == MOST_PER_HOST
    mib = used * 10 / 2**20
    print(f"{mib:.1f} MiB for 2,500 full stories")
    assert mib < 40
