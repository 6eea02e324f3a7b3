# SPDX-License-Identifier: Apache-2.0
"""One installation for many seeds, so that its start is paid once; after a run that failed it is made anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.checkers import check
from tests.chaos.installation import Installation, installation
from tests.chaos.report import Report
from tests.chaos.run import Run, Trial, run
from tests.support.rabbit import require_rabbit
from tests.support.zookeeper import require_zookeeper


class Rig:
    """``names`` are those of the instances. ``run`` fails the test when a promise was not kept."""

    def __init__(self, names: tuple[str, ...], make_directory: Callable[[], Path]) -> None:
        self._names = names
        self._make_directory = make_directory
        self._stack = ExitStack()
        self._here: Installation | None = None

    def run(self, seed: int, campaign: Callable[[Trial], object]) -> Run:
        print(f"seed {seed}")
        if self._here is None:
            self._here = self._stack.enter_context(installation(self._make_directory(), self._names))
        try:
            done = run(self._here, seed, campaign)
            verdict = check(done.record)
            report = Report()
            report.add(done)
            print(report.text())
            assert verdict.ok, f"seed {seed}, logs in {self._here.directory}:\n{report.text()}"
        except BaseException:
            self.close()
            raise
        return done

    def close(self) -> None:
        self._here = None
        self._stack.close()


def _rig(names: tuple[str, ...], factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(names, lambda: factory.mktemp("chaos"))
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Two instances and an ensemble."""
    require_rabbit()
    require_zookeeper()
    yield from _rig(("a", "b"), tmp_path_factory)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One instance that leads by itself."""
    require_rabbit()
    yield from _rig(("a",), tmp_path_factory)
