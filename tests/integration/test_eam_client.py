# SPDX-License-Identifier: Apache-2.0
"""S02, S03, S08: EAM in facts and morefs.

vcsim's EAM cannot answer a runtime that pyVmomi understands (``test_vcsim_gaps``), so what reads one runs
against our simulator alone; membership, configuration and Update run against both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from pyVmomi import eam, vim

from tests.support.files import serving
from tests.support.vcenters import Admin, VCenter, wait_for
from vcenter_eam_plugin.domain.errors import (
    ObjectGone,
    OvfError,
    PluginError,
    PrivilegeMissing,
    ScopeError,
    SessionExpired,
    Unavailable,
    WrongState,
)
from vcenter_eam_plugin.domain.facts import AgentFacts, EamStatus, GoalState, HookState
from vcenter_eam_plugin.eam.agency import AgencySpec, build_config, scope_of
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.simulator.sample_ovf import write_sample
from vcenter_eam_plugin.vsphere.scope import list_compute_resources
from vcenter_eam_plugin.vsphere.session import Session


@pytest.fixture
def ovf_url(tmp_path: Path) -> Iterator[str]:
    """URL of a package that EAM can really download."""
    descriptor = write_sample(tmp_path / "ovf")
    with serving(descriptor.parent) as base:
        yield f"{base}/{descriptor.name}"


@pytest.fixture
def client(simulator_vcenter: VCenter) -> Iterator[EamClient]:
    with simulator_vcenter.session() as session:
        yield EamClient(session)


def spec(ovf_url: str, *scope: str, **changes: Any) -> AgencySpec:
    made = AgencySpec(name="ContrailVM-Agency", agent_name="ContrailVM", ovf_url=ovf_url, scope=scope)
    return dataclasses.replace(made, **changes)


def clusters(vcenter: VCenter) -> list[Any]:
    return vcenter.simulator.vcenter.stimuli.clusters()


def prepare_hosts(vcenter: VCenter) -> None:
    """Give every host its Agent VM settings, without which nothing is deployed."""
    stimuli = vcenter.simulator.vcenter.stimuli
    for host in stimuli.hosts():
        datastore, network = next(iter(host.datastores.values())), next(iter(host.networks.values()))
        stimuli.set_agent_settings(host, datastore.name, network.name)


def read_all(client: EamClient, agency: str) -> tuple[AgentFacts, ...]:
    return client.read_agents(client.agents_of(agency)).agents


def all_green(client: EamClient, agency: str, count: int) -> tuple[AgentFacts, ...]:
    def look() -> tuple[AgentFacts, ...]:
        agents = read_all(client, agency)
        return agents if len(agents) == count and {a.status for a in agents} == {EamStatus.GREEN} else ()

    return wait_for(look, f"{count} green agents")


# --- on both servers ---------------------------------------------------------------------------------------


def speak_recent(session: Session) -> None:
    """vcsim calls itself 6.5, and at that level an agency's folders would be dropped; its EAM knows them."""
    session.eam_stub().speak("eam.version.version9_0")


def full_config(session: Session, cluster: Any, ovf_url: str) -> Any:
    """A configuration with everything that vcsim needs to place a VM."""
    host = vim.HostSystem(cluster.hosts[0], session.vim_stub())
    datacenter = next(one for one in session.call(getattr, session.content.rootFolder, "childEntity"))
    config = build_config(spec(ovf_url, cluster.moref))
    config.agentVmDatastore = [session.call(getattr, host, "datastore")[0]]
    config.agentVmNetwork = [session.call(getattr, host, "network")[0]]
    folder = session.call(getattr, datacenter, "vmFolder")
    config.folders = [eam.Agency.VMFolder(folderId=folder, datacenterId=datacenter)]
    pool = session.call(getattr, vim.ClusterComputeResource(cluster.moref, session.vim_stub()), "resourcePool")
    config.resourcePools = [
        eam.Agency.VMResourcePool(resourcePoolId=pool, computeResourceId=vim.ClusterComputeResource(cluster.moref))
    ]
    return config


