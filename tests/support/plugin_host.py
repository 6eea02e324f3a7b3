# SPDX-License-Identifier: Apache-2.0
"""A host process that loads plugins as Contrail's services do; run by tests in a process of its own.

``plugin_host.py CONF [unpatched|manager]``: takes one JSON command per line (``{"do": "start"}``) and answers each
with one line. It has a logger, a SIGTERM handler, a heartbeat and a leader flag of its own; ``state`` tells how they
fare. ``unpatched`` leaves the standard library as it is, ``manager`` looks like contrail-vcenter-manager.
"""

import sys

if "unpatched" not in sys.argv:
    from gevent import monkey

    monkey.patch_all()

import configparser
import json
import logging
import signal
import types
from typing import Any

import gevent
from gevent.fileobject import FileObject
from stevedore import ExtensionManager

logging.basicConfig(level=logging.INFO, stream=sys.stderr)
terminated = []
signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
handlers = list(logging.getLogger().handlers)
our_handler = signal.getsignal(signal.SIGTERM)
leading = [True]
beats = [0]


def beat() -> None:
    while True:
        beats[0] += 1
        gevent.sleep(0.01)


def failed(manager: Any, entry_point: Any, error: BaseException) -> None:
    raise error


def main() -> None:
    if "manager" in sys.argv:
        sys.modules["cvm"] = types.ModuleType("cvm")
    parser = configparser.ConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # some Contrail services keep the case
    parser.read(sys.argv[1])
    extensions = ExtensionManager(
        "contrail.vcenter.plugins",
        invoke_on_load=True,
        invoke_kwds={
            "conf_sections": parser,
            "sandesh": object(),
            "logger": logging.getLogger("host.eam"),
            "zookeeper_client": None,
            "is_master": lambda: leading[0],
            "database": object(),  # what another plugin takes
        },
        on_load_failure_callback=failed,
    )
    (plugin,) = [extension.obj for extension in extensions if extension.name == "eam"]
    gevent.spawn(beat)
    for line in FileObject(sys.stdin.fileno(), "r", close=False):
        command = json.loads(line)
        answer: Any = None
        match command["do"]:
            case "lead":
                leading[0] = command["yes"]
            case "fail_to_say_who_leads":
                leading.clear()
            case "state":
                answer = {
                    "beats": beats[0],
                    "handlers": logging.getLogger().handlers == handlers,
                    "signal": signal.getsignal(signal.SIGTERM) is our_handler and not terminated,
                    "greenlets": len([g for g in plugin.greenlets() if not g.dead]),
                }
            case "quit":
                break
            case name:
                answer = getattr(plugin, name)()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
