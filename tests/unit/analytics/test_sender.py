# SPDX-License-Identifier: Apache-2.0
"""Sending through pysandesh, against a double that behaves as its public source says; and as JSON lines."""

from __future__ import annotations

import importlib
import json
import logging

import msgspec
import pytest

from tests.support.collector import Collector, Generator, pysandesh
from tests.unit.analytics.test_uve import EXPECTED, FULL, a_vm, esxi_place, said, vrouter_place
from vcenter_eam_plugin.analytics.definition import NAME, UVE
from vcenter_eam_plugin.analytics.sender import SandeshSender, generated_types, json_line, new_generator
from vcenter_eam_plugin.analytics.uve import Uve, Uves
from vcenter_eam_plugin.domain.errors import ConfigurationError

__all__ = ["pysandesh"]

LOG = logging.getLogger("test.sender")


def changes() -> list[Uve]:
    """A ContrailVM that moves from its host's key to its vRouter's, is full of facts, and another that goes."""
    uves = Uves()
    return [
        *uves.apply(said(1, a_vm(1))),
        *uves.apply(said(2, a_vm(1, vrouter="vr1"))),
        *uves.apply(said(3, FULL)),
        *uves.apply(said(4, a_vm(2))),
        *uves.drop([a_vm(2).key]),
    ]


@pytest.mark.usefixtures("pysandesh")
def test_every_field_arrives_under_table_and_key() -> None:
    """The generated class knows the fields of the .sandesh file and no others: the two fit."""
    host = Generator()
    send = SandeshSender(host, generated_types(), LOG)
    for change in changes():
        send(change)
    assert host.collector.keys() == {("ObjectVRouter", "vr1"), ("ObjectVRouter", "vr-31")}
    held = host.collector.tables["ObjectVRouter"]["vr-31"]
    assert held == {name: list(value) if isinstance(value, tuple) else value for name, value in EXPECTED.items()} | {
        "old_state": "PENDING",
        "seq": 3,
        "timestamp": 1_000_003,
    }


@pytest.mark.usefixtures("pysandesh")
def test_a_host_that_never_heard_of_us_is_taught_our_uve_once() -> None:
    """It named its packages to init_generator long before it loaded plugins; send() refuses what is not registered."""
    host = Generator()
    types = importlib.import_module(f"{NAME}.ttypes")
    assert host._uve_type_maps.get_uve_type_map(UVE) is None
    SandeshSender(host, types, LOG)
    SandeshSender(host, types, LOG)
    assert host._uve_type_maps.get_uve_type_map(UVE) is not None


@pytest.mark.usefixtures("pysandesh")
def test_a_generator_of_our_own_has_no_introspect_and_knows_our_package() -> None:
    own = new_generator(["10.0.0.1:8086"], "controller1")
    assert own.initiated[:5] == ("contrail-vcenter-eam-plugin", "controller1", "Config", "0", ["10.0.0.1:8086"])
    assert own.initiated[6:] == (-1, [NAME])
    send = SandeshSender(own, generated_types(), LOG)
    for change in changes()[:1]:
        send(change)
    assert own.collector.keys() == {(esxi_place(1).table, esxi_place(1).key)}


@pytest.mark.usefixtures("pysandesh")
def test_a_generator_that_takes_nothing_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    host = Generator()
    send = SandeshSender(host, generated_types(), LOG)
    first, *others = changes()
    host.disabled = True
    send(first)
    send(first)
    host.disabled = False
    send(first)
    assert others
    assert [record.getMessage() for record in caplog.records] == [
        "The sandesh generator does not take UVEs; its own log says why.",
        "The sandesh generator takes UVEs again.",
    ]


@pytest.mark.usefixtures("pysandesh")
def test_what_is_no_generator_is_said_in_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=f"cannot be taught {UVE}.*Name the package {NAME} in its init_gen"):
        SandeshSender(object(), generated_types(), LOG)


def test_without_pysandesh_one_sentence_says_what_lacks_and_what_to_do() -> None:
    """It is not installed here, and cannot be: this is the real import."""
    with pytest.raises(ConfigurationError, match=r"pysandesh, the library .* cannot be imported .*--json prints"):
        generated_types()
    with pytest.raises(ConfigurationError, match="pysandesh"):
        new_generator(["127.0.0.1:8086"], "here")


def test_without_the_generated_package_another_sentence_names_it(
    pysandesh: type[Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(importlib.import_module("sys").modules, f"{NAME}.ttypes")
    monkeypatch.delitem(importlib.import_module("sys").modules, NAME)
    with pytest.raises(ConfigurationError, match=rf"package {NAME} is not there.*{NAME}\.sandesh"):
        generated_types()


def test_json_lines_carry_the_same() -> None:
    collector = Collector()
    lines = [json_line(change) for change in changes()]
    assert all("\n" not in line for line in lines)
    for change in changes():
        collector(change)
    assert collector.keys() == {("ObjectVRouter", "vr1"), ("ObjectVRouter", "vr-31")}
    moved = [json.loads(line) for line in lines[1:3]]
    assert [(each["table"], each["key"], each["deleted"]) for each in moved] == [
        (esxi_place(1).table, esxi_place(1).key, True),
        (vrouter_place("vr1").table, "vr1", False),
    ]
    assert moved[0]["data"] is None
    assert moved[1]["struct"] == "ContrailVMStatus"
    assert list(moved[1]["data"]) == list(msgspec.to_builtins(EXPECTED))
