# SPDX-License-Identifier: Apache-2.0
"""What vcsim cannot do, asserted: when a newer govmomi closes a gap, the test here fails, and the tests that run
against our simulator alone can run against both."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from pyVmomi import eam, vim, vmodl

from tests.integration.test_eam_client import full_config, speak_recent
from tests.support.vcenters import Admin, VCenter, wait_for, watching
from tests.support.vcsim import Vcsim, running
from vcenter_eam_plugin.domain.errors import ObjectGone, PluginError, ProtocolError, Unavailable, WrongState
from vcenter_eam_plugin.domain.facts import ComputeResourceFacts
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.vsphere import host_settings
from vcenter_eam_plugin.vsphere.properties import (
    filter_spec,
    object_spec,
    property_spec,
    read_objects,
)
from vcenter_eam_plugin.vsphere.scope import list_compute_resources

OVF = "http://127.0.0.1:9/ContrailVM.ovf"  # vcsim never fetches it
QUIET_SECONDS = 1.5  # long past the 20 ms within which vcsim sends the updates that it does send


@pytest.fixture
def admin(vcsim: Vcsim) -> Iterator[Admin]:
    """Logged in at vcsim alone: shadows the fixture for both servers."""
    server = VCenter("vcsim", vcsim.host, vcsim.port, vcsim.user, vcsim.password, vcsim.ca_file, vcsim.thumbprint)
    with server.session() as session:
        yield Admin(session)


@pytest.fixture
def cluster(admin: Admin) -> ComputeResourceFacts:
    return next(one for one in list_compute_resources(admin.session) if one.is_cluster)


def empty_host(admin: Admin, cluster: ComputeResourceFacts) -> str:
    """A host that can be removed; vcsim puts its VMs on hosts at random, and there are fewer VMs than hosts."""
    return next(host for host in cluster.hosts if not admin.vms_of(host))


def test_gap_maintenance_sends_no_update_and_no_event(admin: Admin, cluster: ComputeResourceFacts) -> None:
    host = cluster.hosts[0]
    manager = admin.session.content.eventManager
    before = len(admin.session.call(manager.QueryEvents, vim.event.EventFilterSpec()))
    with watching(admin.session, cluster.path) as watch:
        watch.first_listing()
        admin.task(admin.obj(vim.HostSystem, host).EnterMaintenanceMode_Task, 0)
        read = read_objects(admin.session, vim.HostSystem, [host], ["runtime.inMaintenanceMode"])
        assert read[host].props["runtime.inMaintenanceMode"] is True
        gevent.sleep(QUIET_SECONDS)
        assert not watch.host(host).in_maintenance
    assert len(admin.session.call(manager.QueryEvents, vim.event.EventFilterSpec())) == before


def test_gap_disconnect_sends_no_update(admin: Admin, cluster: ComputeResourceFacts) -> None:
    host = cluster.hosts[0]
    with watching(admin.session, cluster.path) as watch:
        watch.first_listing()
        admin.task(admin.obj(vim.HostSystem, host).DisconnectHost_Task)
        gevent.sleep(QUIET_SECONDS)
        assert watch.host(host).connection == "connected"


def test_gap_removed_host_stays_in_its_cluster(admin: Admin, cluster: ComputeResourceFacts) -> None:
    host = empty_host(admin, cluster)
    admin.task(admin.obj(vim.HostSystem, host).Destroy_Task)
    with pytest.raises(ObjectGone):
        admin.get(vim.HostSystem, host, "name")
    listed = admin.get(vim.ClusterComputeResource, cluster.moref, "host")
    assert host in [one._GetMoId() for one in listed]


def test_the_gap_of_a_dangling_host_does_not_stop_a_listing(admin: Admin, cluster: ComputeResourceFacts) -> None:
    """Ours, not theirs: a cluster that names a host which is proven gone is listed without it."""
    host = empty_host(admin, cluster)
    admin.task(admin.obj(vim.HostSystem, host).Destroy_Task)
    with watching(admin.session, cluster.path) as watch:
        assert {one.moref for one in watch.first_listing().hosts} == set(cluster.hosts) - {host}


def test_gap_standby_is_not_there(admin: Admin, cluster: ComputeResourceFacts) -> None:
    with pytest.raises(PluginError) as caught:
        admin.task(admin.obj(vim.HostSystem, cluster.hosts[0]).PowerDownHostToStandBy_Task, 0)
    assert isinstance(caught.value.__cause__, vmodl.fault.MethodNotFound)


def test_gap_unknown_property_is_no_fault(admin: Admin, cluster: ComputeResourceFacts) -> None:
    """vCenter raises InvalidProperty; vcsim answers without it."""
    read = read_objects(admin.session, vim.HostSystem, cluster.hosts[:1], ["runtime.noSuchProperty"])
    assert read[cluster.hosts[0]].props == {}


def _collector(admin: Admin, cluster: ComputeResourceFacts) -> Any:
    session = admin.session
    collector = session.call(session.content.propertyCollector.CreatePropertyCollector)
    host = admin.obj(vim.HostSystem, cluster.hosts[0])
    spec = filter_spec([object_spec(host)], [property_spec(vim.HostSystem, ["name"])])
    session.call(collector.CreateFilter, spec, False)
    return vmodl.query.PropertyCollector(collector._GetMoId(), session.wait_stub())


def test_gap_collector_has_no_versions(admin: Admin, cluster: ComputeResourceFacts) -> None:
    """No InvalidCollectorVersion, and no repetition of a set that got lost on the way."""
    collector = _collector(admin, cluster)
    options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=0)
    first = admin.session.call(collector.WaitForUpdatesEx, "", options)
    assert first.version == "-"
    assert admin.session.call(collector.WaitForUpdatesEx, "bogus", options) is None


def test_gap_ended_session_does_not_wake_a_wait(vcsim: Vcsim, admin: Admin, cluster: ComputeResourceFacts) -> None:
    server = VCenter("vcsim", vcsim.host, vcsim.port, vcsim.user, vcsim.password, vcsim.ca_file, vcsim.thumbprint)
    with server.session() as session:
        collector = _collector(Admin(session), cluster)
        first = session.call(collector.WaitForUpdatesEx, "", vmodl.query.PropertyCollector.WaitOptions())
        options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=2)
        began = time.monotonic()
        waiter = gevent.spawn(session.call, collector.WaitForUpdatesEx, first.version, options, renew=False)
        gevent.sleep(0.2)
        admin.kill_sessions_but_own()
        assert waiter.get(timeout=10) is None
        assert time.monotonic() - began >= 1.9


def test_gap_ended_session_reads_into_missing_set(vcsim: Vcsim, admin: Admin) -> None:
    """Not a gap but a gift: vcsim answers an expired session as some vCenters do, without a fault."""
    server = VCenter("vcsim", vcsim.host, vcsim.port, vcsim.user, vcsim.password, vcsim.ca_file, vcsim.thumbprint)
    with server.session() as session:
        admin.kill_sessions_but_own()
        assert list_compute_resources(session)
        assert session.generation == 2


def test_gap_vm_has_no_guest_and_no_manager(admin: Admin, cluster: ComputeResourceFacts) -> None:
    vm = next(vm for host in cluster.hosts for vm in admin.vms_of(host))
    paths = ["config.managedBy", "guest.ipAddress", "guestHeartbeatStatus", "name"]
    read = read_objects(admin.session, vim.VirtualMachine, [vm], paths)
    assert set(read[vm].props) <= {"name", "guestHeartbeatStatus"}


def test_gap_host_has_no_agent_vm_settings(admin: Admin, cluster: ComputeResourceFacts) -> None:
    with pytest.raises(WrongState, match="no Agent VM settings"):
        host_settings.write(admin.session, cluster.hosts[0], datastore="datastore-1")


def test_gap_event_without_objects_breaks_the_connection(admin: Admin) -> None:
    """An EventEx that names no object panics in vcsim's alarm manager; the event is stored all the same."""
    event = vim.event.EventEx(
        key=0, chainId=0, createdTime=dt.datetime.now(dt.UTC), userName="", eventTypeId="com.example.x"
    )
    with pytest.raises(Unavailable):
        admin.session.call(admin.session.content.eventManager.PostEvent, event, idempotent=False)


