# SPDX-License-Identifier: Apache-2.0
"""Watches the hosts of the clusters in scope, and the agent VMs, by one property collector.

Promised: whoever applies the observations in order ends with what vCenter shows. A whole listing comes first
(``complete=True``), then what changed; after any gap (a lost session, connection or collector version) a whole
listing comes again, and the receiver diffs, deletions included. A listing is called complete only when every
object of the scope, and every host that the receiver knows, was seen or is proven gone, and the session was proven
alive afterwards. Nothing is called gone because it was left out: each object is asked for by itself first.

Not promised: every state in between. What came and went within one update, or within a gap, is not seen.

The subscription is narrow: cost follows hosts in scope, ContrailVMs and changes, never the tenants' VMs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.event import Event

from vcenter_eam_plugin.domain.errors import (
    ObjectGone,
    PluginError,
    SuspectRead,
)
from vcenter_eam_plugin.domain.observations import Hint, InventoryObserved
from vcenter_eam_plugin.domain.understanding import understood
from vcenter_eam_plugin.vsphere import events
from vcenter_eam_plugin.vsphere.session import Session
from vcenter_eam_plugin.vsphere.stream import CancelledError, Stream

log = logging.getLogger(__name__)

#: Between attempts after a failure. The last must leave room for the listing within the 30 s in which what is
#: published equals the truth again.
RETRY_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0)
#: For what only a person can mend (a wrong password, a missing privilege). The session itself sees to it that a
#: refused password is offered seldom, so as not to lock the account.
REFUSED_RETRY_SECONDS = 20.0
#: A stream that held this long was sound: the next failure starts at the shortest pause again.
SOUND_SECONDS = 30.0
#: Giving server-side objects back is a courtesy; a dead server must not hold up the next attempt.
RELEASE_SECONDS = 3.0
#: How often a cancel is sent again: one that arrives just before the wait it should cancel has no effect.
CANCEL_SECONDS = 0.2


class Inventory:
    """See the module. ``run`` is a greenlet's body; everything else may be called from any greenlet.

    ``on_observation`` and ``on_hints`` are called in the greenlet of ``run`` (the former from :meth:`follow_vms`
    too), in order; what they raise ends it. ``on_suspect`` hears of each answer that was not believed. ``known`` gives
    the morefs of the hosts that the receiver takes to exist: a listing without one of them is not believed before it
    is proven gone. ``clock`` gives monotonic seconds.
    """

    def __init__(
        self,
        session: Session,
        clock: Callable[[], float],
        on_observation: Callable[[InventoryObserved], None],
        on_hints: Callable[[tuple[Hint, ...]], None],
        on_suspect: Callable[[SuspectRead], None] = lambda _: None,
        known: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._session = session
        self._clock = clock
        self._on_observation = on_observation
        self._on_hints = on_hints
        self._on_suspect = on_suspect
        self._known = known
        self.live = False
        """Whether updates flow: a whole listing was delivered and nothing failed since."""
        self.stale_since: float | None = clock()
        """Since when (monotonic) updates do not flow; ``None`` while live."""
        self.last_error: PluginError | None = None
        """Why the stream broke last; kept after it came back."""
        self.events_stale_since: float | None = clock()
        """Since when (monotonic) vCenter's events are not heard; ``None`` while they are."""
        self.events_error: PluginError | None = None
        """Why events were refused last, while they are."""
        self.listings = 0
        """Whole listings delivered: 1 after the start, one more after each gap."""
        self._scope: tuple[str, ...] = ()
        self._followed: frozenset[str] = frozenset()
        self._hints = events.Hints()
        self._stopping = False
        self._again = False
        self._wake = Event()
        self._ended = Event()
        self._ended.set()
        self._runner: Any = None
        self._stream: Stream | None = None
        self._released: list[tuple[int, Callable[[], Any]]] = []

    # --- for others ------------------------------------------------------------------------------------

    def set_scope(self, morefs: Iterable[str]) -> None:
        """Watch the hosts of these compute resources. A change lists everything anew."""
        wanted = tuple(dict.fromkeys(morefs))
        if wanted != self._scope:
            self._scope = wanted
            self.refresh()

    def follow_vms(self, morefs: Iterable[str]) -> None:
        """Watch these VMs and no others. One that does not exist (any more) is reported as gone."""
        self._followed = frozenset(morefs)
        stream = self._stream
        if stream is None:
            return  # the next stream starts with them
        try:
            with self._understood():
                unknown = stream.follow(self._followed)
        except PluginError as exc:
            log.info("The list of watched VMs could not be changed, so everything is listed again: %s", exc)
            if isinstance(exc, SuspectRead):
                self._on_suspect(exc)
            self.refresh()
            return
        if unknown:
            self._emit(InventoryObserved(at=self._clock(), gone=unknown))

    def refresh(self) -> None:
        """List everything anew, now. Waits until the stream under way has noticed, 3 s at most."""
        self._again = True
        self._wake.set()
        stream = self._stream
        if stream is None or gevent.getcurrent() is self._runner:
            return  # no wait is under way, and the next one looks first
        with gevent.Timeout(RELEASE_SECONDS, False):
            while self._stream is stream:
                stream.cancel()
                stream.ended.wait(CANCEL_SECONDS)

    def stop(self, timeout: float = 5.0) -> bool:
        """End ``run`` and wait for it; False when it has not ended after ``timeout`` seconds."""
        self._stopping = True
        self._wake.set()
        with gevent.Timeout(timeout, False):
            while not self._ended.is_set():
                if self._stream is not None:
                    self._stream.cancel()
                self._ended.wait(CANCEL_SECONDS)
        return bool(self._ended.is_set())

    def status(self) -> dict[str, Any]:
        """For people: whether updates flow, since when not, and the last error's sentence."""
        return {
            "live": self.live,
            "stale_since": self.stale_since,
            "last_error": None if self.last_error is None else str(self.last_error),
            "listings": self.listings,
            "compute_resources": len(self._scope),
            "vms": len(self._followed),
        }

    # --- the greenlet ----------------------------------------------------------------------------------

    def run(self) -> None:
        """List, follow, and after any gap list again, until :meth:`stop`. Nothing that vCenter does ends it."""
        self._ended.clear()
        self._runner = gevent.getcurrent()
        failures = 0
        try:
            while not self._stopping:
                self._wake.clear()
                self._again = False
                if not self._scope:
                    # A listing of nothing would say that every host is gone.
                    self._wake.wait()
                    continue
                began = self._clock()
                try:
                    self._follow()
                except CancelledError:
                    failures = 0
                    continue
                except PluginError as exc:
                    failures = 1 if self._clock() - began > SOUND_SECONDS else failures + 1
                    self._lost(exc)
                    self._wake.wait(_pause(exc, failures))
        finally:
            self._mark_stale()
            self._runner = None
            self._ended.set()

    def _follow(self) -> None:
        """One stream, from its listing to the failure that ends it (or our cancel)."""
        self._session.keep_alive()
        self._give_back()
        stream = Stream(self._session, self._clock, self._scope, frozenset(self._known()))
        try:
            self._stream = stream
            with self._understood():
                stream.open()
                unknown = stream.follow(self._followed)
                listing = stream.listing(self._interrupted)
            self._emit(listing)
            if unknown:
                self._emit(InventoryObserved(at=self._clock(), gone=unknown))
            self._tell(stream)
            self.live, self.stale_since = True, None
            self.listings += 1
            while True:
                self._mark_events(stream)
                with self._understood():
                    observation = stream.next(self._interrupted)
                if observation is not None:
                    self._emit(observation)
                self._tell(stream)
        finally:
            self._stream = None
            stream.end()
            self._mark_stale()
            self._released.extend(stream.owned)
            self._give_back()

    def _understood(self) -> understood:
        return understood(f"{self._session.name}: WaitForUpdatesEx")

    def _tell(self, stream: Stream) -> None:
        with self._understood():
            page = stream.take_page()
            hints = () if page is None else self._hints.of_page(page)
        if hints:
            self._on_hints(hints)

    def _emit(self, observation: InventoryObserved) -> None:
        self._on_observation(observation)

    def _interrupted(self) -> bool:
        return self._stopping or self._again

    def _lost(self, exc: PluginError) -> None:
        self.last_error = exc
        log.warning("No inventory updates from %s: %s", self._session.name, exc)
        if isinstance(exc, SuspectRead):
            self._on_suspect(exc)

    def _mark_stale(self) -> None:
        if self.live or self.stale_since is None:
            self.live, self.stale_since = False, self._clock()
        if self.events_stale_since is None:
            self.events_stale_since = self._clock()

    def _mark_events(self, stream: Stream) -> None:
        """Whether this stream, which is live, brings events."""
        self.events_error = stream.events_error
        if self.events_error is None:
            self.events_stale_since = None
        elif self.events_stale_since is None:
            self.events_stale_since = self._clock()

    def _give_back(self) -> None:
        """Destroy the collector and views of ended streams, if their session lives on; else they went with it."""
        left = [(g, destroy) for g, destroy in self._released if g == self._session.generation and self._session.cookie]
        self._released = []
        with gevent.Timeout(RELEASE_SECONDS, False):
            while left:
                try:
                    left[-1][1]()
                except ObjectGone:
                    pass
                except PluginError:
                    break  # the server cannot be reached: once more before the next stream
                left.pop()
        self._released = left


def _pause(exc: PluginError, failures: int) -> float:
    if not exc.retry and not isinstance(exc, ObjectGone):
        return REFUSED_RETRY_SECONDS
    return RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1]
