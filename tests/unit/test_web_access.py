# SPDX-License-Identifier: Apache-2.0
"""Who may do what over the network, without a server: tokens, sessions, guesses, names and origins."""

from __future__ import annotations

import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcenter_eam_plugin.web import access
from vcenter_eam_plugin.web.access import Attempts, Sessions, Token, TooManyAttempts, comes_from_us, host_is_ours

SECRET = "a-token-of-twenty-characters"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_sessions(clock: Clock, secret: list[str]) -> Sessions:
    numbers = itertools.count()
    return Sessions(Token(lambda: secret[0]), clock, lambda: f"random-{next(numbers)}")


@given(st.text())
def test_nothing_but_the_token_is_the_token(given: str) -> None:
    assert Token(lambda: SECRET).is_shown(given) == (given == SECRET)


@given(st.text(max_size=access.LEAST_TOKEN - 1))
def test_a_token_that_is_too_short_lets_nobody_in(short: str) -> None:
    """Its file may be emptied, or cut, while we run."""
    assert not Token(lambda: short).is_shown(short)


def test_a_session_ends_by_idleness_by_age_by_logout_and_with_its_token() -> None:
    clock, secret = Clock(), [SECRET]
    sessions = make_sessions(clock, secret)
    cookie = sessions.begin()
    assert sessions.find(cookie) is not None
    assert sessions.find("random-1") is None, "the CSRF secret is no cookie"
    clock.now += access.IDLE_SECONDS - 1
    assert sessions.find(cookie) is not None
    clock.now += access.IDLE_SECONDS + 1
    assert sessions.find(cookie) is None
    busy = sessions.begin()
    began = clock.now
    while clock.now - began <= access.SESSION_SECONDS:
        assert sessions.find(busy) is not None
        clock.now += access.IDLE_SECONDS - 1
    assert sessions.find(busy) is None
    left = sessions.begin()
    sessions.end(left)
    assert sessions.find(left) is None
    old = sessions.begin()
    secret[0] = SECRET + "-renewed"
    assert sessions.find(old) is None
    secret[0] = SECRET
    assert sessions.find(old) is None, "once ended, it stays so"


def test_sessions_are_bounded_and_the_one_unused_for_longest_gives_way() -> None:
    sessions = make_sessions(Clock(), [SECRET])
    cookies = [sessions.begin() for _ in range(access.MOST_SESSIONS)]
    assert sessions.find(cookies[0]) is not None
    sessions.begin()
    assert sessions.find(cookies[0]) is not None
    assert sessions.find(cookies[1]) is None


def test_waits_double_up_to_a_bound_and_the_right_token_ends_them() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    waits = []
    for _ in range(14):
        try:
            attempts.check("192.0.2.1")
        except TooManyAttempts as exc:
            waits.append(exc.seconds)
            clock.now += exc.seconds
        attempts.check("192.0.2.1")
        attempts.check("192.0.2.2")
        attempts.wrong("192.0.2.1")
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    attempts.right("192.0.2.1")
    attempts.check("192.0.2.1")


def test_wrong_tokens_are_forgotten_after_a_while() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(access.FREE_ATTEMPTS):
        attempts.wrong("192.0.2.1")
    clock.now += access.FORGET_SECONDS + 1
    attempts.wrong("192.0.2.1")
    attempts.check("192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_addresses_of_one_network_guess_together(one: str, other: str, same: bool) -> None:
    attempts = Attempts(Clock())
    for _ in range(access.FREE_ATTEMPTS):
        attempts.wrong(one)
    try:
        attempts.check(other)
    except TooManyAttempts:
        assert same
    else:
        assert not same


def test_counting_costs_bounded_memory() -> None:
    attempts = Attempts(Clock())
    for number in range(access.MOST_ADDRESSES + 100):
        attempts.wrong(f"10.0.{number // 256}.{number % 256}")
    assert len(attempts._wrong) == access.MOST_ADDRESSES


NAMES = frozenset({"localhost", "eam.example"})


@given(st.text(alphabet=string.ascii_lowercase + string.digits + ".-:@/[]?# ", max_size=40))
def test_only_our_names_and_addresses_are_ours(host: str) -> None:
    """DNS rebinding: whatever is let through names one of ours, or an address and nothing else."""
    if host_is_ours(host, NAMES):
        name = host.rpartition(":")[0] if host.count(":") == 1 or (host.startswith("[") and "]:" in host) else host
        assert name.rstrip(".") in NAMES or not set(name) - set(string.hexdigits + ".:[]")


@given(
    st.sampled_from(("http", "https")),
    st.sampled_from(("localhost:8115", "eam.example", "10.0.0.1:8115")),
    st.one_of(st.none(), st.text(max_size=30), st.sampled_from(("null", "http://localhost:3000"))),
    st.one_of(st.none(), st.sampled_from(("same-origin", "same-site", "cross-site", "none", "x"))),
)
def test_only_pages_of_ours_or_no_page_may_change(scheme: str, host: str, origin: str | None, site: str | None) -> None:
    ours = (origin is None or origin.lower() == f"{scheme}://{host}") and site in (None, "same-origin", "none")
    assert comes_from_us(scheme, host, origin, site) == ours
    assert comes_from_us(scheme, host, f"{scheme}://{host}", "same-origin")
