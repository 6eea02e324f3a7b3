# SPDX-License-Identifier: Apache-2.0
"""One installation for many seeds, so that its start is paid once; after a run that failed it is made anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.report import Report
from tests.chaos.rig import Rig
from tests.chaos.run import Run, Trial
from tests.support.rabbit import require_rabbit
from tests.support.zookeeper import require_zookeeper


class CheckedRig:
    """A rig whose ``run`` fails the test when a promise was not kept."""

    def __init__(self, names: tuple[str, ...], factory: pytest.TempPathFactory) -> None:
        self._rig = Rig(names, lambda: factory.mktemp("chaos"))
        self.close = self._rig.close

    def run(self, seed: int, campaign: Callable[[Trial], object]) -> Run:
        print(f"seed {seed}")
        done, verdict = self._rig.run(seed, campaign)
        report = Report()
        report.add(done, verdict)
        print(report.text())
        assert verdict.ok, f"seed {seed}\n{report.text()}"
        return done


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedRig]:
    """Two instances and an ensemble."""
    require_rabbit()
    require_zookeeper()
    rig = CheckedRig(("a", "b"), tmp_path_factory)
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedRig]:
    """One instance that leads by itself."""
    require_rabbit()
    rig = CheckedRig(("a",), tmp_path_factory)
    yield rig
    rig.close()
