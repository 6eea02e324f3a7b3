# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks [NAME...] [--quick] [--json FILE]``. Exit 0: every row meets its goal. 1: one does not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.row import Row
from benchmarks.suite import BENCHMARKS, Benchmark, chosen

MOST_SECONDS = 3600.0
"""One that hangs is a failure, not a wait. The longest (resident) takes 26 minutes for its four sizes."""
END_SECONDS = 20.0
"""For one that is told to end: it stops a broker and daemons."""
WIDE = 150
"""Columns of the table where the output is no terminal."""


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([one.name for one in BENCHMARKS]), metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="One size, one run, ratios with 3 x their goal: for CI, within 3 minutes.")
@click.option("--hosts", type=click.IntRange(10, 10000), multiple=True, help="This size instead; may be repeated.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here, too.")
@click.option("--list", "listing", is_flag=True, help="Say what there is, and measure nothing.")
def main(names: tuple[str, ...], *, quick: bool, hosts: tuple[int, ...], file: Path | None, listing: bool) -> None:
    """Measure what the service costs: all of it without NAME.

    Figures are ratios of two things measured in the same run; the times beside them are of this machine.
    """
    if listing:
        for one in BENCHMARKS:
            click.echo(f"{one.name:12} {one.meaning}")
        return
    began = time.monotonic()
    rows: list[Row] = []
    failed = []
    for one in chosen(names):
        click.echo(f"{one.name}: {one.meaning} ...", err=True)
        found, status = _in_a_process(one, "quick" if quick else "full", hosts)
        rows += found
        if status:
            failed.append(f"{one.name} (exit code {status})")
    Console(width=None if sys.stdout.isatty() else WIDE).print(_table(rows))
    missed = [row.name for row in rows if not row.met]
    seconds = time.monotonic() - began
    click.echo(f"{len(rows)} rows in {seconds:.0f} s; missed: {', '.join(missed) or 'none'}")
    if failed:
        click.echo(f"Not measured to the end: {', '.join(failed)}", err=True)
    if file is not None:
        told = {"machine": _machine(), "quick": quick, "seconds": round(seconds), "failed": failed}
        file.write_text(json.dumps(told | {"rows": [dataclasses.asdict(row) for row in rows]}, indent=1) + "\n")
    sys.exit(1 if missed or failed else 0)


def _in_a_process(one: Benchmark, effort: str, sizes: tuple[int, ...]) -> tuple[list[Row], int]:
    """The rows that came, and the exit code. Of its own, so that none pays for another's garbage, or its patching."""
    command = [sys.executable, "-m", "benchmarks.child", one.name, effort, *map(str, sizes)]
    # In a session of its own: whatever it started ends with it.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        try:
            out, _ = child.communicate(timeout=MOST_SECONDS)
        except BaseException:
            child.terminate()  # it ends what it started, some of it in sessions of their own
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(END_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            out, _ = child.communicate()
            if not isinstance(sys.exception(), subprocess.TimeoutExpired):
                raise
    return [Row(**json.loads(line)) for line in out.splitlines()], child.returncode


def _table(rows: list[Row]) -> Table:
    table = Table(title="What the service costs", title_justify="left")
    for column in ("what", "hosts", "ours", "floor", "unit", "ratio", "goal", "met", "note"):
        table.add_column(column, justify="right" if column in {"hosts", "ours", "floor", "ratio"} else "left")
    for row in rows:
        met = "" if not row.goal else "yes" if row.met else "[bold red]NO[/]"
        floor = "" if row.floor is None else f"{row.floor:.4g}"
        ratio = "" if row.floor is None and not row.goal else f"{row.ratio:.3g}"
        hosts = str(row.hosts or "")
        table.add_row(row.name, hosts, f"{row.value:.4g}", floor, row.unit, ratio, row.goal, met, row.note)
    return table


def _machine() -> dict[str, object]:
    return {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}


if __name__ == "__main__":
    main()
