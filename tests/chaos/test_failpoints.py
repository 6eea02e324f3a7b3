# SPDX-License-Identifier: Apache-2.0
"""The daemon dies between two of its steps and is started again: nothing is confirmed before the broker has it (P2)."""

from __future__ import annotations

import pytest

from tests.chaos.campaigns import failpoint
from tests.chaos.conftest import CheckedRig
from tests.chaos.nemeses import FAILPOINTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TIMES = 3


@pytest.mark.parametrize("number", range(TIMES))
@pytest.mark.parametrize("point", FAILPOINTS)
def test_p02_a_death_between_two_steps_loses_nothing(alone: CheckedRig, point: str, number: int) -> None:
    """P2, P4: the one that died finds in its outbox what it owes, under the ids that it had."""
    done = alone.run(1000 * FAILPOINTS.index(point) + number, failpoint(point))
    assert [life.how for life in done.record.instances if life.ended and life.ended >= done.record.began] == [
        "killed",
        "failpoint",
    ]