@pytest.fixture
def agency(admin: Admin, cluster: ComputeResourceFacts) -> Any:
    speak_recent(admin.session)
    manager = eam.EsxAgentManager("EsxAgentManager", admin.session.eam_stub())
    config = full_config(admin.session, cluster, OVF)
    return admin.session.call(manager.CreateAgency, config, "enabled", idempotent=False)


def test_gap_eam_runtime_is_not_understood(admin: Admin, agency: Any) -> None:
    """``<entity type="">`` and an empty status: nothing must take that for a colour."""
    client = EamClient(admin.session)
    with pytest.raises(ProtocolError):
        client.read_agency(agency._GetMoId())
    with pytest.raises(ProtocolError):
        client.read_agents(client.agents_of(agency._GetMoId()))
    with pytest.raises(ProtocolError):
        client.agencies()


def test_gap_eam_ignores_the_scope(admin: Admin, agency: Any, cluster: ComputeResourceFacts) -> None:
    """One agent per agent configuration instead of one per host."""
    assert len(cluster.hosts) == 3
    assert len(EamClient(admin.session).agents_of(agency._GetMoId())) == 1


def test_gap_eam_never_powers_the_vm_on(admin: Admin, agency: Any, cluster: ComputeResourceFacts) -> None:
    vms = [vm for host in cluster.hosts for vm in admin.vms_of(host)]
    named = {vm: admin.get(vim.VirtualMachine, vm, "name") for vm in vms}
    agents = [vm for vm, name in named.items() if name.startswith("ContrailVM (")]
    assert len(agents) == 1
    gevent.sleep(QUIET_SECONDS)
    read = read_objects(admin.session, vim.VirtualMachine, agents, ["runtime.powerState"])
    assert read[agents[0]].props["runtime.powerState"] == "poweredOff"


