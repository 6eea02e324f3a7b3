# SPDX-License-Identifier: Apache-2.0
"""EAM's behaviour per host: what each stimulus does, and what ``Resolve`` does about it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from pyVmomi import eam, vim, vmodl

from tests.unit.simulator.lab import URL, Lab
from vcenter_eam_plugin.simulator.agency import Agency
from vcenter_eam_plugin.simulator.ovf_download import OvfPackage, OvfProblem, OvfProperty, Reason

ON, OFF = vim.VirtualMachine.PowerState.poweredOn, vim.VirtualMachine.PowerState.poweredOff


def green(agency: Agency) -> bool:
    return agency.status == "green"


def red(agency: Agency) -> bool:
    return agency.status == "red"


# Deployment ----------------------------------------------------------------------------------------------------


def test_one_agent_per_host_is_deployed_powered_on_and_green() -> None:
    """S03: an agency gets one VM on every host of its scope, an agent VM by ``managedBy``."""
    lab = Lab(hosts=3, clusters=2)
    agency = lab.create()
    assert agency.status == "yellow"
    lab.until(lambda: green(agency))
    assert {agent.host.moid for agent in agency.agents.values()} == {host.moid for host in lab.vcenter.hosts()}
    for agent in agency.agents.values():
        runtime = agent.query_runtime(lab.call)
        assert runtime.vm is not None
        assert (runtime.status, runtime.goalState, runtime.vmPowerState) == ("green", "enabled", ON)
        assert runtime.receivingHeartBeat
        assert agent.vm is not None
        assert agent.vm.get("config.managedBy.type") == "agent"
        assert agent.vm.get("summary.config.managedBy.type") == "agent"
    assert sorted(agent.vm_name for agent in agency.agents.values()) == [f"ContrailVM ({n})" for n in (1, 2, 3)]


def test_vm_name_is_empty_before_there_is_a_vm() -> None:
    """A fresh agent has ``vmName`` empty and ``vmPowerState`` off, as seen on real servers."""
    lab = Lab()
    agency = lab.create()
    lab.until(lambda: agency.agents)
    runtime = lab.agent(agency).query_runtime(lab.call)
    assert (runtime.vm, runtime.vmName, runtime.vmPowerState, runtime.status) == (None, "", OFF, "yellow")


def test_events_tell_the_way_to_green() -> None:
    """S05, S17: EAM's events stand in vCenter's stream, in the order of what happened."""
    lab = Lab()
    lab.deployed()
    seen = [name for name in lab.events() if name.startswith(("agency.", "agent."))]
    assert seen == [
        "agency.create",
        "agent.created",
        "agent.task.deployVm",
        "agent.task.powerOnVm",
        "agent.statusChanged",
        "agency.statusChanged",
    ]


def test_not_green_without_the_guest_heartbeat() -> None:
    """Green needs heartbeats from all VMs; the knob takes that condition away."""
    lab = Lab(heartbeats=False)
    agency = lab.create()
    lab.until(lambda: lab.do.agent_vm(lab.host) is not None and lab.vm.on)
    lab.settle()
    assert agency.status == "yellow"
    lab.knobs.heartbeat_gate = False
    lab.host.signal()
    lab.until(lambda: green(agency))


def test_settings_missing_on_a_host_block_until_they_are_written() -> None:
    """S09: without Agent VM settings deployment fails, and goes on by itself once they are there."""
    lab = Lab(settings=False)
    agency = lab.create()
    lab.until(lambda: red(agency))
    assert lab.issue_types(agency) == ["NoAgentVmDatastore"]
    lab.do.set_agent_settings(lab.host, "shared-dc0", None)
    lab.until(lambda: lab.issue_types(agency) == ["NoAgentVmNetwork"])
    lab.do.set_agent_settings(lab.host, "shared-dc0", "VM Network")
    lab.until(lambda: green(agency))
    assert lab.vm.datastore_object.name == "shared-dc0"
    assert [network.name for network in lab.vm.networks] == ["VM Network"]


def test_agency_lists_name_datastore_and_network() -> None:
    """The first listed datastore that the host has is taken; none on the host is an issue that names them."""
    lab = Lab(settings=False)
    datacenter = lab.vcenter.datacenters()[0]
    elsewhere = datacenter.new_datastore("elsewhere", capacity=1, free=1, shared=True)
    network = datacenter.networks[2]
    agency = lab.create(agentVmDatastore=[elsewhere.ref], agentVmNetwork=[network.ref])
    lab.until(lambda: red(agency))
    (issue,) = agency.query_runtime(lab.call).issue
    assert isinstance(issue, eam.issue.NoCustomAgentVmDatastore)
    assert list(issue.customAgentVmDatastoreName) == ["elsewhere"]
    lab.host.mount(elsewhere)
    lab.until(lambda: lab.issue_types(agency) == ["InsufficientSpace"])
    assert agency.resolve(lab.call, lab.keys(agency)) == []
    elsewhere.capacity = elsewhere.free = 1 << 40
    lab.until(lambda: green(agency))
    assert lab.vm.datastore_object is elsewhere
    assert lab.vm.networks == [network]


@pytest.mark.parametrize(("fallback", "issues"), [(True, []), (False, ["NoAgentVmDatastore"])])
def test_prefer_host_configuration_without_host_settings(fallback: bool, issues: list[str]) -> None:
    """Undocumented, so a knob: with a preference for settings that a host has not, EAM falls back or complains."""
    lab = Lab(settings=False, fallback_to_agency_settings=fallback)
    datacenter = lab.vcenter.datacenters()[0]
    agency = lab.create(
        preferHostConfiguration=True,
        agentVmDatastore=[datacenter.shared_datastores[0].ref],
        agentVmNetwork=[datacenter.networks[0].ref],
    )
    lab.settle()
    assert lab.issue_types(agency) == issues


@pytest.mark.parametrize(
    ("problem", "issue"),
    [
        (OvfProblem(Reason.REFUSED, URL), "CannotAccessAgentOVF"),
        (OvfProblem(Reason.STATUS, URL, status=404), "CannotAccessAgentOVF"),
        (OvfProblem(Reason.CERTIFICATE, URL), "CertificateNotTrusted"),
        (OvfProblem(Reason.FORMAT, URL, "no Envelope", line=3), "OvfInvalidFormat"),
    ],
)
def test_ovf_troubles_are_issues_and_resolve_tries_again(problem: OvfProblem, issue: str) -> None:
    """S08: once the OVF server is well again, Resolve deploys; before, the issue comes back with another key."""
    lab = Lab()
    agency = lab.create()
    lab.ovf.problem = problem
    lab.until(lambda: red(agency))
    assert lab.issue_types(agency) == [issue]
    (key,) = lab.keys(agency)
    assert list(lab.agent(agency).resolve(lab.call, [key])) == []
    assert agency.status == "yellow"
    lab.until(lambda: red(agency))
    assert lab.keys(agency) != [key]
    lab.settle()
    assert len(lab.ovf.fetched) == 2, "nothing is tried unasked"
    lab.ovf.problem = None
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency))


def test_certificate_issue_of_an_older_eam() -> None:
    """``CertificateNotTrusted`` came with 8.2; before, the same trouble was one of access."""
    lab = Lab(eam_level=(7, 1))
    agency = lab.create()
    lab.ovf.problem = OvfProblem(Reason.CERTIFICATE, URL)
    lab.until(lambda: red(agency))
    (issue,) = agency.query_runtime(lab.call).issue
    assert isinstance(issue, eam.issue.CannotAccessAgentOVF)
    assert issue.downloadUrl == URL


def test_ovf_property_that_is_not_given() -> None:
    """Every user-configurable property must be given; ``Update`` of the environment is the cure."""
    lab = Lab()
    lab.ovf.package = OvfPackage(URL, "ContrailVM", properties=(OvfProperty("vcenter-ip"),))
    agency = lab.create()
    lab.until(lambda: red(agency))
    (issue,) = agency.query_runtime(lab.call).issue
    assert isinstance(issue, eam.issue.OvfInvalidProperty)
    assert [error.value for error in issue.error] == ["vcenter-ip"]
    environment = eam.Agent.OvfEnvironmentInfo(
        ovfProperty=[eam.Agent.OvfEnvironmentInfo.OvfProperty(key="vcenter-ip", value="192.0.2.1")]
    )
    agent_config = eam.Agent.ConfigInfo(ovfPackageUrl=URL, ovfEnvironment=environment)
    agency.update(lab.call, eam.Agency.ConfigInfo(agentConfig=[agent_config]))
    lab.until(lambda: green(agency))


def test_no_agent_configuration_for_the_hosts_version() -> None:
    """``hostVersion`` with ``*``: the first match counts, none is ``IncompatibleHostVersion``."""
    lab = Lab(host_version="8.0.3")
    old = eam.Agent.ConfigInfo(hostVersion="7.*", ovfPackageUrl=f"{URL}?old")
    agency = lab.create(agentConfig=[old])
    lab.until(lambda: red(agency))
    assert lab.issue_types(agency) == ["IncompatibleHostVersion"]
    new = eam.Agent.ConfigInfo(hostVersion="8.*", ovfPackageUrl=URL)
    agency.update(lab.call, eam.Agency.ConfigInfo(agentConfig=[old, new]))
    lab.until(lambda: green(agency))
    assert lab.ovf.fetched == [URL]
    assert lab.agent(agency).query_config(lab.call).ovfPackageUrl == URL


def test_insufficient_memory() -> None:
    """A host without memory for the VM: ``InsufficientResources``, active."""
    lab = Lab()
    lab.host.memory_mb = 1024
    agency = lab.create()
    lab.until(lambda: lab.issue_types(agency) == ["InsufficientResources"])
    lab.host.memory_mb = 65536
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency))


def test_agent_vms_stand_in_eams_own_folder_and_pool() -> None:
    """Folder and pool "ESX Agents" are made where the agency names none; without DRS it is the root pool."""
    lab = Lab(hosts=2, clusters=2)
    second = lab.vcenter.clusters()[1]
    second.props["configurationEx"].drsConfig.enabled = False
    agency = lab.deployed()
    for agent in agency.agents.values():
        assert agent.vm is not None
        assert agent.vm.parent is not None
        assert agent.vm.parent.name == "ESX Agents"
        expected = "Resources" if agent.host.compute_resource is second else "ESX Agents"
        assert agent.vm.pool.name == expected


def test_uuid_names() -> None:
    """``useUuidVmName``: the VM's name ends in a UUID."""
    lab = Lab()
    lab.deployed(useUuidVmName=True)
    assert lab.vm.name.startswith("ContrailVM-")
    assert len(lab.vm.name) == len("ContrailVM-") + 36


