# SPDX-License-Identifier: Apache-2.0
"""The catalogue covers every issue that EAM can file, by the name it has on the wire."""

from __future__ import annotations

import pytest
from pyVmomi import VmomiSupport

from vcenter_eam_plugin.domain.issues import CATALOGUE, HOST_UNAVAILABLE_TYPES, IssueType, Policy, Radius, issue_type
from vcenter_eam_plugin.domain.planner import DEFAULT_AUTO_RESOLVE
from vcenter_eam_plugin.domain.status import State

BASE_CLASSES = {
    "Issue",
    "AgencyIssue",
    "AgentIssue",
    "HostIssue",
    "VmIssue",
    "VibIssue",
    "IntegrityAgencyVUMIssue",
    "PersonalityAgencyPMIssue",
    "PersonalityAgencyDepotIssue",
    "PersonalityAgentPMIssue",
}
"""Never filed themselves. One that is filed all the same is unknown, and so never resolved."""
CLUSTER_AGENTS = "ClusterAgent"
"""Issues of agencies that deploy per cluster (vCLS), which ours is not."""


def every_type_of_pyvmomi() -> set[str]:
    """Wire names of ``eam.issue.*``: what a reader of the wire hands over as the type."""
    return {t._wsdlName for t in VmomiSupport.GetWsdlTypes() if t.__name__.startswith("eam.issue.")}


def test_every_issue_of_the_api_has_a_row() -> None:
    """Bug: ten rows carried the short name and not the one on the wire, so their issues were unknown (S08)."""
    there_are = every_type_of_pyvmomi()
    assert len(there_are) > 90
    due = {name for name in there_are - BASE_CLASSES if not name.startswith(CLUSTER_AGENTS)}
    assert due - CATALOGUE.keys() == set()
    assert CATALOGUE.keys() - there_are == set(), "a row for what no server can file"
    assert there_are >= BASE_CLASSES


@pytest.mark.parametrize("name", sorted(BASE_CLASSES | {"ClusterAgentVmPoweredOff", "FiledByALaterRelease"}))
def test_what_has_no_row_is_never_resolved(name: str) -> None:
    """Design section 5: unknown types never; and it says what it is called."""
    row = issue_type(name)
    assert (row.name, row.policy, row.radius, row.state) == (name, Policy.NEVER, Radius.HOST, State.FAULTY)


@pytest.mark.parametrize("row", CATALOGUE.values(), ids=CATALOGUE)
def test_every_row_is_sound(row: IssueType) -> None:
    """What is done without asking touches an agent VM at most; a person reads meaning and advice."""
    assert row is issue_type(row.name)
    assert row.meaning
    assert row.advice.endswith(".")
    if row.policy in (Policy.AUTO, Policy.AUTO_AFTER_FIX):
        assert row.radius in (Radius.NOTHING, Radius.AGENT_VM)


@pytest.mark.parametrize(
    "name",
    [
        "HostInMaintenanceMode",
        "VmRequiresHostOutOfMaintenanceMode",
        "HostInStandbyMode",
        "VibRequiresHostInMaintenanceMode",
        "VibRequiresHostReboot",
        "ImmediateHostRebootRequired",
        "VibCannotPutHostOutOfMaintenanceMode",
    ],
)
def test_what_would_drag_a_host_about_is_never_resolved(name: str) -> None:
    """S10, S13: resolving these takes a host out of maintenance or standby, or reboots it, against its operator."""
    assert CATALOGUE[name].policy is Policy.NEVER
    assert CATALOGUE[name].radius is Radius.HOST
    assert name not in DEFAULT_AUTO_RESOLVE


@pytest.mark.parametrize("name", ["VmPoweredOff", "VmNotDeployed", "VmSuspended"])
def test_what_the_rows_demand_is_resolved(name: str) -> None:
    """S08: powered off -> powered on; missing -> deployed again."""
    assert CATALOGUE[name].policy is Policy.AUTO


@pytest.mark.parametrize("name", ["VmCorrupted", "VmOrphaned", "VmDeployed", "VmPoweredOn"])
def test_what_loses_a_vm_asks(name: str) -> None:
    """Design section 5: VmCorrupted asks, as does whatever deletes or stops a ContrailVM."""
    assert CATALOGUE[name].policy is Policy.ASK


@pytest.mark.parametrize(
    "name",
    ["ManagedHostNotReachable", "HostInPartialMaintenanceMode", "AgencyDisabled", "VmInaccessible", "InvalidConfig"],
)
def test_what_eam_cannot_remediate_is_not_resolved(name: str) -> None:
    """Design section 5: that only hides it."""
    assert CATALOGUE[name].policy in (Policy.WAIT, Policy.NEVER)


def test_issues_about_the_host_alone() -> None:
    """They say no more than the host's own properties, which know it better and sooner."""
    assert {
        "HostInMaintenanceMode",
        "VmRequiresHostOutOfMaintenanceMode",
        "HostInPartialMaintenanceMode",
        "HostInStandbyMode",
        "ManagedHostNotReachable",
        "HostPoweredOff",
    } == HOST_UNAVAILABLE_TYPES
