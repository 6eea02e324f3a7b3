# SPDX-License-Identifier: Apache-2.0
"""S06: before a ContrailVM is powered off or deleted through the plugin it warns, and waits for the typed name."""

import json
import logging
import os
from collections.abc import Callable

import pytest

from tests.support.commands import Operator
from tests.support.scenario import assert_can_be_followed

POWER_OFF, DELETE = "PowerOffVM_Task", "Destroy_Task"


@pytest.fixture
def healthy(operator: Operator) -> Operator:
    """Three ACTIVE hosts whose ContrailVMs are not repaired while the test looks on."""
    operator.start(power_off_grace_seconds=600.0)
    operator.bench.wait_until_active()
    return operator


def vm_writes(operator: Operator) -> list[str]:
    """What was asked of VMs: who operates the bench through the plugin, not by its stimuli."""
    return [
        entry.fields["method"] for entry in operator.bench.writes() if entry.fields["method"] in (POWER_OFF, DELETE)
    ]


@pytest.mark.parametrize(
    ("command", "warning"), [("power-off", "tenant VMs on the host lose their network"), ("delete", "is lost")]
)
@pytest.mark.parametrize("word", [None, "", "no", "esx"])
def test_a_missing_or_wrong_word_changes_nothing(
    healthy: Operator, command: str, warning: str, word: str | None
) -> None:
    """S06: the warning is shown, the exit code is 11, and vCenter is not asked for anything."""
    host = healthy.bench.names()[0]
    given = [] if word is None else ["--acknowledge", word]
    done = healthy.run(command, host, *given)
    assert done.exit_code == 11
    assert warning in " ".join(done.stdout.split())
    assert f"needs the word {host!r}" in done.stderr
    assert vm_writes(healthy) == []
    assert healthy.bench.state(host) == "ACTIVE"


def test_acknowledged_it_is_powered_off_and_reported(healthy: Operator, caplog: pytest.LogCaptureFixture) -> None:
    """S06, S07: only this one; the log says who asked for what, and the bus what became of it."""
    bench, (host, *others) = healthy.bench, healthy.bench.names()
    with caplog.at_level(logging.WARNING):
        done = healthy.run("power-off", host, "--acknowledge", host)
    assert done.exit_code == 0, done.output
    bench.wait_for_state(host, "POWERED_OFF")
    assert vm_writes(healthy) == [POWER_OFF]
    assert all(bench.state(other) == "ACTIVE" for other in others)
    asked, ended = (r.getMessage() for r in caplog.records if r.name.endswith(".audit"))
    assert f"uid {os.getuid()} (" in asked
    assert f"power-off {host}" in asked
    assert "1 step(s) done, 0 not" in ended
    assert_can_be_followed(bench.messages)


def test_a_person_at_a_terminal_types_the_name(healthy: Operator) -> None:
    """S06: asked for with the warning above it."""
    host = healthy.bench.names()[0]
    done = healthy.run("power-off", host, typed="something else\n")
    assert done.exit_code == 11
    assert f"Type {host} to go on" in done.output
    assert vm_writes(healthy) == []
    assert healthy.run("power-off", host, typed=f"{host}\n").exit_code == 0
    healthy.bench.wait_for_state(host, "POWERED_OFF")


def test_delete_powers_off_first_and_says_so(healthy: Operator) -> None:
    """S06: two lines, two steps, and the ContrailVM is gone."""
    host = healthy.bench.names()[0]
    first, *events = healthy.ask("delete", host, "--acknowledge", host)
    assert [line["radius"] for line in first["lines"]] == ["agent VM", "agent VM is deleted"]
    assert [e["outcome"] for e in events if e["kind"] == "step"] == ["begun", "done", "begun", "done"]
    assert events[-1] == {"kind": "end", "ok": True, "done": 2, "failed": 0}
    assert vm_writes(healthy) == [POWER_OFF, DELETE]
    healthy.bench.wait_for_state(host, "MISSING")


def test_a_preview_alone_changes_nothing_and_says_what_comes_after(healthy: Operator) -> None:
    """S06: also that it is repaired unless somebody pauses."""
    host = healthy.bench.names()[0]
    (shown,) = healthy.ask("power-off", host, "--preview")
    assert shown["acknowledge"] == host
    assert any("repaired after 600 s" in note for note in shown["notes"])
    assert vm_writes(healthy) == []


def test_what_changed_since_the_warning_is_shown_anew(healthy: Operator) -> None:
    """S06: consent is to what was shown; the host went into maintenance in between."""
    host = healthy.bench.vcenter.hosts()[0]
    (shown,) = healthy.ask("delete", host.name, "--preview")
    healthy.bench.vcenter.enter_maintenance(host)
    fleet = healthy.bench.unit.pipeline.fleet
    # At rest: on the way in the preview changes more than once.
    healthy.bench.wait_for(
        lambda: (
            (seen := fleet.hosts[host.moid]).in_maintenance
            and seen.task is None
            and len(healthy.ask("delete", host.name, "--preview")[0]["lines"]) == 1
        ),
        "the host is in maintenance, and its ContrailVM off",
    )
    done = healthy.run("delete", host.name, "--acknowledge", host.name, "--digest", shown["digest"], "--json")
    assert done.exit_code == 12
    before, after = (json.loads(line) for line in done.stdout.splitlines())
    assert before["digest"] == after["digest"] != shown["digest"]
    assert DELETE not in vm_writes(healthy)


@pytest.mark.parametrize("command", ["power-off", "delete"])
def test_what_is_not_there_is_named(healthy: Operator, command: str) -> None:
    """S06: an unknown host is refused with the candidates, the state too that leaves nothing to do."""
    host = healthy.bench.names()[0]
    done = healthy.run(command, "esx-99", "--acknowledge", "esx-99")
    assert done.exit_code == 14
    assert host in done.stderr
    healthy.bench.vcenter.destroy(healthy.bench.vcenter.agent_vm(host))
    healthy.bench.wait_for_state(host, "MISSING")
    assert healthy.run(command, host, "--acknowledge", host).exit_code == 13
    assert vm_writes(healthy) == []


def test_a_vcenter_that_refuses_is_said_and_counts_as_not_done(make_operator: Callable[..., Operator]) -> None:
    """S06: the call fails; the exit code is 15, the reason is shown, and the next step is left."""
    operator = make_operator(hosts=1, clusters=1)
    operator.start(power_off_grace_seconds=600.0)
    operator.bench.wait_until_active()
    (host,) = operator.bench.names()
    operator.bench.simulator.faults.inject("http_503", method=POWER_OFF)
    done = operator.run("delete", host, "--acknowledge", host)
    assert done.exit_code == 15, done.output
    assert "FAILED" in done.stdout
    assert DELETE not in vm_writes(operator), "the second step builds on the first"
    assert operator.bench.state(host) == "ACTIVE"
