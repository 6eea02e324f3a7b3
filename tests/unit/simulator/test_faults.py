# SPDX-License-Identifier: Apache-2.0
"""Faults by name are repeatable, limited as asked, and named wrongly only with a list of the right names."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
from pyVmomi import eam, vim, vmodl

from tests.support.simulator import connected, wait_for
from tests.support.simulator_calls import PC, Bench
from vcenter_eam_plugin.simulator.faults import CATALOGUE, Faults
from vcenter_eam_plugin.simulator.server import Simulator


def hits(faults: Faults, path: str = "/sdk", method: str = "Login") -> set[str]:
    return set(faults.take(path, method))


def test_limits_by_path_method_and_count() -> None:
    faults = Faults()
    faults.inject("http_503", path="/eam/sdk")
    faults.inject("slow", method="Logout", delay=1)
    one = faults.inject("truncated_response", count=2)
    assert hits(faults) == {"truncated_response"}
    assert hits(faults, "/eam/sdk", "Logout") == {"http_503", "slow", "truncated_response"}
    assert hits(faults) == set()
    assert one.hits == 2


def test_probability_is_repeatable() -> None:
    def run(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.inject("http_503", probability=0.5)
        return [bool(hits(faults)) for _ in range(50)]

    assert run(1) == run(1) != run(2)
    assert 10 < sum(run(1)) < 40


def test_clearing_one_name_leaves_the_others() -> None:
    faults = Faults()
    faults.inject("http_503")
    faults.inject("slow")
    assert faults.clear("slow") == 1
    assert faults.on("http_503")
    assert faults.clear() == 1
    assert faults.active == []


@pytest.mark.parametrize(
    "wrong",
    [{"name": "nothing"}, {"name": "slow", "probability": 2.0}, {"name": "slow", "count": 0}, {"name": "raise_fault"}],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    faults = Faults()
    with pytest.raises(ValueError, match=r"there is no|must be|needs"):
        faults.inject(**wrong)  # type: ignore[arg-type]
    assert faults.active == []


def test_every_fault_has_its_sentence() -> None:
    assert all(text.endswith(".") for text in CATALOGUE.values())


def test_faults_of_one_call(bench: Bench) -> None:
    faults = bench.simulator.faults
    faults.inject("not_authenticated_once")
    with pytest.raises(vim.fault.NotAuthenticated):
        bench.instance.CurrentTime()
    bench.instance.CurrentTime()
    faults.inject("eam_not_initialized", count=1)
    bench.instance.CurrentTime()
    with pytest.raises(eam.fault.EamServiceNotInitialized, match="still loading"):
        bench.eam().QueryAgency()
    faults.inject("raise_fault", fault="vim.fault.Timedout", method="CurrentTime", count=1)
    bench.instance.RetrieveContent()
    with pytest.raises(vim.fault.Timedout):
        bench.instance.CurrentTime()
    faults.inject("session_kill")
    with pytest.raises(vim.fault.NotAuthenticated):
        bench.instance.CurrentTime()


# --- reads that leave something out ------------------------------------------------------------------------


@pytest.fixture
def hosts(bench: Bench) -> list[str]:
    """References of the hosts, in order."""
    return sorted(host.moid for host in bench.simulator.vcenter.stimuli.hosts())


def listed(bench: Bench, version: str = "", collector: object = None) -> tuple[dict[str, str], object]:
    """What a filter over the clusters and their hosts tells now: kind of update by reference."""
    if collector is None:
        collector = bench.content.propertyCollector.CreatePropertyCollector()
        walk = PC.TraversalSpec(name="hosts", type=vim.ComputeResource, path="host", skip=False)
        clusters = [one.moid for one in bench.simulator.vcenter.stimuli.clusters()]
        collector.CreateFilter(
            PC.FilterSpec(
                objectSet=[PC.ObjectSpec(obj=vim.ClusterComputeResource(one), selectSet=[walk]) for one in clusters],
                propSet=[
                    PC.PropertySpec(type=vim.ComputeResource, pathSet=["host"]),
                    PC.PropertySpec(type=vim.HostSystem, pathSet=["name"]),
                ],
            ),
            False,
        )
    answer = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=0))
    updates = [] if answer is None else [update for one in answer.filterSet for update in one.objectSet]
    told = {update.obj._GetMoId(): update.kind for update in updates if isinstance(update.obj, vim.HostSystem)}
    for update in updates:
        for change in update.changeSet or ():
            if change.name == "host":
                told[update.obj._GetMoId()] = " ".join(sorted(one._GetMoId() for one in change.val))
    return told, (collector, answer.version if answer else version)


def test_half_reads_hide_hosts_for_one_call(bench: Bench, hosts: list[str]) -> None:
    """The strictest partial answer: a cluster's own list agrees with it, and a call later everybody is back."""
    _, (collector, version) = listed(bench)
    bench.simulator.faults.inject("half_reads", count=1)
    told, (_, version) = listed(bench, version, collector)
    assert {moref for moref, kind in told.items() if kind == "leave"} == set(hosts[::2])
    members = " ".join(kind for moref, kind in told.items() if moref not in hosts).split()
    assert not set(members) & set(hosts[::2])
    told, _ = listed(bench, version, collector)
    assert {moref for moref, kind in told.items() if kind == "enter"} == set(hosts[::2])
    members = " ".join(kind for moref, kind in told.items() if moref not in hosts).split()
    assert set(members) >= set(hosts[::2])


