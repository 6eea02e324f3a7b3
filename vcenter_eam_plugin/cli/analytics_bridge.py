# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam analytics-bridge``: turns the messages on the bus into UVEs. Ends on SIGTERM or SIGINT.

Reads the durable queue that is there for analytics and remembers over restarts what it read, so it is to be the only
reader. With ``--json`` it looks on through a private queue, unless one is named, and takes nothing away from anybody.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path

import click

from vcenter_eam_plugin.analytics.bridge import Bridge
from vcenter_eam_plugin.analytics.definition import shipped
from vcenter_eam_plugin.analytics.memory import Memory
from vcenter_eam_plugin.analytics.sender import SandeshSender, generated_types, json_line, new_generator
from vcenter_eam_plugin.analytics.uve import Uve
from vcenter_eam_plugin.brokers import broker_settings
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.cli.common import (
    configuration_files,
    listen_until_stopped,
    load_configuration,
    tell_trouble,
)
from vcenter_eam_plugin.config import AnalyticsConfig

_COLLECTOR_PORT = 8086
"""Where a contrail-collector listens for generators."""


@click.command("analytics-bridge")
@configuration_files
@click.option("--broker", metavar="URL", help="amqp://user:password@host:port/vhost instead of the configuration's.")
@click.option("--queue", metavar="NAME", help="Read this durable queue; default: that of [RABBIT], with --json none.")
@click.option(
    "--memory",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What is known of each ContrailVM, over restarts; default: analytics.sqlite in state_directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the UVEs, one JSON object a line, and send nothing.")
@click.option("--definition", is_flag=True, help="Print the .sandesh file that Contrail's build needs, and end.")
def command(
    paths: tuple[Path, ...],
    broker: str | None,
    queue: str | None,
    memory: Path | None,
    as_json: bool,
    definition: bool,
) -> None:
    """Tell Contrail's analytics what the messages on the bus say.

    Needs pysandesh and the package that Contrail's build makes of the .sandesh file; see docs/analytics.md.

    Example: vcenter-eam analytics-bridge --json -c /etc/contrail/contrail-vcenter-eam-plugin/vcenter_eam.conf
    """
    if definition:
        click.echo(shipped(), nl=False)
        return
    configuration = load_configuration(paths, need_vcenter=False)
    settings = BrokerSettings.from_url(broker) if broker else broker_settings(configuration.rabbit)
    send = _print if as_json else _sandesh(configuration.analytics)
    if queue is None and not as_json:
        queue = settings.queue
    kept = None
    if queue is not None:
        kept = Memory(memory or configuration.defaults.state_directory / "analytics.sqlite")
    try:
        bridge = Bridge(settings, send, queue=queue, memory=kept, on_trouble=tell_trouble)
        listen_until_stopped(bridge, bridge.consumer.ready, settings.name(0))
    finally:
        if kept is not None:
            kept.close()


def _print(uve: Uve) -> None:
    click.echo(json_line(uve))


def _sandesh(analytics: AnalyticsConfig) -> Callable[[Uve], object]:
    types = generated_types()
    collectors = [f"{address.host}:{address.port or _COLLECTOR_PORT}" for address in analytics.collectors]
    return SandeshSender(
        new_generator(collectors, socket.getfqdn()), types, logging.getLogger("vcenter_eam_plugin.analytics")
    )
