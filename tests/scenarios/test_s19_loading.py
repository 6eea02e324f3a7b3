# SPDX-License-Identifier: Apache-2.0
"""S19: loaded by a host process through its entry point, never a burden to it; and a daemon that ends in order."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import Bench
from tests.support.rabbit import RabbitNode
from tests.support.scenario import Wire, assert_can_be_followed
from tests.support.simulator import assert_no_leaks

PROJECT = Path(__file__).parents[2]
GROUP = "contrail.vcenter.plugins"


def write_conf(bench: Bench, **changes: str) -> Path:
    """An INI file for this bench; ``VCENTER__vc_host="x"`` changes one option, ``None`` leaves it out."""
    simulator, package = bench.simulator, bench.configuration().vcenters[0].eam.ovf_package
    host, port = bench.broker.hosts[0]
    password = bench.directory / "password"
    password.write_text(simulator.password)
    sections: dict[str, dict[str, Any]] = {
        "DEFAULTS": {"state_directory": bench.directory / "state", "ovf_server_port": bench.ovf_port},
        "VCENTER": {
            "vc_host": simulator.host,
            "vc_port": simulator.port,
            "vc_username": simulator.user,
            "vc_password_file": password,
            "vc_ca_certs": simulator.ca_file,
            "vc_wait_seconds": 5,
        },
        "EAM": {
            "mode": "act",
            "clusters": "/DC0/host/ClusterA, /DC0/host/ClusterB",
            "ovf_package": package,
            "agent_vm_datastore": "shared-*",
            "agent_vm_network": "VM Network",
            "power_off_grace_seconds": 0.2,
        },
        "RABBIT": {"rabbit_hosts": f"{host}:{port}", "rabbit_vhost": bench.broker.vhost},
        "INTROSPECT": {"introspect_port": 0},
    }
    for name, value in changes.items():
        section, _, option = name.partition("__")
        sections[section][option] = value
    path = bench.directory / "eam.conf"
    path.write_text(
        "".join(
            f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in options.items() if v is not None)
            for section, options in sections.items()
        )
    )
    return path


# --- in somebody else's process ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def host_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the entry point is found: installed, or from setup.py's own metadata."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    # stevedore keeps a cache of entry points in the home directory; it must not outlive this run.
    environment["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    if not importlib.metadata.entry_points(group=GROUP, name="eam"):
        metadata = tmp_path_factory.mktemp("metadata")
        subprocess.run(
            [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(metadata)],
            cwd=PROJECT, check=True, capture_output=True,
        )  # fmt: skip
        environment["PYTHONPATH"] += f"{os.pathsep}{metadata}"
    return environment


class Host:
    """The other end of ``tests/support/plugin_host.py``."""

    def __init__(self, conf: Path, environment: dict[str, str], *how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(PROJECT / "tests/support/plugin_host.py"), str(conf), *how],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip

    def do(self, name: str, **values: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": name, **values}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def load(host_environment: dict[str, str]) -> Iterator[Callable[..., Host]]:
    """``load(conf, "unpatched")``: a host process that has loaded its plugins."""
    hosts: list[Host] = []

    def make(conf: Path, *how: str) -> Host:
        hosts.append(Host(conf, host_environment, *how))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


def test_a_host_loads_it_by_its_entry_point_and_it_does_the_main_job(bench: Bench, load: Callable[..., Host]) -> None:
    """S19: loading starts nothing; the host's signals, root logger and event loop stay its own."""
    wire = Wire(bench.simulator)
    host = load(write_conf(bench))
    assert host.do("status") == {"running": False, "reason": "not started", "vcenters": []}
    assert wire.calls == []
    began = host.do("state")["beats"]
    host.do("start")
    bench.wait_until_active()
    assert_can_be_followed(bench.messages)
    status = host.do("status")
    assert (status["running"], status["reason"]) == (True, "")
    assert status["vcenters"][0]["states"] == {"ACTIVE": 3}
    assert bench.simulator.password not in json.dumps(status)
    state = host.do("state")
    assert (state["handlers"], state["signal"]) == (True, True)
    assert state["beats"] > began + 10, "the host was held up"
    assert state["greenlets"] > 0
    assert_no_leaks(bench.simulator, sessions=1, collectors=1)
    began_stop = time.monotonic()
    host.do("stop")
    assert time.monotonic() - began_stop < 5
    assert host.do("state")["greenlets"] == 0
    assert host.do("status")["running"] is False
    assert_no_leaks(bench.simulator, sessions=0, collectors=0)
    host.do("start")
    bench.wait_for(lambda: host.do("status")["vcenters"][0].get("ready"), "it can be started again")


