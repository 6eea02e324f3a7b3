# SPDX-License-Identifier: Apache-2.0
"""Every setting of the plugin, once: its name, kind, default and description.

From these declarations follow the INI file, the environment, ``etc/vcenter_eam.conf``, ``docs/configuration.md`` and
``vcenter-eam config``. Names are those of other Contrail services where these have the setting too.

Sources, the later ones win: the sections of a host process, the files in their order, the environment
(``VCENTER_EAM__<SECTION>__<option>``, ``VCENTER_EAM__<SECTION>__<name>__<option>`` for a named section). Everything
that is wrong is reported at once, as one ConfigurationError, before any connection is made.
"""

from __future__ import annotations

import configparser
import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import six

from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.issues import CATALOGUE, Policy
from vcenter_eam_plugin.domain.planner import DEFAULT_AUTO_RESOLVE
from vcenter_eam_plugin.options import (
    ADDRESSES,
    BOOLEAN,
    FILE,
    LIST,
    NAME,
    PAIRS,
    PATH,
    SECRET,
    TEXT,
    THUMBPRINT,
    URL,
    Address,
    Option,
    Secret,
    choice,
    integer,
    members,
    number,
    option,
    options_of,
    template,
)

ENVIRONMENT_PREFIX = "VCENTER_EAM__"

SYSTEM_FILE = Path("/etc/contrail/contrail-vcenter-eam-plugin/vcenter_eam.conf")
"""Where a Contrail installation keeps the file; read by default when it exists."""

PORT = integer(1, 65535)


class Mode(StrEnum):
    """Whether anything may be changed in vCenter and EAM."""

    OBSERVE = "observe"
    ACT = "act"


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
    log_file: str = option(
        NAME,
        "File for the log, or <stdout>. A file is rotated at 5 MB and 10 old ones are kept.",
        default="<stdout>",
    )
    log_level: str = option(
        choice({level: level for level in LOG_LEVELS}), "The least urgent level that is logged.", default="SYS_NOTICE"
    )

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        if self.log_file != "<stdout>" and not self.log_file.startswith("/"):
            yield f"option log_file: found {self.log_file!r}; allowed: an absolute path, or <stdout>."


