# SPDX-License-Identifier: Apache-2.0
"""A certificate authority and a server certificate for one simulator, made when it starts and gone with it.

vCenter asks clients for a certificate, takes any, and compares it with those of its extensions.

vCenter's arrangement: clients trust the CA file, or pin the SHA-256 thumbprint of the server certificate. The
private keys never leave the directory given, which only the owner may read.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_TLS13 = ssl.TLSVersion.TLSv1_3
VALID_DAYS = 30
"""Longer than any simulator runs, and short enough that a forgotten CA file is worth nothing."""


@dataclass(frozen=True)
class Certificates:
    """Paths of what was made, and the server certificate's SHA-256 thumbprint (hex, colons, upper case)."""

    ca_file: Path
    certificate_file: Path
    key_file: Path
    thumbprint: str


def make(directory: Path, host: str) -> Certificates:
    """Write ``ca.pem``, ``server.pem`` and ``server.key`` for ``host`` (and localhost) into ``directory``."""
    now = dt.datetime.now(dt.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Simulated vCenter CA")])
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    authority = (
        _builder(ca_name, ca_name, ca_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .add_extension(ca_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    server = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), ca_name, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    made = Certificates(
        directory / "ca.pem",
        directory / "server.pem",
        directory / "server.key",
        server.fingerprint(hashes.SHA256()).hex(":").upper(),
    )
    made.ca_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.certificate_file.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    made.key_file.touch(mode=0o600)
    made.key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))  # clocks of a client in a container may be off
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    try:
        own: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        own = x509.DNSName(host)
    return names if own in names else [*names, own]


def ask_clients(context: ssl.SSLContext) -> None:
    """Have a server ask for client certificates and take any that is in its time, whoever signed it.

    Python's ``ssl`` either verifies what it asks for or does not ask. So the certificate becomes an anchor of its own
    as it comes in, before OpenSSL looks at it; ``_msg_callback`` is ``ssl``'s debugging aid, and the one place that
    sees it in time (RFC 5246 7.4.2, RFC 8446 4.4.2).
    """

    def read(_connection: Any, direction: str, version: Any, _content: Any, kind: Any, data: bytes) -> None:
        if direction == "read" and getattr(kind, "name", "") == "CERTIFICATE":
            start = 4 + (1 + data[4] if version == _TLS13 else 0)
            length = int.from_bytes(data[start + 3 : start + 6], "big")
            if length:
                context.load_verify_locations(cadata=data[start + 6 : start + 6 + length])

    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context._msg_callback = read  # type: ignore[attr-defined]
