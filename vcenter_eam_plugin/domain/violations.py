# SPDX-License-Identifier: Apache-2.0
"""Rules that vCenter keeps for agent VMs, and how it shows that one was broken.

EAM, DRS, DPM and HA do this work inside vCenter; here it is only seen and said. A violation is about one host;
it is published with the ContrailVM of that host, and is over when it is no longer seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from vcenter_eam_plugin.domain.facts import ConnectionState, HostFacts, HostTask, StandbyMode, VmFacts, VmPower
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.lifecycle import host_available
from vcenter_eam_plugin.domain.status import ContrailVm, State, Violation

LATE_SECONDS = 120.0
"""EAM powers ContrailVMs on before the exit from maintenance ends; two minutes after it is late, not slow."""
HANGS_SECONDS = 900.0
"""An exit from maintenance that waits for its ContrailVM for a quarter of an hour will not end by itself."""
_AT_REST = frozenset({State.ACTIVE, State.MAINTENANCE, State.STANDBY})
LONG_AGO = float("-inf")
"""When what was seen broken before our own start began (monotonic)."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long what may take time may take (seconds)."""

    late: float = LATE_SECONDS
    hangs: float = HANGS_SECONDS


class Sight(msgspec.Struct, frozen=True, gc=False):
    """What is seen of one host. Times are monotonic seconds; ``None`` where it did not happen.

    ``back_from``: what the host was away for ("maintenance", "standby" or "lost") before it came back at
    ``back_since``; both hold until its ContrailVM is ACTIVE. ``leaving_since``: since when a task takes it out of
    maintenance. ``tenants``: its powered-on VMs that are no agent VMs (morefs), and ``tenants_before`` those of
    the first read after its ContrailVM went down. ``in_slots``: HA counts the ContrailVM in its admission control.
    """

    state: State
    host: HostFacts
    vm: VmFacts | None
    now: float
    back_from: str = ""
    back_since: float = 0.0
    leaving_since: float | None = None
    tenants: frozenset[str] = frozenset()
    tenants_before: frozenset[str] = frozenset()
    in_slots: bool = False
    place: str = ""
    """Where the ContrailVM runs, in words."""
    times: Times = msgspec.field(default_factory=Times)

    @property
    def is_down(self) -> bool:
        """Whether the ContrailVM forwards nothing, whatever the reason."""
        return self.vm is None or self.vm.power is not VmPower.POWERED_ON

    @property
    def is_off(self) -> bool:
        return self.vm is not None and self.is_down

    @property
    def is_elsewhere(self) -> bool:
        return self.vm is not None and self.vm.host not in (None, self.host.moref)


def _late_power_on(sight: Sight) -> str:
    """S10: EAM powers the ContrailVM on before the host's exit from maintenance ends."""
    late = sight.back_from == "maintenance" and sight.now - sight.back_since > sight.times.late
    if late and sight.is_off and host_available(sight.host):
        return "the host left maintenance, and its ContrailVM is still off"
    return ""


def _exit_hangs(sight: Sight) -> str:
    """S10: the exit from maintenance waits for the ContrailVM, and EAM does not power it on."""
    hangs = sight.leaving_since is not None and sight.now - sight.leaving_since > sight.times.hangs
    if hangs and sight.host.task is HostTask.EXITING_MAINTENANCE and sight.is_off:
        return "the exit from maintenance waits for the ContrailVM; see that EAM can log in to vCenter"
    return ""


def _on_other_host(sight: Sight) -> str:
    """S11: DRS leaves an agent VM where it is, and nobody without EAM.Modify can move it."""
    if sight.is_elsewhere and sight.host.connection is ConnectionState.CONNECTED:
        return f"the ContrailVM was moved to {sight.place}"
    return ""


def _restarted_elsewhere(sight: Sight) -> str:
    """S15: HA does not start an agent VM on another host when its own is lost."""
    if sight.is_elsewhere and sight.host.connection is not ConnectionState.CONNECTED:
        return f"the host is lost, and its ContrailVM was started on {sight.place}"
    return ""


def _tenant_moved_here(sight: Sight) -> str:
    """S12: DRS moves no tenant VM to a host whose ContrailVM is not available."""
    arrived = len(sight.tenants - sight.tenants_before)
    if arrived and sight.is_down and sight.back_from != "lost":
        return f"{arrived} tenant VM(s) were started on or moved to the host while its vRouter is unusable"
    return ""


def _tenants_without_vrouter(sight: Sight) -> str:
    """Not a rule of vCenter, but what an operator must know first: who is without network."""
    if sight.tenants and sight.is_down:
        return f"{len(sight.tenants)} tenant VM(s) run on the host while its vRouter is unusable"
    return ""


def _dpm_agent_first(sight: Sight) -> str:
    """S13: DPM powers an agent VM off only after all tenant VMs have left."""
    entering = sight.host.standby is StandbyMode.ENTERING or sight.host.task is HostTask.ENTERING_STANDBY
    if sight.tenants and entering and sight.is_off:
        return f"the host enters standby: its ContrailVM is off, and {len(sight.tenants)} tenant VM(s) still run"
    return ""


