# SPDX-License-Identifier: Apache-2.0
"""From a decoded request to the method of a managed object and back: who calls, may he, what comes of it.

No HTTP here: :class:`Dispatcher` takes a body, a ``SOAPAction`` and a cookie, and gives a body and a status.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from pyVmomi import eam, vim, vmodl
from pyVmomi.VmomiSupport import F_OPTIONAL, GetVmodlType, GetWsdlType, GuessWsdlType
from pyVmomi.VmomiSupport import ManagedObject as Reference

from vcenter_eam_plugin.simulator.authorization import CHECKED, User, reading
from vcenter_eam_plugin.simulator.esx_agent_manager import EsxAgentManager
from vcenter_eam_plugin.simulator.faults import Fault
from vcenter_eam_plugin.simulator.property_collector import (
    CREATES_NOTHING,
    EFFECTS,
    EMPTY_READS,
    HALF_READS,
    MISSING_SET,
    PERMISSION_GAP,
    PropertyHub,
    no_such_object,
)
from vcenter_eam_plugin.simulator.property_paths import read
from vcenter_eam_plugin.simulator.session_manager import SessionManager, WireCall
from vcenter_eam_plugin.simulator.traffic import Traffic
from vcenter_eam_plugin.simulator.wire import (
    EAM_NAMESPACE,
    VIM_NAMESPACE,
    BadRequest,
    Encoder,
    Request,
    Versions,
    decode,
    plain_fault,
)
from vcenter_eam_plugin.simulator.world import ManagedObject, World

log = logging.getLogger(__name__)

VIM_PATH = "/sdk"
EAM_PATH = "/eam/sdk"
EAM_MANAGER = "EsxAgentManager"
COOKIE = "vmware_soap_session"
_COOKIE = re.compile(rf'{COOKIE}="?([^";,\s]+)')
_METHOD = re.compile(rb"<(?:\w+:)?Body[^>]*>\s*<(?:\w+:)?(\w+)")
_WITHOUT_LOGIN = frozenset(
    {"RetrieveServiceContent", "Login", "LoginExtensionByCertificate", "LoginByToken", "LoginBySSPI"}
)
_READ_WITHOUT_LOGIN = frozenset({"ServiceInstance", "SessionManager"})
_EAM_LISTS = frozenset({"QueryAgency", "QueryAgent"})
_EAM_LOADING = "eam_loading"
_CREATES = frozenset({"CreateListView", "CreateContainerView", "CreateCollectorForEvents"})
_OK, _ERROR = 200, 500
_NOBODY = User("", "")


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back. ``opened`` is the cookie value of a session that this call opened."""

    status: int
    body: bytes
    opened: str | None = None


@cache
def operations(kind: type[ManagedObject]) -> dict[str, tuple[Callable[..., Any], str | None]]:
    """Operations that a simulator class answers, by WSDL name: the function, and the privilege it demands."""
    found: dict[str, tuple[Callable[..., Any], str | None]] = {}
    for name in dir(kind):
        method = getattr(kind, name, None)
        wsdl = getattr(method, "soap_name", None)
        if wsdl is not None and callable(method):
            privilege = getattr(method, "soap_privilege", None)
            found[wsdl] = (method, privilege)
            if privilege:
                CHECKED.add(privilege)
    return found


@cache
def _versions(service: str, level: str) -> Versions:
    return Versions(service, level)


def cookie_of(header: str | None) -> str | None:
    """The session cookie's value in a ``Cookie`` header; pyVmomi sends all of ``Set-Cookie``, attributes included."""
    match = _COOKIE.search(header or "")
    return match[1] if match else None


def method_of(body: bytes) -> str:
    """Name of the operation without decoding the request, for faults that hit before it is decoded."""
    match = _METHOD.search(body)
    return match[1].decode("ascii", "replace") if match else ""


