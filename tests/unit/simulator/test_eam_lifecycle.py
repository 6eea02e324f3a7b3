# SPDX-License-Identifier: Apache-2.0
"""Scope, removal, standby, orphans, lost agencies and who may do what in the simulated EAM (S03, S04, S13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyVmomi import eam, vim, vmodl

from tests.unit.simulator.lab import URL, Lab
from vcenter_eam_plugin.simulator.agency import Agency
from vcenter_eam_plugin.simulator.authorization import Users
from vcenter_eam_plugin.simulator.extension_manager import ExtensionManager
from vcenter_eam_plugin.simulator.ovf_download import OvfProblem, Reason
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine


def green(agency: Agency) -> bool:
    return agency.status == "green"


def scope(*resources: Any) -> Any:
    """A configuration that changes the scope and nothing else."""
    morefs = vim.ComputeResource.Array([resource.ref for resource in resources])
    return eam.Agency.ConfigInfo(scope=eam.Agency.ComputeResourceScope(computeResource=morefs))


def agent_vms(lab: Lab) -> list[VirtualMachine]:
    return [vm for vm in lab.world.each(VirtualMachine) if vm.is_agent]


# Scope and removal ---------------------------------------------------------------------------------------------


def test_the_last_cluster_leaves_the_scope() -> None:
    """An empty scope is a scope: agents are drained, the agency stays, and can be filled again (retreat and back)."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    agency.update(lab.call, scope())
    lab.until(lambda: not agency.agents and green(agency))
    assert agent_vms(lab) == []
    assert agency.query_config(lab.call).agencyName == "ContrailVM-Agency"
    agency.update(lab.call, scope(*lab.vcenter.clusters()))
    lab.until(lambda: len(agency.agents) == 2 and green(agency))


def test_one_of_two_clusters_retreats() -> None:
    """Only its agents go; those of the other are not even looked at."""
    lab = Lab(hosts=4, clusters=2)
    agency = lab.deployed()
    first, second = lab.vcenter.clusters()
    stay = {agent.vm.moid for agent in agency.agents.values() if agent.vm and agent.host.compute_resource is first}
    agency.update(lab.call, scope(first))
    lab.until(lambda: len(agency.agents) == 2 and green(agency))
    assert {vm.moid for vm in agent_vms(lab)} == stay
    assert all(vm.boots == 1 for vm in agent_vms(lab))
    assert not second.disabled


