# SPDX-License-Identifier: Apache-2.0
"""How long a source is left alone after a failure: long outages must not be paid for after they are over (P7)."""

from __future__ import annotations

from vcenter_eam_plugin.backoff import FIRST, MOST_UNREAD, Backoff

CONVERGENCE = 30.0
"""Seconds, promised: after any fault is healed the bus equals the truth."""


def test_it_doubles_and_begins_anew() -> None:
    backoff = Backoff()
    pauses = [backoff.next() for _ in range(3)]
    for number, pause in enumerate(pauses):
        assert 0.8 * FIRST * 2**number <= pause <= 1.2 * FIRST * 2**number
    backoff.reset()
    assert backoff.next() <= 1.2 * FIRST


def test_after_an_outage_of_any_length_most_of_the_time_is_left_for_the_reads() -> None:
    """P7. Bug: after two minutes without EAM, or without vCenter at the start, the next try came up to 72 s late."""
    backoff = Backoff(most=MOST_UNREAD)
    pauses = [backoff.next() for _ in range(1000)]
    assert max(pauses) <= CONVERGENCE / 2


def test_what_a_person_must_mend_waits_as_long_as_is_asked_for() -> None:
    """An account must not be locked by our trying."""
    backoff = Backoff()
    assert all(backoff.next(least=30.0) >= 30.0 for _ in range(10))
