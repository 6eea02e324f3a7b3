# SPDX-License-Identifier: Apache-2.0
"""Faults by name are repeatable, limited as asked, and named wrongly only with a list of the right names."""

from __future__ import annotations

import pytest
from pyVmomi import eam, vim

from tests.support.simulator_calls import Bench
from vcenter_eam_plugin.simulator.faults import CATALOGUE, Faults


def hits(faults: Faults, path: str = "/sdk", method: str = "Login") -> set[str]:
    return set(faults.take(path, method))


def test_limits_by_path_method_and_count() -> None:
    faults = Faults()
    faults.inject("http_503", path="/eam/sdk")
    faults.inject("slow", method="Logout", delay=1)
    one = faults.inject("truncated_response", count=2)
    assert hits(faults) == {"truncated_response"}
    assert hits(faults, "/eam/sdk", "Logout") == {"http_503", "slow", "truncated_response"}
    assert hits(faults) == set()
    assert one.hits == 2


def test_probability_is_repeatable() -> None:
    def run(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.inject("http_503", probability=0.5)
        return [bool(hits(faults)) for _ in range(50)]

    assert run(1) == run(1) != run(2)
    assert 10 < sum(run(1)) < 40


def test_clearing_one_name_leaves_the_others() -> None:
    faults = Faults()
    faults.inject("http_503")
    faults.inject("slow")
    assert faults.clear("slow") == 1
    assert faults.on("http_503")
    assert faults.clear() == 1
    assert faults.active == []


@pytest.mark.parametrize(
    "wrong",
    [{"name": "nothing"}, {"name": "slow", "probability": 2.0}, {"name": "slow", "count": 0}, {"name": "raise_fault"}],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    faults = Faults()
    with pytest.raises(ValueError, match=r"there is no|must be|needs"):
        faults.inject(**wrong)  # type: ignore[arg-type]
    assert faults.active == []


def test_every_fault_has_its_sentence() -> None:
    assert all(text.endswith(".") for text in CATALOGUE.values())


def test_faults_of_one_call(bench: Bench) -> None:
    faults = bench.simulator.faults
    faults.inject("not_authenticated_once")
    with pytest.raises(vim.fault.NotAuthenticated):
        bench.instance.CurrentTime()
    bench.instance.CurrentTime()
    faults.inject("eam_not_initialized", count=1)
    bench.instance.CurrentTime()
    with pytest.raises(eam.fault.EamServiceNotInitialized, match="still loading"):
        bench.eam().QueryAgency()
    faults.inject("raise_fault", fault="vim.fault.Timedout", method="CurrentTime", count=1)
    bench.instance.RetrieveContent()
    with pytest.raises(vim.fault.Timedout):
        bench.instance.CurrentTime()
    faults.inject("session_kill")
    with pytest.raises(vim.fault.NotAuthenticated):
        bench.instance.CurrentTime()
