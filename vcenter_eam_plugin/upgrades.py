# SPDX-License-Identifier: Apache-2.0
"""Runs the upgrade of one vCenter's ContrailVMs, and remembers it over restarts.

What is next is decided by :mod:`vcenter_eam_plugin.domain.upgrade`; that a held VM goes on when it is admitted is
the planner's. Here are the one write that begins it, and the file that a restart reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.domain import upgrade as rules
from vcenter_eam_plugin.domain.errors import PluginError, WrongState
from vcenter_eam_plugin.domain.facts import AgencyFacts, HookState, VmPower
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.planner import Planner
from vcenter_eam_plugin.domain.status import ContrailVm
from vcenter_eam_plugin.domain.upgrade import HostSight, Phase, Upgrade
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.gate import Gate
from vcenter_eam_plugin.state_file import StateFile

LOOK_SECONDS = 2.0
"""Between two looks at hosts whose new VM is awaited: EAM says nothing of it, and a green agent is read but rarely."""
LOOK_AT = 32
"""Hosts per look: more than a wave needs, and no burden for EAM however large the fleet is."""
WAVE_SIZE = 4
"""Hosts at once after the canary, as many as repairs: each means minutes without network for a host's tenants."""


DONE_SECONDS = 30.0
"""Between looks at an upgrade that is done: a host that was away then may come back with its old VM."""


