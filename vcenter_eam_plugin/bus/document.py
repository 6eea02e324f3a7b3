# SPDX-License-Identifier: Apache-2.0
"""Writes ``docs/messages.md`` from the code: the schema, and one example of each message as it is really encoded.

    python -m vcenter_eam_plugin.bus.document > docs/messages.md

A test compares the file with this, so the page cannot be out of date.
"""

from __future__ import annotations

import json
import sys

import msgspec

from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.messages import Message, Stamp
from vcenter_eam_plugin.domain.status import AgentVm, ContrailVm, Eam, Esxi, Event, Issue, State, Violation, VRouter

_VCENTER = "52f3b0a1-7c1d-4d7e-9a55-0c2f6f0e1a11"
_SNAPSHOT = "0a4be4b5-2a3d-5d0c-b6a5-30c4c7a1f2d4"

CONSUMER = """\
from vcenter_eam_plugin.bus.consumer import Consumer


def told(message):
    if message["key"] is not None and message["event"] == "state":
        print(message["esxi"]["name"], message["old_state"], "->", message["state"])


def gone(keys):
    print("not there any more:", *keys)


url = "amqp://user:password@broker.example/vhost"
consumer = Consumer(url, told, queue="vcenter_eam.my-service", on_dropped=gone)
consumer.run()  # until consumer.stop(), called from another greenlet
"""
"""A consumer of one's own, as the page shows it; a test runs it."""

_TEXT = f"""\
<!-- Generated: python -m vcenter_eam_plugin.bus.document > docs/messages.md -->
# Messages on the bus

The plugin publishes one JSON message per change of a ContrailVM.

| what | value |
|---|---|
| exchange | `{broker.EXCHANGE}`, type `topic`, durable |
| routing key | `contrailvm.<event>.<cluster moref>.<host moref>`; `contrailvm.sync.-.-` for BEGIN and END |
| default queue | `{broker.QUEUE}`, durable, bound to `{broker.BINDING}`; quorum from RabbitMQ 3.8, classic before |
| its bound | {broker.QUEUE_LENGTH:,} messages, then the oldest are dropped; the next snapshot heals what was missed |
| delivery | persistent, `mandatory`, with publisher confirms |
| properties | `message_id` is `id`; CloudEvents 1.0 in the headers `cloudEvents:id`, `:source`, `:type`, `:time` |

Exchange, queue and bound are settings; these are their defaults.

## Promises

- **At least once**: a change that was accepted is delivered, as long as some broker comes back. A copy has the same
  `id` and is equal byte by byte.
- **Order per ContrailVM**: `(epoch, seq)` grows from message to message of a `key`. A lower one than the last seen
  is stale: ignore it.
- **Quiet**: no message says what the one before it of the same `key` said. Unchanged over a restart means no message.
- **Not promised**: exactly once, or every state in between. While no broker is reachable for long, a newer state
  replaces unsent older ones (`coalesced` counts them); a DELETE is never replaced.

## What a consumer does

1. Forget a message whose `id` was seen before.
2. Ignore a message whose `epoch` is lower than the highest seen from its vCenter (`fq_name[0]`): whoever sent it
   leads no more.
3. Keep, per `key`, the message with the greatest `(epoch, seq)`. `oper` DELETE removes the key; remember its
   position, so that a late message does not bring it back.
4. At the END of a snapshot whose BEGIN and all `count` ITEMs were seen, drop the keys of that vCenter
   that it did not name and whose last position is before the BEGIN. Believe nothing from before that BEGIN any more.
5. Ignore fields that are not listed here: a new field does not change `version`.

`vcenter_eam_plugin.bus.consumer.Consumer` does all five; `vcenter_eam_plugin.bus.view` holds the rules without any
input or output. `vcenter-eam listen` shows the stream, and [analytics.md](analytics.md) is about a consumer that is
there already. One of your own, in a process that gevent has patched:

```python
{CONSUMER}```

## Examples
"""


