# SPDX-License-Identifier: Apache-2.0
"""What a person writes for a host or a cluster, and what is meant by it.

A cluster is named by its inventory path (``/DC0/host/prod/ClusterA``), by ``DC0/ClusterA`` or by ``ClusterA``, a host
by its name. A moref names what has left the inventory. What is unknown or ambiguous is refused with its candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from vcenter_eam_plugin.domain.errors import UnknownTarget
from vcenter_eam_plugin.domain.facts import ComputeResourceFacts

MAX_CANDIDATES = 20
"""Candidates listed in one sentence; a vCenter may have hundreds of clusters and thousands of hosts."""


def means(path: str, facts: ComputeResourceFacts) -> bool:
    """Whether ``path`` may name this compute resource."""
    text = path.strip()
    if text.startswith("/"):
        return text.rstrip("/") == facts.path
    return text in (facts.name, f"{facts.datacenter}/{facts.name}", facts.path[1:])


def candidates(name: str, known: Iterable[str]) -> str:
    """Names to choose from, in one line, those that look like ``name`` first."""
    names = list(known)
    near = get_close_matches(name, names, n=3, cutoff=0.4)
    ordered = list(dict.fromkeys((*near, *names)))
    shown = ", ".join(ordered[:MAX_CANDIDATES]) or "none at all"
    more = len(ordered) - MAX_CANDIDATES
    return f"{shown} and {more} more" if more > 0 else shown


def find_host(where: str, known: Mapping[str, str], name: str) -> str:
    """The moref of the host of that name, or of the first label of one, or of that moref. Raises UnknownTarget.

    ``known`` maps morefs to names. A whole name goes before a label: ``esx-1`` may be one host's name, and another's
    first label.
    """
    text = name.strip().casefold()
    found = [moref for moref, host in known.items() if text in (host.casefold(), moref)]
    if not found and text and "." not in text and not text.isdigit():  # of an address that would be a number
        found = [moref for moref, host in known.items() if text == host.casefold().partition(".")[0]]
    if not found:
        names = candidates(name, sorted(known.values()))
        raise UnknownTarget(f"{where}: no host is called {name!r}; there are: {names}.")
    if len(found) > 1:
        raise UnknownTarget(
            f"{where}: {name!r} is ambiguous; it may mean: {', '.join(found)}.", remedy="Write the host's moref."
        )
    return found[0]


def find_compute_resource(where: str, known: Sequence[ComputeResourceFacts], name: str) -> ComputeResourceFacts:
    """The cluster or standalone host of that path, name or moref. Raises UnknownTarget."""
    found = [facts for facts in known if means(name, facts) or facts.moref == name.strip()]
    if not found:
        paths = candidates(name, sorted(facts.path for facts in known))
        raise UnknownTarget(f"{where}: no cluster or standalone host is called {name!r}; there are: {paths}.")
    if len(found) > 1:
        raise UnknownTarget(
            f"{where}: {name!r} is ambiguous; it may mean: {', '.join(facts.path for facts in found)}.",
            remedy="Write the full inventory path.",
        )
    return found[0]
