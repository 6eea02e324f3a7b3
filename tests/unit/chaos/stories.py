# SPDX-License-Identifier: Apache-2.0
"""Records of runs in which all went well, told step by step; tests then spoil one thing in them.

Times are in seconds, and every step lasts at least one: what a step tells is received before the next begins.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.chaos.oracle import Class
from tests.chaos.records import Applied, Fault, Instance, JournalEntry, Received, Record, Term

BEGAN = 100.0
WALL = 1_795_000_000.0
"""What the wall clock showed when the monotonic one showed 0."""
VCENTER = "52f3b0a1-7c1d-4d7e-9a55-0c2f6f0e1a11"
WORKERS = 4
CLIENTS = {"a": "127.0.0.2", "b": "127.0.0.3"}
WORDS = {
    Class.USABLE: "ACTIVE",
    Class.UNUSABLE: "POWERED_OFF",
    Class.RESTING: "MAINTENANCE",
    Class.UNREACHABLE: "UNREACHABLE",
    Class.GONE: "REMOVED",
}


def truth_of(of: Class) -> dict[str, Any]:
    """What the simulator's journal says of a host of that class."""
    healthy = {
        "present": True,
        "compute_resource": "domain-c1",
        "connection": "connected",
        "standby": "none",
        "maintenance": None,
        "in_maintenance": False,
        "vm": "vm-1",
        "vm_power": "poweredOn",
        "agent": "agent-1",
        "available": True,
    }
    different: dict[Class, dict[str, Any]] = {
        Class.USABLE: {},
        Class.UNUSABLE: {"vm_power": "poweredOff", "available": False},
        Class.RESTING: {"maintenance": "in", "in_maintenance": True, "vm_power": "poweredOff", "available": False},
        Class.UNREACHABLE: {"connection": "notResponding"},
    }
    return {"present": False} if of is Class.GONE else healthy | different[of]


