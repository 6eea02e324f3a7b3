# SPDX-License-Identifier: Apache-2.0
"""Where each host in scope would have its ContrailVM: the Agent VM settings that are set, or that a rule would set.

What vCenter knows is read for all hosts together, in pages; nothing is asked host by host. Whether EAM can really
deploy there, EAM alone can tell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.facts import ComputeResourceFacts, HostChoices, SettingsChoice
from vcenter_eam_plugin.domain.host_spec import HostIdentity, HostSpecs
from vcenter_eam_plugin.domain.settings_rules import SettingsDecision, SettingsRules, decide_settings, fits
from vcenter_eam_plugin.ovf.descriptor import Descriptor
from vcenter_eam_plugin.preflight.finding import Finding, Subject
from vcenter_eam_plugin.vsphere.host_settings import Mount, read_choices_of, read_mounts, read_network_names
from vcenter_eam_plugin.vsphere.session import Session

CHECKS = ("Agent VM settings", "Agent VM datastore", "Agent VM network", "Agent VM space", "Agent VM rules")
NAMED = 5
"""Hosts or datastores that a sentence names; the others are counted."""
_IN_VCENTER = "in vCenter: host, Configure, Agent VM Settings"


@dataclass(frozen=True, slots=True)
class _Host:
    """One host, what it offers, and the rules that hold for it; ``refused`` says why its specification has none."""

    name: str
    choices: HostChoices
    rules: SettingsRules
    decision: SettingsDecision | None
    refused: str = ""

    @property
    def datastore(self) -> str | None:
        """Moref of the one that is set, or that the rule would set."""
        chosen = self.decision.datastore if self.decision is not None else None
        return self.choices.agent_datastore or (chosen.moref if chosen is not None else None)

    def offered(self, moref: str | None) -> SettingsChoice | None:
        return next((one for one in (*self.choices.datastores, *self.choices.networks) if one.moref == moref), None)


Trouble = tuple[str, str]
"""Of which host or datastore, and what."""


def look(
    about: Subject,
    session: Session,
    chosen: Sequence[ComputeResourceFacts],
    rules: SettingsRules,
    specs: HostSpecs,
    package: Descriptor | None,
    *,
    deployed: bool,
) -> Iterator[Finding]:
    """Raises what reading from vCenter raises, before the first finding.

    ``package`` is what will be deployed, if it could be read. ``deployed``: an agency of ours is there, so the
    ContrailVMs may be, too, and room for a single one is enough.
    """
    hosts = _read(session, chosen, rules, specs)
    mounts = read_mounts(session, {host.datastore for host in hosts if host.datastore is not None})
    networks = read_network_names(
        session,
        {host.choices.agent_network for host in hosts if host.choices.agent_network is not None},
    )
    yield _unset(about, hosts)
    yield _datastores(about, hosts, mounts)
    yield _networks(about, hosts, networks)
    yield _space(about, hosts, package, deployed=deployed)
    yield _as_the_rules_say(about, hosts, {moref: name for moref, (name, _) in mounts.items()} | networks)


def _read(
    session: Session, chosen: Sequence[ComputeResourceFacts], rules: SettingsRules, specs: HostSpecs
) -> list[_Host]:
    parents = {host: each for each in chosen for host in each.hosts}
    offered = read_choices_of(session, parents)
    found = []
    for moref, choices in offered.items():
        name, parent = choices.name, parents[moref]
        identity = HostIdentity(
            key=f"{moref}.{session.instance_uuid}",
            name=name,
            cluster=parent.name,
            datacenter=parent.datacenter,
            vcenter=session.settings.host,
        )
        try:
            own = specs.for_host(identity).settings_rules(rules)
        except ConfigurationError as exc:  # this host's entry is refused; the others go on
            found.append(_Host(name, choices, SettingsRules(), None, exc.message))
        else:
            found.append(_Host(name, choices, own, decide_settings(choices, own)))
    return sorted(found, key=lambda host: host.name)


def _unset(about: Subject, hosts: Sequence[_Host]) -> Finding:
    """What is unset and stays so."""
    check = "Agent VM settings"
    told = [
        (host.name, why)
        for host in hosts
        if (why := host.refused or "; ".join(host.decision.missing if host.decision is not None else ()))
    ]
    if not told:
        return about.passed(check, f"set, or covered by a rule, on all {len(hosts)} host(s)")
    return about.failed(
        check,
        f"{len(told)} of {len(hosts)} host(s) would be BLOCKED: {_named(told)}",
        "Give rules that match (agent_vm_datastore, agent_vm_network, or the host specification), or set them "
        f"{_IN_VCENTER}.",
    )


def _datastores(about: Subject, hosts: Sequence[_Host], mounts: Mapping[str, tuple[str, dict[str, Mount]]]) -> Finding:
    """Whether the host can use it now."""
    check = "Agent VM datastore"
    wrong, doubtful, seen = list[Trouble](), list[Trouble](), 0
    for host in hosts:
        if host.datastore is None:
            continue
        seen += 1
        choice = host.offered(host.datastore)
        name, mounted_by = mounts.get(host.datastore, (host.datastore, {}))
        why = _unusable(choice, name, known=host.datastore in mounts, mount=mounted_by.get(host.choices.host))
        if why:
            wrong.append((host.name, why))
        elif choice is not None and choice.in_maintenance:
            doubtful.append((host.name, f"{name} is in maintenance mode, or entering it"))
    if wrong:
        return about.failed(
            check,
            f"{len(wrong)} of {seen} host(s) cannot use theirs: {_named(wrong)}",
            f"Mount or repair it on the host, or set another {_IN_VCENTER}. What is set the service leaves as it is.",
        )
    if doubtful:
        return about.warned(
            check,
            f"{len(doubtful)} of {seen} host(s) may not be deployed to: {_named(doubtful)}",
            f"Take it out of maintenance mode, or set another {_IN_VCENTER}.",
        )
    return about.passed(check, f"mounted, writable and accessible on all {seen} host(s) that have one")


def _unusable(choice: SettingsChoice | None, name: str, *, known: bool, mount: Mount | None) -> str:
    if not known:
        return f"{name} does not exist any more"
    if choice is None:
        return f"{name} is not on the host"
    if mount is not None and not mount.mounted:
        return f"{name} is not mounted on it"
    if not choice.accessible or (mount is not None and not mount.accessible):
        return f"{name} is not accessible"
    if mount is not None and mount.read_only:
        return f"{name} is mounted read-only"
    return ""


def _networks(about: Subject, hosts: Sequence[_Host], names: Mapping[str, str]) -> Finding:
    """Those that a rule would set are the host's own."""
    check = "Agent VM network"
    told = [
        (host.name, f"{names[moref]} is not on the host, or an uplink" if moref in names else f"{moref} is gone")
        for host in hosts
        if (moref := host.choices.agent_network) is not None and host.offered(moref) is None
    ]
    if told:
        return about.failed(
            check,
            f"{len(told)} of {len(hosts)} host(s) cannot use theirs: {_named(told)}",
            f"Give the host that network, or set another {_IN_VCENTER}. What is set the service leaves as it is.",
        )
    return about.passed(check, "each that is set is on its host")


