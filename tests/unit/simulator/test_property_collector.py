# SPDX-License-Identifier: Apache-2.0
"""The simulator's property collector keeps vCenter's contract (S17): what is selected, told once, told in order."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from pyVmomi import vim, vmodl

from tests.support.simulator_calls import PC, Bench, changes, hosts_of, view_of
from vcenter_eam_plugin.simulator.property_collector import PAGE

NOW = PC.WaitOptions(maxWaitSeconds=0)
MAINTENANCE = "runtime.inMaintenanceMode"


class Follower:
    """A client that waits for updates, acknowledging as it goes."""

    def __init__(self, bench: Bench, *specs: Any, partial: bool = False) -> None:
        self.collector = bench.content.propertyCollector.CreatePropertyCollector()
        self.filters = [self.collector.CreateFilter(spec, partial) for spec in specs]
        self.version = ""

    def next(self, options: Any = NOW) -> list[tuple[str, str, dict[str, Any]]]:
        update = self.collector.WaitForUpdatesEx(self.version, options)
        if update is not None:
            self.version = update.version
        return changes(update)


@pytest.fixture
def follower(bench: Bench) -> Follower:
    """Follows all hosts; has seen them enter."""
    one = Follower(bench, hosts_of(bench.content.rootFolder, "name", MAINTENANCE))
    assert [kind for kind, _, _ in one.next()] == ["enter"] * 3
    return one


def test_first_set_has_every_object_with_its_set_properties(bench: Bench) -> None:
    one = Follower(bench, hosts_of(bench.content.rootFolder, "name", MAINTENANCE, "runtime.standbyMode"))
    entered = one.next()
    assert sorted((kind, moid, values["name"]) for kind, moid, values in entered) == sorted(
        ("enter", host.moid, host.name) for host in bench.hosts
    )
    assert all(values[MAINTENANCE] is False for _, _, values in entered)


def test_only_what_changed_is_told_and_only_once(bench: Bench, follower: Follower) -> None:
    bench.hosts[1].set(MAINTENANCE, True)
    assert follower.next() == [("modify", bench.hosts[1].moid, {MAINTENANCE: True})]
    assert follower.next() == []


def test_false_is_told_as_a_change(bench: Bench, follower: Follower) -> None:
    bench.hosts[0].set(MAINTENANCE, True)
    follower.next()
    bench.hosts[0].set(MAINTENANCE, False)
    assert follower.next() == [("modify", bench.hosts[0].moid, {MAINTENANCE: False})]


def test_a_value_that_went_and_came_back_is_no_change(bench: Bench, follower: Follower) -> None:
    bench.hosts[0].set(MAINTENANCE, True)
    bench.hosts[0].set(MAINTENANCE, False)
    assert follower.next() == []


def test_a_change_nobody_asked_for_is_not_told(bench: Bench, follower: Follower) -> None:
    bench.hosts[0].set("runtime.standbyMode", "in")
    assert follower.next() == []


def test_s09_a_new_host_enters_and_s04_a_moved_one_stays(bench: Bench, follower: Follower) -> None:
    bench.simulator.vcenter.stimuli.add_host("ClusterA", "esx-99.example")
    bench.clock.advance(1)
    kinds = [(kind, values.get("name")) for kind, _, values in follower.next()]
    assert kinds == [("enter", "esx-99.example")]


def test_a_removed_host_leaves(bench: Bench, follower: Follower) -> None:
    gone = bench.hosts[2]
    bench.simulator.vcenter.stimuli.remove_host(gone)
    bench.clock.advance(1)
    assert ("leave", gone.moid, {}) in follower.next()
    assert gone not in bench.hosts


def test_lost_response_is_repeated_for_the_version_before_it(bench: Bench, follower: Follower) -> None:
    before = follower.version
    bench.hosts[0].set(MAINTENANCE, True)
    first = follower.collector.WaitForUpdatesEx(before, NOW)
    bench.hosts[1].set(MAINTENANCE, True)
    again = follower.collector.WaitForUpdatesEx(before, NOW)
    assert (again.version, changes(again)) == (first.version, changes(first))
    follower.version = again.version
    assert follower.next() == [("modify", bench.hosts[1].moid, {MAINTENANCE: True})]


@pytest.mark.parametrize("version", ["0", "7", "nonsense", "-1"])
def test_any_other_version_is_refused(bench: Bench, follower: Follower, version: str) -> None:
    bench.hosts[0].set(MAINTENANCE, True)
    follower.next()
    bench.hosts[0].set(MAINTENANCE, False)
    follower.next()
    with pytest.raises(vmodl.query.InvalidCollectorVersion):
        follower.collector.WaitForUpdatesEx(version, NOW)


def test_starting_over_tells_everything_again(bench: Bench, follower: Follower) -> None:
    follower.version = ""
    assert [kind for kind, _, _ in follower.next()] == ["enter"] * 3


def test_a_lost_collector_knows_no_version(bench: Bench, follower: Follower) -> None:
    bench.simulator.faults.inject("collector_lost")
    with pytest.raises(vmodl.query.InvalidCollectorVersion):
        follower.next()
    follower.version = ""
    assert len(follower.next()) == 3


def test_truncation_tells_all_in_pages_and_says_so() -> None:
    bench = Bench(hosts=2 * PAGE + 5, clusters=5)
    collector = bench.content.propertyCollector
    collector.CreateFilter(hosts_of(bench.content.rootFolder, "name"), True)
    version, sizes, flags, names = "", [], [], set()
    for _ in range(3):
        update = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=0, maxObjectUpdates=1000))
        version = update.version
        told = changes(update)
        sizes.append(len(told))
        flags.append(bool(update.truncated))
        names |= {values["name"] for _, _, values in told}
    assert (sizes, flags) == ([PAGE, PAGE, 5], [True, True, False])
    assert names == {host.name for host in bench.hosts}
    bench.simulator.stop()


def test_a_page_in_between_shows_what_is_true_when_it_is_sent(bench: Bench) -> None:
    one = Follower(bench, hosts_of(bench.content.rootFolder, MAINTENANCE))
    small = PC.WaitOptions(maxWaitSeconds=0, maxObjectUpdates=1)
    first = one.next(small)[0][1]
    for host in bench.hosts:
        host.set(MAINTENANCE, True)
    rest = [one.next(small)[0] for _ in range(3)]
    assert [kind for kind, _, _ in rest] == ["enter", "enter", "modify"]
    assert rest[2][1] == first
    assert all(values == {MAINTENANCE: True} for _, _, values in rest)


def test_an_unset_value_is_assigned_nothing(bench: Bench) -> None:
    one = Follower(bench, hosts_of(bench.content.rootFolder, "parent"))
    one.next()
    bench.hosts[0].set("parent", None)
    assert one.next() == [("modify", bench.hosts[0].moid, {"parent": None})]


def test_partial_updates_name_the_path_below(bench: Bench) -> None:
    one = Follower(bench, hosts_of(bench.content.rootFolder, "runtime"), partial=True)
    one.next()
    bench.hosts[0].set(MAINTENANCE, True)
    assert one.next() == [("modify", bench.hosts[0].moid, {MAINTENANCE: True})]


def test_whole_updates_send_the_path_asked_for(bench: Bench) -> None:
    one = Follower(bench, hosts_of(bench.content.rootFolder, "runtime"))
    one.next()
    bench.hosts[0].set(MAINTENANCE, True)
    [(_, _, values)] = one.next()
    assert list(values) == ["runtime"]
    assert values["runtime"].inMaintenanceMode is True


def test_two_filters_of_one_collector_are_told_apart(bench: Bench) -> None:
    one = Follower(bench, hosts_of(bench.content.rootFolder, "name"), hosts_of(bench.content.rootFolder, MAINTENANCE))
    one.next()
    bench.hosts[0].set(MAINTENANCE, True)
    update = one.collector.WaitForUpdatesEx(one.version, NOW)
    assert [part.filter._moId for part in update.filterSet] == [one.filters[1]._moId]


def test_collectors_have_versions_of_their_own(bench: Bench, follower: Follower) -> None:
    other = Follower(bench, hosts_of(bench.content.rootFolder, MAINTENANCE))
    other.next()
    bench.hosts[0].set(MAINTENANCE, True)
    assert len(follower.next()) == len(other.next()) == 1


def test_a_destroyed_filter_is_silent_and_a_destroyed_collector_gone(bench: Bench, follower: Follower) -> None:
    follower.filters[0].DestroyPropertyFilter()
    bench.hosts[0].set(MAINTENANCE, True)
    assert follower.next() == []
    follower.collector.DestroyPropertyCollector()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        follower.next()
    assert bench.simulator.collectors() == []


# Waiting -------------------------------------------------------------------------------------------------------


def waiting(bench: Bench, follower: Follower) -> Any:
    """A greenlet that waits for updates; its value is what came, or the fault."""

    def wait() -> Any:
        try:
            return follower.next(PC.WaitOptions(maxWaitSeconds=20))
        except vmodl.MethodFault as fault:
            return fault

    greenlet = gevent.spawn(wait)
    for _ in range(1000):
        if any(one.waiting for one in bench.simulator.collectors()):
            return greenlet
        gevent.sleep(0)
    raise AssertionError("nobody waits")


def test_a_change_wakes_the_wait(bench: Bench, follower: Follower) -> None:
    wait = waiting(bench, follower)
    bench.hosts[0].set(MAINTENANCE, True)
    assert wait.get(timeout=5) == [("modify", bench.hosts[0].moid, {MAINTENANCE: True})]


def test_cancel_wakes_the_wait_and_the_collector_lives_on(bench: Bench, follower: Follower) -> None:
    wait = waiting(bench, follower)
    follower.collector.CancelWaitForUpdates()
    assert isinstance(wait.get(timeout=5), vmodl.fault.RequestCanceled)
    bench.hosts[0].set(MAINTENANCE, True)
    assert len(follower.next()) == 1


def test_cancel_without_a_wait_does_nothing(bench: Bench, follower: Follower) -> None:
    follower.collector.CancelWaitForUpdates()
    bench.hosts[0].set(MAINTENANCE, True)
    assert len(follower.next()) == 1


def test_the_end_of_the_session_wakes_the_wait(bench: Bench, follower: Follower) -> None:
    wait = waiting(bench, follower)
    bench.simulator.faults.inject("session_kill")
    assert isinstance(wait.get(timeout=5), vim.fault.NotAuthenticated)
    assert bench.simulator.collectors() == []


def test_a_second_wait_ends_the_first(bench: Bench, follower: Follower) -> None:
    wait = waiting(bench, follower)
    assert follower.collector.WaitForUpdatesEx(follower.version, NOW) is None
    assert isinstance(wait.get(timeout=5), vmodl.fault.RequestCanceled)


def test_a_wait_ends_empty_after_its_time(bench: Bench, follower: Follower) -> None:
    assert follower.next(PC.WaitOptions(maxWaitSeconds=0)) == []


# Selection -----------------------------------------------------------------------------------------------------


def test_unknown_selection_names_and_paths_are_refused(bench: Bench) -> None:
    root = bench.content.rootFolder
    collector = bench.content.propertyCollector
    names = [PC.PropertySpec(type=vim.HostSystem, pathSet=["name"])]
    loose = PC.ObjectSpec(obj=root, selectSet=[PC.SelectionSpec(name="nobody")])
    with pytest.raises(vmodl.fault.InvalidArgument):
        collector.CreateFilter(PC.FilterSpec(objectSet=[loose], propSet=names), True)
    with pytest.raises(vmodl.query.InvalidProperty) as refused:
        collector.CreateFilter(hosts_of(root, "runtime.nonsense"), True)
    assert refused.value.name == "runtime.nonsense"
    astray = PC.TraversalSpec(type=vim.Folder, path="nothing")
    with pytest.raises(vmodl.query.InvalidProperty):
        collector.CreateFilter(
            PC.FilterSpec(objectSet=[PC.ObjectSpec(obj=root, selectSet=[astray])], propSet=names), True
        )


def test_a_missing_root_is_a_fault_or_left_out_as_asked(bench: Bench) -> None:
    collector = bench.content.propertyCollector
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=vim.HostSystem("host-4711"))],
        propSet=[PC.PropertySpec(type=vim.HostSystem, pathSet=["name"])],
    )
    with pytest.raises(vmodl.fault.ManagedObjectNotFound) as missing:
        collector.RetrievePropertiesEx([spec], PC.RetrieveOptions())
    assert missing.value.obj._moId == "host-4711"
    spec.reportMissingObjectsInResults = True
    assert collector.RetrievePropertiesEx([spec], PC.RetrieveOptions()) is None


def test_properties_of_a_base_type_are_given_for_its_subclasses(bench: Bench) -> None:
    view = bench.content.viewManager.CreateContainerView(bench.content.rootFolder, [vim.ComputeResource], True)
    spec = view_of(view, "name", kind=vim.ManagedEntity)
    result = bench.content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())
    assert sorted(one.propSet[0].val for one in result.objects) == ["ClusterA", "ClusterB"]
    assert {type(one.obj) for one in result.objects} == {vim.ClusterComputeResource}


def test_all_gives_every_set_property(bench: Bench) -> None:
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=bench.remote(bench.hosts[0]))],
        propSet=[PC.PropertySpec(type=vim.HostSystem, all=True)],
    )
    [one] = bench.content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions()).objects
    assert {"name", "parent", "runtime", "summary", "config"} <= {prop.name for prop in one.propSet}


def test_pages_by_token_give_everything_once(bench: Bench) -> None:
    spec = hosts_of(bench.content.rootFolder, "name")
    collector = bench.content.propertyCollector
    page = collector.RetrievePropertiesEx([spec], PC.RetrieveOptions(maxObjects=2))
    token = page.token
    rest = collector.ContinueRetrievePropertiesEx(token)
    names = [one.propSet[0].val for one in (*page.objects, *rest.objects)]
    assert sorted(names) == sorted(host.name for host in bench.hosts)
    assert rest.token is None
    with pytest.raises(vmodl.fault.InvalidArgument):
        collector.ContinueRetrievePropertiesEx(token)


def test_a_list_view_is_followed_when_it_is_edited(bench: Bench) -> None:
    """S17: the plugin follows only its own VMs, by a list view that it edits."""
    first, second, _ = bench.hosts
    view = bench.content.viewManager.CreateListView([bench.remote(first)])
    one = Follower(bench, view_of(view, "name"))
    assert [moid for _, moid, _ in one.next()] == [first.moid]
    assert list(view.ModifyListView([bench.remote(second)], [])) == []
    assert [(kind, moid) for kind, moid, _ in one.next()] == [("enter", second.moid)]
    view.ModifyListView([], [bench.remote(first)])
    assert [(kind, moid) for kind, moid, _ in one.next()] == [("leave", first.moid)]


def test_a_new_host_costs_no_second_walk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cost follows what changed: an addition is visited, not the whole inventory."""
    one = Follower(bench, hosts_of(bench.content.rootFolder, "name"))
    one.next()
    changed, other = bench.simulator.vcenter.clusters()
    bench.simulator.vcenter.stimuli.add_host(changed, "esx-99.example")
    bench.clock.advance(1)
    reads: list[str] = []
    cluster_type = type(changed)
    original = cluster_type.get

    def counted(self: Any, path: str) -> Any:
        reads.append(self.moid)
        return original(self, path)

    monkeypatch.setattr(cluster_type, "get", counted)
    assert [kind for kind, _, _ in one.next()] == ["enter"]
    assert changed.moid in reads
    assert other.moid not in reads


# Suspect reads (an expired session may look like this) ------------------------------------------------------------


def test_faulty_reads_are_without_error_and_without_data(bench: Bench) -> None:
    spec = hosts_of(bench.content.rootFolder, "name", MAINTENANCE)
    collector = bench.content.propertyCollector
    bench.simulator.faults.inject("empty_reads", count=1)
    assert collector.RetrievePropertiesEx([spec], PC.RetrieveOptions()) is None
    bench.simulator.faults.inject("missing_set", count=1)
    result = collector.RetrievePropertiesEx([spec], PC.RetrieveOptions())
    assert all(not one.propSet for one in result.objects)
    faults = [missing.fault for one in result.objects for missing in one.missingSet]
    assert len(faults) == 6
    assert all(isinstance(fault, vim.fault.NotAuthenticated) for fault in faults)
    assert len(collector.RetrievePropertiesEx([spec], PC.RetrieveOptions()).objects[0].propSet) == 2
