# SPDX-License-Identifier: Apache-2.0
"""One configured vCenter, from nothing to a running pipeline and back.

Connecting is tried until it works: what time can heal soon, what a person must mend at longer intervals, with
one alarm and the reason in the status. Nothing is watched, published or changed before the login, the scope
and the outbox all stand.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import msgspec
from gevent.event import Event

from vcenter_eam_plugin import failpoints, host_spec_file
from vcenter_eam_plugin.actor import PackageSource
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.audit import Tell, untold
from vcenter_eam_plugin.backoff import MOST_UNREAD, Backoff
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.publisher import LinkState, Publisher
from vcenter_eam_plugin.config import Mode, RabbitConfig, VCenterConfig, VCenterUnit
from vcenter_eam_plugin.domain.errors import PluginError, WrongState
from vcenter_eam_plugin.domain.facts import AgencyFacts
from vcenter_eam_plugin.domain.host_spec import HostSpecs
from vcenter_eam_plugin.domain.leadership import Leadership
from vcenter_eam_plugin.domain.status import ContrailVm
from vcenter_eam_plugin.gate import Gate
from vcenter_eam_plugin.pipeline import Pipeline
from vcenter_eam_plugin.scope_memory import ScopeMemory
from vcenter_eam_plugin.shared import shared
from vcenter_eam_plugin.state_file import StateFile
from vcenter_eam_plugin.tally import Tally
from vcenter_eam_plugin.vsphere import scope
from vcenter_eam_plugin.vsphere.session import Session, SessionSettings

Elect = Callable[[str, Callable[[], int]], Leadership]
"""Makes what says who leads a vCenter; see :class:`Unit`."""

REFUSED_RETRY = 30.0
"""Seconds before a login or scope that a person must mend is tried again; more often could lock the account."""


class Pause(msgspec.Struct):
    """What outlives a restart of an operator's pause."""

    paused: bool = False


