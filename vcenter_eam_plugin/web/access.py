# SPDX-License-Identifier: Apache-2.0
"""Who may do what over the network: one token, shown in each request or once, for a session of a browser.

Not promised: several users or roles. Who holds the token may do everything, as who runs ``vcenter-eam`` on the machine
may; the audit lines tell sessions and addresses apart. Knows nothing of HTTP beyond names of headers, so that all of
it can be tested without a server.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from vcenter_eam_plugin.config import LEAST_TOKEN

IDLE_SECONDS = 1800.0
"""A session that nobody used for so long has ended: browsers are left open."""
SESSION_SECONDS = 12 * 3600.0
"""A session ends after a working day, however busy: a page that asks by itself would keep it for ever."""
MOST_SESSIONS = 100
"""Of which the one unused for longest gives way."""
FREE_ATTEMPTS = 5
"""Wrong tokens in a row from one address before it has to wait: a person who mistypes is no attacker."""
LONGEST_WAIT = 60.0
"""Seconds. With it one address gets through 1,440 guesses a day."""
FORGET_SECONDS = 3600.0
"""After which an address's wrong tokens are forgotten."""
MOST_ADDRESSES = 1024
"""Whose wrong tokens are counted; beyond that the oldest are forgotten, so that counting costs no memory."""


class TooManyAttempts(Exception):
    """Too many wrong tokens came from this address; ``seconds`` to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"wait {seconds:.0f} s")
        self.seconds = seconds


class Attempts:
    """Slows down whoever guesses, by address. ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises TooManyAttempts when this address has to wait: then not even the right token is looked at."""
        count, last = self._wrong.get(_network(address), (0, 0.0))
        if count < FREE_ATTEMPTS:
            return
        left = last + min(2.0 ** (count - FREE_ATTEMPTS), LONGEST_WAIT) - self._now()
        if left > 0:
            raise TooManyAttempts(left)

    def wrong(self, address: str) -> None:
        """This address showed a wrong token."""
        network = _network(address)
        count, last = self._wrong.pop(network, (0, 0.0))
        if count and self._now() - last > FORGET_SECONDS:
            count = 0
        self._wrong[network] = (count + 1, self._now())
        if len(self._wrong) > MOST_ADDRESSES:
            self._wrong.popitem(last=False)

    def right(self, address: str) -> None:
        """This address showed the token."""
        self._wrong.pop(_network(address), None)


class Token:
    """The one token. ``secret`` reads it anew each time, so one that was changed on disk counts at once."""

    def __init__(self, secret: Callable[[], str]) -> None:
        self._secret = secret

    def current(self) -> bytes:
        """Its digest; empty when nothing may be shown as it: there is none, or too short a one was put into its file.

        Raises ConfigurationError when its file cannot be read.
        """
        secret = self._secret()
        return _digest(secret) if len(secret) >= LEAST_TOKEN else b""

    def is_shown(self, given: str) -> bool:
        """Whether ``given`` is it, in a time that tells nothing about how much of it is right."""
        current = self.current()
        # Digests have one length, so not even that of the token shows.
        return bool(current) and hmac.compare_digest(_digest(given), current)


@dataclass(slots=True)
class Session:
    """A browser that showed the token. ``name`` is for the log, and of no use to whoever reads it there."""

    name: str
    csrf: str
    token: bytes
    began: float
    used: float


class Sessions:
    """Of browsers, kept in memory: a restart ends them. ``random`` makes a text that nobody guesses."""

    def __init__(self, token: Token, clock: Callable[[], float], random: Callable[[], str]) -> None:
        self._token = token
        self._now = clock
        self._random = random
        self._open: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self) -> str:
        """The cookie of a new session. Only its digest is kept."""
        cookie = self._random()
        key, now = _digest(cookie), self._now()
        self._open[key] = Session(key.hex()[:8], self._random(), self._token.current(), now, now)
        if len(self._open) > MOST_SESSIONS:
            self._open.popitem(last=False)
        return cookie

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie, if it has not ended. It ends with the token that it was begun by, too."""
        key = _digest(cookie)
        session = self._open.get(key)
        if session is None:
            return None
        now = self._now()
        over = now - session.used > IDLE_SECONDS or now - session.began > SESSION_SECONDS
        if over or not hmac.compare_digest(session.token, self._token.current() or b"none"):
            del self._open[key]
            return None
        session.used = now
        self._open.move_to_end(key)
        return session

    def end(self, cookie: str) -> None:
        """End it, if it is there."""
        self._open.pop(_digest(cookie), None)


def host_is_ours(host: str, names: frozenset[str]) -> bool:
    """Whether a request's ``Host`` may be: one of our ``names``, or an address.

    A foreign page that lets its own name resolve to our address sends that name, and never an address of ours.
    """
    name = _hostname(host)
    if name is None:
        return False
    try:
        ip_address(name)
    except ValueError:
        return name in names
    return True


def comes_from_us(scheme: str, host: str, origin: str | None, fetch_site: str | None) -> bool:
    """Whether a request that changes something was sent by a page of ours, or by no page at all.

    ``SameSite`` cookies are no substitute: all ports of one host are one site, and a host has other services.
    """
    if fetch_site is not None and fetch_site not in ("same-origin", "none"):
        return False
    return origin is None or origin.lower() == f"{scheme}://{host}".lower()


def same_text(one: str, other: str) -> bool:
    """Compared in a time that tells nothing."""
    return hmac.compare_digest(_digest(one), _digest(other))


def _hostname(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port  # a port that is none raises
    except ValueError:
        return None
    plain = parts.netloc == host and parts.username is None and not (parts.path or parts.query or parts.fragment)
    return name.rstrip(".") if plain and name else None


def _network(address: str) -> str:
    """An IPv6 customer has a whole /64 to guess from, so that counts as one address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed, 64), strict=False))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
