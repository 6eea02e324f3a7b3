# SPDX-License-Identifier: Apache-2.0
"""The control socket and the commands on it: who may, what is refused in which state, and operations to their end."""

import datetime as dt
import json
import logging
import socket
import stat
from collections.abc import Callable
from typing import Any

import pytest
from pyVmomi import vim

from tests.support.commands import Operator
from tests.support.simulator import wait_for
from vcenter_eam_plugin.cli.api import Api
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.domain.errors import ProtocolError, UnknownTarget
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.plugin import EamPlugin
from vcenter_eam_plugin.simulator.sample_ovf import write_sample
from vcenter_eam_plugin.web.control import ControlSocket

CHANGING = (
    ("apply", "--yes"),
    ("resolve", "--all", "--yes"),
    ("uninstall", "--acknowledge", "ContrailVM-Agency"),
)


@pytest.fixture
def healthy(operator: Operator) -> Operator:
    """Three ACTIVE hosts in two clusters."""
    operator.start()
    operator.bench.wait_until_active()
    return operator


def steps(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Target and outcome of each step that ended."""
    return [(e["target"], e["outcome"]) for e in events if e["kind"] == "step" and e["outcome"] in ("done", "failed")]


# --- the socket --------------------------------------------------------------------------------------------


def test_the_socket_is_for_the_services_user_alone_and_goes_with_the_service(healthy: Operator) -> None:
    """Issue 3: mode 0600, removed at the end; a command then says that no service runs (exit code 10)."""
    about = healthy.socket.lstat()
    assert stat.S_ISSOCK(about.st_mode)
    assert about.st_mode & 0o777 == 0o600
    assert [path.name for path in healthy.socket.parent.iterdir() if path.name.startswith(".control")] == []
    healthy.bench.stop()
    assert not healthy.socket.exists()
    done = healthy.run("status")
    assert done.exit_code == 10
    assert "No service runs here" in done.stderr


def test_a_socket_left_behind_by_a_killed_process_is_replaced(operator: Operator) -> None:
    operator.socket.parent.mkdir(parents=True)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(operator.socket))
    stale.close()
    operator.start()
    operator.bench.wait_until_active()
    assert operator.ask("status")[0]["vcenters"][0]["mode"] == "act"


@pytest.mark.parametrize("there", ["file", "alive"])
def test_a_socket_that_cannot_be_made_is_an_alarm_and_the_service_runs_on(operator: Operator, there: str) -> None:
    """Issue 3: what is there is left alone, also when we end."""
    operator.socket.parent.mkdir(parents=True)
    living = socket.socket(socket.AF_UNIX)
    if there == "file":
        operator.socket.write_text("kept", "utf-8")
    else:
        living.bind(str(operator.socket))
        living.listen()
    operator.start()
    operator.bench.wait_until_active()
    assert "cannot reach this service" in operator.bench.alarms()["control"]
    operator.bench.stop()
    assert operator.socket.exists()
    living.close()


def test_a_state_directory_with_a_long_name_has_its_socket_too(operator: Operator) -> None:
    """A socket's address holds 107 bytes; a path may be longer."""
    deep = operator.bench.directory / ("d" * 120)
    operator.conf.write_text(f"[DEFAULTS]\nstate_directory={deep}\n", "utf-8")
    operator.start(defaults={"state_directory": deep})
    operator.bench.wait_until_active()
    assert len(operator.ask("status")[0]["hosts"]) == 3


def test_loaded_as_a_plugin_there_is_a_socket_too(operator: Operator) -> None:
    """S19: in a host process nobody else could operate it."""
    bench = operator.bench
    secret = bench.directory / "password"
    secret.write_text(bench.simulator.password, "utf-8")
    conf = bench.directory / "plugin.conf"
    conf.write_text(
        f"[DEFAULTS]\nstate_directory={operator.socket.parent}\n[VCENTER]\nvc_host={bench.simulator.host}\n"
        f"vc_port={bench.simulator.port}\nvc_username={bench.simulator.user}\nvc_password_file={secret}\n"
        f"vc_ca_certs={bench.simulator.ca_file}\n[EAM]\nclusters=ClusterA\n[RABBIT]\nrabbit_hosts=127.0.0.1:1\n"
        "[INTROSPECT]\nintrospect_port=0\n",
        "utf-8",
    )
    plugin = EamPlugin(conf_file=str(conf))
    plugin.start()
    try:
        assert plugin.status()["running"], plugin.status()
        wait_for(lambda: operator.ask("status")[0]["vcenters"][0]["connected"], what="connected")
        operator.ask("pause")
        assert plugin.status()["vcenters"][0]["mode"] in ("observe", "paused")
    finally:
        plugin.stop()
    assert not operator.socket.exists()


def test_whoever_leaves_in_the_middle_does_not_end_the_operation(healthy: Operator) -> None:
    """Issue 3: the service carries it out, not the command."""
    host = healthy.bench.names()[0]
    api = Api(healthy.socket.parent)
    request = {"operation": "delete", "target": host}
    digest = api.post("/api/v1/preview", request)["digest"]
    events = api.follow("/api/v1/apply", {**request, "digest": digest, "acknowledge": host})
    assert next(events)["kind"] == "begin"
    events.close()  # type: ignore[attr-defined]
    healthy.bench.wait_for_state(host, "MISSING")


def test_what_is_not_understood_is_an_error_with_a_sentence(healthy: Operator) -> None:
    """Unknown operation, field, path or method, no JSON, too much of it: never a trace, never a change."""
    api = Api(healthy.socket.parent)
    writes = len(healthy.bench.writes())
    for body in (
        {"operation": "format-disks"},
        {"operation": "apply", "sudo": True},
        {},
        {"operation": "apply" * 20000},
    ):
        with pytest.raises(ProtocolError):
            api.post("/api/v1/preview", body)
    for path in ("/", "/api/v1/nothing"):
        with pytest.raises(ProtocolError, match="404"):
            api.get(path)
    with pytest.raises(ProtocolError, match="405"):
        api.get("/api/v1/apply")
    with pytest.raises(UnknownTarget, match="there are: test"):
        api.get("/api/v1/plan?vcenter=other")
    assert len(healthy.bench.writes()) == writes


def test_a_peer_that_says_nothing_or_nonsense_harms_nobody(healthy: Operator) -> None:
    silent, rude = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    for one in (silent, rude):
        one.connect(str(healthy.socket))
    rude.sendall(b"\x00\xff not http\r\n\r\n")
    assert len(healthy.ask("status")[0]["hosts"]) == 3
    silent.close()
    rude.close()


# --- modes -------------------------------------------------------------------------------------------------


def test_observing_everything_can_be_read_and_previewed_and_nothing_changed(operator: Operator) -> None:
    """Issue 3: observe mode refuses all but reading, previews and activate; what is refused is in the audit log."""
    operator.start(mode=Mode.OBSERVE)
    bench = operator.bench
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "everything is read")
    (plan,) = operator.ask("plan")[0]["plans"]
    assert [line["target"] for line in plan["lines"]] == ["agency", *sorted(bench.names())]
    assert "observe mode" in plan["closed"]
    refused = operator.run("apply", "--digest", plan["digest"])
    assert refused.exit_code == 13
    assert "observe mode" in refused.stderr
    assert bench.writes() == []
    first = operator.ask("activate")[0]["plans"]
    assert first[0]["digest"] == plan["digest"]
    bench.wait_until_active()


