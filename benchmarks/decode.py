# SPDX-License-Identifier: Apache-2.0
"""Decoding property updates: all hosts of a vCenter, with the properties that the inventory watches, in its pages.

Held against expat alone, which finds the elements and makes nothing of them, and against pyVmomi's decoder: the same
bytes in the same run, all from memory. CPU time, since that is what is spent, and what another process does not.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from xml.parsers.expat import ParserCreate

from pyVmomi import vmodl

from benchmarks.recorded import recorded
from benchmarks.row import Effort, Row, at_least, at_most
from tests.support.decoded import Both


def measure(effort: Effort) -> Iterator[Row]:
    """Two rows a size, both of which have goals."""
    for hosts in effort.sizes:
        yield from _of(effort, hosts)


def _of(effort: Effort, hosts: int) -> Iterator[Row]:
    found = recorded(hosts)
    both = Both(vmodl.query.PropertyCollector, "WaitForUpdatesEx", found.version)
    note = f"{sum(map(len, found.updates)) / 1e6:.1f} MB in {len(found.updates)} answers"

    def ours() -> float:
        return _cpu(both.decoded, found.updates)

    def expat() -> float:
        return _cpu(lambda body: ParserCreate().Parse(body, True), found.updates)

    def pyvmomi() -> float:
        return _cpu(both.pyvmomi, found.updates)

    value, floor, ratio = effort.paired(ours, expat)
    goal = at_most(4)
    yield effort.row("decode, expat", value, unit="s", floor=floor, ratio=ratio, hosts=hosts, goal=goal, note=note)
    value, floor, ratio = effort.paired(pyvmomi, ours)
    goal, note = at_least(6), "ours is the floor here"
    yield effort.row("pyVmomi, decode", value, unit="s", floor=floor, ratio=ratio, hosts=hosts, goal=goal, note=note)
    assert not both.fallen_back, both.fallen_back


def _cpu(decode: Callable[[bytes], object], bodies: tuple[bytes, ...]) -> float:
    gc.collect()
    began = time.process_time()
    for body in bodies:
        decode(body)
    return time.process_time() - began
