# SPDX-License-Identifier: Apache-2.0
"""S14, S15, S16: a simulated host that is lost and comes back, with vSphere HA: who is started where, and when."""

from __future__ import annotations

from typing import Any

from pyVmomi import vim

from tests.unit.simulator.lab import Lab
from vcenter_eam_plugin.simulator.tenants import new_tenant


def cluster(hosts: int = 2, **knobs: Any) -> Lab:
    """A cluster with HA and an agency that is green."""
    lab = Lab(hosts=hosts, **knobs)
    lab.do.set_ha("ClusterA")
    lab.deployed()
    return lab


def test_tenants_are_started_elsewhere_and_the_agent_vm_is_not() -> None:
    """S15: the tenant runs on another host; the agent VM stays, disconnected, and its power is as last seen."""
    lab = cluster()
    source, agent_vm, tenant = lab.host, lab.vm, new_tenant(lab.host, "tenant")
    lab.do.crash(source)
    assert tenant.get("runtime.connectionState") == "disconnected"
    lab.until(lambda: tenant.host is not source)
    assert (tenant.get("runtime.powerState"), tenant.get("runtime.connectionState")) == ("poweredOn", "connected")
    assert tenant.get("runtime.host") == tenant.host.ref
    lab.settle(30)
    assert agent_vm.host is source
    assert agent_vm.get("runtime.connectionState") == "disconnected"
    names = lab.events()
    assert names.index("DasHostFailedEvent") < names.index("VmRestartedOnAlternateHostEvent")
    assert names.count("VmRestartedOnAlternateHostEvent") == 1


def test_without_ha_nobody_starts_anything() -> None:
    """The tenant stays with its host, and is off when the host is back; EAM starts its own VM all the same."""
    lab = Lab(hosts=2)
    agency = lab.deployed()
    source, tenant = lab.host, new_tenant(lab.host, "tenant")
    lab.do.crash(source)
    lab.settle(30)
    assert tenant.host is source
    lab.do.recover(source)
    lab.until(lambda: agency.status == "green")
    lab.settle(30)
    assert not tenant.on


def test_on_return_the_agent_is_first() -> None:
    """S14: the tenant that found no other place is started on its host, once the agent there is available."""
    lab = cluster(hosts=1)
    agent_vm, tenant = lab.vm, new_tenant(lab.host, "tenant")
    lab.do.crash(lab.host)
    lab.settle(30)
    assert "VmFailoverFailed" in lab.events()
    lab.do.recover(lab.host)
    assert (agent_vm.on, tenant.on) == (False, False)
    lab.until(lambda: agent_vm.on)
    assert not tenant.on, "DRS waits for the heartbeat, too"
    lab.until(lambda: tenant.on)
    assert tenant.host is lab.host


def test_an_agent_that_waits_to_be_marked_keeps_the_tenants_off() -> None:
    """S14 with the power-on hook: the tenant is started only after MarkAsAvailable."""
    lab = Lab()
    lab.do.set_ha("ClusterA")
    agency = lab.create(manuallyMarkAgentVmAvailableAfterPowerOn=True)
    lab.until(lambda: agency.agents and lab.agent(agency).hook is not None)
    lab.agent(agency).mark_as_available(lab.extension_of(agency))
    lab.until(lambda: agency.status == "green")
    tenant = new_tenant(lab.host, "tenant")
    lab.do.crash(lab.host)
    lab.do.recover(lab.host)
    lab.settle(30)
    assert lab.vm.on
    assert not tenant.on
    lab.agent(agency).mark_as_available(lab.extension_of(agency))
    lab.until(lambda: tenant.on)


def test_a_host_that_returns_in_between_keeps_its_vms() -> None:
    """A short loss: HA had no time, nothing is started elsewhere later."""
    lab = cluster(ha_failover=5.0)
    source, tenant = lab.host, new_tenant(lab.host, "tenant")
    lab.do.crash(source)
    lab.settle(2)
    lab.do.recover(source)
    lab.settle(30)
    assert tenant.host is source
    assert tenant.on


def test_a_host_removed_while_it_is_lost() -> None:
    """Nothing is left to start."""
    lab = cluster(hosts=2)
    source = lab.host
    new_tenant(source, "tenant")
    lab.do.crash(source)
    lab.do.remove_host(source)
    lab.settle(30)
    assert "VmRestartedOnAlternateHostEvent" not in lab.events()