@pytest.mark.parametrize("why", ["paused", "not leading"])
@pytest.mark.parametrize("command", CHANGING)
def test_a_paused_instance_and_one_that_does_not_lead_refuse_what_changes(
    operator: Operator, command: tuple[str, ...], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    leading = [True]
    operator.bench.start(is_master=lambda: leading[0], endpoints=(ControlSocket,), power_off_grace_seconds=600.0)
    operator.bench.wait_until_active()
    host = operator.bench.vcenter.hosts()[0]
    operator.bench.vcenter.power_off(operator.bench.vcenter.agent_vm(host))
    operator.bench.wait_for(
        lambda: operator.ask("resolve", "--all", "--preview")[0]["lines"], "there is something to do"
    )
    if why == "paused":
        operator.ask("pause")
    else:
        leading[0] = False
    writes = len(operator.bench.writes())
    with caplog.at_level(logging.WARNING):
        done = operator.run(*command)
    if command[0] == "apply" and done.exit_code == 0:
        assert "nothing to do" in done.stdout  # the grace time runs: the plan is empty
    else:
        assert done.exit_code == 13
        assert "paused by an operator" in done.stderr or "does not lead" in done.stderr
        assert any("refused" in r.getMessage() for r in caplog.records if r.name.endswith(".audit"))
    assert len(operator.bench.writes()) == writes


def test_pause_and_activate_are_audited_and_shown(healthy: Operator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        healthy.ask("pause")
        assert healthy.ask("status")[0]["vcenters"][0]["mode"] == "paused"
        assert healthy.run("activate").exit_code == 0
        assert healthy.ask("status")[0]["vcenters"][0]["mode"] == "act"
    lines = [r.getMessage() for r in caplog.records if r.name.endswith(".audit")]
    assert [line.rpartition(") ")[2] for line in lines] == ["told test to pause.", "told test to activate."]


def test_the_reason_of_a_pause_is_for_whoever_comes_next(healthy: Operator) -> None:
    """Who, why and what came of it, in the audit trail; more than a sentence is no reason."""
    why = "host refresh in ClusterB"
    healthy.ask("pause", "--why", why)
    done = healthy.run("activate", "--why", "x" * 201)
    assert done.exit_code != 0
    assert healthy.ask("status")[0]["vcenters"][0]["mode"] == "paused"
    (told,) = [event for event in healthy.ask("events", "--kind", "operation") if event["text"] == "pause"]
    assert (told["why"], told["result"], told["vcenter"]) == (why, "done", "test")
    assert "uid" in told["who"]


def test_activate_with_a_digest_begins_what_was_shown_or_nothing(operator: Operator) -> None:
    """A person consents to a plan; another one is shown, and nothing is changed meanwhile."""
    operator.start(mode=Mode.OBSERVE)
    operator.bench.wait_for(lambda: operator.ask("status")[0]["vcenters"][0].get("ready"), "everything is read")
    refused = operator.run("activate", "--digest", "0123456789abcdef")
    assert refused.exit_code == 12
    assert "create the agency" in refused.stdout, "the new plan is shown"
    assert operator.ask("status")[0]["vcenters"][0]["mode"] == "observe"
    assert operator.bench.writes() == []
    (plan,) = operator.ask("plan")[0]["plans"]
    done = operator.run("activate", "--digest", plan["digest"])
    assert done.exit_code == 0, done.output
    assert "vcenter-eam status --watch" in done.stdout
    operator.bench.wait_until_active()


def test_after_activate_the_status_says_that_eam_is_at_work(operator: Operator) -> None:
    """From the first look on, until every host is ACTIVE: PENDING alone looks as if nothing went on."""
    operator.start(mode=Mode.OBSERVE)
    bench = operator.bench
    bench.wait_for(lambda: operator.ask("status")[0]["vcenters"][0].get("ready"), "everything is read")
    assert operator.ask("status")[0]["vcenters"][0]["doing"] == "", "observing, nobody is at work"
    operator.ask("activate")
    said = []
    while True:
        (now,) = operator.ask("status")[0]["vcenters"]
        if now["states"] == {"ACTIVE": 3}:
            break
        said.append(now["doing"])
        assert len(said) < 1000
    assert now["doing"] == ""
    assert all(said), said
    assert any(line.startswith("EAM is deploying: ") for line in said), said


# --- the plan ----------------------------------------------------------------------------------------------


def test_a_preview_with_nothing_to_do_says_so_first(healthy: Operator) -> None:
    """Of a large fleet the notes of what is left out fill the screen, and nobody reads to their end."""
    for arguments in (("resolve", "--all"), ("resolve", "--all", "--preview"), ("apply",)):
        done = healthy.run(*arguments)
        assert done.exit_code == 0
        assert "there is nothing to do" in done.stdout.splitlines()[0], arguments


def test_apply_does_what_was_shown_or_refuses_with_the_new_plan(operator: Operator) -> None:
    """Issue 3: a plan that is no longer true when it is applied is refused and shown anew (exit code 12)."""
    bench = operator.bench
    operator.start(power_off_grace_seconds=600.0)
    bench.wait_until_active()
    (before,) = operator.ask("plan")[0]["plans"]
    assert before["lines"] == []
    bench.unit.gate.pause()  # so that the plan stands still
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_for(lambda: operator.ask("plan")[0]["plans"][0]["lines"], "the new host is in the plan")
    bench.unit.gate.activate()
    done = operator.run("apply", "--digest", before["digest"], "--json")
    assert done.exit_code == 12, done.output
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["target"] for line in shown[-1]["lines"]] == [host.name]
    events = operator.ask("apply", "--digest", shown[-1]["digest"])
    assert steps(events) == [(host.name, "done")]
    bench.wait_until_active(host.name)


def test_without_a_terminal_several_steps_need_a_yes(operator: Operator) -> None:
    """Issue 3: a script that was not told to go on does not."""
    bench = operator.bench
    operator.start(auto_resolve=("VmPoweredOff",))
    bench.wait_until_active()
    host = bench.vcenter.hosts()[0]
    bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: operator.ask("resolve", "--all", "--preview")[0]["lines"], "the issue is seen")
    assert operator.run("resolve", "--all").exit_code == 11
    assert operator.run("resolve", "--all", typed="n\n").exit_code == 11
    assert bench.writes("Resolve") == []
    assert operator.run("resolve", "--all", typed="y\n").exit_code == 0
    bench.wait_until_active(host.name)


