# SPDX-License-Identifier: Apache-2.0
"""The whole service while every third answer of vCenter and EAM is broken: it touches and announces nothing wrong, says
what is wrong, and is right again when they are."""

from __future__ import annotations

import random
import time

import gevent
import pytest

from tests.fuzz.hostile import ATTRIBUTES, FAULTS, KINDS, WORDS, Damaged, broken
from tests.support.bench import Bench
from tests.support.simulator import assert_no_leaks

STORM_SECONDS = 10.0
FATAL = ("DestroyAgency", "Uninstall", "Destroy_Task", "PowerOffVM_Task", "UnregisterExtension", "ShutdownGuest")
"""What nobody asked for."""
HONEST_FAULTS = [name for name in FAULTS if name != b"ManagedObjectNotFound"]
"""That an object is gone is no broken answer but another one, and is believed."""


def test_broken_answers_neither_delete_nor_create_nor_crash(bench: Bench, pytestconfig: pytest.Config) -> None:
    seed = random.SystemRandom().randrange(2**32) if pytestconfig.getoption("--fuzz-examples") else 1
    print(f"seed {seed}")
    rng = random.Random(seed)
    damaged = Damaged(bench.simulator)
    bench.answers_get_lost = True
    bench.start()
    bench.wait_until_active()
    created = len(bench.writes("CreateAgency"))
    heard = len(bench.messages)
    crashes: set[str] = set()

    def damage(body: bytes) -> bytes:
        if rng.random() > 0.33:
            return body
        pick = broken(
            rng.choice(KINDS),
            rng.random(),
            rng.choice(WORDS),
            rng.choice(ATTRIBUTES),
            rng.randint(2, 300),
            rng.choice(HONEST_FAULTS),
        )
        return pick(body)

    with damaged.with_damage(damage):
        until = time.monotonic() + STORM_SECONDS
        while time.monotonic() < until:
            crashes |= {f"{name}: {text}" for name, text in bench.alarms().items() if name.startswith("crash")}
            bench.unit.pipeline.inventory.refresh()
            bench.unit.pipeline.poll.read_everything()
            gevent.sleep(0.5)
    assert damaged.damaged > 50
    bench.wait_until_active()
    assert crashes == set()
    assert [m for m in bench.messages[heard:] if m["oper"] == "DELETE"] == []
    assert {method: bench.writes(method) for method in FATAL if bench.writes(method)} == {}
    assert len(bench.writes("CreateAgency")) == created
    bench.wait_for(lambda: not {"vcenter", "eam", "connect"} & set(bench.alarms()), "no alarm is left")
    # Collectors whose names were lost with the answer that held them live as long as the session, and no longer.
    service, bench.service = bench.service, None
    service.stop()
    assert [name for name, greenlet in service.greenlets().items() if not greenlet.dead] == []
    assert_no_leaks(bench.simulator, sessions=0, collectors=0)
