# SPDX-License-Identifier: Apache-2.0
"""Every setting of the plugin, once: its name, kind, default and description.

From these declarations follow the INI file, the environment, ``etc/vcenter_eam.conf``, ``docs/configuration.md`` and
``vcenter-eam config``. Names are those of other Contrail services where these have the setting too.

Sources, the later ones win: the sections of a host process, the files in their order, the environment
(``VCENTER_EAM__<SECTION>__<option>``, ``VCENTER_EAM__<SECTION>__<name>__<option>`` for a named section). Everything
that is wrong is reported at once, as one ConfigurationError, before any connection is made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from vcenter_eam_plugin.config_reader import Reader, suggest
from vcenter_eam_plugin.domain.credentials import credential_sign
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.health import OnDeadline
from vcenter_eam_plugin.domain.issues import CATALOGUE, Policy
from vcenter_eam_plugin.domain.planner import DEFAULT_AUTO_RESOLVE
from vcenter_eam_plugin.domain.violations import HANGS_SECONDS, LATE_SECONDS
from vcenter_eam_plugin.options import (
    ADDRESSES,
    BOOLEAN,
    FILE,
    KEY_FILE,
    LIST,
    NAME,
    PAIRS,
    PATH,
    PATH_OR_NONE,
    SECRET,
    TEXT,
    THUMBPRINT,
    URL,
    Address,
    Secret,
    choice,
    integer,
    members,
    number,
    option,
    template,
)
from vcenter_eam_plugin.permissions import others_may_write

ENVIRONMENT_PREFIX = "VCENTER_EAM__"

SYSTEM_FILE = Path("/etc/contrail/contrail-vcenter-eam-plugin/vcenter_eam.conf")
"""Where a Contrail installation keeps the file; read by default when it exists."""

PORT = integer(1, 65535)

LEAST_TOKEN = 20
"""Characters of a token: at 4 bits each 80 bits, which no guessing over a network gets through."""


class Mode(StrEnum):
    """Whether anything may be changed in vCenter and EAM."""

    OBSERVE = "observe"
    ACT = "act"


class LogFormat(StrEnum):
    """How a line of the log looks."""

    CONTRAIL = "contrail"
    JSON = "json"


LOG_LEVELS = (
    "SYS_EMERG",
    "SYS_ALERT",
    "SYS_CRIT",
    "SYS_ERR",
    "SYS_WARN",
    "SYS_NOTICE",
    "SYS_INFO",
    "SYS_DEBUG",
)
"""Contrail's names, most urgent first; :mod:`vcenter_eam_plugin.logs` maps them to Python's."""


_KEY = re.compile(r"keys?$", re.IGNORECASE)
_PUBLIC = re.compile(r"pub|authorized", re.IGNORECASE)


def _credential_sign(key: str, value: str) -> str:
    """Why an OVF property looks like a credential; its own name ``key`` too, unless it is a public key."""
    if sign := credential_sign(key, value):
        return sign
    return "its name says that it is a key" if _KEY.search(key) and not _PUBLIC.search(key) else ""


def _anybodys(program: str) -> bool:
    try:
        return others_may_write(Path(program)) if "/" in program else False
    except OSError:
        return False  # that it is not there is said when it is run


RESOLVABLE = tuple(name for name, row in CATALOGUE.items() if row.policy in (Policy.AUTO, Policy.AUTO_AFTER_FIX))
"""The issue types that may be resolved without asking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultsConfig:
    """The process itself."""

    state_directory: Path = option(
        PATH,
        "Where the outbox is kept: messages not yet confirmed by the broker and the states last published. Keep it "
        "over restarts; without it every state is published again. One directory per process.",
        default=Path("/var/lib/contrail/vcenter-eam-plugin"),
    )
    ovf_server_ip: str = option(
        NAME,
        "Address on which OVF packages (ovf_package) are served to vCenter; loopback reaches no real vCenter.",
        default="127.0.0.1",
    )
    ovf_server_port: int = option(
        integer(0, 65535), "Port of that server; 0 takes any free one, which no agency outlives.", default=8116
    )
    ovf_base_url: str = option(
        URL,
        "How vCenter reaches that server, such as http://contrail.example:8116. It becomes part of the agency, so name "
        "what stays: a name or a virtual address. Empty: the address itself.",
        default="",
    )
    ovf_server_cert: Path | None = option(
        FILE,
        "PEM file with a certificate (before its intermediates, if any): packages are then served over HTTPS, and new "
        "agencies trust exactly this certificate (vCenter 8.0 U2 and later). All instances need the same.",
        default=None,
    )
    ovf_server_key: Path | None = option(
        KEY_FILE, "PEM file with the key of that certificate, without a password.", default=None
    )
    log_file: str = option(
        NAME,
        "File for the log, or <stdout>. A file is rotated at 5 MB and 10 old ones are kept.",
        default="<stdout>",
    )
    log_level: str = option(
        choice({level: level for level in LOG_LEVELS}), "The least urgent level that is logged.", default="SYS_NOTICE"
    )
    vrouter_map_file: Path | None = option(
        PATH_OR_NONE,
        "The ESXiToVRouterIp.map of the Java contrail-vcenter-plugin on this machine, to be kept up to date: a line "
        "for each ESXi host's name and address. It is rewritten in place, and lines of others are left alone. Empty: "
        "not written.",
        default=None,
    )

    log_format: LogFormat = option(
        choice({format_.value: format_ for format_ in LogFormat}),
        "contrail: lines as Contrail's services write them; json: one JSON object a line, for whoever collects logs.",
        default=LogFormat.CONTRAIL,
    )

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        if self.log_file != "<stdout>" and not self.log_file.startswith("/"):
            yield f"option log_file: found {self.log_file!r}; allowed: an absolute path, or <stdout>."
        if (self.ovf_server_cert is None) != (self.ovf_server_key is None):
            yield "options ovf_server_cert and ovf_server_key: one is useless without the other."
        elif self.ovf_server_cert is not None and self.ovf_base_url.lower().startswith("http:"):
            yield f"option ovf_base_url: found {self.ovf_base_url!r}; allowed with ovf_server_cert: an https:// URL."


