# SPDX-License-Identifier: Apache-2.0
"""The way of the data for one vCenter: intake -> fleet -> outbox -> broker, and fleet -> planner -> vCenter.

Everything that changes the fleet runs through :meth:`Pipeline.observe`. The fleet is changed without a yield, and
the outbox takes what changed in the order of the calls, so both tell one story. A pipeline exists once vCenter is
logged in to, the scope found and the outbox open; until then there is nothing to watch (see
:mod:`vcenter_eam_plugin.unit`).

Not promised: that a lost event is ever seen. Events only wake; the poll and the inventory see the truth.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from vcenter_eam_plugin import failpoints
from vcenter_eam_plugin.actor import Actor, AgencyTemplate, PackageSource
from vcenter_eam_plugin.agency_memory import AgencyMemory
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.audit import Tell
from vcenter_eam_plugin.backoff import Backoff
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.publisher import Publisher
from vcenter_eam_plugin.config import EamConfig, RabbitConfig
from vcenter_eam_plugin.delivery import Delivery
from vcenter_eam_plugin.domain.budgets import Ledger, Limits
from vcenter_eam_plugin.domain.errors import PluginError, SuspectRead, UnknownTarget
from vcenter_eam_plugin.domain.facts import HostFacts
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.health import HealthGate, HealthRules
from vcenter_eam_plugin.domain.host_spec import HostIdentity, HostSpecs
from vcenter_eam_plugin.domain.leadership import Decision, Leadership
from vcenter_eam_plugin.domain.observations import AgencyObserved, AgentsObserved, Hint, InventoryObserved, Observation
from vcenter_eam_plugin.domain.ownership import Claim, owner_of
from vcenter_eam_plugin.domain.planner import Desired, Planner
from vcenter_eam_plugin.domain.settings_rules import SettingsRules
from vcenter_eam_plugin.domain.status import ContrailVm
from vcenter_eam_plugin.domain.under_way import under_way
from vcenter_eam_plugin.domain.upgrade import Upgrade
from vcenter_eam_plugin.domain.violations import Times
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.eam_poll import EamPoll
from vcenter_eam_plugin.gate import Gate
from vcenter_eam_plugin.install_hook import InstallHook
from vcenter_eam_plugin.intake_watch import IntakeWatch
from vcenter_eam_plugin.rule_watch import RuleWatcher
from vcenter_eam_plugin.scope_memory import ScopeMemory
from vcenter_eam_plugin.shared import shared
from vcenter_eam_plugin.tally import Tally
from vcenter_eam_plugin.turns import Turns
from vcenter_eam_plugin.upgrades import Upgrades
from vcenter_eam_plugin.vrouter_probe import probe
from vcenter_eam_plugin.vsphere import privileges
from vcenter_eam_plugin.vsphere.inventory import Inventory
from vcenter_eam_plugin.vsphere.session import Session
from vcenter_eam_plugin.workers import AGENCY_KEY, Workers
from vcenter_eam_plugin.workqueue import WorkQueue

WORKERS = 4
"""Hosts that are worked on at once; EAM and vCenter serialise much more than this anyway."""
KEEP_ALIVE = 300.0
"""Seconds; well below vCenter's 30 minutes of idle time."""
TICK = 0.25
"""Seconds between looks at leadership that nobody asked for: an instance that lost it unnoticed stops this soon."""


