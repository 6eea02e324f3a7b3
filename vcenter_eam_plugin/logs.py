# SPDX-License-Identifier: Apache-2.0
"""The log of a process of our own, in the format of Contrail's services, or as JSON.

For the daemon and the command line only. In somebody else's process nothing here is called: our loggers, all below
``vcenter_eam_plugin``, hand over to whatever the host has set up.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from vcenter_eam_plugin.config import DefaultsConfig, LogFormat
from vcenter_eam_plugin.domain.errors import ConfigurationError

FORMAT = "%(asctime)s [%(name)s] [%(levelname)s]: %(message)s"
DATE_FORMAT = "%m/%d/%Y %I:%M:%S %p"

# Sizes of Contrail's own services, so that a node's log directory grows as an operator knows it.
MAX_BYTES = 5_000_000
BACKUP_COUNT = 10

LEVELS = {
    "SYS_EMERG": logging.CRITICAL,
    "SYS_ALERT": logging.CRITICAL,
    "SYS_CRIT": logging.CRITICAL,
    "SYS_ERR": logging.ERROR,
    "SYS_WARN": logging.WARNING,
    "SYS_NOTICE": logging.INFO,  # Python has no NOTICE; Contrail's Python services map it the same way
    "SYS_INFO": logging.INFO,
    "SYS_DEBUG": logging.DEBUG,
}

_NAMES = {
    logging.CRITICAL: "SYS_CRIT",
    logging.ERROR: "SYS_ERR",
    logging.WARNING: "SYS_WARN",
    logging.INFO: "SYS_INFO",
    logging.DEBUG: "SYS_DEBUG",
}


class ContrailFormatter(logging.Formatter):
    """Contrail's line, with its level names; the process-wide names of :mod:`logging` stay as they are.

    ``redact`` takes secrets out of the whole text, tracebacks too.
    """

    def __init__(self, redact: Callable[[str], str] = str) -> None:
        super().__init__(FORMAT, DATE_FORMAT)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        return FORMAT % (record.__dict__ | {"levelname": _NAMES.get(record.levelno, record.levelname)})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (ISO 8601, UTC), ``level`` (Contrail's names), ``logger``, ``message`` and,
    after an exception, ``exception`` with the traceback. ``redact`` takes secrets out of the two texts."""

    def __init__(self, redact: Callable[[str], str] = str) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": _NAMES.get(record.levelno, record.levelname),
            "logger": record.name,
            "message": self._redact(record.getMessage()),
        }
        if record.exc_info:
            told["exception"] = self._redact(self.formatException(record.exc_info))
        return json.dumps(told, ensure_ascii=False)


def configure(defaults: DefaultsConfig, redact: Callable[[str], str] = str) -> logging.Handler:
    """Send our log, and warnings of the libraries, to ``log_file``. Replaces what an earlier call set up.

    ``redact`` takes secrets out of each line.

    Raises ConfigurationError when the file cannot be written.
    """
    handler: logging.Handler
    if defaults.log_file == "<stdout>":
        handler = logging.StreamHandler(sys.stdout)
    else:
        try:
            handler = logging.handlers.RotatingFileHandler(
                defaults.log_file, maxBytes=MAX_BYTES, backupCount=BACKUP_COUNT, encoding="utf-8"
            )
        except OSError as exc:
            raise ConfigurationError(
                f"Section [DEFAULTS], option log_file: {defaults.log_file} cannot be written: {exc.strerror}."
            ) from exc
    json_lines = defaults.log_format is LogFormat.JSON
    handler.setFormatter(JsonFormatter(redact) if json_lines else ContrailFormatter(redact))
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if isinstance(each.formatter, ContrailFormatter | JsonFormatter)]:
        root.removeHandler(earlier)
        earlier.close()
    root.addHandler(handler)
    logging.getLogger("vcenter_eam_plugin").setLevel(LEVELS[defaults.log_level])
    return handler
