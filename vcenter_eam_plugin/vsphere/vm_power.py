# SPDX-License-Identifier: Apache-2.0
"""What an operator may do to a ContrailVM by hand, after consent: power it off, or delete it.

vCenter guards agent VMs: both need EAM.Modify. EAM turns red afterwards, which is what the consent is about.
"""

from __future__ import annotations

from pyVmomi import vim

from vcenter_eam_plugin.vsphere.session import Session
from vcenter_eam_plugin.vsphere.tasks import run_task


def power_off(session: Session, vm: str) -> None:
    """Power a VM off hard. Raises the domain's errors."""
    run_task(session, vim.VirtualMachine(vm, session.vim_stub()).PowerOffVM_Task)


def delete(session: Session, vm: str) -> None:
    """Delete a VM with its disks; it must be off. Raises the domain's errors."""
    run_task(session, vim.VirtualMachine(vm, session.vim_stub()).Destroy_Task)
