# SPDX-License-Identifier: Apache-2.0
"""What each client address asked of the simulated vCenter, and what it was told: counts, since the start.

The journal holds what was *written*; this is what reading costs. Sessions of one address are counted together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Client:
    """``calls`` by ``Type.Operation``, ``updates`` of objects by type as collectors told them; bytes of bodies."""

    calls: Counter[str] = field(default_factory=Counter)
    updates: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "calls": dict(self.calls),
            "updates": dict(self.updates),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }


class Traffic:
    """All clients by address."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}

    def of(self, address: str) -> Client:
        """Whoever calls from this address."""
        return self._clients.setdefault(address, Client())

    def as_dict(self) -> dict[str, Any]:
        """Every client that ever called, by address."""
        return {address: client.as_dict() for address, client in self._clients.items()}
