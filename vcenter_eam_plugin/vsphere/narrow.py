# SPDX-License-Identifier: Apache-2.0
"""A narrow decoder for the answers that are large or many: what pyVmomi's decoder gives, for a tenth of the time.

pyVmomi enters Python three times for each element, and checks each value against a schema under a lock. Here expat
writes starts, texts and ends into one list, nearly all of it in C; whenever an object of the answer is complete, its
part of the list is read and replaced by the object. So neither the whole text nor a tree of it is ever held.

Promised: a result that equals pyVmomi's, or :class:`Unknown` (or another Exception), upon which the same bytes are
pyVmomi's to read. It is stricter than pyVmomi everywhere: an element, attribute, type or text in a place where none is
foreseen, a fault, an order that the schema does not have. Types, enumerations and references are pyVmomi's own, looked
up by its own rules in the stub's version.

Equal means: data objects of the same class with equal fields, managed objects that are equal and have the same stub,
values of the same type. But update sets and contents are the tuples below, with the fields that are read, under
pyVmomi's names; and names of properties are plain strings. What is equal within one answer may be one object.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from sys import intern
from typing import Any, NamedTuple
from xml.parsers.expat import ParserCreate

from pyVmomi import eam, vmodl
from pyVmomi.Iso8601 import ParseISO8601
from pyVmomi.SoapAdapter import NS_SEP, XMLNS_SOAPENV, XSI_TYPE, SoapDeserializer
from pyVmomi.VmomiSupport import XMLNS_XSI, DataObject, Enum, GetCompatibleType, ManagedObject, PropertyPath

MOST_EVENTS = 200_000
"""Starts, texts and ends that are held at once. The largest object read here, a page of events, has 8,000."""

_LONGEST_USUAL = 64 << 10
"""Bytes of an object that are waited for to be read at once. A host's are 1,400."""
_LONGEST_TAG = 40
_MOST_ENVELOPES = 16
_NOT_USUAL = object()
_TEXT = r"[^<>&\x00-\x08\x0b-\x1f\ufffe\uffff]*"
"""What XML 1.0 allows as text and means as it stands: no entity, no line end that a parser would have to change."""
_VAL = (
    r'<val(?: type="(\w+)")? xsi:type="([\w:]+)"(?: type="(\w+)")?>'
    rf'({_TEXT}|(?:<ManagedObjectReference type="\w+">{_TEXT}</ManagedObjectReference>)+)</val>'
)
_UPDATE = re.compile(rf'<objectSet><kind>(\w+)</kind><obj type="(\w+)">({_TEXT})</obj>', re.ASCII)
_CHANGE = re.compile(rf"<changeSet><name>({_TEXT})</name><op>(\w+)</op>(?:{_VAL})?", re.ASCII)
_CONTENT = re.compile(rf'<objects><obj type="(\w+)">({_TEXT})</obj>', re.ASCII)
_PROPERTY = re.compile(rf"<propSet><name>({_TEXT})</name>{_VAL}", re.ASCII)
_FIELD = re.compile(rf'<(\w+)(?: type="(\w+)")?>({_TEXT})</\1>', re.ASCII)
_REFERENCE = re.compile(rf'<ManagedObjectReference type="(\w+)">({_TEXT})</ManagedObjectReference>', re.ASCII)

_BOOLS = {"true": True, "false": False, "1": True, "0": False}


class Unknown(Exception):
    """What is not read here."""


class PropertyChange(NamedTuple):
    """``PropertyChange``. ``val`` is None for a property that became unset."""

    name: str
    op: Any
    val: Any


class ObjectUpdate(NamedTuple):
    """``ObjectUpdate``. One with something in ``missingSet`` is not read here."""

    kind: Any
    obj: Any
    changeSet: list[PropertyChange]  # noqa: N815 - pyVmomi's name
    missingSet: tuple[()] = ()  # noqa: N815 - pyVmomi's name


class FilterUpdate(NamedTuple):
    """``PropertyFilterUpdate``, likewise."""

    filter: Any
    objectSet: list[ObjectUpdate]  # noqa: N815 - pyVmomi's name
    missingSet: tuple[()] = ()  # noqa: N815 - pyVmomi's name


