# SPDX-License-Identifier: Apache-2.0
"""The simulated ``vim.ExtensionManager``: a list of registered extensions.

A second registration of a key is an ``InvalidArgument``, as in vCenter. An extension may have a certificate, with which
it logs in, and from 8.0 update 2 on a service account, whose sessions are then the extension's. Who unregisters an
extension makes EAM destroy its agencies. Not promised: health, lists of events and faults, subject names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import ManagedObject as Reference

from vcenter_eam_plugin.simulator.authorization import Users
from vcenter_eam_plugin.simulator.property_paths import read
from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.session_manager import WireCall

EAM_EXTENSION = "com.vmware.vim.eam"
SERVICE_ACCOUNTS_SINCE = (8, 0, 2, 0)
"""API level of ``SetServiceAccount`` (vSphere API reference)."""


class ExtensionManager(ManagedObject):
    """Extensions by key; EAM's own is there from the start."""

    vmodl: ClassVar[type] = vim.ExtensionManager

    def __init__(self, world: World, users: Users) -> None:
        super().__init__(world, "ExtensionManager")
        self._users = users
        self._certificates: dict[str, bytes] = {}
        self._accounts: dict[str, str] = {}
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

    def find_by_key(self, key: str) -> Any:
        """The extension of that key, or ``None``."""
        return self._extensions.get(key)

    def of_account(self, name: str) -> str | None:
        """The key of the extension whose service account this is."""
        return next((key for key, account in self._accounts.items() if account.lower() == name.lower()), None)

    def is_certificate_of(self, key: str, certificate: bytes) -> bool:
        """Whether the certificate (DER) was set for the extension."""
        return key in self._extensions and self._certificates.get(key) == certificate

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
        self._certificates.pop(extensionKey, None)
        self._accounts.pop(extensionKey, None)
        self.touch("extensionList")

    @soap("SetExtensionCertificate", privilege="Extension.Update")
    def set_certificate(self, call: WireCall, extensionKey: str, certificatePem: str | None = None) -> None:  # noqa: N803
        """Set the certificate; without one, that of the connection (``NoClientCertificate`` if there is none)."""
        self._require(extensionKey)
        if certificatePem is None:
            if call.certificate is None:
                raise vim.fault.NoClientCertificate(msg="The client did not present a certificate.")
            certificate = call.certificate
        else:
            try:
                found = x509.load_pem_x509_certificate(certificatePem.encode())
            except ValueError:
                raise vmodl.fault.InvalidArgument(
                    invalidProperty="certificatePem", msg="That is no certificate in PEM."
                ) from None
            certificate = found.public_bytes(serialization.Encoding.DER)
        self.world.journal.call(call.user, "SetExtensionCertificate", self.moid, key=extensionKey)
        self._certificates[extensionKey] = certificate

    @soap("SetServiceAccount", privilege="Extension.Update")
    def set_service_account(self, call: Call, extensionKey: str, serviceAccount: str) -> None:  # noqa: N803
        """Bind an account: who logs in with it is the extension. vCenter has this since 8.0 update 2."""
        level = tuple(int(part) for part in self.world.knobs.api_version.split("."))
        if level < SERVICE_ACCOUNTS_SINCE:
            raise vmodl.fault.MethodNotFound(receiver=self.ref, method="SetServiceAccount")
        self._require(extensionKey)
        if self._users.find(serviceAccount) is None:
            raise vmodl.fault.InvalidArgument(
                invalidProperty="serviceAccount", msg=f"There is no account {serviceAccount}."
            )
        self.world.journal.call(call.user, "SetServiceAccount", self.moid, key=extensionKey)
        self._accounts[extensionKey] = serviceAccount

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
