# SPDX-License-Identifier: Apache-2.0
"""Since when each ContrailVM is in its state, and the audit entries of states, issues and broken rules.

Fed with what changed, whoever leads. After a restart it goes on from the last entry of each host in the audit trail, so
a state that still holds is neither told twice nor begun anew. A state that was there when nobody had looked before is
*found*: it has lasted longer than is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from vcenter_eam_plugin.audit import Entry, Kind, Tell
from vcenter_eam_plugin.domain.status import ContrailVm, State


class Since(msgspec.Struct, frozen=True):
    """``at`` is POSIX seconds; ``found``: it is so for longer."""

    at: float
    found: bool = False


class _Known(msgspec.Struct):
    state: str
    issues: tuple[str, ...]
    rules: tuple[str, ...]
    since: Since


class Witness:
    """All vCenters of one process. ``wall_clock`` gives POSIX seconds, ``tell`` takes audit entries."""

    def __init__(self, tell: Tell, wall_clock: Callable[[], float]) -> None:
        self._tell = tell
        self._now = wall_clock
        self._known: dict[tuple[str, str], _Known] = {}
        self._looked_at: set[str] = set()
        self._first_look: dict[str, set[tuple[str, str]]] = {}

    def remember(self, newest_first: Iterable[Entry]) -> None:
        """Go on from what an earlier process told."""
        gone = set[tuple[str, str]]()
        found: dict[tuple[str, str], _Known] = {}
        done = set[tuple[str, str]]()
        for entry in newest_first:
            key = (entry.vcenter, entry.host)
            if not entry.state or key in gone or key in done:
                continue
            if entry.state == State.REMOVED:
                gone.add(key)
                continue
            known = found.setdefault(key, _Known(entry.state, entry.issues, entry.rules, Since(entry.at)))
            known.since = Since(entry.at, entry.found or entry.kind is not Kind.STATE)
            if entry.kind is Kind.STATE:
                done.add(key)
        self._known = found

    def see(self, vcenter: str, changed: Sequence[ContrailVm], *, more: bool = False) -> None:
        """Take in what changed, in the order in which it was seen; the first time that is every ContrailVM.

        ``more``: it is not all yet, the rest comes by further calls.
        """
        first = bool(changed) and vcenter not in self._looked_at
        for status in changed:
            self._see(vcenter, status, first=first)
        if not first:
            return
        here = self._first_look.setdefault(vcenter, set())
        here |= {(vcenter, status.esxi.moref) for status in changed}
        if more:
            return
        self._looked_at.add(vcenter)
        for key in [each for each in self._known if each[0] == vcenter and each not in here]:
            del self._known[key]  # it left while nobody looked
        del self._first_look[vcenter]

    def since(self, vcenter: str, host: str) -> Since | None:
        """Since when the ContrailVM on that host (moref) is in its state; ``None`` for one that was never seen."""
        known = self._known.get((vcenter, host))
        return known.since if known is not None else None

    def _see(self, vcenter: str, status: ContrailVm, *, first: bool) -> None:
        key = (vcenter, status.esxi.moref)
        known = self._known.get(key)
        issues = tuple(sorted({issue.type for issue in status.eam.issues}))
        broken = {violation.name: violation.text for violation in status.violations}
        rules = tuple(sorted(broken))
        about = {
            "vcenter": vcenter,
            "host": status.esxi.moref,
            "name": status.esxi.name,
            "state": status.state.value,
            "issues": issues,
            "rules": rules,
        }
        before = known.issues if known is not None else ()
        broken_before = known.rules if known is not None else ()
        if known is None or known.state != status.state:
            old = f"{known.state} -> " if known is not None else ""
            found = known is None and first
            now = self._now()
            self._tell(Kind.STATE, f"{old}{status.state.value}", at=now, why=status.reason, found=found, **about)
            known = self._known[key] = _Known(status.state.value, issues, rules, Since(now, found))
        for name in sorted({*issues} - {*before}):
            self._tell(Kind.ISSUE, f"{name} is shown", why=_description(status, name), **about)
        for name in sorted({*before} - {*issues}):
            self._tell(Kind.ISSUE, f"{name} is over", **about)
        for name in sorted({*rules} - {*broken_before}):
            self._tell(Kind.RULE, f"{name} is broken", why=broken[name], **about)
        for name in sorted({*broken_before} - {*rules}):
            self._tell(Kind.RULE, f"{name} is kept again", **about)
        known.issues, known.rules = issues, rules
        if status.state is State.REMOVED:
            del self._known[key]


def _description(status: ContrailVm, name: str) -> str:
    return next((issue.description for issue in status.eam.issues if issue.type == name), "")
