# SPDX-License-Identifier: Apache-2.0
"""What is said about one ContrailVM: the record that Fleet derives, the outbox remembers and the bus carries.

The structs are frozen and are encoded as they stand, so the page, the API and the bus use the same words. They hold
values alone and no cycle, so the garbage collector need not walk through those of a whole fleet (``gc=False``).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class State(StrEnum):
    """States of a ContrailVM; the table that derives them is in :mod:`~vcenter_eam_plugin.domain.lifecycle`."""

    PENDING = "PENDING"
    BLOCKED = "BLOCKED"
    DEPLOYING = "DEPLOYING"
    PROVISIONED = "PROVISIONED"
    STARTING = "STARTING"
    ACTIVE = "ACTIVE"
    POWERED_OFF = "POWERED_OFF"
    SUSPENDED = "SUSPENDED"
    MISSING = "MISSING"
    FAULTY = "FAULTY"
    MAINTENANCE = "MAINTENANCE"
    STANDBY = "STANDBY"
    UNREACHABLE = "UNREACHABLE"
    REMOVING = "REMOVING"
    REMOVED = "REMOVED"


class Esxi(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The ESXi host, as vCenter shows it."""

    moref: str
    name: str
    compute_resource: str
    """Moref of the cluster, or of the compute resource of a standalone host."""
    cluster: str
    """Name of that compute resource."""
    datacenter: str
    connection: str
    power: str
    maintenance: bool
    standby: str
    task: str | None = None


class AgentVm(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The ContrailVM itself; a redeployed one is a new VM under the same key."""

    moref: str
    name: str
    power: str
    host: str | None = None
    """Moref of the host it runs on; another than ``esxi.moref`` means it was moved away."""
    connection: str = "connected"
    heartbeat: str = "gray"
    ip: str | None = None
    instance_uuid: str | None = None


class VRouter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What consumers route by: ``active`` is true in state ACTIVE alone. Name and address once known."""

    active: bool
    name: str | None = None
    ip: str | None = None


class Issue(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An EAM issue, by its exact type. Keys are left out on purpose: EAM regenerates them."""

    type: str
    description: str = ""


class Eam(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """EAM's view of the agent on this host."""

    agency: str | None = None
    agent: str | None = None
    status: str | None = None
    goal: str | None = None
    hook: str | None = None
    issues: tuple[Issue, ...] = ()


class Violation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A rule that vCenter keeps for agent VMs, seen broken on this host; the names are in ``domain/violations.py``."""

    name: str
    text: str


class ContrailVm(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything published about the ContrailVM of one host.

    ``key`` is ``<host moref>.<vCenter instanceUuid>``: of the *host*, so it outlives every redeployment.
    ``last_state`` is set in UNREACHABLE alone: the last state known before contact was lost.
    """

    key: str
    state: State
    reason: str
    esxi: Esxi
    vm: AgentVm | None
    vrouter: VRouter
    eam: Eam
    last_state: State | None = None
    violations: tuple[Violation, ...] = ()


class Event(StrEnum):
    """Second word of the routing key: what happened to this key since its last message."""

    STATE = "state"
    """The state changed; the key appeared (CREATE) or left (DELETE)."""
    DETAIL = "detail"
    """Same state, but the reason, an issue, the VM, an address or the cluster changed."""
    SYNC = "sync"
    """Part of a snapshot: nothing changed, this is how it is."""


def event_between(old: ContrailVm | None, new: ContrailVm) -> Event | None:
    """What a consumer that knows ``old`` must be told to know ``new``; ``None`` when it is the same."""
    if old is None:
        return None if new.state is State.REMOVED else Event.STATE
    if old.state is not new.state:
        return Event.STATE
    return None if old == new else Event.DETAIL
