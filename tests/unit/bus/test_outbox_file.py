# SPDX-License-Identifier: Apache-2.0
"""The outbox's file over releases, and when it rots: migrated or refused, kept aside, never silently lost."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.contrailvm import VCENTER, contrail_vm, key_of
from tests.support.outboxes import rot
from vcenter_eam_plugin.bus import outbox_file
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.domain import messages
from vcenter_eam_plugin.domain.errors import ConfigurationError, Unavailable
from vcenter_eam_plugin.domain.messages import Oper
from vcenter_eam_plugin.domain.status import State

A, B, C = State.ACTIVE, State.POWERED_OFF, State.FAULTY
NOW = 1_800_000_000.0
WORLD = [contrail_vm(host) for host in range(200)]

Opener = Callable[..., Outbox]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def reopen(path: Path) -> Iterator[Opener]:
    """Opens the same file again, as a restart does, at ``NOW`` unless told otherwise."""
    opened: list[Outbox] = []

    def make(now: Callable[[], float] = lambda: NOW) -> Outbox:
        while opened:
            opened.pop().close()
        opened.append(Outbox(path, vcenter_uuid=VCENTER, publisher="p1", now=now))
        opened[-1].take_epoch()
        return opened[-1]

    yield make
    while opened:
        opened.pop().close()


def format_of(path: Path) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    finally:
        db.close()


def sent(outbox: Outbox) -> list[messages.Message]:
    found: list[messages.Message] = []
    while rows := outbox.pending(1000):
        found += [messages.decode(row.body) for row in rows]
        outbox.confirm(rows)
    return found


# --- releases -------------------------------------------------------------------------------------------------------


@pytest.fixture
def first_format(path: Path) -> Path:
    """A file that the first release left behind: three known, one offered, a DELETE and an UPDATE that wait."""
    db = sqlite3.connect(path)
    db.executescript((Path(__file__).parent / "outbox_format_1.sql").read_text("utf-8"))
    db.close()
    assert format_of(path) == 1
    return path


def assert_content_of_first_format(outbox: Outbox) -> None:
    assert outbox.last_accepted() == {
        key_of(1): contrail_vm(1, B, "told, not confirmed"),
        key_of(2): contrail_vm(2, B, "é ☃"),
    }
    waiting = outbox.pending(10)
    assert [(row.seq, row.key, row.oper) for row in waiting] == [
        (4, key_of(1), Oper.UPDATE),
        (5, key_of(3), Oper.DELETE),
        (6, key_of(2), Oper.UPDATE),
    ]
    assert outbox.reconcile(outbox.last_accepted().values()) == ()
    outbox.confirm(waiting)
    (change,) = outbox.accept([contrail_vm(1, C)])
    assert change.seq == 7, "a seq that was given out is not given out again"


def test_what_the_first_release_wrote_is_read_for_ever(first_format: Path, reopen: Opener) -> None:
    """Not a file made by today's code: what waits goes out, what was accepted is known, the epoch grows."""
    outbox = reopen()
    assert outbox.epoch > 1_700_000_000_000
    assert outbox._db.execute("SELECT seq FROM offered").fetchall() == [(4,)], "it may have arrived"
    assert_content_of_first_format(outbox)


def test_an_older_format_is_migrated_with_its_content(
    first_format: Path, reopen: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the release before, opened by the one that adds a column: every migration once, nothing lost."""
    later = ("ALTER TABLE message ADD COLUMN urgent INTEGER NOT NULL DEFAULT 0", "CREATE TABLE third (x)")
    monkeypatch.setattr(outbox_file, "MIGRATIONS", (*outbox_file.MIGRATIONS, *later))
    assert_content_of_first_format(reopen())
    outbox = reopen()
    assert outbox._db.execute("SELECT urgent FROM message").fetchall() == [(0,)]
    outbox.close()
    assert format_of(first_format) == len(outbox_file.MIGRATIONS)


def test_a_migration_is_all_or_nothing(first_format: Path, reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error within a migration leaves the format and the content as they were."""
    known = outbox_file.MIGRATIONS
    broken = (*known[:1], "CREATE TABLE extra (x); DELETE FROM message; INSERT INTO nowhere VALUES (1)")
    monkeypatch.setattr(outbox_file, "MIGRATIONS", broken)
    with pytest.raises(Unavailable, match="no such table: nowhere"):
        reopen()
    assert format_of(first_format) == 1
    monkeypatch.setattr(outbox_file, "MIGRATIONS", known)
    assert_content_of_first_format(reopen())


def test_a_file_of_a_newer_release_is_refused_untouched(path: Path, reopen: Opener) -> None:
    """It is not damaged: only that release, or a person, may decide about it."""
    outbox = reopen()
    outbox.accept(WORLD)
    outbox._db.execute("PRAGMA user_version = 99")
    outbox.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"newer release \(format 99, known 2\).*Install that release again"):
        reopen()
    assert path.read_bytes() == before
    assert outbox_file.kept_aside(str(path)) == []


