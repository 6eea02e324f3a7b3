# SPDX-License-Identifier: Apache-2.0
"""The story that the demo tells: what an operator does, and what must be heard on the bus of it.

Each step is done to the simulated vCenter as a person or a failure would do it; the plugin is told nothing. A
step is over when the listener has heard what it promises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vcenter_eam_plugin.simulator.stimuli import Stimuli


@dataclass(frozen=True, slots=True)
class Step:
    """``act`` does it and returns, per host name, the states that must be heard in this order, the last one last.

    ``until`` is what the newest message of those hosts must say besides.
    """

    name: str
    title: str
    act: Callable[[Stimuli], Mapping[str, tuple[str, ...]]]
    until: Callable[[Mapping[str, Any]], bool] = lambda _: True


@dataclass(slots=True)
class Chapter:
    """What happened in one step. ``states`` are all states heard per host, in order; ``seconds`` until it was over."""

    step: Step
    expected: Mapping[str, tuple[str, ...]]
    states: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    messages: int = 0
    _newest: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take in one message as it was received."""
        self.messages += 1
        if message["key"] is not None:
            self._newest[message["esxi"]["name"]] = message
        if message["event"] == "state":
            self.states.setdefault(message["esxi"]["name"], []).append(message["state"])

    @property
    def told(self) -> bool:
        """Whether everything that the step promises was heard."""
        return all(
            _holds(self.states.get(host, []), states) and self.step.until(self._newest[host])
            for host, states in self.expected.items()
        )


def _holds(heard: list[str], expected: tuple[str, ...]) -> bool:
    """``expected`` is in ``heard`` in this order, and its last one is the last heard."""
    rest = iter(heard)
    return heard[-1:] == [expected[-1]] and all(state in rest for state in expected)


def _deploy(vcenter: Stimuli) -> Mapping[str, tuple[str, ...]]:
    return {host.name: ("DEPLOYING", "ACTIVE") for host in vcenter.hosts()}


def _add_host(vcenter: Stimuli) -> Mapping[str, tuple[str, ...]]:
    host = vcenter.add_host(vcenter.clusters()[0])
    return {host.name: ("DEPLOYING", "ACTIVE")}


def _enter_maintenance(vcenter: Stimuli) -> Mapping[str, tuple[str, ...]]:
    host = vcenter.hosts()[0]
    vcenter.enter_maintenance(host)
    return {host.name: ("MAINTENANCE",)}


def _exit_maintenance(vcenter: Stimuli) -> Mapping[str, tuple[str, ...]]:
    host = vcenter.hosts()[0]
    vcenter.exit_maintenance(host)
    return {host.name: ("STARTING", "ACTIVE")}


def _power_off(vcenter: Stimuli) -> Mapping[str, tuple[str, ...]]:
    host = vcenter.hosts()[1]
    vcenter.power_off(_contrail_vm(vcenter, host))
    return {host.name: ("POWERED_OFF", "ACTIVE")}


def _delete(vcenter: Stimuli) -> Mapping[str, tuple[str, ...]]:
    host = vcenter.hosts()[2]
    vm = _contrail_vm(vcenter, host)
    vcenter.destroy(vm)
    return {host.name: ("MISSING", "DEPLOYING", "ACTIVE")}


def _remove_host(vcenter: Stimuli) -> Mapping[str, tuple[str, ...]]:
    host = vcenter.hosts()[-1]
    vcenter.remove_host(host)
    return {host.name: ("REMOVED",)}


def _contrail_vm(vcenter: Stimuli, host: Any) -> Any:
    vm = vcenter.agent_vm(host)
    if vm is None:
        raise LookupError(f"{host.name} has no ContrailVM")
    return vm


STORY: tuple[Step, ...] = (
    Step("deploy", "Three hosts in two clusters get their ContrailVM", _deploy),
    Step("add-host", "A host is added; nobody does anything else", _add_host),
    Step(
        "enter-maintenance",
        "A host enters maintenance mode: being off is right",
        _enter_maintenance,
        lambda message: bool(message["esxi"]["maintenance"]) and message["esxi"]["task"] is None,
    ),
    Step(
        "exit-maintenance",
        "It leaves maintenance mode",
        _exit_maintenance,
        lambda message: message["esxi"]["task"] is None,
    ),
    Step("power-off", "Somebody powers a ContrailVM off; it is repaired", _power_off),
    Step("delete", "Somebody deletes a ContrailVM; it is deployed again", _delete),
    Step("remove-host", "A host is removed", _remove_host),
)
