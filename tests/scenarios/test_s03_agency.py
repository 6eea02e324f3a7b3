# SPDX-License-Identifier: Apache-2.0
"""S03: the agency is created once, EAM deploys one ContrailVM per host in scope, nobody else's agency is touched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pyVmomi import eam, vim

from tests.support.bench import Bench
from tests.support.scenario import assert_can_be_followed
from tests.support.simulator import connected, eam_manager
from vcenter_eam_plugin.options import Secret

OTHER = "other@vsphere.local"


def create_agency(bench: Bench, user: str, password: str, name: str = "ContrailVM-Agency") -> None:
    """As somebody else would: with plain pyVmomi, over the wire."""
    with connected(bench.simulator, user, password) as instance:
        config = eam.Agency.ConfigInfo(
            agencyName=name,
            agentName="ContrailVM",
            agentConfig=[eam.Agent.ConfigInfo(hostVersion="*")],
            scope=eam.Agency.ComputeResourceScope(
                computeResource=[vim.ClusterComputeResource(c.moid) for c in bench.vcenter.clusters()]
            ),
        )
        eam_manager(bench.simulator, instance).CreateAgency(config, "enabled")


def ours(bench: Bench, user: str | None = None) -> list[Any]:
    """What was written in our name."""
    return [call for call in bench.writes() if call.fields["user"] == (user or bench.simulator.user)]


def test_one_agency_and_one_contrailvm_on_every_host(make_bench: Callable[..., Bench]) -> None:
    """S03: two clusters and a standalone host."""
    bench = make_bench(hosts=4, clusters=2)
    alone = bench.vcenter.add_standalone_host(name="lonely.dc0.example")
    paths = ("/DC0/host/ClusterA", "/DC0/host/ClusterB", "/DC0/host/lonely.dc0.example")
    bench.start(clusters=paths)
    bench.wait_until_active()
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    assert agency.name == "ContrailVM-Agency"
    assert sorted(agent.host.name for agent in agency.agents.values()) == sorted(bench.names())
    for host in bench.vcenter.hosts():
        assert len([vm for vm in host.vms.values() if vm.is_agent]) == 1
    assert bench.state(alone.name) == "ACTIVE"
    assert len(bench.writes("CreateAgency")) == 1
    assert_can_be_followed(bench.messages)


def test_hosts_out_of_scope_are_left_alone(bench: Bench) -> None:
    """S03: nothing is deployed, written or said about the other cluster."""
    bench.start(clusters=("/DC0/host/ClusterA",))
    inside = {host.name for host in bench.vcenter.clusters()[0].hosts.values()}
    bench.wait_until_active(*inside)
    outside = set(bench.names()) - inside
    assert outside
    assert {m["esxi"]["name"] for m in bench.messages if m["key"]} == inside
    for name in outside:
        assert bench.vcenter.agent_vm(name) is None


def test_a_restart_creates_and_changes_nothing(bench: Bench) -> None:
    """S03: the agency is found by its name again, not by anything that was stored."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    writes, vms = len(bench.writes()), [bench.vcenter.agent_vm(name).moid for name in bench.names()]
    for state in ("state", "another-state"):  # with what was stored, and as after the loss of the machine
        bench.start(defaults={"state_directory": bench.directory / state})
        bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches again")
        bench.wait_for(lambda: not len(bench.unit.pipeline.workers.queue), "everything was looked at")
        bench.stop()
    assert len(bench.writes()) == writes
    assert [bench.vcenter.agent_vm(name).moid for name in bench.names()] == vms


