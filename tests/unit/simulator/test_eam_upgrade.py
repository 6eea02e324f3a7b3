# SPDX-License-Identifier: Apache-2.0
"""Upgrade by a new OVF URL (S03), and OVF properties that change: what the simulated EAM does, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import eam, vim

from tests.unit.simulator.lab import URL, Lab
from vcenter_eam_plugin.simulator.agency import Agency
from vcenter_eam_plugin.simulator.agent import Agent
from vcenter_eam_plugin.simulator.ovf_download import OvfPackage, OvfProblem, OvfProperty, Reason
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine

NEW = URL + "?digest=2"
NEWER = URL + "?digest=3"
HOLD: dict[str, Any] = {"manuallyMarkAgentVmAvailableAfterProvisioning": True}


def update(lab: Lab, agency: Agency, url: str = NEW, properties: dict[str, str] | None = None, **changes: Any) -> None:
    """One ``Update`` with another agent configuration."""
    config = eam.Agent.ConfigInfo(ovfPackageUrl=url)
    if properties is not None:
        made = [eam.Agent.OvfEnvironmentInfo.OvfProperty(key=key, value=value) for key, value in properties.items()]
        config.ovfEnvironment = eam.Agent.OvfEnvironmentInfo(ovfProperty=made)
    agency.update(lab.call, eam.Agency.ConfigInfo(agentConfig=[config], **changes))


def values(vm: VirtualMachine) -> dict[str, str]:
    """The OVF properties as a client of vCenter reads them from the VM."""
    config = vm.get("config.vAppConfig")
    return {} if config is None else {item.id: item.value for item in config.property}


def upgraded(agency: Agency) -> bool:
    return agency.status == "green" and all(
        agent.vm is not None and agent.build is not None and agent.build.url == NEW and agent.replacement is None
        for agent in agency.agents.values()
    )


def held_upgrade(lab: Lab) -> tuple[Agency, Agent, VirtualMachine]:
    """An agency whose VM runs, with its replacement held after provisioning."""
    agency = lab.deployed()
    old = lab.vm
    update(lab, agency, **HOLD)
    agent = lab.agent(agency)
    lab.until(lambda: agent.hook == "provisioned")
    return agency, agent, old


def only_vm(lab: Lab) -> VirtualMachine:
    """The one agent VM of the first host; fails when there are more."""
    (vm,) = [vm for vm in lab.host.vms.values() if vm.is_agent]
    return vm


def test_upgrade_provisions_then_removes_the_old_vm_then_powers_on() -> None:
    """RECREATE: the new VM is there before the old one goes, and runs only after it has gone."""
    lab = Lab()
    agency = lab.deployed()
    old = lab.vm
    before = len(lab.events())
    update(lab, agency)
    assert agency.status == "green", "the difference is acted on later"
    lab.until(lambda: agency.status == "yellow")
    agent = lab.agent(agency)
    lab.until(lambda: agent.replacement is not None)
    new = agent.replacement
    assert new is not None
    assert old.on
    assert agent.query_runtime(lab.call).vm == old.ref
    lab.until(lambda: not old.alive)
    assert not new.on
    lab.until(lambda: upgraded(agency))
    assert only_vm(lab) is new
    assert new.name == "ContrailVM (2)"
    assert agent.query_runtime(lab.call).vm == new.ref
    assert [name for name in lab.events()[before:] if name.startswith("agent.task")] == [
        "agent.task.deployVm",
        "agent.task.powerOffVm",
        "agent.task.deleteVm",
        "agent.task.powerOnVm",
    ]
    assert not [name for name in lab.events() if name.startswith("issue.")]


def test_one_update_starts_every_host_at_once() -> None:
    """Nothing throttles an upgrade in EAM: without a hold all hosts lose their VM at about the same time."""
    lab = Lab(hosts=6, clusters=2)
    agency = lab.deployed()
    update(lab, agency)
    agents = list(agency.agents.values())
    lab.until(lambda: all(agent.replacement is not None for agent in agents))
    lab.until(lambda: all(agent.vm is not None and not agent.vm.on for agent in agents))
    lab.until(lambda: upgraded(agency))
    assert lab.ovf.fetched.count(NEW) == 6


def test_hold_keeps_the_old_vm_running_until_the_new_one_is_marked() -> None:
    """The hook names the new VM, the runtime the old one; host by host is then the client's choice."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    old = {agent.host.moid: agent.vm for agent in agency.agents.values()}
    update(lab, agency, **HOLD)
    first, second = agency.agents.values()
    lab.until(lambda: first.hook == second.hook == "provisioned")
    lab.settle(60)
    for agent in (first, second):
        runtime = agent.query_runtime(lab.call)
        assert (runtime.vmHook.vmState, runtime.status, runtime.vmPowerState) == ("provisioned", "yellow", "poweredOn")
        assert runtime.vm != runtime.vmHook.vm
        assert agent.vm is old[agent.host.moid]
        assert agent.available, "tenant VMs go on: the old VM serves them"
    first.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: first.status == "green")
    assert first.vm is not None
    assert first.vm is not old[first.host.moid]
    assert second.vm is old[second.host.moid]
    assert second.vm is not None
    assert second.vm.on
    second.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: upgraded(agency))
    assert lab.events().count("agent.markAgentVmAsAvailableAfterProvisioning") == 2


