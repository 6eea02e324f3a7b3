# SPDX-License-Identifier: Apache-2.0
"""``status``, ``host``, ``events`` and completion against a running service, a simulated vCenter and a real broker."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest

from tests.support.commands import Operator
from tests.support.simulator import wait_for

ROOT = Path(__file__).parents[2]
COMMAND = "from vcenter_eam_plugin.cli.main import main; main(prog_name='vcenter-eam')"


@pytest.fixture
def healthy(operator: Operator) -> Operator:
    """Three ACTIVE hosts in two clusters."""
    operator.start()
    operator.bench.wait_until_active()
    return operator


def told(events: list[dict[str, Any]], host: str) -> list[str]:
    return [event["text"] for event in events if event["name"] == host]


class Terminal:
    """A command as a process of its own, on a real terminal."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.seen = bytearray()
        self.child = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "60"},
            start_new_session=True,
        )
        os.close(theirs)
        self._reading = gevent.spawn(self._read)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.child.kill()
        self.child.wait()
        self._reading.join(10)
        os.close(self._ours)

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text.encode() in self.seen, seconds=60, what=f"{text!r} is drawn")

    def end(self) -> int:
        """Its exit code, with everything read that it drew."""
        wait_for(lambda: self.child.poll() is not None, seconds=60, what="it ends")
        self._reading.join(10)
        return int(self.child.returncode)

    def _read(self) -> None:
        while True:
            gevent.socket.wait_read(self._ours)
            try:
                self.seen.extend(os.read(self._ours, 65536))
            except OSError:  # the other end is closed
                return


# --- status ------------------------------------------------------------------------------------------------


def test_status_tells_each_cluster_and_since_when(healthy: Operator) -> None:
    """S05: heading with counts; since when comes with the change, and goes on over a restart of the service."""
    bench = healthy.bench
    before = {host["esxi"]["name"]: host["since"] for host in healthy.ask("status")[0]["hosts"]}
    assert all(at is not None and abs(time.time() - at) < 600 for at in before.values())
    host = bench.vcenter.hosts()[0]
    bench.vcenter.enter_maintenance(host)
    bench.wait_for_state(host.name, "MAINTENANCE")
    rows = {row["esxi"]["name"]: row for row in healthy.ask("status")[0]["hosts"]}
    assert rows[host.name]["since"] > before[host.name]
    assert {name: row["since"] for name, row in rows.items() if name != host.name} == {
        name: at for name, at in before.items() if name != host.name
    }
    text = healthy.run("status").output
    assert " hosts, " in text
    assert "1 MAINTENANCE" in text
    bench.stop()
    healthy.start()
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "everything is read again")
    after = {row["esxi"]["name"]: row for row in healthy.ask("status")[0]["hosts"]}
    assert after[host.name]["since"] == rows[host.name]["since"]


def test_status_chooses_by_cluster_and_state(healthy: Operator) -> None:
    every = healthy.ask("status")[0]["hosts"]
    cluster = every[0]["esxi"]["cluster"]
    chosen = healthy.ask("status", "--cluster", cluster)[0]["hosts"]
    assert chosen == [row for row in every if row["esxi"]["cluster"] == cluster]
    assert 0 < len(chosen) < len(every)
    assert healthy.ask("status", "--state", "faulty")[0]["hosts"] == []
    assert len(healthy.ask("status", "--state", "faulty", "--state", "active")[0]["hosts"]) == 3
    refused = healthy.run("status", "--cluster", "no-such")
    assert refused.exit_code == 14
    assert cluster in refused.stderr


def test_watch_draws_in_place_and_ends_with_ctrl_c(healthy: Operator) -> None:
    """On a real terminal, as a process of its own: it shows the change, says when the service is gone, exits with 0."""
    with Terminal("status", "--watch", "-c", str(healthy.conf)) as terminal:
        host = healthy.bench.vcenter.hosts()[0]
        terminal.wait_for(host.name)
        healthy.bench.vcenter.enter_maintenance(host)
        terminal.wait_for("MAINTENANCE")
        terminal.wait_for("\x1b[1A")  # the cursor goes up: it is drawn in place
        healthy.bench.stop()
        terminal.wait_for("No longer current")
        terminal.child.send_signal(signal.SIGINT)
        assert terminal.end() == 0


def test_an_operation_has_bars_on_a_terminal(healthy: Operator) -> None:
    """``uninstall`` is two steps over the whole fleet: a bar for the steps, and one for the hosts."""
    with Terminal("uninstall", "--acknowledge", "ContrailVM-Agency", "-c", str(healthy.conf)) as terminal:
        terminal.wait_for("0/3")
        assert terminal.end() == 0
        assert "2/2" in terminal.seen.decode()
        assert "2 done" in terminal.seen.decode()