def test_gap_eam_marks_without_a_hook(admin: Admin, agency: Any) -> None:
    client = EamClient(admin.session)
    client.mark_available(client.agents_of(agency._GetMoId())[0])


def test_gap_eam_resolve_knows_every_key(admin: Admin, agency: Any) -> None:
    """Keys that do not exist should come back; vcsim returns none of them."""
    client = EamClient(admin.session)
    assert client.resolve(client.agents_of(agency._GetMoId())[0], [999]) == ()


def test_gap_eam_creates_half_an_agency(admin: Admin, cluster: ComputeResourceFacts) -> None:
    """Without datastore, network and folder the fault cannot be parsed, and the agency is listed all the same."""
    speak_recent(admin.session)
    manager = eam.EsxAgentManager("EsxAgentManager", admin.session.eam_stub())
    config = full_config(admin.session, cluster, OVF)
    config.agentVmDatastore = []
    with pytest.raises(ProtocolError):
        admin.session.call(manager.CreateAgency, config, "enabled", idempotent=False)
    assert len(admin.session.call(manager.QueryAgency)) == 1


def test_gap_adding_a_host_after_removing_one_kills_vcsim(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        vcenter = VCenter(
            "vcsim", server.host, server.port, server.user, server.password, server.ca_file, server.thumbprint
        )
        with vcenter.session() as session:
            admin = Admin(session)
            cluster = next(one for one in list_compute_resources(session) if one.is_cluster)
            admin.task(admin.obj(vim.HostSystem, empty_host(admin, cluster)).Destroy_Task)
            spec = vim.host.ConnectSpec(hostName="added.example", userName="root", password="x", force=True)
            with pytest.raises(Unavailable):
                admin.task(admin.obj(vim.ClusterComputeResource, cluster.moref).AddHost_Task, spec, True)
        wait_for(lambda: "panic" in (tmp_path / "vcsim.log").read_text(), "the panic")
