# SPDX-License-Identifier: Apache-2.0
"""How a person may call a host."""

from __future__ import annotations

import pytest

from vcenter_eam_plugin.domain.errors import UnknownTarget
from vcenter_eam_plugin.domain.names import find_host

KNOWN = {
    "host-1": "esx-01.dc0.example",
    "host-2": "esx-02.dc0.example",
    "host-3": "esx-02.dc1.example",
    "host-4": "esx-01",
    "host-5": "10.0.0.7",
}


@pytest.mark.parametrize(
    ("name", "moref"),
    [
        ("esx-01.dc0.example", "host-1"),
        (" ESX-01.DC0.example ", "host-1"),
        ("host-3", "host-3"),
        ("10.0.0.7", "host-5"),
        pytest.param("esx-01", "host-4", id="a whole name goes before a label"),
    ],
)
def test_a_host_by_name_or_moref(name: str, moref: str) -> None:
    assert find_host("vc", KNOWN, name) == moref


def test_a_first_label_is_enough_where_it_is_of_one_host_alone() -> None:
    known = {moref: name for moref, name in KNOWN.items() if moref in {"host-1", "host-2"}}
    assert find_host("vc", known, "esx-02") == "host-2"
    with pytest.raises(UnknownTarget, match=r"ambiguous.*host-2, host-3"):
        find_host("vc", KNOWN, "esx-02")


@pytest.mark.parametrize("name", ["", "esx", "10", "esx-02.dc0", "dc0.example"])
def test_less_is_no_name(name: str) -> None:
    with pytest.raises(UnknownTarget, match="no host is called"):
        find_host("vc", KNOWN, name)
