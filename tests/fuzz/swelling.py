# SPDX-License-Identifier: Apache-2.0
"""One login in a process of its own, so that its memory can be measured. Prints ``error|MiB grown|stall in s``."""

import re
import sys
import time
from pathlib import Path

import gevent

import tests.support.gevent_patch  # noqa: F401 - before everything else
from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.vsphere.session import Session, SessionSettings

BEAT = 0.01


def _most_kib() -> int:
    """The most memory so far. Not getrusage's, which begins with what the parent had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def main(port: int, ca_file: str) -> None:
    stalls = [0.0]

    def beat() -> None:
        while True:
            before = time.monotonic()
            gevent.sleep(BEAT)
            stalls.append(time.monotonic() - before - BEAT)

    gevent.spawn(beat)
    settings = SessionSettings(
        host="127.0.0.1", port=port, username="u", password=lambda: "p", ca_file=ca_file, call_timeout=5.0
    )
    before = _most_kib()
    said = "nothing"
    try:
        Session(settings).open()
    except PluginError as exc:
        said = f"{type(exc).__name__}: {exc}".replace("\n", " ").replace("|", " ")
    grown = _most_kib() - before
    print(f"{said}|{grown >> 10}|{max(stalls):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
