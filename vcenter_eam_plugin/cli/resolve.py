# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam resolve HOST|--all``: have EAM remediate what it shows, also what only a person may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.client import operate, service_options
from vcenter_eam_plugin.cli.completion import complete_hosts
from vcenter_eam_plugin.cli.consent import consent_options


@click.command("resolve")
@click.argument("host", shell_complete=complete_hosts, required=False)
@click.option("--all", "everything", is_flag=True, help="Every host, within the budgets; what touches a host is not.")
@service_options
@consent_options
def command(host: str | None, everything: bool, paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Have EAM resolve the issues of HOST, or of all hosts.

    What would delete a ContrailVM, or take the host out of maintenance, needs the typed word. What EAM cannot
    remediate is refused with the advice: resolving it would only hide it.

    Example: vcenter-eam resolve esx-01.example
    """
    if bool(host) == everything:
        raise click.UsageError("Name a HOST, or give --all.")
    request = {"operation": "resolve", "target": host or "", "everything": everything}
    operate(paths, vcenter, request, **consent)
