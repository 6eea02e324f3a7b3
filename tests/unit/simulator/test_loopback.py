# SPDX-License-Identifier: Apache-2.0
"""Guests of two simulators on one machine never have the same address: one would answer for the other."""

import subprocess
import sys

from vcenter_eam_plugin.simulator import loopback
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.server import Simulator

CLAIM = """
from vcenter_eam_plugin.simulator import loopback
print(loopback.claim().net)
"""


def test_a_claimed_range_is_not_given_to_another_process() -> None:
    ours = loopback.claim()
    try:
        done = subprocess.run([sys.executable, "-c", CLAIM], capture_output=True, text=True, check=True)
        assert done.stdout.strip() not in ("", ours.net)
    finally:
        ours.release()


def test_two_simulators_have_two_ranges_and_give_them_back() -> None:
    with Simulator(hosts=1) as one, Simulator(hosts=1) as other:
        nets = {one.knobs.vrouter_net, other.knobs.vrouter_net}
        assert len(nets) == 2
        assert all(net.startswith("127.") for net in nets)
        claims = [one._claim, other._claim]
    # Not by claiming it again: whoever else runs tests on this machine may have been quicker.
    assert [claim._held.fileno() for claim in claims if claim is not None] == [-1, -1]


def test_a_range_that_a_person_named_is_kept() -> None:
    with Simulator(hosts=1, knobs=Knobs(vrouter_net="127.1")) as simulator:
        assert simulator.knobs.vrouter_net == "127.1"
