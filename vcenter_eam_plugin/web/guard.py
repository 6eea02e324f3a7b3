# SPDX-License-Identifier: Apache-2.0
"""Stands before every route of a Flask application that is served over the network, also before those added later.

- GET and HEAD read, everything else changes and needs the token: as ``Authorization: Bearer``, or by a session that a
  browser began with it at ``/login``. A session must also send its ``X-CSRF-Token`` (GET /api/v1/session tells it).
- Where others than this machine may reach it, reading needs the same.
- Whatever changes must come from a page of ours or from no page, and whatever is asked must be asked of a name of ours.
- Every answer carries headers that have a browser neither keep it, nor frame it, nor run what is not ours.

No cookie, token or session ever stands in a URL.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flask import Flask, Response, request

from vcenter_eam_plugin.domain.errors import (
    ConfigurationError,
    LoginRefused,
    PrivilegeMissing,
    ProtocolError,
    Unavailable,
)
from vcenter_eam_plugin.web.access import (
    Attempts,
    Session,
    Sessions,
    Token,
    TooManyAttempts,
    comes_from_us,
    host_is_ours,
    same_text,
)
from vcenter_eam_plugin.web.app import PEER, error_answer

SESSION = "vcenter_eam.session"
"""Key of a request's environment: the :class:`~vcenter_eam_plugin.web.access.Session` of a browser, if there is one."""
SHOWN = "vcenter_eam.token_shown"
"""Key of a request's environment: whether it may change things."""
LOGIN = "/login"
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf"
"""Of forms, which cannot send headers."""

_OPEN = frozenset({"/healthz", "/readyz", LOGIN})
"""Readable by everybody: a load balancer has no token, and a person none yet. A login shows the token by itself."""
_OPEN_BELOW = "/static/"
"""Style and script of the pages, the login's among them; they say nothing about this installation."""
_SAFE = frozenset({"GET", "HEAD"})

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": with that a browser hides the origin of our own forms from us.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HSTS = "max-age=31536000"


@dataclass(frozen=True, slots=True)
class Rules:
    """``names`` are ours in a request's Host; ``reading_is_free`` where only this machine reaches us."""

    names: frozenset[str]
    reading_is_free: bool
    tls: bool


