# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam activate``: from observing, or a pause, to acting."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vcenter_eam_plugin.cli.client import api, service_options, why_option
from vcenter_eam_plugin.cli.consent import json_option, show_preview
from vcenter_eam_plugin.domain.errors import PlanChanged


@click.command("activate")
@click.option("--digest", metavar="DIGEST", help="Only if the plan, of one vCenter, still has this digest.")
@why_option
@service_options
@json_option
def command(paths: tuple[Path, ...], vcenter: str, as_json: bool, digest: str | None, why: str) -> None:
    """Have the running service act from now on.

    Read `vcenter-eam plan` first: it is done at once. A restart goes back to `mode` of the configuration.

    Example: vcenter-eam activate --why "change 4711"

    Example: vcenter-eam activate --vcenter east --digest 5c1b0e7aa2c6c6ab
    """
    asked = {"vcenter": vcenter, "why": why} | ({} if digest is None else {"digest": digest})
    try:
        answer = api(paths).post("/api/v1/activate", asked)
    except PlanChanged as exc:
        if as_json:
            click.echo(json.dumps({"kind": "preview", **exc.preview}))
        elif exc.preview:
            show_preview(exc.preview)
        raise
    if as_json:
        click.echo(json.dumps(answer))
        return
    for plan in answer["plans"]:
        show_preview(plan)
    click.echo("Acting from now on. How far EAM is: vcenter-eam status --watch")
