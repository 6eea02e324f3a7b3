# SPDX-License-Identifier: Apache-2.0
"""P7, P10: every way in which vCenter and EAM are known to fail whoever watches them, and back within 30 s.

Each test is one reported behaviour. While it lasts a host is removed, one added, one goes into maintenance and one
comes out of it; afterwards what the bus told equals vCenter, deletions included, and what was not touched was not
mentioned. Every bench asserts that never more than three sessions and one collector were open.
"""

from collections.abc import Callable

import pytest
from pyVmomi import vim

from tests.support.bench import Bench
from tests.support.gap import Gap
from tests.support.proxy import Proxy
from vcenter_eam_plugin.vsphere import session, stream

RARELY = 300.0
"""Seconds between polls: what is noticed sooner was heard of."""
WAIT = {"vc_wait_seconds": 1, "vc_call_timeout": 2.0}


@pytest.fixture
def four(make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Four hosts in two clusters, not started; a dead peer is noticed within seconds."""
    monkeypatch.setattr(session, "WAIT_MARGIN_SECONDS", 0.5)
    monkeypatch.setattr(session, "DEADLINE_MARGIN_SECONDS", 0.5)
    return make_bench(hosts=4, clusters=2)


@pytest.fixture
def gap(four: Bench) -> Gap:
    """Started, with one host in maintenance."""
    four.start(vcenter=WAIT)
    return Gap(four)


# --- sessions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["session_kill", "session_kill_quiet", "session_goes_empty", "session_goes_missing", "collector_lost"]
)
def test_p7_the_session_or_its_collector_is_gone(four: Bench, gap: Gap, fault: str) -> None:
    """Killed in a wait (vic #5343; govmomi's simulator lets the wait run out); reads that succeed empty (pyvmomi #43,
    oslo.vmware); everything in missingSet (meho #3773: never recovers); InvalidCollectorVersion (OVSvApp)."""
    four.simulator.faults.inject(fault)
    gap.change()
    gap.converge()
    assert four.unit.pipeline.inventory.listings > gap.listings, "the fault was met"


def test_p7_no_session_is_to_be_had(four: Bench, gap: Gap) -> None:
    """CAPV #1503, #1552, #1818; vpxd: "Out of HTTP sessions: Limited to 2000". 503, until others log out."""
    refused = four.simulator.faults.inject("sessions_full")
    four.simulator.faults.inject("session_kill")
    gap.change()
    assert "503" in gap.notice()["why"]
    gap.notice("eam")
    four.wait_for(lambda: refused.hits >= 3, "it is tried again")
    assert four.simulator.sessions.active == []
    gap.converge(four.simulator.faults.clear)


def test_p7_no_collector_is_to_be_had(four: Bench, gap: Gap) -> None:
    """govmomi #948, #962: out of collectors, creating one fails or answers nothing."""
    four.simulator.faults.inject("creates_nothing")
    four.simulator.faults.inject("collector_lost")
    gap.change()
    assert "out of collectors" in gap.notice()["why"]
    gap.converge(four.simulator.faults.clear)


# --- the network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["half_open", "network_cut"])
def test_p7_the_server_is_silent_or_gone(four: Bench, gap: Gap, fault: str) -> None:
    """pyvmomi #176, #548, #525: a request that nobody answers would block for ever."""
    four.simulator.faults.inject(fault)
    gap.change()
    gap.notice()
    gap.converge(four.simulator.faults.clear)


def test_p7_connections_that_died_without_a_word(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, as a firewall does it: what was open is dead for good, whoever connects anew is served. Several dead
    connections lie in the pools; each must not cost a time-out of its own."""
    monkeypatch.setattr(session, "WAIT_MARGIN_SECONDS", 0.5)
    bench = make_bench(hosts=4, clusters=2)
    with Proxy((bench.simulator.host, bench.simulator.port)).running() as proxy:
        bench.start(vcenter={"vc_wait_seconds": 1, "vc_call_timeout": 4.0, "vc_port": proxy.port})
        gap = Gap(bench)
        proxy.forget()
        gap.change()
        gap.converge()
        bench.stop()


# --- vCenter restarts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", ["eam_not_initialized", "eam_loading"])
def test_p7_vcenter_restarts_and_eam_is_late(four: Bench, gap: Gap, late: str) -> None:
    """Refused, then 503, then up while EAM still loads (Java plugin #1650066; EamServiceNotInitialized). Nothing is
    created, deleted or said to be gone meanwhile but the host that vCenter itself has lost."""
    faults = four.simulator.faults
    faults.inject("network_cut")
    faults.inject("session_kill")
    gap.change()
    gap.notice()
    writes = len(four.writes())
    faults.inject("http_503")
    faults.clear("network_cut")
    four.wait_for(lambda: "503" in str(four.unit.status()["sources"]["inventory"]["why"]), "503 is met")
    loading = faults.inject(late)
    faults.clear("http_503")
    four.wait_for(lambda: four.unit.pipeline.inventory.live, "vCenter is watched again")
    four.wait_for(lambda: loading.hits >= 2, "EAM is asked again and again")
    status = four.unit.status()["sources"]
    assert (status["inventory"]["live"], status["eam"]["live"]) == (True, False)
    assert "EAM" in status["eam"]["why"]
    assert {m["esxi"]["name"] for m in four.messages[gap.since :] if m["state"] == "PENDING"} <= {gap.added.name}
    # The Agent VM settings of a new host are vCenter's affair, and need no EAM.
    assert {call.fields["method"] for call in four.writes()[writes:]} <= {"EsxAgentHostManagerUpdateConfig"}
    gap.converge(faults.clear)


# --- pages -------------------------------------------------------------------------------------------------


def test_p7_every_answer_is_truncated(four: Bench, gap: Gap) -> None:
    """WaitOptions: the collector's policy may give less than was asked for. Each tail must be fetched."""
    four.simulator.faults.inject("small_pages")
    four.simulator.faults.inject("collector_lost")
    gap.change()
    gap.converge()
    assert four.unit.pipeline.inventory.listings == gap.listings + 1, "one listing, however many pages"


# --- events ------------------------------------------------------------------------------------------------


def burst(bench: Bench, host: str, count: int) -> None:
    """So many identical events of a kind that is listened for."""
    found = next(one for one in bench.simulator.world.objects.values() if one.get("name") == host)
    argument = vim.event.HostEventArgument(name=host, host=found.ref)
    for _ in range(count):
        bench.simulator.event_manager.post(vim.event.HostConnectedEvent(host=argument))


def test_p7_more_events_than_a_page_holds_in_any_order(four: Bench) -> None:
    """CVM c5a0537, vic #5047: what is not on the page is lost, and the page has no order. EAM is polled rarely, so what
    EAM alone knows is found because the loss is noticed."""
    four.start(vcenter=WAIT, poll_seconds=RARELY)
    gap = Gap(four)
    four.simulator.faults.inject("events_unordered")
    slow = four.simulator.faults.inject("slow", method="WaitForUpdatesEx", delay=1.5, count=1)
    burst(four, gap.untouched.name, 1)  # ends the wait that is under way: the next one is slow
    four.wait_for(lambda: slow.hits, "nobody is listening")
    gap.change()
    burst(four, gap.untouched.name, 250)
    gap.converge()


def test_p7_the_burst_filter_leaves_out_events(four: Bench, gap: Gap) -> None:
    """VMware's documentation: of a burst of identical events history keeps few; who comes back finds those."""
    four.simulator.faults.inject("events_consolidated")
    four.simulator.faults.inject("session_kill")
    burst(four, gap.untouched.name, 200)
    gap.change()
    gap.converge()


def test_p7_events_that_the_account_may_not_see_fill_the_page(four: Bench) -> None:
    """govmomi #3450: a gap wider than a page, and nothing comes any more."""
    four.start(vcenter=WAIT, poll_seconds=1.0)
    gap = Gap(four)
    four.simulator.faults.inject("events_hidden")
    gap.change()
    gap.converge()


def test_p7_keys_of_events_wrap(four: Bench) -> None:
    """VEBA #809: who asks for what is newer than the last key hears nothing more. EAM is polled rarely."""
    four.start(vcenter=WAIT, poll_seconds=RARELY)
    gap = Gap(four)
    four.simulator.faults.inject("event_keys_wrap")
    gap.change()
    gap.converge()
    (cluster, _) = four.vcenter.clusters()
    four.vcenter.disable_cluster(cluster)  # only an event tells
    four.wait_for(lambda: four.unit.status()["agency"]["status"] == "red", "the agency is red")


def test_p7_events_are_refused_and_come_back(four: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """EventManager: InvalidState beyond the limit of event collectors. Everything else goes on; it is asked again."""
    monkeypatch.setattr(stream, "EVENTS_RETRY_SECONDS", 0.5)
    four.start(vcenter=WAIT, poll_seconds=1.0)
    gap = Gap(four)
    four.simulator.faults.inject("raise_fault", method="CreateCollectorForEvents", fault="vim.fault.InvalidState")
    four.simulator.faults.inject("collector_lost")
    gap.change()
    gap.converge()
    four.wait_for(lambda: "InvalidState" in str(gap.notice("events")["why"]), "the refusal is said")
    listings = four.unit.pipeline.inventory.listings
    assert four.unit.status()["sources"]["events"]["live"] is False
    four.simulator.faults.clear()
    four.wait_for(lambda: four.unit.status()["sources"]["events"]["live"], "events are heard again")
    assert four.unit.pipeline.inventory.listings == listings, "without listing everything anew"


# --- permissions -------------------------------------------------------------------------------------------


def test_p7_hosts_that_the_account_may_not_see_for_a_while(four: Bench, gap: Gap, quick_retries: None) -> None:
    """A role that was taken away: what cannot be seen is not gone. The missing privilege is named."""
    four.simulator.faults.inject("permission_gap")
    gap.change()
    assert "System.View" in gap.notice()["why"]
    # That the one which was removed is gone may be seen at once: it is asked for by itself, and is no secret.
    told = {m["esxi"]["name"] for m in four.messages[gap.since :] if m["oper"] == "DELETE"}
    assert told <= {gap.removed.name}
    gap.converge(four.simulator.faults.clear)
