# SPDX-License-Identifier: Apache-2.0
"""The simulated vCenter and EAM through an unmodified pyVmomi: every managed object, over SOAP, with a real OVF."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pyVim.task import WaitForTask
from pyVmomi import eam, vim, vmodl

from tests.support.ovf import ovf_server
from tests.support.simulator import assert_no_leaks, connected, eam_manager, wait_for
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.server import Simulator


@pytest.fixture
def ovf_url(tmp_path: Path) -> Iterator[str]:
    """The sample package over HTTP."""
    with ovf_server(tmp_path) as url:
        yield url


class Bench:
    """A client's view: vCenter, EAM, and what a test needs of both."""

    def __init__(self, simulator: Simulator, instance: Any, ovf_url: str) -> None:
        self.simulator = simulator
        self.content = instance.content
        self.manager = eam_manager(simulator, instance)
        self.ovf_url = ovf_url

    def all(self, kind: Any) -> list[Any]:
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        try:
            return sorted(view.view, key=lambda obj: obj.name)
        finally:
            view.Destroy()

    def config(self, **changes: Any) -> Any:
        scope = eam.Agency.ComputeResourceScope(computeResource=self.all(vim.ClusterComputeResource))
        fields: dict[str, Any] = {
            "agencyName": "ContrailVM-Agency",
            "agentName": "ContrailVM",
            "agentConfig": [eam.Agent.ConfigInfo(ovfPackageUrl=self.ovf_url)],
            "scope": scope,
        }
        return eam.Agency.ConfigInfo(**{**fields, **changes})

    def create(self, **changes: Any) -> Any:
        return self.manager.CreateAgency(self.config(**changes), "enabled")

    def deployed(self) -> Any:
        agency = self.create()
        wait_for(lambda: agency.QueryRuntime().status == "green", what="the agency is green")
        return agency


@pytest.fixture
def bench(make_simulator: Callable[..., Simulator], ovf_url: str) -> Iterator[Bench]:
    """Two hosts with Agent VM settings, in one cluster."""
    simulator = make_simulator(hosts=2, clusters=1, knobs=Knobs(agent_vm_settings_preset=True))
    with connected(simulator) as instance:
        yield Bench(simulator, instance, ovf_url)
    assert_no_leaks(simulator)


def test_deploy_watch_repair_and_remove(bench: Bench) -> None:
    """S03, S05, S07, S08: the whole life of an agency, as a plain client sees it."""
    agency = bench.deployed()
    assert (agency.QuerySolutionId(), agency.owner) == (bench.simulator.user, bench.simulator.user)
    assert agency.QueryConfig().agencyName == "ContrailVM-Agency"
    agents = agency.QueryAgent()
    assert len(agents) == 2
    runtime = agents[0].QueryRuntime()
    assert (runtime.status, runtime.goalState, runtime.agency) == ("green", "enabled", agency)
    WaitForTask(vim.VirtualMachine(runtime.vm._moId, bench.content.rootFolder._stub).PowerOff())
    (issue,) = wait_for(lambda: agency.QueryRuntime().issue)
    assert isinstance(issue, eam.issue.VmPoweredOff)
    assert (issue.agent, issue.host, issue.vm) == (agents[0], runtime.host, runtime.vm)
    assert agency.QueryRuntime().status == "red"
    assert list(agents[0].Resolve([issue.key, 4711])) == [4711]
    wait_for(lambda: agency.QueryRuntime().status == "green")
    agency.Uninstall()
    wait_for(lambda: not agency.QueryAgent() and agency.QueryRuntime().status == "green")
    agency.DestroyAgency()
    wait_for(lambda: not bench.manager.QueryAgency())
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        agency.QueryRuntime()


