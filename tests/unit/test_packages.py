# SPDX-License-Identifier: Apache-2.0
"""S01: where the ContrailVM comes from, what is wrong with it, and that it is said; ours and somebody else's."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gevent.pywsgi import WSGIServer

from tests.support.facts import an_agency
from tests.support.ovf import envelope, write_certificate
from tests.support.rabbit import free_port
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.config import EamConfig, VCenterConfig
from vcenter_eam_plugin.domain.errors import OvfError
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.ovf import probe as probing
from vcenter_eam_plugin.ovf.certificate import read_certificate
from vcenter_eam_plugin.ovf.server import OvfServer
from vcenter_eam_plugin.packages import PackageSource

LOG = logging.getLogger("test.packages")


class External:
    """Somebody else's server. ``files`` maps paths to contents, ``status`` is what it answers instead, if set."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.status = ""
        self.asked: list[tuple[str, str]] = []
        self._server: Any = None

    def start(self, **tls: Any) -> str:
        """Listen; returns the URL of ``/c.ovf``."""
        self._server = WSGIServer(("127.0.0.1", 0), self, log=None, error_log=None, **tls)
        self._server.start()
        return f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}/c.ovf"

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(timeout=1)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, path))
        if self.status or path not in self.files:
            start_response(self.status or "404 Not Found", [("Content-Length", "0")])
            return []
        start_response("200 OK", [("Content-Length", str(len(self.files[path])))])
        return [] if method == "HEAD" else [self.files[path]]


@pytest.fixture
def external() -> Iterator[External]:
    server = External()
    server.files = {"/c.ovf": envelope("disk 1.vmdk").encode(), "/disk 1.vmdk": b"disk"}
    yield server
    server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OvfServer]:
    server = OvfServer(("127.0.0.1", 0), "http://ovf.example:8116", LOG)
    yield server
    server.stop()


@pytest.fixture
def alarms() -> Alarms:
    return Alarms(LOG, time.time)


def source(server: OvfServer | None = None, **eam: Any) -> PackageSource:
    vcenter = VCenterConfig(vc_host="vc.example", vc_username="u", vc_password=Secret("p"))
    return PackageSource(EamConfig(clusters=("A",), **eam), vcenter, server)


def texts(alarms: Alarms) -> dict[str, str]:
    return {alarm.name: alarm.text for alarm in alarms}


