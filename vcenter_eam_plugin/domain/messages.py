# SPDX-License-Identifier: Apache-2.0
"""What goes on the message bus about one ContrailVM, and the JSON Schema of it.

A message carries the classical keys of Contrail's object updates first (``request-id``, ``oper``, ``type``,
``uuid``, ``fq_name``), so that existing tracers understand it, then ours. Everything a consumer needs stands in
the one message: nothing has to be asked back.

Promised: per ``key``, ``(epoch, seq)`` strictly grows from message to message; the same message delivered twice
carries the same ``id``. Not promised: that every state in between is sent (see ``coalesced``), or that a message
comes only once.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid5

import msgspec

from vcenter_eam_plugin.domain.status import AgentVm, ContrailVm, Eam, Esxi, Event, State, Violation, VRouter

VERSION = 1
"""Grows when a field changes its meaning or goes; a new field alone does not count."""

OBJECT_TYPE = "contrail_vm"
"""``type`` of every message: snake case, as the object types of Contrail's configuration messages are."""

ROUTING_KEY_LIMIT = 255
"""Bytes; a routing key is a short string of AMQP 0-9-1."""

NO_WORD = "-"
"""Stands in the routing key for a cluster or host that the message does not have."""


class Oper(StrEnum):
    """The classical operation. SYNC is ours: part of a snapshot, nothing changed."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    SYNC = "SYNC"


class Phase(StrEnum):
    """Where in a snapshot's bracket a message stands."""

    BEGIN = "BEGIN"
    ITEM = "ITEM"
    END = "END"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The bracket a SYNC message belongs to. ``count`` is the number of ITEMs, the same in all its messages."""

    id: str
    phase: Phase
    count: int


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename={"request_id": "request-id"}):
    """One message body. The order of the fields is the order on the wire.

    ``key``, ``state``, ``reason``, ``esxi``, ``vrouter`` and ``eam`` are null in the BEGIN and END of a snapshot
    alone; ``vm`` is null while no ContrailVM exists. ``fq_name`` is vCenter instanceUuid, datacenter, cluster, host.
    """

    request_id: str
    oper: Oper
    type: str
    uuid: str
    """Of the *host*, stable over every redeployment: uuid5 of the vCenter's instanceUuid and the host's moref."""
    fq_name: tuple[str, ...]
    version: int
    id: str
    """The same in every delivery of this message; unique over all messages of this vCenter."""
    event: Event
    key: str | None
    epoch: int
    """Term of the publishing leader, in about milliseconds since 1970. A lower one than the last seen is stale."""
    seq: int
    timestamp: int
    """When the change was seen, in microseconds since 1970 UTC, the unit of Contrail's analytics."""
    publisher: str
    state: State | None
    old_state: State | None
    """The state of the message before this one of the same key, null when there was none."""
    last_state: State | None
    reason: str | None
    esxi: Esxi | None
    vm: AgentVm | None
    vrouter: VRouter | None
    eam: Eam | None
    violations: tuple[Violation, ...] = ()
    """Rules of vCenter that are seen broken on this host now; empty when all is well."""
    coalesced: int = 0
    """How many older, never sent messages of this key this one stands for: the broker was away for long."""
    snapshot: Snapshot | None = None


