# SPDX-License-Identifier: Apache-2.0
"""Tables in ``docs/`` that follow from the code, each between two markers: ``python -m tests.support.tables``.

    <!-- table: NAME (python -m tests.support.tables) -->
    <!-- end of table -->

Run it from the root of the checkout: it writes every page anew whose tables are not current, and names it. What
stands outside of the markers is written by hand and is left alone.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import FunctionType
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from vcenter_eam_plugin.domain.issues import CATALOGUE as ISSUES
from vcenter_eam_plugin.domain.violations import ADVICE, RULES
from vcenter_eam_plugin.simulator.faults import CATALOGUE as FAULTS
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.stimuli import VERBS, Stimuli
from vcenter_eam_plugin.web.metrics import FAMILIES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
COMMAND = "python -m tests.support.tables"

_BLOCK = re.compile(r"(<!-- table: (\w+) [^>]*-->\n).*?(<!-- end of table -->)", re.S)

ROWS: Mapping[str, tuple[str, Sequence[str]]] = {
    "S01": ("publishes the ContrailVM's OVF package, for as long as the agency lives", ["ovf.md"]),
    "S02": ("logs in to vCenter and EAM once, and survives the end of its session", ["operations.md", "install.md"]),
    "S03": ("creates the agency; EAM deploys one ContrailVM on every host", ["install.md", "upgrade.md"]),
    "S04": ("keeps the scope right: clusters added and removed, hosts moved", ["operations.md"]),
    "S05": ("shows the agency, each ContrailVM, and what happened", ["operations.md", "states.md"]),
    "S06": ("warns before a ContrailVM is powered off or deleted through it", ["operations.md"]),
    "S07": ("reports a ContrailVM that was powered off or deleted", ["states.md", "issues.md"]),
    "S08": ("resolves issues, one or all", ["issues.md", "operations.md"]),
    "S09": ("deploys on a host that is added, and sets its Agent VM settings", ["operations.md", "host-spec.md"]),
    "S10": ("takes maintenance for what it is, on the way in and out", ["maintenance.md"]),
    "S11": ("sees that DRS leaves ContrailVMs where they are", ["maintenance.md"]),
    "S12": ("sees that no tenant VM is moved to a host without vRouter; health gate", ["maintenance.md"]),
    "S13": ("takes standby (DPM) for what it is: ContrailVM off last, back with the host", ["maintenance.md"]),
    "S14": ("sees that a host's ContrailVM is restarted before other VMs", ["maintenance.md"]),
    "S15": ("sees that a lost host's ContrailVM is not started elsewhere", ["maintenance.md"]),
    "S16": ("sees that HA leaves ContrailVMs out of its slots", ["maintenance.md"]),
    "S17": ("follows properties and events; losing events costs time alone", ["architecture.md"]),
    "S18": ("publishes every state change on RabbitMQ", ["messages.md", "analytics.md"]),
    "S19": ("runs as a daemon, or in the process of another service", ["operations.md"]),
    "S20": ("installs a ContrailVM on a new host with no hand on anything", ["host-spec.md", "install.md"]),
}
"""What the system must do, in few words, and the pages that explain it."""

ACROSS = (
    "demo",
    "intake_faults",
    "killed_daemon",
    "promise_p09_bounded_repairs",
    "promise_p14_dry_run",
    "promises_at_scale",
    "secrets_stay",
    "seen_by_operators",
    "storm",
    "suspect_reads",
)
"""Scenarios that are about no single row, by the end of their file's name."""


def pages() -> tuple[Path, ...]:
    """The pages with tables of ours."""
    return tuple(path for path in sorted(DOCS.glob("*.md")) if _BLOCK.search(path.read_text("utf-8")))


def current(text: str) -> str:
    """A page with its tables made anew. Raises ``KeyError`` for a table that nobody makes."""
    return _BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


