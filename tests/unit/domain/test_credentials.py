# SPDX-License-Identifier: Apache-2.0
"""S20: credentials are refused where everybody can read them, by name or by shape."""

import pytest

from vcenter_eam_plugin.domain.credentials import credential_sign


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vcenter-password", "x"),
        ("rootPassword", "x"),
        ("db_passwd", "x"),
        ("PWD", "x"),
        ("client.secret", "x"),
        ("authToken", "x"),
        ("apiKey", "x"),
        ("ssh-private-key", "x"),
        ("url", "amqp://guest:hunter2@10.0.0.1/"),
        ("note", "-----BEGIN OPENSSH PRIVATE KEY-----"),
    ],
)
def test_credentials_are_told_and_never_repeated(name: str, value: str) -> None:
    sign = credential_sign(name, value)
    assert sign
    assert "hunter2" not in sign


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("contrail.address", "10.0.0.5"),
        ("passthrough", "on"),
        ("compass", "north"),
        ("author", "somebody"),
        ("ssh-public-key", "ssh-ed25519 AAAA"),
        ("vcenter-ip", "https://10.0.0.1:443/sdk"),
        ("bypass-checks", "1"),
    ],
)
def test_what_only_sounds_alike_is_let_through(name: str, value: str) -> None:
    assert credential_sign(name, value) == ""
