# SPDX-License-Identifier: Apache-2.0
"""Reads EAM's runtime: at once on a hint, else on a timer, because EAM has no change stream.

What to read is decided by :mod:`vcenter_eam_plugin.domain.polling`. Here is the loop, and the care that a list
from EAM needs: one that came from a dead session, or from an EAM that is still loading, names less than there
is, and must not look like a deletion. So what a list leaves out is asked for by itself, and what is said not to
exist is looked for in the list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gevent.event import Event

from vcenter_eam_plugin.agency_memory import AgencyMemory
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.backoff import MOST_UNREAD, Backoff
from vcenter_eam_plugin.domain.errors import (
    AgencyConflict,
    ObjectGone,
    PluginError,
    SilentlyExpired,
    SuspectRead,
)
from vcenter_eam_plugin.domain.facts import AgencyFacts
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.observations import AgencyObserved, Hint, Observation
from vcenter_eam_plugin.domain.ownership import Ownership, owner_of
from vcenter_eam_plugin.domain.polling import PollSchedule
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.vsphere.events import OVERFLOW
from vcenter_eam_plugin.vsphere.session import Session

AGENTS_AT_ONCE = 32
"""Agents per read: what was read reaches the bus before the rest is."""
AGENCY_SECONDS = 1.0
"""The agency's runtime carries the issues of all agents; with many of them it is a large answer."""
HINTS_SETTLE = 0.05
"""Seconds that a woken poll waits for more hints: one change in EAM posts several events."""
AGENCY_ABSENT = 30.0
"""Seconds for which a known agency must stay unseen before it counts as gone: EAM loads agencies after its start."""
SURVEY_SECONDS = 300.0
"""All agencies are read this often, to notice one that took our name; in between ours alone is."""
STALE_AFTER = 60.0
"""Seconds without an answer after which it is an alarm and no longer a hiccup."""
SLOW_SECONDS = 15.0
"""A read that is under way for so long past the interval has made what is known stale, whatever becomes of it."""
OVERFLOW_SECONDS = 20.0
"""When events are missed who was read before is read again, but not more often than this: in a storm each page
overflows, and most agents are read because of what is not missed."""
_MEMBERSHIP_EVENTS = (".agent.created", ".agent.destroyed", ".agency.")


