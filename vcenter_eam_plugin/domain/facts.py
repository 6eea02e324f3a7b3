# SPDX-License-Identifier: Apache-2.0
"""What the edges report about vCenter and EAM, in the words of the field.

A *fact* is a frozen record of one object as one read or one update set showed it. Facts carry managed
object references as plain strings (``host-12``); nothing here knows pyVmomi. Sources: the vSphere API
reference for the property names, and the ESX Agent Manager reference for ``EamObjectRuntimeInfo``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ConnectionState(StrEnum):
    """``HostSystem.runtime.connectionState``."""

    CONNECTED = "connected"
    NOT_RESPONDING = "notResponding"
    DISCONNECTED = "disconnected"


class HostPower(StrEnum):
    """``HostSystem.runtime.powerState``; ``unknown`` whenever the host is not connected."""

    POWERED_ON = "poweredOn"
    POWERED_OFF = "poweredOff"
    STAND_BY = "standBy"
    UNKNOWN = "unknown"


class StandbyMode(StrEnum):
    """``HostSystem.runtime.standbyMode``."""

    NONE = "none"
    ENTERING = "entering"
    IN = "in"
    EXITING = "exiting"


class HostTask(StrEnum):
    """A running task that takes a host into or out of service.

    "Entering maintenance" is a task and not a property: ``inMaintenanceMode`` stays false until the task
    is done, and EAM powers the ContrailVM off in that window.
    """

    ENTERING_MAINTENANCE = "enteringMaintenance"
    EXITING_MAINTENANCE = "exitingMaintenance"
    ENTERING_STANDBY = "enteringStandby"
    EXITING_STANDBY = "exitingStandby"


class VmPower(StrEnum):
    """``VirtualMachine.runtime.powerState``."""

    POWERED_ON = "poweredOn"
    POWERED_OFF = "poweredOff"
    SUSPENDED = "suspended"


class EamStatus(StrEnum):
    """``EamObjectRuntimeInfo.status``: green complies, yellow is being worked on, red has an issue."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


class GoalState(StrEnum):
    """``EamObjectRuntimeInfo.goalState``."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    UNINSTALLED = "uninstalled"


class HookState(StrEnum):
    """``AgentVmHook.vmState``: which step waits for ``Agent.MarkAsAvailable``."""

    PROVISIONED = "provisioned"
    POWERED_ON = "poweredOn"
    PRE_POWER_ON = "prePowerOn"


@dataclass(frozen=True, slots=True)
class ComputeResourceFacts:
    """A cluster, or the compute resource of a standalone host.

    ``path`` is the inventory path from the root, e.g. ``/DC0/host/prod/ClusterA``; ``datacenter`` a name.
    """

    moref: str
    name: str
    path: str
    datacenter: str
    is_cluster: bool
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One ESXi host. ``compute_resource`` is the moref of ``HostSystem.parent``.

    ``agent_datastore`` and ``agent_network`` are the host's Agent VM settings (morefs), ``None`` when
    unset. ``task`` is the running maintenance or standby task, ``None`` when there is none.
    """

    moref: str
    name: str
    compute_resource: str
    connection: ConnectionState
    power: HostPower
    standby: StandbyMode
    in_maintenance: bool
    task: HostTask | None = None
    agent_datastore: str | None = None
    agent_network: str | None = None


@dataclass(frozen=True, slots=True)
class VmFacts:
    """One agent VM (never a tenant's). ``heartbeat`` is ``guestHeartbeatStatus`` (gray/green/yellow/red)."""

    moref: str
    name: str
    host: str | None
    power: VmPower
    connection: str = "connected"
    heartbeat: str = "gray"
    ip: str | None = None
    guest_host_name: str | None = None
    instance_uuid: str | None = None


@dataclass(frozen=True, slots=True)
class IssueFacts:
    """One EAM issue. ``type`` is the *exact* name (``VmPoweredOff``), never a base class.

    ``key`` identifies the instance on the server only until EAM regenerates it: never store it, read it
    again just before ``Resolve``. An issue is identified by (agent, type).
    """

    key: int
    type: str
    description: str = ""
    agent: str | None = None
    host: str | None = None
    vm: str | None = None


@dataclass(frozen=True, slots=True)
class HookFacts:
    """A pending hook: EAM waits for ``Agent.MarkAsAvailable``. ``vm`` may differ from the agent's in an upgrade."""

    vm: str
    state: HookState


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """``AgentRuntimeInfo`` of one agent: one agency on one host.

    ``read_began`` is the monotonic time, in seconds, at which the request left; a read proves nothing
    about what happened after it.
    """

    moref: str
    agency: str
    host: str | None
    vm: str | None
    vm_name: str
    status: EamStatus
    goal: GoalState
    issues: tuple[IssueFacts, ...]
    hook: HookFacts | None
    read_began: float

    @property
    def is_replaced(self) -> bool:
        """Whether a new VM is held beside the one that the agent has: an upgrade in which its turn has not come."""
        hook = self.hook
        return hook is not None and hook.state is not HookState.POWERED_ON and self.vm not in (None, hook.vm)


@dataclass(frozen=True, slots=True)
class AgencyFacts:
    """One agency: configuration and runtime. ``issues`` holds the agents' issues too.

    ``owner`` is the user that owns it, ``None`` when an extension does (then ``solution_id`` is its key).
    ``ovf_certificate`` is the certificate (PEM) that EAM trusts for ``ovf_url``, if one is pinned.
    """

    moref: str
    name: str
    owner: str | None
    solution_id: str
    status: EamStatus
    goal: GoalState
    issues: tuple[IssueFacts, ...]
    scope: tuple[str, ...]
    ovf_url: str | None
    hold_after_provisioning: bool
    hold_after_power_on: bool
    ovf_certificate: str | None = None


@dataclass(frozen=True, slots=True)
class SettingsChoice:
    """A datastore or network that a host could use for agent VMs. ``free_bytes`` is 0 for networks.

    ``in_maintenance``: it is in maintenance mode, or entering it.
    """

    moref: str
    name: str
    free_bytes: int = 0
    accessible: bool = True
    in_maintenance: bool = False


@dataclass(frozen=True, slots=True)
class HostChoices:
    """What one host offers for its Agent VM settings, and what is set now (morefs, ``None`` = unset)."""

    host: str
    datastores: tuple[SettingsChoice, ...]
    networks: tuple[SettingsChoice, ...]
    agent_datastore: str | None
    agent_network: str | None
    name: str = ""
    """Of the host."""
