# SPDX-License-Identifier: Apache-2.0
"""The demo tells its stories as a newcomer runs them: as a process, by its exit code and its JSON."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SHORT = {
    "deploy": [["DEPLOYING", "ACTIVE"]] * 3,
    "add-host": [["DEPLOYING", "ACTIVE"]],
    "enter-maintenance": [["MAINTENANCE"]],
    "exit-maintenance": [["STARTING", "ACTIVE"]],
    "power-off": [["POWERED_OFF", "ACTIVE"]],
    "delete": [["MISSING", "DEPLOYING", "ACTIVE"]],
    "remove-host": [["REMOVED"]],
}
"""Per step, for each host that it is about, states that must come in this order."""

ROWS = {f"S{n:02}" for n in range(1, 17)} | {"S20"}


def demo(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and objects of ``vcenter-eam demo --json``."""
    done = subprocess.run(
        [sys.executable, "-c", "from vcenter_eam_plugin.cli.main import main; main()", "demo", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def in_order(expected: list[str], heard: list[str]) -> bool:
    rest = iter(heard)
    return all(state in rest for state in expected)


def test_the_short_story_lists_for_each_step_the_states_in_order() -> None:
    """The demo's promise, on memory://: nothing but Python is needed."""
    code, lines = demo()
    *messages, summary = lines
    assert code == 0
    assert summary["kind"] == "summary"
    assert summary["ok"]
    assert [step["step"] for step in summary["steps"]] == list(SHORT)
    for step in summary["steps"]:
        heard = list(step["states"].values())
        assert len(heard) == len(SHORT[step["step"]]), step
        for expected, states in zip(SHORT[step["step"]], heard, strict=True):
            assert in_order(expected, states), step
    assert all(message["step"] in SHORT and message["type"] == "contrail_vm" for message in messages)


def test_the_short_story_is_told_through_a_real_broker(rabbit_url: str) -> None:
    """The same with --broker amqp://..."""
    code, lines = demo("--broker", rabbit_url)
    assert code == 0
    assert lines[-1]["ok"]


@pytest.mark.timeout(300)
def test_the_full_story_walks_every_row() -> None:
    """S01-S16 and S20, each with what happened and what was published."""
    code, lines = demo("--story", "full")
    *rows, summary = lines
    assert {row["row"] for row in rows} == ROWS
    assert [row for row in rows if not row["ok"]] == []
    assert all(row["happened"] for row in rows)
    assert summary == summary | {"kind": "summary", "ok": True, "rows": len(ROWS), "passed": len(ROWS)}
    assert code == 0