# What people do to the VM --------------------------------------------------------------------------------------


def test_power_off_is_reported_and_not_undone_until_resolved() -> None:
    """S07, S08: powered off by hand -> red; stays so; Resolve powers it on again."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.power_off(lab.vm)
    lab.until(lambda: red(agency))
    lab.settle(60)
    assert lab.issue_types(agency) == ["VmPoweredOff"]
    assert not lab.vm.on
    agent = lab.agent(agency)
    (key,) = lab.keys(agency)
    assert list(agent.resolve(lab.call, [key, 4711])) == [4711], "keys that are not there come back"
    assert agency.status == "yellow"
    assert lab.keys(agency) == []
    lab.until(lambda: green(agency))
    assert lab.vm.on
    assert lab.events()[-8:].count("issue.resolved") == 1
    assert "issue.vmPoweredOff" in lab.events()


def test_power_on_by_hand_clears_the_issue() -> None:
    """The issue goes with its cause."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.power_off(lab.vm)
    lab.until(lambda: red(agency))
    lab.do.power_on(lab.vm)
    lab.until(lambda: green(agency))


def test_suspend() -> None:
    """S07: suspended -> ``VmSuspended``; Resolve powers on."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.suspend(lab.vm)
    lab.until(lambda: lab.issue_types(agency) == ["VmSuspended"])
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency) and lab.vm.on)


def test_deleted_vm_is_reported_and_resolve_deploys_a_new_one() -> None:
    """S07, S08: missing -> ``VmNotDeployed``; Resolve deploys another VM with the next number."""
    lab = Lab()
    agency = lab.deployed()
    old = lab.vm
    lab.do.destroy(old)
    lab.until(lambda: red(agency))
    lab.settle(60)
    assert lab.issue_types(agency) == ["VmNotDeployed"]
    assert lab.do.agent_vm(lab.host) is None
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency))
    assert lab.vm.moid != old.moid
    assert lab.vm.name == "ContrailVM (2)"


def test_deleting_while_a_hook_is_pending_is_not_repaired_unasked() -> None:
    """A VM deleted in the provisioning hold is ``VmNotDeployed``, and the hold ends with it."""
    lab = Lab()
    agency = lab.create(manuallyMarkAgentVmAvailableAfterProvisioning=True)
    lab.until(lambda: agency.agents and lab.agent(agency).hook == "provisioned")
    lab.do.destroy(lab.vm)
    lab.until(lambda: red(agency))
    assert lab.issue_types(agency) == ["VmNotDeployed"]
    assert lab.agent(agency).query_runtime(lab.call).vmHook is None


def test_powered_on_by_hand_in_a_hold_and_off_again() -> None:
    """A VM that has run once is a person's affair, whoever started it."""
    lab = Lab()
    agency = lab.create(manuallyMarkAgentVmAvailableAfterProvisioning=True)
    lab.until(lambda: agency.agents and lab.agent(agency).hook == "provisioned")
    lab.do.power_on(lab.vm)
    lab.until(lambda: green(agency))
    assert lab.agent(agency).hook is None
    lab.do.power_off(lab.vm)
    lab.until(lambda: red(agency))
    lab.settle()
    assert lab.issue_types(agency) == ["VmPoweredOff"]


