# SPDX-License-Identifier: Apache-2.0
"""The oracle against what design section 4 says of each state, in words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.oracle import Class, class_of_state, class_of_truth
from tests.unit.chaos.stories import truth_of
from vcenter_eam_plugin.domain.status import State


def test_every_state_has_a_class_and_nothing_else_has_one() -> None:
    assert {class_of_state(state.value) for state in State} == set(Class)
    with pytest.raises(KeyError):
        class_of_state("HEALTHY")


def test_a_vrouter_is_usable_in_active_alone() -> None:
    """Design section 4, the column "vRouter usable"."""
    assert [state for state in State if class_of_state(state.value) is Class.USABLE] == [State.ACTIVE]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Class.USABLE),
        ({"available": False}, Class.UNUSABLE),
        ({"vm_power": "poweredOff"}, Class.UNUSABLE),
        ({"vm_power": "suspended"}, Class.UNUSABLE),
        ({"vm": None, "vm_power": None, "agent": None, "available": False}, Class.UNUSABLE),
        ({"maintenance": "entering"}, Class.RESTING),
        ({"maintenance": "in", "in_maintenance": True}, Class.RESTING),
        ({"maintenance": "exiting", "in_maintenance": True}, Class.RESTING),
        ({"maintenance": "exiting", "in_maintenance": False, "available": False}, Class.UNUSABLE),
        ({"maintenance": "exiting", "in_maintenance": False}, Class.USABLE),
        ({"standby": "entering"}, Class.RESTING),
        ({"standby": "in", "connection": "notResponding"}, Class.RESTING),
        ({"connection": "notResponding"}, Class.UNREACHABLE),
        ({"connection": "disconnected", "in_maintenance": True, "maintenance": "in"}, Class.UNREACHABLE),
        ({"compute_resource": "domain-c9"}, Class.UNUSABLE),
        ({"compute_resource": "domain-c9", "vm": None, "agent": None}, Class.GONE),
        ({"present": False}, Class.GONE),
    ],
)
def test_class_of_a_truth(changes: dict[str, Any], expected: Class) -> None:
    """An agent that is left behind out of scope is being removed; what sleeps does not respond, rightly."""
    assert class_of_truth(truth_of(Class.USABLE) | changes, scope={"domain-c1"}) is expected


def test_without_a_scope_every_host_is_in_it() -> None:
    assert class_of_truth(truth_of(Class.USABLE) | {"compute_resource": "domain-c9"}) is Class.USABLE
