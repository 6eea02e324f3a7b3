# SPDX-License-Identifier: Apache-2.0
"""Builds the Go client of ``tests/govmomi_client`` once into ``.cache/``.

Without Go the tests that need it are skipped with one reason; under ``CI=true`` that is a failure.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "govmomi_client"
BUILD_SECONDS = 540


def _unavailable(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def build() -> Path:
    """Path of the binary; built again only when its sources changed."""
    digest = hashlib.sha256()
    for name in ("main.go", "go.mod", "go.sum"):
        digest.update((SOURCE / name).read_bytes())
    binary = ROOT / ".cache" / f"govmomi-client-{digest.hexdigest()[:12]}"
    if binary.exists():
        return binary
    go = shutil.which("go")
    if go is None:
        _unavailable("govmomi client: no Go tool chain found on PATH, so only pyVmomi is tested as a client")
    binary.parent.mkdir(exist_ok=True)
    # Built beside and renamed: two test runs at once never start a half-written file.
    with tempfile.TemporaryDirectory(dir=binary.parent) as scratch:
        made = Path(scratch) / "client"
        result = subprocess.run(
            [str(go), "build", "-o", str(made), "."],
            cwd=SOURCE,
            env={**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false"},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        if result.returncode != 0:
            _unavailable(f"govmomi client: cannot be built from the pinned module: {result.stderr.strip()[-500:]}")
        made.rename(binary)
    return binary
