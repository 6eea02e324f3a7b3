# SPDX-License-Identifier: Apache-2.0
"""Simulator and daemon as processes of their own, as an operator runs them: to be killed and started again."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.rabbit import wait_for

START_SECONDS = 30.0
STOP_SECONDS = 10.0
WEB_PORT = "VCENTER_EAM__INTROSPECT__introspect_port"
"""In the environment of a daemon; 0 is any that is free, since others run on this machine."""


class Refused(AssertionError):
    """The simulator's control interface did not do what it was asked for: fails a test that does not expect it."""


class SimulatorProcess:
    """``vcenter-eam simulator --json``, and its control interface."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._log = (directory / "simulator.log").open("wb")
        code = "from vcenter_eam_plugin.cli.main import main; main()"
        options = ("--json", "--directory", str(directory / "simulator"), *arguments)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "simulator", *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (directory / "simulator.log").read_text()
        self.about: dict[str, Any] = json.loads(line)

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A request to the control interface; its JSON answer."""
        context = ssl.create_default_context(cafile=self.about["ca_file"])
        connection = http.client.HTTPSConnection(
            self.about["host"], self.about["port"], context=context, timeout=START_SECONDS
        )
        try:
            headers = {"X-Simulator-Token": self.about["control_token"]}
            connection.request(method, f"/simulator/{path}", json.dumps(body or {}), headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise Refused(text)
            return json.loads(text)
        finally:
            connection.close()

    def do(self, verb: str, **arguments: Any) -> Any:
        """One stimulus, by name."""
        return self.control("POST", "stimuli", {"verb": verb, **arguments})["result"]

    def truth(self) -> dict[str, dict[str, Any]]:
        """Host name -> the last truth written of it; hosts that are gone are left out."""
        newest: dict[str, dict[str, Any]] = {}
        for entry in self.control("GET", "journal"):
            if entry["kind"] == "truth":
                newest[entry["fields"]["name"]] = entry["fields"]
        return {name: fields for name, fields in newest.items() if fields["present"]}

    def agent_vm(self, host: str) -> str:
        """Moref of a host's ContrailVM."""
        vm = self.truth()[host]["vm"]
        assert vm is not None
        return str(vm)

    def close(self) -> None:
        _end(self.process)
        self._log.close()


class DaemonProcess:
    """``contrail-vcenter-eam-plugin -c FILE``. Start it as often as it is killed.

    ``module`` is what Python runs instead of the package, with the same arguments. ``web_port`` is that of its status
    page; 0 is any that is free.
    """

    def __init__(self, directory: Path, conf_file: Path, module: str = "vcenter_eam_plugin", web_port: int = 0) -> None:
        self.web_port = web_port
        self.log_file = directory / "daemon.log"
        self._conf_file = conf_file
        self._module = module
        self.process: subprocess.Popen[bytes] | None = None
        self._log_begins = 0

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it; ``environment`` is added to ours."""
        with self.log_file.open("ab") as log:
            self._log_begins = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module, "-c", str(self._conf_file)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, WEB_PORT: str(self.web_port), **(environment or {})},
            )

    def wait_until_leading(self) -> None:
        """Until the process that runs now is past its start: it has logged in, and takes signals as it should."""
        wait_for(lambda: self._log_of_this_run().count("Leading from now on") > 0, START_SECONDS, "the daemon leads")

    def _log_of_this_run(self) -> str:
        return self.log_file.read_bytes()[self._log_begins :].decode()

    def kill(self) -> None:
        """SIGKILL: no chance to put anything in order."""
        assert self.process is not None
        assert self.process.poll() is None, self.log_file.read_text()
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def close(self) -> None:
        if self.process is not None:
            _end(self.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def simulator_process(directory: Path, *arguments: str) -> Iterator[SimulatorProcess]:
    """A simulator that ends with the block."""
    simulator = SimulatorProcess(directory, *arguments)
    try:
        yield simulator
    finally:
        simulator.close()


@contextmanager
def daemon_process(directory: Path, conf_file: Path, web_port: int = 0) -> Iterator[DaemonProcess]:
    """A daemon, not started yet, that ends with the block."""
    daemon = DaemonProcess(directory, conf_file, web_port=web_port)
    try:
        yield daemon
    finally:
        daemon.close()


def write_secret(path: Path, text: str) -> Path:
    """A file that only we may read."""
    path.touch(mode=0o600)
    path.write_text(text, "utf-8")
    assert path.stat().st_mode & 0o077 == 0
    return path
