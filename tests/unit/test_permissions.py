# SPDX-License-Identifier: Apache-2.0
"""Permissions of state and secret files: what others could read or exchange is closed, refused or said."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from vcenter_eam_plugin import permissions
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.cli.main import main
from vcenter_eam_plugin.config import load
from vcenter_eam_plugin.domain.errors import ConfigurationError, Unavailable
from vcenter_eam_plugin.state_file import StateFile

RIGHT = "[VCENTER]\nvc_host=h\nvc_username=u\n{vcenter}\n[EAM]\nclusters=A\n{eam}\n"


def open_outbox(path: Path) -> Outbox:
    return Outbox(path, vcenter_uuid="3d1a5b7e-0c11-4f8e-9a34-5f2f6f1f7e21", publisher="p", now=lambda: 0.0)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Whoever starts us may have any umask."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that everybody may enter; pytest's own nobody else may."""
    monkeypatch.setattr(permissions, "_others_may", _as_if_everybody_could_come_here)
    return tmp_path


def _as_if_everybody_could_come_here(path: Path, bit: int) -> bool:
    mode = path.resolve(strict=True).stat().st_mode
    return stat.S_ISREG(mode) and bool(mode & bit)


# --- the state directory -----------------------------------------------------------------------------------------


def test_the_state_directory_is_made_for_us_alone(open_umask: None, tmp_path: Path) -> None:
    assert mode_of(permissions.own_directory(tmp_path / "a" / "state")) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o770, 0o711])
def test_a_state_directory_that_others_could_enter_is_closed(tmp_path: Path, mode: int) -> None:
    """From an earlier release, or from a package."""
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    permissions.own_directory(path)
    assert mode_of(path) == 0o700


def test_a_state_directory_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(ConfigurationError, match="everybody may write to it"):
        permissions.own_directory(path)
    assert mode_of(path) == 0o777, "what is in it may be anybody's: a person should look"


def test_a_state_directory_that_everybody_could_exchange_is_refused(tmp_path: Path) -> None:
    """Who may write to the directory above may put another one in its place; but not in one like /tmp (sticky)."""
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(0o777)
    with pytest.raises(ConfigurationError, match=f"they may write to {above}"):
        permissions.own_directory(above / "state")
    above.chmod(0o1777)
    permissions.own_directory(above / "state")