class UpdateSet(NamedTuple):
    """``UpdateSet``."""

    version: str
    filterSet: list[FilterUpdate]  # noqa: N815 - pyVmomi's name
    truncated: bool | None


class DynamicProperty(NamedTuple):
    """``DynamicProperty``."""

    name: str
    val: Any


class ObjectContent(NamedTuple):
    """``ObjectContent``, likewise."""

    obj: Any
    propSet: list[DynamicProperty]  # noqa: N815 - pyVmomi's name
    missingSet: tuple[()] = ()  # noqa: N815 - pyVmomi's name


class RetrieveResult(NamedTuple):
    """``RetrieveResult``."""

    token: str | None
    objects: list[ObjectContent]


class _Start(NamedTuple):
    """The start of an element, its attributes understood where their prefixes are still known."""

    tag: str
    kind: Kind | None = None
    reference: Any = None


class _Whole(NamedTuple):
    """An element that is complete and read."""

    tag: str
    value: Any


class _Members(dict[str, Any]):
    """Members of one enumeration by their text."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, text: str) -> Any:
        member = getattr(self._kind, text)
        if not isinstance(member, self._kind):  # a method of str, say: pyVmomi would hand it out
            raise Unknown(f"{self._kind.__name__} {text[:40]!r}")
        self[text] = member
        return member


def _between_tags(data: bytes) -> int:
    """Where to cut so that no text is cut, nor ends: expat holds back a ``]`` at the end of what it gets."""
    cut = data.rfind(b"><") + 1
    return cut if cut or len(data) < _LONGEST_USUAL else max(data.rfind(b"<"), 0)


def _refuse(*_: Any) -> None:
    raise Unknown("a comment, CDATA, a processing instruction or a document type")


def _date(text: str) -> datetime:
    made: datetime | None = ParseISO8601(text)
    if not made:
        raise Unknown(f"date {text[:40]!r}")
    return made


@dataclass(frozen=True, slots=True)
class _Field:
    """One property of a data object. ``declared``: its type, or that of its elements if there are ``many``."""

    name: str
    declared: Any
    many: bool


class Kind:
    """How values of one type are read: one of ``leaf``, ``reference``, ``item`` and ``fields`` says so."""

    __slots__ = ("_blank", "_lists", "fields", "item", "leaf", "made", "reference")

    def __init__(self, made: Any, namespace: str) -> None:
        self.made = made
        self.leaf: Callable[[str], Any] | None = _leaf(made)
        self.reference = issubclass(made, ManagedObject)
        self.item: Any = None
        self.fields: dict[str, _Field] | None = None
        if issubclass(made, list):
            self.item = made.Item
            if issubclass(self.item, list):
                raise Unknown("an array of arrays")
        elif issubclass(made, DataObject) and not issubclass(made, Exception):
            self.fields = {
                f"{namespace}{NS_SEP}{info.name}": _Field(info.name, *_element(info.type))
                for info in made._GetPropertyList()
            }
            blank = made().__dict__
            self._blank = {name: value for name, value in blank.items() if not isinstance(value, list)}
            self._lists = [(name, type(value)) for name, value in blank.items() if isinstance(value, list)]
        elif self.leaf is None and not self.reference:
            raise Unknown(f"values of {made.__name__}")

    def blank(self) -> dict[str, Any]:
        """The fields of an object of this type that nothing was said of."""
        values = self._blank.copy()
        for name, kind in self._lists:
            values[name] = kind()
        return values

    def made_of(self, values: dict[str, Any]) -> Any:
        """The data object with these fields: what pyVmomi makes, which checks each of them again, under a lock."""
        made = self.made.__new__(self.made)
        made.__dict__.update(values)
        return made


def _element(declared: Any) -> tuple[Any, bool]:
    return (declared.Item, True) if issubclass(declared, list) else (declared, False)


def _leaf(made: Any) -> Callable[[str], Any] | None:
    """How pyVmomi makes a value of this type of a text."""
    if made is str:
        return intern  # thousands of hosts say the same few words
    if made is bool:
        return _BOOLS.__getitem__
    if made is datetime:
        return _date
    if issubclass(made, Enum):
        return _Members(made).__getitem__
    if issubclass(made, (int, float)) or made is PropertyPath:
        return made  # type: ignore[no-any-return]
    return None


class Types:
    """The kinds of values that one stub reads in one API version, as they were met."""

    def __init__(self, stub: Any, version: str, namespace: str) -> None:
        self.stub = stub
        self.version = version
        self.namespace = namespace
        self._lookup = SoapDeserializer(stub, version).LookupWsdlType
        self._kinds: dict[Any, Kind] = {}
        self._named: dict[tuple[str, str], Kind] = {}
        self._references: dict[tuple[str, str], Any] = {}
        self.envelopes: set[tuple[bytes, bytes]] = set()
        """What stood before and after results that expat has read, in UTF-8."""

    def remember(self, head: bytes, tail: bytes) -> None:
        """Add to the envelopes; a server has one for each method."""
        if len(self.envelopes) >= _MOST_ENVELOPES:
            self.envelopes.clear()
        self.envelopes.add((head, tail))

    def kind(self, declared: Any) -> Kind:
        """How to read an element of this type that does not name another. Raises Unknown."""
        kind = self._kinds.get(declared)
        if kind is None:
            kind = self._kinds[declared] = Kind(GetCompatibleType(declared, self.version), self.namespace)
        return kind

    def named(self, namespace: str, name: str) -> Kind:
        """How to read an element with this ``xsi:type``. Raises Unknown, and KeyError as pyVmomi does."""
        kind = self._named.get((namespace, name))
        if kind is None:
            made = self._lookup(namespace, name, allowManagedObjectReference=True)
            kind = self._named[namespace, name] = self.kind(made)
        return kind

    def referred(self, namespace: str, name: str) -> Any:
        """The class of a reference with this ``type``. Raises KeyError as pyVmomi does, and Unknown."""
        made = self._references.get((namespace, name))
        if made is None:
            made = self._lookup(namespace, name)
            if not issubclass(made, ManagedObject):
                raise Unknown(f"a reference to {name[:40]!r}")
            self._references[namespace, name] = made
        return made


class Narrow:
    """The decoder of one answer: :meth:`feed` it pieces, then :meth:`close` it. Raises Unknown, or any Exception."""

    boundary = ""
    """The element that is read as soon as it is complete."""

    def __init__(self, method: str, result: Any, types: Types) -> None:
        self._result = result
        self._types = types
        self._prefix = types.namespace + NS_SEP
        self._method = f"{self._prefix}{method}Response"
        self._boundary = self._prefix + self.boundary
        self._boundary_at: int | None = None
        self._events: list[Any] = []
        self._starts: dict[tuple[str, ...], _Start] = {}
        self._prefixes: dict[str | None, list[str]] = {}
        self._objects: dict[tuple[Any, str], Any] = {}
        self._rest = b""
        self._utf_8 = True
        self._parser: Any = None

    def _new_parser(self) -> Any:
        parser = ParserCreate(namespace_separator=NS_SEP)
        parser.buffer_text = True
        parser.ordered_attributes = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._events.append
        parser.CharacterDataHandler = self._events.append
        parser.StartNamespaceDeclHandler = self._begin_prefix
        parser.EndNamespaceDeclHandler = self._end_prefix
        parser.XmlDeclHandler = self._declared
        parser.CommentHandler = parser.ProcessingInstructionHandler = _refuse
        parser.StartCdataSectionHandler = parser.StartDoctypeDeclHandler = _refuse
        return parser

    # --- from bytes to events --------------------------------------------------------------------------

    def feed(self, piece: bytes) -> None:
        """The next bytes."""
        data = self._rest + piece
        cut = _between_tags(data)
        self._rest = data[cut:]
        self._parse(data[:cut])

    def close(self) -> Any:
        """The result."""
        self._parse(self._rest, final=True)
        self._reduce()
        at = self._entered(0, XMLNS_SOAPENV + NS_SEP + "Envelope")
        at = self._entered(at, XMLNS_SOAPENV + NS_SEP + "Body")
        at = self._entered(at, self._method)
        result, at = self.result(at)
        for tag in (self._method, XMLNS_SOAPENV + NS_SEP + "Body", XMLNS_SOAPENV + NS_SEP + "Envelope"):
            at = self._left(at, tag)
        return result

    def release(self) -> None:
        """Let go of the parser, which holds this object: no garbage collector is needed then."""
        self._parser = None

    def _parse(self, data: bytes, *, final: bool = False) -> None:
        if self._parser is None:
            self._parser = self._new_parser()
        self._parser.Parse(data, final)
        if len(self._events) > MOST_EVENTS:
            raise Unknown("an object without an end")

    def _declared(self, version: str, encoding: str | None, _standalone: int) -> None:
        self._utf_8 = version == "1.0" and (encoding or "utf-8").lower() == "utf-8"

    def _start(self, tag: str, attributes: list[str]) -> None:
        if tag == self._boundary:
            self._reduce()
            self._boundary_at = len(self._events)
        key = (tag, *attributes)
        self._events.append(self._starts.get(key) or self._learn(key))

    def _learn(self, key: tuple[str, ...]) -> _Start:
        """What the start of an element says that was not met before, while its prefixes mean what they mean."""
        tag, *attributes = key
        named = referred = None
        for name, value in zip(attributes[::2], attributes[1::2], strict=True):
            if name == XSI_TYPE:
                named = self._types.named(*self._resolved(value))
            elif name == "type":
                referred = self._types.referred(*self._resolved(value))
            else:
                raise Unknown(f"{name[-40:]!r} of {tag[-40:]!r}")
        return self._starts.setdefault(key, _Start(tag, named, referred))

    def _resolved(self, name: str) -> tuple[str, str]:
        prefix, colon, local = name.partition(":")
        return (self._bound(prefix), local) if colon else (self._bound(None), name)

    def _bound(self, prefix: str | None) -> str:
        bound = self._prefixes.get(prefix)
        return bound[-1] if bound else ""

    def _begin_prefix(self, prefix: str | None, uri: str) -> None:
        self._prefixes.setdefault(prefix, []).append(uri)
        self._forget_names()

    def _end_prefix(self, prefix: str | None) -> None:
        self._prefixes[prefix].pop()
        self._forget_names()

    def _forget_names(self) -> None:
        """Of types: a prefix means something else from here on."""
        self._starts.clear()

    def _reduce(self) -> None:
        """Read the boundary's element, which is complete, and put what it is in its place."""
        at, self._boundary_at = self._boundary_at, None
        if at is not None:
            whole, end = self.whole(at)
            self._events[at:end] = (whole,)

    # --- from events to objects ------------------------------------------------------------------------

    def whole(self, at: int) -> tuple[Any, int]:
        """The boundary's element at this place, read, and the place after it."""
        raise NotImplementedError

    def result(self, at: int) -> tuple[Any, int]:
        """What the method gave."""
        raise NotImplementedError

    def is_start(self, at: int, name: str) -> bool:
        """Whether an element of this name, without attributes, starts here."""
        event = self._events[at]
        return type(event) is _Start and event == (self._prefix + name, None, None)

    def entered(self, at: int, name: str) -> int:
        """The place after the start of this element, which must be here."""
        if not self.is_start(at, name):
            raise Unknown(f"{self._events[at]!r:.60} instead of {name}")
        return at + 1

    def left(self, at: int, name: str) -> int:
        """The place after the end of this element, which must be here."""
        if self._events[at] != self._prefix + name:
            raise Unknown(f"{self._events[at]!r:.60} instead of the end of {name}")
        return at + 1

    def text(self, at: int, name: str) -> tuple[str, int]:
        """The text of this element without attributes, which must start here."""
        return self._text(self.entered(at, name), self._prefix + name)

    def reference(self, at: int, name: str) -> tuple[Any, int]:
        """The reference in this element, which must start here."""
        start = self._events[at]
        if type(start) is not _Start or start.tag != self._prefix + name or start.kind is not None:
            raise Unknown(f"{start!r:.60} instead of {name}")
        text, at = self._text(at + 1, start.tag)
        return self._referring(start.reference, text), at

    def val(self, at: int) -> tuple[Any, int]:
        """The value of a property, which says its type itself."""
        if self._events[at].tag != self._prefix + "val":
            raise Unknown(f"{self._events[at]!r:.60} instead of val")
        return self.value(at, object)

    def value(self, at: int, declared: Any) -> tuple[Any, int]:
        """The value of the element that starts here, of this type if it does not name another."""
        start = self._events[at]
        if type(start) is not _Start:
            raise Unknown(f"{start!r:.60} instead of an element")
        kind = start.kind or self._types.kind(declared)
        if kind.reference:
            text, at = self._text(at + 1, start.tag)
            return self._referring(start.reference, text), at
        if start.reference is not None:
            raise Unknown(f"a type of {start.tag[-40:]!r}")
        if kind.leaf is not None:
            text, at = self._text(at + 1, start.tag)
            return kind.leaf(text), at
        if kind.item is not None:
            return self._array(at + 1, start.tag, kind)
        return self._object(at + 1, start.tag, kind)

    def _array(self, at: int, tag: str, kind: Kind) -> tuple[Any, int]:
        made = kind.made()
        while self._events[at] != tag:
            value, at = self.value(at, kind.item)
            made.append(value)
        return made, at + 1

    def _object(self, at: int, tag: str, kind: Kind) -> tuple[Any, int]:
        assert kind.fields is not None
        values = kind.blank()
        seen = set()
        while (event := self._events[at]) != tag:
            field = kind.fields.get(event.tag)
            if field is None:
                raise Unknown(f"{event.tag[-40:]!r} of {kind.made.__name__}")
            if type(event) is _Whole:
                value, at = event.value, at + 1
            else:
                value, at = self.value(at, field.declared)
            if isinstance(value, list) or not isinstance(value, field.declared):
                raise Unknown(f"{type(value).__name__} as {field.name} of {kind.made.__name__}")
            if field.many:
                values[field.name].append(value)
            elif field.name in seen:
                raise Unknown(f"a second {field.name} of {kind.made.__name__}")
            else:
                seen.add(field.name)
                values[field.name] = value
        return kind.made_of(values), at + 1

    def _text(self, at: int, tag: str) -> tuple[str, int]:
        """The text up to the end of ``tag``. One that reads like an end is taken for it; then the end is too many."""
        text = self._events[at]
        if type(text) is not str:
            raise Unknown(f"an element in {tag[-40:]!r}")
        if text == tag:
            return "", at + 1
        if self._events[at + 1] != tag:
            raise Unknown(f"what follows a text in {tag[-40:]!r}")
        return text, at + 2

    def _referring(self, made: Any, text: str) -> Any:
        """A managed object, one for all references to it."""
        if made is None:
            raise Unknown("a reference without a type")
        found = self._objects.get((made, text))
        if found is None:
            found = self._objects[made, text] = made(text, self._types.stub)
        return found

    def _entered(self, at: int, tag: str) -> int:
        at = self._after_space(at)
        if self._events[at] != _Start(tag):
            raise Unknown(f"{self._events[at]!r:.60} instead of {tag}")
        return at + 1

    def _left(self, at: int, tag: str) -> int:
        at = self._after_space(at)
        if self._events[at] != tag:
            raise Unknown(f"{self._events[at]!r:.60} instead of the end of {tag}")
        return at + 1

    def _after_space(self, at: int) -> int:
        """Servers put line ends between the parts of an envelope."""
        event = self._events[at]
        return at + 1 if type(event) is str and event.isspace() else at


