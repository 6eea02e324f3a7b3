# SPDX-License-Identifier: Apache-2.0
"""One run: faults during a storm, all healed, the wait for convergence, and the record of it.

A run leaves the installation whole: every server up, every daemon running, no fault on. So several runs share one.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore

from tests.chaos import checkers
from tests.chaos.installation import SESSION_TIMEOUT, Hold, Installation
from tests.chaos.nemeses import nemeses
from tests.chaos.records import Fault, Record
from tests.chaos.schedule import Planned, make_schedule
from tests.chaos.storm import Storm
from vcenter_eam_plugin.pipeline import WORKERS

CONVERGES_WITHIN = 30.0
"""Seconds, the promise: after the last fault is healed, what was published equals the truth."""

QUIET = 2.0
"""Seconds for which all must be told and nothing new be true, until a run is over: EAM repairs in steps."""

LOOK = 0.1


@dataclass(frozen=True, slots=True)
class TakeOver:
    """``cause`` is ``pause``, ``kill`` or ``stop``; ``seconds`` from it to the other's lead."""

    cause: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """``convergence``: seconds from the last healing until all was told, for good. ``holds``: when a
    daemon's event loop was held, but for pauses by a nemesis. ``stimuli``: what the storm did."""

    record: Record
    convergence: float
    holds: tuple[Hold, ...]
    stimuli: int
    take_overs: tuple[TakeOver, ...] = ()


@dataclass
class Trial:
    """A run under way: what a campaign notes down while the storm blows."""

    here: Installation
    chance: random.Random
    storm: Storm
    faults: list[Fault] = field(default_factory=list)
    take_overs: list[TakeOver] = field(default_factory=list)
    locks: defaultdict[str, BoundedSemaphore] = field(default_factory=lambda: defaultdict(BoundedSemaphore))

    def note(self, kind: str, target: str, began: float) -> None:
        """A fault that is healed now."""
        self.faults.append(Fault(kind, target, began, time.monotonic()))


def run(here: Installation, seed: int, campaign: Callable[[Trial], object]) -> Run:
    """The storm blows while ``campaign`` does its work, which leaves nothing broken."""
    chance = random.Random(seed)
    began = time.monotonic()

    def look() -> dict[str, dict[str, Any]]:
        here.look()
        return here.truths

    storm = Storm(here.simulator, look, random.Random(chance.getrandbits(32)))
    trial = Trial(here, chance, storm)
    with _blowing(storm):
        campaign(trial)
    storm.calm()
    healed = time.monotonic()
    convergence = _wait_for_convergence(here, healed)
    ended = time.monotonic()
    here.look()
    record = Record(
        seed=seed,
        began=began,
        healed=healed,
        ended=ended,
        session_timeout=SESSION_TIMEOUT,
        workers=WORKERS,
        journal=tuple(here.journal),
        messages=tuple(here.recorder.messages),
        applied=tuple(here.applied),
        instances=here.lives(),
        terms=here.terms(),
        faults=tuple(sorted(trial.faults, key=lambda fault: fault.began)),
    )
    return Run(record, convergence, tuple(_holds(here, record)), storm.steps, tuple(trial.take_overs))


def chaos(seconds: float, tell: Callable[[str], object]) -> Callable[[Trial], None]:
    """The campaign of faults by seed: they begin within ``seconds``. ``tell`` gets each as a line when it strikes."""

    def campaign(trial: Trial) -> None:
        schedule = make_schedule(nemeses(trial.here), seconds, trial.chance)
        began = time.monotonic()
        # Often before the last fault is healed: then what happened last is what must be told through it.
        calm = gevent.spawn_later(trial.chance.uniform(0.3, 1.5) * seconds, trial.storm.stop)
        striking = [gevent.spawn(_strike, trial, each, began, tell) for each in schedule]
        gevent.joinall(striking)
        calm.kill()
        for one in striking:
            one.get()  # what could not be injected or healed is the rig's own failure

    return campaign


def _strike(trial: Trial, planned: Planned, began: float, tell: Callable[[str], object]) -> None:
    nemesis = planned.nemesis
    gevent.sleep(max(began + planned.at - time.monotonic(), 0.0))
    # A healing may take longer than was planned (a broker starts): the next of its kind waits for it.
    with trial.locks[nemesis.resource]:
        struck = time.monotonic()
        tell(str(planned))
        try:
            nemesis.inject(random.Random(planned.dice))
            gevent.sleep(planned.seconds)
        finally:
            nemesis.heal()
        trial.note(nemesis.kind, nemesis.target, struck)


@contextmanager
def _blowing(storm: Storm) -> Iterator[None]:
    blowing = gevent.spawn(storm.run)
    try:
        yield
    finally:
        storm.stop()
        blowing.join()
    blowing.get()  # a storm that died is the rig's own failure


def _wait_for_convergence(here: Installation, healed: float) -> float:
    """Seconds from ``healed`` until all was told, and nothing more became true; bounded by what is promised."""
    told_since: float | None = None
    quiet_since, seen = healed, (0, 0)
    while True:
        here.look()
        now = time.monotonic()
        if (state := (len(here.journal), len(here.recorder.messages))) != seen:
            quiet_since, seen = now, state
        if checkers.unconverged(here.journal, here.recorder.messages):
            told_since = None
        elif told_since is None:
            told_since = now
        if told_since is not None and now - max(told_since, quiet_since) >= QUIET:
            return told_since - healed
        if now - healed > CONVERGES_WITHIN:
            return (told_since if told_since is not None else now) - healed
        gevent.sleep(LOOK)


def _holds(here: Installation, record: Record) -> list[Hold]:
    """Those of this run, but for the pauses by a nemesis."""
    frozen = [fault for fault in record.faults if fault.kind == "plugin-pause"]
    return [
        hold
        for hold in here.holds()
        if hold.at >= record.began
        and not any(
            f.target == hold.instance and hold.at < f.ended and f.began < hold.at + hold.seconds for f in frozen
        )
    ]
