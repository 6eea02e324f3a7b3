# SPDX-License-Identifier: Apache-2.0
"""The narrow decoder gives what pyVmomi gives, or nothing: whatever is sent, in whatever pieces."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyVmomi import eam, vim, vmodl
from pyVmomi.VmomiSupport import F_OPTIONAL, Enum, GetVmodlType, ManagedObject, versionMap

from tests.fuzz.generate import damaged
from tests.fuzz.hostile import Damage, breaking, tearing
from tests.support.decoded import Both, differences
from vcenter_eam_plugin.simulator.wire import Encoder, Request
from vcenter_eam_plugin.vsphere.narrow import Unknown

PC = vmodl.query.PropertyCollector
VIM, EAM = versionMap["vim25/8.0.2.0"], "eam.version.version8_2"
UPDATES = Both(PC, "WaitForUpdatesEx", VIM)
CONTENTS = Both(PC, "RetrievePropertiesEx", VIM)
MORE_CONTENTS = Both(PC, "ContinueRetrievePropertiesEx", VIM)
AGENT = Both(eam.Agent, "AgentQueryRuntime", EAM)
AGENCY = Both(eam.Agency, "AgencyQueryRuntime", EAM)
AGENTS = Both(eam.Agency, "QueryAgent", EAM)


def written(both: Both, result: Any) -> bytes:
    """The answer, as the simulator writes it."""
    encoder = Encoder(both.stub.version, both.namespace)
    return encoder.response(Request(both.namespace, both.info.wsdlName, "", "", info=both.info), result)


# --- what is generated -------------------------------------------------------------------------------------

words = st.sampled_from(
    ("", " ", "esx-1", "a & b <c>", "é\U0001f4a9", "x" * 9000, "true", "urn:vim25 val", "]]>", "\n")
)
texts = words | st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")), max_size=12)
names = st.sampled_from(("name", "parent", "recentTask", "runtime.connectionState", 'config.x["4"].y')) | texts
morefs = st.text("abcdefgh-0123456789 []é", max_size=9)  # pyVmomi's writer does not escape them
KINDS = (vim.HostSystem, vim.ClusterComputeResource, vim.Datastore, vim.Network, vim.VirtualMachine, vim.Task)
references = st.builds(lambda kind, moid: kind(moid), st.sampled_from(KINDS), morefs)
dates = st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2100, 1, 1), timezones=st.just(datetime.UTC))


def made(kind: Any, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Data objects of this type with what the schema requires, and some of these fields."""
    required = {
        info.name: by_type(info.type)
        for info in kind._GetPropertyList()
        if not (info.flags & F_OPTIONAL or info.name in optional)
    }
    needed = {info.name for info in kind._GetPropertyList() if not info.flags & F_OPTIONAL}
    required |= {name: some for name, some in optional.items() if name in needed}
    left = {name: some for name, some in optional.items() if name not in needed}
    return st.fixed_dictionaries(required, optional=left).map(lambda given: kind(**given))


