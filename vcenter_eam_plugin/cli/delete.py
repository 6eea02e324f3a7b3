# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam delete HOST``: delete a ContrailVM, after a warning that must be acknowledged (S06)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.client import operate, service_options
from vcenter_eam_plugin.cli.completion import complete_hosts
from vcenter_eam_plugin.cli.consent import consent_options


@click.command("delete")
@click.argument("host", shell_complete=complete_hosts)
@service_options
@consent_options
def command(host: str, paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Power off and delete the ContrailVM on HOST.

    What was installed on it is lost, so the host's name must be typed. A new one is deployed, unless the service is
    paused or the host in maintenance.

    Example: vcenter-eam delete esx-01.example --acknowledge esx-01.example
    """
    operate(paths, vcenter, {"operation": "delete", "target": host}, **consent)