@pytest.mark.parametrize("owners", [[OTHER], ["us", OTHER], ["us", "us"]], ids=["foreign", "one of each", "two ours"])
def test_an_agency_that_is_not_ours_alone_is_refused_and_nothing_is_written(bench: Bench, owners: list[str]) -> None:
    """S03: another's agency of our name, or several, are for a person to judge: BLOCKED, the owners, and an alarm."""
    simulator = bench.simulator
    simulator.add_user(OTHER, "other", "all")
    for owner in owners:
        user, password = (OTHER, "other") if owner == OTHER else (simulator.user, simulator.password)
        create_agency(bench, user, password)
    before = len(bench.writes())
    bench.start()
    for host in bench.names():
        bench.wait_for_state(host, "BLOCKED")
    expected = OTHER if OTHER in owners else simulator.user
    assert expected in bench.alarms()["agency-conflict"]
    assert all(expected in m["reason"] for m in bench.listener.view.states.values())
    bench.unit.pipeline.workers.look_at_everything()
    bench.wait_for(lambda: not len(bench.unit.pipeline.workers.queue), "everything was looked at")
    assert len(bench.writes()) == before
    assert len(simulator.vcenter.eam.agencies) == len(owners)


def test_another_name_of_ours_beside_a_foreign_agency_is_no_conflict(bench: Bench) -> None:
    """S03: another vendor's agency, of another name, stands beside ours."""
    bench.simulator.add_user(OTHER, "other", "all")
    create_agency(bench, OTHER, "other", name="Firewall-Agency")
    bench.start()
    bench.wait_until_active()
    assert sorted(a.name for a in bench.simulator.vcenter.eam.agencies.values()) == [
        "ContrailVM-Agency",
        "Firewall-Agency",
    ]


def test_contrailvms_of_a_lost_agency_forbid_a_second_one(bench: Bench) -> None:
    """S03: EAM's database was restored without the agency; a new one would have EAM delete and redeploy all VMs."""
    bench.simulator.knobs.change({"orphan_cleanup": False})
    bench.start()
    bench.wait_until_active()
    bench.stop()
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    bench.simulator.vcenter.eam.lose(agency)
    before = len(bench.writes("CreateAgency"))
    bench.start(defaults={"state_directory": bench.directory / "of-another-machine"})
    for host in bench.names():
        bench.wait_for_state(host, "BLOCKED")
    assert "ContrailVM" in bench.alarms()["act:agency"]
    assert len(bench.writes("CreateAgency")) == before


@contextmanager
def limited(bench: Bench, *privileges: str) -> Iterator[dict[str, Any]]:
    """Login of an account that may read, and has these privileges."""
    bench.simulator.add_user("limited@vsphere.local", "limited", privileges)
    yield {"vc_username": "limited@vsphere.local", "vc_password": Secret("limited")}


def test_a_missing_privilege_is_named_and_nothing_is_created_until_it_is_given(
    bench: Bench, quick_retries: None
) -> None:
    """S03: without EAM.Modify the service says so, watches on, and goes on by itself once it may."""
    rest = ("EAM.View", "Host.Config.Settings", "Host.Config.AdvancedConfig", "Host.Config.Network", "EAM.Config")
    with limited(bench, *rest) as login:
        bench.start(vcenter=login)
        for host in bench.names():
            bench.wait_for_state(host, "BLOCKED")
        assert "EAM.Modify" in bench.alarms()["act:agency"]
        assert not bench.simulator.vcenter.eam.agencies
        bench.simulator.add_user("limited@vsphere.local", "limited", "all")
        bench.wait_until_active()
        assert bench.alarms() == {}


def test_an_account_that_may_not_even_look_at_eam_says_so(bench: Bench, quick_retries: None) -> None:
    """S03: without EAM.View there is no first complete read, so nothing is published and nothing is written."""
    with limited(bench) as login:
        bench.start(vcenter=login)
        bench.wait_for(lambda: "eam" in bench.alarms(), "the alarm")
        assert "EAM.View" in bench.alarms()["eam"]
        assert [m for m in bench.messages if m["key"]] == []
        assert ours(bench, "limited@vsphere.local") == []
        bench.simulator.add_user("limited@vsphere.local", "limited", "all")
        bench.wait_until_active()
