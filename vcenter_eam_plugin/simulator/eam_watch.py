# SPDX-License-Identifier: Apache-2.0
"""What EAM notices by itself: agent VMs that belong to no agency, and solutions that are unregistered.

Since vCenter 7.0 update 1 EAM powers off and deletes agent VMs without an agency unasked (VMware knowledge base):
those of a host that was removed and added again, of an agency that was lost, of a machine that came from another
vCenter. Earlier ones left them alone. The agencies of an extension that is unregistered are destroyed with all their
VMs (ESX Agent Manager API reference, OrphanedAgency).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from vcenter_eam_plugin.simulator.virtual_machine import EAM, PowerState, VirtualMachine
from vcenter_eam_plugin.simulator.world import ManagedObject

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.esx_agent_manager import EsxAgentManager

CLEANUP_SINCE = (7, 2)
"""EAM level of vCenter 7.0 update 1."""


class EamWatch:
    """Listens to the world on behalf of one EAM. ``orphans`` are the agent VMs of no agency, by moid."""

    def __init__(self, manager: EsxAgentManager) -> None:
        self.manager = manager
        self.orphans: dict[str, VirtualMachine] = {}
        self._busy: set[str] = set()
        self._solutions: set[str] = set()

    def object_added(self, obj: ManagedObject) -> None:
        if isinstance(obj, VirtualMachine) and obj.is_agent and obj.moid not in self.manager.owners:
            self.found(obj)

    def object_changed(self, obj: ManagedObject, path: str) -> None:
        if path == "extensionList" and obj.vmodl is vim.ExtensionManager:
            now = {extension.key for extension in obj.get("extensionList")}
            for key in self._solutions - now:
                self.manager.solution_ended(key)
            self._solutions = now

    def object_removed(self, obj: ManagedObject) -> None:
        """A VM that leaves is noticed when it is looked at."""

    def found(self, vm: VirtualMachine) -> None:
        """An agent VM may belong to nobody."""
        if vm.moid not in self.orphans:
            self.orphans[vm.moid] = vm
            vm.watch(partial(self._look_soon, vm))
            self._look_soon(vm)

    def look_again(self) -> None:
        """EAM works again, or may do now what it did not before."""
        for vm in tuple(self.orphans.values()):
            self._look_soon(vm)

    def _look_soon(self, vm: VirtualMachine) -> None:
        if vm.moid not in self._busy:
            self._busy.add(vm.moid)
            self.manager.world.clock.after(self.manager.world.knobs.orphan_cleanup_delay, partial(self._look, vm))

    def _look(self, vm: VirtualMachine) -> None:
        self._busy.discard(vm.moid)
        knobs = self.manager.world.knobs
        if not vm.alive or vm.moid in self.manager.owners:
            self.orphans.pop(vm.moid, None)
            return
        cleans = knobs.orphan_cleanup and knobs.eam_level >= CLEANUP_SINCE
        if not cleans or self.manager.frozen or not vm.host.connected:
            return
        self._busy.add(vm.moid)
        if vm.power == PowerState.suspended:
            vm.become(PowerState.poweredOff, EAM)
        begin = vm.power_off if vm.on else vm.destroy
        begin(EAM, partial(self._done, vm))

    def _done(self, vm: VirtualMachine, fault: Any) -> None:
        self._busy.discard(vm.moid)
        if vm.alive and fault is None:
            self._look_soon(vm)
        elif not vm.alive:
            self.orphans.pop(vm.moid, None)
            self.manager.world.journal.add("eam", action="orphan_deleted", object=vm.moid, name=vm.name)
