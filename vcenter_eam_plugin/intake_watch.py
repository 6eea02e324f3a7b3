# SPDX-License-Identifier: Apache-2.0
"""Whether what is known of a vCenter is current, source by source: live, or stale since when; and the alarms for it.

Three sources: the inventory's stream of properties, vCenter's events, and EAM's runtime. A source that is stale for a
minute is an alarm. So is, at once, an answer that was not believed: nothing was done with it, but somebody should know
that vCenter or EAM gives such answers.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Protocol

from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.domain.errors import PluginError, SuspectRead

STALE_AFTER = 60.0
"""Seconds without contact after which it is an alarm and no longer a hiccup."""
SUSPECT_SHOWN = 60.0
"""Seconds for which an answer that was not believed stays an alarm though all is well since: time to see it."""


class Inventory(Protocol):
    """What is asked of :class:`vcenter_eam_plugin.vsphere.inventory.Inventory`; times are monotonic."""

    stale_since: float | None
    last_error: PluginError | None
    events_stale_since: float | None
    events_error: PluginError | None


class Poll(Protocol):
    """What is asked of :class:`vcenter_eam_plugin.eam_poll.EamPoll`, which raises the alarm of EAM itself."""

    @property
    def stale_since(self) -> float | None: ...

    last_error: PluginError | None


class IntakeWatch:
    """``clock`` gives monotonic seconds, ``wall_clock`` POSIX seconds; ``vcenter`` is its name, for people."""

    def __init__(
        self,
        inventory: Inventory,
        poll: Poll,
        *,
        vcenter: str,
        alarms: Alarms,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._inventory = inventory
        self._poll = poll
        self._vcenter = vcenter
        self._alarms = alarms
        self._clock = clock
        self._wall_clock = wall_clock
        self._suspect_at: float | None = None

    def suspect(self, exc: SuspectRead) -> None:
        """An answer was not believed."""
        self._suspect_at = self._clock()
        self._alarms.raise_("suspect-read", f"An answer was not believed, and nothing was done because of it: {exc}")

    def tick(self) -> None:
        """Raise and clear the alarms, as things are now."""
        now = self._clock()
        inventory = self._inventory
        since = inventory.stale_since
        if since is None:
            self._alarms.clear("vcenter")
        elif now - since > STALE_AFTER:
            why = inventory.last_error or "there was no answer yet."
            self._alarms.raise_("vcenter", f"vCenter {self._vcenter} is not being watched: {why}")
        # Without the stream there are no events either, and that is said already.
        events = inventory.events_stale_since if inventory.events_error is not None else None
        if events is None:
            self._alarms.clear("events")
        elif now - events > STALE_AFTER:
            self._alarms.raise_(
                "events",
                f"Events of vCenter {self._vcenter} are not heard, so what EAM alone knows is seen at the next poll: "
                f"{inventory.events_error}",
            )
        well = since is None and self._poll.stale_since is None
        if well and self._suspect_at is not None and now - self._suspect_at > SUSPECT_SHOWN:
            self._suspect_at = None
            self._alarms.clear("suspect-read")

    def status(self) -> dict[str, dict[str, Any]]:
        """By source: ``live``; when it is not, ``stale_since`` (ISO 8601, UTC), ``stale_seconds`` and why."""
        inventory, poll = self._inventory, self._poll
        return {
            "inventory": self._source(inventory.stale_since, inventory.last_error),
            "events": self._source(inventory.events_stale_since, inventory.events_error or inventory.last_error),
            "eam": self._source(poll.stale_since, poll.last_error),
        }

    def _source(self, since: float | None, why: PluginError | None) -> dict[str, Any]:
        if since is None:
            return {"live": True, "stale_since": None, "stale_seconds": 0, "why": None}
        age = max(self._clock() - since, 0.0)
        began = dt.datetime.fromtimestamp(self._wall_clock() - age, dt.UTC)
        return {
            "live": False,
            "stale_since": began.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "stale_seconds": round(age),
            "why": None if why is None else str(why),
        }
