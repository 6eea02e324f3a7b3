# SPDX-License-Identifier: Apache-2.0
"""Carries out the steps that a person asked for, one at a time per host, each after a second look at the truth.

As with the actor, a return value is never taken for success: each step waits until its effect is seen, and says so
when it is not seen in time. The gate (mode, pause, leadership) is asked right before each write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import gevent

from vcenter_eam_plugin.domain.actions import Action
from vcenter_eam_plugin.domain.errors import ObjectGone, PrivilegeMissing, Unavailable, WrongState
from vcenter_eam_plugin.domain.facts import AgentFacts, EamStatus, GoalState, VmPower
from vcenter_eam_plugin.domain.issues import Policy, Radius, issue_type
from vcenter_eam_plugin.domain.observations import AgentsObserved
from vcenter_eam_plugin.domain.operations import resolve_steps
from vcenter_eam_plugin.domain.requests import (
    Adopt,
    Delete,
    DestroyAgency,
    PowerOff,
    Release,
    RemoveScope,
    ResolveIssue,
    SetRetreat,
    StartUpgrade,
    SteerUpgrade,
    Step,
    Uninstall,
)
from vcenter_eam_plugin.domain.status import State
from vcenter_eam_plugin.domain.upgrade import Phase
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.gate import Gate
from vcenter_eam_plugin.pipeline import Pipeline
from vcenter_eam_plugin.vsphere import vm_power
from vcenter_eam_plugin.workers import AGENCY_KEY

LOOK = 0.1
"""Seconds between looks at what the sources have shown meanwhile; costs no call."""
READ_AGAIN = 2.0
"""Seconds after which EAM is asked anew, when nothing told that something changed."""
SEEN_SECONDS = 60.0
"""Within this a call's effect is seen: EAM takes an issue off when it begins to work on it, not when it is done."""
BUDGET_SECONDS = 30.0
"""A repair that the budget allows only later than this is left out: whoever asked is waiting."""
REMOVAL_SECONDS = 600.0
"""Without progress for so long, the removal of ContrailVMs is waited for no longer. EAM goes on all the same."""
RESOLVE_AGAIN = 15.0
"""Seconds between two tries to resolve what keeps a ContrailVM from being removed."""


class Tell(Protocol):
    """Takes a line of progress. ``progress``: how many hosts are done, of how many; ``stays``: is to be read later."""

    def __call__(self, line: str, *, progress: tuple[int, int] | None = None, stays: bool = False) -> None: ...


