# SPDX-License-Identifier: Apache-2.0
"""Every row as an operator sees it: on the status page without JavaScript, and by the commands, as text and as JSON.

That each row works is proved by its own scenarios. Here is what a person reads while it does, or does not: what state,
why, and what to do. Several rows share a vCenter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.onlooker import Onlooker
from tests.support.rabbit import RabbitNode, free_port
from tests.support.rules import has_ended
from tests.support.simulator import wait_for
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.domain import health
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.simulator.knobs import Knobs

HOURS = 3600.0
"""A grace time in which nobody repairs what was powered off."""
ROOT = Path(__file__).parents[2]
COMMAND = "from vcenter_eam_plugin.cli.main import main; main(prog_name='vcenter-eam')"

MakeOnlooker = Callable[..., Onlooker]

pytestmark = pytest.mark.usefixtures("quick_looks")


def tile(host: Any, state: str, letter: str) -> str:
    """How a host stands in the overview of a small fleet."""
    return f"{letter} {host.name} {state}"


# --- S01, S03, S05, S09, S17, S18, S19, S20: a fleet that is well, and a host more ------------------------------


def test_a_fleet_that_is_well_and_a_host_more(make_onlooker: MakeOnlooker, rabbit_url: str) -> None:
    """S01, S03, S05, S09, S17, S18, S19, S20."""
    look = make_onlooker(hosts=2, clusters=1)
    bench = look.bench
    look.start()
    bench.wait_until_active()
    (agency,) = bench.simulator.vcenter.eam.agencies
    # S01: where the package is fetched from, and that nothing is wrong with it
    package = f"EAM fetches the ContrailVM from http://127.0.0.1:{bench.ovf_port}/"
    overview = look.sees(
        "/", package, "green every agent is as it should be", "2 of 2 active", "No host needs anybody."
    )
    text = look.reads("status", package, f"agency {agency}, green", "2 ACTIVE", "inventory, events and EAM live")
    (shown,) = look.given("status")[0]["vcenters"]
    assert shown["ovf_url"].startswith(f"http://127.0.0.1:{bench.ovf_port}/")
    # S03, S05: the agency, and each ContrailVM with its state
    assert shown["agency"] == {"moref": agency, "status": "green"}
    assert (shown["states"], shown["alarms"]) == ({"ACTIVE": 2}, [])
    for host in bench.vcenter.hosts():
        name = bench.vcenter.agent_vm(host).name
        assert tile(host, "ACTIVE", "A") in overview
        assert f"{host.name} {name} ACTIVE" in text
        look.sees(look.address(host), "running", "vRouter active", name, "EAM shows no issue here.")
        look.reads(f"host {host.name}", "ACTIVE", "running", name, "Issues none", "Plan none")
        assert look.host(host)["state"] == "ACTIVE"
    look.reads("events --kind action", "create the agency over /DC0/host/ClusterA", "-> done")
    look.sees("/issues", "EAM has no issue.")
    look.sees("/plan", "There is nothing to do.")
    look.reads("plan", "no action is planned")
    # S17: what is watched is live
    assert "Inventory live Events live EAM live" in overview
    assert all(source["live"] for source in shown["sources"].values())
    # S18: everything is sent
    look.sees("/delivery", "0 waiting", "Broker up", "In quarantine none")
    assert look.gets("status", lambda given: given[0]["vcenters"][0]["publisher"]["backlog"] == 0)
    # S19: who leads
    assert "Leader this instance" in overview
    assert "mode act, leading" in text
    assert (shown["mode"], shown["leading"]) == ("act", True)

    # S09, S20: a new host, with no hand on anything; and on the bus, as it happens
    with listening(rabbit_url, as_json=False) as person, listening(rabbit_url, as_json=True) as program:
        host = bench.vcenter.add_host("ClusterA")
        bench.wait_until_active(host.name)
        assert person.read_until("-> ACTIVE").count(host.name) >= 3
        heard = [json.loads(line) for line in program.read_until('"state": "ACTIVE"').splitlines()]
    assert [each["state"] for each in heard if each["esxi"]["name"] == host.name][-1] == "ACTIVE"
    story = look.reads(
        f"events --host {host.name}", "set its unset Agent VM settings by rule", "DEPLOYING", "-> ACTIVE"
    )
    assert story.index("set its unset Agent VM settings by rule") < story.index("-> ACTIVE")
    texts = [event["text"] for event in look.given("events", "--host", host.name, "--kind", "state")]
    assert texts[-1].endswith("-> ACTIVE")
    datastore, network = host.agent_settings.datastore.moid, host.agent_settings.network.moid
    look.sees(look.address(host), f"Agent VM datastore {datastore}", f"Agent VM network {network}", "ACTIVE running")
    look.reads(f"host {host.name}", f"datastore {datastore}, network {network}")
    assert look.host(host)["settings"] == {"datastore": datastore, "network": network}
    look.sees("/", "3 of 3 active", tile(host, "ACTIVE", "A"))


class listening:  # noqa: N801 - used as a statement
    """``vcenter-eam listen`` as a process of its own."""

    def __init__(self, url: str, *, as_json: bool) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "listen", "--broker", url, *(["--json"] if as_json else [])],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> listening:
        assert self._child.stderr is not None
        assert "listening at" in self._child.stderr.readline()
        return self

    def __exit__(self, *error: object) -> None:
        self._child.kill()
        self._child.communicate(timeout=10)

    def read_until(self, text: str) -> str:
        """All lines up to one with that text."""
        assert self._child.stdout is not None
        lines = []
        while not lines or text not in lines[-1]:
            line = self._child.stdout.readline()
            assert line, f"it ended without {text!r}: {lines}"
            lines.append(line)
        return "".join(lines)


def test_a_host_that_nobody_may_be_deployed_to(make_onlooker: MakeOnlooker) -> None:
    """S09, S20: without a rule it is BLOCKED, and says what is missing and who can give it."""
    look = make_onlooker(hosts=1, clusters=1)
    look.start(agent_vm_datastore=())
    (host,) = look.bench.vcenter.hosts()
    look.bench.wait_for_state(host.name, "BLOCKED")
    what, whose = "the host has no Agent VM datastore set", "Set it on the host, or give a rule in agent_vm_datastore."
    look.sees("/", "Needs somebody 1", f"{host.name} B BLOCKED", what, whose)
    look.sees(look.address(host), what, whose, "Agent VM datastore not set")
    look.sees("/issues", "NoAgentVmDatastore", what, whose)
    look.reads("status", "1 BLOCKED", what, whose)
    look.reads(f"host {host.name}", "BLOCKED", what, whose, "datastore unset")
    look.reads(f"events --host {host.name}", "BLOCKED", "NoAgentVmDatastore is shown")
    assert [issue["type"] for issue in look.host(host)["issues"]] == ["NoAgentVmDatastore"]
    assert "agent_vm_datastore" in look.host(host)["issues"][0]["advice"]
    assert look.gets("status", lambda given: what in given[0]["hosts"][0]["reason"])


# --- S02, S17, S18, S19: what is watched and told, and by whom ------------------------------------------------


def test_a_vcenter_that_lets_nobody_in(make_onlooker: MakeOnlooker) -> None:
    """S02: the login is refused, and says what to correct."""
    look = make_onlooker(hosts=1, clusters=1)
    look.start(vcenter={"vc_password": Secret("wrong")})
    why = "refused the user name or password"
    look.sees("/", "connect", why, "not connected", "No host is known yet.")
    look.reads("status", "ALARM connect:", why, "vc_password", "nothing read yet")
    (alarm,) = look.gets("status", lambda given: given[0]["vcenters"][0]["alarms"])
    assert alarm["name"] == "connect"
    assert look.given("status")[0]["vcenters"][0]["connected"] is False
    look.reads("events --kind alarm", "connect raised", why)


def test_a_vcenter_and_a_broker_that_are_away_for_a_while(make_onlooker: MakeOnlooker, rabbit_node: RabbitNode) -> None:
    """S02, S17, S18: what is stale since when, what waits to be sent, and that both are over."""
    look = make_onlooker(hosts=1, clusters=1)
    bench = look.bench
    look.start()
    bench.wait_until_active()
    bench.simulator.faults.inject("http_503")
    look.sees("/", "Inventory stale for", "503", "EAM stale for")
    look.sees("/plan", "test")
    look.reads("status", "inventory of vCenter stale since", "503", "runtime of EAM stale since")
    assert look.gets("status", lambda given: not given[0]["vcenters"][0]["sources"]["inventory"]["live"])
    bench.simulator.faults.clear()
    bench.simulator.faults.inject("session_kill")
    look.sees("/", "Inventory live Events live EAM live", "1 of 1 active")
    look.reads("status", "inventory, events and EAM live", "1 ACTIVE")
    rabbit_node.freeze()
    try:
        bench.vcenter.enter_maintenance(bench.names()[0])
        look.sees("/", "bus", "waits in the outbox", "waiting, the oldest for")
        look.sees("/delivery", "Oldest unsent", "Last error")
        look.reads("status", "ALARM bus:", "waits in the outbox", "1 MAINTENANCE")
        assert look.gets("status", lambda given: given[0]["vcenters"][0]["publisher"]["backlog"])
    finally:
        rabbit_node.thaw()
    look.sees("/delivery", "0 waiting", "Broker up")
    bench.wait_for_state(bench.names()[0], "MAINTENANCE")
    told = look.reads("events --kind alarm", "bus raised", "waits in the outbox", "bus is over")
    assert told.index("bus raised") < told.index("bus is over")
    assert {"bus raised", "bus is over"} <= {event["text"] for event in look.given("events", "--kind", "alarm")}


def test_an_instance_that_does_not_lead(make_onlooker: MakeOnlooker) -> None:
    """S19: loaded by a host that is not the master. It watches, plans, and says why nothing is done."""
    look = make_onlooker(hosts=1, clusters=1)
    look.start(is_master=lambda: False)
    why = "this instance does not lead"
    look.sees("/", f"Acts no: {why}", "Leader nobody, as far as is known")
    look.sees("/plan", f"Nothing of it is done by itself: {why}", "create the agency")
    look.reads("status", "not leading")
    look.reads("plan", "create the agency", f"none of it is done: {why}")
    assert look.gets("plan", lambda given: given[0]["plans"][0]["lines"])
    assert look.given("plan")[0]["plans"][0]["closed"] == why
    refused = look.told("apply", "--yes")
    assert "does not lead" in refused


# --- S04: the scope -----------------------------------------------------------------------------------------


def test_the_scope_and_two_clusters_of_the_same_name(make_onlooker: MakeOnlooker) -> None:
    """S04: told apart everywhere; what leaves and what would leave is said before."""
    look = make_onlooker(hosts=4, clusters=2, datacenters=2)
    bench = look.bench
    look.start()
    bench.wait_until_active()
    look.sees("/", "ClusterA DC0", "ClusterA DC1")
    text = look.reads("status", "ClusterA in DC0: 2 hosts, 2 ACTIVE", "ClusterA in DC1: 2 hosts, 2 ACTIVE")
    assert text.count("ClusterA in ") == 2
    chosen = look.given("status", "--cluster", "DC1/ClusterA")[0]["hosts"]
    assert {host["esxi"]["datacenter"] for host in chosen} == {"DC1"}
    look.reads("scope show", "/DC0/host/ClusterA", "/DC1/host/ClusterA")
    (rows,) = (given["scope"] for given in look.given("scope", "show"))
    assert [(row["path"], row["in_agency"], row["hosts"]) for row in rows] == [
        ("/DC0/host/ClusterA", True, 2),
        ("/DC1/host/ClusterA", True, 2),
    ]
    # what would be lost is said before, and the path is to be typed
    path = "/DC1/host/ClusterA"
    look.reads(f"scope remove {path} --preview", "is still configured", "Take it out of `clusters`")
    (preview,) = look.given("retreat", path, "--preview")
    assert (preview["acknowledge"], preview["radius"]) == (path, "agent VM is deleted")
    look.reads(f"retreat {path}", path, "agent VM is deleted", f"needs the word '{path}'")
    # drained, and a host that left for it
    assert look.operator.run("retreat", path, "--acknowledge", path).exit_code == 0
    look.sees("/", f"In retreat {path} until vcenter-eam return")
    look.reads("status", f"in retreat, until vcenter-eam return: {path}")
    assert look.given("status")[0]["vcenters"][0]["retreat"] == [path]
    gone, kept = chosen[0]["esxi"]["name"], bench.vcenter.hosts()[0]
    look.reads(f"events --host {gone}", "-> REMOVED", "the host left the scope")
    assert look.gets("scope show", lambda given: given[0]["scope"][1]["retreat"])
    bench.vcenter.move_host(bench.vcenter.hosts()[2], bench.vcenter.add_cluster("Elsewhere", "DC0"))
    look.reads("status", "1 host, 1 ACTIVE")
    look.sees("/", tile(kept, "ACTIVE", "A"), "1 of 1 active")


# --- S06, S07, S08: powered off, deleted, repaired -----------------------------------------------------------


def test_powered_off_deleted_and_repaired(make_onlooker: MakeOnlooker) -> None:
    """S06, S07, S08: warned before, reported after, and how it is mended."""
    look = make_onlooker(hosts=3, clusters=1)
    bench = look.bench
    look.start(power_off_grace_seconds=HOURS)
    bench.wait_until_active()
    first, second, third = bench.vcenter.hosts()
    # S06: the warning, by command; nothing is done without the word
    warning = look.told("power-off", first.name, "--preview")
    assert "tenant VMs on the host lose their network" in warning
    (preview,) = look.given("power-off", first.name, "--preview")
    assert (preview["acknowledge"], preview["radius"]) == (first.name, "agent VM")
    assert "Nothing was changed" in look.told("power-off", first.name)
    assert "is lost" in look.told("delete", first.name, "--preview")
    assert look.operator.run("power-off", first.name, "--acknowledge", first.name).exit_code == 0
    # S07: red, and why; paused, or the one that was deleted would be back before everything was read
    bench.unit.pause()
    bench.vcenter.destroy(bench.vcenter.agent_vm(second))
    bench.wait_for_state(first.name, "POWERED_OFF")
    bench.wait_for_state(second.name, "MISSING")
    look.sees("/", "red", "VmPoweredOff : it should be on and is off", "Needs somebody 2",
              f"{first.name} O POWERED_OFF the ContrailVM is powered off",
              f"{second.name} X MISSING")  # fmt: skip
    look.sees(look.address(first), "POWERED_OFF", "VmPoweredOff", "Resolve powers it on.", "agent VM",
              "it was powered off a moment ago; somebody may be at work on it")  # fmt: skip
    look.sees("/issues", "VmPoweredOff 1", "VmNotDeployed", "Resolve deploys it again.", "Resolve all in test")
    look.reads("status", "red", "1 POWERED_OFF", "1 MISSING", "VmPoweredOff")
    look.reads(f"host {first.name}", "POWERED_OFF", "VmPoweredOff: it should be on and is off", "Resolve powers it on.")
    look.reads(f"events --host {second.name}", "ACTIVE -> MISSING", "the ContrailVM was deleted")
    assert look.gets("status", lambda given: given[0]["vcenters"][0]["agency"]["status"] == "red")
    asked = look.given("events", "--kind", "operation")[-1]
    assert f"pid {os.getpid()}" in asked["who"]
    # S08: one, then all; a preview before, the state after
    bench.unit.activate()
    look.sees(f"/preview?operation=resolve&target={first.moid}", "This is what would be done", first.name, "agent VM")
    look.reads(f"resolve {first.name} --preview", first.name, "VmPoweredOff", "agent VM")
    look.reads("resolve --all --preview", first.name, "VmPoweredOff")
    assert look.gets("resolve --all --preview", lambda given: given[0]["lines"])[0]["target"] == first.name
    assert "done" in look.told("resolve", first.name, "--yes")
    bench.wait_until_active(first.name)
    bench.wait_until_active()  # the one that was deleted is nobody's wish, and repaired by itself
    assert "no action is planned" in look.told("resolve", "--all", "--yes")
    look.sees("/", "green every agent is as it should be", "3 of 3 active")
    look.reads("status", "3 ACTIVE", "green")
    look.sees(look.address(second), "MISSING", "DEPLOYING", "ACTIVE running")
    # S06 on the page: what deletes a ContrailVM asks for the host's name, and does nothing without
    bench.vcenter.corrupt(bench.vcenter.agent_vm(third))
    look.sees(
        "/issues", "VmCorrupted", "Resolve deletes and deploys it again.", "agent VM is deleted", "a person decides"
    )
    cookie = look.web.log_in().cookie
    asked_for = f"/preview?operation=resolve&target={third.moid}"
    page = look.page(asked_for, Cookie=cookie)
    assert f"Type {third.name} to go on" in page
    assert "agent VM is deleted" in page
    look.reads(f"resolve {third.name}", "agent VM is deleted", f"needs the word '{third.name}'")
    assert bench.state(third.name) == "FAULTY"


# --- S10 to S16: what vCenter does, and what it should not --------------------------------------------------


@pytest.fixture
def pair(make_onlooker: MakeOnlooker) -> Onlooker:
    """Two healthy hosts in a cluster with HA; what is slow is said soon, and what is powered off stays so."""
    look = make_onlooker(hosts=2, clusters=1, knobs=Knobs(ha_failover=HOURS))
    (cluster,) = look.bench.vcenter.clusters()
    look.bench.vcenter.set_ha(cluster)
    look.bench.vcenter.set_admission(cluster, 1)
    look.start(power_off_grace_seconds=HOURS, slots_seconds=0.2, late_power_on_seconds=0.3)
    look.bench.wait_until_active()
    return look


def sees_broken(look: Onlooker, host: Any, rule: str, text: str, advice: str) -> None:
    """A broken rule, wherever an operator may look: what was seen, where, and what to do."""
    look.sees("/", "Needs somebody", "Rule broken:", text)
    look.sees(look.address(host), f"Rule broken: {rule}", text, advice)
    look.reads("status", "RULE BROKEN: ", rule)
    look.reads(f"host {host.name}", "RULE BROKEN", text, advice)
    look.reads("events --kind rule", host.name, f"{rule} is broken", text)
    (broken,) = look.gets(
        f"host {host.name}",
        lambda given: [each for each in given[0]["host"]["violations"] if each["name"] == rule],
    )
    assert text in broken["text"]
    assert advice in broken["advice"]


def sees_kept(look: Onlooker, host: Any, rule: str) -> None:
    """Over, and that it was."""
    look.bench.wait_until_active()
    look.sees("/", "2 of 2 active", "No host needs anybody.")
    look.reads("events --kind rule", f"{rule} is kept again")
    assert look.gets(f"host {host.name}", lambda given: given[0]["host"]["violations"] == [] or None) is True


def test_maintenance_and_standby(pair: Onlooker) -> None:
    """S10, S13: being off is right, nobody is needed, and nobody is offered what would drag the host out."""
    bench, host = pair.bench, pair.bench.vcenter.hosts()[0]
    for state, letter, issue, enter, leave in (
        ("MAINTENANCE", "M", "HostInMaintenanceMode", bench.vcenter.enter_maintenance, bench.vcenter.exit_maintenance),
        ("STANDBY", "Y", "HostInStandbyMode", bench.vcenter.enter_standby, bench.vcenter.wake),
    ):
        enter(host)
        why = f"host in {state.lower()}"
        pair.sees("/", tile(host, state, letter), f"1 {state}", "No host needs anybody.", issue)
        pair.sees(pair.address(host), f"{state} {why}", "ContrailVM", "poweredOff", issue, "Wait: ")
        pair.sees("/issues", issue, "never resolved by itself", "host")
        pair.reads("status", f"1 {state}", why)
        pair.reads(f"host {host.name}", state, why, issue, "Wait: ")
        pair.reads(f"events --host {host.name}", f"ACTIVE -> {state}", issue)
        assert pair.gets(f"host {host.name}", lambda given, state=state: given[0]["host"]["state"] == state)
        assert pair.given("status")[0]["vcenters"][0]["alarms"] == []
        (preview,) = pair.given("resolve", host.name, "--preview")
        assert (preview["radius"], preview["acknowledge"]) == ("host", host.name), "it would drag the host out"
        leave(host)
        bench.wait_until_active()
        pair.sees("/", "2 of 2 active")


def test_rules_that_are_broken_around_maintenance_and_standby(pair: Onlooker) -> None:
    """S10, S13: the states are those of every maintenance, and still somebody is needed."""
    bench, host = pair.bench, pair.bench.vcenter.hosts()[0]
    bench.simulator.knobs.change({"late_power_on_after_maintenance": True, "broken_rule_delay": HOURS})
    bench.vcenter.enter_maintenance(host)
    bench.wait_for(lambda: host.in_maintenance, "the host is in maintenance")
    bench.vcenter.exit_maintenance(host)
    late = "late_power_on_after_maintenance"
    sees_broken(pair, host, late, "its ContrailVM is still off", "can log in to vCenter")
    bench.vcenter.power_on(bench.vcenter.agent_vm(host))
    sees_kept(pair, host, late)
    bench.simulator.knobs.change({"late_power_on_after_maintenance": False, "dpm_agent_first": True})
    bench.vcenter.set_drs(host.compute_resource, False)  # the tenant cannot leave
    bench.vcenter.add_tenant(host)
    task = bench.vcenter.enter_standby(host)
    first = "dpm_agent_off_before_tenants"
    sees_broken(pair, host, first, "1 tenant VM(s) still run", "wake the host")
    bench.simulator.knobs.change({"dpm_agent_first": False, "broken_rule_delay": 0.0})
    task.cancel()
    bench.wait_for(lambda: has_ended(task), "it is given up")
    bench.vcenter.power_on(bench.vcenter.agent_vm(host))
    sees_kept(pair, host, first)


def test_rules_that_are_broken_by_drs(pair: Onlooker) -> None:
    """S11, S12: where the ContrailVM is, and who is without network."""
    bench, (host, other) = pair.bench, pair.bench.vcenter.hosts()
    bench.simulator.knobs.change({"drs_ignores_agents": True})
    vm = bench.vcenter.agent_vm(host)
    bench.vcenter.migrate(vm, other)
    moved = "agent_vm_on_other_host"
    sees_broken(pair, host, moved, f"the ContrailVM was moved to {other.name}", "Move it back by hand")
    pair.sees("/", f"{host.name} F FAULTY")
    bench.vcenter.migrate(vm, host)
    sees_kept(pair, host, moved)
    tenant = bench.vcenter.add_tenant(other)
    bench.vcenter.power_off(vm)
    bench.wait_for_state(host.name, "POWERED_OFF")
    bench.vcenter.migrate(tenant, host)
    came = "tenant_moved_to_unusable_host"
    sees_broken(pair, host, came, "1 tenant VM(s) were started on or moved to the host", "They have no network")
    sees_broken(
        pair, host, "tenants_on_unusable_host", "1 tenant VM(s) run on the host", "until this ContrailVM is ACTIVE"
    )
    bench.vcenter.power_on(vm)
    sees_kept(pair, host, came)


def test_rules_that_are_broken_by_ha(pair: Onlooker) -> None:
    """S14, S15, S16: a host that is lost with what was last known, and what HA did about it."""
    bench, (host, other) = pair.bench, pair.bench.vcenter.hosts()
    bench.simulator.knobs.change({"slots_count_agents": True})
    counted = "slots_count_agents"
    sees_broken(pair, host, counted, "HA admission control counts the ContrailVM", "a percentage instead of slots")
    pair.sees("/", "2 of 2 active", "Needs somebody 2")
    bench.simulator.knobs.change({"slots_count_agents": False})
    sees_kept(pair, host, counted)
    # lost, and back: the tenant first
    bench.vcenter.add_tenant(host)
    bench.simulator.knobs.change({"agent_not_first_after_restart": True, "broken_rule_delay": HOURS})
    bench.vcenter.crash(host)
    pair.sees("/", f"{host.name} U UNREACHABLE host not responding", "1 UNREACHABLE")
    pair.sees(pair.address(host), "UNREACHABLE host not responding", "last known: ACTIVE", "vRouter not active")
    pair.reads("status", "1 UNREACHABLE", "host not responding")
    pair.reads(f"host {host.name}", "UNREACHABLE", "see why vCenter cannot reach it", "last state ACTIVE")
    assert pair.host(host)["last_state"] == "ACTIVE"
    bench.vcenter.recover(host)
    not_first = "agent_not_first_after_restart"
    sees_broken(pair, host, not_first, "1 tenant VM(s) were started before its ContrailVM", "They have no network")
    vm = bench.vcenter.agent_vm(host)
    bench.vcenter.power_on(vm)
    sees_kept(pair, host, not_first)
    # lost, and its ContrailVM started elsewhere
    bench.simulator.knobs.change(
        {"agent_not_first_after_restart": False, "ha_restarts_elsewhere": True, "ha_failover": 0.1}
    )
    bench.vcenter.crash(host)
    elsewhere = "ha_restarted_elsewhere"
    sees_broken(pair, host, elsewhere, f"its ContrailVM was started on {other.name}", "Bring the host back")
    bench.vcenter.recover(host)
    bench.wait_for(lambda: host.connected, "it is back")
    bench.vcenter.migrate(vm, host)
    sees_kept(pair, host, elsewhere)


# --- S12, S20: held until its vRouter answers ---------------------------------------------------------------


def test_a_contrailvm_whose_vrouter_does_not_answer(
    make_onlooker: MakeOnlooker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S12, S20: held and why, what lets it go; and that nobody knows any more what the command ran for."""
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.2)
    look = make_onlooker(
        hosts=1,
        clusters=1,
        knobs=Knobs(mark_allowed_for_users=True, vrouter_port=free_port(), vrouter_start=HOURS),
    )
    bench, (host,) = look.bench, look.bench.vcenter.hosts()
    memory = bench.directory / "state" / f"{bench.simulator.service_instance.instance_uuid}.installed.json"
    memory.parent.mkdir(parents=True, mode=0o700)
    memory.write_text("[")
    ran = bench.directory / "ran"
    look.start(health_gate=True, health_deadline_seconds=HOURS, install_command=("touch", str(ran)))
    bench.wait_for_state(host.name, "STARTING")
    why = "vRouter not installed"
    look.sees(
        "/", tile(host, "STARTING", "S"), "installed-damaged", f"{memory.name}.damaged-", "move the damaged one away"
    )
    look.sees(look.address(host), f"STARTING {why}", "held: hook", "Release…")
    look.reads("status", "1 STARTING", why, "ALARM installed-damaged:")
    look.reads(f"host {host.name}", "STARTING", why, "held", "EAM waits until the ContrailVM is marked as available")
    assert look.gets(f"host {host.name}", lambda given: given[0]["host"]["reason"] == why)
    wait_for(ran.exists, what="the command runs once more")
    look.sees(f"/preview?operation=release&target={host.moid}", "This is what would be done", host.name)
    look.operator.know_vcenter()  # the one command that asks it, and no service
    look.reads(f"release {host.name} --preview", host.name, "mark")
    assert look.given("release", host.name, "--preview")[0]["lines"]
    assert look.operator.run("release", host.name, "--yes").exit_code == 0
    bench.wait_until_active()
    look.sees("/", "1 of 1 active")


# --- S20: hands off -----------------------------------------------------------------------------------------


def test_an_observer_says_what_it_would_do(make_onlooker: MakeOnlooker) -> None:
    """S20, S05: in mode observe everything is planned and nothing done, and both are said."""
    look = make_onlooker(hosts=1, clusters=1)
    look.start(mode=Mode.OBSERVE)
    (host,) = look.bench.vcenter.hosts()
    closed = "observe mode: nothing is changed until it is activated"
    look.sees("/", tile(host, "PENDING", "P"), "observe", f"Acts no: {closed}", "not created yet")
    look.sees(
        "/plan",
        f"Nothing of it is done by itself: {closed}",
        "create the agency",
        "set its unset Agent VM settings by rule",
    )
    look.sees(look.address(host), "PENDING", "EAM has no agent for this host yet", f"Not done by itself: {closed}")
    look.reads("status", "mode observe", "1 PENDING", "EAM has no agent for this host yet", "no agency")
    look.reads("plan", "create the agency", "set its unset Agent VM settings by rule", f"none of it is done: {closed}")
    assert look.gets("plan", lambda given: len(given[0]["plans"][0]["lines"]) >= 2)
    assert "observe mode" in look.told("apply", "--yes")
    assert look.bench.writes() == []
