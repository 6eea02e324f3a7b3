# SPDX-License-Identifier: Apache-2.0
"""The JSON API as a Flask application, wherever it is served: it knows neither socket nor port.

=======  ================  =========================================================================
GET      /v1/status        modes, alarms, counts, and whether each vCenter is connected
GET      /v1/hosts         every ContrailVM, in the words of the bus
GET      /v1/scope         compute resources: configured, covered by the agency, in retreat
GET      /v1/upgrades      the upgrade of each vCenter that is under way, or the last one
GET      /v1/plan          what would be done now (``?vcenter=NAME``)
POST     /v1/preview       a request -> its preview
POST     /v1/apply         a request with ``digest`` and ``acknowledge`` -> progress, one JSON object a line
POST     /v1/activate      act from now on (``{"vcenter": NAME}`` or all)
POST     /v1/pause         stop acting
=======  ================  =========================================================================

An error is ``{"error": {"kind", "message", "remedy", "exit_code"}}``, with ``preview`` where a plan has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

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
from vcenter_eam_plugin.service import Service

MAX_BODY = 8 * 1024
"""Bytes; a request is a handful of names."""
JSON_LINES = "application/x-ndjson"

_STATUS: dict[type[PluginError], int] = {
    ConfigurationError: 400,
    ProtocolError: 400,
    UnknownTarget: 404,
    NotAcknowledged: 403,
    PlanChanged: 409,
    WrongState: 409,
}
"""HTTP status by exact error; 503 for what time may heal and 500 for the rest."""


class _Consented(Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request, as it was previewed."""

    digest: str = ""
    acknowledge: str = ""


class _Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All vCenters, or one by name."""

    vcenter: str = ""


def create_app(service: Service, who: Callable[[], str]) -> Flask:
    """The application. ``who`` tells, within a request, who asks: it goes to the audit lines."""
    app = Flask("vcenter_eam_plugin", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.merge_slashes = False  # else //v1/apply is answered by a redirect

    @app.get("/v1/status")
    def status() -> Response:
        return _json(service.status())

    @app.get("/v1/hosts")
    def hosts() -> Response:
        return _json({"hosts": service.operations.hosts()})

    @app.get("/v1/scope")
    def scope() -> Response:
        return _json({"scope": service.operations.scope()})

    @app.get("/v1/upgrades")
    def upgrades() -> Response:
        return _json({"upgrades": service.operations.upgrades()})

    @app.get("/v1/plan")
    def plan() -> Response:
        return _json({"plans": service.operations.plan(request.args.get("vcenter", ""))})

    @app.post("/v1/preview")
    def preview() -> Response:
        return _json(service.operations.preview(_body(Request)).plain())

    @app.post("/v1/apply")
    def apply() -> Response:
        asked = _body(_Consented)
        fields = {name: getattr(asked, name) for name in Request.__struct_fields__}
        wanted = Request(**fields)
        running = service.operations.begin(wanted, digest=asked.digest, acknowledge=asked.acknowledge, who=who())
        lines: Iterator[bytes] = (msgspec.json.encode(event) + b"\n" for event in running.follow())
        return Response(lines, mimetype=JSON_LINES)

    @app.post("/v1/activate")
    def activate() -> Response:
        return _json({"plans": service.operations.activate(_body(_Which).vcenter, who())})

    @app.post("/v1/pause")
    def pause() -> Response:
        service.operations.pause(_body(_Which).vcenter, who())
        return _json({})

    @app.errorhandler(PluginError)
    def refused(error: PluginError) -> Response:
        return _error(error)

    @app.errorhandler(HTTPException)
    def not_understood(error: HTTPException) -> Response:
        return _error(ProtocolError(f"{error.code} {error.name}."), error.code)

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        service.log.error("A request to the API failed unexpectedly.", exc_info=error)
        return _error(PluginError(f"Unexpected error ({type(error).__name__}); see the log of the service."))

    return app


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


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, mimetype="application/json")


def _error(error: PluginError, status: int | None = None) -> Response:
    told: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": error.message,
        "remedy": error.remedy,
        "exit_code": error.exit_code,
    }
    if isinstance(error, PlanChanged):
        told["preview"] = error.preview
    return _json({"error": told}, status or _STATUS.get(type(error), 503 if error.retry else 500))
