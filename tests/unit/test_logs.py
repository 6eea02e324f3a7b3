# SPDX-License-Identifier: Apache-2.0
"""The log looks as Contrail's, and only processes of our own touch the root logger."""

import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from vcenter_eam_plugin.config import LOG_LEVELS, DefaultsConfig, LogFormat
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.logs import LEVELS, ContrailFormatter, configure


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Root handlers and the package's level are process-wide; the next test must find them as they were."""
    root, package = logging.getLogger(), logging.getLogger("vcenter_eam_plugin")
    before, level = list(root.handlers), package.level
    yield
    for handler in [each for each in root.handlers if each not in before]:
        root.removeHandler(handler)
        handler.close()
    package.setLevel(level)


def test_line_has_contrails_format_and_level_names(tmp_path: Path) -> None:
    file = tmp_path / "plugin.log"
    configure(DefaultsConfig(log_file=str(file), log_level="SYS_WARN"))
    logger = logging.getLogger("vcenter_eam_plugin.bus.publisher")
    logger.warning("no broker: %s", "down")
    logger.info("too quiet to be logged")
    (line,) = file.read_text("utf-8").splitlines()
    assert re.fullmatch(
        r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d [AP]M \[vcenter_eam_plugin\.bus\.publisher\] \[SYS_WARN\]: no broker: down",
        line,
    )


def test_json_lines_carry_what_a_collector_needs(tmp_path: Path) -> None:
    """Also what has line breaks, quotes and a traceback stays one line."""
    file = tmp_path / "plugin.log"
    configure(DefaultsConfig(log_file=str(file), log_format=LogFormat.JSON))
    logger = logging.getLogger("vcenter_eam_plugin.bus")
    logger.error('a "quoted"\nname: %s', "ünï")
    try:
        int("why")
    except ValueError:
        logger.exception("failed")
    first, second = (json.loads(line) for line in file.read_text("utf-8").splitlines())
    assert (first["level"], first["logger"]) == ("SYS_ERR", "vcenter_eam_plugin.bus")
    assert first["message"] == 'a "quoted"\nname: ünï'
    assert datetime.fromisoformat(first["time"]).utcoffset() is not None
    assert "exception" not in first
    assert second["exception"].endswith("base 10: 'why'")


def test_secrets_are_taken_out_of_json_before_it_is_json(tmp_path: Path) -> None:
    """A quote in a secret would be written as two characters, and not be found any more."""
    file = tmp_path / "plugin.log"
    secret = 'hunt"er2'
    configure(
        DefaultsConfig(log_file=str(file), log_format=LogFormat.JSON), lambda text: text.replace(secret, "[secret]")
    )
    try:
        int(secret)
    except ValueError:
        logging.getLogger("vcenter_eam_plugin").exception("with %s", secret)
    text = file.read_text("utf-8")
    assert "er2" not in text
    assert json.loads(text)["message"] == "with [secret]"


def test_a_full_file_is_rotated_in_json_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcenter_eam_plugin.logs.MAX_BYTES", 500)
    file = tmp_path / "plugin.log"
    configure(DefaultsConfig(log_file=str(file), log_format=LogFormat.JSON))
    for number in range(10):
        logging.getLogger("vcenter_eam_plugin").error("line %d", number)
    assert (tmp_path / "plugin.log.1").exists()
    assert file.stat().st_size <= 500


def test_second_call_replaces_the_first(tmp_path: Path) -> None:
    for name in ("one.log", "two.log"):
        configure(DefaultsConfig(log_file=str(tmp_path / name)))
    logging.getLogger("vcenter_eam_plugin").warning("once")
    assert (tmp_path / "one.log").read_text("utf-8") == ""
    assert len((tmp_path / "two.log").read_text("utf-8").splitlines()) == 1
    assert sum(isinstance(each.formatter, ContrailFormatter) for each in logging.getLogger().handlers) == 1


def test_file_that_cannot_be_written_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"log_file: /nonexistent/x\.log cannot be written: No such file"):
        configure(DefaultsConfig(log_file="/nonexistent/x.log"))


def test_every_level_of_the_configuration_has_a_meaning() -> None:
    assert tuple(LEVELS) == LOG_LEVELS
