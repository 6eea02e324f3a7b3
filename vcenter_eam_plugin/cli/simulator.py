# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam simulator``: a vCenter with ESX Agent Manager to point anything at that speaks its SOAP.

It says where it is once it answers, then runs until SIGTERM or SIGINT. Its password is its own, made up at each start
unless given, and is printed: there is nothing behind it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.common import until_stopped
from vcenter_eam_plugin.domain.errors import ConfigurationError, Unavailable
from vcenter_eam_plugin.options import Address, parse_address
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.sample_ovf import write_sample
from vcenter_eam_plugin.simulator.server import Simulator


def _address(ctx: click.Context, param: click.Parameter, value: str) -> Address:
    try:
        return parse_address(value)
    except ValueError as exc:
        raise click.BadParameter(f"{value!r} is not ADDR or ADDR:PORT.", ctx, param) from exc


def _knobs(settings: tuple[str, ...]) -> Knobs:
    """``name=value``, the value as JSON or, where it is none, as the text that it is."""
    knobs = Knobs()
    changes: dict[str, Any] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        try:
            changes[name] = json.loads(text)
        except json.JSONDecodeError:
            changes[name] = text
    try:
        knobs.change(changes)
    except ValueError as exc:
        raise ConfigurationError(f"Option --knob: {exc}.") from exc
    return knobs


@click.command("simulator")
@click.option("--hosts", default=3, show_default=True, type=click.IntRange(0, 10_000), help="ESXi hosts in all.")
@click.option("--clusters", default=2, show_default=True, type=click.IntRange(0, 1000), help="Clusters in all.")
@click.option("--datacenters", default=1, show_default=True, type=click.IntRange(1, 100), help="Datacenters.")
@click.option("--tenants-per-host", default=0, show_default=True, type=click.IntRange(0, 1000), help="Ordinary VMs.")
@click.option("--listen", default="127.0.0.1:0", show_default=True, callback=_address, help="Port 0: a free one.")
@click.option("--user", default="administrator@vsphere.local", show_default=True, help="Who may log in.")
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Default: made up and printed.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to keep CA and certificates. Default: a temporary one, removed at the end.",
)
@click.option(
    "--sample-ovf",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a small OVF package there, to be deployed where no real ContrailVM is at hand.",
)
@click.option("--knob", "knobs", multiple=True, metavar="NAME=VALUE", help="Behaviour and delays; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Address, login and CA file as one JSON object.")
def command(
    *,
    hosts: int,
    clusters: int,
    datacenters: int,
    tenants_per_host: int,
    listen: Address,
    user: str,
    password_file: Path | None,
    directory: Path | None,
    sample_ovf: Path | None,
    knobs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a simulated vCenter with ESX Agent Manager.

    It speaks what vCenter speaks, and keeps nothing: with Ctrl-C all of it is gone.

    Example: vcenter-eam simulator --hosts 3 --clusters 2 --listen 127.0.0.1:8989
    """
    simulator = Simulator(
        hosts=hosts,
        clusters=clusters,
        datacenters=datacenters,
        tenants_per_host=tenants_per_host,
        listen=(listen.host, listen.port or 0),
        user=user,
        password=password_file.read_text("utf-8").rstrip("\r\n") if password_file else None,
        knobs=_knobs(knobs),
        directory=directory.absolute() if directory is not None else None,  # printed, and used from anywhere
    )
    package = write_sample(sample_ovf.absolute()) if sample_ovf is not None else None
    with until_stopped() as stop:
        try:
            simulator.start()
        except OSError as exc:
            # not exc.strerror: gevent appends the address to it
            raise Unavailable(f"The simulator cannot listen on {listen}: {os.strerror(exc.errno or 0)}.") from exc
        try:
            click.echo(json.dumps(_about(simulator, package)) if as_json else _for_people(simulator, package))
            stop.wait()
        finally:
            simulator.stop()


def _about(simulator: Simulator, package: Path | None) -> dict[str, Any]:
    return {
        "kind": "simulator",
        "url": simulator.url,
        "host": simulator.host,
        "port": simulator.port,
        "user": simulator.user,
        "password": simulator.password,
        "ca_file": str(simulator.ca_file),
        "thumbprint": simulator.thumbprint,
        "control": f"https://{simulator.host}:{simulator.port}/simulator/",
        "control_token": simulator.control_token,
        "ovf_package": str(package) if package is not None else None,
    }


def _for_people(simulator: Simulator, package: Path | None) -> str:
    about = _about(simulator, package)
    clusters = "".join(f"\n    /DC0/host/{cluster.name}" for cluster in simulator.vcenter.clusters())
    sample = f"\n[EAM]\nclusters ={clusters}\n" if clusters else ""
    if package is not None:
        sample += f"ovf_package = {package}\n"
    return f"""vCenter (simulated) answers at {about["url"]}; Ctrl-C ends it.

[VCENTER]
vc_host = {about["host"]}
vc_port = {about["port"]}
vc_username = {about["user"]}
vc_password = {about["password"]}
vc_ca_certs = {about["ca_file"]}
{sample}
Certificate (SHA-256): {about["thumbprint"]}
Faults, knobs, stimuli: {about["control"]} with header X-Simulator-Token: {about["control_token"]}"""
