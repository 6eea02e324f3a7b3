# SPDX-License-Identifier: Apache-2.0
"""Activating and pausing on the page, over TLS: previewed, behind the token, with and without a script."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import TOKEN, Installation, Looking, log_in, make_installation, until
from tests.browser.test_page import RULES
from tests.support.rabbit import RabbitNode

HOSTS = 6


@pytest.fixture(scope="module")
def made(rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Observing, and its page speaks TLS with a certificate of an authority of its own."""
    with ExitStack() as stack:
        yield make_installation(
            stack,
            tmp_path_factory.mktemp("modes"),
            rabbit_node,
            hosts=HOSTS,
            clusters=1,
            mode="observe",
            knobs=("deploy=1.5",),
            tls=True,
        )


@pytest.fixture
def observing(made: Installation) -> Installation:
    """Everything was read, and nothing was changed by this process yet."""
    if made.vcenter()["mode"] != "observe":
        assert made.daemon.terminate() == 0
        made.start()
    until(lambda: made.vcenter().get("ready"), "everything is read")
    return made


@pytest.fixture
def acting(observing: Installation) -> Installation:
    """Every host is ACTIVE."""
    observing.switch("activate")
    observing.wait_for("ACTIVE")
    return observing


def open_page(look: Looking, installation: Installation, path: str = "/", **context: object) -> Page:
    """Chromium is told to take any certificate; that ours is the right one is what :meth:`Installation.ask` checks."""
    return look.open(f"{installation.url}{path}", ignore_https_errors=True, **context)


def mode(page: Page) -> str:
    return str(page.locator("#summary .mode").inner_text()).lower()


# --- reading ---------------------------------------------------------------------------------------------------------


def test_without_the_token_the_mode_shows_and_nothing_can_be_pressed(observing: Installation, look: Looking) -> None:
    """A plain reader sees what it would mean, and is asked to log in; going round the page is refused."""
    page = open_page(look, observing)
    expect(page.locator("#summary .mode")).to_have_text("observe")
    page.get_by_role("link", name="Activate lab").click()
    dialog = page.get_by_role("dialog", name="Activate")
    expect(dialog.get_by_role("link", name="Log in")).to_be_visible()
    expect(dialog.locator("form, button")).to_have_count(0)
    expect(dialog.get_by_role("link", name=re.compile(r"\d+ steps"))).to_be_visible()
    for verb in ("activate", "pause"):
        for path, body in ((f"/{verb}", b"vcenter=lab"), (f"/api/v1/{verb}", b"{}")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(
                    urllib.request.Request(f"{observing.url}{path}", body), timeout=30, context=observing.trust
                )
            assert refused.value.code == 401
            refused.value.close()
    assert observing.vcenter()["mode"] == "observe"


def test_the_page_over_tls_is_live_and_its_cookie_is_for_tls_alone(observing: Installation, look: Looking) -> None:
    """Issue 4 and 5: the certificate is ours by its authority, and no browser sends the session in the clear."""
    assert observing.ask("/healthz") == {"alive": True}, "trusted by the authority that signed it, and by no other"
    page = open_page(look, observing)
    expect(page.locator("#link")).to_have_text("Live")
    assert page.evaluate("isSecureContext")
    log_in(page, observing.url)
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    (cookie,) = page.context.cookies()
    assert cookie["name"].startswith("__Host-")
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
    answer = page.goto(observing.url)
    assert answer is not None
    assert "max-age" in (answer.header_value("Strict-Transport-Security") or "")
    assert page.evaluate("document.cookie") == ""


# --- changing --------------------------------------------------------------------------------------------------------


def test_activating_is_previewed_done_and_followed_to_the_last_host(
    observing: Installation, look: Looking, picture: Callable[..., None]
) -> None:
    """From observing to every host ACTIVE: what is begun first, with a link to all of it, then that EAM is at work."""
    page = open_page(look, observing, color_scheme="light")
    log_in(page, observing.url)
    expect(page.locator("#link")).to_have_text("Live")
    before = observing.writes()
    opener = page.get_by_role("link", name="Activate lab")
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Activate")
    (plan,) = observing.ask("/api/v1/plan")["plans"]
    link = dialog.get_by_role("link", name=re.compile(r"\d+ steps?"))
    expect(link).to_have_text(re.compile(rf"{plan['total_lines']} steps?"))
    assert link.get_attribute("href") == "/plan?vcenter=lab"
    expect(dialog).to_contain_text("create the agency")
    expect(dialog).to_contain_text("set its unset Agent VM settings by rule")
    expect(dialog).to_contain_text("A restart of the service observes again")
    picture(page, "activate")
    page.keyboard.press("Escape")
    expect(opener).to_be_focused()
    assert (observing.writes(), mode(page)) == (before, "observe"), "to look changes nothing"
    page.keyboard.press("Enter")
    dialog.get_by_label("Why").fill("change 4711")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("#summary .mode")).to_have_text("act")
    expect(page.get_by_role("link", name="Pause lab")).to_be_focused()
    expect(page.locator("#said")).to_have_text("lab acts from now on")
    expect(page.locator("#summary .doing")).to_contain_text("EAM is deploying", timeout=30_000)
    picture(page, "deploying")
    expect(page.locator("#summary")).to_contain_text(f"{HOSTS} of {HOSTS} active", timeout=60_000)
    expect(page.locator("#summary .doing")).to_have_count(0)
    (told,) = [each for each in observing.ask("/api/v1/events?kind=operation")["events"] if each["text"] == "activate"]
    assert (told["why"], told["result"]) == ("change 4711", "done")
    assert told["who"].startswith("session ")


