# SPDX-License-Identifier: Apache-2.0
"""The body on the bus: its keys, its identity, its schema and its page."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID, uuid5

import jsonschema
import pytest

from tests.support.contrailvm import VCENTER, contrail_vm
from vcenter_eam_plugin.bus import document
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.messages import Message, Oper, Stamp
from vcenter_eam_plugin.domain.status import Event, State
from vcenter_eam_plugin.domain.violations import RULES

STAMP = Stamp(vcenter_uuid=VCENTER, publisher="p", epoch=7, seq=42, timestamp=1_700_000_000_000_000)
PAGE = Path(__file__).parents[3] / "docs" / "messages.md"


def test_the_classical_keys_come_first() -> None:
    """Existing tracers read request-id, oper, type, uuid and fq_name; what they must not miss stands first."""
    message = messages.state_message(STAMP, contrail_vm(1), event=Event.STATE, old_state=None)
    body = json.loads(messages.encode(message))
    ours = (
        "version id event key epoch seq timestamp publisher state old_state last_state reason esxi vm vrouter eam"
        " violations coalesced snapshot"
    )
    assert list(body) == ["request-id", "oper", "type", "uuid", "fq_name", *ours.split()]
    assert body["type"] == "contrail_vm"
    assert body["request-id"] == "req-" + body["id"]
    assert body["fq_name"] == [VCENTER, "DC0", "ClusterA", "esx-1.dc0.example"]
    assert messages.decode(messages.encode(message)) == message


def test_the_uuid_is_of_the_host_and_outlives_the_vm() -> None:
    message = messages.state_message(STAMP, contrail_vm(1), event=Event.STATE, old_state=None)
    assert message.uuid == str(uuid5(UUID(VCENTER), "host-1")) == messages.message_uuid(VCENTER, "host-1")


def test_the_id_follows_from_the_place_in_history() -> None:
    assert STAMP.message_id == STAMP.message_id
    later = Stamp(vcenter_uuid=VCENTER, publisher="p", epoch=8, seq=42, timestamp=0)
    assert later.message_id != STAMP.message_id


@pytest.mark.parametrize(
    ("old_state", "state", "oper"),
    [
        (None, State.ACTIVE, Oper.CREATE),
        (State.PENDING, State.ACTIVE, Oper.UPDATE),
        (State.ACTIVE, State.REMOVED, Oper.DELETE),
        (None, State.REMOVED, Oper.DELETE),
    ],
)
def test_operation(old_state: State | None, state: State, oper: Oper) -> None:
    assert messages.operation(old_state, state) is oper


def test_a_routing_key_always_has_four_words() -> None:
    message = messages.state_message(STAMP, contrail_vm(1), event=Event.DETAIL, old_state=State.ACTIVE)
    assert messages.routing_key(message) == "contrailvm.detail.domain-c7.host-1"
    assert messages.routing_key(messages.snapshot_end(STAMP, "s", 0)) == "contrailvm.sync.-.-"


@pytest.mark.parametrize("message", [pytest.param(message, id=title) for title, _, message in document.examples()])
def test_every_example_obeys_the_schema(message: Message) -> None:
    """The schema is that of the bytes on the bus, not of some other picture of them."""
    jsonschema.Draft202012Validator(messages.json_schema()).validate(json.loads(messages.encode(message)))


def test_the_schema_refuses_what_is_no_message() -> None:
    body = json.loads(messages.encode(messages.snapshot_begin(STAMP, "s", 3)))
    validator = jsonschema.Draft202012Validator(messages.json_schema())
    assert validator.is_valid(body)
    assert not validator.is_valid({**body, "oper": "RENAME"})
    assert not validator.is_valid({name: value for name, value in body.items() if name != "epoch"})


def test_there_is_an_example_of_every_operation_and_event() -> None:
    shown = [message for *_, message in document.examples()]
    assert {message.oper for message in shown} == set(Oper)
    assert {message.event for message in shown} == set(Event)


def test_every_part_of_a_message_is_shown_filled_in_some_example() -> None:
    shown = [json.loads(messages.encode(message)) for *_, message in document.examples()]
    assert [name for name in messages.Message.__struct_encode_fields__ if not any(body[name] for body in shown)] == []
    names = {rule for rule, _ in RULES}
    assert {each["name"] for body in shown for each in body["violations"]} <= names


def test_the_page_is_current() -> None:
    """docs/messages.md is what the code generates: python -m vcenter_eam_plugin.bus.document > docs/messages.md"""
    assert PAGE.read_text("utf-8") == document.document()
