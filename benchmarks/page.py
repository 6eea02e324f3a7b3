# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.page FILE.json``: puts the results of a run into docs/performance.md and docs/scaling.md.

``FILE.json`` was written by ``python -m benchmarks --json FILE.json``. Several files of the same machine, each of some
benchmarks, make one table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.row import GOAL_HOSTS

DOCS = Path(__file__).parents[1] / "docs"
PAGE, SCALING = DOCS / "performance.md", DOCS / "scaling.md"
VCENTERS = 100
"""For which is computed what they would need, with as many hosts each as the goals name."""


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Rewrite the tables, and nothing else of the pages."""
    runs = [json.loads(file.read_text("utf-8")) for file in files]
    rows = [row for run in runs for row in run["rows"]]
    PAGE.write_text(with_part(PAGE.read_text("utf-8"), "results", table(runs)), "utf-8")
    scaling = SCALING.read_text("utf-8")
    if fleet := [row for row in rows if row["name"].startswith("fleet")]:
        scaling = with_part(scaling, "fleet", "\n".join([*_HEAD, *map(_line, fleet)]) + "\n")
    if plan := computed(rows):
        scaling = with_part(scaling, "computed", plan)
    SCALING.write_text(scaling, "utf-8")


def with_part(page: str, name: str, text: str) -> str:
    """The page with ``text`` between the two marks of that name."""
    begin, end = f"<!-- {name}: python -m benchmarks.page FILE.json -->", f"<!-- end of {name} -->"
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise click.ClickException(f"The page has no place for {name}: {begin} ... {end}.")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def computed(rows: list[dict[str, Any]]) -> str:
    """What :data:`VCENTERS` would need by these rows; empty when one of them is missing."""
    at = {(row["name"], row["hosts"]): row["value"] for row in rows}
    try:
        empty, per_host = at["memory: no hosts", 0], at["memory: per host", GOAL_HOSTS]
        idle, start = at["idle: in the sweep", GOAL_HOSTS], at["cold start: CPU", GOAL_HOSTS]
    except KeyError:
        return ""
    hosts = VCENTERS * GOAL_HOSTS
    memory = (empty + hosts * per_host / 1024) / 1024
    return (
        f"| {VCENTERS} vCenters, {hosts} hosts | computed | from |\n|---|---|---|\n"
        f"| memory of one that watches all | {memory:.1f} GiB | {empty:.0f} MiB, and {per_host:.1f} KiB a host |\n"
        f"| CPU in the quiet | {VCENTERS * idle / 100:.2f} cores | {idle:.2f} % of a core a vCenter |\n"
        f"| CPU of a start of all | {hosts * start / 1e3:.0f} s | {start:.1f} ms a host |\n"
        f"| sessions at each vCenter | 1 an instance | |\n"
        f"| messages of an hourly snapshot | {hosts / 3600:.0f} a second on average | one a host |\n"
    )


_HEAD = (
    "| what | hosts | ours | floor | unit | ratio | goal | met | note |",
    "|---|---:|---:|---:|---|---:|---|---|---|",
)


def table(runs: list[dict[str, Any]]) -> str:
    """Where it was measured, and the rows, in Markdown."""
    machine = runs[0]["machine"]
    seconds = sum(run["seconds"] for run in runs)
    quick = " The runs were quick ones: goals count three times." if any(run["quick"] for run in runs) else ""
    lines = [
        f"{machine['cores']} cores, Python {machine['python']}, {machine['system']}; {seconds} s in all.{quick}",
        "",
        *_HEAD,
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
