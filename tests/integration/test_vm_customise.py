# SPDX-License-Identifier: Apache-2.0
"""S20: a VM is made what its specification wants, in one reconfiguration, and a second time nothing is left to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from tests.support.vcenters import Admin, VCenter
from vcenter_eam_plugin.domain.customisation import StepImpossible, VmShape, plan_customisation
from vcenter_eam_plugin.domain.errors import ObjectGone, PluginError, PrivilegeMissing, Unavailable, WrongState
from vcenter_eam_plugin.domain.host_spec import (
    HostIdentity,
    HostSpec,
    HostSpecs,
    Layer,
    NetworkKind,
    NicSpec,
    PciSpec,
    SriovSpec,
    derived_mac,
)
from vcenter_eam_plugin.vsphere.scope import list_compute_resources
from vcenter_eam_plugin.vsphere.session import Session
from vcenter_eam_plugin.vsphere.vm_customise import apply, customise, read_shape

PASSTHROUGH, SRIOV = "8086:158b", "0000:3b:00.0"


@pytest.fixture
def vm(admin: Admin) -> str:
    """A VM that is off, on a host of a cluster."""
    hosts = (host for one in list_compute_resources(admin.session) if one.is_cluster for host in one.hosts)
    found = next(vms[0] for host in hosts if (vms := admin.vms_of(host)))
    admin.power(found, on=False)
    return found


@pytest.fixture
def session(simulator_vcenter: VCenter) -> Iterator[Session]:
    with simulator_vcenter.session() as session:
        yield session


def wanted(shape: VmShape, **more: Any) -> HostSpec:
    """Two adapters, the second on a distributed port group, sizes and values; addresses derived from the host."""
    distributed = next(one for one in shape.host_networks if one.kind is NetworkKind.DISTRIBUTED)
    layer = Layer(
        cpus=4,
        memory_mb=2048,
        networks=(NicSpec(port_group="VM Network"), NicSpec(port_group=distributed.name, switch=distributed.switch)),
        guestinfo={"guestinfo.contrail.address": "10.0.0.5", "guestinfo.contrail.host": "{host}"},
    )
    host = HostIdentity(key=f"{shape.host}.uuid", name=shape.host_name, cluster="A", datacenter="DC0")
    return replace(HostSpecs(defaults=layer).for_host(host), **more)


def configuration(admin: Admin, vm: str) -> Any:
    return admin.get(vim.VirtualMachine, vm, "config")


def test_s20_vm_becomes_what_is_wanted_and_then_nothing_is_left(vcenter: VCenter, admin: Admin, vm: str) -> None:
    """On both servers: name, sizes, adapters in order with derived addresses, guestinfo; and then no change."""
    shape = read_shape(admin.session, vm, devices=False)
    spec = wanted(shape)
    assert customise(admin.session, vm, spec)
    config = configuration(admin, vm)
    assert admin.get(vim.VirtualMachine, vm, "name") == f"ContrailVM-DC0-{shape.host_name}"
    assert (config.hardware.numCPU, config.hardware.memoryMB) == (4, 2048)
    cards = sorted(
        (one for one in config.hardware.device if isinstance(one, vim.vm.device.VirtualEthernetCard)),
        key=lambda one: one.key,
    )
    assert [type(one) for one in cards] == [vim.vm.device.VirtualVmxnet3] * 2
    assert [one.macAddress for one in cards] == [derived_mac(f"{shape.host}.uuid", number) for number in range(2)]
    assert [one.addressType for one in cards] == ["manual"] * 2
    assert isinstance(cards[0].backing, vim.vm.device.VirtualEthernetCard.NetworkBackingInfo)
    assert isinstance(cards[1].backing, vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo)
    extra = {one.key: one.value for one in config.extraConfig}
    assert extra["guestinfo.contrail.address"] == "10.0.0.5"
    assert extra["guestinfo.contrail.host"] == shape.host_name
    version = config.changeVersion
    assert customise(admin.session, vm, spec) == ()
    assert configuration(admin, vm).changeVersion == version


def test_s20_other_devices_and_values_stay(vcenter: VCenter, admin: Admin, vm: str) -> None:
    """An edit sends the whole device back: disks and what others have set must not be lost by it."""
    before = configuration(admin, vm)
    admin.task(
        admin.obj(vim.VirtualMachine, vm).ReconfigVM_Task,
        vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key="guestinfo.other", value="kept")]),
    )
    customise(admin.session, vm, wanted(read_shape(admin.session, vm, devices=False)))
    after = configuration(admin, vm)

    def disks(config: Any) -> list[tuple[int, int]]:
        return [(d.key, d.capacityInKB) for d in config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)]

    assert disks(after) == disks(before)
    assert {one.key: one.value for one in after.extraConfig}["guestinfo.other"] == "kept"


def test_s20_port_group_that_the_host_has_not(vcenter: VCenter, admin: Admin, vm: str) -> None:
    """Bad input: named before anything is changed, on both servers."""
    shape = read_shape(admin.session, vm, devices=False)
    spec = replace(wanted(shape), networks=(NicSpec(port_group="nowhere", mac="00:50:56:00:00:01", line=4),))
    before = configuration(admin, vm).changeVersion
    with pytest.raises(StepImpossible, match=r"'nowhere' is not on the host; it has: .*VM Network"):
        customise(admin.session, vm, spec)
    assert configuration(admin, vm).changeVersion == before


def test_s20_running_vm_is_not_changed_but_may_be_renamed(vcenter: VCenter, admin: Admin, vm: str) -> None:
    """Only a held VM is customised. Its name can wait for its predecessor's end, and be given while it runs."""
    spec = wanted(read_shape(admin.session, vm, devices=False))
    assert customise(admin.session, vm, spec, rename=False)
    admin.power(vm, on=True)
    assert not admin.get(vim.VirtualMachine, vm, "name").startswith("ContrailVM")
    assert [change.text for change in customise(admin.session, vm, spec)] == [f"rename to {spec.vm_name}"]
    assert admin.get(vim.VirtualMachine, vm, "name") == spec.vm_name
    with pytest.raises(WrongState, match="only while it is off"):
        customise(admin.session, vm, replace(spec, cpus=2))


