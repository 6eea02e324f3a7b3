# SPDX-License-Identifier: Apache-2.0
"""A green run of CI means that everything ran; elsewhere a skip is loud."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_skip_is_a_failure_in_ci_and_loud_elsewhere(tmp_path: Path, ci: str, status: int) -> None:
    file = tmp_path / "test_sample.py"
    file.write_text("import pytest\ndef test_a(): pytest.skip('no such server')\ndef test_b(): pass\n", "utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            file,
        ],
        cwd=ROOT,
        env=os.environ | {"CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert "NOT TESTED HERE: 1 tests were skipped" in done.stdout
    assert "no such server" in done.stdout
