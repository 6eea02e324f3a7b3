# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam listen`` as a process of its own, at a real RabbitMQ."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import kombu

from tests.support.rabbit import RabbitNode, free_port
from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.cli.listen import line
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.messages import Stamp
from vcenter_eam_plugin.domain.status import ContrailVm, Eam, Esxi, Event, State, VRouter

CODE = "from vcenter_eam_plugin.cli.main import main; main(prog_name='vcenter-eam')"

VCENTER = "5f0c1ab6-7b5c-4f0d-9f5b-1f4a52d2c001"


def body(seq: int, state: State, old: State | None = None, reason: str = "") -> bytes:
    status = ContrailVm(
        key=f"host-1.{VCENTER}",
        state=state,
        reason=reason,
        esxi=Esxi(
            moref="host-1",
            name="esx-01",
            compute_resource="domain-c1",
            cluster="A",
            datacenter="DC0",
            connection="connected",
            power="poweredOn",
            maintenance=False,
            standby="none",
        ),
        vm=None,
        vrouter=VRouter(active=False),
        eam=Eam(),
    )
    stamp = Stamp(vcenter_uuid=VCENTER, publisher="test", epoch=1, seq=seq, timestamp=1_000_000 + seq)
    return messages.encode(messages.state_message(stamp, status, event=Event.STATE, old_state=old))


@contextmanager
def listening(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, once it says on standard error that it listens."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "listen", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr
        said = process.stderr.readline()
        assert "listening at" in said, said + process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def publish(settings: BrokerSettings, *bodies: bytes) -> None:
    with broker.connect(settings) as connection:
        producer = kombu.Producer(connection.channel(), broker.exchange(settings))
        for each in bodies:
            producer.publish(each, "contrailvm.state.domain-c1.host-1", content_type="application/json")


def test_prints_each_message_once_as_published_and_ends_on_sigterm(
    rabbit_url: str, broker_settings: BrokerSettings
) -> None:
    """S18: what a consumer gets is what was published; a redelivery is not shown again."""
    first, second = body(1, State.PENDING), body(2, State.DEPLOYING, State.PENDING)
    with listening("--json", "--broker", rabbit_url) as process:
        publish(broker_settings, first, first, second)
        assert process.stdout
        assert [json.loads(process.stdout.readline()) for _ in range(2)] == [json.loads(first), json.loads(second)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""


def test_wrong_password_ends_with_one_sentence_and_its_exit_code(rabbit_node: RabbitNode, rabbit_vhost: str) -> None:
    """Bad input: exit code 3, no traceback, and the password is not shown."""
    url = f"amqp://guest:hunter2@127.0.0.1:{rabbit_node.port}/{rabbit_vhost}"
    done = subprocess.run(
        [sys.executable, "-c", CODE, "listen", "--broker", url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("vcenter-eam: Broker 127.0.0.1:")
    assert "hunter2" not in done.stderr


def test_a_broker_that_does_not_answer_is_said_once_a_try() -> None:
    """Bug: each was two lines, the log's and the command's."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "listen", "--broker", f"amqp://guest:guest@127.0.0.1:{free_port()}/"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr
        said = [process.stderr.readline() for _ in range(2)]
    finally:
        process.kill()
        process.communicate(timeout=10)
    assert all(line.startswith("vcenter-eam: ") and "Trying again." in line for line in said), said


def test_line_for_a_person_says_when_what_where_and_why() -> None:
    shown = line(json.loads(body(1, State.DEPLOYING, State.PENDING, "EAM is \x1b[2Jworking\non it")))
    assert " ".join(shown.split()[1:]) == "UPDATE esx-01 PENDING -> DEPLOYING EAM is ?[2Jworking?on it"
    begin = messages.snapshot_begin(Stamp(vcenter_uuid=VCENTER, publisher="t", epoch=1, seq=1, timestamp=0), "s", 7)
    assert line(json.loads(messages.encode(begin))).endswith("SYNC   snapshot of 7: begin")
