# SPDX-License-Identifier: Apache-2.0
"""DRS as far as agents matter: which host may run a tenant VM.

A host in the scope of an agency runs tenant VMs only while its agents are available; asked for more, DRS answers
``InsufficientAgentVmsDeployed`` (vSphere API reference). Agent VMs stay on their host. The knob
``drs_ignores_agents`` breaks both rules.

Not promised: load figures, affinity rules, recommendations; among hosts that fit, the one with the fewest VMs wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyVmomi import vim

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.agent import Agent
    from vcenter_eam_plugin.simulator.compute_resource import ComputeResource
    from vcenter_eam_plugin.simulator.host_system import HostSystem
    from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine


def _required(host: HostSystem) -> list[Agent]:
    """Agents whose VM must be available before tenant VMs may run on the host."""
    return [agent for agent in host.agents.values() if agent.agency.goal == "enabled" and not agent.removing]


def missing_agents(host: HostSystem) -> int:
    """How many agents of the host are not available, as DRS counts them."""
    return 0 if host.world.knobs.drs_ignores_agents else sum(not agent.available for agent in _required(host))


def agents_off(host: HostSystem) -> bool:
    """An agent VM of the host is still to be powered on."""
    return any(agent.vm is not None and not agent.vm.on for agent in _required(host))


def insufficient_agents(host: HostSystem) -> Any:
    """The fault for a host that lacks agents."""
    required = len(_required(host))
    return vim.fault.InsufficientAgentVmsDeployed(
        hostName=host.name,
        requiredNumAgentVms=required,
        currentNumAgentVms=required - missing_agents(host),
        msg=f"Host {host.name} does not have the required number of agent VMs.",
    )


def fits(host: HostSystem, vm: VirtualMachine) -> bool:
    """The host is in service, sees the VM's storage, and has its agents."""
    reachable = host.can_run and vm.datastore_object.moid in host.datastores
    return reachable and (vm.is_agent or not missing_agents(host))


def choose(resource: ComputeResource, vm: VirtualMachine, *, besides: HostSystem | None = None) -> HostSystem | None:
    """The host of a cluster with the fewest VMs among those that may run the VM."""
    found = (host for host in resource.hosts.values() if host is not besides and fits(host, vm))
    return min(found, key=lambda host: len(host.vms), default=None)
