# SPDX-License-Identifier: Apache-2.0
"""Alert rules and dashboard use what there is: metrics, labels, places in the documentation."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import HistogramMetricFamily

from vcenter_eam_plugin.web.metrics import FAMILIES

ROOT = Path(__file__).parents[2]
RULES = ROOT / "etc/prometheus/alerts.yml"
DASHBOARD = ROOT / "etc/grafana/dashboard.json"
CASES = Path(__file__).parent / "alerts_test.yml"
OF_PROMETHEUS = {"instance", "job", "le", "alertname", "severity"}
"""Labels that Prometheus adds."""


def metrics() -> dict[str, set[str]]:
    """Every name that a scrape may hold, with its labels."""
    known: dict[str, set[str]] = {"up": set()}
    for family in FAMILIES.values():
        ends = ("_bucket", "_sum", "_count") if family.kind is HistogramMetricFamily else ("",)
        known |= {family.full_name + end: set(family.labels) for end in ends}
    process = CollectorRegistry()
    ProcessCollector(registry=process)
    return known | {sample.name: set() for family in process.collect() for sample in family.samples}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def values_of(key: str, value: Any) -> Iterator[str]:
    """Everything that stands under a key, however deep."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == key and isinstance(each, str):
                yield each
            yield from values_of(key, each)
    elif isinstance(value, list):
        for each in value:
            yield from values_of(key, each)


def expressions() -> Iterator[tuple[str, str]]:
    yield from ((rule["alert"], rule["expr"]) for rule in rules())
    for board in (json.loads(DASHBOARD.read_text("utf-8")),):
        yield from (("dashboard", text) for key in ("expr", "query") for text in values_of(key, board))


def unknown(expression: str) -> set[str]:
    """Names of metrics and labels in an expression that no scrape has."""
    known = metrics()
    used = set(re.findall(r"\b(?:vcenter_eam_\w+|process_\w+|up)\b", expression))
    wrong = used - known.keys()
    labels = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression))
    for names in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", expression):
        labels |= set(re.findall(r"\w+", names))
    return wrong | (labels - OF_PROMETHEUS - set().union(*(known.get(name, set()) for name in used)))


def test_rules_and_dashboard_use_what_a_scrape_has() -> None:
    found = list(expressions())
    assert len(found) > 50
    assert {(who, name) for who, text in found for name in unknown(text)} == set()


def test_a_wrong_name_or_label_would_be_noticed() -> None:
    assert unknown('sum by (vcenter, host) (rate(vcenter_eam_confirmed_total{state="x"}[5m]))') == {
        "vcenter_eam_confirmed_total",
        "vcenter",
        "host",
        "state",
    }
    assert unknown('sum by (le) (vcenter_eam_contrailvms{cluster=~"a"})') == set()


def test_the_dashboard_shows_every_metric() -> None:
    shown = DASHBOARD.read_text("utf-8")
    assert [
        each.full_name for each in FAMILIES.values() if not re.search(rf"\b{each.full_name}(_bucket)?\b", shown)
    ] == []


def test_panels_lie_beside_each_other_and_have_names_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert {"summary", "description", "runbook"} <= rule["annotations"].keys()
    page, _, anchor = re.search(r"(docs/\S+\.md)(#)(\S+)$", rule["annotations"]["runbook"]).groups()  # type: ignore[union-attr]
    titles = re.findall(r"^#+ (.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: install Debian's package prometheus")
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_alerts_fire_when_they_should_and_only_then() -> None:
    done = promtool("test", "rules", CASES)
    assert done.returncode == 0, done.stdout + done.stderr
