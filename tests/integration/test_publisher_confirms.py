# SPDX-License-Identifier: Apache-2.0
"""The window of confirms: pipelined, matched by delivery tag, whatever order and form AMQP allows the broker."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from tests.support.confirm_proxy import Confirm, ConfirmProxy
from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from tests.support.publishing import Running, bodies
from tests.support.rabbit import take_all, wait_for
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.domain.status import State

WINDOW = 20

Send = Callable[[], Running]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """One window of messages, each of another key."""
    box = Outbox(tmp_path / "o.db", vcenter_uuid=VCENTER, publisher="p1", now=time.time)
    box.take_epoch()
    box.accept([contrail_vm(host) for host in range(1, WINDOW + 1)])
    yield box
    box.close()


@pytest.fixture
def proxy(broker_settings: BrokerSettings) -> Iterator[ConfirmProxy]:
    with ConfirmProxy(broker_settings.hosts[0]).running() as proxy:
        yield proxy


@pytest.fixture
def send(broker_settings: BrokerSettings, proxy: ConfirmProxy, outbox: Outbox) -> Iterator[Send]:
    """Starts the publisher behind the proxy; it ends when it is told to."""
    started: list[Running] = []

    def start() -> Running:
        settings = replace(broker_settings, hosts=(("127.0.0.1", proxy.port),), window=WINDOW)
        started.append(Running(settings, outbox))
        return started[-1]

    yield start
    for one in started:
        one.publisher.stop(5)
        one.greenlet.get(timeout=5)


class Held:
    """Holds confirms back until the whole window is there, then sends what ``release`` makes of their tags.

    A publisher that waited for one confirm before it sent the next message would never get past its first.
    """

    def __init__(self, release: Callable[[list[int]], list[Confirm]]) -> None:
        self._release = release
        self.tags: list[int] = []

    def __call__(self, confirm: Confirm) -> list[Confirm]:
        self.tags.append(confirm.tag)
        return self._release(sorted(self.tags)) if len(self.tags) == WINDOW else []


@pytest.mark.parametrize(
    "release",
    [
        lambda tags: [Confirm(tag) for tag in reversed(tags)],
        lambda tags: [Confirm(tags[-1], multiple=True)],
        lambda tags: [Confirm(tag) for tag in tags[1::2]] + [Confirm(tags[-1], multiple=True)],
        lambda tags: [Confirm(tags[4], multiple=True), Confirm(tags[-1]), Confirm(tags[-2], multiple=True)],
        lambda tags: [Confirm(0, multiple=True), *(Confirm(tag) for tag in tags)],
        lambda tags: [Confirm(tags[0]), Confirm(tags[0]), Confirm(10_000), Confirm(tags[-1], multiple=True)],
    ],
    ids=["reversed", "one for all", "every second, then all", "mixed", "a multiple for none", "strange tags"],
)
def test_a_window_is_pipelined_and_its_confirms_may_come_in_any_order_and_form(
    release: Callable[[list[int]], list[Confirm]],
    proxy: ConfirmProxy,
    send: Send,
    broker_settings: BrokerSettings,
) -> None:
    """20 messages are on their way before the first confirm; each is taken out once, on one connection."""
    proxy.tamper = held = Held(release)
    one = send()
    one.wait_sent()
    assert len(held.tags) == WINDOW
    assert one.states == ["up"]
    assert one.publisher.status()["confirmed"] == WINDOW
    assert [body["key"] for body in bodies(take_all(broker_settings))] == [key_of(n) for n in range(1, WINDOW + 1)]


def test_what_was_not_confirmed_stays_and_what_was_does_not_come_again(
    proxy: ConfirmProxy, send: Send, broker_settings: BrokerSettings, outbox: Outbox
) -> None:
    """P2, P4: confirms of every second tag are lost. Those messages alone go out again, equal byte by byte."""
    seen: list[Confirm] = []

    def odd_ones_of_the_first_window(confirm: Confirm) -> list[Confirm]:
        seen.append(confirm)
        return [confirm] if confirm.tag % 2 and len(seen) <= WINDOW else []

    proxy.tamper = odd_ones_of_the_first_window
    one = send()
    down = one.wait_state("down")
    assert "did not confirm 10 messages in 2 s" in down["last_error"]
    assert [row.key for row in outbox.pending(100)] == [key_of(n) for n in range(2, WINDOW + 1, 2)]
    proxy.tamper = None
    one.wait_sent()
    found = take_all(broker_settings)
    copies = Counter(body["key"] for body in bodies(found))
    assert all(copies[key_of(n)] == 1 if n % 2 else copies[key_of(n)] > 1 for n in range(1, WINDOW + 1)), copies
    assert len({message.body for message in found}) == WINDOW


@pytest.mark.parametrize(
    ("release", "refused"),
    [
        (lambda tags: [Confirm(tag, ok=tag % 3 > 0) for tag in reversed(tags)], set(range(3, WINDOW + 1, 3))),
        (
            lambda tags: [Confirm(tags[4], ok=False, multiple=True), Confirm(tags[-1], multiple=True)],
            set(range(1, 6)),
        ),
    ],
    ids=["each third, backwards", "the first five at once"],
)
def test_a_nack_is_for_its_tags_alone(
    release: Callable[[list[int]], list[Confirm]],
    refused: set[int],
    proxy: ConfirmProxy,
    send: Send,
    broker_settings: BrokerSettings,
    outbox: Outbox,
) -> None:
    """Those keys are held, with their later messages; the others go on. All arrives in the order of its key."""
    proxy.tamper = Held(release)
    one = send()
    wait_for(lambda: one.publisher.status()["held"] == len(refused), what="the refused keys being held")
    assert "nack" in one.publisher.status()["held_reason"]
    proxy.tamper = lambda confirm: [replace(confirm, ok=False)]
    one.say(*(contrail_vm(host, State.FAULTY) for host in sorted(refused)))
    assert {row.key for row in outbox.pending(100)} == {key_of(host) for host in refused}
    proxy.tamper = None
    one.wait_sent()
    assert one.states[0] == "up"
    assert "down" not in one.states
    states: dict[str, list[str]] = {}
    for body in {body["id"]: body for body in bodies(take_all(broker_settings))}.values():
        states.setdefault(body["key"], []).append(body["state"])
    assert states == {key_of(n): ["ACTIVE", "FAULTY"] if n in refused else ["ACTIVE"] for n in range(1, WINDOW + 1)}


def test_nobody_waits_for_a_confirm_that_is_late(
    proxy: ConfirmProxy, send: Send, broker_settings: BrokerSettings, outbox: Outbox
) -> None:
    """The first of a window is not confirmed yet: the rest is taken out of the outbox, and what is new goes out."""
    late: list[Confirm] = []

    def all_but_the_first(confirm: Confirm) -> list[Confirm]:
        if late:
            return [confirm]
        late.append(confirm)
        return []

    proxy.tamper = all_but_the_first
    one = send()
    wait_for(lambda: outbox.backlog == 1, what="all but the first being confirmed")
    one.say(*(contrail_vm(host) for host in range(100, 150)))
    wait_for(lambda: outbox.backlog == 1, what="what is new being confirmed")
    assert [row.key for row in outbox.pending(10)] == [key_of(late[0].tag)]
    assert one.states == ["up"]
    proxy.tamper = None
    one.wait_sent()  # after the deadline, which is that message's own
    assert one.states == ["up", "down", "up"]
    found = Counter(body["key"] for body in bodies(take_all(broker_settings)))
    assert found.pop(key_of(late[0].tag)) == 2
    assert set(found.values()) == {1}


class CutProxy(ConfirmProxy):
    """While ``whole`` is not set, the first part of a frame comes through, and the rest when it is."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(target)
        self.whole = Event()
        self.whole.set()

    def _pump(self, source: Any, sink: Any, client: Any, answers: bool) -> None:
        super()._pump(source, InPieces(sink, self.whole) if answers else sink, client, answers)


