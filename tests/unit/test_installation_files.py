# SPDX-License-Identifier: Apache-2.0
"""What an installation copies to its place: the samples are right configurations, the systemd unit holds together."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vcenter_eam_plugin import config

ETC = Path(__file__).parents[2] / "etc"
SAMPLES = sorted((ETC / "samples").glob("*.conf"))
UNIT = ETC / "contrail-vcenter-eam-plugin.service"
INSTALLED = "/opt/contrail-vcenter-eam-plugin/bin/contrail-vcenter-eam-plugin"
PLACES = (
    "/etc/contrail/contrail-vcenter-eam-plugin",
    "/var/lib/contrail/images",
    "/var/log/contrail/vcenter-eam-plugin",
)


def test_there_are_samples_for_what_is_usual() -> None:
    assert [path.stem for path in SAMPLES] == ["ha-pair", "one-vcenter", "several-vcenters"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_sample_is_right(path: Path, tmp_path: Path) -> None:
    """But for the files that it names, which each installation has to bring."""
    text = path.read_text("utf-8")
    for place in PLACES:
        text = text.replace(place, str(tmp_path))
    for name in {line.partition("=")[2].strip() for line in text.splitlines() if str(tmp_path) in line}:
        Path(name).touch(0o600)
    (tmp_path / "sample.conf").write_text(text, "utf-8")
    configuration = config.load([tmp_path / "sample.conf"], environ={})
    assert len(configuration.vcenters) == (2 if path.stem == "several-vcenters" else 1)
    assert (configuration.zookeeper is not None) == (path.stem == "ha-pair")


def test_samples_hold_no_secret() -> None:
    assert [path.name for path in SAMPLES if "password =" in path.read_text("utf-8")] == []


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that is there."""
    there = Path(sys.executable).with_name("contrail-vcenter-eam-plugin")
    copy = tmp_path / UNIT.name
    text = UNIT.read_text("utf-8")
    assert INSTALLED in text
    copy.write_text(text.replace(INSTALLED, str(there)), "utf-8")
    return copy


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze (Debian's package systemd) not found: the unit file is NOT checked")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_hardened(unit: Path) -> None:
    """At most 1.5 of 10 by systemd's own measure; what is left is the network, which it is there for."""
    done = analyze("security", "--offline=true", "--threshold=15", str(unit))
    assert done.returncode == 0, done.stdout[-2000:]
