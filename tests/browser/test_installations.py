# SPDX-License-Identifier: Apache-2.0
"""Installations of more than one part: several vCenters in one daemon, and a standby beside the instance that leads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import (
    Installation,
    Looking,
    log_in,
    make_daemon,
    make_simulator,
    section_of,
    until,
)
from tests.browser.test_page import RULES
from tests.support import zookeeper as zookeepers
from tests.support.processes import SimulatorProcess
from tests.support.rabbit import RabbitNode, free_port
from tests.support.zookeeper import ZooKeeperNode

zookeeper = zookeepers.zookeeper
"""The fixture that other tests have, too."""

# --- several vCenters ------------------------------------------------------------------------------------------------


class Two:
    """Vcenters "east" (it acts) and "west" (it is observed) of one daemon."""

    def __init__(self, installation: Installation, west: SimulatorProcess) -> None:
        self.installation = installation
        self.west = west


@pytest.fixture
def two(rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("two")
        east = make_simulator(stack, directory / "east", hosts=4, clusters=1)
        west = make_simulator(stack, directory / "west", hosts=3, clusters=1)
        sections = section_of("east", east, directory, clusters=1, mode="act")
        sections += section_of("west", west, directory, clusters=1, mode="observe")
        made = make_daemon(stack, directory / "daemon", rabbit_node, east, sections)
        until(lambda: made.vcenter("east").get("states") == {"ACTIVE": 4}, "east is deployed")
        until(lambda: made.vcenter("west").get("states") == {"PENDING": 3}, "west is read")
        yield Two(made, west)


def card(page: Page, vcenter: str) -> Locator:
    """The summary of one vCenter; its clusters have its name, too."""
    return page.locator("#summary").get_by_role("region", name=re.compile(f"^{vcenter} "))


def test_one_page_has_every_vcenter_and_one_that_dies_does_not_hide_the_other(
    two: Two, look: Looking, picture: Callable[..., None]
) -> None:
    """Each with its mode, hosts and streams; a dead one says so, keeps what was seen, and the other one goes on."""
    made = two.installation
    page = look.open(made.url, color_scheme="light", viewport={"width": 1280, "height": 1000})
    expect(page.locator("#link")).to_have_text("Live")
    east, west = card(page, "east"), card(page, "west")
    expect(east).to_contain_text("4 of 4 active")
    expect(east.locator(".mode")).to_have_text("act")
    expect(west).to_contain_text("0 of 3 active")
    expect(west.locator(".mode")).to_have_text("observe")
    assert page.locator("#clusters a.cell").count() == 7
    assert page.locator("#clusters .cluster h3 small").all_inner_texts() == ["DC0", "east", "DC0", "west"]
    page.goto(f"{made.url}/plan")
    expect(page.get_by_role("link", name="Pause east")).to_be_visible()
    expect(page.get_by_role("link", name="Activate west")).to_be_visible()
    page.goto(f"{made.url}/plan?vcenter=west")
    expect(page.get_by_role("main")).not_to_contain_text("east")
    page.goto(made.url)
    expect(page.locator("#link")).to_have_text("Live")

    two.west.close()
    expect(west).to_contain_text("Inventory stale", timeout=60_000)
    expect(west).to_contain_text("EAM stale")
    expect(west).to_contain_text("0 of 3 active, as last seen")
    assert page.locator('#clusters a.cell[id^="h/west/"]').count() == 3, "what was seen last is there still"
    expect(east).to_contain_text("Inventory live")
    name = sorted(made.hosts())[0]
    made.simulator.do("enter_maintenance", host=name)
    expect(page.locator(f'#clusters a.cell[id^="h/east/"][aria-label="{name}, MAINTENANCE"]')).to_be_visible(
        timeout=30_000
    )
    expect(page.locator("#link")).to_have_text("Live")
    picture(page, "two-vcenters")

    # A daemon that never reaches one of them has the other's page all the same.
    page.goto("about:blank")
    assert made.daemon.terminate() == 0
    made.start()
    until(lambda: made.vcenter("east").get("ready"), "east is read")
    until(lambda: made.vcenter("west")["alarms"], "that west cannot be reached is an alarm")
    page.goto(made.url)
    expect(east).to_contain_text("3 of 4 active")
    expect(west).to_contain_text("not connected")
    expect(west.get_by_role("list", name="Alarms")).to_contain_text("connect")
    page.goto(f"{made.url}/activate?vcenter=west")
    expect(page.get_by_role("main")).to_contain_text("What would be done first is not known yet")


def test_each_vcenter_is_activated_by_itself(two: Two, look: Looking) -> None:
    made = two.installation
    page = look.open(made.url)
    log_in(page, made.url)
    west = card(page, "west")
    page.get_by_role("link", name="Activate west").click()
    dialog = page.get_by_role("dialog", name="Activate")
    expect(dialog).to_contain_text("3 hosts")
    dialog.get_by_role("button", name="Activate").click()
    expect(west.locator(".mode")).to_have_text("act")
    expect(west).to_contain_text("3 of 3 active", timeout=60_000)
    page.get_by_role("link", name="Pause east").click()
    page.get_by_role("dialog", name="Pause").get_by_role("button", name="Pause").click()
    until(lambda: made.vcenter("east")["mode"] == "paused", "east is paused")
    assert made.vcenter("west")["mode"] == "act"


# --- a standby -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(
    rabbit_node: RabbitNode, zookeeper: ZooKeeperNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, Installation]]:
    """The instance that leads, and its standby; three hosts, ACTIVE."""
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("pair")
        simulator = make_simulator(stack, directory / "vcenter", hosts=3, clusters=1)
        section = section_of("lab", simulator, directory, clusters=1, mode="act")
        port = free_port()
        shared = {
            "defaults": f"ovf_base_url = http://127.0.0.1:{port}",
            "more": f"\n[ZOOKEEPER]\nzookeeper_servers = 127.0.0.1:{zookeeper.port}\nzk_timeout = 6\n",
        }
        leader = make_daemon(stack, directory / "a", rabbit_node, simulator, section, ovf_port=port, **shared)
        leader.wait_for("ACTIVE")
        standby = make_daemon(stack, directory / "b", rabbit_node, simulator, section, **shared)
        until(lambda: standby.vcenter().get("ready") and standby.vcenter()["leader"], "the standby watches")
        yield leader, standby


def test_a_standby_shows_the_same_and_says_who_leads_and_where_to_act(
    pair: tuple[Installation, Installation], look: Looking, picture: Callable[..., None]
) -> None:
    """S19: it watches, live; what would change something is refused with the instance that would take it."""
    leader, standby = pair
    who = leader.vcenter()["leader"]
    page = look.open(standby.url, color_scheme="dark")
    log_in(page, standby.url)
    expect(page.locator("#link")).to_have_text("Live")
    lab = card(page, "lab")
    expect(lab).to_contain_text("3 of 3 active")
    expect(lab.locator(".mode")).to_have_text("standby")
    expect(lab).to_contain_text(f"{who}; this one is a standby")
    expect(lab).to_contain_text("no: that is for the leader")
    expect(page.get_by_role("link", name=re.compile("Activate|Pause"))).to_have_count(0)
    picture(page, "standby")

    name = sorted(standby.hosts())[0]
    standby.simulator.do("power_off", vm=standby.simulator.agent_vm(name))
    expect(page.locator(f'a.cell[aria-label="{name}, POWERED_OFF"]')).to_be_visible(timeout=30_000)
    before = standby.writes()
    page.goto(f"{standby.url}/issues")
    page.get_by_role("link", name=f"Resolve the issues of {name}").click()
    dialog = page.get_by_role("dialog", name=re.compile("Resolve"))
    expect(dialog).to_contain_text(f"It would be refused now: this instance does not lead; {who} does.")
    expect(dialog.locator("form")).to_have_count(0)
    page.keyboard.press("Escape")
    for verb in ("pause", "activate"):
        page.goto(f"{standby.url}/{verb}?vcenter=lab")
        expect(page.get_by_role("main")).to_contain_text(f"It would be refused here: {who} leads lab")
        assert page.locator("main form").count() == 0
    found = Axe().run(page, options=RULES)
    assert [each["nodes"][0]["html"] for each in found.response["violations"]] == []

    # A form that was opened while it led itself, or was made by hand, is told the same.
    csrf = page.locator('input[name="csrf"]').first.get_attribute("value")
    answer = page.request.post(
        f"{standby.url}/pause", form={"csrf": csrf or "", "vcenter": "lab"}, headers={"Origin": standby.url}
    )
    assert answer.status == 409
    assert f"{who} leads lab, and this is a standby." in answer.text()
    assert "Say pause there." in answer.text()
    assert (leader.vcenter()["mode"], standby.writes()) == ("act", before)


def test_a_standby_that_takes_over_can_be_acted_on_at_once(
    pair: tuple[Installation, Installation], look: Looking
) -> None:
    """Nobody reloads anything: the page follows the election."""
    leader, standby = pair
    page = look.open(standby.url)
    log_in(page, standby.url)
    lab = card(page, "lab")
    expect(lab.locator(".mode")).to_have_text("standby")
    assert leader.daemon.terminate() == 0
    expect(lab.locator(".mode")).to_have_text("act", timeout=60_000)
    expect(lab).to_contain_text("this instance")
    page.get_by_role("link", name="Pause lab").click()
    page.get_by_role("dialog", name="Pause").get_by_role("button", name="Pause").click()
    expect(lab.locator(".mode")).to_have_text("paused")