def test_s03_scope_and_holds_are_changed_in_place(vcenter: VCenter, admin: Admin, ovf_url: str) -> None:
    """S03, S04: QueryConfig, modify, Update: what is not ours to change stays, and nothing to change is no write."""
    session = admin.session
    speak_recent(session)
    first, second = [one for one in list_compute_resources(session) if one.is_cluster][:2]
    manager = eam.EsxAgentManager("EsxAgentManager", session.eam_stub())
    agency = session.call(manager.CreateAgency, full_config(session, first, ovf_url), "enabled", idempotent=False)
    moref = agency._GetMoId()
    with vcenter.session() as other:
        speak_recent(other)
        client = EamClient(other)
        before = session.call(agency.QueryConfig)
        client.extend_scope(moref, [second.moref, first.moref])
        client.set_holds(moref, after_provisioning=True, after_power_on=False)
        config = session.call(agency.QueryConfig)
        assert scope_of(config) == (first.moref, second.moref)
        assert config.manuallyMarkAgentVmAvailableAfterProvisioning is True
        assert not config.manuallyMarkAgentVmAvailableAfterPowerOn
        assert config.agentConfig[0].ovfPackageUrl == ovf_url
        assert [one._GetMoId() for one in config.agentVmDatastore] == [
            one._GetMoId() for one in before.agentVmDatastore
        ]
        assert [one.folderId._GetMoId() for one in config.folders] == [
            one.folderId._GetMoId() for one in before.folders
        ]
        assert client.agents_of(moref)
    session.call(agency.DestroyAgency, idempotent=False)


def test_destroyed_agency_is_gone(vcenter: VCenter, admin: Admin) -> None:
    with vcenter.session() as session, pytest.raises(ObjectGone):
        EamClient(session).agents_of("00000000-0000-0000-0000-000000000000")


# --- on our simulator alone --------------------------------------------------------------------------------


def test_s03_agency_is_created_and_read_back(simulator_vcenter: VCenter, client: EamClient, ovf_url: str) -> None:
    """S03: one agent per host of the scope, deployed; owner, scope and OVF as they were asked for."""
    prepare_hosts(simulator_vcenter)
    assert client.agencies() == ()
    cluster = clusters(simulator_vcenter)[0]
    moref = client.create_agency(spec(ovf_url, cluster.moid, ovf_properties=(("datacenter", "DC0"),)))
    agents = all_green(client, moref, 3)
    (agency,) = client.agencies()
    assert agency == client.read_agency(moref)
    assert agency.name == "ContrailVM-Agency"
    assert (agency.owner or agency.solution_id).casefold() == simulator_vcenter.user.casefold()
    assert agency.scope == (cluster.moid,)
    assert agency.ovf_url == ovf_url
    assert agency.goal is GoalState.ENABLED
    assert {agent.host for agent in agents} == {host.moid for host in cluster.hosts.values()}
    assert {agent.agency for agent in agents} == {moref}
    assert all(agent.vm and agent.vm_name.startswith("ContrailVM (") for agent in agents)
    assert all(agent.issues == () and agent.hook is None for agent in agents)


def test_s08_issue_is_read_by_its_exact_type_and_resolved(
    simulator_vcenter: VCenter, client: EamClient, ovf_url: str
) -> None:
    """S07, S08: a powered-off ContrailVM is red; resolving by a key read just before repairs it."""
    prepare_hosts(simulator_vcenter)
    moref = client.create_agency(spec(ovf_url, clusters(simulator_vcenter)[0].moid))
    agent = all_green(client, moref, 3)[0]
    simulator_vcenter.simulator.vcenter.stimuli.power_off(simulator_vcenter.simulator.world.objects[agent.vm])
    red = wait_for(lambda: next((a for a in client.read_agents([agent.moref]).agents if a.issues), None), "the issue")
    assert red.status is EamStatus.RED
    (issue,) = red.issues
    assert issue.type == "VmPoweredOff"
    assert (issue.agent, issue.host, issue.vm) == (agent.moref, agent.host, agent.vm)
    assert client.resolve(agent.moref, []) == ()
    assert client.resolve(agent.moref, [issue.key, 987654]) == (987654,)
    all_green(client, moref, 3)


