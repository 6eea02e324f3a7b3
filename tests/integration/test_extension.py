# SPDX-License-Identifier: Apache-2.0
"""S02: the service is a vCenter extension: by certificate, through the SDK tunnel, or by a service account."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyVmomi import eam

from tests.support.extensions import KEY, ClientCertificate, an_extension, client_certificate, register_extension
from tests.support.proxy import Tunnel
from tests.support.scenario import Wire
from tests.support.simulator import connected
from tests.support.vcenters import Admin, VCenter
from vcenter_eam_plugin import __version__
from vcenter_eam_plugin.cli.main import main
from vcenter_eam_plugin.domain.errors import (
    CertificateRejected,
    ConfigurationError,
    LoginRefused,
    PrivilegeMissing,
    Unavailable,
)
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.server import Simulator
from vcenter_eam_plugin.vsphere import privileges
from vcenter_eam_plugin.vsphere.session import Session

PACKAGE = Path(__file__).parents[2] / "vcenter_eam_plugin"


@pytest.fixture
def certificate(tmp_path: Path) -> ClientCertificate:
    return client_certificate(tmp_path)


@contextmanager
def extension_session(vcenter: VCenter, certificate: ClientCertificate, **changes: Any) -> Iterator[Session]:
    login = {"username": "", "extension_key": KEY, "client_cert": str(certificate.both)}
    with vcenter.session(**{**login, **changes}) as session:
        yield session


# --- the session ------------------------------------------------------------------------------------------


def test_login_by_certificate_serves_vcenter_and_eam(
    simulator_vcenter: VCenter, certificate: ClientCertificate
) -> None:
    """S02: no password anywhere; the cookie is good without the certificate, at EAM too."""
    assert simulator_vcenter.simulator is not None
    register_extension(simulator_vcenter.simulator, certificate)
    with extension_session(simulator_vcenter, certificate) as session:
        assert (session.is_extension, session.identities) == (True, (KEY,))
        assert session.alive()
        assert len(session.call(eam.EsxAgentManager("EsxAgentManager", session.eam_stub()).QueryAgency)) == 0


def test_the_certificate_reaches_both_servers(vcenter: VCenter, certificate: ClientCertificate) -> None:
    """S02: vcsim, which nobody here wrote, sees it too; it takes any certificate, and refuses who shows none."""
    if vcenter.simulator is not None:
        register_extension(vcenter.simulator, certificate)
    with extension_session(vcenter, certificate) as session:
        assert KEY in session.identities
        assert session.alive()


def test_key_may_be_in_a_file_of_its_own(simulator_vcenter: VCenter, certificate: ClientCertificate) -> None:
    assert simulator_vcenter.simulator is not None
    register_extension(simulator_vcenter.simulator, certificate)
    files = {"client_cert": str(certificate.cert), "client_key": str(certificate.key)}
    with extension_session(simulator_vcenter, certificate, **files) as session:
        assert session.is_extension


def test_expired_session_of_an_extension_is_renewed(simulator_vcenter: VCenter, certificate: ClientCertificate) -> None:
    """S02: as a user's is."""
    assert simulator_vcenter.simulator is not None
    register_extension(simulator_vcenter.simulator, certificate)
    with extension_session(simulator_vcenter, certificate) as session, simulator_vcenter.session() as other:
        Admin(other).kill_sessions_but_own()
        assert len(session.call(eam.EsxAgentManager("EsxAgentManager", session.eam_stub()).QueryAgency)) == 0
        assert (session.generation, session.is_extension) == (2, True)


def test_only_the_login_goes_through_the_sdk_tunnel(simulator_vcenter: VCenter, certificate: ClientCertificate) -> None:
    """vCenter asks for client certificates at its SDK tunnel alone, which its HTTP port knows by a made-up name."""
    assert simulator_vcenter.simulator is not None
    register_extension(simulator_vcenter.simulator, certificate)
    with Tunnel((simulator_vcenter.host, simulator_vcenter.port)).running() as tunnel:
        with extension_session(simulator_vcenter, certificate, tunnel_port=tunnel.port) as session:
            assert session.is_extension
            assert session.alive()
        assert [line.rpartition(" ")[0] for line in tunnel.asked] == ["CONNECT sdkTunnel:8089"]


def test_certificate_behind_the_tunnel_must_be_vcenters(
    simulator_vcenter: VCenter, make_simulator: Callable[..., Simulator], certificate: ClientCertificate
) -> None:
    """The HTTP port is not encrypted: who answers through it is verified as everywhere, and gets nothing otherwise."""
    elsewhere = make_simulator(hosts=1, clusters=1)
    register_extension(elsewhere, certificate)
    with (
        Tunnel((elsewhere.host, elsewhere.port)).running() as tunnel,
        pytest.raises(CertificateRejected),
        extension_session(simulator_vcenter, certificate, tunnel_port=tunnel.port),
    ):
        pass
    assert elsewhere.sessions.active == []


