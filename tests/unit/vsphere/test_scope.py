# SPDX-License-Identifier: Apache-2.0
"""S04: what a person writes for a cluster, and what is meant; ambiguity is refused, never guessed."""

from __future__ import annotations

import pytest

from vcenter_eam_plugin.domain.errors import ScopeError
from vcenter_eam_plugin.domain.facts import ComputeResourceFacts
from vcenter_eam_plugin.domain.names import MAX_CANDIDATES
from vcenter_eam_plugin.vsphere.scope import match


def cluster(moref: str, path: str, datacenter: str) -> ComputeResourceFacts:
    return ComputeResourceFacts(moref, path.rpartition("/")[2], path, datacenter, True, ())


KNOWN = (
    cluster("domain-c1", "/DC0/host/prod/Edge", "DC0"),
    cluster("domain-c2", "/DC0/host/lab/Edge", "DC0"),
    cluster("domain-c3", "/DC0/host/Core", "DC0"),
    cluster("domain-c4", "/DC1/host/Core", "DC1"),
    cluster("domain-c5", "/DC1/host/Only", "DC1"),
)


@pytest.mark.parametrize(
    ("written", "moref"),
    [
        ("/DC0/host/prod/Edge", "domain-c1"),
        ("/DC0/host/lab/Edge/", "domain-c2"),
        ("DC0/host/lab/Edge", "domain-c2"),
        ("DC1/Core", "domain-c4"),
        ("Only", "domain-c5"),
        ("  Only ", "domain-c5"),
    ],
)
def test_s04_names_that_are_unambiguous(written: str, moref: str) -> None:
    assert [one.moref for one in match("vc", KNOWN, [written])] == [moref]


@pytest.mark.parametrize(
    ("written", "candidates"),
    [
        ("Core", {"/DC0/host/Core", "/DC1/host/Core"}),
        ("DC0/Edge", {"/DC0/host/prod/Edge", "/DC0/host/lab/Edge"}),
    ],
)
def test_s04_ambiguous_name_lists_its_candidates_alone(written: str, candidates: set[str]) -> None:
    """The same cluster name in two datacenters, or in two folders of one."""
    with pytest.raises(ScopeError, match="ambiguous") as caught:
        match("vc", KNOWN, [written])
    named = {one.path for one in KNOWN if one.path in str(caught.value)}
    assert named == candidates


def test_s04_unknown_name_lists_what_there_is_nearest_first() -> None:
    with pytest.raises(ScopeError) as caught:
        match("vc", KNOWN, ["/DC1/host/Onyl"])
    text = str(caught.value)
    assert "'/DC1/host/Onyl'" in text
    assert min(text.index(one.path) for one in KNOWN) == text.index("/DC1/host/Only")
    assert caught.value.exit_code == 6


def test_case_matters() -> None:
    """vCenter's names are compared as they are: two clusters may differ in case alone."""
    with pytest.raises(ScopeError):
        match("vc", KNOWN, ["only"])


def test_order_is_kept_and_doubles_are_dropped() -> None:
    found = match("vc", KNOWN, ["Only", "DC0/Core", "/DC1/host/Only"])
    assert [one.moref for one in found] == ["domain-c5", "domain-c3"]


def test_long_lists_are_cut() -> None:
    many = tuple(cluster(f"domain-c{n}", f"/DC0/host/c{n}", "DC0") for n in range(MAX_CANDIDATES + 5))
    with pytest.raises(ScopeError, match="and 5 more"):
        match("vc", many, ["nothing"])
