# SPDX-License-Identifier: Apache-2.0
"""Takes keys from the work queue, plans each anew, and has the actor carry the plan out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from gevent.lock import BoundedSemaphore

from vcenter_eam_plugin import failpoints
from vcenter_eam_plugin.actor import Actor
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.audit import Kind, Tell, untold
from vcenter_eam_plugin.backoff import Backoff
from vcenter_eam_plugin.domain.actions import Action, Probe
from vcenter_eam_plugin.domain.errors import ObjectGone, PluginError, WrongState
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.operations import describe
from vcenter_eam_plugin.domain.planner import Plan, Planner
from vcenter_eam_plugin.gate import Gate
from vcenter_eam_plugin.tally import Tally
from vcenter_eam_plugin.turns import Turns
from vcenter_eam_plugin.workqueue import WorkQueue

AGENCY_KEY = "agency"
"""The key of the agency itself; the others are host morefs."""
REFUSED_RETRY = 30.0
"""Seconds before something that a person must mend is tried again."""
SAME_AGAIN = 2.0
"""Seconds before what was done, and is wanted still, is done again: EAM takes its time to show an effect, and each read
that does not show it yet comes back here at once."""


class Workers:
    """``run`` is the body of each worker greenlet. ``agency_refused`` is told why there will be no agency."""

    def __init__(
        self,
        queue: WorkQueue,
        fleet: Fleet,
        planner: Planner,
        actor: Actor,
        gate: Gate,
        *,
        agency_refused: Callable[[str], None],
        read_soon: Callable[[str | None], None],
        clock: Callable[[], float],
        alarms: Alarms,
        log: logging.Logger,
        tally: Tally | None = None,
        tell: Tell = untold,
    ) -> None:
        self.queue = queue
        self._fleet = fleet
        self._planner = planner
        self.actor = actor
        self._gate = gate
        self._agency_refused = agency_refused
        self._read_soon = read_soon
        self._clock = clock
        self._alarms = alarms
        self._log = log
        self._tally = tally or Tally()
        self._tell = tell
        self._failures: dict[str, tuple[str, str]] = {}
        """What was told last of a key that does not succeed: the same again is told once."""
        self._backoff: dict[str, Backoff] = {}
        self._not_before: dict[str, float] = {}
        self._done: dict[str, tuple[tuple[Action, ...], float]] = {}
        self._turns: WeakValueDictionary[str, BoundedSemaphore] = WeakValueDictionary()
        self.waiting: dict[str, tuple[str, ...]] = {}
        """Why something is not done, by key."""

    def look_at_everything(self) -> None:
        """Mode or leadership changed: what was only planned may be done now."""
        self.queue.add(AGENCY_KEY)
        for host in tuple(self._fleet.hosts):
            self.queue.add(host)

    def look_at_waiting(self, clusters: set[str]) -> None:
        """A repair in these clusters (morefs) came to an end: the next may begin."""
        for key in tuple(self.waiting):
            host = self._fleet.hosts.get(key)
            if host is not None and host.compute_resource in clusters:
                self.queue.add(key)

    def plan(self) -> dict[str, Plan]:
        """Everything that would be done now, by key; changes nothing."""
        now, turns = self._clock(), Turns()
        plans: dict[str, Plan] = {}
        for key in (AGENCY_KEY, *sorted(self._fleet.hosts)):
            turns.give()
            plan = self.plan_for(key, now)
            if plan != Plan():
                plans[key] = plan
        return plans

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Keep a key to oneself: what a person asked for and what the planner wants must not be done at once."""
        turn = self._turns.setdefault(key, BoundedSemaphore())
        with turn:
            yield

    def run(self) -> None:
        """Work until the queue is closed."""
        turns = Turns()
        while (key := self.queue.get()) is not None:
            turns.give()  # a queue that holds the whole fleet never waits
            try:
                with self.turn(key):
                    self._work_on(key)
            except PluginError as exc:
                self._after_failure(key, exc)
            finally:
                self.queue.done(key)

    def plan_for(self, key: str, now: float) -> Plan:
        """What would be done about one key now."""
        if key == AGENCY_KEY:
            return self._planner.plan_agency(self._fleet)
        return self._planner.plan_host(self._fleet, key, now)

    def _work_on(self, key: str) -> None:
        now = self._clock()
        plan = self.plan_for(key, now)
        if plan.waiting:
            self.waiting[key] = plan.waiting
        else:
            self.waiting.pop(key, None)
        if plan.again_at is not None:
            self.queue.add_at(key, plan.again_at)
        if not plan.actions:
            self._done.pop(key, None)
            if plan.waiting:
                self._tally.plans["waiting"] += 1
            else:
                self._succeeded(key)
                self._alarms.clear(f"agent-vm-settings:{key}")
            if key not in self._fleet.hosts:
                self._alarms.clear(f"released:{key}")  # of a host that left nobody will say that it is well
            return
        if self._gate.closed():
            self._tally.plans["refused"] += 1
            return
        done, done_at = self._done.get(key, ((), now))
        not_before = max(self._not_before.get(key, now), done_at + SAME_AGAIN if plan.actions == done else now)
        if now < not_before:
            self._tally.plans["postponed"] += 1
            self.queue.add_at(key, not_before)
            return
        failpoints.reach(failpoints.AFTER_PLAN)
        for action in plan.actions:
            self._do(key, action)
        self._tally.plans["carried out"] += 1
        self._done[key] = plan.actions, self._clock()
        self._succeeded(key)

    def _do(self, key: str, action: Action) -> None:
        """Have it done, and tell of it: what, why and what came of it. To ask a vRouter changes nothing: not told."""
        status = self._fleet.status(key)
        about = {
            "host": key if key != AGENCY_KEY else "",
            "name": status.esxi.name if status is not None else "",
            "why": status.reason if status is not None else "",
        }
        text = describe(action, self._fleet)
        try:
            self.actor.do(action)
        except PluginError as exc:
            if self._failures.get(key) != (text, exc.message):
                self._failures[key] = text, exc.message
                self._tell(Kind.ACTION, text, result=f"failed: {exc}", **about)
            raise
        self._failures.pop(key, None)
        if not isinstance(action, Probe):
            self._tell(Kind.ACTION, text, result="done", **about)

    def _succeeded(self, key: str) -> None:
        self._backoff.pop(key, None)
        self._not_before.pop(key, None)
        self._alarms.clear(f"act:{key}")

    def _after_failure(self, key: str, exc: PluginError) -> None:
        """What time can heal is tried again soon and quietly; the rest is an alarm, and tried again later."""
        overtaken = isinstance(exc, WrongState) and bool(self._gate.closed())
        self._tally.plans["refused" if overtaken else "failed"] += 1
        if overtaken:
            self._log.info("%s: %s", key, exc)
            return  # paused, or not leading any more, between plan and write; whoever opens the gate has all looked at
        heals = exc.retry or isinstance(exc, ObjectGone)
        if heals:
            self._log.warning("%s: %s", key, exc)
        else:
            self._alarms.raise_(f"act:{key}", str(exc))
            if key == AGENCY_KEY:
                self._agency_refused(str(exc))
        backoff = self._backoff.setdefault(key, Backoff())
        again = self._clock() + backoff.next(least=0.0 if heals else REFUSED_RETRY)
        self._not_before[key] = again
        self.queue.add_at(key, again)
        self._read_soon(None if key == AGENCY_KEY else key)
        if not self._planner.may_mark:
            self.queue.add(AGENCY_KEY)