def test_no_tunnel_where_it_should_be_is_one_sentence(
    simulator_vcenter: VCenter, certificate: ClientCertificate
) -> None:
    """Bad input: vc_tunnel_port names a port that is no tunnel; it is tried again, as any outage."""
    with (
        simulator_vcenter.proxy() as proxy,
        pytest.raises(Unavailable, match="LoginExtensionByCertificate"),
        extension_session(simulator_vcenter, certificate, tunnel_port=proxy.port, call_timeout=1.0),
    ):
        pass


def test_certificate_of_somebody_else_is_refused_and_not_offered_again(
    simulator_vcenter: VCenter, certificate: ClientCertificate, tmp_path: Path
) -> None:
    """Bad input: which extension, and what to do; a corrected file is used at once."""
    assert simulator_vcenter.simulator is not None
    register_extension(simulator_vcenter.simulator, client_certificate(tmp_path, "other"))
    settings = simulator_vcenter.settings(username="", extension_key=KEY, client_cert=str(certificate.both))
    session = Session(settings)
    with pytest.raises(LoginRefused, match=f"refused the certificate of the extension '{KEY}'"):
        session.open()
    wire = Wire(simulator_vcenter.simulator)
    with pytest.raises(LoginRefused, match=f"refused the certificate of the extension '{KEY}'"):
        session.open()
    assert wire.calls == []
    certificate.both.write_bytes((tmp_path / "other.pem").read_bytes())
    session.open()
    assert session.is_extension
    session.close()


