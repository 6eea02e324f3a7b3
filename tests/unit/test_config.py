# SPDX-License-Identifier: Apache-2.0
"""Configuration: what is wrong is named, before any connection; several sources merge; secrets stay secret."""

import configparser
import logging
from pathlib import Path

import pytest

from vcenter_eam_plugin.config import Configuration, Mode, from_sections, load
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.options import Address

RIGHT = """
[VCENTER]
vc_host = vcenter.example
vc_username = svc-contrail@vsphere.local
vc_password = 50%off=[x]

[EAM]
clusters =
    /DC0/host/prod/Cluster, with a comma
    ClusterB
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def read(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Configuration:
    return load([write(tmp_path / "vcenter_eam.conf", text)], environ or {})


def wrong(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text, environ)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_smallest_file_gives_one_observing_vcenter(tmp_path: Path) -> None:
    configuration = read(tmp_path, RIGHT)
    (unit,) = configuration.vcenters
    assert (unit.name, unit.vcenter.vc_host, unit.vcenter.vc_port) == ("default", "vcenter.example", 443)
    assert unit.vcenter.vc_password() == "50%off=[x]"
    assert unit.eam.clusters == ("/DC0/host/prod/Cluster, with a comma", "ClusterB")
    assert unit.eam.mode is Mode.OBSERVE
    assert configuration.zookeeper is None
    assert configuration.rabbit.rabbit_hosts == (Address("localhost"),)


@pytest.mark.parametrize(
    ("section", "line", "expected"),
    [
        ("EAM", "mode = acts", "section [EAM], option mode: found 'acts'; allowed: one of observe, act."),
        ("EAM", "agency_nam = x", "section [EAM], option agency_nam: unknown; did you mean agency_name? Allowed: "),
        ("EAM", "clusters =", "Section [EAM], option clusters: found nothing; allowed: at least one cluster"),
        ("EAM", "poll_seconds = nan", "option poll_seconds: found 'nan'; allowed: a number from 1 to 300."),
        ("EAM", "ovf_properties = just-a-word", "found 'just-a-word'; allowed: key=value, one a line."),
        ("EAM", "ovf_url = ftp://x/y.ovf", "found 'ftp://x/y.ovf'; allowed: an http:// or https:// URL, or nothing."),
        ("EAM", "ovf_url = http://me:hunter2@x/y.ovf", "(it holds a user name or password, and URLs are shown"),
        ("EAM", "ovf_package = /x.ovf", "found '/x.ovf' (No such file or directory); allowed: the path of a readable"),
        ("EAM", "ovf_package = /dev/null\novf_url = http://x/y.ovf", "options ovf_url and ovf_package: both say where"),
        ("EAM", "ovf_url = http://x:99999/y.ovf", "found 'http://x:99999/y.ovf'"),
        ("EAM", "ovf_properties = root_password=hunter2", "option ovf_properties: 'root_password': its name says"),
        ("EAM", "ovf_properties = authToken=hunter2", "option ovf_properties: 'authToken': its name says"),
        ("EAM", "ovf_properties = client.secret=hunter2", "'client.secret': its name says that it is a credential"),
        ("EAM", "ovf_properties = ssh_key=hunter2", "'ssh_key': its name says that it is a key"),
        ("EAM", "ovf_properties = server=http://me:hunter2@x/", "'server': its value holds a URL with a password"),
        ("DEFAULTS", "ovf_server_cert = /dev/null", "options ovf_server_cert and ovf_server_key: one is useless"),
        (
            "DEFAULTS",
            "ovf_server_cert = /dev/null\novf_server_key = /dev/null\novf_base_url = http://x:1",
            "option ovf_base_url: found 'http://x:1'; allowed with ovf_server_cert: an https:// URL.",
        ),
        ("EAM", "vm_name_format = {hots}", "(unknown placeholder {hots}); allowed: text with any of {datacenter}"),
        ("EAM", "vm_name_format = {host", "found '{host'"),
        ("EAM", "auto_resolve = HostInMaintenanceMode", "(HostInMaintenanceMode may not be listed); allowed: a list"),
        ("EAM", "max_concurrent_repairs = 4.5", "found '4.5'; allowed: a whole number from 1 to 64."),
        ("VCENTER", "vc_port = https", "section [VCENTER], option vc_port: found 'https'; allowed: a whole number"),
        ("VCENTER", "vc_thumbprint = AB:CD", "(it is not 64 hexadecimal digits)"),
        ("VCENTER", "vc_ca_certs = /nonexistent.pem", "found '/nonexistent.pem' (No such file or directory)"),
        ("VCENTER", "vc_insecure = maybe", "option vc_insecure: found 'maybe'; allowed: true or false."),
        ("VCENTER", "vc_password_file = /x", "options vc_password and vc_password_file: both say the same thing"),
        ("RABBIT", "rabbit_hosts = one:99999", "found 'one:99999'; allowed: host or host:port"),
        ("RABBIT", "rabbit_hosts = me:hunter2@mq", "(user name and password have options of their own)"),
        (
            "RABBIT",
            "kombu_ssl_certfile = /dev/null",
            "options kombu_ssl_certfile and kombu_ssl_keyfile: one is useless",
        ),
        ("RABBITMQ", "rabbit_hosts = x", "section [RABBITMQ]: unknown; did you mean RABBIT?"),
        ("RABBIT:two", "rabbit_hosts = x", "section [RABBIT:two]: allowed with a name: [EAM:name] and [VCENTER:name]."),
        ("DEFAULT", "log_level = SYS_INFO", "section [DEFAULT]: unknown; did you mean DEFAULTS?"),
        ("DEFAULTS", "log_level = INFO", "found 'INFO'; allowed: one of SYS_EMERG, "),
        (
            "DEFAULTS",
            "log_file = here.log",
            "option log_file: found 'here.log'; allowed: an absolute path, or <stdout>.",
        ),
        ("DEFAULTS", "state_directory = var", "found 'var'; allowed: an absolute path."),
        ("INTROSPECT", "introspect_token = hunter2", "option introspect_token: found fewer than 20 characters"),
        (
            "INTROSPECT",
            "introspect_ssl_certfile = /dev/null",
            "introspect_ssl_keyfile: one is useless without the other",
        ),
        ("INTROSPECT", "http_server_ip = 0.0.0.0", "introspect_ssl_certfile: missing; at http_server_ip = 0.0.0.0"),
        ("INTROSPECT", "http_server_ip = ::", "option introspect_token or introspect_token_file: missing; at"),
        ("INTROSPECT", "http_server_ip = eam.example", "introspect_ssl_certfile: missing; at http_server_ip = eam.exa"),
        ("EAM:west", "mode = act", "Section [EAM:west]: there is no [VCENTER:west]; add it."),
    ],
)
def test_mistake_is_named_with_place_finding_and_what_is_allowed(
    tmp_path: Path, section: str, line: str, expected: str
) -> None:
    text = wrong(tmp_path, f"{RIGHT}\n[{section}]\n{line}\n")
    assert expected in text
    assert "hunter2" not in text
    if text.startswith("/"):
        assert text.startswith(f"{tmp_path}/vcenter_eam.conf, section [{section}]")


@pytest.mark.parametrize(
    "line",
    [
        "ovf_properties = ssh_public_key=ssh-ed25519 AAAA",
        "ovf_properties = authorized_keys=ssh-ed25519 AAAA",
        "ovf_properties = keyboard=de",
        "ovf_properties = hostname=compass",
        "ovf_properties = root_password=hunter2\novf_allow_secret_properties = true",
    ],
)
def test_ovf_properties_that_are_no_credentials_are_taken(tmp_path: Path, line: str) -> None:
    """S01: a false alarm must not be the price; and who says that it is none is believed."""
    (unit,) = read(tmp_path, f"{RIGHT}\n[EAM]\n{line}\n").vcenters
    assert len(unit.eam.ovf_properties) == 1


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = wrong(tmp_path, f"{RIGHT}\n[EAM]\nmode = acts\n[RABBIT]\nrabbit_port = x\nrabit_vhost = y")
    assert len(text.splitlines()) == 3


def test_required_settings_are_named_with_what_they_mean(tmp_path: Path) -> None:
    text = wrong(tmp_path, "[VCENTER]\nvc_host = x\n")
    assert "Section [VCENTER], option vc_password or vc_password_file: missing" in text
    assert "Section [EAM], option clusters: missing" in text


def test_two_ways_of_trust_contradict_each_other(tmp_path: Path) -> None:
    text = wrong(tmp_path, f"{RIGHT}\n[VCENTER]\nvc_insecure = yes\nvc_thumbprint = {'ab' * 32}\n")
    assert "options vc_thumbprint and vc_insecure: only one of them can decide" in text


def test_serving_on_every_address_needs_a_url_that_vcenter_can_use(tmp_path: Path) -> None:
    text = f"{RIGHT}\n[EAM]\novf_package = /dev/null\n[DEFAULTS]\novf_server_ip = 0.0.0.0\n"
    assert "Section [DEFAULTS], option ovf_base_url: missing" in wrong(tmp_path, text)
    assert read(tmp_path, f"{text}\novf_base_url = http://c:8116\n").defaults.ovf_base_url == "http://c:8116"


def test_with_an_election_the_ovf_server_needs_a_name_that_stays(tmp_path: Path) -> None:
    """Design 5: the agency keeps the URL, and a new leader must never redeploy a fleet."""
    text = f"{RIGHT}\n[EAM]\novf_package = /dev/null\n[ZOOKEEPER]\nzookeeper_servers = zk1\n"
    assert "option ovf_base_url: missing; with [ZOOKEEPER]" in wrong(tmp_path, text)
    right = read(tmp_path, f"{text}[DEFAULTS]\novf_base_url = http://c:8116\n")
    assert right.zookeeper is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("zookeeper_ssl_ca_cert = /dev/null", "option zookeeper_ssl_enable: found false"),
        ("zookeeper_ssl_enable = yes\nzookeeper_ssl_keyfile = /dev/null", "one is useless without the other"),
    ],
)
def test_zookeepers_tls_is_whole_or_not_there(tmp_path: Path, text: str, why: str) -> None:
    assert why in wrong(tmp_path, f"{RIGHT}\n[ZOOKEEPER]\n{text}\n")


def test_tls_files_without_tls_are_a_mistake(tmp_path: Path) -> None:
    assert "option rabbit_use_ssl" in wrong(tmp_path, f"{RIGHT}\n[RABBIT]\nkombu_ssl_ca_certs = /dev/null\n")


def test_missing_file_missing_section_and_no_vcenter_each_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nope\.conf: cannot be read: No such file"):
        load([tmp_path / "nope.conf"], {})
    with pytest.raises(ConfigurationError, match=r"Section \[VCENTER\]: missing"):
        load([], {})
    assert load([], {}, need_vcenter=False).vcenters == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password hunter2\n", "line 1: found a value before the first section"),
        ("[EAM]\npassword hunter2\n", "line 2: found neither a section nor a value"),
    ],
)
def test_a_line_that_is_no_setting_is_named_but_not_quoted(tmp_path: Path, text: str, expected: str) -> None:
    found = wrong(tmp_path, text)
    assert expected in found
    assert "hunter2" not in found


def test_a_file_that_is_not_text_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "binary.conf"
    path.write_bytes(b"\xff\xfe[EAM]")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        load([path], {})


def test_sections_may_repeat_and_later_files_win(tmp_path: Path) -> None:
    """Contrail's containers append a section again for values from the environment."""
    first = write(tmp_path / "1.conf", f"{RIGHT}\n[EAM]\nmode = observe\n[EAM]\nmode = act\npoll_seconds = 5\n")
    second = write(tmp_path / "2.conf", "[EAM]\npoll_seconds = 7\n")
    configuration = load([first, second], {})
    assert configuration.vcenters[0].eam.mode is Mode.ACT
    assert configuration.vcenters[0].eam.poll_seconds == 7
    assert configuration.origins["EAM", "mode"] == str(first)
    assert configuration.origins["EAM", "poll_seconds"] == str(second)


