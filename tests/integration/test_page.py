# SPDX-License-Identifier: Apache-2.0
"""The status page over HTTP, where a browser is not needed to see whether it holds. The rest is in tests/browser."""

from __future__ import annotations

import pytest

from tests.support.rabbit import free_port
from tests.support.web import Web

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
