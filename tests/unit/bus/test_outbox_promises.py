# SPDX-License-Identifier: Apache-2.0
"""The promises of delivery under any mix of changes, half-confirmed rounds, refusals, snapshots and kills.

The broker is a list: what is offered may arrive or not, and may be confirmed or not. A kill closes the file without
confirming anything and opens it again, while the clock may have gone back.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.view import Deduplicator, View
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.status import ContrailVm, Event, State

CHANGES = {
    "1 active": contrail_vm(1),
    "1 active, why": contrail_vm(1, State.ACTIVE, "why"),
    "1 off": contrail_vm(1, State.POWERED_OFF),
    "1 removed": contrail_vm(1, State.REMOVED),
    "2 active": contrail_vm(2),
    "2 off": contrail_vm(2, State.POWERED_OFF),
}
STEPS = [*CHANGES, "1 gone", "snapshot", "kill", "confirmed", "confirmed in part", "unconfirmed", "lost", "1 refused"]


class Delivery:
    """One outbox, the truth it was told, and a consumer that gets what arrives."""

    def __init__(self, directory: str, bound: int) -> None:
        self.path = Path(directory) / "o.db"
        self.bound = bound
        self.now = 1_700_000_000.0
        self.world: dict[str, ContrailVm] = {}
        self.bodies: dict[str, bytes] = {}
        self.seen = Deduplicator()
        self.view = View()
        self.newest: dict[str, tuple[int, int]] = {}
        self.state_of: dict[str, State | None] = {}
        self.began = (0, 0)
        self.open()

    def open(self) -> None:
        self.outbox = Outbox(self.path, vcenter_uuid=VCENTER, publisher="p", now=lambda: self.now, bound=self.bound)
        self.outbox.take_epoch()

    def step(self, step: str) -> None:
        if step in CHANGES:
            status = CHANGES[step]
            self.outbox.accept([status])
            self.world[status.key] = status
            if status.state is State.REMOVED:
                del self.world[status.key]
        elif step == "1 gone":
            self.world.pop(key_of(1), None)
            self.outbox.reconcile(list(self.world.values()))
        elif step == "snapshot":
            self.outbox.snapshot()
        elif step == "kill":
            self.outbox.close()
            self.now -= 1
            self.open()
            assert self.outbox.reconcile(list(self.world.values())) == (), "told again after a restart"
            self.outbox.snapshot()  # each epoch begins with one, see Delivery
        else:
            rows = self.outbox.pending(3, held=[key_of(1)] if step == "1 refused" else [])
            if step != "lost":
                self.arrive([row.body for row in rows])
            if step in {"confirmed", "1 refused"}:
                self.outbox.confirm(rows)
            elif step == "confirmed in part":
                self.outbox.confirm(rows[:1])

    def drain(self) -> None:
        while rows := self.outbox.pending(10):
            self.arrive([row.body for row in rows])
            self.outbox.confirm(rows)

    def arrive(self, bodies: list[bytes]) -> None:
        for body in bodies:
            message = messages.decode(body)
            assert self.bodies.setdefault(message.id, body) == body, "one id, two bodies"
            if self.seen.seen(message.id):
                continue
            applied = self.view.apply(json.loads(body))
            position = (message.epoch, message.seq)
            if message.key is None:
                if message.snapshot is not None and message.snapshot.phase == "BEGIN":
                    self.began = position
                continue
            # One that was refused comes after a snapshot, maybe of a new epoch, that began later and told the same.
            assert applied.fresh or position < self.began, "overtaken"
            assert position > self.newest.get(message.key, (0, 0)), "overtaken"
            self.newest[message.key] = position
            if message.event is Event.STATE:
                assert message.state is not self.state_of.get(message.key), "two equal neighbours"
                assert message.old_state in {self.state_of.get(message.key), None}, "builds on what nobody was told"
                self.state_of[message.key] = message.state


@settings(max_examples=300, deadline=None)
@given(bound=st.integers(0, 1), steps=st.lists(st.sampled_from(STEPS), max_size=14))
@example(bound=0, steps=["1 active", "confirmed", "1 off", "unconfirmed", "1 active"])
@example(bound=0, steps=["1 active", "confirmed", "1 off", "unconfirmed", "kill", "1 active"])
@example(bound=0, steps=["1 active", "confirmed", "1 off", "snapshot", "1 active"])
@example(bound=0, steps=["1 active", "confirmed", "1 off", "1 active"])
@example(bound=0, steps=["1 active", "confirmed", "1 removed", "1 off", "1 active"])
@example(bound=0, steps=["1 active", "1 removed", "snapshot", "1 refused", "1 refused"])
def test_promises(bound: int, steps: list[str]) -> None:
    """P1, P3, P4: nothing lost, one id is one body, positions grow per key, no two neighbouring states are equal, and
    once all is confirmed a consumer's view equals the truth."""
    with tempfile.TemporaryDirectory() as directory:
        delivery = Delivery(directory, bound)
        try:
            for step in steps:
                delivery.step(step)
            delivery.drain()
        finally:
            delivery.outbox.close()
    view = {key: (message["state"], message["reason"]) for key, message in delivery.view.states.items()}
    assert view == {key: (status.state, status.reason) for key, status in delivery.world.items()}
