# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order, the simulated EAM stays consistent, and settles once the world is well again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyVmomi import eam, vim

from tests.unit.simulator.lab import URL, Lab
from vcenter_eam_plugin.simulator.agency import Agency
from vcenter_eam_plugin.simulator.compute_resource import ClusterComputeResource
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine

URLS = (URL, f"{URL}?digest=2", f"{URL}?digest=3")
CLUSTERS = ("ClusterA", "ClusterB", "Other")
HELD = "manuallyMarkAgentVmAvailableAfterProvisioning"
MARKED = "manuallyMarkAgentVmAvailableAfterPowerOn"
ROUNDS = 12
"""Repairs after which everything must be well: each round removes at least what blocked the one before."""


class Story:
    """One vCenter with two clusters in scope and one out of it, and what may happen to it."""

    def __init__(self) -> None:
        self.lab = Lab(hosts=3, clusters=2)
        self.lab.do.add_cluster("Other")
        first = [self.lab.do.find(ClusterComputeResource, name).ref for name in CLUSTERS[:2]]
        self.agency: Agency = self.lab.create(scope=eam.Agency.ComputeResourceScope(computeResource=first))
        self.url = URL

    # What happens: each verb takes a number that chooses.

    def host(self, pick: int) -> HostSystem | None:
        hosts = self.lab.vcenter.hosts()
        return hosts[pick % len(hosts)] if hosts else None

    def vm(self, pick: int) -> VirtualMachine | None:
        vms = [vm for vm in self.lab.world.each(VirtualMachine) if vm.is_agent]
        return vms[pick % len(vms)] if vms else None

    def on_host(self, verb: str, pick: int) -> None:
        host = self.host(pick)
        if host is not None:
            getattr(self.lab.do, verb)(host)

    def on_vm(self, verb: str, pick: int) -> None:
        vm = self.vm(pick)
        if vm is not None:
            getattr(self.lab.do, verb)(vm)

    def wait(self, pick: int) -> None:
        self.lab.clock.advance((0.01, 0.05, 0.2, 1.0)[pick % 4])

    def add_host(self, pick: int) -> None:
        if len(self.lab.vcenter.hosts()) < 5:
            self.lab.do.add_host(CLUSTERS[pick % 3])

    def add_host_again(self, pick: int) -> None:
        names = list(self.lab.world.machines)
        if names:
            self.lab.do.add_host(CLUSTERS[pick % 3], names[pick % len(names)])

    def move_host(self, pick: int) -> None:
        host = self.host(pick)
        if host is not None:
            self.lab.do.move_host(host, CLUSTERS[pick // 8 % 3])

    def partial(self, pick: int) -> None:
        host = self.host(pick)
        if host is not None:
            self.lab.do.partial_maintenance(host, on=bool(pick & 8))

    def update(self, **changes: Any) -> None:
        self.agency.update(self.lab.call, eam.Agency.ConfigInfo(**changes))

    def upgrade(self, pick: int) -> None:
        self.url = URLS[pick % 3]
        self.update(agentConfig=[eam.Agent.ConfigInfo(ovfPackageUrl=self.url)])

    def hold(self, pick: int) -> None:
        self.update(**{HELD if pick & 1 else MARKED: bool(pick & 2)})

    def scope(self, pick: int) -> None:
        chosen = [name for number, name in enumerate(CLUSTERS) if pick >> number & 1]
        morefs = [self.lab.do.find(ClusterComputeResource, name).ref for name in chosen]
        self.update(scope=eam.Agency.ComputeResourceScope(computeResource=vim.ComputeResource.Array(morefs)))

    def mark(self, pick: int) -> None:
        held = [agent for agent in self.agency.agents.values() if agent.hook is not None]
        if held:
            held[pick % len(held)].mark_as_available(self.lab.extension_of(self.agency))

    def resolve(self, pick: int) -> None:
        keys = self.lab.keys(self.agency)
        if keys:
            self.agency.resolve(self.lab.call, [keys[pick % len(keys)]])

    def lose(self, pick: int) -> None:
        if pick & 1:
            self.lab.do.restore_agency(self.agency.name)
            return
        config = self.agency.query_config(self.lab.call)
        self.lab.do.lose_agency(self.agency.name)
        self.agency = self.lab.eam.create_agency(self.lab.call, agencyConfigInfo=config, initialGoalState="enabled")

    def freeze(self, pick: int) -> None:
        (self.lab.do.freeze_eam if pick & 1 else self.lab.do.thaw_eam)()

    # What must be true.

    def check_always(self) -> None:
        """Every agent is counted once, by its host and by its colour, and owns what it says it owns."""
        agents = list(self.agency.agents.values())
        assert [agent.host.moid for agent in agents] == list(self.agency.agents)
        assert Counter(agent.status for agent in agents) == +self.agency._colours
        assert all((agent.status == "red") == bool(agent.issues) for agent in agents)
        owned = {vm.moid: agent for agent in agents for vm in agent.vms}
        assert {moid: agent for moid, agent in self.lab.eam.owners.items() if agent in agents} == owned
        for agent in agents:
            runtime = agent.prop_runtime()
            assert runtime.vmHook is None or runtime.vmHook.vm._moId in [vm.moid for vm in agent.vms]
            assert agent.replacement is None or agent.vm is not None

    def heal(self) -> None:
        """People undo what was done to hosts and to EAM, take every hold off, and resolve what is left."""
        lab = self.lab
        lab.do.thaw_eam()
        self.update(**{HELD: False, MARKED: False})
        for _ in range(ROUNDS):
            for host in lab.vcenter.hosts():
                lab.do.partial_maintenance(host, on=False)
                lab.do.recover(host)
                for verb in ("wake", "reconnect", "exit_maintenance"):
                    getattr(lab.do, verb)(host)  # a task that fails where there is nothing to undo
            lab.settle()
            self.check_always()
            self.agency.resolve_all(lab.call)
            lab.settle()
            if self.agency.status == "green":
                return
        raise AssertionError(lab.issue_types(self.agency))

    def check_settled(self) -> None:
        """One agent with one running VM of the right make per host in scope, and no agent VM besides."""
        in_scope = {host.moid for resource in self.agency.scope() for host in resource.hosts.values()}
        assert set(self.agency.agents) == in_scope
        for agent in self.agency.agents.values():
            assert agent.status == "green"
            assert agent.replacement is None
            assert agent.hook is None
            assert agent.vm is not None
            assert agent.vm.on
            assert agent.vm.host is agent.host
            assert agent.build is not None
            assert agent.build.url == self.url
            assert agent.available
        vms = {vm.moid for vm in self.lab.world.each(VirtualMachine) if vm.is_agent}
        assert vms == {agent.vm.moid for agent in self.agency.agents.values() if agent.vm is not None}
        assert set(self.lab.eam.owners) == vms
        assert self.lab.eam.watch.orphans == {}


HOST_VERBS = (
    "remove_host",
    "enter_maintenance",
    "exit_maintenance",
    "disconnect",
    "reconnect",
    "not_responding",
    "crash",
    "recover",
    "reboot",
    "enter_standby",
    "wake",
)
VM_VERBS = ("power_off", "power_on", "suspend", "destroy", "corrupt")
OWN_VERBS = (
    "wait",
    "add_host",
    "add_host_again",
    "move_host",
    "partial",
    "upgrade",
    "hold",
    "scope",
    "mark",
    "resolve",
    "lose",
    "freeze",
)


def act(story: Story, verb: str, pick: int) -> None:
    """One stimulus."""
    if verb in HOST_VERBS:
        story.on_host(verb, pick)
    elif verb in VM_VERBS:
        story.on_vm(verb, pick)
    else:
        own: Callable[[int], None] = getattr(story, verb)
        own(pick)


STEPS = st.lists(
    st.tuples(st.sampled_from([*HOST_VERBS, *VM_VERBS, *OWN_VERBS]), st.integers(0, 63), st.integers(0, 3)), max_size=25
)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_any_story_ends_well(steps: list[tuple[str, int, int]]) -> None:
    """Any sequence of stimuli, at any pace: consistent all the way, and one agent VM per host in scope at the end."""
    story = Story()
    for verb, pick, pause in steps:
        act(story, verb, pick)
        story.wait(pause)
        story.check_always()
    story.heal()
    story.check_settled()