def test_corrupted_vm_is_deleted_and_provisioned_again() -> None:
    """``VmCorrupted`` names the missing file; Resolve replaces the VM."""
    lab = Lab()
    agency = lab.deployed()
    old = lab.vm
    lab.do.corrupt(old, "disk-0.vmdk")
    lab.until(lambda: red(agency))
    (issue,) = agency.query_runtime(lab.call).issue
    assert isinstance(issue, eam.issue.VmCorrupted)
    assert (issue.missingFile, issue.vm) == ("disk-0.vmdk", old.ref)
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency))
    assert not old.alive


def test_inaccessible_vm_cannot_be_resolved_and_heals_itself() -> None:
    """``VmInaccessible`` is not remediable: its key comes back; it goes when the storage is back."""
    lab = Lab()
    agency = lab.deployed()
    datastore = lab.vm.datastore_object
    lab.do.lose_datastore(datastore)
    lab.until(lambda: lab.issue_types(agency) == ["VmInaccessible"])
    keys = lab.keys(agency)
    assert list(agency.resolve(lab.call, keys)) == keys
    assert lab.keys(agency) == keys
    lab.do.recover_datastore(datastore)
    lab.until(lambda: green(agency))


def test_power_on_refused_by_vcenter_is_invalid_config() -> None:
    """``InvalidConfig`` carries vCenter's fault; it is passive: Resolve drops it and EAM tries once more."""
    lab = Lab()
    agency = lab.deployed()
    lab.vm.power_on_fault = vim.fault.InsufficientResourcesFault(msg="no")
    lab.do.power_off(lab.vm)
    lab.until(lambda: red(agency))
    agency.resolve_all(lab.call)
    lab.until(lambda: lab.issue_types(agency) == ["InvalidConfig"])
    (issue,) = agency.query_runtime(lab.call).issue
    assert isinstance(issue.error, vim.fault.InsufficientResourcesFault)
    lab.vm.power_on_fault = None
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency))


