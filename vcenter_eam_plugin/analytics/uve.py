# SPDX-License-Identifier: Apache-2.0
"""What analytics is told of each ContrailVM: which table, which key, which fields. Pure: no collector, no clock.

A UVE is a struct under a key in a table. Other services put structs of their own under the same keys, and alarm rules
are evaluated per key. So a key that exists for nobody but us (a *ghost*) raises the alarms of all that is missing
there: a vRouter's key is used only once its ContrailVM has been seen in service, and a key that is left is deleted.

Fields that are not set keep their earlier value in analytics. So every field is always set: text that is not known is
empty, and never left out.

Not promised: that a ContrailVM's guest host name is the key under which its vRouter agent reports. Usually it is;
``docs/analytics.md`` says how to see it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import msgspec

from vcenter_eam_plugin.domain.messages import VERSION, Oper
from vcenter_eam_plugin.domain.status import State

VROUTER_TABLE = "ObjectVRouter"
"""Table of vRouters, ``vrouter`` in the REST API; the key is the vRouter's host name."""

SERVER_TABLE = "ObjectServerTable"
"""Table of servers, ``server`` in the REST API; here the key is the ESXi host's name in vCenter."""

STRUCT = "ContrailVMStatus"
"""Name of the struct: alarm rules say ``ContrailVMStatus.state``."""

NOT_YET = frozenset({State.PENDING, State.BLOCKED, State.DEPLOYING, State.PROVISIONED, State.STARTING})
"""States on the way into service: whatever the guest calls itself by now, its vRouter may not be registered yet."""


class ContrailVMIssue(msgspec.Struct, frozen=True, kw_only=True):
    """An EAM issue."""

    type: str
    description: str


class ContrailVMViolation(msgspec.Struct, frozen=True, kw_only=True):
    """A broken rule of vCenter."""

    name: str
    text: str


class ContrailVMStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The fields, in the order of the ``.sandesh`` file, which is generated from here: append, never reorder.

    Flat where it can be, because alarm rules compare one field with one value.
    """

    state: str
    old_state: str
    last_state: str
    reason: str
    vrouter_active: bool
    vrouter_name: str
    vrouter_ip: str
    contrail_vm_key: str
    uuid: str
    vcenter_uuid: str
    datacenter: str
    cluster: str
    cluster_moref: str
    esxi_name: str
    esxi_moref: str
    esxi_connection: str
    esxi_power: str
    esxi_maintenance: bool
    esxi_standby: str
    esxi_task: str
    vm_name: str
    vm_moref: str
    vm_instance_uuid: str
    vm_power: str
    vm_host_moref: str
    vm_connection: str
    vm_heartbeat: str
    vm_ip: str
    eam_agency: str
    eam_agent: str
    eam_status: str
    eam_goal: str
    eam_hook: str
    issue_count: int
    issues: tuple[ContrailVMIssue, ...]
    violation_count: int
    violations: tuple[ContrailVMViolation, ...]
    event: str
    timestamp: int
    """When the change was seen, in microseconds since 1970 UTC, the unit of analytics."""
    epoch: int
    seq: int
    publisher: str


STAMPS = frozenset({"old_state", "event", "timestamp", "epoch", "seq", "publisher"})
"""Fields of the message, not of the ContrailVM: a snapshot that repeats what is known changes these alone."""

_FACTS = tuple(name for name in ContrailVMStatus.__struct_fields__ if name not in STAMPS)


def status_of(message: Mapping[str, Any]) -> ContrailVMStatus:
    """The fields that one message about a ContrailVM gives. Raises ValueError for what is no message of ours."""
    if message.get("version") != VERSION:
        raise ValueError(f"version {message.get('version')!r} of a message; {VERSION} is understood")
    try:
        return _status_of(message)
    except (KeyError, TypeError, AttributeError, IndexError) as exc:
        raise ValueError(f"a message without what every message has: {type(exc).__name__}: {exc}") from exc


def _status_of(message: Mapping[str, Any]) -> ContrailVMStatus:
    esxi, vm, vrouter, eam = message["esxi"], message["vm"] or {}, message["vrouter"], message["eam"]
    issues = [{"type": each["type"], "description": each.get("description", "")} for each in eam.get("issues", ())]
    violations = [{"name": each["name"], "text": each["text"]} for each in message.get("violations", ())]
    fields = {
        "state": message["state"],
        "old_state": message["old_state"] or "",
        "last_state": message["last_state"] or "",
        "reason": message["reason"],
        "vrouter_active": vrouter["active"],
        "vrouter_name": vrouter.get("name") or "",
        "vrouter_ip": vrouter.get("ip") or "",
        "contrail_vm_key": message["key"],
        "uuid": message["uuid"],
        "vcenter_uuid": message["fq_name"][0],
        "datacenter": esxi["datacenter"],
        "cluster": esxi["cluster"],
        "cluster_moref": esxi["compute_resource"],
        "esxi_name": esxi["name"],
        "esxi_moref": esxi["moref"],
        "esxi_connection": esxi["connection"],
        "esxi_power": esxi["power"],
        "esxi_maintenance": esxi["maintenance"],
        "esxi_standby": esxi["standby"],
        "esxi_task": esxi.get("task") or "",
        "vm_name": vm.get("name") or "",
        "vm_moref": vm.get("moref") or "",
        "vm_instance_uuid": vm.get("instance_uuid") or "",
        "vm_power": vm.get("power") or "",
        "vm_host_moref": vm.get("host") or "",
        "vm_connection": vm.get("connection") or "",
        "vm_heartbeat": vm.get("heartbeat") or "",
        "vm_ip": vm.get("ip") or "",
        "eam_agency": eam.get("agency") or "",
        "eam_agent": eam.get("agent") or "",
        "eam_status": eam.get("status") or "",
        "eam_goal": eam.get("goal") or "",
        "eam_hook": eam.get("hook") or "",
        "issue_count": len(issues),
        "issues": issues,
        "violation_count": len(violations),
        "violations": violations,
        "event": message["event"],
        "timestamp": message["timestamp"],
        "epoch": message["epoch"],
        "seq": message["seq"],
        "publisher": message["publisher"],
    }
    return msgspec.convert(fields, ContrailVMStatus)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a UVE is."""

    table: str
    key: str


@dataclass(frozen=True, slots=True)
class Uve:
    """One thing to send: the whole struct, or with ``status`` ``None`` that it is not there any more."""

    place: Place
    status: ContrailVMStatus | None

    @property
    def deleted(self) -> bool:
        return self.status is None


