# SPDX-License-Identifier: Apache-2.0
"""What it means to lead: one term at a time, and only for as long as it is certain.

Whoever leads publishes and acts; the others watch. A lead that was lost, even for a moment, is lost: another may have
begun a term meanwhile, so what follows is a new term with a higher epoch, never the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


class Term:
    """One lead, from its beginning to its end. Two terms are never equal, also with the same numbers.

    ``epoch`` is greater than that of every earlier term of the same vCenter, whoever led; ``None`` leaves it to the
    outbox, for an instance of which there is but one.
    """

    __slots__ = ("epoch",)

    def __init__(self, epoch: int | None = None) -> None:
        self.epoch = epoch

    def __repr__(self) -> str:
        return f"Term({self.epoch})"


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that a person decided, and that holds whichever instance leads: a pause, a cluster in retreat ...

    ``get`` gives it as bytes, always the same for the same decision. ``take`` puts another instance's in its place;
    it raises PluginError for what it cannot read: that may forbid something.
    """

    get: Callable[[], bytes]
    take: Callable[[bytes], None]


class Leadership(Protocol):
    """Says who leads one vCenter. ``start`` and ``stop`` surround it; both return at once or within their time."""

    def share(self, decisions: Mapping[str, Decision]) -> None:
        """Before the start: have these, by name, hold for whoever leads. They are taken over before a term begins."""

    def decided(self) -> None:
        """One of them has changed just now: let the others know soon."""

    def start(self, changed: Callable[[], None] = lambda: None) -> None:
        """``changed`` is called when a term began or ended, as far as that is noticed here; it must not block."""

    def stop(self, timeout: float) -> None:
        """Give up the lead, so that another need not wait for it, within ``timeout`` seconds."""

    def term(self) -> Term | None:
        """The term that we lead in now, or ``None``. Asks no server: it may be called before every write."""

    def leader(self) -> str:
        """Who leads as far as is known, for people; empty when nobody does or nobody knows."""

    def trouble(self) -> str:
        """Why nobody can be elected, as one sentence; empty when all is well."""