def test_an_empty_outbox_is_told_of(reopen: Opener, caplog: pytest.LogCaptureFixture, path: Path) -> None:
    """The first start, a lost file, and one that somebody cut to nothing look alike: each announces everything anew."""
    path.touch()
    reopen()
    assert "is empty: every ContrailVM is announced anew" in caplog.text
    caplog.clear()
    reopen()
    assert caplog.text == ""


# --- damage ---------------------------------------------------------------------------------------------------------


def no_sqlite(path: Path) -> None:
    path.write_bytes(b"not sqlite" * 1000)


def cut_in_half(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def cut_within_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)


def cut_within_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(50)


def zeros_in_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\0" * 16384)


@pytest.mark.parametrize(
    "damage", [no_sqlite, cut_in_half, cut_within_a_page, cut_within_the_header, zeros_in_the_middle]
)
def test_a_damaged_file_is_kept_aside_and_a_new_one_begun(
    damage: Callable[[Path], None], path: Path, reopen: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """Bug: the service waited for ever for a person to move the file away, and did not see most damage at its start.

    Now it goes on by itself; the file is kept byte by byte, and said so in the log and, over restarts, by kept_aside.
    """
    first = reopen()
    first.accept(WORLD)
    first.close()
    damage(path)
    rotten = path.read_bytes()
    outbox = reopen(lambda: NOW + 60)
    (aside,) = outbox.kept_aside
    assert Path(aside).read_bytes() == rotten
    assert aside == f"{path}.damaged-20270115T080100Z"
    assert f"It is kept as {aside}" in caplog.text
    assert (outbox.last_accepted(), outbox.backlog) == ({}, 0)
    assert outbox.epoch > first.epoch
    assert len(outbox.reconcile(WORLD)) == len(WORLD)
    assert reopen().kept_aside == (aside,), "until somebody moves it away"
    Path(aside).unlink()
    assert reopen().kept_aside == ()


def test_the_journal_stays_with_its_file(path: Path, reopen: Opener, tmp_path: Path) -> None:
    """After a kill the last changes stand in the journal alone: they are kept, and the new file does not meet them."""
    outbox = reopen()
    outbox.accept(WORLD)
    outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    outbox.accept([contrail_vm(1, C, "the last change")])
    killed = tmp_path / "killed.db"
    shutil.copy(path, killed)
    shutil.copy(f"{path}-wal", f"{killed}-wal")
    zeros_in_the_middle(killed)
    again = Outbox(killed, vcenter_uuid=VCENTER, publisher="p1", now=lambda: NOW)
    try:
        kept = b"".join(one.read_bytes() for one in tmp_path.glob("killed.db.damaged-*"))
        assert b"the last change" in kept
        assert again.last_accepted() == {}
        again.take_epoch()
        assert len(again.reconcile(WORLD)) == len(WORLD)
    finally:
        again.close()


def test_two_damaged_files_in_one_second_are_both_kept(path: Path, reopen: Opener) -> None:
    for number in (1, 2):
        reopen().close()
        no_sqlite(path)
        assert len(reopen().kept_aside) == number


def test_damage_in_use_begins_anew_within_our_term(path: Path, reopen: Opener) -> None:
    """The call in which it shows is lost, and says so. What is told from then on is newer than all that was told."""
    outbox = reopen()
    outbox.accept(WORLD)
    before = sent(outbox)
    outbox.accept([contrail_vm(1, B)])
    epoch = outbox.epoch
    rot(path, outbox)
    with pytest.raises(Unavailable, match="was damaged and is begun anew"):
        outbox.accept([contrail_vm(host, C) for host in range(200)])
    assert (outbox.generation, len(outbox.kept_aside), outbox.epoch) == (1, 1, epoch)
    assert outbox.last_accepted() == {}
    outbox.reconcile(WORLD)
    after = sent(outbox)
    assert len(after) == len(WORLD)
    assert min((m.epoch, m.seq) for m in after) > (*max((m.epoch, m.seq) for m in before), 1)
    assert not {m.id for m in after} & {m.id for m in before}
    assert reopen().epoch > epoch


def test_a_disk_that_dies_is_not_filled_with_damaged_files(path: Path, reopen: Opener) -> None:
    """Within ten minutes a second damage is an error and no second file; after them it is mended, too."""
    now = NOW
    outbox = reopen(lambda: now)

    def files_after_damage() -> int:
        with pytest.raises(Unavailable):
            outbox.reconcile([])
        return len(outbox.kept_aside)

    outbox.reconcile(WORLD)
    rot(path, outbox)
    assert files_after_damage() == 1
    outbox.reconcile(WORLD)
    rot(path, outbox)
    now += 599
    assert files_after_damage() == 1
    now += 1
    assert files_after_damage() == 2
    assert len(outbox.reconcile(WORLD)) == len(WORLD)


def test_what_cannot_be_begun_anew_is_tried_again(path: Path, reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full just then: an error meanwhile, and the next call that can, goes on."""
    outbox = reopen()
    outbox.reconcile(WORLD)
    rot(path, outbox)

    def full(_path: str) -> sqlite3.Connection:
        raise Unavailable("no space")

    with monkeypatch.context() as patched:
        patched.setattr(outbox_file, "open_database", full)
        for _ in range(2):
            with pytest.raises(Unavailable, match="no space"):
                outbox.reconcile([])
    assert len(outbox.reconcile(WORLD)) == len(WORLD)
    assert sent(outbox)[0].seq > len(WORLD)


@pytest.mark.parametrize("rotten", [b"\xff\xfe", b'{"key": 1}', b'{"state": "DREAMING"}'])
def test_a_record_that_cannot_be_read_costs_its_own_key_alone(
    rotten: bytes, path: Path, reopen: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """Bug: one record of another release, or one bit, ended every start. Its key is announced anew, and it is said."""
    reopen().accept(WORLD[:3])
    outbox = reopen()
    outbox._db.execute("UPDATE accepted SET status = ? WHERE key = ?", (rotten, key_of(1)))
    outbox = reopen()
    assert set(outbox.last_accepted()) == {key_of(0), key_of(2)}
    assert f"What was accepted last of {key_of(1)} cannot be read" in caplog.text
    assert [change.key for change in outbox.reconcile(WORLD[:3])] == [key_of(1)]
    assert len(reopen().last_accepted()) == 3


def test_a_record_that_cannot_be_read_is_not_coalesced_over(path: Path) -> None:
    """What consumers hold before such a message is unknown: it stays, and the next is told after it."""
    outbox = Outbox(path, vcenter_uuid=VCENTER, publisher="p1", now=lambda: NOW, bound=0)
    outbox.take_epoch()
    outbox.accept([contrail_vm(1, A)])
    sent(outbox)
    outbox.accept([contrail_vm(1, B)])
    outbox._db.execute("UPDATE message SET base = X'FF'")
    outbox.accept([contrail_vm(1, C)])
    assert [(m.old_state, m.state) for m in sent(outbox)] == [(A, B), (B, C)]
    outbox.close()


def test_records_are_kept_with_all_that_they_say(reopen: Opener) -> None:
    """What comes back after a restart equals what went in, so equality decides about messages."""
    record = msgspec.structs.replace(contrail_vm(1, State.UNREACHABLE, "é ☃"), last_state=A, vm=None)
    reopen().accept([record])
    assert reopen().last_accepted() == {key_of(1): record}
