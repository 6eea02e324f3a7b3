# SPDX-License-Identifier: Apache-2.0
"""How the simulated EAM gets an OVF package: really, over HTTP or HTTPS.

The descriptor and every file it names are downloaded; of the files only the length is kept. Trust is EAM's: a
pinned PEM certificate, any certificate, or (unset) the system's roots and those the knob adds. Blocking calls here
are gevent's: run it in a patched process.

Not promised: redirects, proxies, OVA archives, signatures and manifests.
"""

from __future__ import annotations

import fnmatch
import http.client
import socket
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import gevent
from pyVmomi import eam

from vcenter_eam_plugin.simulator.knobs import Knobs

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
DESCRIPTOR_LIMIT = 4 << 20
"""No OVF descriptor is larger; what is, is no descriptor."""
CHUNK = 1 << 20
CPU, MEMORY = "3", "4"
"""CIM resource types in an OVF's hardware section."""
UNITS = {"byte": 1, "byte * 2^10": 1 << 10, "byte * 2^20": 1 << 20, "byte * 2^30": 1 << 30, "byte * 2^40": 1 << 40}


class Reason(Enum):
    """Why a package could not be had."""

    MALFORMED_URL = "malformed URL"
    UNKNOWN_HOST = "unknown host"
    REFUSED = "connection refused"
    STATUS = "HTTP status"
    CERTIFICATE = "certificate not trusted"
    FORMAT = "not a valid OVF descriptor"


class OvfProblem(Exception):
    """A package could not be had. ``status`` is the HTTP status, ``line`` where the descriptor is wrong."""

    def __init__(self, reason: Reason, url: str, detail: str = "", *, status: int | None = None, line: int = 0) -> None:
        super().__init__(f"{url}: {reason.value}{': ' + detail if detail else ''}")
        self.reason = reason
        self.url = url
        self.detail = detail
        self.status = status
        self.line = line


@dataclass(frozen=True, slots=True)
class OvfProperty:
    """A user-configurable property: its key (with class and instance), ``ovf:type`` and ``ovf:qualifiers``."""

    key: str
    type: str = "string"
    qualifiers: str = ""


@dataclass(frozen=True, slots=True)
class OvfPackage:
    """What EAM needs to know of a package. ``properties`` are its user-configurable ones: each must be given."""

    url: str
    name: str
    properties: tuple[OvfProperty, ...] = ()
    networks: tuple[str, ...] = ()
    cpus: int = 2
    memory_mb: int = 2048
    disk_bytes: int = 0


class OvfSource(Protocol):
    """Where EAM gets packages from; handed to it, so that its states can be tested without a network."""

    def check(self, url: str, trust: Any) -> None:
        """See that the descriptor can be downloaded; raises :class:`OvfProblem`."""

    def fetch(self, url: str, trust: Any, done: Callable[[OvfPackage | OvfProblem], None]) -> None:
        """Download the package and call ``done`` once, later or at once."""

    def close(self) -> None:
        """Stop what is under way; ``done`` is not called any more."""


