# SPDX-License-Identifier: Apache-2.0
"""The map file on disk: the same file all the time, whole lines for whoever reads meanwhile, whole after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gevent
import pytest

from vcenter_eam_plugin.domain.errors import ConfigurationError, Unavailable
from vcenter_eam_plugin.domain.vrouter_map import MapHost
from vcenter_eam_plugin.map_file import Addresses, MapFile

VC = "52f3b0a1-7c1d-4d7e-9a55-0c2f6f0e1a11"
ROOT = Path(__file__).parents[2]


def hosts(count: int, vrouter: str = "10.1.0.{}") -> list[MapHost]:
    return [
        MapHost(f"host-{n}.{VC}", f"esx-{n}.example", f"10.0.0.{n}", vrouter.format(n)) for n in range(1, count + 1)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ESXiToVRouterIp.map"


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "vrouter-map.json"


def test_it_is_written_in_place(path: Path, memory: Path) -> None:
    """A container has this one file mounted: another under its name would not be seen there."""
    path.write_text("theirs:10.9.9.9\n")
    path.chmod(0o640)
    before = path.stat()
    with path.open() as mounted:
        MapFile(path, memory).update(hosts(2), {VC})
        assert mounted.read() == (
            "theirs:10.9.9.9\n10.0.0.1:10.1.0.1\n10.0.0.2:10.1.0.2\nesx-1.example:10.1.0.1\nesx-2.example:10.1.0.2\n"
        )
    after = path.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_over_a_restart_it_still_knows_which_lines_are_ours(path: Path, memory: Path) -> None:
    path.write_text("theirs:10.9.9.9\n")
    MapFile(path, memory).update(hosts(2), {VC})
    MapFile(path, memory).update([], {VC})
    assert path.read_text() == "theirs:10.9.9.9\n"


def test_a_file_that_is_not_there_is_made_and_nothing_new_writes_nothing(path: Path, memory: Path) -> None:
    kept = MapFile(path, memory)
    kept.update(hosts(1), {VC})
    times = path.stat().st_mtime_ns, memory.stat().st_mtime_ns
    kept.update(hosts(1), {VC})
    assert (path.stat().st_mtime_ns, memory.stat().st_mtime_ns) == times


@pytest.mark.parametrize("kind", ["folder", "no folder", "binary", "fifo"])
def test_what_cannot_be_written_is_said_and_left_alone(kind: str, path: Path, memory: Path) -> None:
    match kind:
        case "folder":
            path.mkdir()
        case "no folder":
            path = path / "x"
        case "binary":
            path.write_bytes(b"\xff\xfe")
        case "fifo":
            os.mkfifo(path)
    kept = MapFile(path, memory)
    with pytest.raises(Unavailable, match=r"The vRouter map .* cannot be written: "):
        kept.update(hosts(1), {VC})


def test_a_memory_that_cannot_be_read_is_never_taken_for_an_empty_one(path: Path, memory: Path) -> None:
    memory.write_text("{")
    with pytest.raises(ConfigurationError, match="stale lines stay in the map"):
        MapFile(path, memory)


def test_at_each_step_of_writing_the_file_holds_whole_lines(
    path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer and shorter by turns, looked at after every call that changes it."""
    seen: list[bytes] = []

    def looking(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            done = real(*arguments)
            if path.exists():
                seen.append(path.read_bytes())
            return done

        monkeypatch.setattr(os, name, call)

    for name in ("open", "pwrite", "ftruncate", "fsync"):
        looking(name)
    whole = {b"esx-%d.example:10.%d.0.%d" % (n, net, n) for n in range(1, 20) for net in (1, 222)}
    whole |= {b"10.0.0.%d:10.%d.0.%d" % (n, net, n) for n in range(1, 20) for net in (1, 222)}
    kept = MapFile(path, memory)
    for turn, count in enumerate((4, 4, 19, 3, 9, 0, 7)):
        kept.update(hosts(count, "10.1.0.{}" if turn % 2 else "10.222.0.{}"), {VC})
    assert len(seen) > 30
    assert {line for content in seen for line in content.splitlines()} - whole == {b""}


def test_a_reader_at_the_same_time_never_misses_what_did_not_change(path: Path, memory: Path) -> None:
    """Real threads, not greenlets: the Java plugin does not wait for us. The file is never empty, nor cut short."""
    theirs = "".join(f"theirs-{n}:10.9.9.{n}\n" for n in range(20))
    path.write_text(theirs)
    kept = MapFile(path, memory)
    done = threading.Event()
    reads: list[bool] = []

    def read() -> None:
        while not done.is_set():
            reads.append(path.read_text().startswith(theirs))

    reader = gevent.get_hub().threadpool.spawn(read)
    try:
        for turn in range(60):
            kept.update(hosts(1 + turn % 25, "10.1.0.{}" if turn % 2 else "10.22.0.{}"), {VC})
    finally:
        done.set()
        reader.get(timeout=20)
    assert len(reads) > 10
    assert all(reads)


CRASH = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_map_file import VC, hosts
from vcenter_eam_plugin.map_file import MapFile

real = os.pwrite
def half(handle, data, offset):
    real(handle, data[: int(sys.argv[3])], offset)
    os.kill(os.getpid(), signal.SIGKILL)

os.pwrite = half
MapFile(Path(sys.argv[1]), Path(sys.argv[2])).update(hosts(6, "10.77.0.{}"), {VC})
"""


@pytest.mark.parametrize("written", [0, 1, 40, 10_000])
def test_after_a_kill_in_the_middle_of_writing_it_is_made_whole(written: int, path: Path, memory: Path) -> None:
    """SIGKILL within the write; the next process finds what was to be written and writes it."""
    path.write_text("theirs:10.9.9.9\n" * 3)
    MapFile(path, memory).update(hosts(4), {VC})
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(path), str(memory), str(written)], cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    MapFile(path, memory).update(hosts(6, "10.77.0.{}"), {VC})
    lines = path.read_text().splitlines()
    assert lines[:3] == ["theirs:10.9.9.9"] * 3
    expected = {f"{left}:10.77.0.{n}" for n in range(1, 7) for left in (f"esx-{n}.example", f"10.0.0.{n}")}
    assert set(lines[3:]) == expected
    assert len(lines) == 3 + len(expected)


def test_names_are_asked_for_a_few_at_a_time_and_seldom_again() -> None:
    """A resolver that does not answer may not hold the map up, nor be asked for a thousand names every five seconds."""
    now = [0.0]
    asked: list[str] = []

    def resolve(name: str) -> str | None:
        asked.append(name)
        if name == "hangs":
            gevent.sleep(60)
        if name == "bug":
            raise RuntimeError
        return None if name == "unknown" else f"10.0.0.{len(asked)}"

    addresses = Addresses(lambda: now[0], resolve)
    addresses.PATIENCE = 0.05  # type: ignore[misc]
    many = [f"esx-{n:03}" for n in range(50)]
    first = addresses.look_up(many)
    assert len(asked) == Addresses.AT_ONCE
    assert sum(address is not None for address in first.values()) == Addresses.AT_ONCE
    addresses.look_up(many)
    addresses.look_up(many)
    assert sorted(asked) == many
    assert addresses.look_up(["unknown", "hangs"]) == {"unknown": None, "hangs": None}
    kept = addresses.look_up(many)
    now[0] += Addresses.AGAIN + 1
    asked.clear()
    assert all(address is not None for address in addresses.look_up(many).values())
    assert len(asked) == Addresses.AT_ONCE
    assert kept["esx-049"] == addresses.look_up(["esx-049"])["esx-049"] or "esx-049" in asked


def test_the_systems_resolver_is_asked_for_ipv4() -> None:
    addresses = Addresses(lambda: 0.0)
    found = addresses.look_up(["localhost", "10.0.0.7", "no.such.name.invalid", "x" * 300])
    assert found == {"localhost": "127.0.0.1", "10.0.0.7": "10.0.0.7", "no.such.name.invalid": None, "x" * 300: None}
