# SPDX-License-Identifier: Apache-2.0
"""/metrics, /healthz, /readyz and the dump of greenlets, of a real service with a simulated vCenter and a broker."""

from __future__ import annotations

import time

import gevent
import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.facts import CLUSTER, VCENTER, a_cluster, a_host, a_vm, an_agency, an_agent
from tests.support.web import TOKEN, Web
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.observations import AgencyObserved, AgentsObserved, InventoryObserved
from vcenter_eam_plugin.web.metrics import Metrics

Labels = tuple[tuple[str, str], ...]


def scrape(web: Web) -> dict[tuple[str, Labels], float]:
    """Every sample by name and labels, the vCenter's left out, as Prometheus' own parser reads them."""
    answer = web.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if k != "vcenter"))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def value(web: Web, name: str, **labels: str) -> float | None:
    return scrape(web).get((f"vcenter_eam_{name}", tuple(sorted(labels.items()))))


@pytest.fixture
def running(web: Web) -> Web:
    web.start()
    web.bench.wait_until_active()
    web.bench.wait_for(lambda: value(web, "outbox_messages") == 0, "everything is confirmed")
    return web


def test_numbers_tell_what_is_and_what_was_done(running: Web) -> None:
    """Issue 4: states per cluster, actions, confirms, stream, queue, outbox, session, leader."""
    cluster = running.bench.simulator.vcenter.clusters()[0].name
    seen = scrape(running)

    def told(name: str, **labels: str) -> float | None:
        return seen.get((f"vcenter_eam_{name}", tuple(sorted(labels.items()))))

    assert told("contrailvms", cluster=cluster, state="ACTIVE") == 1
    assert told("actions_total", action="create-agency", outcome="done") == 1
    assert told("plans_total", outcome="carried out") >= 1
    assert told("confirms_total") == len(running.bench.messages)
    assert told("logins_total") == 1
    assert told("inventory_listings_total") == 1
    assert told("broker_connects_total") == 1
    assert [told("source_live", source=name) for name in ("inventory", "events", "eam")] == [1, 1, 1]
    assert [told("mode", mode=name) for name in ("observe", "act", "paused")] == [0, 1, 0]
    assert (told("leading"), told("connected"), told("ready"), told("session_logged_in")) == (1, 1, 1, 1)
    assert told("epoch") > 1e12
    assert told("outbox_oldest_seconds") == 0
    assert told("queue_keys", stage="working") is not None
    # Its first state began before we looked; what it went through on its way was seen whole.
    assert told("contrailvm_time_in_state_seconds_count", state="DEPLOYING") == 1
    assert told("contrailvm_time_in_state_seconds_count", state="ACTIVE") is None
    assert told("contrailvm_longest_in_state_seconds", cluster=cluster, state="ACTIVE") >= 0


def test_a_hold_of_the_event_loop_is_told(running: Web) -> None:
    holds = value(running, "loop_holds_total")
    assert holds is not None
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        pass  # nobody else runs meanwhile
    running.bench.wait_for(lambda: value(running, "loop_holds_total") > holds, "the hold was counted")
    assert value(running, "loop_longest_hold_seconds") >= 0.2


def test_an_issue_a_repair_and_an_alarm_are_counted(running: Web) -> None:
    bench = running.bench
    bench.vcenter.power_off(bench.vcenter.agent_vm(bench.names()[0]))
    bench.wait_for(lambda: value(running, "repairs_total", outcome="succeeded") == 1, "the repair was counted")
    assert value(running, "actions_total", action="resolve", outcome="done") == 1
    assert value(running, "contrailvm_time_in_state_seconds_count", state="ACTIVE") == 1
    bench.unit.alarms.raise_("act:host-1", "made by the test")
    bench.unit.alarms.raise_("act:host-2", "made by the test")
    assert value(running, "alarms", alarm="act") == 2, "alarms of hosts are one series"


def test_what_people_ask_for_and_what_refuses_it_is_counted(running: Web) -> None:
    for digest in (
        "wrong",
        running.ask("POST", "/api/v1/preview", {"operation": "apply"}, bearer=TOKEN).json()["digest"],
    ):
        running.ask("POST", "/api/v1/apply", {"operation": "apply", "digest": digest}, bearer=TOKEN)
    assert value(running, "operations_total", operation="apply", outcome="PlanChanged") == 1
    assert value(running, "operations_total", operation="apply", outcome="begun") == 1


