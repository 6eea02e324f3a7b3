# SPDX-License-Identifier: Apache-2.0
"""Fail-points: each lies where it says, the daemon alone honours them, and a wrong one is refused at the start (P2)."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from tests.support.contrailvm import VCENTER, contrail_vm
from tests.support.facts import a_fleet, a_host, a_vm
from tests.support.rabbit import wait_for
from vcenter_eam_plugin import failpoints
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.publisher import Publisher
from vcenter_eam_plugin.delivery import Delivery
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.facts import VmPower
from vcenter_eam_plugin.domain.observations import InventoryObserved
from vcenter_eam_plugin.leadership import Alone

ROOT = Path(__file__).parents[2]
CONF = "[VCENTER]\nvc_host=127.0.0.1\nvc_port=1\nvc_username=u\nvc_password=p\n[EAM]\nclusters=A\n"


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signals that would have ended this process; nothing dies."""
    sent: list[int] = []
    monkeypatch.setattr(failpoints.os, "kill", lambda pid, number: sent.append(number) if pid == os.getpid() else None)
    return sent


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "o.db", vcenter_uuid=VCENTER, publisher="p1", now=time.time)
    yield box
    box.close()


# --- what the variable says -------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", failpoints.POINTS)
def test_an_armed_point_kills_and_no_other_does(point: str, kills: list[int]) -> None:
    assert failpoints.arm({failpoints.VARIABLE: f"{point}:kill"}) == point
    for other in failpoints.POINTS:
        if other != point:
            failpoints.reach(other)
    assert kills == []
    failpoints.reach(point)
    assert kills == [signal.SIGKILL]


def test_a_number_lets_the_visits_before_it_pass(kills: list[int]) -> None:
    failpoints.arm({failpoints.VARIABLE: "after-read:kill:3"})
    failpoints.reach(failpoints.AFTER_READ)
    failpoints.reach(failpoints.AFTER_READ)
    assert kills == []
    failpoints.reach(failpoints.AFTER_READ)
    assert kills == [signal.SIGKILL]


@pytest.mark.parametrize("environ", [{}, {failpoints.VARIABLE: ""}])
def test_unset_nothing_dies(environ: dict[str, str], kills: list[int]) -> None:
    assert failpoints.arm(environ) is None
    for point in failpoints.POINTS:
        failpoints.reach(point)
    assert kills == []


@pytest.mark.parametrize(
    "text",
    [
        "after-lunch:kill",
        "after-read",
        "after-read:",
        "after-read:raise",
        "after-read:kill:",
        "after-read:kill:0",
        "after-read:kill:-1",
        "after-read:kill:two",
        "after-read:kill:1:2",
        ":kill",
    ],
)
def test_a_wrong_one_is_refused_with_the_list_of_names(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        failpoints.arm({failpoints.VARIABLE: text})
    assert all(point in str(refused.value) for point in failpoints.POINTS)
    assert failpoints.VARIABLE in str(refused.value)


# --- who honours it ---------------------------------------------------------------------------------------------


def test_a_process_really_dies_of_it() -> None:
    code = (
        "import os; from vcenter_eam_plugin import failpoints;"
        "failpoints.arm(os.environ); failpoints.reach('after-plan'); print('alive')"
    )
    done = run_python(["-c", code], "after-plan:kill")
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""


def test_the_daemon_refuses_a_wrong_one_before_any_connection(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text(CONF + f"[DEFAULTS]\nstate_directory={tmp_path}\n", "utf-8")
    done = run_python(["-m", "vcenter_eam_plugin", "-c", str(tmp_path / "a.conf")], "after-lunch:kill")
    assert done.returncode == ConfigurationError.exit_code
    assert "there is no point 'after-lunch'" in done.stderr
    assert "after-outbox-write" in done.stderr


def test_a_host_process_does_not_die_of_the_variable(tmp_path: Path) -> None:
    """Neither of a right one nor of a wrong one: the plugin in it does not even look."""
    code = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys; from vcenter_eam_plugin import failpoints; from vcenter_eam_plugin.plugin import EamPlugin\n"
        "plugin = EamPlugin(conf_file=sys.argv[1]); plugin.start(); status = plugin.status()\n"
        "[failpoints.reach(point) for point in failpoints.POINTS]\n"
        "plugin.stop(); print(status['running'], status['reason'])"
    )
    (tmp_path / "a.conf").write_text(CONF + f"[DEFAULTS]\nstate_directory={tmp_path}\n", "utf-8")
    for text in ("after-read:kill", "after-lunch:kill"):
        done = run_python(["-c", code, str(tmp_path / "a.conf")], text)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "True"


def run_python(arguments: list[str], failpoint: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {failpoints.VARIABLE: failpoint},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# --- where they lie ---------------------------------------------------------------------------------------------


def test_after_outbox_write_the_change_is_on_disk_and_was_offered_to_nobody(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first comparison, at its snapshot, and at each change; not at what is no change."""
    found: list[tuple[int, int]] = []

    def look(point: str) -> None:
        assert point == failpoints.AFTER_OUTBOX_WRITE
        offered = outbox._db.execute("SELECT count(*) FROM offered").fetchone()[0]
        found.append((outbox.backlog, offered))

    monkeypatch.setattr(failpoints, "reach", look)
    fleet = a_fleet(a_host())
    log = logging.getLogger("test.failpoints")
    delivery = Delivery(
        fleet,
        outbox,
        Publisher(BrokerSettings.from_url("memory://"), outbox),
        leadership=Alone("here"),
        snapshot_seconds=0,
        clock=time.monotonic,
        alarms=Alarms(log, time.time),
        log=log,
    )
    delivery.tick()
    assert found == [(1, 0), (4, 0)], "the change, then BEGIN, the item and END"
    changed = fleet.apply(InventoryObserved(20.0, vms=(a_vm(power=VmPower.POWERED_OFF),)))
    assert changed
    delivery.publish(changed)
    assert found[2:] == [(5, 0)]
    delivery.publish(changed)
    assert len(found) == 3, "nothing was written, so it is not that point"


def test_after_publish_and_after_confirm_the_outbox_still_has_it(outbox: Outbox) -> None:
    outbox.take_epoch()
    outbox.accept([contrail_vm(1), contrail_vm(2)])
    found: list[tuple[str, int]] = []
    publisher = Publisher(
        BrokerSettings.from_url("memory://failpoints"),
        outbox,
        after_publish=lambda: found.append((failpoints.AFTER_PUBLISH, outbox.backlog)),
        after_confirm=lambda: found.append((failpoints.AFTER_CONFIRM, outbox.backlog)),
    )
    greenlet = gevent.spawn(publisher.run)
    wait_for(lambda: outbox.backlog == 0, 10.0, "an empty outbox")
    publisher.stop(5)
    greenlet.get(timeout=5)
    assert found == [(failpoints.AFTER_PUBLISH, 2), (failpoints.AFTER_CONFIRM, 2)]
