# SPDX-License-Identifier: Apache-2.0
"""Events are hints: each is told once, in order of time, whatever pages, wrapped keys and gaps do."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pyVmomi import vim

from vcenter_eam_plugin.vsphere import events
from vcenter_eam_plugin.vsphere.events import Hints, hint_of

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def event(key: int, seconds: float = 0, **fields: Any) -> Any:
    return vim.event.EnteredMaintenanceModeEvent(
        key=key, chainId=key, createdTime=START + dt.timedelta(seconds=seconds), userName="somebody", **fields
    )


def keys(hints: tuple[events.Hint, ...]) -> list[int]:
    return [hint.key for hint in hints]


def test_first_page_is_history_and_says_nothing() -> None:
    """A start reads everything anyway; yesterday's events must not look like today's."""
    hints = Hints()
    assert hints.of_page([event(1), event(2)]) == ()
    assert keys(hints.of_page([event(1), event(2), event(3)])) == [3]


def test_each_event_is_told_once_and_oldest_first() -> None:
    """The page is unordered by contract and is sent whole with each change."""
    hints = Hints()
    hints.of_page([])
    assert keys(hints.of_page([event(3, 3), event(1, 1), event(2, 2)])) == [1, 2, 3]
    assert keys(hints.of_page([event(4, 4), event(3, 3), event(2, 2)])) == [4]


def test_keys_that_wrap_are_new_all_the_same() -> None:
    """Bug of other shippers: a key is an int that wraps to negative, and "greater than the last" stops there."""
    hints = Hints()
    hints.of_page([event(2**31 - 1, 0)])
    assert keys(hints.of_page([event(2**31 - 1, 0), event(-(2**31), 1), event(-(2**31) + 1, 2)])) == [
        -(2**31),
        -(2**31) + 1,
    ]


def test_page_after_a_gap_repeats_nothing() -> None:
    """A new session watches a new page: what it shows again was told already, what came in the gap was not."""
    hints = Hints()
    hints.of_page([event(1)])
    hints.of_page([event(1), event(2, 2)])
    assert keys(hints.of_page([event(1), event(2, 2), event(3, 3)])) == [3]


def test_overflowing_page_is_said() -> None:
    """Bug of other consumers: a burst wider than a page loses events silently. Here a hint says so, first."""
    hints = Hints()
    hints.of_page([event(0)])
    told = hints.of_page([event(1000 + n, n) for n in range(events.PAGE_SIZE)])
    assert told[0].kind == events.OVERFLOW
    assert len(told) == events.PAGE_SIZE + 1


def test_memory_is_bounded() -> None:
    hints = Hints()
    for n in range(5 * events.REMEMBERED):
        hints.of_page([event(n, n)])
    assert len(hints._seen) == len(hints._order) == events.REMEMBERED


def test_hint_names_the_objects_to_read_again() -> None:
    host = vim.event.HostEventArgument(name="esx-1", host=vim.HostSystem("host-7"))
    vm = vim.event.VmEventArgument(name="ContrailVM (1)", vm=vim.VirtualMachine("vm-9"))
    hint = hint_of(event(5, 7, host=host, vm=vm, fullFormattedMessage="in maintenance"))
    assert hint == events.Hint(
        key=5,
        kind="EnteredMaintenanceModeEvent",
        created=START.timestamp() + 7,
        host="host-7",
        vm="vm-9",
        text="in maintenance",
        user="somebody",
    )


def test_extended_events_go_by_their_type_id() -> None:
    """All EAM events are of one class; the id alone tells them apart."""
    extended = vim.event.EventEx(
        key=1, chainId=1, createdTime=START, userName="", eventTypeId="com.vmware.vim.eam.issue.vmPoweredOff"
    )
    assert hint_of(extended).kind == "com.vmware.vim.eam.issue.vmPoweredOff"


def test_filter_names_only_types_that_exist() -> None:
    """A misspelt class name would never match, and nobody would notice."""
    for name in events.HOST_EVENTS:
        assert issubclass(getattr(vim.event, name), vim.event.Event), name
    assert not any(name.startswith("Vm") for name in events.HOST_EVENTS), "tenant VMs must cost nothing"
    assert len(set(events.EAM_EVENTS)) == len(events.EAM_EVENTS)
