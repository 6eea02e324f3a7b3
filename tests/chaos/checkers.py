# SPDX-License-Identifier: Apache-2.0
"""Whether a run of the chaos rig kept the promises: pure functions over its record.

What was true comes from the simulator's journal, through the oracle; what was said, from the recorder, by the rules of
``docs/messages.md``, written here once more so that a mistake in ``bus/view.py`` does not hide itself.

- A *final* state is one that stays true for :data:`FINAL` seconds while no fault is active and somebody leads, or the
  last one. Each must have stood on the bus, in its order, however late: ``lost`` counts those that did not. A message
  tells the time at which its state was seen, so a later time at which the same was true does not stand in for it.
  States in between may be skipped, and nobody can be told anything before the first lead.
- What was taken into an outbox is delivered, final or not: each message names the state that the one before it of its
  ContrailVM told, so a gap shows, also one that a snapshot has healed since. It is ``lost``, too.
- *At rest* is what stands on the bus for :data:`REST` seconds without an active fault. ``unexpected`` counts what stood
  at rest and was not true of its host while it stood, nor within the time that a change may be under way.
- After the last fault is healed the bus equals the truth within :data:`CONVERGENCE` seconds (``unconverged``).

Not checked: what a state's reason says, which of two words of one class was right, and how long a change took while all
was well: that is the benchmarks' affair.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from tests.chaos.oracle import Class, class_of_state, class_of_truth
from tests.chaos.records import Finding, JournalEntry, Received, Record, Term, Verdict

FINAL = 5.0
"""Seconds that a state must stay true, undisturbed, to be final."""
REST = 5.0
"""Seconds that a state must stand on the bus, undisturbed, to be at rest."""
CONVERGENCE = 30.0
"""Seconds after the last fault in which the bus must equal the truth."""
SEEN_LATE = 3.0
"""Seconds after a state's end in which it may be seen: EAM is asked every two or so."""
WINDOW = 250
"""Messages of a lead that has ended which may still come: what is on its way (``publish_window``)."""
LOG_DELAY = 1.0
"""Seconds by which a term may begin before its instance's log was seen to say so."""

KINDS = ("lost", "unexpected", "unequal", "disordered", "unconverged", "stale", "unled", "died")

Scope = Collection[str] | None
Interval = tuple[float, float]
Position = tuple[int, int]

_NEVER = float("inf")


def check(record: Record, scope: Scope = None) -> Verdict:
    """All checkers over one run. ``scope`` holds the compute resources in scope; ``None``: all of them."""
    truth, said = truths(record.journal, scope), standing(record.messages)
    found = [
        *lost(record, truth, said),
        *gaps(record),
        *unexpected(record, truth, said),
        *unequal(record.messages),
        *disordered(record.messages),
        *not_converged(record, truth, said),
        *stale(record),
        *unled(record),
        *died(record),
    ]
    counts = Counter(finding.kind for finding in found)
    return Verdict({kind: counts[kind] for kind in KINDS}, tuple(found), figures(record, truth, said))


