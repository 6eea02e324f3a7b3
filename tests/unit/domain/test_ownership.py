# SPDX-License-Identifier: Apache-2.0
"""Whose agency it is: design section 5."""

from __future__ import annotations

import pytest

from tests.support.facts import an_agency
from vcenter_eam_plugin.domain.facts import AgencyFacts
from vcenter_eam_plugin.domain.ownership import Claim, judge, same_principal

NAME = "ContrailVM-Agency"
US = "contrail@vsphere.local"
OURS = an_agency()
THEIRS = an_agency(moref="agency-2", owner="EXAMPLE\\other", solution_id="EXAMPLE\\other")
EXTENSION = an_agency(moref="agency-3", owner=None, solution_id="net.contrail.eam")


def test_ours_is_used() -> None:
    """Same name, same owner, in whichever spelling; agencies of other names are nobody's business here."""
    found = judge([an_agency(moref="agency-9", name="NSX", owner="NSX"), OURS], NAME, [US])
    assert (found.ours, found.foreign) == (OURS, ())


def test_none_of_that_name_is_none() -> None:
    """Then one may be created."""
    found = judge([an_agency(name="contrailvm-agency")], NAME, [US])
    assert (found.ours, found.foreign) == (None, ())


def test_of_another_owner_is_refused() -> None:
    """Refuse, and list it."""
    assert judge([THEIRS], NAME, [US]).foreign == (THEIRS,)
    assert judge([THEIRS], NAME, [US]).ours is None


def test_several_are_refused_even_if_one_is_ours() -> None:
    """Which one would be meant is a person's to say."""
    second = an_agency(moref="agency-4")
    for agencies in ([OURS, THEIRS], [OURS, second]):
        found = judge(agencies, NAME, [US])
        assert (found.ours, found.foreign) == (None, tuple(agencies))


def test_an_extension_owns_by_its_key() -> None:
    """``owner`` is unset then, and ``solution_id`` is the key; a user of the same name is not the extension."""
    assert judge([EXTENSION], NAME, ["net.contrail.eam"]).ours == EXTENSION
    assert judge([EXTENSION], NAME, [US]).foreign == (EXTENSION,)


def test_any_of_our_names_owns() -> None:
    """vCenter may know a login by another name than the configured one: ``contrail`` in the default domain."""
    assert judge([OURS], NAME, ["contrail", "VSPHERE.LOCAL\\contrail"]).ours == OURS
    assert judge([OURS], NAME, ["contrail"]).foreign == (OURS,)


def test_consent_makes_another_owners_agency_ours_to_use() -> None:
    """Also after a restore, when EAM knows it by another moref; not when it is a third one's."""
    consent = Claim(agency="agency-2", owner="other@example")
    assert judge([THEIRS], NAME, [US], consent).ours == THEIRS
    restored = an_agency(moref="agency-20", owner="EXAMPLE\\other", solution_id="EXAMPLE\\other")
    assert judge([restored], NAME, [US], consent).ours == restored
    assert judge([EXTENSION], NAME, [US], consent).foreign == (EXTENSION,)


@pytest.mark.parametrize("chosen", [OURS, THEIRS], ids=["ours", "theirs"])
def test_consent_chooses_one_of_several_until_another_appears(chosen: AgencyFacts) -> None:
    """A person saw two and took one; a third is another question."""
    (other,) = {OURS, THEIRS} - {chosen}
    consent = Claim(agency=chosen.moref, owner=chosen.owner or "", beside=(other.moref,))
    assert judge([OURS, THEIRS], NAME, [US], consent).ours == chosen
    third = judge([OURS, THEIRS, EXTENSION], NAME, [US], consent)
    assert (third.ours, third.foreign) == (None, (OURS, THEIRS, EXTENSION))


def test_consent_is_to_an_owner_and_not_to_a_moref_alone() -> None:
    """The moref that was consented to is somebody else's now."""
    consent = Claim(agency="agency-3", owner="other@example")
    assert judge([EXTENSION], NAME, [US], consent).foreign == (EXTENSION,)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("VSPHERE.LOCAL\\Administrator", "administrator@vsphere.local", True),
        ("Contrail@EXAMPLE.com", "contrail@example.com", True),
        ("contrail@vsphere.local", "contrail@example.com", False),
        ("contrail", "contrail@vsphere.local", False),
        ("", "contrail@vsphere.local", False),
        ("net.contrail.eam", "net.contrail.eam", True),
    ],
)
def test_spellings_of_one_account(one: str, other: str, same: bool) -> None:
    """vCenter shows DOMAIN\\user where one logs in as user@domain; the domain counts."""
    assert same_principal(one, other) is same
    assert same_principal(other, one) is same
