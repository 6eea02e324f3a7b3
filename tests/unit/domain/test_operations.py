# SPDX-License-Identifier: Apache-2.0
"""Previews: what a request would do, the word it needs, and a digest that changes whenever a line does (S06, S08)."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.facts import AGENCY, CLUSTER, a_cluster, a_fleet, a_host, a_vm, an_agency, an_agent
from vcenter_eam_plugin.domain.actions import CreateAgency, ExtendScope, MarkAvailable, Resolve, WriteSettings
from vcenter_eam_plugin.domain.errors import ConfigurationError, UnknownTarget, WrongState
from vcenter_eam_plugin.domain.facts import EamStatus, GoalState, HookState, VmPower
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.issues import CATALOGUE, Policy, Radius, issue_type
from vcenter_eam_plugin.domain.observations import AgencyObserved, InventoryObserved
from vcenter_eam_plugin.domain.operations import Sight, preview
from vcenter_eam_plugin.domain.planner import Desired, Plan
from vcenter_eam_plugin.domain.requests import Operation, PowerOff, Preview, Request, ResolveIssue, Step
from vcenter_eam_plugin.domain.upgrade import Phase, Upgrade

OTHER = "domain-c2"


def sight(fleet: Fleet, **changes: Any) -> Sight:
    return Sight("test", fleet, Desired((CLUSTER,)), **changes)


def asked(operation: str, target: str = "", **changes: Any) -> Request:
    return Request(operation=Operation(operation), target=target, **changes)


def names(shown: Preview) -> list[str]:
    return [step.target for step in shown.steps]


# --- the digest --------------------------------------------------------------------------------------------

radii = st.sampled_from(list(Radius))
words = st.text(max_size=6)
a_step = st.builds(Step, words, words, radii, st.builds(PowerOff, words, words))
previews = st.builds(
    Preview,
    st.just(asked("power-off", "esx-1.example")),
    st.just("test"),
    st.lists(a_step, max_size=4).map(tuple),
    acknowledge=words,
)


@given(previews, st.data())
def test_digest_changes_whenever_a_line_does(shown: Preview, data: st.DataObject) -> None:
    """Issue 3: a plan that is not the one that was shown is never taken for it."""
    other = data.draw(previews)
    same = (shown.steps, shown.acknowledge) == (other.steps, other.acknowledge)
    assert (shown.digest == other.digest) is same
    if shown.steps:
        place = data.draw(st.integers(0, len(shown.steps) - 1))
        step = shown.steps[place]
        for changed in (
            replace(step, target=step.target + "x"),
            replace(step, text=step.text + "x"),
            replace(step, radius=next(radius for radius in Radius if radius is not step.radius)),
            replace(step, do=PowerOff("another", "vm")),
        ):
            steps = (*shown.steps[:place], changed, *shown.steps[place + 1 :])
            assert replace(shown, steps=steps).digest != shown.digest
        assert replace(shown, steps=shown.steps[:-1]).digest != shown.digest


@given(previews)
def test_digest_is_the_same_for_what_is_the_same(shown: Preview) -> None:
    assert replace(shown, notes=("waits",)).digest == shown.digest
    assert msgspec.json.decode(msgspec.json.encode(shown.plain())) == shown.plain()


@given(st.lists(st.sampled_from(sorted(CATALOGUE)), min_size=1, max_size=4, unique=True), st.booleans())
def test_whatever_the_issues_nothing_that_takes_more_than_a_vm_goes_without_a_word(
    issues: list[str], everything: bool
) -> None:
    """S06: and what EAM cannot remediate is never among the steps, not even for a person."""
    fleet = a_fleet(a_host(), agents=(an_agent(1, *issues),))
    try:
        shown = preview(asked("resolve", "" if everything else "esx-1.example", everything=everything), sight(fleet))
    except WrongState:
        assert not any(issue_type(name).policy in (Policy.AUTO, Policy.AUTO_AFTER_FIX, Policy.ASK) for name in issues)
        return
    for step in shown.steps:
        assert isinstance(step.do, ResolveIssue)
        row = issue_type(step.do.issue)
        assert row.policy is not Policy.WAIT
        assert row.policy is not Policy.NEVER or (row.radius is Radius.HOST and not everything)
    if shown.radius in (Radius.AGENT_VM_LOST, Radius.HOST):
        assert shown.acknowledge == (an_agency().name if everything else "esx-1.example")
    else:
        assert shown.acknowledge == ""


# --- one ContrailVM ----------------------------------------------------------------------------------------


def test_power_off_and_delete_need_the_hosts_name_and_say_what_is_lost() -> None:
    """S06."""
    fleet = a_fleet(a_host())
    off = preview(asked("power-off", "ESX-1.example"), sight(fleet))
    assert (off.acknowledge, off.radius, off.confirm) == ("esx-1.example", Radius.AGENT_VM, False)
    assert "ACTIVE" in off.steps[0].text
    gone = preview(asked("delete", "host-1"), sight(fleet))
    assert [type(step.do).__name__ for step in gone.steps] == ["PowerOff", "Delete"]
    assert gone.acknowledge == "esx-1.example"
    assert any("repaired after 30 s" in note for note in gone.notes)


def test_delete_of_one_that_is_off_is_one_step_and_in_maintenance_nothing_repairs_it() -> None:
    fleet = a_fleet(a_host(in_maintenance=True), vms=(a_vm(power=VmPower.POWERED_OFF),))
    gone = preview(asked("delete", "esx-1.example"), sight(fleet))
    assert ([type(step.do).__name__ for step in gone.steps], gone.notes) == (["Delete"], ())
    with pytest.raises(WrongState, match="off already"):
        preview(asked("power-off", "esx-1.example"), sight(fleet))


@pytest.mark.parametrize("operation", ["power-off", "delete", "resolve", "release"])
def test_an_unknown_host_is_refused_with_those_that_there_are(operation: str) -> None:
    with pytest.raises(UnknownTarget, match=r"there are: esx-1\.example, esx-2\.example") as refused:
        preview(asked(operation, "nowhere"), sight(a_fleet(a_host(1), a_host(2))))
    assert refused.value.exit_code == 14


@pytest.mark.parametrize(
    "request_",
    [
        asked("power-off"),
        asked("power-off", "esx-1.example", everything=True),
        asked("resolve"),
        asked("resolve", "esx-1.example", everything=True),
        asked("apply", "esx-1.example"),
        asked("apply", everything=True),
        asked("uninstall", "esx-1.example"),
        asked("delete", everything=True),
        asked("retreat"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(request_: Request) -> None:
    with pytest.raises(ConfigurationError):
        preview(request_, sight(a_fleet(a_host())))


def test_nothing_is_previewed_of_a_vcenter_that_was_not_read() -> None:
    with pytest.raises(WrongState, match="not been read completely"):
        preview(asked("apply"), sight(Fleet("52f3b0a1-7c1d-4d7e-9a55-0c2f6f0e1a11", [CLUSTER])))


# --- issues ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", CATALOGUE.values(), ids=lambda row: row.name)
def test_each_issue_is_resolved_refused_or_needs_the_name_as_the_catalogue_has_it(row: Any) -> None:
    """S08: `ask` may be resolved; `never` with no radius is refused with its advice; the host needs its name."""
    fleet = a_fleet(a_host(), agents=(an_agent(1, row.name),))
    if row.policy is Policy.WAIT or (row.policy is Policy.NEVER and row.radius is not Radius.HOST):
        with pytest.raises(WrongState) as refused:
            preview(asked("resolve", "esx-1.example"), sight(fleet))
        assert row.advice in str(refused.value)
        return
    shown = preview(asked("resolve", "esx-1.example"), sight(fleet))
    assert [step.do for step in shown.steps] == [ResolveIssue("host-1", "agent-1", row.name)]
    typed = row.radius in (Radius.HOST, Radius.AGENT_VM_LOST)
    assert shown.acknowledge == ("esx-1.example" if typed else "")


def test_an_unknown_issue_touches_the_host_as_far_as_we_know() -> None:
    shown = preview(asked("resolve", "esx-1.example"), sight(a_fleet(a_host(), agents=(an_agent(1, "Brandnew"),))))
    assert (shown.radius, shown.acknowledge) == (Radius.HOST, "esx-1.example")


def test_on_a_host_in_maintenance_only_what_names_the_host_is_resolved() -> None:
    """S10: powering on a ContrailVM there would take the host out of maintenance."""
    fleet = a_fleet(a_host(in_maintenance=True), agents=(an_agent(1, "VmPoweredOff", "HostInMaintenanceMode"),))
    shown = preview(asked("resolve", "esx-1.example"), sight(fleet))
    assert [step.do for step in shown.steps] == [ResolveIssue("host-1", "agent-1", "HostInMaintenanceMode")]
    assert any("VmPoweredOff" in note for note in shown.notes)


def test_resolve_all_leaves_out_what_touches_hosts_and_says_that_repairs_begin_again() -> None:
    fleet = a_fleet(
        a_host(1),
        a_host(2),
        a_host(3),
        agents=(an_agent(1, "VmPoweredOff"), an_agent(2, "HostInMaintenanceMode"), an_agent(3)),
    )
    shown = preview(asked("resolve", everything=True), sight(fleet, stopped=(CLUSTER,)))
    assert (names(shown), shown.acknowledge, shown.confirm) == (["esx-1.example"], "", True)
    assert any("esx-2.example: left out" in note for note in shown.notes)
    assert any("begin again" in note for note in shown.notes)


def test_green_hosts_have_nothing_to_resolve() -> None:
    shown = preview(asked("resolve", "esx-1.example"), sight(a_fleet(a_host())))
    assert (shown.steps, shown.radius, shown.confirm) == ((), Radius.NOTHING, False)
    bare = a_fleet(a_host(), agents=(an_agent(1, host=None),))
    with pytest.raises(WrongState, match="no agent"):
        preview(asked("resolve", "esx-1.example"), sight(bare))


# --- plan and holds ----------------------------------------------------------------------------------------


def test_the_plan_is_in_names_and_says_what_waits() -> None:
    plans = {
        "agency": Plan((CreateAgency((CLUSTER,)), ExtendScope(AGENCY, (OTHER,)))),
        "host-1": Plan((WriteSettings("host-1"), Resolve("host-1", "agent-1", "VmPoweredOff")), ("budget",)),
        "host-2": Plan((MarkAvailable("host-2", "agent-2", "poweredOn"),)),
    }
    shown = preview(asked("apply"), sight(a_fleet(a_host(1), a_host(2)), plans=plans))
    assert names(shown) == ["agency", "agency", "esx-1.example", "esx-1.example", "esx-2.example"]
    assert f"/DC0/host/Cluster {CLUSTER}" in shown.steps[0].text
    assert not any("host-" in step.text for step in shown.steps)
    assert (shown.notes, shown.acknowledge, shown.confirm) == (("esx-1.example: budget",), "", True)


def test_release_lets_go_what_is_held_and_nothing_else() -> None:
    fleet = a_fleet(a_host(1), a_host(2), agents=(an_agent(1, hook=HookState.POWERED_ON), an_agent(2)))
    assert names(preview(asked("release", everything=True), sight(fleet))) == ["esx-1.example"]
    assert names(preview(asked("release", "esx-1.example"), sight(fleet))) == ["esx-1.example"]
    with pytest.raises(WrongState, match="not held"):
        preview(asked("release", "esx-2.example"), sight(fleet))


def test_release_of_all_takes_no_running_contrailvm_from_under_its_tenants() -> None:
    """Bug: in the middle of an upgrade ``release --all`` marked every new VM that waited for its turn, so the whole
    fleet was replaced at once; the preview called it harmless."""
    waits = an_agent(1, vm="vm-old", hook=HookState.PROVISIONED)
    held = an_agent(2, hook=HookState.POWERED_ON)
    fleet = a_fleet(a_host(1), a_host(2), agents=(waits, held))
    shown = preview(asked("release", everything=True), sight(fleet))
    assert names(shown) == ["esx-2.example"]
    assert "esx-1.example" in " ".join(shown.notes)
    (alone,) = preview(asked("release", "esx-1.example"), sight(fleet)).steps
    assert alone.radius is Radius.AGENT_VM_LOST
    assert "deletes the one that runs now" in alone.text


# --- agency ------------------------------------------------------------------------------------------------


def two_clusters(**agency: Any) -> Fleet:
    return a_fleet(
        a_host(1), a_host(2, compute_resource=OTHER), agency=an_agency(**{"scope": (CLUSTER, OTHER), **agency})
    )


def test_a_cluster_leaves_the_scope_by_its_path_once_it_is_configured_no_more() -> None:
    """S04."""
    fleet = two_clusters()
    path = f"/DC0/host/Cluster {OTHER}"
    shown = preview(asked("scope-remove", f"Cluster {OTHER}"), sight(fleet))
    assert (shown.acknowledge, shown.radius) == (path, Radius.AGENT_VM_LOST)
    assert "1 host(s): esx-2.example" in shown.steps[0].text
    with pytest.raises(WrongState, match="still configured"):
        preview(asked("scope-remove", f"/DC0/host/Cluster {CLUSTER}"), sight(fleet))
    with pytest.raises(UnknownTarget, match=OTHER):
        preview(asked("scope-remove", "/DC0/host/Clutser"), sight(fleet))


def test_a_cluster_that_left_the_inventory_goes_by_its_moref() -> None:
    """S04."""
    fleet = two_clusters()
    fleet.apply(InventoryObserved(5.0, (a_cluster(),), (a_host(1),), (a_vm(1),), (OTHER,), complete=True))
    assert preview(asked("scope-remove", OTHER), sight(fleet)).acknowledge == OTHER


def test_the_last_cluster_neither_leaves_nor_retreats() -> None:
    fleet = a_fleet(a_host(1), agency=an_agency(scope=(CLUSTER,)))
    bare = Sight("test", fleet, Desired(()))
    for operation in ("scope-remove", "retreat"):
        with pytest.raises(WrongState, match="all that the agency covers"):
            preview(asked(operation, CLUSTER), bare)


def test_retreat_and_return_are_each_others_end() -> None:
    fleet = two_clusters()
    with pytest.raises(UnknownTarget):
        preview(asked("return", OTHER), sight(fleet))
    shown = preview(asked("retreat", OTHER), sight(fleet))
    assert (shown.acknowledge, shown.radius) == (f"/DC0/host/Cluster {OTHER}", Radius.AGENT_VM_LOST)
    fleet.set_retreat([OTHER])
    with pytest.raises(WrongState, match="already"):
        preview(asked("retreat", OTHER), sight(fleet))
    assert preview(asked("return", OTHER), sight(fleet)).acknowledge == ""


def test_uninstall_counts_vms_and_names_who_holds_it_up() -> None:
    fleet = a_fleet(a_host(1), a_host(2, in_maintenance=True), agency=an_agency(goal=GoalState.UNINSTALLED))
    shown = preview(asked("uninstall"), sight(fleet))
    assert (shown.acknowledge, shown.radius) == ("ContrailVM-Agency", Radius.AGENT_VM_LOST)
    assert "2 ContrailVM(s)" in shown.steps[0].text
    assert any("esx-2.example" in note for note in shown.notes)
    assert any("already" in note for note in shown.notes)


def test_upgrade_is_refused_where_it_can_only_do_harm() -> None:
    """Issue 3: without the hold only --all-at-once; never to what is deployed, nor in the middle of another."""
    fleet = a_fleet(a_host())
    new = {"package": "http://ovf.example/new.ovf"}
    shown = preview(asked("upgrade"), sight(fleet, **new))
    assert (shown.acknowledge, shown.radius) == ("ContrailVM-Agency", Radius.AGENT_VM_LOST)
    assert "canary" in shown.steps[0].text
    with pytest.raises(WrongState, match="needs the hold"):
        preview(asked("upgrade"), sight(fleet, may_mark=False, **new))
    at_once = preview(asked("upgrade", at_once=True), sight(fleet, may_mark=False, **new))
    assert at_once.digest != shown.digest
    with pytest.raises(WrongState, match="already"):
        preview(asked("upgrade"), sight(fleet, package="http://ovf.example/contrail.ovf"))
    running = Upgrade(url="u", started=0.0, old={}, canary="host-1", wave_size=1, phase=Phase.STOPPED, why="bad")
    with pytest.raises(WrongState, match="under way"):
        preview(asked("upgrade"), sight(fleet, upgrade=running, **new))
    assert "bad" in preview(asked("upgrade-resume"), sight(fleet, upgrade=running)).steps[0].text
    for operation in ("upgrade-pause", "upgrade-resume"):
        with pytest.raises(WrongState, match="No upgrade"):
            preview(asked(operation), sight(fleet))


def test_adopt_takes_one_of_those_that_are_somebody_elses() -> None:
    """S03."""
    theirs = an_agency(owner="other", moref="agency-9")
    fleet = a_fleet(a_host())
    with pytest.raises(WrongState, match="nothing to adopt"):
        preview(asked("adopt"), sight(fleet))
    fleet.apply(AgencyObserved(20.0, None, None, (theirs,)))
    assert preview(asked("adopt"), sight(fleet)).acknowledge == "ContrailVM-Agency"
    fleet.apply(AgencyObserved(21.0, None, None, (theirs, an_agency())))
    with pytest.raises(UnknownTarget, match="agency-9 of other"):
        preview(asked("adopt"), sight(fleet))
    assert "agency-9" in preview(asked("adopt", "other"), sight(fleet)).steps[0].text


@pytest.mark.parametrize("operation", ["uninstall", "upgrade"])
def test_without_an_agency_of_ours_there_is_nothing_of_it_to_change(operation: str) -> None:
    fleet = a_fleet(a_host())
    fleet.apply(AgencyObserved(20.0, None))
    with pytest.raises(WrongState, match="no agency of ours"):
        preview(asked(operation), sight(fleet, package="u"))


def test_an_agent_that_is_not_red_has_nothing_to_resolve_whatever_it_lists() -> None:
    agent = an_agent(1, "VmPoweredOff", status=EamStatus.YELLOW)
    assert preview(asked("resolve", "esx-1.example"), sight(a_fleet(a_host(), agents=(agent,)))).steps == ()
