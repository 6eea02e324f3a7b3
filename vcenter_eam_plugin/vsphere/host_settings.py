# SPDX-License-Identifier: Apache-2.0
"""A host's Agent VM settings: the datastore and network that EAM uses for agent VMs on that host.

They are host-wide and other vendors' agents use them too, so only what is *unset* is ever written. Writing
replaces the whole object, so it is read first, a moment before.

Not promised: exclusion of somebody who writes in that same moment; vCenter offers no conditional write here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from vcenter_eam_plugin.domain.errors import Unavailable, WrongState
from vcenter_eam_plugin.domain.facts import HostChoices, SettingsChoice
from vcenter_eam_plugin.vsphere.properties import (
    Read,
    batched,
    filter_spec,
    object_spec,
    property_spec,
    read_objects,
    retrieve,
    traversal,
)
from vcenter_eam_plugin.vsphere.session import Session

_NORMAL = "normal"
"""``Datastore.summary.maintenanceMode`` of one that is neither in maintenance nor entering it (API reference)."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A datastore as one host sees it."""

    mounted: bool
    accessible: bool
    read_only: bool


def read_choices(session: Session, host: str) -> HostChoices:
    """What the host could use, and what is set: two requests at most, however many datastores it has.

    Raises ObjectGone when the host is not in the inventory any more.
    """
    found = read_choices_of(session, [host]).get(host)
    if found is None:
        session.call(getattr, vim.HostSystem(host, session.vim_stub()), "name")  # raises ObjectGone if that is why
        raise Unavailable(f"{session.name}: the host {host} was answered without its properties; it is not used.")
    return found


def read_choices_of(session: Session, hosts: Iterable[str]) -> dict[str, HostChoices]:
    """The same of many hosts, by moref, in few requests; those that do not exist are left out.

    What several hosts share is answered once.
    """
    session.open()
    found: dict[str, HostChoices] = {}
    for some in batched(hosts):
        found |= _choices(retrieve(session, _offered([vim.HostSystem(host, session.vim_stub()) for host in some])))
    return found


def _offered(hosts: Sequence[Any]) -> Any:
    select = [
        traversal("datastore", vim.HostSystem, "datastore"),
        traversal("network", vim.HostSystem, "network"),
    ]
    return filter_spec(
        [object_spec(host, select) for host in hosts],
        [
            property_spec(
                vim.HostSystem,
                ["summary.config.agentVmDatastore", "summary.config.agentVmNetwork", "datastore", "network", "name"],
            ),
            property_spec(
                vim.Datastore, ["name", "summary.freeSpace", "summary.accessible", "summary.maintenanceMode"]
            ),
            property_spec(vim.Network, ["name"]),
            property_spec(vim.dvs.DistributedVirtualPortgroup, ["config.uplink"]),
        ],
    )


def _choices(read: Sequence[Read]) -> dict[str, HostChoices]:
    datastores = {
        found.moref: SettingsChoice(
            moref=found.moref,
            name=found.props.get("name", found.moref),
            free_bytes=found.props.get("summary.freeSpace", 0),
            accessible=found.props.get("summary.accessible", False),
            in_maintenance=found.props.get("summary.maintenanceMode", _NORMAL) != _NORMAL,
        )
        for found in read
        if issubclass(found.kind, vim.Datastore)
    }
    networks = {
        found.moref: SettingsChoice(moref=found.moref, name=found.props.get("name", found.moref))
        for found in read
        # the uplinks of a distributed switch are listed as networks, but no VM can be put on them
        if issubclass(found.kind, vim.Network) and not found.props.get("config.uplink")
    }
    return {
        found.moref: HostChoices(
            host=found.moref,
            datastores=_offered_to(found.props.get("datastore"), datastores),
            networks=_offered_to(found.props.get("network"), networks),
            agent_datastore=_moref(found.props.get("summary.config.agentVmDatastore")),
            agent_network=_moref(found.props.get("summary.config.agentVmNetwork")),
            name=str(found.props["name"]),
        )
        for found in read
        if issubclass(found.kind, vim.HostSystem) and "name" in found.props
    }


def _offered_to(references: Any, known: Mapping[str, SettingsChoice]) -> tuple[SettingsChoice, ...]:
    found = (known.get(str(_moref(reference))) for reference in references or ())
    return tuple(sorted((one for one in found if one is not None), key=lambda choice: choice.name))


def read_mounts(session: Session, datastores: Iterable[str]) -> dict[str, tuple[str, dict[str, Mount]]]:
    """Name and mounts (by host) of datastores; those that do not exist are left out. In few requests.

    What a mount leaves unset is right (API reference: an unset ``mounted`` is to be taken for mounted).
    """
    session.open()
    read = read_objects(session, vim.Datastore, datastores, ["name", "host"])
    return {
        moref: (
            str(found.props.get("name", moref)),
            {str(_moref(each.key)): _mount(each.mountInfo) for each in found.props.get("host") or ()},
        )
        for moref, found in read.items()
    }


def _mount(info: Any) -> Mount:
    return Mount(
        mounted=info.mounted is not False,
        accessible=info.accessible is not False,
        read_only=info.accessMode == vim.host.MountInfo.AccessMode.readOnly,
    )


def read_network_names(session: Session, networks: Iterable[str]) -> dict[str, str]:
    """Names of networks, by moref; those that do not exist are left out."""
    session.open()
    by_kind: dict[Any, list[str]] = {}
    for moref in networks:
        by_kind.setdefault(_network_kind(moref), []).append(moref)
    found: dict[str, str] = {}
    for kind, morefs in by_kind.items():
        found |= {
            one: str(read.props.get("name", one)) for one, read in read_objects(session, kind, morefs, ["name"]).items()
        }
    return found


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
