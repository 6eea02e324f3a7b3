# SPDX-License-Identifier: Apache-2.0
"""Health-gated availability: a ContrailVM that was powered on is marked as available once its vRouter answers.

While it is held, DRS keeps tenant VMs off the host. The vRouter is probed only while held; afterwards the guest
heartbeat tells. A deadline keeps a vRouter that never comes from holding its host for ever: after a blackout the
controllers that it needs may themselves be tenants waiting for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PROBE_SECONDS = 3.0
"""Between two probes of a held ContrailVM; a vRouter agent takes tens of seconds to come up."""
NOT_INSTALLED = "vRouter not installed"
"""The guest runs, and nothing answers where the vRouter agent's introspect would be."""


class OnDeadline(StrEnum):
    """What happens to a ContrailVM that is not healthy in time."""

    RELEASE = "release"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class HealthRules:
    """``deadline`` in seconds from the moment in which the hold was first seen."""

    gate: bool = False
    deadline: float = 600.0
    on_deadline: OnDeadline = OnDeadline.RELEASE


class Step(StrEnum):
    """What to do about a held ContrailVM."""

    WAIT = "wait"
    PROBE = "probe"
    MARK = "mark"
    RELEASE = "release"
    """Mark it although it is not healthy, and say so."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``again_at`` (monotonic) is when to ask again; ``reason`` what is waited for."""

    step: Step
    reason: str = ""
    again_at: float | None = None


@dataclass(slots=True)
class _Held:
    vm: str
    since: float
    probed_at: float = float("-inf")
    healthy: bool = False
    reason: str = "powered on; the vRouter has not been asked yet"


class HealthGate:
    """Remembers what is held and what its probes said. Pure: time and probes are handed in."""

    def __init__(self, rules: HealthRules) -> None:
        self.rules = rules
        self._held: dict[str, _Held] = {}

    def judge(self, host: str, vm: str, ip: str | None, now: float) -> Verdict:
        """What to do about the ContrailVM ``vm`` that is held after power-on on this host."""
        if not self.rules.gate:
            return Verdict(Step.MARK)
        held = self._held.get(host)
        if held is None or held.vm != vm:
            held = self._held[host] = _Held(vm, now)
        if held.healthy:
            return Verdict(Step.MARK)
        late = now - held.since >= self.rules.deadline
        if late and self.rules.on_deadline is OnDeadline.RELEASE:
            return Verdict(Step.RELEASE, f"released after {self.rules.deadline:g} s without health: {held.reason}")
        if ip is None:
            return Verdict(Step.WAIT, "powered on; the guest has no address yet", now + PROBE_SECONDS)
        if now - held.probed_at >= PROBE_SECONDS:
            return Verdict(Step.PROBE, held.reason, now + PROBE_SECONDS)
        return Verdict(Step.WAIT, held.reason, held.probed_at + PROBE_SECONDS)

    def probed(self, host: str, vm: str, *, healthy: bool, reason: str, now: float) -> None:
        """What a probe of a held ContrailVM said."""
        held = self._held.get(host)
        if held is not None and held.vm == vm:
            held.probed_at, held.healthy, held.reason = now, healthy, reason

    def over(self, host: str) -> None:
        """Nothing is held on this host (any more): the next power-on is judged anew."""
        self._held.pop(host, None)
