# SPDX-License-Identifier: Apache-2.0
"""Composition root: from the configuration to one running pipeline per vCenter.

Used by the daemon, by the in-process plugin and by the demo alike. It installs no signal handler and touches
no root logger.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent.event import Event

from vcenter_eam_plugin import audit
from vcenter_eam_plugin.audit import AuditTrail
from vcenter_eam_plugin.brokers import broker_settings
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.config import Configuration
from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.domain.leadership import Leadership
from vcenter_eam_plugin.domain.status import ContrailVm
from vcenter_eam_plugin.history import History
from vcenter_eam_plugin.leadership import Alone, HostSays
from vcenter_eam_plugin.loop_watch import LoopWatch
from vcenter_eam_plugin.map_file import MapFile, MapKeeper
from vcenter_eam_plugin.operations import Operations
from vcenter_eam_plugin.ovf.server import OvfServer
from vcenter_eam_plugin.packages import PackageSource
from vcenter_eam_plugin.permissions import own_directory
from vcenter_eam_plugin.redaction import Redactor, secrets_of
from vcenter_eam_plugin.unit import Unit
from vcenter_eam_plugin.witness import Witness

if TYPE_CHECKING:
    from vcenter_eam_plugin.cluster.client import ZooKeeper

STOP_SECONDS = 5.0
"""What an orderly end may take, from SIGTERM to the last greenlet."""


class Endpoint(Protocol):
    """A way in for people, or out to other systems. ``start`` never raises: what goes wrong is an alarm or a line in
    the log, and the service runs on without it."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class Service:
    """All vCenters of one process.

    A host process may say who leads (``is_master``) or lend its ``zookeeper`` for an election; else ``[ZOOKEEPER]``
    says where to elect, and without it we lead alone. ``broker`` replaces what ``[RABBIT]`` says.
    ``endpoints`` make the ways in and out, which sit on the service and are started and stopped with it.
    ``explain_holds``: look who holds the event loop, by a thread; not in somebody else's process.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        broker: BrokerSettings | None = None,
        is_master: Callable[[], object] | None = None,
        zookeeper: ZooKeeper | None = None,
        logger: logging.Logger | None = None,
        endpoints: Sequence[Callable[[Service], Endpoint]] = (),
        explain_holds: bool = False,
    ) -> None:
        self.configuration = configuration
        self.log = logger or logging.getLogger("vcenter_eam_plugin")
        self.broker = broker or broker_settings(configuration.rabbit)
        self.name = f"{socket.getfqdn()}:{os.getpid()}"
        """What other instances and the operators know us by."""
        self._is_master = is_master
        self._zookeeper = zookeeper if zookeeper is not None else self._make_zookeeper()
        self._loop_watch = LoopWatch(self.log.getChild("loop"), explain=explain_holds)
        self._ovf = self._make_ovf_server()
        self.units: list[Unit] = []
        self.trail = AuditTrail(
            configuration.defaults.state_directory / audit.NAME,
            wall_clock=time.time,
            redact=Redactor(lambda: secrets_of(configuration), time.monotonic),
            on_trouble=self._audit_trouble,
        )
        self.witness = Witness(self.trail.tell, time.time)
        self.history = History(time.time)
        self.operations = Operations(self.units, self.log, self.trail, self.witness)
        self._endpoints = [make(self) for make in endpoints]
        self._watching: dict[str, gevent.Greenlet] = {}

    def start(self) -> None:
        """Check what is local, then start everything; returns at once. Raises ConfigurationError, and starts nothing.

        A server that cannot be reached is no error here: it is reported, and tried again.
        """
        directory = own_directory(self.configuration.defaults.state_directory)
        for warning in self.configuration.warnings:
            self.log.warning("%s", warning)
        vrouter_map = self._make_map_file(directory)
        if self._ovf is not None:
            self._ovf.start()
        self.trail.start(self.witness.remember)
        packages = []
        for config in self.configuration.vcenters:
            package = PackageSource(config.eam, config.vcenter, self._ovf)
            packages.append(package)
            self.units.append(
                Unit(
                    config,
                    self.configuration.rabbit,
                    self.broker,
                    directory,
                    publisher_name=socket.getfqdn(),
                    package=package,
                    elect=self._elect,
                    log=self.log.getChild(config.name),
                    on_change=self._changed,
                    tell=self.trail.tell,
                )
            )
        self._loop_watch.start()
        if self._zookeeper is not None:
            self._zookeeper.start()
        for unit in self.units:
            unit.start()
        for unit, package in zip(self.units, packages, strict=True):
            # A new leader or a restart must serve what agencies already point to, before anybody asks for a new one.
            self._watching[f"{unit.name}/ovf-package"] = gevent.spawn(package.watch, unit.alarms, unit.agency)
        if vrouter_map is not None:
            keeper = MapKeeper(vrouter_map, self.units, self.log.getChild("vrouter-map"))
            self._watching["vrouter-map"] = gevent.spawn(keeper.run)
        for endpoint in self._endpoints:
            endpoint.start()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End everything in order within ``timeout`` seconds; what is unsent stays in the outbox."""
        for endpoint in self._endpoints:
            endpoint.stop()
        self.operations.stop()
        gevent.joinall([gevent.spawn(unit.stop, timeout * 0.9) for unit in self.units], timeout=timeout)
        if self._zookeeper is not None:
            self._zookeeper.stop(timeout * 0.2)
        self.trail.stop(timeout * 0.1)
        gevent.killall(list(self._watching.values()))
        if self._ovf is not None:
            self._ovf.stop()
        self._loop_watch.stop()

    def first_failure(self, give_up: Event) -> PluginError | None:
        """Wait until each vCenter was tried once, or ``give_up``.

        Returns the error if none of them can be used and time cannot heal it.
        """
        for unit in self.units:
            gevent.wait([unit.first_attempt, give_up], count=1)
        errors = [unit.first_error for unit in self.units]
        if errors and all(error is not None and not error.retry for error in errors):
            return errors[0]
        return None

    def given_out(self) -> bool:
        """Whether the first complete picture of every vCenter was given to whoever is told."""
        return all(unit.pipeline is not None and unit.pipeline.fleet.given_out for unit in self.units)

    def activate(self) -> None:
        """Act from now on."""
        for unit in self.units:
            unit.activate()

    def pause(self) -> None:
        """Stop acting; watching and publishing go on."""
        for unit in self.units:
            unit.pause()

    def status(self) -> dict[str, Any]:
        """How it is, in plain values; holds no secret."""
        return {"vcenters": [unit.status() for unit in self.units], "loop": self._loop_watch.status()}

    def greenlets(self) -> dict[str, gevent.Greenlet]:
        """Every greenlet of ours, by name."""
        found = dict(self._watching) | self.operations.greenlets() | self._loop_watch.greenlets()
        if self.trail.greenlet is not None:
            found["audit"] = self.trail.greenlet
        if self._zookeeper is not None:
            found |= self._zookeeper.greenlets()
        for unit in self.units:
            found |= {f"{unit.name}/{name}": greenlet for name, greenlet in unit.greenlets().items()}
        return found

    def _changed(self, vcenter: str, changed: Sequence[ContrailVm]) -> None:
        """For people who look: the audit trail, and the page's timeline."""
        pipeline = next(unit.pipeline for unit in self.units if unit.name == vcenter)
        self.witness.see(vcenter, changed, more=pipeline is not None and pipeline.fleet.owed)
        self.history.record(vcenter, changed)

    def _audit_trouble(self, why: str) -> None:
        for unit in self.units:
            if why:
                unit.alarms.raise_("audit", why)
            else:
                unit.alarms.clear("audit")

    def _make_zookeeper(self) -> ZooKeeper | None:
        settings = self.configuration.zookeeper
        if settings is None or self._is_master is not None:
            return None
        # Here alone: 2 MiB that a daemon without an election never needs.
        from vcenter_eam_plugin.cluster.client import ZooKeeper  # noqa: PLC0415
        from vcenter_eam_plugin.zookeepers import zookeeper_settings  # noqa: PLC0415

        return ZooKeeper.connect_to(zookeeper_settings(settings), self.log.getChild("zookeeper"))

    def _elect(self, vcenter_uuid: str, least: Callable[[], int]) -> Leadership:
        if self._is_master is not None:
            return HostSays(self._is_master, self.name, self.log)
        if self._zookeeper is None:
            return Alone(self.name)
        from vcenter_eam_plugin.cluster.election import Election  # noqa: PLC0415

        return Election(
            self._zookeeper,
            vcenter_uuid,
            self.name,
            least=least,
            clock=time.monotonic,
            wall_clock=time.time,
            log=self.log.getChild("election"),
        )

    def _make_map_file(self, directory: Path) -> MapFile | None:
        path = self.configuration.defaults.vrouter_map_file
        return None if path is None else MapFile(path, directory / "vrouter-map.json")

    def _make_ovf_server(self) -> OvfServer | None:
        defaults = self.configuration.defaults
        if all(unit.eam.ovf_package is None for unit in self.configuration.vcenters):
            return None
        return OvfServer(
            (defaults.ovf_server_ip, defaults.ovf_server_port),
            defaults.ovf_base_url,
            self.log,
            certificate=defaults.ovf_server_cert,
            key=defaults.ovf_server_key,
            index=defaults.state_directory / "ovf-index.json",
        )
