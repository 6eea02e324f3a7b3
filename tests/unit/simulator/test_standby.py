# SPDX-License-Identifier: Apache-2.0
"""S13: a simulated host that DPM puts to sleep and wakes: who leaves in which order, what vCenter shows, what fails."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from tests.unit.simulator.lab import Lab
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.tenants import new_tenant


def ended(lab: Lab, task: Task) -> Any:
    lab.until(lambda: task.ended)
    return task.info.state


def standby(lab: Lab) -> Lab:
    """The first host sleeps."""
    assert ended(lab, lab.do.enter_standby(lab.host)) == "success"
    return lab


def test_tenants_leave_first_and_the_agent_vm_is_powered_off_last() -> None:
    """The order is tenants away, agent VM off, host asleep; the tenants run on, the agent VM stays where it is."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    source, agent_vm, tenant = lab.host, lab.vm, new_tenant(lab.host, "tenant")
    task = lab.do.enter_standby(source)
    assert (task.info.descriptionId, task.info.name.info.wsdlName) == (
        "HostSystem.enterStandbyMode",
        "PowerDownHostToStandBy_Task",
    )
    assert (source.get("runtime.standbyMode"), source.get("runtime.powerState")) == ("entering", "poweredOn")
    lab.until(lambda: tenant.host is not source)
    assert agent_vm.on
    lab.until(lambda: not agent_vm.on)
    assert source.standby == "entering"
    assert ended(lab, task) == "success"
    runtime = source.get("runtime")
    assert (runtime.standbyMode, runtime.powerState, runtime.connectionState) == ("in", "standBy", "notResponding")
    assert agent_vm.host is source
    assert tenant.on
    assert lab.agent(agency).vm is agent_vm
    names = [name for name in lab.events() if "Standby" in name or name in ("DrsVmMigratedEvent", "VmPoweredOffEvent")]
    assert names == [
        "DrsEnteringStandbyModeEvent",
        "DrsVmMigratedEvent",
        "VmPoweredOffEvent",
        "DrsEnteredStandbyModeEvent",
    ]


def test_a_tenant_that_nobody_moves_keeps_the_host_awake() -> None:
    """Without DRS the task waits, and the agent VM is not touched; cancelling it ends the phase."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    lab.do.set_drs("ClusterA", on=False)
    new_tenant(lab.host, "tenant")
    task = lab.do.enter_standby(lab.host)
    lab.settle(30)
    assert not task.ended
    assert lab.vm.on
    task.cancel()
    assert lab.host.standby == "none"
    lab.settle()
    assert agency.status == "green"


def test_entering_standby_times_out() -> None:
    """The task fails with Timedout, and the host is as before."""
    lab = Lab()
    new_tenant(lab.host, "tenant")
    task = lab.host.power_down_to_standby_task(lab.call, timeoutSec=20)
    lab.settle(21)
    assert isinstance(task.info.error, vim.fault.Timedout)
    assert lab.host.standby == "none"
    assert lab.host.can_run


def test_waking_is_a_boot_and_eam_starts_its_vm_unasked() -> None:
    """While it wakes the power state is still standBy; then the host is connected and its agent green again."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    standby(lab)
    lab.settle()
    task = lab.do.wake(lab.host)
    assert (lab.host.get("runtime.standbyMode"), lab.host.get("runtime.powerState")) == ("exiting", "standBy")
    assert ended(lab, task) == "success"
    runtime = lab.host.get("runtime")
    assert (runtime.standbyMode, runtime.powerState, runtime.connectionState) == ("none", "poweredOn", "connected")
    assert lab.host.boots == 2
    lab.until(lambda: agency.status == "green")
    assert lab.vm.on
    assert {"DrsExitingStandbyModeEvent", "DrsExitedStandbyModeEvent"} <= set(lab.events())


