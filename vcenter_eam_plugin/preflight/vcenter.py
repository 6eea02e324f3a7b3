# SPDX-License-Identifier: Apache-2.0
"""One vCenter and its EAM, from its name to the Agent VM settings of each host in scope. Reads only."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime

import gevent
from pyVmomi import vim

from vcenter_eam_plugin import host_spec_file
from vcenter_eam_plugin.config import Configuration, Mode, VCenterUnit
from vcenter_eam_plugin.domain.errors import (
    CertificateRejected,
    ConfigurationError,
    LoginRefused,
    PluginError,
    PrivilegeMissing,
)
from vcenter_eam_plugin.domain.facts import AgencyFacts, ComputeResourceFacts
from vcenter_eam_plugin.domain.host_spec import HostSpecs
from vcenter_eam_plugin.domain.ownership import judge, owner_of
from vcenter_eam_plugin.domain.settings_rules import SettingsRules
from vcenter_eam_plugin.eam.client import EamClient
from vcenter_eam_plugin.ovf.descriptor import Descriptor
from vcenter_eam_plugin.preflight import agent_vm_settings
from vcenter_eam_plugin.preflight.finding import Finding, Subject
from vcenter_eam_plugin.unit import session_settings
from vcenter_eam_plugin.vsphere import privileges, scope
from vcenter_eam_plugin.vsphere.properties import read_objects
from vcenter_eam_plugin.vsphere.session import Session

CONNECT_SECONDS = 5.0
"""For name and port; whatever takes longer would fail in production, too."""
SKEW_WARN_SECONDS = 5.0
"""Messages carry our time and logs vCenter's: more apart, and a person who compares them is misled."""
SKEW_FAIL_SECONDS = 300.0
"""At which certificates and tokens begin to be refused."""
AFTER_LOGIN = ("clock", "privileges", "EAM", "clusters", *agent_vm_settings.CHECKS, "own endpoints")


def look(
    configuration: Configuration, unit: VCenterUnit, package: Descriptor | None, *, wall_clock: Callable[[], float]
) -> Iterator[Finding]:
    """Everything about one vCenter. ``package`` is what is to be deployed there, if it could be read; ``wall_clock``
    gives POSIX seconds."""
    about = Subject(f"vCenter {unit.name}")
    host, port = unit.vcenter.vc_host, unit.vcenter.vc_port
    trouble = _reach(host, port)
    yield from trouble.findings(about)
    if trouble.check:
        for check in ("certificate", "login", *AFTER_LOGIN):
            yield about.skipped(check, f"{trouble.check} failed")
        return
    with closing(Session(session_settings(unit.vcenter))) as session:
        failed = ""
        for finding in _login(about, session):
            failed = finding.check if finding.verdict == "fail" else failed
            yield finding
        if failed:
            for check in (*(("login",) if failed == "certificate" else ()), *AFTER_LOGIN):
                yield about.skipped(check, f"{failed} failed")
            return
        yield from _Looked(about, configuration, unit, session, package, wall_clock).findings()


class _Reached:
    """Name and port of a server: which of them failed, and how."""

    def __init__(self, check: str = "", text: str = "", addresses: str = "") -> None:
        self.check = check
        self._text = text
        self._addresses = addresses

    def findings(self, about: Subject) -> Iterator[Finding]:
        if self.check == "name":
            yield about.failed("name", self._text, "Check vc_host, and the DNS that this machine asks.")
            yield about.skipped("port", "name failed")
            return
        yield about.passed("name", self._addresses)
        if self.check == "port":
            yield about.failed(
                "port", self._text, "Check vc_port, that vCenter runs, and the firewall between this machine and it."
            )
        else:
            yield about.passed("port", "accepts connections")


def _reach(host: str, port: int) -> _Reached:
    try:
        with gevent.Timeout(CONNECT_SECONDS, TimeoutError("no answer in time")):
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, TimeoutError) as exc:
        return _Reached("name", f"{host} cannot be resolved: {exc.strerror or exc}")
    addresses = ", ".join(dict.fromkeys(str(each[4][0]) for each in found))
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as exc:
        return _Reached("port", f"{host}:{port} does not accept connections: {exc.strerror or exc}", addresses)
    return _Reached(addresses=f"{host} is {addresses}")


def _login(about: Subject, session: Session) -> Iterator[Finding]:
    settings = session.settings
    by = f"ca file {settings.ca_file}" if settings.ca_file else "thumbprint" if settings.thumbprint else "the system"
    try:
        session.open()
    except CertificateRejected as exc:
        yield about.refused("certificate", exc)
        return
    except ConfigurationError as exc:
        yield about.refused("certificate" if "CA file" in exc.message else "login", exc)
        return
    except LoginRefused as exc:
        yield about.passed("certificate", f"trusted by {by}")
        yield about.refused("login", exc)
        return
    except PluginError as exc:
        yield about.refused("login", exc, "Check vc_host and vc_port, and that vCenter is up.")
        return
    if settings.insecure:
        yield about.warned(
            "certificate",
            "it is not verified (vc_insecure)",
            "Set vc_ca_certs or vc_thumbprint, and vc_insecure to no.",
        )
    else:
        yield about.passed("certificate", f"trusted by {by}")
    about_vcenter = session.about
    yield about.passed("login", f"as {session.identities[0]}; {about_vcenter.fullName}")


