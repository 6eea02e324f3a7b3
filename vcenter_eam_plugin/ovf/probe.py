# SPDX-License-Identifier: Apache-2.0
"""Is an external OVF server one that EAM can deploy from? Asked from here, which is not where vCenter stands.

Reachable, trusted, an OVF envelope, and its files there: each as one sentence with what to do. Redirects are not
followed, since it is not documented that EAM follows them.

Not promised: that vCenter sees the same; a firewall or resolver between may make it better or worse.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import gevent

from vcenter_eam_plugin.domain.errors import OvfError
from vcenter_eam_plugin.ovf.certificate import PinnedCertificate, describe
from vcenter_eam_plugin.ovf.descriptor import MOST_DESCRIPTOR_BYTES, Descriptor, parse_descriptor

_SECONDS = 10.0
"""For each step on the network; a server that takes longer would fail EAM, too."""
_WHOLE_SECONDS = 30.0
"""For all of it, so that a server that answers drop by drop does not hold the probe."""
_MOST_FILES = 32
"""Of the referenced files that are asked for; a package has one to three."""
_NOT_THERE = (403, 404, 410)
"""Answers to HEAD that leave no doubt. Others may only mean that the server has no HEAD."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What makes the server's certificate right: exactly ``pinned``; else the system's authorities and ``ca_file``."""

    pinned: PinnedCertificate | None = None
    ca_file: Path | None = None


def probe(url: str, trust: Trust) -> Descriptor:
    """Fetch the descriptor and ask for its files. Raises OvfError that says what is wrong, and what to do."""
    try:
        with gevent.Timeout(_WHOLE_SECONDS, TimeoutError("it does not answer in time")):
            return _probe(url, trust)
    except ssl.SSLCertVerificationError as exc:
        raise OvfError(
            f"The certificate of the OVF server of {url} is not trusted here: {exc.verify_message}.",
            remedy="vCenter from 8.0 U2 on refuses it, too, unless its own trusted roots have the authority: set "
            "ovf_certificate to the server's certificate, so that EAM is told to trust exactly it.",
        ) from exc
    except socket.gaierror as exc:
        raise OvfError(
            f"The OVF server of {url} is not known: {exc.strerror}.", remedy="Check the name in ovf_url, and the DNS."
        ) from exc
    except (OSError, http.client.HTTPException) as exc:
        why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
        raise OvfError(
            f"The OVF package cannot be fetched from {url}: {why}.",
            remedy="Start that server, or open the way to it: vCenter needs it at every deployment.",
        ) from exc


def _probe(url: str, trust: Trust) -> Descriptor:
    with _connected(url, trust) as connection:
        connection.request("GET", _path(url), headers={"Accept-Encoding": "identity", "Connection": "close"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise OvfError(
                f"The OVF server answers {response.status} {response.reason} to {url}.",
                remedy="Let it serve the OVF descriptor under that address, without redirects or a login.",
            )
        text = response.read(MOST_DESCRIPTOR_BYTES + 1)
    about = parse_descriptor(text, url)
    for reference in about.references[:_MOST_FILES]:
        where = urljoin(url, quote(reference.name, safe="%"))
        with _connected(where, trust) as connection:
            connection.request("HEAD", _path(where), headers={"Connection": "close"})
            status = connection.getresponse().status
        if status in _NOT_THERE:
            raise OvfError(
                f"The OVF descriptor {url} references {reference.name!r}, and the server answers {status} to it.",
                remedy="Put all files of the package beside the descriptor.",
            )
    return about


@contextlib.contextmanager
def _connected(url: str, trust: Trust) -> Iterator[http.client.HTTPConnection]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, parts.port, timeout=_SECONDS, context=_context(trust))
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=_SECONDS)
    with contextlib.closing(connection):
        connection.connect()
        if trust.pinned is not None and isinstance(connection.sock, ssl.SSLSocket):
            _check_pinned(url, connection.sock, trust.pinned)
        yield connection


def _context(trust: Trust) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust.pinned is not None:  # trusted by comparing, as EAM does, and not by the chain
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust.ca_file is not None:
        context.load_verify_locations(cafile=trust.ca_file)
    return context


def _check_pinned(url: str, sock: ssl.SSLSocket, pinned: PinnedCertificate) -> None:
    der = sock.getpeercert(binary_form=True) or b""
    if der != pinned.der:
        shown = describe(der)
        raise OvfError(
            f"The OVF server of {url} shows another certificate than the pinned one: {shown.subject}, SHA-256 "
            f"{shown.thumbprint}, instead of {pinned.thumbprint}.",
            remedy="If it was renewed, put the new one where ovf_certificate points, and have the agency trust it; "
            "until then vCenter from 8.0 U2 on cannot redeploy.",
        )


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
