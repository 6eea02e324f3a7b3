# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam``: the group of commands. Each is imported when it is run, so that help and completion stay quick.

Exit codes: 0 done, 1 unexpected, 2 wrong usage or configuration, and one per kind of trouble as
:mod:`vcenter_eam_plugin.domain.errors` has them; ``docs/operations.md`` lists them.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from vcenter_eam_plugin import __version__
from vcenter_eam_plugin.domain.errors import PluginError


class _Command(NamedTuple):
    """Where a command is, and the line that help shows without importing it."""

    module: str
    help: str


COMMANDS = {
    "activate": _Command("vcenter_eam_plugin.cli.activate", "Have the running service act from now on."),
    "adopt": _Command("vcenter_eam_plugin.cli.adopt", "Use an agency of our name that belongs to somebody else."),
    "analytics-bridge": _Command(
        "vcenter_eam_plugin.cli.analytics_bridge", "Tell Contrail's analytics what the messages on the bus say."
    ),
    "apply": _Command("vcenter_eam_plugin.cli.apply", "Do what the plan shows, now and exactly that."),
    "check": _Command("vcenter_eam_plugin.cli.check", "Look at everything that the service needs, before it does."),
    "completion": _Command(
        "vcenter_eam_plugin.cli.completion", "Print the script by which a shell completes our commands."
    ),
    "config": _Command("vcenter_eam_plugin.cli.config", "Show, check and explain the configuration."),
    "delete": _Command("vcenter_eam_plugin.cli.delete", "Power off and delete the ContrailVM on HOST."),
    "demo": _Command("vcenter_eam_plugin.cli.demo", "Tell the whole story against a simulated vCenter."),
    "events": _Command("vcenter_eam_plugin.cli.events", "Show what happened: the audit trail, the oldest first."),
    "extension": _Command("vcenter_eam_plugin.cli.extension", "Show or register the vCenter extension to log in as."),
    "host": _Command(
        "vcenter_eam_plugin.cli.host", "Show everything about HOST: states, issues with advice, plan, events."
    ),
    "listen": _Command("vcenter_eam_plugin.cli.listen", "Print the messages on the bus as they come."),
    "pause": _Command("vcenter_eam_plugin.cli.pause", "Have the running service stop acting; it goes on watching."),
    "plan": _Command("vcenter_eam_plugin.cli.plan", "Show what would be done now, and what it touches."),
    "power-off": _Command("vcenter_eam_plugin.cli.power_off", "Power off the ContrailVM on HOST."),
    "release": _Command("vcenter_eam_plugin.cli.release", "Mark held ContrailVMs as available, healthy or not."),
    "resolve": _Command("vcenter_eam_plugin.cli.resolve", "Have EAM resolve the issues of HOST, or of all hosts."),
    "retreat": _Command("vcenter_eam_plugin.cli.retreat", "Remove the ContrailVMs of PATH for a time."),
    "return": _Command("vcenter_eam_plugin.cli.return_", "End the retreat of PATH: deploy ContrailVMs there again."),
    "scope": _Command("vcenter_eam_plugin.cli.scope", "Show what the agency covers, or take a cluster out of it."),
    "simulator": _Command("vcenter_eam_plugin.cli.simulator", "Run a simulated vCenter with ESX Agent Manager."),
    "status": _Command("vcenter_eam_plugin.cli.status", "Show how the running service and its ContrailVMs are."),
    "uninstall": _Command("vcenter_eam_plugin.cli.uninstall", "Remove every ContrailVM, and then the agency."),
    "upgrade": _Command("vcenter_eam_plugin.cli.upgrade", "Replace every ContrailVM by one of the configured package."),
}


class _Group(click.Group):
    """Finds its commands in COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        # Before any of the libraries below is imported: a socket or lock made earlier would block all greenlets.
        from gevent import monkey  # noqa: PLC0415 (its import takes longer than all of --help)

        monkey.patch_all()
        found: click.Command = importlib.import_module(COMMANDS[cmd_name].module).command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Without importing any of them."""
        named = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        if named or not incomplete.startswith("-"):
            return [CompletionItem(name, help=COMMANDS[name].help) for name in named]
        return super().shell_complete(ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PluginError as exc:
            click.echo(f"vcenter-eam: {exc}", err=True)
            ctx.exit(exc.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vcenter-eam")
def main() -> None:
    """Keeps one healthy ContrailVM on every ESXi host, through VMware ESX Agent Manager."""
