# SPDX-License-Identifier: Apache-2.0
"""Which agent VMs stand in a scope already, before our agency is created over it.

Asked once, by one traversal that names two properties of each VM: it reads tenant VMs too, so it is no part of
what is watched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from vcenter_eam_plugin.domain.errors import Unavailable
from vcenter_eam_plugin.vsphere.properties import filter_spec, object_spec, property_spec, retrieve, traversal
from vcenter_eam_plugin.vsphere.scope import compute_resource_type
from vcenter_eam_plugin.vsphere.session import Session

NAME_PREFIX = "contrailvm"
"""What Contrail's vCenter services take a ContrailVM by, in any case of letters."""
AGENT_TYPE = "agent"
"""``config.managedBy.type`` of a VM that EAM deployed for a host (vCLS's are ``cluster-agent``)."""


@dataclass(frozen=True, slots=True)
class StandingVm:
    """An agent VM, or one named like a ContrailVM."""

    moref: str
    name: str
    host_name: str
    named_contrailvm: bool


def find_agent_vms(session: Session, compute_resources: Iterable[str]) -> tuple[StandingVm, ...]:
    """VMs in these compute resources that are agent VMs or named ``ContrailVM*``.

    "None" lets an agency be created, so an answer that leaves something out is refused: every host that a compute
    resource names, and every VM that a host names, must be in it. Raises Unavailable if not, ObjectGone when a
    compute resource does not exist any more.
    """
    session.open()
    stub = session.vim_stub()
    wanted = {moref: compute_resource_type(moref)(moref, stub) for moref in compute_resources}
    to_vms = traversal("vms", vim.HostSystem, "vm")
    to_hosts = traversal("hosts", vim.ComputeResource, "host", [to_vms])
    spec = filter_spec(
        [object_spec(reference, [to_hosts]) for reference in wanted.values()],
        [
            property_spec(vim.ComputeResource, ["host"]),
            property_spec(vim.HostSystem, ["name", "vm"]),
            property_spec(vim.VirtualMachine, ["name", "config.managedBy", "runtime.host"]),
        ],
    )
    read = {found.moref: found for found in retrieve(session, spec)}
    for moref in wanted.keys() - read.keys():
        session.call(getattr, wanted[moref], "name")  # raises ObjectGone if that is why
        raise _left_out(session, moref)
    for found in read.values():
        for reference in (*found.props.get("host", ()), *found.props.get("vm", ())):
            if reference._GetMoId() not in read:
                raise _left_out(session, reference._GetMoId())
    names = {found.moref: found.props.get("name", found.moref) for found in read.values()}
    return tuple(
        StandingVm(found.moref, names[found.moref], _host_name(found.props, names), _is_named_so(found.props))
        for found in sorted(read.values(), key=lambda one: one.moref)
        if issubclass(found.kind, vim.VirtualMachine) and _is_agent_vm(found.props)
    )


def _left_out(session: Session, moref: str) -> Unavailable:
    return Unavailable(f"{session.name}: the search for standing agent VMs left out {moref}; it is not used.")


def _is_agent_vm(values: Mapping[str, Any]) -> bool:
    managed_by = values.get("config.managedBy")
    return (managed_by is not None and managed_by.type == AGENT_TYPE) or _is_named_so(values)


def _is_named_so(values: Mapping[str, Any]) -> bool:
    return str(values.get("name", "")).casefold().startswith(NAME_PREFIX)


def _host_name(values: Mapping[str, Any], hosts: Mapping[str, str]) -> str:
    host = values.get("runtime.host")
    return hosts.get(host._GetMoId(), host._GetMoId()) if host is not None else "no host"