# --- issues ------------------------------------------------------------------------------------------------


def test_resolve_all_is_one_previewed_plan_within_the_budgets(operator: Operator) -> None:
    """S08: three are deleted, all are back, each by one Resolve."""
    bench = operator.bench
    operator.start(auto_resolve=("VmPoweredOff",))
    bench.wait_until_active()
    for host in bench.vcenter.hosts():
        bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: len(operator.ask("resolve", "--all", "--preview")[0]["lines"]) == 3, "three issues")
    events = operator.ask("resolve", "--all", "--yes")
    assert sorted(steps(events)) == [(name, "done") for name in sorted(bench.names())]
    bench.wait_until_active()
    assert len(bench.writes("Resolve")) == 3


def test_what_only_a_person_may_resolve_needs_the_typed_name(operator: Operator) -> None:
    """S08: VmCorrupted deletes the VM."""
    bench = operator.bench
    operator.start()
    bench.wait_until_active()
    host = bench.vcenter.hosts()[0]
    old = bench.vcenter.agent_vm(host)
    bench.vcenter.corrupt(old)
    bench.wait_for_state(host.name, "FAULTY")
    (shown,) = operator.ask("resolve", host.name, "--preview")
    assert (shown["radius"], shown["acknowledge"]) == ("agent VM is deleted", host.name)
    assert operator.run("resolve", host.name).exit_code == 11
    assert bench.writes("Resolve") == []
    assert steps(operator.ask("resolve", host.name, "--acknowledge", host.name)) == [(host.name, "done")]
    bench.wait_until_active(host.name)
    assert bench.vcenter.agent_vm(host) is not old


