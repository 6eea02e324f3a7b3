# SPDX-License-Identifier: Apache-2.0
"""How many repairs may run, and when to stop trying.

Per cluster: a window that opens slowly (1, 2, 4 at once, as each success proves that repairs work), a number
per hour, and a breaker that opens after several *failed* repairs in a short time. Per host: back-off that
doubles. A repair has succeeded when the ContrailVM is seen ACTIVE again, not when a call returned.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from vcenter_eam_plugin.domain.status import ContrailVm, State

HOUR = 3600.0
BREAKER_FAILURES = 3
BREAKER_SPAN = 600.0
"""Three failed repairs in ten minutes: something common to the cluster is wrong, and trying on makes it worse."""
BREAKER_COOLDOWN = 1800.0
"""After this a single repair may test whether the cause is gone."""
BACKOFF_FIRST = 30.0
BACKOFF_MOST = 1800.0
RESOLVE_SETTLES = 15.0
"""EAM answers ``Resolve`` at once and drops the issue when work starts; one still red this much later has failed."""
REPAIR_DEADLINE = 900.0
"""Deploying a multi-gigabyte OVF takes minutes; a repair without an end after a quarter of an hour has failed."""

_INTERRUPTED = (State.MAINTENANCE, State.STANDBY, State.UNREACHABLE, State.REMOVING, State.REMOVED)


@dataclass(frozen=True, slots=True)
class Limits:
    """Per cluster: repairs at once, and started per hour."""

    at_once: int = 4
    per_hour: int = 60


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a repair may start; if not, why, and when to ask again (monotonic seconds)."""

    allowed: bool
    reason: str = ""
    ask_again: float = 0.0


@dataclass(slots=True)
class _Cluster:
    window: int = 1
    running: dict[str, float] = field(default_factory=dict)
    started: deque[float] = field(default_factory=deque)
    failed: deque[float] = field(default_factory=deque)
    open_until: float = 0.0
    testing: bool = False
    """The breaker's time is over, and the next repair shows whether the cause is."""


@dataclass(slots=True)
class _Backoff:
    failures: int = 0
    until: float = 0.0


class Ledger:
    """Books every repair. Not persistent: a restarted process begins with the slow start again, which is safe."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._clusters: dict[str, _Cluster] = {}
        self._backoff: dict[str, _Backoff] = {}
        self._cluster_of: dict[str, str] = {}
        self._freed: set[str] = set()
        self.ended: Counter[str] = Counter()
        """Repairs that came to an end: ``succeeded``, ``failed``, or ``interrupted``, which is neither."""

    def ask(self, cluster: str, host: str, now: float) -> Verdict:
        """May a repair of this host start now?"""
        book = self._book(cluster, now)
        backoff = self._backoff.get(host)
        if host in self._cluster_of:
            return Verdict(False, "a repair of this host is running", now + RESOLVE_SETTLES)
        if backoff is not None and now < backoff.until:
            return Verdict(
                False, f"{backoff.failures} repair(s) of this host failed; trying again later", backoff.until
            )
        if now < book.open_until:
            return Verdict(
                False,
                f"stopped for cluster {cluster}: {BREAKER_FAILURES} repairs failed within "
                f"{BREAKER_SPAN / 60:.0f} minutes",
                book.open_until,
            )
        if len(book.running) >= min(book.window, self.limits.at_once):
            return Verdict(
                False, f"{len(book.running)} repair(s) are running in cluster {cluster}", now + RESOLVE_SETTLES
            )
        if len(book.started) >= self.limits.per_hour:
            return Verdict(
                False,
                f"{self.limits.per_hour} repairs were started in cluster {cluster} within the hour",
                (book.started[0] if book.started else now) + HOUR,
            )
        return Verdict(True)

    def start(self, cluster: str, host: str, now: float) -> None:
        """A repair is about to be asked of EAM. Booked before the call: one that fails to return counts too."""
        book = self._book(cluster, now)
        book.running[host] = now
        book.started.append(now)
        self._cluster_of[host] = cluster

    def give_up(self, host: str, now: float) -> None:
        """The call was refused, so there is nothing to wait for: a failed repair."""
        self._end(host, now, failed=True)

    def abandon(self, host: str, now: float) -> None:
        """Host or agent left while it ran: neither success nor failure."""
        self._end(host, now, failed=None)

    def observe(self, status: ContrailVm, red: bool, read_began: float, now: float) -> None:
        """Learn how a running repair goes. ``red``: the agent showed red in a read that began at ``read_began``."""
        host = status.esxi.moref
        cluster = self._cluster_of.get(host)
        if cluster is None:
            return
        began = self._clusters[cluster].running[host]
        if status.state is State.ACTIVE and read_began > began:
            self._end(host, now, failed=False)
        elif status.state in _INTERRUPTED:
            self._end(host, now, failed=None)
        elif red and read_began > began + RESOLVE_SETTLES:
            self._end(host, now, failed=True)

    def expire(self, now: float) -> tuple[str, ...]:
        """End repairs that take too long, as failed; returns their hosts."""
        late = tuple(
            host
            for book in self._clusters.values()
            for host, began in book.running.items()
            if now - began > REPAIR_DEADLINE
        )
        for host in late:
            self._end(host, now, failed=True)
        return late

    def take_freed(self) -> set[str]:
        """Clusters in which a repair came to an end since the last call: who waits there may be asked for anew."""
        freed, self._freed = self._freed, set()
        return freed

    def running(self, cluster: str) -> int:
        book = self._clusters.get(cluster)
        return len(book.running) if book else 0

    def open_breakers(self, now: float) -> tuple[str, ...]:
        """Clusters in which repairs are stopped."""
        return tuple(sorted(c for c, book in self._clusters.items() if now < book.open_until))

    def close_breaker(self, cluster: str) -> None:
        """A person says that the cause is gone."""
        book = self._clusters.get(cluster)
        if book is not None:
            book.open_until, book.window, book.testing = 0.0, 1, False
            book.failed.clear()

    def _book(self, cluster: str, now: float) -> _Cluster:
        book = self._clusters.setdefault(cluster, _Cluster())
        while book.started and now - book.started[0] >= HOUR:
            book.started.popleft()
        while book.failed and now - book.failed[0] >= BREAKER_SPAN:
            book.failed.popleft()
        return book

    def _end(self, host: str, now: float, *, failed: bool | None) -> None:
        cluster = self._cluster_of.pop(host, None)
        if cluster is None:
            return
        book = self._book(cluster, now)
        book.running.pop(host, None)
        self._freed.add(cluster)
        self.ended["interrupted" if failed is None else "failed" if failed else "succeeded"] += 1
        if failed is None:
            return
        if not failed:
            self._backoff.pop(host, None)
            book.testing = False
            book.window = min(book.window * 2, max(self.limits.at_once, 1))
            return
        backoff = self._backoff.setdefault(host, _Backoff())
        backoff.failures += 1
        backoff.until = now + min(BACKOFF_FIRST * 2 ** (backoff.failures - 1), BACKOFF_MOST)
        book.window = 1
        book.failed.append(now)
        if book.testing or len(book.failed) >= BREAKER_FAILURES:
            book.open_until, book.testing = now + BREAKER_COOLDOWN, True
            book.failed.clear()
