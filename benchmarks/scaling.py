# SPDX-License-Identifier: Apache-2.0
"""How figures grow with the number of hosts: the exponent e of value = c * hosts ** e.

0 is a cost that does not grow, 1 one that grows with the hosts, 2 one that must not be.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.row import Effort, Row, at_most


def slopes(effort: Effort, rows: Sequence[Row], totals: Mapping[str, int], limit: float) -> Iterator[Row]:
    """One row for each name in ``totals``, of those rows that were measured at several sizes.

    ``totals`` gives the power of ``hosts`` to multiply a value by for the whole cost: 1 for a value that is per host.
    """
    by_name: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        if row.name in totals and row.value > 0:
            by_name[row.name].append((row.hosts, row.value * row.hosts ** totals[row.name]))
    for name, points in by_name.items():
        if len(points) < 2:
            continue
        steps = [f"{low[0]}-{high[0]}: {exponent([low, high]):.2f}" for low, high in itertools.pairwise(points)]
        yield effort.row(
            f"slope of {name}", exponent(points), unit="exponent", goal=at_most(limit), note=", ".join(steps)
        )


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """Of the straight line through the logarithms, by least squares."""
    xs, ys = [math.log(hosts) for hosts, _ in points], [math.log(value) for _, value in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
