# SPDX-License-Identifier: Apache-2.0
"""The JSON API: real servers, real answers, held against the structs and the OpenAPI document that describe them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.support.web import Web
from vcenter_eam_plugin.web.api import ROUTES, Route


@pytest.fixture
def running(web: Web) -> Web:
    """Everything deployed, and watched."""
    web.start()
    web.bench.wait_until_active()
    return web


def the_route(path: str) -> Route:
    return next(route for route in ROUTES if route.path == path)


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


def test_one_host_is_found_by_moref_and_by_name_and_candidates_are_named_else(running: Web) -> None:
    name = running.bench.names()[0]
    by_name = running.ask("GET", f"/api/v1/hosts/test/{name}").json()
    assert by_name["host"]["state"] == "ACTIVE"
    assert running.ask("GET", f"/api/v1/hosts/test/{by_name['host']['esxi']['moref']}").json() == by_name
    unknown = running.ask("GET", "/api/v1/hosts/test/esx-nowhere")
    assert unknown.status == 404
    assert name in unknown.json()["error"]["message"]
    assert running.ask("GET", f"/api/v1/hosts/elsewhere/{name}").status == 404
