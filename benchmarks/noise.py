# SPDX-License-Identifier: Apache-2.0
"""What tenants cost: 20,000 VMs that are powered on and off all the time, against the same vCenter when it is quiet.

The simulator counts what it tells the daemon. The changes are made by the simulator itself, asked over one connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import gevent
from pyVmomi import vim

from benchmarks.installation import Daemon, Traffic, VCenter, broker_and_folder, daemon, vcenter
from benchmarks.row import Effort, Row, at_most, exactly

HOSTS, TENANTS = 500, 40
"""Tenants per host: 20,000 in all."""
PER_SECOND = 100
SECONDS, QUICK_SECONDS = 60.0, 5.0


def measure(effort: Effort) -> Iterator[Row]:
    """Updates and events received, and CPU beyond that of a quiet vCenter."""
    seconds = QUICK_SECONDS if effort.quick else SECONDS
    with (
        broker_and_folder() as (broker, folder),
        vcenter(folder / "vcenter", HOSTS, f"--tenants-per-host={TENANTS}") as there,
        daemon(folder / "daemon", broker, {"": there}) as ours,
    ):
        ours.start()
        ours.wait_for_states("every ContrailVM is ACTIVE", ACTIVE=HOSTS)
        ours.wait_until_idle()
        tenants = sorted(_vms(there) - {truth["vm"] for truth in there.truths()})
        assert len(tenants) == HOSTS * TENANTS
        quiet, _ = _while(ours, there, lambda: gevent.sleep(seconds))
        changed = 0

        def noise() -> None:
            nonlocal changed
            changed = _make_noise(there, tenants, seconds)

        noisy, told = _while(ours, there, noise)
    rate = changed / seconds
    events = told.updates.pop("EventHistoryCollector", 0)
    note = f"{len(tenants)} tenant VMs, {rate:.0f} power changes a second for {seconds:.0f} s"
    yield effort.row("noise: updates", sum(told.updates.values()), unit="objects", goal=exactly(0), note=note)
    yield effort.row("noise: events", events, unit="pages", goal=exactly(0), note=note)
    more = f"{noisy * 100:.2f} %, {quiet * 100:.2f} % in the quiet"
    value = max((noisy - quiet) * 100, 0.0)
    yield effort.row("noise: CPU", value, unit="% of a core more", goal=at_most(0.5), note=more)


def _vms(there: VCenter) -> set[str]:
    """Morefs of all VMs."""
    with there.client() as content:
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
        return {vm._GetMoId() for vm in view.view}


def _while(ours: Daemon, there: VCenter, work: Callable[[], None]) -> tuple[float, Traffic]:
    """The share of a core that the daemon took meanwhile, and what it was told."""
    began, cpu, before = time.monotonic(), ours.cpu, there.traffic()
    work()
    return (ours.cpu - cpu) / (time.monotonic() - began), there.traffic().since(before)


def _make_noise(there: VCenter, tenants: list[str], seconds: float) -> int:
    """Power changes at the rate, for so long; how many there were."""
    began, count = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        due = int(elapsed * PER_SECOND) - count
        for _ in range(due):
            vm = tenants[(count // 2) * 7919 % len(tenants)]
            there.do("power_on" if count % 2 else "power_off", vm=vm)
            count += 1
        gevent.sleep(0.01)
    return count