def test_knob_deletes_the_old_vm_before_the_hold() -> None:
    """Not measured on a real EAM, so a knob: the old VM may be gone while the new one is held."""
    lab = Lab(upgrade_keeps_old_in_hold=False)
    agency, agent, old = held_upgrade(lab)
    assert not old.alive
    runtime = agent.query_runtime(lab.call)
    assert runtime.vm == runtime.vmHook.vm
    assert not agent.available
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: upgraded(agency))


def test_both_holds_in_an_upgrade() -> None:
    """The new VM is held after provisioning and again after its power-on."""
    lab = Lab()
    agency = lab.create(manuallyMarkAgentVmAvailableAfterPowerOn=True)
    lab.until(lambda: agency.agents and lab.agent(agency).hook == "poweredOn")
    agent = lab.agent(agency)
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: agency.status == "green")
    update(lab, agency, **HOLD)
    lab.until(lambda: agent.hook == "provisioned")
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: agent.hook == "poweredOn")
    assert agent.query_runtime(lab.call).vmHook.vm == agent.query_runtime(lab.call).vm
    assert not agent.available
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: upgraded(agency))


def test_url_taken_back_in_the_hold() -> None:
    """Back to the old URL: the new VM goes, the old one never stopped."""
    lab = Lab()
    agency, agent, old = held_upgrade(lab)
    update(lab, agency, URL)
    lab.until(lambda: agency.status == "green")
    assert only_vm(lab) is old
    assert old.boots == 1
    assert agent.hook is None


def test_third_url_in_the_hold() -> None:
    """Yet another URL: the VM that is held is replaced by one of the newest, and the hook moves to it."""
    lab = Lab()
    agency, agent, old = held_upgrade(lab)
    stale = agent.replacement
    assert stale is not None
    update(lab, agency, NEWER)
    lab.until(lambda: not stale.alive)
    lab.until(lambda: agent.hook == "provisioned")
    assert agent.replacement is not None
    assert old.on
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: agency.status == "green")
    assert agent.build is not None
    assert agent.build.url == NEWER


def test_hold_given_up_in_the_middle() -> None:
    """Update without the flag lets every held upgrade go on at once."""
    lab = Lab()
    agency, _, _ = held_upgrade(lab)
    agency.update(lab.call, eam.Agency.ConfigInfo(manuallyMarkAgentVmAvailableAfterProvisioning=False))
    lab.until(lambda: upgraded(agency))


