# SPDX-License-Identifier: Apache-2.0
"""What is done, and above all what is not: design section 5. Observe mode is the gate's (test_gate)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.contrailvm import contrail_vm
from tests.support.facts import CLUSTER, VCENTER, a_cluster, a_fleet, a_host, a_vm, an_agency, an_agent
from vcenter_eam_plugin.domain.actions import (
    Action,
    CreateAgency,
    ExtendScope,
    MarkAvailable,
    Provision,
    Resolve,
    SetHolds,
    WriteSettings,
)
from vcenter_eam_plugin.domain.budgets import REPAIR_DEADLINE, Ledger, Limits
from vcenter_eam_plugin.domain.facts import (
    AgencyFacts,
    ConnectionState,
    EamStatus,
    GoalState,
    HookFacts,
    HookState,
    HostFacts,
    HostPower,
    HostTask,
    StandbyMode,
    VmPower,
)
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.issues import CATALOGUE, Policy, issue_type
from vcenter_eam_plugin.domain.observations import AgencyObserved, AgentsObserved, InventoryObserved
from vcenter_eam_plugin.domain.planner import DEFAULT_AUTO_RESOLVE, SETTINGS_SEEN_SECONDS, Desired, Plan, Planner
from vcenter_eam_plugin.domain.settings_rules import SettingsRules
from vcenter_eam_plugin.domain.status import State

NOW = 1000.0
GRACE = 30.0
RULES = SettingsRules(("*",), ("*",))
OFF = a_vm(power=VmPower.POWERED_OFF)


def a_planner(*, limits: Limits | None = None, **desired: Any) -> Planner:
    values: dict[str, Any] = {"scope": (CLUSTER,), "rules": RULES, "power_off_grace": GRACE}
    return Planner(Desired(**values | desired), Ledger(limits or Limits()))


def plan(fleet: Fleet, planner: Planner | None = None, now: float = NOW, host: str = "host-1") -> Plan:
    planner = planner or a_planner()
    planner.observe(fleet, host, now)
    return planner.plan_host(fleet, host, now)


def broken(*issues: str, host: HostFacts | None = None, vm: Any = OFF) -> Fleet:
    """One host whose agent has these issues."""
    return a_fleet(host or a_host(), agents=(an_agent(1, *issues),), vms=(vm,) if vm else ())


# --- the agency --------------------------------------------------------------------------------------------


def test_no_agency_is_created_before_everything_was_read() -> None:
    """Design section 5: None: create, but only after a complete read."""
    fleet = Fleet(VCENTER, [CLUSTER])
    planner = a_planner()
    assert planner.plan_agency(fleet).actions == ()
    fleet.apply(AgencyObserved(1.0, None))
    assert planner.plan_agency(fleet).actions == ()
    fleet.apply(InventoryObserved(2.0, (a_cluster(),), (a_host(),), complete=True))
    assert planner.plan_agency(fleet).actions == (CreateAgency((CLUSTER,)),)


def test_none_is_created_over_nothing_or_beside_a_foreign_one() -> None:
    """An empty scope is no reason, and another owner's agency is one against it."""
    fleet = a_fleet(a_host())
    fleet.apply(AgencyObserved(20.0, None))
    assert a_planner(scope=()).plan_agency(fleet) == Plan()
    fleet.apply(AgencyObserved(21.0, None, None, (an_agency(owner="other"),)))
    refused = a_planner().plan_agency(fleet)
    assert refused.actions == ()
    assert refused.waiting
    assert a_planner().plan_host(fleet, "host-1", NOW) == Plan()


def test_the_scope_only_grows() -> None:
    """S04: clusters are added; what the agency covers beyond the file stays, and what is not there is not added."""
    fleet = a_fleet(a_host(), a_host(2, compute_resource="domain-c2"), agency=an_agency(scope=(CLUSTER, "domain-c9")))
    planner = a_planner(scope=(CLUSTER, "domain-c2", "domain-gone"))
    assert planner.plan_agency(fleet).actions == (ExtendScope("agency-1", ("domain-c2",)),)
    assert a_planner(scope=()).plan_agency(fleet).actions == ()


