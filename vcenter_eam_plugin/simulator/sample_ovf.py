# SPDX-License-Identifier: Apache-2.0
"""A small OVF package to deploy in the simulator: a descriptor and a disk that holds nothing.

It stands for the ContrailVM where there is none at hand: in the demo, in tests, in a first try. Its format is
DSP0243 1.1, as VMware's tools write it; no real vCenter would boot it.
"""

from __future__ import annotations

from pathlib import Path

DESCRIPTOR_NAME = "ContrailVM.ovf"
DISK_NAME = "ContrailVM-disk1.vmdk"
DISK_BYTES = 64 * 1024

_DESCRIPTOR = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
    xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
    <File ovf:href="{disk}" ovf:id="file1" ovf:size="{size}"/>
  </References>
  <DiskSection>
    <Info>Virtual disks</Info>
    <Disk ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk1" ovf:fileRef="file1"
        ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>Logical networks</Info>
    <Network ovf:name="management"/>
  </NetworkSection>
  <VirtualSystem ovf:id="ContrailVM">
    <Info>A virtual machine</Info>
    <Name>ContrailVM</Name>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <Item>
        <rasd:ElementName>4 virtual CPUs</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>4</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>4096 MB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>4096</rasd:VirtualQuantity>
      </Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""


def write_sample(directory: Path) -> Path:
    """Write the package into ``directory`` (made if need be); returns the path of its descriptor."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / DISK_NAME).write_bytes(bytes(DISK_BYTES))
    descriptor = directory / DESCRIPTOR_NAME
    descriptor.write_text(_DESCRIPTOR.format(disk=DISK_NAME, size=DISK_BYTES), "utf-8")
    return descriptor
