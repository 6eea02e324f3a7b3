# SPDX-License-Identifier: Apache-2.0
"""Which agents a poll reads: design section 3, colour never decides."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.support.facts import a_fleet, a_host, a_vm, an_agency, an_agent, an_issue
from vcenter_eam_plugin.domain.facts import AgentFacts, EamStatus, HookState, HostTask, VmPower
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.observations import AgencyObserved, AgentsObserved, InventoryObserved
from vcenter_eam_plugin.domain.polling import MEMBERSHIP_SECONDS, STEADY_RED_SECONDS, SWEEP_SECONDS, PollSchedule

POLL = 10.0


def settled_schedule() -> PollSchedule:
    """One whose first poll, which reads everybody, is over."""
    schedule = PollSchedule(POLL)
    schedule.choose(a_fleet(a_host(1)), 0.0)
    schedule.membership_read(0.0)
    return schedule


def fleet_with(agent: AgentFacts, *, power: VmPower = VmPower.POWERED_ON) -> Fleet:
    """Host 1 is healthy, host 2 has this agent; the agency reports the issues of both."""
    return a_fleet(
        a_host(1),
        a_host(2),
        agents=(an_agent(1, read_began=100.0), agent),
        vms=(a_vm(1), a_vm(2, power=power)),
        agency=an_agency(*agent.issues),
    )


def test_healthy_agents_are_left_alone() -> None:
    """Cost follows what changes: a healthy fleet is one call per poll."""
    fleet = a_fleet(*(a_host(n) for n in range(1, 50)))
    assert settled_schedule().choose(fleet, 20.0) == ()


def test_the_first_poll_reads_everybody_and_so_does_one_after_a_gap() -> None:
    """After a gap nothing is known to be unchanged; once is enough."""
    fleet, schedule = a_fleet(a_host(1), a_host(2)), PollSchedule(POLL)
    everybody = ("agent-1", "agent-2")
    assert schedule.choose(fleet, 11.0) == everybody
    assert schedule.choose(fleet, 11.0) == ()
    schedule.hint_everything()
    assert schedule.membership_due(11.0)
    assert schedule.choose(fleet, 11.0) == everybody


def test_an_agent_never_read_is_read() -> None:
    """A new member: S09."""
    fleet = a_fleet(a_host(1))
    fleet.apply(AgencyObserved(20.0, an_agency(), ("agent-1", "agent-5")))
    assert settled_schedule().choose(fleet, 20.0) == ("agent-5",)


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param(an_agent(2, hook=HookState.POWERED_ON, read_began=100.0), id="hooked"),
        pytest.param(
            replace(an_agent(2, hook=HookState.POWERED_ON, read_began=100.0), status=EamStatus.GREEN),
            id="hooked, green",
        ),
        pytest.param(an_agent(2, status=EamStatus.YELLOW, read_began=100.0), id="yellow"),
        pytest.param(an_agent(2, vm=None, status=EamStatus.GREEN, read_began=100.0), id="on its way"),
    ],
)
def test_what_is_on_its_way_is_read_at_every_poll(agent: AgentFacts) -> None:
    """vmHook stands only in an agent's own runtime, so colour never decides what to read."""
    fleet, schedule = fleet_with(agent), settled_schedule()
    assert schedule.choose(fleet, 101.0) == ("agent-2",)
    assert schedule.choose(fleet, 102.0) == ("agent-2",)


@pytest.mark.parametrize(
    ("agents_issues", "agencys_issues"),
    [((), ("VmPoweredOff",)), (("VmPoweredOff",), ()), (("VmPoweredOff",), ("VmPoweredOff", "VmCorrupted"))],
)
def test_newly_in_or_out_of_an_issue(agents_issues: tuple[str, ...], agencys_issues: tuple[str, ...]) -> None:
    """The agency's runtime has all issues by one call: where it differs from an agent's word, that agent is read."""
    fleet = fleet_with(an_agent(2, *agents_issues, read_began=100.0))
    fleet.apply(AgencyObserved(101.0, an_agency(*(an_issue(name, 2) for name in agencys_issues))))
    assert settled_schedule().choose(fleet, 101.0) == ("agent-2",)


def test_a_changed_key_is_no_new_issue() -> None:
    """EAM regenerates keys; (agent, type) tells issues apart."""
    fleet = fleet_with(an_agent(2, "VmCorrupted", read_began=100.0))
    schedule = settled_schedule()
    schedule.choose(fleet, 100.0)
    fleet.apply(AgencyObserved(101.0, an_agency(an_issue("VmCorrupted", 2, key=77))))
    assert schedule.choose(fleet, 101.0) == ()


