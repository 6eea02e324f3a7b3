# SPDX-License-Identifier: Apache-2.0
"""One value in one small file of the state directory: read whole, written whole or not at all.

For what must outlive the process and is not the outbox's: which clusters are drained, how far an upgrade is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from vcenter_eam_plugin.domain.errors import ConfigurationError, Unavailable
from vcenter_eam_plugin.permissions import open_private

T = TypeVar("T")


class StateFile(Generic[T]):
    """``kind`` is a msgspec struct; ``what`` names the content in errors, ``without`` what losing the file means."""

    def __init__(self, path: Path, kind: type[T], *, what: str, without: str) -> None:
        self.path = path
        self._kind = kind
        self._what = what
        self._without = without

    def read(self) -> T | None:
        """The value; ``None`` when there is no file. Raises ConfigurationError for one that cannot be read.

        An unreadable file is never taken for an empty one: what it says may forbid something.
        """
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=self._kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as exc:
            raise ConfigurationError(
                f"{self._what} in {self.path} cannot be read: {exc}.",
                remedy=f"Restore the file; or move it away: {self._without}.",
            ) from exc

    def write(self, value: T) -> None:
        """Replace the value; on disk when this returns. Raises Unavailable, and the old value stays."""
        beside = self.path.with_suffix(".new")
        try:
            with os.fdopen(open_private(beside), "wb") as file:
                file.write(msgspec.json.encode(value))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except OSError as exc:
            raise Unavailable(f"{self._what} cannot be written to {self.path}: {exc.strerror}.") from exc

    def forget(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)