@pytest.mark.parametrize("goal", [GoalState.DISABLED, GoalState.UNINSTALLED])
def test_an_agency_that_a_person_stopped_is_left_alone(goal: GoalState) -> None:
    """Whoever disabled or uninstalled it meant it."""
    planner = a_planner(scope=(CLUSTER, "domain-c2"), hold_after_power_on=True)
    assert planner.plan_agency(a_fleet(a_host(), agency=an_agency(goal=goal))).actions == ()


def test_holds_follow_the_configuration_until_marking_is_refused() -> None:
    """Design section 5, identity: on NotAuthorized clear both hold flags instead of looping."""
    held = an_agency(hold_after_provisioning=True, hold_after_power_on=True)
    planner = a_planner(hold_after_provisioning=True, hold_after_power_on=True)
    assert planner.plan_agency(a_fleet(a_host(), agency=held)).actions == ()
    assert planner.plan_agency(a_fleet(a_host())).actions == (SetHolds("agency-1", True, True),)
    planner.may_mark = False
    assert planner.plan_agency(a_fleet(a_host(), agency=held)).actions == (SetHolds("agency-1", False, False),)
    assert planner.plan_agency(a_fleet(a_host())).actions == ()


# --- Agent VM settings -------------------------------------------------------------------------------------

UNSET = a_host(agent_datastore=None)


def test_unset_settings_are_written_before_eam_needs_them() -> None:
    """S09, S20: a host without an agent yet, and one that was added in maintenance, get theirs."""
    for host in (UNSET, replace(UNSET, in_maintenance=True), replace(UNSET, task=HostTask.EXITING_MAINTENANCE)):
        fleet = a_fleet(host, agents=(an_agent(9),))
        assert plan(fleet).actions == (WriteSettings("host-1"),)
    assert plan(a_fleet(a_host(agent_network=None))).actions == (WriteSettings("host-1"),)
    assert plan(a_fleet(a_host())).actions == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"connection": ConnectionState.DISCONNECTED},
        {"connection": ConnectionState.NOT_RESPONDING, "power": HostPower.UNKNOWN},
        {"power": HostPower.STAND_BY},
        {"standby": StandbyMode.ENTERING},
        {"standby": StandbyMode.EXITING},
        {"compute_resource": "domain-c9"},
    ],
)
def test_settings_of_a_host_that_is_away_or_not_ours_are_not_written(changes: dict[str, Any]) -> None:
    """Nobody would answer the call; or it is none of ours."""
    assert plan(a_fleet(replace(UNSET, **changes))).actions == ()


def test_without_a_rule_nothing_is_written() -> None:
    """Empty means: never set it."""
    fleet = a_fleet(a_host(agent_datastore=None, agent_network=None))
    assert plan(fleet, a_planner(rules=SettingsRules())).actions == ()
    assert plan(fleet, a_planner(rules=SettingsRules((), ("*",)))).actions == (WriteSettings("host-1"),)


def test_settings_refused_are_asked_about_at_growing_intervals() -> None:
    """No rule fits: asked again later and later, and the reason stands meanwhile."""
    fleet, planner, now, gaps = a_fleet(UNSET), a_planner(), NOW, []
    for _ in range(7):
        assert plan(fleet, planner, now).actions == (WriteSettings("host-1"),)
        planner.settings_refused("host-1", "nothing fits", now)
        waiting = plan(fleet, planner, now + 1)
        assert waiting.actions == ()
        assert waiting.waiting == ("nothing fits",)
        assert waiting.again_at is not None
        gaps.append(waiting.again_at - now)
        now = waiting.again_at
    assert gaps == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]
    assert plan(a_fleet(a_host()), planner, now).waiting == ()
    planner.settings_refused("host-1", "again", now)
    assert plan(fleet, planner, now).again_at == now + 30.0, "once they were set, the interval begins anew"


