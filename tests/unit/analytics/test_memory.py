# SPDX-License-Identifier: Apache-2.0
"""What a bridge knows over its restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.contrailvm import key_of
from tests.unit.analytics.test_uve import a_vm, said
from vcenter_eam_plugin.analytics.memory import Memory
from vcenter_eam_plugin.domain.errors import ConfigurationError, Unavailable
from vcenter_eam_plugin.domain.status import State


def test_the_newest_of_each_is_there_again(tmp_path: Path) -> None:
    first = Memory(tmp_path / "a.sqlite")
    first.keep(said(1, a_vm(1)), "")
    first.keep(said(2, a_vm(2)), "vr2")
    first.keep(said(3, a_vm(1, State.FAULTY)), "vr1")
    first.keep(said(4, a_vm(3)), "")
    first.forget([key_of(3), key_of(9)])
    first.close()
    again = Memory(tmp_path / "a.sqlite")
    assert [(message["seq"], vrouter) for message, vrouter in again.known()] == [(2, "vr2"), (3, "vr1")]
    again.close()
    assert (tmp_path / "a.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_second_bridge_is_refused(tmp_path: Path) -> None:
    """Two readers of one queue would each get a part of the messages."""
    first = Memory(tmp_path / "a.sqlite")
    first.keep(said(1, a_vm(1)), "")
    with pytest.raises(Unavailable, match="is in use: another bridge reads this queue"):
        Memory(tmp_path / "a.sqlite")
    first.close()
    Memory(tmp_path / "a.sqlite").close()


def test_what_cannot_be_used_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be kept in"):
        Memory(tmp_path / "no" / "a.sqlite")
    (tmp_path / "b.sqlite").write_bytes(b"something else, and long enough to be looked at" * 10)
    with pytest.raises(ConfigurationError, match="Move the file away"):
        Memory(tmp_path / "b.sqlite")
