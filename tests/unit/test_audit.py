# SPDX-License-Identifier: Apache-2.0
"""The dependency audit: what fails it, what does not, and that silence is not taken for safety."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/audit"

SKIPPED = {"name": "amqp", "skip_reason": "Dependency not found on PyPI and could not be audited: amqp (5.4.2)"}
CLEAN = {"name": "click", "version": "8.2.0", "vulns": []}
FIXED = {"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}]}
UNFIXED = {"name": "py", "version": "1.11.0", "vulns": [{"id": "PYSEC-2022-42969", "fix_versions": []}]}


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("audit_script", str(SCRIPT))
    spec = spec_from_loader("audit_script", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([CLEAN], 0, "1 packages were looked up at pypi; 0 vulnerabilities have a fix."),
        ([CLEAN, FIXED], 1, "FAILS: jinja2 2.10: PYSEC-2019-217; fixed in 2.10.1"),
        ([UNFIXED], 0, "noted: py 1.11.0: PYSEC-2022-42969; no release fixes it"),
        ([SKIPPED], 0, "noted: not looked at: Dependency not found"),
    ],
)
def test_only_what_has_a_fix_fails(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: list[dict[str, Any]],
    code: int,
    said: str,
) -> None:
    """The reports are as pip-audit 2.10 writes them."""
    monkeypatch.setattr(audit, "audit", lambda service, *arguments: [FIXED] if "-r" in arguments else packages)
    assert audit.main() == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("answer", [None, [], [{**SKIPPED, "name": "jinja2"}], [{**FIXED, "vulns": []}]])
def test_a_service_that_knows_nothing_is_not_believed(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any
) -> None:
    """Behind a mirror of packages pip-audit says "no known vulnerabilities" of everything."""
    monkeypatch.setattr(audit, "audit", lambda service, *arguments: answer)
    assert audit.main() == 0
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "NOT AUDITED" in told.err
    assert told.out == ""


def test_the_second_service_is_asked_when_the_first_cannot_be(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "audit", lambda service, *arguments: None if service == "pypi" else [FIXED])
    assert audit.main() == 1
    assert "looked up at osv" in capsys.readouterr().out


def test_without_pip_audit_it_says_so_and_fails(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That is a mistake of whoever runs it, and no lack of data. Ours may have it, so a Python without any is used."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(SystemExit, match="pip-audit is not installed"):
        audit.main()
