# SPDX-License-Identifier: Apache-2.0
"""The list of benchmarks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from benchmarks.row import Effort, Row


@dataclass(frozen=True, slots=True)
class Benchmark:
    """``module`` has ``measure(effort)``, which yields rows as it gets them."""

    name: str
    module: str
    meaning: str

    def measure(self, effort: Effort) -> Iterator[Row]:
        """Runs it, here and now."""
        run: Callable[[Effort], Iterable[Row]] = importlib.import_module(f"benchmarks.{self.module}").measure
        yield from run(effort)


BENCHMARKS = (
    Benchmark("outbox", "outbox", "take changes in and hand them to the publisher, without a broker"),
    Benchmark("decode", "decode", "decode property updates, from memory"),
    Benchmark("cold-start", "cold_start", "read inventory and agents anew from a vCenter of recorded bytes"),
    Benchmark("throughput", "throughput", "observations through fleet, outbox and publisher until the broker confirms"),
    Benchmark("delivery", "delivery", "change in vCenter to confirmed message: latency, burst, restart"),
    Benchmark("resident", "resident", "the daemon with its fleet: calls, CPU, memory, its event loop"),
    Benchmark("noise", "noise", "20,000 tenant VMs that are powered on and off all the time"),
    Benchmark("ovf", "ovf", "downloads of the OVF package, against nginx"),
    Benchmark("fleet", "fleet", "several vCenters shared out among two instances"),
)
"""In the order in which they run and are shown."""


def chosen(names: Iterable[str]) -> list[Benchmark]:
    """Those of these names, all of them for none. Raises KeyError for a name that there is not."""
    by_name = {one.name: one for one in BENCHMARKS}
    return [by_name[name] for name in names] or list(BENCHMARKS)
