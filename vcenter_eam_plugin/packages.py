# SPDX-License-Identifier: Apache-2.0
"""Where one vCenter's EAM fetches the ContrailVM from: our own server, or somebody else's. Published, or probed.

It is looked at once at the start and then every few minutes, and what is wrong is an alarm with its remedy. Before an
agency is created, the package must have everything that EAM would refuse it for.

Not promised: that vCenter reaches the URL as we do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import gevent

from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.config import EamConfig, VCenterConfig
from vcenter_eam_plugin.domain.errors import ConfigurationError, OvfError, PluginError
from vcenter_eam_plugin.domain.facts import AgencyFacts
from vcenter_eam_plugin.ovf.certificate import PinnedCertificate, read_certificate
from vcenter_eam_plugin.ovf.descriptor import Descriptor
from vcenter_eam_plugin.ovf.package import Package
from vcenter_eam_plugin.ovf.probe import Trust, probe
from vcenter_eam_plugin.ovf.server import OvfServer

WATCH_SECONDS = 180.0
"""Between two looks. A redeployment finds a dead server at once anyway; this is so that a person hears of it before."""
FIRST_WATCH_SECONDS = 10.0
"""After the first look: by then vCenter was heard, and with it where the agency fetches from."""
_EXPIRY_DAYS = 14
"""Before which a certificate's end is said; renewing one that is pinned takes some planning."""
_DAY = 86400.0


class PackageSource:
    """``server`` is ours, if any vCenter of this process is served by it."""

    def __init__(
        self,
        eam: EamConfig,
        vcenter: VCenterConfig,
        server: OvfServer | None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._eam = eam
        self._vcenter = vcenter
        self._server = server if eam.ovf_package is not None else None
        self._now = wall_clock
        self._external: Descriptor | None = None

    def url(self) -> str:
        """Raises OvfError when there is nothing to fetch, or it is not what it should be."""
        if self._eam.ovf_url:
            return self._external_url()
        package, server = self._published()
        self._check_properties(package.about, str(package.source))
        return server.url_of(package)

    def certificate(self) -> str | None:
        """What EAM is to trust for that URL, in PEM; ``None`` leaves it to vCenter's own trusted roots."""
        pinned = self._pinned()
        return pinned.pem if pinned is not None else None

    def watch(self, alarms: Alarms, agency: Callable[[], AgencyFacts | None]) -> None:
        """Greenlet body: look, say what is wrong, look again; until killed."""
        pause = FIRST_WATCH_SECONDS
        while True:
            try:
                self.look(alarms, agency())
            except Exception as exc:  # noqa: BLE001 - the last line of defence: whoever watches must not end unseen
                alarms.raise_("ovf-watch", f"The OVF package could not be looked at: unexpected {type(exc).__name__}.")
            else:
                alarms.clear("ovf-watch")
            gevent.sleep(min(pause, WATCH_SECONDS))
            pause = WATCH_SECONDS

    def look(self, alarms: Alarms, agency: AgencyFacts | None) -> None:
        """Publish or probe, and raise or clear the alarms. ``agency`` is ours as it was seen, if it was."""
        if self._eam.ovf_url:
            _tell(alarms, "ovf-server", self._probe)
        elif self._server is not None:
            _tell(alarms, "ovf-package", self._published)
        if agency is not None:
            _tell(alarms, "ovf-agency-package", lambda: self._check_agency(agency))
        _tell(alarms, "ovf-certificate", self._check_expiry)

    def _published(self) -> tuple[Package, OvfServer]:
        if self._eam.ovf_package is None or self._server is None:
            raise OvfError(
                f"There is no OVF package to deploy for {self._vcenter.vc_host}.",
                remedy="Give ovf_package (served by this service) or ovf_url (an external server).",
            )
        # Each time: quick while nothing was touched, and what lies there now is what is to be deployed.
        return self._server.open(self._eam.ovf_package), self._server

    def _external_url(self) -> str:
        """vCenter may reach what we cannot, so only what was read is judged; a failed probe is an alarm of its own."""
        if self._external is None:
            try:
                self._probe()
            except OvfError:
                return self._eam.ovf_url
        if self._external is not None:
            self._check_properties(self._external, self._eam.ovf_url)
        return self._eam.ovf_url

    def _probe(self) -> None:
        self._external = None
        self._external = probe(self._eam.ovf_url, Trust(self._pinned(), self._vcenter.vc_ca_certs))

    def _pinned(self) -> PinnedCertificate | None:
        if self._eam.ovf_certificate is not None:
            return read_certificate(self._eam.ovf_certificate)
        return self._server.certificate if self._server is not None else None

    def _check_agency(self, agency: AgencyFacts) -> None:
        """What the agency was told when it was created or upgraded must stay true: EAM comes back for each VM."""
        trouble = self._server.trouble(agency.ovf_url) if self._server is not None and agency.ovf_url else None
        if trouble is not None:
            raise OvfError(trouble)
        pinned = self._pinned()
        if pinned is None or agency.ovf_certificate is None or not (agency.ovf_url or "").startswith("https:"):
            return
        if pinned.pem.split() != agency.ovf_certificate.split():
            raise OvfError(
                f"The agency {agency.name} trusts another certificate for its OVF package than the server's "
                f"({pinned.subject}, SHA-256 {pinned.thumbprint}), so vCenter from 8.0 U2 on cannot redeploy.",
                remedy="Put the earlier certificate back with its key, or upgrade the agency, which pins the new one.",
            )

    def _check_expiry(self) -> None:
        pinned = self._pinned()
        if pinned is None or pinned.expires - self._now() > _EXPIRY_DAYS * _DAY:
            return
        end = datetime.fromtimestamp(pinned.expires, UTC)
        raise ConfigurationError(
            f"The OVF server's certificate ({pinned.subject}, SHA-256 {pinned.thumbprint}) ends on {end:%Y-%m-%d}.",
            remedy="Renew it; the agency must then be told to trust the new one before EAM can deploy again.",
        )

    def _check_properties(self, about: Descriptor, where: str) -> None:
        given = {key for key, _ in self._eam.ovf_properties}
        missing = [key for key in about.required_properties() if key not in given]
        if missing:
            raise OvfError(
                f"The OVF package {where} asks for properties that are not configured: {', '.join(missing)}. EAM "
                "deploys nothing before it is given each of them.",
                remedy="Give them in ovf_properties.",
            )
        hidden = [item.key for item in about.properties if item.password and item.key in given]
        if hidden and not self._eam.ovf_allow_secret_properties:
            raise OvfError(
                f"The OVF package {where} means these properties to be passwords: {', '.join(hidden)}. vCenter would "
                "show them to everybody who may view EAM.",
                remedy="Leave them out, with an OVF that does not ask for them; or set ovf_allow_secret_properties.",
            )


def _tell(alarms: Alarms, name: str, check: Callable[[], object]) -> None:
    try:
        check()
    except PluginError as exc:
        alarms.raise_(name, str(exc))
    else:
        alarms.clear(name)
