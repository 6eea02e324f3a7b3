# SPDX-License-Identifier: Apache-2.0
"""How a browser shows the token: a form, a cookie that no script can read, and a way out.

The token is in the body of one POST and nowhere else; the cookie is another random text.
"""

from __future__ import annotations

from flask import Flask, Response, render_template, request

from vcenter_eam_plugin.web.access import Session, TooManyAttempts
from vcenter_eam_plugin.web.api import WhoAsks
from vcenter_eam_plugin.web.app import json_answer, who
from vcenter_eam_plugin.web.guard import LOGIN, SESSION, SHOWN, Guard, see_other, too_many


def add_login(app: Flask, guard: Guard, *, tls: bool) -> None:
    """Add the routes; ``guard`` must protect ``app`` already."""

    @app.get(LOGIN)
    def login_form() -> str:
        return _form()

    @app.post(LOGIN)
    def log_in() -> Response:
        try:
            cookie = guard.log_in(request.form.get("token", ""))
        except TooManyAttempts as exc:
            return too_many(exc)
        if cookie is None:
            return Response(_form("The token is wrong."), 401, mimetype="text/html")
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


def _form(wrong: str = "") -> str:
    return render_template("login.html", wrong=wrong)
