# SPDX-License-Identifier: Apache-2.0
"""What vCenter and EAM answer: whatever it is, one of the domain's errors within the deadline, or the truth.

An answer that is not what it should be costs time, and nothing else: no greenlet, no ContrailVM, no message.
"""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.generate import damaged, fewer, in_time, one_sentence
from tests.fuzz.hostile import Bare, Damage, Damaged, breaking, drip, tearing
from tests.support.files import serving
from tests.support.vcenters import VCenter, of_simulator, wait_for
from vcenter_eam_plugin.domain.errors import PluginError, ProtocolError, Unavailable
from vcenter_eam_plugin.domain.observations import InventoryObserved
from vcenter_eam_plugin.eam.agency import AgencySpec
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.simulator.sample_ovf import write_sample
from vcenter_eam_plugin.simulator.server import Simulator
from vcenter_eam_plugin.vsphere import properties, stream
from vcenter_eam_plugin.vsphere import session as session_module
from vcenter_eam_plugin.vsphere.answer import MOST_BYTES
from vcenter_eam_plugin.vsphere.inventory import Inventory
from vcenter_eam_plugin.vsphere.scope import list_compute_resources
from vcenter_eam_plugin.vsphere.session import Session, SessionSettings

LOGIN = ("RetrieveServiceContent", "Login")
READS = ("RetrievePropertiesEx", "Fetch", "CurrentTime")
STREAM = ("CreatePropertyCollector", "CreateFilter", "CreateListView", "ModifyListView", "WaitForUpdatesEx",
          "CreateCollectorForEvents", "SetCollectorPageSize", "RetrievePropertiesEx")  # fmt: skip
EAM = (
    "QueryAgency",
    "QueryConfig",
    "AgencyQueryRuntime",
    "AgentQueryRuntime",
    "QueryAgent",
    "QuerySolutionId",
    "Fetch",
)


class Intake:
    """Everything that reads vCenter and EAM, against one simulator with an agency that has its ContrailVMs."""

    def __init__(self, vcenter: VCenter, damaged: Damaged, agency: str) -> None:
        self.vcenter = vcenter
        self.damaged = damaged
        self.agency = agency
        self.session = Session(vcenter.settings())
        self.session.open()
        self.scope = tuple(one.moref for one in list_compute_resources(self.session))

    def log_in(self) -> None:
        session = Session(self.vcenter.settings())
        try:
            session.open()
        finally:
            with in_time("logging out"):
                session.close()

    def read(self) -> None:
        self.session.alive()
        list_compute_resources(self.session)

    def eam(self) -> None:
        client = EamClient(self.session)
        client.agencies()
        client.read_agents(client.agents_of(self.agency))

    def stream(self) -> list[InventoryObserved]:
        """One attempt to list and follow; the greenlet must end when it is told to, and of nothing else."""
        seen: list[InventoryObserved] = []
        inventory = Inventory(self.session, time.monotonic, seen.append, lambda hints: None)
        inventory.set_scope(self.scope)
        greenlet = gevent.spawn(inventory.run)
        try:
            wait_for(lambda: inventory.live or inventory.last_error or greenlet.dead, "a listing or an error")
            if inventory.last_error is not None:
                one_sentence(inventory.last_error)
        finally:
            assert inventory.stop()
            greenlet.get(timeout=5)
        return seen


@pytest.fixture(scope="module")
def intake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intake]:
    """One for all examples: what one of them leaves behind shows in the next."""
    simulator = Simulator(hosts=4, clusters=2, tenants_per_host=1)
    simulator.start()
    folder = tmp_path_factory.mktemp("ovf")
    descriptor = write_sample(folder)
    stimuli = simulator.vcenter.stimuli
    for host in stimuli.hosts():
        datastore, network = next(iter(host.datastores.values())), next(iter(host.networks.values()))
        stimuli.set_agent_settings(host, datastore.name, network.name)
    vcenter = of_simulator(simulator)
    with serving(descriptor.parent) as base, vcenter.session() as session:
        client = EamClient(session)
        scope = tuple(one.moref for one in list_compute_resources(session))
        agency = client.create_agency(
            AgencySpec(
                name="ContrailVM-Agency", agent_name="ContrailVM", ovf_url=f"{base}/{descriptor.name}", scope=scope
            )
        )
        wait_for(lambda: len(client.agents_of(agency)) == 4, "the agents")
    made = Intake(vcenter, Damaged(simulator), agency)
    yield made
    made.session.close()
    simulator.stop()
    assert simulator.errors == []


