# SPDX-License-Identifier: Apache-2.0
"""The status page: HTML that is whole without a script, which only keeps it up to date and makes it quicker to use.

=====  ========================  =========================================================================
GET    /                         every vCenter and its hosts (``?state=``, ``?text=`` choose among these)
GET    /hosts/VCENTER/MOREF      everything of one host, and what happened to it lately
GET    /issues                   what EAM complains of, by type
GET    /plan                     what would be done now
GET    /delivery                 what waits to be sent
GET    /activate, /pause         what it would mean (``?vcenter=``), and the form that asks for it
POST   /activate, /pause         that form
GET    /preview                  what an operation would do, and the form that asks for consent
POST   /carry-out                that form: as it was previewed, or not at all
GET    /operations/NUMBER        how far it is
=====  ========================  =========================================================================

Of a long table a page shows a part: ``?vcenter=``, ``?after=`` and for issues ``?type=`` choose it. ``?part=live`` is
the pieces of a page that its script puts in place of the old ones. Who may see or change anything is the guard's to
say. A page is written in turns with everything else: a fleet of thousands keeps nobody waiting.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import OrderedDict
from collections.abc import Iterable
from itertools import count
from typing import Any, TypeVar

import msgspec
from flask import Blueprint, Response, current_app, request, url_for
from werkzeug.exceptions import HTTPException, NotFound

from vcenter_eam_plugin import __version__
from vcenter_eam_plugin.domain.errors import (
    NotAcknowledged,
    PlanChanged,
    PluginError,
    ProtocolError,
    UnknownTarget,
)
from vcenter_eam_plugin.domain.issues import Radius
from vcenter_eam_plugin.domain.requests import Operation, Preview, Request
from vcenter_eam_plugin.operations import Running
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.turns import Turns
from vcenter_eam_plugin.unit import Unit
from vcenter_eam_plugin.web import picture
from vcenter_eam_plugin.web.api import MOST_SAID, Activate
from vcenter_eam_plugin.web.app import status_of, who
from vcenter_eam_plugin.web.faces import FACES, NEEDS_SOMEBODY
from vcenter_eam_plugin.web.guard import SESSION, SHOWN, see_other
from vcenter_eam_plugin.web.pages import Part, part_of
from vcenter_eam_plugin.web.picture import Wanted

PIECES = 32
"""Of a template, between two looks at whose turn it is: a host is 20 of them, and to look after each took half as long
again as to write them (measured)."""
MOST_OPERATIONS = 50
"""Operations whose end can still be looked at."""

T = TypeVar("T")

_SOURCES = {"inventory": "Inventory", "events": "Events", "eam": "EAM"}
_OFFERED = frozenset({Operation.APPLY, Operation.RESOLVE, Operation.RELEASE})
"""What the page asks for; the rest is rare enough for a command line and its manual."""


class Page:
    """The pages of one service, as a blueprint. ``stream_id`` names the process in the stream's positions."""

    def __init__(self, service: Service, stream_id: str) -> None:
        self._service = service
        self._stream_id = stream_id
        self._operations: OrderedDict[int, Running] = OrderedDict()
        self._numbers = count(1)
        self.blueprint = Blueprint(
            "page", __name__, static_folder="static", static_url_path="/static", template_folder="templates"
        )
        add = self.blueprint.add_url_rule
        add("/", view_func=self.overview)
        add("/hosts/<vcenter>/<moref>", view_func=self.host)
        add("/issues", view_func=self.issues)
        add("/plan", view_func=self.plan)
        add("/delivery", view_func=self.delivery)
        add("/activate", "activate", self.activate, methods=["GET", "POST"])
        add("/pause", "pause", self.pause, methods=["GET", "POST"])
        add("/preview", view_func=self.preview)
        add("/carry-out", view_func=self.carry_out, methods=["POST"])
        add("/operations/<int:number>", view_func=self.operation)
        self.blueprint.register_error_handler(PluginError, self.refused)
        self.blueprint.register_error_handler(HTTPException, self.not_found)
        self.blueprint.add_app_template_filter(utc)
        self.blueprint.add_app_template_filter(iso)
        self.blueprint.add_app_template_filter(host_id)
        self.blueprint.add_app_template_filter(sentence)

    # --- reading ------------------------------------------------------------------------------------------

    def overview(self) -> Response:
        wanted = Wanted(request.args.get("state", ""), request.args.get("text", ""))
        units = self._service.units
        hosts = picture.count_hosts(self._service)
        troubles, more = picture.troubles(units)
        return self._answer(
            "overview.html",
            vcenters=[picture.overview(unit) for unit in units],
            # Asked for while the page is written, cluster by cluster.
            clusters=lambda: (cluster for unit in units for cluster in picture.clusters(unit, wanted)),
            several=len(units) > 1,
            hosts=hosts,
            roomy=hosts <= picture.ROOMY,
            troubles=troubles,
            more_troubles=more,
            wanted=wanted,
        )

    def host(self, vcenter: str, moref: str) -> Response:
        return self._answer("host.html", host=picture.host_picture(self._service, vcenter, moref), vcenter=vcenter)

    def issues(self) -> Response:
        kind, part = request.args.get("type", ""), _part()
        groups = [group for unit in self._service.units for group in picture.issue_groups(unit, part)]
        solvable = {unit.name: 0 for unit in self._service.units}
        for group in groups:
            if group.kind.radius is not Radius.HOST:  # such a one is resolved alone, by its name
                solvable[group.vcenter] += sum(each.solvable for each in group.hosts)
        asked = {unit.name for unit in self._asked()}
        return self._answer(
            "issues.html",
            groups=[group for group in groups if group.vcenter in asked and kind in ("", group.kind.name)],
            total=sum(len(group.hosts) for group in groups),
            solvable=solvable,
            several=len(self._service.units) > 1,
            narrowed=bool(kind or request.args.get("vcenter")),
        )

    def plan(self) -> Response:
        part = _part()
        return self._answer(
            "plan.html",
            plans=[picture.plan_picture(self._service, unit, part) for unit in self._asked()],
            narrowed=bool(request.args.get("vcenter")) and len(self._service.units) > 1,
        )

    def delivery(self) -> Response:
        return self._answer("delivery.html", vcenters=[picture.overview(unit) for unit in self._service.units])

    def _asked(self) -> list[Unit]:
        """Every vCenter, or the one that the query names. Raises UnknownTarget."""
        name = request.args.get("vcenter", "")
        return [self._unit(name)] if name else list(self._service.units)

    def _unit(self, name: str) -> Unit:
        units = self._service.units
        for unit in units:
            if name == unit.name or (not name and len(units) == 1):
                return unit
        raise UnknownTarget(f"No vCenter is called {name!r}.")

    # --- changing -----------------------------------------------------------------------------------------

    def activate(self) -> Response:
        return self._switch("activate")

    def pause(self) -> Response:
        return self._switch("pause")

    def _switch(self, verb: str) -> Response:
        """What it would mean, or, as the form asks for it, do it; the guard has seen token and secret by then."""
        if request.method != "POST":
            return self._show_switch(verb, self._unit(request.args.get("vcenter", "")))
        unit = self._unit(request.form.get("vcenter", ""))
        asked = _convert({name: request.form.get(name, "") for name in ("vcenter", "why", "digest")}, Activate)
        try:
            if verb == "activate":
                self._service.operations.activate(unit.name, who(), why=asked.why, digest=asked.digest)
            else:
                self._service.operations.pause(unit.name, who(), why=asked.why)
        except PlanChanged as exc:
            return self._show_switch(verb, unit, refused=exc, why=asked.why)
        return see_other(url_for("page.overview", part=request.args.get("part")))

    def _show_switch(self, verb: str, unit: Unit, *, refused: PluginError | None = None, why: str = "") -> Response:
        status = 200 if refused is None else status_of(refused)
        shown = picture.switch_picture(self._service, unit)
        return self._answer("switch.html", status, verb=verb, shown=shown, refused=refused, why=why, most=MOST_SAID)

    def preview(self) -> Response:
        wanted = _request_of(request.args)
        return self._show_preview(wanted, self._service.operations.preview(wanted))

    def carry_out(self) -> Response:
        """What the form asked for; the guard has seen token and secret by now."""
        wanted = _request_of(request.form)
        digest, word = request.form.get("digest", ""), request.form.get("acknowledge", "").strip()
        try:
            running = self._service.operations.begin(wanted, digest=digest, acknowledge=word, who=who())
        except (PlanChanged, NotAcknowledged) as exc:
            shown = self._service.operations.preview(wanted)
            return self._show_preview(wanted, shown, refused=exc, typed=word)
        number = next(self._numbers)
        self._operations[number] = running
        if len(self._operations) > MOST_OPERATIONS:
            self._operations.popitem(last=False)
        return see_other(url_for("page.operation", number=number))

    def operation(self, number: int) -> Response:
        running = self._operations.get(number)
        if running is None:
            raise NotFound
        steps, more = picture.steps_shown(running.steps())
        return self._answer("operation.html", running=running, steps=steps, more=more, number=number)

    def _show_preview(
        self, wanted: Request, shown: Preview, *, refused: PluginError | None = None, typed: str = ""
    ) -> Response:
        status = 200 if refused is None else status_of(refused)
        closed = next((unit.gate.closed() for unit in self._service.units if unit.name == shown.vcenter), "")
        return self._answer(
            "preview.html", status, wanted=wanted, shown=shown, refused=refused, typed=typed, closed=closed
        )

    # --- answers ------------------------------------------------------------------------------------------

    def refused(self, error: PluginError) -> Response:
        return self._answer("error.html", status_of(error), error=error)

    def not_found(self, error: HTTPException) -> Response:
        return self._answer("error.html", error.code or 500, error=UnknownTarget(f"{error.code} {error.name}."))

    def _answer(self, template: str, status: int = 200, **shown: Any) -> Response:
        session = request.environ.get(SESSION)
        written = current_app.jinja_env.get_template(template).generate(
            **shown,
            part=request.args.get("part") == "live",
            version=__version__,
            now=time.time(),
            cursor=f"{self._stream_id}.{self._service.history.number}",
            csrf=session.csrf if session is not None else "",
            logged_in=session is not None,
            may_change=bool(request.environ.get(SHOWN)),
            service_name=self._service.name,
            faces=FACES,
            needs_somebody=NEEDS_SOMEBODY,
            sources=_SOURCES,
            url_for=url_for,
        )
        return Response(in_turns(written), status, mimetype="text/html")