def test_an_agent_whose_host_or_vm_changed_is_read() -> None:
    """What EAM said before the change is worthless."""
    fleet, schedule = a_fleet(a_host(1), a_host(2), a_host(3)), settled_schedule()
    fleet.apply(InventoryObserved(20.0, vms=(a_vm(1, power=VmPower.POWERED_OFF),)))
    fleet.apply(InventoryObserved(20.0, hosts=(a_host(3, task=HostTask.ENTERING_MAINTENANCE),)))
    assert schedule.choose(fleet, 21.0) == ("agent-1", "agent-3")
    fleet.apply(AgentsObserved((an_agent(1, read_began=21.0), an_agent(3, read_began=21.0))))
    assert schedule.choose(fleet, 22.0) == ()


def test_a_hinted_host_is_read_once() -> None:
    """An event only wakes somebody up."""
    fleet, schedule = a_fleet(a_host(1), a_host(2)), settled_schedule()
    schedule.hint_host("host-2")
    schedule.hint_host("host-without-agent")
    assert schedule.choose(fleet, 20.0) == ("agent-2",)
    assert schedule.choose(fleet, 20.0) == ()


def test_steady_reds_back_off_to_five_minutes() -> None:
    """An issue that waits for a person keeps its agent red for a week; it is not read ten thousand times."""
    fleet = a_fleet(a_host(1), a_host(2), agents=(an_agent(1), an_agent(2, "VmCorrupted", read_began=100.0)),
                    agency=an_agency(an_issue("VmCorrupted", 2)))  # fmt: skip
    schedule, now, reads = settled_schedule(), 100.0, [100.0]
    while now < 4000.0:
        now += POLL
        fleet.apply(AgentsObserved((an_agent(1, read_began=now),)))
        if "agent-2" in schedule.choose(fleet, now):
            fleet.apply(AgentsObserved((an_agent(2, "VmCorrupted", read_began=now),)))
            reads.append(now)
    gaps = [later - earlier for earlier, later in pairwise(reads)]
    assert gaps == sorted(gaps)
    assert gaps[0] <= 2 * POLL
    assert gaps[-1] == STEADY_RED_SECONDS
    fleet.apply(AgentsObserved((an_agent(2, "VmPoweredOff", read_began=now),)))
    fleet.apply(AgencyObserved(now, an_agency(an_issue("VmPoweredOff", 2))))
    schedule.choose(fleet, now)
    assert schedule.choose(fleet, now + POLL) == ("agent-2",), "another issue begins anew"


def test_in_maintenance_an_agent_is_red_and_settled() -> None:
    """S10: such a host keeps the agency red for a week. Its agent is read with the sweep alone until it leaves."""
    host = a_host(2, in_maintenance=True)
    fleet = a_fleet(a_host(1), host, agents=(an_agent(1), an_agent(2, "HostInMaintenanceMode", read_began=100.0)),
                    agency=an_agency(an_issue("HostInMaintenanceMode", 2)))  # fmt: skip
    schedule, now = settled_schedule(), 100.0
    while now < 100.0 + SWEEP_SECONDS / 2 - POLL:
        now += POLL
        assert "agent-2" not in schedule.choose(fleet, now)
    fleet.apply(InventoryObserved(now, hosts=(a_host(2, task=HostTask.EXITING_MAINTENANCE, in_maintenance=True),)))
    assert "agent-2" in schedule.choose(fleet, now)


def test_a_rolling_sweep_covers_everybody_in_ten_minutes() -> None:
    """Whatever no rule foresees is healed within ten minutes, and not by all in one poll for ever."""
    numbers = range(1, 201)
    fleet, schedule = a_fleet(*(a_host(n) for n in numbers)), settled_schedule()
    read_at = dict.fromkeys(numbers, 10.0)
    most = 0
    now = 10.0
    while now < 3 * SWEEP_SECONDS:
        now += POLL
        chosen = [int(moref.removeprefix("agent-")) for moref in schedule.choose(fleet, now)]
        fleet.apply(AgentsObserved(tuple(an_agent(n, read_began=now) for n in chosen)))
        read_at |= dict.fromkeys(chosen, now)
        most = max(most, len(chosen))
        assert now - min(read_at.values()) <= SWEEP_SECONDS + POLL
    assert most < len(numbers) / 5


def test_membership_once_a_minute_or_on_a_hint() -> None:
    """QueryAgent when membership may have changed, else once a minute."""
    schedule = PollSchedule(POLL)
    assert schedule.membership_due(0.0)
    schedule.membership_read(0.0)
    assert not schedule.membership_due(MEMBERSHIP_SECONDS - 1)
    assert schedule.membership_due(MEMBERSHIP_SECONDS)
    schedule.hint_membership()
    assert schedule.membership_due(1.0)


def test_agents_that_left_are_forgotten() -> None:
    """Nothing is kept of an agent that is no member any more."""
    fleet, schedule = fleet_with(an_agent(2, "VmCorrupted", read_began=100.0)), settled_schedule()
    schedule.choose(fleet, 100.0)
    fleet.apply(AgencyObserved(101.0, an_agency(), ("agent-1",)))
    assert schedule.choose(fleet, 101.0) == ()
    assert schedule._steady_red_since == {}
