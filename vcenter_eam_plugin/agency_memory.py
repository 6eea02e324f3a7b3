# SPDX-License-Identifier: Apache-2.0
"""Which agency was used, and whose a person consented to use, over restarts. One JSON file per vCenter.

Both are needed when the identity changes. A user sees every agency, so another's of our name is refused until a person
adopts it. An extension sees its own agencies alone: for it, the agency of the user that it was before is as if it were
not there, and a second one beside it would have EAM deploy two ContrailVMs to every host. So what was used is
remembered, until somebody who sees all agencies has seen that it is gone.

Not promised: that an agency of another identity is noticed after this file was lost and before any of its VMs stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec

from vcenter_eam_plugin.domain.facts import AgencyFacts
from vcenter_eam_plugin.domain.ownership import Claim, Ownership, judge, owner_of, same_principal
from vcenter_eam_plugin.state_file import StateFile


class Login(Protocol):
    """What is needed of a session: who it is for vCenter."""

    @property
    def identities(self) -> tuple[str, ...]: ...
    @property
    def is_extension(self) -> bool: ...


class _Kept(msgspec.Struct):
    used: Claim | None = None
    consent: Claim | None = None


class AgencyMemory:
    """Raises ConfigurationError for a file that cannot be read, Unavailable for one that cannot be written."""

    def __init__(self, path: Path, agency_name: str, login: Login) -> None:
        self._file = StateFile(
            path, _Kept, what="What is remembered of the agency", without="an adopted agency must be adopted again"
        )
        self._agency_name = agency_name
        self._login = login
        self._kept = self._file.read() or _Kept()

    @property
    def known_before(self) -> bool:
        """Whether an agency was used before, and was not seen to be gone."""
        return self._kept.used is not None

    @property
    def used(self) -> str | None:
        """Moref of the agency that was used last, and was not seen to be gone."""
        return self._kept.used.agency if self._kept.used is not None else None

    @property
    def consent(self) -> Claim | None:
        """Whose agency a person consented to use."""
        return self._kept.consent

    def take_consent(self, consent: Claim | None) -> None:
        """What the instance that led before us was told."""
        self._write(_Kept(used=self._kept.used, consent=consent))

    def judge(self, agencies: Iterable[AgencyFacts]) -> Ownership:
        """Which of all visible agencies is ours, for whoever is logged in now."""
        found = judge(agencies, self._agency_name, self._login.identities, self._kept.consent)
        used = self._kept.used
        if found.ours is not None or found.foreign or used is None or not self._login.is_extension:
            return found
        if any(same_principal(used.owner, each) for each in self._login.identities):
            return found  # its own, which it would see
        return replace(found, unseen=used.owner)

    def use(self, agency: AgencyFacts) -> None:
        """Remember that this one is used."""
        used = Claim(agency=agency.moref, owner=owner_of(agency))
        if used != self._kept.used:
            self._write(_Kept(used=used, consent=self._kept.consent))

    def adopt(self, agency: AgencyFacts, beside: Sequence[AgencyFacts]) -> None:
        """Remember that a person wants this one used, whoever owns it, and the others left alone."""
        others = tuple(sorted(each.moref for each in beside if each.moref != agency.moref))
        claim = Claim(agency=agency.moref, owner=owner_of(agency), beside=others)
        self._write(_Kept(used=self._kept.used, consent=claim))

    def forget(self) -> None:
        """It is gone, as somebody saw who would see it; consent was to that one, and not to the next."""
        if self._kept != _Kept():
            self._write(_Kept())

    def _write(self, kept: _Kept) -> None:
        self._file.write(kept)
        self._kept = kept