class InPieces:
    """A socket that sends so. A part is the header of a frame, which says how long it is, and two bytes."""

    def __init__(self, sink: Any, whole: Event) -> None:
        self._sink = sink
        self._whole = whole
        self.shutdown = sink.shutdown

    def sendall(self, frame: bytes) -> None:
        if not self._whole.is_set():
            self._sink.sendall(frame[:9])
            frame = frame[9:]
            self._whole.wait()
        self._sink.sendall(frame)


@pytest.mark.timeout(120)  # what is to be seen here held the whole process once, and so this test, for ever
def test_a_part_of_a_confirm_does_not_hold_the_event_loop(broker_settings: BrokerSettings, outbox: Outbox) -> None:
    """amqp asks the socket for the rest without a pause if it is asked for frames with a time-out of 0."""
    with CutProxy(broker_settings.hosts[0]).running() as proxy:
        assert isinstance(proxy, CutProxy)
        one = Running(replace(broker_settings, hosts=(("127.0.0.1", proxy.port),), window=1000), outbox)
        one.wait_sent()
        proxy.whole.clear()
        one.say(*(contrail_vm(host) for host in range(100, 600)))
        gevent.sleep(0.5)  # which never ended
        assert outbox.backlog == 500
        proxy.whole.set()
        one.wait_sent()
        assert one.states == ["up"]
        one.publisher.stop(5)
        one.greenlet.get(timeout=5)


def test_a_confirm_that_is_lost_is_made_up_for_by_no_other(
    proxy: ConfirmProxy, send: Send, broker_settings: BrokerSettings, outbox: Outbox
) -> None:
    """The tags of a new connection begin anew: it is a new one, on which tag 1 is another message than before."""
    seen: list[Confirm] = []

    def last_ten_of_the_first_window(confirm: Confirm) -> list[Confirm]:
        seen.append(confirm)
        return [confirm] if WINDOW // 2 < len(seen) <= WINDOW else []

    proxy.tamper = last_ten_of_the_first_window
    one = send()
    one.wait_state("down")
    lost = {key_of(confirm.tag) for confirm in seen[: WINDOW // 2]}
    assert {row.key for row in outbox.pending(100)} == lost
    proxy.tamper = None
    one.wait_sent()
    assert proxy.accepted >= 2
    assert one.publisher.status()["confirmed"] == WINDOW
