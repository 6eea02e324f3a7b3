# SPDX-License-Identifier: Apache-2.0
"""The simulator over real TLS, with clients that nobody here wrote: pyVmomi and govmomi, both unmodified (S02, S17)."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from typing import Any
from xml.parsers.expat import ExpatError

import gevent
import pytest
from pyVim.task import WaitForTask
from pyVmomi import SoapStubAdapter, eam, vim

from tests.support import govmomi_client
from tests.support.simulator import assert_no_leaks, connected, eam_manager, wait_for
from tests.support.simulator_calls import PC, changes, hosts_of, view_of
from vcenter_eam_plugin.simulator.server import Simulator

MAINTENANCE = "runtime.inMaintenanceMode"


def https(simulator: Simulator) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(simulator.ca_file))
    return http.client.HTTPSConnection(simulator.host, simulator.port, context=context, timeout=10)


def ask(simulator: Simulator, verb: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
    connection = https(simulator)
    try:
        token = simulator.control_token if token is None else token
        connection.request(verb, path, json.dumps(body) if body is not None else None, {"X-Simulator-Token": token})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def failure_of(call: Callable[..., Any], *args: Any) -> Exception | None:
    """What a call raises, as a greenlet's value: an exception would be printed."""
    try:
        call(*args)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer
        return exc
    return None


# Clients -------------------------------------------------------------------------------------------------------


def test_s02_pyvmomi_logs_in_reads_and_leaves_nothing(simulator: Simulator) -> None:
    with connected(simulator) as instance:
        assert instance.content.about.apiVersion == simulator.knobs.api_version
        assert instance.content.sessionManager.currentSession.userName == simulator.user
        view = instance.content.viewManager.CreateContainerView(instance.content.rootFolder, [vim.HostSystem], True)
        assert sorted(host.name for host in view.view) == sorted(host.name for host in simulator.vcenter.hosts())
        assert list(eam_manager(simulator, instance).QueryAgency()) == []
    assert_no_leaks(simulator, sessions=0)


def test_pyvmomis_own_wait_for_task_sees_success_and_error(simulator: Simulator) -> None:
    with connected(simulator) as instance:
        host = vim.HostSystem(simulator.vcenter.hosts()[0].moid, instance._stub)
        assert WaitForTask(host.EnterMaintenanceMode_Task(0), si=instance) == "success"
        assert host.runtime.inMaintenanceMode is True
        assert WaitForTask(host.ExitMaintenanceMode_Task(0), si=instance) == "success"
        with pytest.raises(vim.fault.InvalidState):
            WaitForTask(host.ExitMaintenanceMode_Task(0), si=instance)


def test_the_journal_says_from_which_address_a_write_came(simulator: Simulator) -> None:
    """Instances log in as one user: whoever looks for the writes of one of them needs more than the name."""
    with connected(simulator) as instance:
        vim.HostSystem(simulator.vcenter.hosts()[0].moid, instance._stub).EnterMaintenanceMode_Task(0)
    (call,) = simulator.journal.calls("EnterMaintenanceMode_Task")
    assert (call.fields["user"], call.fields["client"]) == (simulator.user, "127.0.0.1")


def test_an_update_arrives_while_other_calls_go_on(simulator: Simulator) -> None:
    with connected(simulator) as instance, connected(simulator) as operator:
        collector = instance.content.propertyCollector.CreatePropertyCollector()
        collector.CreateFilter(hosts_of(instance.content.rootFolder, MAINTENANCE), True)
        version = collector.WaitForUpdatesEx("", PC.WaitOptions(maxWaitSeconds=0)).version
        wait = gevent.spawn(collector.WaitForUpdatesEx, version, PC.WaitOptions(maxWaitSeconds=20))
        wait_for(lambda: any(one.waiting for one in simulator.collectors()))
        for _ in range(20):
            operator.CurrentTime()
        moid = simulator.vcenter.hosts()[0].moid
        vim.HostSystem(moid, operator._stub).EnterMaintenanceMode_Task(0)
        assert changes(wait.get(timeout=10)) == [("modify", moid, {MAINTENANCE: True})]


