# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam release HOST|--all``: let held ContrailVMs go, with nothing but vCenter.

After a blackout the controllers, the broker and whatever runs the service may themselves be tenants that wait for a
ContrailVM. So this logs in to vCenter by itself, and asks neither the service nor its mode.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin.cli.common import configuration_files, load_configuration
from vcenter_eam_plugin.cli.completion import complete_hosts
from vcenter_eam_plugin.cli.consent import carry_out, consent_options
from vcenter_eam_plugin.config import VCenterUnit
from vcenter_eam_plugin.domain.errors import AgencyConflict, PlanChanged, PluginError, UnknownTarget, WrongState
from vcenter_eam_plugin.domain.facts import AgentFacts
from vcenter_eam_plugin.domain.names import candidates
from vcenter_eam_plugin.domain.operations import Held, preview_release
from vcenter_eam_plugin.domain.requests import Operation, Preview, Release, Request
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.unit import session_settings
from vcenter_eam_plugin.vsphere.hosts import host_names
from vcenter_eam_plugin.vsphere.session import Session


class _Released:
    """What is held in one vCenter, asked of EAM itself."""

    def __init__(self, unit: VCenterUnit, session: Session, request: Request) -> None:
        self._unit = unit
        self._eam = EamClient(session)
        self._session = session
        self._request = request

    def preview(self) -> dict[str, Any]:
        return self._look().plain()

    def carry_out(self, digest: str, acknowledge: str) -> Iterator[dict[str, Any]]:  # noqa: ARG002 - needs no word
        shown = self._look()
        if shown.digest != digest:
            raise PlanChanged("Nothing was changed: what is held now is not what was previewed.", preview=shown.plain())
        failed = 0
        for number, step in enumerate(shown.steps, start=1):
            about = {"kind": "step", "number": number, "of": len(shown.steps), "target": step.target, "text": step.text}
            assert isinstance(step.do, Release)
            try:
                self._eam.mark_available(step.do.agent)
            except PluginError as exc:
                failed += 1
                yield {**about, "outcome": "failed", "detail": str(exc)}
            else:
                yield {**about, "outcome": "done", "detail": "marked as available"}
        yield {"kind": "end", "ok": not failed, "done": len(shown.steps) - failed, "failed": failed}

    def _look(self) -> Preview:
        agents = self._agents()
        names = host_names(self._session, {agent.host for agent in agents if agent.host})
        held = [
            Held(
                agent.host,
                names.get(agent.host, agent.host),
                agent.moref,
                agent.hook.state.value,
                agent.vm_name,
                agent.is_replaced,
            )
            for agent in agents
            if agent.hook is not None and agent.host is not None
        ]
        return preview_release(self._request, self._unit.name, held, names)

    def _agents(self) -> list[AgentFacts]:
        """Every agent of our agency. Whose it is does not matter here, as long as it is the only one."""
        name = self._unit.eam.agency_name
        agencies = [agency for agency in self._eam.agencies() if agency.name == name]
        if not agencies:
            raise WrongState(f"{self._session.name}: there is no agency {name} that this account can see.")
        if len(agencies) > 1:
            owners = ", ".join(f"{agency.moref} of {agency.owner or agency.solution_id}" for agency in agencies)
            raise AgencyConflict(f"{self._session.name}: there are several agencies {name}: {owners}.")
        return list(self._eam.read_agents(self._eam.agents_of(agencies[0].moref)).agents)


@click.command("release")
@click.argument("host", shell_complete=complete_hosts, required=False)
@click.option("--all", "everything", is_flag=True, help="Every ContrailVM that is held.")
@click.option("--vcenter", default="", metavar="NAME", help="One of several vCenters, by its name.")
@configuration_files
@consent_options
def command(host: str | None, everything: bool, vcenter: str, paths: tuple[Path, ...], **consent: Any) -> None:
    """Mark held ContrailVMs as available, healthy or not.

    Needs vCenter alone: no service, no broker, no state directory. Tenant VMs may then be started on the host.

    Example: vcenter-eam release --all --yes -c /etc/contrail/contrail-vcenter-eam-plugin/vcenter_eam.conf
    """
    unit = _unit(load_configuration(paths).vcenters, vcenter)
    request = Request(operation=Operation.RELEASE, vcenter=unit.name, target=host or "", everything=everything)
    if bool(host) == everything:
        raise click.UsageError("Name a HOST, or give --all.")
    with _session(unit) as session:
        carry_out(_Released(unit, session, request), **consent)


@contextmanager
def _session(unit: VCenterUnit) -> Iterator[Session]:
    session = Session(session_settings(unit.vcenter), time.monotonic)
    try:
        session.open()
        yield session
    finally:
        session.close()


def _unit(units: tuple[VCenterUnit, ...], name: str) -> VCenterUnit:
    chosen = [unit for unit in units if name in ("", unit.name)]
    if len(chosen) == 1:
        return chosen[0]
    names = [unit.name for unit in units]
    if name:
        raise UnknownTarget(f"No vCenter is called {name!r}; there are: {candidates(name, names)}.")
    raise UnknownTarget(f"Which vCenter is meant? There are: {', '.join(names)}.", remedy="Name one by --vcenter.")
