# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.page FILE.json``: puts the results of a run into the table of docs/performance.md.

``FILE.json`` was written by ``python -m benchmarks --json FILE.json``. Several files of the same machine, each of some
benchmarks, make one table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- results: python -m benchmarks.page FILE.json -->", "<!-- end of the results -->"


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Rewrite the table, and nothing else of the page."""
    runs = [json.loads(file.read_text("utf-8")) for file in files]
    PAGE.write_text(with_results(PAGE.read_text("utf-8"), runs), "utf-8")


def with_results(page: str, runs: list[dict[str, Any]]) -> str:
    """The page with these runs' rows between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise click.ClickException(f"The page has no place for results: {BEGIN} ... {END}.")
    return f"{before}{BEGIN}\n\n{table(runs)}\n{END}{after}"


def table(runs: list[dict[str, Any]]) -> str:
    """Where it was measured, and the rows, in Markdown."""
    machine = runs[0]["machine"]
    seconds = sum(run["seconds"] for run in runs)
    quick = " The runs were quick ones: goals count three times." if any(run["quick"] for run in runs) else ""
    lines = [
        f"{machine['cores']} cores, Python {machine['python']}, {machine['system']}; {seconds} s in all.{quick}",
        "",
        "| what | hosts | ours | floor | unit | ratio | goal | met | note |",
        "|---|---:|---:|---:|---|---:|---|---|---|",
    ]
    lines += [_line(row) for run in runs for row in run["rows"]]
    missing = sorted({one for run in runs for one in run["failed"]})
    if missing:
        lines += ["", f"Not measured to the end: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    floor = "" if row["floor"] is None else f"{row['floor']:.4g}"
    met = ("yes" if row["met"] else "**no**") if row["goal"] else ""
    ratio = "" if row["floor"] is None and not row["goal"] else f"{row['ratio']:.3g}"
    cells = (row["name"], row["hosts"] or "", f"{row['value']:.4g}", floor, row["unit"], ratio, row["goal"], met)
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in (*cells, row["note"])) + " |"


if __name__ == "__main__":
    main()
