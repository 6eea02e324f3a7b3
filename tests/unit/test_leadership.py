# SPDX-License-Identifier: Apache-2.0
"""Leading without ZooKeeper: alone, or as a host process says."""

import logging

import pytest

from vcenter_eam_plugin.leadership import Alone, HostSays

LOG = logging.getLogger("test.leadership")


def test_alone_leads_in_one_term_until_it_stops() -> None:
    alone = Alone("here:1")
    term = alone.term()
    assert term is not None
    assert term.epoch is None, "the outbox counts"
    assert (alone.term(), alone.leader(), alone.trouble()) == (term, "here:1", "")
    alone.stop(1.0)
    assert (alone.term(), alone.leader()) == (None, "")


def test_alone_says_at_its_start_that_it_leads() -> None:
    told: list[bool] = []
    Alone("here:1").start(lambda: told.append(True))
    assert told


def test_p05_a_lead_lost_for_a_moment_is_a_new_term() -> None:
    """P5: another may have led meanwhile; whoever compares terms must see that."""
    answers = iter([True, True, False, True])
    host = HostSays(lambda: next(answers), "here:1", LOG)
    first = host.term()
    assert first is not None
    assert host.term() is first
    assert (host.term(), host.leader()) == (None, "")
    again = host.term()
    assert again is not None
    assert again is not first


def test_a_host_that_cannot_say_is_taken_for_no(caplog: pytest.LogCaptureFixture) -> None:
    """A leader that is not sure stops; and the host's error is told, not raised."""

    def broken() -> bool:
        raise OSError("no answer")

    assert HostSays(broken, "here:1", LOG).term() is None
    assert "taken for no" in caplog.text


def test_after_its_stop_the_host_is_not_asked_any_more() -> None:
    host = HostSays(lambda: True, "here:1", LOG)
    assert host.term() is not None
    host.stop(1.0)
    assert host.term() is None
