# SPDX-License-Identifier: Apache-2.0
"""A simulated vCenter without sockets, on a clock that the test moves."""

from collections.abc import Iterator

import pytest

from tests.support.simulator_calls import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Three hosts in two clusters; nothing may fail inside the simulator."""
    one = Bench()
    yield one
    assert one.simulator.errors == []
    one.simulator.stop()
