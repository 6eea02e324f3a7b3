# SPDX-License-Identifier: Apache-2.0
"""The JSON API as a Flask application, wherever it is served: it knows neither socket nor port.

Its routes, with what they take and give, are listed in :mod:`vcenter_eam_plugin.web.api`; ``docs/api.md`` is made of
that list. An error is ``{"error": {"kind", "message", "remedy", "exit_code"}}``, with ``preview`` where a plan has
changed.

Who may ask is not decided here, but where it is served: by the file system at the control socket, by a
:mod:`~vcenter_eam_plugin.web.guard` in front of it at the :mod:`web server <vcenter_eam_plugin.web.server>`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from vcenter_eam_plugin.audit import Query
from vcenter_eam_plugin.domain.errors import (
    ConfigurationError,
    NotAcknowledged,
    PlanChanged,
    PluginError,
    ProtocolError,
    UnknownTarget,
    WrongState,
)
from vcenter_eam_plugin.domain.requests import Request
from vcenter_eam_plugin.redaction import Redactor, secrets_of
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.web.api import JSON_LINES, Activate, Consented, Greenlets, Health, Switch
from vcenter_eam_plugin.web.issues import issues_of
from vcenter_eam_plugin.web.metrics import CONTENT_TYPE, Metrics
from vcenter_eam_plugin.web.openapi import document
from vcenter_eam_plugin.web.pages import Part, part_of
from vcenter_eam_plugin.web.probes import readiness
from vcenter_eam_plugin.web.stacks import dump

MAX_BODY = 8 * 1024
"""Bytes; a request is a handful of names."""
PEER = "vcenter_eam.peer"
"""Key of a request's environment: who asks, as the audit lines name them. Whoever serves the application sets it."""

_STATUS: dict[type[PluginError], int] = {
    ConfigurationError: 400,
    ProtocolError: 400,
    UnknownTarget: 404,
    NotAcknowledged: 403,
    PlanChanged: 409,
    WrongState: 409,
}
"""HTTP status by exact error; 503 for what time may heal and 500 for the rest."""


def create_app(service: Service) -> Flask:
    """The application, without any check of who may."""
    app = Flask("vcenter_eam_plugin", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.merge_slashes = False  # else //api/v1/apply is answered by a redirect
    metrics = Metrics(service)
    redact = Redactor(lambda: secrets_of(service.configuration), time.monotonic)

    @app.after_request
    def without_secrets(answer: Response) -> Response:
        # Words of libraries stand in alarms; see redaction.
        if not answer.is_streamed and (answer.is_json or (answer.mimetype or "").startswith("text/")):
            answer.set_data(redact(answer.get_data(as_text=True)))
        return answer

    @app.get("/healthz")
    def healthz() -> Response:
        return json_answer(Health(alive=True))

    @app.get("/readyz")
    def readyz() -> Response:
        found = readiness(service)
        return json_answer(found, 200 if found.ready else 503)

    @app.get("/metrics")
    def metrics_text() -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE)

    @app.get("/api/v1/openapi.json")
    def openapi() -> Response:
        return json_answer(document())

    @app.get("/api/v1/status")
    def status() -> Response:
        return json_answer(service.status())

    @app.get("/api/v1/hosts")
    def hosts() -> Response:
        part = part_of(request.args)
        found = service.operations.hosts()
        return json_answer({"hosts": part.of(found), "total": len(found), "next": part.next(len(found))})

    @app.get("/api/v1/hosts/<host>")
    def host(host: str) -> Response:
        return json_answer(service.operations.host(host, request.args.get("vcenter", "")))

    @app.get("/api/v1/events")
    def events() -> Response:
        return json_answer({"events": service.operations.events(_query())})

    @app.get("/api/v1/names")
    def names() -> Response:
        return json_answer(service.operations.names())

    @app.get("/api/v1/issues")
    def issues() -> Response:
        return json_answer(issues_of(service.operations.statuses(), part_of(request.args)))

    @app.get("/api/v1/greenlets")
    def greenlets() -> Response:
        return json_answer(Greenlets(greenlets=dump(service.greenlets())))

    @app.get("/api/v1/scope")
    def scope() -> Response:
        return json_answer({"scope": service.operations.scope()})

    @app.get("/api/v1/upgrades")
    def upgrades() -> Response:
        return json_answer({"upgrades": service.operations.upgrades()})

    @app.get("/api/v1/plan")
    def plan() -> Response:
        part = part_of(request.args)
        plans = service.operations.plan(request.args.get("vcenter", ""))
        return json_answer({"plans": [_part_of_plan(plan, part) for plan in plans]})

    @app.post("/api/v1/preview")
    def preview() -> Response:
        return json_answer(service.operations.preview(_body(Request)).plain())

    @app.post("/api/v1/apply")
    def apply() -> Response:
        asked = _body(Consented)
        fields = {name: getattr(asked, name) for name in Request.__struct_fields__}
        wanted = Request(**fields)
        running = service.operations.begin(wanted, digest=asked.digest, acknowledge=asked.acknowledge, who=who())
        lines: Iterator[bytes] = (msgspec.json.encode(event) + b"\n" for event in running.follow())
        return Response(lines, mimetype=JSON_LINES)

    @app.post("/api/v1/activate")
    def activate() -> Response:
        asked = _body(Activate)
        first = service.operations.activate(asked.vcenter, who(), why=asked.why, digest=asked.digest)
        return json_answer({"plans": first})

    @app.post("/api/v1/pause")
    def pause() -> Response:
        asked = _body(Switch)
        service.operations.pause(asked.vcenter, who(), why=asked.why)
        return json_answer({})

    @app.errorhandler(PluginError)
    def refused(error: PluginError) -> Response:
        return error_answer(error)

    @app.errorhandler(HTTPException)
    def not_understood(error: HTTPException) -> Response:
        answer = error_answer(ProtocolError(f"{error.code} {error.name}."), error.code)
        if isinstance(error, MethodNotAllowed):
            answer.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return answer

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        service.log.error("A request to the API failed unexpectedly.", exc_info=error)
        return error_answer(PluginError(f"Unexpected error ({type(error).__name__}); see the log of the service."))

    return app