def test_pause_and_activate_work_as_plain_forms(acting: Installation, look: Looking) -> None:
    """Without a script: the same pages, by links and forms."""
    page = open_page(look, acting, java_script_enabled=False)
    log_in(page, acting.url)
    page.get_by_role("link", name="Pause lab").click()
    expect(page.get_by_role("main")).to_contain_text("watching and publishing go on")
    page.get_by_label("Why").fill("hosts are refreshed")
    page.get_by_role("button", name="Pause").click()
    assert urllib.parse.urlsplit(page.url).path == "/"
    expect(page.locator("#summary .mode")).to_have_text("paused")
    expect(page.locator("#summary")).to_contain_text("paused by an operator")
    page.get_by_role("link", name="Plan").click()
    page.get_by_role("link", name="Activate lab").click()
    expect(page.get_by_role("main")).to_contain_text("Nothing is planned now.")
    page.get_by_role("button", name="Activate").click()
    expect(page.locator("#summary .mode")).to_have_text("act")
    assert acting.vcenter()["mode"] == "act"


def test_a_plan_that_changed_is_shown_again_before_anything_is_begun(acting: Installation, look: Looking) -> None:
    """A person consents to what was shown."""
    acting.switch("pause")
    page = open_page(look, acting)
    log_in(page, acting.url)
    page.get_by_role("link", name="Activate lab").click()
    dialog = page.get_by_role("dialog", name="Activate")
    dialog.get_by_label("Why").fill("kept while it is read again")
    name = "esx-21.dc0.example"
    acting.simulator.do("add_host", cluster="ClusterA", name=name)
    try:
        until(lambda: acting.ask("/api/v1/plan")["plans"][0]["lines"], "the new host is planned for")
        dialog.get_by_role("button", name="Activate").click()
        expect(dialog.get_by_role("alert")).to_contain_text("not what was shown")
        expect(dialog).to_contain_text(name)
        expect(dialog.get_by_label("Why")).to_have_value("kept while it is read again")
        look.complaints.clear()  # Chromium complains of a 409
        assert acting.vcenter()["mode"] == "paused"
        dialog.get_by_role("button", name="Activate").click()
        expect(page.locator("#summary .mode")).to_have_text("act")
        acting.wait_for("ACTIVE", name)
    finally:
        acting.simulator.do("remove_host", host=name)
        until(lambda: name not in acting.hosts(), "it is gone again")


def test_a_form_without_its_secret_switches_nothing(acting: Installation, look: Looking) -> None:
    """Issue 4: what another page makes a browser send has no secret; a link alone only shows what it would mean."""
    page = open_page(look, acting)
    log_in(page, acting.url)
    status = page.evaluate(
        """async () => (await fetch("/pause", {method: "POST", body: new URLSearchParams({vcenter: "lab"})})).status"""
    )
    assert status == 403
    look.complaints.clear()
    page.goto(f"{acting.url}/pause?vcenter=lab")
    assert acting.vcenter()["mode"] == "act"


# --- for everybody ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(acting: Installation, look: Looking, scheme: str) -> None:
    """Issue 2: WCAG 2.2 AA as far as axe-core can tell, of both forms, as pages and in the dialogue."""
    page = open_page(look, acting, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
    log_in(page, acting.url)
    for path, opened in (("/pause", ""), ("/activate", ""), ("/", "Pause lab"), ("/plan", "")):
        page.goto(f"{acting.url}{path}")
        if opened:
            page.get_by_role("link", name=opened).click()
            expect(page.get_by_role("dialog")).to_be_visible()
        found = Axe().run(page, options=RULES)
        assert [f"{path}: {each['id']}: {each['nodes'][0]['html']}" for each in found.response["violations"]] == []


def test_the_token_is_in_no_form(acting: Installation, look: Looking) -> None:
    page = open_page(look, acting)
    log_in(page, acting.url)
    for path in ("/pause", "/activate"):
        page.goto(f"{acting.url}{path}")
        assert TOKEN not in page.content()
