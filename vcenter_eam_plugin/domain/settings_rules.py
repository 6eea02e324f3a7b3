# SPDX-License-Identifier: Apache-2.0
"""Which datastore and network a new host gets as its Agent VM settings.

A rule is a shell pattern over names; the first rule that matches anything wins. Among the matching
datastores the one with most free space is taken, because agents deployed at once must not fill one, and one in
maintenance only if there is no other; among networks the first by name, so that every host of a cluster gets the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vcenter_eam_plugin.domain.facts import HostChoices, SettingsChoice


@dataclass(frozen=True, slots=True)
class SettingsRules:
    """Patterns in order of preference; empty means: never set it."""

    datastores: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingsDecision:
    """What to write (morefs; ``None`` = leave alone), and what stays unset and why."""

    datastore: SettingsChoice | None
    network: SettingsChoice | None
    missing: tuple[str, ...]


def decide_settings(choices: HostChoices, rules: SettingsRules) -> SettingsDecision:
    """Choose for what is *unset* only: the settings are host-wide, and other vendors' agents use them too."""
    datastore = network = None
    missing: list[str] = []
    if choices.agent_datastore is None:
        usable = [c for c in choices.datastores if c.accessible]
        datastore = _first_match(
            sorted(usable, key=lambda c: (c.in_maintenance, -c.free_bytes, c.name)), rules.datastores
        )
        if datastore is None:
            missing.append(_nothing_fits("datastore", rules.datastores, choices.datastores))
    if choices.agent_network is None:
        network = _first_match(sorted(choices.networks, key=lambda c: c.name), rules.networks)
        if network is None:
            missing.append(_nothing_fits("network", rules.networks, choices.networks))
    return SettingsDecision(datastore, network, tuple(missing))


def unusable_settings(choices: HostChoices) -> str:
    """What is wrong with Agent VM settings that are set, in a sentence; empty when nothing is.

    They are not ours to change: somebody set them, and other vendors' agents may use them.
    """
    datastores = {choice.moref: choice for choice in choices.datastores}
    if choices.agent_datastore is not None:
        datastore = datastores.get(choices.agent_datastore)
        if datastore is None:
            return f"the host's Agent VM datastore ({choices.agent_datastore}) is not mounted on it; set another"
        if not datastore.accessible:
            return f"the host's Agent VM datastore {datastore.name} is not accessible; repair it, or set another"
    if choices.agent_network is not None and choices.agent_network not in {c.moref for c in choices.networks}:
        return f"the host's Agent VM network ({choices.agent_network}) is not on the host; set another"
    return ""


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a rule would have any of its patterns for that name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _first_match(choices: Sequence[SettingsChoice], patterns: Sequence[str]) -> SettingsChoice | None:
    for pattern in patterns:
        for choice in choices:
            if fnmatchcase(choice.name, pattern):
                return choice
    return None


def _nothing_fits(kind: str, patterns: Sequence[str], choices: Sequence[SettingsChoice]) -> str:
    names = ", ".join(sorted(c.name for c in choices if c.accessible)) or "none"
    if not patterns:
        return f"no Agent VM {kind} is set and no rule (agent_vm_{kind}) may set one; the host has: {names}"
    return f"no Agent VM {kind} fits {', '.join(patterns)}; the host has: {names}"
