# SPDX-License-Identifier: Apache-2.0
"""govmomi's vCenter simulator as the second server of the integration tests: nobody here wrote it.

It is built once from the pinned module in ``tests/vcsim`` into ``.cache/`` and started per use; it ends when
its standard input closes, so it cannot outlive the test run. Without Go the tests that need it are skipped
with one reason; under ``CI=true`` that is a failure, because a skipped second opinion is none.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gevent
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "vcsim"
#: A first build compiles govmomi's 400,000 lines of generated types: a minute or two on two busy cores.
BUILD_SECONDS = 540
START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Vcsim:
    """A running vcsim: address, the only accepted login, the CA file and the certificate's SHA-256 thumbprint."""

    host: str
    port: int
    user: str
    password: str
    ca_file: str
    thumbprint: str


@functools.cache
def build() -> Path | str:
    """Path of the binary, built when the sources changed since it was made; or why there is none, found out once."""
    digest = hashlib.sha256()
    for name in ("main.go", "go.mod", "go.sum"):
        digest.update((SOURCE / name).read_bytes())
    binary = ROOT / ".cache" / f"vcsim-{digest.hexdigest()[:12]}"
    if binary.exists():
        return binary
    go = shutil.which("go")
    if go is None:
        return "vcsim: no Go tool chain found on PATH, so nothing is tested against the second server"
    binary.parent.mkdir(exist_ok=True)
    # Built beside and renamed: two test runs at once never start a half-written file.
    with tempfile.TemporaryDirectory(dir=binary.parent) as scratch:
        made = Path(scratch) / "vcsim"
        result = subprocess.run(
            [go, "build", "-o", str(made), "."],
            cwd=SOURCE,
            env={**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false"},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        if result.returncode != 0:
            return f"vcsim: cannot be built from the pinned govmomi module: {result.stderr.strip()[-500:]}"
        made.rename(binary)
    return binary


def _binary() -> Path:
    """The binary; without it the test is skipped, and under ``CI=true`` it fails."""
    built = build()
    if isinstance(built, Path):
        return built
    if os.environ.get("CI") == "true":
        pytest.fail(built, pytrace=False)
    pytest.skip(built)


@contextmanager
def running(directory: Path, *options: str) -> Iterator[Vcsim]:
    """Start vcsim (``-hosts``, ``-clusters``, ``-dc`` ... as options) and end it afterwards."""
    binary = _binary()
    password = "vcsim-only"
    # vcsim logs every call it does not know; kept in a file for whoever debugs a failed run
    with (directory / "vcsim.log").open("wb") as log:
        process = subprocess.Popen(
            [str(binary), "-password", password, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with gevent.Timeout(START_SECONDS):
            line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"vcsim ended at start: {(directory / 'vcsim.log').read_text()[-500:]}")
        facts = json.loads(line)
        ca_file = directory / "vcsim.pem"
        ca_file.write_text(facts["certificate"])
        der = ssl.PEM_cert_to_DER_cert(facts["certificate"])
        yield Vcsim(
            host=facts["host"],
            port=int(facts["port"]),
            user="administrator@vsphere.local",
            password=password,
            ca_file=str(ca_file),
            thumbprint=":".join(f"{byte:02X}" for byte in hashlib.sha256(der).digest()),
        )
    finally:
        process.stdin.close()
        try:
            process.wait(2)  # it ends in milliseconds, unless a test made it panic with a lock held
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@pytest.fixture
def vcsim(tmp_path: Path) -> Iterator[Vcsim]:
    """A fresh vcsim for one test: 1 datacenter, 2 clusters of 3 hosts, 1 standalone host, 2 VMs each."""
    with running(tmp_path) as server:
        yield server