class Guard:
    """Put before an application by :meth:`protect`."""

    def __init__(
        self, rules: Rules, token: Token, sessions: Sessions, attempts: Attempts, logger: logging.Logger
    ) -> None:
        self._rules = rules
        self._token = token
        self._sessions = sessions
        self._attempts = attempts
        self._log = logger

    def protect(self, app: Flask) -> None:
        """From now on every request passes here first, and every answer last."""
        app.before_request(self._check)
        app.after_request(self._finish)

    @property
    def cookie(self) -> str:
        """The cookie's name. Cookies know no ports, so that of another service of this host must have another name."""
        # With the prefix a browser takes it over TLS only, and from this very host.
        return f"{'__Host-' if self._rules.tls else ''}vcenter_eam_{request.environ['SERVER_PORT']}"

    def log_in(self, given: str) -> str | None:
        """The cookie of a new session, or ``None`` for a wrong token. Raises TooManyAttempts, ConfigurationError."""
        return self._sessions.begin() if self._shows(given, "login") else None

    def log_out(self) -> None:
        """End the session of this request."""
        self._sessions.end(request.cookies.get(self.cookie, ""))

    # --- before ---------------------------------------------------------------------------------------------

    def _check(self) -> Response | None:
        address = request.environ.get("REMOTE_ADDR", "")
        request.environ[PEER] = f"nobody, from {address}"
        reads = request.method in _SAFE
        refused = self._check_way(address, reads)
        if refused is not None:
            return refused
        try:
            refused = self._identify(address, reads)
        except TooManyAttempts as exc:
            return too_many(exc)
        except ConfigurationError as exc:
            self._log.error("Nobody can be let in: %s", exc)
            return error_answer(Unavailable("The token of this service cannot be read; see its log."))
        is_open = request.path in _OPEN or (reads and request.path.startswith(_OPEN_BELOW))
        free = is_open or (reads and self._rules.reading_is_free) or request.environ.get(SHOWN)
        return refused if refused is not None or free else self._turn_away(reads)

    def _check_way(self, address: str, reads: bool) -> Response | None:
        """By which name, and from whose page, whoever it is."""
        if not host_is_ours(request.environ.get("HTTP_HOST", ""), self._rules.names):
            return error_answer(
                ProtocolError(
                    "The request is for a host of another name.", remedy="List it in introspect_names, if it is ours."
                ),
                421,
            )
        if not reads and not comes_from_us(
            request.scheme,
            request.environ["HTTP_HOST"],
            request.headers.get("Origin"),
            request.headers.get("Sec-Fetch-Site"),
        ):
            self._log.warning("Refused: a page of somebody else sent a %s from %s.", request.method, address)
            return error_answer(PrivilegeMissing("The request was sent by a page of another site."), 403)
        return None

    def _identify(self, address: str, reads: bool) -> Response | None:
        """Find out who asks. Credentials that are wrong are refused, even where none were needed."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme:
            if scheme.lower() != "bearer" or not self._shows(given.strip(), "bearer"):
                return _unauthorised("The token is wrong.")
            request.environ[SHOWN] = True
            request.environ[PEER] = f"token, from {address}"
            return None
        session = self._sessions.find(request.cookies.get(self.cookie, ""))
        if session is None:
            return None
        request.environ[SESSION] = session
        request.environ[PEER] = f"session {session.name}, from {address}"
        if not reads and not self._has_csrf(session):
            return error_answer(
                PrivilegeMissing(f"The session's {CSRF_HEADER} is missing or wrong.", remedy="Load the page again."),
                403,
            )
        request.environ[SHOWN] = True
        return None

    def _has_csrf(self, session: Session) -> bool:
        if request.path == LOGIN:
            return True  # the token itself is shown there
        return same_text(request.headers.get(CSRF_HEADER) or request.form.get(CSRF_FIELD, ""), session.csrf)

    def _shows(self, given: str, how: str) -> bool:
        """Whether this is the token. Raises TooManyAttempts: then it was not even compared."""
        address = request.environ.get("REMOTE_ADDR", "")
        self._attempts.check(address)
        if self._token.is_shown(given):
            self._attempts.right(address)
            return True
        self._attempts.wrong(address)
        self._log.warning("A wrong token was shown (%s) from %s.", how, address)
        return False

    def _turn_away(self, reads: bool) -> Response:
        if not self._token.current():
            return error_answer(
                PrivilegeMissing(
                    "Over the network nothing can be changed here.",
                    remedy="Use vcenter-eam on the machine of the service, or set introspect_token.",
                ),
                403,
            )
        if reads and request.accept_mimetypes.best_match(("application/json", "text/html")) == "text/html":
            return see_other(LOGIN)
        return _unauthorised("A token is needed for this.")

    # --- after ----------------------------------------------------------------------------------------------

    def _finish(self, answer: Response) -> Response:
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        if self._rules.tls:
            answer.headers.setdefault("Strict-Transport-Security", _HSTS)
        return answer


def too_many(refused: TooManyAttempts) -> Response:
    """The answer to whoever has to wait."""
    seconds = int(refused.seconds) + 1
    answer = error_answer(
        LoginRefused("Too many wrong tokens came from this address.", remedy=f"Wait {seconds} s."), 429
    )
    answer.headers["Retry-After"] = str(seconds)
    return answer


def see_other(where: str) -> Response:
    """Send a browser to another page of ours, to GET it."""
    return Response("", 303, {"Location": where})


def _unauthorised(text: str) -> Response:
    remedy = "Send it as Authorization: Bearer, or log in at /login."
    answer = error_answer(LoginRefused(text, remedy=remedy), 401)
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer
