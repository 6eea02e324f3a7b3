# SPDX-License-Identifier: Apache-2.0
"""From messages to UVEs: every field, every table and key, and no key that nobody has any more."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.collector import Collector
from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from vcenter_eam_plugin.analytics.uve import NOT_YET, Place, Uves, status_of
from vcenter_eam_plugin.bus import document
from vcenter_eam_plugin.bus.view import View
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.messages import Message, Stamp
from vcenter_eam_plugin.domain.status import (
    AgentVm,
    ContrailVm,
    Eam,
    Esxi,
    Event,
    Issue,
    State,
    Violation,
    VRouter,
)

OTHER_VCENTER = "00000000-0000-4000-8000-000000000000"


def stamp(seq: int, vcenter: str = VCENTER) -> Stamp:
    return Stamp(vcenter_uuid=vcenter, publisher="controller1", epoch=7, seq=seq, timestamp=1_000_000 + seq)


def received(message: Message) -> dict[str, Any]:
    """As it comes off the bus."""
    body: dict[str, Any] = json.loads(messages.encode(message))
    return body


def a_vm(host: int, state: State = State.ACTIVE, vrouter: str | None = None, esxi: str | None = None) -> ContrailVm:
    record = contrail_vm(host, state)
    return msgspec.structs.replace(
        record,
        esxi=msgspec.structs.replace(record.esxi, name=record.esxi.name if esxi is None else esxi),
        vrouter=VRouter(active=state is State.ACTIVE, name=vrouter, ip=None),
    )


def said(seq: int, record: ContrailVm, vcenter: str = VCENTER) -> dict[str, Any]:
    return received(messages.state_message(stamp(seq, vcenter), record, event=Event.STATE, old_state=State.PENDING))


def esxi_place(host: int) -> Place:
    return Place("ObjectServerTable", f"esx-{host}.dc0.example")


def vrouter_place(name: str) -> Place:
    return Place("ObjectVRouter", name)


# --- the fields ----------------------------------------------------------------------------------------------------

FULL = ContrailVm(
    key=key_of(31),
    state=State.UNREACHABLE,
    reason="host is not responding",
    last_state=State.FAULTY,
    esxi=Esxi(
        moref="host-31",
        name="esx-31",
        compute_resource="domain-c8",
        cluster="ClusterA",
        datacenter="DC0",
        connection="notResponding",
        power="unknown",
        maintenance=True,
        standby="entering",
        task="enterMaintenance",
    ),
    vm=AgentVm(
        moref="vm-9",
        name="ContrailVM-9",
        power="poweredOn",
        host="host-32",
        connection="disconnected",
        heartbeat="red",
        ip="10.0.0.9",
        instance_uuid="5023ad54-0a2c-41a7-1c6e-7f0f6c2b9f10",
    ),
    vrouter=VRouter(active=False, name="vr-31", ip="10.0.0.31"),
    eam=Eam(
        agency="agency-1",
        agent="agent-31",
        status="red",
        goal="enabled",
        hook="postPowerOn",
        issues=(Issue(type="VmPoweredOff", description="off"), Issue(type="VmNotDeployed")),
    ),
    violations=(Violation(name="moved", text="it runs on another host"),),
)

EXPECTED = {
    "state": "UNREACHABLE",
    "old_state": "PENDING",
    "last_state": "FAULTY",
    "reason": "host is not responding",
    "vrouter_active": False,
    "vrouter_name": "vr-31",
    "vrouter_ip": "10.0.0.31",
    "contrail_vm_key": key_of(31),
    "uuid": messages.message_uuid(VCENTER, "host-31"),
    "vcenter_uuid": VCENTER,
    "datacenter": "DC0",
    "cluster": "ClusterA",
    "cluster_moref": "domain-c8",
    "esxi_name": "esx-31",
    "esxi_moref": "host-31",
    "esxi_connection": "notResponding",
    "esxi_power": "unknown",
    "esxi_maintenance": True,
    "esxi_standby": "entering",
    "esxi_task": "enterMaintenance",
    "vm_name": "ContrailVM-9",
    "vm_moref": "vm-9",
    "vm_instance_uuid": "5023ad54-0a2c-41a7-1c6e-7f0f6c2b9f10",
    "vm_power": "poweredOn",
    "vm_host_moref": "host-32",
    "vm_connection": "disconnected",
    "vm_heartbeat": "red",
    "vm_ip": "10.0.0.9",
    "eam_agency": "agency-1",
    "eam_agent": "agent-31",
    "eam_status": "red",
    "eam_goal": "enabled",
    "eam_hook": "postPowerOn",
    "issue_count": 2,
    "issues": ({"type": "VmPoweredOff", "description": "off"}, {"type": "VmNotDeployed", "description": ""}),
    "violation_count": 1,
    "violations": ({"name": "moved", "text": "it runs on another host"},),
    "event": "state",
    "timestamp": 1_000_042,
    "epoch": 7,
    "seq": 42,
    "publisher": "controller1",
}


@pytest.mark.parametrize("field", EXPECTED)
def test_each_field_comes_from_its_place_in_the_message(field: str) -> None:
    assert msgspec.to_builtins(status_of(said(42, FULL)))[field] == EXPECTED[field]


def test_there_is_no_field_without_a_test() -> None:
    assert list(msgspec.to_builtins(status_of(said(42, FULL)))) == list(EXPECTED)


def test_what_is_not_known_is_empty_and_never_left_out() -> None:
    """Analytics keeps the earlier value of a field that is not set: an issue that is over would stay for ever."""
    bare = msgspec.structs.replace(
        FULL, vm=None, last_state=None, vrouter=VRouter(active=True), eam=Eam(), violations=()
    )
    bare = msgspec.structs.replace(bare, esxi=msgspec.structs.replace(bare.esxi, task=None))
    collector, uves = Collector(), Uves()
    for change in [*uves.apply(said(1, FULL)), *uves.apply(said(2, bare))]:
        collector(change)
    ((_, key),) = collector.keys()
    held = collector.tables["ObjectVRouter"][key]
    assert held["vrouter_active"] is True
    assert (held["issue_count"], held["issues"], held["violation_count"], held["violations"]) == (0, [], 0, [])
    cleared = [
        name for name in EXPECTED if name.startswith(("vm_", "eam_", "vrouter_n", "vrouter_i", "last_", "esxi_t"))
    ]
    assert {held[name] for name in cleared} == {""}


@pytest.mark.parametrize("message", [pytest.param(message, id=title) for title, _, message in document.examples()])
def test_every_example_of_the_page_can_be_told(message: Message) -> None:
    changes = Uves().apply(received(message))
    assert bool(changes) == (message.key is not None and message.oper != "DELETE")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": None},
        {"esxi": None},
        {"esxi": {}},
        {"vrouter": {"active": "yes"}},
        {"timestamp": "now"},
        {"violations": [{}]},
        {"eam": {"issues": [3]}},
        {"fq_name": []},
    ],
)
def test_what_is_no_message_of_ours_is_an_error_and_changes_nothing(change: dict[str, Any]) -> None:
    uves = Uves()
    with pytest.raises(ValueError, match=r".+"):
        uves.apply(said(1, a_vm(1)) | change)
    assert uves.live == {}


# --- tables and keys -------------------------------------------------------------------------------------------------


def test_a_contrailvm_whose_vrouter_is_not_known_is_at_its_esxi_host() -> None:
    uves = Uves()
    (change,) = uves.apply(said(1, a_vm(1)))
    assert (change.place, change.deleted) == (esxi_place(1), False)


def test_when_the_vrouter_becomes_known_the_old_key_is_deleted_and_the_new_one_set() -> None:
    """No ghost: Contrail would alarm for a key that nobody has any more."""
    uves = Uves()
    uves.apply(said(1, a_vm(1)))
    changes = uves.apply(said(2, a_vm(1, vrouter="vr1")))
    assert [(change.place, change.deleted) for change in changes] == [
        (esxi_place(1), True),
        (vrouter_place("vr1"), False),
    ]
    assert set(uves.live) == {vrouter_place("vr1")}


@pytest.mark.parametrize("state", sorted(NOT_YET))
def test_a_vrouter_is_not_told_of_before_it_was_in_service(state: State) -> None:
    """The guest has a name long before its virtual-router exists: conf-incorrect and node-status would be raised."""
    uves = Uves()
    uves.apply(said(1, a_vm(1, state, vrouter="vr1")))
    assert set(uves.live) == {esxi_place(1)}
    uves.apply(said(2, a_vm(1, State.ACTIVE, vrouter="vr1")))
    uves.apply(said(3, a_vm(1, state, vrouter="vr1")))
    assert set(uves.live) == {vrouter_place("vr1")}


@pytest.mark.parametrize("name", ["", "localhost", "localhost.localdomain", "LocalHost", "10.0.0.1", "fe80::1"])
def test_a_name_that_every_guest_has_at_first_is_no_vrouter(name: str) -> None:
    uves = Uves()
    uves.apply(said(1, a_vm(1, vrouter=name)))
    assert set(uves.live) == {esxi_place(1)}


@pytest.mark.parametrize("state", [State.MAINTENANCE, State.POWERED_OFF, State.MISSING, State.STARTING])
def test_while_it_is_off_a_contrailvm_stays_with_its_vrouter(state: State) -> None:
    """S10: a guest that is off tells no name, and it is then that the vRouter's page must say why it is down."""
    uves = Uves()
    uves.apply(said(1, a_vm(1, vrouter="vr1")))
    uves.apply(said(2, a_vm(1, state, vrouter=None)))
    assert {place: status.state for place, status in uves.live.items()} == {vrouter_place("vr1"): state}


def test_another_name_moves_it() -> None:
    uves = Uves()
    uves.apply(said(1, a_vm(1, vrouter="old")))
    uves.apply(said(2, a_vm(1, vrouter="new")))
    assert set(uves.live) == {vrouter_place("new")}


def test_a_vrouters_name_that_two_have_is_neither_ones() -> None:
    """A template's host name, in every ContrailVM until it gets its own."""
    uves = Uves()
    uves.apply(said(1, a_vm(1, vrouter="template")))
    changes = uves.apply(said(2, a_vm(2, vrouter="template")))
    assert changes[0].place == vrouter_place("template")
    assert changes[0].deleted
    assert set(uves.live) == {esxi_place(1), esxi_place(2)}
    uves.apply(said(3, a_vm(2, vrouter="vr2")))
    assert set(uves.live) == {vrouter_place("template"), vrouter_place("vr2")}


def test_an_esxi_name_that_two_have_gives_each_its_own_key() -> None:
    """Hosts called localhost in two vCenters, say."""
    uves = Uves()
    uves.apply(said(1, a_vm(1, esxi="localhost")))
    uves.apply(said(2, a_vm(2, esxi="localhost")))
    assert set(uves.live) == {Place("ObjectServerTable", key_of(1)), Place("ObjectServerTable", key_of(2))}
    uves.drop([key_of(1)])
    assert set(uves.live) == {Place("ObjectServerTable", "localhost")}


def test_delete_deletes() -> None:
    uves = Uves()
    uves.apply(said(1, a_vm(1, vrouter="vr1")))
    (change,) = uves.apply(said(2, a_vm(1, State.REMOVED, vrouter="vr1")))
    assert (change.place, change.deleted) == (vrouter_place("vr1"), True)
    assert uves.live == {}
    assert uves.apply(said(3, a_vm(1, State.REMOVED))) == []


def test_a_snapshot_that_repeats_what_is_known_sends_nothing() -> None:
    """Hourly, over thousands of ContrailVMs; and it would wipe what the last change was."""
    uves = Uves()
    uves.apply(said(1, a_vm(1)))
    item = messages.snapshot_item(stamp(9), a_vm(1), "s", 1)
    assert uves.apply(received(item)) == []
    assert uves.live[esxi_place(1)].seq == 1
    assert len(uves.apply(received(messages.snapshot_item(stamp(10), a_vm(1, State.FAULTY), "s", 1)))) == 1


def test_only_the_vcenters_that_are_led_are_told_of() -> None:
    uves = Uves()
    uves.apply(said(1, a_vm(1, vrouter="vr1")))
    there = msgspec.structs.replace(a_vm(2), key=f"host-2.{OTHER_VCENTER}")
    uves.apply(said(1, there, OTHER_VCENTER))
    assert [change.place for change in uves.allow([OTHER_VCENTER])] == [vrouter_place("vr1")]
    assert set(uves.live) == {esxi_place(2)}
    assert uves.apply(said(2, a_vm(1, State.FAULTY, vrouter="vr1"))) == []
    assert [(change.place, change.deleted) for change in uves.allow(None)] == [(vrouter_place("vr1"), False)]
    assert uves.live[vrouter_place("vr1")].state == "FAULTY"


