# SPDX-License-Identifier: Apache-2.0
"""What outlives a full collection is not walked through again while the daemon starts; afterwards all is as ever."""

from __future__ import annotations

import gc

import pytest

from vcenter_eam_plugin.survivors import Survivors


@pytest.fixture
def survivors():
    one = Survivors()
    yield one
    one.settle()
    gc.unfreeze()


def test_what_outlived_a_full_collection_is_frozen_until_the_start_is_over(survivors):
    survivors.set_aside()
    frozen = gc.get_freeze_count()
    first = [[] for _ in range(10_000)]
    gc.collect()
    assert gc.get_freeze_count() >= frozen + len(first)
    second = [[] for _ in range(10_000)]
    survivors.settle()
    settled = gc.get_freeze_count()
    assert settled >= frozen + len(first) + len(second)
    third = [[] for _ in range(10_000)]
    gc.collect()
    assert gc.get_freeze_count() <= settled, "collected as ever"
    assert len(third) == 10_000


def test_settling_twice_is_settling_once(survivors):
    survivors.set_aside()
    survivors.settle()
    survivors.settle()
    assert survivors._collected not in gc.callbacks
