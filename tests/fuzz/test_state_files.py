# SPDX-License-Identifier: Apache-2.0
"""What lies in the state directory at a start, cut short or overwritten: a ConfigurationError that names the file, and
what moving it away means; or a start. Never another error, and never a damaged file that is taken for an empty one."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.generate import damaged, fewer, in_time, one_sentence
from tests.support.contrailvm import VCENTER, contrail_vm
from tests.support.ovf import envelope
from vcenter_eam_plugin.agency_memory import AgencyMemory
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.domain.errors import ConfigurationError, ProtocolError, Unavailable
from vcenter_eam_plugin.domain.upgrade import Upgrade
from vcenter_eam_plugin.ovf.index import Index
from vcenter_eam_plugin.ovf.package import open_package
from vcenter_eam_plugin.scope_memory import ScopeMemory
from vcenter_eam_plugin.shared import shared
from vcenter_eam_plugin.state_file import StateFile
from vcenter_eam_plugin.unit import Pause

PAUSE = b'{"paused":true}'
SCOPE = b'{"morefs":{"/DC0/host/A":"domain-c1"},"retreat":["domain-c1"]}'
AGENCY = b'{"used":{"agency":"agency-1","owner":"u","beside":[]},"consent":null}'
JSON = (b"null", b"[]", b"{}", b"1e999", b'"\xff"', b'"\xed\xa0\x80"', b"[" * 20_000, b'{"a":' * 20_000, b"\0" * 100)


class Login:
    identities = ("u",)
    is_extension = False


READERS: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
    "pause": (PAUSE, lambda path: StateFile(path, Pause, what="Whether it is paused", without="it acts").read()),
    "scope": (SCOPE, ScopeMemory),
    "agency": (AGENCY, lambda path: AgencyMemory(path, "ContrailVM-Agency", Login())),
}


@pytest.mark.parametrize("what", READERS)
@given(data=st.data())
def test_small_files(tmp_path: Path, what: str, data: st.DataObject) -> None:
    good, read = READERS[what]
    check(tmp_path / "x.json", data.draw(damaged(good, telling=JSON)), read)


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize(
    "content", [b"", b'{"paused":"\xff"}', b'{"x":' + b"[" * 50_000, b'{"morefs":{"\xff":"a"}}', *JSON]
)
def test_small_files_of_nonsense(tmp_path: Path, what: str, content: bytes) -> None:
    check(tmp_path / "x.json", content, READERS[what][1])


def check(path: Path, content: bytes, read: Callable[[Path], Any]) -> None:
    path.write_bytes(content)
    with in_time(content):
        try:
            read(path)
        except ConfigurationError as exc:
            one_sentence(exc, naming=path)


@given(content=damaged(PAUSE, SCOPE, AGENCY, telling=JSON))
@example(content=b'["\xff"]')
@example(content=b"[" * 50_000)
def test_what_another_instance_decided(content: bytes) -> None:
    """By ZooKeeper, where others may write, too."""
    for kind in (bool, list[str], Upgrade | None):
        taken: list[Any] = []
        try:
            shared(kind, lambda: None, taken.append).take(content)
        except ProtocolError as exc:
            one_sentence(exc)
            assert taken == []
        else:
            msgspec.json.encode(taken)


# --- the outbox ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An outbox with accepted records and messages that wait."""
    path = tmp_path_factory.mktemp("box") / "good.sqlite"
    box = Outbox(path, vcenter_uuid=VCENTER, publisher="p", now=time.time)
    box.take_epoch()
    box.accept([contrail_vm(number) for number in range(20)])
    box.snapshot()
    box.close()
    return path.read_bytes()


def use(path: Path) -> None:
    """What a start does, and the first sending."""
    with in_time(path):
        try:
            box = Outbox(path, vcenter_uuid=VCENTER, publisher="p", now=time.time)
        except (ConfigurationError, Unavailable) as exc:
            one_sentence(exc, naming=path)
            return
        try:
            box.take_epoch()
            box.reconcile([contrail_vm(number) for number in range(21)])
            box.confirm(box.pending(10))
            box.drop_unsent()
        except (ConfigurationError, Unavailable) as exc:
            one_sentence(exc)
        finally:
            box.close()


def put(folder: Path, content: bytes) -> Path:
    for left in folder.glob("o.sqlite*"):
        left.unlink()
    path = folder / "o.sqlite"
    path.write_bytes(content)
    return path


@given(
    cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6)
)
@example(cut=0.0, flips=[])
@example(cut=0.5, flips=[])
def test_outboxes_cut_and_flipped(tmp_path: Path, good: bytes, cut: float, flips: list[tuple[float, int]]) -> None:
    content = bytearray(good)
    for place, mask in flips:
        content[int(place * len(content))] ^= mask
    use(put(tmp_path, bytes(content[: int(cut * len(content))])))


STATEMENTS = st.sampled_from(
    [
        "UPDATE accepted SET status = x'ff'",
        "UPDATE accepted SET status = '{}'",
        "UPDATE accepted SET status = x'{}'".format((b'{"key":' + b"[" * 3000).hex()),
        "UPDATE accepted SET key = x'ff'",
        "UPDATE accepted SET key = CAST(x'ff' AS TEXT)",
        "UPDATE accepted SET status = NULL",
        "UPDATE meta SET value = 'x' WHERE name = 'epoch'",
        "UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE name = 'epoch'",
        "UPDATE meta SET value = '9' || hex(zeroblob(3000)) WHERE name = 'epoch'",
        "UPDATE message SET event = 'nonsense'",
        "UPDATE message SET timestamp = 'x'",
        "UPDATE message SET body = 7",
        "UPDATE message SET base = x'ff' WHERE base IS NOT NULL",
        "UPDATE message SET base = 'x'",
        "UPDATE message SET key = x'ff'",
        "DROP TABLE meta",
        "DROP TABLE message",
        "DELETE FROM accepted",
        "ALTER TABLE message DROP COLUMN base",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = 999",
        "PRAGMA user_version = -1",
        "CREATE TRIGGER t BEFORE INSERT ON message BEGIN SELECT RAISE(ABORT, 'no'); END",
    ]
)


@fewer(1.0)
@given(statements=st.lists(STATEMENTS, min_size=1, max_size=2))
def test_outboxes_with_other_contents(tmp_path: Path, good: bytes, statements: list[str]) -> None:
    """A sound database whose rows are not ours: another release's, or somebody's by hand."""
    path = put(tmp_path, good)
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        try:
            db.execute(statement)
        except sqlite3.Error:
            continue  # one statement took away what the other needs
    db.close()
    use(path)


# --- the index of packages -----------------------------------------------------------------------------


@given(data=st.data())
def test_the_index_of_packages(tmp_path: Path, data: st.DataObject) -> None:
    """A damaged one is put aside and said; the server starts."""
    log = logging.getLogger("fuzz.index")
    (tmp_path / "disk.vmdk").write_bytes(b"disk")
    (tmp_path / "c.ovf").write_text(envelope("disk.vmdk"))
    path = tmp_path / "index.json"
    Index(path, log).add(open_package(tmp_path / "c.ovf"))
    path.write_bytes(data.draw(damaged(path.read_bytes(), telling=(*JSON, b"\\u0000", b"\\ud800", b"../"))))
    index = Index(path, log)
    with in_time("the index"):
        index.load()
    for entry in index.entries():
        for piece in entry.files.values():
            assert piece.offset >= 0
            with contextlib.suppress(OSError):
                piece.path.stat()
    index.save()
    json.loads(path.read_bytes() if path.exists() else b"{}")