class _Paged(Narrow):
    """A list of objects with their properties.

    An object of the usual form is read by a regular expression, which knows every byte of it; expat gets the document
    without it. That is as good as expat: such an element is well-formed by itself, it stands where one like it or the
    end of a certain element stood before, and nothing that could hide that (a comment, CDATA) is let pass.
    """

    part = ""
    """The element of one property."""
    after: tuple[str, ...] = ()
    """Elements after whose end an object may stand. It may stand after its like in any case."""

    def __init__(self, method: str, result: Any, types: Types) -> None:
        super().__init__(method, result, types)
        self._opening, self._closing = f"<{self.boundary}>".encode(), f"</{self.boundary}>".encode()
        self._part_end, self._object_end = f"</{self.part}>", f"</{self.boundary}>"
        self._ends = {f"</{name}>".encode(): self._prefix + name for name in (self.boundary, *self.after)}
        self._parts: dict[str, Any] = {}
        self._referred: dict[str, Any] = {}
        self._fed = b""
        self._usual: bool | None = None

    def feed(self, piece: bytes) -> None:
        data = self._rest + piece
        done, at = 0, data.find(self._opening)
        while at >= 0:
            end = data.find(self._closing, at) + len(self._closing)
            if end < len(self._closing):
                break
            if done < at:
                self._parse(data[done:at])
                done = at
            if self._may_stand_here():
                whole = self.usual(data[at:end].decode())
                if whole is not None:
                    self._reduce()
                    self._events.append(whole)
                    self._fed, done = self._closing, end
            at = data.find(self._opening, end)
        waiting = at >= 0 and len(data) - at <= _LONGEST_USUAL  # an object whose end is to come
        cut = at if waiting else max(_between_tags(data), done)
        self._rest = data[cut:]
        self._parse(data[done:cut])

    def _parse(self, data: bytes, *, final: bool = False) -> None:
        if data or final:
            super()._parse(data, final=final)
            self._fed = (self._fed + data)[-_LONGEST_TAG:]

    def _may_stand_here(self) -> bool:
        """Whether expat has just seen the end of what may stand before an object, and names mean what they should."""
        tag = self._fed[self._fed.rfind(b"<") :]
        event = self._events[-1] if self._events else None
        if event != self._ends.get(tag, "") and not (tag == self._closing and isinstance(event, self.kind_of_whole)):
            return False
        if self._usual is None:
            self._usual = self._bound(None) == self._types.namespace and self._bound("xsi") == XMLNS_XSI
        return self._usual and self._utf_8

    def _forget_names(self) -> None:
        super()._forget_names()
        self._parts.clear()
        self._referred.clear()
        self._usual = None

    kind_of_whole: type = object
    """What :meth:`usual` and :meth:`whole` make."""

    def usual(self, text: str) -> Any:
        """The object that this text of an element is; None if it has not the usual form."""
        raise NotImplementedError

    def usual_part(self, text: str) -> Any:
        """The change or property that this text is, without its end; None if it has not the usual form."""
        raise NotImplementedError

    def _usual_parts(self, text: str) -> list[Any] | None:
        """What is changed or told, up to the object's end. What most hosts have in common is read once."""
        *texts, end = text.split(self._part_end)
        if end != self._object_end:
            return None
        parts = []
        for one in texts:
            part = self._parts.get(one)
            if part is None:
                part = self._parts[one] = self.usual_part(one)
                if part is None:
                    return None
            parts.append(part)
        return parts

    def _usual_value(self, first: str | None, named: str, second: str | None, body: str) -> Any:
        """The value of a property; ``_NOT_USUAL`` if its type is one for the long way."""
        kind = self._types.named(*self._resolved(named))
        if first is not None or second is not None:
            if kind.reference and (first is None or second is None):
                return self._usual_reference(first or second, body)
        elif kind.leaf is not None:
            if not body.startswith("<"):
                return kind.leaf(body)
        elif kind.item is not None and issubclass(kind.item, ManagedObject):
            references = _REFERENCE.findall(body)
            if bool(references) == bool(body):
                return kind.made(self._usual_reference(*one) for one in references)
        return _NOT_USUAL

    def _usual_reference(self, named: Any, moid: str) -> Any:
        made = self._referred.get(named)
        if made is None:
            made = self._referred[named] = self._types.referred(*self._resolved(named))
        return self._objects.get((made, moid)) or self._referring(made, moid)


