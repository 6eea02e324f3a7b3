# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several scenarios share."""

import pytest

from vcenter_eam_plugin import backoff, eam_poll, rule_watch, unit, workers
from vcenter_eam_plugin.domain import budgets
from vcenter_eam_plugin.vsphere import inventory


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person must mend is tried again after half a minute, a failed repair too; a test does not wait for it."""
    monkeypatch.setattr(unit, "REFUSED_RETRY", 0.1)
    monkeypatch.setattr(workers, "REFUSED_RETRY", 0.1)
    monkeypatch.setattr(inventory, "REFUSED_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(unit, "MOST_UNREAD", 0.5)
    monkeypatch.setattr(eam_poll, "MOST_UNREAD", 0.5)
    monkeypatch.setattr(backoff.Backoff.__init__, "__defaults__", (0.1, 0.5))
    monkeypatch.setattr(budgets, "RESOLVE_SETTLES", 0.2)
    monkeypatch.setattr(budgets, "BACKOFF_FIRST", 0.2)


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken rules that no change tells of are looked for every two seconds; a test does not wait for it."""
    monkeypatch.setattr(rule_watch, "LOOK_SECONDS", 0.1)
