# SPDX-License-Identifier: Apache-2.0
"""What is on its way, in one sentence: said of what is known, and of nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.facts import CLUSTER, VCENTER, a_cluster, a_fleet, a_host, a_vm, an_agency, an_agent
from vcenter_eam_plugin.domain.actions import CreateAgency
from vcenter_eam_plugin.domain.facts import EamStatus, GoalState, HookState, VmPower
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.observations import AgencyObserved, InventoryObserved
from vcenter_eam_plugin.domain.planner import Plan
from vcenter_eam_plugin.domain.under_way import under_way

ELSEWHERE = "domain-c9"
CREATING = Plan((CreateAgency((CLUSTER,)),))


def without_agency(*numbers: int) -> Fleet:
    fleet = Fleet(VCENTER, [CLUSTER])
    fleet.apply(AgencyObserved(1.0, None))
    fleet.apply(InventoryObserved(2.0, (a_cluster(),), tuple(map(a_host, numbers)), (), complete=True))
    return fleet


def said(fleet: Fleet, plan: Plan = Plan(), *, acts: bool = True) -> str:  # noqa: B008 - it is frozen
    return under_way(fleet, plan, acts=acts)


def test_every_stage_from_activation_to_the_last_host_is_said() -> None:
    """After `activate` a status of PENDING hosts alone looks as if nothing went on."""
    assert said(without_agency(1, 2), CREATING) == "the agency is being created; 2 hosts for EAM to deploy to"
    fleet = a_fleet(
        *map(a_host, range(1, 8)),
        agents=(
            an_agent(1),
            an_agent(2, vm=None, status=EamStatus.YELLOW),
            an_agent(3, hook=HookState.PROVISIONED),
            an_agent(4, status=EamStatus.YELLOW),
        ),
        vms=(a_vm(1), a_vm(3, power=VmPower.POWERED_OFF), a_vm(4)),
    )
    assert said(fleet) == "EAM is deploying: 1 of 7 hosts active, 1 deploying, 1 provisioned, 1 starting, 3 pending"
    assert said(a_fleet(a_host(1), a_host(2))) == ""
    starting = a_fleet(a_host(1), a_host(2), agents=(an_agent(1), an_agent(2, status=EamStatus.YELLOW)))
    assert said(starting) == "ContrailVMs are starting: 1 of 2 hosts active, 1 starting"
    leaving = a_fleet(a_host(1), agents=(an_agent(1, goal=GoalState.UNINSTALLED),))
    assert said(leaving) == "EAM is removing: 0 of 1 host active, 1 removing"


@pytest.mark.parametrize(
    ("fleet", "plan", "acts"),
    [
        pytest.param(without_agency(1), CREATING, False, id="observing: nobody creates it"),
        pytest.param(without_agency(1), Plan(waiting=("an agency of our name belongs to somebody else",)), True,
                     id="it may not be created"),
        pytest.param(without_agency(), CREATING, True, id="there is no host"),
    ],
)  # fmt: skip
def test_without_an_agency_only_its_creation_is_said(fleet: Fleet, plan: Plan, acts: bool) -> None:
    assert said(fleet, plan, acts=acts) == ""


@pytest.mark.parametrize(
    "agency",
    [{"scope": (ELSEWHERE,)}, {"goal": GoalState.DISABLED}],
    ids=["another cluster is covered", "EAM is told to do nothing"],
)
def test_a_host_that_eam_is_not_going_to_deploy_to_is_not_under_way(agency: dict[str, Any]) -> None:
    """PENDING alone says that a ContrailVM is wanted; whether EAM was asked for it is the agency's scope."""
    fleet = a_fleet(a_host(1), a_host(2), agents=(an_agent(1),), agency=an_agency(**agency))
    assert said(fleet) == ""
    drained = a_fleet(a_host(1), a_host(2), agents=(an_agent(1),))
    assert "1 pending" in said(drained)
    drained.set_retreat([CLUSTER])
    assert "pending" not in said(drained)
