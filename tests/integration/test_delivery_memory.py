# SPDX-License-Identifier: Apache-2.0
"""The memory of delivery does not grow with what went through it, nor with the connections it lost.

A child process is the daemon's way from the fleet through outbox and publisher to a real RabbitMQ, composed as the
pipeline does; vCenter's side is left out, since SOAP makes 200,000 changes last an hour and is not what is asked here.

CI makes a tenth of the changes and all of the reconnects; everything, as the promise has it, is measured by

    EAM_TEST_CHANGES=200000 python -m pytest -s tests/integration/test_delivery_memory.py
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest

from tests.support.delivery_child import PIECE
from tests.support.proxy import Proxy
from tests.support.rabbit import RabbitNode, take_all
from vcenter_eam_plugin.bus.broker import BrokerSettings

CHANGES = int(os.environ.get("EAM_TEST_CHANGES", "20000"))
RECONNECTS = 50
SECONDS_PER_CHANGE = 0.03
"""Ten times what was measured, for a machine that is busy."""


@pytest.mark.slow
@pytest.mark.timeout(120 + CHANGES * SECONDS_PER_CHANGE)
def test_memory_after_many_changes_and_reconnects_is_what_it_was_after_a_tenth_of_them(
    tmp_path: Path, rabbit_node: RabbitNode, rabbit_vhost: str, broker_settings: BrokerSettings
) -> None:
    """Resident memory at the end is within 10 % of that after a tenth of the changes; each change was confirmed."""
    first = CHANGES // 10
    marks = [first, *(first + (CHANGES - first) * n // RECONNECTS // PIECE * PIECE for n in range(1, RECONNECTS + 1))]
    began = time.monotonic()
    with Proxy(broker_settings.hosts[0]).running() as proxy:
        code = "import tests.support.gevent_patch; from tests.support.delivery_child import main; main()"
        arguments = (f"127.0.0.1:{proxy.port}", rabbit_vhost, str(tmp_path), ",".join(map(str, marks)))
        with subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as child:
            try:
                reports = []
                for number in range(len(marks)):
                    assert child.stdout is not None
                    assert child.stdin is not None
                    line = child.stdout.readline()
                    assert line, "the child ended"
                    reports.append(json.loads(line))
                    child.stdin.write(b"on\n")
                    child.stdin.flush()
                    gevent.sleep(random.uniform(0.0, 0.1))  # a moment of chance within the next changes
                    if number % 2:
                        proxy.cut()
                    else:
                        rabbit_node.close_connections(rabbit_vhost)
                assert child.wait(30) == 0
            finally:
                child.kill()
    start, end = reports[0], reports[-1]
    print(
        f"{start['changes']} changes: {start['rss'] / 1e6:.1f} MB; {end['changes']} changes, {end['connects'] - 1}"
        f" reconnects: {end['rss'] / 1e6:.1f} MB; {time.monotonic() - began:.0f} s"
    )
    assert end["connects"] - 1 >= RECONNECTS
    assert end["confirmed"] >= end["changes"] == CHANGES
    assert end["rss"] <= start["rss"] * 1.1
    assert take_all(broker_settings)
