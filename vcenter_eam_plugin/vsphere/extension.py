# SPDX-License-Identifier: Apache-2.0
"""The vCenter extension that the service may log in as: found, registered or brought up to date, and bound to a login.

There is no way here to unregister one, and there must not be: EAM destroys the agencies of an extension that is
unregistered, with every agent VM (ESX Agent Manager API reference, ``OrphanedAgency``).

Not promised: a heartbeat or a health page. ``lastHeartbeatTime``, which vCenter demands, is that of the registration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from pyVmomi import vim, vmodl

from vcenter_eam_plugin.domain.errors import ConfigurationError, ProtocolError, WrongState
from vcenter_eam_plugin.vsphere.session import Session

LABEL = "Contrail vCenter EAM plugin"
"""How the extension is called in vCenter, and how one of ours is told from another product's."""
SUMMARY = "Owns the agency of the ContrailVMs. Unregistering it deletes every ContrailVM."
COMPANY = "OpenContrail"
SERVICE_ACCOUNTS_SINCE = (8, 0, 2, 0)
"""First vCenter API level with ``SetServiceAccount`` (vSphere API reference)."""


@dataclass(frozen=True, slots=True)
class Registered:
    """An extension as vCenter has it."""

    key: str
    label: str
    company: str
    version: str
    last_heartbeat: datetime | None

    @property
    def ours(self) -> bool:
        """Whether it is one that this program registered."""
        return self.label == LABEL


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate. ``pem`` is the certificate alone, never the key that may stand in the same file."""

    pem: str
    subject: str
    thumbprint: str
    expires: datetime


def read_certificate(path: Path) -> Certificate:
    """The first certificate of a PEM file. Raises ConfigurationError when there is none, or not one valid now."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "there is no PEM certificate in it"
        raise ConfigurationError(f"The client certificate {path} cannot be read: {reason}.") from exc
    if not found.not_valid_before_utc <= datetime.now(UTC) < found.not_valid_after_utc:
        raise ConfigurationError(
            f"The client certificate {path} is valid from {found.not_valid_before_utc} to {found.not_valid_after_utc}, "
            f"and not now.",
            remedy="Make another.",
        )
    return Certificate(
        pem=found.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        subject=found.subject.rfc4514_string() or "empty",
        thumbprint=found.fingerprint(hashes.SHA256()).hex(":").upper(),
        expires=found.not_valid_after_utc,
    )


def find(session: Session, key: str) -> Registered | None:
    """The extension of that key, or ``None``."""
    found = session.call(_manager(session).FindExtension, key)
    if found is None:
        return None
    return Registered(
        key=found.key,
        label=(found.description.label if found.description is not None else "") or "",
        company=found.company or "",
        version=found.version or "",
        last_heartbeat=found.lastHeartbeatTime,
    )


def register(session: Session, key: str, version: str) -> None:
    """Register the extension, or bring ours up to date; what else is set of it stays.

    Raises WrongState when the key is another product's, PrivilegeMissing without Extension.Register or .Update.
    """
    manager = _manager(session)
    now = datetime.now(UTC)
    found: Any = session.call(manager.FindExtension, key)
    if found is None:
        extension = vim.Extension(
            key=key,
            company=COMPANY,
            version=version,
            description=vim.Description(label=LABEL, summary=SUMMARY),
            lastHeartbeatTime=now,
        )
        session.call(manager.RegisterExtension, extension, idempotent=False)
        return
    if found.description is None or found.description.label != LABEL:
        raise WrongState(f"{session.name}: the extension {key} is another product's.", remedy="Choose another key.")
    found.version, found.lastHeartbeatTime = version, now
    found.description.summary = SUMMARY
    session.call(manager.UpdateExtension, found, idempotent=False)


def set_certificate(session: Session, key: str, certificate: Certificate) -> None:
    """Have vCenter take this certificate, and no other, for the extension's."""
    session.call(_manager(session).SetExtensionCertificate, key, certificate.pem, idempotent=False)


def has_service_accounts(session: Session) -> bool:
    """Whether this vCenter can bind an account to an extension."""
    level = tuple(int(part) for part in re.findall(r"\d+", session.about.apiVersion))
    return level >= SERVICE_ACCOUNTS_SINCE


def set_service_account(session: Session, key: str, account: str) -> None:
    """Have vCenter take whoever logs in with this account for the extension. Raises ConfigurationError if it cannot."""
    try:
        session.call(_manager(session).SetServiceAccount, key, account, idempotent=False)
    except ProtocolError as exc:
        if not isinstance(exc.__cause__, vmodl.fault.InvalidArgument):
            raise
        raise ConfigurationError(
            f"{session.name}: vCenter does not take {account!r} as a service account.",
            remedy="It must exist, and be named with its SSO domain, such as contrail@vsphere.local.",
        ) from exc.__cause__


def _manager(session: Session) -> Any:
    session.open()
    return session.content.extensionManager
