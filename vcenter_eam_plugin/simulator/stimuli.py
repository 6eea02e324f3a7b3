# SPDX-License-Identifier: Apache-2.0
"""What people and machines do to a vCenter from outside: the verbs of stories, tests and the control endpoint.

Every verb takes objects, moids or names, and raises ``LookupError`` when there is no such thing or more than one.
They act as an administrator would, without a session and without asking for privileges; what vCenter itself refuses
(powering on in maintenance) is refused here too, in the task that a verb returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pyVmomi import vim

from vcenter_eam_plugin.simulator.compute_resource import ClusterComputeResource, ComputeResource, new_host
from vcenter_eam_plugin.simulator.datacenter import Datacenter
from vcenter_eam_plugin.simulator.datastore import Datastore
from vcenter_eam_plugin.simulator.folder import Folder
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.managed_entity import VCENTER, ManagedEntity
from vcenter_eam_plugin.simulator.network import Network
from vcenter_eam_plugin.simulator.tenants import new_tenant
from vcenter_eam_plugin.simulator.virtual_machine import PowerState, VirtualMachine
from vcenter_eam_plugin.simulator.world import World

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.agency import Agency
    from vcenter_eam_plugin.simulator.esx_agent_manager import EsxAgentManager
    from vcenter_eam_plugin.simulator.task import Task

E = TypeVar("E", bound=ManagedEntity)

OPERATOR = "VSPHERE.LOCAL\\operator"
"""User name under which the verbs act."""

VERBS = frozenset(
    {
        "add_cluster",
        "add_datacenter",
        "add_host",
        "add_standalone_host",
        "add_tenant",
        "balance",
        "clone_vm",
        "corrupt",
        "crash",
        "datastore_maintenance",
        "destroy",
        "disable_cluster",
        "disconnect",
        "enable_cluster",
        "enter_maintenance",
        "exit_maintenance",
        "enter_standby",
        "fill_datastore",
        "freeze_eam",
        "lose_agency",
        "lose_datastore",
        "manage_with_image",
        "migrate",
        "move_host",
        "not_responding",
        "partial_maintenance",
        "power_off",
        "power_on",
        "reboot",
        "recover",
        "reconnect",
        "recover_datastore",
        "restore_agency",
        "thaw_eam",
        "unmount_datastore",
        "update_esxi",
        "remove_cluster",
        "remove_host",
        "rename",
        "set_admission",
        "set_agent_settings",
        "set_drs",
        "set_ha",
        "suspend",
        "wake",
        "wake_fails",
    }
)
"""What the control endpoint may call, with plain values."""


class Stimuli:
    """The verbs."""

    def __init__(self, world: World, root: Folder, eam: EsxAgentManager) -> None:
        self.world = world
        self.root = root
        self.eam = eam

    # Finding ------------------------------------------------------------------------------------------------

    def find(self, kind: type[E], what: E | str) -> E:
        """The object itself, or the one of that moid or name."""
        if isinstance(what, kind):
            return what
        found = self.world.objects.get(str(what))
        if isinstance(found, kind):
            return found
        named = [obj for obj in self.world.each(kind) if obj.name == what]
        if len(named) != 1:
            raise LookupError(f"{len(named)} objects of kind {kind.__name__} are named {what!r}")
        return named[0]

    def hosts(self) -> list[HostSystem]:
        """All hosts."""
        return list(self.world.each(HostSystem))

    def clusters(self) -> list[ClusterComputeResource]:
        """All clusters."""
        return list(self.world.each(ClusterComputeResource))

    def agent_vm(self, host: HostSystem | str) -> VirtualMachine | None:
        """The agent VM on a host; the newest when there are several."""
        agents = [vm for vm in self.find(HostSystem, host).vms.values() if vm.is_agent]
        return agents[-1] if agents else None

    def _note(self, verb: str, obj: ManagedEntity) -> None:
        self.world.journal.add("stimulus", verb=verb, object=obj.moid, name=obj.name)

    # Inventory ----------------------------------------------------------------------------------------------

    def add_datacenter(self, name: str) -> Datacenter:
        """A new datacenter."""
        datacenter = self.root.new_datacenter(name, OPERATOR)
        self._note("add_datacenter", datacenter)
        return datacenter

    def add_cluster(self, name: str, datacenter: Datacenter | str | None = None) -> ClusterComputeResource:
        """A new empty cluster, in the first datacenter unless one is given."""
        where = next(self.world.each(Datacenter)) if datacenter is None else self.find(Datacenter, datacenter)
        cluster = where.host_folder.new_cluster(name, OPERATOR)
        self._note("add_cluster", cluster)
        return cluster

    def remove_cluster(self, cluster: ClusterComputeResource | str) -> None:
        """A cluster goes with all its hosts."""
        found = self.find(ClusterComputeResource, cluster)
        self._note("remove_cluster", found)
        found.remove(OPERATOR)

    def disable_cluster(self, cluster: ClusterComputeResource | str) -> None:
        """A cluster is disabled, as by the vSAN shutdown workflow."""
        found = self.find(ClusterComputeResource, cluster)
        self._note("disable_cluster", found)
        found.disabled = True
        found.signal()

    def manage_with_image(self, cluster: ComputeResource | str, on: bool = True) -> None:
        """A cluster is managed with a vLCM image (for good, in a real vCenter): EAM then leaves maintenance alone."""
        found = self.find(ComputeResource, cluster)
        self._note("manage_with_image", found)
        found.lifecycle_managed = on
        found.touch("lifecycleManaged")

    def enable_cluster(self, cluster: ClusterComputeResource | str) -> None:
        """A disabled cluster works again."""
        found = self.find(ClusterComputeResource, cluster)
        self._note("enable_cluster", found)
        found.disabled = False
        found.signal()

    def add_host(self, cluster: ClusterComputeResource | str, name: str | None = None) -> HostSystem:
        """A machine joins a cluster; it has no Agent VM settings (unless the knob says so)."""
        where = self.find(ClusterComputeResource, cluster)
        host = new_host(where, name or self._free_name(where), OPERATOR)
        self._note("add_host", host)
        return host

    def add_standalone_host(self, datacenter: Datacenter | str | None = None, name: str | None = None) -> HostSystem:
        """A machine joins with a compute resource of its own."""
        where = next(self.world.each(Datacenter)) if datacenter is None else self.find(Datacenter, datacenter)
        resource = where.host_folder.new_standalone_host(name or self._free_name(where), OPERATOR)
        host = next(iter(resource.hosts.values()))
        self._note("add_standalone_host", host)
        return host

    def _free_name(self, where: ManagedEntity) -> str:
        datacenter = where.datacenter
        names = {host.name for host in self.hosts()}
        number = len(names)
        while True:
            number += 1
            name = f"esx-{number:02d}.{datacenter.name.lower() if datacenter else 'lab'}.example"
            if name not in names:
                return name

    def remove_host(self, host: HostSystem | str) -> None:
        """A host leaves vCenter, with its VMs; no questions asked."""
        found = self.find(HostSystem, host)
        self._note("remove_host", found)
        above = found.compute_resource
        found.remove(OPERATOR)
        if not above.is_cluster:
            above.remove(OPERATOR)

    def move_host(self, host: HostSystem | str, cluster: ComputeResource | str) -> None:
        """A host moves to another cluster at once, running VMs and all."""
        found, target = self.find(HostSystem, host), self.find(ClusterComputeResource, cluster)
        self._note("move_host", found)
        target.take_host(found)

    def rename(self, obj: ManagedEntity | str, name: str) -> None:
        """Any inventory object takes another name."""
        found = self.find(ManagedEntity, obj)
        self._note("rename", found)
        found.rename(name, OPERATOR)

    def set_ha(self, cluster: ClusterComputeResource | str, on: bool = True) -> None:
        """Switch vSphere HA on or off."""
        found = self.find(ClusterComputeResource, cluster)
        self._note("set_ha", found)
        found.reconfigure(vim.cluster.ConfigSpecEx(dasConfig=vim.cluster.DasConfigInfo(enabled=on)), True, OPERATOR)

    def set_admission(self, cluster: ClusterComputeResource | str, failover_level: int) -> None:
        """HA's admission control reserves so many hosts, in slots."""
        found = self.find(ClusterComputeResource, cluster)
        self._note("set_admission", found)
        policy = vim.cluster.FailoverLevelAdmissionControlPolicy(failoverLevel=failover_level)
        config = vim.cluster.DasConfigInfo(admissionControlPolicy=policy)
        found.reconfigure(vim.cluster.ConfigSpecEx(dasConfig=config), True, OPERATOR)

    def set_drs(self, cluster: ClusterComputeResource | str, on: bool = True) -> None:
        """Switch DRS on or off."""
        found = self.find(ClusterComputeResource, cluster)
        self._note("set_drs", found)
        found.reconfigure(vim.cluster.ConfigSpecEx(drsConfig=vim.cluster.DrsConfigInfo(enabled=on)), True, OPERATOR)

    def balance(self, cluster: ClusterComputeResource | str) -> VirtualMachine | None:
        """DRS moves one tenant VM to a host with fewer VMs, if it may; ``None`` when there is nothing to move."""
        found = self.find(ClusterComputeResource, cluster)
        self._note("balance", found)
        return found.balance()

    # Hosts --------------------------------------------------------------------------------------------------

    def enter_maintenance(self, host: HostSystem | str, timeout: float = 0) -> Task:
        """Start entering maintenance."""
        found = self.find(HostSystem, host)
        self._note("enter_maintenance", found)
        return found.enter_maintenance(OPERATOR, timeout)

    def exit_maintenance(self, host: HostSystem | str, timeout: float = 0) -> Task:
        """Start leaving maintenance."""
        found = self.find(HostSystem, host)
        self._note("exit_maintenance", found)
        return found.exit_maintenance(OPERATOR, timeout)

    def disconnect(self, host: HostSystem | str) -> Task:
        """Disconnect from vCenter."""
        found = self.find(HostSystem, host)
        self._note("disconnect", found)
        return found.disconnect(OPERATOR)

    def reconnect(self, host: HostSystem | str) -> Task:
        """Connect to vCenter again."""
        found = self.find(HostSystem, host)
        self._note("reconnect", found)
        return found.reconnect(OPERATOR)

    def not_responding(self, host: HostSystem | str) -> None:
        """vCenter loses the host, which keeps running; ``reconnect`` ends it."""
        found = self.find(HostSystem, host)
        self._note("not_responding", found)
        found.lose_contact()

    def reboot(self, host: HostSystem | str) -> Task:
        """Reboot, wanted or not."""
        found = self.find(HostSystem, host)
        self._note("reboot", found)
        return found.reboot(OPERATOR, force=True)

    def update_esxi(self, host: HostSystem | str, version: str) -> None:
        """A host has another version of ESXi from now on (``8.0.3``)."""
        found = self.find(HostSystem, host)
        self._note("update_esxi", found)
        found.version = version
        found.touch("config.product")
        found.touch("summary.config.product")

    def enter_standby(self, host: HostSystem | str, timeout: float = 0) -> Task:
        """DPM starts putting a host to sleep."""
        found = self.find(HostSystem, host)
        self._note("enter_standby", found)
        return found.power.enter(VCENTER, timeout, dpm=True)

    def wake(self, host: HostSystem | str, timeout: float = 0) -> Task:
        """DPM starts waking a host."""
        found = self.find(HostSystem, host)
        self._note("wake", found)
        return found.power.wake(VCENTER, timeout, dpm=True)

    def wake_fails(self, host: HostSystem | str, on: bool = True) -> None:
        """The host does not start when it is woken, until this is switched off again."""
        found = self.find(HostSystem, host)
        self._note("wake_fails", found)
        found.power.wake_fails = on

    def partial_maintenance(self, host: HostSystem | str, on: bool = True) -> None:
        """A host enters or leaves a partial maintenance mode, which hinders operations on its VMs."""
        found = self.find(HostSystem, host)
        self._note("partial_maintenance", found)
        found.set_partial_maintenance(on)

    def crash(self, host: HostSystem | str) -> None:
        """The machine stops."""
        found = self.find(HostSystem, host)
        self._note("crash", found)
        found.crash()

    def recover(self, host: HostSystem | str) -> None:
        """The machine is back."""
        found = self.find(HostSystem, host)
        self._note("recover", found)
        found.recover()

    def set_agent_settings(
        self, host: HostSystem | str, datastore: Datastore | str | None, network: Network | str | None
    ) -> None:
        """Write the Agent VM settings; ``None`` clears one."""
        found = self.find(HostSystem, host)
        self._note("set_agent_settings", found)
        found.agent_settings.write(
            self._of(found.datastores, datastore) if datastore is not None else None,
            self._of(found.networks, network) if network is not None else None,
        )

    @staticmethod
    def _of(shelf: dict[str, Any], what: Any) -> Any:
        for thing in shelf.values():
            if what in (thing, thing.moid, thing.name):
                return thing
        raise LookupError(f"the host has no {what!r}")

    # VMs and storage ----------------------------------------------------------------------------------------

    def add_tenant(self, host: HostSystem | str, name: str | None = None, on: bool = True) -> VirtualMachine:
        """A new tenant VM on a host; running from the start unless ``on`` is false. Nobody is asked."""
        where = self.find(HostSystem, host)
        vm = new_tenant(where, name or f"tenant-{self.world.new_moid('added')}", on=on, user=OPERATOR)
        self._note("add_tenant", vm)
        return vm

    def clone_vm(self, vm: VirtualMachine | str, name: str, on: bool = False) -> Task:
        """Clone a VM as it is, on its host; started where DRS wants it if ``on``."""
        found = self.find(VirtualMachine, vm)
        self._note("clone_vm", found)
        return found.clone(name, on=on, user=OPERATOR)

    def migrate(self, vm: VirtualMachine | str, host: HostSystem | str) -> Task:
        """Move a VM to another host by hand, as somebody who may do it with agent VMs, too."""
        found, target = self.find(VirtualMachine, vm), self.find(HostSystem, host)
        self._note("migrate", found)
        return found.move(target, OPERATOR)

    def power_on(self, vm: VirtualMachine | str, host: HostSystem | str | None = None) -> Task:
        """Power on, on a host or where DRS wants it."""
        found = self.find(VirtualMachine, vm)
        self._note("power_on", found)
        return found.power_on(OPERATOR, host=self.find(HostSystem, host) if host is not None else None)

    def power_off(self, vm: VirtualMachine | str) -> Task:
        """Power off."""
        found = self.find(VirtualMachine, vm)
        self._note("power_off", found)
        return found.power_off(OPERATOR)

    def suspend(self, vm: VirtualMachine | str) -> Task:
        """Suspend."""
        found = self.find(VirtualMachine, vm)
        self._note("suspend", found)
        return found.suspend(OPERATOR)

    def destroy(self, vm: VirtualMachine | str) -> None:
        """Power off and delete at once."""
        found = self.find(VirtualMachine, vm)
        self._note("destroy", found)
        found.become(PowerState.poweredOff, OPERATOR)
        found.vanish(OPERATOR)

    def corrupt(self, vm: VirtualMachine | str, missing_file: str = "disk-0.vmdk") -> None:
        """A file of the VM is lost."""
        found = self.find(VirtualMachine, vm)
        self._note("corrupt", found)
        found.missing_file = missing_file
        found.become(PowerState.poweredOff)
        found.signal()

    def fill_datastore(self, datastore: Datastore | str, free: int = 0) -> None:
        """Leave a datastore with so many bytes free."""
        found = self.find(Datastore, datastore)
        self._note("fill_datastore", found)
        found.resize(free)

    def lose_datastore(self, datastore: Datastore | str) -> None:
        """Storage becomes inaccessible."""
        found = self.find(Datastore, datastore)
        self._note("lose_datastore", found)
        found.set_accessible(False)

    def recover_datastore(self, datastore: Datastore | str) -> None:
        """Storage is accessible again."""
        found = self.find(Datastore, datastore)
        self._note("recover_datastore", found)
        found.set_accessible(True)

    def unmount_datastore(self, host: HostSystem | str, datastore: Datastore | str, off: bool = True) -> None:
        """A host that lists a datastore has it unmounted, or mounts it again; not while VMs of the host are on it."""
        found = self.find(HostSystem, host)
        self._note("unmount_datastore", found)
        self._of(found.datastores, datastore).unmount(found, off)

    def datastore_maintenance(self, datastore: Datastore | str, on: bool = True) -> None:
        """A datastore enters maintenance mode, or leaves it."""
        found = self.find(Datastore, datastore)
        self._note("datastore_maintenance", found)
        found.set_maintenance(on)

    # EAM ----------------------------------------------------------------------------------------------------

    def freeze_eam(self) -> None:
        """EAM hangs: it answers, and does nothing any more."""
        self.eam.freeze()
        self.world.journal.add("stimulus", verb="freeze_eam")

    def thaw_eam(self) -> None:
        """EAM works again."""
        self.eam.thaw()
        self.world.journal.add("stimulus", verb="thaw_eam")

    def lose_agency(self, agency: str) -> None:
        """An agency (name or moid) is gone from EAM's database; its VMs are left behind."""
        self.eam.lose(self._agency(agency))
        self.world.journal.add("stimulus", verb="lose_agency", name=agency)

    def restore_agency(self, agency: str, back: int = 0) -> None:
        """An agency (name or moid) and its agents come back from a backup under other references.

        With the configuration of ``back`` updates ago.
        """
        self.eam.restore(self._agency(agency), back)
        self.world.journal.add("stimulus", verb="restore_agency", name=agency)

    def _agency(self, what: str) -> Agency:
        found = [agency for agency in self.eam.agencies.values() if what in (agency.name, agency.moid)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} agencies are named {what!r}")
        return found[0]

    def run(self, verb: str, **arguments: Any) -> Any:
        """Call a verb by name; ``LookupError`` for one that does not exist. Returns something that JSON can hold."""
        if verb not in VERBS:
            raise LookupError(f"there is no verb {verb!r}; there are {', '.join(sorted(VERBS))}")
        result = getattr(self, verb)(**arguments)
        return None if result is None else result.moid
