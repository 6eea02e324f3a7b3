# SPDX-License-Identifier: Apache-2.0
"""EAM's issues by type, with what the catalogue says of each."""

from __future__ import annotations

from collections.abc import Iterable

from vcenter_eam_plugin.domain.issues import issue_type
from vcenter_eam_plugin.domain.status import ContrailVm
from vcenter_eam_plugin.web.api import IssueOn, Issues, IssueShown
from vcenter_eam_plugin.web.pages import Part


def issues_of(statuses: Iterable[tuple[str, ContrailVm]], part: Part) -> Issues:
    """The most frequent type first. Each status comes with the name of its vCenter.

    Hosts are counted through all types for ``part``; a type without a host in it is left out.
    """
    by_type: dict[str, list[IssueOn]] = {}
    for vcenter, status in statuses:
        esxi = status.esxi
        for issue in status.eam.issues:
            by_type.setdefault(issue.type, []).append(
                IssueOn(
                    vcenter=vcenter,
                    moref=esxi.moref,
                    name=esxi.name,
                    cluster=esxi.cluster,
                    description=issue.description,
                )
            )
    ordered = sorted(by_type.items(), key=lambda each: (-len(each[1]), each[0]))
    every = [(name, host) for name, hosts in ordered for host in hosts]
    asked: dict[str, list[IssueOn]] = {}
    for name, host in part.of(every):
        asked.setdefault(name, []).append(host)
    return Issues(
        issues=tuple(_shown(name, len(by_type[name]), tuple(hosts)) for name, hosts in asked.items()),
        total=len(every),
        next=part.next(len(every)),
    )


def _shown(name: str, count: int, hosts: tuple[IssueOn, ...]) -> IssueShown:
    row = issue_type(name)
    return IssueShown(
        type=name,
        meaning=row.meaning,
        blast_radius=row.radius,
        policy=row.policy,
        state=row.state,
        advice=row.advice,
        count=count,
        hosts=hosts,
    )
