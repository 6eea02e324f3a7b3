# SPDX-License-Identifier: Apache-2.0
"""Text for a terminal."""

from __future__ import annotations


def clean(text: object) -> str:
    """Text that came from vCenter or EAM may hold anything; a terminal would obey its control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))