def test_upgrade_of_a_vm_that_is_still_held_from_its_own_deployment() -> None:
    """The hook leaves the VM that nobody wants any more; marking then starts the new one."""
    lab = Lab()
    agency = lab.create(**HOLD)
    lab.until(lambda: agency.agents and lab.agent(agency).hook == "provisioned")
    agent, old = lab.agent(agency), lab.vm
    update(lab, agency)
    lab.until(lambda: agent.replacement is not None and agent.hook == "provisioned")
    assert agent.query_runtime(lab.call).vmHook.vm == lab.vm.ref
    assert agent.query_runtime(lab.call).vm == old.ref
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: upgraded(agency))
    assert old.boots == 0
    assert not old.alive


def test_ovf_server_down_in_an_upgrade() -> None:
    """The old VM goes on running under a red agent; Resolve tries again."""
    lab = Lab()
    agency = lab.deployed()
    old = lab.vm
    update(lab, agency)
    lab.ovf.problem = OvfProblem(Reason.REFUSED, NEW)
    lab.until(lambda: agency.status == "red")
    assert lab.issue_types(agency) == ["CannotAccessAgentOVF"]
    lab.settle()
    assert old.on
    assert lab.agent(agency).available
    lab.ovf.problem = None
    agency.resolve_all(lab.call)
    lab.until(lambda: upgraded(agency))


def test_update_with_a_url_that_cannot_be_had_changes_nothing() -> None:
    """InvalidUrl: the configuration stays, the VM too."""
    lab = Lab()
    agency = lab.deployed()
    lab.ovf.problem = OvfProblem(Reason.STATUS, NEW, status=404)
    with pytest.raises(eam.fault.InvalidUrl):
        update(lab, agency)
    assert agency.query_config(lab.call).agentConfig[0].ovfPackageUrl == URL
    lab.settle()
    assert agency.status == "green"


def test_no_space_for_the_second_vm() -> None:
    """Both VMs need space at the same time: ``InsufficientSpace``, and the old one runs on."""
    lab = Lab()
    agency = lab.deployed()
    old = lab.vm
    lab.do.fill_datastore(old.datastore_object)
    update(lab, agency)
    lab.until(lambda: lab.issue_types(agency) == ["InsufficientSpace"])
    assert old.on
    lab.do.fill_datastore(old.datastore_object, 1 << 40)
    agency.resolve_all(lab.call)
    lab.until(lambda: upgraded(agency))


def test_memory_for_one_vm_is_enough() -> None:
    """The two VMs never run at the same time, so a host with room for one is upgraded."""
    lab = Lab()
    lab.host.memory_mb = lab.ovf.package.memory_mb
    agency = lab.deployed()
    update(lab, agency)
    lab.until(lambda: upgraded(agency))


def test_old_vm_powered_off_by_hand_in_the_hold() -> None:
    """Reported as always; marking the new VM is the other way out."""
    lab = Lab()
    agency, agent, old = held_upgrade(lab)
    lab.do.power_off(old)
    lab.until(lambda: lab.issue_types(agency) == ["VmPoweredOff"])
    assert agent.query_runtime(lab.call).vmHook is not None
    agency.resolve_all(lab.call)
    lab.until(lambda: old.on and agent.status == "yellow")
    lab.do.power_off(old)
    lab.until(lambda: agency.status == "red")
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: upgraded(agency))


def test_old_vm_deleted_by_hand_in_the_hold() -> None:
    """The new VM takes its place at once, and stays held."""
    lab = Lab()
    agency, agent, old = held_upgrade(lab)
    lab.do.destroy(old)
    lab.until(lambda: agent.vm is not None and agent.vm is not old)
    lab.settle()
    assert agent.hook == "provisioned"
    assert agent.query_runtime(lab.call).vm == agent.query_runtime(lab.call).vmHook.vm
    assert lab.issue_types(agency) == []
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: upgraded(agency))


