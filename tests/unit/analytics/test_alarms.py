# SPDX-License-Identifier: Apache-2.0
"""``etc/alarms``: objects that contrail-api takes, whose rules hold in the states that they are for and in no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.collector import raised
from tests.unit.analytics.test_uve import FULL, a_vm, said
from vcenter_eam_plugin.analytics.uve import ContrailVMStatus, status_of
from vcenter_eam_plugin.domain.status import State

FILES = sorted((Path(__file__).parents[3] / "etc/alarms").glob("*.json"))
ALARMS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text("utf-8"))["alarm"] for path in FILES}

OF_STATE = {
    "contrailvm-down": {State.POWERED_OFF, State.SUSPENDED, State.MISSING, State.FAULTY},
    "contrailvm-blocked": {State.BLOCKED},
    "contrailvm-unreachable": {State.UNREACHABLE},
}


def structs(state: State, **others: Any) -> dict[str, Any]:
    """What analytics holds for a vRouter whose ContrailVM is in ``state``."""
    return {"ContrailVMStatus": msgspec.to_builtins(status_of(said(1, a_vm(1, state)))), **others}


@pytest.mark.parametrize("name", ALARMS)
def test_shape(name: str) -> None:
    """What contrail-api checks of an alarm, and the fields that its schema has."""
    alarm = ALARMS[name]
    assert alarm["fq_name"] == ["default-global-system-config", name]
    assert alarm["parent_type"] == "global-system-config"
    assert alarm["alarm_severity"] in {0, 1, 2}
    assert alarm["id_perms"]["enable"] is True
    assert alarm["id_perms"]["description"].endswith(".")
    assert set(alarm["uve_keys"]["uve_key"]) <= {"vrouter", "server"}
    for rule in alarm["alarm_rules"]["or_list"]:
        for condition in rule["and_list"]:
            assert set(condition) <= {"operand1", "operation", "operand2", "variables"}
            assert condition["operation"] in {"==", "!=", "<", "<=", ">", ">=", "in", "not in", "range"}
            assert list(condition["operand2"]) == ["json_value"]
            assert isinstance(condition["operand2"]["json_value"], str)
            json.loads(condition["operand2"]["json_value"])


@pytest.mark.parametrize("name", ALARMS)
def test_every_path_is_a_field_that_we_send(name: str) -> None:
    paths = re.findall(r"ContrailVMStatus\.(\w+)", json.dumps(ALARMS[name]))
    assert paths
    assert set(paths) <= set(ContrailVMStatus.__struct_fields__)


@pytest.mark.parametrize("name", OF_STATE)
def test_alarm_of_states(name: str) -> None:
    """S10: maintenance and standby are in none of them."""
    assert {state for state in State if raised(ALARMS[name], structs(state))} == OF_STATE[name]


def test_every_state_is_of_one_alarm_at_most() -> None:
    for state in State:
        assert sum(raised(ALARMS[name], structs(state)) for name in OF_STATE) <= 1


@pytest.mark.parametrize("name", ALARMS)
def test_a_vrouter_that_is_not_ours_raises_nothing(name: str) -> None:
    """Alarm rules see every vRouter: those on other hypervisors have no struct of ours."""
    assert not raised(ALARMS[name], {"NodeStatus": {}, "VrouterAgent": {}})
    assert not raised(ALARMS[name], {"VrouterAgent": {}})


def test_a_broken_rule_is_an_alarm_until_it_is_over() -> None:
    alarm = ALARMS["contrailvm-rule-broken"]
    broken = {"ContrailVMStatus": msgspec.to_builtins(status_of(said(1, FULL)))}
    assert raised(alarm, broken)
    assert not raised(alarm, structs(State.ACTIVE))


def test_a_silent_vrouter_is_an_alarm_while_its_contrailvm_is_in_service() -> None:
    """And not in maintenance, where Contrail's own alarm is raised without a reason."""
    alarm = ALARMS["contrailvm-vrouter-silent"]
    assert {state for state in State if raised(alarm, structs(state))} == {State.ACTIVE}
    assert not raised(alarm, structs(State.ACTIVE, NodeStatus={"process_info": []}))


def test_the_page_names_every_alarm() -> None:
    page = (Path(__file__).parents[3] / "docs/analytics.md").read_text("utf-8")
    assert [name for name in ALARMS if f"`{name}`" not in page] == []
