# SPDX-License-Identifier: Apache-2.0
"""One thing that was looked at, and what is to be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vcenter_eam_plugin.domain.errors import PluginError


class Verdict(StrEnum):
    """``SKIP``: not looked at, because something before it failed."""

    PASS = "pass"  # noqa: S105 - a verdict
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """``subject`` is what was asked (a server, this machine), ``check`` the thing by a short and stable name."""

    subject: str
    check: str
    verdict: Verdict
    text: str
    remedy: str = ""

    def plain(self) -> dict[str, str]:
        """As plain values, for JSON."""
        return {
            "kind": "finding",
            "subject": self.subject,
            "check": self.check,
            "verdict": self.verdict.value,
            "text": self.text,
            "remedy": self.remedy,
        }


class Subject:
    """Makes the findings of one subject."""

    def __init__(self, name: str) -> None:
        self.name = name

    def passed(self, check: str, text: str) -> Finding:
        return Finding(self.name, check, Verdict.PASS, text)

    def warned(self, check: str, text: str, remedy: str) -> Finding:
        return Finding(self.name, check, Verdict.WARN, text, remedy)

    def failed(self, check: str, text: str, remedy: str) -> Finding:
        return Finding(self.name, check, Verdict.FAIL, text, remedy)

    def skipped(self, check: str, why: str) -> Finding:
        return Finding(self.name, check, Verdict.SKIP, f"not looked at: {why}")

    def refused(self, check: str, error: PluginError, remedy: str = "") -> Finding:
        """A failure that one of our errors tells; ``remedy`` where the error has none of its own."""
        return self.failed(check, error.message, error.remedy or remedy)