class OvfDownloader:
    """The real thing. Downloads of the same URL that are under way at the same time are one."""

    def __init__(self, knobs: Knobs) -> None:
        self._knobs = knobs
        self._waiting: dict[tuple[str, str], list[Callable[[OvfPackage | OvfProblem], None]]] = {}
        self._greenlets: set[Any] = set()
        self.downloads = 0
        """Packages downloaded, whole."""

    @property
    def under_way(self) -> int:
        """Downloads that have not ended."""
        return len(self._greenlets)

    def check(self, url: str, trust: Any) -> None:
        self._get(url, trust, DESCRIPTOR_LIMIT)

    def fetch(self, url: str, trust: Any, done: Callable[[OvfPackage | OvfProblem], None]) -> None:
        key = (url, repr(trust))
        if key in self._waiting:
            self._waiting[key].append(done)
            return
        self._waiting[key] = [done]
        greenlet = gevent.spawn(self._fetch, key, url, trust)
        self._greenlets.add(greenlet)
        greenlet.link(self._greenlets.discard)

    def close(self) -> None:
        self._waiting.clear()
        gevent.killall(list(self._greenlets))
        self._greenlets.clear()

    def _fetch(self, key: tuple[str, str], url: str, trust: Any) -> None:
        result: OvfPackage | OvfProblem
        try:
            result = self._download(url, trust)
        except OvfProblem as problem:
            result = problem
        for done in self._waiting.pop(key, ()):
            done(result)

    def _download(self, url: str, trust: Any) -> OvfPackage:
        descriptor = self._get(url, trust, DESCRIPTOR_LIMIT)
        package, files = parse(url, descriptor)
        size = sum(len_of for len_of in (self._length(urljoin(url, name), trust) for name in files))
        self.downloads += 1
        return replace(package, disk_bytes=max(size, package.disk_bytes))

    def _get(self, url: str, trust: Any, limit: int) -> bytes:
        with self._open(url, trust) as response:
            try:
                body: bytes = response.read(limit + 1)
            except (OSError, http.client.HTTPException) as exc:
                raise OvfProblem(Reason.REFUSED, url, str(exc)) from exc
        if len(body) > limit:
            raise OvfProblem(Reason.FORMAT, url, f"longer than {limit} bytes")
        return body

    def _length(self, url: str, trust: Any) -> int:
        total = 0
        with self._open(url, trust) as response:
            try:
                while chunk := response.read(CHUNK):
                    total += len(chunk)
            except (OSError, http.client.HTTPException) as exc:
                raise OvfProblem(Reason.REFUSED, url, str(exc)) from exc
        return total

    def _open(self, url: str, trust: Any) -> _Response:
        scheme, host, port, path = _split(url)
        connection: http.client.HTTPConnection
        timeout = self._knobs.ovf_timeout
        if scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._context(url, trust))
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            response = self._request(connection, url, path, trust)
        except BaseException:  # a killed greenlet too must not leave its socket behind
            connection.close()
            raise
        if response.status != http.client.OK:
            connection.close()
            raise OvfProblem(Reason.STATUS, url, str(response.status), status=response.status)
        return _Response(connection, response)

    def _request(
        self, connection: http.client.HTTPConnection, url: str, path: str, trust: Any
    ) -> http.client.HTTPResponse:
        try:
            connection.connect()
            if isinstance(trust, eam.Agent.PinnedPemCertificate) and isinstance(connection.sock, ssl.SSLSocket):
                _require_pinned(url, connection.sock, trust)
            connection.request("GET", path, headers={"User-Agent": "VMware EAM (simulated)"})
            return connection.getresponse()
        except ssl.SSLCertVerificationError as exc:
            raise OvfProblem(Reason.CERTIFICATE, url, exc.verify_message) from exc
        except socket.gaierror as exc:
            raise OvfProblem(Reason.UNKNOWN_HOST, url, connection.host) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise OvfProblem(Reason.REFUSED, url, str(exc)) from exc

    def _context(self, url: str, trust: Any) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if trust is None:
            if self._knobs.ovf_trusted_roots is not None:
                try:
                    context.load_verify_locations(cafile=self._knobs.ovf_trusted_roots)
                except OSError as exc:
                    raise OvfProblem(Reason.CERTIFICATE, url, f"knob ovf_trusted_roots: {exc}") from exc
        else:
            # Pinned or any: EAM trusts by comparing, or not at all, and not by the chain.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class _Response:
    """A response that closes its connection."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self.read = response.read

    def __enter__(self) -> _Response:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()


def _split(url: str) -> tuple[str, str, int | None, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise OvfProblem(Reason.MALFORMED_URL, url, str(exc)) from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OvfProblem(Reason.MALFORMED_URL, url, "neither http nor https, or no host")
    path = parts.path or "/"
    return parts.scheme, parts.hostname, port, f"{path}?{parts.query}" if parts.query else path


def _require_pinned(url: str, sock: ssl.SSLSocket, trust: Any) -> None:
    try:
        wanted = ssl.PEM_cert_to_DER_cert(trust.sslCertificate.strip())
    except ValueError as exc:
        raise OvfProblem(Reason.CERTIFICATE, url, "the pinned certificate is no PEM certificate") from exc
    if sock.getpeercert(binary_form=True) != wanted:
        raise OvfProblem(Reason.CERTIFICATE, url, "the server's certificate is not the pinned one")


def parse(url: str, descriptor: bytes) -> tuple[OvfPackage, list[str]]:
    """Read a descriptor: the package, and the names of its files. Raises :class:`OvfProblem` (FORMAT)."""
    try:
        # expat fetches nothing from outside and bounds entity expansion.
        root = ET.fromstring(descriptor)  # noqa: S314
    except ET.ParseError as exc:
        raise OvfProblem(Reason.FORMAT, url, exc.msg, line=exc.position[0]) from exc
    if root.tag != f"{OVF}Envelope":
        raise OvfProblem(Reason.FORMAT, url, f"the root element is {root.tag}, not an OVF Envelope", line=1)
    system = root.find(f"{OVF}VirtualSystem")
    if system is None:
        raise OvfProblem(Reason.FORMAT, url, "there is no VirtualSystem", line=1)
    files = [str(item.get(f"{OVF}href")) for item in root.findall(f"{OVF}References/{OVF}File")]
    properties = tuple(
        OvfProperty(
            ".".join(filter(None, (section.get(f"{OVF}class"), prop.get(f"{OVF}key"), section.get(f"{OVF}instance")))),
            prop.get(f"{OVF}type", "string"),
            prop.get(f"{OVF}qualifiers", ""),
        )
        for section in system.findall(f"{OVF}ProductSection")
        for prop in section.findall(f"{OVF}Property")
        if prop.get(f"{OVF}userConfigurable", "false") in ("true", "1")
    )
    hardware = {CPU: 2, MEMORY: 2048}
    for item in system.findall(f"{OVF}VirtualHardwareSection/{OVF}Item"):
        kind, quantity = item.findtext(f"{RASD}ResourceType"), item.findtext(f"{RASD}VirtualQuantity")
        if kind in hardware and quantity is not None and quantity.isdigit():
            hardware[kind] = int(quantity)
    networks = [str(item.get(f"{OVF}name")) for item in root.findall(f"{OVF}NetworkSection/{OVF}Network")]
    disks = sum(
        int(item.get(f"{OVF}capacity", "0")) * UNITS.get(item.get(f"{OVF}capacityAllocationUnits", "byte"), 1)
        for item in root.findall(f"{OVF}DiskSection/{OVF}Disk")
        if item.get(f"{OVF}capacity", "0").isdigit()
    )
    package = OvfPackage(
        url=url,
        name=system.findtext(f"{OVF}Name") or str(system.get(f"{OVF}id")),
        properties=properties,
        networks=tuple(networks),
        cpus=hardware[CPU],
        memory_mb=hardware[MEMORY],
        disk_bytes=disks,
    )
    return package, files


def version_matches(pattern: str | None, version: str) -> bool:
    """``hostVersion`` of an agent configuration: unset means any, ``*`` stands for anything (``8.*``)."""
    return pattern is None or pattern == "" or fnmatch.fnmatchcase(version, pattern)
