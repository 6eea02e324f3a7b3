# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam extension``: the vCenter extension that the service logs in as. Needs no running service.

Registering takes an administrator, whose password comes from a prompt, a file or the environment and goes nowhere. An
extension is never unregistered by this program: EAM would delete every ContrailVM.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vcenter_eam_plugin import __version__
from vcenter_eam_plugin.cli.client import service_options
from vcenter_eam_plugin.cli.common import load_configuration
from vcenter_eam_plugin.cli.consent import carry_out, consent_options, json_option
from vcenter_eam_plugin.cli.text import clean
from vcenter_eam_plugin.config import VCenterConfig, VCenterUnit
from vcenter_eam_plugin.domain.errors import ConfigurationError, LoginRefused, PlanChanged, UnknownTarget, WrongState
from vcenter_eam_plugin.unit import session_settings
from vcenter_eam_plugin.vsphere import extension
from vcenter_eam_plugin.vsphere.session import Session

USERNAME = "VCENTER_EAM_ADMIN_USERNAME"
PASSWORD = "VCENTER_EAM_ADMIN_PASSWORD"  # noqa: S105 - the variable's name
_WARNING = "Never unregister it: EAM then destroys its agency with every ContrailVM. This program never does."


def _administrator(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--password-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=f"File with the administrator's password. Default: {PASSWORD}, else it is asked for.",
    )(command)
    return click.option("--username", envvar=USERNAME, help=f"Administrator to log in as. Default: {USERNAME}.")(
        command
    )


@click.group("extension")
def command() -> None:
    """Show or register the vCenter extension to log in as.

    An extension may mark ContrailVMs as available, which holds and the health gate need and plain users may be refused.
    """


@command.command("register")
@click.option("--service-account", metavar="NAME", help="Account, with its domain, that is to log in as the extension.")
@_administrator
@service_options
@consent_options
def register(
    *,
    service_account: str | None,
    username: str | None,
    password_file: Path | None,
    paths: tuple[Path, ...],
    vcenter: str,
    **consent: Any,
) -> None:
    """Register the extension vc_extension_key, or bring it up to date, and say how it logs in.

    That is by vc_client_cert, or, from vCenter 8.0 U2 on, by a service account. The last step logs in as the extension,
    as the service will.

    Example: vcenter-eam extension register --username administrator@vsphere.local
    """
    unit = _unit(paths, vcenter)
    way = _way_in(unit.vcenter, service_account)
    with _logged_in(unit.vcenter, username, password_file, ask=not consent["as_json"]) as session:
        carry_out(_Registration(unit, session, way), **consent)


@command.command("show")
@_administrator
@service_options
@json_option
def show(
    *, username: str | None, password_file: Path | None, paths: tuple[Path, ...], vcenter: str, as_json: bool
) -> None:
    """Show the extension vc_extension_key as vCenter has it.

    Logs in as the service does, unless an administrator is named.

    Example: vcenter-eam extension show
    """
    unit = _unit(paths, vcenter)
    if username:
        with _logged_in(unit.vcenter, username, password_file, ask=not as_json) as session:
            found = extension.find(session, unit.vcenter.vc_extension_key)
    else:
        with _open(Session(session_settings(unit.vcenter))) as session:
            found = extension.find(session, unit.vcenter.vc_extension_key)
    about = {
        "key": unit.vcenter.vc_extension_key,
        "registered": found is not None,
        "ours": found is not None and found.ours,
        "label": found.label if found else "",
        "version": found.version if found else "",
        "last_heartbeat": found.last_heartbeat.isoformat() if found and found.last_heartbeat else None,
    }
    if as_json:
        click.echo(json.dumps(about))
        return
    for name, value in about.items():
        click.echo(clean(f"{name.replace('_', ' ')}: {value}"))


# --- how the extension logs in ----------------------------------------------------------------------------


def _way_in(vcenter: VCenterConfig, account: str | None) -> extension.Certificate | str:
    """The certificate, or the service account. vCenter takes one way to log in of an extension at any time."""
    if account is not None and vcenter.vc_client_cert is not None:
        raise ConfigurationError(
            "An extension logs in by certificate or by service account, not by both.",
            remedy="Leave out --service-account, or vc_client_cert.",
        )
    if account is not None:
        return account
    if vcenter.vc_client_cert is None:
        raise ConfigurationError(
            "It is not said how the extension is to log in.",
            remedy="Set vc_client_cert, or give --service-account (vCenter 8.0 U2 and later).",
        )
    return extension.read_certificate(vcenter.vc_client_cert)


