# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam return PATH``: end a retreat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.client import operate, service_options
from vcenter_eam_plugin.cli.completion import complete_paths
from vcenter_eam_plugin.cli.consent import consent_options


@click.command("return")
@click.argument("path", shell_complete=complete_paths)
@service_options
@consent_options
def command(path: str, paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """End the retreat of PATH: deploy ContrailVMs there again.

    Example: vcenter-eam return /DC0/host/Lab
    """
    operate(paths, vcenter, {"operation": "return", "target": path}, **consent)
