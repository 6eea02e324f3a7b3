# SPDX-License-Identifier: Apache-2.0
"""Campaigns with one kind of fault, often: fail-points, pauses of the leader, orderly ends and kills of it.

Each is the ``campaign`` of :func:`tests.chaos.run.run`: a storm blows meanwhile, and all is whole afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from tests.chaos.installation import SESSION_TIMEOUT
from tests.chaos.instance import PluginInstance
from tests.chaos.nemeses import nemeses
from tests.chaos.run import TakeOver, Trial
from tests.support.rabbit import wait_for

STRIKES_WITHIN = 30.0
"""Seconds for a fail-point to be reached; a storm brings it within a few."""

LINK_FAULTS = (
    "broker-kill",
    "broker-hang",
    "proxy-cut",
    "proxy-half-open",
    "proxy-swallow",
    "proxy-drop",
)
"""What can come between a message and its confirm."""

BREAKS_FOR = (0.3, 1.5)
"""Seconds of storm while the link is broken."""

SETTLES_FOR = (2.0, 4.0)
"""Seconds without it until the link is healed: repairs come to an end, so that nothing new is told afterwards."""

MOST_VISITS = 5
"""A fail-point strikes at one of its first so many visits; plans come slowest, one per repair."""

TAKES_OVER_WITHIN = 30.0
"""Seconds until the rig gives up; what is promised is asserted over the figures."""

PAUSE = (1.2, 2.0)
"""Of the session's time-out: long enough that another leads when the paused one comes back."""

BETWEEN = (0.2, 2.0)
"""Seconds between two faults, so that they fall into any moment of what the storm brings."""


def failpoint(point: str) -> Callable[[Trial], None]:
    """The leader dies at ``point``, at one of its first visits there, and is started again."""

    def campaign(trial: Trial) -> None:
        leader = trial.here.wait_for_leader()
        leader.kill()
        began = time.monotonic()
        leader.start(f"{point}:kill:{trial.chance.randint(1, MOST_VISITS)}")
        wait_for(lambda: not leader.running, STRIKES_WITHIN, f"the daemon came to {point}")
        leader.start()
        trial.note("failpoint", point, began)
        assert leader.past[-1].how == "failpoint", leader.past[-1]

    return campaign


def broken_link(kind: str) -> Callable[[Trial], None]:
    """The way to the broker, or the broker, breaks by ``kind`` while there is something to tell; the storm ends first.

    So what was told into the void is the last that was true, and nobody tells it anew: no new lead, no snapshot.
    """

    def campaign(trial: Trial) -> None:
        leader = trial.here.wait_for_leader()
        links = ("broker", f"{leader.name}-broker")
        (nemesis,) = [each for each in nemeses(trial.here) if each.kind == kind and each.resource in links]
        gevent.sleep(trial.chance.uniform(*BETWEEN))
        began = time.monotonic()
        nemesis.inject(trial.chance)
        try:
            gevent.sleep(trial.chance.uniform(*BREAKS_FOR))
            trial.storm.stop()
            trial.storm.calm()
            gevent.sleep(trial.chance.uniform(*SETTLES_FOR))
        finally:
            nemesis.heal()
        trial.note(kind, nemesis.target, began)

    return campaign


def pauses(count: int, tell: Callable[[str], object]) -> Callable[[Trial], None]:
    """The leader is frozen for longer than its session lives, ``count`` times, at moments of chance."""

    def campaign(trial: Trial) -> None:
        for number in range(1, count + 1):
            leader = _leader_at_a_moment_of_chance(trial)
            began = time.monotonic()
            leader.freeze()
            until = began + trial.chance.uniform(*PAUSE) * SESSION_TIMEOUT
            _note_take_over(trial, "pause", leader, began)
            gevent.sleep(max(until - time.monotonic(), 0.0))
            leader.thaw()
            trial.note("plugin-pause", leader.name, began)
            tell(f"pause {number}: {leader.name}, taken over after {trial.take_overs[-1].seconds:.2f} s")
            wait_for(lambda one=leader: not one.leads, TAKES_OVER_WITHIN, "the paused one noticed")  # type: ignore[misc]

    return campaign


def ends(count: int, tell: Callable[[str], object]) -> Callable[[Trial], None]:
    """The leader is stopped in order, then the next one killed, ``count`` times; each is started again."""

    def campaign(trial: Trial) -> None:
        for _ in range(count):
            for cause in ("stop", "kill"):
                leader = _leader_at_a_moment_of_chance(trial)
                began = time.monotonic()
                ending = gevent.spawn(leader.stop if cause == "stop" else leader.kill)
                _note_take_over(trial, cause, leader, began)
                ending.get()
                leader.start()
                trial.note(f"plugin-{cause}", leader.name, began)
                tell(f"{cause}: {leader.name}, taken over after {trial.take_overs[-1].seconds:.2f} s")

    return campaign


def _leader_at_a_moment_of_chance(trial: Trial) -> PluginInstance:
    """Once the others stand by, too: a take-over needs somebody who is ready."""
    here = trial.here
    here.wait_for_leader()
    wait_for(lambda: all(one.connected for one in here.instances.values()), 60.0, "the others stand by")
    gevent.sleep(trial.chance.uniform(*BETWEEN))
    return here.wait_for_leader()


def _note_take_over(trial: Trial, cause: str, former: PluginInstance, began: float) -> None:
    def next_lead() -> float | None:
        later = [t.began for t in trial.here.terms() if t.began >= began and t.instance != former.name]
        return min(later, default=None)

    wait_for(lambda: next_lead() is not None, TAKES_OVER_WITHIN, "another leads")
    taken = next_lead()
    assert taken is not None
    trial.take_overs.append(TakeOver(cause, taken - began))
