# SPDX-License-Identifier: Apache-2.0
"""Translates whatever pyVmomi, http.client, ssl or the XML parser raised into the project's errors. Once, here.

Not promised: that every fault of the vSphere API has a class of its own. Faults that only one operation can
raise (an agency's configuration, say) are told apart by who calls that operation, from ``__cause__``.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import Any
from xml.parsers.expat import ExpatError

from pyVmomi import eam, vim, vmodl

from vcenter_eam_plugin.domain import errors
from vcenter_eam_plugin.vsphere.answer import AnswerRefused

#: The server closed a connection that lay idle in the pool; the request was not looked at, or not answered.
STALE_CONNECTION = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    http.client.BadStatusLine,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)

#: Characters of a server's own words, in a sentence of ours.
MOST_SAID = 500

_SESSION_FAULTS = (vim.fault.NotAuthenticated, eam.fault.InvalidLogin)
_PRIVILEGE_FAULTS = (vmodl.fault.SecurityError, eam.fault.NotAuthorized)
_HEALING_FAULTS = (
    eam.fault.EamServiceNotInitialized,
    eam.fault.NoConnectionToVCenter,
    eam.fault.EamIOFault,
    vmodl.fault.HostCommunication,
    vmodl.fault.SystemError,
    vmodl.fault.RequestCanceled,
    vim.fault.Timedout,
)


def _sentence(fault: Any) -> str:
    """Name and message of a fault. The message is the server's: it may be missing, and may be anything."""
    name = type(fault).__name__.rpartition(".")[2]
    text = " ".join(str(getattr(fault, "msg", None) or "").split())
    return f"{name} ({text[:MOST_SAID]})" if text else name


def _missing_privilege(fault: Any, where: str, user: str) -> errors.PrivilegeMissing:
    target = getattr(fault, "object", None)
    privilege = getattr(fault, "privilegeId", None)
    if privilege is None and isinstance(fault, eam.fault.NotAuthorized):
        return errors.PrivilegeMissing(
            f"{where}: EAM does not allow {user!r} to do this; the privilege EAM.View or EAM.Modify is missing,"
            " or the operation is reserved for vCenter extensions.",
            remedy="Give the account a role with EAM.View and EAM.Modify on the root folder, with propagation, or log "
            "in as an extension.",
        )
    what = privilege or "a privilege that the server does not name"
    on = f" on {target._GetMoId()}" if target is not None else ""
    return errors.PrivilegeMissing(
        f"{where}: the account {user!r} lacks {what}{on}.", remedy="Add it to the account's role, with propagation."
    )


def _fault(exc: Any, where: str, user: str) -> errors.PluginError:
    made: errors.PluginError
    if isinstance(exc, _SESSION_FAULTS):
        made = errors.SessionExpired(f"{where}: the session is no longer valid.")
    elif isinstance(exc, vim.fault.InvalidLogin):
        made = errors.LoginRefused(
            f"{where}: vCenter refused the user name or password of {user!r}.",
            remedy="Correct vc_username or vc_password; repeated attempts may lock the account.",
        )
    elif isinstance(exc, _PRIVILEGE_FAULTS):
        made = _missing_privilege(exc, where, user)
    elif isinstance(exc, vmodl.fault.ManagedObjectNotFound):
        gone = getattr(exc, "obj", None)
        named = f" {gone._GetMoId()}" if gone is not None else ""
        made = errors.ObjectGone(f"{where}: the object{named} does not exist any more.")
    elif isinstance(exc, vmodl.query.InvalidCollectorVersion):
        made = errors.StreamReset(f"{where}: the property collector lost its version.")
    elif isinstance(exc, _HEALING_FAULTS):
        made = errors.Unavailable(f"{where}: {_sentence(exc)}.", remedy="It is tried again.")
    elif isinstance(exc, vmodl.RuntimeFault) and not isinstance(exc, eam.fault.EamRuntimeFault):
        made = errors.ProtocolError(f"{where}: the request was not accepted: {_sentence(exc)}.")
    else:
        made = errors.WrongState(f"{where}: refused: {_sentence(exc)}.")
    return made


def translate(exc: BaseException, where: str, user: str) -> errors.PluginError:
    """The error that says what ``exc`` means. ``where`` names server and operation, ``user`` the login name."""
    made: errors.PluginError
    if isinstance(exc, vmodl.MethodFault):
        made = _fault(exc, where, user)
    elif isinstance(exc, ssl.SSLCertVerificationError):
        made = errors.CertificateRejected(f"{where}: the server's certificate is not trusted: {exc.verify_message}.")
    elif isinstance(exc, socket.gaierror):
        made = errors.Unavailable(f"{where}: the name cannot be resolved ({exc.strerror}).")
    elif isinstance(exc, TimeoutError):
        made = errors.Unavailable(f"{where}: no answer in time.")
    elif isinstance(exc, STALE_CONNECTION):
        made = errors.Unavailable(f"{where}: the server closed the connection ({exc}).")
    elif isinstance(exc, http.client.HTTPException):
        made = errors.Unavailable(f"{where}: the server answered {exc}.")
    elif isinstance(exc, OSError):
        made = errors.Unavailable(f"{where}: {exc.strerror or exc}.")
    elif isinstance(exc, AnswerRefused):
        made = errors.ProtocolError(f"{where}: {exc}.")
    elif isinstance(exc, ExpatError):
        made = errors.ProtocolError(f"{where}: the answer is not well-formed XML ({exc}).")
    else:
        said = f"{type(exc).__name__}: {exc}"[:MOST_SAID]
        # pyVmomi raises KeyError, AttributeError, TypeError and bare Exception on XML that its types do not
        # foresee, and its lazy type loader may call sys.exit: all of it means an answer not understood.
        made = errors.ProtocolError(f"{where}: the answer cannot be understood ({said}).")
    return made
