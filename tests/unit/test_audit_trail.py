# SPDX-License-Identifier: Apache-2.0
"""The audit trail on a real disk: what is told is found again, over restarts and rotations; a full disk costs time."""

from __future__ import annotations

import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from vcenter_eam_plugin import audit
from vcenter_eam_plugin.audit import AuditFile, AuditTrail, Entry, Kind, Query
from vcenter_eam_plugin.domain.errors import Unavailable

NOON = 1_700_000_000.0


class Desk:
    """Trails over one file, one after the other, and a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = NOON
        self.troubles: list[str] = []
        self.remembered: list[Entry] = []
        self._open: list[AuditTrail] = []

    def open(self, redact: Callable[[str], str] = str, most_waiting: int = 100) -> AuditTrail:
        trail = AuditTrail(
            self.path,
            wall_clock=lambda: self.now,
            redact=redact,
            on_trouble=self.troubles.append,
            most_waiting=most_waiting,
            retry=0.02,
        )
        self.remembered.clear()
        trail.start(self.remembered.extend)
        self._open.append(trail)
        return trail

    def close(self) -> None:
        while self._open:
            self._open.pop().stop(5)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / audit.NAME)
    yield desk
    desk.close()


def texts(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["text"] for entry in entries]


def wait_until(condition: Callable[[], object]) -> None:
    with gevent.Timeout(20):
        while not condition():
            gevent.sleep(0.01)


def test_what_is_told_is_found_again_after_a_restart_and_ids_go_on(desk: Desk) -> None:
    trail = desk.open()
    trail.tell(Kind.STATE, "ACTIVE", vcenter="v", host="host-1", name="esx-1")
    assert texts(trail.read(Query())) == ["ACTIVE"], "what is not yet written is read, too"
    desk.close()
    assert stat.S_IMODE(desk.path.stat().st_mode) == 0o600
    again = desk.open()
    assert [entry.text for entry in desk.remembered] == ["ACTIVE"]
    again.tell(Kind.ALARM, "bus raised")
    found = again.read(Query())
    assert [(entry["id"], entry["text"]) for entry in found] == [(1, "ACTIVE"), (2, "bus raised")]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), ["0", "1", "2", "3", "4", "5"]),
        (Query(limit=2), ["4", "5"]),
        (Query(host="ESX-1"), ["1", "4"]),
        (Query(host="host-2"), ["2", "5"]),
        (Query(kinds=(Kind.ALARM,)), ["1", "3", "5"]),
        (Query(since=NOON + 40), ["4", "5"]),
        (Query(after=5), ["5"]),
        (Query(vcenter="other"), []),
        (Query(host="esx-1", kinds=(Kind.STATE,)), ["4"]),
    ],
)
def test_filters_choose(desk: Desk, query: Query, expected: list[str]) -> None:
    """Each entry is 10 s after the one before; kinds take turns; hosts are 0, 1, 2, 0, 1, 2."""
    trail = desk.open()
    for number in range(6):
        kind = Kind.ALARM if number % 2 else Kind.STATE
        trail.tell(kind, str(number), vcenter="v", host=f"host-{number % 3}", name=f"esx-{number % 3}")
        desk.now += 10
    assert texts(trail.read(query)) == expected
    desk.close()
    assert texts(desk.open().read(query)) == expected, "from the disk alone"


def test_files_are_turned_over_and_the_oldest_goes(tmp_path: Path) -> None:
    """Bounded: so many files of so many bytes; read as one, newest first; none is readable for others."""
    file = AuditFile(tmp_path / audit.NAME, most_bytes=1000, files=3)
    line = len(_line(100))
    for number in range(100, 200):
        file.append(_line(number))
    kept = [entry.id for entry in file.newest_first()]
    assert kept == list(range(199, 199 - len(kept), -1))
    assert 2 * (1000 // line) < len(kept) <= 3 * (1000 // line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_lines_longer_than_a_block_are_read_whole(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / audit.NAME)
    for number in (1, 2, 3):
        file.append(_line(number, text="x" * 100_000))
    assert [(entry.id, len(entry.text)) for entry in file.newest_first()] == [(3, 100_000), (2, 100_000), (1, 100_000)]


def test_half_a_line_of_a_killed_process_swallows_nothing(tmp_path: Path) -> None:
    path = tmp_path / audit.NAME
    path.write_bytes(_line(1) + _line(2)[:20])
    AuditFile(path).append(_line(3))
    assert [entry.id for entry in AuditFile(path).newest_first()] == [3, 1]


def test_a_link_in_its_place_is_not_followed(desk: Desk, tmp_path: Path) -> None:
    """docs/security.md: whoever could put a link there would have us write elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine", "utf-8")
    desk.path.symlink_to(elsewhere)
    desk.open().tell(Kind.ALARM, "a")
    wait_until(lambda: desk.troubles)
    assert elsewhere.read_text("utf-8") == "mine"


def test_a_full_disk_is_said_and_nothing_is_lost_or_torn(desk: Desk) -> None:
    """The kernel itself refuses in the middle of a line: no crash, one trouble, and all of it once there is space."""
    trail = desk.open()
    trail.tell(Kind.STATE, "before")
    wait_until(lambda: desk.path.exists() and desk.path.stat().st_size)
    size = desk.path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        trail.tell(Kind.STATE, "meanwhile")
        wait_until(lambda: any(desk.troubles))
        assert desk.path.stat().st_size == size, "half a line was left behind"
        assert texts(trail.read(Query())) == ["before", "meanwhile"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = next(filter(None, desk.troubles))
    assert str(desk.path) in said
    assert "cannot be written" in said
    wait_until(lambda: desk.troubles[-1] == "")
    desk.close()
    assert texts(desk.open().read(Query())) == ["before", "meanwhile"]


def test_what_no_memory_holds_is_counted(desk: Desk) -> None:
    """Bounded: the oldest is given up, and the trail says how many."""
    desk.path.mkdir()  # nothing can be written there
    trail = desk.open(most_waiting=10)
    for number in range(25):
        trail.tell(Kind.STATE, str(number))
    wait_until(lambda: any(desk.troubles))
    desk.path.rmdir()
    wait_until(lambda: desk.troubles[-1] == "")
    found = texts(trail.read(Query()))
    assert found == ["15 entries were lost: the disk took none.", *map(str, range(15, 25))]


def test_no_secret_is_written(desk: Desk) -> None:
    trail = desk.open(redact=lambda text: text.replace("hunter2", "***"))
    trail.tell(Kind.ALARM, "refused", why="password hunter2")
    desk.close()
    assert "hunter2" not in desk.path.read_text("utf-8")
    assert "password ***" in desk.path.read_text("utf-8")


def test_who_tells_never_waits_for_the_disk(desk: Desk) -> None:
    """2,500 hosts that change at once: told without a yield, written by somebody else."""
    trail = desk.open(most_waiting=5000)
    ran: list[bool] = []
    gevent.spawn(ran.append, True)
    for number in range(2500):
        trail.tell(Kind.STATE, "ACTIVE", host=f"host-{number}")
    assert not ran, "another greenlet ran meanwhile"
    desk.close()
    assert len(desk.open().read(Query(limit=5000))) == 2500


def test_a_trail_that_cannot_be_read_is_said(desk: Desk) -> None:
    desk.path.mkdir()
    with pytest.raises(Unavailable, match="cannot be read"):
        desk.open().read(Query())


def _line(number: int, text: str = "ACTIVE") -> bytes:
    return b'{"id":%d,"at":%f,"kind":"state","text":"%s"}\n' % (number, NOON, text.encode())