class Stamp(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who says it, and when. ``timestamp`` in microseconds since 1970 UTC."""

    vcenter_uuid: str
    publisher: str
    epoch: int
    seq: int
    timestamp: int

    @property
    def message_id(self) -> str:
        """Derived, not random: the same place in the same history is the same message."""
        return str(uuid5(_namespace(self.vcenter_uuid), f"{self.epoch}.{self.seq}"))


@lru_cache(maxsize=64)
def _namespace(vcenter_uuid: str) -> UUID:
    return UUID(vcenter_uuid)


@lru_cache(maxsize=8192)  # more than the hosts of a vCenter; hashing it anew was a tenth of a message's cost
def message_uuid(vcenter_uuid: str, host_moref: str) -> str:
    """The stable ``uuid`` of the ContrailVM of a host. Raises ValueError when ``vcenter_uuid`` is no UUID."""
    return str(uuid5(_namespace(vcenter_uuid), host_moref))


def operation(old_state: State | None, new_state: State) -> Oper:
    """CREATE for a key nobody was told of, DELETE for one that is gone, UPDATE for the rest."""
    if new_state is State.REMOVED:
        return Oper.DELETE
    return Oper.CREATE if old_state is None else Oper.UPDATE


def state_message(
    stamp: Stamp, status: ContrailVm, *, event: Event, old_state: State | None, coalesced: int = 0
) -> Message:
    """The message that takes a consumer from ``old_state`` to ``status``."""
    oper = operation(old_state, status.state)
    return _about(stamp, status, oper, event, old_state=old_state, coalesced=coalesced)


def snapshot_begin(stamp: Stamp, snapshot_id: str, count: int) -> Message:
    """Opens the bracket: ``count`` items follow."""
    return _bracket(stamp, Snapshot(id=snapshot_id, phase=Phase.BEGIN, count=count))


def snapshot_item(stamp: Stamp, status: ContrailVm, snapshot_id: str, count: int) -> Message:
    """How one ContrailVM is; no change is meant by it."""
    snapshot = Snapshot(id=snapshot_id, phase=Phase.ITEM, count=count)
    return _about(stamp, status, Oper.SYNC, Event.SYNC, snapshot=snapshot)


def snapshot_end(stamp: Stamp, snapshot_id: str, count: int) -> Message:
    """Closes the bracket: who has all ``count`` items drops the keys of this vCenter that it did not name."""
    return _bracket(stamp, Snapshot(id=snapshot_id, phase=Phase.END, count=count))


def routing_key(message: Message) -> str:
    """``contrailvm.<event>.<cluster moref>.<host moref>``; ``contrailvm.sync.-.-`` for a bracket."""
    return routing_key_of(message.event, message.esxi)


def routing_key_of(event: Event, esxi: Esxi | None) -> str:
    """The same, before there is a message."""
    cluster, host = (esxi.compute_resource, esxi.moref) if esxi else ("", "")
    return f"contrailvm.{event}.{cluster or NO_WORD}.{host or NO_WORD}"


def source(vcenter_uuid: str) -> str:
    """CloudEvents ``source``: with ``id`` it names a message among those of all vCenters."""
    return f"urn:vcenter:{vcenter_uuid}"


def event_type(event: Event) -> str:
    """CloudEvents ``type``."""
    return f"contrailvm.{event}"


def encode(message: Message) -> bytes:
    """JSON in UTF-8. Raises TypeError, ValueError or a msgspec error for what JSON or the schema cannot hold."""
    return msgspec.json.encode(message)


def decode(body: bytes) -> Message:
    """The inverse of :func:`encode`; fields that a newer version added are ignored."""
    return msgspec.json.decode(body, type=Message)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a message body, generated from :class:`Message`."""
    schema = msgspec.json.schema(Message)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"ContrailVM message, version {VERSION}",
        **schema,
    }


def _about(
    stamp: Stamp,
    status: ContrailVm,
    oper: Oper,
    event: Event,
    *,
    old_state: State | None = None,
    coalesced: int = 0,
    snapshot: Snapshot | None = None,
) -> Message:
    message_id = stamp.message_id
    esxi = status.esxi
    return Message(
        request_id=f"req-{message_id}",
        oper=oper,
        type=OBJECT_TYPE,
        uuid=message_uuid(stamp.vcenter_uuid, esxi.moref),
        fq_name=(stamp.vcenter_uuid, esxi.datacenter, esxi.cluster, esxi.name),
        version=VERSION,
        id=message_id,
        event=event,
        key=status.key,
        epoch=stamp.epoch,
        seq=stamp.seq,
        timestamp=stamp.timestamp,
        publisher=stamp.publisher,
        state=status.state,
        old_state=old_state,
        last_state=status.last_state,
        reason=status.reason,
        esxi=esxi,
        vm=status.vm,
        vrouter=status.vrouter,
        eam=status.eam,
        violations=status.violations,
        coalesced=coalesced,
        snapshot=snapshot,
    )


def _bracket(stamp: Stamp, snapshot: Snapshot) -> Message:
    message_id = stamp.message_id
    return Message(
        request_id=f"req-{message_id}",
        oper=Oper.SYNC,
        type=OBJECT_TYPE,
        uuid=stamp.vcenter_uuid,
        fq_name=(stamp.vcenter_uuid,),
        version=VERSION,
        id=message_id,
        event=Event.SYNC,
        key=None,
        epoch=stamp.epoch,
        seq=stamp.seq,
        timestamp=stamp.timestamp,
        publisher=stamp.publisher,
        state=None,
        old_state=None,
        last_state=None,
        reason=None,
        esxi=None,
        vm=None,
        vrouter=None,
        eam=None,
        snapshot=snapshot,
    )