def test_protected_vm() -> None:
    """``VmProtected``: EAM could not change the VM; Resolve tries again."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.power_off(lab.vm)
    lab.until(lambda: red(agency))
    lab.vm.protected = True
    agency.resolve_all(lab.call)
    lab.until(lambda: lab.issue_types(agency) == ["VmProtected"])
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency))


# Hosts ---------------------------------------------------------------------------------------------------------


def test_maintenance_powers_the_vm_off_and_on_again() -> None:
    """S10: EAM powers off in the entering phase; the exit task ends only when the VM runs again."""
    lab = Lab()
    agency = lab.deployed()
    task = lab.do.enter_maintenance(lab.host)
    lab.until(lambda: not lab.vm.on)
    assert lab.host.phase == "entering"
    assert not lab.host.in_maintenance
    lab.until(lambda: task.ended)
    assert task.info.state == "success"
    assert lab.host.in_maintenance
    lab.until(lambda: red(agency))
    assert lab.issue_types(agency) == ["HostInMaintenanceMode"]
    out = lab.do.exit_maintenance(lab.host)
    lab.until(lambda: not lab.host.in_maintenance)
    assert not out.ended, "the task waits for the agent VM"
    lab.until(lambda: out.ended)
    assert lab.vm.on
    lab.until(lambda: green(agency))
    assert "issue.vmPoweredOff" not in lab.events(), "maintenance is never reported as a power-off"


def test_resolving_a_maintenance_issue_takes_the_host_out() -> None:
    """Documented, and the reason never to resolve it unasked: Resolve ends the operator's maintenance."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.issue_types(agency) == ["HostInMaintenanceMode"])
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency))
    assert not lab.host.in_maintenance
    assert lab.vm.on


def test_resolving_a_maintenance_issue_on_an_image_managed_cluster_does_nothing() -> None:
    """On clusters managed with vLCM the same Resolve is documented as a no-op."""
    lab = Lab()
    agency = lab.deployed()
    lab.host.compute_resource.lifecycle_managed = True
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.issue_types(agency) == ["HostInMaintenanceMode"])
    agency.resolve_all(lab.call)
    lab.settle()
    assert lab.host.in_maintenance
    assert lab.issue_types(agency) == ["HostInMaintenanceMode"]


def test_maintenance_issue_can_be_switched_off() -> None:
    """Knob: whether maintenance turns an agent red differs between releases."""
    lab = Lab(maintenance_issue=False)
    agency = lab.deployed()
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    lab.settle()
    assert agency.status == "green"


@pytest.mark.parametrize(
    ("level", "issue"), [((9, 0), "VmRequiresHostOutOfMaintenanceMode"), ((7, 1), "VmNotDeployed")]
)
def test_deployment_on_a_host_in_maintenance(level: tuple[int, int], issue: str) -> None:
    """A host that is in maintenance when it comes into scope blocks deployment until it leaves."""
    lab = Lab(eam_level=level)
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    agency = lab.create()
    lab.until(lambda: red(agency))
    assert lab.issue_types(agency) == [issue]
    lab.do.exit_maintenance(lab.host)
    lab.until(lambda: green(agency))


def test_exit_maintenance_hangs_while_eam_is_sick() -> None:
    """The known operational trouble: "Wait for EAM VMs to Power-on" never ends while EAM does nothing."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: red(agency))
    lab.do.freeze_eam()
    task = lab.do.exit_maintenance(lab.host)
    lab.settle(600)
    assert not task.ended
    lab.do.thaw_eam()
    lab.until(lambda: task.ended and green(agency))


def test_powered_off_before_maintenance_and_powered_on_by_leaving_it() -> None:
    """Leaving maintenance powers agents on, whatever was before."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.power_off(lab.vm)
    lab.until(lambda: red(agency))
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.issue_types(agency) == ["HostInMaintenanceMode"])
    lab.do.exit_maintenance(lab.host)
    lab.until(lambda: green(agency))


def test_cancelled_maintenance_powers_the_vm_on_again() -> None:
    """EAM undoes what it did itself: a cancelled entry leaves no powered-off VM behind."""
    lab = Lab(enter_maintenance=10.0)
    agency = lab.deployed()
    task = lab.do.enter_maintenance(lab.host)
    lab.until(lambda: not lab.vm.on)
    task.cancel()
    lab.until(lambda: green(agency) and lab.vm.on)
    assert lab.issue_types(agency) == []
    assert "CanceledHostOperationEvent" in lab.events()


@pytest.mark.parametrize("how", ["disconnect", "not_responding", "crash"])
def test_unreachable_host(how: str) -> None:
    """``HostNotReachable`` is not remediable and goes by itself; after a crash EAM starts the VM again."""
    lab = Lab()
    agency = lab.deployed()
    getattr(lab.do, how)(lab.host)
    lab.until(lambda: lab.issue_types(agency) == ["HostNotReachable"])
    keys = lab.keys(agency)
    assert list(agency.resolve(lab.call, keys)) == keys
    assert lab.vm.get("runtime.connectionState") == "disconnected"
    assert lab.vm.on, "the last known power state stays"
    boots = lab.vm.boots
    if how == "crash":
        lab.do.recover(lab.host)
    else:
        lab.do.reconnect(lab.host)
    lab.until(lambda: green(agency))
    assert lab.vm.boots == boots + (how == "crash")
    assert "issue.vmPoweredOff" not in lab.events()