def test_ready_means_a_complete_and_current_picture_and_a_standby_has_one(web: Web) -> None:
    """Issue 4: each vCenter connected, live and given out; 503 with reasons; a warm standby is ready."""
    bench, leads = web.bench, [False]
    web.start(mode=Mode.OBSERVE, is_master=lambda: leads[0])
    bench.wait_for(lambda: web.ask("GET", "/readyz").status == 200, "the standby is ready")
    assert value(web, "leading") == 0
    bench.simulator.faults.inject("network_cut")
    bench.wait_for(lambda: web.ask("GET", "/readyz").status == 503, "it is not ready without vCenter")
    assert web.ask("GET", "/readyz").json() == {
        "ready": False,
        "reasons": ["the inventory is not current (1 of 1 vCenters)"],
    }
    assert value(web, "source_live", source="inventory") == 0
    assert web.ask("GET", "/healthz").json() == {"alive": True}, "a restart would not mend a vCenter"
    bench.simulator.faults.clear()
    bench.wait_for(lambda: web.ask("GET", "/readyz").status == 200, "it is ready again")
    assert value(web, "inventory_listings_total") == 2


def test_a_vcenter_that_cannot_be_connected_to_is_not_ready(web: Web) -> None:
    web.bench.simulator.faults.inject("http_503")
    web.start()
    web.bench.wait_for(lambda: "connect" in web.bench.alarms(), "it was tried")
    answer = web.ask("GET", "/readyz")
    assert (answer.status, answer.json()["reasons"]) == (503, ["not connected (1 of 1 vCenters)"])
    assert value(web, "connected") == 0
    assert value(web, "alarms", alarm="connect") == 1
    web.bench.simulator.faults.clear()


def test_metrics_are_of_one_service_and_of_no_global_registry(running: Web) -> None:
    """P13: in a host process the library's registry is the host's."""
    before = prometheus_client.generate_latest()
    assert b"vcenter_eam" not in before
    assert running.bench.service is not None
    other = Metrics(running.bench.service)
    assert b"vcenter_eam_contrailvms{" in other.text()
    assert prometheus_client.generate_latest().count(b"vcenter_eam") == 0


def test_greenlets_tell_where_they_are_and_no_value_of_a_variable(running: Web) -> None:
    greenlets = {each["name"]: each for each in running.ask("GET", "/api/v1/greenlets").json()["greenlets"]}
    poll = greenlets["test/poll"]
    assert not poll["dead"]
    assert any(line.startswith("vcenter_eam_plugin.eam_poll:") and line.endswith(" run") for line in poll["stack"])
    assert all("/" not in line for each in greenlets.values() for line in each["stack"]), "a path of the file system"


@pytest.fixture
def large() -> Fleet:
    """2,500 hosts that were read; made before anybody judges who holds the event loop."""
    fleet = Fleet(VCENTER, [CLUSTER])
    numbers = range(2500)
    fleet.apply(AgencyObserved(1.0, an_agency(), tuple(f"agent-{n}" for n in numbers)))
    fleet.apply(AgentsObserved(tuple(an_agent(n) for n in numbers)))
    vms = tuple(a_vm(n) for n in numbers)
    fleet.apply(InventoryObserved(2.0, (a_cluster(),), tuple(a_host(n) for n in numbers), vms, complete=True))
    while fleet.owed:
        fleet.go_on()
    assert len(fleet.statuses()) == 2500
    return fleet


def test_a_scrape_of_2500_hosts_holds_the_loop_less_than_50_ms(large: Fleet, running: Web) -> None:
    """P2: with as many hosts as a vCenter has; the number of series does not grow with them. The bench judges too."""
    service = running.bench.service
    assert service is not None
    pipeline = service.units[0].pipeline
    assert pipeline is not None
    mine, pipeline.fleet = pipeline.fleet, large
    try:
        service.units[0].tally.times.see(large.statuses(), pipeline.now())
        assert value(running, "contrailvms", cluster=f"Cluster {CLUSTER}", state="ACTIVE") == 2500
        metrics = Metrics(service)
        took = []
        for _ in range(5):
            gevent.sleep(0.001)
            began = time.thread_time()  # of computing: this machine may be busy with something else
            text = metrics.text()
            took.append(time.thread_time() - began)
    finally:
        pipeline.fleet = mine
    print(f"a scrape of 2500 hosts computes for {min(took) * 1e3:.1f} ms and gives {len(text)} bytes")
    assert min(took) < 0.05
    assert len(text.splitlines()) < 400
