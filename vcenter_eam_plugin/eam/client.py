# SPDX-License-Identifier: Apache-2.0
"""Calls to ESX Agent Manager, in facts and morefs.

EAM has no change stream and no property collector, so everything here is a request and its answer; when to ask
is decided elsewhere. The ``Query*`` operations are used rather than property reads: public programs use them
against real servers, while nothing tells whether EAM answers ``Fetch``.

Not promised: that a write has had its effect when it returns. EAM works on afterwards; read it again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import gevent
from pyVmomi import eam

from vcenter_eam_plugin.domain.errors import (
    ConfigurationError,
    ObjectGone,
    OvfError,
    PluginError,
    ProtocolError,
    ScopeError,
    SilentlyExpired,
)
from vcenter_eam_plugin.domain.facts import AgencyFacts, AgentFacts
from vcenter_eam_plugin.domain.observations import AgentsObserved
from vcenter_eam_plugin.domain.understanding import understood
from vcenter_eam_plugin.eam.agency import (
    AgencySpec,
    agency_facts,
    agent_facts,
    build_config,
    build_scope,
    scope_of,
    with_runtime,
)

T = TypeVar("T")

#: Agents are read so many at once: one agent is one request, and EAM's web server is small and shared.
READS_AT_ONCE = 4


class EamSession(Protocol):
    """What is needed of a session; :class:`vcenter_eam_plugin.vsphere.session.Session` is one."""

    @property
    def name(self) -> str: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    def open(self) -> None: ...
    def alive(self) -> bool: ...
    def eam_stub(self) -> Any: ...
    def call(self, fn: Callable[..., Any], *args: Any, idempotent: bool = True) -> Any: ...


class EamClient:
    """Everything raised is one of the domain's errors, ``SessionExpired`` only if a new login was refused too."""

    def __init__(self, session: EamSession) -> None:
        self._session = session

    # --- reading ---------------------------------------------------------------------------------------

    def agencies(self) -> tuple[AgencyFacts, ...]:
        """All agencies that the account may see: all of them for a user, its own for a vCenter extension.

        Complete or an error: one that cannot be read is never left out, since it might be ours.
        """
        found = []
        listed = self._morefs("QueryAgency", self._session.call(self._manager().QueryAgency))
        if not listed and not self._session.alive():
            raise SilentlyExpired(f"{self._session.name}: EAM named no agency, but the session has ended meanwhile.")
        for moref in listed:
            try:
                found.append(self.read_agency(moref))
            except ObjectGone:
                continue  # destroyed since it was listed
        return tuple(found)

    def read_agency(self, moref: str) -> AgencyFacts:
        """Configuration and runtime of one agency. Raises ObjectGone when it was destroyed."""
        agency = self._agency(moref)
        call = self._session.call
        config = call(agency.QueryConfig)
        runtime = call(agency.QueryRuntime)
        try:
            solution_id = call(agency.QuerySolutionId)
        except ProtocolError:
            solution_id = ""  # not implemented by every server that speaks EAM
        owner = self._owner(agency)
        return self._understood(moref, lambda: agency_facts(moref, config, runtime, solution_id, owner))

    def read_runtime(self, known: AgencyFacts) -> AgencyFacts:
        """``known`` with its runtime read anew, by one request; its configuration is taken to be as it was.

        Raises ObjectGone when the agency was destroyed.
        """
        runtime = self._session.call(self._agency(known.moref).QueryRuntime)
        return self._understood(known.moref, lambda: with_runtime(known, runtime))

    def _owner(self, agency: Any) -> str | None:
        """The owning user. Only a property tells; where that is not answered, ``solution_id`` says the same."""
        try:
            owner = self._session.call(getattr, agency, "owner")
        except ProtocolError:
            return None
        return None if owner is None else str(owner)

    def agents_of(self, agency_moref: str) -> tuple[str, ...]:
        """Morefs of the agency's agents: one per host in scope."""
        return self._morefs("QueryAgent", self._session.call(self._agency(agency_moref).QueryAgent))

    def _morefs(self, operation: str, references: Any) -> tuple[str, ...]:
        with understood(f"{self._session.name}: {operation}"):
            return tuple(sys.intern(reference._GetMoId()) for reference in references)

    def read_agents(self, morefs: Iterable[str]) -> AgentsObserved:
        """Runtimes of these agents. One that cannot be read fails the whole read; one that is gone is named."""
        self._session.open()
        asked = tuple(dict.fromkeys(morefs))
        answers: dict[str, AgentFacts | PluginError] = {}
        left = iter(asked)

        def read() -> None:
            answers.update((moref, self._read_agent(moref)) for moref in left)

        readers = [gevent.spawn(read) for _ in range(min(READS_AT_ONCE, len(asked)))]
        try:
            for reader in readers:
                reader.get()
        finally:
            gevent.killall(readers)
        agents = []
        gone = []
        for moref in asked:
            answer = answers[moref]
            if isinstance(answer, ObjectGone):
                gone.append(moref)
            elif isinstance(answer, PluginError):
                raise answer
            else:
                agents.append(answer)
        return AgentsObserved(agents=tuple(agents), gone=tuple(gone))

    def _read_agent(self, moref: str) -> AgentFacts | PluginError:
        """Errors are returned: a greenlet that dies of one would print it and lose whose it was."""
        began = self._session.clock()
        try:
            runtime = self._session.call(self._agent(moref).QueryRuntime)
            return self._understood(moref, lambda: agent_facts(moref, runtime, began))
        except PluginError as exc:
            return exc

    def _understood(self, moref: str, read: Callable[[], T]) -> T:
        """A status or goal that is no known one must not look like a known one."""
        with understood(f"{self._session.name}: what EAM says of {moref}"):
            return read()

    # --- writing ---------------------------------------------------------------------------------------

    def create_agency(self, spec: AgencySpec) -> str:
        """Create an agency and return its moref; deployment goes on by itself afterwards.

        EAM checks the scope and fetches the OVF before it answers. Raises OvfError, ScopeError,
        ConfigurationError and PrivilegeMissing for what a person must mend. EAM does not keep names unique:
        look among :meth:`agencies` first.
        """
        enabled = eam.EamObject.RuntimeInfo.GoalState.enabled
        return str(self._write(self._manager().CreateAgency, build_config(spec), enabled)._GetMoId())

    def extend_scope(self, agency_moref: str, morefs: Iterable[str]) -> None:
        """Add compute resources to the scope; those in it stay, whatever is asked. Nothing to add: no write."""
        agency = self._agency(agency_moref)
        config = self._config(agency)
        now = scope_of(config)
        wanted = tuple(dict.fromkeys((*now, *morefs)))
        if wanted != now:
            config.scope = build_scope(wanted)
            self._write(agency.Update, config)

    def shrink_scope(self, agency_moref: str, morefs: Iterable[str]) -> None:
        """Take compute resources out of the scope: EAM then deletes the ContrailVMs there. Only with consent.

        Refuses to leave nothing: an agency without a scope is uninstalled, not emptied. Raises ConfigurationError.
        """
        agency = self._agency(agency_moref)
        config = self._config(agency)
        gone = frozenset(morefs)
        kept = tuple(moref for moref in scope_of(config) if moref not in gone)
        if not kept:
            raise ConfigurationError(
                f"{self._session.name}: the agency's scope would be empty.", remedy="Uninstall the agency instead."
            )
        if kept != scope_of(config):
            config.scope = build_scope(kept)
            self._write(agency.Update, config)

    def set_package(self, agency_moref: str, url: str, certificate_pem: str | None, *, hold: bool) -> None:
        """Point every agent configuration at another OVF package: EAM starts to replace *every* ContrailVM at once.

        ``hold`` sets the hold after provisioning in the same write, so that each new VM waits, off, for its turn.
        """
        agency = self._agency(agency_moref)
        config = self._config(agency)
        for agent in config.agentConfig:
            agent.ovfPackageUrl = url
            agent.ovfSslTrust = (
                None if certificate_pem is None else eam.Agent.PinnedPemCertificate(sslCertificate=certificate_pem)
            )
        if hold:
            config.manuallyMarkAgentVmAvailableAfterProvisioning = True
        self._write(agency.Update, config)

    def uninstall(self, agency_moref: str) -> None:
        """Set the goal state to uninstalled: EAM removes every agent with its VM; the agency itself stays."""
        self._write(self._agency(agency_moref).Uninstall)

    def destroy(self, agency_moref: str) -> None:
        """Remove the agency, and agents that are left. Uninstall first and wait, or issues cannot be resolved."""
        self._write(self._agency(agency_moref).DestroyAgency)

    def set_holds(self, agency_moref: str, after_provisioning: bool, after_power_on: bool) -> None:
        """Set both hold flags. Nothing to change: no write."""
        agency = self._agency(agency_moref)
        config = self._config(agency)
        wanted = (after_provisioning, after_power_on)
        now = (
            bool(config.manuallyMarkAgentVmAvailableAfterProvisioning),
            bool(config.manuallyMarkAgentVmAvailableAfterPowerOn),
        )
        if wanted != now:
            config.manuallyMarkAgentVmAvailableAfterProvisioning = after_provisioning
            config.manuallyMarkAgentVmAvailableAfterPowerOn = after_power_on
            self._write(agency.Update, config)

    def resolve(self, agent: str, keys: Sequence[int]) -> tuple[int, ...]:
        """Have EAM remediate these issues of one agent; returns the keys it does not know or cannot resolve now.

        Keys must be read a moment before: EAM regenerates them. An empty ``keys`` asks nothing.
        """
        if not keys:
            return ()
        return tuple(self._write(self._agent(agent).Resolve, list(keys)))

    def mark_available(self, agent: str) -> None:
        """Answer the agent's pending hook. Documented without a user privilege: may raise PrivilegeMissing."""
        self._write(self._agent(agent).MarkAsAvailable)

    def _config(self, agency: Any) -> Any:
        """The configuration, to be written back with one thing changed.

        Raises ProtocolError when half of it is missing: Update would have EAM delete what is not in it.
        """
        config = self._session.call(agency.QueryConfig)
        with understood(f"{self._session.name}: QueryConfig"):
            whole = bool(config.agencyName and config.agentConfig and scope_of(config))
        if not whole:
            raise ProtocolError(
                f"{self._session.name}: the configuration of {agency._GetMoId()} came without name, scope or agents; "
                "it is not written back."
            )
        return config

    def _write(self, fn: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._session.call(fn, *args, idempotent=False)
        except PluginError as exc:
            raise self._explained(exc) from exc.__cause__

    def _explained(self, exc: PluginError) -> PluginError:
        """What only writes can raise, in the words of who can mend it."""
        fault: Any = exc.__cause__
        name = self._session.name
        if isinstance(fault, eam.fault.InvalidUrl):
            return OvfError(
                f"{name}: EAM cannot fetch the OVF package from {_shown(fault.url)}: {_url_trouble(fault)}.",
                remedy="The address must be reachable from vCenter, for as long as the agency lives.",
            )
        if isinstance(fault, eam.fault.CertificateNotTrustedFault):
            return OvfError(
                f"{name}: vCenter does not trust the certificate of the OVF server {_shown(fault.url)}.",
                remedy="Pin it (ovf_certificate), or have one signed by an authority in vCenter's trusted roots.",
            )
        if isinstance(fault, eam.fault.InvalidAgencyScope):
            unknown = ", ".join(ref._GetMoId() for ref in fault.unknownComputeResource or ()) or "it does not name"
            return ScopeError(f"{name}: EAM refuses the scope: compute resources unknown to it: {unknown}.")
        if isinstance(fault, eam.fault.InvalidAgentConfiguration):
            return ConfigurationError(
                f"{name}: EAM refuses the agent configuration: {fault.invalidField or fault.msg or 'no reason given'}."
            )
        return exc

    # --- objects ---------------------------------------------------------------------------------------

    def _manager(self) -> Any:
        return eam.EsxAgentManager("EsxAgentManager", self._stub())

    def _agency(self, moref: str) -> Any:
        return eam.Agency(moref, self._stub())

    def _agent(self, moref: str) -> Any:
        return eam.Agent(moref, self._stub())

    def _stub(self) -> Any:
        self._session.open()
        return self._session.eam_stub()


def _shown(url: str | None) -> str:
    """A URL without user information, which might hold a password."""
    if not url:
        return "the given address"
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _url_trouble(fault: Any) -> str:
    if fault.malformedUrl:
        return "the URL is malformed"
    if fault.unknownHost:
        return "the host name is unknown there"
    if fault.connectionRefused:
        return "the connection is refused"
    if fault.responseCode:
        return f"HTTP status {fault.responseCode}"
    return fault.msg or "no reason given"
