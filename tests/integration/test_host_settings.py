# SPDX-License-Identifier: Apache-2.0
"""S09: a host's Agent VM settings are read with their choices, and only what is unset is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.vcenters import Admin, VCenter
from vcenter_eam_plugin.domain.errors import ObjectGone, PrivilegeMissing, Unavailable
from vcenter_eam_plugin.vsphere.host_settings import read_choices, write
from vcenter_eam_plugin.vsphere.scope import list_compute_resources
from vcenter_eam_plugin.vsphere.session import Session


@pytest.fixture
def session(simulator_vcenter: VCenter) -> Iterator[Session]:
    with simulator_vcenter.session() as session:
        yield session


@pytest.fixture
def host(simulator_vcenter: VCenter) -> Any:
    return simulator_vcenter.simulator.vcenter.stimuli.hosts()[0]


def test_s09_choices_of_a_host(vcenter: VCenter, admin: Admin) -> None:
    """S09: what the host could use, with free space; on both servers."""
    compute = next(one for one in list_compute_resources(admin.session) if one.is_cluster)
    choices = read_choices(admin.session, compute.hosts[0])
    assert choices.host == compute.hosts[0]
    assert choices.datastores
    assert all(one.name and one.free_bytes > 0 and one.accessible for one in choices.datastores)
    assert "VM Network" in {one.name for one in choices.networks}
    assert choices.agent_datastore is None
    assert choices.agent_network is None


def test_unknown_host_is_gone(vcenter: VCenter, admin: Admin) -> None:
    with pytest.raises(ObjectGone):
        read_choices(admin.session, "host-999999")


def test_s09_only_what_is_unset_is_written(session: Session, host: Any) -> None:
    """The settings are host-wide and other vendors' agents use them: what somebody set stays."""
    choices = read_choices(session, host.moid)
    first, second = choices.datastores[:2]
    assert write(session, host.moid, datastore=first.moref)
    assert read_choices(session, host.moid).agent_datastore == first.moref
    network = next(one for one in choices.networks if one.name == "VM Network")
    assert write(session, host.moid, datastore=second.moref, network=network.moref)
    now = read_choices(session, host.moid)
    assert (now.agent_datastore, now.agent_network) == (first.moref, network.moref)
    assert not write(session, host.moid, datastore=second.moref, network=network.moref)
    assert not write(session, host.moid)


def test_s09_distributed_portgroup_is_written_as_what_it_is(session: Session, host: Any) -> None:
    """A reference carries its type on the wire; a portgroup sent as plain Network is another object."""
    portgroup = next(one for one in read_choices(session, host.moid).networks if one.moref.startswith("dvportgroup-"))
    assert write(session, host.moid, network=portgroup.moref)
    assert read_choices(session, host.moid).agent_network == portgroup.moref


def test_inaccessible_datastore_says_so(simulator_vcenter: VCenter, session: Session, host: Any) -> None:
    datastore = next(iter(host.datastores.values()))
    simulator_vcenter.simulator.vcenter.stimuli.lose_datastore(datastore)
    found = next(one for one in read_choices(session, host.moid).datastores if one.moref == datastore.moid)
    assert not found.accessible


def test_missing_privilege_is_named(simulator_vcenter: VCenter, host: Any) -> None:
    """Bad input: which privilege, on what."""
    simulator_vcenter.simulator.add_user("reader", "read-only", {"System.View", "System.Read"})
    with (
        simulator_vcenter.session(username="reader", password=lambda: "read-only") as session,
        pytest.raises(PrivilegeMissing, match=r"Host\.Config\.Settings"),
    ):
        write(session, host.moid, datastore=next(iter(host.datastores)))


def test_p8_empty_answer_is_not_a_removed_host(simulator_vcenter: VCenter, session: Session, host: Any) -> None:
    """P8: a read that leaves the host out is suspect, and says nothing about the host."""
    simulator_vcenter.simulator.faults.inject("empty_reads", method="RetrievePropertiesEx")
    with pytest.raises(Unavailable):
        read_choices(session, host.moid)