def test_what_eam_cannot_remediate_is_refused_with_the_advice(operator: Operator) -> None:
    """S08: InvalidConfig; resolving would only hide it."""
    bench = operator.bench
    operator.start()
    bench.wait_until_active()
    host = bench.vcenter.hosts()[0]
    vm = bench.vcenter.agent_vm(host)
    vm.power_on_fault = vim.fault.InsufficientResourcesFault(msg="no memory")
    bench.vcenter.power_off(vm)
    bench.wait_for_state(host.name, "FAULTY")
    writes = len(bench.writes())
    done = operator.run("resolve", host.name, "--acknowledge", host.name)
    assert done.exit_code == 13
    assert "Correct the VM" in done.stderr
    assert len(bench.writes()) == writes


def test_what_touches_the_host_needs_its_name_and_is_never_part_of_all(operator: Operator) -> None:
    """S06, S08, S10: Resolve on a host in maintenance would take it out of it."""
    bench = operator.bench
    operator.start()
    bench.wait_until_active()
    host = bench.vcenter.hosts()[0]
    bench.vcenter.enter_maintenance(host)
    bench.wait_for_state(host.name, "MAINTENANCE")
    bench.wait_for(
        lambda: (
            operator.run("resolve", host.name, "--preview").exit_code == 0
            and operator.ask("resolve", host.name, "--preview")[0]["lines"]
        ),
        "EAM's issue is seen",
    )
    (shown,) = operator.ask("resolve", host.name, "--preview")
    assert (shown["radius"], shown["acknowledge"]) == ("host", host.name)
    everything = operator.ask("resolve", "--all", "--preview")[0]
    assert everything["lines"] == []
    assert any("touches the host" in note for note in everything["notes"])
    assert operator.run("resolve", host.name, "--acknowledge", "yes").exit_code == 11
    assert bench.writes("Resolve") == []
    assert host.in_maintenance


