# SPDX-License-Identifier: Apache-2.0
"""vSphere HA's admission control, as ``RetrieveDasAdvancedRuntimeInfo`` tells it.

A slot is what the largest reservation among the powered-on VMs needs; a host has as many as fit. Agent VMs are not
counted, because HA does not start them elsewhere; the knob ``slots_count_agents`` breaks that. With another policy
than the failover level there are no slots to tell.

Not promised: refusal of a power-on for lack of slots, VM component protection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.compute_resource import ComputeResource
    from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine

CPU_MHZ = 32
"""Slot size without any CPU reservation: vCenter's default."""
OVERHEAD_MB = 100
"""Memory overhead of a VM that reserves nothing."""
HOST_MHZ = 76800
"""CPU of a simulated host: 32 cores of 2400 MHz."""


def _vms(resource: ComputeResource) -> Iterator[VirtualMachine]:
    return (vm for host in resource.hosts.values() for vm in host.vms.values())


def usage(resource: ComputeResource) -> Any:
    """``summary.usageSummary``: how many VMs there are, agent VMs among them, and what they take."""
    vms = list(_vms(resource))
    running = [vm for vm in vms if vm.on]
    return vim.cluster.UsageSummary(
        totalCpuCapacityMhz=HOST_MHZ * len(resource.hosts),
        totalMemCapacityMB=sum(host.memory_mb for host in resource.hosts.values()),
        cpuReservationMhz=0,
        memReservationMB=sum(vm.reserved_mb for vm in running),
        poweredOffCpuReservationMhz=0,
        poweredOffMemReservationMB=sum(vm.reserved_mb for vm in vms if not vm.on),
        cpuDemandMhz=0,
        memDemandMB=sum(vm.memory_mb for vm in running),
        statsGenNumber=0,
        cpuEntitledMhz=0,
        memEntitledMB=0,
        poweredOffVmCount=len(vms) - len(running),
        totalVmCount=len(vms),
    )


def advanced_info(resource: ComputeResource) -> Any:
    """The answer for a cluster with HA."""
    policy = resource.props["configurationEx"].dasConfig.admissionControlPolicy
    if not isinstance(policy, vim.cluster.FailoverLevelAdmissionControlPolicy):
        return vim.cluster.DasAdvancedRuntimeInfo()
    with_agents = resource.world.knobs.slots_count_agents
    counted = [vm for vm in _vms(resource) if vm.on and (with_agents or not vm.is_agent)]
    memory = max((vm.reserved_mb for vm in counted), default=0) + OVERHEAD_MB
    good = [host for host in resource.hosts.values() if host.can_run]
    kinds = vim.cluster.DasFailoverLevelAdvancedRuntimeInfo
    slots = [kinds.HostSlots(host=host.ref, slots=min(HOST_MHZ // CPU_MHZ, host.memory_mb // memory)) for host in good]
    total = sum(one.slots for one in slots)
    largest = sum(sorted((one.slots for one in slots), reverse=True)[: policy.failoverLevel])
    return kinds(
        slotInfo=kinds.SlotInfo(numVcpus=1, cpuMHz=CPU_MHZ, memoryMB=memory),
        totalSlots=total,
        usedSlots=len(counted),
        unreservedSlots=max(0, total - largest - len(counted)),
        totalVms=len(counted),
        totalHosts=len(resource.hosts),
        totalGoodHosts=len(good),
        hostSlots=slots,
    )