def test_reboot_of_a_host() -> None:
    """After a reboot EAM starts the agent VM; it is not reported as powered off."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.reboot(lab.host)
    lab.until(lambda: red(agency))
    lab.until(lambda: green(agency))
    assert lab.vm.boots == 2
    assert "issue.vmPoweredOff" not in lab.events()


# Scope ---------------------------------------------------------------------------------------------------------


def test_host_added_to_a_cluster_in_scope() -> None:
    """S09: the new host gets its agent; the agency is yellow until that one runs."""
    lab = Lab()
    agency = lab.deployed()
    host = lab.do.add_host("ClusterA")
    lab.until(lambda: agency.status == "yellow")
    lab.until(lambda: green(agency))
    assert lab.do.agent_vm(host) is not None


def test_host_leaves_the_scope() -> None:
    """A host that moves out of scope loses its VM: powered off, deleted, agent gone."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.add_cluster("Other")
    lab.do.move_host(lab.host, "Other")
    lab.until(lambda: not agency.agents)
    assert lab.do.agent_vm(lab.host) is None
    lab.until(lambda: green(agency))
    tail = [name for name in lab.events() if name.startswith("agent.")][-3:]
    assert tail == ["agent.task.powerOffVm", "agent.task.deleteVm", "agent.destroyed"]


def test_host_moves_between_two_clusters_in_scope() -> None:
    """S04: agent and VM stay; nothing is deployed again."""
    lab = Lab(hosts=2, clusters=2)
    agency = lab.deployed()
    vm, agent = lab.vm, lab.agent(agency)
    lab.do.move_host(lab.host, "ClusterB")
    lab.settle()
    assert agency.status == "green"
    assert lab.agent(agency) is agent
    assert agent.vm is vm
    assert vm.alive


def test_host_leaves_the_scope_in_maintenance() -> None:
    """The VM cannot be deleted while the host is in maintenance; leaving it is enough."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.add_cluster("Other")
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: red(agency))
    lab.do.move_host(lab.host, "Other")
    lab.settle()
    assert lab.issue_types(agency) == ["HostInMaintenanceMode"]
    assert lab.agent(agency).query_runtime(lab.call).goalState == "uninstalled"
    lab.do.exit_maintenance(lab.host)
    lab.until(lambda: not agency.agents and green(agency))


def test_host_is_removed_from_the_inventory() -> None:
    """S17: the agent vanishes with the host."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    gone = lab.host
    agent, vm = lab.agent(agency), lab.vm
    lab.do.remove_host(gone)
    lab.until(lambda: len(agency.agents) == 1)
    assert not vm.alive
    assert agent.gone
    assert "agent.destroyedNoHost" in lab.events()
    lab.until(lambda: green(agency))


def test_cluster_is_removed_from_the_inventory() -> None:
    """The dead reference stays in the scope, and the next Update that names it is refused."""
    lab = Lab(hosts=2, clusters=2)
    agency = lab.deployed()
    lab.do.remove_cluster("ClusterA")
    lab.until(lambda: len(agency.agents) == 1 and green(agency))
    with pytest.raises(eam.fault.InvalidAgencyScope) as caught:
        agency.update(lab.call, agency.query_config(lab.call))
    assert len(caught.value.unknownComputeResource) == 1


def test_scope_grows_and_shrinks_by_update() -> None:
    """S04: Update acts on the difference; fields left unset keep their value."""
    lab = Lab(hosts=2, clusters=2)
    first, second = lab.vcenter.clusters()
    agency = lab.create(scope=eam.Agency.ComputeResourceScope(computeResource=[first.ref]))
    lab.until(lambda: green(agency))
    vm = lab.vm
    both = eam.Agency.ComputeResourceScope(computeResource=[first.ref, second.ref])
    agency.update(lab.call, eam.Agency.ConfigInfo(scope=both))
    lab.until(lambda: len(agency.agents) == 2 and green(agency))
    assert agency.query_config(lab.call).agencyName == "ContrailVM-Agency"
    assert vm.alive, "what did not change is left alone"
    only = eam.Agency.ComputeResourceScope(computeResource=[second.ref])
    agency.update(lab.call, eam.Agency.ConfigInfo(scope=only))
    lab.until(lambda: len(agency.agents) == 1 and green(agency))
    assert not vm.alive


def test_scope_shrinks_while_a_host_is_away() -> None:
    """The VM left behind is an orphan when the host is back; Resolve deletes it."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.add_cluster("Other")
    lab.do.disconnect(lab.host)
    lab.until(lambda: red(agency))
    lab.do.move_host(lab.host, "Other")
    lab.settle()
    assert lab.issue_types(agency) == ["HostNotReachable"]
    lab.do.reconnect(lab.host)
    lab.until(lambda: lab.issue_types(agency) == ["VmOrphaned"])
    lab.settle()
    assert lab.vm.alive
    agency.resolve_all(lab.call)
    lab.until(lambda: not agency.agents and green(agency))


def test_host_that_is_away_leaves_the_scope_and_comes_back_into_it() -> None:
    """Nothing was done meanwhile, so nothing is to be undone: the VM is simply its VM again."""
    lab = Lab()
    agency = lab.deployed()
    vm = lab.vm
    lab.do.add_cluster("Other")
    lab.do.disconnect(lab.host)
    lab.until(lambda: red(agency))
    lab.do.move_host(lab.host, "Other")
    lab.until(lambda: lab.agent(agency).orphaned)
    lab.do.move_host(lab.host, "ClusterA")
    lab.do.reconnect(lab.host)
    lab.until(lambda: green(agency))
    assert lab.vm is vm
    assert "issue.vmOrphaned" not in lab.events()


def test_standalone_host_in_scope() -> None:
    """S03: the compute resource of a standalone host is a scope too."""
    lab = Lab(hosts=0)
    host = lab.do.add_standalone_host()
    scope = eam.Agency.ComputeResourceScope(computeResource=[host.compute_resource.ref])
    agency = lab.create(scope=scope)
    lab.until(lambda: agency.agents and green(agency))
    assert lab.do.agent_vm(host) is not None


def test_disabled_cluster() -> None:
    """``AgencyDisabled``: agents are powered off, changes are refused, and all comes back by itself."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.disable_cluster("ClusterA")
    lab.until(lambda: lab.issue_types(agency) == ["AgencyDisabled"] and not lab.vm.on)
    with pytest.raises(eam.fault.DisabledClusterFault):
        agency.update(lab.call, eam.Agency.ConfigInfo(agentName="Other"))
    keys = lab.keys(agency)
    assert list(agency.resolve(lab.call, keys)) == keys
    lab.do.enable_cluster("ClusterA")
    lab.until(lambda: green(agency) and lab.vm.on)


