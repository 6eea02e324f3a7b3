# SPDX-License-Identifier: Apache-2.0
"""One agent: what EAM does for one agency on one host.

An agent is level-triggered. Whatever changes (host, VM, agency), it is woken, looks at everything once, and either
takes the next step, files the issue that blocks it, waits, or is content. EAM carries out what *it* began and does
not undo what people did: a VM that was powered off or deleted by hand is an issue until somebody resolves it. That
difference is ``intent``: *work* towards the goal, or *watch* and report.

Not promised: VIBs, cluster-bound agents, upgrade of VMs that exist.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import eam, vim, vmodl

from vcenter_eam_plugin.simulator.eam_issues import MAINTENANCE, Issue, Problem, Remedy, event_id
from vcenter_eam_plugin.simulator.eam_object import EamObject
from vcenter_eam_plugin.simulator.host_system import ENTERING, EXITING, HostSystem
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
        self.vm_name = ""
        self.intent = WORK
        self.leaving = False
        self.orphaned = False
        self.hook: str | None = None
        self.available = False
        self.failed: Problem | None = None
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
        if self.vm is not None and not self.vm.alive:
            self._lose_vm()
        outcome = self._hindered(self._decide())
        if isinstance(outcome, Problem):
            self.available = False
            self._file(outcome)
        elif isinstance(outcome, _Outcome):
            self.available = outcome is CONTENT and self.vm is not None and self.vm.on
            if outcome is not KEEP:
                self._clear()
                waiting = self.world.knobs.status_in_hook if self.hook is not None else "yellow"
                self._colour("green" if outcome is CONTENT else waiting)
        else:
            self.available = False
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

    def _lose_vm(self) -> None:
        """Somebody deleted the VM: that is reported, and not repaired unasked."""
        self._forget_vm()
        self.intent = WATCH

    def _forget_vm(self) -> None:
        if self.vm is not None:
            self.vm.unwatch(self.wake)
        self.vm, self.vm_name = None, ""
        self._set_hook(None)
        self._provisioning_marked, self._marked_boot = False, 0

    def _decide(self) -> Problem | Step | _Outcome:
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
            return self._power_off if self.vm is not None and self.vm.on else WAIT
        if self.host.phase is not None or self.host.in_maintenance:
            outcome = self._decide_maintenance()
            if outcome is not None:
                return outcome
        if self.vm is None:
            return self._decide_deployment()
        return self._decide_power(self.vm)

    def _leave_behind(self) -> None:
        """Removal began while the host is away: when it is back, its VM is an orphan that a person decides on."""
        if self.leaving and self.vm is not None and not self.orphaned:
            self.orphaned, self.intent = True, WATCH

    def _decide_maintenance(self) -> Problem | Step | _Outcome | None:  # noqa: PLR0911 - a decision list
        """``None`` means that maintenance does not matter (any more)."""
        if self.vm is not None:
            self.intent = WORK
        if self.host.phase == ENTERING:
            if self.vm is None:
                return KEEP
            if not self.vm.on:
                return WAIT
            return self._power_off if self.host.evacuated and not self.host.tenants_on else KEEP
        if not self.host.in_maintenance:
            return None
        if self.host.phase == EXITING:
            return WAIT
        if self.vm is None:
            if self.intent == WATCH:
                return Problem("VmNotDeployed")
            return Problem("VmRequiresHostOutOfMaintenanceMode")
        if self.agency.goal == "disabled" or not self.world.knobs.maintenance_issue:
            return CONTENT
        return Problem("HostInMaintenanceMode", {"vm": self.vm.ref})

    def _decide_removal(self) -> Problem | Step | _Outcome:  # noqa: PLR0911 - a decision list
        if self.vm is None:
            return lambda: self._end("destroyed")
        vm = {"vm": self.vm.ref}
        if self.orphaned and self.intent == WATCH:
            return Problem("VmOrphaned", vm)
        if self.host.phase == EXITING:
            return WAIT
        if self.host.in_maintenance:
            return Problem("HostInMaintenanceMode", vm)
        if self.vm.connection == ConnectionState.inaccessible:
            return Problem("VmInaccessible", vm)
        if self.vm.protected:
            return Problem("VmProtected", vm)
        if self.failed is not None and self.failed.type == "VmDeployed":
            return self.failed
        return self._power_off if self.vm.power != PowerState.poweredOff else self._delete

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

    def _decide_power(self, vm: VirtualMachine) -> Problem | Step | _Outcome:  # noqa: PLR0911 - a decision list
        where = {"vm": vm.ref}
        if vm.connection == ConnectionState.inaccessible:
            return Problem("VmInaccessible", where)
        if vm.missing_file is not None:
            if self.intent == WATCH:
                return Problem("VmCorrupted", {**where, "missingFile": vm.missing_file})
            return self._power_off if vm.on else self._delete
        if self.agency.goal == "disabled":
            return self._decide_disabled(vm)
        if vm.on:
            return self._decide_on(vm)
        if self.intent == WATCH:
            return Problem("VmSuspended" if vm.power == PowerState.suspended else "VmPoweredOff", where)
        if self.failed is not None and (self.failed.type != "InvalidConfig" or vm.power_on_fault is not None):
            return self.failed
        self.failed = None
        if self.agency.hold_after_provisioning and not self._provisioning_marked and vm.boots == 0:
            self._set_hook(PROVISIONED)
            return WAIT
        if vm.protected:
            return Problem("VmProtected", where)
        return self._power_on

    def _decide_disabled(self, vm: VirtualMachine) -> Problem | Step | _Outcome:
        self._set_hook(None)
        if vm.power == PowerState.poweredOff:
            self.intent = WATCH
            return CONTENT
        if self.intent == WATCH:
            return Problem("VmPoweredOn" if vm.on else "VmSuspended", {"vm": vm.ref})
        return self._power_off

    def _decide_on(self, vm: VirtualMachine) -> Problem | Step | _Outcome:
        # It runs, whoever started it: from here on, being off again is somebody else's doing.
        self.intent, self.failed = WATCH, None
        marked = self._marked_boot == vm.boots or (self._marked_boot and not self.world.knobs.repeat_power_on_hook)
        if self.agency.hold_after_power_on and not marked:
            self._set_hook(POWERED_ON)
            return WAIT
        self._set_hook(None)
        if self.world.knobs.heartbeat_gate and not vm.heartbeat:
            return WAIT
        return CONTENT

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
        problem = _download_problem(got) if isinstance(got, OvfProblem) else self._missing_property(config, got)
        if problem is not None:
            self._ready(problem)
            return
        self.world.clock.after(self.world.knobs.deploy, lambda: self._provision(got))

    def _missing_property(self, config: Any, package: OvfPackage) -> Problem | None:
        given = {item.key for item in config.ovfEnvironment.ovfProperty} if config.ovfEnvironment is not None else set()
        errors = [vim.fault.OvfProperty(type="string", value=key) for key in package.required if key not in given]
        for error in errors:
            error.msg = f"The property {error.value} is not given."
        return Problem("OvfInvalidProperty", {"error": errors}) if errors else None

    def _provision(self, package: OvfPackage | OvfProblem) -> None:
        datastore, network = self._datastore(), self._network()
        if (
            isinstance(package, OvfProblem)
            or isinstance(datastore, Problem)
            or isinstance(network, Problem)
            or not self.host.alive
            or not self.host.can_run
            or self.removing
        ):
            self._ready()  # the world changed meanwhile: look again
            return
        if datastore.free < package.disk_bytes:
            self._ready(Problem("InsufficientSpace"))
            return
        if self.host.free_memory_mb() < package.memory_mb:
            self._ready(Problem("InsufficientResources"))
            return
        folder, pool = self.agency.placement(self.host)
        self.vm_name = self.agency.next_vm_name(folder)
        vm = VirtualMachine(
            self.world,
            self.vm_name,
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
        vm.address = f"{self.world.knobs.vrouter_net}.{number >> 8 & 255}.{number & 255}"
        self.world.add(vm)
        folder.put(vm)
        pool.put(vm)
        datastore.take(package.disk_bytes)
        self.vm = vm
        vm.watch(self.wake)
        self.host.put_vm(vm)
        vm.post(vim.event.VmCreatedEvent(template=False), EAM)
        self.notify("agent.task.deployVm")
        self._ready()

    def _power_on(self) -> None:
        assert self.vm is not None
        self._busy = True

        def done(fault: Any) -> None:
            if fault is None:
                self.intent = WATCH
                self.notify("agent.task.powerOnVm")
                self._ready()
            elif self.vm is not None and self.vm.alive and self.host.can_run:
                self._ready(Problem("InvalidConfig", {"vm": self.vm.ref, "error": fault}))
            else:
                self._ready()

        self.vm.power_on(EAM, done)

    def _power_off(self) -> None:
        assert self.vm is not None
        self._busy = True
        if self.vm.power == PowerState.suspended:
            self.vm.become(PowerState.poweredOff, EAM)

        def done(fault: Any) -> None:
            if fault is None:
                self.notify("agent.task.powerOffVm")
            self._ready()

        if self.vm.on:
            self.vm.power_off(EAM, done)
        else:
            done(None)

    def _delete(self) -> None:
        vm = self.vm
        assert vm is not None
        self._busy = True

        def done(fault: Any) -> None:
            if fault is None:
                self._forget_vm()
                self.notify("agent.task.deleteVm")
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
        return self.vm.on or self.hook == PROVISIONED or blocked

    def _end(self, how: str) -> None:
        """Leave the world: removed, or the host is gone."""
        self._forget_vm()
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
        if self.vm is not None:
            self.vm.unwatch(self.wake)
        self.world.remove(self)

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

    def _set_hook(self, hook: str | None) -> None:
        if hook == self.hook:
            return
        self.hook = hook
        if hook is not None:
            suffix = "AfterProvisioning" if hook == PROVISIONED else "AfterPowerOn"
            self.notify(f"agent.markAgentVmAsAvailable{suffix}")

    def issue_value(self, issue: Issue) -> Any:
        """The pyVmomi form of one of its issues."""
        return issue.value(
            **self.agency.names(), agent=self.ref, agentName=self.agency.agent_name, host=self.host.ref,
            hostName=self.host.name,
        )  # fmt: skip

    def notify(self, what: str) -> None:
        """Post an EAM event about this agent."""
        self.manager.notify(what, self.host, self.vm)

    def resolve_one(self, issue: Issue) -> bool:
        """Begin to remedy one issue; False when it cannot be remedied at present."""
        if issue.remedy is Remedy.NONE:
            return False
        if issue.type in MAINTENANCE:
            knobs = self.world.knobs
            if not knobs.resolve_exits_maintenance or self.host.compute_resource.lifecycle_managed:
                return True  # documented: nothing is done on clusters managed with an image
            self.host.exit_maintenance(EAM)
        if issue.type == "VmProtected" and self.vm is not None:
            self.vm.protected = False
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
            vmName=vm.name if vm is not None else "",
            esxAgentResourcePool=vm.pool.ref if vm is not None else None,
            esxAgentFolder=vm.parent.ref if vm is not None and vm.parent is not None else None,
            agency=self.agency.ref,
        )
        if self.hook is not None and vm is not None:
            runtime.vmHook = eam.Agent.VmHook(vm=vm.ref, vmState=self.hook)
        return runtime

    def prop_config(self) -> Any:
        config = self.configuration()
        return config if config is not None else eam.Agent.ConfigInfo()

    @soap("AgentQueryRuntime", "EAM.View")
    def query_runtime(self, call: Call) -> Any:
        """As the property."""
        self.agency.require_visible(call)
        return self.prop_runtime()

    @soap("AgentQueryConfig", "EAM.View")
    def query_config(self, call: Call) -> Any:
        """As the property."""
        self.agency.require_visible(call)
        return self.prop_config()

    @writes("MarkAsAvailable")
    def mark_as_available(self, call: Call) -> None:
        """The client is done with the pending hook. Documented without a user privilege, so for extensions only."""
        self.agency.require_visible(call)
        if not self.manager.is_extension(call):
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
