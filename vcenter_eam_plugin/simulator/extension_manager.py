# SPDX-License-Identifier: Apache-2.0
"""The simulated ``vim.ExtensionManager``: a list of registered extensions.

A second registration of a key is an ``InvalidArgument``, as in vCenter. Not promised: login of an extension, client
certificates, and what EAM does to the agencies of an extension that is unregistered.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import ManagedObject as Reference

from vcenter_eam_plugin.simulator.property_paths import read
from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

EAM_EXTENSION = "com.vmware.vim.eam"


class ExtensionManager(ManagedObject):
    """Extensions by key; EAM's own is there from the start."""

    vmodl: ClassVar[type] = vim.ExtensionManager

    def __init__(self, world: World) -> None:
        super().__init__(world, "ExtensionManager")
        self._extensions: dict[str, Any] = {}
        self._extensions[EAM_EXTENSION] = vim.Extension(
            key=EAM_EXTENSION,
            version="9.0.0",
            description=vim.Description(label="vSphere ESX Agent Manager", summary="vSphere ESX Agent Manager"),
            lastHeartbeatTime=world.clock.now(),
        )

    def prop_extensionList(self) -> Any:  # noqa: N802 - computed property of the API
        """All of them."""
        return vim.Extension.Array(self._extensions.values())

    @soap("FindExtension", privilege="System.View")
    def find(self, call: Call, extensionKey: str) -> Any:  # noqa: N803 - the API's name
        """The extension of that key, or nothing."""
        return self._extensions.get(extensionKey)

    @soap("RegisterExtension", privilege="Extension.Register")
    def register(self, call: Call, extension: Any) -> None:
        """Add one."""
        if extension.key in self._extensions:
            raise vmodl.fault.InvalidArgument(
                invalidProperty="extension.key", msg=f"The extension {extension.key} is registered already."
            )
        self.world.journal.call(call.user, "RegisterExtension", self.moid, key=extension.key)
        self._extensions[extension.key] = extension
        self.touch("extensionList")

    @soap("UpdateExtension", privilege="Extension.Update")
    def update(self, call: Call, extension: Any) -> None:
        """Replace one."""
        self._require(extension.key)
        self.world.journal.call(call.user, "UpdateExtension", self.moid, key=extension.key)
        self._extensions[extension.key] = extension
        self.touch("extensionList")

    @soap("UnregisterExtension", privilege="Extension.Unregister")
    def unregister(self, call: Call, extensionKey: str) -> None:  # noqa: N803 - the API's name
        """Remove one."""
        self._require(extensionKey)
        self.world.journal.call(call.user, "UnregisterExtension", self.moid, key=extensionKey)
        del self._extensions[extensionKey]
        self.touch("extensionList")

    @soap("QueryManagedBy", privilege="System.View")
    def query_managed_by(self, call: Call, extensionKey: str) -> Any:  # noqa: N803 - the API's name
        """Entities that an extension manages."""
        self._require(extensionKey)
        return Reference.Array(
            obj.ref
            for obj in self.world.objects.values()
            if issubclass(obj.vmodl, vim.VirtualMachine) and read(obj, "config.managedBy.extensionKey") == extensionKey
        )

    def _require(self, key: str) -> None:
        if key not in self._extensions:
            raise vim.fault.NotFound(msg=f"There is no extension {key}.")