def test_environment_wins_and_its_mistakes_name_the_variable(tmp_path: Path) -> None:
    environ = {"VCENTER_EAM__EAM__mode": "act", "VCENTER_EAM__RABBIT__rabbit_hosts": "a:1 b, [::1]:3", "OTHER": "x"}
    configuration = read(tmp_path, RIGHT, environ)
    assert configuration.vcenters[0].eam.mode is Mode.ACT
    assert configuration.rabbit.rabbit_hosts == (Address("a", 1), Address("b"), Address("::1", 3))
    text = wrong(tmp_path, RIGHT, {"VCENTER_EAM__EAM__modes": "act", "VCENTER_EAM__x": "y"})
    assert "environment variable VCENTER_EAM__EAM__modes, section [EAM], option modes: unknown" in text
    assert "Environment variable VCENTER_EAM__x: allowed: VCENTER_EAM__<SECTION>__<option>" in text


def test_several_vcenters_share_what_the_plain_sections_hold(tmp_path: Path) -> None:
    text = f"""{RIGHT}
[EAM]
poll_seconds = 5
[VCENTER:east]
[VCENTER:west]
vc_host = west.example
[EAM:west]
mode = act
"""
    configuration = read(tmp_path, text, {"VCENTER_EAM__VCENTER__west__vc_port": "8443"})
    east, west = configuration.vcenters
    assert (east.name, east.vcenter.vc_host, east.eam.mode) == ("east", "vcenter.example", Mode.OBSERVE)
    assert (west.name, west.vcenter.vc_host, west.vcenter.vc_port) == ("west", "west.example", 8443)
    assert (west.eam.mode, west.eam.poll_seconds) == (Mode.ACT, 5)
    assert [title for title, _ in configuration.sections()][1:5] == [
        "VCENTER:east",
        "EAM:east",
        "VCENTER:west",
        "EAM:west",
    ]


