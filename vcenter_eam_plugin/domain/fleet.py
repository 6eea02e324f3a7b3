# SPDX-License-Identifier: Apache-2.0
"""The observed truth of one vCenter: observations in, changed ContrailVM statuses out.

Fleet holds the newest facts and derives one :class:`~vcenter_eam_plugin.domain.status.ContrailVm` per host
from them. It decides nothing and remembers nothing that a restart would lose, except the last state of a
host that cannot be reached (which the caller may hand in as ``baseline``).

Promised: no status is given out before the first complete read of each source (:attr:`Fleet.ready`); facts
of an older agent read never replace those of a newer one; absence counts as removal only in a complete read.
Not promised: every state in between. What came and went between two reads was never seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from vcenter_eam_plugin.domain.facts import (
    AgencyFacts,
    AgentFacts,
    ComputeResourceFacts,
    GoalState,
    HostFacts,
    VmFacts,
)
from vcenter_eam_plugin.domain.lifecycle import Evidence, classify
from vcenter_eam_plugin.domain.observations import AgencyObserved, AgentsObserved, InventoryObserved, Observation
from vcenter_eam_plugin.domain.status import AgentVm, ContrailVm, Eam, Esxi, Issue, State, Violation, VRouter

DERIVED_AT_ONCE = 100
"""Statuses that one call derives, and gives out, each about 25 us: what touches a whole fleet of 2,500 hosts took 60 ms
and more, and so did those who were told of all of it at once."""
NEVER = float("-inf")
"""A time before every read."""


@dataclass(slots=True)
class _Host:
    """What Fleet keeps per host beside the facts."""

    changed_at: float = NEVER
    """When the host's availability was last seen to change (monotonic)."""
    status: ContrailVm | None = None


def _availability(host: HostFacts | None) -> object:
    """What of a host, when it changes, makes EAM's earlier word about its agent worthless."""
    return None if host is None else (host.connection, host.power, host.standby, host.in_maintenance, host.task)