def suffers(
    intake: Intake, damage: Damage, part: Callable[[], object], *methods: str, status: int | None = None
) -> Any:
    """What ``part`` gives while answers are damaged, or the domain's error. Afterwards all is as it was."""
    try:
        with intake.damaged.with_damage(damage, *methods, status=status), in_time(damage):
            return part()
    except PluginError as exc:
        one_sentence(exc, most=4000)
        return exc
    finally:
        with in_time("healed"):
            intake.session.keep_alive()


@fewer(0.7)
@given(damage=breaking() | tearing(), status=st.sampled_from([None, None, 200, 500]))
@example(damage=lambda body: body.replace(b"<instanceUuid>", b"<instanceUuid>../../"), status=None)
@example(damage=lambda body: body.replace(b"about", b"abuot"), status=None)
@example(damage=lambda body: b"", status=None)
def test_logging_in(intake: Intake, damage: Damage, status: int | None) -> None:
    suffers(intake, damage, intake.log_in, *LOGIN, status=status)


@pytest.mark.parametrize("name", [b"../../x", b"", b"{%b}", b"urn:uuid:%b", b"x" * 300, b"a\nb"])
def test_a_vcenter_does_not_choose_where_its_state_files_go(intake: Intake, name: bytes) -> None:
    """They are named after its instanceUuid."""
    uuid = intake.session.instance_uuid.encode()

    def damage(body: bytes) -> bytes:
        return body.replace(b">" + uuid + b"<", b">" + name.replace(b"%b", uuid) + b"<")

    assert isinstance(suffers(intake, damage, intake.log_in, *LOGIN), ProtocolError)


@fewer(0.7)
@given(damage=breaking() | tearing(), method=st.sampled_from(READS))
@example(damage=lambda body: body.replace(b">group-d1<", b">group-h1<"), method="RetrievePropertiesEx")
def test_reading_properties(intake: Intake, damage: Damage, method: str) -> None:
    suffers(intake, damage, intake.read, method)


@fewer(1)
@given(damage=breaking() | tearing(), method=st.sampled_from(EAM))
def test_reading_eam(intake: Intake, damage: Damage, method: str) -> None:
    suffers(intake, damage, intake.eam, method)


@fewer(0.7)
@given(damage=breaking() | tearing(), method=st.sampled_from(STREAM))
def test_following_the_inventory(intake: Intake, damage: Damage, method: str) -> None:
    suffers(intake, damage, intake.stream, method)


@fewer(0.5)
@given(seed=st.integers(0, 2**32))
def test_any_bytes(intake: Intake, seed: int) -> None:
    """Bytes of real answers overwritten anywhere."""
    rng = random.Random(seed)  # the server's greenlets use it, so hypothesis itself cannot be asked

    def damage(body: bytes) -> bytes:
        whole = bytearray(body)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(whole))
            whole[at : at + rng.randint(0, 3)] = rng.choice(
                [b"", b"<", b">", b"&", b'"', bytes([rng.randrange(256)]), b"9" * 9]
            )
        return bytes(whole)

    for part in (intake.read, intake.eam):
        suffers(intake, damage, part)


@fewer(0.3)
@given(damage=tearing(), part=st.sampled_from(["eam", "stream"]))
def test_a_torn_answer_says_of_nothing_that_it_is_gone(intake: Intake, damage: Damage, part: str) -> None:
    """Suspect reads neither delete nor create: nothing is observed of an answer that is not whole."""
    found = suffers(intake, damage, getattr(intake, part), *(EAM if part == "eam" else ("WaitForUpdatesEx",)))
    for one in found if isinstance(found, list) else ():
        assert one.gone == ()
        assert not one.complete or len(one.hosts) == 4


def test_a_configuration_of_which_half_is_missing_is_not_written_back(intake: Intake) -> None:
    """QueryConfig, one change, Update: EAM deletes the ContrailVMs of whatever is not in what is written."""
    client = EamClient(intake.session)
    for part in (b"agentConfig", b"scope", b"agencyName"):

        def renamed(body: bytes, part: bytes = part) -> bytes:
            return body.replace(b"<" + part, b"<x" + part).replace(b"</" + part, b"</x" + part)

        def dropped(body: bytes, part: bytes = part) -> bytes:
            return body[: body.index(b"<" + part)] + body[body.rindex(b"</" + part + b">") + len(part) + 3 :]

        for damage in (renamed, dropped):
            before = len(intake.vcenter.simulator.journal.calls("Update"))
            found = suffers(intake, damage, lambda: client.set_holds(intake.agency, True, True), "QueryConfig")
            assert isinstance(found, ProtocolError)
            assert len(intake.vcenter.simulator.journal.calls("Update")) == before


