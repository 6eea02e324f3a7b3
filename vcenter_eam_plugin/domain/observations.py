# SPDX-License-Identifier: Apache-2.0
"""What flows from the edges into :class:`~vcenter_eam_plugin.domain.fleet.Fleet`.

Every observation is level-triggered: it says how things *are*, so losing one costs latency and never
correctness. ``complete`` marks a read that named everything there is, from a session that was proven
alive afterwards: only then does absence count as deletion.
"""

from __future__ import annotations

from dataclasses import dataclass

from vcenter_eam_plugin.domain.facts import AgencyFacts, AgentFacts, ComputeResourceFacts, HostFacts, VmFacts


@dataclass(frozen=True, slots=True)
class InventoryObserved:
    """One update set of the PropertyCollector, or (``complete``) a whole listing after a start or a gap.

    ``gone`` holds morefs of compute resources, hosts and VMs that left. ``at`` is monotonic seconds. ``scope`` says,
    of a complete one, which compute resources it covers, those proven gone included; ``None``: all that matter.
    """

    at: float
    compute_resources: tuple[ComputeResourceFacts, ...] = ()
    hosts: tuple[HostFacts, ...] = ()
    vms: tuple[VmFacts, ...] = ()
    gone: tuple[str, ...] = ()
    complete: bool = False
    scope: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class AgencyObserved:
    """One read of our agency. ``agency`` is ``None`` when a complete read found none of that name.

    ``agents`` is the membership (morefs) if ``QueryAgent`` was part of the read, else ``None``.
    ``foreign`` lists agencies of the same name that are not ours (another owner, or several). ``unseen_owner`` owns
    one that was ours and that, as who we are now, we would not see: it may still be there.
    """

    read_began: float
    agency: AgencyFacts | None
    agents: tuple[str, ...] | None = None
    foreign: tuple[AgencyFacts, ...] = ()
    unseen_owner: str = ""


@dataclass(frozen=True, slots=True)
class AgentsObserved:
    """Runtimes of some agents. ``gone`` are agents for which EAM answered ``ManagedObjectNotFound``."""

    agents: tuple[AgentFacts, ...]
    gone: tuple[str, ...] = ()


Observation = InventoryObserved | AgencyObserved | AgentsObserved


@dataclass(frozen=True, slots=True)
class Hint:
    """An event woke us up. It names what to read again, and feeds the audit trail; it is never the truth.

    ``kind`` is the event type id (``com.vmware.vim.eam.issue.vmPoweredOff``) or class name
    (``EnteredMaintenanceModeEvent``). ``key`` is the event's key, ``created`` POSIX seconds.
    """

    key: int
    kind: str
    created: float
    host: str | None = None
    vm: str | None = None
    text: str = ""
    user: str = ""
