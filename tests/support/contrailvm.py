# SPDX-License-Identifier: Apache-2.0
"""Records of ContrailVMs as Fleet would derive them, for tests of what comes after it."""

from __future__ import annotations

from vcenter_eam_plugin.domain.status import AgentVm, ContrailVm, Eam, Esxi, State, VRouter

VCENTER = "52f3b0a1-7c1d-4d7e-9a55-0c2f6f0e1a11"


def key_of(host: int | str) -> str:
    """Key of the ContrailVM on ``host-<host>``."""
    return f"host-{host}.{VCENTER}"


def contrail_vm(host: int | str, state: State = State.ACTIVE, reason: str = "") -> ContrailVm:
    """The ContrailVM of ``host-<host>`` in ``state``."""
    active = state is State.ACTIVE
    return ContrailVm(
        key=key_of(host),
        state=state,
        reason=reason,
        esxi=Esxi(
            moref=f"host-{host}",
            name=f"esx-{host}.dc0.example",
            compute_resource="domain-c7",
            cluster="ClusterA",
            datacenter="DC0",
            connection="connected",
            power="poweredOn",
            maintenance=False,
            standby="none",
        ),
        vm=AgentVm(
            moref=f"vm-{host}",
            name=f"ContrailVM-{host}",
            power="poweredOn" if active else "poweredOff",
            host=f"host-{host}",
        ),
        vrouter=VRouter(active=active),
        eam=Eam(agency="agency-1", agent=f"agent-{host}", status="green" if active else "red", goal="enabled"),
    )
