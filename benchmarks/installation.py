# SPDX-License-Identifier: Apache-2.0
"""What is measured: the daemon, a simulated vCenter and RabbitMQ, each a process of its own, on loopback.

The daemon is alone in its process, so CPU time, memory and event loop are its own; the simulator counts what it is
asked (``GET /simulator/traffic``).
"""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
from pyVim.connect import Disconnect, SmartConnect

from benchmarks.processes import cpu_seconds
from tests.support.processes import DaemonProcess, SimulatorProcess, simulator_process, write_secret
from tests.support.rabbit import RabbitNode, free_port, wait_for
from vcenter_eam_plugin.cli.api import Api
from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.simulator.inventory import cluster_names
from vcenter_eam_plugin.simulator.sample_ovf import write_sample

HOSTS_PER_CLUSTER = 50
"""A cluster may have 96 at most (vSphere 8); few are that large."""
DEPLOY_SECONDS = 900.0
"""For 5,000 ContrailVMs, on a machine that does other things, too."""
LOOK_SECONDS = 0.5
"""Between two questions to the daemon while something is waited for: they cost it CPU time."""
CLIENT = "127.0.0.1"
"""From where the daemon calls the simulator."""

VCENTER = """
[VCENTER{section}]
vc_host = {host}
vc_port = {port}
vc_username = {user}
vc_password_file = {password_file}
vc_ca_certs = {ca_file}

[EAM{section}]
mode = act
clusters = {clusters}
ovf_package = {ovf}
agent_vm_datastore = shared-*
agent_vm_network = VM Network
poll_seconds = {poll_seconds}
"""

COMMON = """
[DEFAULTS]
state_directory = {directory}/state
ovf_server_port = {ovf_port}
ovf_base_url = http://127.0.0.1:{ovf_port}

[RABBIT]
rabbit_hosts = 127.0.0.1:{rabbit_port}
rabbit_vhost = {vhost}
"""

