# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam listen``: what is published, as it comes, each message once.

Looks on through a private queue unless one is named, so it takes nothing away from anybody. Ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.brokers import broker_settings
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.consumer import Consumer
from vcenter_eam_plugin.cli.common import (
    configuration_files,
    listen_until_stopped,
    load_configuration,
    tell_trouble,
)

MOST_SHOWN = 500
"""Characters of a message that is none of ours."""


def line(message: Mapping[str, Any]) -> str:
    """One message for a person: when, what, which host, from which state to which, why."""
    try:
        return _line(message)
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError):
        return _printable(f"a message that is not understood: {json.dumps(message)[:MOST_SHOWN]}")


def _line(message: Mapping[str, Any]) -> str:
    at = datetime.fromtimestamp(message["timestamp"] / 1e6, UTC).astimezone()
    when = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"
    if message["key"] is None:
        snapshot = message["snapshot"]
        return _printable(f"{when} {message['oper']:6} snapshot of {snapshot['count']}: {snapshot['phase'].lower()}")
    old, new = message["old_state"], message["state"]
    states = new if old in (None, new) else f"{old} -> {new}"
    return _printable(f"{when} {message['oper']:6} {message['esxi']['name']:24} {states:28} {message['reason']}")


def _printable(text: str) -> str:
    """Text from vCenter may hold anything; a terminal would obey its control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).rstrip()


@click.command("listen")
@configuration_files
@click.option("--broker", metavar="URL", help="amqp://user:password@host:port/vhost instead of the configuration's.")
@click.option("--queue", metavar="NAME", help="Read this durable queue, sharing its messages; default: a private one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per message, as it was published.")
def command(paths: tuple[Path, ...], broker: str | None, queue: str | None, as_json: bool) -> None:
    """Print the messages on the bus as they come.

    Through a private queue unless one is named, so nothing is taken away from anybody. Ends with Ctrl-C.

    Example: vcenter-eam listen --json | jq 'select(.state != "ACTIVE")'
    """
    if broker:
        settings = BrokerSettings.from_url(broker)
    else:
        settings = broker_settings(load_configuration(paths, need_vcenter=False).rabbit)

    def show(message: dict[str, Any]) -> None:
        click.echo(json.dumps(message) if as_json else line(message))

    def dropped(keys: tuple[str, ...]) -> None:
        click.echo(f"vcenter-eam: gone, by the snapshot: {', '.join(keys)}", err=True)

    consumer = Consumer(settings, show, queue=queue, on_dropped=dropped, on_trouble=tell_trouble)
    listen_until_stopped(consumer, consumer.ready, settings.name(0))
