# SPDX-License-Identifier: Apache-2.0
"""The inventory storm: what administrators and failures do to a vCenter, by seed, while the rest breaks.

It remembers nothing: each step looks at the truth and does something that a host in that condition may meet.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gevent.event import Event

from tests.support.processes import Refused, SimulatorProcess

PAUSE = (0.1, 0.8)
"""Seconds between two steps: some fall together, some leave time for what follows."""

FEWEST, MOST = 3, 7
"""Hosts: enough to break one and look at the others, and few enough for a machine with two cores."""

CLUSTERS = ("ClusterA", "ClusterB")

OF_HOSTS = {
    "enter_maintenance": 5,
    "reboot": 1,
    "crash": 1,
    "disconnect": 1,
    "not_responding": 1,
    "enter_standby": 1,
    "move_host": 1,
    "remove_host": 1,
}
OF_VMS = {"power_off": 6, "suspend": 2, "destroy": 3}
"""How often what befalls a host that is there, or its ContrailVM, beside each other."""

Truth = dict[str, Any]


class Storm:
    """``look`` gives the newest truths by host (moref), those of hosts that are gone included."""

    def __init__(
        self, simulator: SimulatorProcess, look: Callable[[], dict[str, Truth]], chance: random.Random
    ) -> None:
        self._simulator = simulator
        self._look = look
        self._chance = chance
        self._stopping = Event()
        self.steps = 0

    def run(self) -> None:
        """The body of a greenlet: goes on until :meth:`stop`. Killed, it would leave a socket behind."""
        while not self._stopping.wait(self._chance.uniform(*PAUSE)):
            self.step()

    def stop(self) -> None:
        """Whatever it does now is the last."""
        self._stopping.set()

    def step(self) -> None:
        """Do one thing. What a vCenter refuses, because something else came first, was not done."""
        there = [truth for _, truth in sorted(self._look().items()) if truth["present"]]
        if len(there) < FEWEST or (len(there) < MOST and self._chance.random() < 0.1):
            self._do("add_host", cluster=self._chance.choice(CLUSTERS))
            return
        truth = self._chance.choice(there)
        if is_away(truth):
            self._bring_back(truth)
        else:
            self._trouble(truth, may_go=len(there) > FEWEST)

    def calm(self) -> None:
        """Bring back every host that is away: one that stays away tells nothing more."""
        for _, truth in sorted(self._look().items()):
            if truth["present"] and is_away(truth):
                self._bring_back(truth)

    def _trouble(self, truth: Truth, *, may_go: bool) -> None:
        """To a host that is there."""
        host, vm = str(truth["host"]), truth["vm"]
        verbs = dict(OF_HOSTS)
        if truth["maintenance"] == "in":
            verbs["exit_maintenance"] = 20
        if not may_go:
            del verbs["remove_host"]
        if vm is not None and truth["maintenance"] is None:
            verbs |= OF_VMS
        (verb,) = self._chance.choices(tuple(verbs), tuple(verbs.values()))
        if verb in OF_VMS:
            self._do(verb, vm=vm)
        elif verb == "move_host":
            self._do(verb, host=host, cluster=self._chance.choice(CLUSTERS))
        else:
            self._do(verb, host=host)

    def _bring_back(self, truth: Truth) -> None:
        if truth["standby"] != "none" or truth["power"] == "standBy":
            self._do("wake", host=truth["host"])
            return
        # As seen from vCenter a machine that crashed and one that is out of reach are alike.
        self._do("recover", host=truth["host"])
        self._do("reconnect", host=truth["host"])

    def _do(self, verb: str, **arguments: Any) -> None:
        with suppress(Refused):
            self._simulator.do(verb, **arguments)
            self.steps += 1


def is_away(truth: Truth) -> bool:
    """Whether vCenter has no running host there."""
    return bool(truth["connection"] != "connected" or truth["power"] != "poweredOn" or truth["standby"] != "none")