def test_a_client_of_another_language_agrees(make_simulator: Callable[..., Simulator]) -> None:
    """govmomi decodes by type: a wrong xsi:type that pyVmomi forgives is an error or a nil there."""
    binary = govmomi_client.build()
    simulator = make_simulator(hosts=5)
    result = subprocess.run(
        [str(binary), "-url", simulator.url, "-user", simulator.user, "-ca", str(simulator.ca_file)],
        env={**os.environ, "SIMULATOR_PASSWORD": simulator.password},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert sorted(found["hosts"]) == sorted(host.name for host in simulator.vcenter.hosts())
    assert set(found["parents"].values()) == {"ClusterComputeResource"}
    assert found["clusters"] == ["/DC0/host/ClusterA", "/DC0/host/ClusterB"]
    assert found["memory_bytes"] > 2**31
    assert found["changes"][-1] == "modify runtime.inMaintenanceMode=bool"
    assert {"*types.HostAddedEvent", "*types.EnteredMaintenanceModeEvent", "*types.EventEx"} <= set(found["events"])
    assert (found["bad_login"], found["task_error"]) == ("*types.InvalidLogin", "*types.InvalidState")
    assert found["after_logout"] == "*types.NotAuthenticated"
    assert found["agencies"] == 0
    assert_no_leaks(simulator, sessions=0)


# TLS -----------------------------------------------------------------------------------------------------------


def test_the_certificate_is_the_one_that_was_announced(simulator: Simulator) -> None:
    with https_socket(simulator) as connection:
        der = connection.getpeercert(True)
        assert der is not None
        assert hashlib.sha256(der).hexdigest().upper() == simulator.thumbprint.replace(":", "")


def https_socket(simulator: Simulator) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(simulator.ca_file))
    plain = socket.create_connection((simulator.host, simulator.port), timeout=10)
    return context.wrap_socket(plain, server_hostname=simulator.host)


def test_a_client_without_the_ca_file_refuses_and_the_server_lives_on(simulator: Simulator) -> None:
    connection = http.client.HTTPSConnection(
        simulator.host, simulator.port, context=ssl.create_default_context(), timeout=10
    )
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("GET", "/sdk/vimServiceVersions.xml")
    connection.close()
    with socket.create_connection((simulator.host, simulator.port)) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
    with connected(simulator):
        pass


def test_what_is_no_request_gets_an_answer(simulator: Simulator) -> None:
    connection = https(simulator)
    for body, path, status in ((b"hello", "/sdk", 500), (b"", "/sdk", 500), (b"", "/nothing", 404)):
        connection.request("POST", path, body)
        response = connection.getresponse()
        assert response.status == status
        response.read()
    connection.close()


# Faults --------------------------------------------------------------------------------------------------------


def short(simulator: Simulator, instance: Any) -> Any:
    """The same session on a stub that gives up after a second."""
    stub = SoapStubAdapter(
        host=simulator.host,
        port=simulator.port,
        version=instance._stub.version,
        sslContext=ssl.create_default_context(cafile=str(simulator.ca_file)),
        httpConnectionTimeout=1,
        poolSize=0,
    )
    stub.cookie = instance._stub.cookie
    return vim.ServiceInstance("ServiceInstance", stub)


def test_faults_of_http_reach_the_client_as_what_they_are(simulator: Simulator) -> None:
    with connected(simulator) as instance:
        probe = short(simulator, instance)
        inject = simulator.faults.inject
        inject("http_503", count=1)
        with pytest.raises(http.client.HTTPException, match="503"):
            probe.CurrentTime()
        inject("truncated_response", count=1)
        with pytest.raises(ExpatError):  # pyVmomi reads by portions, so http.client does not notice that the end lacks
            probe.CurrentTime()
        inject("garbled_response", count=1)
        with pytest.raises(ExpatError):
            probe.CurrentTime()
        inject("slow", delay=0.2, count=1)
        began = time.monotonic()
        probe.CurrentTime()
        assert time.monotonic() - began >= 0.2
        inject("lost_response", count=1)
        with pytest.raises((OSError, http.client.HTTPException)):
            probe.CurrentTime()
        probe.CurrentTime()


