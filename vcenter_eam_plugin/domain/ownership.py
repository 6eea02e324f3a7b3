# SPDX-License-Identifier: Apache-2.0
"""Whose agency is it? Matched by name among all that are visible, never by a stored id.

Morefs of agencies are UUIDs that differ after a restore, and EAM does not keep names unique, so the name and
the owner together decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vcenter_eam_plugin.domain.facts import AgencyFacts


@dataclass(frozen=True, slots=True)
class Ownership:
    """``ours`` is the one to use. ``foreign`` lists those that forbid using any: another's, or too many."""

    ours: AgencyFacts | None
    foreign: tuple[AgencyFacts, ...] = ()


def judge(agencies: Iterable[AgencyFacts], name: str, user: str, adopted: frozenset[str] = frozenset()) -> Ownership:
    """Pick the agency called ``name`` that ``user`` (a login name or an extension key) owns.

    ``adopted`` are owners whose agency a person told us to take for ours; others of that name are left alone then.
    """
    named = tuple(a for a in agencies if a.name == name)
    ours = tuple(a for a in named if same_principal(a.owner or a.solution_id, user))
    if len(named) == 1 and ours:
        return Ownership(ours[0])
    taken = tuple(a for a in named if any(same_principal(a.owner or a.solution_id, owner) for owner in adopted))
    return Ownership(taken[0]) if len(taken) == 1 else Ownership(None, named)


def same_principal(one: str, other: str) -> bool:
    """Whether two spellings name one account: ``DOMAIN\\user`` and ``user@domain``, in any case of letters."""
    return _canonical(one) == _canonical(other)


def _canonical(principal: str) -> tuple[str, str]:
    text = principal.casefold()
    if "\\" in text:
        domain, _, user = text.partition("\\")
    else:
        user, _, domain = text.partition("@")
    return user, domain
