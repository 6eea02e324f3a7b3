# SPDX-License-Identifier: Apache-2.0
"""vCenter's events as hints: they wake somebody up and feed the audit trail, and are never the truth.

A page of recent events (``latestPage``) is watched as one property; each change brings the whole page again.
It is unordered by contract, may overflow between two reads and may stick; a key is an ``int`` that wraps. So
hints are told apart by remembered keys, ordered by time, and an overflow is reported as a hint of its own.

Events of tenant VMs are not subscribed: the cost must follow the hosts and their ContrailVMs. What happens to
a ContrailVM itself is watched as properties, and comes as an EAM event besides.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

from pyVmomi import vim

from vcenter_eam_plugin.domain.observations import Hint

log = logging.getLogger(__name__)

#: The page that is watched. vCenter allows 1,000; each event makes it travel again, so it is kept small.
PAGE_SIZE = 100
#: Keys remembered: several pages, so that a page that comes back after a gap is recognised.
REMEMBERED = 1000

#: Characters of an event's text; vCenter's own are some hundred.
MOST_TEXT = 2000

#: ``Hint.kind`` when nothing on a page was known before: events in between may have been missed.
OVERFLOW = "overflow"

#: Hosts coming, going and changing service; their ``Drs...`` subclasses are posted by DPM and are listed by name
#: because a filter by type id does not match subclasses.
HOST_EVENTS: tuple[str, ...] = (
    "HostAddedEvent",
    "HostRemovedEvent",
    "HostConnectedEvent",
    "HostDisconnectedEvent",
    "HostConnectionLostEvent",
    "HostShutdownEvent",
    "EnteringMaintenanceModeEvent",
    "EnteredMaintenanceModeEvent",
    "ExitMaintenanceModeEvent",
    "EnteringStandbyModeEvent",
    "DrsEnteringStandbyModeEvent",
    "EnteredStandbyModeEvent",
    "DrsEnteredStandbyModeEvent",
    "ExitingStandbyModeEvent",
    "DrsExitingStandbyModeEvent",
    "ExitedStandbyModeEvent",
    "DrsExitedStandbyModeEvent",
    "ExitStandbyModeFailedEvent",
    "DrsExitStandbyModeFailedEvent",
    "DasHostFailedEvent",
    "DasHostIsolatedEvent",
)

EAM_PREFIX = "com.vmware.vim.eam."
_EAM = (
    "agency.create agency.destroyed agency.goalstate agency.statusChanged agency.updated"
    " agent.created agent.destroyed agent.destroyedNoHost agent.statusChanged"
    " agent.markAgentVmAsAvailableAfterProvisioning agent.markAgentVmAsAvailableAfterPowerOn"
    " agent.task.deployVm agent.task.powerOnVm agent.task.powerOffVm agent.task.deleteVm"
    " issue.agencyDisabled issue.cannotAccessAgentOVF issue.certificateNotTrusted issue.hostInMaintenanceMode"
    " issue.hostInPartialMaintenanceMode issue.hostInStandbyMode issue.hostNotReachable"
    " issue.incompatibleHostVersion issue.insufficientResources issue.insufficientSpace issue.invalidConfig"
    " issue.noAgentVmDatastore issue.noAgentVmNetwork issue.noCustomAgentVmDatastore issue.noCustomAgentVmNetwork"
    " issue.ovfInvalidFormat issue.ovfInvalidProperty issue.vmCorrupted issue.vmDeployed issue.vmInaccessible"
    " issue.vmNotDeployed issue.vmOrphaned issue.vmPoweredOff issue.vmPoweredOn"
    " issue.vmRequiresHostOutOfMaintenanceMode issue.vmSuspended issue.vmProtected issue.resolved"
)
#: EAM's own, all posted as EventEx. From the event catalogues of vCenter 7.0 to 8.0 U3; a filter takes no
#: wildcard, so an id that is not listed here is not heard of, and the timer's poll finds its effect.
EAM_EVENTS: tuple[str, ...] = tuple(EAM_PREFIX + name for name in _EAM.split())


def filter_spec() -> Any:
    """``EventFilterSpec`` of what is worth waking up for."""
    ids = [f"vim.event.{name}" for name in HOST_EVENTS]
    return vim.event.EventFilterSpec(eventTypeId=[*HOST_EVENTS, *ids, *EAM_EVENTS])


class Hints:
    """Turns pages into hints, each event once. Outlives sessions, so a page read again after a gap says nothing new."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._seen: set[int] = set()
        self._primed = False

    def of_page(self, page: Iterable[Any]) -> tuple[Hint, ...]:
        """The hints that this page brings, oldest first.

        The first page ever is history from before the start and brings none: everything is read then anyway.
        """
        fresh = [hint for hint in map(_understood, page) if hint is not None and hint.key not in self._seen]
        overflow = self._primed and len(fresh) >= PAGE_SIZE
        first, self._primed = not self._primed, True
        for hint in fresh:
            self._remember(hint.key)
        if first:
            return ()
        hints = sorted(fresh, key=lambda hint: (hint.created, hint.key))
        if overflow:
            hints.insert(0, Hint(key=hints[0].key, kind=OVERFLOW, created=hints[0].created, text="events were missed"))
        return tuple(hints)

    def _remember(self, key: int) -> None:
        self._seen.add(key)
        self._order.append(key)
        if len(self._order) > REMEMBERED:
            self._seen.discard(self._order.popleft())


def _understood(event: Any) -> Hint | None:
    """One event that is not what it should be costs a hint, and not the page."""
    try:
        return hint_of(event)
    except (AttributeError, TypeError, ValueError, OverflowError) as exc:
        log.info("An event that is not understood was passed over (%s: %s).", type(exc).__name__, str(exc)[:200])
        return None


def hint_of(event: Any) -> Hint:
    """One event. EventEx and ExtendedEvent go by their ``eventTypeId``, others by their class."""
    kind = getattr(event, "eventTypeId", None) or type(event).__name__.rpartition(".")[2]
    host = event.host.host if event.host is not None else None
    vm = event.vm.vm if event.vm is not None else None
    return Hint(
        key=int(event.key),
        kind=_one_line(kind),
        created=event.createdTime.timestamp(),
        host=None if host is None else host._GetMoId(),
        vm=None if vm is None else vm._GetMoId(),
        text=_one_line(event.fullFormattedMessage or ""),
        user=_one_line(event.userName or ""),
    )


def _one_line(text: str) -> str:
    """What somebody else wrote, and what goes to the log: one line that ends."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MOST_TEXT])
