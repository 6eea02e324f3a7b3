# SPDX-License-Identifier: Apache-2.0
"""What the planner may ask for. An action names its object and its effect; how it is done is the actor's.

An action's effect is never assumed: it comes back as an observation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vcenter_eam_plugin.domain.issues import Radius, issue_type


@dataclass(frozen=True, slots=True)
class CreateAgency:
    """Create our agency over these compute resources (morefs)."""

    scope: tuple[str, ...]
    radius: Radius = Radius.AGENT_VM

    def describe(self) -> str:
        return f"create the agency over {len(self.scope)} compute resource(s): {', '.join(self.scope)}"


@dataclass(frozen=True, slots=True)
class ExtendScope:
    """Add compute resources to our agency. Removing one is never an action of the planner."""

    agency: str
    add: tuple[str, ...]
    radius: Radius = Radius.AGENT_VM

    def describe(self) -> str:
        return f"add {', '.join(self.add)} to the agency's scope"


@dataclass(frozen=True, slots=True)
class SetHolds:
    """Change the agency's hold flags (``manuallyMarkAgentVmAvailableAfter...``)."""

    agency: str
    after_provisioning: bool
    after_power_on: bool
    radius: Radius = Radius.NOTHING

    def describe(self) -> str:
        held = [
            name for name, on in (("provisioning", self.after_provisioning), ("power-on", self.after_power_on)) if on
        ]
        return f"hold ContrailVMs after: {', '.join(held) or 'nothing'}"


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """Set what is unset of a host's Agent VM settings, by rule."""

    host: str
    radius: Radius = Radius.NOTHING

    def describe(self) -> str:
        return f"set the unset Agent VM settings of {self.host} by rule"


@dataclass(frozen=True, slots=True)
class Resolve:
    """Have EAM remediate one issue of one agent, named by its exact type; keys are read just before."""

    host: str
    agent: str
    issue: str

    @property
    def radius(self) -> Radius:
        return issue_type(self.issue).radius

    def describe(self) -> str:
        return f"resolve {self.issue} on {self.host}: {issue_type(self.issue).advice}"


@dataclass(frozen=True, slots=True)
class Provision:
    """Make a held VM, while it is off, what its host's specification says; then answer the hook.

    ``replaces``: its predecessor still stands and has the name.
    """

    host: str
    agent: str
    vm: str
    hook: str
    replaces: bool = False
    radius: Radius = Radius.AGENT_VM

    def describe(self) -> str:
        return f"customise the ContrailVM on {self.host} ({self.vm}) and mark it as available"


@dataclass(frozen=True, slots=True)
class Rename:
    """Give a ContrailVM the name of its host's specification, which its predecessor had until now."""

    host: str
    vm: str
    name: str
    radius: Radius = Radius.AGENT_VM

    def describe(self) -> str:
        return f"rename the ContrailVM on {self.host} ({self.vm}) to {self.name}"


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the vRouter of a ContrailVM that is held after power-on whether it works."""

    host: str
    agent: str
    vm: str
    ip: str
    radius: Radius = Radius.NOTHING

    def describe(self) -> str:
        return f"ask the vRouter on {self.host} at {self.ip} whether it works"


@dataclass(frozen=True, slots=True)
class MarkAvailable:
    """Answer a pending hook. A duty: until it is done, EAM goes no further.

    ``released`` says why it is answered although the vRouter is not healthy.
    """

    host: str
    agent: str
    hook: str
    released: str = ""
    radius: Radius = Radius.AGENT_VM

    def describe(self) -> str:
        why = f": {self.released}" if self.released else ""
        return f"mark the ContrailVM on {self.host} as available (hook {self.hook}){why}"


@dataclass(frozen=True, slots=True)
class ShrinkScope:
    """Take compute resources out of the scope that an operator's switch drains; EAM deletes the ContrailVMs there."""

    agency: str
    remove: tuple[str, ...]
    radius: Radius = Radius.AGENT_VM_LOST

    def describe(self) -> str:
        return f"take {', '.join(self.remove)} out of the agency's scope (retreat)"


Action = (
    CreateAgency
    | ExtendScope
    | ShrinkScope
    | SetHolds
    | WriteSettings
    | Resolve
    | Provision
    | Rename
    | Probe
    | MarkAvailable
)


def kind_of(action: Action) -> str:
    """The action in one word, for counting: ``create-agency``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", type(action).__name__).lower()
