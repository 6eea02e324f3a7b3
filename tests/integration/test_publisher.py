# SPDX-License-Identifier: Apache-2.0
"""The publisher against a real RabbitMQ: what it promises when the broker dies, freezes, blocks, refuses or returns."""

from __future__ import annotations

import hashlib
import json
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import gevent.server
import pytest
import trustme

from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from tests.support.proxy import Proxy
from tests.support.publishing import Running, SecondClient, bodies
from tests.support.rabbit import RabbitNode, free_port, take_all, wait_for
from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.bus.broker import BrokerSettings, Tls
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.domain.status import State

A, B = State.ACTIVE, State.POWERED_OFF


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "o.db", vcenter_uuid=VCENTER, publisher="p1", now=time.time)
    box.take_epoch()
    yield box
    box.close()


@pytest.fixture
def publish(outbox: Outbox) -> Iterator[Callable[[BrokerSettings], Running]]:
    """Starts publishers; asserts that each ends when it is told to, and leaves no greenlet."""
    running: list[Running] = []

    def start(settings: BrokerSettings) -> Running:
        running.append(Running(settings, outbox))
        return running[-1]

    yield start
    for one in running:
        one.publisher.stop(5)
        one.greenlet.get(timeout=5)


# --- delivery ------------------------------------------------------------------------------------------------------


def test_a_change_arrives_durable_and_with_its_attributes(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """S18: persistent, in the default queue (quorum, bounded), CloudEvents attributes beside the body."""
    one = publish(broker_settings)
    one.say(contrail_vm(1))
    one.wait_sent()
    (message,) = take_all(broker_settings)
    body = json.loads(message.body)
    headers = message.properties["application_headers"]
    assert (body["oper"], body["key"], body["state"]) == ("CREATE", key_of(1), "ACTIVE")
    assert message.delivery_info["routing_key"] == "contrailvm.state.domain-c7.host-1"
    assert message.properties["delivery_mode"] == 2
    assert message.properties["content_type"] == "application/json"
    assert message.properties["message_id"] == headers["cloudEvents:id"] == body["id"]
    assert headers["cloudEvents:source"] == f"urn:vcenter:{VCENTER}"
    assert headers["cloudEvents:type"] == message.properties["type"] == "contrailvm.state"
    assert headers["cloudEvents:time"].endswith("+00:00")
    vhost = broker_settings.vhost
    answer = rabbit_node.eval(
        f'[{{rabbit_amqqueue:info(Q, [type, durable, arguments])}} || Q <- rabbit_amqqueue:list(<<"{vhost}">>)]'
    )
    assert "{type, quorum}" in answer
    assert "signedint, 100000" in answer


def test_many_windows_arrive_in_order(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], outbox: Outbox
) -> None:
    """P3: windows of messages without pause; seq strictly grows over all of them, the snapshot's bracket included."""
    for state in (A, B, A):
        outbox.accept([contrail_vm(host, state) for host in range(100)])
    outbox.snapshot()
    publish(replace(broker_settings, window=30)).wait_sent()
    found = bodies(take_all(broker_settings))
    assert len(found) == 402
    assert [body["seq"] for body in found] == sorted({body["seq"] for body in found})


@pytest.mark.slow
def test_an_idle_connection_is_kept_by_heartbeats(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running]
) -> None:
    """Neither side gives up an idle publisher: four heartbeat times without a word, then a message, one connection."""
    one = publish(replace(broker_settings, heartbeat=1))
    one.wait_state("up")
    idle_until = time.monotonic() + 4
    wait_for(lambda: time.monotonic() > idle_until or one.states != ["up"], 10)
    one.say(contrail_vm(1))
    one.wait_sent()
    assert one.states == ["up"]