class Updates(_Paged):
    """``WaitForUpdatesEx``."""

    boundary = "objectSet"
    part = "changeSet"
    after = ("filter",)
    kind_of_whole = ObjectUpdate

    def usual(self, text: str) -> ObjectUpdate | None:
        head = _UPDATE.match(text)
        if head is None:
            return None
        changes = self._usual_parts(text[head.end() :])
        if changes is None:
            return None
        kind, reference, moid = head.groups()
        return ObjectUpdate(_UPDATE_KINDS[kind], self._usual_reference(reference, moid), changes)

    def usual_part(self, text: str) -> PropertyChange | None:
        found = _CHANGE.fullmatch(text)
        if found is None:
            return None
        name, op, *val = found.groups()
        value = None if val[1] is None else self._usual_value(*val)
        return None if value is _NOT_USUAL else PropertyChange(intern(name), _CHANGE_OPS[op], value)

    def whole(self, at: int) -> tuple[ObjectUpdate, int]:
        at = self.entered(at, "objectSet")
        kind, at = self.text(at, "kind")
        obj, at = self.reference(at, "obj")
        changes = []
        while self.is_start(at, "changeSet"):
            change, at = self._change(at + 1)
            changes.append(change)
        return ObjectUpdate(_UPDATE_KINDS[kind], obj, changes), self.left(at, "objectSet")

    def _change(self, at: int) -> tuple[PropertyChange, int]:
        name, at = self.text(at, "name")
        op, at = self.text(at, "op")
        val = None
        if self._events[at] != self._prefix + "changeSet":
            val, at = self.val(at)
        return PropertyChange(intern(name), _CHANGE_OPS[op], val), self.left(at, "changeSet")

    def result(self, at: int) -> tuple[UpdateSet | None, int]:
        if self._events[at] == self._method:
            return None, at
        at = self.entered(at, "returnval")
        version, at = self.text(at, "version")
        filters = []
        while self.is_start(at, "filterSet"):
            one, at = self._filter(at + 1)
            filters.append(one)
        truncated = None
        if self.is_start(at, "truncated"):
            text, at = self.text(at, "truncated")
            truncated = _BOOLS[text]
        return UpdateSet(version, filters, truncated), self.left(at, "returnval")

    def _filter(self, at: int) -> tuple[FilterUpdate, int]:
        reference, at = self.reference(at, "filter")
        if not isinstance(reference, vmodl.query.PropertyCollector.Filter):
            raise Unknown("a filter that is none")
        updates = []
        while type(self._events[at]) is ObjectUpdate:
            updates.append(self._events[at])
            at += 1
        return FilterUpdate(reference, updates), self.left(at, "filterSet")


