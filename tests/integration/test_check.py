# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam check``: each thing that may be wrong is named, with what to do; a right installation passes whole.

Against the simulated vCenter, a real RabbitMQ and a real ZooKeeper; nothing is changed by it in any of them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner

from tests.support.ovf import manifest, ovf_server
from tests.support.processes import write_secret
from tests.support.rabbit import RabbitNode, free_port
from tests.support.scenario import Wire
from tests.support.simulator import assert_no_leaks, connected, eam_manager, wait_for
from tests.support.zookeeper import ZooKeeperNode
from vcenter_eam_plugin.cli.main import main
from vcenter_eam_plugin.config import load
from vcenter_eam_plugin.eam.agency import AgencySpec, build_config
from vcenter_eam_plugin.preflight import vcenter as looking
from vcenter_eam_plugin.preflight.finding import Finding, Subject
from vcenter_eam_plugin.preflight.machine import _state_directory
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.sample_ovf import write_sample
from vcenter_eam_plugin.simulator.server import Simulator


class Installation:
    """A configuration that is right, until somebody changes it: section -> option -> value."""

    def __init__(self, simulator: Simulator, rabbit: RabbitNode, vhost: str, directory: Path) -> None:
        self.simulator = simulator
        self.directory = directory
        self.ovf = write_sample(directory / "ovf")
        self.options: dict[str, dict[str, Any]] = {
            "DEFAULTS": {"state_directory": directory / "state"},
            "VCENTER": {
                "vc_host": simulator.host,
                "vc_port": simulator.port,
                "vc_username": simulator.user,
                "vc_password_file": write_secret(directory / "password", simulator.password),
                "vc_ca_certs": simulator.ca_file,
            },
            "EAM": {
                "mode": "act",
                "clusters": "/DC0/host/ClusterA, /DC0/host/ClusterB",
                "ovf_package": self.ovf,
                "agent_vm_datastore": "shared-*",
                "agent_vm_network": "VM Network",
            },
            "RABBIT": {"rabbit_hosts": f"127.0.0.1:{rabbit.port}", "rabbit_vhost": vhost},
        }

    def change(self, section: str, **options: Any) -> None:
        self.options.setdefault(section, {}).update(options)

    @property
    def conf(self) -> Path:
        path = self.directory / "check.conf"
        lines = []
        for section, options in self.options.items():
            lines += [f"[{section}]", *(f"{name} = {value}" for name, value in options.items() if value is not None)]
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path

    def check(self) -> dict[tuple[str, str], dict[str, str]]:
        """Findings by subject's kind (its first word) and check."""
        writes = len(self.simulator.journal.calls(None))
        done = CliRunner().invoke(main, ["check", "--json", "-c", str(self.conf)])
        findings = [json.loads(line) for line in done.stdout.splitlines()]
        summary = findings.pop()
        assert summary["ok"] == (done.exit_code == 0), done.output
        assert done.exit_code in (0, 16), done.output
        assert len(self.simulator.journal.calls(None)) == writes, "a check changes nothing"
        assert_no_leaks(self.simulator, sessions=0, collectors=0)
        return {(each["subject"].split()[0], each["check"]): each for each in findings}

    def failing(self) -> dict[tuple[str, str], dict[str, str]]:
        return {name: each for name, each in self.check().items() if each["verdict"] in ("fail", "warn")}


@pytest.fixture
def installation(simulator: Simulator, rabbit_node: RabbitNode, rabbit_vhost: str, tmp_path: Path) -> Installation:
    return Installation(simulator, rabbit_node, rabbit_vhost, tmp_path)


def only(found: dict[tuple[str, str], dict[str, str]], subject: str, check: str) -> dict[str, str]:
    """The one thing that is wrong, which always says what to do."""
    assert list(found) == [(subject, check)], found
    finding = found[subject, check]
    assert finding["remedy"], "a finding that is not passed says what to do"
    return finding


def test_what_is_right_passes(installation: Installation, zookeeper: ZooKeeperNode) -> None:
    installation.change("ZOOKEEPER", zookeeper_servers=zookeeper.address)
    installation.change("DEFAULTS", ovf_base_url="http://127.0.0.1:8116")
    found = installation.check()
    assert {each["verdict"] for each in found.values()} == {"pass"}, found
    assert ("vCenter", "Agent VM settings") in found
    assert "RabbitMQ" in found["broker", "version"]["text"]
    assert ("ZooKeeper", "reachable") in found


