# SPDX-License-Identifier: Apache-2.0
"""``vcenter-eam simulator`` as a process of its own: what it prints is enough to use it."""

import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

from vcenter_eam_plugin.cli.main import main
from vcenter_eam_plugin.config import load

CODE = "from vcenter_eam_plugin.cli.main import main; main(prog_name='vcenter-eam')"


@contextmanager
def simulator(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "simulator", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_unmodified_pyvmomi_logs_in_with_what_was_printed_and_sigterm_ends_it() -> None:
    with simulator("--hosts", "4", "--clusters", "2", "--json") as process:
        assert process.stdout
        about = json.loads(process.stdout.readline())
        assert about["kind"] == "simulator"
        trust = ssl.create_default_context(cafile=about["ca_file"])
        instance = SmartConnect(
            host=about["host"], port=about["port"], user=about["user"], pwd=about["password"], sslContext=trust
        )
        try:
            content = instance.RetrieveContent()
            view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], recursive=True)
            assert len(view.view) == 4
        finally:
            Disconnect(instance)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert not Path(about["ca_file"]).exists(), "its temporary directory is gone"


def test_printed_sections_are_a_configuration_as_they_stand(tmp_path: Path) -> None:
    with simulator("--hosts", "1", "--clusters", "1") as process:
        assert process.stdout
        lines: list[str] = []
        while not any(line.startswith("Certificate") for line in lines):
            lines.append(process.stdout.readline())
        start = lines.index("[VCENTER]\n")
        path = tmp_path / "vcenter_eam.conf"
        path.write_text("".join(lines[start:-1]), "utf-8")
        (unit,) = load([path], {}).vcenters
        assert unit.eam.clusters == ("/DC0/host/ClusterA",)
        assert unit.vcenter.vc_ca_certs
        assert unit.vcenter.vc_password()


def test_taken_port_ends_with_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with simulator("--listen", address) as process:
            _, said = process.communicate(timeout=30)
    assert process.returncode == 10
    assert said == f"vcenter-eam: The simulator cannot listen on {address}: Address already in use.\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--knob", "no_such_knob=1"), "Option --knob: there is no knob 'no_such_knob'"),
        (("--knob", "power_on=soon"), "Option --knob: knob power_on: 'soon' is not a float"),
        (("--listen", "here:there"), "'here:there' is not ADDR or ADDR:PORT."),
        (("--hosts", "-1"), "Invalid value for '--hosts'"),
    ],
)
def test_wrong_argument_is_named_before_anything_starts(arguments: tuple[str, ...], expected: str) -> None:
    done = CliRunner().invoke(main, ["simulator", *arguments])
    assert done.exit_code == 2
    assert expected in done.stderr
