# SPDX-License-Identifier: Apache-2.0
"""One agent: what EAM does for one agency on one host.

An agent is level-triggered. Whatever changes (host, VM, agency), it is woken, looks at everything once, and either
takes the next step, files the issue that blocks it, waits, or is content. EAM carries out what *it* began and does
not undo what people did: a VM that was powered off or deleted by hand is an issue until somebody resolves it. That
difference is ``intent``: *work* towards the goal, or *watch* and report.

A new OVF URL is an upgrade in the order that is documented for EAM's successor: the new VM is provisioned while the
old one runs, then the old one is powered off and deleted, then the new one is powered on. With a hold after
provisioning the new VM waits for its mark before any of that, and the old one keeps running (knob
``upgrade_keeps_old_in_hold``).

Not promised: VIBs, cluster-bound agents.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import eam, vim, vmodl

from vcenter_eam_plugin.simulator import loopback
from vcenter_eam_plugin.simulator.agent_build import (
    Build,
    Properties,
    properties_of,
    property_errors,
    write_environment,
)
from vcenter_eam_plugin.simulator.eam_issues import MAINTENANCE, Issue, Problem, Remedy, event_id
from vcenter_eam_plugin.simulator.eam_object import EamObject
from vcenter_eam_plugin.simulator.host_system import EXITING, HostSystem
from vcenter_eam_plugin.simulator.managed_entity import writes
from vcenter_eam_plugin.simulator.ovf_download import OvfPackage, OvfProblem, Reason, version_matches
from vcenter_eam_plugin.simulator.virtual_machine import EAM, ConnectionState, PowerState, VirtualMachine
from vcenter_eam_plugin.simulator.world import Call, soap

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.agency import Agency
    from vcenter_eam_plugin.simulator.datastore import Datastore
    from vcenter_eam_plugin.simulator.network import Network

WORK, WATCH = "work", "watch"
PROVISIONED, POWERED_ON = "provisioned", "poweredOn"
"""Values of ``AgentVmHook.vmState``."""

Step = Callable[[], None]


class _Outcome:
    """What a look can end in besides a problem or a step."""

    def __init__(self, name: str) -> None:
        self.name = name


CONTENT, WAIT, KEEP = _Outcome("content"), _Outcome("wait"), _Outcome("keep")
"""Goal reached (green); waiting for something that will come (yellow); nothing to say (colour stays)."""


class Agent(EamObject):
    """``eam.Agent``."""

    vmodl: ClassVar[type] = eam.Agent

    def __init__(self, agency: Agency, host: HostSystem) -> None:
        super().__init__(agency.world, str(uuid.uuid4()), agency.manager)
        self.agency = agency
        self.host = host
        self.vm: VirtualMachine | None = None
        self.build: Build | None = None
        self.replacement: VirtualMachine | None = None
        self.intent = WORK
        self.leaving = False
        self.orphaned = False
        self.hook: str | None = None
        self.available = False
        self.failed: Problem | None = None
        self._next_build: Build | None = None
        self._hook_vm: VirtualMachine | None = None
        self._old_serves = False
        self._busy = False
        self._scheduled = False
        self._boots = host.boots
        self._provisioning_marked = False
        self._marked_boot = 0
        self.status = "yellow"
        host.agents[self.moid] = self
        host.watch(self.wake)
        host.exit_waits = (*host.exit_waits, self._content_with_exit)

    # The look -----------------------------------------------------------------------------------------------

    @property
    def goal(self) -> str:
        """``runtime.goalState``: an agent knows only enabled and uninstalled."""
        return "uninstalled" if self.removing else "enabled"

    @property
    def removing(self) -> bool:
        """It is to go, because its host left the scope or the agency is uninstalled."""
        return self.leaving or self.agency.goal == "uninstalled"

    @property
    def vms(self) -> list[VirtualMachine]:
        """Its VMs: one, and in an upgrade the new one besides the old one."""
        return [vm for vm in (self.vm, self.replacement) if vm is not None]

    @property
    def vm_name(self) -> str:
        """``runtime.vmName``: empty before there is a VM, as seen on real servers."""
        return self.vm.name if self.vm is not None else ""

    @property
    def gone(self) -> bool:
        """It has been removed."""
        return self.world.objects.get(self.moid) is not self

    def wake(self) -> None:
        """Look soon; being woken often means one look."""
        if not self._scheduled and not self.gone:
            self._scheduled = True
            self.world.clock.after(self.world.knobs.eam_reaction, self._look)

    def _look(self) -> None:
        self._scheduled = False
        if self.gone or self._busy or self.manager.frozen:
            return
        if not self.host.alive:
            self._end("destroyedNoHost")
            return
        self._lose_vms()
        self._old_serves = False
        outcome = self._hindered(self._decide())
        self.available = (outcome is CONTENT or self._old_serves) and self.vm is not None and self.vm.on
        if isinstance(outcome, Problem):
            self._file(outcome)
        elif isinstance(outcome, _Outcome):
            if outcome is not KEEP:
                self._clear()
                waiting = self.world.knobs.status_in_hook if self.hook is not None else "yellow"
                self._colour("green" if outcome is CONTENT else waiting)
        else:
            self._clear()
            self._colour("yellow")
            outcome()
        self.touch("runtime")
        self.host.look_again()

    def _hindered(self, outcome: Problem | Step | _Outcome) -> Problem | Step | _Outcome:
        """Partial maintenance mode hinders every step, and nothing that stands."""
        if isinstance(outcome, Problem | _Outcome) or not self.host.partial_maintenance:
            return outcome
        if self.removing and self.vm is None:
            return outcome
        return Problem("HostInPartialMaintenanceMode", {"vm": self.vm.ref} if self.vm is not None else {})

    def _lose_vms(self) -> None:
        """Somebody deleted a VM: that is reported, and not repaired unasked. In an upgrade the new one takes over."""
        for vm in self.vms:
            if vm.alive:
                continue
            was_new = vm is self.replacement
            self._forget(vm)
            if was_new:
                self.failed = Problem("VmNotDeployed")
            elif self.vm is None:
                self.intent = WATCH

    def _forget(self, vm: VirtualMachine) -> None:
        """A VM is not the agent's any more. The new one of an upgrade then takes the old one's place."""
        self._disown(vm)
        if vm is self._hook_vm:
            self._set_hook(None)
        if vm is self.replacement:
            self.replacement = self._next_build = None
            self._provisioning_marked = False
        elif vm is self.vm:
            self.vm, self.build = self.replacement, self._next_build
            self.replacement = self._next_build = None
            self._marked_boot = 0
            if self.vm is None:
                self._provisioning_marked = False
            else:
                self.intent = WORK

    def _decide(self) -> Problem | Step | _Outcome:  # noqa: PLR0911 - a decision list
        if self.host.standby == "in":
            return self._decide_standby()
        if self.host.standby == "exiting":
            return WAIT
        if not self.host.connected:
            self._leave_behind()
            return Problem("HostNotReachable")
        if self.host.boots != self._boots:
            # A host that restarted lost power: EAM starts its agents before other VMs start.
            self._boots = self.host.boots
            if self.vm is not None:
                self.intent = WORK
        if self.removing:
            return self._decide_removal()
        if self.agency.blocked_by_disabled_cluster(self.host):
            return self._power_off_all() or WAIT
        if self.host.entering or self.host.phase is not None or self.host.in_maintenance:
            outcome = self._decide_maintenance()
            if outcome is not None:
                return outcome
        if self.vm is None:
            return self._decide_deployment()
        outcome = self._decide_upgrade(self.vm)
        return outcome if outcome is not None else self._decide_power(self.vm)

    def _power_off_all(self) -> Step | None:
        """The step that powers off the first VM that is on."""
        return next((partial(self._power_off, vm) for vm in self.vms if vm.on), None)

    def _leave_behind(self) -> None:
        """Removal began while the host is away: when it is back, its VM is an orphan that a person decides on."""
        if self.leaving and self.vm is not None and not self.orphaned:
            self.orphaned, self.intent = True, WATCH

    def _decide_maintenance(self) -> Problem | Step | _Outcome | None:  # noqa: PLR0911 - a decision list
        """``None`` means that maintenance does not matter (any more)."""
        if self.vm is not None:
            self.intent = WORK
        if self.host.entering:
            if self.vm is None:
                return KEEP
            step = self._power_off_all()
            if step is None:
                return WAIT
            return step if self.host.agents_may_stop else KEEP
        if not self.host.in_maintenance:
            return None
        if self.host.phase == EXITING:
            return WAIT
        if self.vm is None:
            if self.intent == WATCH:
                return Problem("VmNotDeployed")
            return Problem("VmRequiresHostOutOfMaintenanceMode")
        if (self.agency.goal == "disabled" or not self.world.knobs.maintenance_issue) and not self._upgrade_pending():
            return CONTENT
        return Problem("HostInMaintenanceMode", {"vm": self.vm.ref})

    def _decide_removal(self) -> Problem | Step | _Outcome:
        vm = self.replacement or self.vm
        if vm is None:
            return partial(self._end, "destroyed")
        if self.orphaned and self.intent == WATCH:
            return Problem("VmOrphaned", {"vm": vm.ref})
        if self.host.phase == EXITING:
            return WAIT
        if self.host.in_maintenance:
            return Problem("HostInMaintenanceMode", {"vm": vm.ref})
        return self._get_rid_of(vm)

    def _get_rid_of(self, vm: VirtualMachine) -> Problem | Step:
        """Power off, then delete."""
        where = {"vm": vm.ref}
        if vm.connection == ConnectionState.inaccessible:
            return Problem("VmInaccessible", where)
        if vm.protected:
            return Problem("VmProtected", where)
        if self.failed is not None and self.failed.type == "VmDeployed":
            return self.failed
        return partial(self._power_off if vm.power != PowerState.poweredOff else self._delete, vm)

    def _decide_standby(self) -> Problem | Step | _Outcome:
        """The host sleeps: nothing can be done there, and what is off there is off rightly."""
        if self.removing and self.vm is None:
            return partial(self._end, "destroyed")
        self.intent = WORK
        wanted = self._wants_a_vm_on()
        if self.vm is None:
            # The standby issue must name a VM; this one is also for hosts that are off.
            return Problem("HostNotReachable") if wanted else CONTENT
        if self.removing or self._upgrade_pending() or (self.world.knobs.standby_issue and wanted):
            return Problem("HostInStandbyMode", {"vm": self.vm.ref})
        return CONTENT

    def _wants_a_vm_on(self) -> bool:
        config = self.configuration()
        return self.agency.goal == "enabled" and config is not None and bool(config.ovfPackageUrl)

    def _decide_deployment(self) -> Problem | Step | _Outcome:
        if self.intent == WATCH:
            return Problem("VmNotDeployed")
        if self.failed is not None:
            return self.failed
        config = self.configuration()
        if config is None:
            return Problem("IncompatibleHostVersion")
        if not config.ovfPackageUrl:
            return CONTENT  # an agent without a VM
        for chosen in (self._datastore(), self._network()):
            if isinstance(chosen, Problem):
                return chosen
        return self._deploy

    def _upgrade_pending(self) -> bool:
        """The VM is not, or not only, the one that the configuration asks for."""
        config = self.configuration()
        if self.replacement is not None:
            return True
        return self.build is not None and config is not None and config.ovfPackageUrl != self.build.url

    def _decide_upgrade(self, vm: VirtualMachine) -> Problem | Step | _Outcome | None:  # noqa: PLR0911 - a decision list
        """``None`` when the VM is as configured. Without a configuration for the host what runs stays."""
        config, build = self.configuration(), self.build
        if config is None or build is None:
            return None
        if config.ovfPackageUrl == build.url:
            if self.replacement is not None:
                return self._get_rid_of(self.replacement)  # the new URL was taken back
            return self._decide_properties(vm, build, config)
        if not config.ovfPackageUrl:
            self.intent = WORK
            return self._get_rid_of(vm)
        new, new_build = self.replacement, self._next_build
        if new is not None and new_build is not None and new_build.url != config.ovfPackageUrl:
            return self._get_rid_of(new)
        self._old_serves = vm.on and self._marked(vm) and (vm.heartbeat or not self.world.knobs.heartbeat_gate)
        if self.failed is not None:
            return self.failed
        if new is None or new_build is None:
            for chosen in (self._datastore(), self._network()):
                if isinstance(chosen, Problem):
                    return chosen
            return self._deploy
        outcome = self._decide_properties(new, new_build, config)
        if outcome is not None:
            return outcome
        if self._new_is_held(new) and self.world.knobs.upgrade_keeps_old_in_hold:
            self._set_hook(PROVISIONED, new)
            return self._decide_old(vm)
        self._old_serves = False
        self._set_hook(None)
        return self._get_rid_of(vm)

    def _new_is_held(self, vm: VirtualMachine) -> bool:
        """A VM that never ran waits to be marked; one that a person has started by hand does not."""
        held = self.agency.hold_after_provisioning and self.agency.goal != "disabled"
        return held and not self._provisioning_marked and vm.boots == 0

    def _decide_old(self, vm: VirtualMachine) -> Problem | Step | _Outcome:
        """The old VM of an upgrade while the new one is held: it keeps running, and its troubles are reported."""
        where = {"vm": vm.ref}
        if vm.connection == ConnectionState.inaccessible:
            return Problem("VmInaccessible", where)
        if vm.missing_file is not None:
            return Problem("VmCorrupted", {**where, "missingFile": vm.missing_file})
        if vm.on:
            self.intent = WATCH
        elif vm.boots:
            if self.intent == WATCH:
                return Problem("VmSuspended" if vm.power == PowerState.suspended else "VmPoweredOff", where)
            return partial(self._power_on, vm)
        return WAIT

    def _decide_properties(self, vm: VirtualMachine, build: Build, config: Any) -> Problem | Step | None:
        """Other OVF properties than the VM was given: it is reconfigured. ``None`` when there is nothing to do."""
        given = properties_of(config)
        if given == build.properties or vm.connection == ConnectionState.inaccessible or vm.missing_file is not None:
            return None
        errors = property_errors(build.package, given)
        if errors:
            return Problem("OvfInvalidProperty", {"error": errors})
        if self.failed is not None and self.failed.type == "InvalidConfig":
            return self.failed
        return partial(self._reconfigure, vm, given)

    def _decide_power(self, vm: VirtualMachine) -> Problem | Step | _Outcome:  # noqa: PLR0911 - a decision list
        where = {"vm": vm.ref}
        if vm.connection == ConnectionState.inaccessible:
            return Problem("VmInaccessible", where)
        if vm.missing_file is not None:
            if self.intent == WATCH:
                return Problem("VmCorrupted", {**where, "missingFile": vm.missing_file})
            return self._get_rid_of(vm)
        if self.agency.goal == "disabled":
            return self._decide_disabled(vm)
        if vm.on:
            return self._decide_on(vm)
        if self.intent == WATCH:
            return Problem("VmSuspended" if vm.power == PowerState.suspended else "VmPoweredOff", where)
        if self.failed is not None and (self.failed.type != "InvalidConfig" or vm.start_fault is not None):
            return self.failed
        self.failed = None
        if self.agency.hold_after_provisioning and not self._provisioning_marked and vm.boots == 0:
            self._set_hook(PROVISIONED, vm)
            return WAIT
        self._set_hook(None)
        if vm.protected:
            return Problem("VmProtected", where)
        if self.host.holds_agents:
            return WAIT
        return partial(self._power_on, vm)

    def _decide_disabled(self, vm: VirtualMachine) -> Problem | Step | _Outcome:
        self._set_hook(None)
        if vm.power == PowerState.poweredOff:
            self.intent = WATCH
            return CONTENT
        if self.intent == WATCH:
            return Problem("VmPoweredOn" if vm.on else "VmSuspended", {"vm": vm.ref})
        return partial(self._power_off, vm)

    def _decide_on(self, vm: VirtualMachine) -> Problem | Step | _Outcome:
        # It runs, whoever started it: from here on, being off again is somebody else's doing.
        self.intent, self.failed = WATCH, None
        if not self._marked(vm):
            self._set_hook(POWERED_ON, vm)
            return WAIT
        self._set_hook(None)
        if self.world.knobs.heartbeat_gate and not vm.heartbeat:
            return WAIT
        return CONTENT

    def _marked(self, vm: VirtualMachine) -> bool:
        """The power-on hook asks for nothing."""
        if not self.agency.hold_after_power_on:
            return True
        return self._marked_boot == vm.boots or bool(self._marked_boot and not self.world.knobs.repeat_power_on_hook)

    # What it needs ------------------------------------------------------------------------------------------

    def configuration(self) -> Any:
        """The agent configuration that goes on this host: the first that matches its version; ``None`` if none."""
        for config in self.agency.settings.agentConfig:
            line = config.productLineId
            if (not line or line in ("esx", "embeddedEsx")) and version_matches(config.hostVersion, self.host.version):
                return config
        return None

    def _datastore(self) -> Datastore | Problem:
        chosen: Datastore | Problem = self._choose(
            "Datastore", self.host.agent_settings.datastore, self.host.datastores
        )
        return chosen

    def _network(self) -> Network | Problem:
        chosen: Network | Problem = self._choose("Network", self.host.agent_settings.network, self.host.networks)
        return chosen

    def _choose(self, kind: str, of_host: Any, on_host: dict[str, Any]) -> Any:
        settings = self.agency.settings
        listed = list(getattr(settings, f"agentVm{kind}"))
        if not listed or settings.preferHostConfiguration:
            if of_host is not None:
                return of_host
            if not listed or not self.world.knobs.fallback_to_agency_settings:
                return Problem(f"NoAgentVm{kind}")
        for ref in listed:
            if ref._moId in on_host:
                return on_host[ref._moId]
        names = [found.get("name") if (found := self.world.find(ref)) is not None else "" for ref in listed]
        field = f"customAgentVm{kind}"
        return Problem(f"NoCustomAgentVm{kind}", {field: listed, f"{field}Name": names})

    # Steps --------------------------------------------------------------------------------------------------

    def _deploy(self) -> None:
        config = self.configuration()
        self._busy = True
        self.manager.ovf.fetch(config.ovfPackageUrl, config.ovfSslTrust, lambda got: self._fetched(config, got))

    def _fetched(self, config: Any, got: OvfPackage | OvfProblem) -> None:
        if isinstance(got, OvfProblem):
            self._ready(_download_problem(got))
            return
        build = Build(config.ovfPackageUrl, properties_of(config), got)
        errors = property_errors(got, build.properties)
        if errors:
            self._ready(Problem("OvfInvalidProperty", {"error": errors}))
            return
        self.world.clock.after(self.world.knobs.deploy, lambda: self._provision(build))

    def _provision(self, build: Build) -> None:
        if self.gone:
            return  # EAM lost the agency meanwhile
        datastore, network, package = self._datastore(), self._network(), build.package
        if (
            isinstance(datastore, Problem)
            or isinstance(network, Problem)
            or not self.host.alive
            or not self.host.can_run
            or self.removing
        ):
            self._ready()  # the world changed meanwhile: look again
            return
        if not datastore.usable_on(self.host):
            self._ready(Problem("VmNotDeployed"))  # vCenter's clone or import fails, and EAM says no more than that
            return
        if datastore.free < package.disk_bytes:
            self._ready(Problem("InsufficientSpace"))
            return
        freed = self.vm.memory_mb if self.vm is not None and self.vm.on else 0
        if self.host.free_memory_mb() + freed < package.memory_mb:
            self._ready(Problem("InsufficientResources"))
            return
        folder, pool = self.agency.placement(self.host)
        vm = VirtualMachine(
            self.world,
            self.agency.next_vm_name(folder),
            folder,
            host=self.host,
            pool=pool,
            datastore=datastore,
            network=network,
            agent=True,
            memory_mb=package.memory_mb,
            cpus=package.cpus,
            disk_bytes=package.disk_bytes,
        )
        number = int(self.host.moid.rpartition("-")[2])
        net = self.world.knobs.vrouter_net or f"127.{loopback.FIRST}"
        vm.address = f"{net}.{number >> 8 & 255}.{number & 255}"
        self.manager.owners[vm.moid] = self
        self.world.add(vm)
        folder.put(vm)
        pool.put(vm)
        datastore.take(package.disk_bytes)
        if self.vm is None:
            self.vm, self.build = vm, build
        else:
            self.replacement, self._next_build = vm, build
            self._set_hook(None)
        self._provisioning_marked = False
        vm.watch(self.wake)
        self.host.put_vm(vm)
        vm.post(vim.event.VmCreatedEvent(template=False), EAM)
        write_environment(vm, build, event=False)
        self.notify("agent.task.deployVm", vm)
        self._ready()

    def _reconfigure(self, vm: VirtualMachine, given: Properties) -> None:
        """Write other OVF properties; whether a VM that runs is restarted for them is not documented, so a knob."""
        self._busy = True

        def write() -> None:
            if vm.connection != ConnectionState.connected:
                raise vim.fault.InvalidState(msg=f"VM {vm.name} is {vm.connection}.")
            if vm is self.replacement and self._next_build is not None:
                build = self._next_build = replace(self._next_build, properties=given)
            elif vm is self.vm and self.build is not None:
                build = self.build = replace(self.build, properties=given)
            else:
                raise vmodl.fault.ManagedObjectNotFound(obj=vm.ref)
            write_environment(vm, build)

        def done(fault: Any) -> None:
            broken = fault is not None and vm.alive and self.host.can_run
            self._ready(Problem("InvalidConfig", {"vm": vm.ref, "error": fault}) if broken else None)

        def begin() -> None:
            vm.operate("VirtualMachine.reconfigure", EAM, write, done=done)

        if vm.on and self.world.knobs.reconfigure_power_cycles:
            self.intent = WORK
            vm.power_off(EAM, lambda _: begin())
        else:
            begin()

    def _power_on(self, vm: VirtualMachine) -> None:
        self._busy = True

        def done(fault: Any) -> None:
            if fault is None:
                self.intent = WATCH
                self.notify("agent.task.powerOnVm", vm)
                self._ready()
            elif vm.alive and self.host.can_run:
                self._ready(Problem("InvalidConfig", {"vm": vm.ref, "error": fault}))
            else:
                self._ready()

        vm.power_on(EAM, done)

    def _power_off(self, vm: VirtualMachine) -> None:
        self._busy = True
        if vm.power == PowerState.suspended:
            vm.become(PowerState.poweredOff, EAM)

        def done(fault: Any) -> None:
            if fault is None:
                self.notify("agent.task.powerOffVm", vm)
            self._ready()

        if vm.on:
            vm.power_off(EAM, done)
        else:
            done(None)

    def _delete(self, vm: VirtualMachine) -> None:
        self._busy = True

        def done(fault: Any) -> None:
            if fault is None:
                self._forget(vm)
                self.notify("agent.task.deleteVm", vm)
                self._ready()
            else:
                self._ready(Problem("VmDeployed", {"vm": vm.ref}) if vm.alive and self.host.connected else None)

        vm.destroy(EAM, done)

    def _ready(self, failed: Problem | None = None) -> None:
        """A step has ended."""
        self._busy = False
        if failed is not None:
            self.failed = failed
        self.wake()

    def _content_with_exit(self) -> bool:
        """What the task that leaves maintenance asks: nothing of this agent is still to be powered on."""
        if self.vm is None or not self.vm.alive or self.removing or self.agency.goal == "disabled":
            return True
        blocked = any(issue.type not in MAINTENANCE for issue in self.issues.values())
        held = self.hook == PROVISIONED and self.replacement is None
        return self.vm.on or held or blocked

    def _end(self, how: str) -> None:
        """Leave the world: removed, or the host is gone."""
        for vm in self.vms:
            self._disown(vm)
        self.vm = self.replacement = None
        self._set_hook(None)
        self._clear()
        self.host.unwatch(self.wake)
        self.host.agents.pop(self.moid, None)
        self.host.exit_waits = tuple(wait for wait in self.host.exit_waits if wait != self._content_with_exit)
        self.notify(f"agent.{how}")
        self.world.remove(self)
        self.agency.agent_ended(self)

    def abandon(self) -> None:
        """Disappear without touching the VM, as after a restore of EAM's database."""
        self.host.unwatch(self.wake)
        self.host.agents.pop(self.moid, None)
        self.host.exit_waits = tuple(wait for wait in self.host.exit_waits if wait != self._content_with_exit)
        for vm in self.vms:
            self._disown(vm)
        self.world.remove(self)

    def _disown(self, vm: VirtualMachine) -> None:
        vm.unwatch(self.wake)
        self.manager.owners.pop(vm.moid, None)
        if vm.alive:
            self.manager.watch.found(vm)

    # Issues, colour, hooks ----------------------------------------------------------------------------------

    def _file(self, problem: Problem) -> None:
        problem = problem.at_level(self.world.knobs.eam_level)
        standing = next(iter(self.issues.values()), None)
        if standing is not None and standing.type == problem.type:
            standing.problem = problem
        else:
            self._clear()
            issue = self.manager.new_issue(problem)
            self.issues[issue.key] = issue
            self.agency.issues_changed()
            self.notify(event_id(problem.type).removeprefix("com.vmware.vim.eam."))
        self._colour("red")

    def _clear(self) -> None:
        if self.issues:
            self.issues.clear()
            self.agency.issues_changed()
            self.notify("issue.resolved")

    def _colour(self, status: str) -> None:
        if status != self.status:
            before, self.status = self.status, status
            self.notify("agent.statusChanged")
            self.agency.agent_coloured(before, status)

    def _set_hook(self, hook: str | None, vm: VirtualMachine | None = None) -> None:
        if hook == self.hook and vm is self._hook_vm:
            return
        self.hook, self._hook_vm = hook, vm
        if hook is not None:
            suffix = "AfterProvisioning" if hook == PROVISIONED else "AfterPowerOn"
            self.notify(f"agent.markAgentVmAsAvailable{suffix}", vm)

    def require_visible_to(self, session: Any, user: str) -> None:
        """As of its agency."""
        self.agency.require_visible_to(session, user)

    def issue_value(self, issue: Issue) -> Any:
        """The pyVmomi form of one of its issues."""
        return issue.value(
            **self.agency.names(), agent=self.ref, agentName=self.agency.agent_name, host=self.host.ref,
            hostName=self.host.name,
        )  # fmt: skip

    def notify(self, what: str, vm: VirtualMachine | None = None) -> None:
        """Post an EAM event about this agent."""
        self.manager.notify(what, self.host, vm or self.vm)

    def resolve_one(self, issue: Issue) -> bool:
        """Begin to remedy one issue; False when it cannot be remedied at present."""
        if issue.remedy is Remedy.NONE:
            return False
        if issue.type in MAINTENANCE:
            knobs = self.world.knobs
            if not knobs.resolve_exits_maintenance or self.host.compute_resource.lifecycle_managed:
                return True  # documented: nothing is done on clusters managed with an image
            self.host.exit_maintenance(EAM)
        if issue.type == "HostInStandbyMode":
            if not self.world.knobs.resolve_wakes_host:
                return True
            self.host.power.wake(EAM)
        if issue.type == "VmProtected":
            for vm in self.vms:
                vm.protected = False
        self.failed = None
        if issue.remedy is Remedy.ACTIVE:
            self.intent = WORK
        self._clear()
        self._colour("yellow")
        self.touch("runtime")
        self.wake()
        return True

    def take_new_moid(self) -> None:
        """Be the same under another reference, as after a restore of EAM's database."""
        self.world.remove(self)
        self.host.agents.pop(self.moid, None)
        self.moid = str(uuid.uuid4())
        self.host.agents[self.moid] = self
        self.world.add(self)

    def retry(self) -> None:
        """The configuration changed: forget what failed under the old one."""
        self.failed = None
        self.wake()

    def goal_changed(self) -> None:
        """The agency has another goal: work towards it."""
        if not self.orphaned:
            self.intent = WORK
        self.wake()

    def leave_scope(self) -> None:
        """The host is not in scope any more."""
        if not self.leaving:
            self.leaving = True
            self.intent = WORK
            self.wake()

    def rejoin_scope(self) -> None:
        """The host is in scope again before the agent was gone."""
        if self.leaving:
            self.leaving = self.orphaned = False
            self.intent = WORK
            self.wake()

    # The API ------------------------------------------------------------------------------------------------

    def prop_runtime(self) -> Any:
        vm = self.vm
        runtime = eam.Agent.RuntimeInfo(
            status=self.status,
            issue=self.issue_values(),
            goalState=self.goal,
            entity=self.ref,
            vmPowerState=vm.power if vm is not None else PowerState.poweredOff,
            receivingHeartBeat=vm.heartbeat if vm is not None else False,
            host=self.host.ref,
            vm=vm.ref if vm is not None else None,
            vmIp=vm.address if vm is not None and vm.heartbeat else None,
            vmName=self.vm_name,
            esxAgentResourcePool=vm.pool.ref if vm is not None else None,
            esxAgentFolder=vm.parent.ref if vm is not None and vm.parent is not None else None,
            agency=self.agency.ref,
        )
        if self.hook is not None and self._hook_vm is not None:
            runtime.vmHook = eam.Agent.VmHook(vm=self._hook_vm.ref, vmState=self.hook)
        return runtime

    def prop_config(self) -> Any:
        config = self.configuration()
        return config if config is not None else eam.Agent.ConfigInfo()

    @soap("AgentQueryRuntime", "EAM.View")
    def query_runtime(self, call: Call) -> Any:
        """As the property."""
        self.require_visible(call)
        return self.prop_runtime()

    @soap("AgentQueryConfig", "EAM.View")
    def query_config(self, call: Call) -> Any:
        """As the property."""
        self.require_visible(call)
        return self.prop_config()

    @writes("MarkAsAvailable")
    def mark_as_available(self, call: Call) -> None:
        """The client is done with the pending hook. Documented without a user privilege, so for extensions only."""
        self.require_visible(call)
        if not self.manager.is_extension(call.session):
            if not self.world.knobs.mark_allowed_for_users:
                raise eam.fault.NotAuthorized(msg="Only a vCenter extension may mark an agent VM as available.")
            call.require("EAM.Modify", self)
        if self.hook is None:
            if self.world.knobs.mark_without_hook_fails:
                raise eam.fault.InvalidState(msg=f"No hook is pending on host {self.host.name}.")
            return
        if self.hook == PROVISIONED:
            self._provisioning_marked = True
        elif self.vm is not None:
            self._marked_boot = self.vm.boots
        self._set_hook(None)
        self.touch("runtime")
        self.wake()


def _download_problem(problem: OvfProblem) -> Problem:
    if problem.reason is Reason.CERTIFICATE:
        return Problem("CertificateNotTrusted", {"url": problem.url})
    if problem.reason is Reason.FORMAT:
        error = vim.fault.OvfXmlFormat(lineNumber=problem.line, description=problem.detail)
        error.msg = str(problem)
        return Problem("OvfInvalidFormat", {"error": vmodl.MethodFault.Array([error])})
    return Problem("CannotAccessAgentOVF", {"downloadUrl": problem.url})
