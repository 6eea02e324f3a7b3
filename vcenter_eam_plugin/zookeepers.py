# SPDX-License-Identifier: Apache-2.0
"""From ``[ZOOKEEPER]`` of the configuration to what the election wants to know. For whatever composes the parts."""

from __future__ import annotations

from vcenter_eam_plugin.cluster.client import ZooKeeperSettings
from vcenter_eam_plugin.config import ZookeeperConfig

PORT = 2181
"""Of servers that name none."""


def zookeeper_settings(zookeeper: ZookeeperConfig) -> ZooKeeperSettings:
    """The servers of ``[ZOOKEEPER]``, and how to talk to them."""
    return ZooKeeperSettings(
        hosts=",".join(f"{each.host}:{each.port or PORT}" for each in zookeeper.zookeeper_servers),
        timeout=zookeeper.zk_timeout,
        tls=zookeeper.zookeeper_ssl_enable,
        ca_file=zookeeper.zookeeper_ssl_ca_cert,
        cert_file=zookeeper.zookeeper_ssl_certificate,
        key_file=zookeeper.zookeeper_ssl_keyfile,
    )
