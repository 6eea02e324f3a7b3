# SPDX-License-Identifier: Apache-2.0
"""What is adjustable about the simulated vCenter and EAM, and which behaviour is chosen by default.

Two kinds: *delays*, in seconds, short enough that a story is quick and long enough that every intermediate state
can be seen; and *choices*, one for each point where VMware's documentation is silent or where releases differ. The
default of a choice is the strictest plausible one: a client that copes with it copes with the others.

All of them may be changed while the simulator runs; a change counts from the next step on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(slots=True)
class Knobs:
    """All knobs of one simulated vCenter."""

    # Delays, in seconds.
    task: float = 0.02
    """Any operation that has no delay of its own: rename, reconfigure, add host, move."""
    power_on: float = 0.1
    """Power on of a VM."""
    power_off: float = 0.05
    """Power off, suspend and delete of a VM."""
    deploy: float = 0.15
    """EAM: from a downloaded OVF to a VM that is there and off."""
    heartbeat: float = 0.1
    """From power-on until the guest tools report: heartbeat green, guest address known."""
    vrouter_start: float = 0.1
    """From the guest's first heartbeat until the vRouter agent's introspect answers."""
    evacuate: float = 0.1
    """Host entering maintenance: until its tenant VMs have been moved away; EAM acts only after that."""
    enter_maintenance: float = 0.05
    """Host entering maintenance: from the last VM off until the host is in it."""
    exit_maintenance: float = 0.05
    """Host leaving maintenance: from the request until VMs may be powered on again."""
    connect: float = 0.05
    """Disconnect and reconnect of a host."""
    boot: float = 0.3
    """Reboot of a host: from going down to being connected again."""
    enter_standby: float = 0.05
    """Host entering standby: from the last VM off until the host sleeps."""
    exit_standby: float = 0.3
    """Host leaving standby: from the request until it has booted and is connected."""
    migrate: float = 0.1
    """Moving one VM to another host because somebody asked for it."""
    ha_failover: float = 0.2
    """vSphere HA: from the loss of a host until its VMs are started on others; and between two tries."""
    eam_reaction: float = 0.02
    """From a change in vCenter until EAM has noticed it."""
    orphan_cleanup_delay: float = 0.2
    """EAM: from finding an agent VM that belongs to no agency to deleting it."""

    # Server level.
    api_version: str = "9.0.0.0"
    """``about.apiVersion`` of vCenter. Set ``eam_level`` with it: clients conclude the one from the other."""
    eam_level: tuple[int, int] = (9, 0)
    """EAM API level: issues that a level does not know are reported as what came before them, or not at all."""
    host_version: str = "8.0.3"
    """ESXi version of hosts that are added."""

    # Choices.
    session_idle_seconds: float = 1800.0
    """Sessions that made no call for so long are gone (vCenter's usual setting is 30 minutes)."""
    heartbeat_gate: bool = True
    """EAM turns an agent green only once its VM's guest heartbeat is green (documented up to 8.0)."""
    status_in_hook: str = "yellow"
    """An agent's colour while a hook waits to be marked, ``yellow`` or ``green``: not documented."""
    repeat_power_on_hook: bool = True
    """The power-on hook comes after every power-on, not only after the first."""
    fallback_to_agency_settings: bool = True
    """With ``preferHostConfiguration`` and a host without Agent VM settings, EAM takes the agency's own lists."""
    mark_without_hook_fails: bool = True
    """``MarkAsAvailable`` with no hook pending raises ``eam.fault.InvalidState``; else it does nothing."""
    mark_allowed_for_users: bool = False
    """``MarkAsAvailable`` is documented without a user privilege: refused to users who are no vCenter extension."""
    maintenance_issue: bool = True
    """A host in maintenance makes its agent red, with an issue whose Resolve takes the host out of maintenance."""
    resolve_exits_maintenance: bool = True
    """Resolve of a maintenance issue takes the host out; off as on clusters managed with vLCM images."""
    removed_host_keeps_vms: bool = True
    """VMs of a host that is removed stay on the machine, and are discovered when it is added again."""
    orphan_cleanup: bool = True
    """EAM deletes agent VMs that belong to no agency by itself (7.0U1 and later, so from EAM level 7.2 on)."""
    issue_regenerate_seconds: float = 0.0
    """EAM files a standing issue again, with new key and time, when it is read after so long; 0 = never."""
    upgrade_keeps_old_in_hold: bool = True
    """In an upgrade with a hold after provisioning, the old VM runs until the new one has been marked as available.
    Off: EAM deletes the old VM first, and holds the new one afterwards."""
    reconfigure_power_cycles: bool = False
    """EAM restarts an agent VM to give it other OVF properties. Not documented."""
    standby_issue: bool = True
    """A host in standby makes its agent red, with an issue whose Resolve wakes the host; else only when EAM has
    something to do there."""
    resolve_wakes_host: bool = True
    """Resolve of ``HostInStandbyMode`` takes the host out of standby; what the reference says there is garbled."""
    update_unset_keeps: bool = True
    """Fields left unset in ``Agency.Update`` keep their value; else they are cleared."""
    agent_vm_settings_preset: bool = False
    """Hosts come with Agent VM settings (shared datastore, ``VM Network``); a new host really has none."""
    eam_session_events: bool = True
    """EAM posts an event when a session is first used at its endpoint, and when it refuses one. Not documented how
    often."""
    eam_events_name_objects: bool = False
    """EAM's events name host and VM. Whether the real ones do is not documented."""
    agent_vm_can_be_moved: bool = True
    """Who holds EAM's privilege to modify may migrate an agent VM to another host. Not documented; DRS never does."""
    refuse_duplicate_macs: bool = True
    """A reconfiguration with a MAC address that another VM has is refused; else only ``VmMacConflictEvent`` comes."""
    heartbeats: bool = True
    """Guests run their tools. Off: no heartbeat and no guest address, ever."""

    # Rules that vCenter keeps for agent VMs, broken on purpose.
    drs_ignores_agents: bool = False
    """DRS treats agent VMs as any others: it moves them, and uses hosts whose agents are not available."""
    ha_restarts_elsewhere: bool = False
    """vSphere HA starts the agent VMs of a lost host on other hosts, too."""
    dpm_agent_first: bool = False
    """A host that enters standby has its agent VMs powered off before its tenant VMs have left."""
    slots_count_agents: bool = False
    """vSphere HA's admission control counts agent VMs in its slots."""
    late_power_on_after_maintenance: bool = False
    """Leaving maintenance ends before the agent VMs run, and EAM powers them on late (see ``broken_rule_delay``)."""
    agent_not_first_after_restart: bool = False
    """When a host is back, its tenant VMs are started first and its agent VMs late (see ``broken_rule_delay``)."""
    broken_rule_delay: float = 1.0
    """How long what must not last lasts while one of these rules is broken, in seconds."""

    # The outside world.
    ovf_timeout: float = 10.0
    """EAM gives up on an OVF server that does not answer for so long, in seconds."""
    ovf_trusted_roots: str | None = None
    """PEM file of further roots that EAM trusts for OVF servers (vCenter's TRUSTED_ROOTS)."""
    vrouter_net: str = ""
    """First two numbers of the loopback addresses that agent VMs get; empty: a range that no other simulator uses."""
    vrouter_port: int = 8085
    """TCP port of the vRouter agent's introspect on each of those addresses."""
    vrouter_limit: int = 256
    """At most so many introspect listeners are open at once; further agent VMs have an address that refuses."""

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raise ``ValueError`` naming the first knob whose value cannot be meant."""
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bool) or item.name == "eam_level":
                continue
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"knob {item.name}: {value} is negative")
        if self.status_in_hook not in ("yellow", "green"):
            raise ValueError(f"knob status_in_hook: {self.status_in_hook!r} is neither 'yellow' nor 'green'")
        if self.vrouter_net and not self.vrouter_net.startswith("127."):
            raise ValueError(f"knob vrouter_net: {self.vrouter_net} is not a loopback network")

    def change(self, changes: Mapping[str, Any]) -> None:
        """Set knobs by name. An unknown name or a value of another type raises ``ValueError`` and changes none."""
        known = {item.name for item in fields(self)}
        checked: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"there is no knob {name!r}; there are {', '.join(sorted(known))}")
            checked[name] = _converted(name, getattr(self, name), value)
        Knobs(**{**asdict(self), **checked})
        for name, value in checked.items():
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """All knobs by name, as JSON can hold them."""
        return asdict(self)


def _converted(name: str, old: Any, value: Any) -> Any:
    if isinstance(old, bool):
        fits = isinstance(value, bool)
    elif isinstance(old, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if fits else value
    elif isinstance(old, int):
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(old, tuple):
        fits = isinstance(value, list | tuple) and len(value) == len(old)
        value = tuple(value) if fits else value
    else:
        fits = value is None or isinstance(value, str)
    if not fits:
        raise ValueError(f"knob {name}: {value!r} is not a {type(old).__name__}")
    return value