def test_agent_vm_as_vcenter_shows_it(bench: Bench) -> None:
    """An agent VM is recognised by ``managedBy``; its vRouter answers on the guest's address."""
    bench.deployed()
    vms = [vm for vm in bench.all(vim.VirtualMachine) if vm.config.managedBy is not None]
    assert [vm.name for vm in vms] == ["ContrailVM (1)", "ContrailVM (2)"]
    vm = vms[0]
    assert vm.summary.config.managedBy.type == "agent"
    assert vm.parent.name == vm.resourcePool.name == "ESX Agents"
    assert vm.guestHeartbeatStatus == "green"
    assert [device.deviceInfo.label for device in vm.config.hardware.device] == ["Hard disk 1", "Network adapter 1"]
    url = f"http://{vm.guest.ipAddress}:8085/Snh_SandeshUVECacheReq?x=NodeStatus"
    wait_for(lambda: bench.simulator.vcenter.vrouters.listening)
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert b"Functional" in answer.read()


def test_hook_is_seen_and_marked(bench: Bench) -> None:
    """``vmHook`` over the wire; marking is refused to a plain user unless the knob allows it."""
    agency = bench.create(manuallyMarkAgentVmAvailableAfterProvisioning=True)
    agents = wait_for(agency.QueryAgent)
    hook = wait_for(lambda: agents[0].QueryRuntime().vmHook)
    assert hook.vmState == "provisioned"
    with pytest.raises(eam.fault.NotAuthorized):
        agents[0].MarkAsAvailable()
    bench.simulator.knobs.change({"mark_allowed_for_users": True})
    for agent in agents:
        wait_for(lambda agent=agent: agent.QueryRuntime().vmHook)
        agent.MarkAsAvailable()
    wait_for(lambda: agency.QueryRuntime().status == "green")
    with pytest.raises(eam.fault.InvalidState):
        agents[0].MarkAsAvailable()


def test_maintenance_over_the_wire(bench: Bench) -> None:
    """S10: the tasks a client waits for; the VM is off inside and on again when the exit task has ended."""
    agency = bench.deployed()
    host = bench.all(vim.HostSystem)[0]
    vm = next(vm for vm in host.vm if vm.config.managedBy is not None)
    WaitForTask(host.EnterMaintenanceMode(0))
    assert host.runtime.inMaintenanceMode
    assert vm.runtime.powerState == "poweredOff"
    (issue,) = wait_for(lambda: agency.QueryRuntime().issue)
    assert isinstance(issue, eam.issue.HostInMaintenanceMode)
    WaitForTask(host.ExitMaintenanceMode(0))
    assert vm.runtime.powerState == "poweredOn"
    wait_for(lambda: agency.QueryRuntime().status == "green")


def test_faults_of_create_agency_arrive_as_they_are(bench: Bench) -> None:
    """InvalidUrl with its cause, InvalidAgencyScope, InvalidAgentConfiguration, InvalidArgument, NotSupported."""
    missing = eam.Agent.ConfigInfo(ovfPackageUrl=bench.ovf_url + ".missing")
    with pytest.raises(eam.fault.InvalidUrl) as caught:
        bench.create(agentConfig=[missing])
    assert (caught.value.responseCode, caught.value.url) == (404, missing.ovfPackageUrl)
    refused = eam.Agent.ConfigInfo(ovfPackageUrl="http://127.0.0.1:1/x.ovf")
    with pytest.raises(eam.fault.InvalidUrl) as caught:
        bench.create(agentConfig=[refused])
    assert caught.value.connectionRefused
    gone = vim.ClusterComputeResource("domain-c999")
    with pytest.raises(eam.fault.InvalidAgencyScope) as scope:
        bench.create(scope=eam.Agency.ComputeResourceScope(computeResource=[gone]))
    assert [ref._moId for ref in scope.value.unknownComputeResource] == ["domain-c999"]
    with pytest.raises(eam.fault.InvalidAgentConfiguration):
        bench.create(agentConfig=[])
    with pytest.raises(vmodl.fault.InvalidArgument):
        bench.create(agencyName=None)
    assert not bench.manager.QueryAgency()