def test_two_units_must_not_fight_over_one_agency(tmp_path: Path) -> None:
    text = wrong(tmp_path, f"{RIGHT}\n[VCENTER:a]\n[VCENTER:b]\nvc_host = VCENTER.example\n")
    assert "Sections [VCENTER:a] and [VCENTER:b]: the same vCenter with the same agency" in text


def test_secret_is_masked_and_a_secret_file_is_read_again(tmp_path: Path) -> None:
    """S02: a password that was changed on disk is used at the next login."""
    file = write(tmp_path / "password", "first\n")
    configuration = read(tmp_path, RIGHT.replace("vc_password = 50%off=[x]", f"vc_password_file = {file}"))
    secret = configuration.vcenters[0].vcenter.vc_password
    assert secret() == "first"
    write(file, "hunter2")
    assert secret() == "hunter2"
    assert "hunter2" not in repr(configuration)
    assert "50%off" not in repr(read(tmp_path, RIGHT))
    file.unlink()
    with pytest.raises(ConfigurationError, match=f"The secret in {file} cannot be read: No such file"):
        secret()


def test_secret_file_that_cannot_be_read_is_found_before_any_connection(tmp_path: Path) -> None:
    text = wrong(tmp_path, RIGHT.replace("vc_password = 50%off=[x]", "vc_password_file = /nonexistent"))
    assert "section [VCENTER], option vc_password_file: The secret in /nonexistent cannot be read" in text