# --- one host ----------------------------------------------------------------------------------------------


def test_host_tells_issue_with_advice_plan_and_events(operator: Operator) -> None:
    """S05: what is wrong, what would be done and what it waits for, what happened."""
    operator.start(power_off_grace_seconds=600.0)
    bench = operator.bench
    bench.wait_until_active()
    host = bench.vcenter.hosts()[0]
    bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: operator.ask("host", host.name)[0]["host"]["issues"], "EAM shows it")
    (answer,) = operator.ask("host", host.name.upper())
    about = answer["host"]
    assert [issue["type"] for issue in about["issues"]] == ["VmPoweredOff"]
    assert about["issues"][0]["advice"] == "Resolve powers it on."
    assert about["plan"]["actions"] == []
    assert about["plan"]["waiting"], "it waits for the grace time"
    assert 0 < about["plan"]["again_in"] <= 600
    assert about["settings"]["datastore"]
    assert "ACTIVE -> POWERED_OFF" in told(answer["events"], host.name)
    text = operator.run("host", host.name).output
    for said in ("VmPoweredOff: it should be on and is off", "waits: ", "ACTIVE -> POWERED_OFF", host.name):
        assert said in text
    unknown = operator.run("host", "no-such-host")
    assert unknown.exit_code == 14
    assert host.name in unknown.stderr


# --- events ------------------------------------------------------------------------------------------------


def test_the_trail_tells_a_repair_from_the_issue_to_its_end(operator: Operator) -> None:
    """S08: state, issue, action with why and result, state; the leadership, who paused, and no other host."""
    operator.start()
    bench = operator.bench
    bench.wait_until_active()
    host, other = bench.vcenter.hosts()[:2]
    bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: "POWERED_OFF" in bench.heard(host.name), "it is seen to be off")
    bench.wait_until_active(host.name)
    events = operator.ask("events", "--host", host.name)
    assert {event["name"] for event in events} == {host.name}
    texts = told(events, host.name)
    off = texts.index("ACTIVE -> POWERED_OFF")
    assert "VmPoweredOff is shown" in texts[off:]
    assert "VmPoweredOff is over" in texts[off:]
    resolved = [event for event in events if event["kind"] == "action" and "VmPoweredOff" in event["text"]]
    assert [(event["result"], event["who"]) for event in resolved[-1:]] == [("done", "")]
    assert resolved[-1]["why"]
    assert "ACTIVE -> POWERED_OFF" not in told(operator.ask("events", "--host", other.name), other.name)
    assert ["leads from now on" in event["text"] for event in operator.ask("events", "--kind", "election")] == [True]
    operator.ask("pause")
    (paused,) = operator.ask("events", "--kind", "operation")
    assert (paused["text"], paused["result"]) == ("pause", "done")
    assert f"pid {os.getpid()}" in paused["who"]
    ids = [event["id"] for event in operator.ask("events", "--limit", "10000")]
    assert ids == list(range(1, len(ids) + 1)), "one was left out, or told twice"


def test_an_operation_leaves_who_what_each_step_and_how_it_ended(operator: Operator) -> None:
    operator.start(auto_resolve=())
    bench = operator.bench
    bench.wait_until_active()
    host = bench.vcenter.hosts()[0]
    bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: operator.ask("resolve", "--all", "--preview")[0]["lines"], "the issue is seen")
    assert operator.run("resolve", host.name, "--yes").exit_code == 0
    asked = operator.ask("events", "--kind", "operation")
    assert [event["result"].partition(":")[0] for event in asked] == ["begun", "ended"]
    assert all(f"pid {os.getpid()}" in event["who"] for event in asked)
    step = operator.ask("events", "--kind", "action", "--host", host.name)[-1]
    assert step["who"] == asked[0]["who"]
    assert step["why"] == f"resolve {host.name}"
    assert step["result"].startswith("done: taken up by EAM")
    operator.ask("pause")
    assert operator.run("resolve", "--all", "--yes").exit_code in (0, 13)


