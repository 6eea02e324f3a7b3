# SPDX-License-Identifier: Apache-2.0
"""The simulator's SOAP: requests of any client are read, answers are what clients of typed languages need."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from pyVmomi import SoapAdapter, eam, vim, vmodl

from tests.support.simulator_calls import EAM_VERSION, PC, Bench, hosts_of
from vcenter_eam_plugin.simulator.dispatch import cookie_of, method_of
from vcenter_eam_plugin.simulator.wire import BadRequest, Encoder, Versions, decode

VERSION = "vim.version.v8_0_3_0"
ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">'
    "<s:Header><operationID>7</operationID></s:Header><s:Body>{}</s:Body></s:Envelope>"
)


def read(body: str) -> Any:
    return decode(ENVELOPE.format(body).encode(), VERSION)


def test_parameters_arrays_and_references_are_decoded() -> None:
    request = read(
        '<CreateContainerView xmlns="urn:vim25"><_this type="ViewManager">ViewManager</_this>'
        '<container type="Folder">group-d1</container><type>HostSystem</type><type>VirtualMachine</type>'
        "<recursive>true</recursive></CreateContainerView>"
    )
    assert (request.namespace, request.method, request.type, request.moid) == (
        "urn:vim25",
        "CreateContainerView",
        "ViewManager",
        "ViewManager",
    )
    assert request.arguments["container"]._moId == "group-d1"
    assert list(request.arguments["type"]) == [vim.HostSystem, vim.VirtualMachine]
    assert request.arguments["recursive"] is True


def test_prefixed_namespaces_and_subclasses_are_decoded() -> None:
    request = read(
        '<v:CreateFilter xmlns:v="urn:vim25"><v:_this type="PropertyCollector">propertyCollector</v:_this><v:spec>'
        "<v:propSet><v:type>HostSystem</v:type><v:pathSet>name</v:pathSet></v:propSet><v:objectSet>"
        '<v:obj type="Folder">group-d1</v:obj><v:selectSet xsi:type="v:TraversalSpec"><v:name>a</v:name>'
        "<v:type>Folder</v:type><v:path>childEntity</v:path><v:selectSet><v:name>a</v:name></v:selectSet>"
        "</v:selectSet></v:objectSet></v:spec><v:partialUpdates>0</v:partialUpdates></v:CreateFilter>"
    )
    [select] = request.arguments["spec"].objectSet[0].selectSet
    assert isinstance(select, PC.TraversalSpec)
    assert (select.path, select.selectSet[0].name) == ("childEntity", "a")
    assert request.arguments["partialUpdates"] is False


def test_optional_parameters_that_were_not_sent_are_not_there() -> None:
    request = read('<Login xmlns="urn:vim25"><_this type="SessionManager">SessionManager</_this></Login>')
    assert request.arguments == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"<a/>",
        ENVELOPE.format("").encode(),
        ENVELOPE.format('<Login xmlns="urn:vim25"><userName>x</userName></Login>').encode(),
        ENVELOPE.format('<Login xmlns="urn:vim25"><_this type="SessionManager">S</_this><bad/></Login>').encode(),
        ENVELOPE.format('<Login xmlns="urn:vim25"><_this>S</_this></Login>').encode(),
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(body, VERSION)


@given(st.text())
def test_any_text_survives_or_is_replaced_but_never_breaks_the_answer(text: str) -> None:
    xml = Encoder(VERSION, "urn:vim25").value("val", text.encode("utf-8", "replace").decode())
    etree.fromstring(f'<r xmlns:xsi="urn:x" xmlns:xsd="urn:y">{xml}</r>')


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a<b", '<val xsi:type="xsd:string">a&lt;b</val>'),
        (True, '<val xsi:type="xsd:boolean">true</val>'),
        (7, '<val xsi:type="xsd:int">7</val>'),
        (vim.HostSystem("host-1"), '<val xsi:type="ManagedObjectReference" type="HostSystem">host-1</val>'),
        (vim.HostSystem.PowerState.poweredOn, '<val xsi:type="HostSystemPowerState">poweredOn</val>'),
    ],
)
def test_scalars_carry_the_type_that_typed_clients_need(value: Any, expected: str) -> None:
    assert Encoder(VERSION, "urn:vim25").value("val", value) == expected


def test_arrays_of_references_and_times() -> None:
    encoder = Encoder(VERSION, "urn:vim25")
    array = encoder.value("val", vim.HostSystem.Array([vim.HostSystem("host-1")]))
    assert array == (
        '<val xsi:type="ArrayOfManagedObjectReference">'
        '<ManagedObjectReference type="HostSystem">host-1</ManagedObjectReference></val>'
    )
    inside = encoder.value("val", vmodl.KeyAnyValue(key="a", value=vim.HostSystem("host-1")))
    assert '<value xsi:type="ManagedObjectReference" type="HostSystem">host-1</value>' in inside
    moment = encoder.value("val", dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC))
    assert 'xsi:type="xsd:dateTime"' in moment
    assert "2026-01-02T03:04:05Z" in moment


def test_long_properties_are_sent_as_long(bench: Bench) -> None:
    """A Go client refuses an xsd:int where the schema says xsd:long."""
    spec = hosts_of(bench.content.rootFolder, "summary.hardware.memorySize")
    bench.content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())
    assert b'xsi:type="xsd:long"' in bench.stub.last_response


def test_fields_newer_than_the_client_are_left_out() -> None:
    runtime = eam.Agent.RuntimeInfo(
        status="green",
        goalState="enabled",
        entity=eam.Agent("Agent:1"),
        vmPowerState=vim.VirtualMachine.PowerState.poweredOn,
        receivingHeartBeat=True,
        vmName="x",
        vmHook=eam.Agent.VmHook(vm=vim.VirtualMachine("vm-1"), vmState="provisioned"),
    )
    assert "<vmHook>" in Encoder(EAM_VERSION, "urn:eam").value("returnval", runtime)
    assert "<vmHook>" not in Encoder("eam.version.version1", "urn:eam").value("returnval", runtime)


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        (vim.fault.InvalidLogin(msg="no <way>"), b"InvalidLoginFault"),
        (vmodl.query.InvalidProperty(name="x", msg="bad"), b"<name>x</name>"),
        (vim.fault.NotAuthenticated(object=vim.Folder("g"), privilegeId="System.View"), b"privilegeId"),
        (eam.fault.InvalidLogin(msg="who"), b'<EamInvalidLoginFault xmlns="urn:eam" xsi:type="EamInvalidLogin"'),
    ],
)
def test_faults_arrive_as_the_class_that_was_raised(fault: Any, detail: bytes) -> None:
    encoder = Encoder(EAM_VERSION if isinstance(fault, eam.fault.InvalidLogin) else VERSION, "urn:vim25")
    body = encoder.fault(fault)
    assert detail in body
    back = SoapAdapter.SoapResponseDeserializer(None).Deserialize(body, object)
    assert type(back) is type(fault)
    assert back.msg == (fault.msg or "NotAuthenticated")


def test_versions_are_negotiated_downwards_and_refused_when_strict() -> None:
    versions = Versions("vim25", "8.0.2.0")
    assert versions.resolve('"urn:vim25/8.0.1.0"') == "vim.version.v8_0_1_0"
    assert versions.resolve('"urn:vim25/9.1.0.0"') == versions.newest == "vim.version.v8_0_2_0"
    assert versions.resolve('"urn:vim25/6.5"') == "vim.version.version11"
    assert versions.resolve("urn:vim25") == versions.newest
    assert versions.published()[0] == "8.0.2.0"
    with pytest.raises(BadRequest, match="Unsupported version URI"):
        versions.resolve("urn:vim25/9.1.0.0", strict=True)
    assert Versions("eam", "2.5").newest == "eam.version.version2_5"
    assert Versions("eam", "9.0").newest == "eam.version.version9_0"


def test_a_server_may_refuse_clients_that_are_newer(bench: Bench) -> None:
    bench.simulator.knobs.change({"api_version": "7.0.3.0"})
    bench.instance.CurrentTime()
    bench.simulator.faults.inject("refuse_newer")
    with pytest.raises(vmodl.RuntimeFault, match="Unsupported version URI"):
        bench.instance.CurrentTime()


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ('vmware_soap_session="abc"; Path=/; HttpOnly; Secure;', "abc"),
        ("vmware_soap_session=abc", "abc"),
        ("other=1; vmware_soap_session=abc; more=2", "abc"),
        ("JSESSIONID=abc", None),
        (None, None),
    ],
)
def test_the_cookie_is_found_whatever_the_client_sends_back_with_it(header: str | None, value: str | None) -> None:
    assert cookie_of(header) == value


def test_the_operation_is_known_before_decoding() -> None:
    assert method_of(ENVELOPE.format('\n <Login xmlns="urn:vim25"/>').encode()) == "Login"
    assert method_of(b"") == ""


# Dispatch ------------------------------------------------------------------------------------------------------


def test_errors_of_the_caller_are_named(bench: Bench) -> None:
    gone = vim.HostSystem("host-4711", bench.stub)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        gone.EnterMaintenanceMode_Task(0)
    with pytest.raises(vmodl.fault.NotSupported, match="not simulated"):
        bench.remote(bench.hosts[0]).QueryMemoryOverhead(1, 1, 1)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        vim.Folder("EsxAgentManager", bench.stub).CreateFolder("x")  # EAM's object at vCenter's endpoint


def test_required_parameters_are_demanded(bench: Bench) -> None:
    body = ENVELOPE.format(
        '<FindByUuid xmlns="urn:vim25"><_this type="SearchIndex">SearchIndex</_this></FindByUuid>'
    ).encode()
    reply = bench.simulator.dispatcher.answer("/sdk", body, "urn:vim25/8.0.3.0", bench.cookie, "", "", {})
    assert reply.status == 500
    assert re.search(rb"<faultstring>Required parameter \w+ is missing", reply.body)


def test_a_failure_of_the_simulator_itself_is_a_system_error_and_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(type(bench.simulator.service_instance), "get", broken)
    with pytest.raises(vmodl.fault.SystemError):
        bench.instance._stub.InvokeAccessor(bench.instance, vim.ServiceInstance._GetPropertyInfo("serverClock"))
    assert [type(error) for error in bench.simulator.errors] == [ZeroDivisionError]
    bench.simulator.errors.clear()