# --- scope and agency --------------------------------------------------------------------------------------


def test_retreat_drains_a_cluster_and_return_brings_it_back_also_over_a_restart(healthy: Operator) -> None:
    """S04: the switch of one cluster; the other one is untouched."""
    bench = healthy.bench
    cluster = bench.vcenter.clusters()[1]
    path, inside = f"/DC0/host/{cluster.name}", [h.name for h in cluster.hosts.values()]
    assert healthy.run("retreat", path, "--acknowledge", cluster.name).exit_code == 11
    assert steps(healthy.ask("retreat", path, "--acknowledge", path)) == [(path, "done")]
    assert [bench.vcenter.agent_vm(h) for h in cluster.hosts.values()] == [None] * len(inside)
    bench.stop()
    healthy.start()
    bench.wait_for(lambda: healthy.ask("status")[0]["hosts"], "everything is read")
    rows = {row["path"]: row for row in healthy.ask("scope", "show")[0]["scope"]}
    assert (rows[path]["retreat"], rows[path]["in_agency"], rows[path]["configured"]) == (True, False, True)
    assert healthy.run("retreat", path, "--acknowledge", path).exit_code in (13, 14)
    healthy.ask("return", path)
    bench.wait_until_active(*inside)


def test_scope_remove_takes_only_what_is_configured_no_more(healthy: Operator) -> None:
    """S04: its ContrailVMs are deleted, after the typed path; while it is configured it is refused."""
    bench = healthy.bench
    first, second = bench.vcenter.clusters()
    path = f"/DC0/host/{second.name}"
    assert healthy.run("scope", "remove", path, "--acknowledge", path).exit_code == 13
    bench.stop()
    healthy.start(clusters=(f"/DC0/host/{first.name}",))
    bench.wait_for(lambda: len(healthy.ask("status")[0]["hosts"]) == 3, "everything is read")
    (shown,) = healthy.ask("scope", "remove", path, "--preview")
    assert all(host.name in shown["lines"][0]["text"] for host in second.hosts.values())
    assert healthy.run("scope", "remove", path).exit_code == 11
    assert steps(healthy.ask("scope", "remove", path, "--acknowledge", path)) == [(path, "done")]
    assert [bench.vcenter.agent_vm(h) for h in second.hosts.values()] == [None] * len(second.hosts)
    assert all(bench.state(host.name) == "ACTIVE" for host in first.hosts.values())


