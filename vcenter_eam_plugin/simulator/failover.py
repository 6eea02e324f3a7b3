# SPDX-License-Identifier: Apache-2.0
"""vSphere HA as far as a host's loss and return show it.

When a host is lost, its tenant VMs are started on other hosts of the cluster, and its agent VMs are not: they belong
to their host. When the host is back, its agent VMs are started first (EAM does), then the tenant VMs that found no
other place. Without HA nobody starts tenant VMs.

Not promised: isolation responses, storage heartbeats, restart priorities, proactive HA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyVmomi import vim

from vcenter_eam_plugin.simulator import drs
from vcenter_eam_plugin.simulator.managed_entity import VCENTER

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.host_system import HostSystem
    from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine

TRIES = 5
"""How often HA tries to start a VM elsewhere: vCenter's default of das.maxvmrestartcount."""

PowerState = vim.VirtualMachine.PowerState


class Failover:
    """What HA knows of one host: the VMs that ran there when it was lost."""

    def __init__(self, host: HostSystem) -> None:
        self.host = host
        self._ran: list[VirtualMachine] = []
        self._to_start: list[VirtualMachine] = []
        self._losses = 0

    def host_lost(self, running: Sequence[VirtualMachine]) -> None:
        """The host stopped while these VMs ran on it."""
        self._ran, self._to_start = list(running), []
        self._losses += 1
        resource = self.host.compute_resource
        if not resource.ha:
            return
        failed = vim.event.HostEventArgument(name=self.host.name, host=self.host.ref)
        resource.post(vim.event.DasHostFailedEvent(failedHost=failed))
        self._again(self._losses, TRIES)

    def _again(self, loss: int, tries: int) -> None:
        self.host.world.clock.after(self.host.world.knobs.ha_failover, lambda: self._start_elsewhere(loss, tries))

    def _start_elsewhere(self, loss: int, tries: int) -> None:
        host = self.host
        if loss != self._losses or host.powered or not host.alive:
            return
        stuck = []
        for vm in [vm for vm in self._ran if vm.alive and vm.host is host]:
            if vm.is_agent and not host.world.knobs.ha_restarts_elsewhere:
                continue
            target = drs.choose(host.compute_resource, vm, besides=host)
            if target is None:
                stuck.append(vm)
            else:
                vm.restart_on(target)
        if stuck and tries > 1:
            self._again(loss, tries - 1)
        for vm in stuck if tries <= 1 else ():
            vm.post(vim.event.VmFailoverFailed())

    def host_back(self) -> None:
        """The host has booted: what ran there is off, and HA starts it again, agent VMs first."""
        ran, self._ran = [vm for vm in self._ran if vm.alive and vm.host is self.host], []
        for vm in ran:
            vm.become(PowerState.poweredOff)
        if self.host.compute_resource.ha:
            self._to_start = [vm for vm in ran if not vm.is_agent]
        if self.host.world.knobs.agent_not_first_after_restart and ran:
            self.host.hold_agents()
        self.go_on()

    def go_on(self) -> None:
        """The host or one of its agents changed: start the tenant VMs when their turn has come."""
        if not self._to_start or not self.host.can_run:
            return
        out_of_turn = self.host.world.knobs.agent_not_first_after_restart
        if not out_of_turn and (drs.missing_agents(self.host) or drs.agents_off(self.host)):
            return
        waiting, self._to_start = self._to_start, []
        for vm in waiting:
            if vm.alive and vm.host is self.host and not vm.on:
                vm.become(PowerState.poweredOn, VCENTER)
