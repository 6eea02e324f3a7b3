# SPDX-License-Identifier: Apache-2.0
"""What people decided, as the bytes in which instances hand it to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from vcenter_eam_plugin.domain.errors import ProtocolError
from vcenter_eam_plugin.domain.leadership import Decision

T = TypeVar("T")


def shared(kind: Any, get: Callable[[], T], take: Callable[[T], None]) -> Decision:
    """A decision of type ``kind`` (what msgspec takes for one), in JSON."""

    def take_bytes(data: bytes) -> None:
        try:
            value = msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
            raise ProtocolError(f"{exc}.") from exc
        take(value)

    return Decision(lambda: msgspec.json.encode(get(), order="deterministic"), take_bytes)