class Uves:
    """What analytics is to hold now, and what takes it from one message to the next.

    The place of a ContrailVM is the first of these that no other ContrailVM claims: its vRouter's key, its ESXi host's
    key, its own key. So where each is depends on who is there, and not on the order in which they came.

    A vRouter's name is remembered while its ContrailVM is off or gone: a guest that does not run tells no name, and it
    is then that an operator looks at the vRouter and wants to know why it is down.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, ContrailVMStatus] = {}
        self._vrouters: dict[str, str] = {}
        self._claimed: dict[Place, set[str]] = {}
        self._sent: dict[Place, ContrailVMStatus] = {}
        self._at: dict[str, Place] = {}
        self._allowed: frozenset[str] | None = None

    @property
    def live(self) -> Mapping[Place, ContrailVMStatus]:
        """What analytics holds once all that was returned is sent."""
        return self._sent

    def vrouter(self, key: str) -> str:
        """The vRouter's name by which a ContrailVM is known, empty before there is one."""
        return self._vrouters.get(key, "")

    def apply(self, message: Mapping[str, Any]) -> list[Uve]:
        """Take in a message that is news, as :class:`~vcenter_eam_plugin.bus.view.View` says; returns what to send.

        Raises ValueError for what is no message of ours, and nothing has changed.
        """
        if message["key"] is None:
            return []
        key = str(message["key"])
        if message["oper"] == Oper.DELETE:
            return self.drop([key])
        status = status_of(message)
        return self._set(key, status, _vrouter_after(self.vrouter(key), status))

    def restore(self, message: Mapping[str, Any], vrouter: str) -> list[Uve]:
        """Take in what was remembered over a restart: the newest message of a ContrailVM, and its vRouter's name."""
        status = status_of(message)
        return self._set(status.contrail_vm_key, status, vrouter)

    def drop(self, keys: Iterable[str]) -> list[Uve]:
        """These ContrailVMs are gone."""
        known = {key for key in keys if key in self._statuses}
        touched = self._rivals(known)
        for key in known:
            self._unclaim(key)
            del self._statuses[key]
            self._vrouters.pop(key, None)
        return self._settle(touched | known)

    def allow(self, vcenters: Collection[str] | None) -> list[Uve]:
        """From now on tell of these vCenters alone (by instanceUuid), ``None`` for all; returns what that changes."""
        allowed = None if vcenters is None else frozenset(vcenters)
        if allowed == self._allowed:
            return []
        self._allowed = allowed
        return self._settle(set(self._statuses))

    def _set(self, key: str, status: ContrailVMStatus, vrouter: str) -> list[Uve]:
        known = self._statuses.get(key)
        if known is not None and vrouter == self.vrouter(key) and _same_facts(known, status):
            return []
        touched = self._rivals({key})
        self._unclaim(key)
        self._statuses[key], self._vrouters[key] = status, vrouter
        for place in self._places(key):
            self._claimed.setdefault(place, set()).add(key)
        return self._settle(touched | self._rivals({key}) | {key})

    def _places(self, key: str) -> list[Place]:
        """Where a ContrailVM would be, the best first; the last is nobody else's."""
        places = []
        if vrouter := self.vrouter(key):
            places.append(Place(VROUTER_TABLE, vrouter))
        if esxi := self._statuses[key].esxi_name:
            places.append(Place(SERVER_TABLE, esxi))
        return [*places, Place(SERVER_TABLE, key)]

    def _unclaim(self, key: str) -> None:
        if key not in self._statuses:
            return
        for place in self._places(key):
            claimants = self._claimed[place]
            claimants.discard(key)
            if not claimants:
                del self._claimed[place]

    def _rivals(self, keys: Iterable[str]) -> set[str]:
        """Whoever claims a place that one of these claims."""
        return {
            rival
            for key in keys
            if key in self._statuses
            for place in self._places(key)
            for rival in self._claimed.get(place, ())
        }

    def _settle(self, keys: set[str]) -> list[Uve]:
        """Put these where they belong now. First what is left, then what is there: never two places for one."""
        before = {place for key in keys if (place := self._at.pop(key, None)) is not None}
        after: dict[Place, ContrailVMStatus] = {}
        for key in keys:
            status = self._statuses.get(key)
            if status is None or (self._allowed is not None and status.vcenter_uuid not in self._allowed):
                continue
            place = next(place for place in self._places(key) if self._claimed[place] == {key})
            self._at[key] = place
            after[place] = status
        left = sorted(before - after.keys())
        changed = sorted(place for place, status in after.items() if self._sent.get(place) is not status)
        for place in left:
            del self._sent[place]
        self._sent.update(after)
        return [*(Uve(place, None) for place in left), *(Uve(place, after[place]) for place in changed)]


def _vrouter_after(known: str, status: ContrailVMStatus) -> str:
    """The vRouter's name after this: the one that is told, once the ContrailVM has been in service; else as before."""
    if status.state in NOT_YET or not _names_a_vrouter(status.vrouter_name):
        return known
    return status.vrouter_name


def _names_a_vrouter(name: str) -> bool:
    """Whether a guest's host name can be a vRouter's: not one that every guest has before it is given its own."""
    if not name or name.split(".", maxsplit=1)[0].lower() == "localhost":
        return False
    try:
        ip_address(name)
    except ValueError:
        return True
    return False


def _same_facts(one: ContrailVMStatus, other: ContrailVMStatus) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in _FACTS)
