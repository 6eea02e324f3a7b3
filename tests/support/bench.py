# SPDX-License-Identifier: Apache-2.0
"""A whole installation in one process: simulated vCenter, real RabbitMQ, the service, and a listener on the bus.

Tests do to the vCenter what a person or a failure would do, and assert what the listener heard. At its end each
bench asserts that nothing was left open: sessions, collectors, greenlets.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.support.loop_judge import LoopJudge
from tests.support.rabbit import free_port
from tests.support.simulator import MAX_SESSIONS, assert_no_leaks, wait_for
from vcenter_eam_plugin.bus.broker import BrokerSettings
from vcenter_eam_plugin.bus.consumer import Consumer
from vcenter_eam_plugin.config import (
    Configuration,
    DefaultsConfig,
    EamConfig,
    IntrospectConfig,
    Mode,
    VCenterConfig,
    VCenterUnit,
)
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.service import Endpoint, Service
from vcenter_eam_plugin.simulator.sample_ovf import write_sample
from vcenter_eam_plugin.simulator.server import Simulator
from vcenter_eam_plugin.unit import Unit

SECONDS = 30.0
"""The promise: after a change or a healed fault, what was published equals the truth within 30 s."""


class Bench:
    """See the module. ``messages`` is everything that the listener received, in order."""

    def __init__(self, simulator: Simulator, broker: BrokerSettings, directory: Path) -> None:
        self.simulator = simulator
        self.vcenter = simulator.vcenter.stimuli
        self.broker = broker
        self.directory = directory
        self.ovf_port = free_port()  # the agency names it, so a restarted service must have the same
        self.messages: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        self.listener = Consumer(broker, self.messages.append, on_dropped=self.dropped.extend)
        self.service: Service | None = None
        self.plugins = 1
        self.answers_get_lost = False
        """A test that loses answers loses names of collectors, too: those live as long as their session."""
        """How many services watch this vCenter at once, for what may be open there."""
        self._listening: gevent.Greenlet | None = None

    # --- life ---------------------------------------------------------------------------------------------

    def listen(self) -> None:
        self._listening = gevent.spawn(self.listener.run)
        wait_for(self.listener.ready.is_set, what="the listener is ready")

    def configuration(
        self,
        *,
        vcenter: dict[str, Any] | None = None,
        defaults: dict[str, Any] | None = None,
        introspect: dict[str, Any] | None = None,
        **eam: Any,
    ) -> Configuration:
        """A configuration that acts at once, on every cluster that there is; keywords change ``[EAM]``."""
        simulator = self.simulator
        login = {
            "vc_host": simulator.host,
            "vc_port": simulator.port,
            "vc_username": simulator.user,
            "vc_password": Secret(simulator.password),
            "vc_ca_certs": Path(simulator.ca_file),
            "vc_wait_seconds": 5,
        }
        keep = {
            "mode": Mode.ACT,
            "clusters": tuple(f"/{c.datacenter.name}/host/{c.name}" for c in simulator.vcenter.clusters()),
            "ovf_package": write_sample(self.directory / "ovf"),
            "agent_vm_datastore": ("shared-*",),
            "agent_vm_network": ("VM Network",),
            "power_off_grace_seconds": 0.2,
            "poll_seconds": 2.0,
            "vrouter_port": simulator.knobs.vrouter_port,
        }
        return Configuration(
            defaults=DefaultsConfig(
                **{"state_directory": self.directory / "state", "ovf_server_port": self.ovf_port, **(defaults or {})}
            ),
            vcenters=(
                VCenterUnit("test", VCenterConfig(**{**login, **(vcenter or {})}), EamConfig(**{**keep, **eam})),
            ),
            introspect=IntrospectConfig(**{"introspect_port": 0, **(introspect or {})}),
        )

    def start(
        self,
        *,
        is_master: Callable[[], object] | None = None,
        endpoints: Sequence[Callable[[Service], Endpoint]] = (),
        **changes: Any,
    ) -> Service:
        """Start the service; returns at once."""
        self.service = Service(
            self.configuration(**changes), broker=self.broker, is_master=is_master, endpoints=endpoints
        )
        self.service.start()
        return self.service

    def stop(self) -> None:
        """Stop the service in order, and assert that it gave everything back."""
        service, self.service = self.service, None
        if service is None:
            return
        assert_no_leaks(self.simulator, collectors=1)
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 5.0, "the service did not stop within 5 s"
        assert [name for name, greenlet in service.greenlets().items() if not greenlet.dead] == []
        assert_no_leaks(self.simulator, sessions=0, collectors=0)

    def close(self) -> None:
        self.stop()
        self.listener.stop()
        if self._listening is not None:
            self._listening.join(5)
            self._listening.get()
        # P10: at any time, and not at the end alone
        assert self.simulator.sessions.most_active <= MAX_SESSIONS * self.plugins
        assert self.answers_get_lost or self.simulator.hub.most_collectors <= self.plugins

    # --- what is seen -------------------------------------------------------------------------------------

    @property
    def unit(self) -> Unit:
        assert self.service is not None
        return self.service.units[0]

    def names(self) -> list[str]:
        return [host.name for host in self.vcenter.hosts()]

    def state(self, host: str) -> str | None:
        """The newest state heard of a host, by name."""
        for message in self.listener.view.states.values():
            if message["esxi"]["name"] == host:
                return str(message["state"])
        return None

    def heard(self, host: str, since: int = 0) -> list[str]:
        """Every state heard of a host, in order, from the message with index ``since`` on."""
        return [m["state"] for m in self.messages[since:] if m["event"] == "state" and m["esxi"]["name"] == host]

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
        def explained() -> str:
            return (
                f"{what}; heard {[(m['oper'], m['esxi']['name'], m['state']) for m in self.messages[-12:] if m['key']]}"
            )

        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                status = self.service.status() if self.service is not None else None
                pytest.fail(f"not within {seconds:g} s: {explained()}; status {status}")
            gevent.sleep(0.02)
        return value

    def wait_for_state(self, host: str, state: str) -> None:
        self.wait_for(lambda: self.state(host) == state, f"{host} is {state}")

    def wait_until_active(self, *hosts: str) -> None:
        """Until every named host, or every host that there is, was heard to be ACTIVE."""
        names = hosts or tuple(self.names())
        self.wait_for(lambda: all(self.state(name) == "ACTIVE" for name in names), f"{names} ACTIVE")

    def alarms(self) -> dict[str, str]:
        return {alarm.name: alarm.text for alarm in self.unit.alarms}

    def writes(self, method: str | None = None) -> list[Any]:
        """What somebody asked the simulated vCenter to change, from its journal."""
        return self.simulator.journal.calls(method)


def _greenlets() -> set[int]:
    return {id(g) for g in gc.get_objects() if isinstance(g, gevent.Greenlet) and not g.dead}


@pytest.fixture
def make_bench(
    make_simulator: Callable[..., Simulator], broker_settings: BrokerSettings, tmp_path: Path
) -> Iterator[Callable[..., Bench]]:
    """``make_bench(hosts=3, clusters=2, ...)``: a simulator and a listener; ``start`` it for the service.

    The test fails if code of the service holds the event loop.
    """
    before = _greenlets()
    judge = LoopJudge()
    judge.start()
    made: list[Bench] = []

    def make(**simulator: Any) -> Bench:
        bench = Bench(make_simulator(**simulator), broker_settings, tmp_path / str(len(made)))
        made.append(bench)
        bench.listen()
        return bench

    yield make
    for bench in made:
        bench.close()
        bench.simulator.stop()
    judge.stop()
    gc.collect()
    left = [
        g
        for g in gc.get_objects()
        if isinstance(g, gevent.Greenlet) and not g.dead and id(g) not in before and g.started
    ]
    assert left == [], "greenlets were left running"
    judge.assert_nothing_held()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """Three hosts in two clusters."""
    return make_bench()
