# SPDX-License-Identifier: Apache-2.0
"""Errors, split by who is at fault and by what the caller can do.

Every error is one sentence for a person: what, where, why and what to do. Edges translate what a library
raised into one of these once, with ``raise X(...) from exc``; nothing further in knows pyVmomi or kombu.

``exit_code`` is what a command line ends with, ``retry`` whether time alone may heal it: a running daemon
reports an error that does not heal, goes on trying in long intervals, and touches nothing meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class PluginError(Exception):
    """Base of all. ``remedy`` says what to do; ``str()`` gives the sentence with it."""

    exit_code: ClassVar[int] = 1
    retry: ClassVar[bool] = False

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


# --- the operator can mend these -----------------------------------------------------------------------


class ConfigurationError(PluginError):
    """A wrong option, section, type or value. Found before any connection is made."""

    exit_code = 2


class LoginRefused(PluginError):
    """vCenter, EAM or the broker refused user name or password."""

    exit_code = 3


class CertificateRejected(PluginError):
    """The server's certificate is not trusted. The sentence gives its thumbprint and subject."""

    exit_code = 4


class PrivilegeMissing(PluginError):
    """The account lacks a privilege: which one, and on what."""

    exit_code = 5


class ScopeError(PluginError):
    """A cluster of the configured scope is unknown or ambiguous; the sentence lists the candidates."""

    exit_code = 6


class OvfError(PluginError):
    """The OVF package is missing, malformed or cannot be reached from vCenter."""

    exit_code = 7


class AgencyConflict(PluginError):
    """An agency of our name belongs to somebody else, or there are several."""

    exit_code = 8


class BrokerRefused(PluginError):
    """The broker does not allow, or does not have, what we need (exchange type, permission, vhost)."""

    exit_code = 9


class NotAcknowledged(PluginError):
    """What was asked for needs a person's typed word, and it was missing or another. Nothing was changed."""

    exit_code = 11


class PlanChanged(PluginError):
    """What would be done now is not what was previewed. Nothing was changed; ``preview`` is the new one, as plain
    values."""

    exit_code = 12

    def __init__(self, message: str, *, remedy: str = "", preview: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.preview = dict(preview or {})


class UnknownTarget(PluginError):
    """No host, cluster, agency or vCenter is called so, or several are; the sentence lists the candidates."""

    exit_code = 14


class NotAllDone(PluginError):
    """An operation ended, and some of its steps failed or were left out; its report says which."""

    exit_code = 15


class CheckFailed(PluginError):
    """``vcenter-eam check`` found something that would keep the service from its work; the findings say what."""

    exit_code = 16


# --- time may heal these --------------------------------------------------------------------------------


class Unavailable(PluginError):
    """A server cannot be reached, is starting, or is overloaded. Try again later, with back-off."""

    exit_code = 10
    retry = True


class SessionExpired(Unavailable):
    """The session is gone (``NotAuthenticated``, ``EamInvalidLogin``): log in again, then list and diff."""


class SuspectRead(Unavailable):
    """What was read may leave something out that exists. Nothing of it is used: read again."""


class SilentlyExpired(SuspectRead, SessionExpired):
    """The session is gone and the server did not say so: it answered without what was asked for."""


class StreamReset(Unavailable):
    """The collector version is lost (``InvalidCollectorVersion``) or the view is: list again and diff."""


class NotConfirmed(Unavailable):
    """The broker did not confirm in time, or answered nack. The message stays in the outbox."""


# --- the object is not (any more) what we thought --------------------------------------------------------


class ObjectGone(PluginError):
    """``ManagedObjectNotFound``: the object was removed since we read it. Read again."""


class WrongState(PluginError):
    """Refused because the state does not allow it now: of the object, or ours (observing, paused, not leading).

    Read again, plan again.
    """

    exit_code = 13


# --- nobody can mend these at run time --------------------------------------------------------------------


class ProtocolError(PluginError):
    """The peer sent what cannot be understood. The connection is given up and made anew."""

    retry = True
