# SPDX-License-Identifier: Apache-2.0
"""From what a person writes for a cluster to the compute resource that is meant.

A cluster is named by its inventory path (``/DC0/host/prod/ClusterA``), by ``DC0/ClusterA`` or by ``ClusterA``.
Names repeat across datacenters and folders, so what is not unambiguous is refused with its candidates:
deploying VMs on the wrong cluster is worse than not starting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from pyVmomi import vim

from vcenter_eam_plugin.domain.errors import ProtocolError, ScopeError, Unavailable
from vcenter_eam_plugin.domain.facts import ComputeResourceFacts
from vcenter_eam_plugin.domain.names import candidates, means
from vcenter_eam_plugin.domain.understanding import understood
from vcenter_eam_plugin.vsphere.properties import (
    Read,
    filter_spec,
    object_spec,
    property_spec,
    retrieve,
    selection,
    traversal,
)
from vcenter_eam_plugin.vsphere.session import Session

#: Folders within folders. A person makes a handful; a parent that is its own child makes no end.
MOST_FOLDERS = 100


def compute_resource_type(moref: str) -> Any:
    """The exact type, which a reference must carry on the wire: not every server goes by the value alone.

    vCenter tells it by the moref: ``domain-s`` is the compute resource of a standalone host, ``domain-c`` a cluster.
    """
    return vim.ComputeResource if moref.startswith("domain-s") else vim.ClusterComputeResource


def list_compute_resources(session: Session) -> tuple[ComputeResourceFacts, ...]:
    """Every cluster and standalone host of the vCenter, in order of path. One walk over folders and datacenters.

    Raises Unavailable when the answer cannot be the whole: an empty one must not read as an empty vCenter.
    """
    session.open()
    with understood(f"{session.name}: the inventory"):
        return _list_compute_resources(session)


def _list_compute_resources(session: Session) -> tuple[ComputeResourceFacts, ...]:
    folders = [selection("folder"), selection("datacenter")]
    walk = [
        traversal("folder", vim.Folder, "childEntity", folders),
        traversal("datacenter", vim.Datacenter, "hostFolder", [selection("folder")]),
    ]
    spec = filter_spec(
        [object_spec(session.content.rootFolder, walk)],
        [
            property_spec(vim.Folder, ["name", "parent"]),
            property_spec(vim.Datacenter, ["name", "parent"]),
            property_spec(vim.ComputeResource, ["name", "parent", "host"]),
        ],
    )
    read = {found.moref: found for found in retrieve(session, spec)}
    root = session.content.rootFolder._GetMoId()
    if root not in read:
        raise Unavailable(f"{session.name}: the inventory was answered without its root folder; it is not used.")
    compute = [_facts(found, read, root) for found in read.values() if issubclass(found.kind, vim.ComputeResource)]
    return tuple(sorted(compute, key=lambda facts: facts.path))


def _facts(found: Read, read: dict[str, Read], root: str) -> ComputeResourceFacts:
    names: list[str] = []
    datacenter = ""
    step: Read | None = found
    while step is not None and step.moref != root:
        if len(names) > MOST_FOLDERS:
            raise ProtocolError(f"The inventory has {found.moref} in folders that lead nowhere.")
        # vCenter escapes '/', '\' and '%' in names as %2f, %5c and %25
        names.append(unquote(step.props.get("name", step.moref)))
        if issubclass(step.kind, vim.Datacenter):
            datacenter = names[-1]
        parent = step.props.get("parent")
        step = None if parent is None else read.get(parent._GetMoId())
    return ComputeResourceFacts(
        moref=found.moref,
        name=names[0],
        path="/" + "/".join(reversed(names)),
        datacenter=datacenter,
        is_cluster=issubclass(found.kind, vim.ClusterComputeResource),
        hosts=tuple(host._GetMoId() for host in found.props.get("host", ())),
    )


def resolve(session: Session, paths: Sequence[str]) -> tuple[ComputeResourceFacts, ...]:
    """The compute resources that ``paths`` name, in that order, each once.

    Raises ScopeError when one is unknown or ambiguous; the sentence lists the candidates.
    """
    return match(session.name, list_compute_resources(session), paths)


def match(where: str, known: Sequence[ComputeResourceFacts], paths: Sequence[str]) -> tuple[ComputeResourceFacts, ...]:
    """The part of :func:`resolve` that asks nobody: ``known`` is everything there is at ``where``."""
    chosen: dict[str, ComputeResourceFacts] = {}
    for path in paths:
        found = [facts for facts in known if means(path, facts)]
        if not found:
            raise ScopeError(
                f"{where}: no cluster or standalone host is called {path!r}; there are: {_paths(path, known)}."
            )
        if len(found) > 1:
            raise ScopeError(
                f"{where}: {path!r} is ambiguous; it may mean: {_paths(path, found)}.",
                remedy="Write the full inventory path.",
            )
        chosen[found[0].moref] = found[0]
    return tuple(chosen.values())


def _paths(path: str, known: Sequence[ComputeResourceFacts]) -> str:
    return candidates(path, (facts.path for facts in known))
