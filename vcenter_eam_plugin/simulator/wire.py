# SPDX-License-Identifier: Apache-2.0
"""SOAP both ways: requests into pyVmomi values, pyVmomi values into response envelopes.

pyVmomi brings the types, a deserialiser for one value and a serialiser for one value, all written for clients.
What a server needs on top is here: the walk through a request envelope that hands each parameter to pyVmomi's
deserialiser, response and fault envelopes, and a few spots where pyVmomi writes what only pyVmomi can read.

Nothing here knows a managed object's state, sessions or HTTP. Not promised: SOAP headers other than
``operationID`` (they are skipped), attachments, SOAP 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import StringIO
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate

from pyVmomi.SoapAdapter import (
    NS_SEP,
    XMLNS_SOAPENV,
    ExpatDeserializerNSHandlers,
    GetHandlers,
    SetHandlers,
    SoapDeserializer,
    SoapSerializer,
    XmlEscape,
)
from pyVmomi.VmomiSupport import (
    XMLNS_XSD,
    XMLNS_XSI,
    Enum,
    GetQualifiedWsdlName,
    GetVersionNamespace,
    GetWsdlMethod,
    GetWsdlName,
    Object,
    versionMap,
)
from pyVmomi.VmomiSupport import ManagedObject as Reference

VIM_NAMESPACE = "urn:vim25"
EAM_NAMESPACE = "urn:eam"

_ENVELOPE_START = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<soapenv:Envelope xmlns:soapenc="http://schemas.xmlsoap.org/soap/encoding/" '
    f'xmlns:soapenv="{XMLNS_SOAPENV}" xmlns:xsd="{XMLNS_XSD}" xmlns:xsi="{XMLNS_XSI}">\n<soapenv:Body>\n'
)
_ENVELOPE_END = "\n</soapenv:Body>\n</soapenv:Envelope>"
_METHOD_DEPTH = 3
_PARAMETER_DEPTH = 4

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_PREFIXES = {XMLNS_XSD: "xsd", XMLNS_XSI: "xsi", XMLNS_SOAPENV: "soapenv"}


class BadRequest(Exception):
    """The body is no request that we can read; the text says why."""


class Raw(str):
    """A method result that is already XML: the inside of the response element (``<returnval>...</returnval>``)."""

    __slots__ = ()


@dataclass(slots=True)
class Request:
    """One decoded request. ``arguments`` holds only what the client sent; ``info`` is ``None`` for ``Fetch``."""

    namespace: str
    method: str
    type: str
    moid: str
    arguments: dict[str, Any] = field(default_factory=dict)
    info: Any = None


class _Decoder(ExpatDeserializerNSHandlers):  # type: ignore[misc] # pyVmomi is untyped
    """Walks the envelope; each parameter element is handed, start tag included, to pyVmomi's deserialiser.

    That one takes over the parser's handlers until it has swallowed the matching end tag, so that this class sees
    only the envelope, the method element, ``_this`` and the parameters' start tags.
    """

    def __init__(self, version: str) -> None:
        super().__init__()
        self._values = SoapDeserializer(None, version)
        self._depth = 0
        self._current: tuple[str, bool] | None = None
        self._text: list[str] = []
        self._in_body = False
        self._this = False
        self._prop = False
        self.request: Request | None = None

    def decode(self, body: bytes) -> Request:
        self._parser = parser = ParserCreate(namespace_separator=NS_SEP)
        parser.buffer_text = True
        # A request has no business with a document type; refusing it also refuses entity expansion.
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        SetHandlers(parser, GetHandlers(self))
        try:
            parser.Parse(body, True)
        except BadRequest:
            raise
        except (ExpatError, KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
            raise BadRequest(f"cannot read the request: {type(exc).__name__} {exc}") from exc
        finally:
            del self._parser
        self._collect()
        if self.request is None or not self.request.moid:
            raise BadRequest("the request names no method and object")
        return self.request

    @staticmethod
    def _refuse_doctype(*_: Any) -> None:
        raise BadRequest("a document type declaration is not allowed")

    def StartElementHandler(self, tag: str, attributes: dict[str, str]) -> None:  # noqa: N802 - pyVmomi's name
        namespace, _, name = tag.rpartition(NS_SEP)
        self._depth += 1
        if self._depth == 2:
            self._in_body = name == "Body"
        elif not self._in_body:
            return
        elif self._depth == _METHOD_DEPTH:
            self.request = Request(namespace, name, "", "")
            if name != "Fetch":
                try:
                    self.request.info = GetWsdlMethod(namespace, name).info
                except KeyError:
                    self.request.info = None
        elif self._depth == _PARAMETER_DEPTH:
            self._parameter(name, tag, attributes)

    def _parameter(self, name: str, tag: str, attributes: dict[str, str]) -> None:
        self._collect()
        request = self.request
        assert request is not None
        self._text.clear()
        if name == "_this":
            request.type = attributes["type"]
            self._this = True
        elif request.method == "Fetch" and name == "prop":
            self._prop = True
        elif request.info is not None:
            kind = next((parameter.type for parameter in request.info.params if parameter.name == name), None)
            if kind is None:
                raise BadRequest(f"{request.method} has no parameter {name!r}")
            many = issubclass(kind, list)
            self._current = (name, many)
            if many:
                request.arguments.setdefault(name, kind())
            self._values.result = None
            self._depth -= 1  # the end tag will not come to us
            self._values.Deserialize(self._parser, kind.Item if many else kind, False, self.nsMap)
            self._values.StartElementHandler(tag, attributes)

    def EndElementHandler(self, tag: str) -> None:  # noqa: N802 - pyVmomi's name
        if self._depth == _PARAMETER_DEPTH and self.request is not None:
            text = "".join(self._text)
            if self._this:
                self.request.moid, self._this = text, False
            elif self._prop:
                self.request.arguments["prop"], self._prop = text, False
        self._depth -= 1

    def CharacterDataHandler(self, data: str) -> None:  # noqa: N802 - pyVmomi's name
        if self._this or self._prop:
            self._text.append(data)

    def _collect(self) -> None:
        """Take over the value of the parameter that has just ended."""
        if self._current is None or self.request is None:
            return
        name, many = self._current
        self._current = None
        value = self._values.GetResult()
        if many:
            if isinstance(value, list):
                self.request.arguments[name].extend(value)
            else:
                self.request.arguments[name].append(value)
        else:
            self.request.arguments[name] = value


def decode(body: bytes, version: str) -> Request:
    """Read a request envelope. Raises :class:`BadRequest`."""
    return _Decoder(version).decode(body)


class _Serializer(SoapSerializer):  # type: ignore[misc] # pyVmomi is untyped
    """pyVmomi's serialiser without ``versionId`` and namespace attributes on the outermost tag, and with references
    in an Any named as real servers name them: pyVmomi writes ``ManagedObject``, which other clients read as nothing.
    """

    def __init__(self, writer: StringIO, version: str, namespace: str) -> None:
        super().__init__(writer, version, {**_PREFIXES, namespace: ""})
        self.outermostAttrs = ""

    def _QName(self, typ: Any, defNS: str) -> tuple[str, str]:  # noqa: N802, N803 - pyVmomi's names
        if typ is Reference:
            ns = GetQualifiedWsdlName(typ)[0]
            if ns == defNS:
                return "", "ManagedObjectReference"
            return f' xmlns:vmodl="{ns}"', "vmodl:ManagedObjectReference"
        return super()._QName(typ, defNS)  # type: ignore[no-any-return]


def escape(text: str) -> str:
    """Text for an element. Characters that XML 1.0 cannot carry become U+FFFD, so that no name breaks a response."""
    return _CONTROL.sub("\ufffd", XmlEscape(text))


class Encoder:
    """Values to XML, for one namespace and one API version: newer fields are left out, as a real server does.

    One instance per version lives as long as the server, so that it can hold encodings of values that never
    change (events).
    """

    def __init__(self, version: str, namespace: str) -> None:
        self.version = version
        self.namespace = namespace
        self._cached: dict[int, tuple[Any, str]] = {}  # by identity; the value is held, so that its id stays its own
        self._names: dict[type, str] = {}

    def value(self, tag: str, value: Any) -> str:
        """A value as ``<tag xsi:type="...">``, the form of every property value."""
        kind = type(value)
        if kind is str:
            return f'<{tag} xsi:type="xsd:string">{escape(value)}</{tag}>'
        if kind is bool:
            return f'<{tag} xsi:type="xsd:boolean">{"true" if value else "false"}</{tag}>'
        if kind is int:
            return f'<{tag} xsi:type="xsd:int">{value}</{tag}>'
        if isinstance(value, Reference):
            moid = escape(value._moId)
            return f'<{tag} xsi:type="ManagedObjectReference" type="{GetWsdlName(kind)}">{moid}</{tag}>'
        if isinstance(value, Enum) and self._own(kind):
            return f'<{tag} xsi:type="{self._names[kind]}">{value}</{tag}>'
        return self._dump(tag, value, object)

    def typed(self, tag: str, value: Any, kind: Any, flags: int = 0) -> str:
        """A value of a declared type (``xsi:type`` only where it is a subclass), lists as repeated elements."""
        return self._dump(tag, value, kind, flags)

    def cached(self, tag: str, value: Any) -> str:
        """Encoding of an element of an array, kept for the life of the encoder: for values that never change again."""
        held = self._cached.get(id(value))
        if held is None or held[0] is not value:
            if len(self._cached) > MAX_CACHED:
                self._cached.clear()
            held = (value, self.value(tag, value))
            self._cached[id(value)] = held
        return held[1]

    @staticmethod
    def any_array(tag: str, kind: str, items: Iterable[str]) -> str:
        """``<tag xsi:type="ArrayOfX">`` round elements that are encoded already."""
        return f'<{tag} xsi:type="{kind}">{"".join(items)}</{tag}>'

    def _own(self, kind: type) -> bool:
        if kind not in self._names:
            namespace, name = GetQualifiedWsdlName(kind)
            if namespace != self.namespace:
                return False
            self._names[kind] = name
        return True

    def _dump(self, tag: str, value: Any, kind: Any, flags: int = 0) -> str:
        writer = StringIO()
        info = Object(name=tag, type=kind, version=self.version, flags=flags)
        _Serializer(writer, self.version, self.namespace).Serialize(value, info)
        return writer.getvalue()

    def response(self, request: Request, result: Any) -> bytes:
        """The response envelope. ``result`` is a pyVmomi value, :class:`Raw` XML, or ``None``."""
        if isinstance(result, Raw):
            inner: str = result
        elif result is None:
            inner = ""
        elif request.info is None:
            inner = self.value("returnval", result)
        else:
            info = request.info
            inner = self._dump("returnval", result, info.result, info.resultFlags)
        return "".join(
            (
                _ENVELOPE_START,
                f'<{request.method}Response xmlns="{request.namespace}">{inner}</{request.method}Response>',
                _ENVELOPE_END,
            )
        ).encode()

    def fault(self, fault: Any) -> bytes:
        """A SOAP fault envelope for a pyVmomi fault, whichever namespace it belongs to."""
        namespace, name = GetQualifiedWsdlName(type(fault))
        message = escape(fault.msg or name)
        writer = StringIO()
        serializer = _Serializer(writer, self.version, namespace)
        info = Object(name=f"{name}Fault", type=object, version=self.version, flags=0)
        kept, fault.msg = fault.msg, None  # the text travels as faultstring, not as a field that other clients refuse
        try:
            serializer._SerializeDataObject(fault, info, f' xmlns="{namespace}"', namespace)
        finally:
            fault.msg = kept
        return _fault_envelope(message, writer.getvalue())


MAX_CACHED = 20_000
"""Encoded events held per version before starting over: about 20 MB."""


def plain_fault(message: str) -> bytes:
    """A SOAP fault without detail, for bodies that are no requests at all."""
    return _fault_envelope(escape(message), "")


def _fault_envelope(message: str, detail: str) -> bytes:
    return (
        f"{_ENVELOPE_START}<soapenv:Fault><faultcode>ServerFaultCode</faultcode>"
        f"<faultstring>{message}</faultstring><detail>{detail}</detail></soapenv:Fault>{_ENVELOPE_END}"
    ).encode()


def version_numbers(text: str) -> tuple[int, ...]:
    """``8.0.3.0`` or ``2_5`` as numbers to compare; ``()`` for what is no version (``internalvim25``).

    Zeros at the end do not count: ``9.0`` is ``9.0.0.0``.
    """
    try:
        numbers = [int(part) for part in text.replace("_", ".").split(".")]
    except ValueError:
        return ()
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


class Versions:
    """API versions of one service (``vim25``), from what pyVmomi knows, up to a server's level."""

    def __init__(self, service: str, level: str) -> None:
        self.level = version_numbers(level)
        self._known: list[tuple[tuple[int, ...], str]] = []
        for key, name in versionMap.items():
            head, _, tail = key.partition("/")
            numbers = version_numbers(tail)
            if head == service and numbers and numbers <= self.level:
                self._known.append((numbers, name))
        self._known.sort()
        self.newest: str = self._known[-1][1]

    def resolve(self, action: str, *, strict: bool = False) -> str:
        """pyVmomi's name of the newest version that is not newer than the client's ``SOAPAction``.

        A client that is newer than the server gets the server's level, so that clients which do not negotiate work;
        ``strict`` refuses it with :class:`BadRequest`, as vCenter does with versions that it has never heard of.
        """
        uri = action.strip().strip('"')
        numbers = version_numbers(uri.partition("/")[2])
        if not numbers:  # some clients name only the service (govmomi for EAM)
            return self.newest
        if strict and numbers > self.level:
            raise BadRequest(f'Unsupported version URI "{uri}"')
        fitting = [name for known, name in self._known if known <= numbers]
        return fitting[-1] if fitting else self._known[0][1]

    def published(self) -> list[str]:
        """Version ids, newest first, as ``vimServiceVersions.xml`` lists them."""
        return [GetVersionNamespace(name).partition("/")[2] for _, name in reversed(self._known)]
