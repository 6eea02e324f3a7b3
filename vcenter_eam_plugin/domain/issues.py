# SPDX-License-Identifier: Apache-2.0
"""Every EAM issue type: what it means, what ``Resolve`` would touch, and what we do about it by default.

Types are compared *exactly*, by the name on the wire (``PersonalityAgencyPMUnavailable``): subclassing misleads
(``VmRequiresHostOutOfMaintenanceMode`` is a ``VmNotDeployed`` in the API, and resolving it takes a host out of
maintenance). A type that is not in the table is never resolved. Source: ESX Agent Manager API reference, issue types
up to API 9.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from vcenter_eam_plugin.domain.status import State


class Policy(StrEnum):
    """What the planner may do about an issue."""

    AUTO = "auto"
    """Resolve it, within the budgets."""
    AUTO_AFTER_FIX = "auto_after_fix"
    """Mend the cause ourselves (Agent VM settings), then have EAM look again."""
    ASK = "ask"
    """Only a person may say so."""
    NEVER = "never"
    """Resolving does harm, or only hides it."""
    WAIT = "wait"
    """Nothing to do: it clears itself when its cause does."""


class Radius(StrEnum):
    """The most that a ``Resolve`` touches."""

    NOTHING = "nothing"
    AGENT_VM = "agent VM"
    AGENT_VM_LOST = "agent VM is deleted"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class IssueType:
    """One row of the catalogue. ``state`` is the ContrailVM state it shows as, when host and VM do not say more."""

    name: str
    meaning: str
    radius: Radius
    policy: Policy
    state: State
    advice: str


_VM, _LOST, _HOST, _NONE = Radius.AGENT_VM, Radius.AGENT_VM_LOST, Radius.HOST, Radius.NOTHING
_AUTO, _FIX, _ASK, _NEVER, _WAIT = Policy.AUTO, Policy.AUTO_AFTER_FIX, Policy.ASK, Policy.NEVER, Policy.WAIT
_BLOCKED, _FAULTY = State.BLOCKED, State.FAULTY

_ROWS: tuple[tuple[str, str, Radius, Policy, State, str], ...] = (
    # --- the agent VM is there, but not as it should be
    ("VmPoweredOff", "it should be on and is off", _VM, _AUTO, State.POWERED_OFF, "Resolve powers it on."),
    ("VmSuspended", "it is suspended", _VM, _AUTO, State.SUSPENDED, "Resolve powers it on."),
    ("VmPoweredOn", "it should be off and is on", _VM, _ASK, _FAULTY, "Resolve powers it off."),
    ("VmCorrupted", "its files are damaged or missing", _LOST, _ASK, _FAULTY, "Resolve deletes and deploys it again."),
    ("VmOrphaned", "its host left the scope", _LOST, _ASK, State.REMOVING, "Resolve deletes it."),
    ("VmDeployed", "it should be removed and was not", _LOST, _ASK, State.REMOVING, "Resolve deletes it."),
    ("VmInaccessible", "its storage cannot be reached", _NONE, _WAIT, _FAULTY, "Repair the datastore."),
    ("VmProtected", "HA protects it from changes just now", _VM, _AUTO, _FAULTY, "Resolve tries again."),
    ("InvalidConfig", "vCenter refused to power it on or to change it", _NONE, _NEVER, _FAULTY,
     "Correct the VM: the description has vCenter's reason."),
    ("VmHookFailed", "a hook was reported as failed", _NONE, _NEVER, _FAULTY, "Apply the hook again in vLCM."),
    ("VmHookTimedout", "a hook was not answered in time", _NONE, _NEVER, _FAULTY, "Apply the hook again in vLCM."),
    ("VmMarkedAsTemplate", "it was made a template", _VM, _ASK, _FAULTY, "Resolve makes it a VM again."),
    ("VmWrongFolder", "it was moved to another folder", _VM, _ASK, _FAULTY, "Resolve moves it back."),
    ("VmWrongResourcePool", "it was moved to another resource pool", _VM, _ASK, _FAULTY, "Resolve moves it back."),
    ("InsufficientIpAddresses", "no address is free for it", _NONE, _NEVER, _FAULTY, "Enlarge the IP pool."),
    ("MissingAgentIpPool", "its network has no IP pool", _NONE, _NEVER, _FAULTY, "Give the network an IP pool."),
    # --- it cannot be deployed
    ("VmNotDeployed", "it should exist and does not", _VM, _AUTO, State.MISSING, "Resolve deploys it again."),
    ("CannotAccessAgentOVF", "EAM cannot download the OVF package", _VM, _AUTO, _BLOCKED,
     "Make the OVF URL reachable from vCenter; Resolve tries again."),
    ("CertificateNotTrusted", "EAM does not trust the OVF server's certificate", _VM, _ASK, _BLOCKED,
     "Trust or replace the certificate, then Resolve."),
    ("IncompatibleHostVersion", "no agent configuration fits this host's version", _VM, _ASK, _BLOCKED,
     "Upgrade the host, or add an agent configuration for it."),
    ("InsufficientResources", "the host has too little CPU or memory free", _VM, _AUTO, _BLOCKED,
     "Free CPU or memory; Resolve tries again."),
    ("InsufficientSpace", "the agent datastore is full", _VM, _AUTO, _BLOCKED,
     "Free space on the agent datastore; Resolve tries again."),
    ("OvfInvalidFormat", "vCenter cannot import the OVF package", _VM, _ASK, _BLOCKED, "Publish a valid OVF package."),
    ("OvfInvalidProperty", "an OVF property is missing or invalid", _NONE, _NEVER, _BLOCKED,
     "Correct ovf_properties of the agency."),
    ("NoAgentVmDatastore", "the host has no Agent VM datastore set", _NONE, _FIX, _BLOCKED,
     "Set it on the host, or give a rule in agent_vm_datastore."),
    ("NoAgentVmNetwork", "the host has no Agent VM network set", _NONE, _FIX, _BLOCKED,
     "Set it on the host, or give a rule in agent_vm_network."),
    ("NoCustomAgentVmDatastore", "none of the agency's datastores is on the host", _NONE, _NEVER, _BLOCKED,
     "Mount one of the agency's datastores on the host."),
    ("NoCustomAgentVmNetwork", "none of the agency's networks is on the host", _NONE, _NEVER, _BLOCKED,
     "Connect the host to one of the agency's networks."),
    ("NoDiscoverableAgentVmDatastore", "no datastore fits the selection policy", _NONE, _NEVER, _BLOCKED,
     "Add a datastore that fits."),
    ("NoDiscoverableAgentVmNetwork", "no network fits the selection policy", _NONE, _NEVER, _BLOCKED,
     "Add a network that fits."),
    # --- the host is not available: being off is right, and Resolve would drag it back
    ("VmRequiresHostOutOfMaintenanceMode", "deployment waits for the host to leave maintenance", _HOST, _NEVER,
     State.MAINTENANCE, "Wait: Resolve would take the host out of maintenance."),
    ("HostInMaintenanceMode", "a VM operation waits for the host to leave maintenance", _HOST, _NEVER,
     State.MAINTENANCE, "Wait: Resolve would take the host out of maintenance."),
    ("HostInPartialMaintenanceMode", "partial maintenance blocks the VM operation", _NONE, _WAIT, State.MAINTENANCE,
     "Wait, or leave that mode."),
    ("HostInStandbyMode", "a VM operation waits for the host to leave standby", _HOST, _NEVER, State.STANDBY,
     "Wait: Resolve would wake the host."),
    ("ManagedHostNotReachable", "the host is disconnected or off", _NONE, _WAIT, State.UNREACHABLE,
     "Connect or power on the host; it clears itself."),
    ("HostPoweredOff", "the host is off", _NONE, _WAIT, State.UNREACHABLE, "Power on the host; it clears itself."),
    # --- the agency, or what EAM stands on
    ("AgencyDisabled", "a cluster of the scope is disabled", _NONE, _WAIT, _BLOCKED, "Enable the cluster again."),
    ("OrphanedAgency", "the owner's extension is gone", _LOST, _NEVER, _BLOCKED, "Register the extension again."),
    ("UnknownAgentVm", "an agent VM belongs to no agency", _LOST, _ASK, _FAULTY, "EAM deletes it from 7.0 U1 on."),
    ("ExtensibleIssue", "a solution filed an issue of its own", _NONE, _ASK, _FAULTY, "See its description."),
    ("MissingDvFilterSwitch", "a dvFilter switch is missing", _HOST, _NEVER, _BLOCKED,
     "EAM does not file it any more."),
    ("OrphanedDvFilterSwitch", "a dvFilter switch is left over", _HOST, _NEVER, _FAULTY,
     "EAM does not file it any more."),
    ("TransitionFailed", "the hand-over to vLCM failed", _NONE, _NEVER, _FAULTY, "Resolve it through vLCM."),
    # --- VIBs, images, VUM: not ours; several of these reboot a host
    ("VibNotInstalled", "a VIB was not installed or removed", _HOST, _NEVER, _BLOCKED, "Not a ContrailVM's concern."),
    ("CannotAccessAgentVib", "EAM cannot download a VIB", _HOST, _NEVER, _BLOCKED, "Not a ContrailVM's concern."),
    ("VibInvalidFormat", "a VIB bundle is invalid", _HOST, _NEVER, _BLOCKED, "Not a ContrailVM's concern."),
    ("VibDependenciesNotMetByHost", "a VIB's dependency is missing", _HOST, _NEVER, _BLOCKED, "See the host's image."),
    ("VibRequirementsNotMetByHost", "a VIB's requirement is unmet", _HOST, _NEVER, _BLOCKED, "See the host's image."),
    ("VibRequiresHostInMaintenanceMode", "a VIB needs the host in maintenance", _HOST, _NEVER, _BLOCKED,
     "Resolve would put the host into maintenance."),
    ("VibRequiresHostReboot", "a VIB needs the host rebooted", _HOST, _NEVER, _BLOCKED,
     "Resolve would reboot the host."),
    ("ImmediateHostRebootRequired", "a live VIB operation failed", _HOST, _NEVER, _BLOCKED,
     "Resolve would reboot the host."),
    ("VibRequiresManualInstallation", "a VIB must be installed by hand", _NONE, _NEVER, _BLOCKED, "Use the image."),
    ("VibRequiresManualUninstallation", "a VIB must be removed by hand", _NONE, _NEVER, _BLOCKED, "Use the image."),
    ("VibCannotPutHostInMaintenanceMode", "VMs keep the host from maintenance", _HOST, _NEVER, _BLOCKED,
     "Resolve would put the host into maintenance."),
    ("VibCannotPutHostOutOfMaintenanceMode", "the host does not leave maintenance", _HOST, _NEVER, _BLOCKED,
     "Resolve would take the host out of maintenance."),
    ("PersonalityAgentAwaitingPMRemediation", "an image waits to be applied", _NONE, _NEVER, _BLOCKED,
     "Apply the cluster's image."),
    ("PersonalityAgentBlockedByAgencyOperation",
     "an operation of the agency blocks this agent", _NONE, _NEVER, _BLOCKED,
     "Resolve the agency's issue first."),
    ("PersonalityAgencyPMUnavailable", "vLCM cannot be reached by EAM", _NONE, _NEVER, _BLOCKED,
     "See the vLCM service."),
    ("PersonalityAgencyCannotConfigureSolutions", "vLCM refused the solution", _NONE, _NEVER, _BLOCKED,
     "Repair it by hand in vLCM."),
    ("PersonalityAgencyInaccessibleDepot", "a depot cannot be reached", _NONE, _NEVER, _BLOCKED, "See the depot."),
    ("PersonalityAgencyInvalidDepot", "a depot is invalid", _NONE, _NEVER, _BLOCKED, "See the depot."),
    ("PersonalityAgencyCannotUploadDepot", "a depot cannot be uploaded", _NONE, _NEVER, _BLOCKED, "See the depot."),
    ("IntegrityAgencyVUMUnavailable", "VUM cannot be reached by EAM", _NONE, _NEVER, _BLOCKED, "See the VUM service."),
    ("IntegrityAgencyCannotStageSoftware", "VUM cannot stage software", _NONE, _NEVER, _BLOCKED,
     "See the VUM service."),
    ("IntegrityAgencyCannotDeleteSoftware", "VUM cannot delete software", _NONE, _NEVER, _BLOCKED,
     "See the VUM service."),
)  # fmt: skip

CATALOGUE: Mapping[str, IssueType] = MappingProxyType({row[0]: IssueType(*row) for row in _ROWS})
"""By exact type name."""

HOST_UNAVAILABLE_TYPES = frozenset(
    name for name, row in CATALOGUE.items() if row.state in (State.MAINTENANCE, State.STANDBY, State.UNREACHABLE)
)
"""Issues that only say that the host is not available; the host's own properties know that better and sooner."""


def issue_type(name: str) -> IssueType:
    """The catalogue's row, or for an unknown type one that is never resolved."""
    known = CATALOGUE.get(name)
    if known is not None:
        return known
    return IssueType(
        name, "this release does not know this issue", Radius.HOST, Policy.NEVER, State.FAULTY,
        "Look it up in the ESX Agent Manager reference of your vCenter.",
    )  # fmt: skip