# Hooks ---------------------------------------------------------------------------------------------------------


def test_provisioning_hook_holds_the_first_power_on() -> None:
    """The VM is there and off until the client marks it; the event says so; green comes after."""
    lab = Lab()
    agency = lab.create(manuallyMarkAgentVmAvailableAfterProvisioning=True)
    lab.until(lambda: agency.agents and lab.agent(agency).hook is not None)
    lab.settle(60)
    agent = lab.agent(agency)
    hook = agent.query_runtime(lab.call).vmHook
    assert (hook.vm, hook.vmState) == (lab.vm.ref, "provisioned")
    assert not lab.vm.on
    assert agency.status == "yellow"
    assert "agent.markAgentVmAsAvailableAfterProvisioning" in lab.events()
    agent.mark_as_available(lab.extension_of(agency))
    lab.until(lambda: green(agency))


def test_power_on_hook_comes_again_after_every_power_on() -> None:
    """Marking is a repeated duty: after maintenance the hook is pending again."""
    lab = Lab()
    agency = lab.create(manuallyMarkAgentVmAvailableAfterPowerOn=True)
    agent = None
    for _ in range(2):
        lab.until(lambda: agency.agents and lab.agent(agency).hook == "poweredOn")
        agent = lab.agent(agency)
        assert lab.vm.on
        assert not agent.available
        agent.mark_as_available(lab.extension_of(agency))
        lab.until(lambda: green(agency))
        assert agent.available
        lab.do.enter_maintenance(lab.host)
        lab.until(lambda: lab.host.in_maintenance)
        lab.do.exit_maintenance(lab.host)
    assert lab.events().count("agent.markAgentVmAsAvailableAfterPowerOn") == 2


def test_power_on_hook_only_once_by_knob() -> None:
    """Undocumented, so a knob."""
    lab = Lab(repeat_power_on_hook=False)
    agency = lab.create(manuallyMarkAgentVmAvailableAfterPowerOn=True)
    lab.until(lambda: agency.agents and lab.agent(agency).hook == "poweredOn")
    lab.agent(agency).mark_as_available(lab.extension_of(agency))
    lab.until(lambda: green(agency))
    lab.do.reboot(lab.host)
    lab.until(lambda: red(agency))
    lab.until(lambda: green(agency))


def test_clearing_the_hold_flag_releases_what_is_held() -> None:
    """Update without the flag lets a held VM go on."""
    lab = Lab()
    agency = lab.create(manuallyMarkAgentVmAvailableAfterProvisioning=True)
    lab.until(lambda: agency.agents and lab.agent(agency).hook is not None)
    agency.update(lab.call, eam.Agency.ConfigInfo(manuallyMarkAgentVmAvailableAfterProvisioning=False))
    lab.until(lambda: green(agency))


def test_marking_is_refused_to_plain_users_by_default() -> None:
    """Documented without a user privilege: ``NotAuthorized``, unless the knob allows it."""
    lab = Lab()
    agency = lab.create(manuallyMarkAgentVmAvailableAfterProvisioning=True)
    lab.until(lambda: agency.agents and lab.agent(agency).hook is not None)
    with pytest.raises(eam.fault.NotAuthorized):
        lab.agent(agency).mark_as_available(lab.call)
    lab.knobs.mark_allowed_for_users = True
    lab.agent(agency).mark_as_available(lab.call)
    lab.until(lambda: green(agency))


def test_marking_without_a_pending_hook() -> None:
    """``InvalidState`` by default, nothing at all by knob."""
    lab = Lab(mark_allowed_for_users=True)
    agency = lab.deployed()
    with pytest.raises(eam.fault.InvalidState):
        lab.agent(agency).mark_as_available(lab.call)
    lab.knobs.mark_without_hook_fails = False
    lab.agent(agency).mark_as_available(lab.call)


# Goals and the end ---------------------------------------------------------------------------------------------


def test_disabled_goal_keeps_vms_off() -> None:
    """Disabled: deployed and off is green; on by hand is ``VmPoweredOn``; enabling powers on."""
    lab = Lab()
    agency = lab.create(goal="disabled")
    lab.until(lambda: agency.agents and green(agency))
    assert not lab.vm.on
    lab.do.power_on(lab.vm)
    lab.until(lambda: lab.issue_types(agency) == ["VmPoweredOn"])
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency) and not lab.vm.on)
    agency.enable(lab.call)
    lab.until(lambda: green(agency) and lab.vm.on)
    agency.disable(lab.call)
    lab.until(lambda: green(agency) and not lab.vm.on)