def test_new_vm_deleted_by_hand_in_the_hold() -> None:
    """``VmNotDeployed`` while the old one runs; Resolve provisions another, held again."""
    lab = Lab()
    agency, agent, old = held_upgrade(lab)
    assert agent.replacement is not None
    lab.do.destroy(agent.replacement)
    lab.until(lambda: lab.issue_types(agency) == ["VmNotDeployed"])
    lab.settle()
    assert agent.replacement is None
    assert agent.hook is None
    assert old.on
    agency.resolve_all(lab.call)
    lab.until(lambda: agent.hook == "provisioned")
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: upgraded(agency))


def test_maintenance_in_the_hold() -> None:
    """The old VM goes off and comes back with the host; leaving maintenance waits for it, and the hold stays."""
    lab = Lab()
    agency, agent, old = held_upgrade(lab)
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    lab.until(lambda: lab.issue_types(agency) == ["HostInMaintenanceMode"])
    task = lab.do.exit_maintenance(lab.host)
    lab.until(lambda: task.ended)
    assert old.on
    lab.until(lambda: agent.status == "yellow")
    assert agent.hook == "provisioned"
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: upgraded(agency))


def test_upgrade_of_a_host_in_maintenance_waits() -> None:
    """Nothing is provisioned there until the host is out; without the maintenance issue, too, it is red for that."""
    lab = Lab(maintenance_issue=False)
    agency = lab.deployed()
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    lab.settle()
    assert agency.status == "green"
    update(lab, agency)
    lab.until(lambda: lab.issue_types(agency) == ["HostInMaintenanceMode"])
    lab.settle()
    assert NEW not in lab.ovf.fetched
    lab.do.exit_maintenance(lab.host)
    lab.until(lambda: upgraded(agency))


def test_host_lost_in_the_middle_of_an_upgrade() -> None:
    """S15: after the crash the old VM is started again, and the upgrade goes on from where it was."""
    lab = Lab()
    agency, agent, old = held_upgrade(lab)
    lab.do.crash(lab.host)
    lab.until(lambda: lab.issue_types(agency) == ["HostNotReachable"])
    lab.do.recover(lab.host)
    lab.until(lambda: old.on and agent.status == "yellow")
    assert agent.hook == "provisioned"
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: upgraded(agency))


def test_host_removed_in_the_middle_of_an_upgrade() -> None:
    """Agent and both VMs go with the host."""
    lab = Lab()
    _, agent, old = held_upgrade(lab)
    new = agent.replacement
    lab.do.remove_host(lab.host)
    lab.until(lambda: agent.gone)
    assert new is not None
    assert not old.alive
    assert not new.alive


@pytest.mark.parametrize("how", ["scope", "uninstall", "destroy"])
def test_removal_in_the_middle_of_an_upgrade(how: str) -> None:
    """Both VMs are removed, whichever way the agent is to go."""
    lab = Lab()
    agency, agent, _ = held_upgrade(lab)
    if how == "scope":
        nothing = eam.Agency.ComputeResourceScope(computeResource=vim.ComputeResource.Array())
        agency.update(lab.call, eam.Agency.ConfigInfo(scope=nothing))
    elif how == "uninstall":
        agency.uninstall(lab.call)
    else:
        agency.destroy_agency(lab.call)
    lab.until(lambda: agent.gone)
    assert lab.do.agent_vm(lab.host) is None


def test_scope_left_while_away_in_the_middle_of_an_upgrade() -> None:
    """Both VMs are orphans when the host is back; one Resolve removes both."""
    lab = Lab()
    agency, agent, _ = held_upgrade(lab)
    lab.do.add_cluster("Other")
    lab.do.disconnect(lab.host)
    lab.until(lambda: agency.status == "red")
    lab.do.move_host(lab.host, "Other")
    lab.settle()
    lab.do.reconnect(lab.host)
    lab.until(lambda: lab.issue_types(agency) == ["VmOrphaned"])
    agency.resolve_all(lab.call)
    lab.until(lambda: agent.gone)
    assert lab.do.agent_vm(lab.host) is None


