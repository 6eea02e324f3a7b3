# SPDX-License-Identifier: Apache-2.0
"""What the JSON API takes and gives: each route with its structs, from which the OpenAPI document is made.

The structs are the contract. Fields are added, and neither change their meaning nor go, as long as the path says
``v1``; whoever reads ignores what it does not know. Fields of a vCenter that is not connected yet are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from vcenter_eam_plugin.audit import Kind
from vcenter_eam_plugin.domain.issues import Policy, Radius
from vcenter_eam_plugin.domain.requests import Operation, Request
from vcenter_eam_plugin.domain.status import ContrailVm, State, Violation
from vcenter_eam_plugin.domain.upgrade import Upgrade

JSON = "application/json"
JSON_LINES = "application/x-ndjson"
TEXT = "text/plain"
MOST_SAID = 200
"""Characters of a reason that a person gives."""


# --- what is sent -----------------------------------------------------------------------------------------


class Consented(Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request as it was previewed: with the preview's digest, and the word that it asks for, if any."""

    digest: str = ""
    acknowledge: str = ""


class Switch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All vCenters, or one by name. ``why`` is for people, and goes to the audit trail."""

    vcenter: str = ""
    why: Annotated[str, msgspec.Meta(max_length=MOST_SAID)] = ""


class Activate(Switch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With ``digest`` only if the plan of that one vCenter still is what was shown; empty: no plan was known."""

    digest: str | None = None


# --- what is given ----------------------------------------------------------------------------------------


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """That this process answers."""

    alive: bool


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether every vCenter is connected, read completely and current; else why not."""

    ready: bool
    reasons: tuple[str, ...]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator should look at. ``since`` is POSIX seconds."""

    name: str
    text: str
    since: float


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Whether what is known from one source is current; ``stale_since`` is ISO 8601 in UTC."""

    live: bool
    stale_since: str | None
    stale_seconds: int
    why: str | None


class Agency(msgspec.Struct, frozen=True, kw_only=True):
    """Our agency in EAM."""

    moref: str
    status: str


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """The way to the broker. ``backlog`` is null when the outbox cannot be read; ages are seconds."""

    state: str
    connected: bool
    broker: str
    backlog: int | None
    oldest_unsent_age: float | None
    confirmed: int
    refused: int
    connects: int
    held: int
    held_reason: str
    quarantined: tuple[str, ...]
    last_error: str


class VCenterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One vCenter. What is null before it is connected is left out of the answer."""

    name: str
    vcenter: str
    mode: Literal["observe", "act", "paused"]
    connected: bool
    alarms: tuple[Alarm, ...]
    uuid: str | msgspec.UnsetType = msgspec.UNSET
    leading: bool | msgspec.UnsetType = msgspec.UNSET
    leader: str | msgspec.UnsetType = msgspec.UNSET
    epoch: int | msgspec.UnsetType = msgspec.UNSET
    ready: bool | msgspec.UnsetType = msgspec.UNSET
    live: bool | msgspec.UnsetType = msgspec.UNSET
    sources: dict[str, Source] | msgspec.UnsetType = msgspec.UNSET
    agency: Agency | msgspec.UnsetType | None = msgspec.UNSET
    doing: str | msgspec.UnsetType = msgspec.UNSET
    """What is on its way, in a sentence; empty when nothing is."""
    states: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    publisher: Link | msgspec.UnsetType = msgspec.UNSET
    waiting: dict[str, tuple[str, ...]] | msgspec.UnsetType = msgspec.UNSET
    """By host (moref), or ``agency``: why something is not done yet."""
    ovf_url: str | msgspec.UnsetType | None = msgspec.UNSET
    """Where EAM fetches the ContrailVM from: what the agency was told."""
    retreat: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Paths of the clusters that were drained, until they are called back."""


class LoopHold(msgspec.Struct, frozen=True, kw_only=True):
    """One hold of the event loop, in milliseconds, and how much of it was computing; ``where`` if somebody looked."""

    ms: float
    cpu_ms: float
    where: str


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """How long the event loop was held; ``over_limit`` counts the holds that were longer than ``limit_ms``."""

    limit_ms: float
    longest: LoopHold
    longest_in_last_minute: LoopHold
    most_cpu_ms: float
    over_limit: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Of every vCenter, and of the process."""

    vcenters: tuple[VCenterStatus, ...]
    loop: Loop


class Host(ContrailVm, frozen=True, kw_only=True):
    """The ContrailVM of one host, in the words of the bus, and its vCenter's name.

    ``since`` is when its state began (POSIX seconds); where ``since_known`` is false it is older than that.
    """

    vcenter: str
    since: float | None
    since_known: bool


class Hosts(msgspec.Struct, frozen=True, kw_only=True):
    """Of every vCenter that was read completely: those asked for of ``total``.

    ``next`` is the ``after`` of the next page; null when there is none.
    """

    hosts: tuple[Host, ...]
    total: int
    next: int | None