class Contents(_Paged):
    """``RetrievePropertiesEx`` and what continues it."""

    boundary = "objects"
    part = "propSet"
    after = ("token",)
    kind_of_whole = ObjectContent

    def usual(self, text: str) -> ObjectContent | None:
        head = _CONTENT.match(text)
        if head is None:
            return None
        properties = self._usual_parts(text[head.end() :])
        if properties is None:
            return None
        reference, moid = head.groups()
        return ObjectContent(self._usual_reference(reference, moid), properties)

    def usual_part(self, text: str) -> DynamicProperty | None:
        found = _PROPERTY.fullmatch(text)
        if found is None:
            return None
        name, *val = found.groups()
        value = self._usual_value(*val)
        return None if value is _NOT_USUAL else DynamicProperty(intern(name), value)

    def whole(self, at: int) -> tuple[ObjectContent, int]:
        at = self.entered(at, "objects")
        obj, at = self.reference(at, "obj")
        properties = []
        while self.is_start(at, "propSet"):
            name, at = self.text(at + 1, "name")
            val, at = self.val(at)
            at = self.left(at, "propSet")
            properties.append(DynamicProperty(intern(name), val))
        return ObjectContent(obj, properties), self.left(at, "objects")

    def result(self, at: int) -> tuple[RetrieveResult | None, int]:
        if self._events[at] == self._method:
            return None, at
        at = self.entered(at, "returnval")
        token = None
        if self.is_start(at, "token"):
            token, at = self.text(at, "token")
        contents = []
        while type(self._events[at]) is ObjectContent:
            contents.append(self._events[at])
            at += 1
        return RetrieveResult(token, contents), self.left(at, "returnval")