def test_a_write_is_not_repeated_before_the_inventory_can_show_it() -> None:
    """An action's effect comes back as an observation; one that never does is made again."""
    fleet, planner = a_fleet(UNSET), a_planner()
    planner.settings_pending("host-1", NOW)
    assert plan(fleet, planner, NOW + 1).actions == ()
    assert plan(fleet, planner, NOW + SETTINGS_SEEN_SECONDS).actions == (WriteSettings("host-1"),)


# --- hooks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", HookState)
def test_every_hook_is_a_duty(hook: HookState) -> None:
    """Design section 5: any vmHook, also prePowerOn."""
    fleet = a_fleet(a_host(), agents=(an_agent(hook=hook),))
    if hook is HookState.POWERED_ON:
        assert plan(fleet).actions == (MarkAvailable("host-1", "agent-1", hook.value),)
    else:
        assert plan(fleet).actions == (Provision("host-1", "agent-1", "vm-1", hook.value),)
    refused = a_planner()
    refused.may_mark = False
    assert plan(fleet, refused).actions == ()


def test_a_hook_is_answered_while_the_host_leaves_maintenance() -> None:
    """Bug: the task of leaving ends only once the ContrailVM is on, and a held one waited for the task to end (S10)."""
    leaving = a_host(task=HostTask.EXITING_MAINTENANCE)
    held = an_agent(hook=HookState.PROVISIONED)
    fleet = a_fleet(leaving, agents=(held,), vms=(OFF,))
    assert plan(fleet).actions == (Provision("host-1", "agent-1", "vm-1", "provisioned"),)
    for host in (replace(leaving, in_maintenance=True), a_host(task=HostTask.ENTERING_MAINTENANCE)):
        assert plan(a_fleet(host, agents=(held,), vms=(OFF,))).actions == ()


# --- repairs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*sorted(CATALOGUE), "FiledByALaterRelease", "ClusterAgentVmPoweredOff"])
def test_only_what_the_catalogue_allows_is_resolved(name: str) -> None:
    """S08, and policy per exact type: auto is resolved, nothing else ever is."""
    fleet, planner = broken(name), a_planner(auto_resolve=frozenset({*CATALOGUE, name}))
    plan(fleet, planner, NOW - GRACE)
    actions = plan(fleet, planner).actions
    if issue_type(name).policy in (Policy.AUTO, Policy.AUTO_AFTER_FIX):
        assert actions == (Resolve("host-1", "agent-1", name),)
    else:
        assert actions == ()


def test_the_configuration_can_only_allow_less() -> None:
    """auto_resolve takes away; a list that says more gives nothing."""
    fleet = broken("VmNotDeployed", vm=None)
    assert plan(fleet).actions == (Resolve("host-1", "agent-1", "VmNotDeployed"),)
    left = plan(fleet, a_planner(auto_resolve=DEFAULT_AUTO_RESOLVE - {"VmNotDeployed"}))
    assert left.actions == ()
    assert left.waiting


@pytest.mark.parametrize(
    ("issue", "setting"), [("NoAgentVmDatastore", "agent_datastore"), ("NoAgentVmNetwork", "agent_network")]
)
def test_settings_are_mended_first_and_then_eam_looks_again(issue: str, setting: str) -> None:
    """S09: auto_after_fix; resolving before the cause is gone would only hide it."""
    unset: dict[str, Any] = {setting: None}
    assert plan(broken(issue, host=a_host(**unset), vm=None)).actions == (WriteSettings("host-1"),)
    assert plan(broken(issue, vm=None)).actions == (Resolve("host-1", "agent-1", issue),)


def test_one_issue_at_a_time() -> None:
    """A repair is followed to its end before the next; issues that a person must see stay visible."""
    planned = plan(broken("InsufficientSpace", "VmCorrupted", "VmNotDeployed", vm=None))
    assert len(planned.actions) == 1
    planned = plan(broken("VmCorrupted", "VmProtected", vm=None))
    assert planned.actions == (Resolve("host-1", "agent-1", "VmProtected"),)
    assert "VmCorrupted" in planned.waiting[0]


