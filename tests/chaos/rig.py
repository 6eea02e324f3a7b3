# SPDX-License-Identifier: Apache-2.0
"""Runs campaigns one after the other on one installation, so that its start is paid once.

After a run that failed, in its verdict or by itself, the next one gets a new installation: what broke one run must not
be counted in another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.checkers import check
from tests.chaos.installation import Installation, installation
from tests.chaos.records import Verdict
from tests.chaos.run import Run, Trial, run


class Rig:
    """``names`` are those of the instances; ``make_directory`` gives an empty one for each installation."""

    def __init__(self, names: tuple[str, ...], make_directory: Callable[[], Path]) -> None:
        self._names = names
        self._make_directory = make_directory
        self._stack = ExitStack()
        self._here: Installation | None = None

    def run(self, seed: int, campaign: Callable[[Trial], object]) -> tuple[Run, Verdict]:
        """One run, and what the checkers say of it."""
        try:
            if self._here is None:
                self._here = self._stack.enter_context(installation(self._make_directory(), self._names))
            done = run(self._here, seed, campaign)
        except BaseException:
            self.close()
            raise
        verdict = check(done.record)
        if not verdict.ok:
            self.close()
        return done, verdict

    def close(self) -> None:
        """End what runs."""
        self._here = None
        self._stack.close()