def in_turns(written: Iterable[str]) -> str:
    """The text that a template writes; others have their turns in between."""
    pieces: list[str] = []
    turns = Turns()
    for piece in written:
        pieces.append(piece)
        if len(pieces) % PIECES == 0:
            turns.give()
    return "".join(pieces)


def _request_of(fields: Any) -> Request:
    """Raises ProtocolError."""
    given = {name: fields.get(name, "") for name in ("operation", "vcenter", "target")}
    wanted = _convert({**given, "everything": fields.get("everything") == "yes"}, Request)
    if wanted.operation not in _OFFERED:
        raise ProtocolError(f"{wanted.operation.value} is not asked for here.", remedy="Use vcenter-eam.")
    return wanted


def _convert(given: dict[str, Any], kind: type[T]) -> T:
    """Raises ProtocolError."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as exc:
        raise ProtocolError(f"The request is not understood: {exc}.") from exc


def _part() -> Part:
    """The page that the query asks for. Raises ProtocolError."""
    asked = part_of({name: value for name, value in request.args.items() if name == "after"})
    return Part(after=asked.after, limit=picture.ON_A_PAGE)


def utc(at: float) -> str:
    """A time as people read it."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso(at: float) -> str:
    """A time as machines read it."""
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sentence(text: str) -> str:
    """With a capital letter first; names within stay as they are."""
    return text[:1].upper() + text[1:]


def host_id(moref: str, vcenter: str) -> str:
    """The ``id`` of a host's cell."""
    return f"h/{vcenter}/{moref}"