def test_without_a_service_the_file_is_read_and_without_a_file_it_says_so(healthy: Operator) -> None:
    running = healthy.ask("events")
    healthy.bench.stop()
    done = healthy.run("events", "--json")
    assert done.exit_code == 0, done.output
    assert "No service runs here" in done.stderr
    assert "audit.jsonl" in done.stderr
    from_file = [json.loads(line) for line in done.stdout.splitlines()]
    assert from_file[: len(running)] == running
    (healthy.socket.parent / "audit.jsonl").unlink()
    nothing = healthy.run("events")
    assert nothing.exit_code == 10
    assert str(healthy.socket) in nothing.stderr
    assert "systemctl start contrail-vcenter-eam-plugin" in nothing.stderr


def test_follow_goes_on_with_what_happens_and_over_a_restart(healthy: Operator) -> None:
    """Nothing twice, nothing left out, also while no service runs."""
    child = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "events", "--follow", "--json", "--limit", "10000", "-c", str(healthy.conf)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    seen = bytearray()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            seen.extend(line)

    reading = gevent.spawn(read)
    try:
        wait_for(lambda: seen.count(b"\n") >= 3, seconds=60, what="what was is told")
        healthy.ask("pause")
        wait_for(lambda: b'"text": "pause"' in seen, seconds=60, what="the pause is told")
        healthy.bench.stop()
        healthy.start()
        wait_for(lambda: seen.count(b"leads from now on") == 2, seconds=60, what="the restart is told")
        child.send_signal(signal.SIGINT)
        wait_for(lambda: child.poll() is not None, seconds=60, what="it ends")
        assert child.returncode == 0
        reading.join(10)
        ids = [json.loads(line)["id"] for line in seen.splitlines()]
        assert ids == list(range(1, len(ids) + 1))
    finally:
        child.kill()
        child.wait()
        reading.kill()
        child.stdout.close()


def test_where_the_trail_has_nothing_of_that_it_says_so(healthy: Operator) -> None:
    """Bug: of a host whose name was written short there came nothing at all, as if nothing had happened."""
    done = healthy.run("events", "--host", healthy.bench.names()[0].partition(".")[0])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no such entry" in done.stderr
    assert healthy.ask("events", "--host", "nobody") == []


def test_what_is_asked_wrongly_of_the_trail_is_wrong_usage(healthy: Operator) -> None:
    for wrong in (("--since", "yesterday"), ("--kind", "weather"), ("--limit", "0")):
        assert healthy.run("events", *wrong).exit_code == 2, wrong


def test_a_disk_that_takes_no_trail_is_an_alarm_and_stops_nothing(healthy: Operator) -> None:
    """Something else stands in the file's place: the fleet goes on, and all of it is written once that is mended."""
    bench = healthy.bench
    path = healthy.socket.parent / "audit.jsonl"
    wait_for(path.exists, what="the first entries are written")
    before = healthy.ask("events", "--limit", "10000")
    aside = path.with_suffix(".aside")
    path.rename(aside)
    path.mkdir()
    host = bench.vcenter.hosts()[0]
    bench.vcenter.enter_maintenance(host)
    bench.wait_for_state(host.name, "MAINTENANCE")
    bench.wait_for(lambda: "audit" in bench.alarms(), "the alarm is raised")
    assert str(path) in bench.alarms()["audit"]
    path.rmdir()
    aside.rename(path)
    bench.wait_for(lambda: "audit" not in bench.alarms(), "the alarm is over")
    events = healthy.ask("events", "--limit", "10000")
    assert events[: len(before)] == before
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert any(text.endswith("-> MAINTENANCE") for text in told(events, host.name))


# --- completion --------------------------------------------------------------------------------------------


def complete(*words: str) -> list[str]:
    """What bash is given for the last of these words."""
    line = ["vcenter-eam", *words]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        cwd=ROOT,
        capture_output=True,
        check=False,
        env={
            **os.environ,
            "_VCENTER_EAM_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(line),
            "COMP_CWORD": str(len(line) - 1),
        },
        text=True,
    )
    assert done.stderr == ""
    return [item.partition(",")[2] for item in done.stdout.splitlines() if item]


def test_names_of_the_running_service_are_completed(healthy: Operator) -> None:
    """Hosts, clusters, paths, vCenters; and nothing, quietly, when no service runs."""
    conf = ("-c", str(healthy.conf))
    host = healthy.bench.names()[0]
    assert complete("host", *conf, host[:-1]) == [n for n in healthy.bench.names() if n.startswith(host[:-1])]
    assert complete("status", *conf, "--cluster", "Clus") == ["ClusterA", "ClusterB"]
    assert "/DC0/host/ClusterA" in complete("retreat", *conf, "/")
    assert complete("status", *conf, "--vcenter", "t") == ["test"]
    healthy.bench.stop()
    assert complete("host", *conf, "e") == []
