# SPDX-License-Identifier: Apache-2.0
"""Faults by name: what can be made to go wrong with the simulated vCenter while it runs.

A fault is switched on with :meth:`Faults.inject` (or ``POST /simulator/faults``) and off with :meth:`Faults.clear`.
Each takes the same limits: ``path`` (``/sdk`` or ``/eam/sdk``), ``method`` (a WSDL operation), ``count`` (so many
times, then it is gone), ``probability`` (0..1, from a seeded generator, so that a run can be repeated).

:data:`CATALOGUE` names them all and says what each does.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CATALOGUE: dict[str, str] = {
    "session_kill": "At once: every session ends. Calls answer NotAuthenticated (EAM: InvalidLogin), waits are woken.",
    "session_kill_quiet": "At once: every session ends, but waits are not woken and run out with nothing to tell.",
    "session_goes_empty": "At once: every session ends, but is not refused: collectors answer without objects, EAM "
    "lists nothing, properties are unset. Writes are refused.",
    "session_goes_missing": "At once: the same, but every value is in missingSet with NotAuthenticated.",
    "sessions_full": "Calls without a living session answer 503, logins too: vCenter is out of HTTP sessions.",
    "collector_lost": "At once: every property collector forgets its version. The next wait: InvalidCollectorVersion.",
    "not_authenticated_once": "A call answers NotAuthenticated (EAM: InvalidLogin), though the session lives. Once.",
    "empty_reads": "Property collectors answer without any object, EAM lists no agency and no agent, and no error.",
    "half_reads": "Property collectors and EAM's lists leave out every second host, agency and agent, the first one "
    "first, and no error.",
    "missing_set": "Property collectors put every value into missingSet with NotAuthenticated, and no error.",
    "permission_gap": "Every second host, the first one first, cannot be seen: collectors leave it out, and asked for "
    "alone it answers NoPermission.",
    "small_pages": "Update sets and pages hold one object, as the collector's policy may decide.",
    "creates_nothing": "Collectors, views and filters are not created, and no error.",
    "half_open": "Requests are read and never answered, until cleared; then their connections are closed.",
    "slow": "A call is answered only after `delay` seconds.",
    "http_503": "Answers 503 with a page of HTML, as vCenter's proxy does when the service behind it is down.",
    "truncated_response": "The response ends in the middle and the connection is closed.",
    "garbled_response": "The response is XML that nobody can read.",
    "lost_response": "The call is carried out, then the connection is closed without an answer.",
    "network_cut": "Open connections are closed and new ones are closed when they come, until cleared.",
    "eam_down": "The EAM endpoint answers 503; vCenter's is well.",
    "eam_not_initialized": "EAM answers EamServiceNotInitialized: it is still loading from its database.",
    "eam_loading": "EAM is up but has loaded nothing yet: it lists no agency, and none and no agent is known to it.",
    "events_hidden": "Pages of events are empty: others that the account may not see fill them.",
    "events_unordered": "Pages of events come in any order.",
    "events_consolidated": "Of identical events within 30 seconds history keeps 30; who listens hears all.",
    "event_keys_wrap": "At once: the keys of events pass the largest int and go on with the smallest.",
    "set_cookie_overwrite": "EAM's responses set a cookie of their own, which careless clients take for the session's.",
    "refuse_newer": "Calls of an API version above the server's are refused: Unsupported version URI.",
    "raise_fault": "A call answers the fault named by `fault` (`vim.fault.Timedout`) without being carried out.",
}

_ONCE = frozenset({"not_authenticated_once"})
_AT_ONCE = frozenset(
    {
        "session_kill",
        "session_kill_quiet",
        "session_goes_empty",
        "session_goes_missing",
        "collector_lost",
        "event_keys_wrap",
    }
)
_EAM_ONLY = frozenset({"eam_down", "eam_not_initialized", "eam_loading", "set_cookie_overwrite"})


@dataclass
class Fault:
    """One fault that is on. ``count`` is what is left of it, ``None`` for no limit; ``hits`` how often it hit."""

    number: int
    name: str
    path: str | None = None
    method: str | None = None
    count: int | None = None
    probability: float = 1.0
    delay: float = 0.0
    fault: str | None = None
    hits: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dict(vars(self))


class Faults:
    """The faults that are on. ``seed`` makes ``probability`` repeatable."""

    def __init__(self, seed: int = 0) -> None:
        self.active: list[Fault] = []
        self.on_change: list[Callable[[], None]] = []
        self.at_once: dict[str, Callable[[], None]] = {}
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose, no secret
        self._numbers = itertools.count(1)

    def inject(
        self,
        name: str,
        *,
        path: str | None = None,
        method: str | None = None,
        count: int | None = None,
        probability: float = 1.0,
        delay: float = 0.0,
        fault: str | None = None,
    ) -> Fault:
        """Switch a fault on. Raises ``ValueError`` for an unknown name or a limit that makes no sense."""
        if name not in CATALOGUE:
            raise ValueError(f"there is no fault {name!r}; there are {', '.join(sorted(CATALOGUE))}")
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability must be 0..1, not {probability}")
        if count is not None and count < 1:
            raise ValueError(f"count must be 1 or more, not {count}")
        if name == "raise_fault" and not fault:
            raise ValueError("raise_fault needs the name of the fault, such as vim.fault.Timedout")
        one = Fault(next(self._numbers), name, path, method, count, probability, delay, fault)
        if name in _EAM_ONLY:
            one.path = "/eam/sdk"
        if name in _AT_ONCE:
            one.hits = 1
            self.at_once[name]()
            return one
        if name in _ONCE and count is None:
            one.count = 1
        self.active.append(one)
        self._tell()
        return one

    def clear(self, name: str | None = None) -> int:
        """Switch off all faults, or all of one name; says how many."""
        gone = [one for one in self.active if name is None or one.name == name]
        self.active = [one for one in self.active if one not in gone]
        self._tell()
        return len(gone)

    def on(self, name: str) -> bool:
        """True while a fault of that name is on, limits aside."""
        return any(one.name == name for one in self.active)

    def take(self, path: str, method: str) -> dict[str, Fault]:
        """The faults that hit a call, by name; one with a count is used up by it."""
        hits: dict[str, Fault] = {}
        for one in tuple(self.active):
            if one.path not in (None, path) or one.method not in (None, method) or one.name in hits:
                continue
            if one.probability < 1.0 and self._random.random() >= one.probability:
                continue
            one.hits += 1
            hits[one.name] = one
            if one.count is not None:
                one.count -= 1
                if one.count == 0:
                    self.active.remove(one)
        return hits

    def _tell(self) -> None:
        for listener in tuple(self.on_change):
            listener()
