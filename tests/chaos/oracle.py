# SPDX-License-Identifier: Apache-2.0
"""What must be published of a host, by a table of its own: from (host, VM, scope, marked) to five coarse classes.

Written from the meaning of the states (design sections 3, 4 and 6) and never from the plugin's own table: two tables
that are copies of each other agree in their mistakes, too. It is coarse on purpose. Consumers route by whether a
vRouter is usable, and wait differently for a host that was taken out of service than for one that is broken; which of
several words for "not usable" is right is the affair of the scenarios.

``truth`` is what ``simulator/truth.py`` writes of a host.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any


class Class(StrEnum):
    """What a consumer can tell apart without knowing EAM."""

    USABLE = "usable"
    """Tenant VMs may run here."""
    UNUSABLE = "unusable"
    """The host serves, its ContrailVM does not: not there yet, not ready, off, broken, or being removed."""
    RESTING = "resting"
    """The host is out of service, or on its way there, because somebody wanted it: nothing is wrong."""
    UNREACHABLE = "unreachable"
    """vCenter has no contact with the host: nobody can tell."""
    GONE = "gone"
    """Nothing is to be said of it: no such host, or none of ours."""


_OF_STATE = {
    "ACTIVE": Class.USABLE,
    "PENDING": Class.UNUSABLE,
    "BLOCKED": Class.UNUSABLE,
    "DEPLOYING": Class.UNUSABLE,
    "PROVISIONED": Class.UNUSABLE,
    "STARTING": Class.UNUSABLE,
    "POWERED_OFF": Class.UNUSABLE,
    "SUSPENDED": Class.UNUSABLE,
    "MISSING": Class.UNUSABLE,
    "FAULTY": Class.UNUSABLE,
    "REMOVING": Class.UNUSABLE,
    "MAINTENANCE": Class.RESTING,
    "STANDBY": Class.RESTING,
    "UNREACHABLE": Class.UNREACHABLE,
    "REMOVED": Class.GONE,
}


def class_of_state(state: str) -> Class:
    """The class of a published state. Raises KeyError for a word that design section 4 does not have."""
    return _OF_STATE[state]


def class_of_truth(truth: Mapping[str, Any], scope: Collection[str] | None = None) -> Class:
    """The class that is true of a host. ``scope`` holds morefs of compute resources; ``None``: all are in it."""
    if not truth["present"]:
        return Class.GONE
    if scope is not None and truth["compute_resource"] not in scope:
        return Class.GONE if truth["vm"] is None and truth["agent"] is None else Class.UNUSABLE
    # A host that sleeps does not respond, which is right; so standby is asked before contact.
    if truth["standby"] != "none":
        return Class.RESTING
    if truth["connection"] != "connected":
        return Class.UNREACHABLE
    if truth["in_maintenance"] or truth["maintenance"] == "entering":
        return Class.RESTING
    return Class.USABLE if truth["vm_power"] == "poweredOn" and truth["available"] else Class.UNUSABLE