# --- what was true, and what was said -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """One class of one host (a moref), from ``began`` until before ``ended``; without end when it is the last.

    ``seen`` is, of what was told, when its publisher saw it.
    """

    host: str
    of: Class
    began: float
    ended: float = _NEVER
    words: str = ""
    seen: float = -_NEVER


def truths(journal: Iterable[JournalEntry], scope: Scope = None) -> dict[str, list[Span]]:
    """Host -> what was true of it, in order; neighbours differ in class."""
    changes: dict[str, list[Span]] = defaultdict(list)
    for entry in journal:
        if entry.kind == "truth":
            host = str(entry.fields["host"])
            words = f"{entry.fields['name']} ({host})"
            changes[host].append(Span(host, class_of_truth(entry.fields, scope), entry.time, words=words))
    return {host: _joined(spans) for host, spans in changes.items()}


def standing(messages: Iterable[Received]) -> dict[str, list[Span]]:
    """Host -> what a consumer held of it, in order. A host that nobody was told of is not in it."""
    messages = tuple(messages)
    # One machine, two of its clocks; the message that was quickest says how far they are apart.
    apart = min((one.time - one.body["timestamp"] / 1e6 for one in messages), default=0.0)
    consumer = _Consumer(apart)
    for message in messages:
        consumer.take(message)
    return {host: _joined(spans) for host, spans in consumer.held.items()}


def _joined(spans: list[Span]) -> list[Span]:
    """Each ends where the next begins; one of the class of that before it is no change."""
    firsts = [span for before, span in pairwise([None, *spans]) if before is None or span.of is not before.of]
    ends = [*(span.began for span in firsts[1:]), _NEVER]
    return [replace(one, ended=end) for one, end in zip(firsts, ends, strict=True)]


def _told(said: Mapping[str, list[Span]], host: str) -> list[Span]:
    """What was said of a host, with what a consumer holds of one that it was never told of."""
    spans = said.get(host, [])
    until = spans[0].began if spans else _NEVER
    return [Span(host, Class.GONE, -_NEVER, until, "nothing"), *spans]


@dataclass(slots=True)
class _Bracket:
    id: str
    begin: Position
    named: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Consumer:
    """What ``docs/messages.md`` tells a consumer to do, for one vCenter. ``apart``: monotonic less wall clock."""

    apart: float
    held: dict[str, list[Span]] = field(default_factory=lambda: defaultdict(list))
    seen: set[str] = field(default_factory=set)
    positions: dict[str, Position] = field(default_factory=dict)
    epoch: int = 0
    bracket: _Bracket | None = None

    def take(self, message: Received) -> None:
        body = message.body
        epoch = int(body["epoch"])
        if body["id"] in self.seen or epoch < self.epoch:
            return
        self.seen.add(body["id"])
        self.epoch = epoch
        position = (epoch, int(body["seq"]))
        if body["key"] is None:
            self._bracket(body["snapshot"], position, message)
            return
        key = str(body["key"])
        if self.bracket is not None and body["snapshot"] is not None and body["snapshot"]["id"] == self.bracket.id:
            self.bracket.named.add(key)
        if position > self.positions.get(key, (0, 0)):
            self.positions[key] = position
            self._hold(key, class_of_state(body["state"]), message, str(body["state"]))

    def _hold(self, key: str, of: Class, message: Received, words: str) -> None:
        host = key.partition(".")[0]
        seen = message.body["timestamp"] / 1e6 + self.apart
        self.held[host].append(Span(host, of, message.time, words=words, seen=seen))

    def _bracket(self, snapshot: Mapping[str, Any], position: Position, message: Received) -> None:
        if snapshot["phase"] == "BEGIN":
            self.bracket = _Bracket(snapshot["id"], position)
            return
        whole, self.bracket = self.bracket, None
        if whole is None or whole.id != snapshot["id"] or len(whole.named) != snapshot["count"]:
            return
        for key, last in self.positions.items():
            if key not in whole.named and last < whole.begin:
                self._hold(key, Class.GONE, message, "not named by a snapshot")


# --- the state on the bus ------------------------------------------------------------------------------------------


def lost(record: Record, truth: Mapping[str, list[Span]], said: Mapping[str, list[Span]]) -> Iterator[Finding]:
    """Final states that never stood on the bus, or not in their order."""
    for host, spans in truth.items():
        told, place = _told(said, host), 0
        for span in finals(record, spans):
            found = next((n for n in range(place, len(told)) if _tells(told[n], span)), None)
            if found is None:
                yield Finding(
                    "lost", f"{span.words} was {span.of} from {_at(record, span.began)} on; it was never told."
                )
            else:
                place = found


def gaps(record: Record) -> Iterator[Finding]:
    """Messages that were taken into an outbox and never came: the next one of their key does not build on the last.

    Who hands over the lead drops what is unsent; where there is another instance, only one lead's messages are a chain,
    and it begins with what the snapshot at its take told.
    """
    alone = len({one.name for one in record.instances}) == 1
    last: dict[tuple[str, int], Mapping[str, Any]] = {}
    bodies = [body for body in _without_copies(record.messages) if body["key"] is not None]
    for body in sorted(bodies, key=lambda body: (body["epoch"], body["seq"])):
        chain = (str(body["key"]), 0 if alone else int(body["epoch"]))
        if body["oper"] == "SYNC":
            last.setdefault(chain, body)
            continue
        before = last.get(chain)
        if before is not None and before["oper"] == "SYNC" and body["coalesced"]:
            before = None  # it stands for one that the snapshot had told of
        told = None if before is None or before["state"] == "REMOVED" else before["state"]
        if before is not None and body["old_state"] != told:
            text = (
                f"{_place(body)} builds on {body['old_state']}, and {_place(before)} before it told {before['state']}."
            )
            yield Finding("lost", f"{body['key']}: {text}")
        last[chain] = body


def _place(body: Mapping[str, Any]) -> str:
    return f"{body['epoch']}.{body['seq']}"


def _tells(told: Span, span: Span) -> bool:
    return told.of is span.of and told.ended > span.began and told.seen < span.ended + SEEN_LATE


def finals(record: Record, spans: list[Span]) -> list[Span]:
    """Those of one host's truths that must be told."""
    calm = list(led_and_undisturbed(record))
    return [span for span in spans if span is spans[-1] or _holds_for(calm, span.began, span.ended, FINAL)]


