# SPDX-License-Identifier: Apache-2.0
"""The status page over HTTP, where a browser is not needed to see whether it holds. The rest is in tests/browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from urllib.parse import urlencode

import pytest

from tests.support.bench import Bench
from tests.support.rabbit import free_port
from tests.support.web import Web
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.web import picture

PAGES = ("/", "/issues", "/plan", "/delivery")


@pytest.mark.parametrize("path", PAGES)
def test_a_vcenter_that_cannot_be_reached_is_shown_as_that(web: Web, path: str) -> None:
    """Nothing is known of it yet, and that is what the page says, with why."""
    web.start(vcenter={"vc_port": free_port()})
    web.bench.wait_for(lambda: "connect" in web.bench.alarms(), "that it cannot be reached is an alarm")
    page = web.ask("GET", path)
    assert page.status == 200
    text = page.body.decode()
    assert text.rstrip().endswith("</html>")
    if path == "/":
        assert "Connection refused" in text
        assert "not connected" in text
        assert "No host is known yet." in text


def test_an_unknown_state_host_or_operation_is_a_page_that_says_so(web: Web) -> None:
    web.start()
    web.bench.wait_until_active()
    assert b"No host is like that." in web.ask("GET", "/?state=NONSENSE&text=%3Cb%3E").body
    for path, status in (
        ("/hosts/test/host-999", 404),
        ("/hosts/nowhere/host-1", 404),
        ("/operations/1", 404),
        ("/preview", 400),
        ("/preview?operation=uninstall", 400),
        ("/preview?operation=resolve&target=esx-99", 404),
        ("/preview?operation=release&target=host-1", 409),
    ):
        answer = web.ask("GET", path)
        assert answer.status == status, path
        assert b"That did not work" in answer.body
        assert answer.headers["content-type"].startswith("text/html")


def test_consent_is_the_forms_and_not_the_links(web: Web) -> None:
    """A preview changes nothing, and what changes cannot be reached by a link, from whatever page."""
    web.start()
    web.bench.wait_until_active()
    cookie = web.log_in().cookie
    writes = len(web.bench.writes())
    for query in ("operation=apply", "operation=resolve&everything=yes", "operation=release&everything=yes"):
        assert web.ask("GET", f"/preview?{query}", Cookie=cookie).status == 200
    assert web.ask("GET", "/carry-out?operation=apply", Cookie=cookie).status == 405
    assert len(web.bench.writes()) == writes


# --- activate, pause -----------------------------------------------------------------------------------------


def form(web: Web, path: str, **fields: str) -> tuple[int, str]:
    """As a browser with a session sends it: status, and the page or where to."""
    cookie = web.log_in().cookie
    csrf = web.ask("GET", "/api/v1/session", Cookie=cookie).json()["csrf"]
    answer = web.ask(
        "POST",
        path,
        urlencode({"csrf": csrf, **fields}).encode(),
        Content_Type="application/x-www-form-urlencoded",
        Origin=web.origin,
        Sec_Fetch_Site="same-origin",
        Cookie=cookie,
    )
    return answer.status, answer.headers.get("location", "") or answer.body.decode()


@pytest.fixture
def observing(web: Web) -> Web:
    """One host is known, and would get a ContrailVM."""
    web.start(mode=Mode.OBSERVE)
    web.bench.wait_for(lambda: web.ask("GET", "/readyz").status == 200, "ready")
    return web


def mode(web: Web) -> str:
    (vcenter,) = web.ask("GET", "/api/v1/status").json()["vcenters"]
    return str(vcenter["mode"])


def test_what_activating_would_begin_is_shown_and_consented_to(observing: Web) -> None:
    """The form carries the digest of the plan that it showed: another one, or none, changes nothing."""
    web = observing
    (plan,) = web.ask("GET", "/api/v1/plan").json()["plans"]
    shown = web.ask("GET", "/activate?vcenter=test").body.decode()
    assert f"{plan['total_lines']} steps</a> are planned now" in shown
    assert all(line["text"] in unescape(shown) for line in plan["lines"])
    for digest in ("", "0123456789abcdef"):
        status, page = form(web, "/activate", vcenter="test", digest=digest)
        assert status == 409
        assert plan["digest"] in page, "the form for the plan as it is"
    assert (mode(web), web.bench.writes()) == ("observe", [])
    assert form(web, "/activate", vcenter="test", digest=plan["digest"]) == (303, "/")
    assert mode(web) == "act"
    web.bench.wait_until_active()
    assert form(web, "/pause?part=live", vcenter="test") == (303, "/?part=live"), "a script needs no grid"
    assert mode(web) == "paused"


def test_nothing_is_switched_by_a_link_without_the_token_or_without_the_secret(observing: Web) -> None:
    """As for everything that changes: the token, the session's secret, and a page of ours."""
    web = observing
    cookie = web.log_in().cookie
    for verb in ("activate", "pause"):
        assert web.ask("GET", f"/{verb}?vcenter=test", Cookie=cookie).status == 200
        body = urlencode({"vcenter": "test"}).encode()
        plain = {"Content_Type": "application/x-www-form-urlencoded"}
        assert web.ask("POST", f"/{verb}", body, **plain).status == 401
        assert web.ask("POST", f"/{verb}", body, **plain, Cookie=cookie).status == 403
        assert web.ask("POST", f"/{verb}", body, **plain, Cookie=cookie, Sec_Fetch_Site="cross-site").status == 403
    assert mode(web) == "observe"


