# SPDX-License-Identifier: Apache-2.0
"""Simulated ESXi hosts.

Entering maintenance is a task with a phase of its own: ``inMaintenanceMode`` stays false until every VM is off or
away; tenant VMs are moved first, and EAM powers its agent VMs off only then. The task that leaves maintenance ends
only when the agent VMs run again ("Wait for EAM VMs to Power-on" in vCenter).

Not promised: host configuration beyond Agent VM settings, sensors, hardware beyond sizes and PCI cards.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import long, short

from vcenter_eam_plugin.simulator import devices, machines
from vcenter_eam_plugin.simulator.esx_agent_host_manager import EsxAgentHostManager
from vcenter_eam_plugin.simulator.failover import Failover
from vcenter_eam_plugin.simulator.managed_entity import VCENTER, ManagedEntity, refs, writes
from vcenter_eam_plugin.simulator.standby import Standby
from vcenter_eam_plugin.simulator.task import Task, start_task
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine
from vcenter_eam_plugin.simulator.world import Call, World

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.agent import Agent
    from vcenter_eam_plugin.simulator.compute_resource import ComputeResource
    from vcenter_eam_plugin.simulator.datastore import Datastore
    from vcenter_eam_plugin.simulator.network import Network

Connection = vim.HostSystem.ConnectionState
Power = vim.HostSystem.PowerState

ENTERING, IN, EXITING = "entering", "in", "exiting"
"""Phases of maintenance; ``None`` when there is none."""
MEMORY_MB = 256 * 1024
"""Memory of every simulated host."""


class HostSystem(ManagedEntity):
    """``vim.HostSystem``."""

    vmodl: ClassVar[type] = vim.HostSystem
    move_privilege: ClassVar[str] = "Host.Inventory.MoveHost"

    def __init__(self, world: World, name: str, parent: ComputeResource) -> None:
        super().__init__(world, world.new_moid("host"), name, parent)
        self.compute_resource = parent
        self.vms: dict[str, VirtualMachine] = {}
        self.datastores: dict[str, Datastore] = {}
        self.networks: dict[str, Network] = {}
        self.phase: str | None = None
        self.evacuated = False
        self.partial_maintenance = False
        self.powered = True
        self.boots = 1
        self.version = world.knobs.host_version
        self.memory_mb = MEMORY_MB
        self.agents: dict[str, Agent] = {}
        self.exit_waits: tuple[Callable[[], bool], ...] = ()
        """Who the task that leaves maintenance waits for: each says whether it is content."""
        self.power = Standby(self)
        self.failover = Failover(self)
        self._task: Task | None = None
        self._hold_until = 0.0
        self.agent_settings = world.add(EsxAgentHostManager(world, self))
        self.props.update(
            runtime=vim.host.RuntimeInfo(
                connectionState=Connection.connected,
                powerState=Power.poweredOn,
                standbyMode="none",
                inMaintenanceMode=False,
                inQuarantineMode=False,
                bootTime=world.clock.now(),
            ),
            configManager=vim.host.ConfigManager(esxAgentHostManager=self.agent_settings.ref),
        )

    # What it is ---------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """vCenter reaches the host."""
        return bool(self.props["runtime"].connectionState == Connection.connected)

    @property
    def standby(self) -> str:
        """``runtime.standbyMode``."""
        return str(self.props["runtime"].standbyMode)

    @property
    def in_maintenance(self) -> bool:
        """True once maintenance has been entered, and until it has been left."""
        return bool(self.props["runtime"].inMaintenanceMode)

    @property
    def can_run(self) -> bool:
        """VMs may be powered on here."""
        away = self.phase in (ENTERING, IN) or self.in_maintenance or self.standby != "none"
        return self.connected and self.powered and not away

    @property
    def entering(self) -> bool:
        """On its way into maintenance or standby: its VMs have to stop or to leave."""
        return self.phase == ENTERING or self.standby == "entering"

    @property
    def agents_may_stop(self) -> bool:
        """The host is on its way out of service, and nothing runs on it any more that needs an agent."""
        if self.standby == "entering" and self.world.knobs.dpm_agent_first:
            return True
        return self.entering and self.evacuated and not self.tenants_on

    @property
    def holds_agents(self) -> bool:
        """A rule is broken: agent VMs are not powered on yet, though they should be. Watchers hear of the end."""
        return self.world.clock.monotonic() < self._hold_until

    def hold_agents(self) -> None:
        """Keep agent VMs off for as long as the knob for broken rules says."""
        delay = self.world.knobs.broken_rule_delay
        self._hold_until = self.world.clock.monotonic() + delay
        self.world.clock.after(delay, self.signal)

    @property
    def tenants_on(self) -> bool:
        """A tenant VM runs here."""
        return any(vm.on and not vm.is_agent for vm in self.vms.values())

    @property
    def hardware_uuid(self) -> str:
        """``summary.hardware.uuid``: of the machine, so the same when a host of that name is added again."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name))

    def free_memory_mb(self) -> int:
        """Memory that no powered-on VM has."""
        return self.memory_mb - sum(vm.memory_mb for vm in self.vms.values() if vm.on)

    def prop_vm(self) -> Any:
        return refs(vim.VirtualMachine, self.vms.values())

    def prop_datastore(self) -> Any:
        return refs(vim.Datastore, self.datastores.values())

    def prop_network(self) -> Any:
        return refs(vim.Network, self.networks.values())

    def prop_config(self) -> Any:
        return vim.host.ConfigInfo(
            host=self.ref, product=self._product(), hyperThread=None, pciPassthruInfo=devices.passthru_infos()
        )

    def prop_hardware(self) -> Any:
        return vim.host.HardwareInfo(
            systemInfo=vim.host.SystemInfo(vendor="Simulated", model="Host", uuid=self.hardware_uuid),
            cpuInfo=vim.host.CpuInfo(
                numCpuPackages=short(2), numCpuCores=short(32), numCpuThreads=short(64), hz=long(2_400_000_000)
            ),
            cpuPkg=[
                vim.host.CpuPackage(
                    index=short(0),
                    vendor="intel",
                    hz=long(2_400_000_000),
                    busHz=long(100_000_000),
                    description="Simulated CPU",
                    threadId=[short(0)],
                    cpuFeature=[vim.host.CpuIdInfo(level=0)],
                )
            ],
            memorySize=long(self.memory_mb << 20),
            pciDevice=devices.pci_devices(),
        )

    def prop_summary(self) -> Any:
        settings = self.agent_settings
        return vim.host.Summary(
            host=self.ref,
            runtime=self.props["runtime"],
            overallStatus=self.props["overallStatus"],
            rebootRequired=False,
            quickStats=vim.host.Summary.QuickStats(),
            hardware=vim.host.Summary.HardwareSummary(
                vendor="Simulated",
                model="Host",
                uuid=self.hardware_uuid,
                memorySize=long(self.memory_mb << 20),
                cpuModel="Simulated CPU",
                cpuMhz=2400,
                numCpuPkgs=short(2),
                numCpuCores=short(32),
                numCpuThreads=short(64),
                numNics=4,
                numHBAs=1,
            ),
            config=vim.host.Summary.ConfigSummary(
                name=self.name,
                port=443,
                product=self._product(),
                vmotionEnabled=True,
                faultToleranceEnabled=False,
                agentVmDatastore=settings.datastore.ref if settings.datastore is not None else None,
                agentVmNetwork=settings.network.ref if settings.network is not None else None,
            ),
        )

    def _product(self) -> Any:
        return vim.AboutInfo(
            name="VMware ESXi",
            fullName=f"VMware ESXi {self.version} build-0 (simulated)",
            vendor="VMware, Inc.",
            version=self.version,
            build="0",
            osType="vmnix-x86",
            productLineId="embeddedEsx",
            apiType="HostAgent",
            apiVersion=".".join([*self.version.split("."), "0", "0"][:4]),
        )

    def describe(self, event: Any) -> None:
        event.host = vim.event.HostEventArgument(name=self.name, host=self.ref)

    # What is on it ------------------------------------------------------------------------------------------

    def mount(self, *things: Datastore | Network) -> None:
        """Get datastores and networks."""
        for thing in things:
            kind = "datastore" if thing.vmodl is vim.Datastore else "network"
            shelf: dict[str, Any] = self.datastores if kind == "datastore" else self.networks
            shelf[thing.moid] = thing
            thing.hosts[self.moid] = self
            thing.touch("host")
            self.touch(kind)

    def unmount(self, thing: Datastore | Network) -> None:
        """Lose a datastore or a network."""
        kind = "datastore" if thing.vmodl is vim.Datastore else "network"
        shelf: dict[str, Any] = self.datastores if kind == "datastore" else self.networks
        shelf.pop(thing.moid, None)
        thing.hosts.pop(self.moid, None)
        thing.touch("host")
        self.touch(kind)

    def put_vm(self, vm: VirtualMachine) -> None:
        """A VM comes to this host."""
        self.vms[vm.moid] = vm
        self.touch("vm")

    def drop_vm(self, vm: VirtualMachine) -> None:
        """A VM leaves this host."""
        if self.vms.pop(vm.moid, None) is not None:
            self.touch("vm")

    def vm_changed(self, vm: VirtualMachine) -> None:
        """A VM of this host changed its power state or left: maintenance may go on."""
        self.signal()
        self._continue()

    # Maintenance --------------------------------------------------------------------------------------------

    def enter_maintenance(self, user: str = VCENTER, timeout: float = 0) -> Task:
        """Start entering; ``timeout`` in seconds, 0 = none. Can be cancelled until it has been entered."""
        task = start_task(self.world, self, "HostSystem.enterMaintenanceMode", user=user, on_cancel=self._cancel_enter)
        task.running()
        if self.phase is not None or self.in_maintenance or not self.connected or self.standby != "none":
            task.fail(vim.fault.InvalidState(msg=f"Host {self.name} cannot enter maintenance mode now."))
            return task
        self._task = task
        self.phase, self.evacuated = ENTERING, False
        self.post(vim.event.EnteringMaintenanceModeEvent(), user)
        self.signal()
        self.world.clock.after(self.world.knobs.evacuate, lambda: self.evacuate(task))
        if timeout > 0:
            self.world.clock.after(timeout, lambda: self._time_out(task))
        return task

    def evacuate(self, task: Task) -> None:
        """Move away what DRS may move, on the way into maintenance or standby."""
        if task.ended or not self.entering:
            return
        with_agents = self.world.knobs.drs_ignores_agents
        for vm in [vm for vm in self.vms.values() if vm.on and (with_agents or not vm.is_agent)]:
            target = self.compute_resource.place(vm, besides=self)
            if target is not None:
                vm.migrate(target)
        self.evacuated = True
        task.progress(50)
        self.signal()
        self._continue()

    def _continue(self) -> None:
        self.power.go_on()
        self.failover.go_on()
        task = self._task
        if task is None or task.ended:
            return
        if self.phase == ENTERING and self.evacuated and not any(vm.on for vm in self.vms.values()):
            self.world.clock.after(self.world.knobs.enter_maintenance, lambda: self._entered(task))
        elif self.phase == EXITING and not self.in_maintenance:
            if self.world.knobs.late_power_on_after_maintenance:
                self.hold_agents()
                self._exited(task)
            elif all(content() for content in self.exit_waits):
                self._exited(task)

    def _entered(self, task: Task) -> None:
        if task.ended or self.phase != ENTERING or any(vm.on for vm in self.vms.values()):
            return
        self.phase = IN
        self._task = None
        self.set("runtime.inMaintenanceMode", True)
        self.touch("summary.runtime.inMaintenanceMode")
        self.post(vim.event.EnteredMaintenanceModeEvent(), task.info.reason.userName)
        task.succeed()

    def _cancel_enter(self) -> None:
        self._stop_entering(vim.event.CanceledHostOperationEvent())

    def _time_out(self, task: Task) -> None:
        if not task.ended and self.phase == ENTERING:
            task.fail(vim.fault.Timedout())
            self._stop_entering(vim.event.TimedOutHostOperationEvent())

    def _stop_entering(self, event: Any) -> None:
        self.phase, self._task = None, None
        self.post(event)
        self.signal()

    def exit_maintenance(self, user: str = VCENTER, timeout: float = 0) -> Task:
        """Start leaving; the task ends when the agent VMs of this host run again. ``timeout`` as above."""
        task = start_task(self.world, self, "HostSystem.exitMaintenanceMode", user=user)
        task.running()
        if not self.in_maintenance or self.phase != IN or not self.connected:
            task.fail(vim.fault.InvalidState(msg=f"Host {self.name} is not in maintenance mode."))
            return task
        self._task = task
        self.phase = EXITING
        self.signal()
        self.world.clock.after(self.world.knobs.exit_maintenance, lambda: self._out(task))
        if timeout > 0:
            self.world.clock.after(timeout, lambda: self._exit_timed_out(task))
        return task

    def _out(self, task: Task) -> None:
        if task.ended or self.phase != EXITING:
            return
        task.progress(50)
        self.set("runtime.inMaintenanceMode", False)
        self.touch("summary.runtime.inMaintenanceMode")
        self._continue()

    def look_again(self) -> None:
        """Somebody in ``exit_waits`` may have become content, or an agent available."""
        self._continue()

    def _exited(self, task: Task) -> None:
        self.phase, self._task = None, None
        self.post(vim.event.ExitMaintenanceModeEvent(), task.info.reason.userName)
        self.signal()
        task.succeed()

    def _exit_timed_out(self, task: Task) -> None:
        if not task.ended:
            self.phase, self._task = (IN if self.in_maintenance else None), None
            self.signal()
            self.post(vim.event.TimedOutHostOperationEvent())
            task.fail(vim.fault.Timedout())

    def set_partial_maintenance(self, on: bool) -> None:
        """Enter or leave the partial maintenance mode of the host's quick patch (8.0 update 3 and later)."""
        self.partial_maintenance = on
        mode = vim.host.PartialMaintenanceModeRuntimeInfo(key="quickPatchPartialMM", hostStatus="inPartialMM")
        modes = vim.host.PartialMaintenanceModeRuntimeInfo.Array([mode] if on else [])
        self.set("runtime.partialMaintenanceMode", modes)

    # Connection and power -----------------------------------------------------------------------------------

    def see(self, connection: Any) -> None:
        """Set the connection and, with it, what vCenter knows of the power state and of the VMs."""
        self.set("runtime.connectionState", connection)
        if self.standby in ("in", "exiting"):
            power = Power.standBy  # vCenter put it to sleep, so it knows
        else:
            power = Power.poweredOn if self.connected else Power.unknown
        self.set("runtime.powerState", power)
        for path in ("connectionState", "powerState"):
            self.touch(f"summary.runtime.{path}")
        if not self.connected and self._task is not None:
            # Nobody can say any more whether the host got there.
            task, self._task = self._task, None
            self.phase = IN if self.in_maintenance else None
            task.fail(vmodl.fault.HostCommunication())
        if not self.connected:
            self.power.lost()
        for vm in tuple(self.vms.values()):
            vm.refresh_connection()

    def disconnect(self, user: str = VCENTER) -> Task:
        """Start disconnecting from vCenter; the VMs keep running."""

        def work() -> None:
            if self.props["runtime"].connectionState == Connection.disconnected:
                raise vim.fault.InvalidState(msg=f"Host {self.name} is disconnected already.")
            self.see(Connection.disconnected)
            self.post(vim.event.HostDisconnectedEvent(reason="userRequest"), user)

        return self.operate("HostSystem.disconnect", user, work, delay=self.world.knobs.connect)

    def reconnect(self, user: str = VCENTER) -> Task:
        """Start connecting again."""

        def work() -> None:
            if self.connected:
                raise vim.fault.InvalidState(msg=f"Host {self.name} is connected.")
            if not self.powered:
                raise vim.fault.NoHost(name=self.name)
            self.see(Connection.connected)
            self.post(vim.event.HostConnectedEvent(), user)

        return self.operate("HostSystem.reconnect", user, work, delay=self.world.knobs.connect)

    def crash(self) -> None:
        """The machine stops at once: not responding, its VMs as last seen; HA starts what it may elsewhere."""
        if not self.powered:
            return
        self.powered = False
        self.failover.host_lost([vm for vm in self.vms.values() if vm.on])
        self.see(Connection.notResponding)
        self.post(vim.event.HostConnectionLostEvent())

    def lose_contact(self) -> None:
        """vCenter no longer reaches the host, which keeps running."""
        self.see(Connection.notResponding)
        self.post(vim.event.HostConnectionLostEvent())

    def recover(self) -> None:
        """The machine has booted: its VMs are off, and vCenter reaches it again. HA starts what ran here."""
        if self.powered:
            return
        self.powered = True
        self.boots += 1
        self.props["runtime"].bootTime = self.world.clock.now()
        self.touch("runtime.bootTime")
        self.power.booted()
        self.see(Connection.connected)
        self.failover.host_back()
        self.post(vim.event.HostConnectedEvent())
        self.signal()

    def reboot(self, user: str = VCENTER, *, force: bool = False) -> Task:
        """Start a reboot; without ``force`` only a host in maintenance may be rebooted."""

        def work() -> None:
            self._require_stoppable(force)
            self.post(vim.event.HostShutdownEvent(reason="reboot"), user)
            self.crash()
            self.world.clock.after(self.world.knobs.boot, self.recover)

        return self.operate("HostSystem.reboot", user, work)

    def _require_stoppable(self, force: bool) -> None:
        if not self.connected:
            raise vim.fault.InvalidState(msg=f"Host {self.name} is not connected.")
        if not force and not self.in_maintenance:
            raise vim.fault.InvalidState(msg=f"Host {self.name} is not in maintenance mode.")

    # Inventory ----------------------------------------------------------------------------------------------

    def remove(self, user: str = VCENTER) -> None:
        """Leave the inventory at once, with all its VMs."""
        machines.keep(self)
        for vm in tuple(self.vms.values()):
            vm.vanish(user)
        self.post(vim.event.HostRemovedEvent(), user)
        for thing in self._things():
            thing.hosts.pop(self.moid, None)
            thing.touch("host")
            if not thing.hosts and not getattr(thing, "shared", True):
                thing.remove(user)  # a local datastore leaves with its machine
        self.compute_resource.drop_host(self)
        self.world.remove(self.agent_settings)
        self.leave()

    def _things(self) -> Iterator[Datastore | Network]:
        yield from tuple(self.datastores.values())
        yield from tuple(self.networks.values())

    # Operations ---------------------------------------------------------------------------------------------

    @writes("EnterMaintenanceMode_Task", "Host.Config.Maintenance")
    def enter_maintenance_task(
        self,
        call: Call,
        timeout: int,
        evacuatePoweredOffVms: bool | None = None,  # noqa: N803 - the API's names
        maintenanceSpec: Any = None,  # noqa: N803
    ) -> Task:
        """As documented; powered-off VMs stay where they are."""
        return self.enter_maintenance(call.user, timeout)

    @writes("ExitMaintenanceMode_Task", "Host.Config.Maintenance")
    def exit_maintenance_task(self, call: Call, timeout: int) -> Task:
        """As documented."""
        return self.exit_maintenance(call.user, timeout)

    @writes("PowerDownHostToStandBy_Task", "Host.Config.Maintenance")
    def power_down_to_standby_task(
        self,
        call: Call,
        timeoutSec: int,  # noqa: N803 - the API's names
        evacuatePoweredOffVms: bool | None = None,  # noqa: N803
    ) -> Task:
        """As documented; powered-off VMs stay where they are."""
        return self.power.enter(call.user, timeoutSec)

    @writes("PowerUpHostFromStandBy_Task", "Host.Config.Maintenance")
    def power_up_from_standby_task(self, call: Call, timeoutSec: int) -> Task:  # noqa: N803
        """As documented."""
        return self.power.wake(call.user, timeoutSec)

    @writes("ShutdownHost_Task", "Host.Config.Maintenance")
    def shutdown_task(self, call: Call, force: bool) -> Task:
        """As documented; only a person at the machine (``recover``) starts it again."""

        def work() -> None:
            self._require_stoppable(force)
            self.post(vim.event.HostShutdownEvent(reason="shutdown"), call.user)
            self.crash()

        return self.operate("HostSystem.shutdown", call.user, work)

    @writes("DisconnectHost_Task", "Host.Config.Connection")
    def disconnect_task(self, call: Call) -> Task:
        """As documented."""
        return self.disconnect(call.user)

    @writes("ReconnectHost_Task", "Host.Config.Connection")
    def reconnect_task(self, call: Call, cnxSpec: Any = None, reconnectSpec: Any = None) -> Task:  # noqa: N803
        """As documented; the specs change nothing here."""
        return self.reconnect(call.user)

    @writes("RebootHost_Task", "Host.Config.Maintenance")
    def reboot_task(self, call: Call, force: bool) -> Task:
        """As documented."""
        return self.reboot(call.user, force=force)

    @writes("Destroy_Task", "Host.Inventory.RemoveHostFromCluster")
    def destroy_task(self, call: Call) -> Task:
        """Remove the host; in a cluster it must be in maintenance or disconnected, a standalone host any time."""

        def work() -> None:
            if self.compute_resource.is_cluster and self.connected and not self.in_maintenance:
                raise vim.fault.InvalidState(msg=f"Host {self.name} is neither disconnected nor in maintenance mode.")
            above = self.compute_resource
            self.remove(call.user)
            if not above.is_cluster:
                above.remove(call.user)

        return self.operate("HostSystem.destroy", call.user, work)

    @writes("ReconfigureHostForDAS_Task", "Host.Config.Connection")
    def reconfigure_das_task(self, call: Call) -> Task:
        """As documented: only for a host in a cluster."""

        def work() -> None:
            if not self.compute_resource.is_cluster:
                raise vmodl.fault.NotSupported(msg="A standalone host has no vSphere HA.")

        return self.operate("HostSystem.reconfigureDAS", call.user, work)
