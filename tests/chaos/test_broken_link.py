# SPDX-License-Identifier: Apache-2.0
"""Between a message and its confirm anything may break: it waits in the outbox, and is sent as it was (P2, P4)."""

from __future__ import annotations

import pytest

from tests.chaos.campaigns import LINK_FAULTS, broken_link
from tests.chaos.conftest import CheckedRig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TIMES = 2


@pytest.mark.parametrize("number", range(TIMES))
@pytest.mark.parametrize("kind", LINK_FAULTS)
def test_p02_nothing_is_confirmed_before_the_broker_has_it(alone: CheckedRig, kind: str, number: int) -> None:
    """P2, P4: nobody comes after the one that told it, so what it takes for told and is not, is lost."""
    done = alone.run(1000 * LINK_FAULTS.index(kind) + number, broken_link(kind))
    assert [fault.kind for fault in done.record.faults] == [kind]
    assert len({term.epoch for term in done.record.terms}) == 1, "a lead that began anew would tell everything anew"
