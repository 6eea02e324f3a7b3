# SPDX-License-Identifier: Apache-2.0
"""Facts as the edges report them, each healthy unless a test says otherwise."""

from __future__ import annotations

from typing import Any

from vcenter_eam_plugin.domain.facts import (
    AgencyFacts,
    AgentFacts,
    ComputeResourceFacts,
    ConnectionState,
    EamStatus,
    GoalState,
    HookFacts,
    HookState,
    HostFacts,
    HostPower,
    IssueFacts,
    StandbyMode,
    VmFacts,
    VmPower,
)
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.observations import AgencyObserved, AgentsObserved, InventoryObserved

VCENTER = "52f3b0a1-7c1d-4d7e-9a55-0c2f6f0e1a11"
CLUSTER = "domain-c1"
AGENCY = "agency-1"


def a_cluster(moref: str = CLUSTER, **changes: Any) -> ComputeResourceFacts:
    """A cluster in datacenter DC0, named after its moref."""
    values: dict[str, Any] = {
        "moref": moref,
        "name": f"Cluster {moref}",
        "path": f"/DC0/host/Cluster {moref}",
        "datacenter": "DC0",
        "is_cluster": True,
        "hosts": (),
    }
    return ComputeResourceFacts(**values | changes)


def a_host(number: int = 1, **changes: Any) -> HostFacts:
    """``host-<number>``: connected, on, in no maintenance, Agent VM settings set."""
    values: dict[str, Any] = {
        "moref": f"host-{number}",
        "name": f"esx-{number}.example",
        "compute_resource": CLUSTER,
        "connection": ConnectionState.CONNECTED,
        "power": HostPower.POWERED_ON,
        "standby": StandbyMode.NONE,
        "in_maintenance": False,
        "agent_datastore": "datastore-1",
        "agent_network": "network-1",
    }
    return HostFacts(**values | changes)


def a_vm(number: int = 1, **changes: Any) -> VmFacts:
    """``vm-<number>`` on ``host-<number>``: powered on."""
    values: dict[str, Any] = {
        "moref": f"vm-{number}",
        "name": f"ContrailVM ({number})",
        "host": f"host-{number}",
        "power": VmPower.POWERED_ON,
    }
    return VmFacts(**values | changes)


def an_issue(type_: str, number: int = 1, key: int = 1) -> IssueFacts:
    """An issue of ``agent-<number>``."""
    return IssueFacts(key=key, type=type_, agent=f"agent-{number}", host=f"host-{number}")


def an_agent(number: int = 1, *issues: str, hook: HookState | None = None, **changes: Any) -> AgentFacts:
    """``agent-<number>`` on ``host-<number>``: green, or red with these issues, or yellow with this hook."""
    status = EamStatus.RED if issues else EamStatus.YELLOW if hook else EamStatus.GREEN
    values: dict[str, Any] = {
        "moref": f"agent-{number}",
        "agency": AGENCY,
        "host": f"host-{number}",
        "vm": f"vm-{number}",
        "vm_name": f"ContrailVM ({number})",
        "status": status,
        "goal": GoalState.ENABLED,
        "issues": tuple(an_issue(name, number, key) for key, name in enumerate(issues)),
        "hook": HookFacts(f"vm-{number}", hook) if hook else None,
        "read_began": 10.0,
    }
    return AgentFacts(**values | changes)


def an_agency(*issues: IssueFacts, **changes: Any) -> AgencyFacts:
    """Our agency over ``domain-c1``."""
    values: dict[str, Any] = {
        "moref": AGENCY,
        "name": "ContrailVM-Agency",
        "owner": "VSPHERE.LOCAL\\contrail",
        "solution_id": "VSPHERE.LOCAL\\contrail",
        "status": EamStatus.RED if issues else EamStatus.GREEN,
        "goal": GoalState.ENABLED,
        "issues": issues,
        "scope": (CLUSTER,),
        "ovf_url": "http://ovf.example/contrail.ovf",
        "hold_after_provisioning": False,
        "hold_after_power_on": False,
    }
    return AgencyFacts(**values | changes)


def a_fleet(
    *hosts: HostFacts,
    agents: tuple[AgentFacts, ...] = (),
    vms: tuple[VmFacts, ...] | None = None,
    agency: AgencyFacts | None = None,
    at: float = 0.0,
) -> Fleet:
    """A fleet that has read everything once: by default one healthy agent per host, and each VM that agents name.

    With ``vms``, those that agents name and that are not in it were deleted.
    """
    numbers = [int(host.moref.removeprefix("host-")) for host in hosts]
    agents = agents or tuple(an_agent(n, read_began=at + 10) for n in numbers)
    named = {agent.vm: agent.host for agent in agents if agent.vm}
    if vms is None:
        vms = tuple(a_vm(moref=vm, host=host) for vm, host in named.items())
    gone = tuple(named.keys() - {vm.moref for vm in vms})
    fleet = Fleet(VCENTER, [CLUSTER])
    fleet.apply(AgencyObserved(at, agency or an_agency(), tuple(agent.moref for agent in agents)))
    fleet.apply(AgentsObserved(agents))
    clusters = tuple(a_cluster(moref) for moref in sorted({host.compute_resource for host in hosts} | {CLUSTER}))
    fleet.apply(InventoryObserved(at, clusters, hosts, vms, gone, complete=True))
    return fleet
