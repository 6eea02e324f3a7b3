# SPDX-License-Identifier: Apache-2.0
"""Which tenant VMs run on a host, and which VMs HA counts in its slots: read on demand, never subscribed to.

Asked for hosts whose ContrailVM is down, so the cost follows what is wrong and not how many tenants there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyVmomi import vim

from vcenter_eam_plugin.domain.errors import ObjectGone, ProtocolError, WrongState
from vcenter_eam_plugin.domain.violations import SlotCount
from vcenter_eam_plugin.vsphere.properties import (
    batched,
    filter_spec,
    object_spec,
    property_spec,
    retrieve,
    traversal,
)
from vcenter_eam_plugin.vsphere.session import Session

AGENT_TYPES = frozenset({"agent", "cluster-agent"})
"""``config.managedBy.type`` of VMs that EAM manages: they are nobody's tenants."""


def read_tenants(session: Session, hosts: Sequence[str]) -> dict[str, frozenset[str]]:
    """Per host the morefs of its powered-on VMs that are no agent VMs. Raises the domain's errors."""
    tenants: dict[str, frozenset[str]] = {}
    for some in batched(hosts):
        tenants |= _read_tenants(session, some)
    return tenants


def _read_tenants(session: Session, hosts: Sequence[str]) -> dict[str, frozenset[str]]:
    session.open()
    stub = session.vim_stub()
    to_vms = [traversal("vms", vim.HostSystem, "vm")]
    spec = filter_spec(
        [object_spec(vim.HostSystem(host, stub), to_vms, skip=True) for host in hosts],
        [property_spec(vim.VirtualMachine, ["runtime.powerState", "runtime.host", "config.managedBy"])],
    )
    tenants: dict[str, set[str]] = {host: set() for host in hosts}
    for found in retrieve(session, spec):
        host = found.props.get("runtime.host")
        managed_by = found.props.get("config.managedBy")
        if (
            host is not None
            and host._GetMoId() in tenants
            and found.props.get("runtime.powerState") == "poweredOn"
            and (managed_by is None or managed_by.type not in AGENT_TYPES)
        ):
            tenants[host._GetMoId()].add(found.moref)
    return {host: frozenset(vms) for host, vms in tenants.items()}


def read_slots(session: Session, clusters: Sequence[str]) -> dict[str, SlotCount]:
    """HA's slot count of each cluster that counts in slots; two calls per cluster. Raises the domain's errors.

    A cluster without HA, with another admission control policy, or of a vCenter that does not tell how many VMs
    are powered on (``summary.usageSummary``, vSphere 6.0), is left out.
    """
    session.open()
    stub = session.vim_stub()
    counts: dict[str, SlotCount] = {}
    for moref in clusters:
        cluster = vim.ClusterComputeResource(moref, stub)
        try:
            info: Any = session.call(cluster.RetrieveDasAdvancedRuntimeInfo)
            if not isinstance(info, vim.cluster.DasFailoverLevelAdvancedRuntimeInfo):
                continue
            usage = getattr(session.call(getattr, cluster, "summary"), "usageSummary", None)
        except (ObjectGone, WrongState, ProtocolError):
            continue  # gone, or a compute resource without HA
        if usage is not None:
            counts[moref] = SlotCount(
                counted_vms=info.totalVms,
                powered_on_vms=usage.totalVmCount - usage.poweredOffVmCount,
                named_vms=frozenset(slot.vm._GetMoId() for slot in info.vmsRequiringMultipleSlots or ()),
            )
    return counts