class Dispatcher:
    """Answers requests. ``errors`` keeps what the simulator itself got wrong: tests demand that it is empty."""

    def __init__(self, world: World, sessions: SessionManager, hub: PropertyHub) -> None:
        self._world = world
        self._sessions = sessions
        self._hub = hub
        self._encoders: dict[tuple[str, str], Encoder] = {}
        self.traffic = Traffic()
        self.errors: list[BaseException] = []

    def answer(
        self,
        path: str,
        body: bytes,
        action: str,
        cookie: str | None,
        address: str,
        agent: str,
        hits: dict[str, Fault],
        gone: Callable[[], bool] = lambda: False,
        certificate: bytes | None = None,
    ) -> Reply:
        """One call. ``hits`` are the faults by name that apply to it; ``gone`` says whether its client has left.

        ``certificate`` is what the client showed in the TLS handshake, in DER.
        """
        namespace = EAM_NAMESPACE if path == EAM_PATH else VIM_NAMESPACE
        try:
            version = self.versions(path).resolve(action, strict="refuse_newer" in hits)
            request = decode(body, version)
        except BadRequest as exc:
            return Reply(_ERROR, plain_fault(str(exc)))
        client = self.traffic.of(address)
        client.calls[f"{request.type}.{request.method}"] += 1
        encoder = self._encoder(version, namespace)
        session = self._sessions.by_cookie(cookie_of(cookie))
        effects = frozenset(hits) & (EFFECTS | {_EAM_LOADING})
        if session is not None and session.ghost:
            effects |= {session.ghost}
        user = self._sessions.user(session) if session is not None else _NOBODY
        call = WireCall(session, user, encoder, address, agent, effects, gone, certificate, told=client.updates)
        if session is not None:
            session.began()
        manager = self._world.objects.get(EAM_MANAGER) if path == EAM_PATH else None
        try:
            try:
                if isinstance(manager, EsxAgentManager):
                    manager.met(session)
                self._act_out(request, path, hits)
                result = self._invoke(request, path, call)
                if isinstance(result, ManagedObject):
                    result = result.ref
                elif isinstance(result, list) and not result:
                    result = None  # an array without elements is no element at all
                text = encoder.response(request, result)
            except vmodl.MethodFault as fault:
                if isinstance(manager, EsxAgentManager):
                    manager.refused(fault)
                return Reply(_ERROR, encoder.fault(fault))
        except Exception as exc:
            log.exception("%s on %s %s failed in the simulator", request.method, request.type, request.moid)
            self.errors.append(exc)
            reason = f"The simulator failed in {request.method}: {type(exc).__name__}: {exc}"
            return Reply(_ERROR, encoder.fault(vmodl.fault.SystemError(reason=reason, msg=reason)))
        finally:
            if session is not None:
                session.finished()
        return Reply(_OK, text, call.opened.cookie if call.opened is not None else None)

    def versions(self, path: str) -> Versions:
        """API versions of an endpoint, by the server level that the knobs say now."""
        knobs = self._world.knobs
        if path == EAM_PATH:
            return _versions("eam", ".".join(str(part) for part in knobs.eam_level))
        return _versions("vim25", knobs.api_version)

    def _encoder(self, version: str, namespace: str) -> Encoder:
        key = (version, namespace)
        if key not in self._encoders:
            self._encoders[key] = Encoder(version, namespace)
        return self._encoders[key]

    @staticmethod
    def _act_out(request: Request, path: str, hits: dict[str, Fault]) -> None:
        if "not_authenticated_once" in hits:
            raise not_authenticated(request, path)
        if "eam_not_initialized" in hits:
            raise eam.fault.EamServiceNotInitialized(msg="EAM is still loading from database. Please try again later.")
        chosen = hits.get("raise_fault")
        if chosen is not None:
            raise GetVmodlType(chosen.fault)(msg=f"Injected {chosen.fault}.")

    def _invoke(self, request: Request, path: str, call: WireCall) -> Any:
        session = call.session
        if session is None and not _allowed_to_anybody(request, path):
            raise not_authenticated(request, path)
        obj = session.find(request.moid) if session is not None else self._world.objects.get(request.moid)
        if obj is None or obj.vmodl.__name__.startswith("eam.") != (path == EAM_PATH):
            raise no_such_object(_reference(request))
        if _EAM_LOADING in call.effects and request.moid != EAM_MANAGER:
            raise no_such_object(_reference(request))
        if request.method == "Fetch":
            return self._fetch(obj, request.arguments.get("prop", ""), call)
        kind: Any = type(obj)
        found = operations(kind).get(request.method)
        if found is None:
            if request.info is None:
                raise vmodl.fault.MethodNotFound(
                    receiver=obj.ref, method=request.method, msg=f"There is no operation {request.method}."
                )
            raise vmodl.fault.NotSupported(msg=f"{request.method} is not simulated.")
        method, privilege = found
        if session is not None and session.ghost and privilege not in (None, "EAM.View"):
            raise not_authenticated(request, path)
        if privilege is not None:
            call.require(privilege, obj)
        if CREATES_NOTHING in call.effects and request.method in _CREATES:
            return None
        answer = method(obj, call, **_arguments(request))
        return _suspect(answer, call.effects) if request.method in _EAM_LISTS else answer

    def _fetch(self, obj: ManagedObject, name: str, call: WireCall) -> Any:
        """A property as pyVmomi reads it: one at a time, by an operation that no WSDL names."""
        try:
            declared = obj.vmodl._GetPropertyInfo(name).type  # type: ignore[attr-defined]
        except AttributeError:
            raise vmodl.query.InvalidProperty(name=name, msg=f"There is no property {name!r}.") from None
        kind: Any = obj.vmodl
        privilege = reading(kind)
        if privilege != "System.Anonymous":
            call.require(privilege, obj)
            if PERMISSION_GAP in call.effects and obj.moid in self._hub.hidden(call):
                raise vim.fault.NoPermission(
                    object=obj.ref, privilegeId="System.View", msg="Permission to perform this operation was denied."
                )
            if call.session.ghost == EMPTY_READS:
                return declared() if issubclass(declared, list) else None
            if call.session.ghost:
                raise vim.fault.NotAuthenticated(
                    object=obj.ref, privilegeId="System.View", msg="The session is not authenticated."
                )
        personal = getattr(obj, "property_for", None)
        value = personal(call.session, name) if personal is not None else read(obj, name)
        if issubclass(declared, list):
            return declared(value or ())
        return value


