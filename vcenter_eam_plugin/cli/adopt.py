# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam adopt``: take over an agency of our name that belongs to somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.client import operate, service_options
from vcenter_eam_plugin.cli.consent import consent_options


@click.command("adopt")
@click.argument("agency", required=False)
@service_options
@consent_options
def command(agency: str | None, paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Use an agency of our name that belongs to somebody else.

    Also after a change of our own identity. AGENCY is its moref or its owner, where there are several. The agency's
    name must be typed. It is remembered in the state directory.

    Example: vcenter-eam adopt --acknowledge ContrailVM-Agency
    """
    operate(paths, vcenter, {"operation": "adopt", "target": agency or ""}, **consent)