def test_a_moment_of_grace_after_an_unexplained_power_off() -> None:
    """Somebody may be at work on it: nothing within the grace time, and it is repaired after it."""
    fleet, planner = broken("VmPoweredOff"), a_planner()
    waiting = plan(fleet, planner)
    assert (waiting.actions, waiting.again_at) == ((), NOW + GRACE)
    assert plan(fleet, planner, NOW + GRACE - 0.1).actions == ()
    assert plan(fleet, planner, NOW + GRACE).actions == (Resolve("host-1", "agent-1", "VmPoweredOff"),)


@pytest.mark.parametrize("issue", ["VmPoweredOff", "VmSuspended"])
def test_the_grace_holds_when_eam_is_first_to_say_it(issue: str) -> None:
    """Bug: with EAM's issue read before the inventory's update the grace was skipped, and the repair began at once."""
    fleet, planner = a_fleet(a_host()), a_planner()
    plan(fleet, planner, NOW - 500)
    fleet.apply(AgentsObserved((an_agent(1, issue, read_began=NOW),)))
    waiting = plan(fleet, planner)
    assert (waiting.actions, waiting.again_at) == ((), NOW + GRACE)
    off = VmPower.POWERED_OFF if issue == "VmPoweredOff" else VmPower.SUSPENDED
    fleet.apply(InventoryObserved(NOW + 1, vms=(a_vm(power=off),)))
    fleet.apply(AgentsObserved((an_agent(1, issue, read_began=NOW + 2),)))
    assert plan(fleet, planner, NOW + 2).actions == ()
    assert plan(fleet, planner, NOW + 2 + GRACE).actions == (Resolve("host-1", "agent-1", issue),)


def test_a_missing_one_is_deployed_again_at_once() -> None:
    """S08: nobody works on what was deleted."""
    assert plan(broken("VmNotDeployed", vm=None)).actions == (Resolve("host-1", "agent-1", "VmNotDeployed"),)


def test_nothing_is_repaired_by_a_word_older_than_the_last_change() -> None:
    """The agent is read again first."""
    fleet, planner = broken("VmPoweredOff"), a_planner()
    plan(fleet, planner, NOW - GRACE)
    fleet.apply(InventoryObserved(500.0, vms=(a_vm(),)))
    assert plan(fleet, planner).actions == ()


def test_one_new_vm_stops_nobody_else() -> None:
    """Bug: while any agent named a VM or member not read yet, nothing at all was planned, and what had been
    looked at meanwhile was left until its next change."""
    fleet = a_fleet(a_host(1), a_host(2), agents=(an_agent(1, "VmNotDeployed", vm=None), an_agent(2)))
    fleet.apply(AgencyObserved(20.0, an_agency(), ("agent-1", "agent-2", "agent-3")))
    fleet.apply(AgentsObserved((an_agent(2, vm="vm-5", read_began=21.0),)))
    assert not fleet.ready
    assert plan(fleet).actions == (Resolve("host-1", "agent-1", "VmNotDeployed"),)
    assert a_planner(scope=("domain-c2", CLUSTER)).plan_agency(fleet) == Plan()


def test_a_host_removed_in_the_middle_of_its_repair_is_no_failure() -> None:
    """Bug: the repair of a host that left stayed running, held its cluster's only place for a quarter of an hour, and
    then counted as failed."""
    fleet, planner = a_fleet(a_host(1), a_host(2)), a_planner()
    planner.ledger.start(CLUSTER, "host-1", NOW)
    fleet.apply(InventoryObserved(NOW, gone=("host-1",)))
    fleet.apply(AgencyObserved(NOW, an_agency(), ("agent-2",)))
    planner.observe(fleet, "host-1", NOW + 1)
    assert planner.ledger.running(CLUSTER) == 0
    assert planner.ledger.ask(CLUSTER, "host-2", NOW + 1).allowed
    assert planner.ledger.expire(NOW + 2 * REPAIR_DEADLINE) == ()


def test_an_agent_that_left_ends_its_repair() -> None:
    """The same when only the agent went: there is nothing left to repair."""
    fleet, planner = a_fleet(a_host(1)), a_planner()
    planner.ledger.start(CLUSTER, "host-1", NOW)
    fleet.apply(AgencyObserved(NOW, None))
    planner.observe(fleet, "host-1", NOW + 1)
    assert planner.ledger.running(CLUSTER) == 0


