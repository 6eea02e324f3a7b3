# SPDX-License-Identifier: Apache-2.0
"""S10-S16: when rules are looked at, what that reads, and what is published of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from gevent.event import Event

from tests.support.facts import a_fleet, a_host, a_vm
from vcenter_eam_plugin import rule_watch
from vcenter_eam_plugin.domain.errors import Unavailable
from vcenter_eam_plugin.domain.facts import ConnectionState, HostFacts, HostPower, StandbyMode, VmPower
from vcenter_eam_plugin.domain.observations import InventoryObserved
from vcenter_eam_plugin.domain.status import ContrailVm, Violation
from vcenter_eam_plugin.domain.violations import LATE_SECONDS, Sight, SlotCount, Times, broken_rules
from vcenter_eam_plugin.rule_watch import RuleWatcher

OFF = VmPower.POWERED_OFF


class Watch:
    """Two hosts, and the reads that the watcher makes, answered by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.fleet = a_fleet(a_host(1), a_host(2))
        self.tenants: dict[str, frozenset[str]] = {}
        self.asked: list[tuple[str, ...]] = []
        self.error: Exception | None = None
        self.published: list[ContrailVm] = []
        monkeypatch.setattr(rule_watch, "read_tenants", self._read_tenants)
        monkeypatch.setattr(rule_watch, "read_slots", lambda session, clusters: {})
        self.watcher = RuleWatcher(
            SimpleNamespace(),  # type: ignore[arg-type]
            self.fleet,
            publish=self.published.extend,
            times=Times(),
            slots_seconds=60.0,
            clock=lambda: self.now,
            stopping=Event(),
            log=logging.getLogger("test.rules"),
        )
        for host in self.fleet.hosts:
            self.watcher.observe(host, self.now)

    def _read_tenants(self, session: Any, hosts: Sequence[str]) -> dict[str, frozenset[str]]:
        self.asked.append(tuple(hosts))
        if self.error:
            raise self.error
        return {host: self.tenants.get(host, frozenset()) for host in hosts}

    def see(self, *, host: HostFacts | None = None, **vm: Any) -> None:
        """The first host, or its ContrailVM, changes."""
        self.now += 1
        hosts = (host,) if host is not None else ()
        vms = (a_vm(1, **vm),) if vm else ()
        self.fleet.apply(InventoryObserved(self.now, hosts=hosts, vms=vms))
        self.watcher.observe("host-1", self.now)

    def look(self, seconds: float = 2.0) -> list[str]:
        """One round; the names of what is broken on the first host."""
        self.now += seconds
        self.watcher._read()
        self.watcher.look()
        status = self.fleet.status("host-1")
        assert status is not None
        return [violation.name for violation in status.violations]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def test_while_all_is_well_nothing_is_asked_and_nothing_published(watch: Watch) -> None:
    """S12: the cost follows what is wrong."""
    assert watch.look() == []
    assert set(watch.asked) == {()}
    assert watch.published == []


def test_a_host_at_rest_is_judged_again_once_something_is_seen_of_it(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,500 hosts that are well cost nothing; one whose ContrailVM is off or waited for is judged at each look."""
    judged: list[str] = []

    def noting(sight: Sight) -> tuple[Violation, ...]:
        judged.append(sight.host.moref)
        return broken_rules(sight)

    monkeypatch.setattr(rule_watch, "broken_rules", noting)
    watch.look()
    assert sorted(judged) == ["host-1", "host-2"]
    watch.look()
    assert len(judged) == 2
    watch.see(power=OFF)
    watch.look()
    watch.look()
    assert judged[2:] == ["host-1", "host-1"]


def test_what_ha_counts_is_looked_at_for_hosts_at_rest_too(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """S16: nothing of the host changed, and HA counts its ContrailVM all the same; and then no more."""
    counts = {"domain-c1": SlotCount(counted_vms=2, powered_on_vms=2)}
    monkeypatch.setattr(rule_watch, "read_slots", lambda session, clusters: counts)
    assert watch.look() == []
    assert watch.look(60.0) == ["slots_count_agents"]
    counts["domain-c1"] = SlotCount(counted_vms=0, powered_on_vms=2)
    assert watch.look(60.0) == []


def test_only_hosts_whose_contrailvm_is_down_are_asked(watch: Watch) -> None:
    watch.see(power=OFF)
    watch.look()
    assert watch.asked[-1] == ("host-1",)
    watch.see(host=a_host(1, connection=ConnectionState.NOT_RESPONDING))
    watch.look()
    assert watch.asked[-1] == (), "one that cannot be reached is not asked"


def test_a_violation_is_published_once_and_its_end_too(watch: Watch) -> None:
    """S12: a tenant that arrives while the vRouter is unusable; one that was there before did not."""
    watch.see(power=OFF)
    watch.tenants["host-1"] = frozenset({"vm-7"})
    assert watch.look() == ["tenants_on_unusable_host"]
    assert watch.look() == ["tenants_on_unusable_host"]
    assert len(watch.published) == 1
    watch.tenants["host-1"] = frozenset({"vm-7", "vm-8"})
    assert watch.look() == ["tenant_moved_to_unusable_host", "tenants_on_unusable_host"]
    assert len(watch.published) == 2
    watch.see(power=VmPower.POWERED_ON)
    assert watch.look() == []
    assert watch.published[-1].violations == ()


def test_what_cannot_be_read_is_not_over(watch: Watch) -> None:
    """S12: a rule is not kept because it could not be looked at; the greenlet goes on."""
    watch.see(power=OFF)
    watch.tenants["host-1"] = frozenset({"vm-7"})
    watch.look()
    watch.error = Unavailable("vCenter is away")
    with pytest.raises(Unavailable):
        watch.look()
    watch.watcher.look()
    status = watch.fleet.status("host-1")
    assert status is not None
    assert [violation.name for violation in status.violations] == ["tenants_on_unusable_host"]


def test_late_after_maintenance_counts_from_its_end(watch: Watch) -> None:
    """S10: two minutes after it, off is late; in maintenance it never is."""
    watch.see(power=OFF)
    watch.see(host=a_host(1, in_maintenance=True))
    assert watch.look(10 * LATE_SECONDS) == []
    watch.see(host=a_host(1))
    assert watch.look(LATE_SECONDS - 1) == []
    assert watch.look(2) == ["late_power_on_after_maintenance"]


def test_a_host_that_wakes_comes_back_from_standby_and_was_not_lost(watch: Watch) -> None:
    """Bug: on its way out of standby it is not connected yet; it was taken for lost, and a tenant VM that DRS moved
    there too early for one that was started before its ContrailVM."""
    asleep = a_host(1, standby=StandbyMode.IN, power=HostPower.STAND_BY, connection=ConnectionState.NOT_RESPONDING)
    watch.see(power=OFF)
    watch.see(host=asleep)
    watch.see(host=replace(asleep, standby=StandbyMode.EXITING))
    watch.see(host=a_host(1))
    watch.look()
    watch.tenants["host-1"] = frozenset({"vm-7"})
    assert "tenant_moved_to_unusable_host" in watch.look()
    status = watch.fleet.status("host-1")
    assert status is not None
    assert "agent_not_first_after_restart" not in [violation.name for violation in status.violations]


def test_a_host_that_left_is_not_watched_any_more(watch: Watch) -> None:
    watch.see(power=OFF)
    watch.fleet.apply(InventoryObserved(watch.now, gone=("host-1", "vm-1")))
    watch.watcher.observe("host-1", watch.now)
    watch.watcher._read()
    watch.watcher.look()
    assert watch.asked[-1] == ()
