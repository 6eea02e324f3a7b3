# SPDX-License-Identifier: Apache-2.0
"""The JSON API: real servers, real answers, held against the structs and the OpenAPI document that describe them."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gevent import subprocess

from tests.support.web import TOKEN, Web
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.domain.issues import issue_type
from vcenter_eam_plugin.web.api import JSON_LINES, ROUTES, Progress
from vcenter_eam_plugin.web.app import create_app

SCHEMATHESIS_SECONDS = 30
"""Enough for its examples, its coverage of edges, and hundreds of random requests to each route."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)


@pytest.fixture
def running(web: Web) -> Web:
    """Everything deployed, and watched."""
    web.start()
    web.bench.wait_until_active()
    return web


def undocumented(value: Any, shown: Any, where: str = "") -> list[str]:
    """What ``value`` holds that is lost when its struct takes it in: fields that the document does not name."""
    if isinstance(value, dict) and isinstance(shown, dict):
        lost = [f"{where}.{name}" for name in value.keys() - shown.keys()]
        return lost + [
            found for name in value.keys() & shown.keys() for found in undocumented(value[name], shown[name], name)
        ]
    if isinstance(value, list) and isinstance(shown, list):
        return [found for one, other in zip(value, shown, strict=True) for found in undocumented(one, other, where)]
    return []


def test_every_answer_is_what_its_struct_says_and_no_more(running: Web) -> None:
    """Issue 4: schemas from the same structs; what is not described is not given."""
    esxi = running.bench.names()[0]
    for route in ROUTES:
        if route.method != "GET" or route.gives is None:
            continue
        path = route.path.format(vcenter="test", host=esxi)
        answer = running.ask("GET", path)
        assert answer.status == 200, (path, answer.body)
        taken = msgspec.json.decode(answer.body, type=route.gives)
        assert undocumented(answer.json(), json.loads(msgspec.json.encode(taken))) == [], path


def test_every_route_is_described_and_every_described_one_is_there(running: Web) -> None:
    service = running.bench.service
    assert service is not None
    app = create_app(service)
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods & {"GET", "POST", "PUT", "PATCH", "DELETE"}
    }
    described = {(route.method, route.path) for route in ROUTES}
    assert described - served == {("GET", "/api/v1/session")}, "that one belongs to the login"
    assert {each for each in served - described if each[1].startswith("/api/")} == set()


def test_progress_of_an_operation_is_lines_of_its_struct(running: Web) -> None:
    name = running.bench.names()[0]
    wanted = {"operation": "power-off", "target": name}
    shown = running.ask("POST", "/api/v1/preview", wanted, bearer=TOKEN).json()
    consent = {"digest": shown["digest"], "acknowledge": shown["acknowledge"]}
    answer = running.ask("POST", "/api/v1/apply", {**wanted, **consent}, bearer=TOKEN)
    assert answer.headers["content-type"] == JSON_LINES
    lines = answer.body.splitlines()
    taken = [msgspec.json.decode(line, type=Progress) for line in lines]
    assert (taken[0].kind, taken[-1].kind, taken[-1].ok) == ("begin", "end", True)
    for line, each in zip(lines, taken, strict=True):
        assert undocumented(json.loads(line), json.loads(msgspec.json.encode(each))) == []


def test_issues_come_by_type_with_what_the_catalogue_says(web: Web) -> None:
    """Issue 4: meaning, blast radius, policy, hosts. In observe mode nobody resolves it meanwhile."""
    web.start(agent_vm_datastore=(), agent_vm_network=())
    found = web.bench.wait_for(lambda: web.ask("GET", "/api/v1/issues").json()["issues"], "an issue")
    row = issue_type(found[0]["type"])
    assert (found[0]["meaning"], found[0]["policy"], found[0]["blast_radius"]) == (row.meaning, row.policy, row.radius)
    assert [host["name"] for host in found[0]["hosts"]] == web.bench.names()


def test_long_lists_come_in_pages_that_add_up_to_all_of_it(web: Web) -> None:
    """A fleet that is all pending, or all in trouble, need not be one answer: the same words for every list."""
    for name in ("esx-09.dc0.example", "esx-10.dc0.example"):
        web.bench.vcenter.add_host("ClusterA", name)
    web.start(agent_vm_datastore=(), agent_vm_network=())
    web.bench.wait_for(lambda: web.ask("GET", "/api/v1/issues").json()["total"] == 3, "each host has an issue")

    def names(answer: dict[str, Any]) -> list[str]:
        if "hosts" in answer:
            return [host["esxi"]["name"] for host in answer["hosts"]]
        return [host["name"] for issue in answer["issues"] for host in issue["hosts"]]

    for path in ("/api/v1/hosts", "/api/v1/issues"):
        whole = web.ask("GET", path).json()
        first, last = (web.ask("GET", f"{path}?limit=2&after={after}").json() for after in (0, 2))
        assert (first["total"], first["next"], last["next"], whole["next"]) == (3, 2, None, None)
        assert names(first) + names(last) == names(whole)
        assert len(names(first)) == 2
    (whole,) = web.ask("GET", "/api/v1/plan").json()["plans"]
    (page,) = web.ask("GET", "/api/v1/plan?limit=2").json()["plans"]
    assert whole["total_notes"] == len(whole["notes"]) >= 3, "each waits for settings that no rule gives"
    assert (page["notes"], page["next"]) == (whole["notes"][:2], 2)
    assert (page["digest"], page["total_notes"]) == (whole["digest"], whole["total_notes"])
    for path in ("/api/v1/hosts", "/api/v1/issues", "/api/v1/plan"):
        assert [web.ask("GET", f"{path}?{wrong}").status for wrong in ("limit=0", "limit=x", "after=-1")] == [400] * 3


def test_one_host_is_found_by_moref_and_by_name_and_candidates_are_named_else(running: Web) -> None:
    name = running.bench.names()[0]
    by_name = running.ask("GET", f"/api/v1/hosts/{name}").json()
    assert by_name["state"] == "ACTIVE"
    assert running.ask("GET", f"/api/v1/hosts/{by_name['esxi']['moref']}?vcenter=test").json() == by_name
    unknown = running.ask("GET", "/api/v1/hosts/esx-nowhere")
    assert unknown.status == 404
    assert name in unknown.json()["error"]["message"]
    assert running.ask("GET", f"/api/v1/hosts/{name}?vcenter=elsewhere").status == 404


def schemathesis(web: Web, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Its command line in a process of its own: it must not see the patched sockets of this one."""
    config = directory / "schemathesis.toml"
    config.write_text(f'[auth.openapi.token]\nbearer = "{TOKEN}"\n', "utf-8")
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(config), "run"]
    command += [
        f"{web.origin}/api/v1/openapi.json",
        "--checks",
        ",".join(CHECKS),
        "--phases",
        "examples,coverage,fuzzing",
    ]
    command += ["--max-time", str(SCHEMATHESIS_SECONDS), "--seed", "4", "--continue-on-failure", *options]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.slow
def test_schemathesis_finds_nothing_that_the_document_does_not_say(
    web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 4: no 5xx whatever is asked, answers as documented, bad input refused with 4xx."""
    web.start(mode=Mode.OBSERVE)
    web.bench.wait_for(lambda: web.ask("GET", "/readyz").status == 200, "ready")
    with caplog.at_level(logging.ERROR):
        found = schemathesis(web, tmp_path)
    assert found.returncode == 0, found.stdout[-9000:] + found.stderr[-2000:]
    assert [r.getMessage() for r in caplog.records if "failed unexpectedly" in r.getMessage()] == []
