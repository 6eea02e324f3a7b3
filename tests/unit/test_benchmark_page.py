# SPDX-License-Identifier: Apache-2.0
"""The tables of results and of exponents say what was measured."""

from __future__ import annotations

import dataclasses

import click
import pytest

from benchmarks.page import PAGE, SCALING, computed, table, with_part
from benchmarks.row import FULL, at_most, exactly
from benchmarks.scaling import exponent, slopes

MACHINE = {"cores": 2, "python": "3.11", "system": "Linux"}


def run_of(*rows, failed=()):
    told = {"machine": MACHINE, "quick": False, "seconds": 5, "failed": list(failed)}
    return told | {"rows": [dataclasses.asdict(row) for row in rows]}


def test_results_go_between_the_marks_and_nothing_else_changes():
    begin, end = "<!-- results: python -m benchmarks.page FILE.json -->", "<!-- end of results -->"
    page = f"before\n{begin}\n\nold\n{end}\nafter\n"
    met = FULL.row("poll", 1.0, unit="calls", floor=1.0, goal=exactly(1), hosts=100)
    missed = FULL.row("memory", 9.0, unit="KiB", goal=at_most(8), note="a|b")
    text = table([run_of(met, missed), run_of(failed=["ovf (exit code 1)"])])
    made = with_part(page, "results", text)
    assert made.startswith("before\n")
    assert made.endswith("\nafter\n")
    assert "old" not in made
    assert "| poll | 100 | 1 | 1 | calls | 1 | exactly 1 | yes |  |" in made
    assert "| memory |  | 9 |  | KiB | 9 | at most 8 | **no** | a\\|b |" in made
    assert "10 s in all" in made
    assert "Not measured to the end: ovf (exit code 1)." in made
    assert with_part(made, "results", text) == made


def test_a_page_without_marks_is_left_alone():
    with pytest.raises(click.ClickException):
        with_part("no marks", "results", "")
    assert "new" in with_part(PAGE.read_text("utf-8"), "results", "new")
    for name in ("fleet", "computed"):
        assert "new" in with_part(SCALING.read_text("utf-8"), name, "new")


def test_what_many_vcenters_need_is_computed_from_rows_or_not_told():
    rows = [
        FULL.row("memory: no hosts", 64.0, unit="MiB"),
        FULL.row("memory: per host", 8.0, unit="KiB", hosts=2500),
        FULL.row("idle: in the sweep", 0.5, unit="%", hosts=2500),
        FULL.row("cold start: CPU", 4.0, unit="ms", hosts=2500),
    ]
    told = [dataclasses.asdict(row) for row in rows]
    plan = computed(told)
    assert "2.0 GiB" in plan  # 64 MiB and 250,000 x 8 KiB
    assert "0.50 cores" in plan
    assert "1000 s" in plan
    assert computed(told[1:]) == ""


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
