# SPDX-License-Identifier: Apache-2.0
"""How a browser shows the token: a form, a cookie that no script can read, and a way out.

The token is in the body of one POST and nowhere else; the cookie is another random text.
"""

from __future__ import annotations

from html import escape

from flask import Flask, Response, request

from vcenter_eam_plugin import __version__
from vcenter_eam_plugin.web.access import Session, TooManyAttempts
from vcenter_eam_plugin.web.api import WhoAsks
from vcenter_eam_plugin.web.app import json_answer, who
from vcenter_eam_plugin.web.guard import CSRF_FIELD, LOGIN, SESSION, SHOWN, Guard, see_other, too_many

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>contrail-vcenter-eam-plugin</title>
<h1>contrail-vcenter-eam-plugin</h1>
{body}
</html>
"""
_FORM = """{said}
<form method="post" action="/login">
<p><label for="token">Token (introspect_token)</label><br>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus></p>
<p><button>Log in</button></p>
</form>"""
_WRONG = '<p role="alert">The token is wrong.</p>'


def add_login(app: Flask, guard: Guard, *, tls: bool) -> None:
    """Add the routes; ``guard`` must protect ``app`` already."""

    @app.get("/")
    def start() -> str:
        session: Session | None = request.environ.get(SESSION)
        return _PAGE.format(body=_start_body(session))

    @app.get(LOGIN)
    def login_form() -> str:
        return _PAGE.format(body=_FORM.format(said=""))

    @app.post(LOGIN)
    def log_in() -> Response:
        try:
            cookie = guard.log_in(request.form.get("token", ""))
        except TooManyAttempts as exc:
            return too_many(exc)
        if cookie is None:
            return Response(_PAGE.format(body=_FORM.format(said=_WRONG)), 401, mimetype="text/html")
        answer = see_other("/")
        answer.set_cookie(guard.cookie, cookie, path="/", httponly=True, samesite="Strict", secure=tls)
        return answer

    @app.post("/logout")
    def log_out() -> Response:
        guard.log_out()
        answer = see_other(LOGIN)
        answer.delete_cookie(guard.cookie, path="/", httponly=True, samesite="Strict", secure=tls)
        return answer

    @app.get("/api/v1/session")
    def session() -> Response:
        """Who asks, and what a page needs to change things: its ``csrf`` goes into the header X-CSRF-Token."""
        found: Session | None = request.environ.get(SESSION)
        may = bool(request.environ.get(SHOWN))
        return json_answer(WhoAsks(who=who(), may_change=may, csrf=found.csrf if found is not None else ""))


def _start_body(session: Session | None) -> str:
    lines = [f"<p>Version {escape(__version__)}. <a href='/api/v1/status'>Status as JSON</a></p>"]
    if session is None:
        lines.append(f"<p><a href='{LOGIN}'>Log in</a></p>")
    else:
        lines.append(
            f"<form method='post' action='/logout'><input type='hidden' name='{CSRF_FIELD}' "
            f"value='{escape(session.csrf)}'><button>Log out</button></form>"
        )
    return "\n".join(lines)