def test_a_secret_from_the_environment_replaces_a_file_of_the_configuration(tmp_path: Path) -> None:
    text = RIGHT.replace("vc_password = 50%off=[x]", "vc_password_file = /nonexistent")
    configuration = read(tmp_path, text, {"VCENTER_EAM__VCENTER__vc_password": "from-env"})
    assert configuration.vcenters[0].vcenter.vc_password() == "from-env"


def test_alias_of_other_contrail_services_is_the_same_option(tmp_path: Path) -> None:
    assert read(tmp_path, f"{RIGHT}\n[RABBIT]\nrabbit_server = mq\n").rabbit.rabbit_hosts == (Address("mq"),)
    text = wrong(tmp_path, f"{RIGHT}\n[RABBIT]\nrabbit_server = mq\nrabbit_hosts = mq\n")
    assert "options rabbit_server and rabbit_hosts: both say the same thing" in text


def test_host_process_hands_over_its_own_sections() -> None:
    """S19: a host's parsed file holds much that is not ours; only what is unknown in [EAM] is a mistake."""
    host = configparser.ConfigParser()
    foreign = "[DEFAULT]\ncommon = x\n[KEYSTONE]\na = b\n[DEFAULTS]\nlisten_port = 8082\n"
    host.read_string(RIGHT.replace("50%off=[x]", "50%%off") + foreign)
    configuration = from_sections(host, environ={})
    assert configuration.vcenters[0].vcenter.vc_password() == "50%off", "as the host itself would read it"
    assert configuration.vcenters[0].vcenter.vc_host == "vcenter.example"
    assert configuration.origins["VCENTER", "vc_host"] == "the host process"
    host["EAM"]["modes"] = "act"
    with pytest.raises(ConfigurationError, match=r"the host process, section \[EAM\], option modes: unknown"):
        from_sections(host, environ={})


