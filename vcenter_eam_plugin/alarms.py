# SPDX-License-Identifier: Apache-2.0
"""What an operator should look at now: conditions by name, raised once and cleared once.

Only transitions are logged, so a condition that lasts for a week is two lines and not a million.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vcenter_eam_plugin.audit import Kind, Tell, untold


@dataclass(frozen=True, slots=True)
class Alarm:
    """``since`` is POSIX seconds; ``text`` a sentence that says what, where, why and what to do."""

    name: str
    text: str
    since: float


class Alarms:
    """Open alarms of one vCenter. ``wall_clock`` gives POSIX seconds, ``tell`` takes audit entries."""

    def __init__(self, logger: logging.Logger, wall_clock: Callable[[], float], tell: Tell = untold) -> None:
        self._log = logger
        self._now = wall_clock
        self._tell = tell
        self._open: dict[str, Alarm] = {}

    def __iter__(self) -> Iterator[Alarm]:
        return iter(sorted(self._open.values(), key=lambda alarm: alarm.since))

    def __contains__(self, name: str) -> bool:
        return name in self._open

    def raise_(self, name: str, text: str) -> None:
        """Open an alarm, or correct the text of an open one."""
        known = self._open.get(name)
        if known is None:
            self._log.error("ALARM %s: %s", name, text)
            self._tell(Kind.ALARM, f"{name} raised", why=text)
            self._open[name] = Alarm(name, text, self._now())
        elif known.text != text:
            self._log.error("ALARM %s: %s", name, text)
            self._tell(Kind.ALARM, f"{name} goes on", why=text)
            self._open[name] = Alarm(name, text, known.since)

    def clear(self, name: str) -> None:
        """Close an alarm, if it is open."""
        alarm = self._open.pop(name, None)
        if alarm is not None:
            self._log.warning("alarm %s is over after %.0f s", name, self._now() - alarm.since)
            self._tell(Kind.ALARM, f"{name} is over", why=f"after {self._now() - alarm.since:.0f} s")
