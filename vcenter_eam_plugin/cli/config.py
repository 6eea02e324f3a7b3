# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam config``: the settings in force, where each comes from, and what may be set. Connects to nothing."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vcenter_eam_plugin.cli.common import configuration_files, load_configuration
from vcenter_eam_plugin.config import SECTIONS
from vcenter_eam_plugin.config_text import in_force, reference, sample, shown
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.names import candidates
from vcenter_eam_plugin.options import Option, options_of


@click.group("config")
def command() -> None:
    """Show, check and explain the configuration."""


@command.command()
@configuration_files
@click.option("--json", "as_json", is_flag=True, help="One JSON object: section -> option -> value and origin.")
def show(paths: tuple[Path, ...], as_json: bool) -> None:
    """Print every value in force; passwords are masked.

    Example: vcenter-eam config show --json | jq .EAM
    """
    configuration = load_configuration(paths)
    if not as_json:
        click.echo(in_force(configuration), nl=False)
        return
    click.echo(
        json.dumps(
            {
                title: {
                    option.name: {
                        "value": shown(option, getattr(values, option.name)),
                        "origin": configuration.origins.get((title, option.name), "default"),
                    }
                    for option in options_of(type(values))
                }
                for title, values in configuration.sections()
            },
            indent=2,
        )
    )


@command.command()
@configuration_files
def validate(paths: tuple[Path, ...]) -> None:
    """Say whether the configuration is right; exit code 2 and every mistake if not.

    Example: vcenter-eam config validate -c ./vcenter_eam.conf
    """
    configuration = load_configuration(paths)
    units = ", ".join(f"{unit.vcenter.vc_host} ({unit.eam.mode.value})" for unit in configuration.vcenters)
    for warning in configuration.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"The configuration is right. vCenter: {units}.")


@command.command()
@click.argument("name")
@configuration_files
def explain(name: str, paths: tuple[Path, ...]) -> None:
    """Tell what the option NAME means, what is allowed, and which value is in force.

    Example: vcenter-eam config explain poll_seconds
    """
    found = [
        (section, option)
        for section, kind in SECTIONS.items()
        for option in options_of(kind)
        if name.lower() in (option.name, *option.aliases)
    ]
    if not found:
        names = sorted({option.name for kind in SECTIONS.values() for option in options_of(kind)})
        raise ConfigurationError(f"There is no option {name}; there are: {candidates(name, names)}.")
    for section, option in found:
        _explain(section, option)
    try:
        configuration = load_configuration(paths)
    except ConfigurationError:
        click.echo("In force: unknown, since the configuration is not right (see: vcenter-eam config validate).")
        return
    for title, values in configuration.sections():
        for section, option in found:
            if title.partition(":")[0] == section:
                origin = configuration.origins.get((title, option.name), "default")
                click.echo(
                    f"In force: [{title}] {option.name} = {shown(option, getattr(values, option.name))} ({origin})"
                )


def _explain(section: str, option: Option) -> None:
    click.echo(f"[{section}] {option.name}\n  {option.description}")
    click.echo(f"  Allowed: {option.kind.allowed}" + (f"; or {option.name}_file" if option.secret else ""))
    click.echo(f"  Default: {'none, it must be given' if option.required else option.default_text or 'empty'}")
    if option.aliases:
        click.echo(f"  Also as: {', '.join(option.aliases)}")


@command.command("sample")
@click.option("--markdown", is_flag=True, help="The reference page instead (docs/configuration.md).")
def print_sample(markdown: bool) -> None:
    """Print a commented file with every setting and its default.

    Example: vcenter-eam config sample > vcenter_eam.conf
    """
    click.echo(reference() if markdown else sample(), nl=False)