@dataclass(frozen=True, slots=True, kw_only=True)
class VCenterConfig:
    """One vCenter. Of several, each has a [VCENTER:name]; this plain section then holds what they share."""

    vc_host: str = option(NAME, "Host name or address of vCenter.")
    vc_port: int = option(PORT, "HTTPS port of vCenter.", default=443)
    vc_username: str = option(
        TEXT,
        "User to log in with, such as svc-contrail@vsphere.local. Must be given, unless vc_client_cert logs in.",
        default="",
    )
    vc_password: Secret = option(
        SECRET, "Password of that user. Must be given with vc_username.", default=Secret(), secret=True
    )
    vc_extension_key: str = option(
        TEXT,
        "Key of the vCenter extension to log in as, such as net.example.contrail-eam; vcenter-eam extension register "
        "makes one. With vc_client_cert by certificate, else as vc_username, which must be its service account "
        "(vCenter 8.0 U2 and later). Empty: as a plain user. Who logs in owns the agency; docs/operations.md says how "
        "to change that.",
        default="",
    )
    vc_client_cert: Path | None = option(
        KEY_FILE, "PEM file with the certificate of that extension. Instead of vc_username.", default=None
    )
    vc_client_key: Path | None = option(
        KEY_FILE,
        "PEM file with the key of that certificate, without a password. Empty: it is in the file of vc_client_cert.",
        default=None,
    )
    vc_tunnel_port: int = option(
        integer(0, 65535),
        "Port of vCenter through which the login by certificate reaches its SDK tunnel (sdkTunnel:8089), the only "
        "place where vCenter asks for one. 0: no tunnel, the login goes to vc_port.",
        default=80,
    )
    vc_ca_certs: Path | None = option(
        FILE,
        "PEM file with the CA certificates to trust for vCenter, instead of the system's.",
        default=None,
    )
    vc_thumbprint: str = option(
        THUMBPRINT, "Trust exactly the certificate with this thumbprint, whoever signed it.", default=""
    )
    vc_insecure: bool = option(
        BOOLEAN, "Accept any certificate. Anybody on the way can then read the password.", default=False
    )
    vc_call_timeout: float = option(
        number(1, 3600), "Seconds after which a call to vCenter or EAM is given up.", default=30.0
    )
    vc_wait_seconds: int = option(
        integer(1, 1800),
        "Seconds that one wait for changes may last before the server is asked again.",
        default=30,
    )

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        yield from self._login_conflicts()
        given = [
            name
            for name, on in (
                ("vc_ca_certs", self.vc_ca_certs is not None),
                ("vc_thumbprint", bool(self.vc_thumbprint)),
                ("vc_insecure", self.vc_insecure),
            )
            if on
        ]
        if len(given) > 1:
            yield f"options {' and '.join(given)}: only one of them can decide what is trusted."

    def _login_conflicts(self) -> Iterator[str]:
        if self.vc_extension_key.lower().startswith("com.vmware."):
            yield f"option vc_extension_key: found {self.vc_extension_key!r}, a key of VMware's; allowed: others."
        if self.vc_client_cert is None:
            if self.vc_client_key is not None:
                yield "options vc_client_cert and vc_client_key: a key is useless without its certificate."
            if not self.vc_username:
                yield "option vc_username: missing; it says who logs in, unless vc_client_cert does."
            if self.vc_password == Secret():
                yield "option vc_password or vc_password_file: missing; vc_username needs it."
            return
        if not self.vc_extension_key:
            yield "option vc_extension_key: missing; vc_client_cert logs in as an extension, and this says as which."
        if self.vc_username:
            yield "options vc_username and vc_client_cert: only one of them can say who logs in."


