# SPDX-License-Identifier: Apache-2.0
"""Resolve and MarkAvailable: a second look before, the gate right before, and no return value taken for success."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.support.facts import CLUSTER, a_fleet, a_host, an_agent, an_issue
from vcenter_eam_plugin import actor as actor_module
from vcenter_eam_plugin.actor import Actor, AgencyTemplate
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.domain.actions import MarkAvailable, Provision, Resolve
from vcenter_eam_plugin.domain.budgets import RESOLVE_SETTLES, Ledger, Limits
from vcenter_eam_plugin.domain.errors import ObjectGone, PrivilegeMissing, Unavailable, WrongState
from vcenter_eam_plugin.domain.facts import AgentFacts, HookState, HostChoices, HostTask, SettingsChoice
from vcenter_eam_plugin.domain.host_spec import HostIdentity, HostSpecs
from vcenter_eam_plugin.domain.observations import AgentsObserved, InventoryObserved, Observation
from vcenter_eam_plugin.domain.planner import Desired, Planner
from vcenter_eam_plugin.gate import Gate
from vcenter_eam_plugin.vrouter_probe import Probed
from vcenter_eam_plugin.vsphere import host_settings

RESOLVE = Resolve("host-1", "agent-1", "VmNotDeployed")
MARK = MarkAvailable("host-1", "agent-1", "poweredOn")


class Eam:
    """One agent that the test describes; takes what is asked of it, or raises."""

    def __init__(self, agent: AgentFacts) -> None:
        self.agent: AgentFacts | None = agent
        self.asked: list[tuple[str, tuple[int, ...]]] = []
        self.marked: list[str] = []
        self.unknown: tuple[int, ...] = ()
        self.error: Exception | None = None

    def read_agents(self, morefs: Sequence[str]) -> AgentsObserved:
        return AgentsObserved((self.agent,)) if self.agent else AgentsObserved((), tuple(morefs))

    def resolve(self, agent: str, keys: Sequence[int]) -> tuple[int, ...]:
        self.asked.append((agent, tuple(keys)))
        if self.error:
            raise self.error
        return self.unknown

    def mark_available(self, agent: str) -> None:
        if self.error:
            raise self.error
        self.marked.append(agent)


class Bench:
    """An actor over one host, with everything but vCenter real."""

    def __init__(self, agent: AgentFacts) -> None:
        self.now = 1000.0
        self.fleet = a_fleet(a_host(), agents=(agent,))
        self.eam = Eam(replace(agent, read_began=999.0))
        self.planner = Planner(Desired((CLUSTER,)), Ledger(Limits()))
        self.gate = Gate(act=True, is_leader=lambda: True)
        self.read: list[str | None] = []
        self.notes: list[tuple[str, str]] = []
        log = logging.getLogger("test.actor")
        self.alarms = Alarms(log, lambda: self.now)
        self.actor = Actor(
            session=SimpleNamespace(),  # type: ignore[arg-type]
            eam=self.eam,  # type: ignore[arg-type]
            memory=SimpleNamespace(),  # type: ignore[arg-type]
            fleet=self.fleet,
            planner=self.planner,
            gate=self.gate,
            alarms=self.alarms,
            package=SimpleNamespace(url=lambda: "http://ovf.example/contrail.ovf", certificate=lambda: None),
            template=AgencyTemplate("ContrailVM-Agency", "ContrailVM", (), False, False),
            host_specs=HostSpecs(),
            identity_of=lambda host: HostIdentity(key=host, name=host, cluster="c", datacenter="d"),
            probe=lambda _: Probed(True),
            install=None,
            note=lambda host, text: self.notes.append((host, text)),
            clock=lambda: self.now,
            observe=self.observe,
            read_soon=self.read.append,
            log=log,
        )
        self.planner.observe(self.fleet, "host-1", 0.0)

    def observe(self, observation: Observation) -> None:
        self.fleet.apply(observation)
        self.planner.observe(self.fleet, "host-1", self.now)


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> list[HostChoices]:
    """What the host offers and has set, as vCenter would answer: the last one counts."""
    shared, network = SettingsChoice("datastore-1", "shared", 1 << 40), SettingsChoice("network-1", "VM Network")
    answers = [HostChoices("host-1", (shared,), (network,), "datastore-1", "network-1")]
    monkeypatch.setattr(host_settings, "read_choices", lambda *_: answers[-1])
    return answers


@pytest.fixture
def broken(choices: list[HostChoices]) -> Bench:
    return Bench(an_agent(1, "VmNotDeployed", vm=None))


@pytest.fixture
def held() -> Bench:
    return Bench(an_agent(hook=HookState.POWERED_ON))


def test_resolve_uses_the_keys_of_a_moment_before(broken: Bench) -> None:
    """Design section 5: EAM regenerates keys; on the wire only those of this one issue, never all."""
    agent = broken.eam.agent
    assert agent is not None
    broken.eam.agent = replace(
        agent, issues=(an_issue("HostInMaintenanceMode", key=5), an_issue("VmNotDeployed", key=77))
    )
    broken.actor.do(RESOLVE)
    assert broken.eam.asked == [("agent-1", (77,))]
    assert broken.read == ["host-1"]
    assert broken.planner.ledger.running(CLUSTER) == 1


def test_what_is_no_longer_to_be_done_is_not_done(broken: Bench) -> None:
    """The second look: EAM is at work by now, or the agent is gone."""
    broken.eam.agent = an_agent(1, read_began=999.0)
    broken.actor.do(RESOLVE)
    broken.eam.agent = None
    broken.actor.do(RESOLVE)
    assert broken.eam.asked == []
    assert broken.planner.ledger.running(CLUSTER) == 0


def test_the_gate_is_asked_right_before_the_write(broken: Bench, held: Bench) -> None:
    """Paused in between: nothing is written, and nothing is booked."""
    for bench, action in ((broken, RESOLVE), (held, MARK)):
        bench.gate.pause()
        with pytest.raises(WrongState):
            bench.actor.do(action)
        assert (bench.eam.asked, bench.eam.marked) == ([], [])
        assert bench.planner.ledger.running(CLUSTER) == 0


def test_an_issue_that_cannot_be_resolved_now_is_not_asked_about_in_a_loop(broken: Bench) -> None:
    """Bug: keys that EAM gave back as not resolvable at present were taken for gone, outside of every budget, so the
    same Resolve went out again as fast as EAM could be read."""
    broken.eam.unknown = (0,)
    for _ in range(5):
        broken.actor.do(RESOLVE)
        broken.now += 1
    assert len(broken.eam.asked) == 1
    broken.now += RESOLVE_SETTLES
    agent = broken.eam.agent
    assert agent is not None
    broken.observe(AgentsObserved((replace(agent, read_began=broken.now),)))
    verdict = broken.planner.ledger.ask(CLUSTER, "host-1", broken.now)
    assert "1 repair(s) of this host failed" in verdict.reason


@pytest.mark.parametrize("error", [PrivilegeMissing("EAM.Modify"), ObjectGone("gone"), WrongState("no")])
def test_a_refused_resolve_has_failed(broken: Bench, error: Exception) -> None:
    """There is nothing to wait for."""
    broken.eam.error = error
    with pytest.raises(type(error)):
        broken.actor.do(RESOLVE)
    assert broken.planner.ledger.running(CLUSTER) == 0
    assert not broken.planner.ledger.ask(CLUSTER, "host-1", broken.now).allowed


def test_a_resolve_whose_answer_is_lost_may_have_been_carried_out(broken: Bench) -> None:
    """Booked before the call: it counts until what is seen says how it ended."""
    broken.eam.error = Unavailable("the connection broke")
    with pytest.raises(Unavailable):
        broken.actor.do(RESOLVE)
    assert broken.planner.ledger.running(CLUSTER) == 1


def test_a_hook_is_answered(held: Bench) -> None:
    """A duty, after every power-on; gone meanwhile, it is none."""
    held.actor.do(MARK)
    assert held.eam.marked == ["agent-1"]
    held.eam.agent = an_agent(read_began=999.5)
    held.actor.do(MARK)
    assert held.eam.marked == ["agent-1"]


def test_a_refused_mark_is_an_alarm_and_ends_marking(held: Bench) -> None:
    """Design section 5: on NotAuthorized the plugin alarms and clears the flags instead of looping."""
    held.eam.error = PrivilegeMissing("MarkAsAvailable is refused to contrail.")
    with pytest.raises(PrivilegeMissing):
        held.actor.do(MARK)
    assert "may-not-mark" in held.alarms
    assert not held.planner.may_mark


def test_settings_that_point_to_nothing_are_said_and_nothing_is_asked(
    broken: Bench, choices: list[HostChoices]
) -> None:
    """S09: EAM would only fail again; who set them must mend them."""
    choices.append(replace(choices[0], agent_datastore="datastore-9"))
    with pytest.raises(WrongState, match="not mounted"):
        broken.actor.do(RESOLVE)
    assert broken.eam.asked == []
    assert "not mounted" in broken.notes[-1][1]


def test_a_host_that_goes_into_maintenance_while_its_settings_are_read_is_left_alone(
    broken: Bench, choices: list[HostChoices], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: between the second look and the Resolve vCenter is read; what it showed meanwhile was not looked at."""

    def read(*_: object) -> HostChoices:
        entering = a_host(task=HostTask.ENTERING_MAINTENANCE)
        broken.observe(InventoryObserved(at=999.5, complete=False, hosts=(entering,)))
        return choices[-1]

    monkeypatch.setattr(host_settings, "read_choices", read)
    broken.actor.do(RESOLVE)
    assert broken.eam.asked == []
    assert broken.planner.ledger.running(CLUSTER) == 0


def test_a_host_that_goes_into_maintenance_while_its_vm_is_customised_is_not_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bug: customising takes up to minutes; the hook was answered after it whatever had become of the host, and EAM
    powered a ContrailVM on where it was just to go off."""
    bench = Bench(an_agent(hook=HookState.PROVISIONED))

    def customise(*_: object, **__: object) -> tuple[()]:
        entering = a_host(task=HostTask.ENTERING_MAINTENANCE)
        bench.observe(InventoryObserved(at=999.5, complete=False, hosts=(entering,)))
        return ()

    monkeypatch.setattr(actor_module, "customise", customise)
    bench.actor.do(Provision("host-1", "agent-1", "vm-1", HookState.PROVISIONED.value, False))
    assert bench.eam.marked == []
