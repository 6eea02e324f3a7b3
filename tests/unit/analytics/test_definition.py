# SPDX-License-Identifier: Apache-2.0
"""The ``.sandesh`` file: generated from the mapping, shipped, and as the public examples of such files are."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools

from vcenter_eam_plugin.analytics.definition import NAME, UVE, definition, shipped
from vcenter_eam_plugin.analytics.uve import ContrailVMStatus

ROOT = Path(__file__).parents[3]


def test_the_file_is_current() -> None:
    """python -m vcenter_eam_plugin.analytics.definition > vcenter_eam_plugin/analytics/contrail_vm_status.sandesh"""
    assert shipped() == definition()


def test_the_file_is_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    (pattern,) = given["package_data"]["vcenter_eam_plugin.analytics"]
    found = [path.name for path in (ROOT / "vcenter_eam_plugin/analytics").glob(pattern)]
    assert found == [f"{NAME}.sandesh"]


def test_key_and_deletion_come_first_and_every_field_has_its_number() -> None:
    """Numbers are the wire format: a field that got another one would be read as something else."""
    (body,) = re.findall(r"^struct ContrailVMStatus \{\n(.*?)^\}", shipped(), re.MULTILINE | re.DOTALL)
    lines = [line.strip() for line in body.splitlines()]
    assert lines[:2] == ['1: string name (key="ObjectServerTable")', "2: optional bool deleted"]
    numbered = [re.fullmatch(r"(\d+): optional (bool|u64|string|list<\w+>) (\w+)", line) for line in lines[2:]]
    assert [(int(each[1]), each[3]) for each in numbered if each] == list(
        enumerate(ContrailVMStatus.__struct_fields__, 3)
    )


def test_fields_that_were_released_keep_their_numbers() -> None:
    """Append to the struct; this list grows at its end and changes nowhere else."""
    assert list(ContrailVMStatus.__struct_fields__)[:42] == [
        "state",
        "old_state",
        "last_state",
        "reason",
        "vrouter_active",
        "vrouter_name",
        "vrouter_ip",
        "contrail_vm_key",
        "uuid",
        "vcenter_uuid",
        "datacenter",
        "cluster",
        "cluster_moref",
        "esxi_name",
        "esxi_moref",
        "esxi_connection",
        "esxi_power",
        "esxi_maintenance",
        "esxi_standby",
        "esxi_task",
        "vm_name",
        "vm_moref",
        "vm_instance_uuid",
        "vm_power",
        "vm_host_moref",
        "vm_connection",
        "vm_heartbeat",
        "vm_ip",
        "eam_agency",
        "eam_agent",
        "eam_status",
        "eam_goal",
        "eam_hook",
        "issue_count",
        "issues",
        "violation_count",
        "violations",
        "event",
        "timestamp",
        "epoch",
        "seq",
        "publisher",
    ]


def test_structs_stand_before_they_are_used() -> None:
    text = shipped()
    names = re.findall(r"^(?:uve sandesh|struct) (\w+)", text, re.MULTILINE)
    assert names == ["ContrailVMIssue", "ContrailVMViolation", "ContrailVMStatus", UVE]
    for name in re.findall(r"list<(\w+)>", text):
        assert text.index(f"struct {name} ") < text.index(f"list<{name}>")
