# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam activate``: from observing, or a pause, to acting."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vcenter_eam_plugin.cli.client import api, service_options
from vcenter_eam_plugin.cli.consent import json_option, show_preview


@click.command("activate")
@service_options
@json_option
def command(paths: tuple[Path, ...], vcenter: str, as_json: bool) -> None:
    """Have the running service act from now on.

    Read `vcenter-eam plan` first: it is done at once. A restart goes back to `mode` of the configuration.

    Example: vcenter-eam activate
    """
    answer = api(paths).post("/api/v1/activate", {"vcenter": vcenter})
    if as_json:
        click.echo(json.dumps(answer))
        return
    for plan in answer["plans"]:
        show_preview(plan)
    click.echo("Acting from now on.")
