# SPDX-License-Identifier: Apache-2.0
"""Who leads one vCenter, elected among all instances through ZooKeeper.

Each candidate queues for a lock (kazoo's, whose nodes vanish with the session). Whoever holds it takes an epoch by a
versioned write, and has a term from then on. The term ends

- at once when the connection is not certain any more (SUSPENDED), although the session may live on;
- by itself when no answer came for two thirds of the session's time-out. This is a matter of the clock and not of an
  event: a process that was stopped (SIGSTOP, a machine that was paused) must not act on its way back to finding out;
- when the lock's node is gone, or no longer this session's.

What people decided (a pause, clusters in retreat, an upgrade's state) stands in ZooKeeper too: a new leader takes it
over before its term begins, and a leader writes it as it changes.

After each of these a new term needs a new epoch, also when the lock was kept: ``max(now in ms, stored + 1)``.

Not promised: that a request or a window of messages that was on its way when a term ended has no effect; consumers know
them by their lower epoch. A clock that stands still while the machine does (some hypervisors) shows no lapse: then it
is the closed connection that ends the term, a moment later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event
from kazoo.exceptions import BadVersionError, CancelledError, KazooException, NodeExistsError, NoNodeError
from kazoo.protocol.states import KazooState
from kazoo.recipe.lock import Lock

from vcenter_eam_plugin.cluster.client import ZooKeeper
from vcenter_eam_plugin.domain.errors import ConfigurationError, PluginError
from vcenter_eam_plugin.domain.leadership import Decision, Term

ROOT = "/vcenter-eam"
"""Everything of ours in ZooKeeper is below it: one path per vCenter, by its instanceUuid."""

SURE_FOR = 2.0 / 3.0
"""Of the session's time-out: what is left covers the way of an answer, and a server that counts by its tick."""

PULSES = 5
"""Proofs of life per time for which one makes sure: one or two may be lost."""

RETRY = 1.0
"""Seconds until a candidate that met an error stands again."""

QUEUE_RETRY = 1.0
"""Seconds at most between kazoo's own attempts to queue after lost connections, which by default grow to a minute."""

EPOCH_MOST = 1 << 62
"""Nobody counts so far in milliseconds: a larger number in ZooKeeper is no epoch of ours."""


class _NoAnswer(KazooException):  # type: ignore[misc] # kazoo has no types
    """ZooKeeper is connected, it seems, and does not answer."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What stands at the epoch's node: the last term's epoch, and who took it."""

    epoch: int = 0
    leader: str = ""

    @classmethod
    def decode(cls, data: bytes) -> Stored:
        """Anything that is not ours counts as nothing: an epoch is never below the time of day anyway."""
        number, _, leader = data.decode("utf-8", "replace").partition(" ")
        if not (number.isascii() and number.isdigit()) or len(number) > len(str(EPOCH_MOST)):
            return cls()
        epoch = int(number)
        return cls(epoch, leader) if epoch < EPOCH_MOST else cls()

    def encode(self) -> bytes:
        return f"{self.epoch} {self.leader}".encode()


