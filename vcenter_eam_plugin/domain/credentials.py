# SPDX-License-Identifier: Apache-2.0
"""Telling by name or shape that a value is a credential, so that it is refused where others can read it.

What goes into a VM as ``guestinfo`` or as an OVF property can be read by everybody who may look at that VM.

Not promised: that a secret under a harmless name is found.
"""

from __future__ import annotations

import re

_NAME = re.compile(
    r"passw(?:or)?d|passphrase|secret|credential|api[-_.]?key|private[-_.]?key|"
    r"(?:^|[-_.])(?:pass|pwd|pw|token|auth)(?:$|[-_.])|(?:access|auth|session|bearer)[-_.]?token",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_LOGIN_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)
_WORDS = re.compile(r"([a-z0-9])([A-Z])")


def credential_sign(name: str, value: str = "") -> str:
    """Why ``name = value`` looks like a credential; empty when it does not. The value is never part of the text."""
    spaced = _WORDS.sub(r"\1_\2", name)  # camel case: authToken as auth_Token
    if _NAME.search(spaced) or _NAME.search(name):
        return "its name says that it is a credential"
    if _PRIVATE_KEY.search(value):
        return "its value is a private key"
    if _LOGIN_IN_URL.search(value):
        return "its value holds a URL with a password"
    return ""
