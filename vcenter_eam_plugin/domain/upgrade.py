# SPDX-License-Identifier: Apache-2.0
"""A new OVF package, host by host: canary, then waves, stopping at the first failure.

One ``Update`` with a new URL starts *every* host at once in EAM. What makes waves possible is the hold after
provisioning: each new VM waits, off, until it is marked as available, and the old one runs meanwhile. That this
is so is verified on the canary before anything is admitted: if EAM stops the old VM first, the upgrade stops and
says how many hosts are affected.

Pure: what is seen is handed in, and the next state comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from vcenter_eam_plugin.domain.status import State

FAILED_SECONDS = 300.0
"""An admitted host that is in a failed state for so long has failed; shorter, and it may be EAM at work."""
_FAILED = frozenset({State.BLOCKED, State.FAULTY, State.MISSING, State.POWERED_OFF, State.SUSPENDED})


class Phase(StrEnum):
    """Where an upgrade stands."""

    HOLDING = "holding"
    """EAM was told; the canary's new VM is awaited."""
    CANARY = "canary"
    WAVES = "waves"
    STOPPED = "stopped"
    """Something failed. What is not admitted keeps its old VM; ``resume`` goes on."""
    DONE = "done"


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """One upgrade. ``old`` maps each host to the VM that it had before; times are POSIX seconds."""

    url: str
    started: float
    old: dict[str, str]
    active: tuple[str, ...] = ()
    """Hosts whose old VM served their tenants when it began, and goes on to until their turn."""
    canary: str
    wave_size: int
    all_at_once: bool = False
    phase: Phase = Phase.HOLDING
    paused: bool = False
    admitted: tuple[str, ...] = ()
    failing_since: dict[str, float] = {}
    why: str = ""


