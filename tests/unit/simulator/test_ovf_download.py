# SPDX-License-Identifier: Apache-2.0
"""S01: the simulated EAM really downloads, over HTTP and HTTPS, and says exactly what went wrong."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import trustme
from gevent.pywsgi import WSGIServer
from pyVmomi import eam

from vcenter_eam_plugin.simulator import sample_ovf
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.ovf_download import (
    OvfDownloader,
    OvfPackage,
    OvfProblem,
    OvfProperty,
    Reason,
    parse,
    version_matches,
)

ENVELOPE = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References><File ovf:href="disk.vmdk" ovf:id="f"/></References>
<DiskSection><Disk ovf:capacity="4" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="d"/></DiskSection>
<NetworkSection><Network ovf:name="management"/></NetworkSection>
<VirtualSystem ovf:id="vm"><Name>ContrailVM</Name>
<ProductSection ovf:class="net"><Property ovf:key="ip" ovf:type="string" ovf:userConfigurable="true"/>
<Property ovf:key="fixed" ovf:type="string"/></ProductSection>
<ProductSection><Property ovf:key="port" ovf:type="uint16" ovf:qualifiers="MinLen(1)" ovf:userConfigurable="1"/>
</ProductSection>
<VirtualHardwareSection><Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>4</rasd:VirtualQuantity>
</Item><Item><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>8192</rasd:VirtualQuantity></Item>
</VirtualHardwareSection></VirtualSystem></Envelope>
"""

Serve = Callable[..., str]


