# SPDX-License-Identifier: Apache-2.0
"""Simulated virtual machines, tenants' and agents'.

A tenant VM costs little until somebody reads its configuration. Power operations take their time, refuse what the
real ones refuse, and follow the host: a VM of an unreachable host is *disconnected* and keeps its last known power
state. Not promised: guests, snapshots, disks beyond their devices, storage migration.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import long

from vcenter_eam_plugin.simulator import drs
from vcenter_eam_plugin.simulator.devices import (
    change_device,
    initial_devices,
    networks_of,
    note_macs,
    pinned,
    start_fault,
)
from vcenter_eam_plugin.simulator.environment_browser import EnvironmentBrowser
from vcenter_eam_plugin.simulator.managed_entity import VCENTER, Done, ManagedEntity, refs, writes
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.world import Call, Timer, World

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.datastore import Datastore
    from vcenter_eam_plugin.simulator.host_system import HostSystem
    from vcenter_eam_plugin.simulator.network import Network
    from vcenter_eam_plugin.simulator.resource_pool import ResourcePool

EAM = "com.vmware.vim.eam"
"""User name of EAM's own tasks and events, and ``managedBy.extensionKey`` of its VMs."""
MIB = 1 << 20

PowerState = vim.VirtualMachine.PowerState
ConnectionState = vim.VirtualMachine.ConnectionState
Status = vim.ManagedEntity.Status


