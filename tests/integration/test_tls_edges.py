# SPDX-License-Identifier: Apache-2.0
"""TLS at every edge that connects to somebody: who is unknown, is called otherwise or is too old hears nothing.

One table for all edges, against a server that notes what it is told. More of each is in the edge's own tests
(test_session, test_extension, test_publisher, test_election, test_s01_ovf_server).
"""

from __future__ import annotations

import logging
import ssl
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import trustme
from gevent.server import StreamServer
from pyVmomi import eam

from tests.support.vcenters import VCenter, wait_for
from vcenter_eam_plugin.bus.broker import BrokerSettings, Tls, connect
from vcenter_eam_plugin.cluster.client import ZooKeeper, ZooKeeperSettings
from vcenter_eam_plugin.domain.errors import CertificateRejected, OvfError, Unavailable
from vcenter_eam_plugin.ovf.probe import Trust, probe
from vcenter_eam_plugin.vsphere.session import Session, SessionSettings

SECRET = "never-said-to-a-stranger"


def to_vcenter(host: str, port: int, ca: Path | None) -> None:
    Session(SessionSettings(host=host, port=port, username="u", password=lambda: SECRET, ca_file=ca and str(ca))).open()


def to_vcenter_by_certificate(host: str, port: int, ca: Path | None) -> None:
    issued = trustme.CA().issue_cert("client.example")
    assert ca is not None
    pem = ca.with_name("client.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(pem)
    settings = SessionSettings(
        host=host, port=port, extension_key="net.example.x", client_cert=str(pem), ca_file=str(ca), call_timeout=5.0
    )
    Session(settings).open()


def to_broker(host: str, port: int, ca: Path | None) -> None:
    connect(BrokerSettings(hosts=((host, port),), user="u", password=lambda: SECRET, tls=Tls(ca_file=ca)))


def to_zookeeper(host: str, port: int, ca: Path | None) -> None:
    settings = ZooKeeperSettings(hosts=f"{host}:{port}", tls=True, ca_file=ca)
    client = ZooKeeper.connect_to(settings, logging.getLogger("test.tls")).client
    try:
        client.handler.create_connection(("127.0.0.1", port), hostname=host, timeout=5.0).close()
    finally:
        client.handler.stop()


def to_ovf_server(host: str, port: int, ca: Path | None) -> None:
    probe(f"https://{host}:{port}/x.ovf", Trust(ca_file=ca))


EDGES: dict[str, tuple[Callable[[str, int, Path | None], None], type[Exception]]] = {
    "vCenter": (to_vcenter, CertificateRejected),
    "vCenter, by client certificate": (to_vcenter_by_certificate, CertificateRejected),
    "broker": (to_broker, CertificateRejected),
    "ZooKeeper": (to_zookeeper, ssl.SSLCertVerificationError),
    "OVF server": (to_ovf_server, OvfError),
}


class Listener:
    """Speaks TLS with a certificate for ``localhost`` of its own authority, and notes what it is told."""

    def __init__(self, directory: Path, *, old: bool = False) -> None:
        authority = trustme.CA()
        self.ca_file = directory / "authority.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.context)
        if old:
            with warnings.catch_warnings(action="ignore"):  # Python warns of what is old, which is the point here
                self.context.minimum_version = ssl.TLSVersion.TLSv1
                self.context.maximum_version = ssl.TLSVersion.TLSv1_1
            self.context.set_ciphers("ALL:@SECLEVEL=0")
        self.told: list[bytes] = []
        self.connections = 0
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    def _serve(self, plain: Any, _: object) -> None:
        self.connections += 1
        try:
            with self.context.wrap_socket(plain, server_side=True) as secure, gevent.Timeout(5, False):
                if text := secure.recv(1000):
                    self.told.append(text)
        except OSError:
            plain.close()

    def close(self) -> None:
        self._server.stop(timeout=1)


@pytest.fixture
def make_listener(tmp_path: Path) -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def make(**how: Any) -> Listener:
        made.append(Listener(tmp_path, **how))
        return made[-1]

    yield make
    for listener in made:
        listener.close()


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_whoever_is_unknown_or_called_otherwise_hears_nothing(
    make_listener: Callable[..., Listener], tmp_path: Path, edge: str, wrong: str
) -> None:
    """Issue 4: TLS verified everywhere by default, the name too; no login goes to a stranger."""
    go, refused = EDGES[edge]
    listener = make_listener()
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    host, authority = ("localhost", other) if wrong == "authority" else ("127.0.0.1", listener.ca_file)
    with pytest.raises(refused) as caught:
        go(host, listener.port, authority)
    assert listener.connections > 0
    assert listener.told == []
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("edge", EDGES)
def test_whoever_is_known_is_spoken_to(make_listener: Callable[..., Listener], edge: str) -> None:
    """The same server with the right name and authority is told something: so the refusals above are about those."""
    listener = make_listener()
    talking = gevent.spawn(_quietly, EDGES[edge][0], "localhost", listener.port, listener.ca_file)
    if edge == "ZooKeeper":  # its handshake is all that is made here
        wait_for(talking.ready, "the handshake is done")
        assert talking.value is None
    else:
        wait_for(lambda: listener.told, "something is said")
    talking.kill()


@pytest.mark.parametrize("edge", EDGES)
def test_whoever_speaks_an_old_version_hears_nothing(make_listener: Callable[..., Listener], edge: str) -> None:
    """Issue 4: at least TLS 1.2."""
    listener = make_listener(old=True)
    error = _quietly(EDGES[edge][0], "localhost", listener.port, listener.ca_file)
    assert isinstance(error, (Unavailable, OvfError, OSError)), error
    assert listener.connections > 0
    assert listener.told == []


def test_the_versions_are_set_and_not_left_to_the_machine(tmp_path: Path) -> None:
    """An openssl.cnf that allows old versions is no reason to speak them."""
    assert Session(SessionSettings(host="h")).tls_context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_eam_is_verified_anew_though_vcenter_was_known(simulator_vcenter: VCenter, tmp_path: Path) -> None:
    """EAM is another connection than vCenter's: one who takes its place after the login gets no cookie."""
    impostor = Listener(tmp_path)
    with simulator_vcenter.proxy() as proxy, simulator_vcenter.session(port=proxy.port) as session:
        proxy.turn_to(("127.0.0.1", impostor.port))
        with pytest.raises(CertificateRejected):
            session.call(eam.EsxAgentManager("EsxAgentManager", session.eam_stub()).QueryAgency)
        assert impostor.connections > 0
        assert impostor.told == []
        proxy.turn_to((simulator_vcenter.host, simulator_vcenter.port))
    impostor.close()


def _quietly(go: Callable[[str, int, Path | None], None], host: str, port: int, ca: Path) -> BaseException | None:
    try:
        go(host, port, ca)
    except Exception as exc:  # noqa: BLE001 - which one is the caller's to judge
        return exc
    return None
