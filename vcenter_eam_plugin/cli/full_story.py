# SPDX-License-Identifier: Apache-2.0
"""Every row that the system must do, told one after the other on the simulator: what happens, what is published.

For the rules that vCenter keeps (DRS, DPM, HA) each row is told twice: kept, with silence; and broken on purpose,
with the violation by its name on the bus.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from pyVmomi import vim

from vcenter_eam_plugin.domain.errors import NotAcknowledged
from vcenter_eam_plugin.domain.operations import Operation, Request
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.server import Simulator
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine
from vcenter_eam_plugin.unit import Unit


class NotSeenError(Exception):
    """What a row promises was not seen in time; the sentence says what."""


class Stage(Protocol):
    """What a row plays on; the demo is one."""

    simulator: Simulator
    service: Service

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Until the condition holds; raises NotSeenError naming ``what``."""

    def heard(self, host: str) -> list[str]:
        """States published of a host since the row began."""

    def newest(self, host: str) -> Mapping[str, Any] | None:
        """The newest message about a host."""

    def violations(self, host: str) -> set[str]:
        """Names of the violations published of a host since the row began."""


@dataclass(slots=True)
class Play:
    """One row while it is played: the stage, and the sentences of what happened."""

    stage: Stage
    happened: list[str] = field(default_factory=list)

    @property
    def vcenter(self) -> Any:
        return self.stage.simulator.vcenter.stimuli

    @property
    def unit(self) -> Unit:
        return self.stage.service.units[0]

    def say(self, text: str) -> None:
        self.happened.append(text)

    def host(self, number: int) -> HostSystem:
        hosts: list[HostSystem] = self.vcenter.hosts()
        return hosts[number]

    def contrail_vm(self, host: HostSystem) -> VirtualMachine:
        vm = self.vcenter.agent_vm(host)
        if vm is None:
            raise NotSeenError(f"{host.name} has no ContrailVM")
        found: VirtualMachine = vm
        return found

    def contrail_vm_anywhere(self, host: HostSystem) -> VirtualMachine | None:
        """The ContrailVM of a host's agent, wherever it runs."""
        moid = next((agent.vm.moid for agent in host.agents.values() if agent.vm is not None), "")
        found = self.stage.simulator.world.find(moid) if moid else None
        return found if isinstance(found, VirtualMachine) else None

    def expect(self, host: HostSystem, *states: str) -> None:
        """These states are published in this order, the last one last."""

        def told() -> bool:
            heard = self.stage.heard(host.name)
            rest = iter(heard)
            return heard[-1:] == [states[-1]] and all(state in rest for state in states)

        self.stage.wait_for(told, f"{host.name}: {' > '.join(states)}")

    def expect_state(self, host: HostSystem, state: str) -> None:
        """The newest message about the host says so."""
        self.stage.wait_for(
            lambda: (message := self.stage.newest(host.name)) is not None and message["state"] == state,
            f"{host.name} is {state}",
        )

    def expect_violation(self, host: HostSystem, name: str) -> None:
        """The violation is published by its name."""
        self.stage.wait_for(lambda: name in self.stage.violations(host.name), f"{host.name}: violation {name}")

    def expect_silence(self, host: HostSystem) -> None:
        """No violation was published of the host."""
        found = self.stage.violations(host.name)
        if found:
            raise NotSeenError(f"{host.name}: silence, but there was {', '.join(sorted(found))}")

    def everybody_active(self) -> None:
        """Every host that there is runs a usable ContrailVM."""
        for host in self.vcenter.hosts():
            self.expect_state(host, "ACTIVE")

    @contextmanager
    def knobs(self, **changes: Any) -> Iterator[None]:
        """The simulated vCenter behaves so meanwhile: slower, or breaking one of its rules."""
        knobs = self.stage.simulator.knobs
        before = knobs.as_dict()
        knobs.change(changes)
        try:
            yield
        finally:
            knobs.change({name: before[name] for name in changes})


