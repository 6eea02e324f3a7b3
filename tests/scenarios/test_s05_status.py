# SPDX-License-Identifier: Apache-2.0
"""S05: what operators see of the agency, of each ContrailVM and of events; and that no secret is in it."""

import json
from collections.abc import Callable

import pytest

from tests.support.bench import Bench
from tests.support.rabbit import RabbitNode
from vcenter_eam_plugin.config import Mode


def test_status_shows_agency_states_and_delivery(bench: Bench) -> None:
    """S05: everything healthy, nothing to say beyond it."""
    bench.start()
    bench.wait_until_active()
    bench.wait_for(lambda: bench.unit.pipeline.status()["publisher"]["backlog"] == 0, "everything is sent")
    # The agency's colour was read before that of its last agent.
    bench.wait_for(lambda: bench.unit.pipeline.status()["agency"]["status"] == "green", "the agency is read again")
    (shown,) = bench.service.status()["vcenters"]
    assert (shown["connected"], shown["live"], shown["leading"], shown["mode"]) == (True, True, True, "act")
    assert shown["uuid"] == bench.unit.session.instance_uuid
    (agency,) = bench.simulator.vcenter.eam.agencies
    assert shown["agency"] == {"moref": agency, "status": "green"}
    assert shown["states"] == {"ACTIVE": 3}
    assert shown["publisher"]["connected"] is True
    assert (shown["alarms"], shown["waiting"]) == ([], {})
    assert shown["ovf_url"] == bench.simulator.vcenter.eam.agencies[agency].prop_config().agentConfig[0].ovfPackageUrl
    text = json.dumps(bench.service.status())
    assert bench.simulator.password not in text


def test_each_contrailvm_is_shown_with_its_issue_and_what_would_help(bench: Bench) -> None:
    """S05, observe mode: the plan is shown, not carried out."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    bench.start(mode=Mode.OBSERVE)
    host = bench.vcenter.hosts()[0]
    bench.vcenter.suspend(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host.name, "SUSPENDED")
    bench.wait_for(lambda: bench.unit.pipeline.status()["agency"]["status"] == "red", "the agency is red")
    status = bench.unit.pipeline.fleet.status(host.moid)
    bench.wait_for(lambda: bench.unit.pipeline.fleet.status(host.moid).eam.issues, "the issue is shown")
    status = bench.unit.pipeline.fleet.status(host.moid)
    assert [issue.type for issue in status.eam.issues] == ["VmSuspended"]
    assert (status.eam.status, status.vm.power, status.vrouter.active) == ("red", "suspended", False)
    assert bench.unit.pipeline.status()["states"] == {"ACTIVE": 2, "SUSPENDED": 1}
    assert bench.unit.status()["mode"] == "observe"
    bench.wait_for(
        lambda: any("resolve VmSuspended" in a.describe() for p in bench.unit.pipeline.workers.plan().values()
                    for a in p.actions),
        "the plan",
    )  # fmt: skip


def test_events_of_eam_and_vcenter_are_in_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """S05: the audit trail."""
    caplog.set_level("INFO", "vcenter_eam_plugin")
    bench.start()
    bench.wait_until_active()
    bench.vcenter.enter_maintenance(bench.names()[0])
    bench.wait_for_state(bench.names()[0], "MAINTENANCE")

    def logged(kind: str) -> bool:
        return any("vCenter event" in r.message and kind in r.message for r in caplog.records)

    for kind in ("com.vmware.vim.eam.agency.create", "com.vmware.vim.eam.agent.task.deployVm"):
        bench.wait_for(lambda kind=kind: logged(kind), kind)
    bench.wait_for(lambda: logged("MaintenanceMode"), "the host's event")


def test_a_broker_that_is_away_is_an_alarm_until_it_is_back(
    make_bench: Callable[..., Bench], rabbit_node: RabbitNode
) -> None:
    """S05: which part is ill, since when, and what becomes of what is to be sent."""
    bench = make_bench(hosts=1, clusters=1)
    bench.start()
    bench.wait_until_active()
    rabbit_node.freeze()
    try:
        bench.vcenter.enter_maintenance(bench.names()[0])
        bench.wait_for(lambda: "bus" in bench.alarms(), "the alarm")
        assert "outbox" in bench.alarms()["bus"]
        assert bench.unit.pipeline.status()["publisher"]["backlog"] >= 1
        assert bench.unit.pipeline.status()["states"] == {"MAINTENANCE": 1}, "what is seen does not wait for the broker"
    finally:
        rabbit_node.thaw()
    bench.wait_for_state(bench.names()[0], "MAINTENANCE")
    bench.wait_for(lambda: bench.alarms() == {}, "the alarm is over")


def test_before_the_first_login_the_status_says_why_there_is_none(bench: Bench) -> None:
    """S05: vCenter is down when the service starts; the status is there all the same."""
    bench.simulator.faults.inject("http_503")
    bench.start()
    bench.wait_for(lambda: "connect" in bench.alarms(), "the alarm")
    (shown,) = bench.service.status()["vcenters"]
    assert shown["connected"] is False
    assert "503" in bench.alarms()["connect"]
    bench.simulator.faults.clear()
    bench.wait_until_active()
    assert bench.alarms() == {}
