# SPDX-License-Identifier: Apache-2.0
"""What several commands share: the ``-c`` option, and the end of a command that runs until it is told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import gevent
from gevent.event import Event

from vcenter_eam_plugin.config import SYSTEM_FILE, Configuration, load

configuration_files: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "-c",
    "--conf-file",
    "paths",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Configuration file; may be repeated, later ones win. Default: {SYSTEM_FILE}, if it exists.",
)


def load_configuration(paths: tuple[Path, ...], *, need_vcenter: bool = True) -> Configuration:
    """What ``-c`` named, else the system's file; and the environment. Raises ConfigurationError."""
    return load(paths or [path for path in (SYSTEM_FILE,) if path.exists()], need_vcenter=need_vcenter)


@contextmanager
def until_stopped() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set: the regular end of a command that runs until somebody stops it."""
    stop = Event()
    handlers = [gevent.signal_handler(number, stop.set) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield stop
    finally:
        for handler in handlers:
            handler.cancel()
