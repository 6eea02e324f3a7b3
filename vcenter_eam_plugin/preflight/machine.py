# SPDX-License-Identifier: Apache-2.0
"""This machine: the state directory, the OVF packages that are served from here, the host specifications."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from vcenter_eam_plugin import host_spec_file
from vcenter_eam_plugin.config import Configuration, DefaultsConfig, VCenterUnit
from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.ovf.certificate import read_certificate
from vcenter_eam_plugin.ovf.descriptor import Descriptor
from vcenter_eam_plugin.ovf.package import open_package
from vcenter_eam_plugin.ovf.probe import Trust, probe
from vcenter_eam_plugin.preflight.finding import Finding, Subject


def look(configuration: Configuration, packages: dict[str, Descriptor]) -> Iterator[Finding]:
    """What can be said without any server but an external one for the OVF package.

    ``packages`` is given what each vCenter, by its name, is to deploy, as far as it can be read.
    """
    here = Subject("this machine")
    yield _state_directory(here, configuration.defaults.state_directory)
    for unit in configuration.vcenters:
        about = Subject(f"OVF package of {unit.name}")
        yield from _package(about, configuration.defaults, unit, packages)
        if unit.eam.host_spec_file is not None:
            yield _host_spec(Subject(f"host specification of {unit.name}"), unit)


def _state_directory(here: Subject, path: Path) -> Finding:
    """Looked at as the user who asks: run it as the service's user."""
    check = "state directory"
    try:
        wrong = _wrong_with(path)
    except FileNotFoundError:
        above = next(each for each in path.parents if each.exists())
        if os.access(above, os.W_OK | os.X_OK, effective_ids=True):
            return here.passed(check, f"{path} is made at the start of the service")
        wrong = f"{path} is not there, and {above} is not writable"
    except OSError as exc:
        wrong = f"{path} cannot be looked at: {exc.strerror}"
    if wrong:
        return here.failed(check, wrong, _DIRECTORY_REMEDY)
    return here.passed(check, f"{path} is there and writable")


def _wrong_with(path: Path) -> str:
    mode = path.stat().st_mode
    if not stat.S_ISDIR(mode):
        return f"{path} is not a directory"
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        return f"{path} is not writable for this user"
    return f"everybody may write to {path}" if mode & stat.S_IWOTH else ""


_DIRECTORY_REMEDY = (
    "Make it, owned by the user of the service and closed to others (state_directory names it), and run this check as "
    "that user."
)


def _package(
    about: Subject, defaults: DefaultsConfig, unit: VCenterUnit, packages: dict[str, Descriptor]
) -> Iterator[Finding]:
    eam = unit.eam
    if eam.ovf_url:
        trust = Trust(read_certificate(eam.ovf_certificate) if eam.ovf_certificate else None, unit.vcenter.vc_ca_certs)
        try:
            descriptor = probe(eam.ovf_url, trust)
        except PluginError as exc:
            yield about.refused("package", exc)
        else:
            packages[unit.name] = descriptor
            yield about.passed("package", f"{eam.ovf_url} is served, with {len(descriptor.references)} file(s)")
        yield from _reachable(about, urlsplit(eam.ovf_url).hostname or "", unit, "ovf_url")
        return
    if eam.ovf_package is None:
        yield about.failed(
            "package",
            "there is none to deploy",
            "Give ovf_package (served by this service) or ovf_url (another server).",
        )
        return
    try:
        package = open_package(eam.ovf_package)
    except PluginError as exc:
        yield about.refused("package", exc, "Put the package's files as they were published into place.")
        return
    packages[unit.name] = package.about
    yield about.passed("package", f"{eam.ovf_package}: descriptor, {len(package.files)} file(s) and digests are right")
    missing = sorted(set(package.about.required_properties()) - {key for key, _ in eam.ovf_properties})
    if missing:
        yield about.failed(
            "properties",
            f"the OVF asks for properties that are not configured: {', '.join(missing)}",
            "Give them in ovf_properties; EAM deploys nothing before.",
        )
    base = defaults.ovf_base_url
    yield from _reachable(
        about, (urlsplit(base).hostname or "") if base else defaults.ovf_server_ip, unit, "ovf_base_url"
    )


def _reachable(about: Subject, host: str, unit: VCenterUnit, option: str) -> Iterator[Finding]:
    """What can be told from here. Whether EAM fetched it is told by its issues, see the vCenter's findings."""
    if _is_loopback(host) and not _is_loopback(unit.vcenter.vc_host):
        yield about.failed(
            "reachable",
            f"vCenter is told to fetch the package from {host}, which is itself there",
            f"Set {option} to a name or address that vCenter reaches, and ovf_server_ip to listen there.",
        )
    else:
        yield about.passed("reachable", f"vCenter is told to fetch it from {host}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_spec(about: Subject, unit: VCenterUnit) -> Finding:
    path = unit.eam.host_spec_file
    assert path is not None
    try:
        specs = host_spec_file.load(path, vm_name_format=unit.eam.vm_name_format)
    except PluginError as exc:
        return about.refused("host specification", exc, "Correct the lines that are named.")
    if specs.problems:
        return about.failed(
            "host specification",
            " ".join(specs.problems),
            "Correct the lines that are named; those hosts' ContrailVMs stay held until then.",
        )
    return about.passed("host specification", f"{path} can be read")
