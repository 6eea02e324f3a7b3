# SPDX-License-Identifier: Apache-2.0
"""EAM issues of host-bound VM agencies: which there are, and what ``Resolve`` does about each.

From the ESX Agent Manager API reference. *Active* issues are those that EAM can remedy when it is asked to; for a
*passive* one it drops the issue and looks again; the rest go only when their cause goes.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pyVmomi import eam


class Remedy(Enum):
    """What ``Resolve`` does."""

    ACTIVE = "active"
    PASSIVE = "passive"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Kind:
    """One issue type: its remedy, the EAM level it came with, what older levels file instead, and its text."""

    remedy: Remedy
    text: str
    since: tuple[int, int] = (1, 0)
    before: str | None = None


_A, _P, _N = Remedy.ACTIVE, Remedy.PASSIVE, Remedy.NONE

KINDS: dict[str, Kind] = {
    "AgencyDisabled": Kind(_N, "A cluster of the agency's scope is disabled.", (7, 6)),
    "HostNotReachable": Kind(_N, "The host is disconnected or powered off.", (6, 8)),
    "CertificateNotTrusted": Kind(_A, "The OVF server's certificate is not trusted.", (8, 2), "CannotAccessAgentOVF"),
    "OvfInvalidProperty": Kind(_P, "An OVF property is missing or invalid."),
    "VmNotDeployed": Kind(_A, "The agent VM should exist and does not."),
    "CannotAccessAgentOVF": Kind(_A, "The OVF package cannot be downloaded."),
    "IncompatibleHostVersion": Kind(_A, "No agent configuration matches the host."),
    "InsufficientResources": Kind(_A, "The host lacks free memory for the agent VM."),
    "InsufficientSpace": Kind(_A, "The agent datastore is full."),
    "OvfInvalidFormat": Kind(_A, "The OVF package is not valid."),
    "NoAgentVmDatastore": Kind(_P, "No agent datastore is configured on the host."),
    "NoAgentVmNetwork": Kind(_P, "No agent network is configured on the host."),
    "NoCustomAgentVmDatastore": Kind(_P, "None of the agency's datastores is on the host."),
    "NoCustomAgentVmNetwork": Kind(_P, "None of the agency's networks is on the host."),
    "VmRequiresHostOutOfMaintenanceMode": Kind(
        _A, "The agent VM cannot be deployed while the host is in maintenance mode.", (7, 2), "VmNotDeployed"
    ),
    "HostInMaintenanceMode": Kind(_A, "An operation on the agent VM waits for the host to leave maintenance mode."),
    "HostInStandbyMode": Kind(_A, "An operation on the agent VM waits for the host to leave standby mode."),
    "HostInPartialMaintenanceMode": Kind(_N, "Partial maintenance mode of the host blocks the operation.", (8, 3)),
    "VmDeployed": Kind(_A, "The agent VM should be removed and was not."),
    "VmCorrupted": Kind(_A, "Files of the agent VM are missing or damaged."),
    "VmOrphaned": Kind(_A, "The agent VM is on a host that left the agency's scope."),
    "VmPoweredOff": Kind(_A, "The agent VM should be powered on and is powered off."),
    "VmPoweredOn": Kind(_A, "The agent VM should be powered off and is powered on."),
    "VmSuspended": Kind(_A, "The agent VM is suspended."),
    "VmInaccessible": Kind(_N, "The agent VM is inaccessible.", (8, 3), "VmPoweredOff"),
    "VmProtected": Kind(_A, "The agent VM is protected from changes.", (9, 0), "InvalidConfig"),
    "InvalidConfig": Kind(_P, "vCenter refused to power on or reconfigure the agent VM."),
}
"""Exact names."""

MAINTENANCE = frozenset({"HostInMaintenanceMode", "VmRequiresHostOutOfMaintenanceMode"})
"""Issues whose Resolve takes the host out of maintenance mode."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong now: an issue type with its extra fields (pyVmomi values by field name)."""

    type: str
    fields: dict[str, Any] = field(default_factory=dict)

    def at_level(self, level: tuple[int, int]) -> Problem:
        """The same as an EAM of ``level`` would report it."""
        kind = KINDS[self.type]
        if level >= kind.since or kind.before is None:
            return self
        fields = dict(self.fields)
        if kind.before == "CannotAccessAgentOVF":
            fields["downloadUrl"] = fields.pop("url")
        if kind.before == "VmNotDeployed":
            fields.clear()
        return Problem(kind.before, fields).at_level(level)


@dataclass(slots=True)
class Issue:
    """A filed issue. ``key`` and ``time`` change when EAM files it again."""

    key: int
    time: dt.datetime
    filed_at: float
    problem: Problem

    @property
    def type(self) -> str:
        """Exact type name."""
        return self.problem.type

    @property
    def remedy(self) -> Remedy:
        """What Resolve does about it."""
        return KINDS[self.type].remedy

    def value(self, **where: Any) -> Any:
        """The pyVmomi issue; ``where`` are the fields that name agency, agent and host."""
        made = getattr(eam.issue, self.type)(key=self.key, time=self.time, description=KINDS[self.type].text)
        for name, content in (*where.items(), *self.problem.fields.items()):
            setattr(made, name, content)
        return made


EVENT_TEXTS = {
    "agency.create": "Agency created",
    "agency.destroyed": "Agency destroyed",
    "agency.goalstate": "Agency state changed",
    "agency.statusChanged": "Agency status changed",
    "agency.updated": "Agency reconfigured",
    "agent.created": "Agent added to host",
    "agent.destroyed": "Agent removed from host",
    "agent.destroyedNoHost": "Agent removed from host",
    "agent.statusChanged": "Agent status changed",
    "agent.markAgentVmAsAvailableAfterProvisioning": "Agent VM is provisioned and waits to be marked as available",
    "agent.markAgentVmAsAvailableAfterPowerOn": "Agent VM is powered on and waits to be marked as available",
    "agent.task.deployVm": "Agent VM is provisioned",
    "agent.task.powerOnVm": "Agent VM is powered on",
    "agent.task.powerOffVm": "Agent VM is powered off",
    "agent.task.deleteVm": "Agent VM is deleted",
    "issue.resolved": "Issue resolved",
    "login.succeeded": "Successful login to vSphere ESX Agent Manager",
    "login.invalid": "Failed login to vSphere ESX Agent Manager",
    "logout": "User logged out of vSphere ESX Agent Manager",
    "unauthorized.access": "Unauthorized access in vSphere ESX Agent Manager",
}
"""What the event catalogue of vCenter says of EAM's events, by id after the prefix; it says nothing of issues."""


def event_id(type_name: str) -> str:
    """``VmPoweredOff`` -> ``com.vmware.vim.eam.issue.vmPoweredOff``."""
    return f"com.vmware.vim.eam.issue.{type_name[0].lower()}{type_name[1:]}"
