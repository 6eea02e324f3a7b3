# SPDX-License-Identifier: Apache-2.0
"""Mode, pause and leadership in one question: design sections 1 and 6."""

from __future__ import annotations

import pytest

from vcenter_eam_plugin.domain.errors import WrongState
from vcenter_eam_plugin.gate import Gate


@pytest.mark.parametrize(
    ("act", "paused", "leader", "mode", "open_"),
    [
        (False, False, True, "observe", False),
        (False, True, True, "observe", False),
        (True, False, True, "act", True),
        (True, True, True, "paused", False),
        (True, False, False, "act", False),
        (True, True, False, "paused", False),
    ],
)
def test_open_only_to_a_leader_that_acts_and_is_not_paused(
    act: bool, paused: bool, leader: bool, mode: str, open_: bool
) -> None:
    """Observe mode changes nothing; neither does a standby; and the refusal says why."""
    gate = Gate(act=act, is_leader=lambda: leader)
    if paused:
        gate.pause()
    assert gate.mode == mode
    assert (gate.closed() == "") is open_
    if open_:
        gate.check()
    else:
        with pytest.raises(WrongState, match=gate.closed()):
            gate.check()


def test_a_standby_says_who_leads_as_far_as_is_known() -> None:
    """A refusal is of use only with the place where it would not be one."""
    leader = ""
    gate = Gate(act=True, is_leader=lambda: False, leader=lambda: leader)
    assert gate.closed() == "this instance does not lead"
    leader = "contrail-2.example:4711"
    assert gate.closed() == "this instance does not lead; contrail-2.example:4711 does"


def test_pause_works_at_any_time_and_activate_ends_it() -> None:
    """`pause` stops acting until `activate`, also out of observe mode."""
    gate = Gate(act=False, is_leader=lambda: True)
    gate.activate()
    gate.check()
    gate.pause()
    assert gate.closed()
    gate.activate()
    gate.check()


def test_leadership_is_asked_anew_before_each_write() -> None:
    """Design section 6: lost between plan and write, nothing is written."""
    answers = iter([True, False])
    gate = Gate(act=True, is_leader=lambda: next(answers))
    gate.check()
    with pytest.raises(WrongState):
        gate.check()


def test_a_pause_is_remembered_and_its_end_too() -> None:
    """A supervisor's restart must not end an operator's pause."""
    remembered: list[bool] = []
    gate = Gate(act=True, is_leader=lambda: True, remember=remembered.append)
    gate.pause()
    assert remembered == [True]
    again = Gate(act=True, is_leader=lambda: True, paused=True, remember=remembered.append)
    assert again.closed()
    again.activate()
    assert not again.closed()
    assert remembered == [True, False]
