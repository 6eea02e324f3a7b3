# SPDX-License-Identifier: Apache-2.0
"""The configured scope over restarts, and the clusters that an operator drains.

A path that no longer resolves (renamed, moved, removed) keeps the moref that it had: what runs there is still
ours, and only a person takes a cluster out of the scope. One JSON file per vCenter, in the state directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from vcenter_eam_plugin.domain.errors import ScopeError
from vcenter_eam_plugin.domain.facts import ComputeResourceFacts
from vcenter_eam_plugin.state_file import StateFile


class _Kept(msgspec.Struct):
    morefs: dict[str, str] = {}
    """Path as it is configured -> moref."""
    retreat: list[str] = []
    """Morefs of compute resources that are drained."""


class ScopeMemory:
    """Raises ConfigurationError for a file that cannot be read, Unavailable for one that cannot be written."""

    def __init__(self, path: Path) -> None:
        self._file = StateFile(
            path, _Kept, what="The remembered scope", without="clusters in retreat are deployed to again"
        )
        self._kept = self._file.read() or _Kept()

    def resolve(
        self, paths: Sequence[str], match: Callable[[Sequence[str]], tuple[ComputeResourceFacts, ...]]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Morefs of the configured paths, and what is wrong with those that were kept from before.

        Raises ScopeError for a path that does not resolve and never did.
        """
        morefs: list[str] = []
        troubles: list[str] = []
        for path in paths:
            try:
                found = match([path])[0].moref
            except ScopeError as exc:
                known = self._kept.morefs.get(path)
                if known is None:
                    raise
                found = known
                troubles.append(f"{exc} It keeps {known}, which it was before.")
            self._kept.morefs[path] = found
            morefs.append(found)
        self._file.write(self._kept)
        return tuple(dict.fromkeys(morefs)), tuple(troubles)

    @property
    def retreat(self) -> frozenset[str]:
        """Compute resources that are drained (morefs)."""
        return frozenset(self._kept.retreat)

    def set_retreat(self, morefs: Iterable[str]) -> None:
        """Remember which are drained."""
        self._kept.retreat = sorted(morefs)
        self._file.write(self._kept)