def examples() -> list[tuple[str, str, Message]]:
    """Title, explanation and message, one for each thing that is ever sent."""
    here = _record(State.ACTIVE, "")
    off = _record(State.POWERED_OFF, "powered off outside of maintenance; EAM is asked to power it on")
    return [
        (
            "CREATE: a ContrailVM is wanted on a new host",
            "The first message of a key; `old_state` is null.",
            _about(1, _record(State.PENDING, "waiting for EAM"), Event.STATE, None),
        ),
        (
            "UPDATE, `state`: it was powered off",
            "The state changed. Route by `vrouter.active`: true in state ACTIVE alone.",
            _about(2, off, Event.STATE, State.ACTIVE),
        ),
        (
            "UPDATE, `state`, after a long outage of the broker",
            "Three messages that were never sent are left out; `old_state` is what was really sent last.",
            _about(7, here, Event.STATE, State.POWERED_OFF, coalesced=3),
        ),
        (
            "UPDATE, `detail`: same state, other facts",
            "Reason, issues, VM, address or cluster changed.",
            _about(8, _record(State.ACTIVE, "guest heartbeat is yellow"), Event.DETAIL, State.ACTIVE),
        ),
        (
            "UPDATE, `detail`: vCenter broke a rule",
            "`violations` names what is broken now, and is empty again when it is over.",
            _about(9, _broken(here), Event.DETAIL, State.ACTIVE),
        ),
        (
            "UPDATE, `state`: contact with the host is lost",
            "`last_state` is set in UNREACHABLE alone: what was known before.",
            _about(10, _record(State.UNREACHABLE, "host is not responding", State.ACTIVE), Event.STATE, State.ACTIVE),
        ),
        (
            "DELETE: the host left",
            "The last message of a key, with the facts as last known.",
            _about(11, _record(State.REMOVED, "the host is no longer in the scope"), Event.STATE, State.UNREACHABLE),
        ),
        (
            "SYNC, `BEGIN`: a snapshot begins",
            "Sent when a leader takes over, on request, and hourly. No ContrailVM is meant.",
            messages.snapshot_begin(_stamp(12), _SNAPSHOT, 1),
        ),
        (
            "SYNC, `ITEM`: one ContrailVM, as it is",
            "Nothing changed; `event` is `sync`.",
            messages.snapshot_item(_stamp(13), here, _SNAPSHOT, 1),
        ),
        (
            "SYNC, `END`: the snapshot is complete",
            "Whom it did not name is gone.",
            messages.snapshot_end(_stamp(14), _SNAPSHOT, 1),
        ),
    ]


def document() -> str:
    """The whole page."""
    parts = [_TEXT]
    for title, explanation, message in examples():
        body = msgspec.json.format(messages.encode(message), indent=2).decode()
        parts.append(
            f"### {title}\n\n{explanation}\nRouting key `{messages.routing_key(message)}`.\n\n```json\n{body}\n```\n"
        )
    schema = json.dumps(messages.json_schema(), indent=2)
    parts.append(f"## JSON Schema\n\n```json\n{schema}\n```\n")
    return "\n".join(parts)


def _stamp(seq: int) -> Stamp:
    return Stamp(
        vcenter_uuid=_VCENTER,
        publisher="controller1.example",
        epoch=1_795_337_667_983,
        seq=seq,
        timestamp=1_795_337_668_000_000 + seq * 1_000_000,
    )


def _about(seq: int, record: ContrailVm, event: Event, old_state: State | None, coalesced: int = 0) -> Message:
    return messages.state_message(_stamp(seq), record, event=event, old_state=old_state, coalesced=coalesced)


def _broken(record: ContrailVm) -> ContrailVm:
    assert record.vm is not None
    elsewhere = Violation(name="agent_vm_on_other_host", text="the ContrailVM was moved to esx-02.dc0.example")
    vm = msgspec.structs.replace(record.vm, host="host-32")
    return msgspec.structs.replace(record, vm=vm, violations=(elsewhere,))


def _record(state: State, reason: str, last_state: State | None = None) -> ContrailVm:
    active = state is State.ACTIVE
    exists = state is not State.PENDING
    in_contact = state not in {State.UNREACHABLE, State.REMOVED}
    off = state is State.POWERED_OFF
    address = "10.84.7.21"
    vm = AgentVm(
        moref="vm-1042",
        name="ContrailVM-DC0-esx-01",
        power="poweredOff" if off else "poweredOn",
        host="host-31",
        connection="connected" if in_contact else "disconnected",
        heartbeat="green" if active else "gray",
        ip=None if off else address,
        instance_uuid="5023ad54-0a2c-41a7-1c6e-7f0f6c2b9f10",
    )
    return ContrailVm(
        key=f"host-31.{_VCENTER}",
        state=state,
        reason=reason,
        esxi=Esxi(
            moref="host-31",
            name="esx-01.dc0.example",
            compute_resource="domain-c8",
            cluster="ClusterA",
            datacenter="DC0",
            connection="connected" if in_contact else "notResponding",
            power="poweredOn" if in_contact else "unknown",
            maintenance=False,
            standby="none",
        ),
        vm=vm if exists else None,
        vrouter=VRouter(active=active, name="contrailvm-01" if exists else None, ip=address if exists else None),
        eam=Eam(
            agency="agency-1",
            agent="agent-31",
            status="green" if active else "yellow" if not exists else "red",
            goal="enabled",
            issues=(Issue(type="VmPoweredOff", description="The agent VM is powered off"),) if off else (),
        ),
        last_state=last_state,
    )


if __name__ == "__main__":
    sys.stdout.write(document())