@pytest.mark.parametrize(
    ("block", "issue", "resolvable"),
    [
        ("maintenance", "HostInMaintenanceMode", True),
        ("standby", "HostInStandbyMode", True),
        ("disconnected", "HostNotReachable", False),
        ("partial", "HostInPartialMaintenanceMode", False),
        ("storage", "VmInaccessible", False),
        ("protected", "VmProtected", True),
        ("delete fails", "VmDeployed", True),
    ],
)
def test_what_blocks_an_uninstall(block: str, issue: str, resolvable: bool) -> None:
    """Uninstall ends green only when each blocker is gone; Resolve removes those that are documented as remediable."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    host, vm = lab.host, lab.vm
    blocks: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "maintenance": (lambda: lab.do.enter_maintenance(host), lambda: lab.do.exit_maintenance(host)),
        "standby": (lambda: lab.do.enter_standby(host), lambda: lab.do.wake(host)),
        "disconnected": (lambda: lab.do.disconnect(host), lambda: lab.do.reconnect(host)),
        "partial": (lambda: lab.do.partial_maintenance(host), lambda: lab.do.partial_maintenance(host, on=False)),
        "storage": (
            lambda: vm.datastore_object.set_accessible(False),
            lambda: vm.datastore_object.set_accessible(True),
        ),
        "protected": (lambda: setattr(vm, "protected", True), lambda: None),
        "delete fails": (lambda: setattr(vm, "delete_fault", vim.fault.FileLocked()), lambda: None),
    }
    begin, end = blocks[block]
    if block == "storage":
        lab.settle()
        vm.datastore_object = host.datastores[list(host.datastores)[-1]]  # its own, so that the other host can go on
    begin()
    lab.settle()
    agency.uninstall(lab.call)
    lab.settle()
    assert lab.issue_types(agency) == [issue]
    assert agency.status == "red"
    assert [agent.host for agent in agency.agents.values()] == [host], "the other host's agent is gone"
    assert lab.agent(agency).query_runtime(lab.call).goalState == "uninstalled"
    if resolvable:
        vm.delete_fault = None
        assert list(agency.resolve(lab.call, lab.keys(agency))) == []
    else:
        assert list(agency.resolve(lab.call, lab.keys(agency))) == lab.keys(agency)
        end()
    lab.until(lambda: not agency.agents and green(agency))
    assert agent_vms(lab) == []


def test_destroy_alone_can_still_be_helped_by_resolve() -> None:
    """The configuration is frozen, and what blocks the removal can be resolved nevertheless."""
    lab = Lab()
    agency = lab.deployed()
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    agency.destroy_agency(lab.call)
    lab.until(lambda: lab.issue_types(agency) == ["HostInMaintenanceMode"])
    agency.resolve_all(lab.call)
    lab.until(lambda: not agency.alive)
    assert not lab.host.in_maintenance
    with pytest.raises(eam.fault.InvalidState):
        agency.update(lab.call, scope())


def test_uninstall_of_an_agency_whose_vms_are_held() -> None:
    """A hold does not keep an agent from going."""
    lab = Lab()
    agency = lab.create(manuallyMarkAgentVmAvailableAfterProvisioning=True)
    lab.until(lambda: agency.agents and lab.agent(agency).hook is not None)
    agency.uninstall(lab.call)
    lab.until(lambda: not agency.agents and green(agency))


# Standby -------------------------------------------------------------------------------------------------------


def test_standby_and_waking() -> None:
    """S13: the VM goes off with the host, red by default, no word of a power-off; waking brings all back."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    vm = lab.vm
    lab.do.enter_standby(lab.host)
    lab.until(lambda: lab.host.standby == "in")
    assert not vm.on
    lab.until(lambda: lab.issue_types(agency) == ["HostInStandbyMode"])
    (issue,) = agency.query_runtime(lab.call).issue
    assert (issue.vm, issue.host) == (vm.ref, lab.host.ref)
    lab.do.wake(lab.host)
    lab.until(lambda: green(agency))
    assert vm.on
    assert "issue.vmPoweredOff" not in lab.events()
    assert "issue.hostNotReachable" not in lab.events()


def test_resolving_standby_wakes_the_host() -> None:
    """The reason never to resolve it unasked; by knob the Resolve does nothing."""
    lab = Lab(hosts=2, resolve_wakes_host=False)
    agency = lab.deployed()
    lab.do.enter_standby(lab.host)
    lab.until(lambda: agency.status == "red")
    agency.resolve_all(lab.call)
    lab.settle()
    assert lab.host.standby == "in"
    lab.knobs.resolve_wakes_host = True
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency))
    assert lab.host.standby == "none"


