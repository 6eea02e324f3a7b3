# SPDX-License-Identifier: Apache-2.0
"""``docs/reliability.md``: every promise has a test, and each test that it names is one that pytest collects."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import checkers
from vcenter_eam_plugin import failpoints

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text("utf-8")
PROMISES = [f"P{number}" for number in range(1, 15)]

_ROW = re.compile(r"^\| (P\d+) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py::\w+)`")


def rows() -> dict[str, tuple[str, list[str], str]]:
    """Promise -> its wording, the tests that prove it, and what was measured."""
    return {number: (text, _TEST.findall(tests), measured) for number, text, tests, measured in _ROW.findall(PAGE)}


def test_every_promise_has_its_row_in_order() -> None:
    assert [number for number, *_ in _ROW.findall(PAGE)] == PROMISES
    assert [line for line in PAGE.splitlines() if re.match(r"\| P\d", line) and not _ROW.match(line)] == []


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_in_words_and_has_a_test_and_a_figure(promise: str) -> None:
    text, tests, measured = rows()[promise]
    assert text.startswith("**")
    assert tests, f"{promise}: what proves it?"
    assert measured


def test_every_test_that_is_named_is_collected() -> None:
    named = sorted({test for _, tests, _ in rows().values() for test in tests})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *named],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    collected = {re.sub(r"\[.*|::runTest$", "", line) for line in done.stdout.splitlines() if "::" in line}
    assert [test for test in named if test not in collected] == []


def test_its_other_tables_are_the_codes() -> None:
    for point, meaning in failpoints.POINTS.items():
        assert f"| `{point}` | {meaning} |" in PAGE
    counts = re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE)
    assert tuple(counts) == checkers.KINDS
