# SPDX-License-Identifier: Apache-2.0
"""The servers that integration tests run against."""

import pytest

from tests.support import vcsim
from tests.support.vcenters import admin, simulator_vcenter, vcenter

__all__ = ["admin", "simulator_vcenter", "vcenter"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build vcsim before the first test that needs it: a first build takes minutes, which are no test's own time."""
    if any({"vcsim", "vcenter"} & set(getattr(item, "fixturenames", ())) for item in session.items):
        vcsim.build()