def unexpected(record: Record, truth: Mapping[str, list[Span]], said: Mapping[str, list[Span]]) -> Iterator[Finding]:
    """What stood on the bus at rest, and was not true."""
    calm = list(undisturbed(record))
    for host, spans in said.items():
        for span in spans:
            if not _holds_for(calm, span.began, min(span.ended, record.ended), REST):
                continue
            since = span.began - CONVERGENCE
            if not any(
                one.of is span.of and one.ended > since and one.began < span.ended for one in truth.get(host, [])
            ):
                text = f"{host} was told to be {span.words} at {_at(record, span.began)}; that was not true."
                yield Finding("unexpected", text)


def not_converged(record: Record, truth: Mapping[str, list[Span]], said: Mapping[str, list[Span]]) -> Iterator[Finding]:
    """Hosts of which the bus did not say the truth in time, when all faults were healed."""
    for host, spans in truth.items():
        true, newest = spans[-1], _told(said, host)[-1]
        seconds = _convergence(record, true, newest)
        if seconds is None:
            yield Finding("unconverged", f"{true.words} is {true.of}; the bus says {newest.words}.")
        elif seconds > CONVERGENCE:
            yield Finding("unconverged", f"{true.words} was told to be {true.of} {seconds:.1f} s late.")


def _convergence(record: Record, true: Span, newest: Span) -> float | None:
    """Seconds after the last fault, or after the truth if that came later; ``None``: the bus says something else."""
    return max(newest.began - max(record.healed, true.began), 0.0) if newest.of is true.of else None


def unconverged(truth_entries: Iterable[JournalEntry], messages: Iterable[Received], scope: Scope = None) -> list[str]:
    """For the rig while it waits: the hosts of which the newest message does not say what is true, in words."""
    truth, said = truths(truth_entries, scope), standing(messages)
    ends = [(spans[-1], _told(said, host)[-1]) for host, spans in truth.items()]
    return [
        f"{true.words} is {true.of}, the bus says {newest.words}" for true, newest in ends if newest.of is not true.of
    ]


# --- the stream ----------------------------------------------------------------------------------------------------


def unequal(messages: Iterable[Received]) -> Iterator[Finding]:
    """Copies of a message that are not it, byte by byte."""
    first: dict[str, bytes] = {}
    for message in messages:
        message_id = str(message.body["id"])
        if first.setdefault(message_id, message.raw) != message.raw:
            yield Finding("unequal", f"Message {message_id} came with another body than before.")


def disordered(messages: Iterable[Received]) -> Iterator[Finding]:
    """``seq`` that does not grow, per key and epoch; more of an ended lead than it can have had under way."""
    newest = 0
    seqs: dict[tuple[str | None, int], int] = defaultdict(int)
    late = Counter[int]()
    for body in _without_copies(messages):
        key, epoch, seq = body["key"], int(body["epoch"]), int(body["seq"])
        if seq <= seqs[key, epoch]:
            yield Finding("disordered", f"{key or 'a bracket'}: {epoch}.{seq} came after {epoch}.{seqs[key, epoch]}.")
        seqs[key, epoch] = max(seq, seqs[key, epoch])
        newest = max(newest, epoch)
        late[epoch] += epoch < newest
        if epoch < newest and late[epoch] > WINDOW:
            text = f"{key or 'a bracket'}: {epoch}.{seq} came after epoch {newest} began, as did {WINDOW} before it."
            yield Finding("disordered", text)


def _without_copies(messages: Iterable[Received]) -> Iterator[Mapping[str, Any]]:
    seen = set[str]()
    for message in messages:
        if message.body["id"] not in seen:
            seen.add(message.body["id"])
            yield message.body


