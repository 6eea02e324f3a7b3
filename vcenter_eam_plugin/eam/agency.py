# SPDX-License-Identifier: Apache-2.0
"""Agency configuration: building ours, changing a part of one, and reading configuration and runtimes as facts.

Not promised: an OVF property as a place for secrets. ``QueryConfig`` gives them in clear to everybody who has
EAM.View, and the same values go to every host.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pyVmomi import eam, vim

from vcenter_eam_plugin.domain.facts import (
    AgencyFacts,
    AgentFacts,
    EamStatus,
    GoalState,
    HookFacts,
    HookState,
    IssueFacts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgencySpec:
    """What a new agency shall be. ``scope`` holds morefs of compute resources.

    VMs are named ``agent_name (1)``, ``agent_name (2)`` ... by EAM. Every user-configurable property of the OVF
    must stand in ``ovf_properties``. ``ovf_certificate_pem`` pins the OVF server's certificate (vCenter 8.0 U2
    and later enforce trust; earlier ones ignore it). Datastore and network come from each host's own Agent VM
    settings, so none is named here.
    """

    name: str
    agent_name: str
    ovf_url: str
    scope: tuple[str, ...]
    ovf_properties: tuple[tuple[str, str], ...] = ()
    hold_after_provisioning: bool = False
    hold_after_power_on: bool = False
    ovf_certificate_pem: str | None = None


def build_config(spec: AgencySpec) -> Any:
    """``AgencyConfigInfo`` of ``spec``: one agent configuration for every host version."""
    agent = eam.Agent.ConfigInfo(ovfPackageUrl=spec.ovf_url, dvFilterEnabled=False)
    if spec.ovf_properties:
        agent.ovfEnvironment = eam.Agent.OvfEnvironmentInfo(
            ovfProperty=[eam.Agent.OvfEnvironmentInfo.OvfProperty(key=k, value=v) for k, v in spec.ovf_properties]
        )
    if spec.ovf_certificate_pem is not None:
        agent.ovfSslTrust = eam.Agent.PinnedPemCertificate(sslCertificate=spec.ovf_certificate_pem)
    return eam.Agency.ConfigInfo(
        agencyName=spec.name,
        agentName=spec.agent_name,
        agentConfig=[agent],
        scope=build_scope(spec.scope),
        manuallyMarkAgentVmAvailableAfterProvisioning=spec.hold_after_provisioning,
        manuallyMarkAgentVmAvailableAfterPowerOn=spec.hold_after_power_on,
    )


def build_scope(morefs: Iterable[str]) -> Any:
    """``AgencyComputeResourceScope`` over these compute resources.

    A reference carries its exact type on the wire, and vCenter tells it by the moref: ``domain-s`` is the compute
    resource of a standalone host, ``domain-c`` a cluster.
    """
    kinds = {True: vim.ComputeResource, False: vim.ClusterComputeResource}
    return eam.Agency.ComputeResourceScope(
        computeResource=[kinds[moref.startswith("domain-s")](moref) for moref in morefs]
    )


def scope_of(config: Any) -> tuple[str, ...]:
    """Morefs of the compute resources in an agency's scope, in its order."""
    return tuple(ref._GetMoId() for ref in getattr(config.scope, "computeResource", None) or ())


def agency_facts(moref: str, config: Any, runtime: Any, solution_id: str, owner: str | None) -> AgencyFacts:
    """One agency from its parts, which EAM hands out by one request each."""
    packages = [agent for agent in config.agentConfig or () if agent.ovfPackageUrl]
    # A field of EAM 8.2; before, and with any certificate trusted, there is no certificate to tell.
    trust = getattr(packages[0], "ovfSslTrust", None) if packages else None
    return AgencyFacts(
        moref=moref,
        name=config.agencyName or "",
        owner=owner,
        solution_id=solution_id or "",
        status=EamStatus(runtime.status),
        goal=GoalState(runtime.goalState),
        issues=tuple(issue_facts(issue) for issue in runtime.issue or ()),
        scope=scope_of(config),
        ovf_url=packages[0].ovfPackageUrl if packages else None,
        hold_after_provisioning=bool(config.manuallyMarkAgentVmAvailableAfterProvisioning),
        hold_after_power_on=bool(config.manuallyMarkAgentVmAvailableAfterPowerOn),
        ovf_certificate=getattr(trust, "sslCertificate", None),
    )


def with_runtime(known: AgencyFacts, runtime: Any) -> AgencyFacts:
    """``known`` as its ``EamObjectRuntimeInfo`` shows it now."""
    return replace(
        known,
        status=EamStatus(runtime.status),
        goal=GoalState(runtime.goalState),
        issues=tuple(issue_facts(issue) for issue in runtime.issue or ()),
    )


def agent_facts(moref: str, runtime: Any, read_began: float) -> AgentFacts:
    """One agent from its ``AgentRuntimeInfo``."""
    hook = runtime.vmHook
    return AgentFacts(
        moref=moref,
        agency=_moref(runtime.agency) or "",
        host=_moref(runtime.host),
        vm=_moref(runtime.vm),
        vm_name=runtime.vmName or "",
        status=EamStatus(runtime.status),
        goal=GoalState(runtime.goalState),
        issues=tuple(issue_facts(issue) for issue in runtime.issue or ()),
        hook=None if hook is None else HookFacts(vm=hook.vm._GetMoId(), state=HookState(hook.vmState)),
        read_began=read_began,
    )


def issue_facts(issue: Any) -> IssueFacts:
    """One issue. ``type`` is the exact name on the wire (``ManagedHostNotReachable``, ``ClusterAgentVmPoweredOff``).

    The name on the wire alone is unambiguous: pyVmomi has several classes that end in ``VmPoweredOff``.
    """
    return IssueFacts(
        key=issue.key,
        type=type(issue)._wsdlName,
        description=issue.description or "",
        agent=_moref(getattr(issue, "agent", None)),
        host=_moref(getattr(issue, "host", None)),
        vm=_moref(getattr(issue, "vm", None)),
    )


def _moref(reference: Any) -> str | None:
    return None if reference is None else sys.intern(reference._GetMoId())  # the inventory has the same