def test_every_issue_type_crosses_the_wire(bench: Bench) -> None:
    """The extra fields of an issue survive: lists, names, and vCenter's own faults inside."""
    agency = bench.deployed()
    world = bench.simulator.vcenter
    host = world.hosts()[0]
    agent = agency.QueryAgent()[0]
    vm = world.stimuli.agent_vm(host)
    assert vm is not None
    world.stimuli.corrupt(vm, "disk-0.vmdk")
    (issue,) = wait_for(lambda: agent.QueryRuntime().issue)
    assert (type(issue), issue.missingFile) == (eam.issue.VmCorrupted, "disk-0.vmdk")
    vm.missing_file = None
    vm.power_on_fault = vim.fault.InsufficientResourcesFault(msg="none left")
    agent.ResolveAll()
    (issue,) = wait_for(lambda: [i for i in agent.QueryRuntime().issue if isinstance(i, eam.issue.InvalidConfig)])
    assert isinstance(issue.error, vim.fault.InsufficientResourcesFault)
    elsewhere = world.datacenters()[0].new_datastore("elsewhere", capacity=1, free=1, shared=True)
    agency.Update(eam.Agency.ConfigInfo(agentVmDatastore=[vim.Datastore(elsewhere.moid)]))
    world.stimuli.destroy(vm)
    wait_for(lambda: [i for i in agent.QueryRuntime().issue if type(i) is eam.issue.VmNotDeployed])
    agent.ResolveAll()
    (issue,) = wait_for(
        lambda: [i for i in agent.QueryRuntime().issue if isinstance(i, eam.issue.NoCustomAgentVmDatastore)]
    )
    assert list(issue.customAgentVmDatastoreName) == ["elsewhere"]
    world.stimuli.disconnect(host)
    (issue,) = wait_for(lambda: [i for i in agent.QueryRuntime().issue if isinstance(i, eam.issue.HostNotReachable)])
    assert issue.hostName == host.name


def test_an_older_client_sees_no_hook_and_loses_no_issue(bench: Bench) -> None:
    """A client at EAM 6.5 gets no ``vmHook``, which came with 6.7, and everything that is older."""
    agency = bench.create(manuallyMarkAgentVmAvailableAfterProvisioning=True)
    agents = wait_for(agency.QueryAgent)
    wait_for(lambda: agents[0].QueryRuntime().vmHook)
    with connected(bench.simulator) as instance:
        old = eam_manager(bench.simulator, instance, version="eam.version.version6_5")
        (seen,) = old.QueryAgency()
        runtime = seen.QueryAgent()[0].QueryRuntime()
        assert runtime.vmHook is None
        assert runtime.vmName.startswith("ContrailVM (")


def test_settings_inventory_and_pools_over_the_wire(bench: Bench) -> None:
    """S09, S04: what an operator's tools do to hosts, clusters, folders and pools."""
    host, other = bench.all(vim.HostSystem)
    (cluster,) = bench.all(vim.ClusterComputeResource)
    manager = host.configManager.esxAgentHostManager
    manager.UpdateConfig(vim.host.EsxAgentHostManager.ConfigInfo(agentVmNetwork=host.network[1]))
    assert manager.configInfo.agentVmDatastore is None
    assert host.summary.config.agentVmNetwork.name == "fab-pg"
    spec = vim.host.ConnectSpec(hostName="new.example", userName="root", password="x", force=False)
    task = cluster.AddHost(spec, True)
    WaitForTask(task)
    assert task.info.result.parent == cluster
    with pytest.raises(vim.fault.AlreadyConnected):
        WaitForTask(cluster.AddHost(spec, True))
    folder = bench.content.rootFolder.childEntity[0].hostFolder
    prod = folder.CreateFolder("prod")
    second = prod.CreateClusterEx("ClusterA", vim.cluster.ConfigSpecEx())
    with pytest.raises(vim.fault.InvalidState):
        WaitForTask(second.MoveInto([other]))
    WaitForTask(other.EnterMaintenanceMode(0))
    WaitForTask(second.MoveInto([other]))
    assert [one.name for one in second.host] == [other.name]
    WaitForTask(second.ReconfigureEx(vim.cluster.ConfigSpecEx(dasConfig=vim.cluster.DasConfigInfo(enabled=True)), True))
    assert second.configurationEx.dasConfig.enabled
    WaitForTask(folder.AddStandaloneHost(vim.host.ConnectSpec(hostName="alone.example", force=False), None, True))
    alone = next(one for one in bench.all(vim.HostSystem) if one.name == "alone.example")
    assert type(alone.parent) is vim.ComputeResource
    WaitForTask(alone.Destroy())
    WaitForTask(prod.Destroy())
    assert sorted(one.name for one in bench.all(vim.HostSystem)) == [host.name, "new.example"]


