# SPDX-License-Identifier: Apache-2.0
"""S01: the ContrailVM's OVF package is served for as long as the agency lives, and nothing else is."""

import http.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from gevent.pywsgi import WSGIServer

from tests.support.bench import Bench
from tests.support.rabbit import free_port
from vcenter_eam_plugin.simulator.sample_ovf import DISK_BYTES, DISK_NAME, write_sample


def agency_url(bench: Bench) -> str:
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    return str(agency.settings.agentConfig[0].ovfPackageUrl)


def request(url: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask the server of ``url`` for exactly this path: no client may tidy it up."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=5)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture
def downloads(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How many files of packages were downloaded so far."""
    caplog.set_level("INFO", "vcenter_eam_plugin")
    return lambda: sum(record.msg.startswith("OVF download of") for record in caplog.records)


def test_the_package_is_served_whole_and_nothing_else_is(bench: Bench) -> None:
    """S01."""
    bench.start()
    bench.wait_until_active()
    url = agency_url(bench)
    path = urlsplit(url).path
    folder = path.rpartition("/")[0]
    package = bench.directory / "ovf"
    assert request(url, path) == (200, (package / "ContrailVM.ovf").read_bytes())
    status, disk = request(url, f"{folder}/{DISK_NAME}")
    assert (status, len(disk)) == (200, DISK_BYTES)
    (package / "secret.txt").write_text("not part of the package")
    for wrong in (
        "/",
        "/ovf/",
        folder,
        f"{folder}/",
        f"{folder}/secret.txt",
        f"{folder}/../../state",
        f"{folder}/%2e%2e/%2e%2e/etc/passwd",
        f"{folder}//etc/passwd",
        f"/ovf/{'0' * 64}/ContrailVM.ovf",
        "/etc/passwd",
    ):
        assert request(url, wrong)[0] == 404, wrong
    assert request(url, path, "PUT")[0] == 405
    assert request(url, path, "HEAD") == (200, b"")


def test_a_redeployment_downloads_again(bench: Bench, downloads: Callable[[], int]) -> None:
    """S01: EAM comes back for the package long after the agency was created."""
    bench.start()
    bench.wait_until_active()
    before, host = downloads(), bench.names()[0]
    assert before >= 1
    bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: "MISSING" in bench.heard(host), "the loss is reported")
    bench.wait_until_active(host)
    assert downloads() > before


def test_after_a_restart_the_same_url_is_served_and_the_agency_is_left_alone(bench: Bench) -> None:
    """S01: a URL that changed would redeploy the whole fleet."""
    bench.start()
    bench.wait_until_active()
    url, writes = agency_url(bench), len(bench.writes())
    bench.stop()
    bench.start()
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches again")
    assert request(url, urlsplit(url).path)[0] == 200
    assert (agency_url(bench), len(bench.writes())) == (url, writes)
    host = bench.names()[0]
    bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: "MISSING" in bench.heard(host), "the loss is reported")
    bench.wait_until_active(host)
    assert agency_url(bench) == url


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        pytest.param(lambda ovf: ovf.with_name(DISK_NAME).unlink(), f"references '{DISK_NAME}'", id="disk missing"),
        pytest.param(lambda ovf: ovf.write_text("<Envelope"), "not well-formed XML", id="malformed"),
        pytest.param(lambda ovf: ovf.write_text("<html/>"), "is no OVF descriptor", id="something else"),
    ],
)
def test_a_bad_package_blocks_with_one_sentence_and_is_used_once_it_is_mended(
    bench: Bench, quick_retries: None, spoil: Callable[[Path], Any], sentence: str
) -> None:
    """S01: nothing is created from a package that could not be deployed."""
    package = write_sample(bench.directory / "spoilt")
    spoil(package)
    bench.start(ovf_package=package)
    for host in bench.names():
        bench.wait_for_state(host, "BLOCKED")
    assert sentence in bench.alarms()["act:agency"]
    assert any(sentence in m["reason"] for m in bench.messages if m["key"])
    assert bench.writes("CreateAgency") == []
    write_sample(package.parent)
    bench.wait_until_active()
    assert "act:agency" not in bench.alarms()


@pytest.fixture
def external_server() -> Iterator[Any]:
    """An OVF server of somebody else; ``broken`` makes it answer 404."""
    directory = Path("unset")

    class External:
        broken = False
        folder = directory

        def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
            file = self.folder / environ["PATH_INFO"].lstrip("/")
            if self.broken or not file.is_file():
                start_response("404 Not Found", [("Content-Length", "0")])
                return []
            body = file.read_bytes()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]

    external = External()
    server = WSGIServer(("127.0.0.1", 0), external, log=None)
    server.start()
    external.url = f"http://127.0.0.1:{server.server_port}/ContrailVM.ovf"  # type: ignore[attr-defined]
    yield external
    server.stop(timeout=1)


def test_an_external_server_that_fails_blocks_redeployment_until_it_is_back(
    make_bench: Callable[..., Bench], quick_retries: None, external_server: Any
) -> None:
    """S01: EAM's CannotAccessAgentOVF is reported with the host, and resolved by itself once the server is back."""
    bench = make_bench(hosts=1, clusters=1)
    external_server.folder = write_sample(bench.directory / "ovf").parent
    bench.start(ovf_package=None, ovf_url=external_server.url, poll_seconds=1.0)
    bench.wait_until_active()
    (host,) = bench.names()
    external_server.broken = True
    bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host, "BLOCKED")
    assert "CannotAccessAgentOVF" in bench.messages[-1]["reason"]
    external_server.broken = False
    bench.wait_until_active(host)


def test_an_external_server_that_cannot_be_reached_is_said_before_anything_is_created(
    bench: Bench, quick_retries: None
) -> None:
    """S01: vCenter tries the URL; what it says is what the operator reads."""
    url = f"http://127.0.0.1:{free_port()}/ContrailVM.ovf"
    bench.start(ovf_package=None, ovf_url=url)
    for host in bench.names():
        bench.wait_for_state(host, "BLOCKED")
    assert url in bench.alarms()["act:agency"]
    assert not bench.simulator.vcenter.eam.agencies