def test_a_person_reads_what_and_what_to_do(installation: Installation) -> None:
    installation.change("EAM", clusters="/DC0/host/ClusterX")
    done = CliRunner().invoke(main, ["check", "-c", str(installation.conf)])
    assert done.exit_code == 16
    assert "FAIL  clusters:" in done.stdout
    assert "/DC0/host/ClusterA" in done.stdout, "the candidates"
    assert "skip  Agent VM settings: not looked at: clusters failed" in done.stdout
    assert "one thing must be mended" in done.stderr


# --- the way to vCenter -----------------------------------------------------------------------------------


def test_wrong_host_name(installation: Installation) -> None:
    installation.change("VCENTER", vc_host="vcenter.invalid")
    installation.change("DEFAULTS", ovf_base_url="http://contrail.example:8116")
    found = only(installation.failing(), "vCenter", "name")
    assert "vcenter.invalid cannot be resolved" in found["text"]
    assert "DNS" in found["remedy"]


def test_refused_port(installation: Installation) -> None:
    installation.change("VCENTER", vc_port=free_port())
    assert "does not accept connections" in only(installation.failing(), "vCenter", "port")["text"]


def test_untrusted_certificate(installation: Installation, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other-ca.pem"))
    installation.change("VCENTER", vc_ca_certs=tmp_path / "other-ca.pem")
    found = only(installation.failing(), "vCenter", "certificate")
    assert "SHA-256 thumbprint" in found["text"]


def test_wrong_thumbprint(installation: Installation) -> None:
    installation.change("VCENTER", vc_ca_certs=None, vc_thumbprint=":".join(["AB"] * 32))
    found = only(installation.failing(), "vCenter", "certificate")
    assert "another certificate than the pinned one" in found["text"]


def test_wrong_password(installation: Installation, tmp_path: Path) -> None:
    installation.change("VCENTER", vc_password_file=write_secret(tmp_path / "wrong", "nonsense"))
    found = installation.check()
    assert found["vCenter", "certificate"]["verdict"] == "pass"
    assert "refused the user name or password" in only(_wrong(found), "vCenter", "login")["text"]
    assert found["vCenter", "EAM"]["verdict"] == "skip"


@pytest.mark.parametrize("lacking", ["EAM.View", "EAM.Modify", "Host.Config.Settings"])
def test_missing_privilege(installation: Installation, tmp_path: Path, lacking: str) -> None:
    held = {"EAM.View", "EAM.Modify", "Host.Config.Settings"} - {lacking}
    if lacking == "EAM.View":
        held -= {"EAM.Modify"}  # which implies it
    installation.simulator.add_user("weak@vsphere.local", "secret", held)
    installation.change(
        "VCENTER", vc_username="weak@vsphere.local", vc_password_file=write_secret(tmp_path / "weak", "secret")
    )
    found = installation.failing()
    assert f"privilege {lacking}" in {check for _, check in found}
    assert f"Add {lacking} to the account's role" in found["vCenter", f"privilege {lacking}"]["remedy"]


def test_what_only_acting_needs_is_a_warning_while_observing(installation: Installation, tmp_path: Path) -> None:
    installation.simulator.add_user("reader@vsphere.local", "secret", {"EAM.View"})
    installation.change(
        "VCENTER", vc_username="reader@vsphere.local", vc_password_file=write_secret(tmp_path / "reader", "secret")
    )
    installation.change("EAM", mode="observe")
    found = installation.check()
    assert found["vCenter", "privilege EAM.Modify"]["verdict"] == "warn"
    assert found["vCenter", "privilege EAM.View"]["verdict"] == "pass"


def test_may_not_mark(installation: Installation) -> None:
    installation.change("EAM", hold_after_provisioning="yes")
    found = only(installation.failing(), "vCenter", "may mark as available")
    assert "extension register" in found["remedy"]


def test_clock_skew(installation: Installation) -> None:
    configuration = load([installation.conf], environ={})

    def seen(skew: float) -> Finding:
        found = looking.look(
            configuration,
            configuration.vcenters[0],
            None,
            wall_clock=lambda: time.time() + skew,
        )
        return next(each for each in list(found) if each.check == "clock")

    assert seen(0).verdict == "pass"
    assert (seen(60).verdict, seen(-60).verdict) == ("warn", "warn")
    ahead, behind = seen(3600), seen(-3600)
    assert (ahead.verdict, behind.verdict) == ("fail", "fail")
    assert "ahead of" in ahead.text
    assert "behind" in behind.text
    assert "NTP" in ahead.remedy


# --- EAM and what it deploys on ---------------------------------------------------------------------------


def test_eam_down(installation: Installation) -> None:
    installation.simulator.faults.inject("eam_down")
    assert "service-control" in only(installation.failing(), "vCenter", "EAM")["remedy"]


def test_eam_that_still_loads(installation: Installation) -> None:
    installation.simulator.faults.inject("eam_not_initialized")
    assert only(installation.failing(), "vCenter", "EAM")["remedy"]


def test_unknown_cluster(installation: Installation) -> None:
    installation.change("EAM", clusters="/DC0/host/Nowhere")
    assert "/DC0/host/ClusterA" in only(installation.failing(), "vCenter", "clusters")["text"]


def test_ambiguous_cluster(
    make_simulator: Callable[..., Simulator], rabbit_node: RabbitNode, rabbit_vhost: str, tmp_path: Path
) -> None:
    installation = Installation(make_simulator(hosts=4, datacenters=2), rabbit_node, rabbit_vhost, tmp_path)
    installation.change("EAM", clusters="ClusterA")
    found = only(installation.failing(), "vCenter", "clusters")
    assert "is ambiguous" in found["text"]


def test_host_without_settings_and_without_a_rule(installation: Installation) -> None:
    installation.change("EAM", agent_vm_datastore=None)
    found = only(installation.failing(), "vCenter", "Agent VM settings")
    assert "esx-01.dc0.example: no Agent VM datastore is set and no rule" in found["text"]
    assert "3 of 3 host(s) would be BLOCKED" in found["text"]


def test_hosts_that_are_set_need_no_rule(
    make_simulator: Callable[..., Simulator], rabbit_node: RabbitNode, rabbit_vhost: str, tmp_path: Path
) -> None:
    simulator = make_simulator(hosts=2, clusters=2, knobs=Knobs(agent_vm_settings_preset=True))
    installation = Installation(simulator, rabbit_node, rabbit_vhost, tmp_path)
    installation.change("EAM", agent_vm_datastore=None, agent_vm_network=None)
    assert installation.failing() == {}


# --- Agent VM settings that are set, or that a rule would set ------------------------------------------------


@pytest.fixture
def preset(
    make_simulator: Callable[..., Simulator], rabbit_node: RabbitNode, rabbit_vhost: str, tmp_path: Path
) -> Installation:
    """Two hosts, set to what the rules say."""
    simulator = make_simulator(hosts=2, clusters=2, knobs=Knobs(agent_vm_settings_preset=True))
    return Installation(simulator, rabbit_node, rabbit_vhost, tmp_path / "preset")


def stimuli_of(installation: Installation) -> Any:
    return installation.simulator.vcenter.stimuli


def test_a_host_that_lost_the_datastore_that_is_set(preset: Installation) -> None:
    host = stimuli_of(preset).hosts()[0]
    shared = next(one for one in host.datastores.values() if one.name == "shared-dc0")
    host.unmount(shared)
    found = only(preset.failing(), "vCenter", "Agent VM datastore")
    assert (found["verdict"], found["text"]) == (
        "fail",
        f"1 of 2 host(s) cannot use theirs: {host.name}: shared-dc0 is not on the host",
    )
    assert "Agent VM Settings" in found["remedy"]


def test_a_datastore_that_does_not_exist_any_more(preset: Installation) -> None:
    host = stimuli_of(preset).hosts()[0]
    local = next(one for one in host.datastores.values() if one.name.startswith("local"))
    stimuli_of(preset).set_agent_settings(host, local, "VM Network")
    host.unmount(local)
    del preset.simulator.world.objects[local.moid]
    found = preset.failing()
    assert f"{host.name}: {local.moid} does not exist any more" in found["vCenter", "Agent VM datastore"]["text"]


@pytest.mark.parametrize("preset_or_by_rule", ["preset", "by rule"])
def test_a_datastore_that_is_unmounted_on_a_host(
    installation: Installation, preset: Installation, preset_or_by_rule: str
) -> None:
    """What a rule would set is looked at like what is set."""
    chosen = preset if preset_or_by_rule == "preset" else installation
    host = stimuli_of(chosen).hosts()[0]
    stimuli_of(chosen).unmount_datastore(host, "shared-dc0")
    found = only(chosen.failing(), "vCenter", "Agent VM datastore")
    assert f"{host.name}: shared-dc0 is not mounted on it" in found["text"]


def test_a_datastore_whose_storage_is_lost(preset: Installation) -> None:
    stimuli_of(preset).lose_datastore("shared-dc0")
    found = only(preset.failing(), "vCenter", "Agent VM datastore")
    assert "2 of 2 host(s) cannot use theirs" in found["text"]
    assert "shared-dc0 is not accessible" in found["text"]


def test_a_datastore_in_maintenance(preset: Installation) -> None:
    stimuli_of(preset).datastore_maintenance("shared-dc0")
    found = only(preset.failing(), "vCenter", "Agent VM datastore")
    assert found["verdict"] == "warn"
    assert "shared-dc0 is in maintenance mode" in found["text"]
    assert "Take it out of maintenance mode" in found["remedy"]


def test_a_network_that_is_not_on_the_host(preset: Installation) -> None:
    host = stimuli_of(preset).hosts()[0]
    network = next(one for one in host.networks.values() if one.name == "VM Network")
    host.unmount(network)
    found = only(preset.failing(), "vCenter", "Agent VM network")
    assert f"{host.name}: VM Network is not on the host" in found["text"]
    del preset.simulator.world.objects[network.moid]
    found = only(preset.failing(), "vCenter", "Agent VM network")
    assert "gone" in found["text"]
    assert "2 of 2" in found["text"]


def test_too_little_room_for_all_of_them(preset: Installation) -> None:
    """The sample's disk has 64 KiB, and 1 GiB when it is full: two hosts share the datastore."""
    stimuli_of(preset).fill_datastore("shared-dc0", 100 << 10)
    found = only(preset.failing(), "vCenter", "Agent VM space")
    assert found["verdict"] == "fail"
    assert "shared-dc0: 100.0 KiB free for 2 ContrailVM(s)" in found["text"]
    stimuli_of(preset).fill_datastore("shared-dc0", 3 << 29)
    found = only(preset.failing(), "vCenter", "Agent VM space")
    assert found["verdict"] == "warn"
    assert "1.5 GiB free for 2 ContrailVM(s); one takes 64.0 KiB at least, and 1.0 GiB" in found["text"]
    stimuli_of(preset).fill_datastore("shared-dc0", 2 << 30)
    assert preset.failing() == {}


def test_hosts_that_are_set_to_something_else_than_the_rule_says(preset: Installation) -> None:
    first, second = stimuli_of(preset).hosts()
    local = next(one for one in first.datastores.values() if one.name.startswith("local"))
    stimuli_of(preset).set_agent_settings(first, local, "VM Network")
    stimuli_of(preset).set_agent_settings(second, "shared-dc0", "fab-pg")
    found = only(preset.failing(), "vCenter", "Agent VM rules")
    assert found["verdict"] == "warn"
    assert f"{first.name}: datastore {local.name}, where the rule has shared-*" in found["text"]
    assert f"{second.name}: network fab-pg, where the rule has VM Network" in found["text"]
    assert "Only what is unset is written" in found["remedy"]


def test_what_is_asked_of_vcenter_does_not_grow_with_the_hosts(
    make_simulator: Callable[..., Simulator], rabbit_node: RabbitNode, rabbit_vhost: str, tmp_path: Path
) -> None:
    """Bug: a call for each host whose settings are unset, which before a first installation is every host."""
    asked = {}
    for hosts in (2, 20):
        simulator = make_simulator(hosts=hosts, clusters=2)
        wire = Wire(simulator)
        assert Installation(simulator, rabbit_node, rabbit_vhost, tmp_path / str(hosts)).failing() == {}
        asked[hosts] = sum(wire.methods().values())
    assert asked[20] <= asked[2] + 4, "an answer of 50 objects is a page"


def test_an_endpoint_that_is_a_vm_in_scope(installation: Installation) -> None:
    vcenter = installation.simulator.vcenter.stimuli
    tenant = vcenter.add_tenant(vcenter.hosts()[0], "rabbit-1")
    tenant.address = "127.0.0.1"
    tenant.set("guestHeartbeatStatus", "green")  # with its tools up, which tenants of the simulator have not
    found = only(installation.failing(), "vCenter", "own endpoints")
    assert "broker 127.0.0.1 is the VM rabbit-1" in found["text"]


# --- the OVF package --------------------------------------------------------------------------------------


def test_ovf_digest_mismatch(installation: Installation) -> None:
    files = {path.name: path.read_bytes() for path in installation.ovf.parent.iterdir()}
    installation.ovf.with_suffix(".mf").write_bytes(manifest(files))
    assert installation.failing() == {}
    disk = next(path for path in installation.ovf.parent.iterdir() if path.suffix == ".vmdk")
    body = bytearray(disk.read_bytes())
    body[-1] ^= 1
    disk.write_bytes(body)
    assert disk.name in only(installation.failing(), "OVF", "package")["text"]


def test_ovf_server_that_does_not_answer(installation: Installation) -> None:
    installation.change("EAM", ovf_package=None, ovf_url=f"http://127.0.0.1:{free_port()}/ContrailVM.ovf")
    assert "cannot be fetched" in only(installation.failing(), "OVF", "package")["text"]


def test_ovf_at_an_address_that_vcenter_takes_for_itself(installation: Installation) -> None:
    """A package served at loopback is reached from this machine, and from no vCenter."""
    installation.change("VCENTER", vc_host="localhost.invalid")
    found = installation.failing()
    assert "127.0.0.1, which is itself there" in found["OVF", "reachable"]["text"]
    assert "ovf_base_url" in found["OVF", "reachable"]["remedy"]


def test_ovf_unreachable_from_vcenter(installation: Installation) -> None:
    """EAM says so itself, once it tried; nobody else can, from where vCenter stands."""
    simulator = installation.simulator
    stimuli = simulator.vcenter.stimuli
    for host in stimuli.hosts():
        stimuli.set_agent_settings(host, datastore="shared-dc0", network="VM Network")
    with connected(simulator) as instance:
        with ovf_server(installation.ovf.parent) as url:
            scope = tuple(cluster.moid for cluster in simulator.vcenter.clusters())
            spec = AgencySpec(name="ContrailVM-Agency", agent_name="ContrailVM", ovf_url=url, scope=scope)
            agency = eam_manager(simulator, instance).CreateAgency(build_config(spec), "enabled")
            wait_for(lambda: agency.QueryRuntime().status == "green", what="EAM deployed")
        stimuli.destroy(stimuli.agent_vm(stimuli.hosts()[0]))
        wait_for(agency.QueryIssue, what="EAM sees that it is gone")
        agency.ResolveAll()
        wait_for(lambda: "OVF" in str(agency.QueryIssue()), what="EAM tried again")
    found = only(installation.failing(), "vCenter", "OVF reachable from vCenter")
    assert "CannotAccessAgentOVF" in found["text"]
    assert "resolve --all" in found["remedy"]


# --- the other servers ------------------------------------------------------------------------------------


def test_broker_refused(installation: Installation) -> None:
    installation.change("RABBIT", rabbit_hosts=f"127.0.0.1:{free_port()}")
    assert "rabbit_hosts" in only(installation.failing(), "broker", "reachable")["remedy"]


def test_broker_login_refused(installation: Installation, tmp_path: Path) -> None:
    installation.change("RABBIT", rabbit_password_file=write_secret(tmp_path / "rabbit", "nonsense"))
    assert "rabbit_password" in only(installation.failing(), "broker", "login")["remedy"]


def test_zookeeper_unreachable(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcenter_eam_plugin.preflight.servers.ZOOKEEPER_SECONDS", 0.5)
    installation.change("ZOOKEEPER", zookeeper_servers=f"127.0.0.1:{free_port()}")
    # With an election the agency's URL must reach whichever instance runs.
    installation.change("DEFAULTS", ovf_base_url="http://127.0.0.1:8116")
    assert "nobody is elected" in only(installation.failing(), "ZooKeeper", "reachable")["remedy"]


# --- this machine -----------------------------------------------------------------------------------------


def test_state_directory_not_writable(installation: Installation, tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.touch()
    installation.change("DEFAULTS", state_directory=blocked)
    assert "is not a directory" in only(installation.failing(), "this", "state directory")["text"]


def test_state_directory_that_everybody_may_write_to(installation: Installation, tmp_path: Path) -> None:
    state = tmp_path / "open"
    state.mkdir()
    state.chmod(0o777)
    installation.change("DEFAULTS", state_directory=state)
    assert "everybody may write" in only(installation.failing(), "this", "state directory")["text"]


def test_state_directory_of_somebody_else(tmp_path: Path) -> None:
    """Asked as a user who may not write there."""
    state = tmp_path / "state"
    state.mkdir(mode=0o500)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        found = _state_directory(Subject("this machine"), state)
    finally:
        os.seteuid(before)
    assert found.verdict == "fail"
    assert str(state) in found.text
    assert "owned by the user of the service" in found.remedy


def _wrong(found: dict[tuple[str, str], dict[str, str]]) -> dict[tuple[str, str], dict[str, str]]:
    return {name: each for name, each in found.items() if each["verdict"] in ("fail", "warn")}