@dataclass
class Story:
    """A run under way, ``a`` leading it from its beginning. ``now`` is monotonic."""

    now: float = BEGAN
    seq: int = 0
    epoch: int = 1_795_000_100_000
    leader: str = "a"
    truth: dict[str, Class] = field(default_factory=dict)
    told: dict[str, Class] = field(default_factory=dict)
    journal: list[JournalEntry] = field(default_factory=list)
    messages: list[Received] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.instances += [Instance(name, pid, CLIENTS[name], BEGAN) for pid, name in enumerate(CLIENTS, 1)]
        self.terms.append(Term("a", 1, self.epoch, BEGAN))
        self.snapshot()

    # --- steps ---------------------------------------------------------------------------------------------

    def change(self, host: str, of: Class, delay: float = 0.2, pause: float = 1.0) -> Received | None:
        """It becomes true, and is told after ``delay``; the message, unless it is what stands on the bus."""
        self.happen(host, of)
        message = self.tell(host, self.now + delay)
        self.now += pause
        return message

    def untold(self, host: str, of: Class, pause: float) -> None:
        """It becomes true, and the service never notices."""
        self.happen(host, of)
        self.now += pause

    def unseen(self, host: str, *classes: Class) -> None:
        """A fault, during which all these come true and nobody is told; the last is told when it is healed."""
        began = self.now
        for of in classes:
            self.now += 1.0
            self.happen(host, of)
        self.now += 1.0
        self.faults.append(Fault("broker-pause", "broker", began, self.now))
        self.tell(host, self.now + 0.5)
        self.now += 1.0

    def take_over(self) -> None:
        """The leader is killed and started again; three seconds later the other one leads."""
        old, began = self.terms.pop(), self.now
        self.terms.append(Term(old.instance, old.pid, old.epoch, old.began, began))
        place = next(n for n, one in enumerate(self.instances) if one.pid == old.pid)
        life = self.instances[place]
        self.instances[place] = Instance(life.name, life.pid, life.client, life.began, began, "killed")
        self.now += 3.0
        self.instances.append(Instance(life.name, 100 + len(self.instances), life.client, self.now))
        self.faults.append(Fault("plugin-kill", life.name, began, self.now))
        self.leader = "b" if self.leader == "a" else "a"
        self.epoch += 1_000
        pid = next(one.pid for one in self.instances if one.name == self.leader and one.ended is None)
        self.terms.append(Term(self.leader, pid, self.epoch, self.now))
        self.snapshot()
        self.now += 1.0

    def write(self, name: str | None = None) -> None:
        """The leader, or whoever is named, calls vCenter."""
        fields = {"user": "u", "method": "Resolve", "object": "agent-1", "client": CLIENTS[name or self.leader]}
        self.journal.append(JournalEntry(len(self.journal) + 1, self.now, "call", fields))

    def repeat(self, place: int) -> None:
        """A message comes once more, as it was."""
        again = self.messages[place % len(self.messages)]
        self.messages.append(Received(self.now, again.raw, again.body))

    def snapshot(self) -> None:
        """Everything is told in a bracket."""
        name, said = f"snapshot-{len(self.messages)}", {h: c for h, c in self.told.items() if c is not Class.GONE}
        for phase in ("BEGIN", *said, "END"):
            host = phase if phase in said else None
            snapshot = {"id": name, "phase": "ITEM" if host else phase, "count": len(said)}
            self.publish(host, said.get(phase), self.now, oper="SYNC", snapshot=snapshot)

    # --- what steps are made of --------------------------------------------------------------------------------

    def happen(self, host: str, of: Class) -> None:
        """It becomes true now."""
        self.truth[host] = of
        fields = {"host": host, "name": f"esx-{host}", **truth_of(of)}
        self.journal.append(JournalEntry(len(self.journal) + 1, self.now, "truth", fields))

    def tell(self, host: str, at: float) -> Received | None:
        """What is true of a host, unless it was told; the message."""
        of = self.truth[host]
        if self.told.get(host, Class.GONE) is of:
            return None
        return self.publish(host, of, at, oper="DELETE" if of is Class.GONE else "UPDATE")

    def old_state(self, host: str | None) -> str | None:
        """What was told of it before; nothing of one that was not there."""
        before = self.told.get(host or "", Class.GONE)
        return None if before is Class.GONE else WORDS[before]

    def publish(self, host: str | None, of: Class | None, at: float, **fields: Any) -> Received:
        self.seq += 10  # so that there is room for what a test puts in between
        body = {
            "id": f"{self.epoch}.{self.seq}",
            "key": f"{host}.{VCENTER}" if host else None,
            "fq_name": [VCENTER],
            "epoch": self.epoch,
            "seq": self.seq,
            "timestamp": int((at - 0.01 + WALL) * 1e6),
            "state": WORDS[of] if of is not None else None,
            "old_state": self.old_state(host),
            "coalesced": 0,
            "snapshot": None,
            **fields,
        }
        if host and of:
            self.told[host] = of
        message = Received(at, json.dumps(body).encode(), body)
        self.messages.append(message)
        self.applied.append(Applied(at, body))
        return message

    def record(self) -> Record:
        """The run ends here: all is healed, and nothing happens for ten seconds."""
        return Record(
            seed=1,
            began=BEGAN,
            healed=self.now,
            ended=self.now + 10.0,
            session_timeout=4.0,
            workers=WORKERS,
            journal=tuple(self.journal),
            messages=tuple(self.messages),
            applied=tuple(self.applied),
            instances=tuple(self.instances),
            terms=tuple(self.terms),
            faults=tuple(self.faults),
        )


HOSTS = ("host-1", "host-2", "host-3")
hosts = st.sampled_from(HOSTS)
classes = st.sampled_from(list(Class))
steps = st.one_of(
    st.tuples(st.just("change"), hosts, classes, st.floats(0.01, 0.9), st.floats(1.0, 12.0)),
    st.tuples(st.just("unseen"), hosts, classes, classes, classes),
    st.tuples(st.just("take_over")),
    st.tuples(st.just("write")),
    st.tuples(st.just("repeat"), st.integers(0, 1000)),
)
some_steps = st.lists(steps, max_size=12)


def go_on(story: Story, told: list[tuple[Any, ...]]) -> Story:
    """Tell these steps."""
    for name, *arguments in told:
        getattr(story, name)(*arguments)
    return story