def test_the_hosts_leadership_decides_who_publishes_and_acts(bench: Bench, load: Callable[..., Host]) -> None:
    """S19: a standby watches and does nothing; a leader that is deposed stops, and catches up once it leads again."""
    host = load(write_conf(bench))
    host.do("lead", yes=False)
    host.do("start")
    bench.wait_for(lambda: host.do("status")["vcenters"][0].get("ready"), "it watches")
    assert host.do("status")["vcenters"][0]["leading"] is False
    assert (bench.messages, bench.writes()) == ([], [])
    host.do("lead", yes=True)
    bench.wait_until_active()
    first = max(m["epoch"] for m in bench.messages)
    host.do("lead", yes=False)
    bench.wait_for(lambda: host.do("status")["vcenters"][0]["leading"] is False, "it noticed")
    since, writes = len(bench.messages), len(bench.writes())
    name = bench.names()[0]
    bench.vcenter.power_off(bench.vcenter.agent_vm(name))
    bench.wait_for(lambda: "POWERED_OFF" in host.do("status")["vcenters"][0]["states"], "it watches on")
    assert (bench.heard(name, since), len(bench.writes())) == ([], writes)
    host.do("lead", yes=True)
    bench.wait_for(lambda: "POWERED_OFF" in bench.heard(name, since), "what was missed is told")
    bench.wait_until_active(name)
    missed = next(m for m in bench.messages[since:] if m["state"] == "POWERED_OFF")
    assert missed["epoch"] > first
    assert_can_be_followed(bench.messages)


def test_a_leader_that_is_deposed_drops_what_is_unsent(
    make_bench: Callable[..., Bench], rabbit_node: RabbitNode
) -> None:
    """S19: the next leader tells it; two tellers would contradict each other."""
    bench = make_bench(hosts=1, clusters=1)
    leading = [True]
    bench.start(is_master=lambda: leading[0])
    bench.wait_until_active()
    (host,) = bench.names()
    bench.wait_for(lambda: bench.unit.pipeline.status()["publisher"]["backlog"] == 0, "everything is sent")
    since = len(bench.messages)
    rabbit_node.freeze()
    try:
        bench.vcenter.disconnect(host)
        bench.wait_for(lambda: bench.unit.pipeline.status()["publisher"]["backlog"] > 0, "a message waits")
        bench.wait_for(lambda: "bus" in bench.alarms(), "the trouble is noticed")
        bench.vcenter.reconnect(host)
        bench.wait_for(lambda: bench.unit.pipeline.status()["states"] == {"ACTIVE": 1}, "it is active again")
        leading[0] = False
        bench.wait_for(lambda: bench.unit.pipeline.status()["publisher"]["backlog"] == 0, "nothing waits any more")
    finally:
        rabbit_node.thaw()
    leading[0] = True
    bench.wait_for(lambda: any(m["snapshot"] and not m["key"] for m in bench.messages[since:]), "the next term begins")
    bench.wait_for(lambda: bench.unit.pipeline.status()["publisher"]["backlog"] == 0, "everything is sent")
    assert bench.state(host) == "ACTIVE"
    assert_can_be_followed(bench.messages)