class Runtime(Narrow):
    """``QueryRuntime`` of an agency or an agent: one data object, maybe with thousands of issues.

    One of plain fields alone, which nearly all agents have, is read by a regular expression, in an envelope that expat
    has read before: then it means the same again.
    """

    boundary = "issue"

    def __init__(self, method: str, result: Any, types: Types) -> None:
        super().__init__(method, result, types)
        self._held: bytes | None = b""

    def feed(self, piece: bytes) -> None:
        if self._held is not None:
            piece = self._held + piece
            if len(piece) <= _LONGEST_USUAL:
                self._held = piece
                return
            self._held = None
        super().feed(piece)

    def close(self) -> Any:
        if self._held is None:
            return super().close()
        head, _, rest = self._held.partition(b"<returnval>")
        inside, _, tail = rest.partition(b"</returnval>")
        if (head, tail) in self._types.envelopes:
            result = self._usual(inside.decode())
            if result is not None:
                return result
        super().feed(self._held)
        result = super().close()
        if self._utf_8:
            self._types.remember(head, tail)
        return result

    def _usual(self, text: str) -> Any:
        """The result that these fields are; None if they have not the usual form."""
        kind = self._types.kind(self._result)
        if kind.fields is None:
            return None
        values, seen, at = kind.blank(), set(), 0
        for one in _FIELD.finditer(text):
            if one.start() != at:
                return None
            at = one.end()
            name, reference, body = one.groups()
            field = kind.fields.get(self._prefix + name)
            if field is None or name in seen:
                return None
            value = self._usual_value(field, reference, body)
            if value is None:
                return None
            if field.many:
                values[name].append(value)
            else:
                seen.add(name)
                values[name] = value
        return kind.made_of(values) if at == len(text) else None

    def _usual_value(self, field: _Field, reference: str | None, body: str) -> Any:
        if reference is None:
            leaf = self._types.kind(field.declared).leaf
            value = None if leaf is None else leaf(body)
        else:
            value = self._types.referred(self._types.namespace, reference)(body, self._types.stub)
        return value if isinstance(value, field.declared) else None

    def whole(self, at: int) -> tuple[_Whole, int]:
        value, end = self.value(at, eam.issue.Issue)
        return _Whole(self._prefix + "issue", value), end

    def result(self, at: int) -> tuple[Any, int]:
        if self._events[at] == self._method:
            return None, at
        if self._events[at].tag != self._prefix + "returnval":
            raise Unknown(f"{self._events[at]!r:.60} instead of a result")
        return self.value(at, self._result)


class References(Narrow):
    """Any method that gives a list of references."""

    boundary = "returnval"

    def whole(self, at: int) -> tuple[_Whole, int]:
        value, end = self.reference(at, "returnval")
        if not isinstance(value, self._result.Item):
            raise Unknown(f"{type(value).__name__} in {self._result.__name__}")
        return _Whole(self._prefix + "returnval", value), end

    def result(self, at: int) -> tuple[Any, int]:
        made = self._result()
        while type(self._events[at]) is _Whole:
            made.append(self._events[at].value)
            at += 1
        return made, at


_Collector = vmodl.query.PropertyCollector
_UPDATE_KINDS = _Members(_Collector.ObjectUpdate.Kind)
_CHANGE_OPS = _Members(_Collector.Change.Op)

DECODERS: dict[str, type[Narrow]] = {
    "WaitForUpdatesEx": Updates,
    "RetrievePropertiesEx": Contents,
    "ContinueRetrievePropertiesEx": Contents,
    "AgentQueryRuntime": Runtime,
    "AgencyQueryRuntime": Runtime,
    "QueryAgent": References,
}
"""By the method's name on the wire: what is read in pages, thousands of times, or with all issues of a fleet."""
