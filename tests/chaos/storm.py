# SPDX-License-Identifier: Apache-2.0
"""The inventory storm: what administrators and failures do to a vCenter, by seed, while the rest breaks.

It remembers nothing: each step looks at the truth and does something that a host in that condition may meet.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent

from tests.support.processes import Refused, SimulatorProcess

PAUSE = (0.1, 0.8)
"""Seconds between two steps: some fall together, some leave time for what follows."""

FEWEST, MOST = 3, 7
"""Hosts: enough to break one and look at the others, and few enough for a machine with two cores."""

Truth = dict[str, Any]


class Storm:
    """``look`` gives the newest truths by host (moref), those of hosts that are gone included."""

    def __init__(
        self, simulator: SimulatorProcess, look: Callable[[], dict[str, Truth]], chance: random.Random
    ) -> None:
        self._simulator = simulator
        self._look = look
        self._chance = chance
        self.steps = 0

    def run(self) -> None:
        """The body of a greenlet: goes on until it is killed."""
        while True:
            self.step()
            gevent.sleep(self._chance.uniform(*PAUSE))

    def step(self) -> None:
        """Do one thing. What a vCenter refuses, because something else came first, was not done."""
        there = [truth for _, truth in sorted(self._look().items()) if truth["present"]]
        if len(there) < FEWEST or (len(there) < MOST and self._chance.random() < 0.1):
            verb, arguments = "add_host", {"cluster": self._chance.choice(("ClusterA", "ClusterB"))}
        else:
            verb, arguments = self._to(self._chance.choice(there), len(there))
        with suppress(Refused):
            self._simulator.do(verb, **arguments)
            self.steps += 1

    def calm(self) -> None:
        """Bring back every host that is away: one that stays away tells nothing more."""
        for host, truth in sorted(self._look().items()):
            if truth["present"] and (truth["connection"] != "connected" or truth["power"] != "poweredOn"):
                with suppress(Refused):
                    self._simulator.do(_back(truth), host=host)

    def _to(self, truth: Truth, hosts: int) -> tuple[str, dict[str, Any]]:
        host, vm = str(truth["host"]), truth["vm"]
        if truth["power"] != "poweredOn" or truth["connection"] != "connected":
            return _back(truth), {"host": host}
        if truth["maintenance"] == "in" and self._chance.random() < 0.6:
            return "exit_maintenance", {"host": host}
        verbs = {"enter_maintenance": 4, "reboot": 1, "crash": 1, "disconnect": 1, "not_responding": 1}
        verbs |= {"enter_standby": 1, "move_host": 1}
        if hosts > FEWEST:
            verbs["remove_host"] = 2
        if vm is not None:
            verbs |= {"power_off": 5, "suspend": 2, "destroy": 3}
        (verb,) = self._chance.choices(tuple(verbs), tuple(verbs.values()))
        if verb in ("power_off", "suspend", "destroy"):
            return verb, {"vm": vm}
        if verb == "move_host":
            return verb, {"host": host, "cluster": self._chance.choice(("ClusterA", "ClusterB"))}
        return verb, {"host": host}


def _back(truth: Truth) -> str:
    """What brings such a host back."""
    if truth["standby"] != "none" or truth["power"] == "standBy":
        return "wake"
    return "recover" if truth["power"] != "poweredOn" else "reconnect"
