# SPDX-License-Identifier: Apache-2.0
"""What is on its way in a fleet, in a sentence for people: after `activate` EAM takes seconds to show anything at all.

Only what is known is said, and of no more than was read: that EAM deploys, where it has an agency of ours that covers
hosts without a ContrailVM. Not promised: how long it takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from vcenter_eam_plugin.domain.actions import CreateAgency
from vcenter_eam_plugin.domain.facts import GoalState
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.planner import Plan
from vcenter_eam_plugin.domain.status import State

_MOVING = (State.DEPLOYING, State.PROVISIONED, State.STARTING, State.PENDING, State.REMOVING)
"""In the order in which they are named."""
_EAM_DEPLOYS = (State.DEPLOYING, State.PENDING)


def under_way(fleet: Fleet, agency_plan: Plan, *, acts: bool) -> str:
    """``EAM is deploying: 3 of 8 hosts active, 2 deploying, 3 pending``, or nothing when nothing is on its way.

    ``agency_plan`` is what is planned about the agency, ``acts`` whether it is done.
    """
    statuses = fleet.statuses()
    counts = Counter(status.state for status in statuses)
    if fleet.agency is None:
        creating = acts and any(isinstance(action, CreateAgency) for action in agency_plan.actions)
        waiting = counts[State.PENDING]
        return f"the agency is being created; {_hosts(waiting)} for EAM to deploy to" if creating and waiting else ""
    enabled = fleet.agency.goal is GoalState.ENABLED
    covered = frozenset(fleet.agency.scope) if enabled else frozenset()
    # A host that the agency does not cover (yet) is none that EAM is going to deploy to.
    counts[State.PENDING] = sum(
        status.state is State.PENDING and status.esxi.compute_resource in covered for status in statuses
    )
    moving = [state for state in _MOVING if counts[state]]
    if not moving:
        return ""
    parts = [f"{counts[State.ACTIVE]} of {_hosts(len(statuses))} active"]
    parts += [f"{counts[state]} {state.value.lower()}" for state in moving]
    return f"{_what(moving)}: {', '.join(parts)}"


def _what(moving: Iterable[State]) -> str:
    found = set(moving)
    if found & set(_EAM_DEPLOYS):
        return "EAM is deploying"
    return "EAM is removing" if found == {State.REMOVING} else "ContrailVMs are starting"


def _hosts(count: int) -> str:
    return f"{count} host{'s' * (count != 1)}"
