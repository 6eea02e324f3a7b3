# SPDX-License-Identifier: Apache-2.0
"""One rule for what a peer says in a shape that nobody foresaw: it is a ProtocolError, wherever it is noticed.

A library that decodes answers gives what it was sent: a text where an object belongs, nothing where there is always
something. The code that reads such an answer fails somewhere in the middle, in Python's own words.
"""

from __future__ import annotations

from types import TracebackType

from vcenter_eam_plugin.domain.errors import ProtocolError

_NOT_AS_FORESEEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_SHOWN = 200
"""Characters of Python's own words, which may quote what was sent."""


class understood:  # noqa: N801 - read as a word: with understood("the answer of ...")
    """``with understood(where)`` around code that takes an answer apart. ``where`` names server and operation."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, _NOT_AS_FORESEEN):
            said = f"{type(exc).__name__}: {exc}"[:_SHOWN]
            raise ProtocolError(f"{self._where}: what was answered is not understood ({said}).") from exc
