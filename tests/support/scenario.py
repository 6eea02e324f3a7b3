# SPDX-License-Identifier: Apache-2.0
"""What several scenario tests ask: which calls went over the wire, and whether a listener could follow the messages."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vcenter_eam_plugin.simulator.dispatch import cookie_of, method_of
from vcenter_eam_plugin.simulator.server import Simulator

SERVED_BY_CONNECTING = frozenset({"Login", "Logout", "RetrieveServiceContent"})


@dataclass(frozen=True, slots=True)
class WireCall:
    """One SOAP call as it reached the simulated vCenter. ``user`` is empty before a login."""

    at: float
    path: str
    method: str
    user: str


class Wire:
    """Everything that is called from now on, reads included (the journal has writes alone)."""

    def __init__(self, simulator: Simulator) -> None:
        self.calls: list[WireCall] = []
        answer = simulator.dispatcher.answer

        def counted(path: str, body: bytes, action: str, cookie: str | None, *rest: Any) -> Any:
            session = simulator.sessions.by_cookie(cookie_of(cookie))
            user = "" if session is None else session.user_name
            self.calls.append(WireCall(time.monotonic(), path, method_of(body), user))
            return answer(path, body, action, cookie, *rest)

        simulator.dispatcher.answer = counted  # type: ignore[method-assign] # its own instance, for one test

    def count(self, method: str) -> int:
        return sum(call.method == method for call in self.calls)

    def methods(self, since: int = 0) -> Counter[str]:
        """How often each method was called, from the call with index ``since`` on."""
        return Counter(call.method for call in self.calls[since:])


def assert_can_be_followed(messages: Iterable[Mapping[str, Any]]) -> None:
    """S18, over all that a listener received: per key the position grows, each change begins where the last ended."""
    position: dict[str, tuple[int, int]] = {}
    state: dict[str, str | None] = {}
    for message in messages:
        key = message["key"]
        if key is None:
            continue
        here = (message["epoch"], message["seq"])
        assert here > position.get(key, (0, 0)), f"{key}: {here} came after {position[key]}"
        position[key] = here
        if message["event"] == "state":
            assert message["state"] != state.get(key), f"{key}: {message['state']} twice in a row"
            if key in state:
                assert message["old_state"] == state[key], f"{key}: a change from what was not"
        elif key in state:
            assert message["state"] == state[key], f"{key}: {message['event']} changed the state"
        state[key] = None if message["oper"] == "DELETE" else message["state"]
        assert message["vrouter"]["active"] == (message["state"] == "ACTIVE")
