# SPDX-License-Identifier: Apache-2.0
"""The configured scope over restarts, and the clusters that an operator drains.

A path that no longer resolves (renamed, moved, removed) keeps the moref that it had: what runs there is still
ours, and only a person takes a cluster out of the scope. One JSON file per vCenter, in the state directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from vcenter_eam_plugin.domain.errors import ConfigurationError, ScopeError, Unavailable
from vcenter_eam_plugin.domain.facts import ComputeResourceFacts


class _Kept(msgspec.Struct):
    morefs: dict[str, str] = {}
    """Path as it is configured -> moref."""
    retreat: list[str] = []
    """Morefs of compute resources that are drained."""


class ScopeMemory:
    """Raises ConfigurationError for a file that cannot be read, Unavailable for one that cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = self._read()

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
        self._write()
        return tuple(dict.fromkeys(morefs)), tuple(troubles)

    @property
    def retreat(self) -> frozenset[str]:
        """Compute resources that are drained (morefs)."""
        return frozenset(self._kept.retreat)

    def set_retreat(self, morefs: Iterable[str]) -> None:
        """Remember which are drained."""
        self._kept.retreat = sorted(morefs)
        self._write()

    def _read(self) -> _Kept:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return _Kept()
        except (OSError, msgspec.MsgspecError) as exc:
            raise ConfigurationError(
                f"The remembered scope in {self._path} cannot be read: {exc}.",
                remedy="Restore the file, or move it away: clusters in retreat are then deployed to again.",
            ) from exc

    def _write(self) -> None:
        beside = self._path.with_suffix(".new")
        try:
            beside.write_bytes(msgspec.json.encode(self._kept))
            beside.replace(self._path)
        except OSError as exc:
            raise Unavailable(f"The scope cannot be remembered in {self._path}: {exc.strerror}.") from exc
