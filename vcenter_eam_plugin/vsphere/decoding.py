# SPDX-License-Identifier: Apache-2.0
"""From the answer to a method to its result: by the narrow decoder where there is one, else by pyVmomi.

What the narrow decoder does not know it leaves, at whatever byte it notices, and pyVmomi reads the same bytes from the
first on: results, faults and errors are then exactly pyVmomi's, for ten to twenty times as much computing. How often
that happened is counted, since nothing else would tell.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import lru_cache
from http.client import HTTPException
from typing import Any, Protocol
from xml.parsers.expat import ExpatError

from pyVmomi.SoapAdapter import SoapResponseDeserializer
from pyVmomi.VmomiSupport import GetQualifiedWsdlName

from vcenter_eam_plugin.turns import Turns
from vcenter_eam_plugin.vsphere.narrow import DECODERS, Narrow, Types, Unknown

log = logging.getLogger(__name__)

PIECE = 16 << 10
"""Bytes read and decoded between two places for a turn: half a millisecond of computing."""


_SHOWN = 200
"""Characters of why an answer was left, which may quote what was sent."""
_NOT_READ = (Unknown, ExpatError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What the narrow decoder raises, or Python within it, where an answer is not as it foresees."""


class _Left(Exception):
    """Why the narrow decoder does not read on."""


class Body(Protocol):
    """What is needed of an answer; :class:`vcenter_eam_plugin.vsphere.answer.Answer` is one."""

    status: int
    reason: str

    def read(self, amt: int | None = None) -> bytes: ...


class Decoding:
    """Decodes for one stub. ``fallen_back`` counts answers that were left to pyVmomi, by method."""

    def __init__(self, stub: Any, fallen_back: Counter[str]) -> None:
        self._stub = stub
        self._fallen_back = fallen_back
        self._types: dict[tuple[str, str], Types] = {}

    def result(self, mo: Any, info: Any, answer: Body) -> Any:
        """What ``answer`` says came of method ``info`` of ``mo``: its result, or with HTTP status 500 the fault.

        Raises HTTPException for any other status, what pyVmomi raises, and what reading raises.
        """
        if answer.status not in (200, 500):
            raise HTTPException(f"{answer.status} {answer.reason}")
        decoder = DECODERS.get(info.wsdlName)
        if decoder is None or answer.status != 200:
            return self._by_pyvmomi(info, answer)
        narrow = decoder(info.wsdlName, info.result, self._types_of(mo))
        kept: list[bytes] = []
        try:
            return _narrowly(narrow, answer, kept)
        except _Left as left:
            if not self._fallen_back[info.wsdlName]:
                log.info("An answer to %s is decoded the slow way, as others may be: %s", info.wsdlName, left)
            self._fallen_back[info.wsdlName] += 1
        finally:
            narrow.release()
        return self._by_pyvmomi(info, _Again(kept, answer))

    def _by_pyvmomi(self, info: Any, answer: Any) -> Any:
        return SoapResponseDeserializer(self._stub).Deserialize(answer, info.result)

    def _types_of(self, mo: Any) -> Types:
        """Types are remembered per version, which may change with a login."""
        namespace = _namespace(mo.__class__)
        key = (self._stub.version, namespace)
        types = self._types.get(key)
        if types is None:
            types = self._types[key] = Types(self._stub, self._stub.version, namespace)
        return types


@lru_cache(maxsize=64)  # more than the types whose methods are called; pyVmomi takes a lock for each answer
def _namespace(kind: Any) -> str:
    return str(GetQualifiedWsdlName(kind)[0])


def _narrowly(narrow: Narrow, answer: Body, kept: list[bytes]) -> Any:
    """The result. What was read is in ``kept``. Raises _Left, and what reading raises."""
    while piece := answer.read(PIECE):
        kept.append(piece)
        try:
            narrow.feed(piece)
        except _NOT_READ as exc:
            raise _Left(f"{type(exc).__name__}: {exc}"[:_SHOWN]) from exc
    try:
        return narrow.close()
    except _NOT_READ as exc:
        raise _Left(f"{type(exc).__name__}: {exc}"[:_SHOWN]) from exc


class _Again:
    """An answer from its first byte, of which some was read already."""

    def __init__(self, kept: list[bytes], answer: Body) -> None:
        self._kept = b"".join(kept)
        self._at = 0
        self._answer = answer
        self._turns = Turns()

    def read(self, amt: int) -> bytes:
        """Up to ``amt`` bytes."""
        self._turns.give()
        piece = self._kept[self._at : self._at + amt]
        self._at += len(piece)
        return piece or self._answer.read(amt)
