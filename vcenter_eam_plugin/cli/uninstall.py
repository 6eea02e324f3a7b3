# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam uninstall``: remove every ContrailVM, and then the agency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.client import operate, service_options
from vcenter_eam_plugin.cli.consent import consent_options


@click.command("uninstall")
@service_options
@consent_options
def command(paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Remove every ContrailVM, and then the agency.

    Waits for EAM, resolves what blocks it, and destroys the agency only when nothing is left of it. If hosts keep it
    up, it ends with exit code 15 and names them; ask again then. The agency's name must be typed.

    Example: vcenter-eam uninstall --acknowledge ContrailVM-Agency
    """
    operate(paths, vcenter, {"operation": "uninstall"}, **consent)
