# SPDX-License-Identifier: Apache-2.0
"""S18: every state change is published once, in order, over restarts of the service and of the broker."""

import json
from collections.abc import Callable
from typing import Any

import gevent
import jsonschema
import kombu
import pytest

from tests.support.bench import Bench
from tests.support.rabbit import RabbitNode
from tests.support.scenario import assert_can_be_followed
from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.domain.messages import json_schema


def brackets(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The messages of each snapshot, in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        if message["snapshot"]:
            found.setdefault(message["snapshot"]["id"], []).append(message)
    return list(found.values())


def wait_for_snapshot(bench: Bench, since: int) -> list[dict[str, Any]]:
    """The first whole snapshot from the message with index ``since`` on."""

    def whole() -> list[dict[str, Any]] | None:
        return next((b for b in brackets(bench.messages[since:]) if b[-1]["snapshot"]["phase"] == "END"), None)

    return bench.wait_for(whole, "a snapshot")  # type: ignore[no-any-return]


def changes(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(m["oper"], m["state"]) for m in messages if m["event"] != "sync"]


def test_every_change_once_in_order_and_as_the_schema_says(bench: Bench) -> None:
    """S18: a whole story; what the listener heard is what vCenter's journal has as the end of each step."""
    bench.start()
    bench.wait_until_active()
    first, second, third = bench.vcenter.hosts()
    bench.vcenter.power_off(bench.vcenter.agent_vm(first))
    bench.wait_for_state(first.name, "POWERED_OFF")
    bench.vcenter.enter_maintenance(second)
    bench.wait_for_state(second.name, "MAINTENANCE")
    bench.vcenter.remove_host(third)
    added = bench.vcenter.add_host(bench.vcenter.clusters()[0], "added.dc0.example")
    bench.wait_for(lambda: bench.state(third.name) is None, "it is removed")
    bench.wait_for(lambda: second.in_maintenance, "the host is in maintenance")
    bench.vcenter.exit_maintenance(second)
    bench.wait_until_active(first.name, second.name, added.name)
    assert_can_be_followed(bench.messages)
    schema = json_schema()
    for message in bench.messages:
        jsonschema.validate(message, schema)
    assert len({m["id"] for m in bench.messages}) == len(bench.messages)
    assert (bench.listener.duplicates, bench.listener.stale) == (0, 0)
    for host in bench.vcenter.hosts():
        told = [m for m in bench.messages if m["key"] and m["esxi"]["name"] == host.name]
        opers = [m["oper"] for m in told if m["event"] == "state"]
        assert opers[0] == "CREATE"
        assert set(opers[1:]) == {"UPDATE"}
    assert [m["oper"] for m in bench.messages if m["key"] and m["esxi"]["name"] == third.name][-1] == "DELETE"


def test_a_snapshot_bracket_is_sent_at_the_start(bench: Bench) -> None:
    """S18: BEGIN, one message per key, END, each with the count; nothing of it is a change."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    since = len(bench.messages)
    bench.start()
    snapshot = wait_for_snapshot(bench, since)
    assert [m["snapshot"]["phase"] for m in snapshot] == ["BEGIN", "ITEM", "ITEM", "ITEM", "END"]
    assert {m["snapshot"]["count"] for m in snapshot} == {3}
    assert {(m["oper"], m["event"]) for m in snapshot} == {("SYNC", "sync")}
    assert sorted(m["esxi"]["name"] for m in snapshot[1:-1]) == sorted(bench.names())
    assert bench.dropped == []


def test_a_restart_with_nothing_changed_publishes_no_change(bench: Bench) -> None:
    """S18: three times over; the epoch grows each time."""
    bench.start()
    bench.wait_until_active()
    epochs = [bench.unit.pipeline.status()["epoch"]]
    bench.stop()
    for _ in range(3):
        since = len(bench.messages)
        bench.start()
        wait_for_snapshot(bench, since)
        bench.wait_for(lambda: not len(bench.unit.pipeline.workers.queue), "everything was looked at")
        gevent.sleep(0.2)
        assert changes(bench.messages[since:]) == []
        epochs.append(bench.unit.pipeline.status()["epoch"])
        bench.stop()
    assert epochs == sorted(set(epochs))
    assert_can_be_followed(bench.messages)


def test_what_changed_while_it_was_down_is_one_message_each(bench: Bench) -> None:
    """S18: changed -> one UPDATE, removed -> one DELETE, untouched -> none; before the snapshot."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    off, removed, untouched = bench.vcenter.hosts()
    since = len(bench.messages)
    bench.vcenter.power_off(bench.vcenter.agent_vm(off))
    bench.wait_for(lambda: not bench.vcenter.agent_vm(off).on, "it is off")
    bench.vcenter.remove_host(removed)
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    bench.wait_for(lambda: len(agency.agents) == 2, "EAM has removed the agent")
    bench.start(mode=Mode.OBSERVE)
    wait_for_snapshot(bench, since)
    new = bench.messages[since:]
    assert sorted(m["esxi"]["name"] for m in new if m["event"] == "state") == sorted([off.name, removed.name])
    assert bench.heard(off.name, since) == ["POWERED_OFF"]
    assert bench.heard(removed.name, since) == ["REMOVED"]
    assert bench.heard(untouched.name, since) == []
    assert_can_be_followed(bench.messages)


def test_a_lost_state_directory_tells_everything_again_with_a_higher_epoch(bench: Bench) -> None:
    """S18: the machine was replaced; consumers see CREATE again and never go back in time."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    gone = bench.vcenter.hosts()[0]
    bench.vcenter.remove_host(gone)
    since = len(bench.messages)
    bench.start(defaults={"state_directory": bench.directory / "new-machine"})
    wait_for_snapshot(bench, since)
    assert min(m["epoch"] for m in bench.messages[since:]) > max(m["epoch"] for m in bench.messages[:since])
    bench.wait_for(lambda: len(bench.dropped) == 1, "the snapshot tells of the lost deletion")
    assert gone.moid in bench.dropped[0]


@pytest.mark.slow
def test_broker_stopped_and_started_again_loses_nothing(
    make_bench: Callable[..., Bench], rabbit_node: RabbitNode
) -> None:
    """S18: three changes while it is down; the durable queue that analytics reads has each of them, in order."""
    bench = make_bench(hosts=1, clusters=1)
    bench.start()
    bench.wait_until_active()
    bench.wait_for(lambda: bench.unit.pipeline.status()["publisher"]["backlog"] == 0, "everything is sent")
    bench.listener.stop()
    bench._listening.join(5)
    (host,) = bench.vcenter.hosts()
    drain(bench)
    rabbit_node.stop()
    try:
        bench.vcenter.disconnect(host)
        wait_for_state_seen(bench, host, "UNREACHABLE")
        bench.vcenter.reconnect(host)
        wait_for_state_seen(bench, host, "ACTIVE")
        bench.vcenter.enter_maintenance(host)
        wait_for_state_seen(bench, host, "MAINTENANCE")
    finally:
        rabbit_node.start()
    bench.wait_for(lambda: bench.unit.pipeline.status()["publisher"]["backlog"] == 0, "everything is sent")
    got = [m for m in drain(bench) if m["event"] == "state"]
    states = [m["state"] for m in got]
    assert [states[0], states[-1]] == ["UNREACHABLE", "MAINTENANCE"]
    assert "ACTIVE" in states
    assert_can_be_followed(got)


def wait_for_state_seen(bench: Bench, host: Any, state: str) -> None:
    bench.wait_for(lambda: bench.unit.pipeline.fleet.status(host.moid).state == state, f"{state} is seen")


def drain(bench: Bench) -> list[dict[str, Any]]:
    """What is in the default queue, taken out: as analytics would after a pause, each message once."""
    settings = bench.broker
    connection = broker.connect(settings, 0)
    try:
        channel = connection.channel()
        queue = kombu.Queue(settings.queue, channel=channel, no_declare=True)
        found: dict[str, dict[str, Any]] = {}
        while (message := queue.get(no_ack=True)) is not None:
            body = json.loads(message.body)
            found.setdefault(body["id"], body)
        return list(found.values())
    finally:
        broker.close(connection, polite=True)


def test_broker_that_freezes_gets_each_message_once_for_a_listener(
    make_bench: Callable[..., Bench], rabbit_node: RabbitNode
) -> None:
    """S18: unconfirmed messages are sent again under the same id; who removes duplicates sees each once."""
    bench = make_bench(hosts=2, clusters=1)
    bench.start()
    bench.wait_until_active()
    first, second = bench.vcenter.hosts()
    rabbit_node.freeze()
    try:
        bench.vcenter.enter_maintenance(first)
        bench.vcenter.disconnect(second)
        bench.wait_for(lambda: "bus" in bench.alarms(), "the trouble is noticed")
    finally:
        rabbit_node.thaw()
    bench.wait_for_state(first.name, "MAINTENANCE")
    bench.wait_for_state(second.name, "UNREACHABLE")
    assert bench.heard(first.name).count("MAINTENANCE") == 1
    assert bench.heard(second.name).count("UNREACHABLE") == 1
    assert_can_be_followed(bench.messages)


def test_a_queue_that_somebody_deleted_is_declared_again_and_nothing_is_lost(bench: Bench) -> None:
    """S18: mandatory messages come back as unroutable when no queue takes them; they are not counted as sent."""
    bench.start()
    bench.wait_until_active()
    bench.wait_for(lambda: bench.unit.pipeline.status()["publisher"]["backlog"] == 0, "everything is sent")
    bench.listener.stop()
    bench._listening.join(5)
    connection = broker.connect(bench.broker, 0)
    try:
        kombu.Queue(bench.broker.queue, channel=connection.channel(), no_declare=True).delete()
    finally:
        broker.close(connection, polite=True)
    host = bench.vcenter.hosts()[0]
    bench.vcenter.enter_maintenance(host)
    bench.wait_for(lambda: "MAINTENANCE" in bench.unit.pipeline.status()["states"], "it is seen")
    bench.wait_for(lambda: bench.unit.pipeline.status()["publisher"]["backlog"] == 0, "everything is sent")
    assert "MAINTENANCE" in [m["state"] for m in drain(bench)]


def test_observe_mode_publishes_the_same(bench: Bench) -> None:
    """S18: watching needs no permission to act."""
    bench.start(mode=Mode.OBSERVE)
    for host in bench.names():
        bench.wait_for_state(host, "PENDING")
    assert_can_be_followed(bench.messages)
    assert bench.writes() == []
