# SPDX-License-Identifier: Apache-2.0
"""A long list in pages: which part of it is asked for, in the words of the API and of the status page alike.

Entries are counted from 1, as the list is now; ``after`` is the number of the last one that was read, and ``limit`` how
many are wanted. Not promised: that a list stands still between two pages. Whoever needs one picture asks for all of it
at once; a plan's digest tells whether two pages are of the same plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from vcenter_eam_plugin.domain.errors import ProtocolError

MOST = 1_000_000
"""Far beyond every list that there is; what is larger is no number of an entry."""

T = TypeVar("T")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """``limit`` entries after the one with number ``after``; all that follow it when ``limit`` is ``None``."""

    after: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST)] | None = None

    def of(self, entries: Sequence[T]) -> Sequence[T]:
        """Those of ``entries`` that are asked for."""
        return entries[self.after : None if self.limit is None else self.after + self.limit]

    def within(self, total: int) -> Part:
        """This page, or the last one there is: a list may have become shorter since its page before was read."""
        if self.limit is None or self.after < max(total, 1):
            return self
        return Part(after=(max(total, 1) - 1) // self.limit * self.limit, limit=self.limit)

    def next(self, total: int) -> int | None:
        """``after`` of the next page of ``total`` entries; ``None`` when this was the last."""
        if self.limit is None or self.after + self.limit >= total:
            return None
        return self.after + self.limit

    def shown(self, total: int) -> Shown:
        """For people."""
        last = total if self.limit is None else min(self.after + self.limit, total)
        before = None if not self.after else max(self.after - (self.limit or self.after), 0)
        return Shown(min(self.after + 1, last), last, total, before, self.next(total))


@dataclass(frozen=True, slots=True)
class Shown:
    """The numbers of the first and the last entry on a page, of how many; ``after`` of the pages before and behind it,
    ``None`` where there is none."""

    first: int
    last: int
    total: int
    before: int | None
    next: int | None

    @property
    def is_all(self) -> bool:
        """Whether there is nothing beside it."""
        return self.before is None and self.next is None


def part_of(asked: Mapping[str, str]) -> Part:
    """From a query's ``after`` and ``limit``. Raises ProtocolError."""
    given = {name: asked[name] for name in Part.__struct_fields__ if name in asked}
    try:
        return msgspec.convert(given, Part, strict=False)
    except msgspec.ValidationError as exc:
        raise ProtocolError(f"The request is not understood: {exc}.") from exc
