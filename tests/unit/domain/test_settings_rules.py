# SPDX-License-Identifier: Apache-2.0
"""Agent VM settings by rule: S09, S20, adding a host needs no person."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vcenter_eam_plugin.domain.facts import HostChoices, SettingsChoice
from vcenter_eam_plugin.domain.settings_rules import SettingsRules, decide_settings

SMALL = SettingsChoice("datastore-1", "local-a", 10)
LARGE = SettingsChoice("datastore-2", "local-b", 90)
SHARED = SettingsChoice("datastore-3", "shared-dc0", 500)
DEAD = SettingsChoice("datastore-4", "local-dead", 900, accessible=False)
VM_NETWORK = SettingsChoice("network-1", "VM Network")
FABRIC_B = SettingsChoice("network-2", "fab-b")
FABRIC_A = SettingsChoice("network-3", "fab-a")


def choices(**changes: Any) -> HostChoices:
    values: dict[str, Any] = {
        "host": "host-1",
        "datastores": (SMALL, LARGE, SHARED, DEAD),
        "networks": (VM_NETWORK, FABRIC_B, FABRIC_A),
        "agent_datastore": None,
        "agent_network": None,
    }
    return HostChoices(**values | changes)


def test_among_the_matching_datastores_the_one_with_most_free_space() -> None:
    """Agents deployed at once must not fill one; one that is not accessible is none."""
    decision = decide_settings(choices(), SettingsRules(("local-*",), ("fab-*",)))
    assert (decision.datastore, decision.network, decision.missing) == (LARGE, FABRIC_A, ())


def test_one_in_maintenance_is_taken_only_if_there_is_no_other() -> None:
    """S09: it may be that nothing can be deployed there."""
    resting = replace(LARGE, in_maintenance=True)
    rules = SettingsRules(("local-*",), ("*",))
    assert decide_settings(choices(datastores=(SMALL, resting)), rules).datastore == SMALL
    assert decide_settings(choices(datastores=(resting,)), rules).datastore == resting


def test_the_first_rule_that_matches_anything_wins() -> None:
    """Rules are an order of preference: a smaller datastore of the better rule is taken."""
    rules = SettingsRules(("ssd-*", "local-a", "*"), ("nothing", "VM Network", "*"))
    decision = decide_settings(choices(), rules)
    assert (decision.datastore, decision.network) == (SMALL, VM_NETWORK)


def test_what_is_set_stays() -> None:
    """They are host-wide, and other vendors' agents use them: only what is unset is written."""
    decision = decide_settings(choices(agent_datastore="datastore-1"), SettingsRules(("*",), ("fab-*",)))
    assert (decision.datastore, decision.network, decision.missing) == (None, FABRIC_A, ())
    decision = decide_settings(choices(agent_network="network-1"), SettingsRules(("*",), ("*",)))
    assert (decision.datastore, decision.network, decision.missing) == (SHARED, None, ())


def test_nothing_fits_says_what_there_is() -> None:
    """BLOCKED with what a person needs to mend the rule; names are matched as they are written."""
    decision = decide_settings(choices(), SettingsRules(("Local-*",), ()))
    assert (decision.datastore, decision.network) == (None, None)
    datastore, network = decision.missing
    assert "Local-*" in datastore
    assert "local-a, local-b, shared-dc0" in datastore
    assert "local-dead" not in datastore
    assert "agent_vm_network" in network


def test_a_host_with_nothing() -> None:
    """No datastore, no network: said so, not raised."""
    decision = decide_settings(choices(datastores=(), networks=()), SettingsRules(("*",), ("*",)))
    assert [text.endswith("the host has: none") for text in decision.missing] == [True, True]


some = st.lists(
    st.builds(SettingsChoice, st.text("ab1", min_size=1), st.text("ab", min_size=1), st.integers(0, 3), st.booleans()),
    max_size=4,
).map(tuple)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(some, some, st.booleans(), st.lists(st.sampled_from(["a*", "*b", "*", "?"]), max_size=2).map(tuple))
def test_decisions_stay_among_the_choices(
    datastores: tuple[SettingsChoice, ...], networks: tuple[SettingsChoice, ...], is_set: bool, rules: tuple[str, ...]
) -> None:
    """Whatever a host offers: no inaccessible datastore, and each unset setting is chosen or explained."""
    one = "datastore-9" if is_set else None
    decision = decide_settings(HostChoices("host-1", datastores, networks, one, one), SettingsRules(rules, rules))
    assert decision.datastore is None or (decision.datastore in datastores and decision.datastore.accessible)
    assert decision.network is None or decision.network in networks
    chosen = (decision.datastore is not None) + (decision.network is not None)
    assert chosen + len(decision.missing) == (0 if is_set else 2)
