# SPDX-License-Identifier: Apache-2.0
"""Starting a vCenter task and waiting for its end, with a deadline.

A task is asked for its state in growing steps: operations of ours are rare and short, and a collector for each
would cost more calls than it saves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from vcenter_eam_plugin.domain.errors import ProtocolError, Unavailable
from vcenter_eam_plugin.vsphere.session import Session

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0


def run_task(session: Session, method: Callable[..., Any], *args: Any, seconds: float = 120.0) -> Any:
    """Call a ``..._Task`` method, wait for the task, return its result.

    Raises the domain's error for what the task failed with (the fault is its cause), and Unavailable when it has not
    ended in time; it may then still succeed.
    """
    task = session.call(method, *args, idempotent=False)
    deadline = session.clock() + seconds
    pause = FIRST_PAUSE
    while True:
        info = session.call(getattr, task, "info")
        if info.state == "success":
            return info.result
        if info.state == "error":
            if info.error is None:
                raise ProtocolError(f"{session.name}: {info.descriptionId} failed without saying why.")
            raise session.translate(info.error, f"{session.name}: {info.descriptionId}") from info.error
        if session.clock() > deadline:
            raise Unavailable(f"{session.name}: {info.descriptionId} has not ended within {seconds:g} s.")
        gevent.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
