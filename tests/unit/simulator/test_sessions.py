# SPDX-License-Identifier: Apache-2.0
"""Sessions and privileges of the simulator (S02): one cookie for both endpoints, idle expiry, named refusals."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from pyVmomi import eam, vim, vmodl

from tests.support.simulator_calls import PC, Bench, hosts_of


def test_a_wrong_password_is_refused_and_noticed(bench: Bench) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        bench.login(password="wrong")
    with pytest.raises(vim.fault.InvalidLogin):
        bench.login(user="nobody@vsphere.local")
    assert isinstance(bench.world.events[-1], vim.event.BadUsernameSessionEvent)


def test_without_a_session_only_the_way_to_the_login_is_open(bench: Bench) -> None:
    bench.cookie = None
    assert bench.instance.RetrieveContent().about.apiType == "VirtualCenter"
    assert bench.content.sessionManager.currentSession is None
    with pytest.raises(vim.fault.NotAuthenticated):
        bench.instance.CurrentTime()
    with pytest.raises(vim.fault.NotAuthenticated):
        bench.content.propertyCollector.CreatePropertyCollector()
    with pytest.raises(eam.fault.InvalidLogin):
        bench.eam().QueryAgency()


def test_the_cookie_of_vcenter_opens_eam(bench: Bench) -> None:
    assert list(bench.eam().QueryAgency()) == []
    assert list(bench.eam().agency) == []


def test_logout_ends_the_session_with_all_that_is_its(bench: Bench) -> None:
    bench.content.propertyCollector.CreatePropertyCollector()
    bench.content.viewManager.CreateListView([])
    before = len(bench.world.objects)
    bench.content.sessionManager.Logout()
    assert bench.simulator.sessions.active == []
    assert bench.simulator.collectors() == []
    assert len(bench.world.objects) == before - 2
    with pytest.raises(vim.fault.NotAuthenticated):
        bench.instance.CurrentTime()


def test_a_session_idles_out_and_calls_keep_it(bench: Bench) -> None:
    bench.simulator.knobs.session_idle_seconds = 60.0
    for _ in range(3):
        bench.clock.advance(50)
        bench.instance.CurrentTime()
    bench.clock.advance(61)
    with pytest.raises(vim.fault.NotAuthenticated):
        bench.instance.CurrentTime()


def test_a_call_that_waits_keeps_its_session(bench: Bench) -> None:
    bench.simulator.knobs.session_idle_seconds = 60.0
    collector = bench.content.propertyCollector
    wait = gevent.spawn(collector.WaitForUpdatesEx, "", PC.WaitOptions(maxWaitSeconds=20))
    gevent.sleep(0)
    bench.clock.advance(1000)
    assert len(bench.simulator.sessions.active) == 1
    collector.CreateFilter(hosts_of(bench.content.rootFolder, "name"), True)
    assert wait.get(timeout=5) is not None


def test_the_idle_limit_is_an_option(bench: Bench) -> None:
    options = bench.content.setting
    options.UpdateOptions([vim.option.OptionValue(key="config.vmacore.soap.sessionTimeout", value="5")])
    [option] = options.QueryOptions("config.vmacore.soap.sessionTimeout")
    assert option.value == "5"
    bench.clock.advance(6)
    with pytest.raises(vim.fault.NotAuthenticated):
        options.QueryOptions("config.")


def test_a_second_login_on_the_same_cookie_is_refused(bench: Bench) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        bench.content.sessionManager.Login(bench.simulator.user, bench.simulator.password)
    assert len(bench.simulator.sessions.active) == 1


def test_sessions_see_each_other_and_can_be_ended(bench: Bench) -> None:
    first, key = bench.cookie, bench.content.sessionManager.currentSession.key
    bench.login()
    manager = bench.content.sessionManager
    assert {one.userName for one in manager.sessionList} == {bench.simulator.user}
    assert manager.SessionIsActive(key, bench.simulator.user) is True
    manager.TerminateSession([key])
    assert manager.SessionIsActive(key, bench.simulator.user) is False
    with pytest.raises(vmodl.fault.InvalidArgument):
        manager.TerminateSession([manager.currentSession.key])
    with pytest.raises(vim.fault.NotFound):
        manager.TerminateSession([key])
    bench.cookie = first
    with pytest.raises(vim.fault.NotAuthenticated):
        bench.instance.CurrentTime()


def test_what_belongs_to_another_session_is_not_there(bench: Bench) -> None:
    view = bench.content.viewManager.CreateListView([])
    bench.login()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        view.DestroyView()


def test_extension_login_needs_a_certificate(bench: Bench) -> None:
    bench.cookie = None
    with pytest.raises(vim.fault.NoClientCertificate):
        bench.content.sessionManager.LoginExtensionByCertificate("org.example")


# Privileges ----------------------------------------------------------------------------------------------------


def with_user(bench: Bench, *privileges: str) -> None:
    bench.simulator.add_user("plain@vsphere.local", "pw", privileges)
    bench.login("plain@vsphere.local", "pw")


def test_a_missing_privilege_is_named_by_vcenter_and_not_by_eam(bench: Bench) -> None:
    with_user(bench)
    with pytest.raises(vim.fault.NoPermission) as refused:
        bench.remote(bench.hosts[0]).EnterMaintenanceMode_Task(0)
    assert refused.value.privilegeId == "Host.Config.Maintenance"
    assert refused.value.object._moId == bench.hosts[0].moid
    with pytest.raises(eam.fault.NotAuthorized):
        bench.eam().QueryAgency()
    with pytest.raises(eam.fault.NotAuthorized):
        _ = bench.eam().agency
    settings = bench.remote(bench.hosts[0]).configManager.esxAgentHostManager
    with pytest.raises(vim.fault.NoPermission) as unreadable:
        _ = settings.configInfo
    assert unreadable.value.privilegeId == "Host.Config.Settings"


def test_modify_implies_view_and_case_does_not_matter(bench: Bench) -> None:
    with_user(bench, "eam.modify")
    assert list(bench.eam().QueryAgency()) == []


def test_a_user_who_may_not_read_gets_everything_in_missing_set(bench: Bench) -> None:
    bench.simulator.users.add("blind@vsphere.local", "pw", (), read=False)
    bench.login("blind@vsphere.local", "pw")
    spec = hosts_of(bench.content.rootFolder, "name")
    result = bench.content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())
    faults: list[Any] = [one.missingSet[0].fault for one in result.objects]
    assert all(isinstance(fault, vim.fault.NoPermission) for fault in faults)


def test_a_client_may_ask_what_it_may_do(bench: Bench) -> None:
    with_user(bench, "EAM.View")
    manager, root = bench.content.authorizationManager, bench.content.rootFolder
    key = bench.content.sessionManager.currentSession.key
    [one] = manager.HasPrivilegeOnEntities([root], key, ["EAM.View", "EAM.Modify"])
    assert {entry.privId: entry.isGranted for entry in one.privAvailability} == {"EAM.View": True, "EAM.Modify": False}
    [own] = manager.FetchUserPrivilegeOnEntities([root], "plain@vsphere.local")
    assert "EAM.View" not in own.privileges or "EAM.Modify" not in own.privileges
    [admin] = manager.HasUserPrivilegeOnEntities([root], bench.simulator.user, ["EAM.Modify"])
    assert admin.privAvailability[0].isGranted


def test_passwords_are_in_no_repr(bench: Bench) -> None:
    user = bench.simulator.users.find(bench.simulator.user)
    assert bench.simulator.password not in repr(user)
    assert bench.simulator.password not in repr(vars(bench.simulator.sessions.active[0]))
