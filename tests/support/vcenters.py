# SPDX-License-Identifier: Apache-2.0
"""One fixture for two servers: the same test runs against govmomi's vcsim and against our own simulator.

``vcenter`` is parametrised; what vcsim cannot do is written against ``simulator_vcenter`` instead, so it is not
even collected for vcsim, and ``test_vcsim_gaps`` asserts each gap.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
import pytest
from pyVmomi import vim

from tests.support.proxy import Proxy
from tests.support.simulator import assert_no_leaks
from tests.support.vcsim import Vcsim, running
from vcenter_eam_plugin.domain.facts import ComputeResourceFacts
from vcenter_eam_plugin.domain.observations import Hint, InventoryObserved
from vcenter_eam_plugin.simulator.server import Simulator
from vcenter_eam_plugin.vsphere import scope
from vcenter_eam_plugin.vsphere.inventory import Inventory
from vcenter_eam_plugin.vsphere.session import Session, SessionSettings


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> Any:
    """The first true value of ``condition``, asked every few milliseconds; fails with ``what`` after the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        gevent.sleep(0.01)
    return value


@dataclass(frozen=True, slots=True)
class VCenter:
    """A server under test, whichever it is. ``simulator`` is set when it is ours."""

    kind: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    ca_file: str
    thumbprint: str
    simulator: Simulator | None = None

    def settings(self, **changes: Any) -> SessionSettings:
        values: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "username": self.user,
            "password": lambda: self.password,
            "ca_file": self.ca_file,
            "call_timeout": 10.0,
            "wait_seconds": 1,
        }
        return SessionSettings(**{**values, **changes})

    @contextlib.contextmanager
    def session(self, **changes: Any) -> Iterator[Session]:
        """A session that is logged in, and logged out afterwards."""
        session = Session(self.settings(**changes))
        session.open()
        try:
            yield session
        finally:
            session.close()

    @contextlib.contextmanager
    def proxy(self) -> Iterator[Proxy]:
        """A proxy before the server."""
        with Proxy((self.host, self.port)).running() as proxy:
            yield proxy


class Admin:
    """A second person at the same vCenter: does by SOAP what the tests need done, on either server."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def obj(self, kind: Any, moref: str) -> Any:
        return kind(moref, self.session.vim_stub())

    def get(self, kind: Any, moref: str, name: str) -> Any:
        return self.session.call(getattr, self.obj(kind, moref), name)

    def task(self, fn: Callable[..., Any], *args: Any) -> None:
        """Start a task and wait until it has succeeded."""
        self.finish(self.session.call(fn, *args, idempotent=False))

    def finish(self, task: Any) -> None:
        info = wait_for(lambda: self._ended(task), f"end of {task._GetMoId()}")
        if info.state == "error":
            raise info.error

    def _ended(self, task: Any) -> Any:
        info = self.session.call(getattr, task, "info")
        return info if info.state in ("success", "error") else None

    def vms_of(self, host: str) -> list[str]:
        return sorted(vm._GetMoId() for vm in self.get(vim.HostSystem, host, "vm"))

    def power(self, vm: str, *, on: bool) -> None:
        obj = self.obj(vim.VirtualMachine, vm)
        self.task(obj.PowerOnVM_Task if on else obj.PowerOffVM_Task)

    def destroy(self, vm: str) -> None:
        self.task(self.obj(vim.VirtualMachine, vm).Destroy_Task)

    def kill_sessions_but_own(self) -> None:
        """End every other session, as an administrator does in the client."""
        manager = self.session.content.sessionManager
        own = self.session.call(getattr, manager, "currentSession").key
        others = [s.key for s in self.session.call(getattr, manager, "sessionList") if s.key != own]
        if others:
            self.session.call(manager.TerminateSession, others, idempotent=False)

    def session_count(self) -> int:
        return len(self.session.call(getattr, self.session.content.sessionManager, "sessionList"))


class Watch:
    """An inventory in a greenlet of its own, and everything that it reported."""

    def __init__(self, session: Session, paths: list[str]) -> None:
        self.session = session
        self.observed: list[InventoryObserved] = []
        self.hints: list[Hint] = []
        self.scope: tuple[ComputeResourceFacts, ...] = scope.resolve(session, paths)
        self.inventory = Inventory(session, time.monotonic, self.observed.append, self.hints.extend)
        self.inventory.set_scope(one.moref for one in self.scope)
        self._greenlet = gevent.spawn(self.inventory.run)

    def first_listing(self) -> InventoryObserved:
        wait_for(lambda: self.inventory.live, "the first whole listing")
        return self.observed[0]

    def listings(self) -> list[InventoryObserved]:
        return [one for one in self.observed if one.complete]

    def next_listing(self, after: int) -> InventoryObserved:
        """The listing that follows ``after`` earlier ones."""
        wait_for(lambda: len(self.listings()) > after and self.inventory.live, f"listing {after + 1}")
        return self.listings()[-1]

    def host(self, moref: str) -> Any:
        """The newest facts of a host, or of a VM, as whoever applies the observations would have them."""
        return self._newest(moref, "hosts")

    def vm(self, moref: str) -> Any:
        return self._newest(moref, "vms")

    def compute_resource(self, moref: str) -> Any:
        return self._newest(moref, "compute_resources")

    def _newest(self, moref: str, kind: str) -> Any:
        known = None
        for one in self.observed:
            named = [facts for facts in getattr(one, kind) if facts.moref == moref]
            if moref in one.gone or (one.complete and not named):
                known = None
            known = named[-1] if named else known
        return known

    def stop(self) -> None:
        assert self.inventory.stop(), "the inventory did not stop in time"
        self._greenlet.get(timeout=5)  # raises what the greenlet died of, if it did


@contextlib.contextmanager
def watching(session: Session, *paths: str) -> Iterator[Watch]:
    """Watch these compute resources; the inventory is stopped afterwards, and must end in order."""
    watch = Watch(session, list(paths))
    try:
        yield watch
    finally:
        watch.stop()


def _of_vcsim(server: Vcsim) -> VCenter:
    return VCenter("vcsim", server.host, server.port, server.user, server.password, server.ca_file, server.thumbprint)


def of_simulator(server: Simulator) -> VCenter:
    return VCenter(
        kind="simulator",
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        ca_file=str(server.ca_file),
        thumbprint=server.thumbprint,
        simulator=server,
    )


@pytest.fixture(params=["vcsim", "simulator"])
def vcenter(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[VCenter]:
    """1 datacenter, 2 clusters of 3 hosts with tenant VMs. At the end nothing may be left open on our simulator."""
    if request.param == "vcsim":
        with running(tmp_path) as server:
            yield _of_vcsim(server)
    else:
        yield request.getfixturevalue("simulator_vcenter")


@pytest.fixture
def simulator_vcenter(make_simulator: Callable[..., Simulator]) -> Iterator[VCenter]:
    """Our simulator alone, for what vcsim cannot do."""
    server = make_simulator(hosts=6, clusters=2, tenants_per_host=2)
    yield of_simulator(server)
    assert_no_leaks(server, sessions=0, collectors=0)


@pytest.fixture
def admin(vcenter: VCenter) -> Iterator[Admin]:
    """Somebody else, logged in at the same server."""
    with vcenter.session() as session:
        yield Admin(session)