def test_uninstall_then_destroy() -> None:
    """Uninstall removes every agent and ends green; DestroyAgency then removes the agency."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    agency.uninstall(lab.call)
    lab.until(lambda: not agency.agents and green(agency))
    assert agency.query_runtime(lab.call).goalState == "uninstalled"
    lab.do.add_host("ClusterA")
    lab.settle()
    assert not agency.agents, "nothing is deployed on new hosts any more"
    with pytest.raises(eam.fault.InvalidState):
        agency.enable(lab.call)
    agency.destroy_agency(lab.call)
    lab.until(lambda: not agency.alive)
    assert list(lab.eam.query_agency(lab.call)) == []
    assert lab.events()[-1] == "agency.destroyed"


def test_destroy_alone_removes_agents_first() -> None:
    """Until the agents are gone the runtime is readable, and the configuration is frozen."""
    lab = Lab()
    agency = lab.deployed()
    agency.destroy_agency(lab.call)
    assert agency.query_runtime(lab.call).status in ("yellow", "green")
    with pytest.raises(eam.fault.InvalidState):
        agency.update(lab.call, eam.Agency.ConfigInfo(agentName="Other"))
    lab.until(lambda: not agency.alive)
    assert lab.do.agent_vm(lab.host) is None


def test_destroy_waits_for_a_host_that_is_away() -> None:
    """A host that cannot be reached keeps its agent red, and the agency alive, until it is back."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.disconnect(lab.host)
    lab.until(lambda: red(agency))
    agency.destroy_agency(lab.call)
    lab.settle()
    assert lab.issue_types(agency) == ["HostNotReachable"]
    lab.do.reconnect(lab.host)
    lab.until(lambda: not agency.alive)


def test_lost_agency_leaves_vms_that_are_cleaned_up() -> None:
    """After a restore EAM may know an agency no more; since 7.0U1 it deletes such VMs by itself."""
    lab = Lab()
    agency = lab.deployed()
    vm = lab.vm
    lab.do.lose_agency(agency.name)
    assert list(lab.eam.query_agency(lab.call)) == []
    assert vm.alive
    lab.until(lambda: not vm.alive)


def test_restored_agency_has_other_references() -> None:
    """After a restore a stored reference finds nothing; agency and agents go on under others, VMs untouched."""
    lab = Lab()
    agency = lab.deployed()
    before = {agency.moid, lab.agent(agency).moid}
    vm = lab.vm
    lab.do.restore_agency("ContrailVM-Agency")
    assert not before & set(lab.world.objects)
    assert list(lab.eam.query_agency(lab.call)) == [agency.ref]
    assert list(agency.query_agent(lab.call)) == [lab.agent(agency).ref]
    lab.do.power_off(vm)
    lab.until(lambda: red(agency))
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency))
    assert lab.vm is vm


def test_colour_in_a_hook_by_knob() -> None:
    """Undocumented, so a knob: yellow by default, green if it is so."""
    lab = Lab(status_in_hook="green")
    agency = lab.create(manuallyMarkAgentVmAvailableAfterPowerOn=True)
    lab.until(lambda: green(agency) and agency.agents)
    assert lab.agent(agency).hook == "poweredOn"
    assert not lab.agent(agency).available


# The API's small print -----------------------------------------------------------------------------------------


def test_issue_names_agency_agent_and_host() -> None:
    """Every field of an issue that the reference lists is filled."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.power_off(lab.vm)
    lab.until(lambda: red(agency))
    (issue,) = lab.agent(agency).query_issue(lab.call)
    assert issue.agency == agency.ref
    assert (issue.agencyName, issue.agentName) == ("ContrailVM-Agency", "ContrailVM")
    assert (issue.host, issue.hostName) == (lab.host.ref, lab.host.name)
    assert issue.agent == lab.agent(agency).ref
    assert issue.vm == lab.vm.ref
    assert issue.time is not None
    assert issue.description
    assert [other.key for other in agency.query_issue(lab.call, [issue.key, 999])] == [issue.key]


def test_standing_issues_are_filed_again_with_other_keys() -> None:
    """Knob: keys and times of a standing issue may change between two reads."""
    lab = Lab(issue_regenerate_seconds=5)
    agency = lab.deployed()
    lab.do.power_off(lab.vm)
    lab.until(lambda: red(agency))
    (before,) = lab.keys(agency)
    assert lab.keys(agency) == [before]
    lab.settle(6)
    (after,) = lab.keys(agency)
    assert after != before
    assert list(agency.resolve(lab.call, [before])) == [before]
    assert list(agency.resolve(lab.call, [after])) == []


def test_config_comes_back_with_defaults() -> None:
    """QueryConfig fills in what CreateAgency left out."""
    lab = Lab()
    config = lab.create().query_config(lab.call)
    assert config.optimizedDeploymentEnabled is True
    assert config.preferHostConfiguration is False


def test_agency_without_scope() -> None:
    """A scope may be missing at creation: green, no agents."""
    lab = Lab()
    agency = lab.create(scope=None)
    lab.until(lambda: green(agency))
    assert not agency.agents


def test_what_create_agency_refuses() -> None:
    """Each documented fault, by its cause; nothing is left behind."""
    lab = Lab()
    with pytest.raises(vmodl.fault.InvalidArgument):
        lab.create(agencyName=None)
    with pytest.raises(eam.fault.InvalidAgentConfiguration):
        lab.create(agentConfig=[])
    with pytest.raises(eam.fault.InvalidAgentConfiguration):
        lab.create(agentName="x" * 71)
    with pytest.raises(eam.fault.InvalidAgencyScope):
        lab.create(scope=eam.Agency.ComputeResourceScope(computeResource=[vim.ClusterComputeResource("domain-c999")]))
    with pytest.raises(vmodl.fault.NotSupported):
        lab.create(agentConfig=[eam.Agent.ConfigInfo(vibUrl="http://x/y.zip")])
    assert list(lab.eam.query_agency(lab.call)) == []


@pytest.mark.parametrize(
    ("reason", "field"),
    [
        (Reason.MALFORMED_URL, "malformedUrl"),
        (Reason.UNKNOWN_HOST, "unknownHost"),
        (Reason.REFUSED, "connectionRefused"),
    ],
)
def test_create_agency_tries_the_url(reason: Reason, field: str) -> None:
    """``InvalidUrl`` says why."""
    lab = Lab()
    lab.ovf.problem = OvfProblem(reason, URL)
    with pytest.raises(eam.fault.InvalidUrl) as caught:
        lab.create()
    assert getattr(caught.value, field) is True
    assert caught.value.url == URL


def test_create_agency_with_http_error_and_with_untrusted_certificate() -> None:
    """An HTTP error comes with its code; an untrusted certificate is a fault of its own since 8.2."""
    lab = Lab()
    lab.ovf.problem = OvfProblem(Reason.STATUS, URL, status=404)
    with pytest.raises(eam.fault.InvalidUrl) as caught:
        lab.create()
    assert caught.value.responseCode == 404
    lab.ovf.problem = OvfProblem(Reason.CERTIFICATE, URL)
    with pytest.raises(eam.fault.CertificateNotTrustedFault):
        lab.create()


def test_who_sees_which_agency() -> None:
    """Users with EAM.View see all agencies, extensions their own; ``owner`` is unset for an extension's."""
    lab = Lab()
    users = lab.create()
    extensions = lab.eam.create_agency(
        lab.extension, agencyConfigInfo=lab.config(agencyName="Other"), initialGoalState="enabled"
    )
    assert (users.prop_owner(), users.prop_solutionId()) == ("admin", "admin")
    assert (extensions.prop_owner(), extensions.prop_solutionId()) == (None, "com.example.ext")
    assert len(lab.eam.query_agency(lab.call)) == 2
    assert list(lab.eam.query_agency(lab.extension)) == [extensions.ref]
    with pytest.raises(eam.fault.NotAuthorized):
        users.query_runtime(lab.extension)


