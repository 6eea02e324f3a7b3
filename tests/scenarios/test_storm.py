# SPDX-License-Identifier: Apache-2.0
"""S08 at scale: five hundred ContrailVMs in eight clusters are powered off at once, and all come back."""

from collections import Counter
from collections.abc import Callable
from time import monotonic

import gevent
import pytest

from tests.support.bench import Bench
from vcenter_eam_plugin.simulator.knobs import Knobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HOSTS, CLUSTERS = 500, 8
BOUND = 150.0
"""Seconds; four repairs at once in each of eight clusters, each of them about a second, and a slow start."""
WRITES_PER_HOST = 3


def test_a_whole_fleet_powered_off_comes_back_within_its_budgets(make_bench: Callable[..., Bench]) -> None:
    """S08: bounded time, at most three writes per host, no breaker opens."""
    knobs = Knobs(agent_vm_settings_preset=True, vrouter_limit=0)
    bench = make_bench(hosts=HOSTS, clusters=CLUSTERS, knobs=knobs)
    bench.start(repairs_per_hour=200, power_off_grace_seconds=0.2)
    bench.wait_for(lambda: _active(bench) == HOSTS, "every ContrailVM is ACTIVE", seconds=200.0)

    writes, messages = len(bench.writes()), len(bench.messages)
    began = monotonic()
    for number, host in enumerate(bench.vcenter.hosts()):
        bench.vcenter.power_off(bench.vcenter.agent_vm(host))
        if number % 50 == 0:
            gevent.sleep(0)
    bench.wait_for(lambda: _active(bench) < HOSTS / 2, "the storm is seen")
    bench.wait_for(lambda: _active(bench) == HOSTS, "every ContrailVM is ACTIVE again", seconds=BOUND)
    seconds = monotonic() - began

    resolved = Counter(call.fields["object"] for call in bench.writes("Resolve"))
    calls = bench.writes()[writes:]
    print(f"{HOSTS} hosts: {seconds:.1f} s, {len(calls)} writes, {len(bench.messages) - messages} messages")
    assert len(resolved) == HOSTS
    assert max(resolved.values()) <= WRITES_PER_HOST
    assert len(calls) <= HOSTS * WRITES_PER_HOST
    assert "repairs-stopped" not in bench.alarms()


def _active(bench: Bench) -> int:
    return sum(message["state"] == "ACTIVE" for message in bench.listener.view.states.values())