class EamPoll:
    """``observe`` takes what was read, ``follow_vms`` the VMs that EAM names, ``follow_scope`` what is to be watched.

    ``known_before``: an earlier process knew an agency, so that finding none needs a second look too.
    """

    def __init__(
        self,
        session: Session,
        eam: EamClient,
        fleet: Fleet,
        *,
        agency_name: str,
        memory: AgencyMemory,
        interval: float,
        known_before: bool,
        observe: Callable[[Observation], None],
        follow_vms: Callable[[Sequence[str]], None],
        follow_scope: Callable[[Sequence[str]], None],
        clock: Callable[[], float],
        alarms: Alarms,
        log: logging.Logger,
        stopping: Event,
        on_suspect: Callable[[SuspectRead], None] = lambda _: None,
    ) -> None:
        self._session = session
        self._eam = eam
        self._fleet = fleet
        self._agency_name = agency_name
        self._memory = memory
        self._interval = interval
        self._known_before = known_before
        self._observe = observe
        self._follow_vms = follow_vms
        self._follow_scope = follow_scope
        self._clock = clock
        self._alarms = alarms
        self._log = log
        self._stopping = stopping
        self._on_suspect = on_suspect
        self._began_at = clock()
        self._failing = False
        self._missed_at: float | None = None
        self._missed_again_at = float("-inf")
        self._schedule = PollSchedule(interval)
        self._now = Event()
        self._absent_since: float | None = None
        self._destroyed = ""
        self._survey_at = float("-inf")
        self._is_time = True
        """The timer, and no hint, brought this poll about."""
        self._followed: tuple[str, ...] | None = None
        self.read_at: float | None = None
        """When EAM was last read completely (monotonic)."""
        self.last_error: PluginError | None = None
        """Why EAM could not be read last; kept after it could."""

    @property
    def stale_since(self) -> float | None:
        """Since when (monotonic) what is known of EAM's runtime is not current; ``None`` while it is."""
        if self.read_at is None:
            return self._began_at
        if self._failing or self._clock() - self.read_at > self._interval + SLOW_SECONDS:
            return self.read_at
        return None

    # --- what wakes it ------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Poll now: an agent must be read again."""
        self._now.set()

    def read_soon(self, host: str | None) -> None:
        """Read the agent of this host now; ``None``: the agency and who belongs to it."""
        if host is None:
            self._schedule.hint_membership()
        else:
            self._schedule.hint_host(host)
        self._now.set()

    def destroyed(self, agency: str) -> None:
        """We had EAM destroy this agency: that it is not listed is no surprise."""
        self._destroyed = agency
        self.read_soon(None)

    def read_everything(self) -> None:
        """After a gap nothing is known to be unchanged."""
        self._schedule.hint_everything()
        self._now.set()

    def take_hints(self, hints: Sequence[Hint]) -> None:
        """Events say where to look; what they say beyond that is for the log."""
        for hint in hints:
            if hint.kind == OVERFLOW:
                self._missed_at = self._clock()
            self._log.info("vCenter event %s %s", hint.kind, hint.text)
            if hint.host is not None:
                self._schedule.hint_host(hint.host)
            if hint.host is None or any(part in hint.kind.lower() for part in _MEMBERSHIP_EVENTS):
                self._schedule.hint_membership()
        self._now.set()

    # --- the loop -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """A greenlet's body; returns when stopping."""
        backoff = Backoff(most=MOST_UNREAD)
        while not self._stopping.is_set():
            self._now.clear()
            try:
                self._poll()
            except PluginError as exc:
                self.last_error = exc
                self._failing = True
                if isinstance(exc, SuspectRead):
                    self._on_suspect(exc)
                if not exc.retry or self._is_stale():
                    self._alarms.raise_("eam", str(exc))
                self._log.warning("EAM could not be read: %s", exc)
                self._stopping.wait(backoff.next())
                self._schedule.hint_everything()
                self._is_time = True
                continue
            backoff.reset()
            self.read_at, self._failing = self._clock(), False
            self._alarms.clear("eam")
            self._is_time = not self._now.wait(self._interval)
            if not self._is_time:
                self._stopping.wait(HINTS_SETTLE)

    def _is_stale(self) -> bool:
        return self.read_at is None or self._clock() - self.read_at > STALE_AFTER

    def _poll(self) -> None:
        """The agency with all issues, then the agents whose word may have changed."""
        if self._missed_at is not None and self._clock() >= self._missed_again_at:
            self._schedule.hint_missed(self._missed_at)
            self._missed_at, self._missed_again_at = None, self._clock() + OVERFLOW_SECONDS
        if self._agency_is_due():
            self._observe(self._read_agency())
            self._follow_scope(sorted(self._fleet.scope))
            self._follow()
        urgent = dict.fromkeys(self._schedule.take_hints(self._fleet))
        waiting = dict.fromkeys(self._schedule.choose(self._fleet, self._clock()))
        while urgent or waiting:
            batch = tuple({**urgent, **waiting})[:AGENTS_AT_ONCE]
            read = self._eam.read_agents(batch)
            self._prove_not_listed(read.gone)
            self._observe(read)
            self._follow()
            waiting = {moref: None for moref in {**urgent, **waiting} if moref not in batch}
            # What is hinted at meanwhile goes before the rest: somebody acts on it.
            urgent = dict.fromkeys(self._schedule.take_hints(self._fleet))

    def _agency_is_due(self) -> bool:
        """In a storm hints come all the time; the agency's runtime, with every issue, then is read once a second."""
        now = self._clock()
        known = self._fleet.agency is not None and self._fleet.members is not None
        recent = now - self._fleet.agency_read_began < AGENCY_SECONDS
        return self._is_time or not known or not recent or self._schedule.membership_due(now)

    def _follow(self) -> None:
        vms = self._fleet.agent_vms()
        if vms != self._followed:
            self._followed = vms
            self._follow_vms(vms)

    # --- the agency ---------------------------------------------------------------------------------------

    def _read_agency(self) -> AgencyObserved:
        began = self._clock()
        known = self._fleet.agency
        if known is not None and not self._fleet.foreign and began < self._survey_at:
            try:
                if self._fleet.members is not None and not self._schedule.membership_due(began):
                    return AgencyObserved(began, self._eam.read_runtime(known))
                return self._seen(self._eam.read_agency(known.moref), began)
            except ObjectGone:
                self._schedule.hint_membership()
        self._survey_at = began + SURVEY_SECONDS
        found = self._memory.judge(self._eam.agencies())
        if found.foreign or found.unseen:
            self._alarms.raise_("agency-conflict", str(self._conflict(found)))
            return AgencyObserved(began, None, None, found.foreign, found.unseen)
        self._alarms.clear("agency-conflict")
        if found.ours is None:
            self._make_sure_it_is_gone(began)
            return AgencyObserved(began, None)
        return self._seen(found.ours, began)

    def _conflict(self, found: Ownership) -> AgencyConflict:
        us = self._session.identities[0]
        if found.unseen:
            return AgencyConflict(
                f"The agency {self._agency_name} that was used before belongs to {found.unseen}, and {us} is an "
                f"extension, which sees its own agencies alone. Nothing is changed, for it may still be there.",
                remedy=f"Log in as {found.unseen}, or as any user with EAM.View and EAM.Modify; there adopt the agency "
                f"to go on with it, or uninstall it to begin anew as {us}.",
            )
        owners = ", ".join(f"{agency.moref} of {owner_of(agency)}" for agency in found.foreign)
        return AgencyConflict(
            f"The agency name {self._agency_name} is not that of one agency of {us}: {owners}. Nothing is changed.",
            remedy="Use one of them (vcenter-eam adopt), log in as its owner, or give ours another name (agency_name).",
        )

    def _seen(self, agency: AgencyFacts, began: float) -> AgencyObserved:
        self._absent_since, self._known_before = None, True
        self._memory.use(agency)
        return AgencyObserved(began, agency, self._membership(agency, began))

    def _make_sure_it_is_gone(self, now: float) -> None:
        """Raises SuspectRead until an agency that was known has been absent for long enough."""
        if not self._session.alive():
            raise SilentlyExpired(
                "The list of agencies came from a session that is not logged in; it counts for nothing."
            )
        if self._memory.used is not None and self._is_ours_still(self._memory.used):
            raise SuspectRead(
                f"The list of agencies left out {self._memory.used}, which exists; it counts for nothing."
            )
        if self._known_before and self._memory.used != self._destroyed:
            self._absent_since = self._absent_since if self._absent_since is not None else now
            if now - self._absent_since < AGENCY_ABSENT:
                raise SuspectRead(f"The agency {self._agency_name} is not listed; EAM may still be loading.")
        self._known_before = False
        self._memory.forget()

    def _is_ours_still(self, moref: str) -> bool:
        try:
            return self._memory.judge((self._eam.read_agency(moref),)).ours is not None
        except ObjectGone:
            return False

    def _membership(self, agency: AgencyFacts, now: float) -> tuple[str, ...] | None:
        known = self._fleet.members
        if known is not None and not self._schedule.membership_due(now):
            return None
        # Taken before the call: a hint that comes while it runs asks for another. A failed one hints everything.
        self._schedule.membership_read(now)
        members = self._eam.agents_of(agency.moref)
        left_out = (known or frozenset()) - set(members)
        if left_out:
            if not self._session.alive():
                raise SilentlyExpired(
                    "The list of agents came from a session that is not logged in; it counts for nothing."
                )
            there = self._eam.read_agents(sorted(left_out)).agents
            if there:
                names = ", ".join(agent.moref for agent in there[:3])
                raise SuspectRead(f"The list of agents left out {names}, which exist; it counts for nothing.")
        return members

    def _prove_not_listed(self, gone: Sequence[str]) -> None:
        """An EAM that is still loading knows no agent; one that is really gone is not listed either."""
        if not gone or self._fleet.agency is None:
            return
        try:
            listed = set(gone) & set(self._eam.agents_of(self._fleet.agency.moref))
        except ObjectGone as exc:
            raise SuspectRead("EAM knows neither agents nor agency; it may still be loading.") from exc
        if listed:
            raise SuspectRead(
                f"EAM lists {', '.join(sorted(listed)[:3])}, and says they do not exist; it may be loading."
            )