def stale(record: Record) -> Iterator[Finding]:
    """What the consumer applied though it had applied a later epoch of that vCenter; and one epoch taken twice."""
    newest: dict[str, int] = {}
    for applied in record.applied:
        vcenter, epoch = str(applied.body["fq_name"][0]), int(applied.body["epoch"])
        if epoch < newest.get(vcenter, 0):
            yield Finding("stale", f"{applied.body['key']}: epoch {epoch} was applied after {newest[vcenter]}.")
        newest[vcenter] = max(newest.get(vcenter, 0), epoch)
    for epoch, count in Counter(term.epoch for term in record.terms).items():
        if count > 1:
            yield Finding("stale", f"Epoch {epoch} was taken {count} times.")


# --- the leads -----------------------------------------------------------------------------------------------------


def unled(record: Record) -> Iterator[Finding]:
    """Writes to vCenter by who did not lead, beyond the requests that it may have had under way."""
    for name, client in sorted({(one.name, one.client) for one in record.instances}):
        leads = [(term, end) for term, end in effective_leads(record) if term.instance == name]
        after: dict[Term | None, list[JournalEntry]] = defaultdict(list)
        for entry in record.journal:
            if entry.kind != "call" or entry.fields.get("client") != client:
                continue
            begun = [(term, end) for term, end in leads if term.began - LOG_DELAY <= entry.time]
            last, end = begun[-1] if begun else (None, -_NEVER)
            if entry.time > end:
                after[last].append(entry)
        for last, entries in after.items():
            allowed = record.workers if last is not None else 0
            for entry in entries[allowed:]:
                since = f"its epoch {last.epoch} had ended" if last is not None else "it never led"
                text = f"{name} called {entry.fields['method']} at {_at(record, entry.time)}; {since}."
                yield Finding("unled", text)


def effective_leads(record: Record) -> list[tuple[Term, float]]:
    """Each term with its end: when its instance knew it, or when the next one began, whichever came first."""
    terms = sorted(record.terms, key=lambda term: term.epoch)
    ends = [*(term.began for term in terms), _NEVER][1:]
    return [
        (term, min(term.ended if term.ended is not None else _NEVER, following))
        for term, following in zip(terms, ends, strict=True)
    ]


def died(record: Record) -> Iterator[Finding]:
    """Instances that ended and nobody had asked for it."""
    for one in record.instances:
        if one.how == "died" and one.ended is not None and one.ended >= record.began:
            yield Finding("died", f"{one.name} (pid {one.pid}) ended by itself at {_at(record, one.ended)}.")


# --- times ---------------------------------------------------------------------------------------------------------


def undisturbed(record: Record) -> Iterator[Interval]:
    """The times of the run in which no fault was active, in order."""
    free = record.began
    for fault in sorted(record.faults, key=lambda fault: fault.began):
        if fault.began > free:
            yield free, fault.began
        free = max(free, fault.ended)
    if record.ended > free:
        yield free, record.ended


def led_and_undisturbed(record: Record) -> Iterator[Interval]:
    """The times in which, besides, one instance led without a break."""
    for began, ended in undisturbed(record):
        for term, end in effective_leads(record):
            since, until = max(began, term.began), min(ended, end)
            if since < until:
                yield since, until


def _holds_for(calm: Iterable[Interval], began: float, ended: float, seconds: float) -> bool:
    return any(min(ended, until) - max(began, since) >= seconds for since, until in calm)


def _at(record: Record, time: float) -> str:
    return f"{time - record.began:+.2f} s"


# --- for the report ------------------------------------------------------------------------------------------------


def figures(record: Record, truth: Mapping[str, list[Span]], said: Mapping[str, list[Span]]) -> dict[str, float]:
    """What was measured; none of it is judged here."""
    times = [_convergence(record, spans[-1], _told(said, host)[-1]) for host, spans in truth.items()]
    ids = Counter(message.body["id"] for message in record.messages if not message.redelivered)
    epochs = _epochs_as_received(record.messages)
    return {
        "hosts": len(truth),
        "final states": sum(len(finals(record, spans)) for spans in truth.values()),
        "messages": len(ids),
        "duplicates": ids.total() - len(ids),
        "coalesced": sum(int(body["coalesced"]) for body in _without_copies(record.messages)),
        "messages of an ended lead": sum(epoch < newest for epoch, newest in epochs),
        "writes": sum(entry.kind == "call" for entry in record.journal),
        "leads": len(record.terms),
        "convergence seconds": max((seconds for seconds in times if seconds is not None), default=0.0),
    }


def _epochs_as_received(messages: Iterable[Received]) -> Iterator[tuple[int, int]]:
    newest = 0
    for body in _without_copies(messages):
        newest = max(newest, int(body["epoch"]))
        yield int(body["epoch"]), newest
