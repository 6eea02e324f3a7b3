# SPDX-License-Identifier: Apache-2.0
"""Rules that vCenter keeps for agent VMs, and how it shows that one was broken.

EAM, DRS, DPM and HA do this work inside vCenter; here it is only seen and said. A violation is about one host;
it is published with the ContrailVM of that host, and is over when it is no longer seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vcenter_eam_plugin.domain.facts import ConnectionState, HostFacts, HostTask, StandbyMode, VmFacts, VmPower
from vcenter_eam_plugin.domain.lifecycle import host_available
from vcenter_eam_plugin.domain.status import State, Violation

LATE_SECONDS = 120.0
"""EAM powers ContrailVMs on before the exit from maintenance ends; two minutes after it is late, not slow."""
HANGS_SECONDS = 900.0
"""An exit from maintenance that waits for its ContrailVM for a quarter of an hour will not end by itself."""


@dataclass(frozen=True, slots=True)
class Tenants:
    """Powered-on VMs of a host that are no agent VMs, as two reads saw them (morefs).

    ``before`` is the first read after the host's ContrailVM became unusable, ``now`` the newest.
    """

    before: frozenset[str]
    now: frozenset[str]


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of one host. Times are monotonic seconds; ``None`` where it did not happen.

    ``back_since``: since when the host has been available after it was away (maintenance, standby, lost).
    ``leaving_since``: since when a task takes it out of maintenance. ``was_lost``: it came back from being unreachable.
    ``in_slots``: HA counts the ContrailVM in its admission control.
    """

    state: State
    host: HostFacts
    vm: VmFacts | None
    now: float
    back_since: float | None = None
    leaving_since: float | None = None
    was_in_maintenance: bool = False
    was_lost: bool = False
    tenants: Tenants | None = None
    in_slots: bool = False
    names: dict[str, str] = field(default_factory=dict)
    """Host moref -> name, for texts."""


def _is_off(sight: Sight) -> bool:
    return sight.vm is not None and sight.vm.power is not VmPower.POWERED_ON


def _is_elsewhere(sight: Sight) -> bool:
    return sight.vm is not None and sight.vm.host not in (None, sight.host.moref)


def _late_power_on(sight: Sight) -> str:
    """S10: EAM powers the ContrailVM on before the host's exit from maintenance ends."""
    late = sight.back_since is not None and sight.now - sight.back_since > LATE_SECONDS
    if sight.was_in_maintenance and late and _is_off(sight) and host_available(sight.host):
        return "the host left maintenance, and its ContrailVM is still off"
    return ""


def _exit_hangs(sight: Sight) -> str:
    """S10: the exit from maintenance waits for the ContrailVM, and EAM does not power it on."""
    hangs = sight.leaving_since is not None and sight.now - sight.leaving_since > HANGS_SECONDS
    if hangs and sight.host.task is HostTask.EXITING_MAINTENANCE and _is_off(sight):
        return "the exit from maintenance waits for the ContrailVM; see that EAM can log in to vCenter"
    return ""


def _on_other_host(sight: Sight) -> str:
    """S11: DRS leaves an agent VM where it is, and nobody without EAM.Modify can move it."""
    if _is_elsewhere(sight) and sight.host.connection is ConnectionState.CONNECTED:
        return f"the ContrailVM was moved to {_place(sight)}"
    return ""


def _restarted_elsewhere(sight: Sight) -> str:
    """S15: HA does not start an agent VM on another host when its own is lost."""
    if _is_elsewhere(sight) and sight.host.connection is not ConnectionState.CONNECTED:
        return f"the host is lost, and its ContrailVM was started on {_place(sight)}"
    return ""


def _tenant_moved_here(sight: Sight) -> str:
    """S12: DRS moves no tenant VM to a host whose ContrailVM is not available."""
    arrived = len(sight.tenants.now - sight.tenants.before) if sight.tenants is not None else 0
    if arrived and sight.state is not State.ACTIVE:
        return f"{arrived} tenant VM(s) were started on or moved to the host while its vRouter is unusable"
    return ""


def _tenants_without_vrouter(sight: Sight) -> str:
    """Not a rule of vCenter, but what an operator must know first: who is without network."""
    running = len(sight.tenants.now) if sight.tenants is not None else 0
    if running and sight.state is not State.ACTIVE and sight.state is not State.UNREACHABLE:
        return f"{running} tenant VM(s) run on the host while its vRouter is unusable"
    return ""


def _dpm_agent_first(sight: Sight) -> str:
    """S13: DPM powers an agent VM off only after all tenant VMs have left."""
    running = len(sight.tenants.now) if sight.tenants is not None else 0
    entering = sight.host.standby is StandbyMode.ENTERING or sight.host.task is HostTask.ENTERING_STANDBY
    if running and entering and _is_off(sight):
        return f"the host enters standby: its ContrailVM is off, and {running} tenant VM(s) still run"
    return ""


def _not_first(sight: Sight) -> str:
    """S14: when a host restarts, its agent VM is started before the others."""
    running = len(sight.tenants.now) if sight.tenants is not None else 0
    if running and sight.was_lost and _is_off(sight) and host_available(sight.host):
        return f"the host restarted: {running} tenant VM(s) were started before its ContrailVM"
    return ""


def _in_slots(sight: Sight) -> str:
    """S16: HA does not count agent VMs in its slots."""
    return "HA admission control counts the ContrailVM in its slots" if sight.in_slots else ""


def _place(sight: Sight) -> str:
    where = sight.vm.host if sight.vm is not None and sight.vm.host is not None else "nowhere"
    return sight.names.get(where, where)


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


def violations(sight: Sight) -> tuple[Violation, ...]:
    """Every rule that is seen broken on this host now."""
    return tuple(Violation(name=name, text=text) for name, rule in RULES if (text := rule(sight)))
