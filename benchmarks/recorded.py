# SPDX-License-Identifier: Apache-2.0
"""What a vCenter of some size answers to a start of our intake, recorded once from the simulator.

The simulator is the server here because it speaks vCenter's form of XML byte for byte where that is known, and because
a real one of that size is not to be had.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import gevent
from pyVmomi import SoapStubAdapter, eam, vim, vmodl
from pyVmomi.VmomiSupport import GetWsdlMethod

from benchmarks.replay import Record
from tests.support.vcenters import of_simulator
from vcenter_eam_plugin.simulator import property_collector
from vcenter_eam_plugin.simulator.server import Simulator
from vcenter_eam_plugin.simulator.wire import Encoder, Request
from vcenter_eam_plugin.vsphere.inventory import Inventory
from vcenter_eam_plugin.vsphere.properties import filter_spec, object_spec, property_spec, traversal
from vcenter_eam_plugin.vsphere.scope import list_compute_resources
from vcenter_eam_plugin.vsphere.session import Session, SessionSettings
from vcenter_eam_plugin.vsphere.stream import HOST_PATHS, VM_PATHS

HOSTS_IN_A_CLUSTER = 50
PASSWORD = "recorded"
SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """``record`` for the replay; the rest is what a client must know to ask the same again."""

    record: Record
    scope: tuple[str, ...]
    vms: tuple[str, ...]
    agents: tuple[str, ...]
    updates: tuple[bytes, ...]
    """The update sets with the hosts."""
    version: str
    """That the session speaks to vCenter in."""


def settings(port: int, ca_file: str) -> SessionSettings:
    """To log in with."""
    return SessionSettings(
        host="127.0.0.1", port=port, username="administrator@vsphere.local", password=lambda: PASSWORD, ca_file=ca_file
    )


def everything_read(session: Session, scope: tuple[str, ...], vms: tuple[str, ...]) -> tuple[Inventory, float]:
    """A whole listing of hosts and agent VMs by our own code; the seconds that it took."""
    began = time.perf_counter()
    done = gevent.event.Event()
    found: dict[str, Any] = {}

    def observe(seen: Any) -> None:
        found.update((one.moref, one) for one in (*seen.hosts, *seen.vms))
        if seen.complete:
            assert len(found) == 2 * len(vms), f"{len(found)} objects are known of {len(vms)} hosts and as many VMs"
            done.set()

    inventory = Inventory(session, time.monotonic, observe, lambda hints: None)
    inventory.follow_vms(vms)
    inventory.set_scope(scope)
    greenlet = gevent.spawn(inventory.run)
    try:
        assert done.wait(SECONDS), f"no listing: {inventory.last_error}"
        return inventory, time.perf_counter() - began
    finally:
        greenlet.kill()


def by_pyvmomi(stub: Any, content: Any) -> Callable[[], Any]:
    """One ``RetrievePropertiesEx`` of the same properties of the same objects, as anybody would write it."""
    vms = traversal("vms", vim.HostSystem, "vm")
    hosts = traversal("hosts", vim.ComputeResource, "host", [vms])
    folders = traversal("folders", vim.Folder, "childEntity", [hosts])
    centers = traversal("centers", vim.Datacenter, "hostFolder", [folders])
    roots = traversal("roots", vim.Folder, "childEntity", [centers])
    root = vim.Folder(content.rootFolder._GetMoId(), stub)
    spec = filter_spec(
        [object_spec(root, [roots], skip=True)],
        [property_spec(vim.HostSystem, HOST_PATHS), property_spec(vim.VirtualMachine, VM_PATHS)],
    )
    collector = vmodl.query.PropertyCollector(content.propertyCollector._GetMoId(), stub)
    return lambda: collector.RetrievePropertiesEx([spec], vmodl.query.PropertyCollector.RetrieveOptions())


def pyvmomi_stub(port: int, ca_file: str, version: str, cookie: str) -> SoapStubAdapter:
    """A plain one."""
    context = ssl.create_default_context(cafile=ca_file)
    stub = SoapStubAdapter(host="127.0.0.1", port=port, path="/sdk", version=version, sslContext=context)
    stub.cookie = cookie
    return stub


@cache
def recorded(hosts: int) -> Recorded:
    """A vCenter with so many hosts, an agent VM on each."""
    record = Record()
    with _simulated(hosts, record) as simulator:
        vcenter = of_simulator(simulator)
        objects = simulator.vcenter.world.objects
        vms = tuple(sorted(moid for moid, one in objects.items() if one.vmodl is vim.VirtualMachine))
        session = Session(settings(vcenter.port, vcenter.ca_file))
        session.open()
        scope = tuple(one.moref for one in list_compute_resources(session) if one.hosts)
        everything_read(session, scope, vms)
        version = session.vim_stub().version
        stub = pyvmomi_stub(vcenter.port, vcenter.ca_file, version, session.cookie)
        kept, property_collector.PAGE = property_collector.PAGE, 1 << 30
        try:
            result = by_pyvmomi(stub, session.content)()
        finally:
            property_collector.PAGE = kept
        assert len(result.objects) == 2 * hosts, len(result.objects)
        agents = _record_agents(session, record, hosts)
    answers = [answer for some in record.answers.values() for answer in some]
    updates = [one.encode() for one in answers if "<WaitForUpdatesExResponse" in one]
    of_hosts = tuple(one for one in updates if b'<obj type="HostSystem">' in one)
    return Recorded(record, scope, vms, agents, of_hosts, version)


@contextlib.contextmanager
def _simulated(hosts: int, record: Record) -> Iterator[Simulator]:
    clusters = max(1, hosts // HOSTS_IN_A_CLUSTER)
    simulator = Simulator(hosts=hosts, clusters=clusters, tenants_per_host=1, password=PASSWORD)
    stimuli = simulator.vcenter.stimuli
    for host in stimuli.hosts():
        datastore, network = next(iter(host.datastores.values())), next(iter(host.networks.values()))
        stimuli.set_agent_settings(host, datastore.name, network.name)
    answer = simulator.dispatcher.answer

    def recording(path: str, body: bytes, *rest: Any, **kw: Any) -> Any:
        reply = answer(path, body, *rest, **kw)
        record.add(body, reply.body)
        return reply

    simulator.dispatcher.answer = recording  # type: ignore[method-assign] # its own instance
    record.add(b"GET /sdk/vimServiceVersions.xml HTTP/1.1", simulator._versions())
    with simulator:
        yield simulator


def agent_requests(session: Session, agents: tuple[str, ...]) -> list[bytes]:
    """What our code asks EAM of each agent."""
    stub = session.eam_stub()
    return [stub.SerializeRequest(eam.Agent(moref, stub), _RUNTIME.info, []) for moref in agents]


def _record_agents(session: Session, record: Record, hosts: int) -> tuple[str, ...]:
    """Runtimes of agents that are well, made up: in the simulator EAM would have to deploy them first."""
    agents = tuple(f"{n:08x}-4c1f-4b8e-9f0a-1b2c3d4e5f60" for n in range(hosts))
    encoder = Encoder(session.eam_stub().version, "urn:eam")
    request = Request("urn:eam", "AgentQueryRuntime", "Agent", "", info=_RUNTIME.info)
    for n, (moref, body) in enumerate(zip(agents, agent_requests(session, agents), strict=True)):
        runtime = eam.Agent.RuntimeInfo(
            status="green",
            goalState="enabled",
            entity=eam.Agent(moref),
            vmPowerState="poweredOn",
            receivingHeartBeat=True,
            host=vim.HostSystem(f"host-{n}"),
            vm=vim.VirtualMachine(f"vm-{n}"),
            vmIp=f"10.0.{n >> 8}.{n & 255}",
            vmName=f"ContrailVM ({n})",
            esxAgentResourcePool=vim.ResourcePool(f"resgroup-{n}"),
            esxAgentFolder=vim.Folder("group-v7"),
            agency=eam.Agency("1f2e3d4c-0000-4000-8000-000000000001"),
        )
        record.add(body, encoder.response(request, runtime))
    return agents


_RUNTIME = GetWsdlMethod("urn:eam", "AgentQueryRuntime")
