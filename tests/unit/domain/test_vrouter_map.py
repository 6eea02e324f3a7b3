# SPDX-License-Identifier: Apache-2.0
"""Which lines of ESXiToVRouterIp.map are ours, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcenter_eam_plugin.domain.vrouter_map import Line, MapHost, Merged, merge

VC = "52f3b0a1-7c1d-4d7e-9a55-0c2f6f0e1a11"


def host(number: int, vrouter: str | None = "", address: str | None = "", name: str = "") -> MapHost:
    return MapHost(
        f"host-{number}.{VC}",
        name or f"esx-{number}",
        f"10.0.0.{number}" if address == "" else address,
        f"10.1.0.{number}" if vrouter == "" else vrouter,
    )


def after(*hosts: MapHost, text: str = "", ours: Mapping[str, Line] | None = None, complete: bool = True) -> Merged:
    return merge(text, ours or {}, hosts, {VC} if complete else set())


BOTH = "10.0.0.1:10.1.0.1\nesx-1:10.1.0.1\n"


def test_a_host_has_a_line_for_its_name_and_one_for_its_address() -> None:
    """LP 1716167: whether vCenter knows a host by name or by address, the reader finds it."""
    merged = after(host(1))
    assert merged.text == BOTH
    assert merged.ours == {left: Line("10.1.0.1", f"host-1.{VC}") for left in ("esx-1", "10.0.0.1")}


def test_a_host_that_is_known_by_its_address_has_one_line() -> None:
    assert after(host(1, name="10.0.0.1")).text == "10.0.0.1:10.1.0.1\n"


def test_nothing_new_changes_nothing() -> None:
    merged = after(host(1))
    assert after(host(1), text=merged.text, ours=merged.ours) == merged


def test_a_new_address_of_the_contrailvm_is_written_where_the_old_one_stood() -> None:
    merged = after(host(1))
    text = "before:1.2.3.4\n" + merged.text + "after:1.2.3.5\n"
    again = after(host(1, "10.1.0.99"), text=text, ours=merged.ours)
    assert again.text == "before:1.2.3.4\n10.0.0.1:10.1.0.99\nesx-1:10.1.0.99\nafter:1.2.3.5\n"


def test_lines_of_a_host_that_is_gone_are_removed() -> None:
    """LP 1730795 and its like: the installer appends, and nobody ever removes."""
    merged = after(host(1), host(2))
    again = after(host(2), text=merged.text, ours=merged.ours)
    assert again.text == "10.0.0.2:10.1.0.2\nesx-2:10.1.0.2\n"
    assert set(again.ours) == {"esx-2", "10.0.0.2"}


def test_before_everything_was_read_nobody_is_gone() -> None:
    merged = after(host(1))
    assert after(text=merged.text, ours=merged.ours, complete=False) == merged


def test_hosts_of_a_vcenter_that_is_not_looked_at_stay() -> None:
    merged = after(host(1))
    assert merge(merged.text, merged.ours, [], {"another"}) == merged


def test_a_contrailvm_that_is_off_has_no_address_and_keeps_its_line() -> None:
    merged = after(host(1))
    assert after(host(1, vrouter=None), text=merged.text, ours=merged.ours) == merged


def test_a_host_whose_name_is_not_resolved_now_keeps_the_line_of_its_address() -> None:
    merged = after(host(1))
    assert after(host(1, address=None), text=merged.text, ours=merged.ours) == merged
    moved = after(host(1, "10.1.0.99", address=None), text=merged.text, ours=merged.ours)
    assert moved.text == BOTH.replace("10.1.0.1", "10.1.0.99")


def test_an_address_that_another_host_has_now_is_that_hosts() -> None:
    """Bug: while the name of the one that had it was not resolved, both were left without that line for one look."""
    merged = after(host(1))
    again = after(host(1, address=None), host(2, address="10.0.0.1"), text=merged.text, ours=merged.ours)
    assert again.text == "10.0.0.1:10.1.0.2\nesx-1:10.1.0.1\nesx-2:10.1.0.2\n"


def test_a_host_that_is_renamed_loses_the_line_of_its_old_name() -> None:
    merged = after(host(1))
    again = after(host(1, name="new"), text=merged.text, ours=merged.ours)
    assert again.text == "10.0.0.1:10.1.0.1\nnew:10.1.0.1\n"


def test_lines_of_others_stay_byte_by_byte() -> None:
    text = "# by hand\n\n esx-7 : 10.9.9.9 \r\nnonsense\nesx-8:fe80::1"
    merged = after(host(1), text=text)
    assert merged.text == text + "\n" + BOTH
    assert after(text=merged.text, ours=merged.ours).text == text + "\n"


def test_a_line_that_says_what_we_would_write_becomes_ours() -> None:
    """A file that the installer wrote is taken over without being changed."""
    merged = after(host(1), text=BOTH)
    assert merged.text == BOTH
    assert after(text=BOTH, ours=merged.ours).text == ""


def test_a_line_that_says_something_else_is_left_and_told() -> None:
    """The installer's address may be the fabric's where ours is the management's: a person decides."""
    merged = after(host(1), text="esx-1:10.9.9.9\n")
    assert merged.text == "esx-1:10.9.9.9\n10.0.0.1:10.1.0.1\n"
    assert merged.contradictions == ("The line 'esx-1:10.9.9.9' is not ours, and the ContrailVM there has 10.1.0.1.",)


