# SPDX-License-Identifier: Apache-2.0
"""From ``[RABBIT]`` of the configuration to what the bus wants to know. For whatever composes the parts."""

from __future__ import annotations

from vcenter_eam_plugin.bus.broker import BrokerSettings, Tls
from vcenter_eam_plugin.config import RabbitConfig


def broker_settings(rabbit: RabbitConfig) -> BrokerSettings:
    """The brokers of ``[RABBIT]``; the password is asked for at each login."""
    tls = Tls(ca_file=rabbit.kombu_ssl_ca_certs, cert_file=rabbit.kombu_ssl_certfile, key_file=rabbit.kombu_ssl_keyfile)
    return BrokerSettings(
        hosts=tuple((address.host, address.port or rabbit.rabbit_port) for address in rabbit.rabbit_hosts),
        user=rabbit.rabbit_user,
        password=rabbit.rabbit_password,
        vhost=rabbit.rabbit_vhost,
        tls=tls if rabbit.rabbit_use_ssl else None,
        heartbeat=rabbit.rabbit_health_check_interval,
        exchange=rabbit.exchange,
        queue=rabbit.queue,
        window=rabbit.publish_window,
    )