def package(folder: Path, *properties: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "c.ovf"
    path.write_text(envelope(properties=properties))
    return path


# --- ours ---------------------------------------------------------------------------------------------------


def test_without_a_package_there_is_nothing_to_deploy(server: OvfServer) -> None:
    """One sentence, before EAM is asked."""
    with pytest.raises(OvfError, match=r"no OVF package to deploy for vc\.example.*ovf_package"):
        source(server).url()


def test_properties_that_eam_would_miss_are_named_before_an_agency_is_made(tmp_path: Path, server: OvfServer) -> None:
    """EAM wants every user-configurable property, and deploys nothing without."""
    path = package(tmp_path, 'ovf:key="a" ovf:userConfigurable="true"', 'ovf:key="b" ovf:userConfigurable="true"',
                   'ovf:key="c"')  # fmt: skip
    with pytest.raises(OvfError, match=r"not configured: a, b\. .*ovf_properties"):
        source(server, ovf_package=path).url()
    with pytest.raises(OvfError, match=r"not configured: b\."):
        source(server, ovf_package=path, ovf_properties=(("a", "1"),)).url()
    given = source(server, ovf_package=path, ovf_properties=(("a", "1"), ("b", "")))
    assert given.url().startswith("http://ovf.example:8116/ovf/")
    assert given.certificate() is None


def test_a_password_of_the_ovf_is_not_handed_to_everybody(tmp_path: Path, server: OvfServer) -> None:
    """Whatever it is called: the OVF itself says that it is one."""
    path = package(tmp_path, 'ovf:key="greeting" ovf:userConfigurable="true" ovf:password="true"')
    keys: dict[str, Any] = {"ovf_package": path, "ovf_properties": (("greeting", "hunter2"),)}
    with pytest.raises(OvfError, match="means these properties to be passwords: greeting") as caught:
        source(server, **keys).url()
    assert "hunter2" not in str(caught.value)
    assert source(server, **keys, ovf_allow_secret_properties=True).url()


def test_a_package_that_is_wrong_is_an_alarm_until_it_is_right(
    tmp_path: Path, server: OvfServer, alarms: Alarms
) -> None:
    """A restarted service must serve what agencies point to, so it does not wait to be asked."""
    path = package(tmp_path)
    right = path.read_text()
    path.write_text("<html/>")
    ours = source(server, ovf_package=path)
    ours.look(alarms, None)
    assert "is no OVF descriptor" in texts(alarms)["ovf-package"]
    path.write_text(right)
    ours.look(alarms, None)
    assert texts(alarms) == {}


def test_a_package_that_was_replaced_is_published_anew(tmp_path: Path, server: OvfServer) -> None:
    """What lies there now is what an upgrade is to deploy; the same bytes keep their URL."""
    ours = source(server, ovf_package=package(tmp_path))
    first = ours.url()
    assert ours.url() == first
    package(tmp_path, 'ovf:key="c"')
    assert ours.url() != first
    package(tmp_path)
    assert ours.url() == first


def test_an_agency_that_could_not_redeploy_is_an_alarm(tmp_path: Path, server: OvfServer, alarms: Alarms) -> None:
    """S01: its package must be served for as long as it lives."""
    ours = source(server, ovf_package=package(tmp_path))
    agency = an_agency(ovf_url=ours.url())
    ours.look(alarms, agency)
    assert texts(alarms) == {}
    ours.look(alarms, replace(agency, ovf_url="https://elsewhere.example/c.ovf"))
    assert texts(alarms) == {}
    (tmp_path / "c.ovf").unlink()
    ours.look(alarms, agency)
    assert f"{tmp_path}/c.ovf: No such file or directory" in texts(alarms)["ovf-agency-package"]


def test_a_certificate_that_the_agency_does_not_trust_is_an_alarm(tmp_path: Path, alarms: Alarms) -> None:
    """S01: from 8.0 U2 on the next redeployment would fail; a person hears of it before."""
    certificate, key = write_certificate(tmp_path)
    server = OvfServer(("127.0.0.1", 0), "https://ovf.example", LOG, certificate=certificate, key=key)
    ours = source(server, ovf_package=package(tmp_path))
    pinned = ours.certificate()
    assert pinned == read_certificate(certificate).pem
    agency = an_agency(ovf_url=ours.url(), ovf_certificate=f"{pinned}\n")
    ours.look(alarms, agency)
    assert texts(alarms) == {}
    other, _ = write_certificate(tmp_path, "other")
    ours.look(alarms, replace(agency, ovf_certificate=other.read_text()))
    assert "trusts another certificate" in texts(alarms)["ovf-agency-package"]
    ours.look(alarms, replace(agency, ovf_certificate="not PEM"))
    assert "trusts another certificate" in texts(alarms)["ovf-agency-package"]
    server.stop()


def test_a_certificate_that_ends_soon_is_an_alarm(tmp_path: Path, alarms: Alarms) -> None:
    """Renewing one that agencies trust takes some planning."""
    certificate, key = write_certificate(tmp_path)
    server = OvfServer(("127.0.0.1", 0), "https://ovf.example", LOG, certificate=certificate, key=key)
    end = read_certificate(certificate).expires
    now = SimpleNamespace(seconds=end - 15 * 86400)
    ours = source(server, ovf_package=package(tmp_path))
    ours._now = lambda: now.seconds
    ours.look(alarms, None)
    assert texts(alarms) == {}
    now.seconds = end - 13 * 86400
    ours.look(alarms, None)
    assert "ends on" in texts(alarms)["ovf-certificate"]
    server.stop()


# --- somebody else's ------------------------------------------------------------------------------------------


def test_an_external_server_is_asked_for_all_files(external: External, alarms: Alarms) -> None:
    """Reachable, an envelope, and its files there."""
    theirs = source(ovf_url=external.start())
    theirs.look(alarms, None)
    assert texts(alarms) == {}
    assert external.asked == [("GET", "/c.ovf"), ("HEAD", "/disk 1.vmdk")]
    assert theirs.url().endswith("/c.ovf")


@pytest.mark.parametrize(
    ("status", "files", "sentence"),
    [
        ("404 Not Found", {}, "answers 404 Not Found to http://127.0.0.1"),
        ("401 Unauthorized", {}, "without redirects or a login"),
        ("302 Found", {}, "answers 302 Found"),
        ("", {"/c.ovf": b"<html/>"}, "is no OVF descriptor: its root element is html"),
        ("", {"/c.ovf": b"<html"}, "is not well-formed XML"),
        ("", {"/c.ovf": b" " * (9 << 20)}, "larger than 8 MiB"),
        ("", {"/c.ovf": envelope("gone.vmdk").encode()}, "references 'gone.vmdk', and the server answers 404 to it"),
    ],
)
def test_what_is_wrong_with_an_external_server_is_said(
    external: External, alarms: Alarms, status: str, files: dict[str, bytes], sentence: str
) -> None:
    """HTTP status and content, each with the remedy; over when it is mended."""
    theirs = source(ovf_url=external.start())
    right = dict(external.files)
    external.status, external.files = status, files
    theirs.look(alarms, None)
    assert sentence in texts(alarms)["ovf-server"]
    external.status, external.files = "", right
    theirs.look(alarms, None)
    assert texts(alarms) == {}


def test_a_server_without_head_is_not_blamed(external: External, alarms: Alarms) -> None:
    """405 to HEAD says nothing about GET."""
    call = External.__call__

    def no_head(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "HEAD":
            start_response("405 Method Not Allowed", [("Content-Length", "0")])
            return []
        return call(external, environ, start_response)

    server = WSGIServer(("127.0.0.1", 0), no_head, log=None)
    server.start()
    source(ovf_url=f"http://127.0.0.1:{server.server_port}/c.ovf").look(alarms, None)
    server.stop(timeout=1)
    assert texts(alarms) == {}


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:{port}/c.ovf", "cannot be fetched from http://127.0.0.1:"),
        ("http://no-such-host.invalid/c.ovf", "is not known"),
    ],
)
def test_a_server_that_is_not_there(alarms: Alarms, url: str, sentence: str) -> None:
    """An alarm; but vCenter may reach what we cannot, so an agency may be made all the same."""
    theirs = source(ovf_url=url.format(port=free_port()))
    theirs.look(alarms, None)
    assert sentence in texts(alarms)["ovf-server"]
    assert theirs.url() == theirs._eam.ovf_url