@dataclass(frozen=True, slots=True)
class Row:
    """``name`` is the row's of the specification."""

    name: str
    title: str
    play: Callable[[Play], None]


# --- the rows, in the order in which they build upon each other ---------------------------------------------


def _s03(play: Play) -> None:
    play.stage.wait_for(lambda: play.unit.pipeline is not None and play.unit.pipeline.fleet.agency, "the agency")
    play.everybody_active()
    hosts = len(play.vcenter.hosts())
    play.say(f"The agency was created, and EAM deployed one ContrailVM on each of {hosts} hosts.")


def _s01(play: Play) -> None:
    agency = play.unit.agency()
    url = (agency.ovf_url if agency is not None else None) or ""
    parts = urlsplit(url)
    for path, wanted in ((parts.path, http.client.OK), ("/ovf/../state", http.client.NOT_FOUND)):
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        try:
            connection.request("HEAD", path)
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != wanted:
            raise NotSeenError(f"{path}: HTTP status {wanted}, but it was {status}")
    play.say("EAM downloaded the package; its URL carries the content's digest, and nothing else is reachable.")


def _s02(play: Play) -> None:
    session = play.unit.session
    before = session.generation
    play.stage.simulator.faults.inject(name="session_kill")
    play.stage.wait_for(lambda: session.generation > before, "a new login")
    sessions = len(play.stage.simulator.sessions.active)
    play.say(f"Its session was killed; it logged in again by itself and holds {sessions} session.")


def _s04(play: Play) -> None:
    first, second = play.vcenter.clusters()[:2]
    pipeline = play.unit.pipeline
    host = next(h for h in play.vcenter.hosts() if h.compute_resource is second)
    if pipeline is None:
        raise NotSeenError("a pipeline")
    pipeline.retreat(second.moid, True)
    play.expect(host, "REMOVING", "REMOVED")
    pipeline.retreat(second.moid, False)
    play.expect(host, "REMOVING", "REMOVED", "ACTIVE")
    play.say(f"{second.name} was drained of its ContrailVMs and deployed to again; {first.name} was left alone.")


def _s05(play: Play) -> None:
    status = play.stage.service.status()["vcenters"][0]
    if status["states"] != {"ACTIVE": len(play.vcenter.hosts())} or status["agency"] is None:
        raise NotSeenError(f"the status shows agency and states, but it was {status['states']}")
    play.say(f"The status shows agency {status['agency']['moref']} and {status['states']}.")


def _s06(play: Play) -> None:
    host = play.host(1)
    operations = play.stage.service.operations
    request = Request(operation=Operation.POWER_OFF, target=host.name)
    shown = operations.preview(request)
    try:
        operations.begin(request, digest=shown.digest, acknowledge="", who="demo")
    except NotAcknowledged:
        pass
    else:
        raise NotSeenError("a refusal without the typed name")
    play.expect_state(host, "ACTIVE")
    operations.begin(request, digest=shown.digest, acknowledge=shown.acknowledge, who="demo")
    play.expect(host, "POWERED_OFF", "ACTIVE")
    play.say(f"Powering off the ContrailVM of {host.name} was refused until its name was typed.")


def _s07(play: Play) -> None:
    host = play.host(0)
    play.vcenter.power_off(play.contrail_vm(host))
    play.expect_state(host, "POWERED_OFF")
    play.stage.wait_for(
        lambda: play.unit.pipeline is not None and play.unit.pipeline.fleet.agency is not None
        and play.unit.pipeline.fleet.agency.status.value == "red",
        "the agency is red",
    )  # fmt: skip
    play.say(f"The ContrailVM of {host.name} was powered off: published at once, and the agency is red.")


