# SPDX-License-Identifier: Apache-2.0
"""What a Contrail host service loads: entry-point group ``contrail.vcenter.plugins``, name ``eam``.

The host is a gevent process that has patched the standard library and has its own signals, logging and
sandesh. So this installs no signal handler, touches no root logger, patches nothing, and never raises into its
host: what is wrong is in :meth:`EamPlugin.status`.

The right host is a controller-side Python service. contrail-vcenter-manager runs once inside every ContrailVM:
it is refused, because the plugin would run once per host and not before the first ContrailVM exists. The Java
contrail-vcenter-plugin cannot load Python; it starts the daemon beside itself.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import gevent.monkey

from vcenter_eam_plugin.cluster.client import ZooKeeper
from vcenter_eam_plugin.config import Configuration, from_sections
from vcenter_eam_plugin.domain.errors import ConfigurationError, PluginError
from vcenter_eam_plugin.host_analytics import HostAnalytics, sandesh_sender
from vcenter_eam_plugin.service import STOP_SECONDS, Service
from vcenter_eam_plugin.web.control import ControlSocket
from vcenter_eam_plugin.web.server import WebServer

_NEEDED_PATCHES = ("socket", "ssl", "time", "threading", "select")
"""Without these one call to vCenter would stop the whole host."""
_ONE_PER_HOST = "cvm"
"""Top-level package of contrail-vcenter-manager."""


class EamPlugin:
    """``conf_sections`` is a parsed ConfigParser, ``conf_file`` a path or several; either or both.

    ``is_master`` is a callable that says whether the host leads, and then we do. Without it, ``zookeeper_client``, a
    KazooClient that the host starts and stops, serves for an election of our own; without both, ``[ZOOKEEPER]`` does,
    and without that we lead alone. Keywords that other plugins take are accepted and ignored, as hosts hand the same to
    all.

    ``sandesh`` is the host's generator: where Contrail's Python packages are installed, analytics is told of each
    ContrailVM through it (``docs/analytics.md``).
    """

    def __init__(
        self,
        conf_sections: Any = None,
        conf_file: str | Sequence[str] | None = None,
        sandesh: Any = None,
        logger: Any = None,
        zookeeper_client: Any = None,
        is_master: Callable[[], bool] | None = None,
        **ignored: Any,  # noqa: ARG002 - the same
    ) -> None:
        self._sections = conf_sections
        self._files = _paths(conf_file)
        self._sandesh = sandesh
        self._analytics: HostAnalytics | None = None
        self._analytics_says = "not told: the host handed over no sandesh"
        self._log = logger if isinstance(logger, logging.Logger) else logging.getLogger("vcenter_eam_plugin")
        self._zookeeper_client = zookeeper_client
        self._is_master = is_master
        self._service: Service | None = None
        self._refusal = "not started"

    def start(self) -> None:
        """Start and return at once; never raises. Whether it worked is in :meth:`status`."""
        if self._service is not None:
            return
        service: Service | None = None
        try:
            self._check_host()
            service = Service(
                self._configuration(),
                is_master=self._is_master,
                zookeeper=None if self._zookeeper_client is None else ZooKeeper.of_host(self._zookeeper_client),
                logger=self._log,
                endpoints=(ControlSocket, WebServer, *self._ways_out()),
            )
            service.start()
        except PluginError as exc:
            self._refuse(str(exc))
        except Exception as exc:  # noqa: BLE001 - the host must live on, whatever we did wrong
            self._log.exception("The EAM plugin could not start.")
            self._refuse(f"unexpected error: {type(exc).__name__}")
            self._end(service, STOP_SECONDS)
        else:
            self._service, self._refusal = service, ""

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End everything in order within ``timeout`` seconds; never raises. May be started again afterwards."""
        service, self._service = self._service, None
        self._refusal = "stopped"
        self._end(service, timeout)

    def _end(self, service: Service | None, timeout: float) -> None:
        if service is None:
            return
        try:
            service.stop(timeout)
        except Exception:  # noqa: BLE001 - the same
            self._log.exception("The EAM plugin did not end in order.")

    def status(self) -> dict[str, Any]:
        """``running``, why not if not, whether analytics is told, and the state of each vCenter. Holds no secret."""
        if self._service is None:
            return {"running": False, "reason": self._refusal, "vcenters": []}
        return {"running": True, "reason": "", "analytics": self._analytics_says, **self._service.status()}

    def greenlets(self) -> list[gevent.Greenlet]:
        """Every greenlet of ours, for the host's dump of stacks."""
        if self._service is None:
            return []
        told = self._analytics.greenlets() if self._analytics is not None else {}
        return [*self._service.greenlets().values(), *told.values()]

    def _ways_out(self) -> list[Callable[[Service], HostAnalytics]]:
        """To analytics, where the host's sandesh can carry our UVEs; a host without is no trouble."""
        if self._sandesh is None:
            return []
        try:
            send = sandesh_sender(self._sandesh, self._log.getChild("analytics"))
        except PluginError as exc:
            self._analytics_says = f"not told: {exc}"
            self._log.warning("Contrail's analytics is not told of ContrailVMs. %s", exc)
            return []
        except Exception as exc:  # noqa: BLE001 - whatever the host's generator raises, the plugin runs without it
            self._analytics_says = f"not told: unexpected error: {type(exc).__name__}"
            self._log.exception("Contrail's analytics is not told of ContrailVMs.")
            return []

        def make(service: Service) -> HostAnalytics:
            self._analytics = HostAnalytics(service, send)
            return self._analytics

        self._analytics_says = "told through the host's sandesh"
        return [make]

    def _refuse(self, why: str) -> None:
        self._refusal = why
        self._log.error("The EAM plugin does not run: %s", why)

    def _configuration(self) -> Configuration:
        return from_sections(self._sections if self._sections is not None else {}, paths=self._files)

    @staticmethod
    def _check_host() -> None:
        missing = [name for name in _NEEDED_PATCHES if not gevent.monkey.is_module_patched(name)]
        if missing:
            raise ConfigurationError(
                f"The host process has not patched {', '.join(missing)} with gevent.",
                remedy="Call gevent.monkey.patch_all() first in the host, or run the daemon beside it.",
            )
        if _ONE_PER_HOST in sys.modules:
            raise ConfigurationError(
                "The host is contrail-vcenter-manager, which runs once inside every ContrailVM.",
                remedy="Load the plugin in a controller-side service, or run the daemon.",
            )


def _paths(conf_file: str | Sequence[str] | None) -> list[str]:
    if conf_file is None:
        return []
    return [os.fspath(conf_file)] if isinstance(conf_file, (str, os.PathLike)) else list(conf_file)
