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
from tests.support.ovf import manifest, write_archive, write_certificate
from tests.support.rabbit import free_port
from vcenter_eam_plugin import packages
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.simulator.knobs import Knobs
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


@pytest.fixture(autouse=True)
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is looked at every few minutes; a test does not wait for it."""
    monkeypatch.setattr(packages, "WATCH_SECONDS", 0.2)


def spoil_disk(ovf: Path) -> None:
    """One bit of the disk, which the manifest knows better."""
    disk = ovf.with_name(DISK_NAME)
    ovf.with_suffix(".mf").write_bytes(manifest({file.name: file.read_bytes() for file in (ovf, disk)}))
    disk.write_bytes(b"\1" + disk.read_bytes()[1:])


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
        pytest.param(spoil_disk, f"'{DISK_NAME}' of the OVF package", id="digest mismatch"),
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
    assert sentence in bench.alarms()["ovf-package"]
    assert any(sentence in m["reason"] for m in bench.messages if m["key"])
    assert bench.writes("CreateAgency") == []
    write_sample(package.parent)
    bench.wait_until_active()
    assert "act:agency" not in bench.alarms()
    bench.wait_for(lambda: "ovf-package" not in bench.alarms(), "the package is seen to be right")


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
    assert "ovf-server" not in bench.alarms()
    external_server.broken = True
    bench.wait_for(lambda: "answers 404" in bench.alarms().get("ovf-server", ""), "the failing server is said")
    bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host, "BLOCKED")
    assert "CannotAccessAgentOVF" in bench.messages[-1]["reason"]
    external_server.broken = False
    bench.wait_until_active(host)
    bench.wait_for(lambda: "ovf-server" not in bench.alarms(), "the server is seen to be back")


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


def test_an_archive_is_deployed_from_as_it_is(bench: Bench) -> None:
    """S01: the .ova is served from inside, and not unpacked; only what its descriptor references is."""
    ovf = write_sample(bench.directory / "unpacked")
    files = {file.name: file.read_bytes() for file in (ovf, ovf.with_name(DISK_NAME))}
    files["ContrailVM.mf"] = manifest(files, "SHA1")
    folder = bench.directory / "packed"
    folder.mkdir()
    bench.start(ovf_package=write_archive(folder / "ContrailVM.ova", {**files, "secret.txt": b"not yours"}))
    bench.wait_until_active()
    url = agency_url(bench)
    path = urlsplit(url).path
    assert request(url, path) == (200, files["ContrailVM.ovf"])
    assert request(url, path.replace("ContrailVM.ovf", DISK_NAME)) == (200, files[DISK_NAME])
    assert request(url, path.replace("ContrailVM.ovf", "secret.txt"))[0] == 404
    assert [file.name for file in folder.iterdir()] == ["ContrailVM.ova"]


def test_our_server_that_is_down_blocks_a_new_host_until_it_is_back(
    make_bench: Callable[..., Bench], quick_retries: None
) -> None:
    """S01: EAM comes while nobody serves; what it says then is reported, and mended without a person."""
    bench = make_bench(hosts=1, clusters=1)
    bench.start()
    bench.wait_until_active()
    bench.stop()
    cluster = bench.vcenter.clusters()[0]
    host = bench.vcenter.add_host(cluster)
    first = bench.vcenter.hosts()[0]
    settings = first.agent_settings
    bench.vcenter.set_agent_settings(host, settings.datastore, settings.network)
    bench.wait_for(lambda: "CannotAccessAgentOVF" in issues_of(bench), "EAM could not fetch the package")
    since = len(bench.messages)
    bench.start()
    bench.wait_until_active(host.name)
    told = [m for m in bench.messages[since:] if m["key"] and m["esxi"]["name"] == host.name]
    assert any(m["state"] == "BLOCKED" and "CannotAccessAgentOVF" in m["reason"] for m in told)


def issues_of(bench: Bench) -> set[str]:
    """The issues that EAM has now, by name."""
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    return {type(issue).__name__.rpartition(".")[2] for issue in agency.prop_runtime().issue or ()}


def test_a_required_property_that_is_not_given_is_said_before_anything_is_created(
    bench: Bench, quick_retries: None
) -> None:
    """S01: EAM would create the agency, and deploy nothing."""
    ovf = write_sample(bench.directory / "asking")
    asks = '<ProductSection><Info/><Property ovf:key="dns" ovf:type="string" ovf:userConfigurable="true"/>'
    ovf.write_text(ovf.read_text().replace("</Name>", f"</Name>{asks}</ProductSection>"))
    bench.start(ovf_package=ovf)
    for host in bench.names():
        bench.wait_for_state(host, "BLOCKED")
    assert "asks for properties that are not configured: dns." in bench.alarms()["act:agency"]
    assert bench.writes("CreateAgency") == []
    bench.stop()
    bench.start(ovf_package=ovf, ovf_properties=(("dns", "192.0.2.53"),))
    bench.wait_until_active()


def test_a_newer_package_in_the_configuration_leaves_the_agency_and_its_package_alone(bench: Bench) -> None:
    """S01: the URL is written by an upgrade alone; until then the old one is served, after a restart, too."""
    bench.start()
    bench.wait_until_active()
    url, writes = agency_url(bench), len(bench.writes())
    bench.stop()
    newer = write_sample(bench.directory / "newer")
    newer.write_text(newer.read_text().replace("<Name>ContrailVM", "<Name>ContrailVM 2"))
    bench.start(ovf_package=newer)
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches again")
    assert request(url, urlsplit(url).path)[0] == 200
    assert (agency_url(bench), len(bench.writes())) == (url, writes)
    host = bench.names()[0]
    bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: "MISSING" in bench.heard(host), "the loss is reported")
    bench.wait_until_active(host)
    assert "ovf-agency-package" not in bench.alarms()


def test_a_package_that_was_overwritten_is_said_before_it_is_needed(bench: Bench) -> None:
    """S01: the agency points to a digest that is not there any more."""
    bench.start()
    bench.wait_until_active()
    (bench.directory / "ovf" / DISK_NAME).write_bytes(b"a newer disk")
    bench.wait_for(
        lambda: f"{DISK_NAME} was changed" in bench.alarms().get("ovf-agency-package", ""), "the change is said"
    )
    write_sample(bench.directory / "ovf")
    bench.wait_for(lambda: "ovf-agency-package" not in bench.alarms(), "it is as it was")


def test_over_https_the_certificate_is_pinned_and_another_one_is_said_before_and_when_it_fails(
    make_bench: Callable[..., Bench], quick_retries: None
) -> None:
    """S01: certificate changed. The alarm comes at once; a redeployment is BLOCKED, and a person resolves it."""
    bench = make_bench(hosts=1, clusters=1)
    first, key = write_certificate(bench.directory, "first")
    tls: dict[str, Any] = {"ovf_server_cert": first, "ovf_server_key": key}
    bench.start(defaults=tls)
    bench.wait_until_active()
    assert agency_url(bench).startswith("https://")
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    assert agency.settings.agentConfig[0].ovfSslTrust.sslCertificate.split() == first.read_text().split()
    bench.stop()
    other, other_key = write_certificate(bench.directory, "other")
    bench.start(defaults={"ovf_server_cert": other, "ovf_server_key": other_key})
    bench.wait_for(
        lambda: "trusts another certificate" in bench.alarms().get("ovf-agency-package", ""), "the change is said"
    )
    (host,) = bench.names()
    bench.vcenter.destroy(bench.vcenter.agent_vm(host))
    bench.wait_for_state(host, "BLOCKED")
    assert "CertificateNotTrusted" in bench.messages[-1]["reason"]
    bench.stop()
    bench.start(defaults=tls)
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches again")
    client = EamClient(bench.unit.session)
    (seen,) = client.agencies()
    (agent,) = client.read_agents(client.agents_of(seen.moref)).agents
    client.resolve(agent.moref, [issue.key for issue in agent.issues])
    bench.wait_until_active(host)
    assert "ovf-agency-package" not in bench.alarms()


def test_an_earlier_vcenter_is_told_nothing_of_certificates(make_bench: Callable[..., Bench]) -> None:
    """S01: ovfSslTrust came with EAM 8.2; before, vCenter's own roots must have the authority."""
    bench = make_bench(hosts=1, clusters=1, knobs=Knobs(api_version="8.0.0.0", eam_level=(7, 6)))
    certificate, key = write_certificate(bench.directory)
    bench.simulator.knobs.change({"ovf_trusted_roots": str(certificate.with_suffix(".ca"))})
    bench.start(defaults={"ovf_server_cert": certificate, "ovf_server_key": key})
    bench.wait_until_active()
    (agency,) = bench.simulator.vcenter.eam.agencies.values()
    assert agency.settings.agentConfig[0].ovfSslTrust is None
