# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.chaos --seed N --minutes M``: chaos by hand, for longer than the tests have time for.

Prints the seed first, each fault as it strikes, a table of figures, and the counts last; 0 is its exit code if all of
them are. ``--failpoints N`` and ``--pauses N`` run those campaigns instead.
"""

# The standard library is patched before anything that imports it.
from gevent import monkey

monkey.patch_all()

import logging  # noqa: E402
import random  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import click  # noqa: E402

from tests.chaos.campaigns import ends, failpoint, pauses  # noqa: E402
from tests.chaos.nemeses import FAILPOINTS  # noqa: E402
from tests.chaos.report import Report  # noqa: E402
from tests.chaos.rig import Rig  # noqa: E402
from tests.chaos.run import Trial, chaos  # noqa: E402

ROUND_SECONDS = 40.0
"""Faults begin within so many seconds; then all is healed, and convergence is looked at. Then the next round."""

PAUSES_PER_ROUND = 5

Campaign = Callable[[Trial], None]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, help="Default: one of chance.")
@click.option("--minutes", type=float, default=1.0, show_default=True, help="Of chaos; the last round is finished.")
@click.option("--instances", type=click.IntRange(1, 3), default=2, show_default=True)
@click.option("--failpoints", type=click.IntRange(1), help="Each fail-point so often, in one instance.")
@click.option("--pauses", "pause_count", type=click.IntRange(1), help="So many pauses of the leader, and nothing else.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs and state there.")
def main(
    seed: int | None, minutes: float, instances: int, failpoints: int | None, pause_count: int | None, keep: Path | None
) -> None:
    """Break an installation, and see what its promises are worth."""
    seed = random.randrange(2**32) if seed is None else seed
    print(f"seed {seed}", flush=True)
    logging.disable(logging.WARNING)  # that a consumer loses its broker is what we are here for
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # so that whatever was started ends
    if failpoints:
        instances = 1  # it dies as a leader does, and must find again what it owes: nobody takes over
        rounds = _failpoints(failpoints)
    elif pause_count:
        rounds = _pauses(pause_count)
    else:
        rounds = _chaos(minutes)
    directory = keep or Path(tempfile.mkdtemp(prefix="eam-chaos-"))
    report = Report()
    rig = Rig(("a", "b", "c")[:instances], lambda: _made(directory / str(report.runs)))
    try:
        for number, campaign in enumerate(rounds):
            report.add(*rig.run(seed + number, campaign))
            _tell(report.progress())
    finally:
        rig.close()
        if keep is None and report.ok:
            shutil.rmtree(directory, ignore_errors=True)
        print(report.text(), flush=True)
    sys.exit(0 if report.ok else 1)


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def _chaos(minutes: float) -> Iterator[Campaign]:
    until = time.monotonic() + minutes * 60
    while (left := until - time.monotonic()) > 0:
        yield chaos(min(ROUND_SECONDS, left), _tell)


def _failpoints(count: int) -> Iterator[Campaign]:
    for _ in range(count):
        for point in FAILPOINTS:
            yield failpoint(point)


def _pauses(count: int) -> Iterator[Campaign]:
    while count > 0:
        yield pauses(min(count, PAUSES_PER_ROUND), _tell)
        yield ends(1, _tell)
        count -= PAUSES_PER_ROUND


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    main()