def test_what_was_remembered_keeps_its_vrouter() -> None:
    uves = Uves()
    uves.restore(said(5, a_vm(1, State.MAINTENANCE)), "vr1")
    assert set(uves.live) == {vrouter_place("vr1")}


# --- no ghosts, whatever comes ----------------------------------------------------------------------------------------

RECORDS = st.builds(
    a_vm,
    st.integers(1, 4),
    st.sampled_from([State.ACTIVE, State.PENDING, State.MAINTENANCE, State.REMOVED]),
    st.sampled_from([None, "vr1", "vr2", "localhost"]),
    st.sampled_from([None, "esx-same", ""]),
)
STEPS = st.lists(
    st.one_of(RECORDS, st.lists(RECORDS, max_size=4), st.sampled_from([(), (VCENTER,), (OTHER_VCENTER,), None])),
    max_size=25,
)


def stream(records: list[ContrailVm], seq: int) -> list[dict[str, Any]]:
    """A whole snapshot of these (the last of each host), from position ``seq`` on."""
    there = {record.key: record for record in records if record.state is not State.REMOVED}
    count = len(there)
    return [
        received(messages.snapshot_begin(stamp(seq), f"s{seq}", count)),
        *(
            received(messages.snapshot_item(stamp(seq + n), r, f"s{seq}", count))
            for n, r in enumerate(there.values(), 1)
        ),
        received(messages.snapshot_end(stamp(seq + count + 1), f"s{seq}", count)),
    ]


@given(steps=STEPS, late=st.data())
@settings(max_examples=300)
def test_for_any_stream_the_live_keys_are_those_of_the_view(steps: list[Any], late: st.DataObject) -> None:
    """One UVE for each ContrailVM in the view, with what the view says, and none besides; duplicates, late messages,
    snapshots and a lead that comes and goes included."""
    view, uves, collector = View(), Uves(), Collector()
    sent: list[dict[str, Any]] = []
    allowed: tuple[str, ...] | None = None

    def take(message: dict[str, Any]) -> None:
        applied = view.apply(message)
        if applied.fresh:
            for change in [*uves.apply(message), *uves.drop(applied.dropped)]:
                collector(change)

    seq = 0
    for step in steps:
        if step is None or isinstance(step, tuple):
            allowed = step
            for change in uves.allow(step):
                collector(change)
            continue
        seq += 10
        sent += stream(step, seq) if isinstance(step, list) else [said(seq, step)]
        for message in (
            sent[-6:] if late.draw(st.booleans()) else sent[-(len(step) + 2 if isinstance(step, list) else 1) :]
        ):
            take(message)
        there = {} if allowed == () or allowed == (OTHER_VCENTER,) else view.states
        assert collector.keys() == {(place.table, place.key) for place in uves.live}
        held = [fields for table in collector.tables.values() for fields in table.values()]
        assert sorted(fields["contrail_vm_key"] for fields in held) == sorted(there)
        for fields in held:
            message = view.states[fields["contrail_vm_key"]]
            assert (fields["state"], fields["esxi_name"]) == (message["state"], message["esxi"]["name"])


@given(records=st.lists(RECORDS, max_size=8, unique_by=lambda record: record.key), data=st.data())
def test_where_each_is_depends_on_who_is_there_and_not_on_the_order(
    records: list[ContrailVm], data: st.DataObject
) -> None:
    one, other = Uves(), Uves()
    for record in records:
        one.apply(said(1, record))
    for record in data.draw(st.permutations(records)):
        other.apply(said(1, record))
    assert set(one.live) == set(other.live)