def test_a_host_that_does_not_wake() -> None:
    """The issue comes back under another key."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    lab.do.enter_standby(lab.host)
    lab.until(lambda: agency.status == "red")
    keys = lab.keys(agency)
    lab.do.wake_fails(lab.host)
    agency.resolve_all(lab.call)
    lab.until(lambda: agency.status == "yellow")
    lab.until(lambda: lab.issue_types(agency) == ["HostInStandbyMode"])
    assert lab.keys(agency) != keys


def test_standby_without_an_issue_by_knob() -> None:
    """Knob: a sleeping host is green unless EAM has something to do there; a deployment is something."""
    lab = Lab(hosts=2, standby_issue=False)
    agency = lab.deployed()
    lab.do.enter_standby(lab.host)
    lab.until(lambda: lab.host.standby == "in")
    lab.settle()
    assert green(agency)
    agency.update(lab.call, eam.Agency.ConfigInfo(agentConfig=[eam.Agent.ConfigInfo(ovfPackageUrl=f"{URL}?2")]))
    lab.until(lambda: lab.issue_types(agency) == ["HostInStandbyMode"])
    lab.do.wake(lab.host)
    lab.until(lambda: green(agency))


def test_deployment_on_a_host_in_standby() -> None:
    """``HostInStandbyMode`` must name a VM; without one it is a host that cannot be reached, until it is awake."""
    lab = Lab(hosts=2)
    lab.do.enter_standby(lab.host)
    lab.until(lambda: lab.host.standby == "in")
    agency = lab.create()
    lab.until(lambda: lab.issue_types(agency) == ["HostNotReachable"])
    agency.resolve_all(lab.call)
    lab.settle()
    assert lab.host.standby == "in"
    lab.do.wake(lab.host)
    lab.until(lambda: green(agency))


# Maintenance, partial and by image -----------------------------------------------------------------------------


def test_partial_maintenance_blocks_deployment_and_upgrade() -> None:
    """The issue names the VM, and none when there is none yet; it goes by itself with the mode."""
    lab = Lab()
    lab.do.partial_maintenance(lab.host)
    agency = lab.create()
    lab.until(lambda: agency.status == "red")
    (issue,) = agency.query_runtime(lab.call).issue
    assert (type(issue), issue.vm) == (eam.issue.HostInPartialMaintenanceMode, None)
    assert lab.ovf.fetched == []
    lab.do.partial_maintenance(lab.host, on=False)
    lab.until(lambda: green(agency))
    lab.do.partial_maintenance(lab.host)
    agency.update(lab.call, eam.Agency.ConfigInfo(agentConfig=[eam.Agent.ConfigInfo(ovfPackageUrl=f"{URL}?2")]))
    lab.until(lambda: agency.status == "red")
    (issue,) = agency.query_runtime(lab.call).issue
    assert (type(issue), issue.vm) == (eam.issue.HostInPartialMaintenanceMode, lab.vm.ref)
    assert lab.vm.on
    lab.do.partial_maintenance(lab.host, on=False)
    lab.until(lambda: green(agency))


def test_cluster_managed_with_an_image() -> None:
    """vLCM: Resolve of a maintenance issue is a no-op there, for a VM that waits to be deployed, too."""
    lab = Lab()
    lab.do.manage_with_image("ClusterA")
    assert lab.host.compute_resource.get("lifecycleManaged") is True
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    agency = lab.create()
    lab.until(lambda: lab.issue_types(agency) == ["VmRequiresHostOutOfMaintenanceMode"])
    assert list(agency.resolve(lab.call, lab.keys(agency))) == []
    lab.settle()
    assert lab.host.in_maintenance
    lab.do.manage_with_image("ClusterA", on=False)
    agency.resolve_all(lab.call)
    lab.until(lambda: green(agency))


# Orphans -------------------------------------------------------------------------------------------------------


def test_host_removed_and_added_again_brings_an_orphan() -> None:
    """S04: the machine still runs its agent VM; EAM deletes it unasked and deploys another."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    name, old = lab.host.name, lab.vm.name
    lab.do.remove_host(lab.host)
    lab.until(lambda: len(agency.agents) == 1)
    again = lab.do.add_host("ClusterA", name)
    (orphan,) = again.vms.values()
    assert (orphan.is_agent, orphan.on, orphan.name) == (True, True, old)
    assert orphan.get("config.managedBy.type") == "agent"
    assert orphan.heartbeat
    lab.until(lambda: not orphan.alive and green(agency))
    (own,) = again.vms.values()
    assert own is agency.agents[again.moid].vm
    assert lab.eam.watch.orphans == {}
    assert "VmDiscoveredEvent" in lab.events()


def test_orphans_stay_before_7_0_u1_and_by_knob() -> None:
    """Earlier EAMs left them alone: two agent VMs are then on the host, one of them nobody's."""
    lab = Lab(hosts=2, eam_level=(7, 1))
    agency = lab.deployed()
    name = lab.host.name
    lab.do.remove_host(lab.host)
    again = lab.do.add_host("ClusterA", name)
    lab.until(lambda: len(agency.agents) == 2 and green(agency))
    lab.settle(60)
    assert len(again.vms) == 2
    lab.knobs.eam_level = (9, 0)
    lab.knobs.orphan_cleanup = False
    lab.eam.watch.look_again()
    lab.settle()
    assert len(again.vms) == 2
    lab.knobs.orphan_cleanup = True
    lab.eam.watch.look_again()
    lab.until(lambda: len(again.vms) == 1)
    assert green(agency), "its own VM is left alone"


