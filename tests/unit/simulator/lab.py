# SPDX-License-Identifier: Apache-2.0
"""A simulated vCenter without wire or network, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from pyVmomi import eam

from vcenter_eam_plugin.simulator import inventory
from vcenter_eam_plugin.simulator.agency import Agency
from vcenter_eam_plugin.simulator.agent import Agent
from vcenter_eam_plugin.simulator.event_manager import event_type_id
from vcenter_eam_plugin.simulator.host_system import HostSystem
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.ovf_download import OvfPackage, OvfProblem
from vcenter_eam_plugin.simulator.virtual_machine import VirtualMachine
from vcenter_eam_plugin.simulator.world import Call, ManagedObject, ManualClock, World

URL = "http://ovf.example/contrailvm.ovf"
STEP = 0.01
"""Seconds between two looks of :meth:`Lab.until`."""


class FakeOvf:
    """Answers at once with ``package``, or with ``problem`` when one is set."""

    def __init__(self) -> None:
        self.package = OvfPackage(URL, "ContrailVM", disk_bytes=1 << 30)
        self.problem: OvfProblem | None = None
        self.fetched: list[str] = []

    def check(self, url: str, trust: Any) -> None:
        if self.problem is not None:
            raise self.problem

    def fetch(self, url: str, trust: Any, done: Callable[[OvfPackage | OvfProblem], None]) -> None:
        self.fetched.append(url)
        done(self.problem if self.problem is not None else self.package)

    def close(self) -> None:
        """Nothing is under way, ever."""


class Lab:
    """One vCenter with one cluster per ``clusters``; hosts have Agent VM settings unless ``settings`` is false."""

    def __init__(
        self, hosts: int = 1, clusters: int = 1, datacenters: int = 1, *, settings: bool = True, **knobs: Any
    ) -> None:
        self.clock = ManualClock()
        self.knobs = Knobs(agent_vm_settings_preset=settings, **knobs)
        self.world = World(self.clock, self.knobs)
        self.ovf = FakeOvf()
        self.vcenter = inventory.build(
            self.world, hosts=hosts, clusters=clusters, datacenters=datacenters, ovf=self.ovf
        )
        self.vcenter.vrouters.close()
        self.do = self.vcenter.stimuli
        self.eam = self.vcenter.eam
        self.call = self.caller("admin")
        self.extension = self.caller("com.example.ext", extension=True)

    def caller(self, user: str, *, extension: bool = False, lacks: str | None = None) -> Call:
        """Somebody who calls. ``lacks`` is a privilege that this one has not."""

        def require(privilege: str, obj: ManagedObject) -> None:
            if privilege == lacks:
                raise eam.fault.NotAuthorized()

        return Call(user, "eam.version.version9_0", SimpleNamespace(is_extension=extension), require)

    def config(self, **changes: Any) -> Any:
        """An agency configuration over all clusters."""
        scope = [cluster.ref for cluster in self.vcenter.clusters()]
        fields: dict[str, Any] = {
            "agencyName": "ContrailVM-Agency",
            "agentName": "ContrailVM",
            "agentConfig": [eam.Agent.ConfigInfo(ovfPackageUrl=URL)],
            "scope": eam.Agency.ComputeResourceScope(computeResource=scope),
        }
        return eam.Agency.ConfigInfo(**{**fields, **changes})

    def create(self, goal: str = "enabled", **changes: Any) -> Agency:
        """Create the agency, and no more."""
        return self.eam.create_agency(self.call, agencyConfigInfo=self.config(**changes), initialGoalState=goal)

    def deployed(self, **changes: Any) -> Agency:
        """Create the agency and wait until it is green."""
        agency = self.create(**changes)
        self.until(lambda: agency.status == "green" and len(agency.agents) == len(self.vcenter.hosts()))
        return agency

    def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        """Move time on until the condition holds; fails when it does not in so many (simulated) seconds."""
        end = self.clock.monotonic() + seconds
        while not condition():
            assert self.clock.monotonic() < end, "the condition did not come true"
            self.clock.advance(STEP)

    def settle(self, seconds: float = 5.0) -> None:
        """Let everything that is under way end."""
        self.clock.advance(seconds)

    def extension_of(self, agency: Agency) -> Call:
        """A caller who may mark agents of the agency: an extension that owns it."""
        return self.caller(agency.solution, extension=True)

    @property
    def host(self) -> HostSystem:
        """The first host."""
        return self.vcenter.hosts()[0]

    @property
    def vm(self) -> VirtualMachine:
        """The first host's agent VM."""
        vm = self.do.agent_vm(self.host)
        assert vm is not None
        return vm

    def agent(self, agency: Agency, host: HostSystem | None = None) -> Agent:
        """The agent of a host (the first)."""
        return agency.agents[(host or self.host).moid]

    def issue_types(self, agency: Agency) -> list[str]:
        """The exact names of the agency's issues."""
        return sorted(type(issue).__name__.rpartition(".")[2] for issue in agency.prop_runtime().issue)

    def keys(self, agency: Agency) -> list[int]:
        """The keys of the agency's issues."""
        return [issue.key for issue in agency.prop_runtime().issue]

    def events(self) -> list[str]:
        """Type ids of all events so far, EAM's without their common prefix."""
        return [
            event_type_id(event).removeprefix("com.vmware.vim.eam.").removeprefix("vim.event.")
            for event in self.world.events
        ]