EAM_OBJECTS = ("EsxAgentManager", "Agency", "Agent")
"""Types whose operations are EAM's."""
KNOBS = ("agent_vm_settings_preset=true", "vrouter_limit=0", "deploy=0.05")
"""What is measured is not how long a deployment takes."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The event loop was held from ``at`` (monotonic) for ``seconds``; ``cpu`` and ``gc`` are parts of them."""

    at: float
    seconds: float
    cpu: float
    gc: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the simulator was asked by the daemon, and told it, until now or in between."""

    calls: Counter[str]
    updates: Counter[str]
    bytes_in: int
    bytes_out: int

    def since(self, before: Traffic) -> Traffic:
        return Traffic(
            Counter({name: n - before.calls[name] for name, n in self.calls.items() if n != before.calls[name]}),
            Counter({name: n - before.updates[name] for name, n in self.updates.items() if n != before.updates[name]}),
            self.bytes_in - before.bytes_in,
            self.bytes_out - before.bytes_out,
        )

    @property
    def eam_calls(self) -> int:
        """Those to EAM."""
        return sum(n for name, n in self.calls.items() if name.partition(".")[0] in EAM_OBJECTS)


def read_holds(path: Path, since: float) -> list[Hold]:
    """What :mod:`benchmarks.watched` wrote of holds that began after this moment (monotonic)."""
    lines = path.read_text().splitlines()
    found = [Hold(*map(float, line.split())) for line in lines if line.count(" ") == 3]
    return [hold for hold in found if hold.at >= since]


class VCenter:
    """A simulated vCenter, with one connection kept open for what is done to it."""

    def __init__(self, simulator: SimulatorProcess, hosts: int, clusters: int) -> None:
        self.simulator = simulator
        self.about = simulator.about
        self.hosts = hosts
        self.cluster_names = [name for name, _ in zip(cluster_names(), range(clusters), strict=False)]
        context = ssl.create_default_context(cafile=self.about["ca_file"])
        self._connection = http.client.HTTPSConnection(
            self.about["host"], self.about["port"], context=context, timeout=DEPLOY_SECONDS
        )

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A request to the simulator's own interface."""
        headers = {"X-Simulator-Token": self.about["control_token"]}
        self._connection.request(method, f"/simulator/{path}", json.dumps(body or {}), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return json.loads(text)

    def do(self, verb: str, **arguments: Any) -> Any:
        """Something happens to it."""
        return self.ask("POST", "stimuli", {"verb": verb, **arguments})["result"]

    def each(self, verb: str, objects: Iterable[str], name: str = "host") -> None:
        """The same to many, at the same moment as far as a client can see: what it waits for comes late meanwhile."""
        self.ask("POST", "faults", {"name": "slow", "method": "WaitForUpdatesEx", "delay": 3})
        for one in objects:
            self.do(verb, **{name: one})
        self.ask("DELETE", "faults/slow")

    def truths(self) -> list[dict[str, Any]]:
        """What is true of each host now, in the order in which they came."""
        newest = {}
        for entry in self.ask("GET", "journal"):
            if entry["kind"] == "truth":
                newest[entry["fields"]["host"]] = entry["fields"]
        return [fields for fields in newest.values() if fields["present"]]

    def traffic(self, address: str = CLIENT) -> Traffic:
        """Of the client with this address."""
        told = self.ask("GET", "traffic").get(address) or {"calls": {}, "updates": {}, "bytes_in": 0, "bytes_out": 0}
        return Traffic(Counter(told["calls"]), Counter(told["updates"]), told["bytes_in"], told["bytes_out"])

    @contextmanager
    def client(self) -> Iterator[Any]:
        """The content of a session of pyVmomi's own, as any program has one; it ends with the block."""
        about = self.about
        instance = SmartConnect(
            host=about["host"], port=about["port"], user=about["user"], pwd=about["password"],
            sslContext=ssl.create_default_context(cafile=about["ca_file"]),
        )  # fmt: skip
        try:
            yield instance.content
        finally:
            Disconnect(instance)

    def section(self, directory: Path, *, name: str = "", poll_seconds: float) -> str:
        """The part of a daemon's configuration that is about it."""
        return VCENTER.format(
            section=f":{name}" if name else "",
            password_file=write_secret(directory / f"password{name}", self.about["password"]),
            clusters="".join(f"\n    /DC0/host/{cluster}" for cluster in self.cluster_names),
            ovf=write_sample(directory / "ovf"),
            poll_seconds=poll_seconds,
            **{field: self.about[field] for field in ("host", "port", "user", "ca_file")},
        )

    def close(self) -> None:
        self._connection.close()


@contextmanager
def vcenter(directory: Path, hosts: int, *arguments: str, knobs: Iterable[str] = KNOBS) -> Iterator[VCenter]:
    """A simulator that ends with the block."""
    directory.mkdir(parents=True, exist_ok=True)
    clusters = max(1, hosts // HOSTS_PER_CLUSTER)
    options = (f"--hosts={hosts}", f"--clusters={clusters}", *(f"--knob={knob}" for knob in knobs), *arguments)
    with simulator_process(directory, *options) as simulator:
        one = VCenter(simulator, hosts, clusters)
        try:
            yield one
        finally:
            one.close()


class Broker:
    """A RabbitMQ of our own, and a virtual host for each daemon."""

    def __init__(self, directory: Path) -> None:
        self.node = RabbitNode(directory)
        self.node.start()

    @property
    def port(self) -> int:
        return self.node.port

    def make_vhost(self) -> str:
        return self.node.make_vhost()


class Daemon:
    """The daemon on one or several vCenters; started and ended as often as is wanted, with its state kept."""

    def __init__(self, directory: Path, broker: Broker, vcenters: dict[str, VCenter], more: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.vcenters = vcenters
        self._directory = directory
        self._conf_file = directory / "vcenter_eam.conf"
        self._vhost = broker.make_vhost()
        self._port, self._rabbit_port, self._more = free_port(), broker.port, more
        self._daemon = DaemonProcess(directory, self._conf_file, "benchmarks.watched")
        self._api = Api(directory / "state")
        self.started_at = 0.0
        """When it was started last (monotonic)."""

    def start(self, *, poll_seconds: float = 10.0) -> None:
        """Returns at once."""
        common = COMMON.format(
            directory=self._directory, ovf_port=self._port, rabbit_port=self._rabbit_port, vhost=self._vhost
        )
        parts = [
            one.section(self._directory, name=name, poll_seconds=poll_seconds) for name, one in self.vcenters.items()
        ]
        self._conf_file.write_text(common + self._more + "".join(parts))
        self.started_at = time.monotonic()
        self._daemon.start()

    @property
    def pid(self) -> int:
        assert self._daemon.process is not None
        return self._daemon.process.pid

    @property
    def cpu(self) -> float:
        """Seconds of CPU time since its start."""
        return cpu_seconds(self.pid)

    def status(self) -> dict[str, Any]:
        """What it says of itself; nothing while it does not answer."""
        assert self._daemon.process is not None
        assert self._daemon.process.poll() is None, self.log()[-3000:]
        try:
            return dict(self._api.get("/api/v1/status"))
        except PluginError:
            return {}

    def states(self) -> Counter[str]:
        """How many ContrailVMs are in which state, over all vCenters; empty while something waits to be told."""
        found: Counter[str] = Counter()
        for told in self.status().get("vcenters") or [{}]:
            if not told.get("connected") or told["publisher"]["backlog"]:
                return Counter()
            found.update(told["states"])
        return found

    def leads(self) -> list[str]:
        """Names of the vCenters that it leads."""
        return [told["name"] for told in self.status().get("vcenters", ()) if told.get("leading")]

    def wait_until_leading(self) -> None:
        """Without asking it: an API that was never asked has not been loaded whole."""
        self._daemon.wait_until_leading()

    def wait_for_states(self, what: str, **states: int) -> None:
        """Until these are all that there are, and all of it is told."""
        self.wait_for(lambda: self.states() == Counter({name: n for name, n in states.items() if n}), what)

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Looked at seldom: looking costs."""

        def looked() -> object:
            gevent.sleep(LOOK_SECONDS)
            return condition()

        wait_for(looked, DEPLOY_SECONDS, what)

    def wait_until_idle(self, unsettled: int = 0) -> None:
        """Until it does nothing: two seconds with next to no computing, but for agents that each poll reads."""
        until = time.monotonic() + DEPLOY_SECONDS
        while time.monotonic() < until:
            before = self.cpu
            gevent.sleep(2.0)
            if self.cpu - before <= 0.05 + unsettled * 0.001:  # 0.4 ms each for two polls (measured)
                return
        raise AssertionError("the daemon does not come to rest")

    def holds(self, since: float) -> list[Hold]:
        """Of its event loop, that began after this moment (monotonic)."""
        return read_holds(self._directory / "holds", since)

    def log(self) -> str:
        """What it wrote."""
        return self._daemon.log_file.read_text()

    def stop(self) -> None:
        assert self._daemon.terminate() == 0, self.log()[-3000:]

    def kill(self) -> None:
        """SIGKILL."""
        self._daemon.kill()

    def close(self) -> None:
        self._daemon.close()


@contextmanager
def broker_and_folder() -> Iterator[tuple[Broker, Path]]:
    """A broker that runs, and a folder; both are gone after the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eam-benchmark-")))
        broker = Broker(folder / "rabbit")
        stack.callback(broker.node.close)
        yield broker, folder


@contextmanager
def daemon(directory: Path, broker: Broker, vcenters: dict[str, VCenter], more: str = "") -> Iterator[Daemon]:
    """Not started yet; ends with the block."""
    one = Daemon(directory, broker, vcenters, more)
    try:
        yield one
    finally:
        one.close()
