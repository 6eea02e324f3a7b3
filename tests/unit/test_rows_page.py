# SPDX-License-Identifier: Apache-2.0
"""Every row has a scenario, and ``docs/rows.md`` names them all; tables in ``docs/`` are what the code says."""

import re
from pathlib import Path

import pytest

from tests.support.tables import ACROSS, COMMAND, DOCS, ROOT, ROWS, TABLES, current, pages, scenarios

NAMED = {"rows": "rows.md", "across": "rows.md", "issues": "issues.md", "violations": "maintenance.md"}
NAMED |= {"metrics": "monitoring.md"}
NAMED |= dict.fromkeys(("faults", "knobs", "stimuli"), "simulator.md")


@pytest.mark.parametrize("row", ROWS)
def test_row_has_a_scenario(row: str) -> None:
    assert scenarios(row), f"{row}: there is no tests/scenarios/test_{row.lower()}_*.py"


def test_the_page_names_every_scenario_and_only_those_that_there_are() -> None:
    there = {path.name for path in (ROOT / "tests/scenarios").glob("test_*.py")}
    named = re.findall(r"tests/scenarios/(test_\w+\.py)", (DOCS / "rows.md").read_text("utf-8"))
    assert set(named) == there, f"a new scenario? {COMMAND}; one that is of no row goes into ACROSS there"
    assert len(ROWS) == 20
    assert all(f"test_{name}.py" in there for name in ACROSS)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_its_page(table: str) -> None:
    """Or it would be current because it is nowhere."""
    assert f"<!-- table: {table} ({COMMAND}) -->" in (DOCS / NAMED[table]).read_text("utf-8")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_its_tables_are_current(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text == current(text), f"make them anew: {COMMAND}"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for page in DOCS.glob("*.md"):
        assert f"docs/{page.name}" in readme, page.name


def test_the_index_of_decisions_names_each_by_its_title() -> None:
    index = (DOCS / "adr/README.md").read_text("utf-8")
    for record in sorted((DOCS / "adr").glob("0*.md")):
        number, title = re.match(r"# (\d{4})[.:]? (.*)", record.read_text("utf-8")).groups()  # type: ignore[union-attr]
        assert record.name.startswith(number)
        assert f"| [{number}]({record.name}) | {title} |" in index, record.name