@dataclass(frozen=True, slots=True, kw_only=True)
class VCenterConfig:
    """One vCenter. Of several, each has a [VCENTER:name]; this plain section then holds what they share."""

    vc_host: str = option(NAME, "Host name or address of vCenter.")
    vc_port: int = option(PORT, "HTTPS port of vCenter.", default=443)
    vc_username: str = option(NAME, "User to log in with, such as svc-contrail@vsphere.local.")
    vc_password: Secret = option(SECRET, "Password of that user.", secret=True)
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
        "The .ovf descriptor of the ContrailVM, its files beside it, to be served by this service at ovf_base_url. "
        "Instead of ovf_url.",
        default=None,
    )
    ovf_properties: tuple[tuple[str, str], ...] = option(
        PAIRS, "OVF properties handed to each ContrailVM. Not for secrets: vCenter shows them to everybody.", default=()
    )
    vm_name_format: str = option(
        template("datacenter", "cluster", "host"),
        "How a ContrailVM is to be named. Checked, but not used by this release: EAM names them.",
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
        if self.ovf_url and self.ovf_package is not None:
            yield "options ovf_url and ovf_package: only one of them can be where the ContrailVM comes from."
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
    kombu_ssl_keyfile: Path | None = option(FILE, "PEM file with the key of that certificate.", default=None)
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
        integer(1, 1000), "Messages that may be on their way to the broker unconfirmed.", default=100
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
    """Leader election between instances. Checked, but not used by this release: an instance leads alone."""

    zookeeper_servers: tuple[Address, ...] = option(
        ADDRESSES,
        "The ZooKeeper servers; port 2181 unless named.",
        default=(Address("localhost", 2181),),
        aliases=("zk_server_ip",),
    )
    zk_timeout: float = option(number(1, 400), "Session time-out in seconds.", default=10.0)

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        yield from ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntrospectConfig:
    """The status page. Checked, but not used by this release."""

    http_server_ip: str = option(TEXT, "Address to listen on.", default="127.0.0.1")
    introspect_port: int = option(integer(0, 65535), "Port to listen on.", default=8115)

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        yield from ()


SECTIONS: Mapping[str, type[Any]] = {
    "DEFAULTS": DefaultsConfig,
    "VCENTER": VCenterConfig,
    "EAM": EamConfig,
    "RABBIT": RabbitConfig,
    "ZOOKEEPER": ZookeeperConfig,
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
    introspect: IntrospectConfig = IntrospectConfig()
    vcenters: tuple[VCenterUnit, ...] = ()
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict)

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
        yield "INTROSPECT", self.introspect


# --- reading ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """One value as somebody wrote it. ``rank`` orders the sources: the highest one wins."""

    text: str
    origin: str
    rank: int


_Raw = dict[str, dict[str, _Found]]


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
    problems: list[str] = []
    raw: _Raw = {}
    _read_sections(raw, sections)
    for rank, path in enumerate(paths, start=1):
        _read_file(raw, Path(path), rank, problems)
    _read_environment(raw, os.environ if environ is None else environ, len(paths) + 1, problems)
    configuration = _build(raw, problems, need_vcenter)
    if problems:
        raise ConfigurationError("\n".join(problems))
    return configuration


def _read_sections(raw: _Raw, sections: Mapping[str, Any]) -> None:
    inherited = sections.defaults() if isinstance(sections, configparser.RawConfigParser) else {}
    for title in sections:
        section, _, _ = str(title).partition(":")
        if section not in SECTIONS:
            continue
        known = _names(section)
        for name in sections[title]:
            key = six.ensure_text(name).lower()
            if key not in known and (section != "EAM" or name in inherited):
                continue
            try:
                value = sections[title][name]
            except configparser.InterpolationError:
                # A "%" that the host's parser cannot interpolate: take it as written, as our own parser does.
                value = sections[title].get(name, raw=True)
            if value is not None:
                text = six.ensure_text(value) if isinstance(value, bytes | str) else str(value)
                _put(raw, str(title), key, _Found(text.strip(), "the host process", 0))


def _read_file(raw: _Raw, path: Path, rank: int, problems: list[str]) -> None:
    # strict=False: Contrail's containers append a section again for values from the environment.
    # interpolation=None: "%" is a character like any other. default_section: [DEFAULT] is no section of ours.
    parser = configparser.ConfigParser(strict=False, interpolation=None, default_section="\0")
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as exc:
        problems.append(f"{path}: cannot be read: {exc.strerror}.")
        return
    except UnicodeDecodeError:
        problems.append(f"{path}: is not UTF-8 text.")
        return
    except configparser.MissingSectionHeaderError as exc:
        problems.append(f"{path}, line {exc.lineno}: found a value before the first section; allowed: [SECTION] first.")
        return
    except configparser.ParsingError as exc:
        # The parser's own sentence quotes the line, which may hold a password.
        lines = ", ".join(str(line) for line, _ in exc.errors)
        problems.append(f"{path}, line {lines}: found neither a section nor a value; allowed: option = value.")
        return
    for title in parser.sections():
        raw.setdefault(title, {})
        for name, value in parser.items(title):
            _put(raw, title, name, _Found(value.strip(), str(path), rank))


def _read_environment(raw: _Raw, environ: Mapping[str, str], rank: int, problems: list[str]) -> None:
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        parts = variable.removeprefix(ENVIRONMENT_PREFIX).split("__")
        match parts:
            case [section, name]:
                title = section
            case [section, unit, name]:
                title = f"{section}:{unit}"
            case _:
                problems.append(
                    f"Environment variable {variable}: allowed: {ENVIRONMENT_PREFIX}<SECTION>__<option> or "
                    f"{ENVIRONMENT_PREFIX}<SECTION>__<name>__<option>."
                )
                continue
        origin = f"environment variable {variable}"
        _put(raw, title, name.lower(), _Found(environ[variable].strip(), origin, rank))


def _put(raw: _Raw, title: str, name: str, found: _Found) -> None:
    raw.setdefault(title, {})[name] = found


def _names(section: str) -> dict[str, tuple[Option, bool]]:
    """All that may stand in a section: name -> (option, whether it is the ``_file`` form of a secret)."""
    names: dict[str, tuple[Option, bool]] = {}
    for each in options_of(SECTIONS[section]):
        for name in (each.name, *each.aliases):
            names[name] = (each, False)
            if each.secret:
                names[f"{name}_file"] = (each, True)
    return names


def _suggest(word: str, allowed: Iterable[str]) -> str:
    allowed = tuple(allowed)
    by_folded = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(word.lower(), by_folded, n=1)
    hint = f"did you mean {by_folded[close[0]]}? " if close else ""
    return f"{hint}Allowed: {', '.join(allowed)}."


def _build(raw: _Raw, problems: list[str], need_vcenter: bool) -> Configuration:
    for title, values in raw.items():
        section, colon, unit = title.partition(":")
        where = next((found.origin for found in values.values()), "The file")
        if section not in SECTIONS:
            problems.append(f"{where}, section [{title}]: unknown; {_suggest(section, SECTIONS)}")
        elif colon and (section not in NAMED or not unit.strip()):
            titles = " and ".join(f"[{name}:name]" for name in sorted(NAMED))
            problems.append(f"{where}, section [{title}]: allowed with a name: {titles}.")

    origins: dict[tuple[str, str], str] = {}
    rabbit = _section(RabbitConfig, "RABBIT", [raw.get("RABBIT", {})], problems, origins)
    defaults = _section(DefaultsConfig, "DEFAULTS", [raw.get("DEFAULTS", {})], problems, origins)
    introspect = _section(IntrospectConfig, "INTROSPECT", [raw.get("INTROSPECT", {})], problems, origins)
    zookeeper = None
    if raw.get("ZOOKEEPER"):
        zookeeper = _section(ZookeeperConfig, "ZOOKEEPER", [raw["ZOOKEEPER"]], problems, origins)
    defaults = defaults or DefaultsConfig()
    units = _units(raw, problems, origins, need_vcenter)
    served = any(unit.eam.ovf_package is not None for unit in units)
    if served and not defaults.ovf_base_url and defaults.ovf_server_ip in {"0.0.0.0", "::"}:  # noqa: S104 (compared)
        problems.append(
            f"Section [DEFAULTS], option ovf_base_url: missing; with ovf_package and ovf_server_ip = "
            f"{defaults.ovf_server_ip} it must say how vCenter reaches the OVF server."
        )
    return Configuration(
        defaults=defaults,
        rabbit=rabbit or RabbitConfig(),
        zookeeper=zookeeper,
        introspect=introspect or IntrospectConfig(),
        vcenters=units,
        origins=origins,
    )


def _units(
    raw: _Raw, problems: list[str], origins: dict[tuple[str, str], str], need_vcenter: bool
) -> tuple[VCenterUnit, ...]:
    def named(section: str) -> list[str]:
        prefix = f"{section}:"
        return [title.removeprefix(prefix) for title in raw if title.startswith(prefix) and title != prefix]

    names = named("VCENTER")
    problems.extend(
        f"Section [EAM:{name}]: there is no [VCENTER:{name}]; {_suggest(name, names) if names else 'add it.'}"
        for name in named("EAM")
        if name not in names
    )
    if not names:
        if "VCENTER" not in raw:
            if need_vcenter:
                problems.append("Section [VCENTER]: missing; it says which vCenter to log in to, and as whom.")
            return ()
        names = [ONLY_UNIT]

    units = []
    for name in names:
        suffix = "" if name == ONLY_UNIT and f"VCENTER:{name}" not in raw else f":{name}"
        parts: list[Any] = []
        for section, kind in (("VCENTER", VCenterConfig), ("EAM", EamConfig)):
            title = f"{section}{suffix}"
            layers = [raw.get(section, {}), raw.get(title, {})] if suffix else [raw.get(section, {})]
            parts.append(_section(kind, title, layers, problems, origins))
        if None not in parts:
            units.append(VCenterUnit(name, *parts))
    seen: dict[tuple[str, int, str], str] = {}
    for unit in units:
        same = seen.setdefault((unit.vcenter.vc_host.lower(), unit.vcenter.vc_port, unit.eam.agency_name), unit.name)
        if same != unit.name:
            problems.append(
                f"Sections [VCENTER:{same}] and [VCENTER:{unit.name}]: the same vCenter with the same agency; list all "
                f"clusters in one of them."
            )
    return tuple(units)


S = TypeVar("S")


def _section(
    kind: type[S],
    title: str,
    layers: Sequence[Mapping[str, _Found]],
    problems: list[str],
    origins: dict[tuple[str, str], str],
) -> S | None:
    """Values of one section; ``layers`` are the common section and the named one, the later one winning.

    Returns ``None`` when anything in it is wrong; then ``problems`` says what.
    """
    known = _names(title.partition(":")[0])
    before = len(problems)
    given: dict[str, tuple[_Found, str, bool]] = {}
    for layer in layers:
        of_layer: dict[str, tuple[_Found, str, bool]] = {}
        for name, found in layer.items():
            if name not in known:
                text = f"{found.origin}, section [{title}], option {name}: unknown; {_suggest(name, known)}"
                if text not in problems:  # the common section is met once per vCenter
                    problems.append(text)
                continue
            declared, is_file = known[name]
            other = of_layer.get(declared.name)
            if other is not None and other[0].rank == found.rank and other[1] != name:
                problems.append(
                    f"{found.origin}, section [{title}], options {other[1]} and {name}: both say the same thing; "
                    f"allowed: one of them."
                )
            elif other is None or found.rank >= other[0].rank:
                of_layer[declared.name] = (found, name, is_file)
        given.update(of_layer)

    values: dict[str, Any] = {}
    for each in options_of(kind):
        if each.name in given:
            found, name, is_file = given[each.name]
            origins[title, each.name] = found.origin
            value, problem = _value(each, found, is_file)
            if problem:
                problems.append(f"{found.origin}, section [{title}], option {name}: {problem}")
            values[each.name] = value
        elif each.required:
            forms = f"{each.name} or {each.name}_file" if each.secret else each.name
            problems.append(f"Section [{title}], option {forms}: missing; it has no default. {each.description}")
    if len(problems) > before:
        return None
    built = kind(**values)
    # Each of our section classes has it; a Protocol for one call would say no more.
    conflicts = [f"Section [{title}], {text}" for text in built.conflicts()]  # type: ignore[attr-defined]
    problems.extend(conflicts)
    return None if conflicts else built


def _value(declared: Option, found: _Found, is_file: bool) -> tuple[Any, str]:
    """The value and, instead of it, what is wrong with it."""
    if is_file:
        secret = Secret(file=Path(found.text))
        try:
            secret()
        except ConfigurationError as exc:
            return None, str(exc)
        return secret, ""
    try:
        return declared.kind.parse(found.text), ""
    except ValueError as exc:
        # rabbit_hosts could hold a password by mistake, like any text that does not parse as what it should be.
        shown = "a value that is not shown" if declared.secret or "@" in found.text else repr(found.text)
        detail = f" ({exc})" if str(exc) else ""
        return None, f"found {shown}{detail}; allowed: {declared.kind.allowed}."