class _Looked:
    """One vCenter that we are logged in to."""

    def __init__(
        self,
        about: Subject,
        configuration: Configuration,
        unit: VCenterUnit,
        session: Session,
        package: Descriptor | None,
        wall_clock: Callable[[], float],
    ) -> None:
        self._about = about
        self._configuration = configuration
        self._unit = unit
        self._session = session
        self._package = package
        self._wall_clock = wall_clock
        self._deployed = True
        """Unless EAM says that there is no agency of ours."""
        self._acts = unit.eam.mode is Mode.ACT

    def findings(self) -> Iterator[Finding]:
        yield self._clock()
        yield from self._privileges()
        yield from self._eam()
        try:
            chosen = scope.resolve(self._session, self._unit.eam.clusters)
        except PluginError as exc:
            yield self._about.refused("clusters", exc, "Name clusters by their inventory path, /DC0/host/ClusterA.")
            for check in (*agent_vm_settings.CHECKS, "own endpoints"):
                yield self._about.skipped(check, "clusters failed")
            return
        hosts = sum(len(each.hosts) for each in chosen)
        yield self._about.passed("clusters", f"{', '.join(each.path for each in chosen)}: {hosts} host(s)")
        yield from self._settings(chosen)
        yield from self._own_endpoints(chosen)

    # --- clock --------------------------------------------------------------------------------------------

    def _clock(self) -> Finding:
        instance = vim.ServiceInstance("ServiceInstance", self._session.vim_stub())
        before = self._wall_clock()
        try:
            theirs: datetime = self._session.call(instance.CurrentTime)
        except PluginError as exc:
            return self._about.refused("clock", exc)
        ours = datetime.fromtimestamp((before + self._wall_clock()) / 2, UTC)
        skew = (ours - theirs).total_seconds()
        if abs(skew) <= SKEW_WARN_SECONDS:
            return self._about.passed("clock", f"{abs(skew):.1f} s apart from ours")
        text = f"our clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} vCenter's"
        remedy = "Have both follow the same NTP servers."
        if abs(skew) >= SKEW_FAIL_SECONDS:
            return self._about.failed("clock", text, remedy)
        return self._about.warned("clock", text, remedy)

    # --- privileges ---------------------------------------------------------------------------------------

    def _privileges(self) -> Iterator[Finding]:
        """One by one; in mode ``observe`` what only acting needs is a warning."""
        wanted = ("System.Read", "EAM.View", "EAM.Modify", "Host.Config.Settings")
        try:
            granted = privileges.granted(self._session, wanted)
        except PluginError as exc:
            yield self._about.refused("privileges", exc)
            return
        for name in wanted:
            check = f"privilege {name}"
            if granted[name]:
                yield self._about.passed(check, "granted on the root folder")
                continue
            text = f"{self._session.identities[0]} lacks it on the root folder"
            remedy = f"Add {name} to the account's role there, with propagation."
            if self._acts or name in ("System.Read", "EAM.View"):
                yield self._about.failed(check, text, remedy)
            else:
                yield self._about.warned(check, f"{text}; mode = act will need it", remedy)
        yield self._may_mark()

    def _may_mark(self) -> Finding:
        """No call tells: EAM documents MarkAsAvailable without a user privilege, and trying it would let a VM go."""
        check, eam = "may mark as available", self._unit.eam
        if self._session.is_extension:
            return self._about.passed(check, "logged in as an extension")
        if not (eam.hold_after_provisioning or eam.hold_after_power_on or eam.health_gate):
            return self._about.passed(check, "not needed: nothing is held")
        return self._about.warned(
            check,
            f"{self._session.identities[0]} is no extension, so EAM may refuse to let held ContrailVMs go; the service "
            "then alarms (may-not-mark) and clears the holds",
            "Log in as a vCenter extension (vcenter-eam extension register), or switch off hold_after_provisioning, "
            "hold_after_power_on and health_gate.",
        )

    # --- EAM ----------------------------------------------------------------------------------------------

    def _eam(self) -> Iterator[Finding]:
        client = EamClient(self._session)
        try:
            agencies = client.agencies()
        except PrivilegeMissing as exc:
            yield self._about.refused("EAM", exc)
            return
        except PluginError as exc:
            yield self._about.refused(
                "EAM",
                exc,
                "EAM comes up some minutes after vCenter. If it stays so: on the vCenter appliance, "
                "service-control --status vmware-eam.",
            )
            return
        level = self._session.eam_stub().version.rpartition("version")[2].replace("_", ".")
        yield self._about.passed(
            "EAM",
            f"answers; we speak level {level}, and see {len(agencies)} agenc{'y' if len(agencies) == 1 else 'ies'}",
        )
        yield from self._agency(agencies)

    def _agency(self, agencies: Sequence[AgencyFacts]) -> Iterator[Finding]:
        name = self._unit.eam.agency_name
        found = judge(agencies, name, self._session.identities)
        if found.foreign:
            owners = ", ".join(f"{each.moref} of {owner_of(each)}" for each in found.foreign)
            yield self._about.warned(
                "agency",
                f"{name} is there and not ours, or there are several: {owners}",
                "vcenter-eam adopt takes one, with its name typed; or give ours another agency_name. If it was adopted "
                "already, all is well.",
            )
        elif found.ours is None:
            self._deployed = False
            yield self._about.passed("agency", f"there is no {name} yet; it is created in mode act")
        else:
            yield self._about.passed("agency", f"{name} is ours, {found.ours.status.value}")
            yield from self._fetched(found.ours)

    def _fetched(self, ours: AgencyFacts) -> Iterator[Finding]:
        """EAM itself says whether it reached the package: from where vCenter stands, as nobody else can."""
        told = [issue for issue in ours.issues if issue.type in _PACKAGE_ISSUES]
        if told:
            yield self._about.failed(
                "OVF reachable from vCenter",
                f"EAM could not use {ours.ovf_url}: {told[0].type} ({told[0].description or 'no description'})",
                "Make the URL reachable from vCenter (ovf_base_url, ovf_server_ip, firewall, trust), then "
                "vcenter-eam resolve --all.",
            )
        else:
            yield self._about.passed("OVF reachable from vCenter", f"EAM has no trouble with {ours.ovf_url}")

    # --- hosts --------------------------------------------------------------------------------------------

    def _settings(self, chosen: Sequence[ComputeResourceFacts]) -> Iterator[Finding]:
        eam = self._unit.eam
        try:
            yield from agent_vm_settings.look(
                self._about,
                self._session,
                chosen,
                SettingsRules(eam.agent_vm_datastore, eam.agent_vm_network),
                self._host_specs(),
                self._package,
                deployed=self._deployed,
            )
        except PluginError as exc:
            first, *others = agent_vm_settings.CHECKS
            yield self._about.refused(first, exc)
            for check in others:
                yield self._about.skipped(check, f"{first} failed")

    def _host_specs(self) -> HostSpecs:
        eam = self._unit.eam
        if eam.host_spec_file is None:
            return HostSpecs(vm_name_format=eam.vm_name_format)
        return host_spec_file.load(eam.host_spec_file, vm_name_format=eam.vm_name_format)

    # --- ourselves ----------------------------------------------------------------------------------------

    def _own_endpoints(self, chosen: Sequence[ComputeResourceFacts]) -> Iterator[Finding]:
        """A server of ours that is a VM on a host in scope waits for a ContrailVM that may wait for it."""
        check = "own endpoints"
        hosts = {host for each in chosen for host in each.hosts}
        inside = []
        for what, name in self._endpoints():
            try:
                addresses = {str(each[4][0]) for each in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
            except OSError:
                continue  # that it cannot be resolved is said where it is used
            for address in sorted(addresses):
                try:
                    vm = self._session.call(self._session.content.searchIndex.FindByIp, None, address, True)
                    if vm is None:
                        continue
                    found = read_objects(self._session, vim.VirtualMachine, [vm._GetMoId()], ["name", "runtime.host"])
                except PluginError as exc:
                    yield self._about.refused(check, exc)
                    return
                for each in found.values():
                    host = each.props.get("runtime.host")
                    if host is not None and host._GetMoId() in hosts:
                        inside.append(f"{what} {name} is the VM {each.props.get('name')}")
        if inside:
            yield self._about.warned(
                check,
                f"on hosts in scope: {', '.join(inside)}",
                "After a blackout it may wait for a ContrailVM that waits for it: keep on_health_deadline = release, "
                "know vcenter-eam release, or move it elsewhere.",
            )
        else:
            yield self._about.passed(check, "none is a VM on a host in scope")

    def _endpoints(self) -> Iterator[tuple[str, str]]:
        yield "vCenter", self._unit.vcenter.vc_host
        for address in self._configuration.rabbit.rabbit_hosts:
            yield "broker", address.host
        if self._configuration.zookeeper is not None:
            for address in self._configuration.zookeeper.zookeeper_servers:
                yield "ZooKeeper", address.host


_PACKAGE_ISSUES = frozenset({"CannotAccessAgentOVF", "CertificateNotTrusted", "OvfInvalidFormat"})
