# SPDX-License-Identifier: Apache-2.0
"""S09: a host added to a cluster in scope gets its ContrailVM; its Agent VM settings are written by rule."""

from collections.abc import Callable

from tests.support.bench import Bench


def test_a_new_host_gets_its_settings_and_its_contrailvm_with_no_hand_on_anything(bench: Bench) -> None:
    """S09, S20."""
    bench.start()
    bench.wait_until_active()
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    assert host.get("summary.config.agentVmDatastore") is None
    bench.wait_until_active(host.name)
    assert bench.heard(host.name)[0] in ("PENDING", "BLOCKED", "DEPLOYING")
    assert bench.heard(host.name)[-1] == "ACTIVE"
    written = bench.writes("EsxAgentHostManagerUpdateConfig")
    assert len(written) == 4, "three hosts at the start, and the new one, each written once"


def test_without_a_rule_the_host_is_blocked_and_says_who_can_fix_it(make_bench: Callable[..., Bench]) -> None:
    """S09: settings missing, no rule."""
    bench = make_bench(hosts=1, clusters=1)
    bench.start(agent_vm_datastore=(), agent_vm_network=())
    host = bench.names()[0]
    bench.wait_for_state(host, "BLOCKED")
    bench.wait_for(
        lambda: any("NoAgentVm" in issue["type"] for m in bench.messages if m["key"] for issue in m["eam"]["issues"]),
        "the issue is on the bus",
    )
    assert bench.writes("EsxAgentHostManagerUpdateConfig") == []
