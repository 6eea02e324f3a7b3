# SPDX-License-Identifier: Apache-2.0
"""Agencies and agents from and to what EAM speaks."""

from __future__ import annotations

import datetime as dt

import pytest
from pyVmomi import eam, vim

from vcenter_eam_plugin.domain.facts import EamStatus, GoalState, HookFacts, HookState
from vcenter_eam_plugin.eam.agency import AgencySpec, agency_facts, agent_facts, build_config, issue_facts, scope_of

SPEC = AgencySpec(
    name="ContrailVM-Agency",
    agent_name="ContrailVM",
    ovf_url="https://ovf.example/sha256-1/ContrailVM.ovf",
    scope=("domain-c7", "domain-s9"),
    ovf_properties=(("datacenter", "DC0"),),
    hold_after_power_on=True,
    ovf_certificate_pem="-----BEGIN CERTIFICATE-----",
)


def test_s03_config_says_what_the_spec_says() -> None:
    """S03: one agent configuration for every host version, datastore and network left to the hosts."""
    config = build_config(SPEC)
    assert (config.agencyName, config.agentName) == ("ContrailVM-Agency", "ContrailVM")
    (agent,) = config.agentConfig
    assert agent.ovfPackageUrl == SPEC.ovf_url
    assert agent.hostVersion is None
    assert [(one.key, one.value) for one in agent.ovfEnvironment.ovfProperty] == [("datacenter", "DC0")]
    assert agent.ovfSslTrust.sslCertificate == SPEC.ovf_certificate_pem
    assert config.manuallyMarkAgentVmAvailableAfterProvisioning is False
    assert config.manuallyMarkAgentVmAvailableAfterPowerOn is True
    assert not config.agentVmDatastore
    assert not config.agentVmNetwork


def test_s03_scope_names_clusters_and_standalone_hosts_by_their_type() -> None:
    """A reference of the wrong type is another object to a server that does not go by the value alone."""
    config = build_config(SPEC)
    assert [type(one) for one in config.scope.computeResource] == [vim.ClusterComputeResource, vim.ComputeResource]
    assert scope_of(config) == SPEC.scope


def test_agency_without_scope_or_ovf_is_read() -> None:
    """Somebody else's agency may lack what ours has; it must be readable to be told apart."""
    config = eam.Agency.ConfigInfo(agencyName="vendor")
    runtime = eam.EamObject.RuntimeInfo(status="yellow", goalState="uninstalled")
    facts = agency_facts("agency-1", config, runtime, "com.vendor", None)
    assert (facts.scope, facts.ovf_url, facts.owner) == ((), None, None)
    assert (facts.status, facts.goal) == (EamStatus.YELLOW, GoalState.UNINSTALLED)


def test_issue_goes_by_its_exact_name_on_the_wire() -> None:
    """Subclassing misleads: VmRequiresHostOutOfMaintenanceMode is a VmNotDeployed, and its remedy another."""
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for made, name in (
        (eam.issue.VmRequiresHostOutOfMaintenanceMode, "VmRequiresHostOutOfMaintenanceMode"),
        (eam.issue.HostNotReachable, "ManagedHostNotReachable"),
        (eam.issue.cluster.agent.VmPoweredOff, "ClusterAgentVmPoweredOff"),
    ):
        assert issue_facts(made(key=3, description="d", time=now)).type == name


def test_agent_with_a_hook_of_another_vm() -> None:
    """In an upgrade the held VM is the new one while the agent's is still the old."""
    runtime = eam.Agent.RuntimeInfo(
        status="yellow",
        goalState="enabled",
        vmName="",
        host=vim.HostSystem("host-1"),
        vm=vim.VirtualMachine("vm-1"),
        agency=eam.Agency("agency-1"),
        vmHook=eam.Agent.VmHook(vm=vim.VirtualMachine("vm-2"), vmState="provisioned"),
    )
    facts = agent_facts("agent-1", runtime, 12.5)
    assert facts.hook == HookFacts(vm="vm-2", state=HookState.PROVISIONED)
    assert (facts.vm, facts.host, facts.agency, facts.vm_name, facts.read_began) == (
        "vm-1",
        "host-1",
        "agency-1",
        "",
        12.5,
    )


@pytest.mark.parametrize(("status", "goal"), [("", "enabled"), ("green", ""), ("blue", "enabled")])
def test_unknown_word_is_refused(status: str, goal: str) -> None:
    """An empty status (govmomi's simulator sends one) must not read as green."""
    runtime = eam.EamObject.RuntimeInfo(status=status, goalState=goal)
    with pytest.raises(ValueError, match="is not a valid"):
        agency_facts("a", eam.Agency.ConfigInfo(agencyName="x"), runtime, "", None)
