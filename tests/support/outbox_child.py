# SPDX-License-Identifier: Apache-2.0
"""A process that works on an outbox without pause, to be killed at any moment; or whose disk is full for a while.

    python -m tests.support.outbox_child write OUTBOX ARRIVED SEED
    python -m tests.support.outbox_child full OUTBOX

``write`` says ``[`` on standard output before each call that writes, ``]`` after it, and ``<number>;`` for each step
that it was told is taken in. What its broker gets is appended to ARRIVED, a body a line.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.domain.status import ContrailVm, State

HOSTS = 150
STATES = (State.ACTIVE, State.POWERED_OFF, State.FAULTY, State.REMOVED)


def open_outbox(path: str) -> Outbox:
    """As the daemon opens it; the bound is low, so that coalescing has its part."""
    return Outbox(path, vcenter_uuid=VCENTER, publisher="child", now=time.time, bound=300)


def world_of(step: int) -> list[ContrailVm]:
    """What step number ``step`` says: every third host, and host-0 always."""
    hosts = {0, *range(step % 3, HOSTS, 3)}
    return [contrail_vm(host, STATES[(host + step) % 4] if host else State.ACTIVE, str(step)) for host in sorted(hosts)]


def write(path: str, arrived: str, seed: str) -> None:
    chance = random.Random(int(seed))

    def told(call: Callable[..., Any], *arguments: Any) -> Any:
        os.write(1, b"[")
        result = call(*arguments)
        os.write(1, b"]")
        return result

    outbox = open_outbox(path)
    told(outbox.take_epoch)
    known = outbox.last_accepted().get(key_of(0))
    step = int(known.reason) if known else 0
    broker = os.open(arrived, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        step += 1
        told(outbox.accept, world_of(step))
        os.write(1, b"%d;" % step)
        if chance.random() < 0.1:
            told(outbox.snapshot)
        for _ in range(chance.randrange(4)):
            rows = told(outbox.pending, 100)
            reached = rows[: chance.randint(0, len(rows))]
            os.write(broker, b"".join(row.body + b"\n" for row in reached))
            told(outbox.confirm, reached[: chance.randint(0, len(reached))])


def full(path: str) -> None:
    outbox = open_outbox(path)
    outbox.take_epoch()
    outbox.accept(world_of(1))
    largest = max(file.stat().st_size for file in Path(path).parent.iterdir())
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 4096, hard))
    refused = [_refused(call) for call in (lambda: outbox.accept(world_of(2)), outbox.snapshot)]
    meanwhile = {key: status.reason for key, status in outbox.last_accepted().items()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    accepted = len(outbox.accept(world_of(2)))
    print(json.dumps({"refused": refused, "meanwhile": meanwhile, "accepted": accepted, "backlog": outbox.backlog}))
    outbox.close()


def _refused(call: Callable[[], Any]) -> str:
    try:
        call()
    except PluginError as exc:
        return f"{type(exc).__name__}: {exc}"
    return "not refused"


if __name__ == "__main__":
    {"write": write, "full": full}[sys.argv[1]](*sys.argv[2:])
