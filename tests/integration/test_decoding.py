# SPDX-License-Identifier: Apache-2.0
"""What servers really write is read by the narrow decoder, and equals pyVmomi's reading of the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.decoded import differences
from tests.support.files import serving
from tests.support.vcenters import Admin, VCenter, wait_for, watching
from vcenter_eam_plugin.eam.agency import AgencySpec
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.simulator.sample_ovf import write_sample
from vcenter_eam_plugin.vsphere import decoding
from vcenter_eam_plugin.vsphere.decoding import Decoding
from vcenter_eam_plugin.vsphere.narrow import DECODERS
from vcenter_eam_plugin.vsphere.scope import list_compute_resources


class _Kept:
    """An answer whose bytes are kept."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.status, self.reason = answer.status, answer.reason
        self.pieces: list[bytes] = []

    def read(self, amt: int | None = None) -> bytes:
        self.pieces.append(self._answer.read(amt))
        return self.pieces[-1]


class Checked:
    """Each answer that a narrow decoder read, decoded by pyVmomi too."""

    def __init__(self) -> None:
        self.read: dict[str, int] = {}
        self.wrong: list[str] = []

    def result(self, narrowly: Any, this: Decoding, mo: Any, info: Any, answer: Any) -> Any:
        kept = _Kept(answer)
        before = sum(this._fallen_back.values())
        result = narrowly(this, mo, info, kept)
        if info.wsdlName in DECODERS and answer.status == 200 and before == sum(this._fallen_back.values()):
            self.read[info.wsdlName] = self.read.get(info.wsdlName, 0) + 1
            theirs = this._by_pyvmomi(info, decoding._Again(kept.pieces, answer))
            self.wrong += differences(result, theirs, info.wsdlName)
        return result


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Checked]:
    checked = Checked()
    narrowly = Decoding.result
    monkeypatch.setattr(
        Decoding, "result", lambda this, mo, info, answer: checked.result(narrowly, this, mo, info, answer)
    )
    yield checked
    assert checked.wrong == []


def test_an_ordinary_day_of_either_server(vcenter: VCenter, admin: Admin, checked: Checked) -> None:
    """Listing, VMs followed, power and maintenance changed, events: nothing is left to pyVmomi."""
    cluster = next(one.path for one in list_compute_resources(admin.session) if one.is_cluster and one.hosts)
    with vcenter.session() as session, watching(session, cluster) as watch:
        # vcsim puts its VMs onto hosts at random: a host of the cluster may have none.
        vms = next(vms for host in watch.first_listing().hosts if (vms := admin.vms_of(host.moref)))
        watch.inventory.follow_vms(vms)
        wait_for(lambda: watch.vm(vms[0]), "the VM")
        admin.power(vms[0], on=watch.vm(vms[0]).power != "poweredOn")
        wait_for(lambda: len(watch.observed) > 2, "the change")
        watch.stop()
        assert session.fallen_back == {}
    assert checked.read["WaitForUpdatesEx"] > 2
    assert checked.read["RetrievePropertiesEx"]


def test_an_agency_and_its_agents(simulator_vcenter: VCenter, checked: Checked, tmp_path: Path) -> None:
    """With issues at first, of agents whose hosts have no settings, and then without."""
    simulator = simulator_vcenter.simulator
    assert simulator is not None
    stimuli = simulator.vcenter.stimuli
    descriptor = write_sample(tmp_path)
    with serving(descriptor.parent) as base, simulator_vcenter.session() as session:
        client = EamClient(session)
        scope = tuple(one.moref for one in list_compute_resources(session) if one.is_cluster)
        agency = client.create_agency(
            AgencySpec(
                name="ContrailVM-Agency", agent_name="ContrailVM", ovf_url=f"{base}/{descriptor.name}", scope=scope
            )
        )
        wait_for(lambda: client.read_agency(agency).issues, "issues of hosts without settings")
        agents = client.agents_of(agency)
        assert any(one.issues for one in client.read_agents(agents).agents)
        for host in stimuli.hosts():
            datastore, network = next(iter(host.datastores.values())), next(iter(host.networks.values()))
            stimuli.set_agent_settings(host, datastore.name, network.name)
        wait_for(lambda: any(not one.issues for one in client.read_agents(agents).agents), "an agent without issues")
        assert session.fallen_back == {}
    assert {"AgencyQueryRuntime", "AgentQueryRuntime", "QueryAgent"} <= checked.read.keys()
