# SPDX-License-Identifier: Apache-2.0
"""The brokers and ZooKeeper: reachable, trusted, logged in to. Nothing is declared and no node is made."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import gevent

from vcenter_eam_plugin.brokers import broker_settings
from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.cluster.client import ZooKeeper
from vcenter_eam_plugin.config import RabbitConfig, ZookeeperConfig
from vcenter_eam_plugin.domain.errors import BrokerRefused, CertificateRejected, LoginRefused, PluginError
from vcenter_eam_plugin.preflight.finding import Finding, Subject
from vcenter_eam_plugin.zookeepers import zookeeper_settings

QUORUM_SINCE = (3, 8)
"""Release of RabbitMQ from which the default queue is a quorum queue, and survives the loss of a node."""
ZOOKEEPER_SECONDS = 5.0
"""Within which a session must be there; a service that starts waits for ever, a person does not."""


def look_at_brokers(rabbit: RabbitConfig) -> Iterator[Finding]:
    """Each broker by itself: the service needs one, and fails over to the others."""
    settings = broker_settings(rabbit)
    for index in range(len(settings.hosts)):
        about = Subject(f"broker {settings.name(index)}")
        try:
            connection = broker.connect(settings, index)
        except CertificateRejected as exc:
            yield about.refused("certificate", exc)
        except (LoginRefused, BrokerRefused) as exc:
            yield about.refused("login", exc)
        except PluginError as exc:
            yield about.refused(
                "reachable", exc, "Check rabbit_hosts and rabbit_port, that RabbitMQ runs there, and the firewall."
            )
        else:
            version = broker.server_version(connection.connection)
            broker.close(connection, polite=True)
            yield about.passed("login", f"as {settings.user} to {settings.vhost}")
            yield _version(about, version)


def _version(about: Subject, version: tuple[int, ...]) -> Finding:
    shown = ".".join(map(str, version)) or "unknown"
    if version >= QUORUM_SINCE:
        return about.passed("version", f"RabbitMQ {shown}: the default queue is a quorum queue")
    return about.warned(
        "version",
        f"RabbitMQ {shown}: the default queue is a classic one",
        "With 3.8 or later it is a quorum queue, which survives the loss of a broker's node.",
    )


def look_at_zookeeper(zookeeper: ZookeeperConfig) -> Iterator[Finding]:
    """A session, once."""
    settings = zookeeper_settings(zookeeper)
    about = Subject(f"ZooKeeper {settings.hosts}")
    quiet = logging.getLogger("vcenter_eam_plugin.preflight.zookeeper")
    quiet.propagate = False  # kazoo tells of each attempt, and here the finding does
    try:
        client = ZooKeeper.connect_to(settings, quiet)
    except PluginError as exc:
        yield about.refused("reachable", exc)
        return
    client.start()
    try:
        with gevent.Timeout(ZOOKEEPER_SECONDS, False):
            while not client.client.connected:
                gevent.sleep(0.05)
        if client.client.connected:
            yield about.passed("reachable", f"a session of {client.session_timeout:g} s")
        else:
            yield about.failed(
                "reachable",
                f"no session within {ZOOKEEPER_SECONDS:g} s: {client.trouble() or 'no answer'}",
                "Check zookeeper_servers, that a majority of them runs, zookeeper_ssl_*, and the firewall. Without it "
                "nobody is elected, and nobody acts or publishes.",
            )
    finally:
        client.stop(ZOOKEEPER_SECONDS)
