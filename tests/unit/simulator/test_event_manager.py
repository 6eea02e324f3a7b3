# SPDX-License-Identifier: Apache-2.0
"""Events of the simulator (S05, S17): stamped, filtered, paged, and lost to who only looks at a full page."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.support.simulator_calls import PC, Bench
from vcenter_eam_plugin.simulator.event_manager import event_type_id


def post(bench: Bench, kind: str, **fields: Any) -> Any:
    event = vim.event.EventEx(eventTypeId=kind, severity="info", message=kind, **fields)
    bench.world.post_event(event)
    return event


def spec(*kinds: str, **fields: Any) -> Any:
    return vim.event.EventFilterSpec(eventTypeId=list(kinds), **fields)


def kinds(events: Any) -> list[str]:
    return [event_type_id(event) for event in events]


def test_events_are_stamped_in_order(bench: Bench) -> None:
    first, second = post(bench, "a"), post(bench, "b")
    assert second.key == first.key + 1
    assert first.createdTime == bench.clock.now()
    assert first.fullFormattedMessage == "a"


def test_queries_by_type_time_user_and_entity(bench: Bench) -> None:
    manager = bench.content.eventManager
    post(bench, "a", userName="alice")
    bench.clock.advance(10)
    post(bench, "b", userName="bob")
    assert kinds(manager.QueryEvents(spec("a", "b"))) == ["a", "b"]
    late = vim.event.EventFilterSpec.ByTime(beginTime=bench.clock.now() - dt.timedelta(seconds=1))
    assert kinds(manager.QueryEvents(spec("a", "b", time=late))) == ["b"]
    of_alice = vim.event.EventFilterSpec.ByUsername(systemUser=False, userList=["alice"])
    assert kinds(manager.QueryEvents(spec("a", "b", userName=of_alice))) == ["a"]
    by_class = manager.QueryEvents(vim.event.EventFilterSpec(type=[vim.event.HostEvent]))
    assert {type(event) for event in by_class} == {vim.event.HostAddedEvent, vim.event.HostConnectedEvent}
    by_name = manager.QueryEvents(spec("vim.event.HostAddedEvent"))
    assert len(by_name) == len(bench.hosts)


def test_queries_by_entity_take_what_lies_below(bench: Bench) -> None:
    host = bench.hosts[0]
    cluster = bench.world.find(host.get("parent"))
    assert cluster is not None
    manager = bench.content.eventManager

    def about(entity: Any, recursion: str) -> int:
        by = vim.event.EventFilterSpec.ByEntity(entity=bench.remote(entity), recursion=recursion)
        return len(manager.QueryEvents(spec("vim.event.HostAddedEvent", entity=by)))

    assert about(host, "self") == 1
    assert about(cluster, "all") == len(cluster.get("host"))
    assert about(bench.simulator.vcenter.root, "children") == len(bench.hosts)


def test_an_unknown_entity_is_refused(bench: Bench) -> None:
    by = vim.event.EventFilterSpec.ByEntity(entity=vim.HostSystem("host-4711"), recursion="all")
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        bench.content.eventManager.QueryEvents(spec(entity=by))


def test_posted_events_belong_to_the_server_and_their_poster(bench: Bench) -> None:
    forged = vim.event.EventEx(
        eventTypeId="org.example", key=1, chainId=0, createdTime=dt.datetime(1999, 1, 1, tzinfo=dt.UTC), userName="x"
    )
    bench.content.eventManager.PostEvent(forged)
    [event] = bench.content.eventManager.QueryEvents(spec("org.example"))
    assert (event.userName, event.createdTime) == (bench.simulator.user, bench.clock.now())
    assert event.key > 1
    bench.simulator.add_user("plain", "pw")
    bench.login("plain", "pw")
    with pytest.raises(vim.fault.NoPermission):
        bench.content.eventManager.PostEvent(forged)


def test_a_collector_reads_its_page_and_on_and_back(bench: Bench) -> None:
    for number in range(15):
        post(bench, f"e{number}")
    collector = bench.content.eventManager.CreateCollectorForEvents(spec(*(f"e{n}" for n in range(20))))
    assert kinds(collector.latestPage) == [f"e{n}" for n in range(14, 4, -1)]
    assert kinds(collector.ReadNextEvents(100)) == [f"e{n}" for n in range(5, 15)]
    post(bench, "e15")
    assert kinds(collector.ReadNextEvents(100)) == ["e15"]
    assert list(collector.ReadNextEvents(100)) == []
    collector.ResetCollector()
    assert kinds(collector.ReadPreviousEvents(2)) == ["e5", "e4"]
    collector.RewindCollector()
    assert kinds(collector.ReadNextEvents(2)) == ["e0", "e1"]
    collector.SetCollectorPageSize(3)
    assert kinds(collector.latestPage) == ["e15", "e14", "e13"]
    for bad in (0, 1001):
        with pytest.raises(vmodl.fault.InvalidArgument):
            collector.SetCollectorPageSize(bad)
    collector.DestroyCollector()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        collector.ReadNextEvents(1)
    post(bench, "e16")


def test_the_latest_page_is_followed_and_overflows(bench: Bench) -> None:
    """S17: an event is a hint; a burst longer than the page is lost to who follows the page."""
    collector = bench.content.eventManager.CreateCollectorForEvents(spec("a"))
    collector.SetCollectorPageSize(2)
    properties = bench.content.propertyCollector
    properties.CreateFilter(
        PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=collector)],
            propSet=[PC.PropertySpec(type=vim.event.EventHistoryCollector, pathSet=["latestPage"])],
        ),
        True,
    )
    now = PC.WaitOptions(maxWaitSeconds=0)
    update = properties.WaitForUpdatesEx("", now)
    assert list(update.filterSet[0].objectSet[0].changeSet[0].val) == []
    keys = [post(bench, "a").key for _ in range(3)]
    post(bench, "another")
    update = properties.WaitForUpdatesEx(update.version, now)
    [change] = update.filterSet[0].objectSet[0].changeSet
    assert [event.key for event in change.val] == keys[:0:-1]
    assert properties.WaitForUpdatesEx(update.version, now) is None
