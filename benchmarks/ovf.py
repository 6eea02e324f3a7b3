# SPDX-License-Identifier: Apache-2.0
"""Four downloads of a package at once from the OVF server, against nginx with the same file, by HTTP.

The file has no blocks on the disk and is read once before: what is measured is serving, and not a disk. Each server is
a process of its own, and so is each download (:mod:`benchmarks.download`), which costs next to nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.installation import read_holds
from benchmarks.processes import most_resident_kib, resident_kib
from benchmarks.row import Effort, Row, at_least, at_most
from tests.support.rabbit import free_port, listens, wait_for
from vcenter_eam_plugin.simulator.sample_ovf import DESCRIPTOR_NAME, DISK_BYTES, DISK_NAME, write_sample

DOWNLOADS = 4
BYTES, QUICK_BYTES = 2 << 30, 1 << 30
HOLD = 50.0
"""Milliseconds for which the loop may be held."""
GROWTH = 4.0
"""MiB: a connection has its buffers, and four have no more whatever the file's size."""
START_SECONDS = 60.0

NGINX = """
daemon off;
worker_processes auto;
error_log {folder}/error.log;
pid {folder}/pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""
"""Debian's own settings, with what it needs to run as anybody and anywhere."""


def measure(effort: Effort) -> Iterator[Row]:
    """Throughput, memory, and the event loop meanwhile."""
    size = QUICK_BYTES if effort.quick else BYTES
    with tempfile.TemporaryDirectory(prefix="eam-benchmark-") as name:
        folder = Path(name)
        package = _package(folder / "package", size)
        with _nginx(folder, package.parent) as theirs, _ours(folder, package) as (ours, pid):
            before, began = resident_kib(pid), time.monotonic()
            value, floor, ratio = effort.paired(lambda: _throughput(ours, size), lambda: _throughput(theirs, size))
            grown = (most_resident_kib(pid) - before) / 1024
            holds = read_holds(folder / "holds", began)
    note = f"{DOWNLOADS} at once of {size >> 20} MiB, against nginx"
    yield effort.row("ovf: throughput", value, unit="MiB/s", floor=floor, ratio=ratio, goal=at_least(0.5), note=note)
    most = max((hold.cpu for hold in holds), default=0.0) * 1e3
    wall = max((hold.seconds for hold in holds), default=0.0) * 1e3
    yield effort.row("loop: downloads", most, unit="ms", goal=at_most(HOLD), note=f"computing; wall {wall:.0f} ms")
    note = f"from {before / 1024:.1f} MiB, for {DOWNLOADS} downloads"
    yield effort.row("ovf: memory", grown, unit="MiB more", goal=at_most(GROWTH), note=note)


def _package(folder: Path, size: int) -> Path:
    descriptor = write_sample(folder)
    with (folder / DISK_NAME).open("wb") as disk:
        disk.truncate(size)
    text = descriptor.read_text("utf-8")
    descriptor.write_text(text.replace(f'ovf:size="{DISK_BYTES}"', f'ovf:size="{size}"'), "utf-8")
    return folder / DESCRIPTOR_NAME


def _throughput(url: str, size: int) -> float:
    """MiB a second over all of the downloads at once."""
    command = [sys.executable, "-S", "-m", "benchmarks.download", url]
    began = time.monotonic()
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(DOWNLOADS)]
    try:
        got = [child.communicate(timeout=START_SECONDS * 10)[0].strip() for child in running]
    finally:
        for child in running:
            if child.poll() is None:
                child.kill()
                child.wait()
    seconds = time.monotonic() - began
    assert got == [str(size)] * DOWNLOADS, (url, got)
    return DOWNLOADS * size / 2**20 / seconds


@contextmanager
def _nginx(folder: Path, root: Path) -> Iterator[str]:
    """The URL of the disk."""
    command = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if command is None:
        raise SystemExit("There is no nginx to compare the OVF server with: apt-get install nginx-light.")
    port, own = free_port(), folder / "nginx"
    own.mkdir()
    for path in (folder, root, own):
        path.chmod(0o755)  # as root nginx' workers are somebody else
    (own / "nginx.conf").write_text(NGINX.format(folder=own, port=port, root=root))
    child = subprocess.Popen([command, "-e", f"{own}/error.log", "-p", str(own), "-c", f"{own}/nginx.conf"])
    try:
        wait_for(lambda: child.poll() is not None or listens(port), START_SECONDS, "nginx listens")
        assert child.poll() is None, (own / "error.log").read_text()
        yield f"http://127.0.0.1:{port}/{DISK_NAME}"
    finally:
        child.terminate()
        child.wait(START_SECONDS)


@contextmanager
def _ours(folder: Path, package: Path) -> Iterator[tuple[str, int]]:
    """The URL of the disk, and the process that serves it."""
    command = [sys.executable, "-m", "benchmarks.ovf_server", str(package), str(folder / "holds")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        assert url, "the OVF server did not start"
        yield url.replace(DESCRIPTOR_NAME, DISK_NAME), child.pid
        child.stdin.close()
        assert child.wait(START_SECONDS) == 0
