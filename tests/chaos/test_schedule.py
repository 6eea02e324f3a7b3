# SPDX-License-Identifier: Apache-2.0
"""A seed that failed must fail again: the schedule is the seed's, and keeps its own rules."""

from __future__ import annotations

import random

import pytest

from tests.chaos.nemeses import Nemesis
from tests.chaos.schedule import FEWEST_FAULTS, FEWEST_KINDS, Planned, make_schedule

SECONDS = 8.0


def nemesis(kind: str, resource: str, most: float) -> Nemesis:
    return Nemesis(kind, resource, resource, lambda _: None, lambda: None, (0.0, most))


NEMESES = [
    nemesis("kill", "a", 3.0),
    nemesis("pause", "a", 8.0),
    nemesis("kill", "b", 3.0),
    nemesis("cut", "link", 0.0),
]


def of(seed: int) -> list[Planned]:
    return make_schedule(NEMESES, SECONDS, random.Random(seed))


@pytest.mark.parametrize("seed", range(50))
def test_a_schedule_is_the_seeds_and_breaks_nothing_twice_at_once(seed: int) -> None:
    planned = of(seed)
    assert planned == of(seed)
    assert planned != of(seed + 1)
    assert len(planned) >= FEWEST_FAULTS
    assert len({each.nemesis.kind for each in planned}) >= FEWEST_KINDS
    free_from: dict[str, float] = {}
    for each in planned:
        assert 0.0 < each.at < SECONDS
        assert each.at >= free_from.get(each.nemesis.resource, 0.0)
        free_from[each.nemesis.resource] = each.at + each.seconds
