# SPDX-License-Identifier: Apache-2.0
"""The daemon with its fleet: calls, CPU, memory, and how long its event loop is held. docs/performance.md says how.

One installation a size tells all of it, since making one takes longest. The daemon is started twice: the first deploys
the fleet, is counted, and gets new hosts; the second finds the fleet as it is (a cold start), stays idle, and then
everything happens at once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
from pyVmomi import vim

from benchmarks.installation import (
    EAM_OBJECTS,
    Broker,
    Daemon,
    Hold,
    Traffic,
    VCenter,
    broker_and_folder,
    daemon,
    vcenter,
)
from benchmarks.processes import resident_kib
from benchmarks.row import Effort, Goal, Row, at_most, exactly
from benchmarks.scaling import slopes

OFTEN, AS_USUAL = 1.0, 10.0
"""Seconds between polls: often, to count what each asks for; and the interval that the goals name."""
NEW_HOST_CALLS = 8
"""To vCenter, for one, at most. A task of the host that comes in an update of its own is read by a call of its own, so
where two came together it is one less. The slope says that it does not grow with the hosts."""
IMPORTED = (
    "from gevent import monkey; monkey.patch_all(); import pyVmomi, kombu, kombu.transport.pyamqp, sys;sys.stdin.read()"
)
"""What any program on these libraries pays. kombu loads its transport when it connects; the daemon has connected."""
ALIKE = 2
"""Polls that ask for as much as the one before, until they are counted."""
MAINTENANCE, POWERED_ON = 0.01, 0.05
"""Shares of the hosts that are in maintenance, and whose ContrailVM was just powered on."""
SWEEP_BEGINS = 330.0
"""Seconds after a cold start: agents are read again 300 to 600 s after they were read."""
HOLD = 0.05
"""Seconds for which the loop may be held: vcenter_eam_plugin.loop_watch.LIMIT, said again so that it cannot drift."""
TOTALS = {
    "newhost": 0,
    "poll: all healthy": 0,
    "cold start: CPU": 1,
    "all change: CPU": 1,
    "memory: per host": 1,
    "idle: between sweeps": 0,
    "loop: cold start": 0,
    "loop: all change": 0,
    "loop: as many issues": 0,
}
"""Rows whose growth is told; 1: the value is per host."""
LINEAR = 1.1
"""The exponent that still counts as linear: a tenth for what the machine does beside."""


def measure(effort: Effort) -> Iterator[Row]:
    """See the module."""
    rows: list[Row] = []
    with broker_and_folder() as (broker, folder):
        imported = _imported_kib()
        empty = _empty_kib(broker, folder / "empty")
        yield effort.row(
            "memory: no hosts", empty / 1024, unit="MiB RSS", floor=imported / 1024, goal=at_most(1.8),
            note="against Python, gevent, pyVmomi, kombu imported",
        )  # fmt: skip
        for hosts in effort.sizes:
            for row in _Size(effort, hosts, broker, folder / str(hosts), empty).rows():
                rows.append(row)
                yield row
    yield from slopes(effort, rows, TOTALS, LINEAR)


class _Size:
    """Everything that is measured with so many hosts."""

    def __init__(self, effort: Effort, hosts: int, broker: Broker, folder: Path, empty_kib: int) -> None:
        self._effort = effort
        self._size = hosts
        """What the rows are named after; ``_hosts`` are those that there are, which become a few more."""
        self._hosts = hosts
        self._polls, self._new = (2, 1) if effort.quick else (5, 3)
        self._broker = broker
        self._folder = folder
        self._empty_kib = empty_kib

    def rows(self) -> Iterator[Row]:
        with vcenter(self._folder / "vcenter", self._hosts) as there:
            names = _names_one_by_one(there)
            with daemon(self._folder / "daemon", self._broker, {"": there}) as ours:
                ours.start(poll_seconds=OFTEN)
                ours.wait_for_states("every ContrailVM is ACTIVE", ACTIVE=self._hosts)
                ours.wait_until_idle()
                yield from self._poll(there, ours)
                yield self._new_hosts(there, ours, names)
                ours.stop()
                yield from self._cold_start(there, ours)
                yield from self._idle(ours)
                yield from self._burst(there, ours)
                yield from self._issues(there, ours)
                ours.stop()

    # --- calls --------------------------------------------------------------------------------------------

    def _poll(self, there: VCenter, ours: Daemon) -> Iterator[Row]:
        yield self._calls_of_a_poll(there, ours, "poll: all healthy", unsettled=0)
        truths = there.truths()
        resting = truths[: max(1, round(self._hosts * MAINTENANCE))]
        starting = truths[len(resting) : len(resting) + max(1, round(self._hosts * POWERED_ON))]
        there.ask("POST", "knobs", {"heartbeat": 1e6})
        for truth in resting:
            there.do("enter_maintenance", host=truth["host"])
        self._power_cycle(there, starting)
        rest = self._hosts - len(resting) - len(starting)
        ours.wait_for_states("they are", ACTIVE=rest, MAINTENANCE=len(resting), STARTING=len(starting))
        name = "poll: 1 % maintenance, 5 % powered on"
        yield self._calls_of_a_poll(there, ours, name, unsettled=len(starting))
        there.ask("POST", "knobs", {"heartbeat": 0.1})
        for truth in resting:
            there.do("exit_maintenance", host=truth["host"])
        self._power_cycle(there, starting)
        ours.wait_for_states("every ContrailVM is ACTIVE again", ACTIVE=self._hosts)

    @staticmethod
    def _power_cycle(there: VCenter, truths: Sequence[dict[str, Any]]) -> None:
        for truth in truths:
            there.do("power_off", vm=truth["vm"])
        gevent.sleep(0.5)  # a task, which takes its time
        for truth in truths:
            there.do("power_on", vm=truth["vm"])

    def _calls_of_a_poll(self, there: VCenter, ours: Daemon, name: str, *, unsettled: int) -> Row:
        ours.wait_until_idle(unsettled)
        seen = _over_polls(there, self._polls)
        polls = seen.calls["Agency.AgencyQueryRuntime"]
        beside = seen.eam_calls - _of_polls(seen)
        note = f"{polls} polls; beside them {beside} calls of the look at agencies, once a minute"
        value = _of_polls(seen) / polls
        expected = 1 + unsettled
        return self._effort.row(
            name, value, unit="calls to EAM", floor=expected, goal=exactly(1), hosts=self._size, note=note
        )

    def _new_hosts(self, there: VCenter, ours: Daemon, names: int) -> Row:
        """A host that comes without Agent VM settings, until its agent is seen; the largest of several."""
        there.ask("POST", "knobs", {"agent_vm_settings_preset": False})
        counted: list[Traffic] = []
        for number in range(self._new):
            ours.wait_until_idle()
            before = there.traffic()
            there.do("add_host", cluster=there.cluster_names[0], name=f"new-{number}.example")
            self._hosts += 1
            ours.wait_for_states("the new one is ACTIVE", ACTIVE=self._hosts)
            counted.append(there.traffic().since(before))
        most = max(counted, key=_to_vcenter)
        what = ", ".join(f"{n} {name}" for name, n in sorted(most.calls.items()) if _is_vcenters(name))
        return self._effort.row(
            "newhost", _to_vcenter(most), unit="calls to vCenter", floor=names, ratio=_to_vcenter(most),
            hosts=self._size, goal=at_most(NEW_HOST_CALLS), note=f"as many at each size; {what}",
        )  # fmt: skip

    # --- cold start, and after it -------------------------------------------------------------------------

    def _cold_start(self, there: VCenter, ours: Daemon) -> Iterator[Row]:
        began, before = time.monotonic(), there.traffic()
        ours.start(poll_seconds=AS_USUAL)
        ours.wait_for_states("every ContrailVM is ACTIVE", ACTIVE=self._hosts)
        seconds = time.monotonic() - began
        ours.wait_until_idle()
        yield self._cost("cold start", ours.cpu, there.traffic().since(before))
        yield self._held("loop: cold start", ours.holds(began), f"all told after {seconds:.1f} s")
        grown = (resident_kib(ours.pid) - self._empty_kib) / self._hosts
        yield self._effort.row(
            "memory: per host", grown, unit="KiB RSS", goal=self._goal(8), hosts=self._size,
            note=f"{resident_kib(ours.pid) / 1024:.1f} MiB in all, after a cold start",
        )  # fmt: skip

    def _idle(self, ours: Daemon) -> Iterator[Row]:
        seconds = 5.0 if self._effort.quick else 60.0
        yield self._cpu(ours, "idle: between sweeps", seconds)
        if not self._effort.quick and self._size >= self._effort.hosts:
            gevent.sleep(max(ours.started_at + SWEEP_BEGINS - time.monotonic(), 0.0))
            yield self._cpu(ours, "idle: in the sweep", seconds)

    def _cpu(self, ours: Daemon, name: str, seconds: float) -> Row:
        began, before = time.monotonic(), ours.cpu
        gevent.sleep(seconds)
        share = (ours.cpu - before) / (time.monotonic() - began) * 100
        note = f"over {seconds:.0f} s, polled every {AS_USUAL:.0f} s"
        return self._effort.row(name, share, unit="% of a core", goal=self._goal(1), hosts=self._size, note=note)

    def _burst(self, there: VCenter, ours: Daemon) -> Iterator[Row]:
        """Every host stops answering at once: a rack, or a network."""
        hosts = [truth["host"] for truth in there.truths()]
        began, cpu, before = time.monotonic(), ours.cpu, there.traffic()
        there.each("not_responding", hosts)
        ours.wait_for_states("every host is unreachable", UNREACHABLE=self._hosts)
        ours.wait_until_idle()
        yield self._cost("all change", ours.cpu - cpu, there.traffic().since(before))
        yield self._held("loop: all change", ours.holds(began))
        for host in hosts:
            there.do("reconnect", host=host)
        ours.wait_for_states("every ContrailVM is ACTIVE again", ACTIVE=self._hosts)
        ours.wait_until_idle()

    def _issues(self, there: VCenter, ours: Daemon) -> Iterator[Row]:
        vms = [truth["vm"] for truth in there.truths()]
        began = time.monotonic()
        there.each("power_off", vms, "vm")
        ours.wait_for(lambda: (seen := ours.states()) and not seen["ACTIVE"], "every ContrailVM has its issue")
        # Polls that carry all of them: hints bring some at once, the timer others.
        gevent.sleep(3.0 if self._effort.quick else 2 * AS_USUAL)
        yield self._held("loop: as many issues", ours.holds(began))

    # --- rows -----------------------------------------------------------------------------------------------

    def _goal(self, most: float) -> Goal | None:
        return self._effort.goal_at(self._size, at_most(most))

    def _held(self, name: str, holds: Sequence[Hold], more: str = "") -> Row:
        """By computing time: a machine that gives others the core holds the loop too, and that is not ours."""
        most = max(holds, key=lambda hold: hold.cpu, default=Hold(0.0, 0.0, 0.0, 0.0))
        wall = max((hold.seconds for hold in holds), default=0.0)
        note = f"computing; {most.gc * 1e3:.0f} ms of it collecting garbage; wall {wall * 1e3:.0f} ms"
        return self._effort.row(
            name, most.cpu * 1e3, unit="ms", goal=self._goal(HOLD * 1e3), hosts=self._size,
            note=f"{note}; {more}" if more else note,
        )  # fmt: skip

    def _cost(self, name: str, cpu: float, traffic: Traffic) -> Row:
        calls = sum(traffic.calls.values())
        note = f"{cpu:.2f} s; {calls} calls, {traffic.bytes_out / self._hosts:.0f} bytes a host from vCenter"
        return self._effort.row(f"{name}: CPU", cpu / self._hosts * 1e3, unit="ms a host", hosts=self._size, note=note)


# --- calls ----------------------------------------------------------------------------------------------------


def _is_vcenters(name: str) -> bool:
    """Whether a call is to vCenter, and not a wait for its updates: how many of those there are is chance."""
    kind, _, method = name.partition(".")
    return kind not in EAM_OBJECTS and method != "WaitForUpdatesEx"


def _to_vcenter(traffic: Traffic) -> int:
    return sum(n for name, n in traffic.calls.items() if _is_vcenters(name))


def _between_polls(there: VCenter) -> Traffic:
    """The traffic until the end of the next poll: calls came, and now none come."""
    last = there.traffic()
    while (now := there.traffic()).eam_calls == last.eam_calls:
        gevent.sleep(0.1)
    while now.eam_calls != last.eam_calls:
        gevent.sleep(OFTEN / 4)
        last, now = now, there.traffic()
    return now


def _of_polls(seen: Traffic) -> int:
    """Calls to EAM that polls make, without its look at all agencies of our name, their members and owners."""
    return seen.calls["Agency.AgencyQueryRuntime"] + seen.calls["Agent.AgentQueryRuntime"]


def _over_polls(there: VCenter, count: int) -> Traffic:
    """Several polls, once a few of them asked for the same: events still bring agents that are read between them."""
    before, earlier, same = _between_polls(there), 0, 0
    until = time.monotonic() + 120
    while time.monotonic() < until:
        after = _between_polls(there)
        seen = after.since(before)
        before = after
        same = same + 1 if _of_polls(seen) == earlier else 0
        if same == ALIKE:
            break
        earlier = _of_polls(seen)
    for _ in range(count):
        after = _between_polls(there)
    return after.since(before)


def _names_one_by_one(there: VCenter) -> int:
    """What a program asks that makes a view of all hosts and reads the name of each; counted by the simulator."""
    with there.client() as content:
        before = there.traffic()
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
        assert len({host.name for host in view.view}) == there.hosts
        view.DestroyView()
        return _to_vcenter(there.traffic().since(before))


# --- memory -----------------------------------------------------------------------------------------------------


def _imported_kib() -> int:
    with subprocess.Popen([sys.executable, "-c", IMPORTED], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        last = 0
        while (now := resident_kib(child.pid)) != last or now < 20_000:  # until it waits for its input
            last = now
            gevent.sleep(0.5)
        child.stdin.close()
    return last


def _empty_kib(broker: Broker, folder: Path) -> int:
    """Of a daemon whose cluster has no host: as those with hosts, after its second start."""
    with vcenter(folder / "vcenter", 0) as there, daemon(folder / "daemon", broker, {"": there}) as ours:
        for _ in range(2):
            ours.start(poll_seconds=AS_USUAL)
            ours.wait_until_leading()
            ours.wait_until_idle()
            found = resident_kib(ours.pid)
            ours.stop()
    return found
