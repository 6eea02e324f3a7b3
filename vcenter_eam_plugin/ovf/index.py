# SPDX-License-Identifier: Apache-2.0
"""Every package that was ever published, kept over restarts: an agency points to a digest for as long as it lives.

A small JSON file that only its owner may read and write, replaced as a whole. An entry says where the bytes of each
file are, their digest, and the stamp by which the file is recognised without reading it again.

Not promised: that the files are still there. Nothing is ever copied; whoever deletes or overwrites the files of a
package takes them away from the agencies that point to it.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

from vcenter_eam_plugin.ovf.descriptor import is_plain_name
from vcenter_eam_plugin.ovf.package import Layout, Package, Piece, with_digests

_VERSION = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Entry:
    """One published package as it was. ``files`` maps names to pieces that are measured."""

    __slots__ = ("descriptor", "digest", "files", "source")

    def __init__(self, source: Path, descriptor: str, digest: str, files: dict[str, Piece]) -> None:
        self.source = source
        self.descriptor = descriptor
        self.digest = digest
        self.files = files


class Index:
    """``path`` of ``None`` keeps nothing over a restart."""

    def __init__(self, path: Path | None, logger: logging.Logger) -> None:
        self._path = path
        self._log = logger
        self._entries: dict[tuple[str, Path], Entry] = {}

    def load(self) -> None:
        """Read what was kept. A damaged index is put aside and said; what is published from then on is kept anew."""
        if self._path is None or not self._path.exists():
            return
        try:
            entries = [_entry(item) for item in _packages(json.loads(self._path.read_bytes()))]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            aside = self._path.with_suffix(".damaged")
            self._log.error(
                "The index of published OVF packages %s cannot be read (%s); it is kept as %s. Packages that are no "
                "longer configured, but that agencies still point to, are not served until they are configured again.",
                self._path,
                type(exc).__name__,
                aside,
            )
            try:
                self._path.replace(aside)
            except OSError as failed:
                self._log.error("%s cannot be renamed: %s.", self._path, failed.strerror)
            return
        self._entries = {(entry.digest, entry.source): entry for entry in entries}

    def located(self, digest: str) -> list[Entry]:
        """Where a package with this digest was published from, the newest first."""
        return [entry for entry in reversed(self._entries.values()) if entry.digest == digest]

    def entries(self) -> tuple[Entry, ...]:
        """All, the newest last."""
        return tuple(self._entries.values())

    def recognise(self, layout: Layout) -> Package | None:
        """The package of ``layout`` without reading it, when it is all as it was when it was last published."""
        for entry in reversed(self._entries.values()):
            if entry.source == layout.source and entry.files.keys() == layout.files.keys():
                known = entry.files
                if all(_same_place(piece, known[name]) for name, piece in layout.files.items()):
                    return with_digests(layout, {name: piece.sha256 for name, piece in known.items()})
        return None

    def add(self, package: Package) -> None:
        """Keep a package; of the same content at the same place the newest entry is kept. A full disk is only said."""
        key = (package.digest, package.source)
        self._entries.pop(key, None)
        self._entries[key] = Entry(package.source, package.descriptor, package.digest, dict(package.files))
        self.save()

    def save(self) -> None:
        """Write it all. Failing is no reason not to serve: it is logged, and tried again with the next change."""
        if self._path is None:
            return
        document = {"version": _VERSION, "packages": [_document(entry) for entry in self._entries.values()]}
        new = self._path.with_suffix(".new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as exc:
            self._log.error(
                "The index of published OVF packages %s cannot be written: %s. After a restart, only packages that "
                "are configured then will be served.",
                self._path,
                exc.strerror,
            )


def _same_place(piece: Piece, known: Piece) -> bool:
    return (piece.path, piece.offset, piece.size, piece.stamp) == (known.path, known.offset, known.size, known.stamp)


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "digest": entry.digest,
        "source": str(entry.source),
        "descriptor": entry.descriptor,
        "files": {
            name: {
                "path": str(piece.path),
                "offset": piece.offset,
                "size": piece.size,
                "stamp": list(piece.stamp),
                "sha256": piece.sha256,
            }
            for name, piece in entry.files.items()
        },
    }


def _packages(document: Any) -> list[Any]:
    if document["version"] != _VERSION or not isinstance(document["packages"], list):
        raise ValueError
    return document["packages"]


def _entry(item: Any) -> Entry:
    files = {name: _piece(piece) for name, piece in item["files"].items()}
    entry = Entry(Path(item["source"]), item["descriptor"], item["digest"], files)
    if not _DIGEST.fullmatch(entry.digest) or entry.descriptor not in files or not all(map(is_plain_name, files)):
        raise ValueError
    return entry


def _piece(item: Any) -> Piece:
    numbers = [item["offset"], item["size"], *item["stamp"]]
    if not all(isinstance(number, int) for number in numbers) or min(numbers[:2]) < 0 or len(numbers) != 7:
        raise ValueError
    if not _DIGEST.fullmatch(item["sha256"]) or "\0" in item["path"]:
        raise ValueError
    dev, inode, length, changed, any_change = numbers[2:]
    return Piece(Path(item["path"]), numbers[0], numbers[1], (dev, inode, length, changed, any_change), item["sha256"])
