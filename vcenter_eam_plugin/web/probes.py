# SPDX-License-Identifier: Apache-2.0
"""What a supervisor or a load balancer asks: does it live, and may it be counted on?

``/healthz`` is answered by whoever lives: a held event loop answers nothing. It must not depend on vCenter or broker,
since a restart mends neither. ``/readyz`` says whether the picture is complete and current; a standby that has it is
ready, because it can lead at once.

Both are open to everybody, so they name nothing; the status says which vCenter it is.
"""

from __future__ import annotations

from collections import Counter

from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.unit import Unit
from vcenter_eam_plugin.web.api import Readiness


def readiness(service: Service) -> Readiness:
    """Whether every vCenter is connected, read completely, and current."""
    troubles = Counter(trouble for unit in service.units if (trouble := _trouble(unit)))
    reasons = [f"{trouble} ({count} of {len(service.units)} vCenters)" for trouble, count in troubles.items()]
    if not service.units:
        reasons = ["not started"]
    return Readiness(ready=not reasons, reasons=tuple(reasons))


def _trouble(unit: Unit) -> str:
    pipeline = unit.pipeline
    if pipeline is None:
        return "not connected"
    if not pipeline.fleet.given_out:
        return "not read completely yet"
    if not pipeline.inventory.live:
        return "the inventory is not current"
    return "" if pipeline.poll.stale_since is None else "EAM's runtime is not current"