def test_a_lost_response_was_carried_out(simulator: Simulator) -> None:
    with connected(simulator) as instance:
        probe = short(simulator, instance)
        simulator.faults.inject("lost_response", count=1, method="PostEvent")
        event = vim.event.EventEx(eventTypeId="org.example", createdTime=instance.CurrentTime(), key=0, chainId=0)
        with pytest.raises((OSError, http.client.HTTPException)):
            vim.event.EventManager("EventManager", probe._stub).PostEvent(event)
        found = instance.content.eventManager.QueryEvents(vim.event.EventFilterSpec(eventTypeId=["org.example"]))
        assert len(found) == 1


def test_a_half_open_server_never_answers_until_it_is_cleared(simulator: Simulator) -> None:
    with connected(simulator) as instance:
        probe = short(simulator, instance)
        simulator.faults.inject("half_open", method="CurrentTime")
        with pytest.raises(TimeoutError):
            probe.CurrentTime()
        simulator.faults.clear()
        probe.CurrentTime()


def test_a_cut_network_drops_what_is_open_and_what_comes(simulator: Simulator) -> None:
    with connected(simulator) as instance:
        probe = short(simulator, instance)
        probe.CurrentTime()
        collector = instance.content.propertyCollector
        wait = gevent.spawn(failure_of, collector.WaitForUpdates, "")
        wait_for(lambda: any(s.in_progress for s in simulator.sessions.active))
        simulator.faults.inject("network_cut")
        assert isinstance(wait.get(timeout=10), OSError | http.client.HTTPException)
        with pytest.raises((OSError, http.client.HTTPException)):
            probe.CurrentTime()
        simulator.faults.clear("network_cut")
        probe.CurrentTime()


def test_a_client_that_died_while_waiting_is_noticed(simulator: Simulator) -> None:
    """Its session would else be kept for ever by a call that nobody waits for."""
    with connected(simulator) as instance:
        collector = instance.content.propertyCollector
        probe = type(collector)(collector._moId, short(simulator, instance)._stub)
        with pytest.raises(TimeoutError):
            probe.WaitForUpdates("")
        wait_for(lambda: not any(session.in_progress for session in simulator.sessions.active))


def test_eam_may_be_down_while_vcenter_is_well(simulator: Simulator) -> None:
    with connected(simulator) as instance:
        simulator.faults.inject("eam_down")
        instance.CurrentTime()
        with pytest.raises(http.client.HTTPException, match="503"):
            eam_manager(simulator, instance).QueryAgency()


def test_eams_own_cookie_takes_the_place_of_the_session_in_a_careless_client(simulator: Simulator) -> None:
    with connected(simulator) as instance:
        manager = eam_manager(simulator, instance)
        simulator.faults.inject("set_cookie_overwrite")
        manager.QueryAgency()
        with pytest.raises(eam.fault.InvalidLogin):
            manager.QueryAgency()


# Control endpoint ------------------------------------------------------------------------------------------------


def test_control_needs_the_token(simulator: Simulator) -> None:
    assert ask(simulator, "GET", "/simulator/faults", token="wrong")[0] == 401
    assert ask(simulator, "GET", "/simulator/nothing")[0] == 404


