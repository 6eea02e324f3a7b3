# SPDX-License-Identifier: Apache-2.0
"""S03: which agent VMs stand in a scope before an agency is created over it; "none" must be proven."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pyVmomi import vim

from tests.support.vcenters import Admin, VCenter
from vcenter_eam_plugin.domain.errors import ObjectGone, Unavailable
from vcenter_eam_plugin.vsphere.agent_vms import find_agent_vms
from vcenter_eam_plugin.vsphere.scope import list_compute_resources


def test_s03_vm_named_contrailvm_is_found_in_its_cluster_alone(vcenter: VCenter, admin: Admin) -> None:
    """A ContrailVM of the old kind, deployed by hand: an agency over it would fight with it."""
    first, second = [one for one in list_compute_resources(admin.session) if one.is_cluster][:2]
    vm = next(vm for host in first.hosts for vm in admin.vms_of(host))
    assert find_agent_vms(admin.session, [first.moref, second.moref]) == ()
    admin.task(admin.obj(vim.VirtualMachine, vm).Rename_Task, "contrailVM-old")
    (found,) = find_agent_vms(admin.session, [first.moref, second.moref])
    assert (found.moref, found.name, found.named_contrailvm) == (vm, "contrailVM-old", True)
    assert found.host_name in {admin.get(vim.HostSystem, host, "name") for host in first.hosts}
    assert find_agent_vms(admin.session, [second.moref]) == ()


def test_compute_resource_that_is_gone_is_told(vcenter: VCenter, admin: Admin) -> None:
    with pytest.raises(ObjectGone):
        find_agent_vms(admin.session, ["domain-c999999"])


@pytest.mark.parametrize("left_out", ["cluster", "host", "vm"])
def test_p8_answer_that_leaves_something_out_is_not_used(
    simulator_vcenter: VCenter, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    """P8: "no ContrailVM stands there" of half an answer would deploy a second one beside the first."""
    kinds = {"cluster": vim.ClusterComputeResource, "host": vim.HostSystem, "vm": vim.VirtualMachine}
    with simulator_vcenter.session() as session:
        cluster = next(one for one in list_compute_resources(session) if one.is_cluster)
        call = session.call
        first = itertools.count()

        def lossy(fn: Any, *args: Any, **kw: Any) -> Any:
            result = call(fn, *args, **kw)
            if next(first) == 0:  # the answer to the search; what is asked afterwards is asked in earnest
                drop = next(one for one in result.objects if isinstance(one.obj, kinds[left_out]))
                result = result._replace(objects=[one for one in result.objects if one is not drop])
            return result

        monkeypatch.setattr(session, "call", lossy)
        with pytest.raises(Unavailable, match="left out"):
            find_agent_vms(session, [cluster.moref])
