# SPDX-License-Identifier: Apache-2.0
"""Simulated hosts: the phases of maintenance, connection, reboot, Agent VM settings, and what vCenter refuses."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from tests.unit.simulator.lab import Lab
from vcenter_eam_plugin.simulator.managed_entity import ManagedEntity
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.tenants import new_tenant
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine


def tenant(lab: Lab, name: str = "tenant") -> VirtualMachine:
    return new_tenant(lab.host, name)


def ended(lab: Lab, task: Task) -> Any:
    lab.until(lambda: task.ended)
    return task.info.state


class Paths:
    """A listener that remembers what it was told of one object."""

    def __init__(self, lab: Lab, obj: ManagedEntity) -> None:
        self.seen: list[str] = []
        self._obj = obj
        lab.world.listeners.append(self)

    def object_added(self, obj: Any) -> None: ...

    def object_removed(self, obj: Any) -> None: ...

    def object_changed(self, obj: Any, path: str) -> None:
        if obj is self._obj:
            self.seen.append(path)


def test_entering_maintenance_is_a_task_and_not_a_property() -> None:
    """S10: ``inMaintenanceMode`` is false until the task ends; the task stands in ``recentTask`` meanwhile."""
    lab = Lab()
    paths = Paths(lab, lab.host)
    task = lab.do.enter_maintenance(lab.host)
    assert task.info.descriptionId == "HostSystem.enterMaintenanceMode"
    assert list(lab.host.get("recentTask")) == [task.ref]
    assert task.info.state == "running"
    assert lab.host.get("runtime.inMaintenanceMode") is False
    assert lab.events()[-1] == "EnteringMaintenanceModeEvent"
    assert ended(lab, task) == "success"
    assert lab.host.get("runtime.inMaintenanceMode") is True
    assert lab.events()[-1] == "EnteredMaintenanceModeEvent"
    assert {"runtime.inMaintenanceMode", "summary.runtime.inMaintenanceMode", "recentTask"} <= set(paths.seen)
    out = lab.do.exit_maintenance(lab.host)
    assert ended(lab, out) == "success"
    assert lab.host.get("runtime.inMaintenanceMode") is False
    assert lab.events()[-1] == "ExitMaintenanceModeEvent"


def test_the_truth_names_the_phases() -> None:
    """The journal knows a host on its way in and on its way out, though no property says so."""
    lab = Lab()
    journal = lab.vcenter.journal
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    lab.do.exit_maintenance(lab.host)
    lab.settle()
    told = [entry.fields for entry in journal if entry.kind == "truth"]
    assert [(fields["maintenance"], fields["in_maintenance"]) for fields in told] == [
        (None, False),
        ("entering", False),
        ("in", True),
        ("exiting", True),
        ("exiting", False),
        (None, False),
    ]


def test_tenants_are_moved_away_first() -> None:
    """With DRS the tenants go to another usable host of the cluster; EAM powers off only then."""
    lab = Lab(hosts=2)
    lab.deployed()
    vm = tenant(lab)
    agent_vm, source = lab.vm, lab.host
    task = lab.do.enter_maintenance(source)
    lab.until(lambda: vm.host is not source)
    assert agent_vm.on, "the agent VM is the last to go"
    assert vm.on
    assert vm.get("runtime.host") == vm.host.ref
    assert ended(lab, task) == "success"
    assert not agent_vm.on
    assert agent_vm.host is source, "the agent VM stays where it is"


def test_without_drs_the_task_waits_for_the_tenants() -> None:
    """Nobody moves them: the host enters maintenance when a person powers them off, the agent VM last."""
    lab = Lab(hosts=2)
    lab.vcenter.clusters()[0].props["configurationEx"].drsConfig.enabled = False
    lab.deployed()
    vm = tenant(lab)
    task = lab.do.enter_maintenance(lab.host)
    lab.settle(60)
    assert not task.ended
    assert lab.vm.on
    lab.do.power_off(vm)
    assert ended(lab, task) == "success"


def test_entering_times_out() -> None:
    """The timeout ends the task and the phase; the agent VM was never touched."""
    lab = Lab()
    agency = lab.deployed()
    tenant(lab)
    task = lab.do.enter_maintenance(lab.host, timeout=30)
    lab.settle(31)
    assert task.info.state == "error"
    assert isinstance(task.info.error, vim.fault.Timedout)
    assert lab.host.phase is None
    assert "TimedOutHostOperationEvent" in lab.events()
    assert agency.status == "green"


def test_maintenance_in_the_wrong_state_fails_in_the_task() -> None:
    """InvalidState: entering twice, leaving without being in, disconnected."""
    lab = Lab()
    assert ended(lab, lab.do.exit_maintenance(lab.host)) == "error"
    assert ended(lab, lab.do.enter_maintenance(lab.host)) == "success"
    again = lab.do.enter_maintenance(lab.host)
    assert ended(lab, again) == "error"
    assert isinstance(again.info.error, vim.fault.InvalidState)
    lab.do.exit_maintenance(lab.host)
    lab.settle()
    assert ended(lab, lab.do.disconnect(lab.host)) == "success"
    assert ended(lab, lab.do.enter_maintenance(lab.host)) == "error"


def test_losing_the_host_ends_the_maintenance_task() -> None:
    """A host that is lost on its way in is in no phase any more, and its task has failed."""
    lab = Lab(evacuate=5)
    task = lab.do.enter_maintenance(lab.host)
    lab.do.crash(lab.host)
    assert task.info.state == "error"
    assert lab.host.phase is None
    lab.do.recover(lab.host)
    assert ended(lab, lab.do.enter_maintenance(lab.host)) == "success"


def test_losing_the_host_on_its_way_out_leaves_it_in() -> None:
    """A host that is lost before it left is still in maintenance when it is back."""
    lab = Lab(exit_maintenance=10)
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    out = lab.do.exit_maintenance(lab.host)
    lab.do.crash(lab.host)
    assert out.info.state == "error"
    lab.do.recover(lab.host)
    lab.settle(20)
    assert lab.host.in_maintenance
    lab.do.exit_maintenance(lab.host)
    lab.settle(20)
    assert not lab.host.in_maintenance


def test_power_on_in_maintenance_is_refused() -> None:
    """vCenter starts no VM on a host in maintenance."""
    lab = Lab()
    vm = tenant(lab)
    lab.do.power_off(vm)
    lab.settle()
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    task = lab.do.power_on(vm)
    assert ended(lab, task) == "error"
    assert isinstance(task.info.error, vim.fault.InvalidState)


def test_disconnect_and_reconnect() -> None:
    """Power is unknown while disconnected, VMs are disconnected and keep their last known power state."""
    lab = Lab()
    vm = tenant(lab)
    lab.do.disconnect(lab.host)
    lab.settle()
    runtime = lab.host.get("runtime")
    assert (runtime.connectionState, runtime.powerState) == ("disconnected", "unknown")
    assert (vm.get("runtime.connectionState"), vm.get("runtime.powerState")) == ("disconnected", "poweredOn")
    assert {"HostDisconnectedEvent", "VmDisconnectedEvent"} <= set(lab.events())
    task = lab.do.power_off(vm)
    assert ended(lab, task) == "error"
    lab.do.reconnect(lab.host)
    lab.settle()
    assert (runtime.connectionState, runtime.powerState) == ("connected", "poweredOn")
    assert vm.get("runtime.connectionState") == "connected"


def test_reboot_by_the_api_needs_maintenance_or_force() -> None:
    """RebootHost_Task: InvalidState outside maintenance; in maintenance the host comes back in maintenance."""
    lab = Lab()
    assert ended(lab, lab.host.reboot_task(lab.call, force=False)) == "error"
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    lab.host.reboot_task(lab.call, force=False)
    lab.until(lambda: not lab.host.connected)
    assert lab.host.get("runtime.connectionState") == "notResponding"
    lab.until(lambda: lab.host.connected)
    assert lab.host.in_maintenance
    assert lab.host.boots == 2


def test_agent_vm_settings_are_written_whole() -> None:
    """S09: a field left unset clears that setting; both show in ``summary.config``, and listeners hear of it."""
    lab = Lab(settings=False)
    manager = lab.host.agent_settings
    paths = Paths(lab, lab.host)
    datastore, network = next(iter(lab.host.datastores.values())), next(iter(lab.host.networks.values()))
    kind = vim.host.EsxAgentHostManager.ConfigInfo
    manager.update_config(lab.call, kind(agentVmDatastore=datastore.ref, agentVmNetwork=network.ref))
    assert lab.host.get("summary.config.agentVmDatastore") == datastore.ref
    assert lab.host.get("summary.config.agentVmNetwork") == network.ref
    assert paths.seen == ["summary.config.agentVmDatastore", "summary.config.agentVmNetwork"]
    manager.update_config(lab.call, kind(agentVmNetwork=network.ref))
    assert manager.get("configInfo.agentVmDatastore") is None
    assert manager.get("configInfo.agentVmNetwork") == network.ref
    assert lab.host.get("configManager.esxAgentHostManager") == manager.ref


def test_agent_vm_settings_that_the_host_does_not_have() -> None:
    """HostConfigFault, and nothing is written."""
    lab = Lab(hosts=2, settings=False)
    other = next(d for d in lab.vcenter.hosts()[1].datastores.values() if not d.shared)
    config = vim.host.EsxAgentHostManager.ConfigInfo(agentVmDatastore=other.ref)
    with pytest.raises(vim.fault.HostConfigFault):
        lab.host.agent_settings.update_config(lab.call, config)
    assert lab.host.agent_settings.datastore is None


def test_summary_and_config() -> None:
    """The product version is that of the knob; the hardware uuid is the machine's."""
    lab = Lab(host_version="7.0.3")
    assert lab.host.get("config.product.version") == "7.0.3"
    uuid = lab.host.get("summary.hardware.uuid")
    name = lab.host.name
    lab.do.remove_host(lab.host)
    assert lab.do.add_host("ClusterA", name).get("summary.hardware.uuid") == uuid


