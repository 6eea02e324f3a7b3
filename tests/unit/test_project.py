# SPDX-License-Identifier: Apache-2.0
"""What ``setup.py`` promises is there: every package is shipped, every script and entry point can be loaded."""

import importlib
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools

import vcenter_eam_plugin

ROOT = Path(__file__).parents[2]


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that setup.py gives to setuptools."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def test_version_is_the_packages(metadata: dict[str, Any]) -> None:
    assert metadata["version"] == vcenter_eam_plugin.__version__


def test_every_folder_with_code_is_shipped(metadata: dict[str, Any]) -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "vcenter_eam_plugin").rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} == set(metadata["packages"])


def test_scripts_and_plugin_can_be_loaded(metadata: dict[str, Any]) -> None:
    """S19: the names by which others find us."""
    targets = dict(entry.split(" = ") for entries in metadata["entry_points"].values() for entry in entries)
    assert set(targets) == {"contrail-vcenter-eam-plugin", "vcenter-eam", "eam"}
    for target in targets.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_tools_check_for_the_lowest_python(metadata: dict[str, Any]) -> None:
    tools = (ROOT / "pyproject.toml").read_text("utf-8")
    lowest = metadata["python_requires"].removeprefix(">=")
    assert f'target-version = "py{lowest.replace(".", "")}"' in tools
    assert f'python_version = "{lowest}"' in tools


@pytest.mark.parametrize("name", ["scripts/demo", "scripts/test", ".ci/run"])
def test_script_can_be_run(name: str) -> None:
    path = ROOT / name
    assert path.stat().st_mode & 0o111 == 0o111
    assert path.read_text("utf-8").startswith("#!/usr/bin/env bash\n# SPDX-License-Identifier: Apache-2.0\n")
