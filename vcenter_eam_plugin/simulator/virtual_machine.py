# SPDX-License-Identifier: Apache-2.0
"""Simulated virtual machines, tenants' and agents'.

A tenant VM costs little until somebody reads its configuration. Power operations take their time, refuse what the
real ones refuse, and follow the host: a VM of an unreachable host is *disconnected* and keeps its last known power
state. Not promised: guests, snapshots, disks beyond their devices, cloning and relocation.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import long

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

    def power_on(self, user: str = VCENTER, done: Done | None = None) -> Task:
        """Start powering on. Refused, in the task, as vCenter does (host away or in maintenance, wrong state)."""

        def work() -> None:
            if self.on:
                raise vim.fault.InvalidPowerState(requestedState=PowerState.poweredOn, existingState=self.power)
            self._require_usable()
            if not self.host.can_run:
                raise vim.fault.InvalidState(msg=f"Host {self.host.name} is in maintenance mode.")
            if self.power_on_fault is not None:
                raise copy.deepcopy(self.power_on_fault)
            self.become(PowerState.poweredOn, user)

        return self._power("powerOn", user, self.world.knobs.power_on, work, done)

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
            self.boots += 1
            runtime.bootTime = self.world.clock.now()
            self._guest_up()
        else:
            self._guest_down()
            runtime.bootTime = None
        self.set("runtime.powerState", power)
        self.touch("summary.runtime.powerState")
        self.touch("runtime.bootTime")
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

    def migrate(self, target: HostSystem, user: str = VCENTER) -> None:
        """Be on another host at once."""
        source, self.host = self.host, target
        source.drop_vm(self)
        target.put_vm(self)
        self.set("runtime.host", target.ref)
        self.touch("summary.runtime.host")
        argument = vim.event.HostEventArgument(name=source.name, host=source.ref)
        self.post(vim.event.DrsVmMigratedEvent(template=False, sourceHost=argument), user)

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
        """As documented; the VM starts on the host where it is."""
        return self.power_on(call.user)

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
            _change_device(config, change, index, int(self.moid.rpartition("-")[2]))
        config.changeVersion = str(int(config.changeVersion) + 1)
        config.modified = self.world.clock.now()
        self._config = config
        self.memory_mb, self.cpus = config.hardware.memoryMB, config.hardware.numCPU
        if spec.name is not None and spec.name != self.name:
            self.rename(spec.name, user)
        networks = self._networks_of(config)
        if networks is not None and networks != self.networks:
            self.networks = networks
            self.touch("network")
        self.touch("config")
        self.touch("summary.config")
        self.post(vim.event.VmReconfiguredEvent(template=False, configSpec=spec), user)

    def _networks_of(self, config: Any) -> list[Network] | None:
        found: list[Network] = []
        for device in config.hardware.device:
            backing = getattr(device, "backing", None)
            if not isinstance(device, vim.vm.device.VirtualEthernetCard) or backing is None:
                continue
            port, network = getattr(backing, "port", None), getattr(backing, "network", None)
            moid = port.portgroupKey if port is not None else network._moId if network is not None else None
            by_name = {net.name: net for net in self.host.networks.values()}
            chosen = self.host.networks.get(moid) if moid else by_name.get(getattr(backing, "deviceName", ""))
            if chosen is not None and chosen not in found:
                found.append(chosen)
        return found


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


def _mac(number: int) -> str:
    """An address in VMware's range for assigned ones, one per VM and adapter."""
    return f"00:50:56:{number >> 16 & 0x3F:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def _change_device(config: Any, change: Any, index: int, vm_serial: int) -> None:
    device = change.device
    devices = list(config.hardware.device)
    at = next((i for i, old in enumerate(devices) if old.key == device.key), None)
    operation = change.operation
    verbs = vim.vm.device.VirtualDeviceSpec.Operation
    if operation == verbs.add:
        if at is not None or device.key is None or device.key < 0:
            device.key = max([old.key for old in devices], default=3999) + 1
        if isinstance(device, vim.vm.device.VirtualEthernetCard) and not device.macAddress:
            device.macAddress = _mac(vm_serial << 4 | device.key & 15)
            device.addressType = "assigned"
        devices.append(device)
    elif at is None:
        raise vim.fault.InvalidDeviceSpec(property=f"deviceChange[{index}].device.key", deviceIndex=index)
    elif operation == verbs.remove:
        devices.pop(at)
    else:
        devices[at] = device
    config.hardware.device = vim.vm.device.VirtualDevice.Array(devices)


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
            numCPU=vm.cpus, numCoresPerSocket=1, memoryMB=vm.memory_mb, device=_devices(vm)
        ),
        extraConfig=vim.option.OptionValue.Array(),
        managedBy=managed,
    )


def _devices(vm: VirtualMachine) -> Any:
    disk = vim.vm.device.VirtualDisk(
        key=2000,
        controllerKey=1000,
        unitNumber=0,
        capacityInKB=long(vm.disk_bytes // 1024),
        deviceInfo=vim.Description(label="Hard disk 1", summary=f"{vm.disk_bytes // 1024} KB"),
        backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            fileName=vm.path.replace(".vmx", ".vmdk"), diskMode="persistent", datastore=vm.datastore_object.ref
        ),
    )
    devices = [disk]
    for number, network in enumerate(vm.networks):
        backing: Any
        if network.vmodl is vim.dvs.DistributedVirtualPortgroup:
            switch = getattr(network, "switch_uuid", "")
            port = vim.dvs.PortConnection(switchUuid=switch, portgroupKey=network.moid)
            backing = vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=port)
        else:
            backing = vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName=network.name, network=network.ref)
        serial = int(vm.moid.rpartition("-")[2])
        devices.append(
            vim.vm.device.VirtualVmxnet3(
                key=4000 + number,
                controllerKey=100,
                unitNumber=7 + number,
                deviceInfo=vim.Description(label=f"Network adapter {number + 1}", summary=network.name),
                backing=backing,
                addressType="assigned",
                macAddress=_mac(serial << 4 | number),
            )
        )
    return vim.vm.device.VirtualDevice.Array(devices)
