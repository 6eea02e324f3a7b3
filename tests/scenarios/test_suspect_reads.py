# SPDX-License-Identifier: Apache-2.0
"""P8: an answer that leaves something out, once, changes nothing: no message, no call that writes, one alarm.

The service may act, everything is healthy, and EAM's list or vCenter's listing comes back empty, without values, or
with half of what there is.
"""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.bench import Bench
from vcenter_eam_plugin import eam_poll, intake_watch

WAIT = {"vc_wait_seconds": 1}
ANSWERS = ["empty_reads", "missing_set", "half_reads"]


class Peace:
    """From now on nothing may be said, and nothing written, because of what is read."""

    def __init__(self, bench: Bench, log: pytest.LogCaptureFixture) -> None:
        self._bench = bench
        self._messages, self._writes = len(bench.messages), len(bench.writes())
        self._log = log
        log.clear()
        log.set_level(logging.WARNING)

    def alarms(self) -> list[str]:
        """Names of the alarms that were raised, each as often as it was."""
        texts = (record.getMessage() for record in self._log.records)
        return [text.split(":")[0].removeprefix("ALARM ") for text in texts if text.startswith("ALARM ")]

    def hold(self) -> None:
        """P8, and that it is not so because nobody looks: a change afterwards is told."""
        bench = self._bench
        for _ in range(2):
            before = bench.unit.pipeline.poll.read_at
            bench.unit.pipeline.poll.wake()
            bench.wait_for(lambda before=before: bench.unit.pipeline.poll.read_at != before, "EAM is read again")
        told = [(m["oper"], m["esxi"]["name"], m["state"]) for m in bench.messages[self._messages :] if m["key"]]
        # A service that was started anew says once how everything is.
        assert [each for each in told if (each[0], each[2]) != ("SYNC", "ACTIVE")] == []
        assert [call.fields["method"] for call in bench.writes()[self._writes :]] == []
        assert len(bench.simulator.vcenter.eam.agencies) == 1
        host = bench.names()[0]
        bench.vcenter.enter_maintenance(host)
        bench.wait_for_state(host, "MAINTENANCE")


@pytest.fixture
def settled(make_bench: Callable[..., Bench]) -> Bench:
    """Four hosts, all ACTIVE, and nothing under way."""
    bench = make_bench(hosts=4, clusters=2)
    bench.start(vcenter=WAIT, poll_seconds=1.0)
    bench.wait_until_active()
    bench.wait_for(lambda: bench.unit.status()["waiting"] == {}, "nothing is to be done")
    return bench


def met(bench: Bench, fault: Any) -> None:
    """Until the answer was given and the service is at peace with vCenter again."""
    bench.wait_for(lambda: fault.hits, "the answer is given")
    bench.wait_for(
        lambda: all(source["live"] for source in bench.unit.status()["sources"].values()), "all sources are live"
    )


@pytest.mark.parametrize("answer", ANSWERS)
def test_p8_a_listing(settled: Bench, caplog: pytest.LogCaptureFixture, answer: str) -> None:
    """The listing after a gap; half of it with a cluster's own list just as short."""
    peace = Peace(settled, caplog)
    listings = settled.unit.pipeline.inventory.listings
    fault = settled.simulator.faults.inject(answer, method="WaitForUpdatesEx", count=2)
    settled.simulator.faults.inject("collector_lost")
    settled.wait_for(lambda: settled.unit.pipeline.inventory.listings > listings, "it was listed anew")
    met(settled, fault)
    assert peace.alarms() == ["suspect-read"]
    peace.hold()


def test_p8_an_update_that_says_half_the_hosts_left(settled: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of a stream that is sound: they are asked for by themselves."""
    peace = Peace(settled, caplog)
    met(settled, settled.simulator.faults.inject("half_reads", method="WaitForUpdatesEx", count=1))
    settled.wait_for(lambda: "suspect-read" in settled.alarms(), "the alarm")
    assert peace.alarms() == ["suspect-read"]
    assert "which exists" in settled.alarms()["suspect-read"]
    peace.hold()


def test_p8_an_update_without_values(settled: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What changed is in missingSet: the session is taken for ended, whatever else it answers."""
    peace = Peace(settled, caplog)
    generation = settled.unit.session.generation
    fault = settled.simulator.faults.inject("missing_set", method="WaitForUpdatesEx", count=1)
    settled.wait_for(lambda: fault.hits, "the wait is under way")
    settled.vcenter.hosts()[0].touch("name")  # news, though the value is the same
    settled.wait_for(lambda: settled.unit.session.generation > generation, "a new session")
    met(settled, fault)
    assert peace.alarms() == ["suspect-read"]
    peace.hold()


@pytest.mark.parametrize("method", ["QueryAgency", "QueryAgent"])
@pytest.mark.parametrize("answer", ["empty_reads", "half_reads"])
def test_p8_a_list_of_eam(
    settled: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, answer: str, method: str
) -> None:
    """The session lives, and no fault comes: agencies and agents that a list leaves out are asked for by themselves."""
    monkeypatch.setattr(eam_poll, "SURVEY_SECONDS", 0.0)  # all agencies are listed in each poll
    poll = settled.unit.pipeline.poll
    poll._survey_at = float("-inf")
    peace = Peace(settled, caplog)
    fault = settled.simulator.faults.inject(answer, path="/eam/sdk", method=method, count=1)
    poll.read_soon(None)
    met(settled, fault)
    settled.wait_for(lambda: "suspect-read" in settled.alarms(), "the alarm")
    assert peace.alarms() == ["suspect-read"]
    peace.hold()


def test_p8_the_first_listing_after_a_restart(settled: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Hosts that were told of before are known, though this process has never seen them."""
    settled.stop()
    peace = Peace(settled, caplog)
    fault = settled.simulator.faults.inject("half_reads", path="/sdk")
    settled.start(vcenter=WAIT, poll_seconds=1.0)
    settled.wait_for(lambda: settled.unit.pipeline and "suspect-read" in settled.alarms(), "the alarm")
    settled.simulator.faults.clear()
    met(settled, fault)
    settled.wait_for(lambda: settled.unit.pipeline.fleet.given_out, "everything is compared")
    assert peace.alarms() == ["suspect-read"]
    peace.hold()


def test_p8_hosts_that_may_not_be_seen(settled: Bench, caplog: pytest.LogCaptureFixture, quick_retries: None) -> None:
    """Not for one call but for as long as it lasts; the privilege is named, and its loss is an alarm after a minute."""
    peace = Peace(settled, caplog)
    settled.simulator.faults.inject("permission_gap")

    def told() -> bool:
        source = settled.unit.status()["sources"]["inventory"]
        return not source["live"] and "System.View" in (source["why"] or "")

    settled.wait_for(told, "the stream is stale, and the privilege named")
    settled.simulator.faults.clear()
    settled.wait_for(lambda: settled.unit.pipeline.inventory.live, "it is watched again")
    peace.hold()


def test_p8_the_alarm_ends_by_itself(
    settled: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_watch, "SUSPECT_SHOWN", 1.0)
    peace = Peace(settled, caplog)
    settled.simulator.faults.inject("half_reads", method="WaitForUpdatesEx", count=1)
    settled.wait_for(lambda: "suspect-read" in peace.alarms(), "the alarm")
    settled.wait_for(lambda: settled.alarms() == {}, "it is over")
