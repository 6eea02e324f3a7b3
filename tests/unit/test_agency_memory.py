# SPDX-License-Identifier: Apache-2.0
"""Which agency was used and whose was adopted, over restarts; what an extension cannot see is not taken for gone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.facts import an_agency
from vcenter_eam_plugin.agency_memory import AgencyMemory
from vcenter_eam_plugin.domain.errors import ConfigurationError, Unavailable

NAME = "ContrailVM-Agency"
OURS = an_agency()
THEIRS = an_agency(moref="agency-2", owner="EXAMPLE\\other", solution_id="EXAMPLE\\other")
USER = SimpleNamespace(identities=("contrail@vsphere.local",), is_extension=False)
EXTENSION = SimpleNamespace(identities=("net.example.eam",), is_extension=True)


def memory(directory: Path, login: Any) -> AgencyMemory:
    return AgencyMemory(directory / "vcenter.agency.json", NAME, login)


def test_consent_is_remembered_until_the_agency_is_gone(tmp_path: Path) -> None:
    """S03: adopted once, also after a restart; another agency of that owner, later, needs another consent."""
    assert memory(tmp_path, USER).judge([THEIRS]).foreign == (THEIRS,)
    memory(tmp_path, USER).adopt(THEIRS, [THEIRS])
    assert memory(tmp_path, USER).judge([THEIRS]).ours == THEIRS
    memory(tmp_path, USER).forget()
    assert memory(tmp_path, USER).judge([THEIRS]).foreign == (THEIRS,)


def test_an_agency_that_an_extension_cannot_see_is_not_gone(tmp_path: Path) -> None:
    """Bug to come: a user becomes an extension, sees no agency, and creates a second one over the same hosts."""
    memory(tmp_path, USER).use(OURS)
    found = memory(tmp_path, EXTENSION).judge([])
    assert (found.ours, found.foreign, found.unseen) == (None, (), OURS.owner)
    # a user would see it
    assert memory(tmp_path, USER).judge([]).unseen == ""
    # once it is seen to be gone, the extension may begin
    memory(tmp_path, USER).forget()
    assert memory(tmp_path, EXTENSION).judge([]).unseen == ""


def test_an_extension_sees_its_own(tmp_path: Path) -> None:
    """Its own agency that is not listed any more is gone, as anybody's."""
    own = an_agency(owner=None, solution_id="net.example.eam")
    kept = memory(tmp_path, EXTENSION)
    kept.use(own)
    assert kept.known_before
    assert kept.judge([own]).ours == own
    assert kept.judge([]).unseen == ""


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    """The poll tells it of the same agency every few seconds."""
    kept = memory(tmp_path, USER)
    kept.forget()
    assert list(tmp_path.iterdir()) == []
    kept.use(OURS)
    (tmp_path / "vcenter.agency.json").unlink()
    kept.use(OURS)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    """Bad input: guessing here could take somebody else's agency, or make a second one."""
    (tmp_path / "vcenter.agency.json").write_text('{"used": 7}', "utf-8")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        memory(tmp_path, USER)
    with pytest.raises(Unavailable, match="cannot be written"):
        memory(tmp_path / "nowhere", USER).use(OURS)
