# SPDX-License-Identifier: Apache-2.0
"""The certificate of the OVF server, and what EAM is told to trust.

vCenter 8.0 U2 and later trust the server of an OVF package only by a certificate that is pinned in the agency or
signed by an authority in vCenter's trusted roots (ESX Agent Manager API 8.2). Not promised: that vCenter's own check
of names and validity agrees with ours.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from vcenter_eam_plugin.domain.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class PinnedCertificate:
    """One certificate, in PEM without what else the file held; ``expires`` is POSIX seconds."""

    pem: str
    der: bytes
    thumbprint: str
    subject: str
    expires: float


def read_certificate(path: Path) -> PinnedCertificate:
    """The first certificate of a PEM file: the server's own, before its intermediates. Raises ConfigurationError."""
    # Here and below alone: 8 MiB that a server without TLS never needs.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as exc:
        raise ConfigurationError(f"The certificate {path} cannot be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise ConfigurationError(f"{path} holds no certificate in PEM.", remedy="Name a PEM file.") from exc
    return describe(found[0].public_bytes(serialization.Encoding.DER))


def describe(der: bytes) -> PinnedCertificate:
    """What is known of a certificate. Raises ValueError when it is none."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415

    certificate = x509.load_der_x509_certificate(der)
    return PinnedCertificate(
        pem=certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        der=der,
        thumbprint=":".join(f"{byte:02X}" for byte in certificate.fingerprint(hashes.SHA256())),
        subject=certificate.subject.rfc4514_string() or "none",
        expires=certificate.not_valid_after_utc.timestamp(),
    )


def server_context(certificate: Path, key: Path, *, who: str, options: str) -> ssl.SSLContext:
    """TLS as a server, from version 1.2 on. Raises ConfigurationError when the two files are no pair.

    ``who`` cannot use them, and ``options`` say which they are.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An empty password: OpenSSL must not ask at the terminal for that of an encrypted key.
        context.load_cert_chain(certificate, key, password="")
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigurationError(
            f"{who} cannot use the certificate {certificate} with the key {key}: "
            f"{getattr(exc, 'reason', None) or exc.strerror}.",
            remedy=f"Give a PEM certificate and its own PEM key without a password ({options}).",
        ) from exc
    return context