@pytest.mark.parametrize(
    ("how", "why"), [("unpatched", "has not patched"), ("manager", "runs once inside every ContrailVM")]
)
def test_the_wrong_host_is_refused_with_a_status(bench: Bench, load: Callable[..., Host], how: str, why: str) -> None:
    """S19: without gevent's patches one call would stop the host; contrail-vcenter-manager is the wrong place."""
    wire = Wire(bench.simulator)
    host = load(write_conf(bench), how)
    host.do("start")
    status = host.do("status")
    assert status["running"] is False
    assert why in status["reason"]
    host.do("stop")
    assert host.process.poll() is None, "the host lives on"
    assert wire.calls == []


def test_a_taken_port_or_a_wrong_option_is_a_status_and_mended_without_a_restart_of_the_host(
    bench: Bench, load: Callable[..., Host]
) -> None:
    """S19: nothing is raised into the host."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", bench.ovf_port))
        taken.listen()
        host = load(write_conf(bench))
        host.do("start")
        status = host.do("status")
        assert status["running"] is False
        assert str(bench.ovf_port) in status["reason"]
        assert host.do("state")["greenlets"] == 0
    host.do("start")
    bench.wait_until_active()
    wrong = load(write_conf(bench, EAM__poll_seconds="often"))
    wrong.do("start")
    reason = wrong.do("status")["reason"]
    assert "poll_seconds" in reason
    assert "'often'" in reason


def test_a_leader_flag_that_fails_means_not_leading(bench: Bench, load: Callable[..., Host]) -> None:
    """S19: somebody else's code raises in our loop; nobody is sure who leads, so we do not."""
    host = load(write_conf(bench))
    host.do("start")
    bench.wait_until_active()
    host.do("fail_to_say_who_leads")
    bench.wait_for(lambda: host.do("status")["vcenters"][0]["leading"] is False, "it stops leading")
    assert host.do("status")["running"] is True


# --- as a daemon -------------------------------------------------------------------------------------------------


def run_daemon(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vcenter_eam_plugin", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, **environment},
    )


@pytest.fixture
def daemon() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``daemon("-c", conf)`` starts one; it is gone at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        started.append(run_daemon(*map(str, arguments), **environment))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """SIGTERM; exit code and everything that was said. Fails when it takes more than 5 s."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=5.0)
    return process.returncode, out + err


def test_sigterm_ends_the_daemon_in_order(bench: Bench, daemon: Callable[..., Any]) -> None:
    """S19: within 5 s, exit code 0, logged out, nothing unsent; the next one goes on where it was."""
    conf = write_conf(bench)
    process = daemon("-c", conf)
    bench.wait_until_active()
    code, said = end(process)
    assert code == 0, said
    assert "Traceback" not in said
    assert bench.simulator.password not in said
    assert_no_leaks(bench.simulator, sessions=0, collectors=0)
    since = len(bench.messages)
    host = bench.names()[0]
    again = daemon("-c", conf)
    bench.wait_for(lambda: any(m["snapshot"] and not m["key"] for m in bench.messages[since + 1 :]), "the snapshot")
    assert [m for m in bench.messages[since:] if m["event"] != "sync"] == []
    bench.vcenter.enter_maintenance(host)
    bench.wait_for_state(host, "MAINTENANCE")
    assert end(again)[0] == 0
    assert_can_be_followed(bench.messages)


@pytest.mark.parametrize("trouble", ["half_open", "http_503", "network_cut", "broker"])
def test_sigterm_ends_it_in_time_whatever_is_down(
    bench: Bench, daemon: Callable[..., Any], rabbit_node: RabbitNode, trouble: str
) -> None:
    """S19: vCenter that never answers, or is gone; a broker that is frozen with a message unconfirmed."""
    process = daemon("-c", write_conf(bench))
    bench.wait_until_active()
    try:
        if trouble == "broker":
            rabbit_node.freeze()
        else:
            bench.simulator.faults.inject(trouble)
        bench.vcenter.enter_maintenance(bench.names()[0])
        bench.wait_for(lambda: bench.vcenter.hosts()[0].in_maintenance, "the host is in maintenance")
        code, said = end(process)
    finally:
        rabbit_node.thaw()
        bench.simulator.faults.clear()
    assert code == 0, said
    assert "Traceback" not in said


@pytest.fixture
def nobody_connects() -> Iterator[int]:
    """The port of a server that must see no connection at all."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"EAM__pol_seconds": "5"}, ["pol_seconds", "did you mean poll_seconds?"], id="option"),
        pytest.param({"EAM__poll_seconds": "often"}, ["poll_seconds", "'often'", "allowed"], id="type"),
        pytest.param({"EAM__mode": "full"}, ["mode", "'full'", "observe", "act"], id="choice"),
        pytest.param({"VCENTER__vc_username": None}, ["vc_username", "missing"], id="missing"),
        pytest.param({"VCENTER__vc_password_file": "/does/not/exist"}, ["/does/not/exist"], id="secret file"),
        pytest.param({"EAM__ovf_package": "/does/not/exist.ovf"}, ["/does/not/exist.ovf"], id="package"),
    ],
)
def test_a_wrong_configuration_ends_it_before_any_connection(
    bench: Bench, daemon: Callable[..., Any], nobody_connects: int, changes: dict[str, str], words: list[str]
) -> None:
    """S19: exit code 2; file, section, option, what was found, what is allowed."""
    conf = write_conf(
        bench, VCENTER__vc_port=str(nobody_connects), RABBIT__rabbit_hosts=f"127.0.0.1:{nobody_connects}", **changes
    )
    process = daemon("-c", conf)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 2, out + err
    for word in (*words, next(iter(changes)).partition("__")[0]):
        assert word in err
    assert "Traceback" not in err
    assert not (bench.directory / "state").exists()


