# SPDX-License-Identifier: Apache-2.0
"""The daemon as it is, with two watchers of its loop that write down for how long it was held, each time.

``python -m benchmarks.watched -c FILE``. The daemon's own ``loop_watch`` tells the longest since the start; a benchmark
needs it by phase. Each hold above :data:`TOLD` is a line ``BEGAN SECONDS CPU GC`` in the file ``holds`` beside the
configuration: ``CPU`` is what the process computed, ``GC`` how much of that was a collection of garbage. ``BEGAN`` is
``time.monotonic``, which is the same in every process.
"""

# The standard library is patched before anything that imports it.
from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

TOLD = 0.005
"""Seconds. Shorter holds are nobody's trouble, and writing each of them would be."""


class Watch:
    """Of the loop of the thread that makes it, for as long as that lives."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._began = self._cpu = self._gc = self._gc_began = 0.0
        loop = gevent.get_hub().loop
        # First after a look at timers and sockets, last before the next: what everybody else does is in between.
        self._after = loop.check(ref=False, priority=loop.MAXPRI)
        self._before = loop.prepare(ref=False, priority=loop.MINPRI)
        self._after.start(self._looked)
        self._before.start(self._about_to_look)
        gc.callbacks.append(self._collected)

    def stop(self) -> None:
        """Write down no more."""
        for watcher in (self._after, self._before):
            watcher.stop()
            watcher.close()
        gc.callbacks.remove(self._collected)
        self._file.close()

    def _looked(self) -> None:
        self._gc = 0.0
        self._cpu = time.thread_time()
        self._began = time.monotonic()

    def _about_to_look(self) -> None:
        held = time.monotonic() - self._began
        if self._began and held > TOLD:
            self._file.write(f"{self._began:.4f} {held:.4f} {time.thread_time() - self._cpu:.4f} {self._gc:.4f}\n")

    def _collected(self, phase: str, _info: dict[str, Any]) -> None:
        if phase == "start":
            self._gc_began = time.thread_time()
        else:
            self._gc += time.thread_time() - self._gc_began


if __name__ == "__main__":
    from vcenter_eam_plugin.__main__ import server_main

    watch = Watch(Path(sys.argv[sys.argv.index("-c") + 1]).parent / "holds")
    server_main()
