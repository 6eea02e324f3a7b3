# SPDX-License-Identifier: Apache-2.0
"""Names of hosts, read once and on demand: for a command that has nothing but vCenter."""

from __future__ import annotations

from collections.abc import Iterable

from pyVmomi import vim

from vcenter_eam_plugin.vsphere.properties import read_objects
from vcenter_eam_plugin.vsphere.session import Session


def host_names(session: Session, morefs: Iterable[str]) -> dict[str, str]:
    """Moref -> name; hosts that do not exist any more are left out. Raises the domain's errors."""
    session.open()
    return {
        moref: str(read.props["name"])
        for moref, read in read_objects(session, vim.HostSystem, morefs, ["name"]).items()
    }