def test_reconfigure_an_agent_vm_over_the_wire(bench: Bench) -> None:
    """What customisation in a hold will do: a second adapter, ``guestinfo``, a reservation."""
    bench.deployed()
    vm = next(vm for vm in bench.all(vim.VirtualMachine) if vm.config.managedBy is not None)
    host = vm.runtime.host
    network = next(network for network in host.network if network.name == "fab-pg")
    backing = vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName=network.name, network=network)
    card = vim.vm.device.VirtualVmxnet3(key=-1, backing=backing)
    spec = vim.vm.ConfigSpec(
        deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="add", device=card)],
        extraConfig=[vim.option.OptionValue(key="guestinfo.contrail", value="yes")],
        memoryAllocation=vim.ResourceAllocationInfo(reservation=1024),
    )
    WaitForTask(vm.Reconfigure(spec))
    assert [network.name for network in vm.network] == ["VM Network", "fab-pg"]
    assert [(option.key, option.value) for option in vm.config.extraConfig] == [("guestinfo.contrail", "yes")]
    assert vm.config.memoryAllocation.reservation == 1024
    WaitForTask(vm.Rename("renamed"))
    assert vm.name == "renamed"


def test_every_property_of_every_kind_can_be_read(bench: Bench) -> None:
    """``all`` properties of one object of each kind, encoded and decoded: nothing is missing, nothing breaks."""
    bench.deployed()
    (cluster,) = bench.all(vim.ClusterComputeResource)
    host = cluster.host[0]
    datacenter = bench.content.rootFolder.childEntity[0]
    objects = [host, host.vm[0], cluster, cluster.resourcePool, datacenter, datacenter.vmFolder, *host.datastore]
    objects += [*host.network, host.configManager.esxAgentHostManager, bench.content.rootFolder]
    for obj in objects:
        kind = vim.PropertyCollector
        spec = kind.FilterSpec(
            objectSet=[kind.ObjectSpec(obj=obj)], propSet=[kind.PropertySpec(type=type(obj), all=True)]
        )
        (content,) = bench.content.propertyCollector.RetrieveContents([spec])
        assert not content.missingSet
        assert content.propSet


def test_upgrade_in_waves_over_the_wire(bench: Bench) -> None:
    """S03: one Update provisions everywhere at once; host by host the new VM is marked, and only then the old goes."""
    bench.simulator.knobs.change({"mark_allowed_for_users": True})
    agency = bench.deployed()
    agents = agency.QueryAgent()
    old = {agent: agent.QueryRuntime().vm for agent in agents}
    properties = [eam.Agent.OvfEnvironmentInfo.OvfProperty(key="release", value="2")]
    new = eam.Agent.ConfigInfo(
        ovfPackageUrl=f"{bench.ovf_url}?digest=2",
        ovfEnvironment=eam.Agent.OvfEnvironmentInfo(ovfProperty=properties),
    )
    config = agency.QueryConfig()
    config.agentConfig = [new]
    config.manuallyMarkAgentVmAvailableAfterProvisioning = True
    agency.Update(config)
    for number, agent in enumerate(agents):
        for held in agents[number:]:
            wait_for(lambda held=held: held.QueryRuntime().vmHook)
            runtime = held.QueryRuntime()
            assert runtime.vm == old[held]
            assert runtime.vmHook.vm != runtime.vm
            assert (runtime.vmHook.vmState, runtime.vmPowerState, runtime.status) == (
                "provisioned",
                "poweredOn",
                "yellow",
            )
        agent.MarkAsAvailable()
        wait_for(lambda agent=agent: agent.QueryRuntime().status == "green")
        assert agent.QueryRuntime().vm != old[agent]
    assert agency.QueryRuntime().status == "green"
    vms = [vm for vm in bench.all(vim.VirtualMachine) if vm.config.managedBy is not None]
    assert [vm.name for vm in vms] == ["ContrailVM (3)", "ContrailVM (4)"]
    for vm in vms:
        assert [(item.id, item.value) for item in vm.config.vAppConfig.property] == [("release", "2")]
    assert agents[0].QueryConfig().ovfPackageUrl == new.ovfPackageUrl


