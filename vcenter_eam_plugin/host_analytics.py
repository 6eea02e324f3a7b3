# SPDX-License-Identifier: Apache-2.0
"""UVEs through the sandesh generator of a host process: the analytics bridge in somebody else's process.

It tells of those vCenters alone that this instance leads, so that of several hosts with the plugin one tells of each
ContrailVM; when the lead is lost, what was told is deleted again, and the new leader's host tells it. It reads the bus
like anybody else, through a private queue, and has the leader send a snapshot whenever that queue begins.

Never raises into the host: what lacks is a status, and the plugin runs on without analytics.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import gevent
from gevent.event import Event

from vcenter_eam_plugin.analytics.bridge import Bridge
from vcenter_eam_plugin.analytics.sender import SandeshSender, Send, generated_types
from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.service import Service

TICK = 1.0
"""Seconds between two looks at who leads."""

REFUSED_RETRY = 30.0
"""Seconds before a broker that refused us is asked again; the publisher's alarm tells of it meanwhile."""


def sandesh_sender(sandesh: Any, log: logging.Logger) -> Send:
    """Sends through the host's generator. Raises ConfigurationError that says what lacks."""
    return SandeshSender(sandesh, generated_types(), log)


class HostAnalytics:
    """An endpoint of the service: it starts and stops it. ``send`` hands one UVE to the host's generator."""

    def __init__(self, service: Service, send: Send) -> None:
        self._service = service
        self._send = send
        self._log = service.log.getChild("analytics")
        self._bridge: Bridge | None = None
        self._missed = False
        """Whether something may have been said that nobody kept for us."""
        self._stopping = Event()
        self._greenlets: dict[str, gevent.Greenlet] = {}

    def start(self) -> None:
        """Tell from now on; returns at once."""
        self._stopping.clear()
        self._bridge = None
        self._greenlets = {
            "analytics/listen": gevent.spawn(self._listen),
            "analytics/lead": gevent.spawn(self._follow),
        }

    def stop(self) -> None:
        """Tell no more, and take back what was told: the generator outlives us."""
        self._stopping.set()
        if self._bridge is not None:
            self._bridge.stop(1.0)
        gevent.killall(list(self._greenlets.values()), timeout=1.0)
        self._allow(())

    def greenlets(self) -> dict[str, gevent.Greenlet]:
        """Ours, by name."""
        return dict(self._greenlets)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            self._allow(())
            self._missed = True
            self._bridge = Bridge(self._service.broker, self._send, vcenters=self._led(), on_trouble=self._reconnecting)
            try:
                self._bridge.run()
            except PluginError as exc:
                self._log.warning("Analytics is not told of anything now: %s", exc)
            except Exception:  # noqa: BLE001 - the generator is the host's, and may raise anything
                self._log.exception("Telling analytics ended unexpectedly.")
            self._stopping.wait(REFUSED_RETRY)

    def _follow(self) -> None:
        while not self._stopping.wait(TICK):
            self._allow(self._led())
            if self._missed and self._bridge is not None and self._bridge.consumer.ready.is_set():
                self._missed = False
                self._request_snapshots()

    def _reconnecting(self, error: PluginError) -> None:
        self._log.warning("Analytics is told of what was missed once this is over: %s", error)
        self._missed = True

    def _led(self) -> frozenset[str]:
        return frozenset(
            unit.session.instance_uuid
            for unit in self._service.units
            if unit.pipeline is not None and unit.pipeline.delivery.leads()
        )

    def _allow(self, vcenters: Collection[str]) -> None:
        if self._bridge is None:
            return
        try:
            self._bridge.allow(vcenters)
        except Exception:  # noqa: BLE001 - the same
            self._log.exception("The host's generator did not take what analytics is to hold.")

    def _request_snapshots(self) -> None:
        for unit in self._service.units:
            if unit.pipeline is not None:
                try:
                    unit.pipeline.delivery.request_snapshot()
                except PluginError as exc:
                    self._log.warning("Analytics waits for the next snapshot: %s", exc)