def test_deleting_the_old_vm_fails() -> None:
    """``VmDeployed``: the old VM should be gone and is not; the new one waits; Resolve tries again."""
    lab = Lab()
    agency = lab.deployed()
    old = lab.vm
    old.delete_fault = vim.fault.InvalidState(msg="in use")
    update(lab, agency)
    lab.until(lambda: lab.issue_types(agency) == ["VmDeployed"])
    agent = lab.agent(agency)
    assert agent.replacement is not None
    assert not agent.replacement.on
    old.delete_fault = None
    agency.resolve_all(lab.call)
    lab.until(lambda: upgraded(agency))


def test_upgrade_of_a_disabled_agency() -> None:
    """The VM is replaced, nothing is powered on, nothing is held."""
    lab = Lab()
    agency = lab.create(goal="disabled", **HOLD)
    lab.until(lambda: agency.agents and agency.status == "green")
    old = lab.vm
    update(lab, agency)
    lab.until(lambda: upgraded(agency))
    assert only_vm(lab) is not old
    assert only_vm(lab).boots == 0


def test_upgrade_after_a_new_version_of_esxi() -> None:
    """Another agent configuration matches the host now: its VM is swapped."""
    lab = Lab(host_version="7.0.3")
    configs = [
        eam.Agent.ConfigInfo(hostVersion="7.*", ovfPackageUrl=URL),
        eam.Agent.ConfigInfo(hostVersion="8.*", ovfPackageUrl=NEW),
    ]
    agency = lab.deployed(agentConfig=configs)
    lab.do.update_esxi(lab.host, "8.0.3")
    lab.until(lambda: agency.status == "yellow")
    lab.until(lambda: upgraded(agency))


def test_configuration_without_an_ovf_removes_the_vm() -> None:
    """An agent may have no VM; EAM acts on the difference."""
    lab = Lab()
    agency = lab.deployed()
    agency.update(lab.call, eam.Agency.ConfigInfo(agentConfig=[eam.Agent.ConfigInfo()]))
    lab.until(lambda: lab.do.agent_vm(lab.host) is None and agency.status == "green")
    assert len(agency.agents) == 1


def test_restored_from_a_backup_in_the_middle_of_an_upgrade() -> None:
    """Other references, the same story."""
    lab = Lab()
    agency, agent, old = held_upgrade(lab)
    lab.do.restore_agency(agency.name)
    assert old.on
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: upgraded(agency))


def test_agency_lost_in_the_middle_of_an_upgrade() -> None:
    """Both VMs belong to nobody, and both are cleaned up."""
    lab = Lab()
    agency, _, _ = held_upgrade(lab)
    lab.do.lose_agency(agency.name)
    lab.until(lambda: lab.do.agent_vm(lab.host) is None)


# OVF properties ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cycles", [False, True])
def test_other_properties_reconfigure_the_vm(cycles: bool) -> None:
    """The same URL with other properties: the VM stays. Whether it is restarted is not documented, so a knob."""
    lab = Lab(reconfigure_power_cycles=cycles)
    agency = lab.create()
    update(lab, agency, URL, {"ntp": "192.0.2.1"})
    lab.until(lambda: agency.status == "green" and agency.agents)
    vm = lab.vm
    assert values(vm) == {"ntp": "192.0.2.1"}
    update(lab, agency, URL, {"ntp": "192.0.2.2"})
    lab.until(lambda: values(vm) == {"ntp": "192.0.2.2"})
    lab.until(lambda: agency.status == "green")
    assert lab.vm is vm
    assert vm.on
    assert vm.boots == 1 + cycles
    assert "VmReconfiguredEvent" in lab.events()
    assert lab.ovf.fetched == [URL]


