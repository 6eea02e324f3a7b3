# SPDX-License-Identifier: Apache-2.0
"""What stands in [RABBIT] arrives at the bus."""

from pathlib import Path

from vcenter_eam_plugin.brokers import broker_settings
from vcenter_eam_plugin.bus.broker import EXCHANGE, QUEUE, BrokerSettings, Tls
from vcenter_eam_plugin.config import RabbitConfig
from vcenter_eam_plugin.options import Address, Secret


def test_defaults_of_the_configuration_are_those_of_the_bus() -> None:
    """One truth: what the page of settings says holds for users of the library, too."""
    given, own = broker_settings(RabbitConfig()), BrokerSettings()
    assert given.password() == own.password()
    for name in ("hosts", "user", "vhost", "tls", "heartbeat", "exchange", "queue", "window"):
        assert getattr(given, name) == getattr(own, name), name
    assert (RabbitConfig().exchange, RabbitConfig().queue) == (EXCHANGE, QUEUE)


def test_every_setting_arrives() -> None:
    settings = broker_settings(
        RabbitConfig(
            rabbit_hosts=(Address("a"), Address("::1", 5)),
            rabbit_port=7,
            rabbit_vhost="v",
            rabbit_user="u",
            rabbit_password=Secret("hunter2"),
            rabbit_use_ssl=True,
            kombu_ssl_ca_certs=Path("/ca"),
            kombu_ssl_certfile=Path("/cert"),
            kombu_ssl_keyfile=Path("/key"),
            rabbit_health_check_interval=3,
            exchange="e",
            queue="q",
            publish_window=9,
        )
    )
    assert settings.hosts == (("a", 7), ("::1", 5))
    assert (settings.user, settings.password(), settings.vhost) == ("u", "hunter2", "v")
    assert settings.tls == Tls(ca_file=Path("/ca"), cert_file=Path("/cert"), key_file=Path("/key"))
    assert (settings.heartbeat, settings.exchange, settings.queue, settings.window) == (3, "e", "q", 9)
    assert "hunter2" not in repr(settings)