def by_type(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of this type."""
    if issubclass(kind, ManagedObject):
        return morefs.map(kind)
    if issubclass(kind, Enum):
        return st.sampled_from([getattr(kind, name) for name in kind.values])
    return {str: texts, bool: st.booleans(), int: st.integers(0, 2**31 - 1), datetime.datetime: dates}[kind]


event_fields: dict[str, st.SearchStrategy[Any]] = {
    "key": st.integers(-(2**31), 2**31 - 1),
    "createdTime": dates,
    "userName": texts,
    "fullFormattedMessage": texts,
    "host": made(vim.event.HostEventArgument, name=texts, host=morefs.map(vim.HostSystem)),
}
an_event = (
    made(vim.event.HostConnectedEvent, **event_fields)
    | made(vim.event.EnteredMaintenanceModeEvent, **event_fields)
    | made(vim.event.EventEx, **event_fields, eventTypeId=texts, severity=texts, objectName=texts)
)
summaries = made(
    vim.host.Summary.ConfigSummary,
    name=texts,
    port=st.integers(0, 65535),
    vmotionEnabled=st.booleans(),
    agentVmDatastore=morefs.map(vim.Datastore),
    featureVersion=st.lists(made(vim.host.FeatureVersionInfo, key=texts, value=texts), max_size=2),
)
enumerated = st.sampled_from(
    (
        vim.HostSystem.ConnectionState.connected,
        vim.HostSystem.PowerState.standBy,
        vim.ManagedEntity.Status.gray,
        vim.TaskInfo.State.running,
    )
)
values = (
    texts
    | st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | references
    | st.lists(references, max_size=4).map(ManagedObject.Array)
    | st.lists(texts, max_size=3).map(GetVmodlType("string[]"))
    | st.lists(an_event, max_size=3).map(vim.event.Event.Array)
    | dates
    | st.floats(allow_nan=False, allow_infinity=False)
    | summaries
    | enumerated
)
faults = made(vmodl.fault.ManagedObjectNotFound, obj=references) | made(vmodl.fault.SystemError, reason=texts)
missing = st.lists(st.builds(lambda path, fault: PC.MissingProperty(path=path, fault=fault), names, faults), max_size=1)
changes = st.lists(
    st.builds(
        lambda name, op, val: PC.Change(name=name, op=op, val=val),
        names,
        st.sampled_from(("assign", "add", "remove", "indirectRemove")),
        values | st.none(),
    ),
    max_size=5,
)
object_updates = st.builds(
    lambda kind, obj, change, left: PC.ObjectUpdate(kind=kind, obj=obj, changeSet=change, missingSet=left),
    st.sampled_from(("enter", "modify", "leave")),
    references,
    changes,
    st.just([]) | st.just([]) | missing,
)
filter_updates = st.builds(
    lambda moid, updates: PC.FilterUpdate(filter=PC.Filter(moid), objectSet=updates),
    morefs,
    st.lists(object_updates, max_size=4),
)
update_sets = st.none() | st.builds(
    lambda version, filters, truncated: PC.UpdateSet(version=version, filterSet=filters, truncated=truncated),
    texts,
    st.lists(filter_updates, max_size=3),
    st.sampled_from((None, True, False)),
)
contents = st.none() | st.builds(
    lambda token, objects: PC.RetrieveResult(token=token, objects=objects),
    st.none() | texts,
    st.lists(
        st.builds(
            lambda obj, pairs, left: PC.ObjectContent(
                obj=obj, propSet=[vmodl.DynamicProperty(name=name, val=val) for name, val in pairs], missingSet=left
            ),
            references,
            st.lists(st.tuples(names, values), max_size=4),
            st.just([]) | missing,
        ),
        min_size=1,
        max_size=4,
    ),
)
issue_fields = {
    "key": st.integers(0, 2**31 - 1),
    "description": texts,
    "time": dates,
    "agency": morefs.map(eam.Agency),
    "agencyName": texts,
    "agent": morefs.map(eam.Agent),
    "host": morefs.map(vim.HostSystem),
}
issues = st.lists(
    made(eam.issue.VmPoweredOff, **issue_fields, vm=morefs.map(vim.VirtualMachine))
    | made(eam.issue.NoAgentVmDatastore, **issue_fields)
    | made(eam.issue.HostInMaintenanceMode, **issue_fields),
    max_size=3,
)
goals = st.sampled_from(("enabled", "disabled", "uninstalled"))
statuses = st.sampled_from(("green", "yellow", "red"))
agent_runtimes = made(
    eam.Agent.RuntimeInfo,
    status=statuses,
    goalState=goals,
    issue=issues,
    vmPowerState=st.sampled_from(("poweredOn", "poweredOff")),
    receivingHeartBeat=st.booleans(),
    entity=morefs.map(eam.Agent),
    host=morefs.map(vim.HostSystem),
    vm=morefs.map(vim.VirtualMachine),
    vmName=texts,
    vmIp=texts,
    installedBulletin=st.lists(texts, max_size=2),
    agency=morefs.map(eam.Agency),
    vmHook=made(eam.Agent.VmHook, vm=morefs.map(vim.VirtualMachine), vmState=texts),
)
agency_runtimes = made(eam.EamObject.RuntimeInfo, status=statuses, goalState=goals, issue=issues)
RESULTS: tuple[tuple[Both, st.SearchStrategy[Any]], ...] = (
    (UPDATES, update_sets),
    (CONTENTS, contents),
    (MORE_CONTENTS, contents),
    (AGENT, agent_runtimes),
    (AGENCY, agency_runtimes),
    (AGENTS, st.lists(morefs.map(eam.Agent), max_size=4).map(eam.Agent.Array)),
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Both, bytes]:
    """Any method's answer. Not a plain strategy, since hypothesis would describe that in 40 kB."""
    both, results = draw(st.sampled_from(RESULTS))
    return both, written(both, draw(results))


sizes = st.sampled_from((1 << 30, 2048, 97, 7, 1))


# --- equal, or not at all ----------------------------------------------------------------------------------


def agree(both: Both, body: bytes, most: int) -> bool:
    """Whether the narrow decoder read it. What it made is pyVmomi's; where pyVmomi raises, it made nothing."""
    try:
        ours = both.narrowly(body, most)
    except Exception:  # noqa: BLE001 - whatever it is, pyVmomi has the word
        return False
    assert differences(ours, both.pyvmomi(body)) == []
    return True


@given(answers(), sizes)
def test_every_answer_is_read_as_pyvmomi_reads_it(answer: tuple[Both, bytes], most: int) -> None:
    """In any pieces. And it is read narrowly, but for what expat cuts, what reads like an end, and faults."""
    both, body = answer
    read = agree(both, body, most)
    assert read or any(one in body for one in (b"x" * 8000, b">urn:vim25 val<", b"missingSet"))


@given(answers(), breaking() | tearing(), sizes)
def test_no_damage_gives_a_result_that_pyvmomi_does_not_give(
    answer: tuple[Both, bytes], damage: Damage, most: int
) -> None:
    """One element, type, attribute or text is another, or the whole is no XML any more."""
    both, body = answer
    agree(both, damage(body), most)


@given(st.data(), sizes)
def test_no_bytes_give_a_result_that_pyvmomi_does_not_give(data: st.DataObject, most: int) -> None:
    """Bytes flipped, moved, doubled, cut; and markup that means something to XML, to this decoder or to nobody."""
    both, body = data.draw(answers())
    agree(both, data.draw(damaged(body, telling=MARKUP)), most)


MARKUP = (
    b"<!-- ", b" -->", b"<![CDATA[", b"]]>", b"<?pi ", b"?>", b"<objectSet>", b"</objectSet>", b"</filter>", b"&amp;",
    b"<a b='", b"'/>", b'<a b="', b'"/>', b"&#65;", b"\r\n", b"<val/>", b"<changeSet>", b"</changeSet>", b"</objects>",
    b' xmlns="urn:vim25"', b' xmlns="urn:other"', b' xmlns:xsd="urn:other"', b' xmlns:xsi="urn:other"', b"<truncated>",
    b' xsi:type="xsd:int"', b"</token>", b"<val xsi:type='xsd:string'>",
)  # fmt: skip


@given(answers(), breaking() | tearing(), sizes)
def test_what_is_left_is_read_by_pyvmomi_from_the_first_byte(
    answer: tuple[Both, bytes], damage: Damage, most: int
) -> None:
    """Its result, or its own error: a session is none the wiser."""
    both, body = answer
    body = damage(body)
    try:
        theirs = both.pyvmomi(body)
    except Exception as expected:  # noqa: BLE001 - all that pyVmomi may raise
        with pytest.raises(type(expected)):
            both.decoded(body, most)
    else:
        assert differences(both.decoded(body, most), theirs) == []


# --- by example --------------------------------------------------------------------------------------------

HOST = (
    b'<objectSet><kind>enter</kind><obj type="HostSystem">host-9</obj>'
    b'<changeSet><name>name</name><op>assign</op><val xsi:type="xsd:string">esx-9</val></changeSet>'
    b'<changeSet><name>parent</name><op>assign</op><val type="ComputeResource" xsi:type="ManagedObjectReference">'
    b"domain-c1</val></changeSet>"
    b'<changeSet><name>recentTask</name><op>assign</op><val xsi:type="ArrayOfManagedObjectReference">'
    b'<ManagedObjectReference type="Task">task-1</ManagedObjectReference></val></changeSet>'
    b"<changeSet><name>summary.config.agentVmNetwork</name><op>assign</op></changeSet></objectSet>"
)
FILTER = b'<filter type="PropertyFilter">f</filter>'


def updates(
    *parts: bytes, head: bytes = b'<?xml version="1.0" encoding="UTF-8"?>\n', xsd: bytes = b"XMLSchema"
) -> bytes:
    """An update set round these objects, as vCenter writes it."""
    return (
        head + b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/'
        b'2001/' + xsd + b'" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n<soapenv:Body>\n'
        b'<WaitForUpdatesExResponse xmlns="urn:vim25"><returnval><version>4</version>'
        b"<filterSet>" + FILTER + b"".join(parts) + b"</filterSet></returnval></WaitForUpdatesExResponse>\n"
        b"</soapenv:Body>\n</soapenv:Envelope>"
    )  # fmt: skip


def test_an_object_of_the_usual_form_never_comes_to_expat(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what makes it fast; and references that are the same are one object, also in memory."""
    monkeypatch.setattr(
        "vcenter_eam_plugin.vsphere.narrow.Updates.whole", lambda *_: pytest.fail("expat had an object")
    )
    body = updates(HOST, HOST.replace(b"host-9", b"host-10"))
    for most in (1 << 30, 1000, 64, 1):
        result = UPDATES.narrowly(body, most)
        assert differences(result, UPDATES.pyvmomi(body)) == []
        first, second = result.filterSet[0].objectSet
        assert first.obj != second.obj
        assert first.changeSet[1].val is second.changeSet[1].val
        assert first.changeSet[3].val is None


@pytest.mark.parametrize(
    "body",
    [
        updates(HOST.replace(b"esx-9", b"a &amp; b")),
        updates(
            HOST.replace(b' xsi:type="xsd:string"', b' xmlns:y="http://www.w3.org/2001/XMLSchema" xsi:type="y:string"')
        ),
        updates(HOST, HOST.replace(b"<kind>enter</kind>", b"<kind >leave</kind>"), HOST),
        updates(HOST.replace(b"esx-9", b"x>y" * 30_000), HOST),
        updates(HOST, head=b'<?xml version="1.0" encoding="iso-8859-1"?>').replace(b"esx-9", b"\xe9"),
        updates(HOST, head=b""),
        updates(HOST, xsd=b"Other"),
    ],
    ids=[
        "entity",
        "own prefix",
        "space in a tag",
        "longer than is waited for",
        "latin-1",
        "no declaration",
        "types of nobody",
    ],
)
def test_what_is_unusual_but_known_is_read_all_the_same(body: bytes) -> None:
    """By expat."""
    for most in (1 << 30, 1000):
        assert differences(UPDATES.narrowly(body, most), UPDATES.pyvmomi(body)) == []


@pytest.mark.parametrize(
    "body",
    [
        updates(b"<!-- ", HOST, b" -->"),
        updates(b"<![CDATA[", HOST, b"]]>"),
        updates(b"<!-- </filter>", HOST, b" -->"),
        updates(b"<?pi </filter>", HOST, b"?>"),
        updates(b"<a b='</filter>", HOST, b"'/>"),
        updates(HOST).replace(b"<objectSet>", b"<objectSet><objectSet>", 1),
        updates(HOST, head=b'<?xml version="1.0"?><!DOCTYPE x>'),
        updates(HOST.replace(b"esx-9", b"\x01")),
        updates(HOST.replace(b"esx-9", b"\xff")),
        updates(HOST.replace(b"esx-9", b"]]>")),
        updates(HOST.replace(b"</kind>", b"</kind>text")),
        updates(HOST.replace(b">name</name>", b"></name>urn:vim25 name")),
        updates(HOST.replace(b"HostSystem", b"Nonsense")),
        updates(HOST.replace(b' type="HostSystem"', b' type="HostSystem" serverGuid="x"')),
        updates(HOST.replace(b"xsd:string", b"xsd:boolean")),
        updates(HOST, b"<missingSet/>"),
        updates(HOST) + b"x",
        updates(HOST)[:-1],
        updates(HOST).replace(b"PropertyFilter", b"HostSystem"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_left(body: bytes) -> None:
    """Some of it pyVmomi reads, some it refuses; none is for a decoder that guesses."""
    with pytest.raises((Unknown, Exception)):
        UPDATES.narrowly(body)
    assert not agree(UPDATES, body, 16)


def test_answers_that_are_left_are_counted() -> None:
    """A server that writes otherwise costs twenty times the computing, which nothing else would tell."""
    both = Both(PC, "WaitForUpdatesEx", VIM)
    assert both.decoded(updates(HOST)).filterSet[0].objectSet[0].kind == "enter"
    assert both.fallen_back == {}
    commented = updates(b"<!-- c -->", HOST)
    assert both.decoded(commented, 100).filterSet[0].objectSet[0].changeSet[0].val == "esx-9"
    assert both.fallen_back == {"WaitForUpdatesEx": 1}
