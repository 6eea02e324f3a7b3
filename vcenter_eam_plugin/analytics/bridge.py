# SPDX-License-Identifier: Apache-2.0
"""From the bus to analytics: reads messages, keeps what analytics is to hold, sends what changed.

With ``memory`` the newest messages outlive a restart, for a queue that gives each message once. What analytics holds of
a generator ends with the generator's connection, so at the start everything that is remembered is sent anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

from gevent.lock import RLock

from vcenter_eam_plugin.analytics.memory import Memory
from vcenter_eam_plugin.analytics.sender import Send
from vcenter_eam_plugin.analytics.uve import Uve, Uves
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.consumer import Consumer
from vcenter_eam_plugin.domain.errors import PluginError

log = logging.getLogger(__name__)


class Bridge:
    """``queue`` is shared by all who name it, so one bridge alone may read it; without, the queue is private.

    ``vcenters`` are those to tell of at first (by instanceUuid), ``None`` for all.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        send: Send,
        *,
        queue: str | None = None,
        memory: Memory | None = None,
        vcenters: Collection[str] | None = None,
        on_trouble: Callable[[PluginError], object] | None = None,
    ) -> None:
        self._send = send
        self._memory = memory
        self._turn = RLock()
        """Deciding and sending are one step: what is decided later must not be sent earlier."""
        self.uves = Uves()
        self.uves.allow(vcenters)
        self.consumer = Consumer(settings, self._received, queue=queue, on_dropped=self._dropped, on_trouble=on_trouble)

    def run(self) -> None:
        """Send what is remembered, then what comes, until :meth:`stop`. Raises what Consumer.run raises, and what
        sending or remembering raised; a message that was not dealt with comes again."""
        for message, vrouter in self._memory.known() if self._memory is not None else ():
            self.consumer.view.apply(message)
            with self._turn:
                self._tell(self._restored(message, vrouter))
        self.consumer.run()

    def stop(self, timeout: float = 5.0) -> bool:
        """End :meth:`run`; returns whether it ended within ``timeout`` seconds."""
        return self.consumer.stop(timeout)

    def allow(self, vcenters: Collection[str] | None) -> None:
        """From now on tell of these vCenters alone; what analytics holds of others is deleted there."""
        with self._turn:
            self._tell(self.uves.allow(vcenters))

    def _restored(self, message: dict[str, Any], vrouter: str) -> list[Uve]:
        try:
            return self.uves.restore(message, vrouter)
        except ValueError as exc:
            log.warning("What was remembered of a ContrailVM is of another release and is left out: %s.", exc)
            return []

    def _received(self, message: dict[str, Any]) -> None:
        with self._turn:
            try:
                changes = self.uves.apply(message)
            except ValueError as exc:
                # Raised, it would have the message come again for ever.
                log.warning("A message was not told to analytics: %s.", exc)
                return
            self._tell(changes)
        if self._memory is None or message["key"] is None:
            return
        if message["oper"] == "DELETE":
            self._memory.forget([message["key"]])
        else:
            self._memory.keep(message, self.uves.vrouter(message["key"]))

    def _dropped(self, keys: tuple[str, ...]) -> None:
        with self._turn:
            self._tell(self.uves.drop(keys))
        if self._memory is not None:
            self._memory.forget(keys)

    def _tell(self, changes: Iterable[Uve]) -> None:
        for uve in changes:
            self._send(uve)
