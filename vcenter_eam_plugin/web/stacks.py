# SPDX-License-Identifier: Apache-2.0
"""Where each of our greenlets is, as the introspect of Contrail's services tells it (``GreenletObjectReq``).

Modules, lines and functions; never values of variables, which may be secrets, nor paths of the file system.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping

import gevent

from vcenter_eam_plugin.web.api import GreenletShown


def dump(greenlets: Mapping[str, gevent.Greenlet]) -> tuple[GreenletShown, ...]:
    """All of them, by name."""
    return tuple(
        GreenletShown(name=name, dead=bool(greenlet.dead), stack=_stack(greenlet))
        for name, greenlet in sorted(greenlets.items())
    )


def _stack(greenlet: gevent.Greenlet) -> tuple[str, ...]:
    """From the outermost call to the one that waits; empty for one that has not begun, or has ended."""
    return tuple(
        f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_stack(greenlet.gr_frame)
    )[::-1]