def test_control_moves_faults_knobs_and_inventory_and_tells_the_journal(simulator: Simulator) -> None:
    status, fault = ask(simulator, "POST", "/simulator/faults", {"name": "slow", "delay": 0.5, "path": "/eam/sdk"})
    assert (status, fault["name"]) == (200, "slow")
    assert [one["name"] for one in ask(simulator, "GET", "/simulator/faults")[1]["active"]] == ["slow"]
    assert ask(simulator, "DELETE", "/simulator/faults/slow") == (200, {"cleared": 1})
    status, refused = ask(simulator, "POST", "/simulator/faults", {"name": "nothing"})
    assert status == 400
    assert "there is no fault 'nothing'" in refused["error"]
    assert ask(simulator, "POST", "/simulator/faults", {"nome": "slow"})[0] == 400
    assert ask(simulator, "POST", "/simulator/knobs", {"power_on": 1.5})[1]["power_on"] == 1.5
    assert ask(simulator, "POST", "/simulator/knobs", {"power_on": "x"})[0] == 400
    before = len(simulator.vcenter.hosts())
    status, _ = ask(simulator, "POST", "/simulator/stimuli", {"verb": "add_host", "cluster": "ClusterA"})
    assert status == 200
    wait_for(lambda: len(simulator.vcenter.hosts()) == before + 1)
    assert ask(simulator, "POST", "/simulator/stimuli", {"verb": "__init__"})[0] == 400
    assert ask(simulator, "POST", "/simulator/stimuli", {"verb": "add_host", "cluster": "Nowhere"})[0] == 400
    entries = ask(simulator, "GET", "/simulator/journal")[1]
    assert any(entry["kind"] == "stimulus" or "add_host" in json.dumps(entry) for entry in entries)
    assert ask(simulator, "GET", f"/simulator/journal?after={entries[-1]['seq']}")[1] == []


def test_traffic_counts_what_each_address_asked_and_was_told(simulator: Simulator) -> None:
    """The benchmarks' counts of calls are these."""
    assert ask(simulator, "GET", "/simulator/traffic") == (200, {})
    hosts = simulator.vcenter.hosts()
    with connected(simulator) as instance:
        content = instance.content
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
        collector = content.propertyCollector
        collector.CreateFilter(view_of(view, "name"), False)
        version = collector.WaitForUpdatesEx("", None).version
        simulator.vcenter.stimuli.rename(hosts[0], "another")
        collector.WaitForUpdatesEx(version, None)
    told = ask(simulator, "GET", "/simulator/traffic")[1]["127.0.0.1"]
    assert told["calls"]["SessionManager.Login"] == 1
    assert told["calls"]["PropertyCollector.WaitForUpdatesEx"] == 2
    assert told["updates"] == {"HostSystem": len(hosts) + 1}
    assert told["bytes_out"] > told["bytes_in"] > 0


# Life ------------------------------------------------------------------------------------------------------------


def test_stopping_ends_waits_greenlets_and_files() -> None:
    simulator = Simulator()
    simulator.start()
    directory = simulator.ca_file.parent
    with connected(simulator) as instance:
        collector = instance.content.propertyCollector
        wait = gevent.spawn(failure_of, collector.WaitForUpdates, "")
        wait_for(lambda: any(s.in_progress for s in simulator.sessions.active))
        simulator.stop()
        assert wait.get(timeout=10) is not None
    assert len(simulator.greenlets) == 0
    assert not directory.exists()
    simulator.stop()


def test_a_taken_port_is_an_error_that_leaves_nothing(simulator: Simulator) -> None:
    other = Simulator(listen=(simulator.host, simulator.port))
    with pytest.raises(OSError, match="in use"):
        other.start()
    with pytest.raises(RuntimeError):
        _ = other.ca_file
    other.stop()


@pytest.mark.slow
def test_2500_hosts_start_in_seconds_and_an_update_costs_what_changed(
    make_simulator: Callable[..., Simulator],
) -> None:
    began = time.process_time()
    simulator = make_simulator(hosts=2500, clusters=50)
    assert time.process_time() - began < 10
    with connected(simulator) as instance:
        collector = instance.content.propertyCollector
        collector.CreateFilter(hosts_of(instance.content.rootFolder, "name", MAINTENANCE), True)
        version, seen = "", 0
        while True:
            update = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=0))
            version = update.version
            seen += len(changes(update))
            if not update.truncated:
                break
        assert seen == 2500
        simulator.vcenter.hosts()[0].set(MAINTENANCE, True)
        began = time.process_time()
        for flag in (False, True) * 50:
            version = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=5)).version
            simulator.vcenter.hosts()[0].set(MAINTENANCE, flag)
        # Client and server together, TLS included; a scan of all hosts per change would cost ten times as much.
        assert (time.process_time() - began) / 100 < 0.02
