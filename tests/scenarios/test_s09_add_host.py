# SPDX-License-Identifier: Apache-2.0
"""S09: a host added to a cluster in scope gets its ContrailVM; its Agent VM settings are written by rule."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.scenario import assert_can_be_followed
from vcenter_eam_plugin.options import Secret


def settings(host: Any) -> tuple[str | None, str | None]:
    """Names of a host's Agent VM datastore and network, as vCenter has them."""
    chosen = host.agent_settings
    return (
        chosen.datastore.name if chosen.datastore is not None else None,
        chosen.network.name if chosen.network is not None else None,
    )


def test_a_new_host_gets_its_settings_and_its_contrailvm_with_no_hand_on_anything(bench: Bench) -> None:
    """S09, S20."""
    bench.start()
    bench.wait_until_active()
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    assert host.get("summary.config.agentVmDatastore") is None
    bench.wait_until_active(host.name)
    assert bench.heard(host.name)[0] in ("PENDING", "BLOCKED", "DEPLOYING")
    assert bench.heard(host.name)[-1] == "ACTIVE"
    assert settings(host) == ("shared-dc0", "VM Network")
    written = bench.writes("EsxAgentHostManagerUpdateConfig")
    assert len(written) == 4, "three hosts at the start, and the new one, each written once"
    assert_can_be_followed(bench.messages)


def test_without_a_rule_the_host_is_blocked_and_says_who_can_fix_it(make_bench: Callable[..., Bench]) -> None:
    """S09: settings missing, no rule; once a person sets them, EAM is asked again by itself."""
    bench = make_bench(hosts=1, clusters=1)
    bench.start(agent_vm_datastore=(), agent_vm_network=())
    (host,) = bench.vcenter.hosts()
    bench.wait_for_state(host.name, "BLOCKED")
    bench.wait_for(
        lambda: any("NoAgentVm" in issue["type"] for m in bench.messages if m["key"] for issue in m["eam"]["issues"]),
        "the issue is on the bus",
    )
    assert "agent_vm_datastore" in next(m["reason"] for m in reversed(bench.messages) if "NoAgentVm" in m["reason"])
    assert bench.writes("EsxAgentHostManagerUpdateConfig") == []
    bench.vcenter.set_agent_settings(host, "local-1", "fab-pg")
    bench.wait_until_active(host.name)
    assert settings(host) == ("local-1", "fab-pg")
    assert bench.writes("EsxAgentHostManagerUpdateConfig") == []


def test_what_a_person_or_another_vendor_has_set_is_kept(make_bench: Callable[..., Bench]) -> None:
    """S09: the settings are host-wide; only what is unset is written."""
    bench = make_bench(hosts=1, clusters=1)
    (host,) = bench.vcenter.hosts()
    bench.vcenter.set_agent_settings(host, "local-1", None)
    bench.start()
    bench.wait_until_active()
    assert settings(host) == ("local-1", "VM Network")
    assert len(bench.writes("EsxAgentHostManagerUpdateConfig")) == 1


@pytest.mark.parametrize(
    ("rules", "chosen"),
    [
        ({"agent_vm_datastore": ("nfs-*", "local-*", "shared-*")}, ("local-1", "VM Network")),
        ({"agent_vm_network": ("fab-*", "*")}, ("shared-dc0", "fab-pg")),
    ],
)
def test_the_first_pattern_that_matches_anything_decides(
    make_bench: Callable[..., Bench], rules: dict[str, tuple[str, ...]], chosen: tuple[str, str]
) -> None:
    """S09: not the order of the host's datastores or networks."""
    bench = make_bench(hosts=1, clusters=1)
    bench.start(**rules)
    bench.wait_until_active()
    assert settings(bench.vcenter.hosts()[0]) == chosen


