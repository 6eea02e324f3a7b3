# SPDX-License-Identifier: Apache-2.0
"""From a seed to a schedule: which nemesis when, and for how long. Pure: the same seed gives the same one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.nemeses import Nemesis

FIRST = 0.3
"""Seconds until the first fault: the storm has begun."""

BETWEEN = (0.2, 3.0)
"""Seconds from one injection to the next; most faults last longer, so two or three are on at once."""

FEWEST_FAULTS, FEWEST_KINDS = 3, 2


@dataclass(frozen=True, slots=True)
class Planned:
    """``at`` in seconds from the beginning of the run, ``seconds`` for how long; ``dice`` decides what is left open."""

    at: float
    seconds: float
    nemesis: Nemesis
    dice: int

    def __str__(self) -> str:
        return f"{self.at:6.2f} s  {self.nemesis.kind} {self.nemesis.target} for {self.seconds:.1f} s"


def make_schedule(nemeses: Sequence[Nemesis], seconds: float, chance: random.Random) -> list[Planned]:
    """Faults that all begin within ``seconds``; never two of one resource at once. At least 3 faults of 2 kinds."""
    while True:
        planned: list[Planned] = []
        free_from: dict[str, float] = {}
        at = FIRST
        while at < seconds:
            free = [each for each in nemeses if free_from.get(each.resource, 0.0) <= at]
            if free:
                (chosen,) = chance.choices(free, [each.weight for each in free])
                lasts = chance.uniform(*chosen.seconds)
                planned.append(Planned(at, lasts, chosen, chance.getrandbits(32)))
                free_from[chosen.resource] = at + lasts
            at += chance.uniform(*BETWEEN)
        kinds = {each.nemesis.kind for each in planned}
        if len(planned) >= FEWEST_FAULTS and len(kinds) >= FEWEST_KINDS:
            return planned
