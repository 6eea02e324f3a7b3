# SPDX-License-Identifier: Apache-2.0
"""``docs/install.md`` as a stranger follows it: from the wheel to every host ACTIVE, each block as it stands there.

A block whose last command stays in the foreground is given a terminal of its own, as the page says. Of the page's text
``CHECKOUT`` alone is replaced, by the wheel. It listens at the ports that the page names, so nothing else may.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "install.md"
STAYS = ("vcenter-eam simulator", "contrail-vcenter-eam-plugin -c")
SECONDS = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def blocks() -> list[str]:
    """Every block of commands up to "With a real vCenter", in order."""
    text, _, _ = PAGE.read_text("utf-8").partition("## With a real vCenter")
    return re.findall(r"^```\n(.*?)^```$", text, re.S | re.M)


class Stranger:
    """Somebody in an empty folder, with as many terminals as he needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._terminals: list[subprocess.Popen[bytes]] = []
        # No virtual environment of ours, nothing of the checkout on any path.
        path = f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin"
        self._environment = {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8"}
        self._environment |= {
            name: os.environ[name] for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE") if name in os.environ
        }

    def types(self, block: str) -> str:
        """What the commands print. Stops at the first that fails."""
        done = subprocess.run(
            ["bash", "-ec", self._in_venv(block)],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}"
        return done.stdout

    def leaves_running(self, block: str) -> Path:
        """A terminal of its own; the file that holds what it shows."""
        shown = self.folder / f"terminal-{len(self._terminals)}.log"
        with shown.open("wb") as out:
            self._terminals.append(
                subprocess.Popen(
                    ["bash", "-ec", self._in_venv(block)],
                    cwd=self.folder,
                    env=self._environment,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        return shown

    def _in_venv(self, block: str) -> str:
        activate = self.folder / "venv/bin/activate"
        return f". {activate}\n{block}" if activate.exists() else block

    def goes_home(self) -> list[int]:
        """Ctrl-C in every terminal, the last one first; their exit codes."""
        codes = []
        for terminal in reversed(self._terminals):
            if terminal.poll() is None:
                os.killpg(terminal.pid, signal.SIGINT)
            try:
                codes.append(terminal.wait(20))
            except subprocess.TimeoutExpired:
                os.killpg(terminal.pid, signal.SIGKILL)
                codes.append(terminal.wait(20))
        self._terminals.clear()
        return codes


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    one = Stranger(tmp_path)
    yield one
    one.goes_home()


def wait_until(shown: Path, text: str) -> None:
    deadline = time.monotonic() + SECONDS
    while text not in shown.read_text("utf-8", "replace"):
        assert time.monotonic() < deadline, shown.read_text("utf-8", "replace")
        time.sleep(0.1)


def test_from_the_wheel_to_every_host_active(stranger: Stranger, wheel: Path) -> None:
    install, simulator, configure, run, look, act, off, clean = blocks()
    assert "CHECKOUT" in install
    stranger.types(re.sub(r"CHECKOUT.*", str(wheel), install))
    assert "man1" in stranger.types("find venv/share -name '*.1'")
    shown = stranger.leaves_running(simulator)
    wait_until(shown, "https://127.0.0.1:8443/sdk")
    assert "The configuration is right." in stranger.types(configure)
    shown = stranger.leaves_running(run)
    wait_until(shown, "Leading from now on")
    wait_for_status(stranger, look, "PENDING", 4)
    stranger.types(act)
    status = "vcenter-eam status -c vcenter_eam.conf"
    wait_for_status(stranger, status, "ACTIVE", 4)
    stranger.types(off)
    wait_for_status(stranger, status, "ACTIVE", 4)
    stranger.types(clean)
    assert stranger.goes_home()[0] == 0, "the service ends in order"


def wait_for_status(stranger: Stranger, command: str, state: str, hosts: int) -> None:
    deadline = time.monotonic() + SECONDS
    while (shown := stranger.types(command)).count(state) < hosts:
        assert time.monotonic() < deadline, shown
        time.sleep(0.5)
