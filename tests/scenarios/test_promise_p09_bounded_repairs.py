# SPDX-License-Identifier: Apache-2.0
"""P9 end to end: two hundred hosts are red at once, and what is done about it stays within its budgets.

The planner alone is proven over random storms in ``tests/unit/domain/test_planner.py`` (P9), the books in
``test_budgets.py``; here the simulated vCenter is asked what really reached it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable

import pytest

from tests.support.bench import Bench
from vcenter_eam_plugin.simulator.knobs import Knobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOSTS, CLUSTERS = 200, 4
AT_ONCE, PER_HOUR = 2, 8
ALL = CLUSTERS * PER_HOUR
HANDS_OFF = 30
"""Hosts whose ContrailVM is corrupt, or which are taken into maintenance."""
START_SECONDS = 120.0
"""To deploy them, on a machine that is slow and shared."""


def test_p09_two_hundred_red_hosts_are_repaired_within_the_budgets(make_bench: Callable[..., Bench]) -> None:
    """P9: at most so many at once and so many an hour in each cluster, and never what needs consent."""
    bench = make_bench(
        hosts=HOSTS, clusters=CLUSTERS, knobs=Knobs(agent_vm_settings_preset=True, vrouter_limit=0, power_on=0.3)
    )
    bench.start(max_concurrent_repairs=AT_ONCE, repairs_per_hour=PER_HOUR)
    bench.wait_for(lambda: _active(bench) == HOSTS, "every ContrailVM is ACTIVE", seconds=START_SECONDS)
    fleet = bench.unit.pipeline.fleet
    assert bench.writes("Resolve") == []

    hosts = bench.vcenter.hosts()
    by_moref = {host.moid: host for host in hosts}
    host_of = {agent.moref: agent.host for agent in fleet.agents.values()}
    cluster_of = {host.moid: fleet.hosts[host.moid].compute_resource for host in hosts}
    hands_off = {host.moid for host in hosts[:: HOSTS // HANDS_OFF]}
    for number, host in enumerate(hosts):
        vm = bench.vcenter.agent_vm(host)
        if host.moid not in hands_off:
            bench.vcenter.power_off(vm)
        elif number % 3:
            bench.vcenter.corrupt(vm)
        else:
            bench.vcenter.enter_maintenance(host)

    most: Counter[str] = Counter()

    def all_that_may_be_is_done() -> bool:
        repairs: dict[str, list[str]] = defaultdict(list)
        for call in bench.writes("Resolve"):
            repairs[cluster_of[host_of[call.fields["object"]]]].append(host_of[call.fields["object"]])
        for cluster, repaired in repairs.items():
            at_work = [host for host in repaired if not bench.vcenter.agent_vm(by_moref[host]).on]
            most[cluster] = max(most[cluster], len(at_work))
        return sum(map(len, repairs.values())) >= ALL and _active(bench) == ALL

    bench.wait_for(all_that_may_be_is_done, "the hour's repairs are done", seconds=START_SECONDS)
    read_at = bench.unit.pipeline.poll.read_at
    bench.wait_for(lambda: bench.unit.pipeline.poll.read_at > read_at, "one more poll")
    bench.wait_for(lambda: not len(bench.unit.pipeline.workers.queue), "everything was looked at")

    resolved = [host_of[call.fields["object"]] for call in bench.writes("Resolve")]
    assert Counter(cluster_of[host] for host in resolved) == dict.fromkeys(cluster_of.values(), PER_HOUR)
    assert max(Counter(resolved).values()) == 1
    assert not hands_off & set(resolved), "what needs a person was done without one"
    assert max(most.values()) <= AT_ONCE
    assert "repairs-stopped" not in bench.alarms()
    waiting = bench.unit.pipeline.status()["waiting"]
    unrepaired = {host.moid for host in hosts} - hands_off - set(resolved)
    assert all("within the hour" in waiting[host][0] for host in unrepaired), "and it is said what they wait for"
    print(f"{len(resolved)} repairs, at most {max(most.values())} at once in a cluster")


def _active(bench: Bench) -> int:
    return sum(message["state"] == "ACTIVE" for message in bench.listener.view.states.values())