def _not_first(sight: Sight) -> str:
    """S14: when a host restarts, its agent VM is started before the others."""
    if sight.tenants and sight.back_from == "lost" and sight.is_off and host_available(sight.host):
        return f"the host restarted: {len(sight.tenants)} tenant VM(s) were started before its ContrailVM"
    return ""


def _in_slots(sight: Sight) -> str:
    """S16: HA does not count agent VMs in its slots."""
    return "HA admission control counts the ContrailVM in its slots" if sight.in_slots else ""


RULES: tuple[tuple[str, Callable[[Sight], str]], ...] = (
    ("late_power_on_after_maintenance", _late_power_on),
    ("exit_maintenance_hangs", _exit_hangs),
    ("agent_vm_on_other_host", _on_other_host),
    ("ha_restarted_elsewhere", _restarted_elsewhere),
    ("tenant_moved_to_unusable_host", _tenant_moved_here),
    ("tenants_on_unusable_host", _tenants_without_vrouter),
    ("dpm_agent_off_before_tenants", _dpm_agent_first),
    ("agent_not_first_after_restart", _not_first),
    ("slots_count_agents", _in_slots),
)
"""Name on the bus, and the rule: it returns what was seen, or an empty text."""

ADVICE: Mapping[str, str] = {
    "late_power_on_after_maintenance": "See EAM's issues of this host, and that EAM runs and can log in to vCenter.",
    "exit_maintenance_hangs": "See that EAM runs and can log in to vCenter, and its issues of this host.",
    "agent_vm_on_other_host": "Move it back by hand, as somebody with EAM.Modify: nobody else may.",
    "ha_restarted_elsewhere": "Bring the host back, then move the ContrailVM back to it, as somebody with EAM.Modify; "
    "unless a failover policy wants it so.",
    "tenant_moved_to_unusable_host": "They have no network: move them to a host whose ContrailVM is ACTIVE.",
    "tenants_on_unusable_host": "They have no network until this ContrailVM is ACTIVE: move them to a host where it "
    "is, or see what this one waits for.",
    "dpm_agent_off_before_tenants": "They have no network until they have left: see what keeps them, or wake the host.",
    "agent_not_first_after_restart": "They have no network until the ContrailVM is up; if it stays off, see EAM's "
    "issues of this host.",
    "slots_count_agents": "HA reserves too much, so vCenter may refuse to power VMs on: have admission control reserve "
    "a percentage instead of slots, and report it to VMware.",
}
"""What a person can do about each, by its name; the service itself does nothing about them."""


def advice(name: str) -> str:
    """What to do about a broken rule; empty for one that another release named."""
    return ADVICE.get(name, "")


def broken_rules(sight: Sight) -> tuple[Violation, ...]:
    """Every rule that is seen broken on this host now."""
    return tuple(Violation(name=name, text=text) for name, rule in RULES if (text := rule(sight)))


@dataclass(frozen=True, slots=True)
class SlotCount:
    """HA's admission control of one cluster: VMs it counts, those it names for needing several slots (morefs).

    ``powered_on_vms`` are all of the cluster, agent VMs included.
    """

    counted_vms: int
    powered_on_vms: int
    named_vms: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Past:
    away: str = ""
    back_from: str = ""
    back_since: float = 0.0
    leaving_since: float | None = None
    tenants_before: frozenset[str] | None = None
    tenants: frozenset[str] = frozenset()


