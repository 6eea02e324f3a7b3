# SPDX-License-Identifier: Apache-2.0
"""Property paths mean in the simulator what the API says they mean."""

from __future__ import annotations

import pytest
from pyVmomi import vim

from vcenter_eam_plugin.simulator.property_paths import declared_type, read, segments, touches
from vcenter_eam_plugin.simulator.world import ManagedObject, ManualClock, World


@pytest.mark.parametrize(
    ("kind", "path", "expected"),
    [
        (vim.HostSystem, "name", str),
        (vim.HostSystem, "runtime.powerState", vim.HostSystem.PowerState),
        (vim.HostSystem, "parent", vim.ManagedEntity),
        (vim.HostSystem, "parent.name", None),
        (vim.HostSystem, "nonsense", None),
        (vim.HostSystem, "runtime.nonsense", None),
        (vim.HostSystem, "runtime..powerState", None),
        (vim.HostSystem, "", None),
        (vim.ClusterComputeResource, "configurationEx.dasConfig.enabled", bool),
        (vim.VirtualMachine, "config.hardware.device[4000].backing.port", vim.dvs.PortConnection),
        (vim.VirtualMachine, "config.hardware.device.key", None),
        (vim.VirtualMachine, 'config.extraConfig["guestinfo.a"].value', object),
        (vim.VirtualMachine, "name[1]", None),
    ],
)
def test_declared_types(kind: type, path: str, expected: object) -> None:
    assert declared_type(kind, path) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("runtime", "runtime.powerState", True),
        ("runtime.powerState", "runtime", True),
        ("runtime", "runtime", True),
        ("config.hardware.device", "config.hardware.device[4000].backing", True),
        ("runtime", "runtimeInfo", False),
        ("runtime.powerState", "runtime.standbyMode", False),
    ],
)
def test_touching_paths(one: str, other: str, expected: bool) -> None:
    assert touches(one, other) is touches(other, one) is expected


def test_segments() -> None:
    assert segments('a.b["c.d"].e') == (("a", None), ("b", "c.d"), ("e", None))
    assert segments("a.") == segments(".a") == segments("a b") == ()


class _Vm(ManagedObject):
    vmodl = vim.VirtualMachine


def test_reading_elements_by_key_and_what_is_not_there() -> None:
    vm = _Vm(World(ManualClock()), "vm-1")
    vm.props["config"] = vim.vm.ConfigInfo(
        extraConfig=[vim.option.OptionValue(key="guestinfo.a", value="1")],
        hardware=vim.vm.VirtualHardware(device=[vim.vm.device.VirtualE1000(key=4000, unitNumber=7)]),
    )
    assert read(vm, 'config.extraConfig["guestinfo.a"].value') == "1"
    assert read(vm, "config.hardware.device[4000].unitNumber") == 7
    assert read(vm, "config.hardware.device[1].unitNumber") is None
    assert read(vm, "config.hardware.device[4000].capacityInKB") is None
    assert read(vm, "guest.ipAddress") is None
