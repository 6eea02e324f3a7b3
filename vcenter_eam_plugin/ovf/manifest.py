# SPDX-License-Identifier: Apache-2.0
"""The manifest of an OVF package: which digest each file must have (DSP0243, section 5.1).

SHA1 is what OVF 1 prescribes and most tools write; it is checked against accidents, not against an attacker.
Not promised: signatures (``.cert``) are served, but not verified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vcenter_eam_plugin.domain.errors import OvfError

_LINE = re.compile(r"(SHA1|SHA256|SHA384|SHA512)\s*\((.+)\)\s*=\s*([0-9A-Fa-f]+)")
_DIGITS = {"sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
MOST_MANIFEST_BYTES = 4 << 20
"""A line for each file."""


@dataclass(frozen=True, slots=True)
class Expected:
    """``algorithm`` as hashlib names it; ``digest`` in small hexadecimal digits."""

    algorithm: str
    digest: str


def parse_manifest(text: bytes, where: str) -> dict[str, Expected]:
    """What a manifest expects, by file name. Raises OvfError, with the line, when it cannot be understood."""
    found: dict[str, Expected] = {}
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        algorithm = match[1].lower() if match else ""
        if match is None or len(match[3]) != _DIGITS[algorithm]:
            raise OvfError(
                f"The manifest {where} cannot be understood at line {number}.",
                remedy="A line is SHA256(file)= and the digest in hexadecimal; make it anew, or remove it.",
            )
        if match[2] in found:
            raise OvfError(f"The manifest {where} names {match[2]!r} twice.", remedy="Make it anew, or remove it.")
        found[match[2]] = Expected(algorithm, match[3].lower())
    return found
