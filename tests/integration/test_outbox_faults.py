# SPDX-License-Identifier: Apache-2.0
"""The outbox in a process of its own: killed in the midst of transactions, and on a disk that is full for a while."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest

from tests.support.contrailvm import VCENTER, key_of
from tests.support.outbox_child import world_of
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.view import View
from vcenter_eam_plugin.domain.status import ContrailVm, State

KILLS = 30
LONGEST = 0.15
"""Seconds from a child's first write to its kill, at most: some tens of transactions."""


class Witness:
    """What the child's broker and its listener have seen over all kills."""

    def __init__(self, arrived: Path) -> None:
        self._arrived = arrived
        self._read = 0
        self.bodies: dict[str, bytes] = {}
        self.positions: dict[str, tuple[int, int]] = {}
        self.order: list[dict[str, object]] = []

    def read(self) -> None:
        """Take in what arrived since; a line that the kill cut never reached the broker."""
        new = self._arrived.read_bytes()[self._read :] if self._arrived.exists() else b""
        whole, _, torn = new.rpartition(b"\n")
        for body in filter(None, whole.split(b"\n")):
            self.see(body)
        self._read += len(new)
        if torn:
            with self._arrived.open("ab") as file:
                file.write(b"\n")
            self._read += 1

    def see(self, body: bytes) -> None:
        message = json.loads(body)
        if message["id"] in self.bodies:
            assert self.bodies[message["id"]] == body, "one id, two bodies"
            return
        self.bodies[message["id"]] = body
        self.order.append(message)
        if message["key"] is not None:
            here = (message["epoch"], message["seq"])
            assert here > self.positions.get(message["key"], (0, 0)), "overtaken"
            self.positions[message["key"]] = here

    def view_with(self, waiting: list[bytes]) -> dict[str, tuple[str, str]]:
        """What consumers hold once ``waiting`` has arrived, too."""
        view = View()
        for message in (*self.order, *(json.loads(body) for body in waiting)):
            view.apply(message)
        return {key: (str(m["state"]), str(m["reason"])) for key, m in view.states.items()}


def assert_whole_steps(known: dict[str, ContrailVm], told: int) -> None:
    """Each step stands with all its records or not at all, and none that was said to be taken in is missing."""
    last = int(known[key_of(0)].reason)
    assert told <= last <= told + 1, "a step that was taken in is gone"
    for status in world_of(last):
        if status.state is State.REMOVED:
            assert status.key not in known
        else:
            assert known[status.key] == status, "half a step"


@pytest.mark.slow
def test_thirty_kills_leave_nothing_half_and_lose_nothing(tmp_path: Path) -> None:
    """P1, P2: SIGKILL at moments of chance, most of them within a transaction. After each: no damage, every step whole,
    what arrived and what waits together say what was accepted; one id is one body, positions grow per key."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    path, arrived = tmp_path / "outbox.db", tmp_path / "arrived"
    witness = Witness(arrived)
    within = told = epoch = 0
    for _ in range(KILLS):
        arguments = ("write", path, arrived, str(chance.randrange(2**32)))
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.outbox_child", *arguments], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            first = child.stdout.read(1)
            assert first == b"[", "the child could not open what the kill left"
            gevent.sleep(chance.uniform(0.0, LONGEST))  # a moment of chance is the point
            child.kill()
            said = first + child.stdout.read()
        within += said.rpartition(b";")[2].count(b"[") > said.rpartition(b";")[2].count(b"]")
        told = max([told, *(int("".join(filter(str.isdigit, part))) for part in said.decode().split(";")[:-1])])
        witness.read()
        outbox = Outbox(path, vcenter_uuid=VCENTER, publisher="parent", now=time.time)
        try:
            assert outbox.kept_aside == ()
            assert outbox._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert outbox.last_epoch > epoch or b"]" not in said, "a term was taken, and is not known"
            epoch = outbox.last_epoch
            known = outbox.last_accepted()
            if known:
                assert_whole_steps(known, told)
            waiting = [body for (body,) in outbox._db.execute("SELECT body FROM message ORDER BY seq")]
            truth = {key: (str(status.state), status.reason) for key, status in known.items()}
            assert witness.view_with(waiting) == truth
        finally:
            outbox.close()
    print(f"{within} of {KILLS} kills within a transaction; {told} steps, {len(witness.order)} messages arrived")
    assert within >= KILLS // 6
    assert told > KILLS
    assert witness.order


def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path: Path) -> None:
    """A real limit of the system (RLIMIT_FSIZE): one sentence per refused call, nothing half, all is taken in later."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.outbox_child", "full", tmp_path / "outbox.db"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    said = json.loads(done.stdout)
    for refusal in said["refused"]:
        assert refusal.startswith(f"Unavailable: The outbox {tmp_path / 'outbox.db'} cannot be used: "), refusal
        assert refusal.endswith("Check the free space and the permissions of its directory.")
    assert set(said["meanwhile"].values()) == {"1"}
    outbox = Outbox(tmp_path / "outbox.db", vcenter_uuid=VCENTER, publisher="parent", now=time.time)
    try:
        assert outbox.kept_aside == ()
        assert_whole_steps(outbox.last_accepted(), 2)
        assert outbox.backlog == said["backlog"] > said["accepted"]
    finally:
        outbox.close()
