# SPDX-License-Identifier: Apache-2.0
"""From the fleet to the outbox, while this instance leads.

Taking the lead begins a new epoch, compares the whole fleet with what was accepted last, and sends a snapshot;
losing it drops what is unsent. A standby holds the same picture and sends nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from vcenter_eam_plugin import failpoints
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.audit import Kind, Tell, untold
from vcenter_eam_plugin.bus.outbox import Outbox
from vcenter_eam_plugin.bus.publisher import Publisher
from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.leadership import Leadership, Term
from vcenter_eam_plugin.domain.status import ContrailVm


class Delivery:
    """``snapshot_seconds`` lies between two snapshots; 0 sends one at each take of leadership alone.

    ``on_change`` is told what changed, whoever leads; it must not yield. ``tell`` takes audit entries.
    """

    def __init__(
        self,
        fleet: Fleet,
        outbox: Outbox,
        publisher: Publisher,
        *,
        leadership: Leadership,
        snapshot_seconds: float,
        clock: Callable[[], float],
        alarms: Alarms,
        log: logging.Logger,
        on_change: Callable[[Sequence[ContrailVm]], None] = lambda _: None,
        tell: Tell = untold,
    ) -> None:
        self._fleet = fleet
        self.outbox = outbox
        self.publisher = publisher
        self._leadership = leadership
        self._snapshot_seconds = snapshot_seconds
        self._clock = clock
        self._alarms = alarms
        self._log = log
        self._on_change = on_change
        self._tell = tell
        self._term: Term | None = None
        self._compared_with: int | None = None
        self._seen: list[ContrailVm] = []
        self._taking_in = False
        self._snapshot_at = float("inf")
        # What an earlier life left in the outbox is not ours to say before we lead: another may speak by now.
        publisher.pause()

    @property
    def _compared(self) -> bool:
        """Whether the outbox knows the whole fleet; one that was begun anew knows nothing."""
        return self._compared_with == self.outbox.generation

    def leads(self) -> bool:
        """Whether this instance may publish and act now; asks anew. A new term is another's until :meth:`tick`."""
        return self._term is not None and self._leadership.term() is self._term

    def publish(self, changed: Sequence[ContrailVm]) -> None:
        """Take in what changed. At first, and after a trouble, everything is compared, so that nothing is missed."""
        self._on_change(changed)
        if self._term is None or not self._fleet.given_out:
            return
        self._seen.extend(changed)
        if self._taking_in:
            return  # the outbox lets others run within a large piece; whoever is at it takes this in after it
        self._taking_in = True
        try:
            while self.leads() and (self._seen or not self._compared):
                self._take_in()
        except PluginError as exc:
            self._compared_with = None
            self._alarms.raise_("outbox", f"{exc} Everything is compared and sent once this is mended.")
        else:
            self._alarms.clear("outbox")
            self.publisher.wake()
        finally:
            self._taking_in = False
            self._seen.clear()

    def _take_in(self) -> None:
        """In the order in which it was seen: one that overtook a later one would stand as the truth."""
        seen, self._seen = self._seen, []
        if self._compared:
            if self.outbox.accept(seen):
                failpoints.reach(failpoints.AFTER_OUTBOX_WRITE)
            return
        # Set before, so that a trouble meanwhile has everything compared once more.
        self._compared_with = self.outbox.generation
        if self.outbox.reconcile(self._fleet.statuses()):
            failpoints.reach(failpoints.AFTER_OUTBOX_WRITE)
        self._take_snapshot()

    def compare_everything(self) -> None:
        """Something went wrong that may have lost a change: the next tick compares the whole fleet."""
        self._compared_with = None

    def request_snapshot(self) -> None:
        """Send every state now, in a bracket. Does nothing while another instance leads."""
        if self.leads() and self._compared:
            self._take_snapshot()
            self.publisher.wake()

    def tick(self) -> bool:
        """What depends on time alone; returns whether leadership was taken just now."""
        if self.outbox.kept_aside:
            self._alarms.raise_("outbox-damaged", _damaged(self.outbox.kept_aside))
        try:
            taken = self._follow_leadership()
        except PluginError as exc:
            self._alarms.raise_("outbox", f"{exc} Leadership is neither taken nor given up before this is mended.")
            return False
        if not self._compared:
            self.publish(())
        elif self._clock() >= self._snapshot_at or self.publisher.take_torn():
            self.request_snapshot()
        return taken

    def _follow_leadership(self) -> bool:
        term = self._leadership.term()
        if self._term is not None and term is not self._term:
            self._step_down()
        if term is None or term is self._term:
            return False
        epoch = self.outbox.take_epoch(term.epoch)
        self._term, self._compared_with = term, None
        self.publisher.resume()
        self._log.warning("Leading from now on, epoch %d.", epoch)
        self._tell(Kind.ELECTION, f"leads from now on, epoch {epoch}")
        return True

    def _step_down(self) -> None:
        self.publisher.pause()
        dropped = self.outbox.drop_unsent()
        self._term = None
        self._alarms.clear("outbox")
        self._log.warning("Not leading any more; %d unsent messages were dropped.", dropped)
        self._tell(Kind.ELECTION, f"does not lead any more; {dropped} unsent message(s) were dropped")

    def _take_snapshot(self) -> None:
        self.outbox.snapshot()
        failpoints.reach(failpoints.AFTER_OUTBOX_WRITE)
        self._snapshot_at = self._clock() + self._snapshot_seconds if self._snapshot_seconds else float("inf")


def _damaged(files: Sequence[str]) -> str:
    return (
        f"The outbox was damaged and is kept as {', '.join(files)}; a new one was begun, and every ContrailVM was"
        " announced anew. Look at the disk, then move the file away: this alarm ends with the next start."
    )
