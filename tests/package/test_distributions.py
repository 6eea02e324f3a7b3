# SPDX-License-Identifier: Apache-2.0
"""Wheel and sdist hold what they should, and an index would take them."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

SHARE = "share/contrail-vcenter-eam-plugin"


def test_an_index_would_take_both(distributions: Path) -> None:
    files = sorted(str(path) for path in distributions.iterdir())
    assert len(files) == 2
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)


def test_the_wheel_holds_the_package_and_what_an_installation_copies(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "vcenter_eam_plugin/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]
    data = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    assert {
        "share/man/man1/vcenter-eam.1",
        "share/man/man8/contrail-vcenter-eam-plugin.8",
        f"{SHARE}/vcenter_eam.conf",
        f"{SHARE}/contrail-vcenter-eam-plugin.service",
        f"{SHARE}/samples/one-vcenter.conf",
        f"{SHARE}/prometheus/alerts.yml",
        f"{SHARE}/grafana/dashboard.json",
    } <= data


def test_the_sdist_can_be_read_without_the_repository(distributions: Path) -> None:
    (found,) = distributions.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "README.md", "CHANGELOG.md", "LICENSE", "docs/install.md", "etc/vcenter_eam.conf"} <= names
