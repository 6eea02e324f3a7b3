# SPDX-License-Identifier: Apache-2.0
"""The audit trail: what happened, who did it, and what came of it, in a file that outlives the process.

One JSON object a line in ``audit.jsonl`` of the state directory (0600), which is only ever appended to. At 10 MB it
becomes ``audit.jsonl.1``; five files are kept. Whoever has something to tell never waits: it goes to a queue in memory,
and a greenlet writes the queue in the hub's thread pool. A disk that is full is an alarm; what is told meanwhile waits,
to a bound, and then the oldest is lost and counted.

Not promised: what was told in the last moment before a kill or a power cut, and anything about what another instance
did: each writes its own. (:class:`logging.handlers.RotatingFileHandler` is not used: it hides a failed write, leaves
half a line behind, and takes a lock that gevent patched into the thread pool.)
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Protocol

import gevent
import msgspec
from gevent.event import Event
from gevent.lock import RLock
from gevent.util import wrap_errors

from vcenter_eam_plugin.domain.errors import Unavailable

NAME = "audit.jsonl"
MOST_BYTES = 10_000_000
"""Of one file: some 40,000 lines."""
FILES = 5
MOST_WAITING = 20_000
"""Entries in memory while the disk takes none: 2,500 hosts that pass eight states each."""
AT_ONCE = 100
"""Entries that are encoded until the hub gets its turn: well below 10 ms."""
RETRY = 5.0
"""Seconds between two tries at a disk that refuses."""
CLOCK_STEP = 3600.0
"""Seconds: reading goes back so much further than asked for, since a wall clock may have been put back."""
MOST_ANSWERED = 10_000
"""Entries of one answer: some 3 MB."""
_BLOCK = 64 * 1024


class Kind(StrEnum):
    """What an entry is about."""

    STATE = "state"
    """A ContrailVM's state changed, it appeared or left."""
    ISSUE = "issue"
    """EAM showed an issue of a ContrailVM, or shows it no more."""
    RULE = "rule"
    """A rule that vCenter keeps for agent VMs is seen broken on a host, or kept again."""
    ACTION = "action"
    """Something was asked of vCenter or EAM."""
    OPERATION = "operation"
    """A person asked for something: begun, refused, ended."""
    ALARM = "alarm"
    """Raised, or over."""
    ELECTION = "election"
    """This instance leads from now on, or does not any more."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. ``id`` grows by one from entry to entry, over restarts too; ``at`` is POSIX seconds.

    ``host`` is the moref and ``name`` the host's name; ``who`` is a person, or empty for the service itself. Entries
    of a host's state, issues and broken rules carry all three as they are from then on, in ``state``, ``issues`` and
    ``rules``. ``found``: it was so when the service began to look, and since when is not known.
    """

    id: int
    at: float
    kind: Kind
    text: str
    vcenter: str = ""
    host: str = ""
    name: str = ""
    who: str = ""
    why: str = ""
    result: str = ""
    state: str = ""
    issues: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    found: bool = False


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which entries: the newest ``limit`` of those at or after ``since`` (POSIX seconds), with an id above ``after``,
    of this host (name or moref), these kinds, this vCenter. What is empty does not choose."""

    since: float = 0.0
    after: int = 0
    host: str = ""
    kinds: tuple[Kind, ...] = ()
    vcenter: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_ANSWERED)] = 200

    def chooses(self, entry: Entry) -> bool:
        """Whether it is one of those."""
        return (
            entry.at >= self.since
            and entry.id > self.after
            and self.host.casefold() in ("", entry.host, entry.name.casefold())
            and (not self.kinds or entry.kind in self.kinds)
            and self.vcenter in ("", entry.vcenter)
        )

    def ends_at(self, entry: Entry) -> bool:
        """Whether nothing older than this entry is chosen."""
        return entry.id <= self.after or entry.at < self.since - CLOCK_STEP


class Tell(Protocol):
    """Takes what happened; see :meth:`AuditTrail.tell`."""

    def __call__(self, kind: Kind, text: str, **about: Any) -> None: ...


def untold(kind: Kind, text: str, **about: Any) -> None:
    """For who has no trail to tell."""


def plain(entry: Entry) -> dict[str, Any]:
    """All its fields, as the API gives it."""
    return {name: msgspec.to_builtins(getattr(entry, name)) for name in Entry.__struct_fields__}


def select(entries: Iterable[Entry], query: Query) -> list[Entry]:
    """Of ``entries``, newest first, those that are asked for, oldest first."""
    found: list[Entry] = []
    for entry in entries:
        if query.ends_at(entry) or len(found) >= query.limit:
            break
        if query.chooses(entry):
            found.append(entry)
    found.reverse()
    return found


class AuditFile:
    """The files. Everything blocks and raises OSError; not for two at once."""

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES, files: int = FILES) -> None:
        self.path = path
        self._most = most_bytes
        self._files = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, files))]

    def append(self, lines: bytes) -> None:
        """Whole lines, all or nothing."""
        descriptor = self._open()
        if (size := os.fstat(descriptor).st_size) and size + len(lines) > self._most:
            os.close(descriptor)
            self._rotate()
            descriptor = self._open()
            size = 0
        try:
            os.fchmod(descriptor, 0o600)
            # A process that was killed may have left half a line, which must not swallow ours.
            torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
            try:
                _write(descriptor, b"\n" + lines if torn else lines)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def newest_first(self) -> Iterator[Entry]:
        """Every entry; what is not one, such as half a line, is left out."""
        decoder = msgspec.json.Decoder(Entry)
        for path in self._files:
            for line in _lines_backwards(path):
                with contextlib.suppress(msgspec.MsgspecError):
                    yield decoder.decode(line)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def _rotate(self) -> None:
        for older, newer in reversed(list(zip(self._files[1:], self._files[:-1], strict=True))):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)


class AuditTrail:
    """See the module. ``wall_clock`` gives POSIX seconds, ``redact`` takes secrets out of text.

    ``on_trouble`` is told why nothing can be written, at each try, and ``""`` once it can be again.
    """

    def __init__(
        self,
        path: Path,
        *,
        wall_clock: Callable[[], float],
        redact: Callable[[str], str],
        on_trouble: Callable[[str], None],
        most_waiting: int = MOST_WAITING,
        retry: float = RETRY,
    ) -> None:
        self._file = AuditFile(path)
        self._now = wall_clock
        self._redact = redact
        self._on_trouble = on_trouble
        self._most_waiting = most_waiting
        self._retry = retry
        self._waiting: deque[Entry] = deque()
        self._lost = 0
        self._last = 0
        self._one = RLock()
        """Who holds it alone touches the files."""
        self._news = Event()
        self._stopping = Event()
        self.greenlet: gevent.Greenlet | None = None

    def start(self, remember: Callable[[Iterable[Entry]], None]) -> None:
        """Go on after what an earlier process wrote: ``remember`` is given it, newest first, in a thread."""

        def numbered() -> Iterator[Entry]:
            for entry in self._file.newest_first():
                self._last = max(self._last, entry.id)
                yield entry

        with contextlib.suppress(OSError):  # the first write will say why
            self._in_thread(lambda: remember(numbered()))
        self.greenlet = gevent.spawn(self._run)

    def stop(self, timeout: float) -> None:
        """Write what waits, for ``timeout`` seconds at most."""
        self._stopping.set()
        self._news.set()
        if self.greenlet is not None:
            self.greenlet.join(timeout)
            with gevent.Timeout(0.1, False):
                self.greenlet.kill()

    def tell(self, kind: Kind, text: str, *, at: float | None = None, **about: Any) -> None:
        """Something happened, now unless ``at`` is given; ``about`` are fields of :class:`Entry`. Never waits, never
        raises."""
        self._last += 1
        at = self._now() if at is None else at
        self._waiting.append(Entry(id=self._last, at=at, kind=kind, text=text, **about))
        if len(self._waiting) > self._most_waiting:
            self._waiting.popleft()
            self._lost += 1
        self._news.set()

    def read(self, query: Query) -> list[dict[str, Any]]:
        """Those entries, oldest first and in plain values, with what is not yet written. Raises Unavailable."""
        with self._one:
            waiting = list(self._waiting)
            try:
                found: list[dict[str, Any]] = self._in_thread(
                    # Made plain there, too: of 10,000 entries that alone would hold the event loop too long.
                    lambda: [*map(plain, select(chain(reversed(waiting), self._file.newest_first()), query))]
                )
            except OSError as exc:
                raise Unavailable(f"The audit trail {self._file.path} cannot be read: {exc.strerror}.") from exc
        return found

    def _run(self) -> None:
        while not (self._stopping.is_set() and not self._waiting):
            self._news.wait()
            self._news.clear()
            try:
                self._write_what_waits()
            except OSError as exc:
                self._on_trouble(
                    f"The audit trail {self._file.path} cannot be written: {exc.strerror}. Up to {self._most_waiting}"
                    " entries wait in memory, the oldest are lost then. Make space, or mend what is said."
                )
                if self._stopping.wait(self._retry):
                    return
                self._news.set()
            else:
                self._on_trouble("")

    def _write_what_waits(self) -> None:
        while self._waiting or self._lost:
            with self._one:
                lost, self._lost = self._lost, 0
                batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
                if lost:
                    first = batch[0].id if batch else self._last
                    text = f"{lost} entries were lost: the disk took none."
                    batch.insert(0, Entry(id=first - 1, at=self._now(), kind=Kind.ALARM, text=text))
                lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in batch)
                lines = self._redact(lines.decode()).encode()
                try:
                    self._in_thread(lambda lines=lines: self._file.append(lines))  # type: ignore[misc]
                except OSError:
                    self._lost += lost
                    self._waiting.extendleft(reversed(batch[1:] if lost else batch))
                    raise

    @staticmethod
    def _in_thread(work: Callable[[], Any]) -> Any:
        """Wrapped, because gevent prints the trace of what a thread raises."""
        came_of_it = gevent.get_hub().threadpool.apply(wrap_errors((OSError,), work))
        if isinstance(came_of_it, OSError):
            raise came_of_it
        return came_of_it


def _write(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]


def _lines_backwards(path: Path) -> Iterator[bytes]:
    """The last one first, without holding the file in memory; none when there is no file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        position, rest = file.seek(0, os.SEEK_END), b""
        while position:
            start = max(position - _BLOCK, 0)
            file.seek(start)
            rest, *lines = (file.read(position - start) + rest).split(b"\n")
            position = start
            yield from reversed(lines)
        yield rest