def test_read_began_before_the_request_left(simulator_vcenter: VCenter, client: EamClient, ovf_url: str) -> None:
    """A read proves nothing about what happened after it left, so each carries its own time, by the session's clock."""
    prepare_hosts(simulator_vcenter)
    moref = client.create_agency(spec(ovf_url, clusters(simulator_vcenter)[0].moid))
    morefs = wait_for(lambda: client.agents_of(moref), "agents")
    before = client._session.clock()
    agents = client.read_agents(morefs).agents
    assert all(before <= agent.read_began <= client._session.clock() for agent in agents)


def test_agent_that_is_gone_is_named_and_the_others_are_read(
    simulator_vcenter: VCenter, client: EamClient, ovf_url: str
) -> None:
    """A host removed between listing and reading must not spoil the poll."""
    prepare_hosts(simulator_vcenter)
    moref = client.create_agency(spec(ovf_url, clusters(simulator_vcenter)[0].moid))
    morefs = wait_for(lambda: (found := client.agents_of(moref)) and len(found) == 3 and found, "three agents")
    observed = client.read_agents([*morefs, "no-such-agent", morefs[0]])
    assert observed.gone == ("no-such-agent",)
    assert [agent.moref for agent in observed.agents] == list(morefs)


def test_failed_read_fails_the_whole(simulator_vcenter: VCenter, client: EamClient, ovf_url: str) -> None:
    """Half a poll looks like missing agents; nobody may see it."""
    prepare_hosts(simulator_vcenter)
    moref = client.create_agency(spec(ovf_url, clusters(simulator_vcenter)[0].moid))
    morefs = wait_for(lambda: client.agents_of(moref), "agents")
    simulator_vcenter.simulator.faults.inject("eam_not_initialized", method="AgentQueryRuntime", count=1)
    with pytest.raises(Unavailable):
        client.read_agents(morefs)
    assert len(client.read_agents(morefs).agents) == len(morefs)


def test_killed_poll_leaves_no_reader(simulator_vcenter: VCenter, client: EamClient, ovf_url: str) -> None:
    """SIGTERM in the middle of a poll: its greenlets end with it."""
    prepare_hosts(simulator_vcenter)
    moref = client.create_agency(spec(ovf_url, clusters(simulator_vcenter)[0].moid))
    morefs = wait_for(lambda: client.agents_of(moref), "agents")
    simulator_vcenter.simulator.faults.inject("slow", method="AgentQueryRuntime", delay=30)
    poll = gevent.spawn(client.read_agents, morefs)
    gevent.sleep(0.2)
    with gevent.Timeout(2):
        poll.kill()
    simulator_vcenter.simulator.faults.clear("slow")
    assert poll.dead