class Fleet:
    """All ContrailVMs of one vCenter. ``instance_uuid`` is the vCenter's, ``scope`` morefs of compute resources."""

    def __init__(
        self, instance_uuid: str, scope: Iterable[str], baseline: Mapping[str, ContrailVm] | None = None
    ) -> None:
        self.instance_uuid = instance_uuid
        self.configured_scope = frozenset(scope)
        self.compute_resources: dict[str, ComputeResourceFacts] = {}
        self.hosts: dict[str, HostFacts] = {}
        self.vms: dict[str, VmFacts] = {}
        self.agents: dict[str, AgentFacts] = {}
        self.members: frozenset[str] | None = None
        """Morefs of our agency's agents, ``None`` before the first ``QueryAgent``."""
        self.agency: AgencyFacts | None = None
        self.foreign: tuple[AgencyFacts, ...] = ()
        """Agencies of our name that forbid using any: somebody else's, or too many."""
        self.unseen_owner = ""
        """Whose agency of our name may be there, unseen by the extension that is logged in now."""
        self.agency_refusal = ""
        """Why the agency may not be created or used, set by whoever decided so; shows as BLOCKED."""
        self.retreat: frozenset[str] = frozenset()
        """Compute resources that are drained of ContrailVMs for now, by an operator's switch."""
        self._scope: tuple[object, object, frozenset[str]] = (None, None, frozenset())
        """What the scope was last made of, and it: it is asked for once per host."""
        self._notes: dict[str, str] = {}
        self._violations: dict[str, tuple[Violation, ...]] = {}
        self._replacing: Mapping[str, str] = {}
        self._agency_read = False
        self.agency_read_began = NEVER
        """When the read of the agency that is held began (monotonic)."""
        self._inventory_read = False
        self._listed: frozenset[str] | None = None
        self._gone_vms: set[str] = set()
        self._records: dict[str, _Host] = {}
        self._agents_of: dict[str, tuple[str, ...]] = {}
        """One on almost every host, and two for a moment: a set would take four times the memory."""
        self._host_of_vm: dict[str, str] = {}
        self._vm_changed_at: dict[str, float] = {}
        """When a VM was last seen to change or leave (monotonic); of the VM, since a hook's becomes the agent's."""
        self._last_esxi: dict[str, Esxi] = {}
        self._given_out = False
        self._giving_out = False
        """Every source was read; the statuses are derived, a portion at a time, before any is given out."""
        self._due: dict[str, None] = {}
        """Hosts whose status is to be derived anew, in order."""
        self._untold: dict[str, ContrailVm] = {}
        """Statuses that changed and were not returned yet."""
        for status in (baseline or {}).values():
            self._records[status.esxi.moref] = _Host(status=status)
            self._last_esxi[status.esxi.moref] = status.esxi
            if status.violations:
                # What was broken is taken for broken until it is looked at: a restart of ours ends nothing.
                self._violations[status.esxi.moref] = status.violations

    # --- what is known ------------------------------------------------------------------------------------

    @property
    def given_out(self) -> bool:
        """Whether :meth:`apply` has given out every status once; from then on it gives what changed."""
        return self._given_out

    @property
    def ready(self) -> bool:
        """Whether each source has been read completely once."""
        return (
            self._inventory_read
            and self._agency_read
            and self._covered
            and (self.agency is None or self.members is not None)
            and all(agent in self.agents for agent in self.members or ())
            and all(
                agent.host is None or agent.vm is None or agent.vm in self.vms or agent.vm in self._gone_vms
                for agent in self.agents.values()
            )
        )

    @property
    def _covered(self) -> bool:
        """Whether the inventory was listed for the whole scope; EAM may tell of more than was asked for at first."""
        return self._listed is None or self.scope <= self._listed

    @property
    def scope(self) -> frozenset[str]:
        """Compute resources whose hosts we watch: the configured ones, and whatever our agency still covers.

        Updates only add to a scope, so a cluster taken out of the file keeps its ContrailVMs, and they are watched.
        """
        covered = self.agency.scope if self.agency else ()
        configured, agencys, scope = self._scope
        if configured is not self.configured_scope or agencys is not covered:
            scope = self.configured_scope.union(covered)
            self._scope = (self.configured_scope, covered, scope)
        return scope

    def key_of(self, host: str) -> str:
        """The key of the ContrailVM on a host: it carries the vCenter, because morefs repeat between vCenters."""
        return f"{host}.{self.instance_uuid}"

    def host_of(self, key: str) -> str:
        return key.removesuffix(f".{self.instance_uuid}")

    def statuses(self) -> tuple[ContrailVm, ...]:
        """Status of every ContrailVM, those of unread sources left out; what is :attr:`owed` is as it was."""
        if not self._given_out:
            return ()
        return tuple(r.status for r in self._records.values() if r.status is not None)

    def status(self, host: str) -> ContrailVm | None:
        if not self._given_out:
            return None
        if host in self._due:
            self._derive_one(host)
        record = self._records.get(host)
        return record.status if record is not None else None

    def agent_on(self, host: str) -> AgentFacts | None:
        """Our agent on a host. While an old one is being removed, the one that is to stay."""
        candidates = [self.agents[moref] for moref in self._agents_of.get(host, ())]
        return max(candidates, key=lambda a: (a.goal is not GoalState.UNINSTALLED, a.read_began), default=None)

    def agent_vms(self) -> tuple[str, ...]:
        """Morefs of the VMs to follow: every one that EAM names, as the agent's or in a hook."""
        wanted = {agent.vm for agent in self.agents.values() if agent.vm}
        wanted |= {agent.hook.vm for agent in self.agents.values() if agent.hook}
        return tuple(sorted(wanted))

    def is_settled(self, agent: AgentFacts) -> bool:
        """Whether the agent was read after the last change of its host and VM."""
        return agent.read_began > max(self._host_changed_at(agent.host), self._vm_changed(agent.vm))

    def _host_changed_at(self, host: str | None) -> float:
        record = self._records.get(host or "")
        return record.changed_at if record is not None else NEVER

    def _vm_changed(self, vm: str | None) -> float:
        return self._vm_changed_at.get(vm or "", NEVER)

    def wants_agent(self, host: HostFacts) -> bool:
        uninstalled = self.agency is not None and self.agency.goal is GoalState.UNINSTALLED
        cluster = host.compute_resource
        return cluster in self.scope and cluster not in self.retreat and not uninstalled

    def known_hosts(self) -> frozenset[str]:
        """Morefs of the hosts that are taken to exist: those seen, and those that were told of before a restart."""
        return frozenset(self._records) | frozenset(self.hosts)

    # --- observations -------------------------------------------------------------------------------------

    def apply(self, observation: Observation) -> tuple[ContrailVm, ...]:
        """Take in what was seen; returns the statuses that differ from before, REMOVED ones for the last time.

        Once :attr:`ready` holds, *every* status is returned at first: the caller compares them with what was
        published before. What more than ``DERIVED_AT_ONCE`` hosts are owed comes by :meth:`go_on`.
        """
        if isinstance(observation, InventoryObserved):
            touched = self._apply_inventory(observation)
        elif isinstance(observation, AgencyObserved):
            touched = self._apply_agency(observation)
        else:
            touched = self._apply_agents(observation)
        return self._derive(touched)

    @property
    def owed(self) -> bool:
        """Whether an observation touched so many hosts that :meth:`go_on` has more to return."""
        return bool(self._due or self._untold)

    def go_on(self) -> tuple[ContrailVm, ...]:
        """More of the statuses that changed, each as it is now. Between two calls anything may be observed."""
        return self._derive_next(tuple(islice(self._due, DERIVED_AT_ONCE)), tell=None)

    def set_scope(self, scope: Iterable[str]) -> tuple[ContrailVm, ...]:
        """Change the configured scope; returns the statuses that this changes."""
        self.configured_scope = frozenset(scope)
        return self._derive(set(self._records) | set(self.hosts))

    def set_retreat(self, compute_resources: Iterable[str]) -> tuple[ContrailVm, ...]:
        """Drain these compute resources, and no others; returns the statuses that this changes."""
        self.retreat = frozenset(compute_resources)
        return self._derive(set(self._records) | set(self.hosts))

    def set_replacing(self, vms: Mapping[str, str]) -> tuple[ContrailVm, ...]:
        """An upgrade is to replace these VMs (by host), which served their tenants; returns what that changes."""
        touched = {host for host in {*vms, *self._replacing} if vms.get(host) != self._replacing.get(host)}
        self._replacing = dict(vms)
        return self._derive(touched & self._records.keys())

    def note(self, host: str, text: str) -> tuple[ContrailVm, ...]:
        """Say what the pending hook of a host waits for (empty: nothing to say); returns what that changes."""
        if self._notes.get(host, "") == text:
            return ()
        self._notes[host] = text
        return self._derive({host})

    def path_of(self, compute_resource: str) -> str:
        """Of a cluster or a standalone host in the inventory; its moref for one that is not there (any more)."""
        facts = self.compute_resources.get(compute_resource)
        return facts.path if facts is not None else compute_resource

    def violations(self, host: str) -> tuple[Violation, ...]:
        """Rules that were last seen broken on a host."""
        return self._violations.get(host, ())

    def set_violations(self, host: str, found: tuple[Violation, ...]) -> tuple[ContrailVm, ...]:
        """Rules that are seen broken on a host now; returns what that changes."""
        if self._violations.get(host, ()) == found:
            return ()
        self._violations[host] = found
        return self._derive({host})

    def refuse_agency(self, why: str) -> tuple[ContrailVm, ...]:
        """Say why there will be no agency of ours (empty: there may be one); returns what that changes."""
        if why == self.agency_refusal:
            return ()
        self.agency_refusal = why
        return self._derive(set(self._records))

    def _apply_inventory(self, seen: InventoryObserved) -> set[str]:
        touched: set[str] = set()
        gone = set(seen.gone)
        if seen.complete:
            self._inventory_read = True
            self._listed = seen.scope
            gone |= self.compute_resources.keys() - {c.moref for c in seen.compute_resources}
            gone |= self.hosts.keys() - {h.moref for h in seen.hosts}
            gone |= self.vms.keys() - {v.moref for v in seen.vms}
        for moref in gone:
            touched |= self._drop(moref, seen.at)
        for compute_resource in seen.compute_resources:
            before = self.compute_resources.get(compute_resource.moref)
            self.compute_resources[compute_resource.moref] = compute_resource
            if before is None or (before.name, before.datacenter) != (
                compute_resource.name,
                compute_resource.datacenter,
            ):
                touched |= {h.moref for h in self.hosts.values() if h.compute_resource == compute_resource.moref}
        for host in seen.hosts:
            record = self._records.setdefault(host.moref, _Host())
            known = self.hosts.get(host.moref)
            if known is not None and _availability(known) != _availability(host):
                record.changed_at = seen.at
            self.hosts[host.moref] = host
            if known != host or record.status is None:
                touched.add(host.moref)
        for vm in seen.vms:
            before_vm = self.vms.get(vm.moref)
            same = before_vm == vm and vm.moref not in self._gone_vms
            self._gone_vms.discard(vm.moref)
            self.vms[vm.moref] = vm
            # First sight is not a change: at a cold start it would make every agent's read worthless.
            if before_vm is not None and (before_vm.power, before_vm.host, before_vm.connection) != (
                vm.power,
                vm.host,
                vm.connection,
            ):
                self._vm_changed_at[vm.moref] = seen.at
            host_moref = self._host_of_vm.get(vm.moref)
            if host_moref is not None and not same:
                touched.add(host_moref)
        if seen.complete:
            self._gone_vms &= self._host_of_vm.keys()
            for moref in self._vm_changed_at.keys() - self.vms.keys() - self._host_of_vm.keys():
                del self._vm_changed_at[moref]
        return touched

    def _drop(self, moref: str, at: float) -> set[str]:
        self.compute_resources.pop(moref, None)
        touched: set[str] = set()
        if self.hosts.pop(moref, None) is not None:
            # There is no record of a host that was said to be REMOVED before it left the inventory.
            self._records.setdefault(moref, _Host()).changed_at = at
            touched.add(moref)
        self.vms.pop(moref, None)
        host = self._host_of_vm.get(moref)
        if host is not None:
            self._gone_vms.add(moref)
            self._vm_changed_at[moref] = at
            touched.add(host)
        return touched

    def _apply_agency(self, seen: AgencyObserved) -> set[str]:
        before, self.agency = self.agency, seen.agency
        refused = (bool(self.foreign), self.unseen_owner) != (bool(seen.foreign), seen.unseen_owner)
        self.foreign, self.unseen_owner = seen.foreign, seen.unseen_owner
        self._agency_read, self.agency_read_began = True, seen.read_began
        touched: set[str] = set()
        if seen.agency is None:
            self.members = None
            for moref in tuple(self.agents):
                touched |= self._forget_agent(moref)
        elif seen.agents is not None:
            self.members = frozenset(seen.agents)
            for moref in self.agents.keys() - self.members:
                touched |= self._forget_agent(moref)
        if (
            refused
            or (before is None) != (seen.agency is None)
            or (
                before is not None
                and seen.agency is not None
                and (before.moref, before.goal, before.scope)
                != (seen.agency.moref, seen.agency.goal, seen.agency.scope)
            )
        ):
            touched |= self._records.keys() | self.hosts.keys()
        return touched

    def _apply_agents(self, seen: AgentsObserved) -> set[str]:
        touched: set[str] = set()
        for moref in seen.gone:
            touched |= self._forget_agent(moref)
            if self.members is not None:
                self.members -= {moref}
        for agent in seen.agents:
            if agent.moref not in (self.members or ()):
                continue  # a read that was on its way when we learned that the agent is not (any more) ours
            before = self.agents.get(agent.moref)
            if before is not None and before.read_began > agent.read_began:
                continue
            if before is not None and (before.host, before.vm) != (agent.host, agent.vm):
                touched |= self._forget_agent(agent.moref)
            self.agents[agent.moref] = agent
            if agent.host is None:
                continue
            self._records.setdefault(agent.host, _Host())
            there = self._agents_of.get(agent.host, ())
            if agent.moref not in there:
                self._agents_of[agent.host] = (*there, agent.moref)
            if agent.vm is not None:
                self._host_of_vm[agent.vm] = agent.host
            touched.add(agent.host)
        return touched

    def _forget_agent(self, moref: str) -> set[str]:
        agent = self.agents.pop(moref, None)
        if agent is None or agent.host is None:
            return set()
        left = tuple(one for one in self._agents_of.pop(agent.host, ()) if one != moref)
        if left:
            self._agents_of[agent.host] = left
        # What is known of the VM stays until the inventory takes it back: EAM may name it again at once.
        if agent.vm is not None and self._host_of_vm.get(agent.vm) == agent.host:
            del self._host_of_vm[agent.vm]
        return {agent.host}

    # --- derived ------------------------------------------------------------------------------------------

    def _derive(self, touched: set[str]) -> tuple[ContrailVm, ...]:
        if not self._given_out and not self._giving_out:
            if not self.ready:
                return ()
            self._giving_out = True
            touched = self._records.keys() | self.hosts.keys()
        hosts = sorted(touched)
        self._due.update(dict.fromkeys(hosts))
        now = tuple(hosts[:DERIVED_AT_ONCE])
        return self._derive_next(now, tell=now)

    def _derive_next(self, hosts: tuple[str, ...], *, tell: tuple[str, ...] | None) -> tuple[ContrailVm, ...]:
        """Derive these; returns what changed of those in ``tell`` (``None``: of some), and at first of everything."""
        for host in hosts:
            self._derive_one(host)
        if self._giving_out:
            if self._due:
                return ()
            everything = {host: record.status for host, record in self._records.items() if record.status is not None}
            self._untold = dict(sorted((everything | self._untold).items()))
            self._giving_out, self._given_out, tell = False, True, None
        told = tuple(islice(self._untold, DERIVED_AT_ONCE)) if tell is None else tell
        return tuple(self._untold.pop(host) for host in told if host in self._untold)

    def _derive_one(self, host: str) -> None:
        self._due.pop(host, None)
        record = self._records.setdefault(host, _Host())
        if record.status is None and host not in self.hosts and not self._covered:
            return  # EAM told of it first: what it is is known once its cluster is listed
        status = self._describe(host, record)
        if status.state is State.ACTIVE:
            self._notes.pop(host, None)  # what it waited for is over
        if record.status is None and host not in self.hosts and self.agent_on(host) is not None:
            # EAM is ahead of the inventory: until the host is seen it can be said neither to be here nor to leave.
            return
        if status != record.status and not (record.status is None and status.state is State.REMOVED):
            # The newest alone: whoever is told late must not be told what is over.
            self._untold[host] = status
        if status.state is State.REMOVED:
            del self._records[host]
            self._notes.pop(host, None)
            self._violations.pop(host, None)
            self._agents_of.pop(host, None)
            self._last_esxi.pop(host, None)
        else:
            record.status = status

    def evidence(self, host: str) -> Evidence:
        """What the state table is asked about a host."""
        facts, agent = self.hosts.get(host), self.agent_on(host)
        vm = self.vms.get(agent.vm) if agent is not None and agent.vm is not None else None
        read = agent.read_began if agent is not None else NEVER
        return Evidence(
            wanted=facts is not None and self.wants_agent(facts),
            host=facts,
            agent=agent,
            vm=vm,
            settled=agent is not None and self.is_settled(agent),
            host_settled=read > self._host_changed_at(host),
            vm_gone=agent is not None and agent.vm in self._gone_vms,
            agency_trouble=self._agency_trouble(),
            note=self._notes.get(host, ""),
            replacing=agent is not None and agent.vm is not None and self._replacing.get(host) == agent.vm,
        )

    def _agency_trouble(self) -> str:
        if self.foreign:
            owners = ", ".join(sorted(a.owner or a.solution_id for a in self.foreign))
            return f"the agency belongs to somebody else ({owners}); adopt it, or give ours another name"
        if self.unseen_owner:
            return f"the agency of {self.unseen_owner} may still be there, and the extension logged in cannot see it"
        return self.agency_refusal

    def _describe(self, host: str, record: _Host) -> ContrailVm:
        evidence = self.evidence(host)
        state, reason = classify(evidence)
        agent, vm = evidence.agent, evidence.vm
        last_state = None
        if state is State.UNREACHABLE and record.status is not None:
            was = record.status
            last_state = was.last_state if was.state is State.UNREACHABLE else was.state
        active = state is State.ACTIVE
        return ContrailVm(
            key=self.key_of(host),
            state=state,
            reason=reason,
            last_state=last_state,
            violations=self._violations.get(host, ()),
            esxi=self._esxi(host),
            vm=None if vm is None else AgentVm(
                moref=vm.moref, name=vm.name, host=vm.host, power=vm.power.value, connection=vm.connection,
                heartbeat=vm.heartbeat, ip=vm.ip, instance_uuid=vm.instance_uuid,
            ),
            vrouter=VRouter(active=active, name=vm.guest_host_name if vm else None, ip=vm.ip if vm else None),
            eam=Eam() if agent is None else Eam(
                agency=agent.agency, agent=agent.moref, status=agent.status.value, goal=agent.goal.value,
                hook=agent.hook.state.value if agent.hook else None,
                issues=tuple(sorted(
                    (Issue(type=i.type, description=i.description) for i in agent.issues),
                    key=lambda i: (i.type, i.description),
                )),
            ),
        )  # fmt: skip

    def _esxi(self, host: str) -> Esxi:
        facts = self.hosts.get(host)
        if facts is None:
            return self._last_esxi.get(host) or Esxi(
                moref=host, name=host, compute_resource="-", cluster="", datacenter="", connection="unknown",
                power="unknown", maintenance=False, standby="none",
            )  # fmt: skip
        parent = self.compute_resources.get(facts.compute_resource)
        esxi = Esxi(
            moref=host, name=facts.name, compute_resource=facts.compute_resource,
            cluster=parent.name if parent else "", datacenter=parent.datacenter if parent else "",
            connection=facts.connection.value, power=facts.power.value, maintenance=facts.in_maintenance,
            standby=facts.standby.value, task=facts.task.value if facts.task else None,
        )  # fmt: skip
        self._last_esxi[host] = esxi
        return esxi
