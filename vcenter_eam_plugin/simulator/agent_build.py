# SPDX-License-Identifier: Apache-2.0
"""From what an agent VM was made, and how its OVF properties are checked and written.

EAM compares this with the configuration of now: another URL means another VM, other properties mean that the VM is
reconfigured. The *content* behind a URL is not compared (ESX Agent Manager API reference: a client gives a new URL
to have VMs upgraded).

Not promised: OVF properties reaching a guest, deployment options, qualifiers besides lengths and lists of values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from vcenter_eam_plugin.simulator.ovf_download import OvfPackage, OvfProperty
from vcenter_eam_plugin.simulator.virtual_machine import EAM

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine

Properties = tuple[tuple[str, str], ...]
"""Keys and values of an ``ovfEnvironment``, in its order."""

_BITS = re.compile(r"([us])int(8|16|32|64)")
_LENGTH = re.compile(r"(Min|Max)Len\((\d+)\)")
_VALUES = re.compile(r"ValueMap\{(.*)\}")
_QUOTED = re.compile(r'"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Build:
    """An agent VM's origin: the URL of its OVF, the properties that it was given, and the package itself."""

    url: str
    properties: Properties
    package: OvfPackage


def properties_of(config: Any) -> Properties:
    """The OVF properties that an agent configuration gives."""
    environment = config.ovfEnvironment
    return () if environment is None else tuple((item.key, item.value) for item in environment.ovfProperty)


def property_errors(package: OvfPackage, given: Properties) -> list[Any]:
    """What is wrong with the given properties, as vCenter's faults: one for each that is missing or has no valid value.

    Every user-configurable property must be given (ESX Agent Manager API reference); others that are given are
    ignored.
    """
    values = dict(given)
    errors: list[Any] = []
    for asked in package.properties:
        if asked.key not in values:
            error = vim.fault.OvfProperty(type=asked.type, value=asked.key)
            error.msg = f"The property {asked.key} is not given."
            errors.append(error)
        elif not _fits(asked, values[asked.key]):
            error = vim.fault.OvfPropertyValue(type=asked.type, value=asked.key)
            error.msg = f"The value of the property {asked.key} does not fit {asked.type} {asked.qualifiers}".rstrip()
            errors.append(error)
    return errors


def _fits(asked: OvfProperty, value: str) -> bool:
    if number := _BITS.fullmatch(asked.type):
        bits = int(number[2])
        low, high = (0, 2**bits) if number[1] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        return bool(re.fullmatch(r"[+-]?\d+", value)) and low <= int(value) < high
    if asked.type in ("real32", "real64"):
        return bool(re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", value))
    if asked.type == "boolean":
        return value.lower() in ("true", "false")
    for which, length in _LENGTH.findall(asked.qualifiers):
        if len(value) < int(length) if which == "Min" else len(value) > int(length):
            return False
    listed = _VALUES.search(asked.qualifiers)
    return listed is None or value in _QUOTED.findall(listed[1])


def write_environment(vm: VirtualMachine, build: Build, *, event: bool = True) -> None:
    """Put the properties into the VM's ``config.vAppConfig``, where a client of vCenter sees them."""
    if not build.properties and vm.prop_config().vAppConfig is None:
        return
    asked = {item.key: item for item in build.package.properties}
    config = vim.vApp.VmConfigInfo(
        property=vim.vApp.PropertyInfo.Array(
            vim.vApp.PropertyInfo(
                key=number,
                id=key,
                label=key,
                type=asked[key].type if key in asked else "string",
                userConfigurable=True,
                value=value,
            )
            for number, (key, value) in enumerate(build.properties)
        ),
        ipAssignment=vim.vApp.IPAssignmentInfo(),
        ovfEnvironmentTransport=["com.vmware.guestInfo"],
        installBootRequired=False,
        installBootStopDelay=0,
    )
    vm.prop_config().vAppConfig = config
    vm.touch("config")
    if event:
        vm.post(vim.event.VmReconfiguredEvent(template=False, configSpec=vim.vm.ConfigSpec()), EAM)