class Upgrades:
    """``wall_clock`` gives POSIX seconds.

    ``look_at_everything`` has every host planned anew, ``read_soon`` has a host's agent read.
    """

    def __init__(
        self,
        path: Path,
        fleet: Fleet,
        planner: Planner,
        eam: EamClient,
        gate: Gate,
        *,
        look_at_everything: Callable[[], None],
        read_soon: Callable[[str | None], None],
        publish: Callable[[Sequence[ContrailVm]], None],
        wall_clock: Callable[[], float],
        alarms: Alarms,
        log: logging.Logger,
    ) -> None:
        self._file = StateFile(
            path, Upgrade, what="The upgrade's state", without="held ContrailVMs then wait for a new upgrade"
        )
        self._fleet = fleet
        self._planner = planner
        self._eam = eam
        self._gate = gate
        self._look_at_everything = look_at_everything
        self._read_soon = read_soon
        self._publish = publish
        self._looked_at = float("-inf")
        self._wall_clock = wall_clock
        self._alarms = alarms
        self._log = log
        self._take(self._file.read())

    def start(self, url: str, certificate_pem: str | None = None, *, wave_size: int = WAVE_SIZE,
              all_at_once: bool = False) -> Upgrade:  # fmt: skip
        """Begin. Raises WrongState when it may not, with what to do instead; EAM's own refusals come as OvfError."""
        agency, running = self._fleet.agency, self._planner.upgrade
        if agency is None:
            raise WrongState("There is no agency of ours to upgrade.")
        if running is not None and all_at_once and rules.may_go_on_at_once(running, url):
            self._gate.check()
            self._replace(rules.at_once(running))
            self._look_at_everything()
            return rules.at_once(running)
        if running is not None and running.phase is not Phase.DONE and not self._never_began(running, agency):
            raise WrongState(f"An upgrade to {running.url} is under way ({running.phase}).", remedy="Let it end first.")
        if agency.ovf_url == url:
            raise WrongState(f"The agency deploys {url} already.", remedy="A new content needs a new URL.")
        if not all_at_once and not self._planner.may_mark:
            raise WrongState(
                "Waves need the hold, and EAM refuses MarkAsAvailable to our account.",
                remedy="Log in as a vCenter extension, or take all hosts at once (--all-at-once).",
            )
        begun = rules.begin(url, self._sights(), wave_size=wave_size, all_at_once=all_at_once, now=self._wall_clock())
        if begun is None:
            raise WrongState("No ContrailVM is ACTIVE, so none could show that the new package works.")
        self._gate.check()
        self._log.info("Upgrading %d hosts to %s, %s.", len(begun.old), url, "at once" if all_at_once else "in waves")
        # Remembered before the write: if we end in between, the held VMs are known to be ours.
        self._file.write(begun)
        self._take(begun)
        try:
            self._eam.set_package(agency.moref, url, certificate_pem, hold=not all_at_once)
        except PluginError as exc:
            if not exc.retry:  # of a write whose answer was lost nobody knows whether it was carried out
                self._forget()
            raise
        self._read_soon(None)
        self._look_at_everything()
        return begun

    def _never_began(self, running: Upgrade, agency: AgencyFacts) -> bool:
        """Whether the one write was lost on its way: then it may be made again, or another."""
        return running.phase is Phase.HOLDING and self._eam.read_agency(agency.moref).ovf_url != running.url

    def pause(self) -> None:
        """Admit no further host. Raises WrongState when no upgrade runs."""
        self._replace(rules.pause(self._running()))

    def resume(self) -> None:
        """Go on after a pause or a stop. Raises WrongState when no upgrade runs."""
        self._replace(rules.resume(self._running()))
        self._look_at_everything()

    def status(self) -> Upgrade | None:
        """The upgrade under way, or the last one."""
        return self._planner.upgrade

    def take_over(self, upgrade: Upgrade | None) -> None:
        """Go on where the instance that led before us stood; ``None``: it had none."""
        if upgrade is None:
            self._forget()
        else:
            self._replace(upgrade)

    def tick(self) -> None:
        """Look where it stands; admits the next hosts when it is time."""
        running = self._planner.upgrade
        if running is None or running.phase is Phase.STOPPED or not self._fleet.given_out:
            return
        now = self._wall_clock()
        if running.phase is Phase.DONE and now - self._looked_at < DONE_SECONDS:
            return
        sights = self._sights()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._look_for_new_vms(running, sights)
        after = rules.advance(running, sights, now, may_mark=self._planner.may_mark)
        if after != running:
            self._replace(after)
            self._look_at_everything()

    def _look_for_new_vms(self, running: Upgrade, sights: Mapping[str, HostSight]) -> None:
        awaited = (
            host
            for host in dict.fromkeys((running.canary, *sorted(running.old)))
            if (sight := sights.get(host)) is not None and sight.held is None and sight.vm == running.old.get(host)
        )
        for host in islice(awaited, LOOK_AT):
            self._read_soon(host)

    def _sights(self) -> dict[str, HostSight]:
        running, sights = self._planner.upgrade, {}
        old = running.old if running is not None else {}
        for status in self._fleet.statuses():
            host = status.esxi.moref
            agent = self._fleet.agent_on(host)
            hook = agent.hook if agent is not None else None
            held = hook.vm if hook is not None and hook.state is not HookState.POWERED_ON else None
            vm = self._fleet.vms.get(agent.vm) if agent is not None and agent.vm is not None else None
            sights[host] = HostSight(
                state=status.state,
                vm=agent.vm if agent is not None else None,
                # Not the VM it had: EAM may name the new one as the agent's own already, when the old one is gone.
                held=held if agent is not None and held != old.get(host, agent.vm) else None,
                old_runs=vm is not None and vm.power is VmPower.POWERED_ON,
                name=status.esxi.name,
            )
        return sights

    def _running(self) -> Upgrade:
        running = self._planner.upgrade
        if running is None or running.phase is Phase.DONE:
            raise WrongState("No upgrade is under way.")
        return running

    def _replace(self, upgrade: Upgrade) -> None:
        self._file.write(upgrade)
        self._take(upgrade)
        self._log.info("Upgrade to %s: %s%s.", upgrade.url, upgrade.phase, " (paused)" if upgrade.paused else "")

    def _take(self, upgrade: Upgrade | None) -> None:
        self._planner.upgrade = upgrade
        under_way = upgrade is not None and upgrade.phase is not Phase.DONE
        replaced = {host: upgrade.old[host] for host in upgrade.active} if upgrade is not None and under_way else {}
        self._publish(self._fleet.set_replacing(replaced))
        if upgrade is not None and upgrade.phase is Phase.STOPPED:
            self._alarms.raise_("upgrade-stopped", f"The upgrade stopped: {upgrade.why}. See the hosts, then resume.")
        else:
            self._alarms.clear("upgrade-stopped")

    def _forget(self) -> None:
        self._take(None)
        self._file.forget()
