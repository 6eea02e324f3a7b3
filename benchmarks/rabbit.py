# SPDX-License-Identifier: Apache-2.0
"""A private RabbitMQ for what is measured: the Debian package's, with its quorum queue, as the tests start it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.rabbit import RabbitNode
from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.bus.broker import BrokerSettings


@contextmanager
def rabbit() -> Iterator[BrokerSettings]:
    """How to reach one that ends with the block; exchange and default queue are declared."""
    with tempfile.TemporaryDirectory(prefix="eam-rabbit-") as folder:
        node = RabbitNode(Path(folder))
        try:
            node.start()
            settings = BrokerSettings(hosts=(("127.0.0.1", node.port),), vhost=node.make_vhost())
            connection = broker.connect(settings)
            broker.declare(settings, connection.channel(), "benchmark")
            broker.close(connection, polite=True)
            yield settings
        finally:
            node.close()


def empty(settings: BrokerSettings) -> None:
    """Take everything out of the default queue, so that each run finds it as the one before did."""
    connection = broker.connect(settings)
    connection.channel().queue_purge(settings.queue)
    broker.close(connection, polite=True)