class _Registration:
    """What ``register`` would do, and does; see :class:`vcenter_eam_plugin.cli.consent.Asked`."""

    def __init__(self, unit: VCenterUnit, session: Session, way: extension.Certificate | str) -> None:
        self._unit = unit
        self._session = session
        self._way = way
        self._key = unit.vcenter.vc_extension_key

    def preview(self) -> dict[str, Any]:
        lines = [{"target": self._key, "text": text, "radius": "nothing"} for text, _ in self._steps()]
        basis = json.dumps([self._session.instance_uuid, lines])
        return {
            "operation": "extension register",
            "target": self._key,
            "vcenter": self._session.name,
            "lines": lines,
            "notes": [_WARNING],
            "radius": "nothing",
            "acknowledge": "",
            "confirm": True,
            "digest": hashlib.sha256(basis.encode()).hexdigest()[:16],
        }

    def carry_out(self, digest: str, acknowledge: str) -> Iterator[dict[str, Any]]:  # noqa: ARG002 - no word is asked for
        shown = self.preview()
        if digest != shown["digest"]:
            raise PlanChanged(
                "Nothing was changed: what would be done now is not what was previewed.",
                remedy="Read the new preview, and ask again.",
                preview=shown,
            )
        steps = self._steps()
        for number, (text, do) in enumerate(steps, 1):
            about = {"kind": "step", "number": number, "of": len(steps), "target": self._key, "text": text}
            yield {**about, "outcome": "begun", "detail": ""}
            do()
            yield {**about, "outcome": "done", "detail": ""}
        yield {"kind": "end", "ok": True, "done": len(steps), "failed": 0}

    def _steps(self) -> list[tuple[str, Callable[[], None]]]:
        session, key, way = self._session, self._key, self._way
        found = extension.find(session, key)
        if found is not None and not found.ours:
            raise WrongState(
                f"{session.name}: the extension {key} is another product's ({found.label or 'without a name'}).",
                remedy="Choose another vc_extension_key.",
            )
        verb = "register it" if found is None else f"bring it up to date, from version {found.version}"
        steps: list[tuple[str, Callable[[], None]]] = [
            (f"{verb}, as version {__version__}", lambda: extension.register(session, key, __version__))
        ]
        if isinstance(way, extension.Certificate):
            steps.append(
                (
                    f"have it log in by the certificate {way.thumbprint} ({way.subject}, until {way.expires:%Y-%m-%d})",
                    lambda: extension.set_certificate(session, key, way),
                )
            )
        else:
            if not extension.has_service_accounts(session):
                raise ConfigurationError(
                    f"{session.name} (API {session.about.apiVersion}) has no service accounts for extensions.",
                    remedy="vCenter 8.0 U2 has; before, use vc_client_cert.",
                )
            steps.append(
                (
                    f"have whoever logs in as {way} be the extension",
                    lambda: extension.set_service_account(session, key, way),
                )
            )
        if isinstance(way, extension.Certificate) or self._unit.vcenter.vc_username == way:
            steps.append(("log in as the extension, to see that it can", self._try_it))
        return steps

    def _try_it(self) -> None:
        with _open(Session(session_settings(self._unit.vcenter))) as session:
            if not session.is_extension:
                raise LoginRefused(
                    f"{session.name}: the login is good, but vCenter does not take it for one of an extension."
                )


# --- logins -----------------------------------------------------------------------------------------------


def _unit(paths: tuple[Path, ...], vcenter: str) -> VCenterUnit:
    units = load_configuration(paths).vcenters
    chosen = [unit for unit in units if vcenter in ("", unit.name)]
    if len(chosen) != 1:
        raise UnknownTarget(
            f"Which vCenter is meant? There are: {', '.join(unit.name for unit in units)}.",
            remedy="Name one by --vcenter.",
        )
    if not chosen[0].vcenter.vc_extension_key:
        raise ConfigurationError("Option vc_extension_key is empty.", remedy="Set it to the key of the extension.")
    return chosen[0]


@contextmanager
def _logged_in(vcenter: VCenterConfig, username: str | None, file: Path | None, *, ask: bool) -> Iterator[Session]:
    """A session of the administrator. The password is neither an argument nor kept."""
    may_ask = ask and sys.stdin.isatty()
    if not username:
        if not may_ask:
            raise ConfigurationError("No administrator was named.", remedy=f"Give --username, or set {USERNAME}.")
        username = click.prompt("Administrator")
    if file is not None:
        password = file.read_text("utf-8").rstrip("\r\n")
    elif PASSWORD in os.environ:
        password = os.environ[PASSWORD]
    elif may_ask:
        password = click.prompt(f"Password of {username}", hide_input=True)
    else:
        raise ConfigurationError(
            "The administrator's password is missing.", remedy=f"Give --password-file, or set {PASSWORD}."
        )
    as_service = session_settings(vcenter)
    settings = replace(
        as_service, username=username, password=lambda: password, extension_key="", client_cert=None, client_key=None
    )
    with _open(Session(settings)) as session:
        yield session


@contextmanager
def _open(session: Session) -> Iterator[Session]:
    session.open()
    try:
        yield session
    finally:
        session.close()
