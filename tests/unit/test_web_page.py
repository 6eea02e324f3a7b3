# SPDX-License-Identifier: Apache-2.0
"""What pages are made of, apart from any browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import gevent

import vcenter_eam_plugin.web
from tests.unit.test_history import status_of
from vcenter_eam_plugin.domain.issues import Radius
from vcenter_eam_plugin.domain.status import State
from vcenter_eam_plugin.history import History
from vcenter_eam_plugin.turns import SLICE
from vcenter_eam_plugin.web.faces import FACES, NEEDS_SOMEBODY, WORST_FIRST
from vcenter_eam_plugin.web.page import PIECES, in_turns
from vcenter_eam_plugin.web.picture import ON_A_PAGE, Wanted, bars, by_name, kinds_of_steps, steps_shown
from vcenter_eam_plugin.web.stream import told

HERE = Path(vcenter_eam_plugin.web.__file__).parent


def test_every_state_has_a_face_of_its_own() -> None:
    """Issue 2: nothing is told by colour alone."""
    assert set(FACES) == set(State)
    assert len({face.letter for face in FACES.values()}) == len(State)
    assert {State.FAULTY, State.UNREACHABLE} <= NEEDS_SOMEBODY
    assert not NEEDS_SOMEBODY & {State.ACTIVE, State.MAINTENANCE, State.STANDBY, State.DEPLOYING}
    assert WORST_FIRST[0] is State.FAULTY
    style = (HERE / "static/page.css").read_text("utf-8")
    assert all(f".{face.group} {{" in style for face in FACES.values())


def test_a_long_page_gives_others_their_turns() -> None:
    """P2: nothing holds the event loop above 50 ms, a page of thousands of hosts neither."""
    turns: list[int] = []
    written: list[str] = []

    def other() -> None:
        while True:
            turns.append(len(written))
            gevent.sleep(0)

    def pieces() -> Iterator[str]:
        for number in range(2000):
            until = time.thread_time() + SLICE / (2 * PIECES)
            while time.thread_time() < until:
                pass
            written.append(f"{number} ")
            yield written[-1]

    beside = gevent.spawn(other)
    text = in_turns(pieces())
    beside.kill()
    assert text.split() == [str(number) for number in range(2000)]
    longest = max(later - earlier for earlier, later in pairwise([0, *turns, 2000]))
    assert longest <= 4 * PIECES, "two slices, where one and the look at the clock are meant"


def test_hosts_are_ordered_as_people_count() -> None:
    names = ["esx-10", "esx-2", "ESX-1", "10.0.0.1", "9.0.0.1", "esx", "esx1", "esx²"]
    ordered = sorted((status_of(name, State.ACTIVE) for name in names), key=by_name)
    assert [status.esxi.moref for status in ordered] == [
        "9.0.0.1", "10.0.0.1", "esx1", "ESX-1", "esx-2", "esx-10", "esx", "esx²",
    ]  # fmt: skip


def test_hosts_are_chosen_by_state_and_text() -> None:
    status = status_of("host-1", State.FAULTY, "VmCorrupted: its files are damaged")
    for fits in (Wanted(), Wanted("FAULTY"), Wanted("", "CORRUPTED"), Wanted("FAULTY", "host-1.ex"), Wanted("", "a")):
        assert fits.fits(status), fits
    for other in (Wanted("ACTIVE"), Wanted("", "esx-2"), Wanted("ACTIVE", "host-1")):
        assert not other.fits(status), other


def test_steps_that_say_the_same_are_one_line_and_what_touches_most_is_first() -> None:
    """What activating would begin, of 2,500 hosts: one ContrailVM that is deleted must not be beyond the last line."""

    def lines(count: int, text: str, radius: Radius) -> list[dict[str, str]]:
        return [{"target": f"esx-{number}", "text": text, "radius": radius.value} for number in range(count)]

    plan = [
        *lines(2500, "set its settings", Radius.NOTHING),
        *lines(3, "resolve VmPoweredOff", Radius.AGENT_VM),
        *lines(1, "resolve VmMissing", Radius.AGENT_VM_LOST),
        *lines(40, "resolve Other", Radius.AGENT_VM),
    ]
    assert [(kind.text, kind.count, kind.target) for kind in kinds_of_steps(plan)] == [
        ("resolve VmMissing", 1, "esx-0"),
        ("resolve Other", 40, ""),
        ("resolve VmPoweredOff", 3, ""),
        ("set its settings", 2500, ""),
    ]
    assert kinds_of_steps([]) == ()


def test_of_an_operation_of_thousands_those_steps_show_that_say_most() -> None:
    """It is asked twice a second how far it is; a few show as they are planned."""
    few = [{"outcome": "done"}, {"outcome": "failed"}]
    assert steps_shown(few) == (few, 0)
    outcomes = ["done"] * 1000 + ["waiting"] * 1490 + ["failed"] * 3 + ["running"] * 7
    shown, more = steps_shown([{"outcome": outcome} for outcome in outcomes])
    assert (len(shown), more) == (ON_A_PAGE, 2500 - ON_A_PAGE)
    assert [step["outcome"] for step in shown[:11]] == ["failed"] * 3 + ["running"] * 7 + ["waiting"]


def test_the_bar_of_states_fills_its_width_from_well_to_not() -> None:
    pieces = bars({State.FAULTY: 1, State.ACTIVE: 2})
    assert [(piece.state, piece.count) for piece in pieces] == [(State.ACTIVE, 2), (State.FAULTY, 1)]
    assert pieces[0].x == 0
    assert abs(pieces[-1].x + pieces[-1].width - 1000) < 0.1
    assert bars({}) == []


def test_a_change_is_told_with_all_that_the_script_shows() -> None:
    history = History(lambda: 1.0)
    history.record("lab", [status_of("host-1", State.FAULTY, "broken")])
    (change,) = told(history.since(0) or [])
    assert change == {
        "vcenter": "lab", "host": "host-1", "name": "host-1.example", "cluster": "domain-c1", "state": "FAULTY",
        "letter": "F", "group": "bad", "reason": "broken", "at": 1.0,
    }  # fmt: skip
    script = (HERE / "static/page.js").read_text("utf-8")
    used = set(re.findall(r"\b(?:one|change)\.(\w+)\b", script))
    assert "letter" in used
    assert used <= change.keys()


def test_no_page_has_anything_inline_or_from_outside() -> None:
    """ADR 0026: the policy that browsers get would stop it."""
    for file in [*(HERE / "templates").iterdir(), *(HERE / "static").iterdir()]:
        text = file.read_text("utf-8")
        assert not re.search(r"<style|style=| on[a-z]+=\"|javascript:|<script(?! src=\"{{)", text), file
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), file
        assert not re.search(
            r"@import|url\((?!_for)|innerHTML|insertAdjacentHTML|\|\s*safe", text.replace("url_for(", "")
        ), file
