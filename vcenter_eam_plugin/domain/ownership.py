# SPDX-License-Identifier: Apache-2.0
"""Whose agency is it? Matched by name among all that are visible, never by a stored id alone.

Morefs of agencies are UUIDs that differ after a restore, and EAM does not keep names unique, so the name and
the owner together decide. EAM has no call that changes an agency's owner. What a person can do is consent to the use
of somebody else's: EAM lets any user who has EAM.Modify change any agency.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from vcenter_eam_plugin.domain.facts import AgencyFacts


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """An agency that was used, or that a person consented to use.

    ``beside`` are the morefs of others of its name that were there when the person chose it; they are left alone.
    """

    agency: str
    owner: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ownership:
    """``ours`` is the one to use. ``foreign`` lists those that forbid using any: another's, or too many.

    ``unseen`` is the owner of an agency that was used before, that we may not see any more as who we are now, and that
    may still be there: it forbids creating one.
    """

    ours: AgencyFacts | None
    foreign: tuple[AgencyFacts, ...] = ()
    unseen: str = ""


def judge(
    agencies: Iterable[AgencyFacts], name: str, identities: Collection[str], consent: Claim | None = None
) -> Ownership:
    """Pick the agency called ``name`` that one of ``identities`` (login names, an extension's key) owns.

    ``consent`` adds one of another owner, or chooses one of several. It ends for a choice when one more of that name
    appears.
    """
    named = tuple(a for a in agencies if a.name == name)
    if consent is not None:
        chosen = [a for a in named if a.moref == consent.agency and same_principal(owner_of(a), consent.owner)]
        if chosen and {a.moref for a in named} <= {consent.agency, *consent.beside}:
            return Ownership(chosen[0])
    owners = (*identities, *((consent.owner,) if consent is not None else ()))
    if len(named) == 1 and any(same_principal(owner_of(named[0]), owner) for owner in owners):
        return Ownership(named[0])
    return Ownership(None, named)


def owner_of(agency: AgencyFacts) -> str:
    """The user or the extension that owns it."""
    return agency.owner or agency.solution_id


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