class SettingsShown(msgspec.Struct, frozen=True, kw_only=True):
    """The host's Agent VM settings (morefs); null is unset."""

    datastore: str | None
    network: str | None


class IssueExplained(msgspec.Struct, frozen=True, kw_only=True):
    """An issue of the host's agent: what it means, what resolving it touches at most, who may, what to do."""

    type: str
    description: str
    meaning: str
    radius: Radius
    policy: Policy
    advice: str


class ViolationExplained(Violation, frozen=True, kw_only=True):
    """A rule that is seen broken, and what a person can do about it."""

    advice: str


class StepPlanned(msgspec.Struct, frozen=True, kw_only=True):
    """What the service would do, and the most it touches."""

    text: str
    radius: Radius


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """``waiting`` says why something is not done yet, ``again_in`` in how many seconds it is looked at again.

    ``closed`` says why nothing may be done at all, or is empty.
    """

    actions: tuple[StepPlanned, ...]
    waiting: tuple[str, ...]
    again_in: float | None
    closed: str


class OneHost(Host, frozen=True, kw_only=True):
    """Everything about one host."""

    settings: SettingsShown
    violations: tuple[ViolationExplained, ...]
    issues: tuple[IssueExplained, ...]
    plan: HostPlan


class EventShown(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the audit trail; see :class:`vcenter_eam_plugin.audit.Entry`."""

    id: int
    at: float
    kind: Kind
    text: str
    vcenter: str
    host: str
    name: str
    who: str
    why: str
    result: str
    state: str
    issues: tuple[str, ...]
    rules: tuple[str, ...]
    found: bool


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest first."""

    events: tuple[EventShown, ...]


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What may be written on a command line."""

    vcenters: tuple[str, ...]
    hosts: tuple[str, ...]
    clusters: tuple[str, ...]
    paths: tuple[str, ...]


class ComputeResource(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster, or a host of its own, that is configured or that the agency covers."""

    vcenter: str
    path: str
    moref: str
    configured: bool
    in_agency: bool
    in_inventory: bool
    retreat: bool
    hosts: int


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Of every vCenter that is connected."""

    scope: tuple[ComputeResource, ...]


class IssueOn(msgspec.Struct, frozen=True, kw_only=True):
    """An issue of the agent on one host."""

    vcenter: str
    moref: str
    name: str
    cluster: str
    description: str


class IssueShown(msgspec.Struct, frozen=True, kw_only=True):
    """The issues of one exact type: what it means, what resolving it touches at most, and who may.

    ``count`` is on how many hosts it is; ``hosts`` are those of them that were asked for.
    """

    type: str
    meaning: str
    blast_radius: Radius
    policy: Policy
    state: State
    advice: str
    count: int
    hosts: tuple[IssueOn, ...]


class Issues(msgspec.Struct, frozen=True, kw_only=True):
    """Those that EAM shows now, the most frequent type first. Pages count hosts through all types, ``total`` of them.

    ``next`` is the ``after`` of the next page; null when there is none.
    """

    issues: tuple[IssueShown, ...]
    total: int
    next: int | None


class UpgradeShown(Upgrade, frozen=True, kw_only=True):
    """An upgrade and its vCenter's name."""

    vcenter: str


class Upgrades(msgspec.Struct, frozen=True, kw_only=True):
    """The one under way in each vCenter, or the last one."""

    upgrades: tuple[UpgradeShown, ...]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a preview: on whom, what, and the most it touches."""

    target: str
    text: str
    radius: Radius


class PreviewShown(msgspec.Struct, frozen=True, kw_only=True):
    """What would be done now. ``acknowledge`` is the word that a person must type, if not empty."""

    operation: Operation
    target: str
    vcenter: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    radius: Radius
    acknowledge: str
    confirm: bool
    digest: str


class PlanShown(PreviewShown, frozen=True, kw_only=True):
    """What the service itself would do now; ``closed`` says why it may not, or is empty.

    A page has so many of the ``total_lines`` and as many of the ``total_notes``; ``next`` is the ``after`` of the next
    one, or null. Radius, word and digest are of the whole plan: the same digest, the same plan.
    """

    mode: Literal["observe", "act", "paused"]
    closed: str
    total_lines: int
    total_notes: int
    next: int | None


class Plans(msgspec.Struct, frozen=True, kw_only=True):
    """Of each vCenter."""

    plans: tuple[PlanShown, ...]


class Activated(msgspec.Struct, frozen=True, kw_only=True):
    """What is done first, as it was planned a moment before."""

    plans: tuple[PreviewShown, ...]


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """It was done; there is nothing to say."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an operation's progress: ``begin`` has the preview, ``step`` the step, ``end`` the counts."""

    kind: Literal["begin", "step", "end"]
    preview: PreviewShown | msgspec.UnsetType = msgspec.UNSET
    number: int | msgspec.UnsetType = msgspec.UNSET
    of: int | msgspec.UnsetType = msgspec.UNSET
    target: str | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    outcome: Literal["begun", "running", "done", "failed"] | msgspec.UnsetType = msgspec.UNSET
    detail: str | msgspec.UnsetType = msgspec.UNSET
    ok: bool | msgspec.UnsetType = msgspec.UNSET
    done: int | msgspec.UnsetType = msgspec.UNSET
    failed: int | msgspec.UnsetType = msgspec.UNSET


class WhoAsks(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as the audit names them. ``csrf`` is what a browser's session sends in ``X-CSRF-Token``, else empty."""

    who: str
    may_change: bool
    csrf: str


class GreenletShown(msgspec.Struct, frozen=True, kw_only=True):
    """``stack`` is ``module:line function`` from the outermost call to the one that waits."""

    name: str
    dead: bool
    stack: tuple[str, ...]


class Greenlets(msgspec.Struct, frozen=True, kw_only=True):
    """Every greenlet of this service."""

    greenlets: tuple[GreenletShown, ...]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, in a sentence; ``exit_code`` is what a command ends with, ``preview`` the changed plan."""

    kind: str
    message: str
    remedy: str
    exit_code: int
    preview: PreviewShown | msgspec.UnsetType = msgspec.UNSET


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer that is not 2xx, but for ``/readyz``."""

    error: Fault


# --- routes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of the path, or of the query."""

    name: str
    where: Literal["path", "query"]
    meaning: str


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. ``gives`` is the answer with status 200; ``problems`` are the statuses of others beyond
    those that every route may give."""

    method: Literal["GET", "POST"]
    path: str
    meaning: str
    gives: type[msgspec.Struct] | None
    takes: type[msgspec.Struct] | None = None
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[int, ...] = ()
    media: str = JSON
    open: bool = False
    """Whether it is for everybody, also where others than this machine may ask."""


_PART = (
    Parameter("limit", "query", "so many at most; all unless given"),
    Parameter("after", "query", "only those that follow so many; see `next`"),
)

ROUTES = (
    Route("GET", "/healthz", "Whether this process lives.", Health, open=True),
    Route("GET", "/readyz", "Whether it has a complete and current picture; 503 when not. A standby is ready too.",
          Readiness, open=True),
    Route("GET", "/metrics", "The service in numbers, for Prometheus.", None, media=TEXT),
    Route("GET", "/api/v1/openapi.json", "This document.", None),
    Route("GET", "/api/v1/status", "Modes, alarms, counts, and whether each vCenter is connected and current.", Status),
    Route("GET", "/api/v1/hosts", "Every ContrailVM.", Hosts, parameters=_PART),
    Route("GET", "/api/v1/hosts/{host}", "Everything about one host: its ContrailVM, issues, what is planned.", OneHost,
          parameters=(Parameter("host", "path", "the host's moref or name"),
                      Parameter("vcenter", "query", "one of several, by name")), problems=(404, 409, 503)),
    Route("GET", "/api/v1/events", "The audit trail: the newest entries that are asked for.", Events, parameters=(
        Parameter("since", "query", "POSIX seconds"), Parameter("after", "query", "an entry's id"),
        Parameter("host", "query", "moref or name"), Parameter("kind", "query", "may be repeated"),
        Parameter("vcenter", "query", "one of several, by name"), Parameter("limit", "query", "200 unless given")),
          problems=(503,)),
    Route("GET", "/api/v1/names", "vCenters, hosts, clusters and paths, for a shell that completes them.", Names),
    Route("GET", "/api/v1/scope", "Compute resources: configured, covered by the agency, in retreat.", Scope),
    Route("GET", "/api/v1/issues", "What EAM complains of, by type.", Issues, parameters=_PART),
    Route("GET", "/api/v1/upgrades", "The upgrade of each vCenter that is under way, or the last one.", Upgrades),
    Route("GET", "/api/v1/plan", "What would be done now.", Plans, parameters=(
        Parameter("vcenter", "query", "one of several, by name"), *_PART), problems=(404, 409, 503)),
    Route("GET", "/api/v1/greenlets", "Every greenlet, and where it is.", Greenlets),
    Route("GET", "/api/v1/session", "Who asks, and what a page needs to change things. Over the network alone.",
          WhoAsks),
    Route("POST", "/api/v1/preview", "What an operation would do now; changes nothing.", PreviewShown, Request,
          problems=(404, 409, 503)),
    Route("POST", "/api/v1/apply", "Carry out what was previewed; progress, one JSON object a line.", Progress,
          Consented, problems=(404, 409, 503), media=JSON_LINES),
    Route("POST", "/api/v1/activate", "Act from now on.", Activated, Activate, problems=(404, 409, 503)),
    Route("POST", "/api/v1/pause", "Stop acting; watching and publishing go on.", Nothing, Switch,
          problems=(404, 409, 503)),
)  # fmt: skip
"""In the order of the document."""
