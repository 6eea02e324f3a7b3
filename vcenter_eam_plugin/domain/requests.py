# SPDX-License-Identifier: Apache-2.0
"""The words of operations: what may be asked for, the steps it becomes, and the preview that a person consents to.

How a request becomes a preview is in :mod:`vcenter_eam_plugin.domain.operations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

import msgspec

from vcenter_eam_plugin.domain.actions import Action
from vcenter_eam_plugin.domain.issues import Radius

_BREADTH = tuple(Radius)
"""Radii from the smallest to the largest, as they are declared."""


class Operation(StrEnum):
    """What may be asked for; the words are those of the command line and the API."""

    APPLY = "apply"
    RESOLVE = "resolve"
    RELEASE = "release"
    POWER_OFF = "power-off"
    DELETE = "delete"
    SCOPE_REMOVE = "scope-remove"
    RETREAT = "retreat"
    RETURN = "return"
    UPGRADE = "upgrade"
    UPGRADE_PAUSE = "upgrade-pause"
    UPGRADE_RESUME = "upgrade-resume"
    UNINSTALL = "uninstall"
    ADOPT = "adopt"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``target`` is a host, an inventory path or nothing, as the operation has it; ``everything`` is ``--all``.

    ``vcenter`` names one of several; empty: the only one, or the only one that knows the target. ``at_once`` is an
    upgrade's ``--all-at-once``.
    """

    operation: Operation
    vcenter: str = ""
    target: str = ""
    everything: bool = False
    at_once: bool = False

    def describe(self) -> str:
        """For the log: ``resolve esx-1``, ``apply``."""
        return " ".join(filter(None, (self.operation.value, "--all" if self.everything else "", self.target)))


# --- what a step does -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResolveIssue:
    """Have EAM remediate one issue of one agent, because a person says so."""

    host: str
    agent: str
    issue: str


@dataclass(frozen=True, slots=True)
class Release:
    """Mark a held ContrailVM as available, healthy or not."""

    host: str
    agent: str
    hook: str


@dataclass(frozen=True, slots=True)
class PowerOff:
    """Power a ContrailVM off."""

    host: str
    vm: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a ContrailVM that is off, with its disks."""

    host: str
    vm: str


@dataclass(frozen=True, slots=True)
class RemoveScope:
    """Take a compute resource out of the agency's scope: EAM deletes the ContrailVMs there."""

    agency: str
    compute_resource: str


@dataclass(frozen=True, slots=True)
class SetRetreat:
    """Drain a compute resource of ContrailVMs, or deploy to it again."""

    compute_resource: str
    on: bool


@dataclass(frozen=True, slots=True)
class StartUpgrade:
    """Replace every ContrailVM by one of another package."""

    agency: str
    url: str
    at_once: bool


@dataclass(frozen=True, slots=True)
class SteerUpgrade:
    """Admit no further host, or go on."""

    pause: bool


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take another owner's agency for ours from now on."""

    agency: str
    owner: str


@dataclass(frozen=True, slots=True)
class Uninstall:
    """Have EAM remove every ContrailVM, and see to it that it does."""

    agency: str


@dataclass(frozen=True, slots=True)
class DestroyAgency:
    """Remove the agency once nothing is left of it, and act no more."""

    agency: str


Do = (
    Action
    | ResolveIssue
    | Release
    | PowerOff
    | Delete
    | RemoveScope
    | SetRetreat
    | StartUpgrade
    | SteerUpgrade
    | Adopt
    | Uninstall
    | DestroyAgency
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: on whom (a name for people), what will happen, the most it touches."""

    target: str
    text: str
    radius: Radius
    do: Do


@dataclass(frozen=True, slots=True)
class Preview:
    """What carrying out a request would do now. ``notes`` say what it would not do, and why.

    ``acknowledge`` is the word that a person must type, or empty when none is needed. ``confirm``: it is harmless, but
    touches so much that a person should have seen it.
    """

    request: Request
    vcenter: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    acknowledge: str = ""

    @property
    def radius(self) -> Radius:
        """The most that any step touches."""
        return max((step.radius for step in self.steps), key=_BREADTH.index, default=Radius.NOTHING)

    @property
    def confirm(self) -> bool:
        several = self.request.operation is Operation.APPLY or self.request.everything
        return several and not self.acknowledge and bool(self.steps)

    @property
    def digest(self) -> str:
        """Two previews with the same digest do the same to the same objects, and were shown the same way."""
        basis = [
            self.request.operation.value,
            self.vcenter,
            self.acknowledge,
            *((step.target, step.text, step.radius.value, repr(step.do)) for step in self.steps),
        ]
        return sha256(msgspec.json.encode(basis)).hexdigest()[:16]

    def plain(self) -> dict[str, Any]:
        """As the API gives it."""
        return {
            "operation": self.request.operation.value,
            "target": self.request.target,
            "vcenter": self.vcenter,
            "lines": [{"target": step.target, "text": step.text, "radius": step.radius.value} for step in self.steps],
            "notes": list(self.notes),
            "radius": self.radius.value,
            "acknowledge": self.acknowledge,
            "confirm": self.confirm,
            "digest": self.digest,
        }