def test_remove_by_the_api_needs_maintenance_in_a_cluster() -> None:
    """Destroy_Task: InvalidState for a working host of a cluster; a standalone host takes its resource along."""
    lab = Lab()
    host = lab.host
    assert ended(lab, host.destroy_task(lab.call)) == "error"
    lab.do.enter_maintenance(host)
    lab.until(lambda: host.in_maintenance)
    assert ended(lab, host.destroy_task(lab.call)) == "success"
    assert not host.alive
    assert host.agent_settings.moid not in lab.world.objects
    alone = lab.do.add_standalone_host()
    resource = alone.compute_resource
    assert ended(lab, alone.destroy_task(lab.call)) == "success"
    assert not resource.alive


def test_partial_maintenance_hinders_operations() -> None:
    """``HostInPartialMaintenanceMode``: a running VM stays green, a step waits, and Resolve cannot help."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.partial_maintenance(lab.host)
    lab.settle()
    assert agency.status == "green"
    lab.do.power_off(lab.vm)
    lab.until(lambda: agency.status == "red")
    agency.resolve_all(lab.call)
    lab.until(lambda: lab.issue_types(agency) == ["HostInPartialMaintenanceMode"])
    keys = lab.keys(agency)
    assert list(agency.resolve(lab.call, keys)) == keys
    lab.do.partial_maintenance(lab.host, on=False)
    lab.until(lambda: agency.status == "green")


def test_vm_that_cannot_be_deleted() -> None:
    """``VmDeployed``: a removal that failed is tried again on Resolve, and not before."""
    lab = Lab()
    agency = lab.deployed()
    lab.vm.delete_fault = vim.fault.FileLocked()
    agency.uninstall(lab.call)
    lab.until(lambda: lab.issue_types(agency) == ["VmDeployed"])
    lab.vm.delete_fault = None
    lab.settle()
    assert agency.agents
    agency.resolve_all(lab.call)
    lab.until(lambda: not agency.agents)