class RuleWatch:
    """Remembers per host what a rule needs beside the facts. Pure: time and reads are handed in."""

    def __init__(self, times: Times | None = None) -> None:
        self._times = times or Times()
        self._pasts: dict[str, _Past] = {}
        self._restless: set[str] = set()
        self._in_slots: frozenset[str] = frozenset()
        self._counted: frozenset[str] = frozenset()

    def observe(self, fleet: Fleet, host: str, now: float) -> None:
        """A host or its ContrailVM may have changed."""
        facts, status = fleet.hosts.get(host), fleet.status(host)
        if facts is None or status is None:
            self._pasts.pop(host, None)
            self._restless.discard(host)
            return
        self._restless.add(host)
        past = self._pasts.get(host)
        if past is None:
            past = self._pasts[host] = self._resumed({violation.name for violation in status.violations}, status)
        if facts.connection is not ConnectionState.CONNECTED:
            past.tenants = frozenset()  # it sleeps, and runs none, or it is lost, and nobody can say
        away = _away(facts)
        if away:
            # The first reason stands: a sleeping host, or one that reboots in maintenance, is not responding either.
            past.away, past.back_from = past.away or away, ""
        elif past.away:
            past.back_from, past.back_since, past.away = past.away, now, ""
        leaving = facts.task is HostTask.EXITING_MAINTENANCE
        past.leaving_since = (past.leaving_since if past.leaving_since is not None else now) if leaving else None
        if status.state is State.ACTIVE:
            past.back_from, past.tenants_before, past.tenants = "", None, frozenset()

    def _resumed(self, broken: set[str], status: ContrailVm) -> _Past:
        """The past that a violation published before our own start had: nobody can tell it a second time."""
        past = _Past()
        if "late_power_on_after_maintenance" in broken:
            past.back_from, past.back_since = "maintenance", LONG_AGO
        elif "agent_not_first_after_restart" in broken:
            past.back_from = "lost"
        if "exit_maintenance_hangs" in broken:
            past.leaving_since = LONG_AGO
        if "tenant_moved_to_unusable_host" in broken:
            past.tenants_before = frozenset()
        if "slots_count_agents" in broken and status.vm is not None:
            self._in_slots |= {status.vm.moref}
            self._counted |= {status.vm.moref}
        return past

    def is_to_be_read(self, fleet: Fleet, host: str) -> bool:
        """Whether it is a connected host whose ContrailVM is down: only such are asked which tenant VMs run there."""
        facts = fleet.hosts.get(host)
        if facts is None or facts.connection is not ConnectionState.CONNECTED or not fleet.wants_agent(facts):
            return False
        sight = self.sight(fleet, host, 0.0)
        return sight is not None and sight.is_down

    def tenants_read(self, host: str, tenants: frozenset[str]) -> None:
        """The powered-on tenant VMs of a host, as just read."""
        past = self._pasts.get(host)
        if past is None:
            return
        past.tenants = tenants
        # Who left and came back has come back while the vRouter was unusable.
        past.tenants_before = tenants if past.tenants_before is None else past.tenants_before & tenants

    def slots_read(self, fleet: Fleet, counts: Mapping[str, SlotCount]) -> None:
        """What HA counts, by cluster. ContrailVMs are counted if they are named, or if too many VMs are.

        Two numbers read one after the other differ while a VM is being started: believed is what two reads say, in
        a cluster whose ContrailVMs are at rest.
        """
        counted: set[str] = set()
        running: defaultdict[str, set[str]] = defaultdict(set)
        for vm in fleet.vms.values():
            host = fleet.hosts.get(vm.host or "")
            if host is not None and vm.power is VmPower.POWERED_ON:
                running[host.compute_resource].add(vm.moref)
        restless = {
            host.compute_resource
            for host in fleet.hosts.values()
            if (status := fleet.status(host.moref)) is not None and status.state not in _AT_REST
        }
        for cluster, count in counts.items():
            agents = running[cluster]
            if cluster in restless:
                counted |= agents & self._counted  # a rule is not kept because it cannot be judged now
                continue
            if count.counted_vms > count.powered_on_vms - len(agents):
                counted |= agents
            counted |= agents & count.named_vms
        before = self._in_slots
        self._in_slots, self._counted = self._counted & counted, frozenset(counted)
        if self._in_slots != before:
            self._restless |= self._pasts.keys()

    def sight(self, fleet: Fleet, host: str, now: float) -> Sight | None:
        """What the rules are asked about a host; ``None`` for one that is not watched."""
        facts, status, past = fleet.hosts.get(host), fleet.status(host), self._pasts.get(host)
        if facts is None or status is None or past is None:
            return None
        vm = fleet.vms.get(status.vm.moref) if status.vm is not None else None
        down = vm is None or vm.power is not VmPower.POWERED_ON
        return Sight(
            state=status.state,
            host=facts,
            vm=vm,
            now=now,
            back_from=past.back_from,
            back_since=past.back_since,
            leaving_since=past.leaving_since,
            tenants=past.tenants if down else frozenset(),
            tenants_before=(past.tenants_before or frozenset()) if down else frozenset(),
            in_slots=vm is not None and vm.moref in self._in_slots,
            place=_name_of(fleet, vm.host) if vm is not None else "",
            times=self._times,
        )

    def restless(self) -> tuple[str, ...]:
        """Hosts to judge: those observed since they were at rest. The others would be judged as before."""
        return tuple(self._restless)

    def judged(self, sight: Sight, found: tuple[Violation, ...]) -> None:
        """What was found by this sight stands. A host is at rest when no time and no read can change it."""
        past = self._pasts.get(sight.host.moref)
        waits = past is None or past.away or past.back_from or past.leaving_since is not None
        if not (found or waits or sight.state is not State.ACTIVE or sight.is_down or sight.is_elsewhere):
            self._restless.discard(sight.host.moref)


def _name_of(fleet: Fleet, host: str | None) -> str:
    if host is None:
        return "nowhere"
    facts = fleet.hosts.get(host)
    return host if facts is None else facts.name


def _away(host: HostFacts) -> str:
    if host.in_maintenance:
        return "maintenance"
    if host.standby is StandbyMode.IN:
        return "standby"
    return "lost" if host.connection is not ConnectionState.CONNECTED else ""
