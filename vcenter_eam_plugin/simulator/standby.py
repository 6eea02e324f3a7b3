# SPDX-License-Identifier: Apache-2.0
"""Standby of a simulated host: what DPM, or a person, puts to sleep and wakes again.

Entering looks like entering maintenance: tenant VMs leave first, EAM powers its agent VMs off last, then the host
sleeps. A host that sleeps does not respond, and its power state is ``standBy``, which vCenter knows because it did it.
Waking is a boot: agent VMs are started before anything else. ``runtime.standbyMode`` says where it is.

Not promised: DPM's own decisions, wake protocols (IPMI, iLO, Wake-on-LAN).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyVmomi import vim, vmodl

from vcenter_eam_plugin.simulator.managed_entity import VCENTER
from vcenter_eam_plugin.simulator.task import Task, start_task

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.host_system import HostSystem

Connection = vim.HostSystem.ConnectionState


class Standby:
    """Standby of one host. ``wake_fails`` makes the next wake-ups fail, as a broken BMC does."""

    def __init__(self, host: HostSystem) -> None:
        self.host = host
        self.wake_fails = False
        self._task: Task | None = None
        self._by_dpm = False

    def enter(self, user: str = VCENTER, timeout: float = 0, *, dpm: bool = False) -> Task:
        """Start entering; ``timeout`` in seconds, 0 = none. ``dpm``: DRS wants it, and its events say so."""
        host, clock, knobs = self.host, self.host.world.clock, self.host.world.knobs
        task = start_task(host.world, host, "HostSystem.enterStandbyMode", user=user, on_cancel=self._stop_entering)
        task.running()
        if host.standby != "none" or host.phase is not None or not host.connected:
            task.fail(vim.fault.InvalidState(msg=f"Host {host.name} cannot enter standby mode now."))
            return task
        self._task, self._by_dpm = task, dpm
        host.evacuated = False
        self._mode("entering")
        events = vim.event
        host.post(events.DrsEnteringStandbyModeEvent() if dpm else events.EnteringStandbyModeEvent(), user)
        wait = knobs.evacuate + (knobs.broken_rule_delay if knobs.dpm_agent_first else 0.0)
        clock.after(wait, lambda: host.evacuate(task))
        if timeout > 0:
            clock.after(timeout, lambda: self._time_out(task))
        return task

    def go_on(self) -> None:
        """The host or one of its VMs changed: sleep when nothing runs any more."""
        host, task = self.host, self._task
        if task is None or host.standby != "entering" or not host.evacuated:
            return
        if not any(vm.on for vm in host.vms.values()):
            host.world.clock.after(host.world.knobs.enter_standby, lambda: self._asleep(task))

    def _asleep(self, task: Task) -> None:
        host = self.host
        if task.ended or host.standby != "entering" or any(vm.on for vm in host.vms.values()):
            return
        self._task = None
        host.powered = False
        self._mode("in")
        host.see(Connection.notResponding)
        events, user = vim.event, task.info.reason.userName
        host.post(events.DrsEnteredStandbyModeEvent() if self._by_dpm else events.EnteredStandbyModeEvent(), user)
        task.succeed()

    def _time_out(self, task: Task) -> None:
        if not task.ended and self.host.standby == "entering":
            task.fail(vim.fault.Timedout())
            self._stop_entering()

    def _stop_entering(self) -> None:
        self._task = None
        self._mode("none")

    def wake(self, user: str = VCENTER, timeout: float = 0, *, dpm: bool = False) -> Task:
        """Start waking the host; fails, and leaves it asleep, after ``timeout`` seconds (0 = none)."""
        host, clock = self.host, self.host.world.clock
        task = start_task(host.world, host, "HostSystem.exitStandbyMode", user=user)
        task.running()
        if host.standby != "in":
            task.fail(vim.fault.InvalidState(msg=f"Host {host.name} is not in standby mode."))
            return task
        self._task, self._by_dpm = task, dpm
        self._mode("exiting")
        events = vim.event
        host.post(events.DrsExitingStandbyModeEvent() if dpm else events.ExitingStandbyModeEvent(), user)
        clock.after(host.world.knobs.exit_standby, lambda: self._up(task))
        if timeout > 0:
            clock.after(timeout, lambda: self._wake_failed(task, vim.fault.Timedout()))
        return task

    def _up(self, task: Task) -> None:
        if task.ended:
            return
        if self.wake_fails:
            self._wake_failed(task, vim.fault.HostPowerOpFailed(msg=f"Host {self.host.name} did not start."))
            return
        self.host.recover()

    def _wake_failed(self, task: Task, fault: vmodl.MethodFault) -> None:
        if task.ended or self.host.standby != "exiting":
            return
        self._task = None
        self._mode("in")
        events = vim.event
        event = events.DrsExitStandbyModeFailedEvent() if self._by_dpm else events.ExitStandbyModeFailedEvent()
        self.host.post(event, task.info.reason.userName)
        task.fail(fault)

    def booted(self) -> None:
        """The machine runs, whoever started it: it is in no standby mode any more."""
        host, task, self._task = self.host, self._task, None
        if host.standby == "none":
            return
        self._mode("none")
        user = task.info.reason.userName if task is not None else VCENTER
        events = vim.event
        host.post(events.DrsExitedStandbyModeEvent() if self._by_dpm else events.ExitedStandbyModeEvent(), user)
        if task is not None:
            task.succeed()

    def lost(self) -> None:
        """The host was lost on its way to sleep: nobody can say any more whether it got there."""
        if self._task is not None and self.host.standby == "entering":
            task = self._task
            self._stop_entering()
            task.fail(vmodl.fault.HostCommunication())

    def _mode(self, mode: str) -> None:
        self.host.set("runtime.standbyMode", mode)
        self.host.touch("summary.runtime.standbyMode")
