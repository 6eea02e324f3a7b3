# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam pause``: stop acting."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vcenter_eam_plugin.cli.client import api, service_options, why_option
from vcenter_eam_plugin.cli.consent import json_option


@click.command("pause")
@why_option
@service_options
@json_option
def command(paths: tuple[Path, ...], vcenter: str, as_json: bool, why: str) -> None:
    """Have the running service stop acting; it goes on watching.

    What EAM was asked for before, it ends. `vcenter-eam activate` takes it back, and so does a restart with mode = act.

    Example: vcenter-eam pause --why "host refresh in ClusterB"
    """
    answer = api(paths).post("/api/v1/pause", {"vcenter": vcenter, "why": why})
    click.echo(json.dumps(answer) if as_json else "Paused: nothing is changed until it is activated.")
