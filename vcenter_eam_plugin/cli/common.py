# SPDX-License-Identifier: Apache-2.0
"""What several commands share: the ``-c`` option, listening to the bus, and the end of a command that runs until it is
told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
import gevent
from gevent.event import Event

from vcenter_eam_plugin.config import SYSTEM_FILE, Configuration, load
from vcenter_eam_plugin.domain.errors import ConfigurationError, PluginError

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
    if paths or SYSTEM_FILE.exists():
        return load(paths or [SYSTEM_FILE], need_vcenter=need_vcenter)
    try:
        return load([], need_vcenter=need_vcenter)
    except ConfigurationError as exc:  # or somebody looks for the mistake in a file that nobody read
        raise ConfigurationError(
            f"No configuration file was read: none is named by -c, and {SYSTEM_FILE} is not there. {exc.message}",
            remedy=exc.remedy,
        ) from exc


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


class Listener(Protocol):
    """What reads from the bus: a consumer, or who has one."""

    def run(self) -> None: ...
    def stop(self) -> bool: ...


def listen_until_stopped(listener: Listener, ready: Event, where: str) -> None:
    """Let it run until SIGTERM or SIGINT, and say so once it is ``ready``. Raises what ended it before that."""
    failures: list[BaseException] = []
    with until_stopped() as stop:

        def listen() -> None:
            try:
                listener.run()
            except (PluginError, OSError) as exc:  # OSError: nobody reads our output any more
                failures.append(exc)
            finally:
                stop.set()

        listening = gevent.spawn(listen)
        gevent.wait([ready, stop], count=1)
        if not stop.is_set():
            click.echo(f"vcenter-eam: listening at {where}", err=True)
        stop.wait()
        if not listener.stop():
            listening.kill(timeout=1)
    if failures:
        raise failures[0]


def tell_trouble(error: PluginError) -> None:
    """That reading from the bus is tried again, on standard error."""
    click.echo(f"vcenter-eam: {error} Trying again.", err=True)