def test_a_state_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could exchange our files; also for root, who would then write where a link of theirs points."""
    path = tmp_path / "state"
    path.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        permissions.own_directory(path)


# --- the files in it -----------------------------------------------------------------------------------------------


def test_the_outbox_and_what_sqlite_puts_beside_it_are_ours_alone(open_umask: None, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = open_outbox(path)
    try:
        found = {each.name: mode_of(each) for each in tmp_path.iterdir()}
        assert set(found) >= {"outbox.db", "outbox.db-wal"}
        assert set(found.values()) == {0o600}
    finally:
        outbox.close()


def test_an_outbox_that_others_could_read_is_closed_and_still_holds_what_it_held(
    open_umask: None, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    open_outbox(path).close()
    path.chmod(0o644)
    outbox = open_outbox(path)
    outbox.close()
    assert mode_of(path) == 0o600
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("name", ["outbox.db", "outbox.db-wal"])
def test_a_link_in_place_of_the_outbox_is_not_followed(tmp_path: Path, name: str) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(b"")
    (tmp_path / name).symlink_to(target)
    with pytest.raises((ConfigurationError, Unavailable), match="symbolic links"):
        open_outbox(tmp_path / "outbox.db")
    assert target.read_bytes() == b""


class _Value(msgspec.Struct):
    text: str


def test_a_state_file_is_ours_alone_and_no_link_is_followed(open_umask: None, tmp_path: Path) -> None:
    file: StateFile[_Value] = StateFile(tmp_path / "value.json", _Value, what="The value", without="it is new")
    file.write(_Value("a"))
    assert mode_of(file.path) == 0o600
    target = tmp_path / "victim"
    target.write_text("kept", "utf-8")
    (tmp_path / "value.new").symlink_to(target)
    with pytest.raises(Unavailable):
        file.write(_Value("b"))
    assert target.read_text("utf-8") == "kept"
    assert file.read() == _Value("a")


# --- secrets -----------------------------------------------------------------------------------------------------


def given(folder: Path, *, vcenter: str = "vc_password=x", eam: str = "", mode: int = 0o600) -> Path:
    path = folder / "eam.conf"
    path.write_text(RIGHT.format(vcenter=vcenter, eam=eam), "utf-8")
    path.chmod(mode)
    return path


def secret_file(folder: Path, mode: int, text: str = "hunter2") -> Path:
    path = folder / "secret"
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("how", ["own file", "configuration", "key"])
def test_a_secret_that_everybody_may_read_is_said_at_each_start(public: Path, how: str) -> None:
    """Not refused: secrets that Docker and Kubernetes mount are readable by everybody in a container of nobody else."""
    for mode, warned in ((0o600, False), (0o640, False), (0o644, True), (0o444, True)):
        if how == "own file":
            path = secret_file(public, mode)
            conf = given(public, vcenter=f"vc_password_file={path}")
        elif how == "configuration":
            path = conf = given(public, mode=mode)
        else:
            path = secret_file(public, mode, "-----BEGIN RSA PRIVATE KEY-----\n")
            conf = given(public, vcenter=f"vc_password=x\nvc_client_key={path}\nvc_client_cert={path}")
            conf.write_text(conf.read_text("utf-8").replace("vc_username=u\nvc_password=x\n", "vc_extension_key=k\n"))
        warnings = load([conf], {}).warnings
        assert bool(warnings) is warned, (oct(mode), warnings)
        assert all(f"chmod o= {path}" in text and "hunter2" not in text for text in warnings)


def test_the_warning_is_logged_and_shown_by_validate(public: Path) -> None:
    conf = given(public, mode=0o644)
    shown = CliRunner().invoke(main, ["config", "validate", "-c", str(conf)])
    assert shown.exit_code == 0
    assert f"Warning: {conf}, section [VCENTER], option vc_password: everybody may read" in shown.stderr


def test_a_file_in_a_directory_that_others_may_not_enter_is_not_readable_for_them(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    path = secret_file(closed, 0o666)
    assert not permissions.others_may_read(path)
    assert not permissions.others_may_write(path)


def test_a_link_is_judged_by_what_it_leads_to(public: Path) -> None:
    """As Kubernetes mounts secrets."""
    path = secret_file(public, 0o644)
    (public / "link").symlink_to(path)
    assert load([given(public, vcenter=f"vc_password_file={public / 'link'}")], {}).warnings


@pytest.mark.parametrize("what", ["secret", "configuration", "authority", "command"])
def test_what_everybody_could_exchange_is_refused(public: Path, what: str) -> None:
    """Who may write these decides whom we trust, what we run, and with whose token everything may be changed."""
    path = secret_file(public, 0o666)
    conf = {
        "secret": lambda: given(public, vcenter=f"vc_password_file={path}"),
        "configuration": lambda: given(public, mode=0o666),
        "authority": lambda: given(public, vcenter=f"vc_password=x\nvc_ca_certs={path}"),
        "command": lambda: given(public, eam=f"install_command={path}, --now"),
    }[what]()
    with pytest.raises(ConfigurationError, match="everybody may write to"):
        load([conf], {})


def test_secrets_of_a_common_section_are_said_once(public: Path) -> None:
    path = secret_file(public, 0o644)
    conf = public / "two.conf"
    conf.write_text(
        f"[VCENTER]\nvc_username=u\nvc_password_file={path}\n[VCENTER:a]\nvc_host=a\n[VCENTER:b]\nvc_host=b\n"
        "[EAM]\nclusters=A\n",
        "utf-8",
    )
    conf.chmod(0o600)
    assert len([text for text in load([conf], {}).warnings if "vc_password_file" in text]) <= 2


def test_a_device_is_no_file_and_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        permissions.others_may_read(tmp_path / "missing")
    assert not permissions.others_may_write(Path("/dev/null"))
