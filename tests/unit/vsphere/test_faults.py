# SPDX-License-Identifier: Apache-2.0
"""Whatever a library raises becomes one of our errors, by who is at fault and whether time heals it."""

from __future__ import annotations

import http.client
import socket
from xml.parsers.expat import ExpatError

import pytest
from pyVmomi import eam, vim, vmodl

from vcenter_eam_plugin.domain import errors
from vcenter_eam_plugin.vsphere.faults import translate


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (vim.fault.NotAuthenticated(), errors.SessionExpired),
        (eam.fault.InvalidLogin(), errors.SessionExpired),
        (vim.fault.InvalidLogin(), errors.LoginRefused),
        (vim.fault.NoPermission(), errors.PrivilegeMissing),
        (eam.fault.NotAuthorized(), errors.PrivilegeMissing),
        (vmodl.fault.ManagedObjectNotFound(), errors.ObjectGone),
        (vmodl.query.InvalidCollectorVersion(), errors.StreamReset),
        (eam.fault.EamServiceNotInitialized(), errors.Unavailable),
        (eam.fault.NoConnectionToVCenter(), errors.Unavailable),
        (vmodl.fault.RequestCanceled(), errors.Unavailable),
        (vmodl.fault.SystemError(), errors.Unavailable),
        (vmodl.fault.InvalidRequest(), errors.ProtocolError),
        (vmodl.fault.InvalidArgument(), errors.ProtocolError),
        (vim.fault.InvalidState(), errors.WrongState),
        (vim.fault.InvalidPowerState(), errors.WrongState),
        (vim.fault.TaskInProgress(), errors.WrongState),
        (eam.fault.InvalidState(), errors.WrongState),
        (eam.fault.DisabledClusterFault(), errors.WrongState),
        (ConnectionResetError(104, "reset"), errors.Unavailable),
        (ConnectionRefusedError(111, "refused"), errors.Unavailable),
        (TimeoutError(), errors.Unavailable),
        (socket.gaierror(-2, "Name or service not known"), errors.Unavailable),
        (http.client.RemoteDisconnected("gone"), errors.Unavailable),
        (http.client.HTTPException("503 Service Unavailable"), errors.Unavailable),
        (http.client.IncompleteRead(b""), errors.Unavailable),
        (ExpatError("not well-formed"), errors.ProtocolError),
        (KeyError(""), errors.ProtocolError),
        (AttributeError("'NoneType' object has no attribute 'msg'"), errors.ProtocolError),
        (TypeError("x"), errors.ProtocolError),
        (SystemExit(1), errors.ProtocolError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_translation(raised: BaseException, expected: type[errors.PluginError]) -> None:
    """The class decides the exit code and whether it is tried again; the sentence says where it happened."""
    made = translate(raised, "vc: Login on SessionManager", "svc")
    assert type(made) is expected
    assert made.message.startswith("vc: Login on SessionManager")
    assert made.message.endswith(".")


def test_missing_privilege_names_it_and_its_object() -> None:
    fault = vim.fault.NoPermission(object=vim.HostSystem("host-12"), privilegeId="Host.Config.Settings")
    text = str(translate(fault, "vc: UpdateConfig", "svc"))
    assert "Host.Config.Settings" in text
    assert "host-12" in text
    assert "svc" in text
