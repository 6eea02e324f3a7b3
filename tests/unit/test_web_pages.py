# SPDX-License-Identifier: Apache-2.0
"""Long lists in pages: every entry once, and words for people about which these are."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.contrailvm import contrail_vm
from vcenter_eam_plugin.domain.errors import ProtocolError
from vcenter_eam_plugin.domain.status import Issue, State
from vcenter_eam_plugin.web.issues import issues_of
from vcenter_eam_plugin.web.pages import Part, part_of


@given(total=st.integers(0, 60), limit=st.integers(1, 20))
def test_following_next_gives_every_entry_once_and_in_order(total: int, limit: int) -> None:
    entries, found, after = list(range(total)), list[int](), 0
    for _ in range(total + 1):
        part = part_of({"after": str(after), "limit": str(limit)})
        found += part.of(entries)
        following = part.next(total)
        if following is None:
            break
        after = following
    assert found == entries


def test_without_a_limit_it_is_all_that_follows() -> None:
    """As it was before there were pages: nobody who asks as before gets less."""
    assert list(part_of({}).of("abc")) == ["a", "b", "c"]
    assert list(part_of({"after": "2"}).of("abc")) == ["c"]
    assert part_of({}).next(3) is None


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "x"},
        {"limit": ""},
        {"after": "-1"},
        {"after": "9" * 30},
        {"after": "1.5"},
    ],
)
def test_what_is_no_number_of_an_entry_is_refused(asked: dict[str, str]) -> None:
    with pytest.raises(ProtocolError, match="not understood"):
        part_of(asked)


@given(total=st.integers(0, 60), after=st.integers(0, 100), limit=st.integers(1, 20))
def test_a_page_for_people_is_never_behind_the_end(total: int, after: int, limit: int) -> None:
    """A list may become shorter while somebody reads its last page."""
    here = Part(after=after, limit=limit).within(total)
    shown = here.shown(total)
    entries = range(1, total + 1)
    listed = list(here.of(entries))
    assert bool(listed) is bool(total)
    assert (shown.first, shown.last) == ((listed[0], listed[-1]) if listed else (0, 0))
    assert shown.is_all is (len(listed) == total)
    if shown.next is not None:
        assert shown.next == listed[-1]
    if shown.before is not None:
        assert shown.before < listed[0]


def test_issues_are_paged_through_all_types_and_each_says_on_how_many_hosts_it_is() -> None:
    """A page of the API: the type goes on where it broke off, with what the catalogue says of it."""
    found = []
    for number in range(1, 8):
        vm = contrail_vm(number, State.FAULTY)
        kinds = ("VmPoweredOff", "VmCorrupted") if number == 4 else ("VmPoweredOff",)
        eam = msgspec.structs.replace(vm.eam, issues=tuple(Issue(type=kind) for kind in kinds))
        found.append(("lab", msgspec.structs.replace(vm, eam=eam)))
    whole = issues_of(found, Part())
    assert [(each.type, each.count, len(each.hosts)) for each in whole.issues] == [
        ("VmPoweredOff", 7, 7), ("VmCorrupted", 1, 1),
    ]  # fmt: skip
    assert (whole.total, whole.next) == (8, None)
    pages, after = [], 0
    while after is not None:
        page = issues_of(found, Part(after=after, limit=3))
        pages.append([(each.type, each.count, [host.moref for host in each.hosts]) for each in page.issues])
        after = page.next
    assert pages == [
        [("VmPoweredOff", 7, ["host-1", "host-2", "host-3"])],
        [("VmPoweredOff", 7, ["host-4", "host-5", "host-6"])],
        [("VmPoweredOff", 7, ["host-7"]), ("VmCorrupted", 1, ["host-4"])],
    ]
