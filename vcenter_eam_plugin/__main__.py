# SPDX-License-Identifier: Apache-2.0
"""The daemon, ``contrail-vcenter-eam-plugin -c FILE``: runs beside the Contrail services until it is told to stop.

What is wrong with the configuration ends it at once, with exit code 2, before any connection. So does what no
time can heal when no vCenter can be used at the start (wrong password, unknown certificate ...), with the exit
code of that error. Once it runs, trouble is reported and tried again.
"""

# The standard library is patched before anything that imports it: a socket or lock made earlier would block all.
from gevent import monkey

monkey.patch_all()

import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import click  # noqa: E402

from vcenter_eam_plugin import __version__, failpoints, logs  # noqa: E402
from vcenter_eam_plugin.cli.common import configuration_files, load_configuration, until_stopped  # noqa: E402
from vcenter_eam_plugin.domain.errors import PluginError  # noqa: E402
from vcenter_eam_plugin.redaction import RedactedStream, Redactor, secrets_of  # noqa: E402
from vcenter_eam_plugin.service import Service  # noqa: E402
from vcenter_eam_plugin.survivors import Survivors  # noqa: E402
from vcenter_eam_plugin.web.control import ControlSocket  # noqa: E402
from vcenter_eam_plugin.web.server import WebServer  # noqa: E402

log = logging.getLogger("vcenter_eam_plugin")

LOOK_SECONDS = 1.0
"""Between two looks at whether every vCenter has been read for the first time."""


def run(paths: tuple[Path, ...]) -> None:
    """Run until SIGTERM or SIGINT. Raises PluginError when there is no use in running."""
    point = failpoints.arm(os.environ)
    configuration = load_configuration(paths)
    redact = Redactor(lambda: secrets_of(configuration), time.monotonic)
    logs.configure(configuration.defaults, redact)
    sys.stderr = RedactedStream(sys.stderr, redact)
    survivors = Survivors()
    survivors.set_aside()
    debug = configuration.defaults.log_level == "SYS_DEBUG"
    service = Service(configuration, logger=log, endpoints=(ControlSocket, WebServer), explain_holds=debug)
    with until_stopped() as stop:
        log.info("Starting, version %s.", __version__)
        if point is not None:
            log.warning("%s is set: this process will die at %s.", failpoints.VARIABLE, point)
        service.start()
        try:
            failure = service.first_failure(stop)
            if failure is not None:
                raise failure
            while not stop.wait(LOOK_SECONDS) and not service.given_out():
                pass
            survivors.settle()
            stop.wait()
            log.info("Told to stop.")
        finally:
            service.stop()
    log.info("Stopped in order.")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@configuration_files
@click.version_option(__version__, prog_name="contrail-vcenter-eam-plugin")
def server_main(paths: tuple[Path, ...]) -> None:
    """Keep one healthy ContrailVM on every ESXi host, through VMware ESX Agent Manager."""
    try:
        run(paths)
    except PluginError as exc:
        click.echo(f"contrail-vcenter-eam-plugin: {exc}", err=True)
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    server_main()
