# SPDX-License-Identifier: Apache-2.0
"""Who leads when ZooKeeper is not asked: always we, or whoever a host process says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from vcenter_eam_plugin.domain.leadership import Decision, Term


class Alone:
    """The only instance there is: it leads from its start to its end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._term: Term | None = Term()

    def share(self, decisions: Mapping[str, Decision]) -> None:
        """With nobody."""

    def decided(self) -> None:
        """Nobody to tell."""

    def start(self, changed: Callable[[], None] = lambda: None) -> None:
        """Nothing to do but to say so: it leads."""
        changed()

    def stop(self, timeout: float) -> None:  # noqa: ARG002 - part of the protocol
        """Lead no longer."""
        self._term = None

    def term(self) -> Term | None:
        return self._term

    def leader(self) -> str:
        return self._name if self._term is not None else ""

    def trouble(self) -> str:
        return ""


class HostSays:
    """A host process elects among its own instances, and ``is_master`` says whether this one won.

    It is somebody else's code: what it raises is taken for no, since a leader that is not sure stops.
    """

    def __init__(self, is_master: Callable[[], object], name: str, log: logging.Logger) -> None:
        self._is_master = is_master
        self._name = name
        self._log = log
        self._term: Term | None = None
        self._stopped = False

    def share(self, decisions: Mapping[str, Decision]) -> None:
        """Not done: a host's flag is no way to the others. Each instance keeps what was decided at it."""

    def decided(self) -> None:
        """The same."""

    def start(self, changed: Callable[[], None] = lambda: None) -> None:
        """Nothing to do: the host is asked when it matters, and does not say when its mind changes."""

    def stop(self, timeout: float) -> None:  # noqa: ARG002 - part of the protocol
        self._stopped, self._term = True, None

    def term(self) -> Term | None:
        if self._stopped or not self._asked():
            self._term = None
        elif self._term is None:
            self._term = Term()
        return self._term

    def leader(self) -> str:
        return self._name if self._term is not None else ""

    def trouble(self) -> str:
        return ""

    def _asked(self) -> bool:
        try:
            return bool(self._is_master())
        except Exception:  # noqa: BLE001 - see the class
            self._log.exception("The host's is_master failed; taken for no.")
            return False
