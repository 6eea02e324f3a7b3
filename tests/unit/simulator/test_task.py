# SPDX-License-Identifier: Apache-2.0
"""Tasks of the simulator: followed as properties, in recentTask for a while, ended once."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.support.simulator_calls import PC, Bench
from vcenter_eam_plugin.simulator.task import RECENT_SECONDS, Task, start_task

DESCRIPTION = "HostSystem.enterMaintenanceMode"


def test_a_task_runs_after_its_caller_and_ends(bench: Bench) -> None:
    done: list[Task] = []

    def work(task: Task) -> None:
        done.append(task)
        task.succeed(bench.hosts[0])

    task = start_task(bench.world, bench.hosts[0], DESCRIPTION, work, user="me")
    assert (task.info.state, done) == ("queued", [])
    bench.clock.advance(0)
    remote = bench.remote(task).info
    assert (remote.state, remote.result._moId) == ("success", bench.hosts[0].moid)
    assert (remote.descriptionId, remote.reason.userName) == (DESCRIPTION, "me")
    assert remote.name.info.wsdlName == "EnterMaintenanceMode_Task"
    assert remote.completeTime is not None


def test_a_fault_in_the_work_is_the_error_of_the_task(bench: Bench) -> None:
    def work(task: Task) -> None:
        raise vim.fault.InvalidState(msg="not now")

    task = start_task(bench.world, bench.hosts[0], DESCRIPTION, work)
    bench.clock.advance(0)
    info = bench.remote(task).info
    assert (info.state, type(info.error), info.error.msg) == ("error", vim.fault.InvalidState, "not now")


def test_recent_tasks_of_the_entity_and_of_the_manager_are_forgotten_later(bench: Bench) -> None:
    host = bench.hosts[0]
    task = start_task(bench.world, host, DESCRIPTION)
    manager = bench.content.taskManager
    assert [one._moId for one in bench.remote(host).recentTask] == [task.moid]
    assert [one._moId for one in manager.recentTask] == [task.moid]
    task.succeed()
    bench.clock.advance(RECENT_SECONDS - 1)
    assert len(manager.recentTask) == 1
    bench.clock.advance(1)
    assert list(manager.recentTask) == list(bench.remote(host).recentTask) == []
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        _ = bench.remote(task).info


def test_a_task_ends_only_once(bench: Bench) -> None:
    task = start_task(bench.world, bench.hosts[0], DESCRIPTION)
    task.fail(vim.fault.InvalidState())
    task.succeed()
    task.progress(50)
    assert task.info.state == "error"
    assert task.info.progress is None


def test_cancelling_undoes_the_work_once(bench: Bench) -> None:
    undone: list[int] = []
    task = start_task(bench.world, bench.hosts[0], DESCRIPTION, on_cancel=lambda: undone.append(1))
    remote = bench.remote(task)
    remote.CancelTask()
    assert undone == [1]
    assert (remote.info.state, remote.info.cancelled) == ("error", True)
    assert isinstance(remote.info.error, vmodl.fault.RequestCanceled)
    with pytest.raises(vim.fault.InvalidState):
        remote.CancelTask()


def test_a_task_that_cannot_be_cancelled_says_so(bench: Bench) -> None:
    remote = bench.remote(start_task(bench.world, bench.hosts[0], DESCRIPTION))
    with pytest.raises(vmodl.fault.NotSupported):
        remote.CancelTask()


def test_a_task_is_followed_to_its_end(bench: Bench) -> None:
    """The way of pyVmomi's WaitForTask: a filter on all properties of the task, partial updates."""
    task = start_task(bench.world, bench.hosts[0], DESCRIPTION)
    collector = bench.content.propertyCollector
    collector.CreateFilter(
        PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=bench.remote(task))], propSet=[PC.PropertySpec(type=vim.Task, all=True)]
        ),
        True,
    )
    now = PC.WaitOptions(maxWaitSeconds=0)
    update = collector.WaitForUpdatesEx("", now)
    assert update.filterSet[0].objectSet[0].changeSet[0].name == "info"

    def told(version: str) -> tuple[str, dict[str, Any]]:
        found = collector.WaitForUpdatesEx(version, now)
        return found.version, {one.name: one.val for one in found.filterSet[0].objectSet[0].changeSet}

    task.running()
    version, values = told(update.version)
    assert values == {"info.state": "running"}
    task.progress(40)
    version, values = told(version)
    assert values == {"info.progress": 40}
    task.succeed()
    version, values = told(version)
    assert values["info.state"] == "success"