def _suspect(listed: Any, effects: frozenset[str]) -> Any:
    """EAM's list as these effects leave it."""
    if effects & {EMPTY_READS, MISSING_SET, _EAM_LOADING}:
        return []
    return list(listed)[1::2] if HALF_READS in effects else listed


def _allowed_to_anybody(request: Request, path: str) -> bool:
    if path == EAM_PATH:
        return False
    if request.method == "Fetch":
        return request.moid in _READ_WITHOUT_LOGIN
    return request.method in _WITHOUT_LOGIN


def not_authenticated(request: Request, path: str) -> Any:
    """The endpoint's fault for a call without a living session."""
    if path == EAM_PATH:
        return eam.fault.InvalidLogin(msg="The session is not authenticated.")
    return vim.fault.NotAuthenticated(
        object=_reference(request), privilegeId="System.View", msg="The session is not authenticated."
    )


def _reference(request: Request) -> Any:
    """The reference that the request was made on, of a type that exists."""
    try:
        kind = GetWsdlType(request.namespace, request.type)
    except KeyError:
        try:
            kind = GuessWsdlType(request.type)
        except KeyError:
            kind = Reference
    return (kind if issubclass(kind, Reference) else Reference)(request.moid)


def _arguments(request: Request) -> dict[str, Any]:
    """What was sent, checked for what must be there; an absent array is an empty one."""
    arguments = dict(request.arguments)
    for parameter in request.info.params:
        if parameter.name in arguments or parameter.flags & F_OPTIONAL:
            continue
        if not issubclass(parameter.type, list):
            raise vmodl.fault.InvalidRequest(msg=f"Required parameter {parameter.name} is missing.")
        arguments[parameter.name] = parameter.type()
    return arguments