def test_budgets_say_when_to_ask_again() -> None:
    """A host that must wait is looked at again by itself."""
    planner = a_planner()
    planner.ledger.start(CLUSTER, "host-7", NOW)
    waiting = plan(broken("VmNotDeployed", vm=None), planner)
    assert waiting.actions == ()
    assert waiting.waiting
    assert waiting.again_at is not None
    assert waiting.again_at > NOW


# --- whatever the fleet looks like -------------------------------------------------------------------------

NUMBERS = range(1, 7)
SOUND: dict[str, Any] = {}
UNSOUND: list[dict[str, Any]] = [
    {"connection": ConnectionState.NOT_RESPONDING},
    {"power": HostPower.STAND_BY},
    {"standby": StandbyMode.ENTERING},
    {"standby": StandbyMode.EXITING, "task": HostTask.EXITING_STANDBY},
    {"in_maintenance": True},
    {"in_maintenance": True, "task": HostTask.EXITING_MAINTENANCE},
    *({"task": task} for task in HostTask),
    {"compute_resource": "domain-c9"},
]
hosts = st.builds(
    lambda cluster, trouble, datastore: a_host(
        **({"compute_resource": cluster, "agent_datastore": datastore} | trouble)
    ),
    st.sampled_from([CLUSTER, CLUSTER, "domain-c2"]),
    st.sampled_from([SOUND] * len(UNSOUND) + UNSOUND),
    st.sampled_from(["datastore-1", None]),
)
ON_ITS_OWN = sorted(DEFAULT_AUTO_RESOLVE)
issues = st.lists(st.sampled_from([*sorted(CATALOGUE), "SomethingNew"]) | st.sampled_from(ON_ITS_OWN), max_size=2)
agencies = st.sampled_from(
    [an_agency(scope=(CLUSTER, "domain-c2"))] * 5 + [None, an_agency(goal=GoalState.UNINSTALLED)]
)
hooks = st.sampled_from([None] * 6 + list(HookState))
picture = st.lists(st.tuples(hosts, issues, hooks, st.sampled_from(VmPower)), min_size=1, max_size=len(NUMBERS))
FORBIDDEN_TASKS = {HostTask.ENTERING_MAINTENANCE, HostTask.ENTERING_STANDBY}


@settings(deadline=None, derandomize=True, max_examples=250)
@given(
    picture,
    agencies,
    st.booleans(),
    st.sampled_from([True, True, True, False]),
    st.integers(1, 4),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, len(NUMBERS)), st.sampled_from([0.0, 1.0, 40.0]), st.booleans()), max_size=30),
)
def test_whatever_the_fleet_looks_like(
    seen: list[tuple[HostFacts, list[str], HookState | None, VmPower]],
    agency: AgencyFacts | None,
    foreign: bool,
    complete: bool,
    at_once: int,
    per_hour: int,
    asked: list[tuple[int, float, bool]],
) -> None:
    """P9: never outside the budgets, never a `never` or `ask` issue, never a repair on a host in, entering or leaving
    maintenance or standby, and nothing at all while unread or while the agency is somebody else's."""
    fleet = Fleet(VCENTER, [CLUSTER, "domain-c2"])
    listed = {n: replace(host, moref=f"host-{n}") for n, (host, _, _, _) in enumerate(seen, 1)}
    agents = tuple(an_agent(n, *names, hook=hook) for n, (_, names, hook, _) in enumerate(seen, 1))
    vms = tuple(a_vm(n, power=power) for n, (_, _, _, power) in enumerate(seen, 1))
    clusters = (a_cluster(), a_cluster("domain-c2"))
    if agency is None:
        fleet.apply(AgencyObserved(0.0, None, None, (an_agency(owner="other"),) if foreign else ()))
    else:
        fleet.apply(AgencyObserved(0.0, agency, tuple(a.moref for a in agents)))
        fleet.apply(AgentsObserved(agents))
    fleet.apply(InventoryObserved(0.0, clusters, tuple(listed.values()), vms, complete=complete))
    planner = a_planner(limits=Limits(at_once, per_hour), scope=(CLUSTER, "domain-c2"))

    started: dict[str, int] = {}
    running: dict[str, set[str]] = {}
    now = NOW
    for host in listed:
        planner.observe(fleet, f"host-{host}", now)
    agencys = planner.plan_agency(fleet)
    if not complete or (agency is None and foreign) or (agency is not None and agency.goal is not GoalState.ENABLED):
        assert agencys.actions == ()
    for number, seconds, repaired in asked:
        now += seconds
        for action in planner.plan_host(fleet, f"host-{number}", now).actions:
            assert complete
            assert not (agency is None and foreign)
            check_action(action, listed[number], agents[number - 1].hook is not None)
            if not isinstance(action, Resolve):
                continue
            assert now >= NOW + GRACE or action.issue not in ("VmPoweredOff", "VmSuspended")
            cluster = listed[number].compute_resource
            at_work = running.setdefault(cluster, set())
            assert action.host not in at_work, "twice at once"
            assert len(at_work) < at_once
            assert started.get(cluster, 0) < per_hour
            started[cluster] = started.get(cluster, 0) + 1
            planner.ledger.start(cluster, action.host, now)
            if repaired:
                planner.ledger.observe(contrail_vm(number, State.ACTIVE), False, now + 1, now + 1)
            else:
                at_work.add(action.host)


