# SPDX-License-Identifier: Apache-2.0
"""What two decoders made of the same bytes, held against each other as vsphere/narrow.py promises it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pyVmomi.SoapAdapter import SoapResponseDeserializer
from pyVmomi.VmomiSupport import DataObject, GetQualifiedWsdlName, GetWsdlMethod, ManagedObject, PropertyPath

from vcenter_eam_plugin.vsphere import narrow
from vcenter_eam_plugin.vsphere.decoding import Decoding

TUPLES = (
    narrow.UpdateSet,
    narrow.FilterUpdate,
    narrow.ObjectUpdate,
    narrow.PropertyChange,
    narrow.RetrieveResult,
    narrow.ObjectContent,
    narrow.DynamicProperty,
)
UNREAD: dict[str, Any] = {"dynamicType": None, "dynamicProperty": []}


def differences(ours: Any, theirs: Any, where: str = "result") -> list[str]:
    """In which places the narrow decoder's result is not pyVmomi's."""
    if isinstance(ours, TUPLES):
        found = _fields(ours, theirs, ours._fields, where)
        left = {name: value for name, value in theirs.__dict__.items() if name not in ours._fields}
        return found + [f"{where}.{name} is {value!r}" for name, value in left.items() if value != UNREAD.get(name)]
    if isinstance(ours, (list, tuple)):
        plain = where.endswith(("Set", "objects"))
        if not (isinstance(theirs, list) if plain else type(ours) is type(theirs)) or len(ours) != len(theirs):
            return [f"{where}: {ours!r} and {theirs!r}"]
        return [
            one for n, (o, t) in enumerate(zip(ours, theirs, strict=True)) for one in differences(o, t, f"{where}[{n}]")
        ]
    if where.endswith("].name"):
        return (
            []
            if type(ours) in (str, PropertyPath) and str(ours) == str(theirs)
            else [f"{where}: {ours!r} and {theirs!r}"]
        )
    if type(ours) is not type(theirs):
        return [f"{where}: {type(ours)} and {type(theirs)}"]
    if isinstance(ours, DataObject):
        if ours.__dict__.keys() != theirs.__dict__.keys():
            return [f"{where}: {ours.__dict__.keys() ^ theirs.__dict__.keys()}"]
        return _fields(ours, theirs, ours.__dict__, where)
    if isinstance(ours, ManagedObject):
        same = (ours._moId, ours._stub, ours._serverGuid) == (theirs._moId, theirs._stub, theirs._serverGuid)
    else:
        same = bool(ours == theirs)
    return [] if same else [f"{where}: {ours!r} and {theirs!r}"]


def _fields(ours: Any, theirs: Any, names: Iterable[str], where: str) -> list[str]:
    return [one for name in names for one in differences(getattr(ours, name), getattr(theirs, name), f"{where}.{name}")]


class Stub:
    """As much of a stub as decoders look at."""

    def __init__(self, version: str) -> None:
        self.version = version

    @staticmethod
    def SupportServerGUIDs() -> bool:  # noqa: N802 - pyVmomi's name
        return False


class Sent:
    """An answer made of bytes, which come ``most`` at a time."""

    def __init__(self, body: bytes, most: int = 1 << 30, status: int = 200) -> None:
        self.status = status
        self.reason = "because"
        self._body = io.BytesIO(body)
        self._most = most

    def read(self, amt: int | None = None) -> bytes:
        return self._body.read(self._most if amt is None else min(amt, self._most))


class Both:
    """One method's answers, decoded by either."""

    def __init__(self, kind: Any, method: str, version: str) -> None:
        self.stub = Stub(version)
        self.namespace = GetQualifiedWsdlName(kind)[0]
        self.info = GetWsdlMethod(self.namespace, method).info
        self.fallen_back: Counter[str] = Counter()
        self._mo = kind("mo-1", self.stub)
        self._decoding = Decoding(self.stub, self.fallen_back)
        self._types = narrow.Types(self.stub, version, self.namespace)

    def pyvmomi(self, body: bytes) -> Any:
        return SoapResponseDeserializer(self.stub).Deserialize(Sent(body), self.info.result)

    def narrowly(self, body: bytes, most: int = 1 << 30) -> Any:
        """By the narrow decoder alone; raises where it would leave the answer to pyVmomi."""
        decoder = narrow.DECODERS[self.info.wsdlName](self.info.wsdlName, self.info.result, self._types)
        try:
            for at in range(0, len(body), most):
                decoder.feed(body[at : at + most])
            return decoder.close()
        finally:
            decoder.release()

    def decoded(self, body: bytes, most: int = 1 << 30) -> Any:
        """As a session has it: by the narrow decoder, and pyVmomi for what that does not know."""
        return self._decoding.result(self._mo, self.info, Sent(body, most))