class HostSight(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of one host. ``vm`` is the agent's VM, ``held`` the VM that waits for its turn (morefs)."""

    state: State
    vm: str | None
    held: str | None
    old_runs: bool
    name: str = ""


def begin(url: str, hosts: Mapping[str, HostSight], *, wave_size: int, all_at_once: bool, now: float) -> Upgrade | None:
    """The upgrade of all these hosts, the canary an ACTIVE one; ``None`` when no host could show whether it works."""
    active = sorted(host for host, sight in hosts.items() if sight.state is State.ACTIVE and sight.vm is not None)
    if not active and not all_at_once:
        return None
    return Upgrade(
        url=url,
        started=now,
        old={host: sight.vm for host, sight in hosts.items() if sight.vm is not None},
        active=tuple(active),
        canary=active[0] if active else "",
        wave_size=wave_size,
        all_at_once=all_at_once,
        phase=Phase.WAVES if all_at_once else Phase.HOLDING,
    )


def admits(upgrade: Upgrade | None, host: str) -> bool:
    """Whether the held new VM of a host may go on. Without an upgrade of ours a replacement is nobody's wish."""
    if upgrade is None:
        return False
    return upgrade.all_at_once or host in upgrade.admitted


def waits_for_turn(upgrade: Upgrade | None, host: str, vm: str) -> bool:
    """Whether this VM is the new one of a host that was not admitted yet, be the old one there still or not."""
    return (
        upgrade is not None
        and upgrade.phase is not Phase.DONE
        and upgrade.old.get(host) not in (None, vm)
        and not admits(upgrade, host)
    )


def advance(upgrade: Upgrade, hosts: Mapping[str, HostSight], now: float, *, may_mark: bool = True) -> Upgrade:
    """The upgrade after a look at all hosts. Hosts that left are no part of it any more.

    ``may_mark`` is false once EAM refused MarkAsAvailable: nobody who is held can be let go then.
    """
    if upgrade.phase in (Phase.DONE, Phase.STOPPED) or not hosts:
        # Who sees no host at all knows nothing: it may be a permission that was taken.
        return _take_up_again(upgrade, hosts)
    waiting = [host for host in upgrade.old if host in hosts and not _is_done(upgrade, host, hosts[host])]
    if not waiting:
        return msgspec.structs.replace(upgrade, phase=Phase.DONE, failing_since={}, why="")
    if upgrade.all_at_once:
        return upgrade
    upgrade = _note_failures(upgrade, hosts, now)
    late = [host for host, since in upgrade.failing_since.items() if now - since >= FAILED_SECONDS]
    if late or not may_mark:
        why = f"{_names(late, hosts)} did not come up with the new package"
        return _stopped(upgrade, why if may_mark else "EAM refuses MarkAsAvailable to our account", waiting)
    if upgrade.paused:
        return upgrade
    step = _look_at_canary if upgrade.phase is Phase.HOLDING else _admit_next
    return step(upgrade, hosts, waiting)


def _take_up_again(upgrade: Upgrade, hosts: Mapping[str, HostSight]) -> Upgrade:
    """A host that was out of sight when the others were done comes back with its old VM, and has its turn."""
    behind = any(
        host in hosts and hosts[host].vm == vm and host not in upgrade.admitted for host, vm in upgrade.old.items()
    )
    if not behind or upgrade.phase is not Phase.DONE or upgrade.all_at_once:
        return upgrade
    return msgspec.structs.replace(upgrade, phase=Phase.WAVES)


def _admit_next(upgrade: Upgrade, hosts: Mapping[str, HostSight], waiting: list[str]) -> Upgrade:
    if any(host in upgrade.admitted for host in waiting if hosts[host].state not in _RESTING):
        return upgrade
    ready = [host for host in waiting if hosts[host].held is not None and host not in upgrade.admitted]
    if upgrade.phase is Phase.CANARY and not any(host in hosts and host not in waiting for host in upgrade.admitted):
        # The canary went away before it showed that the new package works: another host has to show it.
        ready = _best_canaries(ready, hosts)
        if not ready:
            return upgrade
        return msgspec.structs.replace(upgrade, canary=ready[0], admitted=(*upgrade.admitted, ready[0]))
    return msgspec.structs.replace(
        upgrade, phase=Phase.WAVES, admitted=upgrade.admitted + tuple(sorted(ready)[: upgrade.wave_size])
    )


_RESTING = frozenset({State.MAINTENANCE, State.STANDBY, State.UNREACHABLE})
"""A host that went away in its turn does not hold up the others; it goes on when it is back."""


def _best_canaries(hosts: list[str], sights: Mapping[str, HostSight]) -> list[str]:
    """Those that are there; first those whose old VM runs: of one that is off anyway it proves nothing to go on."""
    there = [host for host in hosts if sights[host].state not in _RESTING]
    return sorted(there, key=lambda host: (not sights[host].old_runs, host))


def _look_at_canary(upgrade: Upgrade, hosts: Mapping[str, HostSight], waiting: list[str]) -> Upgrade:
    canary = hosts.get(upgrade.canary)
    if canary is None or canary.state in _RESTING:
        ready = _best_canaries([host for host in waiting if hosts[host].held is not None], hosts)
        return msgspec.structs.replace(upgrade, canary=ready[0]) if ready else upgrade
    if canary.held is None:
        if canary.vm == upgrade.old.get(upgrade.canary):
            return upgrade
        return _stopped(upgrade, f"{canary.name} lost its old VM before the new one was held", waiting)
    if not canary.old_runs:
        return _stopped(upgrade, f"EAM stopped the old VM of {canary.name} while the new one is held", waiting)
    return msgspec.structs.replace(upgrade, phase=Phase.CANARY, admitted=(upgrade.canary,))


def _is_done(upgrade: Upgrade, host: str, sight: HostSight) -> bool:
    return sight.vm is not None and sight.vm != upgrade.old.get(host) and sight.state is State.ACTIVE


def _note_failures(upgrade: Upgrade, hosts: Mapping[str, HostSight], now: float) -> Upgrade:
    failing = {
        host: upgrade.failing_since.get(host, now)
        for host in upgrade.admitted
        if host in hosts and hosts[host].state in _FAILED and not _is_done(upgrade, host, hosts[host])
    }
    if failing == upgrade.failing_since:
        return upgrade
    return msgspec.structs.replace(upgrade, failing_since=failing)


def _stopped(upgrade: Upgrade, why: str, waiting: list[str]) -> Upgrade:
    return msgspec.structs.replace(
        upgrade, phase=Phase.STOPPED, why=f"{why}; {len(waiting)} host(s) are not upgraded", failing_since={}
    )


def _names(hosts: list[str], sights: Mapping[str, HostSight]) -> str:
    return ", ".join(sights[host].name or host for host in sorted(hosts) if host in sights)


def resume(upgrade: Upgrade) -> Upgrade:
    """Go on after a pause or a stop: a person has looked, and takes what failed upon himself.

    One that stopped before its canary was admitted goes on with the canary alone: nothing was shown yet.
    """
    phase, admitted = upgrade.phase, upgrade.admitted
    if phase is Phase.STOPPED:
        phase = Phase.WAVES if admitted else Phase.CANARY
        admitted = admitted or (upgrade.canary,)
    return msgspec.structs.replace(upgrade, paused=False, phase=phase, admitted=admitted, why="", failing_since={})


def may_go_on_at_once(upgrade: Upgrade | None, url: str) -> bool:
    """Whether an upgrade to this URL that stopped could go on with all hosts at once, if a person wants that."""
    return upgrade is not None and upgrade.phase is Phase.STOPPED and upgrade.url == url and not upgrade.all_at_once


def at_once(upgrade: Upgrade) -> Upgrade:
    """Go on without waves: EAM replaces whatever is left as soon as the hold is off."""
    return msgspec.structs.replace(upgrade, all_at_once=True, paused=False, phase=Phase.WAVES, why="", failing_since={})


def pause(upgrade: Upgrade) -> Upgrade:
    """Admit no further host; those admitted go on to their end."""
    return msgspec.structs.replace(upgrade, paused=True)