def test_pinned_certificate_over_the_wire(bench: Bench, tmp_path: Path) -> None:
    """S01: an OVF server that nobody trusts is refused by name; with its certificate pinned it is good."""
    issued = trustme.CA().issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    # The handshake belongs to the handler: the server's own leaves the socket open when the client refuses.
    with ovf_server(tmp_path / "tls", "https", ssl_context=context, do_handshake_on_connect=False) as url:
        with pytest.raises(eam.fault.CertificateNotTrustedFault) as caught:
            bench.create(agentConfig=[eam.Agent.ConfigInfo(ovfPackageUrl=url)])
        assert caught.value.url == url
        pin = eam.Agent.PinnedPemCertificate(sslCertificate=issued.cert_chain_pems[0].bytes().decode())
        agency = bench.create(agentConfig=[eam.Agent.ConfigInfo(ovfPackageUrl=url, ovfSslTrust=pin)])
        wait_for(lambda: agency.QueryRuntime().status == "green", what="the agency is green")
        assert agency.QueryConfig().agentConfig[0].ovfSslTrust.sslCertificate == pin.sslCertificate


def test_standby_orphans_and_events_over_the_wire(bench: Bench) -> None:
    """S13, S04: a sleeping host's issue, a machine that comes back with its VM, and EAM's own session events."""
    agency = bench.deployed()
    do = bench.simulator.vcenter.stimuli
    host = bench.all(vim.HostSystem)[0]
    do.enter_standby(host._moId)
    (issue,) = wait_for(lambda: agency.QueryRuntime().issue)
    assert isinstance(issue, eam.issue.HostInStandbyMode)
    assert issue.host == host
    do.wake(host._moId)
    wait_for(lambda: agency.QueryRuntime().status == "green")
    name = host.name
    do.remove_host(host._moId)
    wait_for(lambda: len(agency.QueryAgent()) == 1)
    moid = do.add_host(bench.all(vim.ClusterComputeResource)[0]._moId, name).moid
    again = vim.HostSystem(moid, bench.content.rootFolder._stub)
    (orphan,) = again.vm
    assert orphan.config.managedBy.type == "agent"
    wait_for(lambda: agency.QueryRuntime().status == "green" and len(agency.QueryAgent()) == 2)
    wait_for(lambda: again.vm and orphan not in again.vm)
    bench.simulator.add_user("guest", "pw", privileges={"EAM.View"})
    with connected(bench.simulator, user="guest", password="pw") as instance:
        manager = eam_manager(bench.simulator, instance)
        with pytest.raises(eam.fault.NotAuthorized):
            manager.QueryAgency()[0].Uninstall()
    stranger = eam_manager(bench.simulator, bench.content.rootFolder)
    stranger._stub.cookie = ""
    with pytest.raises(eam.fault.InvalidLogin):
        stranger.QueryAgency()
    collector = bench.content.eventManager
    kinds = [f"com.vmware.vim.eam.{what}" for what in ("login.succeeded", "login.invalid", "logout")]
    kinds.append("com.vmware.vim.eam.unauthorized.access")
    seen = [event.eventTypeId for event in collector.QueryEvents(vim.event.EventFilterSpec(eventTypeId=kinds))]
    assert sorted(kind.removeprefix("com.vmware.vim.eam.") for kind in seen) == [
        "login.invalid",
        "login.succeeded",
        "login.succeeded",
        "logout",
        "unauthorized.access",
    ]