@dataclass(slots=True)
class Carrier:
    """For one vCenter. ``patient``: repairs wait for their budget, as those of the planner do."""

    pipeline: Pipeline
    gate: Gate
    clock: Callable[[], float]
    log: logging.Logger
    patient: bool = False

    def do(self, step: Step, tell: Tell) -> str:
        """Carry out one step; returns what came of it. Raises the domain's errors."""
        match step.do:
            case ResolveIssue() as do:
                outcome = self._resolve(do, tell)
            case Release() as do:
                outcome = self._release(do)
            case PowerOff() as do:
                outcome = self._power_off(do)
            case Delete() as do:
                outcome = self._delete(do)
            case StartUpgrade() | SteerUpgrade() as do:
                outcome = self._upgrade(do, tell)
            case RemoveScope() | SetRetreat() | Adopt() | Uninstall() | DestroyAgency() as do:
                outcome = self._change_agency(do, tell)
            case action:
                outcome = self._planned(getattr(action, "host", AGENCY_KEY), action)
        return outcome

    def _change_agency(self, do: RemoveScope | SetRetreat | Adopt | Uninstall | DestroyAgency, tell: Tell) -> str:
        match do:
            case RemoveScope():
                outcome = self._remove_scope(do, tell)
            case SetRetreat():
                outcome = self._retreat(do, tell)
            case Adopt():
                outcome = self._adopt(do)
            case Uninstall():
                outcome = self._uninstall(do, tell)
            case DestroyAgency():
                outcome = self._destroy(do)
        return outcome

    @property
    def _eam(self) -> EamClient:
        return EamClient(self.pipeline.session)

    # --- what the planner wanted --------------------------------------------------------------------------

    def _planned(self, key: str, action: Action) -> str:
        workers = self.pipeline.workers
        with workers.turn(key):
            if action not in workers.plan_for(key, self.clock()).actions:
                return "no longer to be done"
            workers.actor.do(action)
        return "asked for"

    # --- issues -------------------------------------------------------------------------------------------

    def _resolve(self, do: ResolveIssue, tell: Tell) -> str:
        fleet, ledger = self.pipeline.fleet, self.pipeline.planner.ledger
        while True:
            host = fleet.hosts.get(do.host)
            if host is None:
                return "the host is gone"
            self._await_budget(host.compute_resource, do.host, tell)
            with self.pipeline.workers.turn(do.host):
                agent = self._look_again(do.agent)
                if agent is None or do not in [step.do for step in resolve_steps(fleet.hosts[do.host], agent)[0]]:
                    return "nothing is left to resolve"
                now = self.clock()
                if self.patient and not ledger.ask(host.compute_resource, do.host, now).allowed:
                    continue  # somebody took it while we looked
                keys = [issue.key for issue in agent.issues if issue.type == do.issue]
                self.gate.check()
                ledger.start(host.compute_resource, do.host, now)
                try:
                    self._eam.resolve(do.agent, keys)
                except (ObjectGone, WrongState, PrivilegeMissing):
                    ledger.give_up(do.host, self.clock())
                    raise
                break
        self._wait(lambda: not self._has(do, now), f"EAM still shows {do.issue} on {host.name}", host=do.host)
        status = fleet.status(do.host)
        return f"taken up by EAM; now {status.state.value}" if status is not None else "taken up by EAM"

    def _await_budget(self, cluster: str, host: str, tell: Tell) -> None:
        if not self.patient:
            return
        told = ""
        while not (verdict := self.pipeline.planner.ledger.ask(cluster, host, self.clock())).allowed:
            if verdict.ask_again - self.clock() > BUDGET_SECONDS:
                raise WrongState(f"Left out: {verdict.reason}.", remedy="Resolve the host alone, or ask again later.")
            if verdict.reason != told:
                told = verdict.reason
                tell(f"waiting: {told}")
            gevent.sleep(LOOK)

    def _has(self, do: ResolveIssue, since: float) -> bool:
        """Whether the issue stands, by a read that began after we asked; an older read says that it does."""
        agent = self.pipeline.fleet.agents.get(do.agent)
        if agent is None:
            return False
        return agent.read_began <= since or any(issue.type == do.issue for issue in agent.issues)

    # --- holds --------------------------------------------------------------------------------------------

    def _release(self, do: Release) -> str:
        with self.pipeline.workers.turn(do.host):
            agent = self._look_again(do.agent)
            if agent is None or agent.hook is None:
                return "not held any more"
            self.gate.check()
            now = self.clock()
            self._eam.mark_available(do.agent)

        def released() -> bool:
            known = self.pipeline.fleet.agents.get(do.agent)
            return known is None or (known.read_began > now and known.hook is None)

        self._wait(released, "EAM still holds it", host=do.host)
        return "marked as available"

    # --- one ContrailVM -----------------------------------------------------------------------------------

    def _power_off(self, do: PowerOff) -> str:
        vms = self.pipeline.fleet.vms
        self.gate.check()
        vm_power.power_off(self.pipeline.session, do.vm)
        self.pipeline.poll.read_soon(do.host)
        self._wait(lambda: do.vm not in vms or vms[do.vm].power is VmPower.POWERED_OFF, "it is not seen to be off")
        return "powered off"

    def _delete(self, do: Delete) -> str:
        self.gate.check()
        vm_power.delete(self.pipeline.session, do.vm)
        self.pipeline.poll.read_soon(do.host)
        self._wait(lambda: do.vm not in self.pipeline.fleet.vms, "it is not seen to be gone")
        return "deleted"

    # --- the agency ---------------------------------------------------------------------------------------

    def _remove_scope(self, do: RemoveScope, tell: Tell) -> str:
        fleet = self.pipeline.fleet
        with self.pipeline.workers.turn(AGENCY_KEY):
            self.gate.check()
            leaving = {h.moref for h in fleet.hosts.values() if h.compute_resource == do.compute_resource}
            self._eam.shrink_scope(do.agency, [do.compute_resource])
        self.pipeline.poll.read_soon(None)
        self._wait(lambda: not self._covers(do.compute_resource), "the agency still covers it")
        self._watch_removal(lambda: [a for a in fleet.agents.values() if a.host in leaving], tell)
        return "out of the scope, its ContrailVMs are gone"

    def _covers(self, compute_resource: str) -> bool:
        agency = self.pipeline.fleet.agency
        return agency is not None and compute_resource in agency.scope

    def _retreat(self, do: SetRetreat, tell: Tell) -> str:
        """A switch: what follows from it is the planner's, and is waited for here."""
        fleet = self.pipeline.fleet
        self.gate.check()
        leaving = {h.moref for h in fleet.hosts.values() if h.compute_resource == do.compute_resource}
        self.pipeline.retreat(do.compute_resource, do.on)
        self._wait(lambda: self._covers(do.compute_resource) is not do.on, "the agency's scope is as it was")
        if not do.on:
            return "in the scope again; EAM deploys"
        self._watch_removal(lambda: [a for a in fleet.agents.values() if a.host in leaving], tell)
        return "drained, its ContrailVMs are gone"

    def _adopt(self, do: Adopt) -> str:
        self.gate.check()
        self.pipeline.adopt(do.agency)
        self._wait(lambda: self.pipeline.fleet.agency is not None, "the agency is not seen as ours")
        return "taken for ours"

    def _upgrade(self, do: StartUpgrade | SteerUpgrade, tell: Tell) -> str:
        self.gate.check()
        upgrades = self.pipeline.upgrades
        match do:
            case StartUpgrade():
                certificate = self.pipeline.workers.actor.package.certificate()
                # The agency is written as a whole: whoever read it before us would put the old package back.
                with self.pipeline.workers.turn(AGENCY_KEY):
                    upgrades.start(do.url, certificate, all_at_once=do.at_once)
            case SteerUpgrade(pause=True):
                upgrades.pause()
            case SteerUpgrade():
                upgrades.resume()
        return self._follow_upgrade(tell)

    def _follow_upgrade(self, tell: Tell) -> str:
        """Until it ends, stops or is paused. Raises WrongState when it stopped: it goes on when a person says so."""
        told = ""
        while True:
            now = self.pipeline.upgrades.status()
            if now is None or now.phase is Phase.DONE:
                return "every host has its new ContrailVM"
            if now.phase is Phase.STOPPED:
                raise WrongState(f"The upgrade stopped: {now.why}.", remedy="See to these hosts, then resume it.")
            if now.paused:
                return "paused; what was admitted goes on"
            done = sum(self._is_renewed(host, old) for host, old in now.old.items())
            line = f"{now.phase.value}, {len(now.admitted)} of {len(now.old)} host(s) admitted, {done} done"
            if line != told:
                told = line
                tell(line, progress=(done, len(now.old)))
            self._pause_between_looks(None)

    def _is_renewed(self, host: str, old: str) -> bool:
        status = self.pipeline.fleet.status(host)
        return status is not None and status.state is State.ACTIVE and status.vm is not None and status.vm.moref != old

    def _uninstall(self, do: Uninstall, tell: Tell) -> str:
        fleet = self.pipeline.fleet
        with self.pipeline.workers.turn(AGENCY_KEY):
            if self._eam.read_agency(do.agency).goal is not GoalState.UNINSTALLED:
                self.gate.check()
                self._eam.uninstall(do.agency)
        self.pipeline.poll.read_soon(None)
        self._watch_removal(lambda: list(fleet.agents.values()), tell)
        self._wait(self._is_uninstalled, "EAM is not done with the agency")
        return "every ContrailVM is gone"

    def _is_uninstalled(self) -> bool:
        agency = self.pipeline.fleet.agency
        return agency is None or (agency.goal is GoalState.UNINSTALLED and agency.status is EamStatus.GREEN)

    def _destroy(self, do: DestroyAgency) -> str:
        with self.pipeline.workers.turn(AGENCY_KEY):
            if self._eam.agents_of(do.agency):
                raise WrongState("The agency was not destroyed: agents are left.", remedy="Uninstall again.")
            if not self.pipeline.session.alive():
                raise Unavailable(
                    "The agency was not destroyed: that it has no agents was said to a session that is not logged in.",
                    remedy="Uninstall again.",
                )
            self.gate.check()
            # First: an agency that is seen to be gone while we act is created again.
            self.gate.pause()
            self._eam.destroy(do.agency)
        self.pipeline.poll.destroyed(do.agency)
        self._wait(lambda: not self._exists(do.agency), "EAM has not destroyed the agency", look=READ_AGAIN / 4)
        return "destroyed; paused until activated"

    def _exists(self, agency: str) -> bool:
        try:
            self._eam.read_agency(agency)
        except ObjectGone:
            return False
        return True

    def _watch_removal(self, left: Callable[[], list[AgentFacts]], tell: Tell) -> None:
        """Until none is left. What keeps a ContrailVM from being removed is resolved; that was consented to."""
        told, progress, most = -1, self.clock(), 0
        tried: dict[str, float] = {}
        while agents := left():
            now = self.clock()
            if len(agents) != told:
                told, progress, most = len(agents), now, max(most, len(agents))
                tell(f"{told} left", progress=(most - told, most))
            if now - progress > REMOVAL_SECONDS:
                left_over = sorted(self._where(agent) for agent in agents)
                for each in left_over:
                    tell(f"{each} is left", stays=True)
                names = ", ".join(left_over)
                raise Unavailable(
                    f"{told} ContrailVM(s) are left: {names}.",
                    remedy="EAM goes on when their hosts are available; ask again then.",
                )
            for agent in agents:
                if agent.status is EamStatus.RED and now - tried.get(agent.moref, 0.0) > RESOLVE_AGAIN:
                    tried[agent.moref] = now
                    try:
                        self._unblock(agent, tell)
                    except (ObjectGone, Unavailable) as exc:
                        tell(f"{self._where(agent)}: {exc}", stays=True)  # gone meanwhile, or busy: looked at again
            self._pause_between_looks(None)

    def _unblock(self, known: AgentFacts, tell: Tell) -> None:
        agent = self._look_again(known.moref)
        host = self.pipeline.fleet.hosts.get(known.host or "")
        if agent is None or host is None:
            return
        for step in resolve_steps(host, agent)[0]:
            assert isinstance(step.do, ResolveIssue)
            row = issue_type(step.do.issue)
            if row.radius is Radius.HOST or row.policy is Policy.NEVER:
                continue
            self.gate.check()
            tell(f"{host.name}: resolving {row.name}, which keeps it from being removed", stays=True)
            keys = [issue.key for issue in agent.issues if issue.type == row.name]
            self._eam.resolve(agent.moref, keys)

    def _where(self, agent: AgentFacts) -> str:
        host = self.pipeline.fleet.hosts.get(agent.host or "")
        reasons = "; ".join(sorted({issue.type for issue in agent.issues}))
        return (host.name if host is not None else agent.vm_name) + (f" ({reasons})" if reasons else "")

    # --- looking ------------------------------------------------------------------------------------------

    def _look_again(self, agent: str) -> AgentFacts | None:
        seen = self._eam.read_agents([agent])
        self.pipeline.observe(seen)
        return seen.agents[0] if isinstance(seen, AgentsObserved) and seen.agents else None

    def _wait(self, seen: Callable[[], bool], otherwise: str, *, host: str | None = None, look: float = LOOK) -> None:
        """Until the effect is seen. Raises Unavailable when it is not in time; it may still come."""
        deadline = self.clock() + SEEN_SECONDS
        while not seen():
            if self.clock() > deadline:
                raise Unavailable(f"After {SEEN_SECONDS:.0f} s {otherwise}.", remedy="See the status in a while.")
            self._pause_between_looks(host, look)

    def _pause_between_looks(self, host: str | None, seconds: float = LOOK) -> None:
        read_at = self.pipeline.poll.read_at
        if read_at is None or self.clock() - read_at > READ_AGAIN:
            self.pipeline.poll.read_soon(host)
        gevent.sleep(seconds)
