# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam apply``: do what ``plan`` showed, and exactly that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.client import operate, service_options
from vcenter_eam_plugin.cli.consent import consent_options


@click.command("apply")
@service_options
@consent_options
def command(paths: tuple[Path, ...], vcenter: str, **consent: Any) -> None:
    """Do what the plan shows, now and exactly that.

    With the digest of a plan it is done only if the plan is still the same; else the new one is shown, and nothing is
    changed (exit code 12).

    Example: vcenter-eam apply --digest "$(vcenter-eam plan --json | jq -r '.plans[0].digest')"
    """
    operate(paths, vcenter, {"operation": "apply"}, **consent)
