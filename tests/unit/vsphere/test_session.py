# SPDX-License-Identifier: Apache-2.0
"""The EAM version that fits a vCenter, and that nothing newer than it is lost."""

from __future__ import annotations

import pytest
from pyVmomi import eam, vim
from pyVmomi.SoapAdapter import SerializeToStr

from vcenter_eam_plugin.domain.errors import ConfigurationError, Unavailable
from vcenter_eam_plugin.vsphere.session import Session, SessionSettings, eam_version


@pytest.mark.parametrize(
    ("api_version", "version"),
    [
        ("6.5", "eam.version.version6_5"),
        ("7.0.0.0", "eam.version.version7_1"),
        ("7.0.1.0", "eam.version.version7_2"),
        ("7.0.2.0", "eam.version.version7_2"),
        ("7.0.3.2", "eam.version.version7_6"),
        ("8.0.0.1", "eam.version.version7_6"),
        ("8.0.2.0", "eam.version.version8_2"),
        ("8.0.3.0", "eam.version.version8_3"),
        ("9.0.0.0", "eam.version.version9_0"),
        ("9.1.0.0", "eam.version.version9_0"),
    ],
)
def test_eam_version_by_vcenter_level(api_version: str, version: str) -> None:
    assert eam_version(api_version) == version


@pytest.mark.parametrize("api_version", ["7.0.0.0", "8.0.2.0"])
def test_version_keeps_the_fields_that_we_write(api_version: str) -> None:
    """Measured bug: a stub of EAM version 1 silently drops the newer fields, and agencies lose their settings."""
    config = eam.Agency.ConfigInfo(
        agencyName="a",
        agentVmDatastore=[vim.Datastore("datastore-1")],
        folders=[eam.Agency.VMFolder(folderId=vim.Folder("group-v1"), datacenterId=vim.Datacenter("datacenter-1"))],
    )
    written = SerializeToStr(config, version=eam_version(api_version))
    assert "datastore-1" in written
    assert "group-v1" in written
    lost = SerializeToStr(config, version="eam.version.version1")
    assert "datastore-1" not in lost


def test_nothing_is_asked_before_the_login() -> None:
    session = Session(SessionSettings(host="vc", username="u", password=lambda: "p"))
    with pytest.raises(Unavailable, match="not connected"):
        session.vim_stub()
    assert not session.alive()
    session.close()


def test_password_is_asked_for_at_each_login_and_its_error_is_passed_on() -> None:
    """A secret's file that cannot be read is told as it is, before any connection."""

    def unreadable() -> str:
        raise ConfigurationError("the password file is missing.")

    session = Session(SessionSettings(host="vc", username="u", password=unreadable))
    with pytest.raises(ConfigurationError, match="password file"):
        session.open()