def test_name_that_is_taken_names_the_step(vcenter: VCenter, admin: Admin, vm: str) -> None:
    hosts = [host for one in list_compute_resources(admin.session) for host in one.hosts]
    other = next(one for host in hosts for one in admin.vms_of(host) if one != vm)
    taken = admin.get(vim.VirtualMachine, other, "name")
    spec = HostSpec(vm_name=taken)
    with pytest.raises(PluginError, match=f"rename to {taken}"):  # vcsim calls it an invalid argument
        customise(admin.session, vm, spec)
    assert admin.get(vim.VirtualMachine, vm, "name") != taken


def test_vm_that_is_gone(vcenter: VCenter, admin: Admin, vm: str) -> None:
    admin.destroy(vm)
    with pytest.raises(ObjectGone):
        read_shape(admin.session, vm)


# --- on our simulator alone ------------------------------------------------------------------------------


@pytest.fixture
def agent(simulator_vcenter: VCenter, session: Session) -> str:
    """A VM of the simulator that is off."""
    admin = Admin(session)
    host = simulator_vcenter.simulator.vcenter.stimuli.hosts()[0]
    found = admin.vms_of(host.moid)[0]
    admin.power(found, on=False)
    return found


def test_s20_passthrough_and_sriov_with_all_memory_reserved(session: Session, agent: str) -> None:
    """The VM starts only if all its memory is reserved; the simulator refuses as vCenter does."""
    spec = wanted(
        read_shape(session, agent),
        reserve_memory=True,
        pci_passthrough=(PciSpec(device=PASSTHROUGH),),
        sr_iov=(SriovSpec(device=SRIOV, port_group="fab-pg", mac="00:50:56:00:00:0a"),),
    )
    customise(session, agent, spec)
    shape = read_shape(session, agent)
    assert [one.device for one in shape.pci] == ["0000:5e:00.0"]
    assert [(one.device, one.mac) for one in shape.sriov] == [(SRIOV, "00:50:56:00:00:0a")]
    assert (shape.memory_locked, shape.memory_reservation_mb) == (True, 2048)
    assert plan_customisation(spec, shape) == ()
    Admin(session).power(agent, on=True)


def test_s20_devices_are_exchanged_and_taken_out(session: Session, agent: str) -> None:
    full = wanted(
        read_shape(session, agent),
        reserve_memory=True,
        pci_passthrough=(PciSpec(device=PASSTHROUGH), PciSpec(device=PASSTHROUGH)),
    )
    customise(session, agent, full)
    assert len(read_shape(session, agent).pci) == 2
    customise(session, agent, replace(full, pci_passthrough=(PciSpec(device="0000:5e:00.1"),)))
    assert [one.device for one in read_shape(session, agent).pci] == ["0000:5e:00.1"]
    customise(session, agent, replace(full, pci_passthrough=()))
    assert read_shape(session, agent).pci == ()