def test_an_endless_read_ends(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token for another page with every page; an update set that is always truncated."""
    monkeypatch.setattr(properties, "MOST_PAGES", 3)
    monkeypatch.setattr(stream, "MOST_PAGES", 3)

    def another(body: bytes) -> bytes:
        return body.replace(b"<objects>", b"<token>1</token><objects>", 1)

    def truncated(body: bytes) -> bytes:
        return body.replace(b"</returnval>", b"<truncated>true</truncated></returnval>")

    answer = intake.vcenter.simulator.dispatcher.answer

    def again(path: str, body: bytes, *rest: Any, **kw: Any) -> Any:
        if b"ContinueRetrievePropertiesEx" in body:
            body = kept[0]
        elif b"RetrievePropertiesEx" in body:
            kept[:] = [body]
        return answer(path, body, *rest, **kw)

    kept: list[bytes] = []
    monkeypatch.setattr(intake.vcenter.simulator.dispatcher, "answer", again)
    found = suffers(intake, another, intake.read, "RetrievePropertiesEx")
    assert "has no end" in str(found)


# --- the way an answer is sent ---------------------------------------------------------------------------

SETTINGS = {"call_timeout": 1.0, "wait_seconds": 1}
"""A call then ends within 1 s of silence, and 6 s in all."""
DEADLINE = 15.0


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    with Bare(tmp_path_factory.mktemp("tls")).running() as server:
        yield server


def ask(server: Bare, say: Callable[[Any], None]) -> PluginError:
    """The error of a login at a server that answers so."""
    server.say = say
    session = Session(
        SessionSettings(
            host="127.0.0.1", port=server.port, username="u", password=lambda: "p", ca_file=server.ca_file, **SETTINGS
        )
    )
    with in_time("the login", DEADLINE), pytest.raises(PluginError) as refused:
        session.open()
    session.close()
    one_sentence(refused.value)
    assert isinstance(refused.value, (ProtocolError, Unavailable))
    return refused.value


VERSIONS = (
    b'<?xml version="1.0"?><namespaces version="1.0"><namespace><name>urn:vim25</name><version>8.0.1.0</version>'
    b"</namespace></namespaces>"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"


def whole(body: bytes, *headers: bytes) -> bytes:
    return OK + b"".join(header + b"\r\n" for header in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


HTTP = (
    whole(VERSIONS),
    OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(VERSIONS), VERSIONS),
    whole(gzip.compress(VERSIONS), b"Content-Encoding: gzip"),
    whole(zlib.compress(VERSIONS), b"Content-Encoding: deflate"),
)
TELLING = (
    b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n",
    b"-1\r\n", b"ffffffffffffffff\r\n", b"Set-Cookie: a b=c;;=\r\n", b"Content-Encoding: gzip\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"Location: http://127.0.0.1:1/\r\n", b"X: " + b"y" * 70_000 + b"\r\n",
    b"X: y\r\n" * 200,
)  # fmt: skip


@fewer(0.5)
@given(answer=damaged(*HTTP, telling=TELLING) | st.binary(max_size=200))
@example(answer=b"")
@example(answer=OK + b"Content-Length: 999999999999999\r\n\r\n" + VERSIONS)
@example(answer=OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n" + VERSIONS)
def test_damaged_http(bare: Bare, answer: bytes) -> None:
    ask(bare, lambda sock: sock.sendall(answer))


def test_a_drip_ends_at_the_deadline(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silent for long, never done: header and body."""
    monkeypatch.setattr(session_module, "DEADLINE_MARGIN_SECONDS", 1.0)
    assert isinstance(ask(bare, lambda sock: drip(sock, whole(VERSIONS), 0.2)), Unavailable)
    head, _, body = whole(VERSIONS).partition(b"\r\n\r\n")

    def slow_body(sock: Any) -> None:
        sock.sendall(head + b"\r\n\r\n")
        drip(sock, body, 0.2)

    assert isinstance(ask(bare, slow_body), Unavailable)


# --- what swells -----------------------------------------------------------------------------------------

SOAP = (
    b'<?xml version="1.0" encoding="UTF-8"?>%b'
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">'
    b"<soapenv:Body>"
    b'<RetrieveServiceContentResponse xmlns="urn:vim25">%b</RetrieveServiceContentResponse>'
    b"</soapenv:Body>"
    b"</soapenv:Envelope>"
)
LAUGHS = b"<!DOCTYPE x [<!ENTITY e0 'lol'>" + b"".join(
    b"<!ENTITY e%d '%b'>" % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 10)
) + b"]>"  # fmt: skip
TEXT = b"<returnval><rootFolder type='Folder'>%b</rootFolder></returnval>"
SWELLING: dict[str, Callable[[], Iterator[bytes]]] = {
    "endless text": lambda: _endless(OK + b"\r\n" + SOAP[:180] % b"", b"A" * 65536),
    "endless elements": lambda: _endless(OK + b"\r\n" + _opened(), b"<returnval/>" * 4096),
    "endless depth": lambda: _endless(OK + b"\r\n" + _opened(), b"<a>" * 16384),
    "endless headers": lambda: _endless(OK, b"X: y\r\n" * 4096),
    "endless chunks": lambda: _endless(
        OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"
    ),
    "endless chunk size": lambda: _endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1" * 65536),
    "a chunk of less than nothing": lambda: _endless(OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b" " * 65536),
    "a gzip bomb": lambda: iter([whole(_packed(31), b"Content-Encoding: gzip")]),
    "a deflate bomb": lambda: iter([whole(_packed(15), b"Content-Encoding: deflate")]),
    "laughs": lambda: iter([whole(SOAP % (LAUGHS, TEXT % b"&e9;"))]),
    "a large entity often": lambda: iter(
        [whole(SOAP % (b"<!DOCTYPE x [<!ENTITY e '" + b"A" * 60_000 + b"'>]>", TEXT % (b"&e;" * 100_000)))]
    ),
    "laughs in UTF-16": lambda: iter(
        [whole((SOAP % (LAUGHS, TEXT % b"&e9;")).decode().replace("UTF-8", "UTF-16").encode("utf-16"))]
    ),
    "an external entity": lambda: iter(
        [whole(SOAP % (b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>", TEXT % b"&e;"))]
    ),
    "a hundred thousand results": lambda: iter([whole(SOAP % (b"", (TEXT % b"group-d1") * 100_000))]),
    "one large text": lambda: iter([whole(SOAP % (b"", TEXT % (b"A" * (MOST_BYTES - 2000))))]),
}


def _opened() -> bytes:
    return (SOAP % (b"", b"#")).partition(b"#")[0]


def _endless(head: bytes, piece: bytes) -> Iterator[bytes]:
    yield head
    for _ in range(40_000):  # 2 GB, should nobody stop reading
        yield piece


def _packed(wbits: int) -> bytes:
    """128 MB of text in 128 kB: more than is read, and quickly made."""
    packer = zlib.compressobj(9, wbits=wbits)
    piece = b"A" * (1 << 20)
    packed = [packer.compress(_opened() + b"<returnval><rootFolder type='Folder'>")]
    packed += [packer.compress(piece) for _ in range(128)]
    return b"".join([*packed, packer.flush()])


@pytest.mark.parametrize("what", SWELLING)
def test_what_swells_costs_neither_memory_nor_the_event_loop(bare: Bare, what: str) -> None:
    """In a child, which may not have more than 700 MB: other greenlets get their turn all the while."""
    body = SWELLING[what]

    def say(sock: Any) -> None:
        for piece in body():
            sock.sendall(piece)
            gevent.sleep(0)

    def first_say(sock: Any) -> None:
        bare.say = say
        sock.sendall(whole(VERSIONS, b"Connection: close"))

    bare.say = first_say
    child = gevent.subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.swelling", str(bare.port), bare.ca_file],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        with in_time(what, 60):
            said = child.communicate()[0].decode()
    finally:
        child.kill()
    assert child.returncode == 0, said[-3000:]
    error, grown, stall = said.splitlines()[-1].split("|")
    print(f"{what}: {error[:100]}; {grown} MiB; event loop held {stall} s")
    assert error.split(":")[0] in ("ProtocolError", "Unavailable"), error
    if "entity" in what or what == "laughs":
        assert "document type" in error  # and not by expat's own limit, which begins at 8 MB
    assert int(grown) < 250, said
    assert float(stall) < 3.0, said
