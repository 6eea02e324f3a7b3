# SPDX-License-Identifier: Apache-2.0
"""Where the brokers are: URLs, names in sentences, and nothing secret in either."""

from __future__ import annotations

import pytest

from vcenter_eam_plugin.bus.broker import BrokerSettings, server_version
from vcenter_eam_plugin.domain.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "host", "user", "password", "vhost", "tls"),
    [
        ("amqp://", ("localhost", 5672), "guest", "guest", "/", False),
        ("amqp://h", ("h", 5672), "guest", "guest", "/", False),
        ("amqp://u:p%40%2F%3A@h:5673//", ("h", 5673), "u", "p@/:", "/", False),
        ("amqps://h/%2F", ("h", 5671), "guest", "guest", "/", True),
        ("pyamqp://u:@[::1]:1/v%20w", ("::1", 1), "u", "", "v w", False),
    ],
)
def test_urls(url: str, host: tuple[str, int], user: str, password: str, vhost: str, tls: bool) -> None:
    settings = BrokerSettings.from_url(url)
    assert (settings.hosts, settings.user, settings.password(), settings.vhost) == ((host,), user, password, vhost)
    assert (settings.tls is not None) is tls
    assert not settings.memory


def test_memory_is_one_host_without_network() -> None:
    settings = BrokerSettings.from_url("memory://", window=7)
    assert (settings.memory, settings.window, settings.name(0)) == (True, 7, "memory://")


@pytest.mark.parametrize("url", ["http://u:secret-77@h", "amqp://u:secret-77@h:port/", "u:secret-77@h", "redis://"])
def test_other_urls_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BrokerSettings.from_url(url)
    assert "secret-77" not in str(caught.value)


def test_no_repr_or_name_holds_the_password() -> None:
    settings = BrokerSettings.from_url("amqp://u:secret-77@h/v")
    assert "secret-77" not in repr(settings)
    assert settings.name(0) == "h:5672/v"


@pytest.mark.parametrize(
    ("properties", "version"),
    [({"version": "3.10.8"}, (3, 10, 8)), ({"version": "4.0.0-rc.1"}, (4, 0)), ({}, ()), (None, ())],
)
def test_server_version(properties: object, version: tuple[int, ...]) -> None:
    """A release candidate of 4.0 has quorum queues too; who says nothing gets a classic queue."""
    connection = type("Connection", (), {"server_properties": properties})()
    assert server_version(connection)[:2] == version[:2]
