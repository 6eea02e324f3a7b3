# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam upgrade``: replace every ContrailVM by one of the configured package, in waves."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.client import api, operate, service_options
from vcenter_eam_plugin.cli.consent import consent_options, json_option
from vcenter_eam_plugin.cli.text import clean


@click.group("upgrade")
def command() -> None:
    """Replace every ContrailVM by one of the configured package."""


@command.command("start")
@click.option("--all-at-once", "at_once", is_flag=True, help="Without waves: every host loses its vRouter meanwhile.")
@service_options
@consent_options
def start(at_once: bool, paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Begin, and follow it to its end: a canary first, then waves.

    Configure the new package (ovf_package or ovf_url) and restart the service before. The agency's name must be
    typed. The upgrade goes on when this command is interrupted.

    Example: vcenter-eam upgrade start --acknowledge ContrailVM-Agency
    """
    operate(paths, vcenter, {"operation": "upgrade", "at_once": at_once}, **consent)


@command.command("pause")
@service_options
@consent_options
def pause(paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Admit no further host; those that were admitted go on.

    Example: vcenter-eam upgrade pause
    """
    operate(paths, vcenter, {"operation": "upgrade-pause"}, **consent)


@command.command("resume")
@service_options
@consent_options
def resume(paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Go on after a pause, or after a failure that you have looked at.

    Example: vcenter-eam upgrade resume
    """
    operate(paths, vcenter, {"operation": "upgrade-resume"}, **consent)


@command.command("status")
@service_options
@json_option
def status(paths: tuple[Path, ...], vcenter: str, as_json: bool) -> None:
    """Show the upgrade that is under way, or the last one.

    Example: vcenter-eam upgrade status --json
    """
    found = [each for each in api(paths).get("/api/v1/upgrades")["upgrades"] if vcenter in ("", each["vcenter"])]
    if as_json:
        click.echo(json.dumps({"upgrades": found}))
        return
    if not found:
        click.echo("No upgrade is under way, and none was.")
    for each in found:
        began = datetime.fromtimestamp(each["started"], UTC).astimezone()
        paused = ", paused" if each["paused"] else ""
        why = f": {each['why']}" if each["why"] else ""
        click.echo(
            clean(
                f"{each['vcenter']}: {each['phase']}{paused}{why}; to {each['url']}, since {began:%Y-%m-%d %H:%M}, "
                f"{len(each['admitted'])} of {len(each['old'])} host(s) admitted"
            )
        )