def test_host_process_may_hand_over_bytes_and_an_uninterpolated_percent() -> None:
    sections = {
        "VCENTER": {"vc_host": b"h", b"vc_username": "u", "vc_password": b"p%x", "vc_port": 8443},
        "EAM": {"clusters": "A"},
    }
    vcenter = from_sections(sections, environ={}).vcenters[0].vcenter
    assert (vcenter.vc_host, vcenter.vc_port, vcenter.vc_password()) == ("h", 8443, "p%x")
    for host in (configparser.RawConfigParser(), configparser.ConfigParser()):
        host.read_string(RIGHT)
        assert from_sections(host, environ={}).vcenters[0].vcenter.vc_password() == "50%off=[x]"


def test_file_of_ours_wins_over_sections_of_the_host(tmp_path: Path) -> None:
    sections = {"VCENTER": {"vc_host": "of-the-host"}}
    configuration = from_sections(sections, paths=[write(tmp_path / "a.conf", RIGHT)], environ={})
    assert configuration.vcenters[0].vcenter.vc_host == "vcenter.example"


def test_reading_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        read(tmp_path, RIGHT)
    assert not caplog.records


LOGIN = "vc_username = svc-contrail@vsphere.local\nvc_password = 50%off=[x]\n"


def test_an_extension_logs_in_by_certificate_without_user_or_password(tmp_path: Path) -> None:
    """S02: a service needs no password to keep when it is an extension with a certificate."""
    pem = tmp_path / "extension.pem"
    pem.write_text("a certificate with its key", "utf-8")
    login = f"vc_extension_key = net.example.eam\nvc_client_cert = {pem}\n"
    (unit,) = read(tmp_path, RIGHT.replace(LOGIN, login)).vcenters
    assert (unit.vcenter.vc_username, unit.vcenter.vc_client_cert, unit.vcenter.vc_tunnel_port) == ("", pem, 80)


@pytest.mark.parametrize(
    ("login", "says"),
    [
        ("", "option vc_username: missing"),
        ("vc_client_cert = {pem}\n", "option vc_extension_key: missing"),
        ("vc_client_key = {pem}\n" + LOGIN, "a key is useless without its certificate"),
        ("vc_client_cert = {pem}\nvc_extension_key = k\n" + LOGIN, "only one of them can say who logs in"),
    ],
)
def test_half_of_a_login_and_two_at_once_are_refused(tmp_path: Path, login: str, says: str) -> None:
    """Bad input: who logs in must be clear before any connection is made."""
    pem = tmp_path / "extension.pem"
    pem.write_text("a certificate with its key", "utf-8")
    assert says in wrong(tmp_path, RIGHT.replace(LOGIN, login.format(pem=pem)))


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        ("[RABBIT]\nrabbit_hosts=127.0.0.1, localhost, [::1]:5672", ()),
        ("[RABBIT]\nrabbit_hosts=mq1.example, localhost", ("Broker mq1.example: rabbit_use_ssl is not set",)),
        ("[RABBIT]\nrabbit_hosts=mq1.example\nrabbit_use_ssl=true", ()),
        ("[ZOOKEEPER]\nzookeeper_servers=10.0.0.1:2181", ("ZooKeeper 10.0.0.1: zookeeper_ssl_enable is not set",)),
        ("[ZOOKEEPER]\nzookeeper_servers=10.0.0.1:2181\nzookeeper_ssl_enable=true", ()),
        ("[VCENTER]\nvc_insecure=true", ("vcenter.example: vc_insecure is set; anybody on the way",)),
    ],
)
def test_what_crosses_the_network_for_everybody_is_said(tmp_path: Path, lines: str, warned: tuple[str, ...]) -> None:
    """TLS is verified wherever it is spoken; where it is not, a line at each start says so."""
    warnings = read(tmp_path, f"{RIGHT}\n{lines}\n").warnings
    assert len(warnings) == len(warned)
    assert all(text.startswith(start) for text, start in zip(warnings, warned, strict=True))
