# SPDX-License-Identifier: Apache-2.0
"""Calls into a simulator without sockets: what unit tests of its wire side share.

A :class:`Bench` is a whole simulated vCenter that was never started, on a clock that the test moves, and a caller that
is logged in. ``invoke`` goes through the same dispatcher as a request from the network, XML both ways.
"""

from __future__ import annotations

from typing import Any

from pyVmomi import SoapStubAdapter, vim, vmodl
from pyVmomi.SoapAdapter import SoapResponseDeserializer
from pyVmomi.VmomiSupport import GetVmodlType, ManagedObject

from vcenter_eam_plugin.simulator.dispatch import COOKIE, EAM_PATH, VIM_PATH
from vcenter_eam_plugin.simulator.faults import Fault
from vcenter_eam_plugin.simulator.server import Simulator
from vcenter_eam_plugin.simulator.world import ManualClock

PC = vmodl.query.PropertyCollector
EAM_VERSION = "eam.version.version9_0"
VIM_VERSION = "vim.version.v8_0_3_0"


class Stub(SoapStubAdapter):
    """pyVmomi's own serialiser and deserialiser, with the dispatcher where the network would be."""

    def __init__(self, bench: Bench, path: str, version: str) -> None:
        super().__init__(host="nowhere.invalid", path=path, version=version, sslContext=None)
        self._bench = bench
        self._path = path
        self.last_response = b""

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outerStub: Any = None) -> Any:  # noqa: N802, N803
        request = self.SerializeRequest(mo, info, args)
        hits: dict[str, Fault] = self._bench.simulator.faults.take(self._path, info.wsdlName)
        reply = self._bench.simulator.dispatcher.answer(
            self._path, request, self.versionId, self._bench.cookie, "127.0.0.1", "unit test", hits
        )
        self.last_response = reply.body
        if reply.opened is not None:
            self._bench.cookie = f'{COOKIE}="{reply.opened}"; Path=/; HttpOnly'
        result = SoapResponseDeserializer(self).Deserialize(reply.body, info.result)
        if reply.status != 200:
            raise result
        return result


class Bench:
    """One simulator, its clock, one client."""

    def __init__(self, **kwargs: Any) -> None:
        self.clock = ManualClock()
        self.simulator = Simulator(clock=self.clock, **kwargs)
        self.world = self.simulator.world
        self.cookie: str | None = None
        self.stub = Stub(self, VIM_PATH, VIM_VERSION)
        self.instance = vim.ServiceInstance("ServiceInstance", self.stub)
        self.content = self.instance.RetrieveContent()
        self.login()

    def login(self, user: str | None = None, password: str | None = None) -> Any:
        """Log in; the cookie replaces the one of before."""
        self.cookie = None
        simulator = self.simulator
        return self.content.sessionManager.Login(user or simulator.user, password or simulator.password)

    def eam(self, version: str = EAM_VERSION) -> Any:
        """The EAM root object of the same session."""
        return vim_reference("eam.EsxAgentManager", "EsxAgentManager", Stub(self, EAM_PATH, version))

    @property
    def hosts(self) -> list[Any]:
        """Simulated hosts, in order."""
        return self.simulator.vcenter.hosts()

    def remote(self, obj: Any) -> Any:
        """A simulated object as the client sees it."""
        return type(obj.ref)(obj.moid, self.stub)


def vim_reference(kind: str, moid: str, stub: Any) -> ManagedObject:
    """A reference of any pyVmomi type by name."""
    return GetVmodlType(kind)(moid, stub)


def hosts_of(root: Any, *paths: str, kind: Any = vim.HostSystem) -> Any:
    """A filter spec: all hosts below a folder, by the recursive traversal that pyVmomi's samples use."""
    names = ["folder", "datacenter", "compute"]
    selections = [PC.SelectionSpec(name=name) for name in names]
    steps = [
        PC.TraversalSpec(name="folder", type=vim.Folder, path="childEntity", selectSet=selections),
        PC.TraversalSpec(name="datacenter", type=vim.Datacenter, path="hostFolder", selectSet=selections[:1]),
        PC.TraversalSpec(name="compute", type=vim.ComputeResource, path="host"),
    ]
    selections.append(PC.SelectionSpec(name="compute"))
    return PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=root, skip=True, selectSet=[*steps])],
        propSet=[PC.PropertySpec(type=kind, pathSet=list(paths))],
    )


def view_of(view: Any, *paths: str, kind: Any = vim.HostSystem) -> Any:
    """A filter spec: what a view holds."""
    step = PC.TraversalSpec(type=type(view), path="view")
    return PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=view, skip=True, selectSet=[step])],
        propSet=[PC.PropertySpec(type=kind, pathSet=list(paths))],
    )


def changes(update: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """(kind, moid, {path: value}) of every object update of an update set."""
    if update is None:
        return []
    return [
        (str(one.kind), one.obj._moId, {change.name: change.val for change in one.changeSet})
        for part in update.filterSet
        for one in part.objectSet
    ]
