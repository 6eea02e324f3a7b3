# SPDX-License-Identifier: Apache-2.0
"""One line of the result: what was measured against what, the goal, and whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

QUICK_SLACK = 3.0
"""What ``--quick`` allows a ratio beyond its goal: it runs once, on a machine with other things to do, and should fail
at a regression of a kind, not of a percent."""


class Rule(Enum):
    """How a row's ratio is held against its goal."""

    AT_MOST = "at most"
    AT_LEAST = "at least"
    EXACTLY = "exactly"


@dataclass(frozen=True, slots=True)
class Goal:
    """``limit`` for a row's ratio. An exact goal is a count, and is never slackened."""

    rule: Rule
    limit: float

    def met(self, ratio: float, slack: float = 1.0) -> bool:
        """Whether ``ratio`` is within the goal, or within ``slack`` times of it."""
        if self.rule is Rule.EXACTLY:
            return ratio == self.limit
        if self.rule is Rule.AT_MOST:
            return ratio <= self.limit * slack
        return ratio >= self.limit / slack

    def __str__(self) -> str:
        return f"{self.rule.value} {self.limit:g}"


def at_most(limit: float) -> Goal:
    """A goal that smaller ratios meet."""
    return Goal(Rule.AT_MOST, limit)


def at_least(limit: float) -> Goal:
    """A goal that larger ratios meet."""
    return Goal(Rule.AT_LEAST, limit)


def exactly(count: float) -> Goal:
    """A goal that one figure alone meets."""
    return Goal(Rule.EXACTLY, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """``value`` is ours and ``floor`` what it is held against, both in ``unit``; ``ratio`` is what the goal is about.

    Without a floor the ratio is the value itself (a count, a share of a core). ``hosts`` is the size at which it was
    measured, 0 where it has none. ``met`` is by the goal, or by the slackened one of a quick run. A row whose ``goal``
    is empty tells a figure that explains another, and is always met.
    """

    name: str
    hosts: int = 0
    unit: str
    value: float
    floor: float | None = None
    ratio: float
    goal: str = ""
    met: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Effort:
    """How thoroughly to measure. ``runs``: how often, of which the median counts; ``sizes``: hosts."""

    quick: bool
    runs: int
    sizes: tuple[int, ...]

    @property
    def slack(self) -> float:
        """What a ratio may be beyond its goal."""
        return QUICK_SLACK if self.quick else 1.0

    @property
    def hosts(self) -> int:
        """The size at which goals are held: the one that the goals were written for, or the quick run's largest."""
        return GOAL_HOSTS if GOAL_HOSTS in self.sizes else max(self.sizes)

    def goal_at(self, hosts: int, goal: Goal) -> Goal | None:
        """``goal`` where it is held. Fewer hosts share what a fleet costs as such, and more have no vCenter."""
        return goal if hosts == self.hosts else None

    def row(
        self,
        name: str,
        value: float,
        *,
        unit: str,
        goal: Goal | None = None,
        floor: float | None = None,
        ratio: float | None = None,
        hosts: int = 0,
        note: str = "",
    ) -> Row:
        """A row by this effort's slack. ``ratio`` not given: value by floor, or the value where there is no floor."""
        if ratio is None:
            ratio = value if floor is None else value / floor
        return Row(
            name=name,
            hosts=hosts,
            unit=unit,
            value=value,
            floor=floor,
            ratio=ratio,
            goal="" if goal is None else str(goal),
            met=goal is None or goal.met(ratio, self.slack),
            note=note,
        )

    def paired(self, ours: Callable[[], float], floor: Callable[[], float]) -> tuple[float, float, float]:
        """Medians of (ours, floor, ours by floor) over runs in turn: what slows the machine slows both of a pair.

        Each callable measures once and returns its figure. One pair is thrown away first: it warms up.
        """
        pairs = [(ours(), floor()) for _ in range(self.runs + 1)][1:]
        return (
            statistics.median(o for o, _ in pairs),
            statistics.median(f for _, f in pairs),
            statistics.median(o / f for o, f in pairs),
        )


GOAL_HOSTS = 2500
"""The size that the goals are written for: the largest vCenter that VMware supports for hosts under one."""

FULL = Effort(quick=False, runs=5, sizes=(100, 500, 2500, 5000))
QUICK = Effort(quick=True, runs=1, sizes=(500,))