def test_a_rule_that_fits_nothing_on_one_host_is_an_alarm_and_the_others_are_served(bench: Bench) -> None:
    """S09: the new host has another storage; the sentence lists what it has."""
    bench.start(agent_vm_datastore=("shared-*",))
    bench.wait_until_active()
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    for datastore in [d for d in host.datastores.values() if d.name.startswith("shared")]:
        host.unmount(datastore)
    bench.wait_for_state(host.name, "BLOCKED")
    bench.wait_for(lambda: f"agent-vm-settings:{host.moid}" in bench.alarms(), "the alarm")
    alarm = bench.alarms()[f"agent-vm-settings:{host.moid}"]
    local = next(d.name for d in host.datastores.values() if d.name.startswith("local"))
    assert host.name in alarm
    assert "shared-*" in alarm
    assert local in alarm
    other = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_until_active(other.name)
    assert bench.state(host.name) == "BLOCKED"
    bench.vcenter.set_agent_settings(host, local, "VM Network")
    bench.wait_until_active(host.name)
    bench.wait_for(lambda: bench.alarms() == {}, "the alarm is over")


def test_a_full_datastore_blocks_and_is_tried_again_within_the_budgets(
    make_bench: Callable[..., Bench], quick_retries: None
) -> None:
    """S09: InsufficientSpace is reported with the host; space that is freed heals it."""
    bench = make_bench(hosts=1, clusters=1)
    shared = next(d for d in bench.vcenter.hosts()[0].datastores.values() if d.name == "shared-dc0")
    bench.vcenter.fill_datastore(shared, free=0)
    bench.start(poll_seconds=1.0)
    (host,) = bench.names()
    bench.wait_for_state(host, "BLOCKED")
    bench.wait_for(lambda: any("InsufficientSpace" in m["reason"] for m in bench.messages if m["key"]), "why")
    bench.vcenter.fill_datastore(shared, free=1 << 40)
    bench.wait_until_active()


def test_the_account_may_not_write_the_settings(bench: Bench, quick_retries: None) -> None:
    """S09: the privilege is named, with the host; everything else goes on."""
    bench.simulator.add_user("limited@vsphere.local", "limited", ("EAM.View", "EAM.Modify"))
    bench.start(vcenter={"vc_username": "limited@vsphere.local", "vc_password": Secret("limited")})
    for host in bench.vcenter.hosts():
        bench.wait_for_state(host.name, "BLOCKED")
        bench.wait_for(lambda host=host: f"act:{host.moid}" in bench.alarms(), "the alarm")
        assert "Host.Config" in bench.alarms()[f"act:{host.moid}"]
    assert bench.writes("EsxAgentHostManagerUpdateConfig") == []


def test_a_host_that_is_added_and_gone_again_at_once_leaves_nothing(bench: Bench) -> None:
    """S09: an operator's mistake, undone while EAM is at work."""
    bench.start()
    bench.wait_until_active()
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_for(lambda: bench.state(host.name) is not None, "it is heard of")
    bench.vcenter.remove_host(host)
    bench.wait_for(lambda: bench.state(host.name) is None, "it is removed")
    assert bench.heard(host.name)[-1] == "REMOVED"
    later = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_until_active(later.name)
    bench.wait_for(lambda: bench.alarms() == {}, "no alarm is left")
    assert_can_be_followed(bench.messages)


def test_settings_that_point_to_nothing_are_named_with_who_can_fix_them(
    make_bench: Callable[..., Bench], quick_retries: None
) -> None:
    """S09: what is set to something unusable is BLOCKED with the reason, is kept, and goes on when mended."""
    bench = make_bench(hosts=1, clusters=1)
    bench.vcenter.lose_datastore("shared-dc0")
    host = bench.vcenter.hosts()[0]
    bench.vcenter.set_agent_settings(host, "shared-dc0", "VM Network")
    bench.start()
    bench.wait_for_state(host.name, "BLOCKED")
    bench.wait_for(
        lambda: any("shared-dc0 is not accessible" in m["reason"] for m in bench.messages if m["key"]), "the reason"
    )
    assert bench.writes("EsxAgentHostManagerUpdateConfig") == []
    bench.vcenter.recover_datastore("shared-dc0")
    bench.wait_for(lambda: bench.state(host.name) == "ACTIVE", "ACTIVE once it is mended", seconds=60)