def check_action(action: Action, host: HostFacts, hooked: bool) -> None:
    """What no action may be."""
    assert host.compute_resource in (CLUSTER, "domain-c2")
    assert host.connection is ConnectionState.CONNECTED
    assert host.power is HostPower.POWERED_ON
    match action:
        case Resolve():
            row = issue_type(action.issue)
            assert row.policy not in (Policy.NEVER, Policy.ASK, Policy.WAIT)
            assert not host.in_maintenance
            assert host.task is None
            assert host.standby is StandbyMode.NONE
            assert not hooked
        case MarkAvailable() | Provision():
            assert hooked
            assert not host.in_maintenance
            assert host.task not in FORBIDDEN_TASKS
            assert host.standby in (StandbyMode.NONE, StandbyMode.EXITING)
        case WriteSettings():
            assert host.agent_datastore is None or host.agent_network is None
        case _:
            pytest.fail(f"not an action on a host: {action}")


def test_yellow_is_left_to_eam() -> None:
    """EAM is at work, whatever issues the read still shows; and red without an issue gives nothing to resolve."""
    working = replace(an_agent(1, "VmNotDeployed"), status=EamStatus.YELLOW)
    assert plan(a_fleet(a_host(), agents=(working,))).actions == ()
    assert plan(a_fleet(a_host(), agents=(an_agent(status=EamStatus.RED),))).actions == ()


@pytest.mark.parametrize("may_mark", [True, False])
def test_the_hold_is_not_given_back_while_a_new_vm_is_held_beside_one_that_runs(may_mark: bool) -> None:
    """Bug: with the upgrade's file lost, or marking refused, EAM would have restarted the whole fleet at once."""
    held = an_agency(hold_after_provisioning=True)
    agent = replace(an_agent(hook=HookState.PROVISIONED), hook=HookFacts("vm-new", HookState.PROVISIONED))
    planner = a_planner()
    planner.may_mark = may_mark
    assert planner.plan_agency(a_fleet(a_host(), agents=(agent,), agency=held)).actions == ()
    assert planner.plan_agency(a_fleet(a_host(), agency=held)).actions == (SetHolds("agency-1", False, False),)


def test_the_last_cluster_is_not_drained_and_it_is_said_what_to_do() -> None:
    """Retreat: an agency without a scope is none, so nothing is written; the operator is told."""
    fleet = a_fleet(a_host())
    fleet.set_retreat([CLUSTER])
    planned = Planner(Desired((CLUSTER,)), Ledger(Limits())).plan_agency(fleet)
    assert planned.actions == ()
    assert "uninstall" in planned.waiting[0]
