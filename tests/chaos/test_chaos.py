# SPDX-License-Identifier: Apache-2.0
"""Twenty seeds of faults during a storm: nothing lost, nothing untrue, nothing stale (P1, P3, P4, P5, P7, S18, S19).

``python -m tests.chaos --seed N`` does the same for longer.
"""

from __future__ import annotations

import pytest

from tests.chaos.conftest import CheckedRig
from tests.chaos.run import CONVERGES_WITHIN, chaos
from tests.chaos.schedule import FEWEST_FAULTS, FEWEST_KINDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SEEDS = range(1, 21)

SECONDS = 8.0
"""In which faults begin; they last, heal and settle for about as long again."""


@pytest.mark.parametrize("seed", SEEDS)
def test_p01_no_fault_loses_a_state(pair: CheckedRig, seed: int) -> None:
    """P1, P3, P4, P5, P7."""
    done = pair.run(seed, chaos(SECONDS, print))
    assert len(done.record.faults) >= FEWEST_FAULTS
    assert len({fault.kind for fault in done.record.faults}) >= FEWEST_KINDS
    assert done.stimuli > 0
    assert done.convergence <= CONVERGES_WITHIN
