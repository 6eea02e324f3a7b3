# SPDX-License-Identifier: Apache-2.0
"""Writes into the journal what is true of each host, whenever that changes.

It is what a client's published states are compared with, so it knows nothing of any client: a host's connection,
power, maintenance and standby, its agent VM and that one's power, its agent's colour, goal and issues.
"""

from __future__ import annotations

from typing import Any

from vcenter_eam_plugin.simulator.agent import Agent
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine
from vcenter_eam_plugin.simulator.world import ManagedObject, World


class TruthRecorder:
    """Follows hosts, agent VMs and agents. Cost: one look at one host per change of one of those."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self) -> None:
        """Write every host's truth once, then follow."""
        for host in self._world.each(HostSystem):
            self._follow(host)
        self._world.listeners.append(self)

    def object_added(self, obj: ManagedObject) -> None:
        if isinstance(obj, HostSystem):
            self._follow(obj)
        else:
            self._of(obj)

    def object_changed(self, obj: ManagedObject, path: str) -> None:
        if path.startswith(("runtime", "guest")):
            self._of(obj)

    def object_removed(self, obj: ManagedObject) -> None:
        if isinstance(obj, HostSystem):
            self._world.journal.truth(obj.moid, {"name": obj.name, "present": False})
        else:
            self._of(obj)

    def _follow(self, host: HostSystem) -> None:
        # Watched, and not only listened to: the phases of maintenance are no property.
        host.watch(lambda: self.record(host))
        self.record(host)

    def _of(self, obj: ManagedObject) -> None:
        if isinstance(obj, Agent) or (isinstance(obj, VirtualMachine) and obj.is_agent):
            self.record(obj.host)

    def record(self, host: HostSystem) -> None:
        """Write one host's truth, if it is news."""
        if host.alive:
            self._world.journal.truth(host.moid, state_of(host))


def state_of(host: HostSystem) -> dict[str, Any]:
    """What is true of a host, as plain data."""
    runtime = host.props["runtime"]
    agent = next(iter(host.agents.values()), None)
    vm = agent.vm if agent is not None else None
    if vm is None:
        vm = next((vm for vm in reversed(host.vms.values()) if vm.is_agent), None)
    return {
        "name": host.name,
        "present": True,
        "compute_resource": host.compute_resource.moid,
        "connection": str(runtime.connectionState),
        "power": str(runtime.powerState),
        "standby": runtime.standbyMode,
        "maintenance": host.phase or ("in" if host.in_maintenance else None),
        "in_maintenance": host.in_maintenance,
        "vm": vm.moid if vm is not None else None,
        "vm_power": str(vm.power) if vm is not None else None,
        "heartbeat": vm.heartbeat if vm is not None else False,
        "agent": agent.moid if agent is not None else None,
        "status": agent.status if agent is not None else None,
        "goal": agent.goal if agent is not None else None,
        "hook": agent.hook if agent is not None else None,
        "issues": sorted(issue.type for issue in agent.issues.values()) if agent is not None else [],
        "available": agent.available if agent is not None else False,
    }