def test_cluster_removed_and_hosts_added_elsewhere() -> None:
    """Out of any scope, too, an agent VM without an agency goes; tenant VMs stay on their machine."""
    lab = Lab(hosts=1)
    agency = lab.deployed()
    name = lab.host.name
    lab.do.remove_cluster("ClusterA")
    lab.until(lambda: not agency.agents)
    lab.do.add_cluster("Other")
    again = lab.do.add_host("Other", name)
    assert len(again.vms) == 1
    lab.until(lambda: not again.vms)


def test_machine_without_memory_of_its_vms() -> None:
    """Knob: the machine was set up anew before it came back."""
    lab = Lab(hosts=2, removed_host_keeps_vms=False)
    lab.deployed()
    name = lab.host.name
    lab.do.remove_host(lab.host)
    assert lab.do.add_host("ClusterA", name).vms == {}


def test_lost_agency_is_created_again() -> None:
    """After a restore without the agency: the old VMs go, the new agency's are others, and none is adopted."""
    lab = Lab(hosts=2)
    lost = lab.deployed()
    before = {vm.moid for vm in agent_vms(lab)}
    lab.do.lose_agency(lost.name)
    with pytest.raises(LookupError):
        lab.do.lose_agency(lost.name)
    again = lab.create()
    lab.until(lambda: len(again.agents) == 2 and green(again))
    lab.until(lambda: not before & {vm.moid for vm in agent_vms(lab)})
    assert len(agent_vms(lab)) == 2
    assert len({vm.name for vm in agent_vms(lab)}) == 2


def test_agency_lost_while_a_host_is_away() -> None:
    """Its VM is cleaned up when the host is back, and not before."""
    lab = Lab()
    agency = lab.deployed()
    vm = lab.vm
    lab.do.disconnect(lab.host)
    lab.until(lambda: agency.status == "red")
    lab.do.lose_agency(agency.name)
    lab.settle()
    assert vm.alive
    lab.do.reconnect(lab.host)
    lab.until(lambda: not vm.alive)


def test_nothing_is_cleaned_up_while_eam_hangs() -> None:
    """It is done when EAM works again."""
    lab = Lab()
    agency = lab.deployed()
    vm = lab.vm
    lab.do.lose_agency(agency.name)
    lab.do.freeze_eam()
    lab.settle()
    assert vm.alive
    lab.do.thaw_eam()
    lab.until(lambda: not vm.alive)


def test_agency_restored_with_an_old_scope() -> None:
    """A backup knows the scope of its day: hosts that came into scope later lose their VM again."""
    lab = Lab(hosts=2, clusters=2)
    first, second = lab.vcenter.clusters()
    agency = lab.create(scope=scope(first).scope)
    lab.until(lambda: green(agency))
    agency.update(lab.call, scope(first, second))
    lab.until(lambda: len(agency.agents) == 2 and green(agency))
    lab.do.restore_agency(agency.name, back=1)
    lab.until(lambda: len(agency.agents) == 1 and green(agency))
    assert list(agency.query_config(lab.call).scope.computeResource) == [first.ref]


# Who may do what -----------------------------------------------------------------------------------------------


def test_an_extension_sees_and_touches_its_own_agencies_only() -> None:
    """Property and operation alike, of agencies and of agents; a user with the privileges sees and may all."""
    lab = Lab()
    theirs = lab.deployed()
    mine = lab.eam.create_agency(
        lab.extension, agencyConfigInfo=lab.config(agencyName="Other"), initialGoalState="enabled"
    )
    lab.until(lambda: mine.agents and green(mine))
    session = lab.extension.session
    session.user_name = lab.extension.user
    assert list(lab.eam.property_for(session, "agency")) == [mine.ref]
    assert list(lab.eam.query_agency(lab.extension)) == [mine.ref]
    agent = lab.agent(theirs)
    for forbidden in (
        lambda: theirs.property_for(session, "runtime"),
        lambda: agent.property_for(session, "runtime"),
        lambda: agent.query_runtime(lab.extension),
        lambda: agent.query_issue(lab.extension),
        lambda: agent.resolve(lab.extension, issueKey=[1]),
        lambda: agent.resolve_all(lab.extension),
        lambda: agent.mark_as_available(lab.extension),
        lambda: theirs.uninstall(lab.extension),
        lambda: theirs.destroy_agency(lab.extension),
        lambda: theirs.update(lab.extension, scope()),
    ):
        with pytest.raises(eam.fault.NotAuthorized):
            forbidden()
    assert mine.property_for(session, "runtime").status == "green"
    user = lab.call.session
    user.user_name = lab.call.user
    assert list(lab.eam.property_for(user, "agency")) == [theirs.ref, mine.ref]
    mine.uninstall(lab.call)
    lab.until(lambda: not mine.agents)