class Unit:
    """``elect`` makes the election, of a vCenter's instanceUuid and what gives an epoch to exceed; ``package`` says
    where the OVF is; ``on_change`` is told, with our name, of each ContrailVM that changed; ``tell`` takes audit
    entries."""

    def __init__(
        self,
        config: VCenterUnit,
        rabbit: RabbitConfig,
        broker: BrokerSettings,
        state_directory: Path,
        *,
        publisher_name: str,
        package: PackageSource,
        elect: Elect,
        log: logging.Logger,
        on_change: Callable[[str, Sequence[ContrailVm]], None] = lambda _, __: None,
        tell: Tell = untold,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.name = config.name
        self._tell: Tell = partial(tell, vcenter=config.name)
        self.alarms = Alarms(log, wall_clock, self._tell)
        self.session = Session(session_settings(config.vcenter), clock)
        self.tally = Tally()
        self.pipeline: Pipeline | None = None
        self.first_attempt = Event()
        """Set once connecting was tried; :attr:`first_error` then says whether it failed."""
        self.first_error: PluginError | None = None
        self._rabbit = rabbit
        self._host_specs = _load_host_specs(config)
        self._broker = broker
        self._state_directory = state_directory
        self._publisher_name = publisher_name
        self._package = package
        self._elect = elect
        self._leadership: Leadership | None = None
        self._log = log
        self._on_change = on_change
        self._clock = clock
        self._wall_clock = wall_clock
        self._outbox: Outbox | None = None
        self._stopping = Event()
        self._greenlet: gevent.Greenlet | None = None
        pause = StateFile(
            state_directory / f"{config.name}.pause.json",
            Pause,
            what="Whether it is paused",
            without="it may act again",
        )
        self.gate = Gate(
            act=config.eam.mode is Mode.ACT,
            is_leader=self._leads,
            paused=(pause.read() or Pause()).paused,
            remember=lambda paused: pause.write(Pause(paused)),
        )

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._greenlet = gevent.spawn(self._connect_until_it_works)

    def stop(self, timeout: float) -> None:
        """End everything in order within ``timeout`` seconds. What is unsent stays in the outbox."""
        deadline = self._clock() + timeout
        self._stopping.set()
        if self._greenlet is not None:
            self._greenlet.join(timeout * 0.2)
            with gevent.Timeout(timeout * 0.1, False):  # kill's own time-out would raise
                self._greenlet.kill()
        if self.pipeline is not None:
            self.pipeline.stop((deadline - self._clock()) * 0.8)
        # After what was to be sent is sent; before anything that may take its time, since others wait for it.
        if self._leadership is not None:
            self._leadership.stop(max(deadline - self._clock(), 0.1) * 0.3)
        # Logging out is a courtesy too; what it may take at most is kept short of our own deadline, so that a process
        # whose vCenter does not answer still ends in time.
        with gevent.Timeout(max(min(deadline - self._clock(), timeout * 0.25), 0.1), False):
            self.session.close()
        if self._outbox is not None:
            self._outbox.close()

    def activate(self) -> None:
        """Act from now on, and look at everything. Raises WrongState when it is another instance's to decide."""
        self._check_leader("activate")
        self.gate.activate()
        if self._leadership is not None:
            self._leadership.decided()
        if self.pipeline is not None:
            self.pipeline.workers.look_at_everything()

    def pause(self) -> None:
        """Stop acting; whoever leads later does not act either. Raises WrongState when it is another's to decide."""
        self._check_leader("pause")
        self.gate.pause()
        if self._leadership is not None:
            self._leadership.decided()

    def _check_leader(self, verb: str) -> None:
        """Where nobody leads, as far as we know, anybody may be told; a standby's word would change nothing."""
        if self._leadership is None or self._leadership.term() is not None:
            return
        leader = self._leadership.leader()
        if leader:
            raise WrongState(
                f"Nothing was changed: {leader} leads {self.name}, and this is a standby.",
                remedy=f"Say {verb} there.",
            )

    def agency(self) -> AgencyFacts | None:
        """Our agency, if it was seen."""
        return self.pipeline.fleet.agency if self.pipeline is not None else None

    def greenlets(self) -> dict[str, gevent.Greenlet]:
        """Ours, by name."""
        own = {"connect": self._greenlet} if self._greenlet is not None else {}
        return own | (self.pipeline.greenlets() if self.pipeline is not None else {})

    def status(self) -> dict[str, Any]:
        """How it is, in plain values; holds no secret."""
        return {
            "name": self.name,
            "vcenter": self.session.name,
            "mode": self.gate.mode,
            "connected": self.pipeline is not None,
            "alarms": [{"name": a.name, "text": a.text, "since": a.since} for a in self.alarms],
            **(self.pipeline.status() if self.pipeline is not None else {}),
        }

    def _leads(self) -> bool:
        return self.pipeline is not None and self.pipeline.delivery.leads()

    def _connect_until_it_works(self) -> None:
        backoff = Backoff(most=MOST_UNREAD)
        while not self._stopping.is_set():
            try:
                self.pipeline = self._connect()
            except PluginError as exc:
                if not self.first_attempt.is_set():
                    self.first_error = exc
                    self.first_attempt.set()
                self.alarms.raise_("connect", str(exc))
                self._stopping.wait(backoff.next(least=0.0 if exc.retry else REFUSED_RETRY))
            except Exception as exc:  # noqa: BLE001 - the last line of defence: the others go on, and this is tried again
                self._log.exception("Connecting ended unexpectedly.")
                self.first_attempt.set()
                self.alarms.raise_("connect", f"Connecting ended unexpectedly ({type(exc).__name__}); see the log.")
                self._stopping.wait(backoff.next(least=REFUSED_RETRY))
            else:
                self.alarms.clear("connect")
                self.first_attempt.set()
                self.pipeline.start()
                if self._leadership is not None:
                    pause = shared(bool, lambda: self.gate.paused, self.gate.take_pause)
                    self._leadership.share({"pause": pause, **self.pipeline.decisions()})
                    self._leadership.start(self.pipeline.look_at_leadership)
                return

    def _connect(self) -> Pipeline:
        self.session.open()
        uuid = self.session.instance_uuid
        self._look_at_identity()
        memory = ScopeMemory(self._state_directory / f"{uuid}.scope.json")
        known = scope.list_compute_resources(self.session)
        morefs, troubles = memory.resolve(
            self.config.eam.clusters, lambda paths: scope.match(self.session.name, known, paths)
        )
        if troubles:
            self.alarms.raise_("scope", " ".join(troubles))
        else:
            self.alarms.clear("scope")
        if self._outbox is None:
            self._outbox = Outbox(
                self._state_directory / f"{uuid}.outbox.sqlite",
                vcenter_uuid=uuid,
                publisher=self._publisher_name,
                now=self._wall_clock,
                bound=self._rabbit.rabbit_max_pending_updates,
            )
        self._log.info(
            "Connected to %s (%s) as %s; scope: %s.",
            self.session.name,
            uuid,
            self.session.identities[0],
            ", ".join(self.config.eam.clusters),
        )
        if self._leadership is None:
            self._leadership = self._elect(uuid, lambda: self._outbox.last_epoch if self._outbox is not None else 0)
        publisher = Publisher(
            self._broker,
            self._outbox,
            clock=self._clock,
            on_state=self._publisher_state,
            after_publish=partial(failpoints.reach, failpoints.AFTER_PUBLISH),
            after_confirm=partial(failpoints.reach, failpoints.AFTER_CONFIRM),
        )
        return Pipeline(
            self.session,
            morefs,
            memory,
            self._outbox,
            publisher,
            self.config.eam,
            self._rabbit,
            state=self._state_directory / uuid,
            host_specs=self._host_specs,
            wall_clock=self._wall_clock,
            package=self._package,
            gate=self.gate,
            leadership=self._leadership,
            clock=self._clock,
            alarms=self.alarms,
            log=self._log,
            tally=self.tally,
            on_change=partial(self._on_change, self.name),
            tell=self._tell,
        )

    def _look_at_identity(self) -> None:
        key, account = self.session.settings.extension_key, self.session.settings.principal
        if key and not self.session.is_extension:
            self.alarms.raise_(
                "identity",
                f"vCenter does not take {account} for the extension {key}, so agencies are that account's. Bind it "
                f"(vcenter-eam extension register --service-account), or leave vc_extension_key empty.",
            )
        else:
            self.alarms.clear("identity")

    def _publisher_state(self, link: dict[str, Any]) -> None:
        """The broker's troubles as alarms: it cannot be used, or it does not take some messages."""
        if link["state"] in (LinkState.DOWN, LinkState.REFUSED, LinkState.BLOCKED):
            why = (
                link["last_error"] or f"broker {link['broker']} takes no messages: its memory or disk alarm is raised."
            )
            self.alarms.raise_("bus", f"{why} What is to be sent waits in the outbox.")
        elif link["state"] == LinkState.UP:
            self.alarms.clear("bus")
        if link["held"]:
            self.alarms.raise_("bus-refuses", f"The broker refuses messages: {link['held_reason']}.")
        else:
            self.alarms.clear("bus-refuses")


def _load_host_specs(config: VCenterUnit) -> HostSpecs:
    """The host specification, before any connection. Raises ConfigurationError for what concerns more than one host."""
    if config.eam.host_spec_file is None:
        return HostSpecs(vm_name_format=config.eam.vm_name_format)
    return host_spec_file.load(config.eam.host_spec_file, vm_name_format=config.eam.vm_name_format)


def session_settings(vcenter: VCenterConfig) -> SessionSettings:
    """How to log in, from the configuration."""
    return SessionSettings(
        host=vcenter.vc_host,
        port=vcenter.vc_port,
        username=vcenter.vc_username,
        password=vcenter.vc_password,
        extension_key=vcenter.vc_extension_key,
        client_cert=str(vcenter.vc_client_cert) if vcenter.vc_client_cert else None,
        client_key=str(vcenter.vc_client_key) if vcenter.vc_client_key else None,
        tunnel_port=vcenter.vc_tunnel_port,
        ca_file=str(vcenter.vc_ca_certs) if vcenter.vc_ca_certs else None,
        thumbprint=vcenter.vc_thumbprint or None,
        insecure=vcenter.vc_insecure,
        call_timeout=vcenter.vc_call_timeout,
        wait_seconds=vcenter.vc_wait_seconds,
    )
