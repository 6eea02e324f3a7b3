# SPDX-License-Identifier: Apache-2.0
"""S12: a ContrailVM is marked once its vRouter answers, asked at intervals and not for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcenter_eam_plugin.domain.health import PROBE_SECONDS, HealthGate, HealthRules, OnDeadline, Step, Verdict

IP = "10.0.0.1"
NOW = 1000.0
DEADLINE = 60.0


def a_gate(on_deadline: OnDeadline = OnDeadline.RELEASE) -> HealthGate:
    return HealthGate(HealthRules(gate=True, deadline=DEADLINE, on_deadline=on_deadline))


def test_without_the_gate_a_hook_is_answered_at_once() -> None:
    """S12: off by default."""
    assert HealthGate(HealthRules()).judge("h", "vm", None, NOW) == Verdict(Step.MARK)


def test_it_is_asked_at_once_then_at_intervals_and_marked_when_it_answers() -> None:
    """S12: the planner is told when to come back, so that nothing depends on the poll."""
    gate = a_gate()
    assert gate.judge("h", "vm", None, NOW).step is Step.WAIT, "no address, nobody to ask"
    assert gate.judge("h", "vm", None, NOW).again_at == NOW + PROBE_SECONDS
    verdict = gate.judge("h", "vm", IP, NOW)
    assert (verdict.step, verdict.again_at) == (Step.PROBE, NOW + PROBE_SECONDS)
    gate.probed("h", "vm", healthy=False, reason="starting", now=NOW + 1)
    assert gate.judge("h", "vm", IP, NOW + 1) == Verdict(Step.WAIT, "starting", NOW + 1 + PROBE_SECONDS)
    assert gate.judge("h", "vm", IP, NOW + 1 + PROBE_SECONDS).step is Step.PROBE
    gate.probed("h", "vm", healthy=True, reason="", now=NOW + 5)
    assert gate.judge("h", "vm", IP, NOW + 5).step is Step.MARK
    assert gate.judge("h", "vm", IP, NOW + 5).reason == "", "nothing was released"
    assert gate.judge("h", "vm", IP, NOW + 10 * DEADLINE).step is Step.MARK


@pytest.mark.parametrize("ip", [IP, None])
def test_on_the_deadline_it_is_released_with_what_was_wrong(ip: str | None) -> None:
    """S12: the controllers that it needs may themselves be tenants waiting for it."""
    gate = a_gate()
    gate.judge("h", "vm", ip, NOW)
    gate.probed("h", "vm", healthy=False, reason="vRouter not installed", now=NOW)
    assert gate.judge("h", "vm", ip, NOW + DEADLINE - 1).step is not Step.RELEASE
    verdict = gate.judge("h", "vm", ip, NOW + DEADLINE)
    assert verdict == Verdict(Step.RELEASE, "released after 60 s without health: vRouter not installed")


def test_or_held_until_it_is_healthy() -> None:
    """S12: on_health_deadline = hold goes on asking."""
    gate = a_gate(OnDeadline.HOLD)
    gate.judge("h", "vm", IP, NOW)
    assert gate.judge("h", "vm", IP, NOW + 100 * DEADLINE).step is Step.PROBE
    gate.probed("h", "vm", healthy=True, reason="", now=NOW + 100 * DEADLINE)
    assert gate.judge("h", "vm", IP, NOW + 100 * DEADLINE).step is Step.MARK


def test_each_power_on_is_judged_anew() -> None:
    """S12: healthy before maintenance says nothing about afterwards; neither does another VM's health."""
    gate = a_gate()
    for vm in ("vm", "vm-respawned"):
        assert gate.judge("h", vm, IP, NOW).step is Step.PROBE
        gate.probed("h", vm, healthy=True, reason="", now=NOW)
        assert gate.judge("h", vm, IP, NOW).step is Step.MARK
    gate.over("h")
    assert gate.judge("h", "vm-respawned", IP, NOW + 2 * DEADLINE).step is Step.PROBE, "the deadline too is new"


def test_an_answer_that_comes_late_concerns_nobody_else() -> None:
    """S12: a probe of the VM that was there before, or of a host where nothing is held (any more)."""
    gate = a_gate()
    gate.judge("h", "vm-2", IP, NOW)
    gate.probed("h", "vm-1", healthy=True, reason="", now=NOW)
    assert gate.judge("h", "vm-2", IP, NOW).step is Step.PROBE
    gate.over("h")
    gate.probed("h", "vm-2", healthy=True, reason="", now=NOW)
    assert gate.judge("h", "vm-2", IP, NOW).step is Step.PROBE
    gate.over("nobody")


@given(
    steps=st.lists(st.tuples(st.floats(0, 30), st.booleans(), st.booleans()), max_size=30),
    on_deadline=st.sampled_from(OnDeadline),
)
def test_whatever_happens_it_is_marked_for_a_reason(
    steps: list[tuple[float, bool, bool]], on_deadline: OnDeadline
) -> None:
    """S12: MARK after a healthy answer alone, RELEASE after the deadline alone, and never silence without a time."""
    gate, now, answered = a_gate(on_deadline), NOW, False
    for seconds, has_address, healthy in steps:
        now += seconds
        verdict = gate.judge("h", "vm", IP if has_address else None, now)
        assert (verdict.step is Step.MARK) == answered
        if verdict.step is Step.RELEASE:
            assert on_deadline is OnDeadline.RELEASE
            assert now >= NOW + DEADLINE
        if verdict.step in (Step.WAIT, Step.PROBE):
            assert verdict.again_at is not None
            assert verdict.again_at > now or verdict.step is Step.WAIT
        if verdict.step is Step.PROBE:
            gate.probed("h", "vm", healthy=healthy, reason="" if healthy else "ill", now=now)
            answered = healthy