def _space(about: Subject, hosts: Sequence[_Host], package: Descriptor | None, *, deployed: bool) -> Finding:
    """Room on each datastore for the ContrailVMs that it is to have."""
    check = "Agent VM space"
    if package is None:
        return about.skipped(check, "the OVF package could not be read")
    users: defaultdict[str, int] = defaultdict(int)
    stores: dict[str, SettingsChoice] = {}
    for host in hosts:
        choice = host.offered(host.datastore)
        if choice is not None and choice.accessible:  # another's free space is not known
            users[choice.moref] += 1
            stores[choice.moref] = choice
    wrong, doubtful = list[Trouble](), list[Trouble]()
    for moref, store in stores.items():
        wanted = 1 if deployed else users[moref]
        said = f"{_size(store.free_bytes)} free for {wanted} ContrailVM(s)"
        if store.free_bytes < package.file_bytes * wanted:
            wrong.append((store.name, said))
        elif store.free_bytes < package.disk_bytes * wanted:
            doubtful.append((store.name, said))
    each = f"one takes {_size(package.file_bytes)} at least, and {_size(package.disk_bytes)} when its disks are full"
    remedy = "Free space there, add some, or have another datastore used (agent_vm_datastore)."
    if wrong:
        return about.failed(check, f"{_named(wrong)}; {each}", remedy)
    if doubtful:
        return about.warned(check, f"{_named(doubtful)}; {each}, which thick disks are at once", remedy)
    return about.passed(check, f"enough on {len(stores)} datastore(s); {each}")


def _as_the_rules_say(about: Subject, hosts: Sequence[_Host], names: Mapping[str, str]) -> Finding:
    """Hosts that are set to something else: somebody meant it, or nobody knows."""
    check = "Agent VM rules"
    told = []
    for host in hosts:
        for what, moref, patterns in (
            ("datastore", host.choices.agent_datastore, host.rules.datastores),
            ("network", host.choices.agent_network, host.rules.networks),
        ):
            if moref is not None and moref in names and patterns and not fits(names[moref], patterns):
                told.append((host.name, f"{what} {names[moref]}, where the rule has {', '.join(patterns)}"))
    if not told:
        return about.passed(check, "no host is set to something else than its rule says")
    return about.warned(
        check,
        f"set to something else: {_named(told)}",
        f"Only what is unset is written: if the rule is right, clear the setting {_IN_VCENTER}; if the host is, change "
        "the rule.",
    )


def _named(told: Iterable[Trouble]) -> str:
    every = sorted(told)
    named = "; ".join(f"{name}: {why}" for name, why in every[:NAMED])
    return named + (f"; and {len(every) - NAMED} more" if len(every) > NAMED else "")


def _size(count: int) -> str:
    """Of bytes, for people: ``12.5 GiB``."""
    if count < 1 << 10:
        return f"{count} bytes"
    power = min((count.bit_length() - 1) // 10, 4)
    return f"{count / (1 << 10 * power):.1f} {'KMGT'[power - 1]}iB"