@pytest.mark.parametrize(
    ("content", "says"),
    [("nothing", "cannot be used"), (None, "cannot be read")],
    ids=["not PEM", "no such file"],
)
def test_certificate_that_cannot_be_used_is_named(
    simulator_vcenter: VCenter, tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_text(content, "utf-8")
    settings = simulator_vcenter.settings(username="", extension_key=KEY, client_cert=str(path))
    with pytest.raises(ConfigurationError, match=says):
        Session(settings).open()


def test_what_a_plain_user_lacks_is_named_and_an_extension_lacks_nothing(
    simulator_vcenter: VCenter, certificate: ClientCertificate
) -> None:
    """Adopting asks first whether the login may change agencies at all."""
    assert simulator_vcenter.simulator is not None
    simulator_vcenter.simulator.add_user("viewer@vsphere.local", "viewer", {"EAM.View"})
    register_extension(simulator_vcenter.simulator, certificate)
    wanted = ("EAM.View", "EAM.Modify")
    with (
        simulator_vcenter.session(username="viewer@vsphere.local", password=lambda: "viewer") as viewer,
        pytest.raises(PrivilegeMissing, match=r"lacks EAM\.Modify on the root folder"),
    ):
        privileges.require(viewer, wanted)
    with simulator_vcenter.session() as administrator, extension_session(simulator_vcenter, certificate) as extension:
        privileges.require(administrator, wanted)
        privileges.require(extension, wanted)


# --- the command ------------------------------------------------------------------------------------------


class Operator:
    """A person with a configuration file, and an administrator's password in the environment."""

    def __init__(self, vcenter: VCenter, directory: Path, **login: object) -> None:
        self.vcenter = vcenter
        self.conf = directory / "service.conf"
        lines = {"vc_host": vcenter.host, "vc_port": vcenter.port, "vc_ca_certs": vcenter.ca_file, "vc_tunnel_port": 0}
        text = "\n".join(f"{name} = {value}" for name, value in {**lines, "vc_extension_key": KEY, **login}.items())
        self.conf.write_text(f"[VCENTER]\n{text}\n[EAM]\nclusters = A\n", "utf-8")

    def run(self, *arguments: str, **environment: str) -> Result:
        env = {"VCENTER_EAM_ADMIN_USERNAME": self.vcenter.user, "VCENTER_EAM_ADMIN_PASSWORD": self.vcenter.password}
        command = ["extension", arguments[0], "-c", str(self.conf), *arguments[1:]]
        return CliRunner().invoke(main, command, env={**env, **environment})

    def extension(self) -> Any:
        assert self.vcenter.simulator is not None
        with connected(self.vcenter.simulator) as instance:
            return instance.content.extensionManager.FindExtension(KEY)

    def writes(self) -> list[str]:
        assert self.vcenter.simulator is not None
        return [call.fields["method"] for call in self.vcenter.simulator.journal.calls()]


@pytest.fixture
def operator(simulator_vcenter: VCenter, certificate: ClientCertificate, tmp_path: Path) -> Operator:
    return Operator(simulator_vcenter, tmp_path, vc_client_cert=certificate.both)


def test_register_makes_an_extension_that_can_log_in(operator: Operator) -> None:
    """S02: preview, then register, certificate, and a login as the service will make it."""
    shown = operator.run("register", "--preview")
    assert shown.exit_code == 0, shown.output
    assert operator.writes() == []
    done = operator.run("register", "--yes")
    assert done.exit_code == 0, done.output
    assert operator.writes() == ["RegisterExtension", "SetExtensionCertificate"]
    found = operator.extension()
    assert (found.version, found.description.label) == (__version__, "Contrail vCenter EAM plugin")
    assert operator.vcenter.password not in done.output
    assert "PRIVATE KEY" not in done.output
    # the service's own login is enough to look
    shown = operator.run("show", "--json", VCENTER_EAM_ADMIN_USERNAME="")
    assert json.loads(shown.output)["ours"] is True


def test_register_again_updates_what_is_ours_and_keeps_the_rest(operator: Operator) -> None:
    """S02: never unregister, never begin anew: EAM would delete every ContrailVM."""
    assert operator.vcenter.simulator is not None
    with connected(operator.vcenter.simulator) as instance:
        instance.content.extensionManager.RegisterExtension(an_extension(company="Kept", shownInSolutionManager=True))
    assert operator.run("register", "--yes").exit_code == 0
    found = operator.extension()
    assert (found.version, found.company, found.shownInSolutionManager) == (__version__, "Kept", True)
    assert "UpdateExtension" in operator.writes()
    assert "UnregisterExtension" not in operator.writes()


def test_somebody_elses_extension_is_left_alone(operator: Operator) -> None:
    """Bad input: the configured key is another product's."""
    assert operator.vcenter.simulator is not None
    with connected(operator.vcenter.simulator) as instance:
        instance.content.extensionManager.RegisterExtension(an_extension(label="Firewall"))
    before = operator.writes()
    done = operator.run("register", "--yes")
    assert (done.exit_code, operator.writes()) == (13, before)
    assert "another product's (Firewall)" in done.stderr


def test_nobody_asked_and_nobody_named_changes_nothing(operator: Operator) -> None:
    """In a script without --yes, without an administrator, without a password: one sentence each."""
    assert operator.run("register").exit_code == 11
    assert operator.run("register", "--yes", VCENTER_EAM_ADMIN_USERNAME="").exit_code == 2
    assert operator.run("register", "--yes", "--digest", "0" * 16).exit_code == 12
    assert operator.run("register", "--yes", VCENTER_EAM_ADMIN_PASSWORD="wrong").exit_code == 3
    assert operator.writes() == []


def test_register_without_the_privilege_says_which(operator: Operator) -> None:
    """Bad input: the administrator is none."""
    assert operator.vcenter.simulator is not None
    operator.vcenter.simulator.add_user("viewer@vsphere.local", "viewer", set())
    done = operator.run(
        "register",
        "--yes",
        VCENTER_EAM_ADMIN_USERNAME="viewer@vsphere.local",
        VCENTER_EAM_ADMIN_PASSWORD="viewer",
    )
    assert done.exit_code == 5
    assert "Extension.Register" in done.stderr


def test_service_account_logs_in_as_the_extension(simulator_vcenter: VCenter, tmp_path: Path) -> None:
    """S02: from vCenter 8.0 U2 on an account is bound to the extension; EAM then knows the extension."""
    assert simulator_vcenter.simulator is not None
    account = "svc-contrail@vsphere.local"
    simulator_vcenter.simulator.add_user(account, "secret", {"EAM.View", "EAM.Modify"})
    operator = Operator(simulator_vcenter, tmp_path, vc_username=account, vc_password="secret")
    done = operator.run("register", "--yes", "--service-account", account)
    assert done.exit_code == 0, done.output
    assert operator.writes() == ["RegisterExtension", "SetServiceAccount"]
    with simulator_vcenter.session(username=account, password=lambda: "secret", extension_key=KEY) as session:
        assert session.is_extension
        assert KEY in session.identities
    done = operator.run("register", "--yes", "--service-account", "nobody@vsphere.local")
    assert done.exit_code == 2
    assert "nobody@vsphere.local" in done.stderr


def test_service_account_before_8_0_u2_is_refused_before_anything_is_changed(
    make_simulator: Callable[..., Simulator], tmp_path: Path
) -> None:
    """Bad input: which level has it, and what else to do."""
    server = make_simulator(hosts=1, clusters=1, knobs=Knobs(api_version="8.0.1.0"))
    vcenter = VCenter(
        "simulator", server.host, server.port, server.user, server.password or "", str(server.ca_file), "", server
    )
    operator = Operator(vcenter, tmp_path, vc_username=server.user, vc_password=server.password)
    done = operator.run("register", "--yes", "--service-account", server.user)
    assert (done.exit_code, operator.writes()) == (2, [])
    assert "8.0 U2" in done.stderr


def test_certificate_and_service_account_exclude_each_other(operator: Operator) -> None:
    """vCenter: one authentication method of an extension is valid at any time."""
    done = operator.run("register", "--yes", "--service-account", "a@b")
    assert (done.exit_code, operator.writes()) == (2, [])


# --- never ------------------------------------------------------------------------------------------------


def test_no_code_of_ours_can_unregister_an_extension() -> None:
    """EAM destroys the agencies of an extension that is unregistered, with every ContrailVM; there is no such call."""
    words = {"UnregisterExtension", "unregister_extension", "Unregister"}
    found = []
    for path in PACKAGE.rglob("*.py"):
        if "simulator" in path.parts:
            continue  # it answers that call, as vCenter does, and makes none
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            named = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "value", None)
            if named in words:
                found.append(f"{path.name}:{node.lineno}")  # type: ignore[attr-defined]
    assert found == []
