# SPDX-License-Identifier: Apache-2.0
"""What ``status``, ``host`` and ``events`` draw, at a fixed width, of what the API answers; also of 2,500 hosts."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterable
from typing import Any

import click
import msgspec
import pytest
from rich.console import Console, RenderableType

from tests.support.contrailvm import contrail_vm
from vcenter_eam_plugin.cli import events, host, status
from vcenter_eam_plugin.cli.progress import Bars
from vcenter_eam_plugin.cli.status_view import Seen, age
from vcenter_eam_plugin.cli.status_view import status as drawn
from vcenter_eam_plugin.domain.errors import UnknownTarget
from vcenter_eam_plugin.domain.status import State

NOON = 1_700_000_000.0
VCENTER: dict[str, Any] = {
    "name": "test", "vcenter": "vc.example", "mode": "act", "leading": True, "leader": "us", "ready": True,
    "agency": {"moref": "agency-1", "status": "green"}, "states": {"ACTIVE": 2}, "alarms": [], "waiting": {},
    "sources": {"inventory": {"live": True}, "events": {"live": True}, "eam": {"live": True}},
}  # fmt: skip


def a_row(number: int, state: State = State.ACTIVE, reason: str = "", cluster: str = "ClusterA", **more: Any) -> Any:
    """As the API gives a host; in its state for three minutes."""
    found = msgspec.to_builtins(contrail_vm(number, state, reason))
    found["esxi"] |= {"cluster": cluster, "name": f"esx-{number:04}"}
    return {"vcenter": "test", "since": NOON - 200, "since_known": True, **found, **more}


def text_of(what: RenderableType, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(what)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, written.splitlines())) <= width
    return str(written)


def listed(text: str) -> list[str]:
    return re.findall(r"│ (esx-\d+)", text)


def test_each_cluster_has_a_heading_with_counts_and_a_table_of_its_own() -> None:
    rows = [a_row(3, cluster="ClusterB"), a_row(1), a_row(2, State.FAULTY, "EAM shows VmCorrupted")]
    text = text_of(drawn(Seen([VCENTER], rows), NOON))
    assert "ClusterA in DC0: 2 hosts, 1 ACTIVE, 1 FAULTY" in text
    assert "ClusterB in DC0: 1 host, 1 ACTIVE" in text
    assert listed(text) == ["esx-0001", "esx-0002", "esx-0003"]
    row = next(line for line in text.splitlines() if "esx-0002" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "esx-0002", "ContrailVM-2", "FAULTY", "3m", "no", "EAM shows VmCorrupted"
    ]  # fmt: skip


def test_what_is_wrong_is_in_the_row_reason_issues_waiting_and_rules() -> None:
    row = a_row(1, State.POWERED_OFF, "it is off", violations=[{"name": "tenants-without-vrouter", "text": "long"}])
    row["eam"]["issues"] = [{"type": "VmPoweredOff", "description": ""}]
    vcenter = {**VCENTER, "waiting": {"host-1": ["a person may be at work"]}}
    text = text_of(drawn(Seen([vcenter], [row]), NOON), 200)
    assert "it is off; VmPoweredOff; a person may be at work [RULE BROKEN: tenants-without-vrouter]" in text


def test_what_is_on_its_way_is_said_below_the_agency() -> None:
    """After `activate` the states alone are PENDING for a while: that EAM is at work stands there, too."""
    doing = "EAM is deploying: 0 of 2 hosts active, 2 pending"
    lines = text_of(drawn(Seen([{**VCENTER, "doing": doing}], []), NOON)).splitlines()
    assert lines[1:3] == ["  agency agency-1, green", f"  {doing}"]
    assert "deploying" not in text_of(drawn(Seen([{**VCENTER, "doing": ""}], []), NOON))


@pytest.mark.parametrize(
    ("since", "known", "expected"), [(NOON - 5, True, "5s"), (NOON - 7300, False, ">2h"), (None, False, "-")]
)
def test_since_says_how_long_and_what_is_not_known(since: float | None, known: bool, expected: str) -> None:
    text = text_of(drawn(Seen([VCENTER], [a_row(1, since=since, since_known=known)]), NOON))
    row = next(line for line in text.splitlines() if "esx-0001" in line)
    assert row.split("│")[4].strip() == expected


@pytest.mark.parametrize(
    ("ms", "cpu_ms", "said"),
    [(319.0, 9.0, None), (60.0, 55.0, "60 ms, 55 of it"), (1500.0, 9.0, "short of processor time")],
    ids=["a busy machine", "our own doing", "a starved machine"],
)
def test_a_held_loop_is_told_where_somebody_should_look(ms: float, cpu_ms: float, said: str | None) -> None:
    """A newcomer's first status said that the loop was held, 9 ms of 319 by computing: there was nothing to mend."""
    loop = {"limit_ms": 50.0, "longest_in_last_minute": {"ms": ms, "cpu_ms": cpu_ms, "where": ""}}
    text = " ".join(text_of(drawn(Seen([VCENTER], [], loop=loop), now=NOON)).split())
    assert ("event loop" in text) is (said is not None)
    assert said is None or said in text