def _s08(play: Play) -> None:
    host = play.host(0)
    play.expect(host, "ACTIVE")
    other = play.host(1)
    play.vcenter.destroy(play.contrail_vm(other))
    play.expect(other, "MISSING", "DEPLOYING", "ACTIVE")
    play.say(f"It was powered on again; the deleted one of {other.name} was deployed again and powered on.")


def _s09(play: Play) -> None:
    host = play.vcenter.add_host(play.vcenter.clusters()[0])
    play.expect(host, "ACTIVE")
    settings = host.get("summary.config.agentVmDatastore")
    play.say(f"{host.name} was added; its Agent VM settings were written by rule ({settings._moId}).")


def _s20(play: Play) -> None:
    host = play.vcenter.hosts()[-1]
    message = play.stage.newest(host.name)
    wanted = f"ContrailVM-DC0-{host.name}"
    if message is None or message["vm"]["name"] != wanted:
        raise NotSeenError(f"the VM of {host.name} is named {wanted}")
    play.say(f"Its ContrailVM was held, named {wanted}, let go, and nobody touched anything.")


def _s10(play: Play) -> None:
    host = play.host(0)
    play.vcenter.enter_maintenance(host)
    play.stage.wait_for(lambda: host.in_maintenance, f"{host.name} is in maintenance")
    play.expect(host, "MAINTENANCE")
    play.vcenter.exit_maintenance(host)
    play.expect(host, "MAINTENANCE", "STARTING", "ACTIVE")
    play.expect_silence(host)
    with play.knobs(late_power_on_after_maintenance=True):
        play.vcenter.enter_maintenance(host)
        play.stage.wait_for(lambda: host.in_maintenance, f"{host.name} is in maintenance")
        play.vcenter.exit_maintenance(host)
        play.expect_violation(host, "late_power_on_after_maintenance")
        play.expect_state(host, "ACTIVE")
    play.say(f"{host.name} went through maintenance in silence; when EAM was late afterwards, it was said.")


def _s11(play: Play) -> None:
    host, other = play.host(0), play.host(2)
    play.vcenter.balance(host.compute_resource)
    play.expect_silence(host)
    vm = play.contrail_vm(host)
    play.vcenter.migrate(vm, other)
    play.expect_violation(host, "agent_vm_on_other_host")
    play.vcenter.migrate(vm, host)
    play.expect_state(host, "ACTIVE")
    play.say(f"DRS left the ContrailVM of {host.name} where it is; moved by hand, it was said, and moved back.")


def _s12(play: Play) -> None:
    host = play.host(0)
    tenant = play.vcenter.add_tenant(play.host(2), "tenant-of-the-story")
    play.unit.gate.pause()
    play.vcenter.power_off(play.contrail_vm(host))
    play.expect_state(host, "POWERED_OFF")
    task = play.vcenter.migrate(tenant, host)
    play.stage.wait_for(lambda: task.get("info").state in ("success", "error"), "the end of the migration")
    if not isinstance(task.get("info").error, vim.fault.InsufficientAgentVmsDeployed):
        raise NotSeenError("vCenter refuses the migration for want of an agent VM")
    play.expect_silence(host)
    with play.knobs(drs_ignores_agents=True):
        play.vcenter.migrate(tenant, host)
        play.expect_violation(host, "tenant_moved_to_unusable_host")
    play.vcenter.destroy(tenant)
    play.unit.activate()
    play.expect_state(host, "ACTIVE")
    play.say(f"While {host.name} had no ContrailVM no tenant was let in; when one was, it was said.")


