# SPDX-License-Identifier: Apache-2.0
"""Whether anything may be changed in vCenter just now: mode, pause and leadership in one question."""

from __future__ import annotations

from collections.abc import Callable

from vcenter_eam_plugin.domain.errors import WrongState


class Gate:
    """Starts in observe mode unless told otherwise. ``is_leader`` is asked anew at every question; ``leader`` names who
    leads as far as is known, for people.

    ``paused`` is what was remembered from before, ``remember`` keeps it: an operator's pause must not end because a
    supervisor restarted us.
    """

    def __init__(
        self,
        *,
        act: bool,
        is_leader: Callable[[], bool],
        leader: Callable[[], str] = lambda: "",
        paused: bool = False,
        remember: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._act = act
        self._paused = paused
        self._is_leader = is_leader
        self._leader = leader
        self._remember = remember

    @property
    def paused(self) -> bool:
        """Whether an operator paused it."""
        return self._paused

    def take_pause(self, paused: bool) -> None:
        """Whether the instance that led before us was paused: then we are."""
        self._paused = paused
        self._remember(paused)

    @property
    def mode(self) -> str:
        """``observe``, ``act`` or ``paused``."""
        if not self._act:
            return "observe"
        return "paused" if self._paused else "act"

    def activate(self) -> None:
        """From now on act, and no longer pause."""
        self._act, self._paused = True, False
        self._remember(False)

    def pause(self) -> None:
        """Stop acting until :meth:`activate`, over restarts; watching and publishing go on.

        It counts at once. Raises Unavailable when it could not be remembered.
        """
        self._paused = True
        self._remember(True)

    def closed(self) -> str:
        """Why nothing may be changed, or an empty string."""
        if not self._act:
            return "observe mode: nothing is changed until it is activated"
        if self._paused:
            return "paused by an operator"
        if self._is_leader():
            return ""
        leader = self._leader()
        return f"this instance does not lead; {leader} does" if leader else "this instance does not lead"

    def check(self) -> None:
        """Ask right before a write. Raises WrongState when nothing may be changed (any more)."""
        why = self.closed()
        if why:
            raise WrongState(f"Nothing was changed: {why}.")