class VirtualMachine(ManagedEntity):
    """``vim.VirtualMachine``."""

    vmodl: ClassVar[type] = vim.VirtualMachine
    rename_privilege: ClassVar[str | None] = "VirtualMachine.Config.Rename"
    move_privilege: ClassVar[str] = "VirtualMachine.Inventory.Move"

    def __init__(
        self,
        world: World,
        name: str,
        folder: ManagedEntity,
        *,
        host: HostSystem,
        pool: ResourcePool,
        datastore: Datastore,
        network: Network | None,
        agent: bool = False,
        memory_mb: int = 2048,
        cpus: int = 2,
        disk_bytes: int = 0,
    ) -> None:
        super().__init__(world, world.new_moid("vm"), name, folder)
        self.host = host
        self.pool = pool
        self.datastore_object = datastore
        self.networks: list[Network] = [network] if network is not None else []
        self.is_agent = agent
        self.memory_mb = memory_mb
        self.cpus = cpus
        self.disk_bytes = disk_bytes
        self.address: str | None = None
        self.power_on_fault: Any = None
        self.delete_fault: Any = None
        self.missing_file: str | None = None
        self.protected = False
        self.template = False
        self.boots = 0
        self.busy: Task | None = None
        self._config: Any = None
        self._guest_timer: Timer | None = None
        self.props.update(
            resourcePool=pool.ref,
            guestHeartbeatStatus=Status.gray,
            runtime=vim.vm.RuntimeInfo(
                host=host.ref,
                connectionState=ConnectionState.connected,
                powerState=PowerState.poweredOff,
                faultToleranceState=vim.VirtualMachine.FaultToleranceState.notConfigured,
                recordReplayState=vim.VirtualMachine.RecordReplayState.inactive,
                toolsInstallerMounted=False,
                numMksConnections=0,
                onlineStandby=False,
                consolidationNeeded=False,
            ),
        )

    # What it is ---------------------------------------------------------------------------------------------

    @property
    def power(self) -> Any:
        """``runtime.powerState``."""
        return self.props["runtime"].powerState

    @property
    def on(self) -> bool:
        """Powered on, as far as vCenter knows."""
        return bool(self.power == PowerState.poweredOn)

    @property
    def connection(self) -> Any:
        """``runtime.connectionState``."""
        return self.props["runtime"].connectionState

    @property
    def heartbeat(self) -> bool:
        """True while the guest tools report."""
        return bool(self.props["guestHeartbeatStatus"] == Status.green)

    @property
    def configured(self) -> bool:
        """Somebody has read or changed its configuration; before that it is what every new VM has."""
        return self._config is not None

    @property
    def start_fault(self) -> Any:
        """What a power-on would fail with because of the VM itself; ``None`` when it would start."""
        if self.power_on_fault is None and self._config is not None:
            return start_fault(self, self._config)
        return self.power_on_fault

    @property
    def reserved_mb(self) -> int:
        """Memory reserved for it."""
        if self._config is None:
            return 0
        if self._config.memoryReservationLockedToMax:
            return self.memory_mb
        allocation = self._config.memoryAllocation
        return int(allocation.reservation or 0) if allocation is not None else 0

    @property
    def instance_uuid(self) -> str:
        """The uuid that is unique within a vCenter."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"instance of {self.moid}"))

    @property
    def bios_uuid(self) -> str:
        """``config.uuid``."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"bios of {self.moid}"))

    @property
    def path(self) -> str:
        """``[datastore] name/name.vmx``."""
        return f"[{self.datastore_object.name}] {self.name}/{self.name}.vmx"

    def prop_config(self) -> Any:
        if self._config is None:
            self._config = _new_config(self)
        return self._config

    def prop_summary(self) -> Any:
        config, guest = self.prop_config(), self.prop_guest()
        nics = sum(isinstance(d, vim.vm.device.VirtualEthernetCard) for d in config.hardware.device)
        disks = sum(isinstance(d, vim.vm.device.VirtualDisk) for d in config.hardware.device)
        return vim.vm.Summary(
            vm=self.ref,
            runtime=self.props["runtime"],
            overallStatus=self.props["overallStatus"],
            config=vim.vm.Summary.ConfigSummary(
                name=self.name,
                template=self.template,
                vmPathName=self.path,
                memorySizeMB=config.hardware.memoryMB,
                numCpu=config.hardware.numCPU,
                numEthernetCards=nics,
                numVirtualDisks=disks,
                uuid=self.bios_uuid,
                instanceUuid=self.instance_uuid,
                guestId=config.guestId,
                guestFullName=config.guestFullName,
                managedBy=config.managedBy,
            ),
            guest=vim.vm.Summary.GuestSummary(
                toolsStatus=guest.toolsStatus,
                toolsRunningStatus=guest.toolsRunningStatus,
                hostName=guest.hostName,
                ipAddress=guest.ipAddress,
            ),
            storage=vim.vm.Summary.StorageSummary(
                committed=long(self.disk_bytes),
                uncommitted=long(0),
                unshared=long(self.disk_bytes),
                timestamp=self.world.clock.now(),
            ),
            quickStats=vim.vm.Summary.QuickStats(guestHeartbeatStatus=self.props["guestHeartbeatStatus"]),
        )

    def prop_guest(self) -> Any:
        running = self.heartbeat
        tools = vim.vm.GuestInfo.ToolsStatus
        return vim.vm.GuestInfo(
            toolsStatus=tools.toolsOk if running else tools.toolsNotRunning,
            toolsRunningStatus="guestToolsRunning" if running else "guestToolsNotRunning",
            guestState="running" if self.on else "notRunning",
            hostName=self.guest_host_name if running else None,
            ipAddress=self.address if running else None,
        )

    @property
    def guest_host_name(self) -> str:
        """Host name inside the guest."""
        return "".join(c if c.isalnum() else "-" for c in self.name.lower()).strip("-").replace("--", "-")

    def prop_datastore(self) -> Any:
        return refs(vim.Datastore, [self.datastore_object])

    def prop_environmentBrowser(self) -> Any:  # noqa: N802 - named after the property
        return EnvironmentBrowser.of(self.host).ref

    def prop_network(self) -> Any:
        return refs(vim.Network, self.networks)

    def describe(self, event: Any) -> None:
        event.vm = vim.event.VmEventArgument(name=self.name, vm=self.ref)
        if event.host is None:
            self.host.describe(event)
            above = self.host.parent
            if above is not None:
                above.describe(event)

    # Power --------------------------------------------------------------------------------------------------

    def power_on(self, user: str = VCENTER, done: Done | None = None, *, host: HostSystem | None = None) -> Task:
        """Start powering on, on ``host`` if given, else where DRS wants it.

        Refused, in the task, as vCenter does: host away or in maintenance or without its agents, wrong state, cards.
        """

        def work() -> None:
            if self.on:
                raise vim.fault.InvalidPowerState(requestedState=PowerState.poweredOn, existingState=self.power)
            self._require_usable()
            target = self.placement(host)
            if not target.can_run:
                raise vim.fault.InvalidState(msg=f"Host {target.name} is in maintenance mode.")
            if target is not self.host:
                self._be_on(target)
            if self.start_fault is not None:
                raise copy.deepcopy(self.start_fault)
            self.become(PowerState.poweredOn, user)

        return self._power("powerOn", user, self.world.knobs.power_on, work, done)

    def placement(self, wanted: HostSystem | None = None) -> HostSystem:
        """Where it would start: an agent VM where it is, a tenant VM where DRS wants it; raises when nowhere."""
        resource = self.host.compute_resource
        if self.is_agent:
            return self.host
        if wanted is not None and wanted is not self.host:
            self._require_place(wanted)
            return wanted
        if not resource.drs or drs.fits(self.host, self):
            return self.host
        target = resource.place(self, besides=self.host)
        if target is None and self.host.can_run and drs.missing_agents(self.host):
            raise drs.insufficient_agents(self.host)
        return target or self.host

    def _require_place(self, target: HostSystem) -> None:
        """Raise what vCenter answers when the VM cannot run on a host."""
        if not target.can_run:
            raise vim.fault.InvalidState(msg=f"Host {target.name} is in maintenance mode or not connected.")
        if self.datastore_object.moid not in target.datastores:
            name, ref = self.datastore_object.name, self.datastore_object.ref
            raise vim.fault.DatastoreNotWritableOnHost(datastore=ref, name=name, host=target.ref)
        if not self.is_agent and target.compute_resource.drs and drs.missing_agents(target):
            raise drs.insufficient_agents(target)

    def move(self, target: HostSystem, user: str = VCENTER) -> Task:
        """Start a migration that somebody asked for. DRS has no say, but hosts without their agents are refused."""

        def work() -> None:
            if not self.alive:
                raise vmodl.fault.ManagedObjectNotFound(obj=self.ref)
            self._require_usable()
            if self.is_agent and not self.world.knobs.agent_vm_can_be_moved:
                raise vmodl.fault.NotSupported(msg=f"{self.name} is an agent VM and stays on its host.")
            if self.on and self._config is not None and pinned(self._config):
                fault = vim.fault.DeviceNotSupported(device="PCI device")
                raise vim.fault.DisallowedMigrationDeviceAttached(fault=fault)
            if target is self.host:
                return
            if self.on:
                self._require_place(target)
            self.migrate(target, user, drs=False)

        return self.operate("VirtualMachine.migrate", user, work, delay=self.world.knobs.migrate)

    def clone(
        self, name: str, *, on: bool = False, user: str = VCENTER, host: HostSystem | None = None, folder: Any = None
    ) -> Task:
        """Start copying it, devices and all, with addresses of its own; the task's result is the new VM."""
        holder: Any = folder if folder is not None else self.parent
        holder.require_free(name)

        def work() -> VirtualMachine:
            holder.require_free(name)
            where = host if host is not None else self.host
            made = VirtualMachine(
                self.world,
                name,
                holder,
                host=where,
                pool=where.compute_resource.root_pool,
                datastore=self.datastore_object,
                network=self.networks[0] if self.networks else None,
                memory_mb=self.memory_mb,
                cpus=self.cpus,
                disk_bytes=self.disk_bytes,
            )
            made.networks = list(self.networks)
            self.world.add(made)
            for place in (holder, made.pool):
                place.put(made)
            where.put_vm(made)
            self.datastore_object.take(self.disk_bytes)
            source = vim.event.VmEventArgument(name=self.name, vm=self.ref)
            made.post(vim.event.VmClonedEvent(template=False, sourceVm=source), user)
            if on:
                made.power_on(user)
            return made

        return self.operate("VirtualMachine.clone", user, work, delay=self.world.knobs.migrate)

    def power_off(self, user: str = VCENTER, done: Done | None = None) -> Task:
        """Start powering off."""

        def work() -> None:
            self._require_usable()
            if self.power == PowerState.poweredOff:
                raise vim.fault.InvalidPowerState(requestedState=PowerState.poweredOff, existingState=self.power)
            self.become(PowerState.poweredOff, user)

        return self._power("powerOff", user, self.world.knobs.power_off, work, done)

    def suspend(self, user: str = VCENTER, done: Done | None = None) -> Task:
        """Start suspending."""

        def work() -> None:
            self._require_usable()
            if not self.on:
                raise vim.fault.InvalidPowerState(requestedState=PowerState.suspended, existingState=self.power)
            self.become(PowerState.suspended, user)

        return self._power("suspend", user, self.world.knobs.power_off, work, done)

    def reset(self, user: str = VCENTER, done: Done | None = None) -> Task:
        """Start a hard reset: the guest starts again, the power state does not change."""

        def work() -> None:
            self._require_usable()
            if not self.on:
                raise vim.fault.InvalidPowerState(requestedState=PowerState.poweredOn, existingState=self.power)
            self._guest_down()
            self._guest_up()
            self.post(vim.event.VmResettingEvent(template=False), user)

        return self._power("reset", user, self.world.knobs.power_on, work, done)

    def destroy(self, user: str = VCENTER, done: Done | None = None) -> Task:
        """Start deleting the VM with its files; refused while it is powered on."""

        def work() -> None:
            self._require_usable()
            if self.on:
                raise vim.fault.InvalidPowerState(requestedState=PowerState.poweredOff, existingState=self.power)
            if self.delete_fault is not None:
                raise copy.deepcopy(self.delete_fault)
            self.vanish(user)

        return self._power("destroy", user, self.world.knobs.power_off, work, done)

    def _power(self, verb: str, user: str, delay: float, work: Callable[[], None], done: Done | None) -> Task:
        def guarded() -> None:
            if not self.alive:
                raise vmodl.fault.ManagedObjectNotFound(obj=self.ref)
            work()

        return self.operate(f"VirtualMachine.{verb}", user, guarded, delay=delay, done=done)

    def _require_usable(self) -> None:
        if self.connection != ConnectionState.connected:
            raise vim.fault.InvalidState(msg=f"VM {self.name} is {self.connection}.")

    def become(self, power: Any, user: str = VCENTER) -> None:
        """Take a power state at once, with its event and what follows for guest and host."""
        if power == self.power:
            return
        runtime = self.props["runtime"]
        if power == PowerState.poweredOn:
            self._start()
        else:
            self._guest_down()
            runtime.bootTime = None
            self.touch("runtime.bootTime")
        self.set("runtime.powerState", power)
        self.touch("summary.runtime.powerState")
        events = {
            PowerState.poweredOn: vim.event.VmPoweredOnEvent,
            PowerState.poweredOff: vim.event.VmPoweredOffEvent,
            PowerState.suspended: vim.event.VmSuspendedEvent,
        }
        self.post(events[power](template=False), user)
        self.host.vm_changed(self)

    def _guest_up(self) -> None:
        if not self.is_agent or not self.world.knobs.heartbeats:
            return
        self._guest_timer = self.world.clock.after(self.world.knobs.heartbeat, lambda: self.set_heartbeat(True))

    def _guest_down(self) -> None:
        if self._guest_timer is not None:
            self._guest_timer.cancel()
            self._guest_timer = None
        self.set_heartbeat(False)

    def set_heartbeat(self, beating: bool) -> None:
        """Guest tools start or stop reporting."""
        if beating and not self.on:
            return
        if beating == self.heartbeat:
            return
        self.set("guestHeartbeatStatus", Status.green if beating else Status.gray)
        for path in ("toolsStatus", "toolsRunningStatus", "hostName", "ipAddress"):
            self.touch(f"guest.{path}")
            self.touch(f"summary.guest.{path}")

    # Where it is --------------------------------------------------------------------------------------------

    def refresh_connection(self) -> None:
        """Follow host and storage: disconnected with the host, inaccessible without the storage."""
        if not self.host.connected:
            state = ConnectionState.disconnected
        elif not self.datastore_object.accessible:
            state = ConnectionState.inaccessible
        else:
            state = ConnectionState.connected
        before = self.connection
        self.set("runtime.connectionState", state)
        if before != state:
            self.touch("summary.runtime.connectionState")
            if state == ConnectionState.disconnected:
                self.post(vim.event.VmDisconnectedEvent(template=False))
            elif before == ConnectionState.disconnected:
                self.post(vim.event.VmConnectedEvent(template=False))

    def migrate(self, target: HostSystem, user: str = VCENTER, *, drs: bool = True) -> None:
        """Be on another host at once, because DRS or somebody wants it."""
        source = self._be_on(target)
        argument = vim.event.HostEventArgument(name=source.name, host=source.ref)
        kind = vim.event.DrsVmMigratedEvent if drs else vim.event.VmMigratedEvent
        self.post(kind(template=False, sourceHost=argument), user)

    def restart_on(self, target: HostSystem) -> None:
        """HA starts it on another host, since its own was lost."""
        self._guest_down()
        source = self._be_on(target)
        self._start()
        self.set("runtime.powerState", PowerState.poweredOn)
        self.touch("summary.runtime.powerState")
        argument = vim.event.HostEventArgument(name=source.name, host=source.ref)
        self.post(vim.event.VmRestartedOnAlternateHostEvent(template=False, sourceHost=argument))
        target.vm_changed(self)

    def _be_on(self, target: HostSystem) -> HostSystem:
        """Change the host, and the pool when the cluster changes; says which host it was."""
        source, self.host = self.host, target
        source.drop_vm(self)
        target.put_vm(self)
        if self.pool.owner is not target.compute_resource:
            self.pool.drop(self)
            self.pool = target.compute_resource.root_pool
            self.pool.put(self)
            self.set("resourcePool", self.pool.ref)
        self.set("runtime.host", target.ref)
        self.touch("summary.runtime.host")
        self.refresh_connection()
        source.vm_changed(self)
        return source

    def _start(self) -> None:
        self.boots += 1
        self.props["runtime"].bootTime = self.world.clock.now()
        self.touch("runtime.bootTime")
        self._guest_up()

    def vanish(self, user: str = VCENTER, *, event: Any = None) -> None:
        """Leave the inventory at once and give the space back."""
        if not self.alive:
            return
        self._guest_down()
        self.post(event or vim.event.VmRemovedEvent(template=False), user)
        self.host.drop_vm(self)
        self.pool.drop(self)
        holder: Any = self.parent
        holder.drop(self)
        if self.disk_bytes:
            self.datastore_object.take(-self.disk_bytes)
        self.leave()
        self.host.vm_changed(self)

    def remove(self, user: str = VCENTER) -> None:
        self.vanish(user)

    def rename(self, name: str, user: str = VCENTER) -> None:
        old = self.name
        super().rename(name, user)
        if self._config is not None:
            self._config.name = name
        self.touch("config.name")
        self.touch("summary.config.name")
        self.post(vim.event.VmRenamedEvent(template=False, oldName=old, newName=name), user)

    # Operations ---------------------------------------------------------------------------------------------

    def _require_may_touch(self, call: Call) -> None:
        # vCenter keeps users without EAM's privilege from powering off, deleting and moving agent VMs.
        if self.is_agent:
            call.require("EAM.Modify", self)

    @writes("PowerOnVM_Task", "VirtualMachine.Interact.PowerOn")
    def power_on_task(self, call: Call, host: Any = None) -> Task:
        """As documented: on that host, or where DRS wants it; an agent VM where it is."""
        return self.power_on(call.user, host=self._host_of(host) if host is not None else None)

    @writes("MigrateVM_Task")
    def migrate_task(self, call: Call, priority: str, pool: Any = None, host: Any = None, state: Any = None) -> Task:
        """As documented; of an agent VM only with EAM's privilege to modify. A host must be named."""
        self._require_may_move(call)
        if host is None:
            raise vmodl.fault.InvalidArgument(invalidProperty="host")
        if state is not None and state != self.power:
            raise vim.fault.InvalidPowerState(requestedState=state, existingState=self.power)
        return self.move(self._host_of(host), call.user)

    @writes("RelocateVM_Task")
    def relocate_task(self, call: Call, spec: Any, priority: str | None = None) -> Task:
        """To another host; disks stay where they are."""
        self._require_may_move(call)
        if spec.datastore is not None and spec.datastore._moId != self.datastore_object.moid:
            raise vmodl.fault.NotSupported(msg="Storage migration is not simulated.")
        if spec.host is None:
            raise vmodl.fault.InvalidArgument(invalidProperty="spec.host")
        return self.move(self._host_of(spec.host), call.user)

    @writes("CloneVM_Task", "VirtualMachine.Provisioning.Clone")
    def clone_task(self, call: Call, folder: Any, name: str, spec: Any) -> Task:
        """Into a folder of VMs, on a host (its own unless one is named); customisation is not simulated."""
        if spec.customization is not None or spec.config is not None or spec.template:
            raise vmodl.fault.NotSupported(msg="Customisation and templates are not simulated.")
        where: Any = self.world.find(folder)
        if where is None or getattr(where, "kind", "") != "v":
            raise vmodl.fault.InvalidArgument(invalidProperty="folder")
        host = self._host_of(spec.location.host) if spec.location.host is not None else None
        return self.clone(name, on=spec.powerOn, user=call.user, host=host, folder=where)

    def _require_may_move(self, call: Call) -> None:
        self._require_may_touch(call)
        call.require("Resource.HotMigrate" if self.on else "Resource.ColdMigrate", self)

    def _host_of(self, ref: Any) -> HostSystem:
        found: Any = self.world.find(ref)
        if found is None or found.vmodl is not vim.HostSystem:
            raise vmodl.fault.ManagedObjectNotFound(obj=ref)
        host: HostSystem = found
        return host

    @writes("PowerOffVM_Task", "VirtualMachine.Interact.PowerOff")
    def power_off_task(self, call: Call) -> Task:
        """As documented; of an agent VM only with EAM's privilege to modify."""
        self._require_may_touch(call)
        return self.power_off(call.user)

    @writes("SuspendVM_Task", "VirtualMachine.Interact.Suspend")
    def suspend_task(self, call: Call) -> Task:
        """As documented."""
        self._require_may_touch(call)
        return self.suspend(call.user)

    @writes("ResetVM_Task", "VirtualMachine.Interact.Reset")
    def reset_task(self, call: Call) -> Task:
        """As documented."""
        return self.reset(call.user)

    @writes("ShutdownGuest", "VirtualMachine.Interact.PowerOff")
    def shutdown_guest(self, call: Call) -> None:
        """Shut down by the guest tools, which must be running."""
        self._require_may_touch(call)
        if not self.heartbeat:
            raise vim.fault.ToolsUnavailable()
        user = call.user
        self.world.clock.after(self.world.knobs.power_off, lambda: self.become(PowerState.poweredOff, user))

    @writes("Destroy_Task", "VirtualMachine.Inventory.Delete")
    def destroy_task(self, call: Call) -> Task:
        """Delete with all files; ``InvalidPowerState`` while powered on."""
        self._require_may_touch(call)
        return self.destroy(call.user)

    @writes("UnregisterVM", "VirtualMachine.Inventory.Unregister")
    def unregister_vm(self, call: Call) -> None:
        """Take it out of the inventory, which looks the same from here as deleting it."""
        self._require_may_touch(call)
        if self.on:
            raise vim.fault.InvalidPowerState(requestedState=PowerState.poweredOff, existingState=self.power)
        self.vanish(call.user)

    @writes("ReconfigVM_Task")
    def reconfig_task(self, call: Call, spec: Any) -> Task:
        """Change name, sizes, reservations, annotation, ``extraConfig`` and devices; all or nothing."""
        for privilege in _needed(spec):
            call.require(privilege, self)

        def work() -> None:
            if not self.alive:
                raise vmodl.fault.ManagedObjectNotFound(obj=self.ref)
            self._require_usable()
            self.reconfigure(spec, call.user)

        return self.operate("VirtualMachine.reconfigure", call.user, work)

    def reconfigure(self, spec: Any, user: str = VCENTER) -> None:
        """Apply a ``vim.vm.ConfigSpec``; raises before anything changed when a part of it cannot be applied."""
        if spec.name is not None and spec.name != self.name and self.parent is not None:
            self.parent.require_free(spec.name)
        config = copy.deepcopy(self.prop_config())
        if spec.changeVersion is not None and spec.changeVersion != config.changeVersion:
            raise vim.fault.ConcurrentAccess()
        if self.on and (spec.numCPUs is not None or spec.memoryMB is not None):
            raise vim.fault.InvalidPowerState(requestedState=PowerState.poweredOff, existingState=self.power)
        if spec.numCPUs is not None:
            config.hardware.numCPU = spec.numCPUs
        if spec.memoryMB is not None:
            config.hardware.memoryMB = int(spec.memoryMB)
        for field in _PLAIN_FIELDS:
            value = getattr(spec, field)
            if value is not None:
                setattr(config, field, value)
        for option in spec.extraConfig or ():
            _put_option(config, option)
        for index, change in enumerate(spec.deviceChange or ()):
            change_device(self, config, change, index)
        config.changeVersion = str(int(config.changeVersion) + 1)
        config.modified = self.world.clock.now()
        self._config = config
        self.memory_mb, self.cpus = config.hardware.memoryMB, config.hardware.numCPU
        if spec.name is not None and spec.name != self.name:
            self.rename(spec.name, user)
        note_macs(self, config)
        networks = networks_of(self.host, config)
        if networks != self.networks:
            self.networks = networks
            self.touch("network")
        self.touch("config")
        self.touch("summary.config")
        self.post(vim.event.VmReconfiguredEvent(template=False, configSpec=spec), user)


