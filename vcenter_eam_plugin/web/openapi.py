# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 document of the API, made of the routes and structs of :mod:`vcenter_eam_plugin.web.api`."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from vcenter_eam_plugin import __version__
from vcenter_eam_plugin.web.api import JSON, JSON_LINES, ROUTES, Problem, Readiness, Route

_ALWAYS = (401, 403, 421, 429)
"""What the guard may answer before a route is asked: see docs/security.md."""
_REF = "#/components/schemas/{name}"


@cache
def document() -> dict[str, Any]:
    """The whole document, in plain values. Do not change it: it is made once."""
    _, components = msgspec.json.schema_components(_structs(), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "contrail-vcenter-eam-plugin",
            "version": __version__,
            "description": "A ContrailVM on every ESXi host. Reading is free on loopback; all else needs the token.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _structs() -> list[type[msgspec.Struct]]:
    wanted = [struct for route in ROUTES for struct in (route.takes, route.gives) if struct is not None]
    return list(dict.fromkeys((*wanted, Problem)))


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _name(route),
        "summary": route.meaning,
        "security": _security(route),
        "responses": _responses(route),
    }
    if route.parameters:
        operation["parameters"] = [
            {
                "name": each.name,
                "in": each.where,
                "required": each.where == "path",
                "description": each.meaning,
                "schema": {"type": "string", **({"minLength": 1} if each.where == "path" else {})},
            }
            for each in route.parameters
        ]
    if route.takes is not None:
        needed = any(field.required for field in msgspec.structs.fields(route.takes))
        operation["requestBody"] = {"required": needed, "content": {JSON: {"schema": _schema(route.takes)}}}
    return operation


def _name(route: Route) -> str:
    words = route.path.removeprefix("/api/v1").translate(str.maketrans("/{}.", "____")).strip("_")
    return f"{route.method.lower()}_{words}".replace("__", "_")


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.open:
        return []
    return [{"token": []}] if route.method == "POST" else [{}, {"token": []}]


def _responses(route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.gives is not None:
        content = {"schema": _schema(route.gives)}
    elif route.media == JSON:
        content = {"schema": {"type": "object"}}
    told = "a JSON object a line, each of this schema" if route.media == JSON_LINES else "as it is"
    statuses = set(route.problems) | set(() if route.open else _ALWAYS)
    if route.takes is not None or route.parameters:
        statuses.add(400)
    if route.takes is not None:
        statuses.add(413)
    problem = {"content": {JSON: {"schema": _schema(Problem)}}}
    answers = {str(status): {"description": HTTPStatus(status).phrase, **problem} for status in sorted(statuses)}
    answers["200"] = {"description": told, "content": {route.media: content}}
    if route.gives is Readiness:
        answers["503"] = {"description": "not ready", "content": {JSON: {"schema": _schema(Readiness)}}}
    return dict(sorted(answers.items()))


def _schema(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=struct.__name__)}
