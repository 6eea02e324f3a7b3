# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam`` as an operator runs it, against the service of a bench, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.bench import Bench
from tests.support.processes import write_secret
from vcenter_eam_plugin.cli import consent
from vcenter_eam_plugin.cli.main import main
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.web.control import ControlSocket


class Operator:
    """Somebody with a shell on the machine of the service."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.conf = bench.directory / "operator.conf"
        self.conf.parent.mkdir(parents=True, exist_ok=True)
        self.conf.write_text(f"[DEFAULTS]\nstate_directory={bench.directory / 'state'}\n", "utf-8")

    @property
    def socket(self) -> Path:
        return self.bench.directory / "state" / "control.sock"

    def start(self, **changes: Any) -> Service:
        """Start the bench's service with the control socket."""
        return self.bench.start(endpoints=(ControlSocket,), **changes)

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        """One command. ``typed`` is what a person answers at a terminal; without it there is no terminal."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(consent, "at_terminal", lambda: typed is not None)
            return CliRunner().invoke(main, [*arguments, "-c", str(self.conf)], input=typed)

    def ask(self, *arguments: str) -> list[dict[str, Any]]:
        """One command with ``--json`` that must succeed; its objects."""
        done = self.run(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    def know_vcenter(self) -> None:
        """From now on the configuration names the vCenter too, with another state directory that does not exist."""
        simulator = self.bench.simulator
        secret = write_secret(self.bench.directory / "password", simulator.password)
        self.conf.write_text(
            f"[DEFAULTS]\nstate_directory=/nowhere/at/all\n[RABBIT]\nrabbit_hosts=nowhere.invalid\n"
            f"[VCENTER]\nvc_host={simulator.host}\nvc_port={simulator.port}\nvc_username={simulator.user}\n"
            f"vc_password_file={secret}\nvc_ca_certs={simulator.ca_file}\n[EAM]\nclusters=ClusterA\n",
            "utf-8",
        )


@pytest.fixture
def make_operator(make_bench: Callable[..., Bench]) -> Callable[..., Operator]:
    """``make_operator(hosts=...)``: a bench, and somebody who operates it."""
    return lambda **simulator: Operator(make_bench(**simulator))


@pytest.fixture
def operator(make_operator: Callable[..., Operator]) -> Operator:
    """Of three hosts in two clusters."""
    return make_operator()
