# SPDX-License-Identifier: Apache-2.0
"""The tables of results and of exponents say what was measured."""

from __future__ import annotations

import dataclasses

import click
import pytest

from benchmarks.page import BEGIN, END, PAGE, with_results
from benchmarks.row import FULL, at_most, exactly
from benchmarks.scaling import exponent, slopes

MACHINE = {"cores": 2, "python": "3.11", "system": "Linux"}


def run_of(*rows, failed=()):
    told = {"machine": MACHINE, "quick": False, "seconds": 5, "failed": list(failed)}
    return told | {"rows": [dataclasses.asdict(row) for row in rows]}


def test_results_go_between_the_marks_and_nothing_else_changes():
    page = f"before\n{BEGIN}\n\nold\n{END}\nafter\n"
    met = FULL.row("poll", 1.0, unit="calls", floor=1.0, goal=exactly(1), hosts=100)
    missed = FULL.row("memory", 9.0, unit="KiB", goal=at_most(8), note="a|b")
    made = with_results(page, [run_of(met, missed), run_of(failed=["ovf (exit code 1)"])])
    assert made.startswith("before\n")
    assert made.endswith("\nafter\n")
    assert "old" not in made
    assert "| poll | 100 | 1 | 1 | calls | 1 | exactly 1 | yes |  |" in made
    assert "| memory |  | 9 |  | KiB | 9 | at most 8 | **no** | a\\|b |" in made
    assert "10 s in all" in made
    assert "Not measured to the end: ovf (exit code 1)." in made
    assert with_results(made, [run_of(met, missed), run_of(failed=["ovf (exit code 1)"])]) == made


def test_a_page_without_marks_is_left_alone():
    with pytest.raises(click.ClickException):
        with_results("no marks", [run_of()])
    assert with_results(PAGE.read_text("utf-8"), [run_of()])


def test_exponents_tell_linear_from_worse():
    assert exponent([(100, 7.0), (500, 7.0)]) == pytest.approx(0.0)
    assert exponent([(100, 1.0), (500, 5.0), (2500, 25.0)]) == pytest.approx(1.0)
    assert exponent([(100, 1.0), (500, 25.0)]) == pytest.approx(2.0)


def test_a_cost_that_grows_faster_than_the_hosts_misses_its_goal():
    rows = [FULL.row("per host", hosts / 100, unit="ms", hosts=hosts) for hosts in (100, 500)]
    rows += [FULL.row("in all", hosts / 100, unit="ms", hosts=hosts) for hosts in (100, 500)]
    rows += [FULL.row("at one size", 1.0, unit="ms", hosts=100), FULL.row("not told", 1.0, unit="ms", hosts=100)]
    worse, linear = slopes(FULL, rows, {"per host": 1, "in all": 0, "at one size": 0}, 1.1)
    assert (worse.name, round(worse.value, 2), worse.met) == ("slope of per host", 2.0, False)
    assert (linear.name, round(linear.value, 2), linear.met) == ("slope of in all", 1.0, True)