def test_uninstall_waits_for_the_last_vm_then_destroys_and_acts_no_more(healthy: Operator) -> None:
    """S03: nothing is left, and nothing is created again while nobody activates."""
    bench = healthy.bench
    assert healthy.run("uninstall", "--acknowledge", "ContrailVM").exit_code == 11
    assert bench.writes("Uninstall") == []
    events = healthy.ask("uninstall", "--acknowledge", "ContrailVM-Agency")
    assert [outcome for _, outcome in steps(events)] == ["done", "done"]
    assert [bench.vcenter.agent_vm(host) for host in bench.vcenter.hosts()] == [None] * 3
    assert bench.simulator.vcenter.eam.agencies == {}
    methods = [entry.fields["method"] for entry in bench.writes()]
    assert methods.index("Uninstall") < methods.index("DestroyAgency")
    assert healthy.ask("status")[0]["vcenters"][0]["mode"] == "paused"
    assert methods.count("CreateAgency") == 1
    bench.wait_for(lambda: healthy.ask("status")[0]["vcenters"][0]["agency"] is None, "it is seen to be gone", 10)
    assert bench.alarms() == {}


def test_another_owners_agency_is_used_once_it_is_adopted(make_operator: Callable[..., Operator]) -> None:
    """S03: refused with its owner named until a person takes it; remembered over a restart."""
    operator = make_operator(hosts=2, clusters=1)
    bench = operator.bench
    bench.simulator.add_user("other@vsphere.local", "secret", privileges="all")
    operator.start(vcenter=_login("other@vsphere.local"))
    bench.wait_until_active()
    bench.stop()
    operator.start()
    bench.wait_for(lambda: "agency-conflict" in bench.alarms(), "the conflict is seen")
    bench.wait_for(lambda: operator.run("adopt", "--preview").exit_code == 0, "everything is read")
    assert operator.run("adopt").exit_code == 11
    (shown,) = operator.ask("adopt", "--preview")
    assert "other" in shown["lines"][0]["text"].casefold()
    assert steps(operator.ask("adopt", "--acknowledge", "ContrailVM-Agency")) == [("ContrailVM-Agency", "done")]
    bench.wait_for(lambda: "agency-conflict" not in bench.alarms(), "the conflict is over")
    host = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    bench.wait_until_active(host.name)
    bench.stop()
    operator.start()
    bench.wait_for(lambda: len(operator.ask("status")[0]["hosts"]) == 3, "everything is read")
    assert "agency-conflict" not in bench.alarms()
    assert operator.run("adopt", "--acknowledge", "ContrailVM-Agency").exit_code == 13
    assert len(bench.writes("CreateAgency")) == 1


def _login(user: str) -> dict[str, Any]:
    return {"vc_username": user, "vc_password": Secret("secret")}


# --- release -----------------------------------------------------------------------------------------------


def test_release_needs_vcenter_alone(operator: Operator) -> None:
    """Design section 5: after a blackout neither service, broker nor state directory is there; held VMs are let go."""
    bench = operator.bench
    bench.simulator.knobs.change({"mark_allowed_for_users": True})
    operator.start(hold_after_power_on=True)
    bench.wait_until_active()
    bench.stop()
    hosts = bench.vcenter.hosts()
    agents = [agent for agency in bench.simulator.vcenter.eam.agencies.values() for agent in agency.agents.values()]
    for host in hosts:
        vm = bench.vcenter.agent_vm(host)
        bench.vcenter.power_off(vm)
        wait_for(lambda vm=vm: vm.power == "poweredOff", what="off")
        bench.vcenter.power_on(vm)
    operator.know_vcenter()
    wait_for(lambda: len(operator.ask("release", "--all", "--preview")[0]["lines"]) == 3, what="all are held")
    one = hosts[0].name
    assert operator.run("release", "esx-99").exit_code == 14
    assert operator.run("release").exit_code == 2
    assert steps(operator.ask("release", one)) == [(one, "done")]
    assert operator.run("release", one).exit_code == 13, "it is not held any more"
    assert operator.run("release", "--all").exit_code == 11, "nobody was asked"
    assert len(steps(operator.ask("release", "--all", "--yes"))) == 2
    assert all(agent.hook is None for agent in agents)
    assert len(bench.simulator.sessions.active) == 0


