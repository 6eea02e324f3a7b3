# SPDX-License-Identifier: Apache-2.0
"""A simulated vCenter in a process of its own, which changes by itself: no request stands between change and time.

    python -m benchmarks.simulated_vcenter HOSTS CLUSTERS DIRECTORY

Says where it is in one line of JSON. Then each line of standard input is a call: ``["one_by_one", times, rate]``
renames a host, and so on, so many times, ``rate`` a second; ``["all_at_once"]`` renames every host, and nobody hears of
the first before the last was; ``["quiet"]`` keeps EAM from looking at that. The answer is one line: pairs of a new name
and when (monotonic) the host took it, which is comparable between processes of one machine.

A new name is a change that vCenter tells at once, to which EAM has nothing to say, and that posts no event: what is
measured is the way of one property.
"""

if __name__ == "__main__":
    # As every simulator: before anything that imports the standard library.
    from gevent import monkey

    monkey.patch_all()

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
from gevent.fileobject import FileObjectThread

from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.server import Simulator

Times = dict[str, float]
"""When each name was taken, or told."""


class SimulatedVCenter:
    """The process, from the side that drives it. ``about`` says how to log in."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.about: dict[str, Any] = self._answer()

    def call(self, *call: Any) -> Times:
        """Have it change; returns when it has, with when each host took its new name."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(call)}\n")
        self._process.stdin.flush()
        return dict(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def simulated_vcenter(hosts: int, clusters: int, folder: Path) -> Iterator[SimulatedVCenter]:
    """One that ends with the block."""
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.simulated_vcenter", str(hosts), str(clusters), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield SimulatedVCenter(process)
        finally:
            process.kill()


class _Changes:
    """What a line of input may call."""

    def __init__(self, simulator: Simulator) -> None:
        self._knobs = simulator.world.knobs
        self._hosts = simulator.vcenter.hosts()
        self._numbers = itertools.count()

    def one_by_one(self, times: int, rate: float) -> Iterator[tuple[str, float]]:
        next_at = time.monotonic()
        for _ in range(times):
            gevent.sleep(max(next_at - time.monotonic(), 0.0))
            next_at += 1 / rate
            yield self._rename(next(self._numbers))

    def all_at_once(self) -> Iterator[tuple[str, float]]:
        for _ in self._hosts:
            yield self._rename(next(self._numbers))

    def quiet(self) -> Iterator[tuple[str, float]]:
        """EAM, which has nothing to say to a name, does not look either: 2,500 looks would be measured as ours."""
        self._knobs.eam_reaction = 3600.0
        yield from ()

    def _rename(self, number: int) -> tuple[str, float]:
        host, name = self._hosts[number % len(self._hosts)], f"esx-{number:07}.example"
        at = time.monotonic()
        host.rename(name)
        return name, at


def main(hosts: str, clusters: str, folder: str) -> None:
    """See the module."""
    knobs = Knobs(agent_vm_settings_preset=True, vrouter_limit=0, deploy=0.01, power_on=0.01)
    simulator = Simulator(hosts=int(hosts), clusters=int(clusters), knobs=knobs, directory=Path(folder))
    simulator.start()
    [datacenter] = simulator.vcenter.datacenters()
    paths = [f"/{datacenter.name}/host/{one.name}" for one in simulator.vcenter.clusters()]
    about = {name: str(getattr(simulator, name)) for name in ("host", "port", "user", "password", "ca_file")}
    print(json.dumps(about | {"clusters": paths}), flush=True)
    changes = _Changes(simulator)
    for line in FileObjectThread(sys.stdin):
        method, *arguments = json.loads(line)
        print(json.dumps(list(getattr(changes, method)(*arguments))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
