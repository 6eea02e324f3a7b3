# SPDX-License-Identifier: Apache-2.0
"""The daemon as it is, with one greenlet beside it that notes for how long the event loop was held.

Each hold above :data:`TOLD` is one line ``TIME SECONDS CPU`` in the file ``holds`` beside the configuration; ``CPU`` is
how many of the seconds the process computed. The rest it was not let run, or waited for a disk. A process that was
frozen notes that, too; the rig knows when that was.
"""

# The standard library is patched before anything that imports it.
from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

from vcenter_eam_plugin.__main__ import server_main  # noqa: E402

PULSE = 0.02
"""Seconds between two looks; a hold is noticed if it is longer, and told that much too short at most."""

TOLD = 0.05
"""Seconds; the design's own bound."""


def watch(path: Path) -> None:
    """The greenlet's body."""
    with path.open("a", buffering=1) as file:
        while True:
            began, computed = time.monotonic(), time.thread_time()
            gevent.sleep(PULSE)
            held = time.monotonic() - began - PULSE
            if held > TOLD:
                file.write(f"{began:.3f} {held:.3f} {time.thread_time() - computed:.3f}\n")


if __name__ == "__main__":
    gevent.spawn(watch, Path(sys.argv[sys.argv.index("-c") + 1]).parent / "holds")
    server_main()