def test_ages_have_one_unit() -> None:
    assert [age(seconds) for seconds in (-3, 0, 59, 60, 3599, 3600, 86399, 86400, 10 * 86400)] == [
        "0s", "0s", "59s", "1m", "59m", "1h", "23h", "1d", "10d",
    ]  # fmt: skip


def test_of_2500_hosts_what_is_well_is_counted_and_not_listed() -> None:
    """Forty clusters; three hosts are not well. Drawn within a second, and short enough to be read."""
    rows = [a_row(number, cluster=f"Cluster{number % 40:02}") for number in range(2500)]
    for number in (7, 47, 1000):
        rows[number] = a_row(number, State.FAULTY, "broken", cluster=f"Cluster{number % 40:02}")
    seen = Seen([VCENTER], rows)
    began = time.process_time()
    text = text_of(drawn(seen, NOON))
    assert time.process_time() - began < 5.0
    assert listed(text) == ["esx-1000", "esx-0007", "esx-0047"]
    assert "Cluster07 in DC0: 63 hosts, 61 ACTIVE, 2 FAULTY" in text
    assert "61 ACTIVE, not listed (--all)" in text
    rows[1001]["violations"] = [{"name": "slots_count_agents", "text": "long"}]
    assert listed(text_of(drawn(seen, NOON))) == ["esx-1000", "esx-1001", "esx-0007", "esx-0047"], "S16: it is ACTIVE"
    assert len(text.splitlines()) < 200
    assert len(listed(text_of(drawn(seen, NOON, everything=True)))) == 2500
    asked = Seen([VCENTER], rows, chosen=True)
    assert len(listed(text_of(drawn(asked, NOON)))) == 2500, "who asks for ACTIVE hosts wants to see them"


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    row = a_row(1, State.FAULTY, "a\x1b[2Jb [bold]c[/bold]")
    text = text_of(drawn(Seen([VCENTER], [row]), NOON))
    assert "\x1b" not in text
    assert "a?[2Jb [bold]c[/bold]" in text


# --- which hosts -------------------------------------------------------------------------------------------


