# SPDX-License-Identifier: Apache-2.0
"""S04: what the configured paths were, and which clusters are drained, is known after a restart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.facts import a_cluster
from vcenter_eam_plugin.domain.errors import ConfigurationError, ScopeError, Unavailable
from vcenter_eam_plugin.domain.facts import ComputeResourceFacts
from vcenter_eam_plugin.scope_memory import ScopeMemory

A, B = "/DC0/host/A", "/DC0/host/B"


def inventory(**morefs: str) -> Callable[[Sequence[str]], tuple[ComputeResourceFacts, ...]]:
    """A vCenter that has these clusters, by name."""
    there = {f"/DC0/host/{name}": moref for name, moref in morefs.items()}

    def match(paths: Sequence[str]) -> tuple[ComputeResourceFacts, ...]:
        for path in paths:
            if path not in there:
                raise ScopeError(f"There is no {path}.")
        return tuple(a_cluster(there[path]) for path in paths)

    return match


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vc.scope.json"


def test_paths_are_morefs_each_once_and_in_order(path: Path) -> None:
    """S04: two ways to write one cluster are one cluster."""
    morefs, troubles = ScopeMemory(path).resolve(
        [B, A, "/DC0/host/C"], inventory(A="domain-1", B="domain-2", C="domain-2")
    )
    assert morefs == ("domain-2", "domain-1")
    assert troubles == ()


def test_a_path_that_is_gone_keeps_what_it_was_and_the_others_go_on(path: Path) -> None:
    """S04: renamed, moved or deleted: only a person takes a cluster out of the scope."""
    ScopeMemory(path).resolve([A, B], inventory(A="domain-1", B="domain-2"))
    memory = ScopeMemory(path)
    for _ in range(2):  # the restart after the next too
        morefs, (trouble,) = memory.resolve([A, B], inventory(B="domain-2"))
        assert morefs == ("domain-1", "domain-2")
        assert trouble == f"There is no {A}. It keeps domain-1, which it was before."
        memory = ScopeMemory(path)


def test_a_path_that_is_there_again_is_what_it_is_now(path: Path) -> None:
    """S04: somebody made a new cluster of the old name."""
    ScopeMemory(path).resolve([A], inventory(A="domain-1"))
    assert ScopeMemory(path).resolve([A], inventory(A="domain-9")) == (("domain-9",), ())
    assert ScopeMemory(path).resolve([A], inventory())[0] == ("domain-9",)


def test_a_path_that_never_was_is_an_error(path: Path) -> None:
    """S04: nothing is guessed, and what is known of the others is not lost."""
    ScopeMemory(path).resolve([A], inventory(A="domain-1"))
    with pytest.raises(ScopeError, match="There is no /DC0/host/B"):
        ScopeMemory(path).resolve([A, B], inventory(A="domain-1"))
    assert ScopeMemory(path).resolve([A], inventory())[0] == ("domain-1",)


def test_retreat_is_remembered(path: Path) -> None:
    """S04: a drained cluster stays drained over a restart, until somebody says otherwise."""
    memory = ScopeMemory(path)
    assert memory.retreat == frozenset()
    memory.set_retreat({"domain-2", "domain-1"})
    memory.resolve([A], inventory(A="domain-1"))
    assert ScopeMemory(path).retreat == {"domain-1", "domain-2"}
    ScopeMemory(path).set_retreat(())
    assert ScopeMemory(path).retreat == frozenset()
    assert ScopeMemory(path).resolve([A], inventory())[0] == ("domain-1",), "the one does not forget the other"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"retreat": "domain-1"}', '{"morefs": {"a": 1}}'])
def test_a_file_that_cannot_be_read_is_refused_and_says_what_it_would_mean_to_lose_it(path: Path, text: str) -> None:
    """S04: an empty memory would deploy to clusters that are drained."""
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        ScopeMemory(path)
    assert str(path) in str(caught.value)
    assert "retreat" in str(caught.value)


def test_a_file_that_cannot_be_written_is_time_s_to_heal(path: Path) -> None:
    """S04: a full disk; what was written before is whole."""
    memory = ScopeMemory(path)
    memory.set_retreat(["domain-1"])
    blocker = path.with_suffix(".new")
    blocker.mkdir()
    with pytest.raises(Unavailable, match="cannot be written"):
        memory.set_retreat(["domain-2"])
    assert ScopeMemory(path).retreat == {"domain-1"}
