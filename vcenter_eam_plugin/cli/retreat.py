# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam retreat PATH``: drain a cluster of its ContrailVMs for a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.client import operate, service_options
from vcenter_eam_plugin.cli.completion import complete_paths
from vcenter_eam_plugin.cli.consent import consent_options


@click.command("retreat")
@click.argument("path", shell_complete=complete_paths)
@service_options
@consent_options
def command(path: str, paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Remove the ContrailVMs of PATH for a time.

    The cluster stays configured; `vcenter-eam return PATH` ends it. Its path must be typed.

    Example: vcenter-eam retreat /DC0/host/Lab --acknowledge /DC0/host/Lab
    """
    operate(paths, vcenter, {"operation": "retreat", "target": path}, **consent)