@pytest.mark.parametrize(
    ("device", "says"),
    [("0000:99:00.0", "the host has no PCI device 0000:99:00.0"), ("0000:18:00.0", "passthrough is not active")],
)
def test_s20_device_that_the_host_has_not(session: Session, agent: str, device: str, says: str) -> None:
    spec = wanted(read_shape(session, agent), pci_passthrough=(PciSpec(device=device),), reserve_memory=True)
    with pytest.raises(StepImpossible, match=says):
        customise(session, agent, spec)


def test_s20_adapter_of_another_kind_is_replaced_in_order(session: Session, agent: str) -> None:
    admin = Admin(session)
    card = next(
        one for one in configuration(admin, agent).hardware.device if isinstance(one, vim.vm.device.VirtualEthernetCard)
    )
    odd = vim.vm.device.VirtualE1000(key=-1, backing=card.backing)
    verbs = vim.vm.device.VirtualDeviceSpec.Operation
    changes = [
        vim.vm.device.VirtualDeviceSpec(operation=verbs.remove, device=card),
        vim.vm.device.VirtualDeviceSpec(operation=verbs.add, device=odd),
    ]
    admin.task(admin.obj(vim.VirtualMachine, agent).ReconfigVM_Task, vim.vm.ConfigSpec(deviceChange=changes))
    assert [one.kind for one in read_shape(session, agent).nics] == ["e1000"]
    spec = wanted(read_shape(session, agent))
    customise(session, agent, spec)
    after = read_shape(session, agent)
    assert [(one.kind, one.mac) for one in after.nics] == [("vmxnet3", one.mac) for one in spec.networks]


def test_s20_address_in_use_names_the_adapter(session: Session, agent: str) -> None:
    """vCenter tells which device of the request it means: the step is that adapter's."""
    other = read_shape(session, Admin(session).vms_of(read_shape(session, agent).host)[1]).nics[0].mac
    shape = read_shape(session, agent)
    spec = wanted(shape)
    spec = replace(spec, networks=(spec.networks[0], replace(spec.networks[1], mac=other)))
    with pytest.raises(WrongState, match=f"add network adapter 2 on .* with MAC {other}: .*has the MAC address"):
        customise(session, agent, spec)


def test_somebody_elses_change_is_not_overwritten(session: Session, agent: str, monkeypatch: Any) -> None:
    """The reconfiguration carries the version it was made for; what came in between makes it fail, and is kept."""
    from vcenter_eam_plugin.vsphere import vm_customise  # noqa: PLC0415 - to step in between reading and writing

    admin = Admin(session)
    genuine = vm_customise.run_task

    def late(*args: Any, **kw: Any) -> Any:
        admin.task(admin.obj(vim.VirtualMachine, agent).ReconfigVM_Task, vim.vm.ConfigSpec(annotation="somebody"))
        return genuine(*args, **kw)

    monkeypatch.setattr(vm_customise, "run_task", late)
    changes = plan_customisation(HostSpec(vm_name="n", cpus=4), read_shape(session, agent))
    with pytest.raises(WrongState, match=r"set 4 CPUs: .*ConcurrentAccess"):
        apply(session, agent, changes)
    assert configuration(admin, agent).annotation == "somebody"


def test_privilege_that_is_missing_is_named_with_the_step(
    simulator_vcenter: VCenter, session: Session, agent: str
) -> None:
    simulator_vcenter.simulator.add_user("reader", "read-only", {"System.View", "System.Read"})
    with (
        simulator_vcenter.session(username="reader", password=lambda: "read-only") as reader,
        pytest.raises(PrivilegeMissing, match=r"set 4 CPUs: .*VirtualMachine\.Config\.CPUCount"),
    ):
        customise(reader, agent, HostSpec(vm_name="n", cpus=4))


def test_p8_empty_answer_is_no_vm_without_adapters(simulator_vcenter: VCenter, session: Session, agent: str) -> None:
    """P8: a read that leaves everything out is suspect; nothing is planned from it."""
    simulator_vcenter.simulator.faults.inject("empty_reads", method="RetrievePropertiesEx")
    with pytest.raises(Unavailable):
        read_shape(session, agent)