def test_half_reads_and_empty_reads_shorten_eams_lists(bench: Bench) -> None:
    listing = bench.eam().QueryAgency
    bench.simulator.vcenter.eam._visible_to = lambda *_: [vim.HostSystem("a"), vim.HostSystem("b")]
    bench.simulator.faults.inject("half_reads", count=1)
    assert [one._GetMoId() for one in listing()] == ["b"]
    bench.simulator.faults.inject("empty_reads", count=1)
    assert listing() == []
    assert len(listing()) == 2


def test_permission_gap_refuses_what_it_hides(bench: Bench, hosts: list[str]) -> None:
    bench.simulator.faults.inject("permission_gap")
    told, _ = listed(bench)
    assert set(told) & set(hosts) == set(hosts[1::2])
    with pytest.raises(vim.fault.NoPermission):
        _ = vim.HostSystem(hosts[0], bench.stub).name
    assert vim.HostSystem(hosts[1], bench.stub).name


def test_missing_set_tells_of_changes_too(bench: Bench, hosts: list[str]) -> None:
    """A change that comes while the session may not read is not lost: it is told as missing, and later whole."""
    _, (collector, version) = listed(bench)
    bench.simulator.faults.inject("missing_set", count=1)
    bench.simulator.world.objects[hosts[0]].set("name", "renamed.example")
    answer = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=0))
    (update,) = answer.filterSet[0].objectSet
    (missing,) = update.missingSet
    assert (missing.path, type(missing.fault)) == ("name", vim.fault.NotAuthenticated)


def test_small_pages_hold_one_object_and_their_version_is_good_once(bench: Bench, hosts: list[str]) -> None:
    """API reference, UpdateSet: a truncated data version cannot be used more than once."""
    bench.simulator.faults.inject("small_pages")
    first, (collector, version) = listed(bench)
    assert len(first) == 1
    second, _ = listed(bench, version, collector)
    assert len(second) == 1
    with pytest.raises(vmodl.query.InvalidCollectorVersion):
        listed(bench, version, collector)


def test_creates_nothing_answers_nothing(bench: Bench) -> None:
    bench.simulator.faults.inject("creates_nothing")
    assert bench.content.propertyCollector.CreatePropertyCollector() is None
    assert bench.content.viewManager.CreateListView() is None
    assert bench.content.eventManager.CreateCollectorForEvents(vim.event.EventFilterSpec()) is None


