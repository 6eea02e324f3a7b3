# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks say is judged by rules that can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.row import FULL, QUICK, Goal, at_least, at_most, exactly
from benchmarks.suite import BENCHMARKS, chosen


@pytest.mark.parametrize(
    ("goal", "ratio", "full", "quick"),
    [
        (at_most(4), 4.0, True, True),
        (at_most(4), 4.1, False, True),
        (at_most(4), 12.1, False, False),
        (at_least(6), 6.0, True, True),
        (at_least(6), 5.9, False, True),
        (at_least(6), 1.9, False, False),
        (exactly(0), 0.0, True, True),
        (exactly(0), 1.0, False, False),
    ],
)
def test_a_goal_is_met_or_missed(goal: Goal, ratio: float, full: bool, quick: bool) -> None:
    """Quick runs allow a ratio three times its goal, and a count nothing."""
    assert FULL.row("x", ratio, unit="", goal=goal).met is full
    assert QUICK.row("x", ratio, unit="", goal=goal).met is quick


def test_the_ratio_is_value_by_floor() -> None:
    assert FULL.row("x", 6.0, unit="s", floor=2.0).ratio == 3.0
    assert FULL.row("x", 6.0, unit="s").ratio == 6.0


def test_pairs_are_measured_in_turn_and_the_first_is_thrown_away() -> None:
    order: list[str] = []

    def measured(name: str, figures: list[float]) -> float:
        order.append(name)
        return figures.pop(0)

    ours, floor = [100.0, 2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    assert FULL.paired(lambda: measured("ours", ours), lambda: measured("floor", floor)) == (6.0, 2.0, 4.0)
    assert order[:4] == ["ours", "floor", "ours", "floor"]


def test_each_benchmark_has_its_module() -> None:
    for one in BENCHMARKS:
        assert Path("benchmarks", f"{one.module}.py").is_file(), one.name
    assert chosen([]) == list(BENCHMARKS)


def test_the_command_writes_its_rows(tmp_path: Path) -> None:
    """One benchmark as a person runs it."""
    file = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "outbox", "--quick", "--json", str(file)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [row] = json.loads(file.read_text())["rows"]
    assert (row["name"], row["met"]) == ("outbox", True)
    assert row["ratio"] == pytest.approx(row["value"] / row["floor"])
    assert "1 rows in" in done.stdout
