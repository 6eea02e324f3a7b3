# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam power-off HOST``: power a ContrailVM off, after a warning that must be acknowledged (S06)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.client import operate, service_options
from vcenter_eam_plugin.cli.completion import complete_hosts
from vcenter_eam_plugin.cli.consent import consent_options


@click.command("power-off")
@click.argument("host", shell_complete=complete_hosts)
@service_options
@consent_options
def command(host: str, paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Power off the ContrailVM on HOST.

    Tenant VMs there lose their network, so the host's name must be typed.

    Example: vcenter-eam power-off esx-01.example --acknowledge esx-01.example
    """
    operate(paths, vcenter, {"operation": "power-off", "target": host}, **consent)