class Pipeline:
    """One vCenter. Give it to :meth:`start`, and :meth:`stop` when it is enough."""

    def __init__(
        self,
        session: Session,
        morefs: tuple[str, ...],
        memory: ScopeMemory,
        outbox: Outbox,
        publisher: Publisher,
        eam_config: EamConfig,
        rabbit: RabbitConfig,
        *,
        package: PackageSource,
        state: Path,
        host_specs: HostSpecs,
        gate: Gate,
        leadership: Leadership,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        alarms: Alarms,
        log: logging.Logger,
        tally: Tally,
        on_change: Callable[[Sequence[ContrailVm]], None],
        tell: Tell,
    ) -> None:
        self.session = session
        self.gate = gate
        self.alarms = alarms
        self._on_change = on_change
        self.tally = tally
        self._clock = clock
        self._log = log
        self._stopping = Event()
        self._tick_now = Event()
        self._greenlets: dict[str, gevent.Greenlet] = {}
        self._memory = memory
        self._leadership = leadership
        self._host_specs = host_specs
        before = outbox.last_accepted()
        eam = EamClient(session)
        self.fleet = Fleet(session.instance_uuid, morefs, before)
        self.fleet.set_retreat(memory.retreat)
        self._agency_memory = AgencyMemory(state.with_suffix(".agency.json"), eam_config.agency_name, session)
        self.planner = Planner(
            _desired(eam_config, morefs),
            _ledger(eam_config),
            HealthGate(_health(eam_config)),
            rules_of=self._settings_rules_of if host_specs.source else None,
            name_of=self._name_of if eam_config.hold_after_provisioning else None,
        )
        self._install = InstallHook(
            eam_config.install_command, state.with_suffix(".installed.json"), self._install_facts, log, wall_clock
        )
        self.inventory = Inventory(
            session,
            clock=clock,
            on_observation=self.observe,
            on_hints=self._take_hints,
            on_suspect=self._suspect,
            known=self.fleet.known_hosts,
        )
        self.inventory.set_scope(sorted(morefs))
        self.delivery = Delivery(
            self.fleet,
            outbox,
            publisher,
            leadership=leadership,
            snapshot_seconds=rabbit.snapshot_minutes * 60.0,
            clock=clock,
            alarms=alarms,
            log=log,
            on_change=self._changed,
            tell=tell,
        )
        self.poll = EamPoll(
            session,
            eam,
            self.fleet,
            agency_name=eam_config.agency_name,
            memory=self._agency_memory,
            interval=eam_config.poll_seconds,
            known_before=self._agency_memory.known_before or any(status.eam.agency for status in before.values()),
            observe=self.observe,
            follow_vms=self.inventory.follow_vms,
            follow_scope=self.inventory.set_scope,
            clock=clock,
            alarms=alarms,
            log=log,
            stopping=self._stopping,
            on_suspect=self._suspect,
        )
        self.intake = IntakeWatch(
            self.inventory, self.poll, vcenter=session.name, alarms=alarms, clock=clock, wall_clock=wall_clock
        )
        self.rules = RuleWatcher(
            session,
            self.fleet,
            publish=self.delivery.publish,
            times=Times(late=eam_config.late_power_on_seconds, hangs=eam_config.exit_hangs_seconds),
            slots_seconds=eam_config.slots_seconds,
            clock=clock,
            stopping=self._stopping,
            log=log,
        )
        actor = Actor(
            session=session,
            eam=eam,
            memory=self._agency_memory,
            fleet=self.fleet,
            planner=self.planner,
            gate=gate,
            alarms=alarms,
            package=package,
            template=AgencyTemplate(
                eam_config.agency_name,
                eam_config.agent_name,
                eam_config.ovf_properties,
                eam_config.hold_after_provisioning,
                eam_config.hold_after_power_on or eam_config.health_gate,
            ),
            host_specs=host_specs,
            identity_of=self.identity_of,
            probe=partial(probe, port=eam_config.vrouter_port),
            install=self._install if eam_config.install_command else None,
            note=lambda host, text: self.delivery.publish(self.fleet.note(host, text)),
            clock=clock,
            observe=self.observe,
            read_soon=self.poll.read_soon,
            log=log,
            tally=tally,
        )
        self.workers = Workers(
            WorkQueue(clock),
            self.fleet,
            self.planner,
            actor,
            gate,
            agency_refused=self._agency_refused,
            read_soon=self.poll.read_soon,
            clock=clock,
            alarms=alarms,
            log=log,
            tally=tally,
            tell=tell,
        )

        self.upgrades = Upgrades(
            state.with_suffix(".upgrade.json"),
            self.fleet,
            self.planner,
            eam,
            gate,
            look_at_everything=self.workers.look_at_everything,
            read_soon=self.poll.read_soon,
            publish=self.delivery.publish,
            wall_clock=wall_clock,
            alarms=alarms,
            log=log,
        )
        self._tell_unreadable()

    # --- life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Spawn every greenlet; returns at once."""
        bodies: dict[str, Callable[[], None]] = {
            "ticker": self._tick_loop,
            "inventory": self.inventory.run,
            "poll": self.poll.run,
            "publisher": self.delivery.publisher.run,
            "rules": self.rules.run,
            "keep-alive": self._keep_alive_loop,
        }
        bodies |= {f"worker-{n}": self.workers.run for n in range(WORKERS)}
        self._greenlets = {name: gevent.spawn(self._keep_running, name, body) for name, body in bodies.items()}

    def stop(self, timeout: float) -> None:
        """End in order within ``timeout`` seconds: intake and work first, then what waits to be sent."""
        deadline = self._clock() + timeout
        self._stopping.set()
        self._tick_now.set()
        self.poll.wake()
        self.rules.wake()
        self.workers.queue.close()
        self.inventory.stop(timeout * 0.2)  # a courtesy: a vCenter that does not answer is left by force
        intake = [greenlet for name, greenlet in self._greenlets.items() if name != "publisher"]
        gevent.joinall(intake, timeout=timeout * 0.2)
        _kill(intake, timeout * 0.1)
        self._install.stop()
        self.delivery.publisher.stop(max(deadline - self._clock() - timeout * 0.1, 0.1))
        _kill(self._greenlets.values(), timeout * 0.1)

    def greenlets(self) -> dict[str, gevent.Greenlet]:
        """What runs, by name."""
        return dict(self._greenlets)

    def _keep_running(self, name: str, body: Callable[[], None]) -> None:
        """A greenlet that ends by an error nobody foresaw is loud, and is started again."""
        backoff = Backoff()
        alarm = f"crash:{name}"
        while not self._stopping.is_set():
            self.alarms.clear(alarm)
            try:
                body()
            except Exception as exc:  # noqa: BLE001 - the last line of defence: one bug must not end the others
                self._log.exception("The %s ended unexpectedly; starting it again.", name)
                self.alarms.raise_(alarm, f"The {name} ended unexpectedly ({type(exc).__name__}); see the log.")
                self.delivery.compare_everything()
                self._stopping.wait(backoff.next())
            else:
                return

    # --- observations -------------------------------------------------------------------------------------

    def observe(self, observation: Observation) -> None:
        """Take in what an edge saw."""
        failpoints.reach(failpoints.AFTER_READ)
        changed = self.fleet.apply(observation)
        if self.fleet.agency is not None:
            changed += self.fleet.refuse_agency("")
        touched = {status.esxi.moref for status in changed}
        match observation:
            case InventoryObserved():
                self._after_inventory(observation)
                touched |= {host.moref for host in observation.hosts}
            case AgentsObserved():
                touched |= {agent.host for agent in observation.agents if agent.host}
            case AgencyObserved():
                self.workers.queue.add(AGENCY_KEY)
        self.delivery.publish(changed)
        if changed:
            gevent.sleep(0)  # it goes out now, and not after all that is thought and asked because of it
        self._look_at(touched | self._publish_owed())
        self._use_freed_budget()

    def _publish_owed(self) -> set[str]:
        """The rest of what changed, where that is much; returns the hosts. Others may observe in between."""
        touched: set[str] = set()
        turns = Turns()
        while self.fleet.owed:
            turns.give()
            changed = self.fleet.go_on()
            self.delivery.publish(changed)
            touched |= {status.esxi.moref for status in changed}
        return touched

    def _look_at(self, hosts: Iterable[str]) -> None:
        turns = Turns()
        for host in hosts:
            turns.give()
            now = self._clock()
            self.planner.observe(self.fleet, host, now)
            self.rules.observe(host, now)
            self.workers.queue.add(host)
            agent = self.fleet.agent_on(host)
            if agent is not None and not self.fleet.is_settled(agent):
                self.poll.wake()

    def _changed(self, changed: Sequence[ContrailVm]) -> None:
        self.tally.times.see(changed, self._clock())
        self._on_change(changed)

    def _use_freed_budget(self) -> None:
        freed = self.planner.ledger.take_freed()
        if freed:
            self.workers.look_at_waiting(freed)

    def _after_inventory(self, seen: InventoryObserved) -> None:
        if seen.complete:
            self.poll.read_everything()
            self.workers.queue.add(AGENCY_KEY)
        elif seen.gone or seen.compute_resources:
            self.poll.read_soon(None)

    def _suspect(self, exc: SuspectRead) -> None:
        self.intake.suspect(exc)

    def _take_hints(self, hints: Sequence[Hint]) -> None:
        self.poll.take_hints(hints)

    def _agency_refused(self, why: str) -> None:
        if self.fleet.agency is None:
            self.delivery.publish(self.fleet.refuse_agency(why))

    # --- time ---------------------------------------------------------------------------------------------

    def _tick_loop(self) -> None:
        """Nothing in it asks a server: whoever lost the lead must notice it now, and not when vCenter has answered."""
        while not self._stopping.is_set():
            if self.delivery.tick():
                self.workers.look_at_everything()
            self._look_at(self._publish_owed())
            now = self._clock()
            if self.delivery.leads():
                self._advance_upgrade()
            self._watch_repairs(now)
            self.intake.tick()
            self._watch_election()
            self._tick_now.wait(TICK)
            self._tick_now.clear()

    def look_at_leadership(self) -> None:
        """Whether we lead has changed: no need to wait for the next tick. Does not block."""
        self._tick_now.set()

    def _advance_upgrade(self) -> None:
        try:
            self.upgrades.tick()
        except PluginError as exc:
            self.alarms.raise_("upgrade", f"The upgrade does not go on: {exc}")
        else:
            self.alarms.clear("upgrade")

    def _watch_repairs(self, now: float) -> None:
        for host in self.planner.ledger.expire(now):
            self._log.error("The repair of %s has not come to an end in time; counted as failed.", host)
        self._use_freed_budget()
        stopped = self.planner.ledger.open_breakers(now)
        if stopped:
            self.alarms.raise_(
                "repairs-stopped",
                f"Repairs are stopped in {', '.join(stopped)}: several failed in a short time. See the issues there.",
            )
        else:
            self.alarms.clear("repairs-stopped")

    def _watch_election(self) -> None:
        trouble = self._leadership.trouble()
        if trouble:
            self.alarms.raise_("election", f"{trouble} Until it is over this instance neither publishes nor acts.")
        else:
            self.alarms.clear("election")

    def _keep_alive_loop(self) -> None:
        while not self._stopping.wait(KEEP_ALIVE):
            self._keep_alive()

    def _keep_alive(self) -> None:
        try:
            self.session.keep_alive()
        except PluginError as exc:
            self._log.warning("The session could not be kept alive: %s", exc)

    # --- what hosts are to get ---

    def identity_of(self, host: str) -> HostIdentity:
        """What the host specification goes by."""
        facts = self.fleet.hosts[host]
        parent = self.fleet.compute_resources.get(facts.compute_resource)
        return HostIdentity(
            key=self.fleet.key_of(host),
            name=facts.name,
            cluster=parent.name if parent is not None else "",
            datacenter=parent.datacenter if parent is not None else "",
            vcenter=self.session.settings.host,
        )

    def _settings_rules_of(self, host: HostFacts) -> SettingsRules:
        spec = self._host_specs.for_host(self.identity_of(host.moref))
        return spec.settings_rules(self.planner.desired.rules)

    def _name_of(self, host: HostFacts) -> str:
        return self._host_specs.for_host(self.identity_of(host.moref)).vm_name

    def _install_facts(self, host: str, vm: str, ip: str) -> dict[str, Any]:
        identity = self.identity_of(host)
        spec = self._host_specs.for_host(identity)
        return {
            "host": identity.name,
            "cluster": identity.cluster,
            "datacenter": identity.datacenter,
            "vcenter": identity.vcenter,
            "vm": vm,
            "vm_name": spec.vm_name,
            "ip": ip,
            "guestinfo": dict(spec.guestinfo),
        }

    def _tell_unreadable(self) -> None:
        if self._host_specs.problems:
            self.alarms.raise_("host-spec", " ".join(self._host_specs.problems))
        if self._install.trouble:
            self.alarms.raise_("installed-damaged", self._install.trouble)

    def decisions(self) -> dict[str, Decision]:
        """What people decided here that holds for whichever instance leads."""
        return {
            "retreat": shared(list[str], lambda: sorted(self._memory.retreat), self._take_retreat),
            "consent": shared(Claim | None, lambda: self._agency_memory.consent, self._take_consent),
            "upgrade": shared(Upgrade | None, self.upgrades.status, self.upgrades.take_over),
            "installed": shared(list[str], lambda: list(self._install.done), self._install.take_done),
        }

    def _take_consent(self, consent: Claim | None) -> None:
        self._agency_memory.take_consent(consent)
        self.poll.read_soon(None)

    def _take_retreat(self, compute_resources: Iterable[str]) -> None:
        wanted = frozenset(compute_resources)
        self._memory.set_retreat(wanted)
        self.delivery.publish(self.fleet.set_retreat(wanted))
        self.workers.look_at_everything()

    # --- for people ---------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds of the clock that everything here counts by."""
        return self._clock()

    def retreat(self, compute_resource: str, on: bool) -> None:
        """Drain a compute resource of ContrailVMs, or deploy to it again. Remembered over restarts."""
        wanted = self.fleet.retreat | {compute_resource} if on else self.fleet.retreat - {compute_resource}
        self._take_retreat(wanted)
        self._leadership.decided()

    def adopt(self, moref: str) -> None:
        """Use this agency of our name from now on, whoever owns it. Remembered over restarts.

        It stays its owner's: EAM has no call that changes that. Raises UnknownTarget unless it is one that stands in
        our way, PrivilegeMissing when the login may not change it.
        """
        candidates = self.fleet.foreign
        chosen = next((each for each in candidates if each.moref == moref), None)
        if chosen is None:
            names = ", ".join(each.moref for each in candidates) or "none"
            raise UnknownTarget(f"No agency {moref} is to be adopted; there are: {names}.")
        privileges.require(self.session, ("EAM.View", "EAM.Modify"))
        self._log.warning("The agency %s of %s is used from now on: adopted.", moref, owner_of(chosen))
        self._agency_memory.adopt(chosen, candidates)
        self._leadership.decided()
        self.poll.read_soon(None)

    def doing(self) -> str:
        """What is on its way, in a sentence; empty when nothing is."""
        return under_way(self.fleet, self.planner.plan_agency(self.fleet), acts=not self.gate.closed())

    def status(self) -> dict[str, Any]:
        """How it is, in plain values; holds no secret."""
        agency = self.fleet.agency
        return {
            "uuid": self.fleet.instance_uuid,
            "leading": self.delivery.leads(),
            "leader": self._leadership.leader(),
            "epoch": self.delivery.outbox.epoch,
            "ready": self.fleet.given_out,
            "live": self.inventory.live,
            "sources": self.intake.status(),
            "agency": None if agency is None else {"moref": agency.moref, "status": agency.status.value},
            "doing": self.doing(),
            "states": dict(sorted(Counter(status.state.value for status in self.fleet.statuses()).items())),
            "publisher": self.delivery.publisher.status(),
            "waiting": {key: list(reasons) for key, reasons in sorted(self.workers.waiting.items())},
            "ovf_url": None if agency is None else agency.ovf_url,
            "retreat": sorted(self.fleet.path_of(moref) for moref in self.fleet.retreat),
        }


def _kill(greenlets: Iterable[gevent.Greenlet], seconds: float) -> None:
    """Kill them, and wait no longer: one that is tidying up with a dead server must not keep the others from their end.

    Not by ``killall``'s own time-out, which raises.
    """
    with gevent.Timeout(seconds, False):
        gevent.killall([greenlet for greenlet in greenlets if not greenlet.dead])


def _desired(eam: EamConfig, scope: tuple[str, ...]) -> Desired:
    return Desired(
        scope=scope,
        rules=SettingsRules(eam.agent_vm_datastore, eam.agent_vm_network),
        auto_resolve=frozenset(eam.auto_resolve),
        agent_name=eam.agent_name,
        power_off_grace=eam.power_off_grace_seconds,
        hold_after_provisioning=eam.hold_after_provisioning,
        hold_after_power_on=eam.hold_after_power_on,
    )


def _health(eam: EamConfig) -> HealthRules:
    return HealthRules(eam.health_gate, eam.health_deadline_seconds, eam.on_health_deadline)


def _ledger(eam: EamConfig) -> Ledger:
    return Ledger(Limits(eam.max_concurrent_repairs, eam.repairs_per_hour))