def test_a_server_that_answers_drop_by_drop_is_given_up(alarms: Alarms, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe ends in time, whatever the server does."""
    monkeypatch.setattr(probing, "_WHOLE_SECONDS", 0.3)

    def endless(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "1000000")])
        while True:
            time.sleep(0.02)
            yield b" "

    server = WSGIServer(("127.0.0.1", 0), endless, log=None, error_log=None)
    server.start()
    source(ovf_url=f"http://127.0.0.1:{server.server_port}/c.ovf").look(alarms, None)
    server.stop(timeout=0)
    assert "does not answer in time" in texts(alarms)["ovf-server"]


def test_properties_of_an_external_package_are_looked_at_too(external: External) -> None:
    """As far as it can be read from here."""
    external.files = {"/c.ovf": envelope(properties=['ovf:key="a" ovf:userConfigurable="true"']).encode()}
    with pytest.raises(OvfError, match=r"not configured: a\."):
        source(ovf_url=external.start()).url()


def test_the_certificate_of_an_external_server(tmp_path: Path, external: External, alarms: Alarms) -> None:
    """Unknown: what to do. Pinned: right, and handed to EAM. Renewed: which was shown, and which was expected."""
    certificate, key = write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    url = external.start(ssl_context=context)
    source(ovf_url=url).look(alarms, None)
    assert "is not trusted here" in texts(alarms)["ovf-server"]
    assert "set ovf_certificate" in texts(alarms)["ovf-server"]
    pinned = source(ovf_url=url, ovf_certificate=certificate)
    pinned.look(alarms, None)
    assert texts(alarms) == {}
    assert pinned.certificate() == read_certificate(certificate).pem
    other, _ = write_certificate(tmp_path, "other")
    source(ovf_url=url, ovf_certificate=other).look(alarms, None)
    text = texts(alarms)["ovf-server"]
    assert read_certificate(certificate).thumbprint in text
    assert read_certificate(other).thumbprint in text
