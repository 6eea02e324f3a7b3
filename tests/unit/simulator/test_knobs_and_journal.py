# SPDX-License-Identifier: Apache-2.0
"""Knobs are checked before any of them changes; the journal is append-only and says no news twice."""

from __future__ import annotations

import pytest

from vcenter_eam_plugin.simulator.journal import Journal
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.world import ManualClock


@pytest.mark.parametrize(
    "changes",
    [
        {"power_on": 1, "no_such_knob": 1},
        {"power_on": 1, "deploy": -1},
        {"power_on": 1, "heartbeat_gate": "yes"},
        {"power_on": 1, "vrouter_port": True},
        {"power_on": 1, "eam_level": [9]},
        {"power_on": 1, "vrouter_net": "10.0"},
        {"power_on": 1, "host_version": 8},
        {"power_on": 1, "status_in_hook": "red"},
    ],
)
def test_a_wrong_change_changes_nothing(changes: dict[str, object]) -> None:
    """All or nothing, and the message names the knob."""
    knobs = Knobs()
    wrong = next(name for name in changes if name != "power_on")
    with pytest.raises(ValueError, match=wrong):
        knobs.change(changes)
    assert knobs == Knobs()


def test_right_changes() -> None:
    """What JSON gives is taken: whole numbers for seconds, lists for levels."""
    knobs = Knobs()
    knobs.change({"power_on": 2, "eam_level": [8, 2], "maintenance_issue": False, "ovf_trusted_roots": "/ca.pem"})
    assert (knobs.power_on, knobs.eam_level, knobs.maintenance_issue) == (2.0, (8, 2), False)
    assert knobs.as_dict()["ovf_trusted_roots"] == "/ca.pem"


def test_journal() -> None:
    """Sequence grows; a truth is written only when it is news; entries are plain data."""
    journal = Journal(ManualClock())
    journal.call("admin", "PowerOffVM_Task", "vm-1")
    journal.truth("host-1", {"vm": None})
    journal.truth("host-1", {"vm": None})
    journal.truth("host-1", {"vm": "vm-1"})
    assert [entry.seq for entry in journal] == [1, 2, 3]
    assert [entry.kind for entry in journal] == ["call", "truth", "truth"]
    assert len(journal.calls("PowerOffVM_Task")) == len(journal.calls()) == 1
    assert journal.truth_of("host-1") == {"vm": "vm-1"}
    assert journal.entries[0].as_dict()["fields"] == {"user": "admin", "method": "PowerOffVM_Task", "object": "vm-1"}
