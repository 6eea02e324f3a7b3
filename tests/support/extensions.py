# SPDX-License-Identifier: Apache-2.0
"""A vCenter extension with a client certificate, made as an administrator would make it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from pyVmomi import vim

from tests.support.simulator import connected
from vcenter_eam_plugin.simulator.server import Simulator

KEY = "net.example.contrail-eam"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """PEM files: the certificate, its key, and both in one."""

    cert: Path
    key: Path
    both: Path


def client_certificate(directory: Path, name: str = "extension") -> ClientCertificate:
    """One that some authority signed which vCenter never heard of."""
    issued = trustme.CA().issue_cert(f"{name}.example")
    made = ClientCertificate(directory / f"{name}.crt", directory / f"{name}.key", directory / f"{name}.pem")
    issued.cert_chain_pems[0].write_to_path(str(made.cert))
    issued.private_key_pem.write_to_path(str(made.key))
    issued.private_key_and_cert_chain_pem.write_to_path(str(made.both))
    return made


def register_extension(simulator: Simulator, certificate: ClientCertificate, key: str = KEY) -> None:
    """By plain pyVmomi, over the wire."""
    with connected(simulator) as instance:
        manager = instance.content.extensionManager
        manager.RegisterExtension(an_extension(key))
        manager.SetExtensionCertificate(key, certificate.cert.read_text("utf-8"))


def an_extension(key: str = KEY, label: str = "Contrail vCenter EAM plugin", **more: Any) -> Any:
    """As small as vCenter takes one."""
    return vim.Extension(
        key=key,
        version="0.1",
        description=vim.Description(label=label, summary=""),
        lastHeartbeatTime=dt.datetime.now(dt.UTC),
        **more,
    )