def test_by_hand_the_events_are_not_those_of_drs() -> None:
    """A person's standby posts the plain events, in the person's name."""
    lab = Lab()
    assert ended(lab, lab.host.power_down_to_standby_task(lab.call, timeoutSec=0)) == "success"
    assert ended(lab, lab.host.power_up_from_standby_task(lab.call, timeoutSec=0)) == "success"
    names = [name for name in lab.events() if "Standby" in name]
    assert names == [
        "EnteringStandbyModeEvent",
        "EnteredStandbyModeEvent",
        "ExitingStandbyModeEvent",
        "ExitedStandbyModeEvent",
    ]
    assert {event.userName for event in lab.world.events if "Standby" in type(event).__name__} == {"admin"}


def test_a_host_that_does_not_wake() -> None:
    """HostPowerOpFailed, an event, and the host sleeps on; repaired, it wakes."""
    lab = standby(Lab())
    lab.do.wake_fails(lab.host)
    task = lab.do.wake(lab.host)
    assert ended(lab, task) == "error"
    assert isinstance(task.info.error, vim.fault.HostPowerOpFailed)
    assert "DrsExitStandbyModeFailedEvent" in lab.events()
    assert lab.host.standby == "in"
    lab.do.wake_fails(lab.host, on=False)
    assert ended(lab, lab.do.wake(lab.host)) == "success"


def test_waking_times_out() -> None:
    """A boot that takes longer than allowed fails, and what comes of it later counts for nothing."""
    lab = standby(Lab(exit_standby=50))
    task = lab.host.power_up_from_standby_task(lab.call, timeoutSec=10)
    lab.settle(100)
    assert isinstance(task.info.error, vim.fault.Timedout)
    assert lab.host.standby == "in"


def test_somebody_presses_the_power_button() -> None:
    """A host that was started at the machine is out of standby like any other."""
    lab = standby(Lab())
    lab.do.recover(lab.host)
    assert (lab.host.standby, lab.host.get("runtime.powerState")) == ("none", "poweredOn")
    assert lab.host.can_run


@pytest.mark.parametrize("how", ["crash", "not_responding"])
def test_a_host_lost_on_its_way_to_sleep(how: str) -> None:
    """The task fails, the phase is over, and the agent VM runs again when the host is back."""
    lab = Lab(evacuate=5)
    agency = lab.deployed()
    task = lab.do.enter_standby(lab.host)
    getattr(lab.do, how)(lab.host)
    assert task.info.state == "error"
    assert lab.host.standby == "none"
    lab.do.recover(lab.host)
    lab.do.reconnect(lab.host)
    lab.until(lambda: agency.status == "green")


def test_what_standby_does_not_go_with() -> None:
    """InvalidState: twice, on the way into maintenance, waking a host that is awake; and maintenance on the way."""
    lab = Lab(evacuate=5)
    assert ended(lab, lab.do.wake(lab.host)) == "error"
    first = lab.do.enter_standby(lab.host)
    for other in (lab.do.enter_standby(lab.host), lab.do.enter_maintenance(lab.host)):
        assert isinstance(other.info.error, vim.fault.InvalidState)
    first.cancel()
    lab.do.enter_maintenance(lab.host)
    assert isinstance(lab.do.enter_standby(lab.host).info.error, vim.fault.InvalidState)


def test_nothing_is_powered_on_while_a_host_falls_asleep() -> None:
    """A tenant VM is started elsewhere, or refused when there is no elsewhere."""
    lab = Lab(evacuate=5)
    vm = new_tenant(lab.host, "tenant", on=False)
    lab.do.enter_standby(lab.host)
    assert ended(lab, lab.do.power_on(vm)) == "error"


def test_broken_rule_dpm_agent_first() -> None:
    """Switched on by name, the agent VM goes off while tenants still run; the host gets to sleep all the same."""
    lab = Lab(hosts=2, dpm_agent_first=True)
    lab.deployed()
    tenant, source, agent_vm = new_tenant(lab.host, "tenant"), lab.host, lab.vm
    task = lab.do.enter_standby(source)
    lab.until(lambda: not agent_vm.on)
    lab.settle(lab.knobs.broken_rule_delay / 2)
    assert tenant.host is source
    assert tenant.on
    assert ended(lab, task) == "success"
    assert tenant.on
