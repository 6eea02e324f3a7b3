# SPDX-License-Identifier: Apache-2.0
"""Looks whether DRS, DPM, HA and EAM keep their rules for ContrailVMs, and has what is broken published.

The rules are in :mod:`vcenter_eam_plugin.domain.violations`; here is when to look, and the two reads on demand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gevent.event import Event

from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.status import ContrailVm
from vcenter_eam_plugin.domain.violations import RuleWatch, Times, broken_rules
from vcenter_eam_plugin.turns import Turns
from vcenter_eam_plugin.vsphere.session import Session
from vcenter_eam_plugin.vsphere.tenants import read_slots, read_tenants

LOOK_SECONDS = 2.0
"""Between two looks. Each costs one read if some ContrailVM is down, and none otherwise."""
SETTLE = 0.1
"""Seconds that a look waits once woken: what belongs together comes in several updates."""


class RuleWatcher:
    """``publish`` takes the statuses that a broken rule changed."""

    def __init__(
        self,
        session: Session,
        fleet: Fleet,
        *,
        publish: Callable[[Sequence[ContrailVm]], None],
        times: Times,
        slots_seconds: float,
        clock: Callable[[], float],
        stopping: Event,
        log: logging.Logger,
    ) -> None:
        self._session = session
        self._fleet = fleet
        self._publish = publish
        self._clock = clock
        self._stopping = stopping
        self._log = log
        self._watch = RuleWatch(times)
        self._slots_seconds = slots_seconds
        self._now = Event()
        self._slots_at = float("-inf")

    def observe(self, host: str, now: float) -> None:
        """A host or its ContrailVM may have changed."""
        self._watch.observe(self._fleet, host, now)
        sight = self._watch.sight(self._fleet, host, now)
        if sight is not None and (sight.is_down or sight.is_elsewhere or self._fleet.violations(host)):
            # Now, and not at the next look: a rule may be broken for a second only, and is over as soon.
            self._now.set()

    def wake(self) -> None:
        """Look now; also how a stop is noticed at once."""
        self._now.set()

    def run(self) -> None:
        """A greenlet's body; returns when stopping."""
        while not self._stopping.is_set():
            if self._now.wait(LOOK_SECONDS):
                self._stopping.wait(SETTLE)
                self._now.clear()
            if not self._fleet.given_out:
                continue
            try:
                self._read()
            except PluginError as exc:
                # What was read before stays: a rule is not kept because it could not be looked at.
                self._log.info("Rules could not be looked at: %s", exc)
            self.look()

    def look(self) -> None:
        """Judge every host that is not at rest by what is known now, and publish what is new."""
        turns = Turns()
        for host in self._watch.restless():
            turns.give()
            sight = self._watch.sight(self._fleet, host, self._clock())
            if sight is None:
                continue
            found = broken_rules(sight)
            self._watch.judged(sight, found)
            changed = self._fleet.set_violations(host, found)
            if changed:
                for violation in found:
                    self._log.error("%s: %s (%s).", sight.host.name, violation.text, violation.name)
                self._publish(changed)

    def _hosts_to_read(self) -> tuple[str, ...]:
        turns = Turns()
        hosts = []
        for host in sorted(self._watch.restless()):
            turns.give()
            if self._watch.is_to_be_read(self._fleet, host):
                hosts.append(host)
        return tuple(hosts)

    def _read(self) -> None:
        for host, tenants in read_tenants(self._session, self._hosts_to_read()).items():
            self._watch.tenants_read(host, tenants)
        now = self._clock()
        if now - self._slots_at >= self._slots_seconds:
            clusters = [c.moref for c in self._fleet.compute_resources.values() if c.is_cluster]
            self._watch.slots_read(self._fleet, read_slots(self._session, clusters))
            self._slots_at = now
