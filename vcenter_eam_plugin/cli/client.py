# SPDX-License-Identifier: Apache-2.0
"""What the commands that need a running service share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.api import Api
from vcenter_eam_plugin.cli.common import configuration_files, load_configuration
from vcenter_eam_plugin.cli.completion import complete_vcenters
from vcenter_eam_plugin.cli.consent import carry_out


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``-c``: whose service; ``--vcenter``: which of its vCenters."""
    vcenter = click.option(
        "--vcenter",
        default="",
        metavar="NAME",
        shell_complete=complete_vcenters,
        help="One of several vCenters, by its name.",
    )
    return configuration_files(vcenter(command))


why_option = click.option("--why", default="", metavar="TEXT", help="The reason, for the audit trail.")


def api(paths: tuple[Path, ...]) -> Api:
    """The service whose configuration this is."""
    return Api(load_configuration(paths, need_vcenter=False).defaults.state_directory)


class AskedOfService:
    """An operation of the running service."""

    def __init__(self, service: Api, request: dict[str, Any]) -> None:
        self._service = service
        self._request = request

    def preview(self) -> dict[str, Any]:
        found: dict[str, Any] = self._service.post("/api/v1/preview", self._request)
        return found

    def carry_out(self, digest: str, acknowledge: str) -> Iterator[dict[str, Any]]:
        return self._service.follow("/api/v1/apply", {**self._request, "digest": digest, "acknowledge": acknowledge})


def operate(paths: tuple[Path, ...], vcenter: str, request: dict[str, Any], **consent: Any) -> None:
    """Preview, consent, and carry out one operation of the service."""
    carry_out(AskedOfService(api(paths), {"vcenter": vcenter, **request}), **consent)
