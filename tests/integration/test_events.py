# SPDX-License-Identifier: Apache-2.0
"""S17: vCenter's events, EAM's among them, arrive as hints over the inventory's own collector. On both servers."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pyVmomi import vim

from tests.support.vcenters import Admin, VCenter, Watch, wait_for, watching
from vcenter_eam_plugin.vsphere import events
from vcenter_eam_plugin.vsphere.scope import list_compute_resources

POWERED_OFF = "com.vmware.vim.eam.issue.vmPoweredOff"


def post(admin: Admin, host: str, type_id: str = POWERED_OFF, text: str = "posted by a test") -> None:
    """Post an event into vCenter's stream, as EAM does."""
    event = eam_event(host, type_id, text)
    admin.session.call(admin.session.content.eventManager.PostEvent, event, idempotent=False)


def eam_event(host: str, type_id: str = POWERED_OFF, text: str = "posted by a test") -> Any:
    return vim.event.EventEx(
        key=0,
        chainId=0,
        createdTime=dt.datetime.now(dt.UTC),
        userName="",
        eventTypeId=type_id,
        message=text,
        severity="warning",
        objectId=host,
        objectType=vim.HostSystem,
        host=vim.event.HostEventArgument(name="esx", host=vim.HostSystem(host)),
    )


@pytest.fixture
def watch(vcenter: VCenter, admin: Admin):
    cluster = next(one for one in list_compute_resources(admin.session) if one.is_cluster and one.hosts)
    # Something to be history: it happened before anybody watched.
    post(admin, cluster.hosts[0], text="before the start")
    with vcenter.session() as session, watching(session, cluster.path) as watch:
        watch.first_listing()
        yield watch


def test_s17_eam_event_becomes_a_hint(watch: Watch, admin: Admin) -> None:
    """S17: an EAM issue wakes us up, and names the host to read again; history from before the start does not."""
    host = watch.scope[0].hosts[0]
    post(admin, host)
    wait_for(lambda: watch.hints, "the hint")
    (hint,) = watch.hints
    assert hint.kind == POWERED_OFF
    assert hint.host == host
    assert abs(hint.created - dt.datetime.now(dt.UTC).timestamp()) < 60


def test_s17_what_is_not_subscribed_stays_away(watch: Watch, admin: Admin) -> None:
    """The tenants' events cost nothing: only listed types arrive."""
    host = watch.scope[0].hosts[0]
    post(admin, host, type_id="com.example.tenant.noise")
    post(admin, host)
    wait_for(lambda: watch.hints, "the hint")
    assert {hint.kind for hint in watch.hints} == {POWERED_OFF}


def test_p7_events_of_a_gap_are_told_once(watch: Watch, admin: Admin) -> None:
    """A lost session loses no event that is still on the page, and repeats none."""
    host = watch.scope[0].hosts[0]
    post(admin, host)
    wait_for(lambda: len(watch.hints) == 1, "the first hint")
    admin.kill_sessions_but_own()
    post(admin, host)
    watch.next_listing(1)
    wait_for(lambda: len(watch.hints) == 2, "the hint of the gap")
    post(admin, host)
    wait_for(lambda: len(watch.hints) >= 3, "the hint after the gap")
    told = [hint.key for hint in watch.hints]
    assert told == sorted(set(told))


def test_s17_host_events_of_vcenter_are_hints(simulator_vcenter: VCenter) -> None:
    """S17: maintenance of a host shows as events too, for the audit trail."""
    stimuli = simulator_vcenter.simulator.vcenter.stimuli
    with simulator_vcenter.session() as session:
        cluster = next(one for one in list_compute_resources(session) if one.is_cluster)
        host = simulator_vcenter.simulator.world.objects[cluster.hosts[0]]
        with watching(session, cluster.path) as watch:
            watch.first_listing()
            stimuli.enter_maintenance(host)
            wait_for(
                lambda: (
                    {hint.kind for hint in watch.hints}
                    >= {"EnteringMaintenanceModeEvent", "EnteredMaintenanceModeEvent"}
                ),
                "the events of maintenance",
            )
            assert {hint.host for hint in watch.hints} == {host.moid}


def test_burst_wider_than_a_page_says_so(simulator_vcenter: VCenter) -> None:
    """Bug of other consumers: events that a page could not hold were lost without a word."""
    with simulator_vcenter.session() as session:
        cluster = next(one for one in list_compute_resources(session) if one.is_cluster)
        with watching(session, cluster.path) as watch:
            watch.first_listing()
            for _ in range(events.PAGE_SIZE + 20):  # in the server itself, so that none is read in between
                simulator_vcenter.simulator.world.post_event(eam_event(cluster.hosts[0]))
            wait_for(lambda: any(hint.kind == events.OVERFLOW for hint in watch.hints), "the overflow to be told")