def scenarios(row: str) -> tuple[Path, ...]:
    """The scenario files of a row."""
    return tuple(sorted((ROOT / "tests/scenarios").glob(f"test_{row.lower()}_*.py")))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rows() -> str:
    return _table(
        ("row", "the system", "scenarios", "read"),
        (
            (
                row,
                what,
                "<br>".join(_file(path) for path in scenarios(row)),
                ", ".join(f"[{page.removesuffix('.md')}]({page})" for page in read),
            )
            for row, (what, read) in ROWS.items()
        ),
    )


def _across() -> str:
    return _table(
        ("scenarios", "about"),
        ((_file(ROOT / f"tests/scenarios/test_{name}.py"), _first_line(name)) for name in ACROSS),
    )


def _first_line(name: str) -> str:
    module = ast.parse((ROOT / f"tests/scenarios/test_{name}.py").read_text("utf-8"))
    return (ast.get_docstring(module) or "").splitlines()[0]


def _file(path: Path) -> str:
    return f"[{path.name}](../tests/scenarios/{path.name})"


def _issues() -> str:
    return _table(
        ("issue type", "means", "Resolve touches at most", "policy", "shows as", "what to do"),
        (
            (f"`{row.name}`", row.meaning, row.radius, row.policy, f"`{row.state}`", row.advice)
            for row in ISSUES.values()
        ),
    )


def _violations() -> str:
    rows = []
    for name, rule in RULES:
        row, about = _row_of(rule)
        rows.append((f"`{name}`", row, about, ADVICE[name]))
    return _table(("name", "row", "the rule, or what was seen", "what to do"), rows)


def _row_of(rule: Callable[..., Any]) -> tuple[str, str]:
    text = " ".join((rule.__doc__ or "").split())
    found = re.fullmatch(r"(S\d\d): (.*)", text)
    return (found[1], found[2]) if found else ("", text)


def _faults() -> str:
    return _table(("fault", "what it does"), ((f"`{name}`", text) for name, text in FAULTS.items()))


def _knobs() -> str:
    """A field's meaning is the text below it, as its editors see it."""
    meanings: dict[str, str] = {}
    body = ast.parse(inspect.getsource(Knobs)).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            meanings[ast.unparse(field.target)] = " ".join(str(text.value.value).split()).replace("``", "`")
    defaults = Knobs()
    return _table(
        ("knob", "default", "meaning"),
        ((f"`{item.name}`", f"`{_json(getattr(defaults, item.name))}`", meanings[item.name]) for item in fields(Knobs)),
    )


def _json(value: object) -> str:
    """As ``--knob NAME=VALUE`` takes it."""
    if isinstance(value, bool | None):
        return {True: "true", False: "false", None: "null"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _stimuli() -> str:
    rows = []
    for name, verb in vars(Stimuli).items():
        if name in VERBS and isinstance(verb, FunctionType):
            given = [_argument(one) for one in list(inspect.signature(verb).parameters.values())[1:]]
            rows.append((f"`{name}`", ", ".join(given), " ".join((verb.__doc__ or "").split()).replace("``", "`")))
    return _table(("verb", "arguments", "what happens"), rows)


def _argument(one: inspect.Parameter) -> str:
    return f"`{one.name}`" if one.default is one.empty else f"[`{one.name}`]"


def _metrics() -> str:
    kinds = {GaugeMetricFamily: "gauge", CounterMetricFamily: "counter", HistogramMetricFamily: "histogram"}
    rows = [
        (f"`{each.full_name}`", kinds[each.kind], ", ".join(f"`{label}`" for label in each.labels), each.meaning)
        for each in FAMILIES.values()
    ]
    return _table(("metric", "kind", "labels", "meaning"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "metrics": _metrics,
    "rows": _rows,
    "across": _across,
    "issues": _issues,
    "violations": _violations,
    "faults": _faults,
    "knobs": _knobs,
    "stimuli": _stimuli,
}


def main() -> None:
    """Write the pages that are not current."""
    for path in pages():
        text = path.read_text("utf-8")
        if current(text) != text:
            path.write_text(current(text), "utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
