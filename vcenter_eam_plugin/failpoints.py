# SPDX-License-Identifier: Apache-2.0
"""Moments at which the daemon can be made to die, to test that nothing is confirmed before the broker has it.

``VCENTER_EAM_FAILPOINT=after-publish:kill`` ends the process by SIGKILL when it comes to that point,
``after-publish:kill:3`` when it comes there for the third time. The daemon reads the variable once at its start and
refuses one that it does not understand. In a host's process nobody does: a plugin must not die of an environment
variable. Unset, a point is a comparison with ``None``.

It is the process that dies, so what is armed is the process's too, and stands in this module; the edges, which import
the domain alone, are handed what they call.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vcenter_eam_plugin.domain.errors import ConfigurationError

VARIABLE: Final = "VCENTER_EAM_FAILPOINT"

AFTER_READ: Final = "after-read"
AFTER_PLAN: Final = "after-plan"
AFTER_OUTBOX_WRITE: Final = "after-outbox-write"
AFTER_PUBLISH: Final = "after-publish"
AFTER_CONFIRM: Final = "after-confirm"

POINTS: Final = {
    AFTER_READ: "something was read from vCenter or EAM, and nothing was made of it yet",
    AFTER_PLAN: "a plan stands, its lead was checked, and nothing of it was asked for",
    AFTER_OUTBOX_WRITE: "a change and its message are in the outbox, and were not offered to the broker",
    AFTER_PUBLISH: "messages were handed to the broker, and none of them is confirmed",
    AFTER_CONFIRM: "the broker confirmed messages, and the outbox still has them",
}
"""In the order in which a change comes to them, and what is true there."""

_FORM = "NAME:kill, or NAME:kill:N with N from 1 on"


@dataclass(slots=True)
class _Armed:
    point: str
    visits_left: int


_armed: _Armed | None = None


def arm(environ: Mapping[str, str]) -> str | None:
    """Take what the variable says, for the rest of the process; returns the point's name, ``None`` if there is none.

    Raises ConfigurationError, with the list of names, for what it does not understand.
    """
    global _armed  # noqa: PLW0603 - the process dies of it, so there is one for the process
    text = environ.get(VARIABLE, "")
    _armed = _parse(text) if text else None
    return _armed.point if _armed is not None else None


def reach(point: str) -> None:
    """The process is at this point. Does not return when it is the one to die at."""
    if _armed is None or _armed.point != point:
        return
    _armed.visits_left -= 1
    if _armed.visits_left == 0:
        # SIGKILL and no exit: nothing may be put in order, no buffer written, no connection closed by us.
        os.kill(os.getpid(), signal.SIGKILL)


def _parse(text: str) -> _Armed:
    point, _, action = text.partition(":")
    verb, colon, number = action.partition(":")
    if point not in POINTS:
        raise ConfigurationError(f"{VARIABLE}: there is no point {point!r}.", remedy=f"There are: {', '.join(POINTS)}.")
    if not colon:
        number = "1"
    if verb != "kill" or not (number.isascii() and number.isdigit()) or int(number) < 1:
        raise ConfigurationError(f"{VARIABLE}: {text!r} is not {_FORM}.", remedy=f"The names are: {', '.join(POINTS)}.")
    return _Armed(point, int(number))
