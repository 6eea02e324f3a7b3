# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam completion``: the script for a shell, and the names that are completed.

Names come from the running service, if it answers at once; pressing Tab never waits for one that does not, never
prints, and never fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from vcenter_eam_plugin.cli.api import Api
from vcenter_eam_plugin.cli.common import load_configuration

SECONDS = 0.5
"""For the answer: a person has pressed Tab, and waits."""
VARIABLE = "_VCENTER_EAM_COMPLETE"

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _completes(kind: str) -> Complete:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
        try:
            paths = tuple(Path(path) for path in ctx.params.get("paths") or ())
            configuration = load_configuration(paths, need_vcenter=False)
            names = Api(configuration.defaults.state_directory, seconds=SECONDS).get("/api/v1/names")
            return _starting(names[kind], incomplete)
        except Exception:  # noqa: BLE001 - whatever it is, a trace amidst the line that is being typed helps nobody
            return []

    return complete


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.casefold().startswith(incomplete.casefold())]


complete_hosts = _completes("hosts")
complete_clusters = _completes("clusters")
complete_paths = _completes("paths")
complete_vcenters = _completes("vcenters")


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script by which a shell completes our commands.

    Commands and options, and of the service that runs here the names of hosts, clusters and vCenters.

    Example: eval "$(vcenter-eam completion bash)", in ~/.bashrc

    Example: vcenter-eam completion zsh > "${fpath[1]}/_vcenter-eam"

    Example: vcenter-eam completion fish > ~/.config/fish/completions/vcenter-eam.fish
    """
    found: Any = get_completion_class(shell)
    click.echo(found(ctx.find_root().command, {}, "vcenter-eam", VARIABLE).source())
