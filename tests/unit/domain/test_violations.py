# SPDX-License-Identifier: Apache-2.0
"""Rules that vCenter keeps for agent VMs: each is named when broken, and silent when kept."""

from dataclasses import replace

import pytest

from vcenter_eam_plugin.domain.facts import (
    ConnectionState,
    HostFacts,
    HostPower,
    HostTask,
    StandbyMode,
    VmFacts,
    VmPower,
)
from vcenter_eam_plugin.domain.status import State
from vcenter_eam_plugin.domain.violations import ADVICE, HANGS_SECONDS, LATE_SECONDS, RULES, Sight, advice, broken_rules

HOST = HostFacts(
    "host-1", "esx-1", "domain-1", ConnectionState.CONNECTED, HostPower.POWERED_ON, StandbyMode.NONE, False
)
ON = VmFacts("vm-1", "ContrailVM (1)", "host-1", VmPower.POWERED_ON)
OFF = replace(ON, power=VmPower.POWERED_OFF)
LOST = replace(HOST, connection=ConnectionState.NOT_RESPONDING, power=HostPower.UNKNOWN)
TENANTS = frozenset({"vm-7", "vm-8"})

BROKEN: dict[str, Sight] = {
    "late_power_on_after_maintenance": Sight(
        State.STARTING, HOST, OFF, now=LATE_SECONDS + 1, back_from="maintenance", back_since=0.0
    ),
    "exit_maintenance_hangs": Sight(
        State.MAINTENANCE,
        replace(HOST, in_maintenance=True, task=HostTask.EXITING_MAINTENANCE),
        OFF,
        now=HANGS_SECONDS + 1,
        leaving_since=0.0,
    ),
    "agent_vm_on_other_host": Sight(State.FAULTY, HOST, replace(ON, host="host-2"), now=0.0),
    "ha_restarted_elsewhere": Sight(State.UNREACHABLE, LOST, replace(ON, host="host-2"), now=0.0),
    "tenant_moved_to_unusable_host": Sight(
        State.POWERED_OFF, HOST, OFF, now=0.0, tenants=TENANTS, tenants_before=frozenset({"vm-7"})
    ),
    "tenants_on_unusable_host": Sight(
        State.POWERED_OFF, HOST, OFF, now=0.0, tenants=TENANTS, tenants_before=TENANTS
    ),
    "dpm_agent_off_before_tenants": Sight(
        State.STANDBY,
        replace(HOST, standby=StandbyMode.ENTERING),
        OFF,
        now=0.0,
        tenants=TENANTS,
        tenants_before=TENANTS,
    ),
    "agent_not_first_after_restart": Sight(
        State.POWERED_OFF, HOST, OFF, now=0.0, back_from="lost", tenants=TENANTS, tenants_before=frozenset()
    ),
    "slots_count_agents": Sight(State.ACTIVE, HOST, ON, now=0.0, in_slots=True),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, _ in RULES])
def test_each_rule_is_named_when_it_is_broken(name: str) -> None:
    """S10-S16: the violation by its name, with a text that says what was seen."""
    found = {violation.name: violation.text for violation in broken_rules(BROKEN[name])}
    assert found.get(name)


@pytest.mark.parametrize(
    "sight",
    [
        Sight(State.ACTIVE, HOST, ON, now=10_000.0, tenants=TENANTS),
        Sight(State.STARTING, HOST, OFF, now=LATE_SECONDS - 1, back_from="maintenance", back_since=0.0),
        Sight(State.MAINTENANCE, replace(HOST, in_maintenance=True), OFF, now=10_000.0),
        Sight(State.STANDBY, replace(HOST, standby=StandbyMode.ENTERING), ON, now=0.0, tenants=TENANTS),
        Sight(State.UNREACHABLE, LOST, ON, now=10_000.0),
    ],
    ids=["active", "not late yet", "in maintenance", "DPM waits for the tenants", "lost, and left where it was"],
)
def test_what_is_right_is_no_violation(sight: Sight) -> None:
    """S10-S16: silence where being off is right."""
    assert broken_rules(sight) == ()


def test_every_rule_says_what_a_person_can_do() -> None:
    """S11 to S16, bug: an operator read what was broken, and nowhere what to do about it."""
    assert list(ADVICE) == [name for name, _ in RULES]
    assert advice("of_another_release") == ""
