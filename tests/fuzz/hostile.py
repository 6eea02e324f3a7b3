# SPDX-License-Identifier: Apache-2.0
"""Servers that answer what no server should: a simulated vCenter whose answers are damaged, and one of bare bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent.server import StreamServer
from hypothesis import strategies as st

from tests.support.ovf import write_certificate
from vcenter_eam_plugin.simulator.dispatch import Reply, method_of
from vcenter_eam_plugin.simulator.server import Simulator

Damage = Callable[[bytes], bytes]

_ELEMENT = re.compile(rb"<([A-Za-z]\w*)((?:\s[^<>]*)?)>([^<>]*)</\1>")
"""An element of text alone."""


class Damaged:
    """Stands before a simulator's dispatcher. ``damage`` is applied to answers to ``methods`` (none: to all)."""

    def __init__(self, simulator: Simulator) -> None:
        self.methods: frozenset[str] = frozenset()
        self.damage: Damage | None = None
        self.status: int | None = None
        self.damaged = 0
        answer = simulator.dispatcher.answer

        def damaged(path: str, body: bytes, *rest: Any, **kw: Any) -> Reply:
            reply = answer(path, body, *rest, **kw)
            if self.damage is None or (self.methods and method_of(body) not in self.methods):
                return reply
            self.damaged += 1
            return dataclasses.replace(reply, body=self.damage(reply.body), status=self.status or reply.status)

        simulator.dispatcher.answer = damaged  # type: ignore[method-assign] # its own instance, for one test

    @contextlib.contextmanager
    def with_damage(self, damage: Damage, *methods: str, status: int | None = None) -> Iterator[None]:
        """Inside the block answers are damaged."""
        self.damage, self.methods, self.status = damage, frozenset(methods), status
        try:
            yield
        finally:
            self.damage, self.methods, self.status = None, frozenset(), None


WORDS = (
    b"", b"-1", b"99999999999999999999", b"NaN", b"true", b"x", b"poweredSideways", b"2026-13-45T99:99:99Z",
    b"__class__", b"mro", b"../../x", b"\xc3\xa9", b"a\nb", b"host-1", b"vm-1", b"\xf0\x9f\x92\xa9",
    b"W" * 3000, b"purple",
)  # fmt: skip
ATTRIBUTES = (
    b"", b' type=""', b' type="Nonsense"', b' type="HostSystem"', b' type="VirtualMachine"', b' xsi:type="xsd:string"',
    b' xsi:type="xsd:int"', b' xsi:type="nonsense"', b' xsi:type="ArrayOfManagedObjectReference"',
    b' xsi:type="xsd:boolean"',
    b' xsi:type="ManagedObjectReference"', b' xsi:type="HostSystem" type="HostSystem"', b' xsi:type="MethodFault"',
    b' xsi:type="xsd:dateTime"', b' xsi:type="ArrayOfEvent"', b' xsi:type="RuntimeInfo"', b' xsi:nil="true"',
    b' xmlns="urn:nonsense"', b' serverGuid="x"', b' versionId="x"',
)  # fmt: skip
FAULTS = (
    b"NotAuthenticated",
    b"InvalidLogin",
    b"ManagedObjectNotFound",
    b"NoPermission",
    b"Nonsense",
    b"",
    b"RequestCanceled",
)


def fault(name: bytes) -> bytes:
    """A SOAP fault in place of a result."""
    return (
        b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body><soapenv:Fault>'
        b"<faultcode>ServerFaultCode</faultcode><faultstring>because\nso</faultstring><detail>"
        b'<' + name + b'Fault xmlns="urn:vim25"/></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>'
    )  # fmt: skip


KINDS = ("text", "type", "drop", "repeat", "rename", "empty", "nest", "namespace", "number", "fault")


def broken(kind: str, place: float, word: bytes, attribute: bytes, times: int, name: bytes) -> Damage:
    """Damage that keeps most of the structure: one text, type or element, at ``place`` (0 to 1) of the answer."""

    def damage(body: bytes) -> bytes:
        leaves = list(_ELEMENT.finditer(body))
        if kind == "fault":
            return fault(name)
        if kind == "namespace":
            return body.replace(b"urn:vim25", b"urn:nonsense").replace(b"urn:eam", b"urn:nonsense")
        if not leaves:
            return body
        leaf = leaves[int(place * len(leaves))]
        tag, attributes, text = leaf.groups()
        made = {
            "text": b"<%b%b>%b</%b>" % (tag, attributes, word, tag),
            "type": b"<%b%b>%b</%b>" % (tag, attribute, text, tag),
            "drop": b"",
            "repeat": leaf.group() * times,
            "rename": b"<%bX%b>%b</%bX>" % (tag, attributes, text, tag),
            "empty": b"<%b/>" % tag,
            "nest": b"<%b%b>%b</%b>" % (tag, attributes, leaf.group(), tag),
            "number": b"<%b%b>%b</%b>" % (tag, attributes, b"9" * times, tag),
        }[kind]
        return body[: leaf.start()] + made + body[leaf.end() :]

    damage.__qualname__ = f"{kind} at {place:.4f} with {word[:20]!r}{attribute!r} {times} {name!r}"
    return damage


def breaking() -> st.SearchStrategy[Damage]:
    """Any :func:`broken`."""
    return st.builds(
        broken,
        st.sampled_from(KINDS),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(WORDS),
        st.sampled_from(ATTRIBUTES),
        st.integers(2, 300),
        st.sampled_from(FAULTS),
    )


@st.composite
def tearing(draw: st.DrawFn) -> Damage:
    """Damage after which an answer is no XML any more, or not the whole: cut, bytes in between, half an element."""
    kind = draw(st.sampled_from(("cut", "bytes", "hole")))
    place = draw(st.floats(0, 0.99))
    noise = draw(st.sampled_from((b"\xff\xfe", b"\0", b"<", b"&nonsense;", b"</x>", b"]]>", b"\x1f")))

    def damage(body: bytes) -> bytes:
        at = int(place * len(body))
        if kind == "cut":
            return body[:at]
        if kind == "bytes":
            return body[:at] + noise + body[at:]
        return body[:at] + body[at + max(len(body) // 5, 1) :] + b"<"

    damage.__qualname__ = f"{kind} at {place:.4f} with {noise!r}"
    return damage


class Bare:
    """A TLS server on loopback that answers each request by ``say(socket)``, and hangs up."""

    def __init__(self, directory: Path) -> None:
        certificate, key = write_certificate(directory, "hostile")
        self.ca_file = str(directory / "hostile.ca")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        self.say: Callable[[Any], None] = lambda sock: None
        self._server = StreamServer(("127.0.0.1", 0), self._serve, ssl_context=context)

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    def _serve(self, sock: Any, _address: Any) -> None:
        with contextlib.suppress(OSError), contextlib.closing(sock):
            _read_request(sock)
            self.say(sock)

    @contextlib.contextmanager
    def running(self) -> Iterator[Bare]:
        self._server.start()
        try:
            yield self
        finally:
            self._server.stop(timeout=1)


def _read_request(sock: Any) -> None:
    seen = b""
    while b"\r\n\r\n" not in seen:
        seen += _some(sock)
    head, _, body = seen.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    left = int(length[1]) - len(body) if length else 0
    while left > 0:
        left -= len(_some(sock))


def _some(sock: Any) -> bytes:
    data: bytes = sock.recv(65536)
    if not data:
        raise OSError("the client left")
    return data


def drip(sock: Any, data: bytes, pause: float) -> None:
    """Byte by byte."""
    for byte in data:
        sock.sendall(bytes([byte]))
        gevent.sleep(pause)