class Election:
    """One candidate for one vCenter. See the module.

    ``name`` is what others see of us. ``least`` gives an epoch that ours must exceed, whatever ZooKeeper says.
    ``clock`` gives monotonic seconds, ``wall_clock`` POSIX seconds.
    """

    def __init__(
        self,
        zookeeper: ZooKeeper,
        vcenter_uuid: str,
        name: str,
        *,
        least: Callable[[], int],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        log: logging.Logger,
        root: str = ROOT,
    ) -> None:
        self._zookeeper = zookeeper
        self._client: Any = zookeeper.client
        self._path = f"{root}/{vcenter_uuid}"
        self._epoch_path = f"{self._path}/epoch"
        self._name = name
        self._least = least
        self._clock = clock
        self._wall_clock = wall_clock
        self._log = log
        self._term: Term | None = None
        self._sure_until = float("-inf")
        self._seen = Stored()
        self._connected = Event()
        self._shaken = Event()
        self._stopping = Event()
        self._lock: Any = None
        self._leftovers: list[str] = []
        """Beginnings of the names of nodes of ours that may stand in ZooKeeper still."""
        self._watch: Any = None
        self._decisions: Mapping[str, Decision] = {}
        self._agreed: dict[str, bytes] = {}
        """Each decision as ours and the shared one were when they were last the same."""
        self._wake = Event()
        self._greenlet: gevent.Greenlet | None = None
        self._changed: Callable[[], None] = lambda: None
        self._why = ""

    # --- for the others -----------------------------------------------------------------------------------

    def share(self, decisions: Mapping[str, Decision]) -> None:
        """See :class:`~vcenter_eam_plugin.domain.leadership.Leadership`."""
        self._decisions = decisions
        self._agreed = {name: decision.get() for name, decision in decisions.items()}

    def decided(self) -> None:
        """See :class:`~vcenter_eam_plugin.domain.leadership.Leadership`."""
        self._wake.set()

    def start(self, changed: Callable[[], None] = lambda: None) -> None:
        """Begin to stand as a candidate; returns at once."""
        self._changed = changed
        self._client.add_listener(self._state_changed)
        if self._client.state == KazooState.CONNECTED:
            self._connected.set()
        self._greenlet = gevent.spawn(self._run)

    def stop(self, timeout: float) -> None:
        """Lead no longer, and let the next one in."""
        self._term = None
        self._stopping.set()
        self._shaken.set()
        self._wake.set()
        self._connected.set()
        if self._lock is not None:
            self._lock.cancel()
        self._client.remove_listener(self._state_changed)
        if self._greenlet is not None:
            with gevent.Timeout(timeout, False):
                self._greenlet.join(timeout * 0.8)
                self._greenlet.kill()

    def term(self) -> Term | None:
        """See :class:`~vcenter_eam_plugin.domain.leadership.Leadership`."""
        if self._term is not None and self._clock() >= self._sure_until:
            self._end_term("no answer of ZooKeeper came for too long")
        return self._term

    def leader(self) -> str:
        if self.term() is not None:
            return self._name
        return self._seen.leader if self._client.state == KazooState.CONNECTED else ""

    def trouble(self) -> str:
        if self._client.state == KazooState.CONNECTED:
            return self._why
        why = self._zookeeper.trouble()
        return f"ZooKeeper cannot be reached{f' ({why})' if why else ''}."

    # --- the candidate ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._connected.wait()
                try:
                    self._watch_epoch()
                    self._stand()
                    self._why = ""
                except CancelledError:
                    pass  # told to stop
                except KazooException as exc:
                    self._tell_trouble(f"Standing for election failed: {type(exc).__name__} {exc}".rstrip() + ".")
                    self._stopping.wait(RETRY)
                except PluginError as exc:
                    self._tell_trouble(str(exc))
                    self._stopping.wait(RETRY)
        finally:
            self._term = None

    def _watch_epoch(self) -> None:
        """See who leads while we do not."""
        if self._watch is None:
            self._watch = self._client.DataWatch(self._epoch_path, self._epoch_changed)

    def _stand(self) -> None:
        """Queue, lead, and lose the lead; returns when the lock is not ours any more."""
        self._clear_leftovers()
        lock = self._lock = Lock(self._client, f"{self._path}/candidates", self._name)
        lock._retry.max_delay = QUEUE_RETRY
        try:
            lock.acquire()
            while not self._stopping.is_set() and self._holds(lock):
                self._begin_term(lock)
                self._lead(lock)
                self._connected.wait()
        finally:
            self._end_term("the lock is let go")
            self._let_go(lock)

    def _begin_term(self, lock: Any) -> None:
        self._shaken.clear()
        self._sure_until = float("-inf")
        epoch = self._take_epoch()
        self._take_over_decisions()
        # Only what was asked after the write makes sure: the write may have been the last that was heard of us.
        self._prove(lock)
        if not self._shaken.is_set() and self._clock() < self._sure_until:
            self._term = Term(epoch)
            self._changed()
            self._log.info("Elected leader of %s, epoch %d.", self._path, epoch)

    def _lead(self, lock: Any) -> None:
        while self.term() is not None:
            self._wake.wait(self._sure_for() / PULSES)
            self._wake.clear()
            if self.term() is not None:
                self._prove(lock)
            if self.term() is not None:
                self._write_decisions()

    def _take_epoch(self) -> int:
        with suppress(NodeExistsError):
            self._ask(self._client.create_async(self._epoch_path, b"", makepath=True))
        while True:
            data, stat = self._ask(self._client.get_async(self._epoch_path))
            stored = max(Stored.decode(data).epoch, self._least())
            taken = Stored(max(int(self._wall_clock() * 1000), stored + 1), self._name)
            try:
                self._ask(self._client.set_async(self._epoch_path, taken.encode(), stat.version))
            except BadVersionError:
                continue  # a former leader's last write; it has lost the lock, so it writes no more
            self._seen = taken
            return taken.epoch

    def _take_over_decisions(self) -> None:
        """What a former leader was told holds for us; what we alone were told while nobody led is kept, and written."""
        for name, decision in self._decisions.items():
            stored = self._read_decision(name)
            if stored is not None and decision.get() == self._agreed[name]:
                try:
                    decision.take(stored)
                except PluginError as exc:
                    raise ConfigurationError(
                        f"What was decided ({name}) stands at {self._decision_path(name)} in ZooKeeper and cannot be "
                        f"read: {exc.message}",
                        remedy="Delete that node, and decide again.",
                    ) from exc
                self._agreed[name] = decision.get()
            elif stored is None:
                self._agreed[name] = b""

    def _write_decisions(self) -> None:
        """Those that changed since they were last agreed upon."""
        for name, decision in self._decisions.items():
            ours = decision.get()
            if ours == self._agreed[name]:
                continue
            path = self._decision_path(name)
            try:
                self._ask(self._client.set_async(path, ours))
            except NoNodeError:
                self._ask(self._client.create_async(path, ours, makepath=True))
            self._agreed[name] = ours

    def _read_decision(self, name: str) -> bytes | None:
        try:
            data, _ = self._ask(self._client.get_async(self._decision_path(name)))
        except NoNodeError:
            return None
        return bytes(data)

    def _decision_path(self, name: str) -> str:
        return f"{self._path}/decided/{name}"

    def _prove(self, lock: Any) -> None:
        """Ask whether the lock is ours still. If it is, that is sure for a while, counted from when it was asked."""
        asked = self._clock()
        try:
            mine = self._holds(lock)
        except KazooException:
            return  # no answer is neither yes nor no: the clock decides
        if mine:
            self._sure_until = max(self._sure_until, asked + self._sure_for())
        else:
            self._end_term("the lock is gone")

    def _holds(self, lock: Any) -> bool:
        """Whether the lock's node stands, and is of this session. Raises KazooException when nobody answers."""
        if lock.node is None:
            return False
        stat = self._ask(self._client.exists_async(f"{lock.path}/{lock.node}"))
        session = self._client.client_id
        return stat is not None and session is not None and stat.ephemeralOwner == session[0]

    def _ask(self, answer: Any) -> Any:
        with gevent.Timeout(self._sure_for(), _NoAnswer):
            return answer.get()

    def _sure_for(self) -> float:
        return self._zookeeper.session_timeout * SURE_FOR

    def _let_go(self, lock: Any) -> None:
        """Delete our node, so that the next need not wait for the session's end."""
        if lock.create_tried:
            self._leftovers.append(lock.prefix)
        if self._client.state == KazooState.CONNECTED:
            with suppress(KazooException):  # tried again before we stand again; or else the session's end does it
                self._clear_leftovers()

    def _clear_leftovers(self) -> None:
        """Nodes of ours that could not be deleted in their time: one in front of us would keep everybody waiting."""
        if not self._leftovers:
            return
        path = f"{self._path}/candidates"
        for child in self._ask(self._client.get_children_async(path)):
            if child.startswith(tuple(self._leftovers)):
                with suppress(NoNodeError):
                    self._ask(self._client.delete_async(f"{path}/{child}"))
        self._leftovers.clear()

    # --- what changes -------------------------------------------------------------------------------------

    def _state_changed(self, state: Any) -> None:
        """Called by kazoo's own greenlet: it must not block."""
        if state == KazooState.CONNECTED:
            self._connected.set()
            return
        if not self._stopping.is_set():
            self._connected.clear()
        self._shaken.set()
        self._wake.set()
        self._end_term("the connection to ZooKeeper is not certain")

    def _end_term(self, why: str) -> None:
        led, self._term = self._term is not None, None
        self._sure_until = float("-inf")
        if led:
            self._log.warning("The lead of %s has ended: %s.", self._path, why)
            self._changed()

    def _epoch_changed(self, data: bytes | None, stat: Any) -> bool:  # noqa: ARG002 - kazoo's call
        if data is not None:
            self._seen = Stored.decode(data)
        return not self._stopping.is_set()

    def _tell_trouble(self, why: str) -> None:
        if why != self._why:
            self._log.warning("%s", why)
        self._why = why