def test_a_queue_with_other_arguments_is_used_as_it_stands(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running]
) -> None:
    """A classic queue from before an upgrade of the broker must not stop the publisher."""
    with SecondClient(broker_settings) as channel:
        channel.queue_declare(broker_settings.queue, durable=True, auto_delete=False)
    one = publish(broker_settings)
    one.say(contrail_vm(1))
    one.wait_sent()
    assert len(take_all(broker_settings)) == 1


# --- messages that the broker does not take -------------------------------------------------------------------------


def test_unroutable_is_loud_and_stays(
    broker_settings: BrokerSettings,
    publish: Callable[[BrokerSettings], Running],
    outbox: Outbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P13: no queue is bound; the messages stay, the status says why, and they arrive in order once one is bound."""
    settings = replace(broker_settings, queue="")
    one = publish(settings)
    one.say(contrail_vm(1, A), contrail_vm(2, A), contrail_vm(1, B))
    wait_for(lambda: one.publisher.status()["held"] == 2, what="two held keys")
    status = one.publisher.status()
    assert "no queue is bound" in status["held_reason"]
    assert (status["backlog"], status["connected"]) == (3, True)
    assert sum("does not take message" in record.message for record in caplog.records) == 1
    with SecondClient(settings) as channel:
        channel.queue_declare("late", durable=True, auto_delete=False)
        channel.queue_bind("late", settings.exchange, "contrailvm.#")
        one.wait_sent()
        wait_for(lambda: one.publisher.status()["held"] == 0, what="nothing held")
    found = bodies(take_all(settings, "late"))
    assert [body["state"] for body in found if body["key"] == key_of(1)] == ["ACTIVE", "POWERED_OFF"]
    assert len(found) == 3


def test_a_deleted_default_queue_comes_back_by_itself(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running]
) -> None:
    """Somebody deletes the queue: the next message is unroutable, the queue is declared again, nothing is lost."""
    one = publish(broker_settings)
    one.wait_state("up")
    with SecondClient(broker_settings) as channel:
        channel.queue_delete(broker_settings.queue)
    one.say(contrail_vm(1))
    one.wait_sent()
    assert [body["key"] for body in bodies(take_all(broker_settings))] == [key_of(1)]


def test_a_nack_holds_its_key_and_not_the_others(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running]
) -> None:
    """A queue that rejects what it has no room for: its key waits in order, another key goes on."""
    settings = replace(broker_settings, queue="")
    with SecondClient(settings) as channel:
        broker.declare_exchange(settings, channel, "test")
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("full", durable=True, auto_delete=False, arguments=full)
        channel.queue_bind("full", settings.exchange, "contrailvm.*.*.host-1")
        channel.queue_declare("roomy", durable=True, auto_delete=False)
        channel.queue_bind("roomy", settings.exchange, "contrailvm.*.*.host-2")
    one = publish(settings)
    one.say(contrail_vm(1, A))
    one.wait_sent()
    one.say(contrail_vm(1, B), contrail_vm(1, State.FAULTY))
    wait_for(lambda: one.publisher.status()["held"] == 1, what="one held key")
    assert "nack" in one.publisher.status()["held_reason"]
    one.say(contrail_vm(2, A), contrail_vm(2, B))
    wait_for(lambda: one.outbox.backlog == 2, what="host-2 being sent")
    got: list[dict[str, Any]] = []
    wait_for(lambda: got.extend(bodies(take_all(settings, "full"))) or len(got) == 3, what="host-1 being sent")
    assert [body["state"] for body in got] == ["ACTIVE", "POWERED_OFF", "FAULTY"]
    assert [body["state"] for body in bodies(take_all(settings, "roomy"))] == ["ACTIVE", "POWERED_OFF"]


# --- a broker in trouble ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_broker_loses_nothing(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """P1, P3, P4: changes before, during and after a kill -9 of the broker; duplicates are equal, order holds."""
    one = publish(broker_settings)
    one.wait_state("up")
    rabbit_node.settle()
    stop = gevent.event.Event()
    said = 0

    def keep_changing() -> None:
        nonlocal said
        while not stop.wait(0.002):
            one.say(contrail_vm(said % 7, (A, B)[said // 7 % 2], str(said)))
            said += 1

    changing = gevent.spawn(keep_changing)
    wait_for(lambda: said > 200, what="changes before")
    rabbit_node.kill()
    one.wait_state("down")
    rabbit_node.start()
    one.wait_state("up", 60)
    so_far = said
    wait_for(lambda: said > so_far + 100, what="changes after")
    stop.set()
    changing.get()
    one.wait_sent(60)
    by_id: dict[str, bytes] = {}
    reasons: list[int] = []
    states: dict[str, list[str]] = {}
    for message in take_all(broker_settings):
        body = json.loads(message.body)
        if by_id.setdefault(body["id"], message.body) != message.body:
            pytest.fail(f"one id, two bodies: {body['id']}")
        if int(body["reason"]) in reasons:
            continue
        reasons.append(int(body["reason"]))
        states.setdefault(body["key"], []).append(body["state"])
    assert sorted(reasons) == list(range(said)), "lost"
    assert reasons == sorted(reasons), "out of order"
    assert all(a != b for of_key in states.values() for a, b in pairwise(of_key))


def test_a_frozen_broker_is_noticed_by_a_deadline(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """SIGSTOP: the round ends after confirm_timeout, the hub stays free, stop() does not hang, thawing heals."""
    settings = replace(broker_settings, confirm_timeout=1.0, connect_timeout=1.0, heartbeat=60)
    one = publish(settings)
    one.wait_state("up")
    rabbit_node.freeze()
    try:
        one.say(contrail_vm(1))
        began = time.monotonic()
        wait_for(lambda: "down" in one.states, 10, "the deadline")
        assert time.monotonic() - began < 4
        down = next(told for told in one.told if told["state"] == "down")
        assert "did not confirm 1 messages in 1 s" in down["last_error"]
        wait_for(lambda: "did not answer in 1 s" in one.publisher.status()["last_error"], 10, "a login that hangs")
    finally:
        rabbit_node.thaw()
    one.wait_sent()
    found = bodies(take_all(settings))
    assert {body["id"] for body in found} == {found[0]["id"]}


def test_a_lost_confirm_gives_an_equal_duplicate(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running]
) -> None:
    """P4: the broker has it, its confirm crawls in byte by byte; the deadline holds, and the copy has the same id."""
    with Proxy(broker_settings.hosts[0]).running() as proxy:
        settings = replace(broker_settings, hosts=(("127.0.0.1", proxy.port),), confirm_timeout=0.5)
        one = publish(settings)
        one.wait_state("up")
        proxy.dribble()
        one.say(contrail_vm(1))
        one.wait_state("down")
        proxy.heal()
        one.wait_sent()
        one.publisher.stop()
    first, *copies = take_all(broker_settings)
    assert copies
    assert {message.body for message in copies} == {first.body}
    assert {message.properties["message_id"] for message in copies} == {first.properties["message_id"]}


def test_stopping_before_a_frozen_broker_takes_no_longer_than_allowed(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """SIGTERM ends the daemon within 5 s: the message stays for the next start."""
    one = publish(replace(broker_settings, confirm_timeout=30.0))
    one.wait_state("up")
    rabbit_node.freeze()
    try:
        one.say(contrail_vm(1))
        began = time.monotonic()
        assert one.publisher.stop(0.5) is False
        assert time.monotonic() - began < 3
        assert one.publisher.status()["state"] == "stopped"
        assert one.outbox.backlog == 1
    finally:
        rabbit_node.thaw()


def test_a_blocked_broker_is_waited_for_on_the_same_connection(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """connection.blocked is no failure: longer than the confirm deadline, then all arrives, once."""
    settings = replace(broker_settings, confirm_timeout=1.5)
    one = publish(settings)
    one.say(contrail_vm(0))
    one.wait_sent()
    rabbit_node.block()
    try:
        one.say(contrail_vm(1))
        one.wait_state("blocked")
        one.say(contrail_vm(2))
        until = time.monotonic() + 3
        wait_for(lambda: time.monotonic() > until or one.publisher.status()["state"] != "blocked")
        assert one.publisher.status()["connected"]
        assert one.outbox.backlog == 2
    finally:
        rabbit_node.unblock()
    one.wait_sent()
    assert one.states == ["up", "blocked", "up"]
    assert [body["key"] for body in bodies(take_all(settings))] == [key_of(0), key_of(1), key_of(2)]


@pytest.mark.parametrize("first", ["down", "refusing", "frozen"])
def test_the_next_broker_is_tried(
    first: str, broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running]
) -> None:
    """Several brokers fail over, without waiting out a back-off first, whatever the first one's trouble is."""
    with Proxy(broker_settings.hosts[0]).running() as proxy:
        bad = ("127.0.0.1", free_port() if first == "down" else proxy.port)
        settings = replace(
            broker_settings,
            hosts=(bad, *broker_settings.hosts),
            connect_timeout=1.0,
            retry_first=0.05,
            retry_longest=30.0,
        )
        if first == "refusing":
            proxy.refuse()
        elif first == "frozen":
            proxy.half_open()
        one = publish(settings)
        one.say(contrail_vm(1))
        one.wait_sent(10)
        assert one.publisher.status()["broker"] == broker_settings.name(0)
        assert one.publisher.status()["state"] == "up"
        assert one.states[-1] == "up"
        assert one.states.count("up") == 1
        one.publisher.stop(5)


def test_a_connection_that_the_broker_closes_is_made_again(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """connection.close, as an operator or an upgrade sends it: said in the broker's words, then up again."""
    one = publish(broker_settings)
    one.wait_state("up")
    rabbit_node.close_connections(broker_settings.vhost)
    wait_for(lambda: one.states == ["up", "down", "up"], what="a new connection")
    assert "CONNECTION_FORCED - test" in one.told[1]["last_error"]
    one.say(contrail_vm(1))
    one.wait_sent()
    assert len(take_all(broker_settings)) == 1


def test_an_exchange_that_somebody_deleted_comes_back_by_itself(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running]
) -> None:
    """The broker closes the channel at the first message: exchange, queue and binding are declared on the next one."""
    one = publish(broker_settings)
    one.wait_state("up")
    with SecondClient(broker_settings) as channel:
        channel.exchange_delete(broker_settings.exchange)
    one.say(contrail_vm(1))
    one.wait_sent()
    assert [body["key"] for body in bodies(take_all(broker_settings))] == [key_of(1)]


def test_more_than_a_blocked_broker_reads_is_not_sent_and_all_arrives_later(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """8 MB at once, on a connection made while the alarm is raised: the broker reads none of it, so that sending all of
    it would hang until a deadline. It says that it is blocked after the first; the rest waits here."""
    settings = replace(broker_settings, window=1000, confirm_timeout=1.0, heartbeat=30)
    rabbit_node.block()
    try:
        one = publish(settings)
        one.say(*(contrail_vm(host, A, "x" * 8000) for host in range(1000)))
        one.wait_state("blocked")
        until = time.monotonic() + 2.5
        wait_for(lambda: time.monotonic() > until or one.publisher.status()["state"] != "blocked")
        assert one.outbox.backlog == 1000
        assert one.publisher.status()["confirmed"] == 0
    finally:
        rabbit_node.unblock()
    one.wait_sent(60)
    found = bodies(take_all(settings))
    assert len({body["id"] for body in found}) == 1000


def test_a_snapshot_that_was_nacked_in_part_is_known_to_be_torn_once_all_is_taken(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running]
) -> None:
    """Its END came before an ITEM, so it showed no consumer who is gone: another must be sent, once."""
    settings = replace(broker_settings, queue="")
    with SecondClient(settings) as channel:
        broker.declare_exchange(settings, channel, "test")
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("full", durable=True, auto_delete=False, arguments=full)
        channel.queue_bind("full", settings.exchange, "contrailvm.*.*.host-1")
        channel.queue_declare("roomy", durable=True, auto_delete=False)
        channel.queue_bind("roomy", settings.exchange, "contrailvm.#")
    one = publish(settings)
    one.say(contrail_vm(1), contrail_vm(2))
    one.wait_sent()
    assert not one.publisher.take_torn()
    one.outbox.snapshot()
    one.publisher.wake()
    wait_for(lambda: one.publisher.status()["held"] == 1, what="one held key")
    assert not one.publisher.take_torn(), "another would be refused as well"
    wait_for(lambda: bool(take_all(settings, "full")) and one.outbox.backlog == 0, what="room for it")
    wait_for(one.publisher.take_torn, what="the publisher's word")
    assert not one.publisher.take_torn()


# --- a broker that refuses -----------------------------------------------------------------------------------------


def test_a_refused_login_is_one_clear_sentence_and_a_new_password_heals_it(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """The secret is asked for at each login; it stands in no sentence."""
    rabbit_node.add_user("contrail", "right-0451")
    rabbit_node.allow("contrail", broker_settings.vhost)
    password = "wrong-8112"
    one = publish(replace(broker_settings, user="contrail", password=lambda: password))
    one.say(contrail_vm(1))
    status = one.wait_state("refused")
    assert status["last_error"].startswith(f"Broker {broker_settings.name(0)} refused to log in as 'contrail': ")
    assert status["last_error"].endswith("Check rabbit_user and rabbit_password.")
    assert "8112" not in str(one.told)
    assert not status["connected"]
    password = "right-0451"
    one.wait_sent()


def test_tls_with_the_right_authority(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """Delivery over TLS, verified by the CA file."""
    tls = Tls(ca_file=rabbit_node.ca_file)
    one = publish(replace(broker_settings, hosts=(("127.0.0.1", rabbit_node.tls_port),), tls=tls))
    one.say(contrail_vm(1))
    one.wait_sent()
    assert len(take_all(broker_settings)) == 1


@pytest.mark.parametrize("authority", ["of the system", "another"])
def test_an_unknown_certificate_is_one_clear_sentence(
    authority: str,
    broker_settings: BrokerSettings,
    publish: Callable[[BrokerSettings], Running],
    rabbit_node: RabbitNode,
    tmp_path: Path,
) -> None:
    """With its subject and thumbprint, so that a person can decide; nothing is sent to it, the login least of all."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    tls = Tls(ca_file=None if authority == "of the system" else tmp_path / "other.pem")
    one = publish(replace(broker_settings, hosts=(("127.0.0.1", rabbit_node.tls_port),), tls=tls))
    sentence = one.wait_state("refused")["last_error"]
    der = ssl.PEM_cert_to_DER_cert(rabbit_node.cert_file.read_text())
    assert "CN=broker.example" in sentence
    assert hashlib.sha256(der).hexdigest() in sentence.replace(":", "").lower()
    assert sentence.endswith("Set kombu_ssl_ca_certs to the authority that signed it, if it is the right broker.")


def test_a_certificate_for_another_name_is_one_clear_sentence(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """The right authority signed it, but not for the address we asked: somebody else's server, perhaps."""
    with Proxy(("127.0.0.1", rabbit_node.tls_port), address="127.0.0.2").running() as proxy:
        tls = Tls(ca_file=rabbit_node.ca_file)
        one = publish(replace(broker_settings, hosts=(("127.0.0.2", proxy.port),), tls=tls))
        one.say(contrail_vm(1))
        sentence = one.wait_state("refused")["last_error"]
        assert "CN=broker.example" in sentence
        assert "not valid for '127.0.0.2'" in sentence
        assert one.outbox.backlog == 1
        one.publisher.stop(5)


def test_tls_on_a_port_that_speaks_none_is_one_clear_sentence(
    broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """rabbit_use_ssl with the port of plain AMQP, the likeliest mistake."""
    one = publish(replace(broker_settings, tls=Tls(ca_file=rabbit_node.ca_file)))
    sentence = one.wait_state("down")["last_error"]
    assert sentence.startswith(f"Broker {broker_settings.name(0)} does not agree on TLS with us: ")
    assert "Check that this port speaks TLS" in sentence


def test_a_client_certificate_is_shown_to_a_broker_that_asks(
    broker_settings: BrokerSettings,
    publish: Callable[[BrokerSettings], Running],
    rabbit_node: RabbitNode,
    tmp_path: Path,
) -> None:
    """kombu_ssl_certfile and kombu_ssl_keyfile: the broker knows whom it talks to; one of a stranger is refused."""
    at = replace(broker_settings, hosts=(("127.0.0.1", rabbit_node.tls_port),))

    def identity(authority: trustme.CA, name: str) -> Tls:
        leaf = authority.issue_cert("plugin.example", common_name=name)
        cert, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        leaf.cert_chain_pems[0].write_to_path(cert)
        leaf.private_key_pem.write_to_path(key)
        return Tls(ca_file=rabbit_node.ca_file, cert_file=cert, key_file=key)

    stranger = publish(replace(at, tls=identity(trustme.CA(), "stranger")))
    wait_for(lambda: stranger.publisher.status()["last_error"], what="a refusal")
    assert "up" not in stranger.states
    assert "kombu_ssl_certfile if the broker asks for a certificate" in stranger.publisher.status()["last_error"]
    stranger.publisher.stop(5)
    one = publish(replace(at, tls=identity(rabbit_node.authority, "contrail-eam")))
    one.wait_state("up")
    subjects = rabbit_node.eval(
        "[binary_to_list(Subject) || P <- rabbit_networking:connections(),"
        " [{_, Subject}] <- [catch rabbit_networking:connection_info(P, [peer_cert_subject])], is_binary(Subject)]"
    )
    assert "CN=contrail-eam" in subjects


@pytest.mark.parametrize("case", ["vhost", "exchange", "permission"])
def test_what_the_broker_does_not_have_or_allow_is_one_clear_sentence(
    case: str, broker_settings: BrokerSettings, publish: Callable[[BrokerSettings], Running], rabbit_node: RabbitNode
) -> None:
    """Unknown vhost, an exchange of another kind under our name, no permission: refused, and tried again."""
    settings = broker_settings
    if case == "vhost":
        settings = replace(settings, vhost="nowhere")
        expected = "refused to log in as 'guest'"
    elif case == "exchange":
        with SecondClient(settings) as channel:
            channel.exchange_declare(settings.exchange, "fanout", durable=True, auto_delete=False)
        expected = f"refused to declare exchange '{settings.exchange}'"
    else:
        rabbit_node.add_user("reader", "reader")
        rabbit_node.allow("reader", settings.vhost, configure="", write="")
        settings = replace(settings, user="reader", password=lambda: "reader")
        expected = f"does not allow us to declare exchange '{settings.exchange}'"
    one = publish(settings)
    status = one.wait_state("refused")
    assert expected in status["last_error"]
    assert one.told[-1]["state"] == "refused"


def test_what_does_not_speak_amqp_is_one_clear_sentence(publish: Callable[[BrokerSettings], Running]) -> None:
    """A web server on the broker's port."""

    def answer(sock: Any, _address: Any) -> None:
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    server = gevent.server.StreamServer(("127.0.0.1", 0), answer)
    server.start()
    try:
        one = publish(
            BrokerSettings(hosts=(("127.0.0.1", server.server_port),), connect_timeout=2.0, retry_longest=0.5)
        )
        status = one.wait_state("down")
        assert f"127.0.0.1:{server.server_port}/" in status["last_error"]
    finally:
        server.stop()
