# SPDX-License-Identifier: Apache-2.0
"""What lives as long as the daemon is set aside, so that collecting garbage does not walk through it again and again.

A full collection holds the event loop for as long as it takes to walk through everything: modules and pyVmomi's types
are 40 ms, 2,500 hosts another 25 to 80 (measured). So while the daemon starts, whatever outlived a full collection is
frozen, and the next one walks through what came since. Once every vCenter was read this ends, with what is there then.

For the daemon alone: a host process decides for itself. The price: of what is frozen, cycles that are garbage later
stay. That is what was made at the start and once; what the daemon makes while it runs is collected as ever.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Any

_FULL = 2
"""The oldest generation of Python's collector."""


class Survivors:
    """One per process."""

    def set_aside(self) -> None:
        """All that is here, from now on after each full collection."""
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self._collected)

    def settle(self) -> None:
        """The start is over: what is here stays aside, and memory that reading it took goes back to the system."""
        if self._collected not in gc.callbacks:
            return
        gc.callbacks.remove(self._collected)
        gc.collect(_FULL - 1)  # the young: full ones were had already
        gc.freeze()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)

    @staticmethod
    def _collected(phase: str, info: dict[str, Any]) -> None:
        if phase == "stop" and info["generation"] == _FULL:
            gc.freeze()