# --- status ------------------------------------------------------------------------------------------------


def test_tables_are_for_people(healthy: Operator) -> None:
    """S05: hosts, states, clusters; the same as objects with --json."""
    text = healthy.run("status").stdout
    assert all(name in text for name in healthy.bench.names())
    assert text.count("ACTIVE") >= 3
    assert "mode act, leading" in text
    assert "in agency" in healthy.run("scope", "show").stdout
    assert "no action is planned" in healthy.run("plan").stdout
    assert "none was" in healthy.run("upgrade", "status").stdout
    assert healthy.run("upgrade", "pause").exit_code == 13
    assert healthy.run("upgrade", "start", "--acknowledge", "ContrailVM-Agency").exit_code == 13, "the same package"
    assert healthy.run("return", "/DC0/host/ClusterA").exit_code == 14


def test_status_says_of_each_source_whether_it_is_live(healthy: Operator) -> None:
    """Inventory, events and EAM: live, or stale since when and why."""
    bench = healthy.bench
    assert "inventory, events and EAM live" in healthy.run("status").stdout
    shown = healthy.ask("status")[0]["vcenters"][0]["sources"]
    assert {name: source["live"] for name, source in shown.items()} == {"inventory": True, "events": True, "eam": True}
    bench.simulator.faults.inject("eam_down")
    bench.unit.pipeline.poll.wake()
    bench.wait_for(lambda: not healthy.ask("status")[0]["vcenters"][0]["sources"]["eam"]["live"], "EAM is stale")
    shown = healthy.ask("status")[0]["vcenters"][0]["sources"]
    assert (shown["inventory"]["live"], shown["events"]["live"]) == (True, True)
    since = dt.datetime.fromisoformat(shown["eam"]["stale_since"])
    assert dt.timedelta() <= dt.datetime.now(dt.UTC) - since < dt.timedelta(minutes=1)
    text = healthy.run("status").stdout
    assert f"runtime of EAM stale since {shown['eam']['stale_since']}" in text
    assert "503" in text
    bench.simulator.faults.clear()
    bench.wait_for(lambda: "EAM live" in healthy.run("status").stdout, "all are live again")


# --- upgrade -----------------------------------------------------------------------------------------------


def test_an_upgrade_is_started_followed_and_paused_by_command(operator: Operator) -> None:
    """Issue 3: a new package, the typed name, a canary, then the others; each host ends with a new VM."""
    bench = operator.bench
    bench.simulator.knobs.change({"mark_allowed_for_users": True})
    operator.start()
    bench.wait_until_active()
    old = {host.name: bench.vcenter.agent_vm(host) for host in bench.vcenter.hosts()}
    bench.stop()
    descriptor = write_sample(bench.directory / "new")
    descriptor.write_text(descriptor.read_text("utf-8").replace("4096 MB", "4 GB"), "utf-8")
    operator.start(ovf_package=descriptor)
    bench.wait_for(lambda: len(operator.ask("status")[0]["hosts"]) == 3, "everything is read")
    assert operator.run("upgrade", "start").exit_code == 11
    assert bench.writes("Update") == []
    events = operator.ask("upgrade", "start", "--acknowledge", "ContrailVM-Agency")
    assert steps(events) == [("ContrailVM-Agency", "done")]
    assert [e["detail"].partition(",")[0] for e in events if e.get("outcome") == "running"][:2] == ["holding", "canary"]
    bench.wait_until_active()
    assert not set(old.values()) & {bench.vcenter.agent_vm(host) for host in bench.vcenter.hosts()}
    (told,) = operator.ask("upgrade", "status")[0]["upgrades"]
    assert told["phase"] == "done"
    assert "done" in operator.run("upgrade", "status").stdout
    assert operator.run("upgrade", "resume").exit_code == 13