def test_properties_of_a_vm_that_is_held() -> None:
    """Properties that change in an upgrade's hold reach both VMs, and the hold stays."""
    lab = Lab()
    agency, agent, _ = held_upgrade(lab)
    new = agent.replacement
    assert new is not None
    update(lab, agency, NEW, {"ntp": "192.0.2.2"})
    lab.until(lambda: values(new) == {"ntp": "192.0.2.2"})
    lab.settle()
    assert agent.hook == "provisioned"
    assert agent.replacement is new


def test_property_withdrawn_from_a_running_vm() -> None:
    """``OvfInvalidProperty`` names what is missing; passive, so Resolve files it anew, and Update cures it."""
    lab = Lab()
    lab.ovf.package = OvfPackage(URL, "ContrailVM", properties=(OvfProperty("ntp"),))
    agency = lab.create()
    update(lab, agency, URL, {"ntp": "192.0.2.1"})
    lab.until(lambda: agency.status == "green" and agency.agents)
    update(lab, agency, URL, {"dns": "192.0.2.1"})
    lab.until(lambda: lab.issue_types(agency) == ["OvfInvalidProperty"])
    assert lab.vm.on
    (key,) = lab.keys(agency)
    assert list(agency.resolve(lab.call, [key])) == []
    lab.until(lambda: agency.status == "red")
    assert lab.keys(agency) != [key]
    update(lab, agency, URL, {"ntp": "192.0.2.3"})
    lab.until(lambda: agency.status == "green")
    assert values(lab.vm) == {"ntp": "192.0.2.3"}


@pytest.mark.parametrize(
    ("kind", "qualifiers", "good", "bad"),
    [
        ("uint16", "", "65535", "65536"),
        ("sint8", "", "-128", "-129"),
        ("uint32", "", "0", "-1"),
        ("real32", "", "1.5e3", "1,5"),
        ("boolean", "", "True", "yes"),
        ("string", "MinLen(2),MaxLen(3)", "abc", "abcd"),
        ("string", "MinLen(2)", "ab", "a"),
        ("string", 'ValueMap{"red", "blue"}', "blue", "green"),
    ],
)
def test_values_are_checked_against_the_propertys_type(kind: str, qualifiers: str, good: str, bad: str) -> None:
    """``ovf:type`` and ``ovf:qualifiers`` (DSP0243): a value that does not fit is ``OvfInvalidProperty``."""
    lab = Lab()
    lab.ovf.package = OvfPackage(URL, "ContrailVM", properties=(OvfProperty("x", kind, qualifiers),))
    agency = lab.create()
    update(lab, agency, URL, {"x": bad})
    lab.until(lambda: agency.status == "red")
    (issue,) = agency.query_runtime(lab.call).issue
    assert isinstance(issue, eam.issue.OvfInvalidProperty)
    (error,) = issue.error
    assert isinstance(error, vim.fault.OvfPropertyValue)
    assert (error.type, error.value) == (kind, "x")
    update(lab, agency, URL, {"x": good})
    lab.until(lambda: agency.status == "green")


def test_vcenter_refuses_to_reconfigure() -> None:
    """``InvalidConfig`` carries the fault; it is passive: Resolve tries once more."""
    lab = Lab()
    agency = lab.deployed()
    vm = lab.vm
    vm.operate = lambda *_, done, **__: done(vim.fault.ConcurrentAccess())  # type: ignore[method-assign]
    update(lab, agency, URL, {"ntp": "192.0.2.1"})
    lab.until(lambda: lab.issue_types(agency) == ["InvalidConfig"])
    (issue,) = agency.query_runtime(lab.call).issue
    assert isinstance(issue.error, vim.fault.ConcurrentAccess)
    del vm.operate
    agency.resolve_all(lab.call)
    lab.until(lambda: agency.status == "green")
    assert values(lab.vm) == {"ntp": "192.0.2.1"}
