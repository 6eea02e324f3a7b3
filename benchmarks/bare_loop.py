# SPDX-License-Identifier: Apache-2.0
"""The floor of latency: pyVmomi's ``WaitForUpdatesEx`` in a loop, and one confirmed publish for each host that changed.

    python -m benchmarks.bare_loop PORT VHOST EXCHANGE BODY

A process of its own, which nothing patched. The first line of standard input says where the vCenter is; the answer is
how many hosts it has. Each further line says for how many changes to wait; the answer is pairs of a host's new name and
when (monotonic) the broker had confirmed the message about it. BODY is a file with a message as ours are, in which the
name alone is replaced: nothing is derived, stored or encoded.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyVim.connect import SmartConnect
from pyVmomi import vim, vmodl

from benchmarks.bare_publisher import Confirming
from benchmarks.simulated_vcenter import Times
from vcenter_eam_plugin.vsphere.properties import PAGE, filter_spec, object_spec, property_spec, traversal
from vcenter_eam_plugin.vsphere.stream import COMPUTE_PATHS, HOST_PATHS

NAME = "a-name"
"""In BODY, where the host's name belongs."""


class BareLoop:
    """The process, from the side that drives it."""

    def __init__(self, process: subprocess.Popen[str], about: dict[str, Any]) -> None:
        self._process = process
        self._ask(about)
        self.hosts = self.answer()

    def begin(self, changes: int) -> None:
        """Wait for so many changes."""
        self._ask(changes)

    def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def told(self) -> Times:
        """When each was confirmed."""
        return dict(self.answer())

    def _ask(self, what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(what)}\n")
        self._process.stdin.flush()


@contextmanager
def bare_loop(about: dict[str, Any], port: int, vhost: str, exchange: str, body: Path) -> Iterator[BareLoop]:
    """One that ends with the block."""
    command = [sys.executable, "-m", "benchmarks.bare_loop", str(port), vhost, exchange, str(body)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield BareLoop(process, about)
        finally:
            process.kill()


def main(port: str, vhost: str, exchange: str, file: str) -> None:
    """See the module."""
    about = json.loads(sys.stdin.readline())
    broker, body = Confirming(int(port), vhost, exchange), Path(file).read_text()
    context = ssl.create_default_context(cafile=about["ca_file"])
    login = {"host": about["host"], "port": int(about["port"]), "user": about["user"], "pwd": about["password"]}
    content = SmartConnect(**login, sslContext=context).RetrieveContent()
    updates = _updates(content)
    seen = 0
    while (names := next(updates)) is not None:
        seen += len(names)
    print(json.dumps(seen), flush=True)
    for line in sys.stdin:
        told: list[tuple[str, float]] = []
        while len(told) < int(line):
            for name in next(updates) or ():
                broker.send(body.replace(NAME, name), "contrailvm.detail.domain-c1.host-1", {"delivery_mode": 2})
                broker.wait(0)
                told.append((name, time.monotonic()))
        print(json.dumps(told), flush=True)


def _updates(content: Any) -> Iterator[list[str] | None]:
    """The names that each update set brings; ``None`` when there was nothing."""
    collector = content.propertyCollector
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.ComputeResource], True)
    start = [object_spec(one, [traversal("hosts", vim.ComputeResource, "host")]) for one in view.view]
    properties = [property_spec(vim.ComputeResource, COMPUTE_PATHS), property_spec(vim.HostSystem, HOST_PATHS)]
    collector.CreateFilter(filter_spec(start, properties), False)
    version, seconds = "", 0
    while True:
        options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=seconds, maxObjectUpdates=PAGE)
        result = collector.WaitForUpdatesEx(version, options)
        if result is None:
            yield None
            seconds = 60  # the listing is over: from now on wait
            continue
        version = result.version
        yield [
            change.val
            for filter_set in result.filterSet
            for update in filter_set.objectSet
            if isinstance(update.obj, vim.HostSystem)
            for change in update.changeSet
            if change.name == "name"
        ]


if __name__ == "__main__":
    main(*sys.argv[1:])