def test_add_issue_and_policy() -> None:
    """Deprecated operations that still answer: AddIssue, the maintenance mode policy, ScanForUnknownAgentVm."""
    lab = Lab()
    agency = lab.deployed()
    filed = agency.add_issue(lab.call, eam.issue.AgencyIssue(description="mine", agency=agency.ref))
    assert red(agency)
    assert [issue.key for issue in agency.query_issue(lab.call)] == [filed.key]
    assert list(agency.resolve(lab.call, [filed.key])) == []
    assert green(agency)
    with pytest.raises(vmodl.fault.InvalidArgument):
        agency.add_issue(lab.call, eam.issue.ExtensibleIssue(typeId="x"))
    with pytest.raises(vmodl.fault.NotSupported):
        agency.register_agent_vm(lab.call, lab.vm.ref)
    lab.eam.set_maintenance_mode_policy(lab.call, "multipleHosts")
    assert lab.eam.get_maintenance_mode_policy(lab.call) == "multipleHosts"
    lab.eam.scan_for_unknown_agent_vm(lab.call)


def test_writes_stand_in_the_journal() -> None:
    """What clients change can be counted: who, which operation, on what."""
    lab = Lab()
    agency = lab.deployed()
    agency.query_runtime(lab.call)
    assert [(e.fields["user"], e.fields["method"]) for e in lab.vcenter.journal.calls()] == [("admin", "CreateAgency")]
    lab.do.power_off(lab.vm)
    lab.until(lambda: red(agency))
    lab.agent(agency).resolve(lab.call, lab.keys(agency))
    (entry,) = lab.vcenter.journal.calls("Resolve")
    assert entry.fields["object"] == lab.agent(agency).moid


def test_truth_of_a_host_is_written_when_it_changes() -> None:
    """The journal tells a host's story without knowing any client."""
    lab = Lab()
    lab.deployed()
    host = lab.host
    lab.do.enter_maintenance(host)
    lab.until(lambda: host.in_maintenance)
    lab.settle()
    truth = lab.vcenter.journal.truth_of(host.moid)
    assert truth is not None
    assert (truth["maintenance"], truth["vm_power"], truth["issues"]) == ("in", "poweredOff", ["HostInMaintenanceMode"])
    story = [entry.fields for entry in lab.vcenter.journal if entry.kind == "truth"]
    assert all(before != after for before, after in pairwise(story))
    assert "entering" in [fields["maintenance"] for fields in story]
    powers = [fields["vm_power"] for fields in story]
    assert [p for n, p in enumerate(powers) if n == 0 or p != powers[n - 1]] == [
        None,
        "poweredOff",
        "poweredOn",
        "poweredOff",
    ]
    lab.do.remove_host(host)
    assert lab.vcenter.journal.truth_of(host.moid) == {"name": host.name, "present": False}


def test_power_off_of_an_agent_vm_needs_eams_privilege() -> None:
    """vCenter keeps users without EAM.Modify from powering off, suspending and deleting agent VMs."""
    lab = Lab()
    lab.deployed()
    for operation in (lab.vm.power_off_task, lab.vm.suspend_task, lab.vm.destroy_task):
        with pytest.raises(eam.fault.NotAuthorized):
            operation(lab.caller("guest", lacks="EAM.Modify"))
    lab.settle()
    assert lab.vm.on