@pytest.mark.parametrize(
    ("code", "changes", "words"),
    [
        pytest.param(3, {"VCENTER__vc_password_file": "WRONG"}, ["administrator@vsphere.local"], id="password"),
        pytest.param(4, {"VCENTER__vc_ca_certs": None}, ["THUMBPRINT", "subject", "CN="], id="certificate"),
        pytest.param(4, {"VCENTER__vc_ca_certs": None, "VCENTER__vc_thumbprint": "00:" * 31 + "00"},
                     ["THUMBPRINT", "pinned"], id="thumbprint"),
        pytest.param(6, {"EAM__clusters": "ClusterX"}, ["'ClusterX'", "/DC0/host/ClusterA", "/DC0/host/ClusterB"],
                     id="cluster"),
    ],
)  # fmt: skip
def test_what_time_cannot_heal_ends_it_at_the_start_with_its_code_and_one_sentence(
    bench: Bench, daemon: Callable[..., Any], code: int, changes: dict[str, str], words: list[str]
) -> None:
    """S19: and nothing was touched."""
    if "VCENTER__vc_password_file" in changes:
        wrong = bench.directory / "wrong-password"
        bench.directory.mkdir(exist_ok=True)
        wrong.write_text("Tr0ub4dor")
        changes = {"VCENTER__vc_password_file": str(wrong)}
    wire = Wire(bench.simulator)
    process = daemon("-c", write_conf(bench, **changes))
    out, err = process.communicate(timeout=20)
    assert process.returncode == code, out + err
    (sentence,) = err.strip().splitlines()
    for word in words:
        assert (bench.simulator.thumbprint.upper() if word == "THUMBPRINT" else word) in sentence
    assert "Tr0ub4dor" not in out + err
    assert "Traceback" not in out + err
    assert wire.count("Login") <= 1
    assert bench.writes() == []
    assert_no_leaks(bench.simulator, sessions=0, collectors=0)


def test_a_vcenter_that_is_down_at_the_start_is_waited_for(bench: Bench, daemon: Callable[..., Any]) -> None:
    """S19: time heals it, so the daemon stays."""
    bench.simulator.faults.inject("http_503")
    process = daemon("-c", write_conf(bench))
    bench.wait_for(lambda: not bench.simulator.faults.active or bench.simulator.faults.active[0].hits >= 1, "it tried")
    bench.simulator.faults.clear()
    bench.wait_until_active()
    assert process.poll() is None
    assert end(process)[0] == 0
