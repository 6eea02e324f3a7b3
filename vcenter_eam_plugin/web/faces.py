# SPDX-License-Identifier: Apache-2.0
"""How each state looks on the page: a letter and a group, so that nothing is told by colour alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vcenter_eam_plugin.domain.status import State


class Group(StrEnum):
    """States that a person treats alike; the style sheet has one look for each."""

    GOOD = "good"
    """Works."""
    BUSY = "busy"
    """On its way; nothing to do."""
    CALM = "calm"
    """Off, and rightly so."""
    LOST = "lost"
    """Not known; its host is to be looked at."""
    BAD = "bad"
    """Somebody or something has to repair it."""


@dataclass(frozen=True, slots=True)
class Face:
    """``letter`` stands in a dense cell."""

    letter: str
    group: Group
    means: str


FACES: dict[State, Face] = {
    State.ACTIVE: Face("A", Group.GOOD, "available: tenant VMs may run here"),
    State.PENDING: Face("P", Group.BUSY, "wanted; nothing exists yet"),
    State.DEPLOYING: Face("D", Group.BUSY, "EAM is working on it"),
    State.PROVISIONED: Face("H", Group.BUSY, "there, off, and held while it is customised"),
    State.STARTING: Face("S", Group.BUSY, "powered on; held or not yet confirmed"),
    State.REMOVING: Face("R", Group.BUSY, "on its way out"),
    State.MAINTENANCE: Face("M", Group.CALM, "the host is in maintenance or on its way there"),
    State.STANDBY: Face("Y", Group.CALM, "the host is in standby or on its way there"),
    State.REMOVED: Face("–", Group.CALM, "gone"),  # noqa: RUF001 - a dash is meant
    State.UNREACHABLE: Face("U", Group.LOST, "vCenter has lost the host"),
    State.BLOCKED: Face("B", Group.BAD, "an issue stops its deployment"),
    State.POWERED_OFF: Face("O", Group.BAD, "off, and should be on"),
    State.SUSPENDED: Face("Z", Group.BAD, "suspended, and should be on"),
    State.MISSING: Face("X", Group.BAD, "deleted, and should be there"),
    State.FAULTY: Face("F", Group.BAD, "there, and not working"),
}
"""Every state; the order is that of the page, from well to not."""

WORST_FIRST: tuple[State, ...] = tuple(reversed(FACES))
"""What needs somebody first."""
NEEDS_SOMEBODY = frozenset(state for state, face in FACES.items() if face.group in (Group.BAD, Group.LOST))