class Web:
    """A web server with ``files`` by path; ``hits`` counts requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/vm.ovf": ENVELOPE.encode(), "/disk.vmdk": b"x" * 5000}
        self.hits: list[str] = []
        self.delay = gevent.event.Event()
        self.delay.set()
        self._servers: list[WSGIServer] = []

    def start(self, **kwargs: Any) -> str:
        server = WSGIServer(("127.0.0.1", 0), self._answer, log=None, error_log=None, **kwargs)
        server.start()
        self._servers.append(server)
        return f"{'https' if kwargs else 'http'}://127.0.0.1:{server.server_port}"

    def stop(self) -> None:
        self.delay.set()
        for server in self._servers:
            server.stop(timeout=1)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        self.hits.append(path)
        self.delay.wait(10)
        if path not in self.files:
            start_response("404 Not Found", [])
            return [b""]
        start_response("200 OK", [])
        return [self.files[path]]


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.stop()


@pytest.fixture
def downloader() -> Iterator[OvfDownloader]:
    made = OvfDownloader(Knobs(ovf_timeout=5))
    yield made
    made.close()


def fetched(downloader: OvfDownloader, url: str, trust: Any = None) -> OvfPackage | OvfProblem:
    result: gevent.event.AsyncResult = gevent.event.AsyncResult()
    downloader.fetch(url, trust, result.set)
    return result.get(timeout=10)  # type: ignore[no-any-return]


def reason(downloader: OvfDownloader, url: str, trust: Any = None) -> Reason:
    problem = fetched(downloader, url, trust)
    assert isinstance(problem, OvfProblem)
    return problem.reason


def test_package_and_files_are_downloaded(web: Web, downloader: OvfDownloader) -> None:
    """The descriptor says what the VM needs; each file that it names is really read."""
    url = f"{web.start()}/vm.ovf"
    package = fetched(downloader, url)
    properties = (OvfProperty("net.ip"), OvfProperty("port", "uint16", "MinLen(1)"))
    assert package == OvfPackage(url, "ContrailVM", properties, ("management",), 4, 8192, 4 << 30)
    assert web.hits == ["/vm.ovf", "/disk.vmdk"]


def test_downloads_under_way_at_once_are_one(web: Web, downloader: OvfDownloader) -> None:
    """Many hosts at a time do not load the OVF server many times; a later deployment reads again."""
    url = f"{web.start()}/vm.ovf"
    web.delay.clear()
    results: list[Any] = []
    for _ in range(50):
        downloader.fetch(url, None, results.append)
    gevent.sleep(0)
    web.delay.set()
    with gevent.Timeout(10):
        while len(results) < 50:
            gevent.sleep(0.01)
    assert web.hits == ["/vm.ovf", "/disk.vmdk"]
    fetched(downloader, url)
    assert len(web.hits) == 4


def test_what_goes_wrong_is_told_apart(web: Web, downloader: OvfDownloader) -> None:
    """Each cause of ``InvalidUrl`` and ``CannotAccessAgentOVF`` by itself."""
    base = web.start()
    assert reason(downloader, "ftp://x/y") is Reason.MALFORMED_URL
    assert reason(downloader, "http://127.0.0.1:99999/x") is Reason.MALFORMED_URL
    assert reason(downloader, "http://no-such-host.invalid/x") is Reason.UNKNOWN_HOST
    assert reason(downloader, "http://127.0.0.1:1/x") is Reason.REFUSED
    problem = fetched(downloader, f"{base}/missing.ovf")
    assert isinstance(problem, OvfProblem)
    assert (problem.reason, problem.status) == (Reason.STATUS, 404)
    del web.files["/disk.vmdk"]
    problem = fetched(downloader, f"{base}/vm.ovf")
    assert isinstance(problem, OvfProblem)
    assert problem.url.endswith("/disk.vmdk")


def test_server_that_does_not_answer(web: Web) -> None:
    """A time-out, not a wait for ever."""
    url = f"{web.start()}/vm.ovf"
    web.delay.clear()
    downloader = OvfDownloader(Knobs(ovf_timeout=0.1))
    assert reason(downloader, url) is Reason.REFUSED
    downloader.close()


def test_check_reads_the_descriptor_only(web: Web, downloader: OvfDownloader) -> None:
    """CreateAgency tries the URL and nothing else."""
    downloader.check(f"{web.start()}/vm.ovf", None)
    assert web.hits == ["/vm.ovf"]
    with pytest.raises(OvfProblem):
        downloader.check("http://127.0.0.1:1/x", None)


@pytest.mark.parametrize(
    "body", [b"", b"<a", b"<a/>", b'<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"/>', b"\xff\xfe\x00"]
)
def test_not_a_descriptor(body: bytes) -> None:
    """OvfInvalidFormat, whatever it is instead."""
    with pytest.raises(OvfProblem) as caught:
        parse("http://x/y.ovf", body)
    assert caught.value.reason is Reason.FORMAT


def test_sample_package_is_a_package(tmp_path: Path) -> None:
    """The demo's package passes the simulated EAM's own check."""
    sample_ovf.write_sample(tmp_path)
    package, files = parse("http://x/y.ovf", (tmp_path / sample_ovf.DESCRIPTOR_NAME).read_bytes())
    assert files == [sample_ovf.DISK_NAME]
    assert package.name == "ContrailVM"


def test_tls_trust(web: Web, tmp_path: Path) -> None:
    """Unset: the trusted roots; pinned: exactly that certificate; any: any."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    url = f"{web.start(ssl_context=context)}/vm.ovf"
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(roots)
    plain = OvfDownloader(Knobs())
    trusting = OvfDownloader(Knobs(ovf_trusted_roots=str(roots)))
    assert reason(plain, url) is Reason.CERTIFICATE
    assert isinstance(fetched(trusting, url), OvfPackage)
    assert isinstance(fetched(plain, url, eam.Agent.AnyCertificate()), OvfPackage)
    pinned = eam.Agent.PinnedPemCertificate(sslCertificate=issued.cert_chain_pems[0].bytes().decode())
    assert isinstance(fetched(plain, url, pinned), OvfPackage)
    other = trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].bytes().decode()
    for wrong in (other, "no certificate"):
        pin = eam.Agent.PinnedPemCertificate(sslCertificate=wrong)
        assert reason(plain, url, pin) is Reason.CERTIFICATE
    for downloader in (plain, trusting):
        downloader.close()


def test_close_ends_what_is_under_way(web: Web) -> None:
    """Nobody is called any more, and no greenlet stays."""
    url = f"{web.start()}/vm.ovf"
    web.delay.clear()
    downloader = OvfDownloader(Knobs())
    results: list[Any] = []
    downloader.fetch(url, None, results.append)
    with gevent.Timeout(10):
        while not web.hits:
            gevent.sleep(0.01)
    downloader.close()
    assert results == []
    assert downloader.under_way == 0


@pytest.mark.parametrize(
    ("pattern", "matches"), [(None, True), ("", True), ("8.*", True), ("8.0.3", True), ("7.*", False), ("8.0", False)]
)
def test_host_version(pattern: str | None, matches: bool) -> None:
    """``*`` stands for anything; unset means any."""
    assert version_matches(pattern, "8.0.3") is matches
