# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam check``: what the service needs, looked at before it does.

Asks no running service, and changes nothing.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from vcenter_eam_plugin.cli.client import service_options
from vcenter_eam_plugin.cli.common import load_configuration
from vcenter_eam_plugin.cli.consent import json_option
from vcenter_eam_plugin.cli.text import clean
from vcenter_eam_plugin.config import Configuration
from vcenter_eam_plugin.domain.errors import CheckFailed, UnknownTarget
from vcenter_eam_plugin.domain.names import candidates
from vcenter_eam_plugin.ovf.descriptor import Descriptor
from vcenter_eam_plugin.preflight import machine, servers
from vcenter_eam_plugin.preflight import vcenter as vcenters
from vcenter_eam_plugin.preflight.finding import Finding, Verdict

_MARKS = {Verdict.PASS: "[green]pass[/]", Verdict.WARN: "[yellow]warn[/]", Verdict.FAIL: "[bold red]FAIL[/]",
          Verdict.SKIP: "[dim]skip[/]"}  # fmt: skip


@click.command("check")
@service_options
@json_option
def command(paths: tuple[Path, ...], vcenter: str, as_json: bool) -> None:
    """Look at everything that the service needs, before it does.

    State directory, OVF package, vCenter (name, port, certificate, login, privileges, clock, EAM, clusters, Agent VM
    settings), brokers, ZooKeeper. Each passes, warns or fails, with what to do. Nothing is changed anywhere. Run it on
    the service's machine, as its user. Exit code 16 when something fails.

    Example: vcenter-eam check -c /etc/contrail/contrail-vcenter-eam-plugin/vcenter_eam.conf
    """
    configuration = load_configuration(paths)
    names = [unit.name for unit in configuration.vcenters]
    if vcenter and vcenter not in names:
        raise UnknownTarget(f"No vCenter is called {vcenter!r}; there are: {candidates(vcenter, names)}.")
    console = Console(stderr=True)
    counts: Counter[Verdict] = Counter()
    with console.status("looking ...") as status:
        shown = ""
        for finding in _findings(configuration, vcenter, status):
            counts[finding.verdict] += 1
            if as_json:
                click.echo(json.dumps(finding.plain()))
                continue
            if finding.subject != shown:
                shown = finding.subject
                Console().print(f"[bold]{escape(clean(shown))}[/]")
            _show(finding)
    summary = {verdict.value: counts[verdict] for verdict in Verdict}
    if as_json:
        click.echo(json.dumps({"kind": "summary", "ok": not counts[Verdict.FAIL], **summary}))
    else:
        click.echo(", ".join(f"{count} {name}" for name, count in summary.items() if count))
    if counts[Verdict.FAIL]:
        what = "one thing" if counts[Verdict.FAIL] == 1 else f"{counts[Verdict.FAIL]} things"
        raise CheckFailed(f"{what} must be mended before the service can do its work.")


def _findings(configuration: Configuration, vcenter: str, status: Status) -> Iterator[Finding]:
    packages: dict[str, Descriptor] = {}
    yield from machine.look(configuration, packages)
    for unit in configuration.vcenters:
        if vcenter in ("", unit.name):
            status.update(f"looking at {unit.vcenter.vc_host} ...")
            yield from vcenters.look(configuration, unit, packages.get(unit.name), wall_clock=time.time)
    status.update("looking at the brokers ...")
    yield from servers.look_at_brokers(configuration.rabbit)
    if configuration.zookeeper is not None:
        status.update("looking at ZooKeeper ...")
        yield from servers.look_at_zookeeper(configuration.zookeeper)


def _show(finding: Finding) -> None:
    out = Console(soft_wrap=True)
    out.print(f"  {_MARKS[finding.verdict]}  {escape(clean(finding.check))}: {escape(clean(finding.text))}")
    if finding.remedy:
        out.print(f"        [cyan]{escape(clean(finding.remedy))}[/]")