@pytest.mark.parametrize("fault", ["session_goes_empty", "session_goes_missing"])
def test_a_session_that_ended_and_is_not_refused(bench: Bench, hosts: list[str], fault: str) -> None:
    """Only currentSession, writes and a new login tell; the old session is not counted any more."""
    bench.simulator.faults.inject(fault)
    assert bench.content.sessionManager.currentSession is None
    assert bench.simulator.sessions.active == []
    assert bench.eam().QueryAgency() == []
    with pytest.raises((vim.fault.NotAuthenticated, eam.fault.InvalidLogin)):
        vim.HostSystem(hosts[0], bench.stub).EnterMaintenanceMode_Task(0)
    if fault == "session_goes_empty":
        assert listed(bench)[0] == {}
        assert vim.HostSystem(hosts[0], bench.stub).parent is None
    else:
        with pytest.raises(vim.fault.NotAuthenticated):
            _ = vim.HostSystem(hosts[0], bench.stub).parent
    bench.content.sessionManager.Logout()
    with pytest.raises(vim.fault.NotAuthenticated):
        bench.instance.CurrentTime()


def test_eam_that_is_loading_knows_nobody(bench: Bench) -> None:
    bench.simulator.faults.inject("eam_loading", count=1)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        eam.Agency("agency-1", bench.eam()._stub).QueryRuntime()
    bench.simulator.faults.inject("eam_loading", count=1)
    assert bench.eam().QueryAgency() == []


# --- events ------------------------------------------------------------------------------------------------


def page(bench: Bench) -> list[int]:
    """Keys of the newest events, as a new collector shows them."""
    collector = bench.content.eventManager.CreateCollectorForEvents(vim.event.EventFilterSpec())
    collector.SetCollectorPageSize(100)
    keys = [event.key for event in collector.latestPage]
    collector.DestroyCollector()
    return keys


def post(bench: Bench, count: int) -> None:
    for _ in range(count):
        bench.simulator.event_manager.post(vim.event.GeneralUserEvent(message="the same"))


def test_events_hidden_and_unordered(bench: Bench) -> None:
    post(bench, 8)
    keys = page(bench)
    bench.simulator.faults.inject("events_hidden")
    assert page(bench) == []
    bench.simulator.faults.clear()
    bench.simulator.faults.inject("events_unordered")
    mixed = page(bench)
    assert sorted(mixed) == sorted(keys)
    assert mixed not in (keys, keys[::-1])


def test_the_burst_filter_keeps_30_for_history(bench: Bench) -> None:
    """VMware's documentation of the event burst filter: the database is affected, who listens is not."""
    listening = bench.content.eventManager.CreateCollectorForEvents(vim.event.EventFilterSpec())
    listening.SetCollectorPageSize(100)
    before = len(page(bench))
    bench.simulator.faults.inject("events_consolidated")
    post(bench, 40)
    assert len(page(bench)) == before + 30
    assert len(listening.latestPage) >= 40


def test_event_keys_wrap(bench: Bench) -> None:
    """A key is an xsd:int."""
    post(bench, 1)
    bench.simulator.faults.inject("event_keys_wrap")
    post(bench, 2)
    assert page(bench)[:2] == [-(2**31) + 1, -(2**31)]


# --- over the network --------------------------------------------------------------------------------------


def test_a_session_that_ends_quietly_lets_its_wait_run_out(make_simulator: Callable[..., Simulator]) -> None:
    """As govmomi's simulator does: the wait answers nothing at its own time, and the next call is refused."""
    simulator = make_simulator()
    with connected(simulator) as instance:
        collector = instance.content.propertyCollector.CreatePropertyCollector()
        waiting = gevent.spawn(collector.WaitForUpdatesEx, "", PC.WaitOptions(maxWaitSeconds=1))
        wait_for(lambda: simulator.collectors()[0].waiting, what="the wait is under way")
        simulator.faults.inject("session_kill_quiet")
        assert waiting.get(timeout=5) is None
        with pytest.raises(vim.fault.NotAuthenticated):
            instance.CurrentTime()


def test_sessions_full_refuses_whoever_is_not_logged_in(make_simulator: Callable[..., Simulator]) -> None:
    """vpxd: "Out of HTTP sessions: Limited to 2000"."""
    simulator = make_simulator()
    with connected(simulator) as instance:
        simulator.faults.inject("sessions_full")
        instance.CurrentTime()
        with pytest.raises(vim.fault.HostConnectFault, match="503"), connected(simulator):
            pass
        simulator.faults.clear()
    assert simulator.sessions.most_active == 1
