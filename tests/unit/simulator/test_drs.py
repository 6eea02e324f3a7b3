# SPDX-License-Identifier: Apache-2.0
"""S11, S12: simulated DRS keeps tenant VMs off hosts without an available agent, and agent VMs where they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pyVmomi import eam, vim, vmodl

from tests.unit.simulator.lab import Lab
from vcenter_eam_plugin.simulator.task import Task
from vcenter_eam_plugin.simulator.tenants import new_tenant


def fault(lab: Lab, task: Task) -> Any:
    lab.until(lambda: task.ended)
    return task.info.error


def half(**knobs: Any) -> Lab:
    """Two hosts; the agent VM of the first is off, and nobody repairs it."""
    lab = Lab(hosts=2, **knobs)
    agency = lab.deployed()
    lab.do.power_off(lab.vm)
    lab.until(lambda: agency.status == "red")
    return lab


def test_a_tenant_is_started_where_an_agent_is_available() -> None:
    """S12: the VM stands on the host without agent, and starts on the other."""
    lab = half()
    vm = new_tenant(lab.host, "tenant", on=False)
    assert fault(lab, lab.do.power_on(vm)) is None
    assert vm.host is lab.vcenter.hosts()[1]
    assert vm.get("runtime.host") == vm.host.ref


def test_no_host_with_an_agent() -> None:
    """S12: InsufficientAgentVmsDeployed names the host and both numbers."""
    lab = half()
    lab.do.power_off(lab.do.agent_vm(lab.vcenter.hosts()[1]) or "")
    lab.settle()
    vm = new_tenant(lab.host, "tenant", on=False)
    error = fault(lab, lab.do.power_on(vm))
    assert isinstance(error, vim.fault.InsufficientAgentVmsDeployed)
    assert (error.hostName, error.requiredNumAgentVms, error.currentNumAgentVms) == (lab.host.name, 1, 0)
    assert not vm.on


@pytest.mark.parametrize("verb", ["power_on", "migrate"])
def test_a_host_named_by_hand_is_refused_as_well(verb: str) -> None:
    """S12: neither a power-on nor a migration gets a tenant VM onto a host without its agent."""
    lab = half()
    vm = new_tenant(lab.vcenter.hosts()[1], "tenant", on=verb == "migrate")
    error = fault(lab, getattr(lab.do, verb)(vm, lab.host))
    assert isinstance(error, vim.fault.InsufficientAgentVmsDeployed)
    assert vm.host is lab.vcenter.hosts()[1]


def test_maintenance_does_not_move_tenants_to_a_host_without_agent() -> None:
    """S12: the evacuation waits until the other host has its agent."""
    lab = half()
    source = lab.vcenter.hosts()[1]
    tenant = new_tenant(source, "tenant")
    task = lab.do.enter_maintenance(source)
    lab.settle(30)
    assert (task.ended, tenant.host) == (False, source)


def test_hosts_out_of_scope_need_no_agent() -> None:
    """Where no agency asks for an agent, DRS asks for none; nor where the agency is disabled."""
    lab = Lab(hosts=2)
    vm = new_tenant(lab.host, "tenant", on=False)
    assert fault(lab, lab.do.power_on(vm)) is None
    agency = lab.create(goal="disabled")
    lab.until(lambda: agency.status == "green" and len(agency.agents) == 2)
    assert fault(lab, lab.do.migrate(vm, lab.vcenter.hosts()[1])) is None


def test_balancing_uses_only_hosts_with_agents_and_moves_only_tenants() -> None:
    """S11, S12: a new host without agent stays empty; with the rule broken DRS fills it."""
    lab = Lab(hosts=1, settings=False)
    lab.do.set_agent_settings(lab.host, "shared-dc0", "VM Network")
    lab.deployed()
    for number in range(4):
        new_tenant(lab.host, f"tenant-{number}")
    fresh = lab.do.add_host("ClusterA")
    lab.settle()
    assert lab.do.balance("ClusterA") is None
    lab.knobs.change({"drs_ignores_agents": True})
    moved = lab.do.balance("ClusterA")
    assert moved is not None
    assert moved.host is fresh
    assert "DrsVmMigratedEvent" in lab.events()


def test_broken_rule_drs_moves_agent_vms() -> None:
    """Switched on by name, evacuation takes the agent VM along like any other."""
    lab = Lab(hosts=2, drs_ignores_agents=True)
    agency = lab.deployed()
    source, agent_vm = lab.host, lab.vm
    task = lab.do.enter_maintenance(source)
    assert fault(lab, task) is None
    assert agent_vm.host is not source
    assert lab.agent(agency, source).vm is agent_vm


def test_an_agent_vm_is_moved_by_hand_only_with_eams_privilege() -> None:
    """S11: NotAuthorized without EAM.Modify; with it vCenter does it, unless the knob forbids."""
    lab = Lab(hosts=2)
    lab.deployed()
    source, target, vm = lab.host, lab.vcenter.hosts()[1], lab.vm
    priority = vim.VirtualMachine.MovePriority.defaultPriority
    with pytest.raises(eam.fault.NotAuthorized):
        vm.migrate_task(lab.caller("guest", lacks="EAM.Modify"), priority=priority, host=target.ref)
    lab.knobs.change({"agent_vm_can_be_moved": False})
    assert isinstance(
        fault(lab, vm.migrate_task(lab.call, priority=priority, host=target.ref)), vmodl.fault.NotSupported
    )
    assert vm.host is source
    lab.knobs.change({"agent_vm_can_be_moved": True})
    spec = vim.vm.RelocateSpec(host=target.ref)
    assert fault(lab, vm.relocate_task(lab.call, spec=spec)) is None
    assert vm.host is target
    assert lab.events()[-1] == "VmMigratedEvent"


def test_what_a_migration_needs() -> None:
    """A host, one that is there and in service, that sees the storage; the state that was named."""
    lab = Lab(hosts=2, datacenters=2, clusters=2)
    vm, other = new_tenant(lab.host, "tenant"), lab.vcenter.hosts()[1]
    priority = vim.VirtualMachine.MovePriority.defaultPriority
    with pytest.raises(vmodl.fault.InvalidArgument):
        vm.migrate_task(lab.call, priority=priority)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        vm.migrate_task(lab.call, priority=priority, host=vim.HostSystem("host-999"))
    with pytest.raises(vim.fault.InvalidPowerState):
        vm.migrate_task(lab.call, priority=priority, host=other.ref, state="poweredOff")
    with pytest.raises(vmodl.fault.NotSupported):
        vm.relocate_task(lab.call, spec=vim.vm.RelocateSpec(host=other.ref, datastore=vim.Datastore("datastore-99")))
    assert isinstance(fault(lab, lab.do.migrate(vm, other)), vim.fault.DatastoreNotWritableOnHost)
    lab.do.crash(other)
    assert isinstance(fault(lab, lab.do.migrate(vm, other)), vim.fault.InvalidState)


def test_a_migration_into_another_cluster_changes_the_pool() -> None:
    """The VM stands in the root pool of where it runs."""
    lab = Lab(hosts=2, clusters=2)
    vm, target = new_tenant(lab.host, "tenant"), lab.vcenter.hosts()[1]
    assert fault(lab, lab.do.migrate(vm, target)) is None
    assert vm.get("resourcePool") == target.compute_resource.root_pool.ref
    assert vm.ref in target.compute_resource.root_pool.get("vm")


def test_power_on_of_several_tells_which_were_not_attempted() -> None:
    """PowerOnMultiVM_Task: the one that fits is begun with a task, the other has its fault in the result."""
    lab = half()
    first, agent_vm = new_tenant(lab.host, "tenant", on=False), lab.vm
    datacenter = lab.vcenter.datacenters()[0]
    task = datacenter.power_on_multi_vm_task(lab.call, vm=[first.ref, agent_vm.ref])
    assert fault(lab, task) is None
    assert [info.vm for info in task.info.result.attempted] == [first.ref, agent_vm.ref]
    lab.until(lambda: first.on and agent_vm.on)
    for host in lab.vcenter.hosts():
        lab.do.power_off(lab.do.agent_vm(host) or "")
    lab.settle()
    second = new_tenant(lab.host, "second", on=False)
    task = datacenter.power_on_multi_vm_task(lab.call, vm=[second.ref])
    assert fault(lab, task) is None
    (info,) = task.info.result.notAttempted
    assert isinstance(info.fault, vim.fault.InsufficientAgentVmsDeployed)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        datacenter.power_on_multi_vm_task(lab.call, vm=[vim.VirtualMachine("vm-999")])


def test_clones() -> None:
    """A clone is a VM of its own with an address of its own; DRS says where it starts; names do not collide."""
    lab = half()
    vm = new_tenant(lab.host, "tenant")
    task = lab.do.clone_vm(vm, "copy", on=True)
    assert fault(lab, task) is None
    copy = lab.world.find(task.info.result)
    assert isinstance(copy, type(vm))
    lab.until(lambda: copy.on)
    assert copy.host is lab.vcenter.hosts()[1]
    macs = [one.get("config.hardware.device")[1].macAddress for one in (vm, copy)]
    assert len(set(macs)) == 2
    with pytest.raises(vim.fault.DuplicateName):
        lab.do.clone_vm(vm, "copy")
    spec = vim.vm.CloneSpec(location=vim.vm.RelocateSpec(), powerOn=False, template=False)
    assert fault(lab, vm.clone_task(lab.call, folder=vm.parent.ref, name="third", spec=spec)) is None
    with pytest.raises(vmodl.fault.InvalidArgument):
        vm.clone_task(lab.call, folder=vim.Folder("group-h3"), name="fourth", spec=spec)


def test_the_control_endpoint_can_call_every_verb_by_name() -> None:
    """The new verbs take plain values."""
    lab = Lab(hosts=2)
    name = lab.host.name
    assert lab.do.run("add_tenant", host=name, name="t1") == lab.do.find(type(lab.do.add_tenant(name)), "t1").moid
    for verb, arguments in (
        ("set_ha", {"cluster": "ClusterA"}),
        ("set_admission", {"cluster": "ClusterA", "failover_level": 1}),
        ("set_drs", {"cluster": "ClusterA", "on": False}),
        ("balance", {"cluster": "ClusterA"}),
        ("clone_vm", {"vm": "t1", "name": "t2"}),
        ("migrate", {"vm": "t1", "host": lab.vcenter.hosts()[1].name}),
        ("wake_fails", {"host": name, "on": False}),
        ("enter_standby", {"host": name}),
        ("wake", {"host": name}),
    ):
        lab.do.run(verb, **arguments)
    assert SimpleNamespace(**lab.vcenter.clusters()[0].props).configurationEx.dasConfig.enabled