_PLAIN_FIELDS = (
    "annotation",
    "cpuAllocation",
    "memoryAllocation",
    "guestId",
    "managedBy",
    "memoryReservationLockedToMax",
    "cpuHotAddEnabled",
    "memoryHotAddEnabled",
    "nestedHVEnabled",
    "latencySensitivity",
    "bootOptions",
    "swapPlacement",
)
"""Fields that ConfigSpec and ConfigInfo have in common and that mean a plain replacement."""


_PRIVILEGES = {
    "name": "Rename",
    "numCPUs": "CPUCount",
    "memoryMB": "Memory",
    "extraConfig": "AdvancedConfig",
    "deviceChange": "AddRemoveDevice",
    "cpuAllocation": "Resource",
    "memoryAllocation": "Resource",
    "annotation": "Annotation",
    "managedBy": "ManagedBy",
}
"""``VirtualMachine.Config.`` privileges by field of a ConfigSpec; all other fields need ``Settings``."""


def _needed(spec: Any) -> list[str]:
    """The privileges that a ConfigSpec needs, each once."""
    needed: dict[str, None] = {}
    for field in spec._GetPropertyList():
        value = getattr(spec, field.name)
        if value is not None and not (isinstance(value, list) and not value) and field.name != "changeVersion":
            needed[f"VirtualMachine.Config.{_PRIVILEGES.get(field.name, 'Settings')}"] = None
    return list(needed)