class ApiStub:
    """Answers with these hosts, and counts how often it is asked."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self.rows = list(rows)
        self.asked: list[str] = []

    def get(self, path: str) -> Any:
        self.asked.append(path)
        return {"/api/v1/status": {"vcenters": [VCENTER]}, "/api/v1/hosts": {"hosts": self.rows}}[path]


@pytest.mark.parametrize("name", ["ClusterB", "DC0/ClusterB", "/DC0/host/ClusterB", "/DC0/host/deep/ClusterB/"])
def test_a_cluster_is_named_as_elsewhere(name: str) -> None:
    api = ApiStub([a_row(1), a_row(2, cluster="ClusterB")])
    seen = status._look(api, "", name, ())  # type: ignore[arg-type]
    assert [row["esxi"]["name"] for row in seen.hosts] == ["esx-0002"]


def test_an_unknown_cluster_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownTarget, match=r"'ClusterX'.*DC0/ClusterA"):
        status._look(ApiStub([a_row(1)]), "", "ClusterX", ())  # type: ignore[arg-type]


def test_states_choose() -> None:
    api = ApiStub([a_row(1), a_row(2, State.FAULTY), a_row(3, State.BLOCKED)])
    seen = status._look(api, "", "", ("FAULTY", "BLOCKED"))  # type: ignore[arg-type]
    assert [row["esxi"]["name"] for row in seen.hosts] == ["esx-0002", "esx-0003"]
    assert seen.chosen


# --- one host ----------------------------------------------------------------------------------------------


def test_one_host_has_issues_with_advice_plan_and_events() -> None:
    about = a_row(
        1, State.POWERED_OFF, "it is off", violations=[{"name": "late", "text": "it is late", "advice": "Look at EAM."}]
    )
    about |= {
        "settings": {"datastore": "datastore-1", "network": None},
        "issues": [
            {"type": "VmPoweredOff", "description": "ContrailVM is off", "meaning": "it should be on and is off",
             "radius": "agent VM", "policy": "auto", "advice": "Resolve powers it on."}
        ],
        "plan": {"actions": [{"text": "resolve VmPoweredOff", "radius": "agent VM"}], "waiting": ["grace time"],
                 "again_in": 12.4, "closed": "observe mode"},
    }  # fmt: skip
    about["eam"]["hook"] = "poweredOn"
    event = {"at": NOON, "kind": "state", "name": "esx-0001", "host": "host-1", "vcenter": "test", "text": "A -> B",
             "why": "off", "who": "", "result": ""}  # fmt: skip
    text = text_of(host.drawn(about, [event], NOON))
    for said in (
        "esx-0001 (host-1) in ClusterA, DC0, test", "(3m); it is off", "datastore datastore-1, network unset",
        "held", "hook poweredOn", "RULE BROKEN", "late: it is late. Look at EAM.",
        "VmPoweredOff: it should be on and is off",
        "EAM says: ContrailVM is off", "policy auto. Resolve powers it on.", "resolve VmPoweredOff (touches: agent VM)",
        "waits: grace time", "is planned anew in 12 s", "none of it is done: observe mode", "A -> B: off",
    ):  # fmt: skip
        assert said in text, f"{said!r} not in:\n{text}"


# --- events ------------------------------------------------------------------------------------------------


def test_a_line_of_the_trail_says_who_what_why_and_what_came_of_it() -> None:
    event = {
        "at": NOON, "kind": "action", "name": "esx-1", "host": "h", "vcenter": "v", "text": "resolve", "why": "off",
        "who": "uid 0 (root, pid 1)", "result": "done",
    }  # fmt: skip
    assert events.line(event)[20:] == "action    esx-1                    resolve: off [uid 0 (root, pid 1)] -> done"


@pytest.mark.parametrize(("text", "ago"), [("30s", 30), ("5m", 300), ("2h", 7200), ("3d", 259200)])
def test_since_takes_an_age(text: str, ago: int) -> None:
    assert events.moment_of(text, NOON) == NOON - ago


def test_since_takes_a_time_and_refuses_the_rest() -> None:
    assert events.moment_of("2023-11-14T22:13:20+00:00", 0.0) == NOON
    for wrong in ("yesterday", "2x", "-1h", "99999-01-01"):
        with pytest.raises(ValueError):  # noqa: PT011 - its text is made by whoever asked
            events.moment_of(wrong, NOON)


# --- progress ----------------------------------------------------------------------------------------------


def _step(number: int, of: int, outcome: str, detail: str = "", **more: Any) -> dict[str, Any]:
    return {"kind": "step", "number": number, "of": of, "target": f"esx-{number}", "text": "resolve it",
            "outcome": outcome, "detail": detail, **more}  # fmt: skip


def _bars(*told: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=110, force_terminal=True, color_system=None)
    with Bars(console) as bars:
        for event in told:
            bars.event(event)
    return click.unstyle(console.file.getvalue())  # type: ignore[attr-defined]


def test_on_a_terminal_each_host_that_fails_is_one_line_and_the_bar_counts_all() -> None:
    text = _bars(
        _step(1, 3, "begun"),
        _step(1, 3, "done", "asked for"),
        _step(2, 3, "begun"),
        _step(2, 3, "failed", "EAM refused [it]"),
        _step(3, 3, "begun"),
        _step(3, 3, "done", "asked for"),
        {"kind": "end", "ok": False, "done": 2, "failed": 1},
    )
    assert text.count("FAILED esx-2: EAM refused [it]") == 1
    assert "asked for" not in text, "what went well is counted, not listed"
    assert "2 done, 1 failed" in text
    assert "3/3" in text


def test_a_step_that_counts_hosts_has_a_bar_of_its_own() -> None:
    """``upgrade start`` and ``uninstall`` are one or two steps over the whole fleet."""
    text = _bars(
        _step(1, 2, "begun"),
        _step(1, 2, "running", "2500 left", progress=[0, 2500]),
        _step(1, 2, "running", "esx-9: resolving VmDeployed", stays=True),
        _step(1, 2, "running", "100 left", progress=[2400, 2500]),
        _step(1, 2, "running", "esx-8 is left", stays=True),
    )
    assert "2400/2500" in text
    assert "0/2" in text
    assert text.count("... esx-1: esx-8 is left") == 1


def test_json_of_a_status_holds_all_hosts() -> None:
    seen = Seen([VCENTER], [a_row(number) for number in range(100)])
    assert len(json.loads(status._plain(seen))["hosts"]) == 100
