# SPDX-License-Identifier: Apache-2.0
"""What a person asks of a running service: previews, and operations that are carried out as they were previewed.

Every operation, refused or carried out, and every change of mode is one audit line in the log: who, what, and what
came of it. An operation runs in a greenlet of its own and goes on when whoever asked has left. Reading and previews
are always possible; the rest asks the gate, so that nothing is changed in observe mode, when paused, or by an instance
that does not lead.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import gevent
import msgspec
from gevent.event import Event
from gevent.pool import Pool

from vcenter_eam_plugin.audit import AuditTrail, Kind, Query
from vcenter_eam_plugin.carrier import Carrier
from vcenter_eam_plugin.domain.errors import (
    NotAcknowledged,
    PlanChanged,
    PluginError,
    Unavailable,
    UnknownTarget,
    WrongState,
)
from vcenter_eam_plugin.domain.issues import issue_type
from vcenter_eam_plugin.domain.names import candidates, find_host
from vcenter_eam_plugin.domain.operations import Sight, describe, preview
from vcenter_eam_plugin.domain.planner import Plan
from vcenter_eam_plugin.domain.requests import Operation, Preview, Request, Step
from vcenter_eam_plugin.domain.status import ContrailVm
from vcenter_eam_plugin.domain.violations import advice
from vcenter_eam_plugin.pipeline import Pipeline
from vcenter_eam_plugin.turns import Turns
from vcenter_eam_plugin.unit import Unit
from vcenter_eam_plugin.witness import Witness

AT_ONCE = 8
"""Hosts that one operation works on at once; more only wait for the budgets and for EAM."""
_IN_ANY_ORDER = (Operation.APPLY, Operation.RESOLVE, Operation.RELEASE)
"""Their steps stand each for itself. Those of the others build on each other."""


class Running:
    """One operation on its way. :meth:`follow` gives its events from the first on, to as many as want them."""

    def __init__(self, shown: Preview) -> None:
        self.preview = shown
        self.done = 0
        self.failed = 0
        self.ended = False
        self._events: list[dict[str, Any]] = []
        self._news = Event()
        self.tell("begin", preview=shown.plain())

    def tell(self, kind: str, **fields: Any) -> None:
        self._events.append({"kind": kind, **fields})
        self.ended = kind == "end"
        news, self._news = self._news, Event()
        news.set()

    def steps(self) -> list[dict[str, Any]]:
        """Each step of the preview with how it is now: its last ``step`` event, or ``outcome`` "waiting"."""
        steps = [
            {"target": step.target, "text": step.text, "outcome": "waiting", "detail": ""}
            for step in self.preview.steps
        ]
        for event in self._events:
            if event["kind"] == "step":
                shown = steps[event["number"] - 1]
                shown["outcome"] = event["outcome"]
                shown["detail"] = event["detail"] or shown["detail"]
        return steps

    def follow(self) -> Iterator[dict[str, Any]]:
        """Every event, as it comes, until the end: ``begin``, ``step`` and ``end``."""
        told = 0
        while True:
            while told < len(self._events):
                yield self._events[told]
                told += 1
            if self.ended:
                return
            self._news.wait()


class Operations:
    """``units`` is the service's own list, which it fills at its start."""

    def __init__(
        self,
        units: Sequence[Unit],
        log: logging.Logger,
        trail: AuditTrail,
        witness: Witness,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._units = units
        self._trail = trail
        self._witness = witness
        self._audit = log.getChild("audit")
        self._log = log
        self._clock = clock
        self._running: dict[gevent.Greenlet, Running] = {}

    # --- reading ------------------------------------------------------------------------------------------

    def hosts(self) -> list[dict[str, Any]]:
        """Everything known about each ContrailVM, as it is published, and since when (see :meth:`_since`)."""
        rows: list[dict[str, Any]] = []
        turns = Turns()
        for unit, status in self._described():
            turns.give()
            rows.append({"vcenter": unit.name, **self._since(unit, status.esxi.moref), **msgspec.to_builtins(status)})
        return rows

    def statuses(self) -> Iterator[tuple[str, ContrailVm]]:
        """The same as it is held, each with its vCenter's name."""
        for unit, status in self._described():
            yield unit.name, status

    def _described(self) -> Iterator[tuple[Unit, ContrailVm]]:
        for unit in self._units:
            if unit.pipeline is not None:
                for status in sorted(unit.pipeline.fleet.statuses(), key=lambda each: each.esxi.name):
                    yield unit, status

    def _since(self, unit: Unit, host: str) -> dict[str, Any]:
        """``since``: POSIX seconds, or nothing; ``since_known`` is false when the state is older than that."""
        since = self._witness.since(unit.name, host)
        return {"since": since and since.at, "since_known": since is not None and not since.found}

    def host(self, name: str, vcenter: str = "") -> dict[str, Any]:
        """Everything about one host, by its name or moref. Raises UnknownTarget."""
        found, errors = [], []
        for unit in [self._named(vcenter)] if vcenter else self._units:
            fleet = _pipeline_of(unit).fleet
            known = {status.esxi.moref: status.esxi.name for status in fleet.statuses()}
            try:
                found.append((unit, find_host(unit.name, known, name)))
            except UnknownTarget as exc:
                errors.append(exc)
        if not found:
            raise UnknownTarget(" ".join(str(exc) for exc in errors))
        if len(found) > 1:
            raise UnknownTarget(
                f"{name!r} may be in any of: {', '.join(unit.name for unit, _ in found)}.",
                remedy="Name the vCenter by --vcenter.",
            )
        return self._everything_about(*found[0])

    def _everything_about(self, unit: Unit, host: str) -> dict[str, Any]:
        pipeline = _pipeline_of(unit)
        fleet, now = pipeline.fleet, self._clock()
        status, facts = fleet.status(host), fleet.hosts.get(host)
        assert status is not None
        plan = pipeline.workers.plan_for(host, now) if facts is not None else Plan()
        rows = [(issue, issue_type(issue.type)) for issue in status.eam.issues]
        return {
            "vcenter": unit.name,
            **self._since(unit, host),
            **msgspec.to_builtins(status),
            "violations": [
                {"name": each.name, "text": each.text, "advice": advice(each.name)} for each in status.violations
            ],
            "settings": {
                "datastore": facts.agent_datastore if facts is not None else None,
                "network": facts.agent_network if facts is not None else None,
            },
            "issues": [
                {
                    "type": issue.type,
                    "description": issue.description,
                    "meaning": row.meaning,
                    "radius": row.radius.value,
                    "policy": row.policy.value,
                    "advice": row.advice,
                }
                for issue, row in rows
            ],
            "plan": {
                "actions": [{"text": describe(each, fleet), "radius": each.radius.value} for each in plan.actions],
                "waiting": list(plan.waiting),
                "again_in": None if plan.again_at is None else max(plan.again_at - now, 0.0),
                "closed": unit.gate.closed(),
            },
        }

    def names(self) -> dict[str, list[str]]:
        """What may be written on a command line: vCenters, hosts, clusters and their paths."""
        fleets = [unit.pipeline.fleet for unit in self._units if unit.pipeline is not None]
        inside = [facts for fleet in fleets for facts in fleet.compute_resources.values()]
        return {
            "vcenters": [unit.name for unit in self._units],
            "hosts": sorted({host.name for fleet in fleets for host in fleet.hosts.values()}),
            "clusters": sorted({facts.name for facts in inside}),
            "paths": sorted({facts.path for facts in inside}),
        }

    def events(self, query: Query) -> list[dict[str, Any]]:
        """Entries of the audit trail, oldest first. Raises Unavailable when it cannot be read."""
        return self._trail.read(query)

    def scope(self) -> list[dict[str, Any]]:
        """Each compute resource that is configured or that the agency covers."""
        rows = []
        for unit in self._units:
            if unit.pipeline is None:
                continue
            fleet = unit.pipeline.fleet
            covered = fleet.agency.scope if fleet.agency is not None else ()
            for moref in sorted(fleet.scope):
                rows.append(
                    {
                        "vcenter": unit.name,
                        "path": fleet.path_of(moref),
                        "moref": moref,
                        "configured": moref in fleet.configured_scope,
                        "in_agency": moref in covered,
                        "in_inventory": moref in fleet.compute_resources,
                        "retreat": moref in fleet.retreat,
                        "hosts": sum(host.compute_resource == moref for host in fleet.hosts.values()),
                    }
                )
        return rows

    def upgrades(self) -> list[dict[str, Any]]:
        """The upgrade under way in each vCenter, or the last one; times in POSIX seconds."""
        found = []
        for unit in self._units:
            upgrade = unit.pipeline.upgrades.status() if unit.pipeline is not None else None
            if upgrade is not None:
                found.append({"vcenter": unit.name, **msgspec.to_builtins(upgrade)})
        return found

    def plan(self, vcenter: str = "") -> list[dict[str, Any]]:
        """What would be done now in each vCenter, and whether it may be. Raises UnknownTarget."""
        chosen = [self._named(vcenter)] if vcenter else self._units
        plans = []
        for unit in chosen:
            shown = self.preview(Request(operation=Operation.APPLY, vcenter=unit.name))
            plans.append({**shown.plain(), "mode": unit.gate.mode, "closed": unit.gate.closed()})
        return plans

    def preview(self, request: Request) -> Preview:
        """What the request would do now; changes nothing. Raises the domain's errors for what cannot be asked."""
        return self._preview(self._unit_for(request), request)

    # --- changing -----------------------------------------------------------------------------------------

    def activate(self, vcenter: str, who: str, *, why: str = "", digest: str | None = None) -> list[dict[str, Any]]:
        """Act from now on; returns what is done first, as it was planned a moment before. ``why`` goes to the trail.

        With ``digest``, that of one vCenter's plan as it was shown (empty: none was known), it raises PlanChanged when
        that is not the plan any more. Nothing was changed then.
        """
        units = [self._named(vcenter)] if vcenter else list(self._units)
        if digest is not None and len(units) > 1:
            raise UnknownTarget("A digest is of one vCenter's plan.", remedy="Name the vCenter by --vcenter.")
        first = self._plans_known(units)
        for unit in units:
            self._switch(unit, "activate", partial(self._activate, unit, digest, first), who, why)
        return first

    @staticmethod
    def _activate(unit: Unit, digest: str | None, plans: Sequence[dict[str, Any]]) -> None:
        if digest is not None and digest != (plans[0]["digest"] if plans else ""):
            raise PlanChanged(
                "Nothing was changed: what would be done first is not what was shown.",
                remedy="Read the new plan, and ask again.",
                preview=plans[0] if plans else None,
            )
        unit.activate()

    def pause(self, vcenter: str, who: str, *, why: str = "") -> None:
        """Stop acting; watching and publishing go on, and what EAM has begun it ends. ``why`` goes to the trail."""
        for unit in [self._named(vcenter)] if vcenter else self._units:
            self._switch(unit, "pause", unit.pause, who, why)

    def _switch(self, unit: Unit, verb: str, switch: Callable[[], None], who: str, why: str) -> None:
        reason = f" ({why!r})" if why else ""
        try:
            switch()
        except PluginError as exc:
            self._audit.warning("%s asked %s to %s%s, refused: %s", who, unit.name, verb, reason, exc)
            self._trail.tell(Kind.OPERATION, verb, vcenter=unit.name, who=who, why=why, result=f"refused: {exc}")
            raise
        self._audit.warning("%s told %s to %s%s.", who, unit.name, verb, reason)
        self._trail.tell(Kind.OPERATION, verb, vcenter=unit.name, who=who, why=why, result="done")

    def begin(self, request: Request, *, digest: str, acknowledge: str, who: str) -> Running:
        """Carry out what was previewed with that ``digest``. ``who`` goes to the log.

        Raises PlanChanged with the new preview when it is no longer the same, NotAcknowledged when the word is
        missing or another, WrongState when nothing may be changed now. Nothing was changed then.
        """
        unit: Unit | None = None
        try:
            unit = self._unit_for(request)
            unit.gate.check()
            shown = self._preview(unit, request)
            self._check_consent(shown, digest, acknowledge)
            self._check_alone(request, unit)
        except PluginError as exc:
            self._audit.warning("%s asked for %r, refused: %s", who, request.describe(), exc)
            if unit is not None:
                unit.tally.operations[request.operation.value, type(exc).__name__] += 1
            result = f"refused: {exc}"
            self._trail.tell(Kind.OPERATION, request.describe(), vcenter=request.vcenter, who=who, result=result)
            raise
        unit.tally.operations[request.operation.value, "begun"] += 1
        self._audit.warning(
            "%s asked for %r in %s, digest %s, acknowledged %r: %d step(s).",
            who,
            request.describe(),
            unit.name,
            shown.digest,
            acknowledge,
            len(shown.steps),
        )
        why = f"digest {shown.digest}" + (f", acknowledged {acknowledge!r}" if acknowledge else "")
        result = f"begun: {len(shown.steps)} step(s)"
        self._trail.tell(Kind.OPERATION, request.describe(), vcenter=unit.name, who=who, why=why, result=result)
        running = Running(shown)
        greenlet = gevent.Greenlet(self._carry_out, unit, running, who)
        self._running[greenlet] = running
        greenlet.link(lambda ended: self._running.pop(ended, None))
        greenlet.start()
        return running

    def stop(self) -> None:
        """End what runs. What EAM was asked for it goes on with."""
        gevent.killall(list(self._running))

    def greenlets(self) -> dict[str, gevent.Greenlet]:
        """Ours, by name."""
        return {f"operation/{running.preview.request.describe()}": one for one, running in self._running.items()}

    # --- inside -------------------------------------------------------------------------------------------

    @staticmethod
    def _check_consent(shown: Preview, digest: str, acknowledge: str) -> None:
        if digest != shown.digest:
            raise PlanChanged(
                "Nothing was changed: what would be done now is not what was previewed.",
                remedy="Read the new preview, and ask again.",
                preview=shown.plain(),
            )
        if shown.acknowledge and acknowledge != shown.acknowledge:
            given = f"{acknowledge!r} was given" if acknowledge else "it is missing"
            raise NotAcknowledged(
                f"Nothing was changed: this needs the word {shown.acknowledge!r}, and {given}.",
                remedy="Read the preview; then type the word, or give it by --acknowledge.",
            )

    def _check_alone(self, request: Request, unit: Unit) -> None:
        for running in self._running.values():
            other = running.preview
            if other.vcenter == unit.name and other.request.describe() == request.describe():
                raise WrongState(f"Nothing was changed: {request.describe()} is running already.")

    def _carry_out(self, unit: Unit, running: Running, who: str) -> None:
        request, steps = running.preview.request, running.preview.steps
        assert unit.pipeline is not None
        if request.operation is Operation.RESOLVE and request.everything:
            for cluster in unit.pipeline.planner.ledger.open_breakers(self._clock()):
                unit.pipeline.planner.ledger.close_breaker(cluster)
        carrier = Carrier(unit.pipeline, unit.gate, self._clock, self._log, patient=request.everything)
        done = 0
        try:
            if request.operation in _IN_ANY_ORDER:
                pool = Pool(AT_ONCE)
                try:
                    for good in pool.imap_unordered(
                        lambda numbered: self._step(carrier, running, who, *numbered), enumerate(steps)
                    ):
                        done += good
                finally:
                    pool.kill()
            else:
                for number, step in enumerate(steps):
                    if not self._step(carrier, running, who, number, step):
                        break  # the next ones build on it
                    done += 1
        finally:
            failed = len(steps) - done
            running.failed = failed
            unit.tally.steps[request.operation.value, "done"] += done
            unit.tally.steps[request.operation.value, "failed"] += failed
            self._audit.warning("%s: %r ended, %d step(s) done, %d not.", who, request.describe(), done, failed)
            self._trail.tell(
                Kind.OPERATION,
                request.describe(),
                vcenter=unit.name,
                who=who,
                result=f"ended: {done} step(s) done, {failed} not",
            )
            running.tell("end", ok=not failed, done=done, failed=failed)

    def _step(self, carrier: Carrier, running: Running, who: str, number: int, step: Step) -> bool:
        about = {"number": number + 1, "of": len(running.preview.steps), "target": step.target, "text": step.text}

        def trail(result: str) -> None:
            host = getattr(step.do, "host", "")
            why = running.preview.request.describe()
            vcenter = running.preview.vcenter
            self._trail.tell(
                Kind.ACTION, step.text, vcenter=vcenter, host=host, name=step.target, who=who, why=why, result=result
            )

        def tell(line: str, *, progress: tuple[int, int] | None = None, stays: bool = False) -> None:
            counted = {"progress": progress} if progress is not None else {}
            running.tell(
                "step", **about, outcome="running", detail=line, **counted, **({"stays": True} if stays else {})
            )

        running.tell("step", **about, outcome="begun", detail="")
        try:
            came_of_it = carrier.do(step, tell)
        except PluginError as exc:
            self._log.warning("%s: %s: %s", step.target, step.text, exc)
            trail(f"failed: {exc}")
            running.tell("step", **about, outcome="failed", detail=str(exc))
            return False
        except Exception as exc:  # noqa: BLE001 - a bug in one step must be told to whoever waits, and not end the others
            self._log.exception("%s: %s: ended unexpectedly.", step.target, step.text)
            trail(f"failed unexpectedly: {type(exc).__name__}")
            running.tell("step", **about, outcome="failed", detail=f"unexpected: {type(exc).__name__}; see the log")
            return False
        self._log.info("%s: %s: %s", step.target, step.text, came_of_it)
        trail(f"done: {came_of_it}")
        running.done += 1
        running.tell("step", **about, outcome="done", detail=came_of_it)
        return True

    # --- which vCenter ------------------------------------------------------------------------------------

    def _unit_for(self, request: Request) -> Unit:
        if request.vcenter:
            return self._named(request.vcenter)
        if len(self._units) == 1:
            return self._units[0]
        if not request.target:
            raise UnknownTarget(
                f"Which vCenter is meant? There are: {', '.join(unit.name for unit in self._units)}.",
                remedy="Name one by --vcenter.",
            )
        knowing, errors = [], []
        for unit in self._units:
            try:
                self._preview(unit, request)
            except UnknownTarget as exc:
                errors.append(exc)
                continue
            except PluginError:
                pass  # it knows the target, and will say itself why not
            knowing.append(unit)
        if not knowing:
            raise UnknownTarget(" ".join(exc.message for exc in errors))
        if len(knowing) > 1:
            raise UnknownTarget(
                f"{request.target!r} may be in any of: {', '.join(unit.name for unit in knowing)}.",
                remedy="Name the vCenter by --vcenter.",
            )
        return knowing[0]

    def _named(self, name: str) -> Unit:
        for unit in self._units:
            if unit.name == name:
                return unit
        names = candidates(name, (unit.name for unit in self._units))
        raise UnknownTarget(f"No vCenter is called {name!r}; there are: {names}.")

    def _preview(self, unit: Unit, request: Request) -> Preview:
        pipeline = _pipeline_of(unit)
        planner, workers = pipeline.planner, pipeline.workers
        return preview(
            request,
            Sight(
                unit.name,
                pipeline.fleet,
                planner.desired,
                plans=workers.plan() if request.operation is Operation.APPLY else {},
                stopped=planner.ledger.open_breakers(self._clock()),
                package=workers.actor.package.url() if request.operation is Operation.UPGRADE else "",
                upgrade=planner.upgrade,
                may_mark=planner.may_mark,
            ),
        )

    def _plans_known(self, units: Sequence[Unit]) -> list[dict[str, Any]]:
        plans = []
        for unit in units:
            try:
                plans.append(self._preview(unit, Request(operation=Operation.APPLY, vcenter=unit.name)).plain())
            except PluginError as exc:
                self._log.info("%s: no plan yet: %s", unit.name, exc)
        return plans


def _pipeline_of(unit: Unit) -> Pipeline:
    if unit.pipeline is None:
        why = "; ".join(alarm.text for alarm in unit.alarms) or "it is being connected to."
        raise Unavailable(f"{unit.name}: vCenter is not connected: {why}")
    return unit.pipeline
