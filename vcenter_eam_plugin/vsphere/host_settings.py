# SPDX-License-Identifier: Apache-2.0
"""A host's Agent VM settings: the datastore and network that EAM uses for agent VMs on that host.

They are host-wide and other vendors' agents use them too, so only what is *unset* is ever written. Writing
replaces the whole object, so it is read first, a moment before.

Not promised: exclusion of somebody who writes in that same moment; vCenter offers no conditional write here.
"""

from __future__ import annotations

from typing import Any

from pyVmomi import vim

from vcenter_eam_plugin.domain.errors import Unavailable, WrongState
from vcenter_eam_plugin.domain.facts import HostChoices, SettingsChoice
from vcenter_eam_plugin.vsphere.properties import (
    filter_spec,
    object_spec,
    property_spec,
    retrieve,
    traversal,
)
from vcenter_eam_plugin.vsphere.session import Session


def read_choices(session: Session, host: str) -> HostChoices:
    """What the host could use, and what is set: two requests at most, however many datastores it has.

    Raises ObjectGone when the host is not in the inventory any more.
    """
    session.open()
    reference = vim.HostSystem(host, session.vim_stub())
    spec = filter_spec(
        [
            object_spec(
                reference,
                [
                    traversal("datastore", vim.HostSystem, "datastore"),
                    traversal("network", vim.HostSystem, "network"),
                ],
            )
        ],
        [
            property_spec(vim.HostSystem, ["summary.config.agentVmDatastore", "summary.config.agentVmNetwork", "name"]),
            property_spec(vim.Datastore, ["name", "summary.freeSpace", "summary.accessible"]),
            property_spec(vim.Network, ["name"]),
            property_spec(vim.dvs.DistributedVirtualPortgroup, ["config.uplink"]),
        ],
    )
    read = retrieve(session, spec)
    itself = next((found for found in read if found.moref == host), None)
    if itself is None:
        session.call(getattr, reference, "name")  # raises ObjectGone if that is why
        raise Unavailable(f"{session.name}: the host {host} was answered without its properties; it is not used.")
    datastores = [
        SettingsChoice(
            moref=found.moref,
            name=found.props.get("name", found.moref),
            free_bytes=found.props.get("summary.freeSpace", 0),
            accessible=found.props.get("summary.accessible", False),
        )
        for found in read
        if issubclass(found.kind, vim.Datastore)
    ]
    networks = [
        SettingsChoice(moref=found.moref, name=found.props.get("name", found.moref))
        for found in read
        # the uplinks of a distributed switch are listed as networks, but no VM can be put on them
        if issubclass(found.kind, vim.Network) and not found.props.get("config.uplink")
    ]
    return HostChoices(
        host=host,
        datastores=tuple(sorted(datastores, key=lambda choice: choice.name)),
        networks=tuple(sorted(networks, key=lambda choice: choice.name)),
        agent_datastore=_moref(itself.props.get("summary.config.agentVmDatastore")),
        agent_network=_moref(itself.props.get("summary.config.agentVmNetwork")),
    )


def write(session: Session, host: str, datastore: str | None = None, network: str | None = None) -> bool:
    """Set what is unset, keep what is set; ``None`` leaves a setting alone. True when something was written.

    Needs the privilege Host.Config.Settings on the host. Raises WrongState when the host has no such settings.
    """
    session.open()
    stub = session.vim_stub()
    manager: Any = session.call(getattr, vim.HostSystem(host, stub), "configManager").esxAgentHostManager
    if manager is None:
        raise WrongState(f"{session.name}: the host {host} has no Agent VM settings.")
    config = session.call(getattr, manager, "configInfo")
    changed = False
    if datastore is not None and config.agentVmDatastore is None:
        config.agentVmDatastore = vim.Datastore(datastore)
        changed = True
    if network is not None and config.agentVmNetwork is None:
        config.agentVmNetwork = _network_kind(network)(network)
        changed = True
    if changed:
        session.call(manager.EsxAgentHostManagerUpdateConfig, config, idempotent=False)
    return changed


def _network_kind(moref: str) -> Any:
    """A reference carries its exact type on the wire; vCenter tells the kind of a network by the moref's prefix."""
    if moref.startswith("dvportgroup-"):
        return vim.dvs.DistributedVirtualPortgroup
    return vim.OpaqueNetwork if moref.startswith("network-o") else vim.Network


def _moref(reference: Any) -> str | None:
    return None if reference is None else str(reference._GetMoId())
