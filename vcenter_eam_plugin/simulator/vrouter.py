# SPDX-License-Identifier: Apache-2.0
"""What runs inside a ContrailVM, as far as one can see from outside: the vRouter agent's introspect.

A powered-on agent VM whose guest is up listens, after a while, on its own loopback address and the introspect port,
and answers ``/Snh_SandeshUVECacheReq?x=NodeStatus`` with a ``NodeStatus`` as Contrail's agent does. A listener costs
one socket and no greenlet until somebody asks; beyond a limit (knob) none is opened.

Not promised: any other introspect page; a ``NodeStatus`` that follows real connections.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any
from xml.sax.saxutils import escape

from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine
from vcenter_eam_plugin.simulator.world import ManagedObject, Timer, World

PATH, QUERY = "/Snh_SandeshUVECacheReq", "x=NodeStatus"
FUNCTIONAL = "Functional"

_PAGE = """<?xml version="1.0"?>
<__NodeStatusUVE_list type="slist"><NodeStatusUVE type="sandesh"><data type="struct" identifier="1"><NodeStatus>\
<name type="string" identifier="1" key="ObjectVRouter">{name}</name>\
<process_status type="list" identifier="4" aggtype="union"><list type="struct" size="1"><ProcessStatus>\
<module_id type="string" identifier="1">contrail-vrouter-agent</module_id>\
<instance_id type="string" identifier="2">0</instance_id>\
<state type="string" identifier="3">{state}</state>\
<connection_infos type="list" identifier="4"><list type="struct" size="0"></list></connection_infos>\
<description type="string" identifier="5">{description}</description>\
</ProcessStatus></list></process_status></NodeStatus></data></NodeStatusUVE></__NodeStatusUVE_list>
"""


def node_status(name: str, state: str, description: str = "") -> bytes:
    """The body of the answer."""
    return _PAGE.format(name=escape(name), state=escape(state), description=escape(description)).encode()


class VRouters:
    """Opens and closes the introspect of every agent VM, following the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._servers: dict[str, WSGIServer] = {}
        self._timers: dict[str, Timer] = {}
        self._states: dict[str, tuple[str, str]] = {}
        world.listeners.append(self)

    @property
    def listening(self) -> tuple[str, ...]:
        """Moids of the VMs whose introspect answers."""
        return tuple(self._servers)

    def set_state(self, vm: VirtualMachine, state: str, description: str = "") -> None:
        """What the vRouter agent of a VM says of itself (``Functional``, ``Non-Functional``)."""
        self._states[vm.moid] = (state, description)

    def close(self) -> None:
        """Stop every listener and follow the world no more."""
        if self in self._world.listeners:
            self._world.listeners.remove(self)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for moid in tuple(self._servers):
            self._close(moid)

    def object_added(self, obj: ManagedObject) -> None:
        """A VM is added powered off: nothing to do."""

    def object_changed(self, obj: ManagedObject, path: str) -> None:
        if isinstance(obj, VirtualMachine) and obj.is_agent and path == "guestHeartbeatStatus":
            self._follow(obj)

    def object_removed(self, obj: ManagedObject) -> None:
        if isinstance(obj, VirtualMachine) and obj.is_agent:
            self._stop(obj.moid)
            self._states.pop(obj.moid, None)

    def _follow(self, vm: VirtualMachine) -> None:
        self._stop(vm.moid)
        if vm.heartbeat:
            timer = self._world.clock.after(self._world.knobs.vrouter_start, lambda: self._open(vm))
            self._timers[vm.moid] = timer

    def _stop(self, moid: str) -> None:
        timer = self._timers.pop(moid, None)
        if timer is not None:
            timer.cancel()
        self._close(moid)

    def _open(self, vm: VirtualMachine) -> None:
        self._timers.pop(vm.moid, None)
        knobs = self._world.knobs
        if not vm.heartbeat or vm.address is None or len(self._servers) >= knobs.vrouter_limit:
            return
        try:
            listener = _listen(vm.address, knobs.vrouter_port)
        except OSError as exc:
            # Another simulator on this machine may have the address: the VM then has a vRouter that cannot be asked.
            self._world.journal.add("vrouter", vm=vm.moid, address=vm.address, error=str(exc))
            return
        # With a name of its own the server asks no resolver for one, so that nobody ends us between bind and keep.
        named = {"SERVER_NAME": vm.address}
        server = WSGIServer(listener, self._application(vm), spawn=Pool(), environ=named, log=None, error_log=None)
        server.start()
        self._servers[vm.moid] = server

    def _close(self, moid: str) -> None:
        server = self._servers.pop(moid, None)
        if server is not None:
            server.stop(timeout=0)  # with open connections: the machine behind them is off

    def _application(self, vm: VirtualMachine) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if environ["PATH_INFO"] != PATH or environ.get("QUERY_STRING") != QUERY:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"not simulated\n"]
            state, description = self._states.get(vm.moid, (FUNCTIONAL, ""))
            start_response("200 OK", [("Content-Type", "text/xml")])
            return [node_status(vm.guest_host_name, state, description)]

        return answer


def _listen(address: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((address, port))
        listener.listen(16)
    except OSError:
        listener.close()
        raise
    return listener