def _put_option(config: Any, option: Any) -> None:
    kept = [old for old in config.extraConfig if old.key != option.key]
    # An empty value removes the key (vSphere API reference, ConfigSpec.extraConfig).
    if option.value not in (None, ""):
        kept.append(vim.option.OptionValue(key=option.key, value=option.value))
    config.extraConfig = vim.option.OptionValue.Array(kept)


def _new_config(vm: VirtualMachine) -> Any:
    managed = vim.ext.ManagedByInfo(extensionKey=EAM, type="agent") if vm.is_agent else None
    return vim.vm.ConfigInfo(
        changeVersion="1",
        modified=vm.world.clock.now(),
        name=vm.name,
        guestFullName="Other Linux (64-bit)",
        guestId="otherLinux64Guest",
        alternateGuestName="",
        version="vmx-19",
        uuid=vm.bios_uuid,
        instanceUuid=vm.instance_uuid,
        template=vm.template,
        annotation="",
        files=vim.vm.FileInfo(vmPathName=vm.path, logDirectory=vm.path.rpartition("/")[0] + "/"),
        flags=vim.vm.FlagInfo(),
        defaultPowerOps=vim.vm.DefaultPowerOpInfo(powerOffType="soft", suspendType="hard", resetType="soft"),
        hardware=vim.vm.VirtualHardware(
            numCPU=vm.cpus, numCoresPerSocket=1, memoryMB=vm.memory_mb, device=initial_devices(vm)
        ),
        extraConfig=vim.option.OptionValue.Array(),
        managedBy=managed,
    )