def _s13(play: Play) -> None:
    host = play.host(2)
    play.vcenter.add_tenant(host, "tenant-of-a-sleeper")
    play.vcenter.enter_standby(host)
    play.expect(host, "STANDBY")
    play.stage.wait_for(lambda: host.get("runtime.standbyMode") == "in", f"{host.name} sleeps")
    play.vcenter.wake(host)
    play.expect_state(host, "ACTIVE")
    play.expect_silence(host)
    with play.knobs(dpm_agent_first=True):
        play.vcenter.add_tenant(host, "tenant-who-stays-too-long")
        play.vcenter.enter_standby(host)
        play.expect_violation(host, "dpm_agent_off_before_tenants")
        play.stage.wait_for(lambda: host.get("runtime.standbyMode") == "in", f"{host.name} sleeps")
        play.vcenter.wake(host)
        play.expect_state(host, "ACTIVE")
    play.say(f"{host.name} slept and woke; its ContrailVM left last, and when it left first, it was said.")


def _s14(play: Play) -> None:
    host = play.host(2)
    play.vcenter.add_tenant(host, "tenant-of-a-restart")
    # The host is back before HA has moved its tenants, so that they are started where they were.
    with play.knobs(ha_failover=600.0):
        play.vcenter.crash(host)
        play.expect(host, "UNREACHABLE")
        play.vcenter.recover(host)
        play.expect(host, "UNREACHABLE", "ACTIVE")
        if "agent_not_first_after_restart" in play.stage.violations(host.name):
            raise NotSeenError("silence when the ContrailVM is first")
        with play.knobs(agent_not_first_after_restart=True):
            play.vcenter.crash(host)
            play.expect(host, "UNREACHABLE", "ACTIVE", "UNREACHABLE")
            play.vcenter.recover(host)
            play.expect_violation(host, "agent_not_first_after_restart")
            play.expect_state(host, "ACTIVE")
    play.say(f"{host.name} restarted with its ContrailVM first; when tenants were first, it was said.")


def _s15(play: Play) -> None:
    host = play.host(0)
    play.vcenter.crash(host)
    play.expect(host, "UNREACHABLE")
    play.expect_silence(host)
    play.vcenter.recover(host)
    play.expect_state(host, "ACTIVE")
    with play.knobs(ha_restarts_elsewhere=True):
        play.vcenter.crash(host)
        play.expect_violation(host, "ha_restarted_elsewhere")
    vm = play.contrail_vm_anywhere(host)
    play.vcenter.recover(host)
    play.stage.wait_for(lambda: host.get("runtime.connectionState") == "connected", f"{host.name} is back")
    if vm is not None and vm.host is not host:
        play.vcenter.migrate(vm, host)
    play.expect_state(host, "ACTIVE")
    play.say(f"{host.name} was lost, and its ContrailVM was not started elsewhere; when it was, it was said.")


def _s16(play: Play) -> None:
    host = play.host(0)
    play.vcenter.set_admission(host.compute_resource, 1)
    play.expect_silence(host)
    with play.knobs(slots_count_agents=True):
        play.expect_violation(host, "slots_count_agents")
    play.stage.wait_for(
        lambda: (message := play.stage.newest(host.name)) is not None and not message["violations"],
        f"{host.name}: the violation is over",
    )
    play.say("HA's slots left ContrailVMs out; when they were counted, it was said, and its end too.")


FULL_STORY: tuple[Row, ...] = (
    Row("S03", "One ContrailVM on every host", _s03),
    Row("S01", "The package is published", _s01),
    Row("S02", "The session is killed", _s02),
    Row("S04", "A cluster is drained, and comes back", _s04),
    Row("S05", "Status is shown", _s05),
    Row("S06", "Warn before a ContrailVM is powered off", _s06),
    Row("S07", "A power-off is reported", _s07),
    Row("S08", "Issues are resolved", _s08),
    Row("S09", "A host is added", _s09),
    Row("S20", "With no hand on anything", _s20),
    Row("S10", "Maintenance is no alarm", _s10),
    Row("S11", "ContrailVMs stay pinned", _s11),
    Row("S12", "No tenant without a vRouter", _s12),
    Row("S13", "A host sleeps", _s13),
    Row("S14", "A host restarts", _s14),
    Row("S15", "A host is lost", _s15),
    Row("S16", "HA's slots", _s16),
)
