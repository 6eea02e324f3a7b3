# SPDX-License-Identifier: Apache-2.0
"""Stays in a state: counted when both ends were seen, and not otherwise."""

from __future__ import annotations

import msgspec

from tests.support.facts import a_fleet, a_host, a_vm, an_agent
from vcenter_eam_plugin.domain.status import ContrailVm, State
from vcenter_eam_plugin.domain.time_in_state import BOUNDS, TimeInState

(ONE,) = a_fleet(a_host(), vms=(a_vm(),), agents=(an_agent(),)).statuses()


def as_(state: State, **changes: str) -> ContrailVm:
    return msgspec.structs.replace(ONE, state=state, **changes)


def test_a_stay_counts_once_its_beginning_and_its_end_were_seen() -> None:
    times = TimeInState()
    times.see([as_(State.ACTIVE)], 100.0)
    times.see([as_(State.POWERED_OFF)], 200.0)  # how long it was ACTIVE before we looked, nobody knows
    assert times.ended == {}
    times.see([as_(State.STARTING)], 220.0)
    assert times.ended.keys() == {State.POWERED_OFF}
    assert times.ended[State.POWERED_OFF].seconds == 20.0
    assert times.since(ONE.key) == 220.0


def test_a_detail_that_changes_ends_no_stay() -> None:
    times = TimeInState()
    times.see([as_(State.ACTIVE)], 100.0)
    times.see([as_(State.FAULTY)], 110.0)
    times.see([as_(State.FAULTY, reason="another")], 120.0)
    assert times.since(ONE.key) == 110.0
    assert times.ended == {}


def test_what_is_removed_is_forgotten_and_its_last_stay_counts() -> None:
    times = TimeInState()
    times.see([as_(State.ACTIVE)], 100.0)
    times.see([as_(State.REMOVING)], 110.0)
    times.see([as_(State.REMOVED)], 115.0)
    assert times.ended[State.REMOVING].seconds == 5.0
    assert times.since(ONE.key) is None
    times.see([as_(State.PENDING)], 200.0)
    times.see([as_(State.ACTIVE)], 300.0)
    assert State.PENDING not in times.ended, "it was away, and came back we do not know when"


def test_a_bound_belongs_to_its_bucket_and_what_is_longer_than_all_has_one() -> None:
    """Prometheus' ``le``: less or equal."""
    times = TimeInState()
    now = 0.0
    times.see([as_(State.ACTIVE)], now)
    for bound in (*BOUNDS, BOUNDS[-1] + 1):
        times.see([as_(State.MAINTENANCE)], now)
        now += bound
        times.see([as_(State.ACTIVE)], now)
    assert times.ended[State.MAINTENANCE].counts == [1] * (len(BOUNDS) + 1)
