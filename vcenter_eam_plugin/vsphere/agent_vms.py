# SPDX-License-Identifier: Apache-2.0
"""Which agent VMs stand in a scope already, before our agency is created over it.

Asked once, by one traversal that names two properties of each VM: it reads tenant VMs too, so it is no part of
what is watched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim, vmodl

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
    """VMs in these compute resources that are agent VMs or named ``ContrailVM*``. Raises the domain's errors."""
    collector = vmodl.query.PropertyCollector
    to_vms = collector.TraversalSpec(name="vms", type=vim.HostSystem, path="vm", skip=False)
    to_hosts = collector.TraversalSpec(
        name="hosts", type=vim.ComputeResource, path="host", skip=False, selectSet=[to_vms]
    )
    spec = collector.FilterSpec(
        objectSet=[
            collector.ObjectSpec(obj=vim.ComputeResource(moref), skip=True, selectSet=[to_hosts])
            for moref in compute_resources
        ],
        propSet=[
            collector.PropertySpec(type=vim.HostSystem, pathSet=["name"]),
            collector.PropertySpec(type=vim.VirtualMachine, pathSet=["name", "config.managedBy", "runtime.host"]),
        ],
    )
    hosts: dict[str, str] = {}
    vms: list[tuple[str, dict[str, Any]]] = []
    for obj in _retrieve(session, spec):
        values = {prop.name: prop.val for prop in obj.propSet}
        moref = obj.obj._GetMoId()
        if isinstance(obj.obj, vim.HostSystem):
            hosts[moref] = values.get("name", moref)
        elif _is_agent_vm(values):
            vms.append((moref, values))
    return tuple(
        StandingVm(moref, values.get("name", moref), _host_name(values, hosts), _is_named_so(values))
        for moref, values in sorted(vms, key=lambda vm: vm[0])
    )


def _is_agent_vm(values: dict[str, Any]) -> bool:
    managed_by = values.get("config.managedBy")
    return (managed_by is not None and managed_by.type == AGENT_TYPE) or _is_named_so(values)


def _is_named_so(values: dict[str, Any]) -> bool:
    return str(values.get("name", "")).casefold().startswith(NAME_PREFIX)


def _host_name(values: dict[str, Any], hosts: dict[str, str]) -> str:
    host = values.get("runtime.host")
    return hosts.get(host._GetMoId(), host._GetMoId()) if host is not None else "no host"


def _retrieve(session: Session, spec: Any) -> list[Any]:
    """All pages of one read."""
    collector = session.content.propertyCollector
    options = vmodl.query.PropertyCollector.RetrieveOptions()
    page = session.call(collector.RetrievePropertiesEx, [spec], options)
    found: list[Any] = []
    while page is not None:
        found.extend(page.objects or ())
        if not page.token:
            break
        page = session.call(collector.ContinueRetrievePropertiesEx, page.token)
    return found