def test_a_line_of_ours_that_somebody_changed_is_theirs() -> None:
    merged = after(host(1))
    changed = merged.text.replace("esx-1:10.1.0.1", "esx-1:10.9.9.9")
    again = after(host(1), text=changed, ours=merged.ours)
    assert again.text == changed
    assert "esx-1" not in again.ours
    assert len(again.contradictions) == 1
    assert after(text=changed, ours=again.ours).text == "esx-1:10.9.9.9\n"


def test_a_line_of_ours_that_somebody_removed_is_written_again() -> None:
    merged = after(host(1))
    assert after(host(1), text="", ours=merged.ours).text == merged.text


def test_what_two_hosts_would_have_is_left_out() -> None:
    """Hosts called localhost, say: the line would be wrong for one of them."""
    merged = after(host(1, name="localhost", address=None), host(2, name="localhost"))
    assert merged.text == "10.0.0.2:10.1.0.2\n"


@pytest.mark.parametrize("vrouter", ["fe80::1", "", "not an address", "10.0.0.300"])
def test_only_ipv4_addresses_are_written(vrouter: str) -> None:
    assert after(host(1, vrouter=vrouter or None)).text == ""


@pytest.mark.parametrize("name", ["fe80::1", " esx", "[fe80::1]"])
def test_a_name_that_the_reader_would_misread_is_left_out(name: str) -> None:
    assert after(host(1, name=name)).text == "10.0.0.1:10.1.0.1\n"


HOSTS = st.lists(
    st.builds(
        host,
        st.integers(1, 4),
        st.sampled_from([None, "10.1.0.1", "10.1.0.2", "fe80::1"]),
        st.sampled_from([None, "", "10.0.0.1"]),
        st.sampled_from(["", "localhost"]),
    ),
    max_size=4,
    unique_by=lambda each: each.key,
)
THEIRS = st.lists(st.sampled_from(["", "# x", "esx-1:10.9.9.9", "esx-9:10.1.0.9", "nonsense"]), max_size=4)


@given(theirs=THEIRS, history=st.lists(HOSTS, max_size=6))
def test_whatever_happened_others_lines_stand_and_ours_go_with_their_hosts(
    theirs: list[str], history: list[list[MapHost]]
) -> None:
    text, ours = "".join(f"{line}\n" for line in theirs), {}
    for hosts in history:
        merged = after(*hosts, text=text, ours=ours)
        assert after(*hosts, text=merged.text, ours=merged.ours) == merged, "a second look changed something"
        text, ours = merged.text, dict(merged.ours)
        assert {line.key for line in ours.values()} <= {each.key for each in hosts}
        for left, line in ours.items():
            assert f"{left}:{line.vrouter}\n" in text
    assert [line for line in text.splitlines() if line in theirs] == theirs
    last = after(text=text, ours=ours)
    assert last.text.splitlines() == theirs