def test_broken_rule_ha_restarts_elsewhere() -> None:
    """Switched on by name, the agent VM is started on another host; its agent still says where it belongs."""
    lab = cluster(ha_restarts_elsewhere=True)
    source, agent_vm = lab.host, lab.vm
    lab.do.crash(source)
    lab.until(lambda: agent_vm.host is not source)
    assert agent_vm.on
    agency = next(iter(lab.eam.agencies.values()))
    assert lab.agent(agency, source).query_runtime(lab.call).host == source.ref
    assert agent_vm.get("runtime.host") == agent_vm.host.ref


def test_broken_rule_agent_not_first_after_restart() -> None:
    """Switched on by name, the tenant runs while the agent VM is still off, and for a while."""
    lab = cluster(hosts=1, agent_not_first_after_restart=True)
    agent_vm, tenant = lab.vm, new_tenant(lab.host, "tenant")
    lab.do.crash(lab.host)
    lab.do.recover(lab.host)
    assert tenant.on
    lab.settle(lab.knobs.broken_rule_delay * 0.9)
    assert not agent_vm.on
    lab.until(lambda: agent_vm.on)


def test_broken_rule_late_power_on_after_maintenance() -> None:
    """S10: the exit task ends while the agent VM is off; it is powered on late, and then all is well."""
    lab = Lab(late_power_on_after_maintenance=True)
    agency = lab.deployed()
    lab.do.enter_maintenance(lab.host)
    lab.until(lambda: lab.host.in_maintenance)
    task = lab.do.exit_maintenance(lab.host)
    lab.until(lambda: task.ended)
    lab.settle(lab.knobs.broken_rule_delay * 0.9)
    assert not lab.vm.on
    assert lab.host.can_run
    lab.until(lambda: agency.status == "green")


def slots(lab: Lab) -> Any:
    return lab.vcenter.clusters()[0].retrieve_das_advanced_runtime_info(lab.call)


def test_slots_without_agents() -> None:
    """S16: agent VMs are no VMs that HA counts; the cluster's usage summary knows of all VMs."""
    lab = cluster()
    for number in range(3):
        new_tenant(lab.host, f"tenant-{number}")
    new_tenant(lab.host, "idle", on=False)
    info = slots(lab)
    assert (info.totalVms, info.usedSlots, info.totalHosts, info.totalGoodHosts) == (3, 3, 2, 2)
    assert info.totalSlots == sum(one.slots for one in info.hostSlots)
    assert info.unreservedSlots == info.totalSlots // 2 - 3
    usage = lab.vcenter.clusters()[0].get("summary.usageSummary")
    assert (usage.totalVmCount, usage.poweredOffVmCount) == (6, 1)
    lab.knobs.change({"slots_count_agents": True})
    assert (slots(lab).totalVms, slots(lab).usedSlots) == (5, 5)


def test_the_largest_reservation_makes_the_slot() -> None:
    """A tenant with a reservation makes slots larger; an agent VM with all its memory reserved does not."""
    lab = cluster()
    small = slots(lab).slotInfo.memoryMB
    whole = vim.vm.ConfigSpec(memoryReservationLockedToMax=True)
    lab.vm.reconfigure(whole)
    assert slots(lab).slotInfo.memoryMB == small
    new_tenant(lab.host, "tenant").reconfigure(whole)
    assert slots(lab).slotInfo.memoryMB == small + 2048


def test_no_slots_to_tell() -> None:
    """Nothing without HA; no slot figures with another admission control policy."""
    lab = Lab(hosts=2)
    assert slots(lab) is None
    lab.do.set_ha("ClusterA")
    policy = vim.cluster.FailoverResourcesAdmissionControlPolicy(
        cpuFailoverResourcesPercent=25, memoryFailoverResourcesPercent=25
    )
    config = vim.cluster.DasConfigInfo(admissionControlPolicy=policy)
    lab.vcenter.clusters()[0].reconfigure(vim.cluster.ConfigSpecEx(dasConfig=config), True)
    assert type(slots(lab)) is vim.cluster.DasAdvancedRuntimeInfo