@dataclass(frozen=True, slots=True, kw_only=True)
class EamConfig:
    """What to keep on the hosts of that vCenter, and how far to go for it. Of several: [EAM:name]."""

    mode: Mode = option(
        choice({mode.value: mode for mode in Mode}),
        "observe: watch, publish and plan, change nothing. act: also create the agency, set Agent VM settings and "
        "repair.",
        default=Mode.OBSERVE,
    )
    clusters: tuple[str, ...] = option(
        LIST,
        "Clusters and standalone hosts that get a ContrailVM on every host: inventory paths such as "
        "/DC0/host/prod/ClusterA, or names (ClusterA, DC0/ClusterA) where these are not ambiguous. Removing one here "
        "never takes a ContrailVM away.",
    )
    agency_name: str = option(NAME, "Name of the EAM agency to use or to create.", default="ContrailVM-Agency")
    agent_name: str = option(NAME, "Name of the agents; EAM derives the VM names from it.", default="ContrailVM")
    ovf_url: str = option(
        URL,
        "Where EAM fetches the OVF descriptor of the ContrailVM from, if another server has it. To create the agency, "
        "this or ovf_package is needed; an agency that exists keeps its URL.",
        default="",
    )
    ovf_package: Path | None = option(
        FILE,
        "The .ovf descriptor of the ContrailVM, its files beside it, or an .ova archive, to be served by this service "
        "at ovf_base_url. Instead of ovf_url. Keep old ones where they are while agencies use them.",
        default=None,
    )
    ovf_certificate: Path | None = option(
        FILE,
        "PEM file with the certificate of the server of ovf_url, or of what ends TLS in front of ovf_base_url: new "
        "agencies trust exactly it (vCenter 8.0 U2 and later, which else asks its own trusted roots).",
        default=None,
    )
    ovf_properties: tuple[tuple[str, str], ...] = option(
        PAIRS,
        "OVF properties handed to each ContrailVM; all that the OVF has as user-configurable. Not for secrets: vCenter "
        "shows them to everybody, so what looks like one is refused.",
        default=(),
    )
    ovf_allow_secret_properties: bool = option(
        BOOLEAN, "Hand over OVF properties also if they look like a password, a token or a key.", default=False
    )
    vm_name_format: str = option(
        template("datacenter", "cluster", "host"),
        'How a ContrailVM is named while it is held after provisioning; EAM\'s own names are "agent_name (n)".',
        default="ContrailVM-{datacenter}-{host}",
    )
    hold_after_provisioning: bool = option(
        BOOLEAN,
        "Have EAM hold each new ContrailVM powered off until the plugin marks it available. The user must be "
        "allowed to mark.",
        default=False,
    )
    hold_after_power_on: bool = option(
        BOOLEAN,
        "Have EAM treat each ContrailVM as unavailable after power-on until the plugin marks it available. The user "
        "must be allowed to mark.",
        default=False,
    )
    auto_resolve: tuple[str, ...] = option(
        members(RESOLVABLE),
        "EAM issues that are resolved without asking, in mode act. A list can only be shorter than the default: others "
        "need a person, clear by themselves, or would take a host out of maintenance.",
        default=RESOLVABLE,
    )
    agent_vm_datastore: tuple[str, ...] = option(
        LIST,
        "Shell patterns of datastore names. Where a host's Agent VM datastore is unset, the first pattern that "
        "matches any of its datastores decides, and the one with most free space is set. Empty: never set.",
        default=(),
    )
    agent_vm_network: tuple[str, ...] = option(
        LIST,
        "Shell patterns of network names. Where a host's Agent VM network is unset, the first pattern that matches "
        "decides. Empty: never set.",
        default=(),
    )
    poll_seconds: float = option(
        number(1, 300),
        "Seconds between two reads of EAM's state, which has no change stream; events cause a read at once.",
        default=10.0,
    )
    max_concurrent_repairs: int = option(integer(1, 64), "Repairs that may run at once in one cluster.", default=4)
    repairs_per_hour: int = option(integer(1, 10000), "Repairs that may start per hour in one cluster.", default=60)
    host_spec_file: Path | None = option(
        FILE,
        "YAML file that says what each host's ContrailVM is to look like: name, adapters, addresses, devices, sizes. "
        "It is applied while a ContrailVM is held after provisioning (hold_after_provisioning).",
        default=None,
    )
    health_gate: bool = option(
        BOOLEAN,
        "Mark a ContrailVM as available only once its vRouter agent answers, after every power-on; until then DRS "
        "keeps tenant VMs off the host. Holds after power-on, so the user must be allowed to mark.",
        default=False,
    )
    health_deadline_seconds: float = option(
        number(1, 86400), "Seconds after which a ContrailVM that is held for its health is dealt with.", default=600.0
    )
    on_health_deadline: OnDeadline = option(
        choice({each.value: each for each in OnDeadline}),
        "release: mark it as available all the same, with an alarm. hold: keep tenant VMs off the host until it is "
        "healthy, or until somebody releases it.",
        default=OnDeadline.RELEASE,
    )
    vrouter_port: int = option(PORT, "Port of the vRouter agent's introspect in a ContrailVM.", default=8085)
    install_command: tuple[str, ...] = option(
        LIST,
        "Program and arguments, run once for each ContrailVM that is held for its health and has no vRouter installed. "
        "It reads the host's facts as JSON on standard input, and gets PATH, HOME and the like of our environment.",
        default=(),
    )
    late_power_on_seconds: float = option(
        number(1, 3600),
        "Seconds after a host left maintenance within which its ContrailVM must be on; later is published as a broken "
        "rule.",
        default=LATE_SECONDS,
    )
    exit_hangs_seconds: float = option(
        number(1, 86400),
        "Seconds for which a host's exit from maintenance may wait for its ContrailVM; longer is published as a broken "
        "rule.",
        default=HANGS_SECONDS,
    )
    slots_seconds: float = option(
        number(1, 86400),
        "Seconds between two looks at what HA counts in its slots; each is two calls per cluster.",
        default=120.0,
    )
    power_off_grace_seconds: float = option(
        number(0, 3600),
        "Seconds for which an unexplained power-off is left alone: a host may be on its way into maintenance.",
        default=30.0,
    )

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        if not self.clusters:
            yield "option clusters: found nothing; allowed: at least one cluster or standalone host."
        if self.ovf_url and self.ovf_package is not None:
            yield "options ovf_url and ovf_package: both say where the package is; allowed: one of them."
        if self.install_command and _anybodys(self.install_command[0]):
            yield f"option install_command: everybody may write to {self.install_command[0]}, which this service runs."
        for key, value in self.ovf_properties:
            why = "" if self.ovf_allow_secret_properties else _credential_sign(key, value)
            if why:
                yield (
                    f"option ovf_properties: {key!r}: {why}, and vCenter shows OVF properties to everybody; allowed: "
                    "others; or ovf_allow_secret_properties = true, if it is none."
                )
        for name in self.auto_resolve:
            if name not in DEFAULT_AUTO_RESOLVE:
                yield (
                    f"option auto_resolve: found {name!r}, which is never resolved without asking; allowed: "
                    f"{', '.join(sorted(DEFAULT_AUTO_RESOLVE))}."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitConfig:
    """The message bus, RabbitMQ."""

    rabbit_hosts: tuple[Address, ...] = option(
        ADDRESSES,
        "The brokers; the next one is tried when one fails.",
        default=(Address("localhost"),),
        aliases=("rabbit_server",),
    )
    rabbit_port: int = option(PORT, "Port of those that name none.", default=5672)
    rabbit_vhost: str = option(NAME, "Virtual host.", default="/")
    rabbit_user: str = option(NAME, "User name.", default="guest")
    rabbit_password: Secret = option(SECRET, "Password (guest unless given).", default=Secret("guest"), secret=True)
    rabbit_use_ssl: bool = option(BOOLEAN, "Speak TLS to the brokers and verify their certificates.", default=False)
    kombu_ssl_ca_certs: Path | None = option(
        FILE,
        "PEM file with the CA certificates to trust for brokers, instead of the system's.",
        default=None,
    )
    kombu_ssl_certfile: Path | None = option(FILE, "PEM file with a client certificate.", default=None)
    kombu_ssl_keyfile: Path | None = option(KEY_FILE, "PEM file with the key of that certificate.", default=None)
    rabbit_health_check_interval: int = option(
        integer(0, 3600), "Seconds of the AMQP heartbeat; 0 switches it off.", default=10
    )
    rabbit_max_pending_updates: int = option(
        integer(1, 1_000_000),
        "Unsent messages to keep. Above that a newer state replaces an unsent older one of the same ContrailVM; a "
        "deletion is never replaced.",
        default=4096,
    )
    exchange: str = option(NAME, "Durable topic exchange to publish on.", default="vcenter_eam.contrailvm-update")
    queue: str = option(
        NAME,
        "Durable queue that is bound to it, so that nothing is lost before a consumer first comes.",
        default="vcenter_eam.analytics",
    )
    publish_window: int = option(
        integer(1, 1000), "Messages that may be on their way to the broker unconfirmed.", default=250
    )
    snapshot_minutes: int = option(
        integer(0, 10080), "Minutes between two snapshots of all states; 0: only after a start.", default=60
    )

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        if (self.kombu_ssl_certfile is None) != (self.kombu_ssl_keyfile is None):
            yield "options kombu_ssl_certfile and kombu_ssl_keyfile: one is useless without the other."
        tls_files = (self.kombu_ssl_ca_certs, self.kombu_ssl_certfile, self.kombu_ssl_keyfile)
        if any(tls_files) and not self.rabbit_use_ssl:
            yield "option rabbit_use_ssl: found false, although TLS files are given; allowed: true."


@dataclass(frozen=True, slots=True, kw_only=True)
class ZookeeperConfig:
    """Leader election between instances. Without this section an instance leads alone."""

    zookeeper_servers: tuple[Address, ...] = option(
        ADDRESSES,
        "The ZooKeeper servers; port 2181 unless named.",
        default=(Address("localhost", 2181),),
        aliases=("zk_server_ip",),
    )
    zk_timeout: float = option(
        number(1, 400),
        "Seconds after which a leader that is not heard of is replaced; the servers may grant more or less (2 to 20 of "
        "their ticks).",
        default=10.0,
    )
    zookeeper_ssl_enable: bool = option(
        BOOLEAN, "Speak TLS to the servers and verify their certificates.", default=False
    )
    zookeeper_ssl_ca_cert: Path | None = option(
        FILE, "PEM file with the CA certificates to trust for them, instead of the system's.", default=None
    )
    zookeeper_ssl_certificate: Path | None = option(FILE, "PEM file with a client certificate.", default=None)
    zookeeper_ssl_keyfile: Path | None = option(
        KEY_FILE, "PEM file with the key of that certificate, without a password.", default=None
    )

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        if (self.zookeeper_ssl_certificate is None) != (self.zookeeper_ssl_keyfile is None):
            yield "options zookeeper_ssl_certificate and zookeeper_ssl_keyfile: one is useless without the other."
        files = (self.zookeeper_ssl_ca_cert, self.zookeeper_ssl_certificate, self.zookeeper_ssl_keyfile)
        if any(files) and not self.zookeeper_ssl_enable:
            yield "option zookeeper_ssl_enable: found false, although TLS files are given; allowed: true."


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyticsConfig:
    """Contrail's analytics, for vcenter-eam analytics-bridge. A host process has collectors of its own."""

    collectors: tuple[Address, ...] = option(
        ADDRESSES,
        "The contrail-collectors to send to; port 8086 unless named.",
        default=(Address("127.0.0.1", 8086),),
    )

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        yield from ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntrospectConfig:
    """The way in over the network: JSON API and health, for this machine alone unless told otherwise."""

    http_server_ip: str = option(
        TEXT,
        "Address to listen on. One that others can reach needs introspect_ssl_certfile and introspect_token, and then "
        "also whoever only reads must show the token. Empty: nothing is served.",
        default="127.0.0.1",
    )
    introspect_port: int = option(
        integer(0, 65535), "Port to listen on; 0 takes any free one, which the log names.", default=8115
    )
    introspect_token: Secret = option(
        SECRET,
        f"Whoever shows this token may change things; at least {LEAST_TOKEN} characters, such as from openssl rand "
        "-hex 32. Empty: over the network nothing can be changed, only by vcenter-eam on this machine.",
        default=Secret(),
        secret=True,
    )
    introspect_names: tuple[str, ...] = option(
        LIST,
        "Names by which clients reach it, beside its addresses and localhost. Requests for other names are refused: "
        "with a name of its own a foreign web page could read through a visitor's browser (DNS rebinding).",
        default=(),
    )
    introspect_ssl_certfile: Path | None = option(
        FILE,
        "PEM file with a certificate (before its intermediates, if any): it is then served over HTTPS.",
        default=None,
    )
    introspect_ssl_keyfile: Path | None = option(
        KEY_FILE, "PEM file with the key of that certificate, without a password.", default=None
    )

    @property
    def exposed(self) -> bool:
        """Whether others than this machine may reach it."""
        return bool(self.http_server_ip) and not is_this_machine(self.http_server_ip)

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        if (self.introspect_ssl_certfile is None) != (self.introspect_ssl_keyfile is None):
            yield "options introspect_ssl_certfile and introspect_ssl_keyfile: one is useless without the other."
        if self.exposed and self.introspect_ssl_certfile is None:
            yield (
                f"option introspect_ssl_certfile: missing; at http_server_ip = {self.http_server_ip} the token would "
                "cross the network for everybody to read."
            )
        if self.introspect_token == Secret():
            if self.exposed:
                yield (
                    "option introspect_token or introspect_token_file: missing; at http_server_ip = "
                    f"{self.http_server_ip} everybody could read."
                )
        elif len(self.introspect_token()) < LEAST_TOKEN:
            yield f"option introspect_token: found fewer than {LEAST_TOKEN} characters; allowed: what nobody can guess."


SECTIONS: Mapping[str, type[Any]] = {
    "DEFAULTS": DefaultsConfig,
    "VCENTER": VCenterConfig,
    "EAM": EamConfig,
    "RABBIT": RabbitConfig,
    "ZOOKEEPER": ZookeeperConfig,
    "ANALYTICS": AnalyticsConfig,
    "INTROSPECT": IntrospectConfig,
}
"""Sections in the order of the sample file."""

NAMED = frozenset({"VCENTER", "EAM"})
"""Sections that may occur once per vCenter, as ``[VCENTER:name]``."""

ONLY_UNIT = "default"
"""Name of the one vCenter of a file without named sections."""


@dataclass(frozen=True, slots=True)
class VCenterUnit:
    """One vCenter with what is to be kept there; each has a pipeline of its own."""

    name: str
    vcenter: VCenterConfig
    eam: EamConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The whole, checked. ``origins`` tells, per ``(section, option)`` that was given, by whom."""

    defaults: DefaultsConfig = DefaultsConfig()
    rabbit: RabbitConfig = RabbitConfig()
    zookeeper: ZookeeperConfig | None = None
    """``None`` when the section is absent or empty: then the instance leads alone."""
    analytics: AnalyticsConfig = AnalyticsConfig()
    introspect: IntrospectConfig = IntrospectConfig()
    vcenters: tuple[VCenterUnit, ...] = ()
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """What works and should not stay so, one sentence each."""

    def sections(self) -> Iterator[tuple[str, Any]]:
        """Section names, as they would stand in one file, with their values."""
        yield "DEFAULTS", self.defaults
        for unit in self.vcenters:
            suffix = "" if unit.name == ONLY_UNIT else f":{unit.name}"
            yield f"VCENTER{suffix}", unit.vcenter
            yield f"EAM{suffix}", unit.eam
        yield "RABBIT", self.rabbit
        if self.zookeeper is not None:
            yield "ZOOKEEPER", self.zookeeper
        yield "ANALYTICS", self.analytics
        yield "INTROSPECT", self.introspect


def load(
    paths: Sequence[str | os.PathLike[str]] = (),
    environ: Mapping[str, str] | None = None,
    *,
    need_vcenter: bool = True,
) -> Configuration:
    """Read INI files, the later ones winning, and the environment (``os.environ`` unless given).

    ``need_vcenter`` is false for commands that talk to the broker alone. Raises ConfigurationError that names all
    that is wrong.
    """
    return from_sections({}, paths=paths, environ=environ, need_vcenter=need_vcenter)


def from_sections(
    sections: Mapping[str, Any],
    *,
    paths: Sequence[str | os.PathLike[str]] = (),
    environ: Mapping[str, str] | None = None,
    need_vcenter: bool = True,
) -> Configuration:
    """The same with the sections that a host process has parsed (its ConfigParser, or a mapping of mappings) below.

    The host's file is not ours alone: what is unknown in it is ignored, except in ``[EAM]``.
    """
    reader = Reader(SECTIONS, NAMED)
    reader.take_sections(sections, ours={"EAM"})
    for path in paths:
        reader.take_file(Path(path))
    reader.take_environment(os.environ if environ is None else environ, ENVIRONMENT_PREFIX)
    reader.check_titles()
    configuration = _build(reader, need_vcenter)
    if reader.problems:
        raise ConfigurationError(str(reader.problems))
    return configuration


def _build(reader: Reader, need_vcenter: bool) -> Configuration:
    # A section that could not be built has put its problems into the reader; defaults let the others be checked, too.
    rabbit = reader.build(RabbitConfig, "RABBIT") or RabbitConfig()
    defaults = reader.build(DefaultsConfig, "DEFAULTS") or DefaultsConfig()
    analytics = reader.build(AnalyticsConfig, "ANALYTICS") or AnalyticsConfig()
    introspect = reader.build(IntrospectConfig, "INTROSPECT") or IntrospectConfig()
    zookeeper = reader.build(ZookeeperConfig, "ZOOKEEPER") if reader.has_values("ZOOKEEPER") else None
    units = _units(reader, need_vcenter)
    served = any(unit.eam.ovf_package is not None for unit in units)
    if served and not defaults.ovf_base_url and defaults.ovf_server_ip in {"0.0.0.0", "::"}:  # noqa: S104 (compared)
        reader.problems.append(
            f"Section [DEFAULTS], option ovf_base_url: missing; with ovf_package and ovf_server_ip = "
            f"{defaults.ovf_server_ip} it must say how vCenter reaches the OVF server."
        )
    if served and zookeeper is not None and not defaults.ovf_base_url:
        reader.problems.append(
            "Section [DEFAULTS], option ovf_base_url: missing; with [ZOOKEEPER] and ovf_package it must be a name or "
            "address that reaches whichever instance runs, because the agency keeps it."
        )
    return Configuration(
        defaults=defaults,
        rabbit=rabbit,
        zookeeper=zookeeper,
        analytics=analytics,
        introspect=introspect,
        vcenters=units,
        origins=reader.origins,
        # A common section is met once per named one.
        warnings=tuple(dict.fromkeys((*reader.warnings, *_unprotected(units, rabbit, zookeeper)))),
    )


def _unprotected(
    units: Sequence[VCenterUnit], rabbit: RabbitConfig, zookeeper: ZookeeperConfig | None
) -> Iterator[str]:
    """What crosses the network for everybody on the way, by the operator's or by Contrail's choice."""
    for unit in units:
        if unit.vcenter.vc_insecure:
            yield f"{unit.vcenter.vc_host}: vc_insecure is set; anybody on the way can read the password."
    for where in () if rabbit.rabbit_use_ssl else rabbit.rabbit_hosts:
        if not is_this_machine(where.host):
            yield f"Broker {where.host}: rabbit_use_ssl is not set; anybody on the way can read the password."
    for where in () if zookeeper is None or zookeeper.zookeeper_ssl_enable else zookeeper.zookeeper_servers:
        if not is_this_machine(where.host):
            yield f"ZooKeeper {where.host}: zookeeper_ssl_enable is not set; anybody on the way can say who leads."


def is_this_machine(host: str) -> bool:
    """Whether it is loopback. A name that is not localhost counts as another: who knows what it resolves to."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _units(reader: Reader, need_vcenter: bool) -> tuple[VCenterUnit, ...]:
    names = reader.units("VCENTER")
    reader.problems.extend(
        f"Section [EAM:{name}]: there is no [VCENTER:{name}]; {suggest(name, names) if names else 'add it.'}"
        for name in reader.units("EAM")
        if name not in names
    )
    if names:
        titles = {name: f":{name}" for name in names}
    elif reader.has("VCENTER"):
        titles = {ONLY_UNIT: ""}
    else:
        titles = {}
        if need_vcenter:
            reader.problems.append("Section [VCENTER]: missing; it says which vCenter to log in to, and as whom.")
    units = []
    for name, suffix in titles.items():
        vcenter = reader.build(VCenterConfig, f"VCENTER{suffix}")
        eam = reader.build(EamConfig, f"EAM{suffix}")
        if vcenter is not None and eam is not None:
            units.append(VCenterUnit(name, vcenter, eam))
    seen: dict[tuple[str, int, str], str] = {}
    for unit in units:
        same = seen.setdefault((unit.vcenter.vc_host.lower(), unit.vcenter.vc_port, unit.eam.agency_name), unit.name)
        if same != unit.name:
            reader.problems.append(
                f"Sections [VCENTER:{same}] and [VCENTER:{unit.name}]: the same vCenter with the same agency; list all "
                f"clusters in one of them."
            )
    return tuple(units)
