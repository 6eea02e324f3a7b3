# SPDX-License-Identifier: Apache-2.0
"""A publisher at work, and what stands around it, for tests against a real RabbitMQ."""

from __future__ import annotations

import json
from typing import Any

import gevent
import kombu

from tests.support.rabbit import wait_for
from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.publisher import Publisher


class Running:
    """A publisher in its greenlet, and the states it reported."""

    def __init__(self, settings: BrokerSettings, outbox: Outbox) -> None:
        self.outbox = outbox
        self.told: list[dict[str, Any]] = []
        self.publisher = Publisher(settings, outbox, on_state=self.told.append)
        self.greenlet = gevent.spawn(self.publisher.run)

    def wait_state(self, state: str, deadline: float = 30.0) -> dict[str, Any]:
        wait_for(lambda: self.publisher.status()["state"] == state, deadline, f"state {state}")
        return self.publisher.status()

    def say(self, *statuses: Any) -> None:
        self.outbox.accept(statuses)
        self.publisher.wake()

    def wait_sent(self, deadline: float = 30.0) -> None:
        wait_for(lambda: self.outbox.backlog == 0, deadline, "an empty outbox")

    @property
    def states(self) -> list[str]:
        return [str(told["state"]) for told in self.told]


class SecondClient:
    """A channel beside the publisher's, closed with its connection at the end of the block."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._connection: kombu.Connection = broker.connect(settings)

    def __enter__(self) -> Any:
        return self._connection.channel()

    def __exit__(self, *_: object) -> None:
        broker.close(self._connection, polite=True)


def bodies(deliveries: list[Any]) -> list[dict[str, Any]]:
    return [json.loads(message.body) for message in deliveries]