def test_marking_by_the_extension_that_owns_the_agency() -> None:
    """S20: by default only an extension may mark, and only what is its own."""
    lab = Lab()
    held = lab.config(manuallyMarkAgentVmAvailableAfterProvisioning=True)
    agency = lab.eam.create_agency(lab.extension, agencyConfigInfo=held, initialGoalState="enabled")
    lab.until(lambda: agency.agents and lab.agent(agency).hook == "provisioned")
    for other in (lab.call, lab.caller("com.example.other", extension=True)):
        with pytest.raises(eam.fault.NotAuthorized):
            lab.agent(agency).mark_as_available(other)
    lab.agent(agency).mark_as_available(lab.extension)
    lab.until(lambda: green(agency))


def test_unregistering_an_extension_destroys_its_agencies() -> None:
    """The reason never to do it: all its agent VMs go, and nobody else's."""
    lab = Lab()
    extensions = lab.world.add(ExtensionManager(lab.world, Users()))
    description = vim.Description(label="x", summary="x")
    for key in ("com.example.ext", "com.example.other"):
        extension = vim.Extension(
            key=key, version="1", description=description, lastHeartbeatTime=lab.world.clock.now()
        )
        extensions.register(lab.call, extension)
    theirs = lab.deployed()
    mine = lab.eam.create_agency(
        lab.extension, agencyConfigInfo=lab.config(agencyName="Other"), initialGoalState="enabled"
    )
    lab.until(lambda: mine.agents and green(mine))
    extensions.unregister(lab.call, "com.example.other")
    lab.settle()
    assert mine.alive
    extensions.unregister(lab.call, "com.example.ext")
    lab.until(lambda: not mine.alive)
    assert len(agent_vms(lab)) == 1
    assert green(theirs)


# Trust ---------------------------------------------------------------------------------------------------------


def test_update_with_another_pin_tries_the_url_again() -> None:
    """The same URL under another ``ovfSslTrust`` is another source; a wrong pin is refused, and nothing changes."""
    lab = Lab()
    agency = lab.deployed()
    lab.ovf.problem = OvfProblem(Reason.CERTIFICATE, URL)
    pinned = eam.Agent.ConfigInfo(
        ovfPackageUrl=URL, ovfSslTrust=eam.Agent.PinnedPemCertificate(sslCertificate="-----BEGIN CERTIFICATE-----")
    )
    with pytest.raises(eam.fault.CertificateNotTrustedFault) as caught:
        agency.update(lab.call, eam.Agency.ConfigInfo(agentConfig=[pinned]))
    assert caught.value.url == URL
    lab.ovf.problem = None
    agency.update(lab.call, eam.Agency.ConfigInfo(agentConfig=[pinned]))
    lab.settle()
    assert green(agency)
    assert lab.ovf.fetched == [URL], "another pin is no reason to replace a VM"


def test_certificate_changed_and_a_new_pin_given() -> None:
    """S01: the OVF server's certificate was replaced; Update with the new pin lets the deployment go on by itself."""
    lab = Lab()
    agency = lab.create()
    lab.ovf.problem = OvfProblem(Reason.CERTIFICATE, URL)
    lab.until(lambda: lab.issue_types(agency) == ["CertificateNotTrusted"])
    lab.ovf.problem = None
    trusted = eam.Agent.ConfigInfo(ovfPackageUrl=URL, ovfSslTrust=eam.Agent.AnyCertificate())
    agency.update(lab.call, eam.Agency.ConfigInfo(agentConfig=[trusted]))
    lab.until(lambda: green(agency))


def test_ovf_on_the_vcenter_itself_is_not_simulated() -> None:
    """``authenticationScheme`` (9.0): said so, instead of ignored."""
    lab = Lab()
    config = eam.Agent.ConfigInfo(ovfPackageUrl=URL, authenticationScheme="VMWARE_SESSION_ID")
    with pytest.raises(vmodl.fault.NotSupported):
        lab.create(agentConfig=[config])
