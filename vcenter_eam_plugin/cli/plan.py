# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam plan``: what would be done now. Changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import click

from vcenter_eam_plugin.cli.client import api, service_options
from vcenter_eam_plugin.cli.consent import json_option, show_preview
from vcenter_eam_plugin.cli.text import clean


@click.command("plan")
@service_options
@json_option
def command(paths: tuple[Path, ...], vcenter: str, as_json: bool) -> None:
    """Show what would be done now, and what it touches.

    Example: vcenter-eam plan --json | jq -r '.plans[0].digest'
    """
    answer = api(paths).get(f"/api/v1/plan?vcenter={quote(vcenter)}")
    if as_json:
        click.echo(json.dumps(answer))
        return
    for plan in answer["plans"]:
        show_preview(plan, "plan")
        if plan["closed"]:
            click.echo(clean(f"  none of it is done: {plan['closed']}."))
