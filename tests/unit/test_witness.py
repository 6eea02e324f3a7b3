# SPDX-License-Identifier: Apache-2.0
"""Since when a state holds, and what of states, issues and broken rules goes to the audit trail."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.support.contrailvm import contrail_vm
from vcenter_eam_plugin.audit import Entry, Kind
from vcenter_eam_plugin.domain.status import ContrailVm, Issue, State, Violation
from vcenter_eam_plugin.witness import Since, Witness

NOON = 1_700_000_000.0


class Eyes:
    """Witnesses one after the other, each with what the trail has from those before."""

    def __init__(self) -> None:
        self.now = NOON
        self.trail: list[Entry] = []
        self.restart()

    def restart(self) -> None:
        self.witness = Witness(self.tell, lambda: self.now)
        self.witness.remember(reversed(self.trail))

    def tell(self, kind: Kind, text: str, **about: Any) -> None:
        about.setdefault("at", self.now)
        self.trail.append(Entry(id=len(self.trail) + 1, kind=kind, text=text, **about))

    def see(self, *changed: ContrailVm) -> list[str]:
        """What was told of it, with the host's number."""
        before = len(self.trail)
        self.witness.see("v", changed)
        return [f"{entry.host} {entry.text}" for entry in self.trail[before:]]

    def since(self, number: int) -> Since | None:
        return self.witness.since("v", f"host-{number}")


def seen(number: int, state: State, *issues: str) -> ContrailVm:
    status = contrail_vm(number, state)
    return msgspec.structs.replace(
        status, eam=msgspec.structs.replace(status.eam, issues=tuple(Issue(type=name) for name in issues))
    )


def test_what_is_found_at_the_start_has_lasted_longer_than_is_known() -> None:
    eyes = Eyes()
    assert eyes.see(seen(1, State.ACTIVE)) == ["host-1 ACTIVE"]
    assert eyes.since(1) == Since(NOON, found=True)
    eyes.now += 60
    assert eyes.see(seen(2, State.PENDING)) == ["host-2 PENDING"], "a host that is added later is not found"
    assert eyes.since(2) == Since(NOON + 60)


def test_a_state_begins_when_it_changes_and_not_with_a_detail() -> None:
    eyes = Eyes()
    eyes.see(seen(1, State.ACTIVE))
    eyes.now += 60
    assert eyes.see(seen(1, State.POWERED_OFF)) == ["host-1 ACTIVE -> POWERED_OFF"]
    eyes.now += 60
    assert eyes.see(msgspec.structs.replace(seen(1, State.POWERED_OFF), reason="another")) == []
    assert eyes.since(1) == Since(NOON + 60)


def test_issues_are_told_when_they_come_and_when_they_go() -> None:
    eyes = Eyes()
    eyes.see(seen(1, State.ACTIVE))
    assert eyes.see(seen(1, State.ACTIVE, "VmPoweredOff", "VmProtected")) == [
        "host-1 VmPoweredOff is shown",
        "host-1 VmProtected is shown",
    ]
    assert eyes.see(seen(1, State.ACTIVE, "VmProtected")) == ["host-1 VmPoweredOff is over"]


def test_a_restart_tells_nothing_twice_and_goes_on_with_the_time() -> None:
    """Also where an issue came after the state: the newest entry is not the one that began it."""
    eyes = Eyes()
    eyes.see(seen(1, State.ACTIVE), seen(2, State.ACTIVE))
    eyes.now += 60
    eyes.see(seen(1, State.FAULTY))
    eyes.now += 60
    eyes.see(seen(1, State.FAULTY, "VmCorrupted"))
    eyes.now += 60
    eyes.restart()
    assert eyes.see(seen(1, State.FAULTY, "VmCorrupted"), seen(2, State.ACTIVE)) == []
    assert eyes.since(1) == Since(NOON + 60)
    assert eyes.since(2) == Since(NOON, found=True)


def test_where_the_beginning_is_no_longer_in_the_files_it_has_lasted_longer_than_is_known() -> None:
    """The files are turned over: an issue's entry may outlive the one of the state."""
    eyes = Eyes()
    eyes.see(seen(2, State.ACTIVE))
    eyes.see(seen(1, State.FAULTY))
    eyes.now += 60
    eyes.see(seen(1, State.FAULTY, "VmCorrupted"))
    eyes.trail = [entry for entry in eyes.trail if entry.kind is Kind.ISSUE]
    eyes.restart()
    assert eyes.see(seen(1, State.FAULTY, "VmCorrupted")) == []
    assert eyes.since(1) == Since(NOON + 60, found=True)


def test_what_changed_while_nobody_looked_is_told_at_the_start() -> None:
    eyes = Eyes()
    eyes.see(seen(1, State.FAULTY, "VmCorrupted"))
    eyes.now += 60
    eyes.restart()
    assert eyes.see(seen(1, State.ACTIVE)) == ["host-1 FAULTY -> ACTIVE", "host-1 VmCorrupted is over"]
    assert eyes.since(1) == Since(NOON + 60)


def test_what_left_is_forgotten_also_while_nobody_looked() -> None:
    eyes = Eyes()
    eyes.see(seen(1, State.ACTIVE), seen(2, State.ACTIVE), seen(3, State.ACTIVE))
    assert eyes.see(seen(1, State.REMOVED)) == ["host-1 ACTIVE -> REMOVED"]
    assert eyes.since(1) is None
    eyes.now += 60
    eyes.restart()
    assert eyes.see(seen(3, State.ACTIVE)) == []
    assert eyes.see(seen(1, State.ACTIVE), seen(2, State.ACTIVE)) == ["host-1 ACTIVE", "host-2 ACTIVE"]
    assert eyes.since(2) == Since(NOON + 60)


def breaking(status: ContrailVm, *rules: str) -> ContrailVm:
    broken = tuple(Violation(name=name, text=f"text of {name}") for name in rules)
    return msgspec.structs.replace(status, violations=broken)


def test_a_broken_rule_is_told_when_it_begins_and_ends() -> None:
    """S10 to S16, bug: the trail had no word of it, so `events` could not say when DRS had moved a ContrailVM."""
    eyes, status = Eyes(), seen(1, State.ACTIVE)
    eyes.see(status)
    assert eyes.see(breaking(status, "a", "b")) == ["host-1 a is broken", "host-1 b is broken"]
    assert (eyes.trail[-1].kind, eyes.trail[-1].why, eyes.trail[-1].rules) == (Kind.RULE, "text of b", ("a", "b"))
    assert eyes.see(breaking(status, "b")) == ["host-1 a is kept again"]
    eyes.restart()
    assert eyes.see(breaking(status, "b")) == [], "a restart does not tell it twice"
    assert eyes.see(status) == ["host-1 b is kept again"]
    assert eyes.since(1) == Since(NOON, found=True)


def test_vcenters_are_told_apart() -> None:
    """Morefs repeat between them."""
    eyes = Eyes()
    eyes.see(seen(1, State.ACTIVE))
    eyes.witness.see("w", (seen(1, State.FAULTY),))
    assert eyes.trail[-1].text == "FAULTY"
    assert eyes.see(seen(1, State.ACTIVE)) == []