def test_hook_is_read_and_plain_user_may_not_mark(simulator_vcenter: VCenter, client: EamClient, ovf_url: str) -> None:
    """Identity: MarkAsAvailable is documented without a user privilege; who may not is told so, in one sentence."""
    prepare_hosts(simulator_vcenter)
    cluster = clusters(simulator_vcenter)[0]
    moref = client.create_agency(spec(ovf_url, cluster.moid, hold_after_provisioning=True))
    held = wait_for(lambda: [a for a in read_all(client, moref) if a.hook], "a pending hook")[0]
    assert held.hook.state is HookState.PROVISIONED
    assert held.hook.vm == held.vm
    with pytest.raises(PrivilegeMissing, match="extension"):
        client.mark_available(held.moref)
    simulator_vcenter.simulator.world.knobs.mark_allowed_for_users = True
    client.mark_available(held.moref)
    wait_for(lambda: read_all(client, moref) and client.read_agents([held.moref]).agents[0].hook is None, "the mark")
    wait_for(
        lambda: client.read_agents([held.moref]).agents[0].status is EamStatus.GREEN, "the agent to become available"
    )
    with pytest.raises(WrongState):
        client.mark_available(held.moref)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/no.ovf", "refused"),
        ("http://no-such-host.invalid/x.ovf", "unknown"),
        ("not a url", "malformed"),
    ],
)
def test_bad_ovf_url_is_one_sentence(simulator_vcenter: VCenter, client: EamClient, url: str, said: str) -> None:
    """Bad input: OVF missing; nothing half-made is left behind."""
    with pytest.raises(OvfError, match=said) as caught:
        client.create_agency(spec(url, clusters(simulator_vcenter)[0].moid))
    assert caught.value.exit_code == 7
    assert client.agencies() == ()


def test_missing_ovf_file_tells_the_status(simulator_vcenter: VCenter, client: EamClient, ovf_url: str) -> None:
    with pytest.raises(OvfError, match="404"):
        client.create_agency(spec(ovf_url + ".missing", clusters(simulator_vcenter)[0].moid))


def test_password_in_a_url_is_not_shown(simulator_vcenter: VCenter, client: EamClient) -> None:
    with pytest.raises(OvfError) as caught:
        client.create_agency(spec("http://user:hidden@127.0.0.1:9/x.ovf", clusters(simulator_vcenter)[0].moid))
    assert "hidden" not in str(caught.value)


def test_unknown_compute_resource_is_named(simulator_vcenter: VCenter, client: EamClient, ovf_url: str) -> None:
    with pytest.raises(ScopeError, match="domain-c9999"):
        client.create_agency(spec(ovf_url, "domain-c9999"))


def test_missing_privilege_is_one_sentence(simulator_vcenter: VCenter, ovf_url: str) -> None:
    """Bad input: who may look but not touch hears that, and nothing was changed."""
    simulator_vcenter.simulator.add_user("viewer", "look-only", {"EAM.View", "System.View", "System.Read"})
    with simulator_vcenter.session(username="viewer", password=lambda: "look-only") as session:
        client = EamClient(session)
        assert client.agencies() == ()
        with pytest.raises(PrivilegeMissing, match=r"EAM\.Modify") as caught:
            client.create_agency(spec(ovf_url, clusters(simulator_vcenter)[0].moid))
        assert caught.value.exit_code == 5


def test_lost_answer_to_a_write_is_not_sent_again(simulator_vcenter: VCenter, client: EamClient, ovf_url: str) -> None:
    """Measured trap: a stub that repeats every call on a socket error makes two agencies."""
    simulator_vcenter.simulator.faults.inject("lost_response", method="CreateAgency", count=1)
    with pytest.raises(Unavailable):
        client.create_agency(spec(ovf_url, clusters(simulator_vcenter)[0].moid))
    assert len(client.agencies()) == 1


def test_p8_no_agency_is_believed_only_of_a_session_that_lives(
    simulator_vcenter: VCenter, client: EamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: "there is none" makes us create one; an answer by a session that has ended does not count."""
    assert client.agencies() == ()
    monkeypatch.setattr(client._session, "alive", lambda: False)
    with pytest.raises(SessionExpired):
        client.agencies()


def test_session_expiry_in_the_middle_is_nothing_special(simulator_vcenter: VCenter, client: EamClient) -> None:
    """S02: EAM says InvalidLogin where vCenter says NotAuthenticated; both mean a new login, once."""
    simulator_vcenter.simulator.faults.inject("session_kill")
    try:
        assert client.agencies() == ()
    except PluginError as exc:
        pytest.fail(str(exc))
    assert client._session.generation == 2
