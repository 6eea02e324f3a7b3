# SPDX-License-Identifier: Apache-2.0
"""Which agents to read in this poll.

EAM has no change stream, so its runtime is polled; but reading every agent of a large fleet each time would
cost a call per host. One call, the agency's runtime, carries all issues; beside it only those agents are
read whose word may have changed. *Colour never decides what to read*: hooks stand only in an agent's own
runtime, and one host in maintenance keeps the whole agency red.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, field

from vcenter_eam_plugin.domain.facts import AgentFacts, EamStatus
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.status import ContrailVm, State

SWEEP_SECONDS = 600.0
"""Everybody is read once in this time, so that whatever no rule foresees is healed within ten minutes."""
STEADY_RED_SECONDS = 300.0
"""A red agent whose issues do not change is read at growing intervals up to this, unless it is rightly red."""
MEMBERSHIP_SECONDS = 60.0
"""``QueryAgent`` at least this often; at once when the inventory or an event says that membership may have changed."""

_RIGHTLY_RED = (State.MAINTENANCE, State.STANDBY)
"""Red as it should be: nothing happens there before the host changes, and that the inventory tells."""
_WORKING = (State.DEPLOYING, State.PROVISIONED, State.STARTING, State.REMOVING, State.PENDING)


@dataclass(slots=True)
class PollSchedule:
    """Remembers per agent what a poll needs beyond the facts. Times are monotonic seconds, ``poll`` the interval."""

    poll: float
    _hinted: set[str] = field(default_factory=set)
    _steady_red_since: dict[str, tuple[frozenset[str], float]] = field(default_factory=dict)
    _membership_at: float = float("-inf")
    _membership_hinted: bool = True
    _read_all: bool = True
    _missed_at: float = float("-inf")

    def hint_host(self, host: str) -> None:
        """Something happened on this host: read its agent in the next poll."""
        self._hinted.add(host)

    def hint_membership(self) -> None:
        """A host came, went or moved, or EAM says that an agent did."""
        self._membership_hinted = True

    def hint_everything(self) -> None:
        """After a gap nothing is known to be unchanged."""
        self._read_all = self._membership_hinted = True

    def hint_missed(self, at: float) -> None:
        """Hints were missed until ``at``: whoever was read before then may have changed since."""
        self._missed_at, self._membership_hinted = at, True

    def membership_due(self, now: float) -> bool:
        return self._membership_hinted or now - self._membership_at >= MEMBERSHIP_SECONDS

    def membership_read(self, now: float) -> None:
        self._membership_at, self._membership_hinted = now, False

    def take_hints(self, fleet: Fleet) -> tuple[str, ...]:
        """Agents on hosts that were hinted at since; they are read before others."""
        hinted, self._hinted = self._hinted, set()
        return tuple(
            sorted(
                m for m in fleet.members or () if (agent := fleet.agents.get(m)) is not None and agent.host in hinted
            )
        )

    def choose(self, fleet: Fleet, now: float) -> tuple[str, ...]:
        """Morefs of the agents to read now; takes the hints."""
        hinted, self._hinted = self._hinted, set()
        everything, self._read_all = self._read_all, False
        issues_of: defaultdict[str, set[str]] = defaultdict(set)
        for issue in fleet.agency.issues if fleet.agency else ():
            if issue.agent is not None:
                issues_of[issue.agent].add(issue.type)
        chosen = []
        for moref in fleet.members or ():
            agent = fleet.agents.get(moref)
            if agent is None or everything or agent.host in hinted or agent.read_began <= self._missed_at:
                chosen.append(moref)
                continue
            types = frozenset(issue.type for issue in agent.issues)
            reported = frozenset(issues_of.get(moref, ()))
            status = fleet.status(agent.host) if agent.host else None
            if (
                agent.hook is not None
                or agent.status is EamStatus.YELLOW
                # An agent that was read after the agency knows better.
                or (types != reported and agent.read_began < fleet.agency_read_began)
                or not fleet.is_settled(agent)
                or (status is not None and status.state in _WORKING)
                or now - agent.read_began >= self._interval(moref, types, _is_trouble(agent, status), now)
            ):
                chosen.append(moref)
        for moref in self._steady_red_since.keys() - (fleet.members or frozenset()):
            del self._steady_red_since[moref]
        return tuple(sorted(chosen))

    def _interval(self, moref: str, types: frozenset[str], trouble: bool, now: float) -> float:
        if not trouble:
            self._steady_red_since.pop(moref, None)
            # Spread the sweep, or all agents of a cold start would fall due in one poll for ever.
            return SWEEP_SECONDS * (0.5 + 0.5 * (zlib.crc32(moref.encode()) % 1000) / 1000)
        known = self._steady_red_since.get(moref)
        if known is None or known[0] != types:
            self._steady_red_since[moref] = known = (types, now)
        return min(max(self.poll, (now - known[1]) / 2), STEADY_RED_SECONDS)


def _is_trouble(agent: AgentFacts, status: ContrailVm | None) -> bool:
    return agent.status is EamStatus.RED and (status is None or status.state not in _RIGHTLY_RED)