def test_what_cannot_be_switched_is_a_page_that_says_so(observing: Web) -> None:
    web = observing
    assert "there is nothing to pause" in web.ask("GET", "/pause?vcenter=test").body.decode()
    assert web.ask("GET", "/activate?vcenter=nowhere").status == 404
    assert form(web, "/activate", vcenter="nowhere")[0] == 404
    assert form(web, "/pause", vcenter="test", why="x" * 201)[0] == 400
    assert mode(web) == "observe"


def test_a_vcenter_that_was_never_reached_is_activated_without_a_plan(web: Web) -> None:
    """It begins to act once it is connected; that no plan was known is what was consented to."""
    web.start(vcenter={"vc_port": free_port()}, mode=Mode.OBSERVE)
    web.bench.wait_for(lambda: "connect" in web.bench.alarms(), "that it cannot be reached is an alarm")
    assert "is not known yet" in web.ask("GET", "/activate?vcenter=test").body.decode()
    assert form(web, "/activate", vcenter="test", digest="") == (303, "/")
    assert mode(web) == "act"


# --- long tables ---------------------------------------------------------------------------------------------


def test_long_plans_and_issues_are_paged(make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """2,500 hosts that are all pending, or all in trouble, are no page that anybody reads."""
    monkeypatch.setattr(picture, "ON_A_PAGE", 2)
    web = Web(make_bench(hosts=5, clusters=1))
    web.start(agent_vm_datastore=(), agent_vm_network=())
    web.bench.wait_for(lambda: web.ask("GET", "/api/v1/issues").json()["total"] == 5, "each host has an issue")
    for path, row in (("/issues", r'<tr><th scope="row"><a href="/hosts/'), ("/plan", r'<li class="waits">')):
        found, seen, where = [], 0, path
        while where:
            text = web.ask("GET", where).body.decode()
            rows = re.findall(row, text)
            found.append(len(rows))
            seen += len(rows)
            following = re.search(r'rel="next" href="([^"]+)"', text)
            where = unescape(following[1]) if following else ""
        assert found == [2, 2, 1], path
        assert "5–5 of 5" in text  # noqa: RUF001 - the page has a dash
        assert 'rel="prev"' in text
        last = web.ask("GET", f"{path}?after=4000").body.decode()
        assert ("5–5 of 5" in last, len(re.findall(row, last))) == (True, 1), "shorter meanwhile"  # noqa: RUF001
    assert "All issues" in web.ask("GET", "/issues?type=VmPoweredOff").body.decode()
    assert web.ask("GET", "/plan?after=-1").status == 400
    assert web.ask("GET", "/plan?vcenter=nowhere").status == 404