def status_of(error: PluginError) -> int:
    """The HTTP status that says what an error means."""
    return _STATUS.get(type(error), 503 if error.retry else 500)


def who() -> str:
    """Who asks, within a request."""
    return str(request.environ[PEER])


def _part_of_plan(plan: dict[str, Any], part: Part) -> dict[str, Any]:
    """Lines and notes each by themselves: either may be as long as the fleet."""
    lines, notes = plan["lines"], plan["notes"]
    return {
        **plan,
        "lines": part.of(lines),
        "notes": part.of(notes),
        "total_lines": len(lines),
        "total_notes": len(notes),
        "next": part.next(max(len(lines), len(notes))),
    }


def _query() -> Query:
    given = {name: value for name, value in request.args.items() if name != "kind"}
    try:
        asked = msgspec.convert({**given, "kinds": request.args.getlist("kind")}, Query, strict=False)
    except msgspec.ValidationError as exc:
        raise ProtocolError(f"The request is not understood: {exc}.") from exc
    return asked


def _body(kind: type[Any]) -> Any:
    try:
        asked = msgspec.json.decode(request.get_data() or b"{}", type=kind)
        # A lone surrogate passes as an escape, and then fails in each answer and log line that names it.
        msgspec.json.encode(asked)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise ProtocolError(f"The request is not understood: {str(exc)[:200]}.") from exc
    except OSError as exc:  # the body broke off, or its chunks are none
        raise ProtocolError("The request is not understood: its body is not whole.") from exc
    return asked


def json_answer(value: Any, status: int = 200) -> Response:
    """``value`` as JSON."""
    return Response(msgspec.json.encode(value), status, mimetype="application/json")


def error_answer(error: PluginError, status: int | None = None) -> Response:
    """An error in the form that the module says; its HTTP status unless ``status`` is given."""
    told: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": error.message,
        "remedy": error.remedy,
        "exit_code": error.exit_code,
    }
    if isinstance(error, PlanChanged) and error.preview:
        told["preview"] = error.preview
    return json_answer({"error": told}, status or status_of(error))
