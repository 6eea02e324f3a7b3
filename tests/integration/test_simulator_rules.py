# SPDX-License-Identifier: Apache-2.0
"""What vCenter does around agent VMs, through an unmodified pyVmomi: standby, HA, DRS, cards, extensions."""

from __future__ import annotations

import datetime as dt
import json
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pyVim.connect import Disconnect
from pyVim.task import WaitForTask
from pyVmomi import SoapStubAdapter, eam, vim, vmodl

from tests.support.simulator import assert_no_leaks, connected, eam_manager, wait_for
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.ovf_download import OvfPackage
from vcenter_eam_plugin.simulator.server import Simulator

URL = "http://ovf.example/contrailvm.ovf"
KEY = "net.example.contrail"


class NoDownload:
    """Every URL gives the same package, without a network."""

    def check(self, url: str, trust: Any) -> None: ...

    def fetch(self, url: str, trust: Any, done: Callable[[Any], None]) -> None:
        done(OvfPackage(url, "ContrailVM", disk_bytes=1 << 30))

    def close(self) -> None: ...


class Bench:
    """A client that sees two hosts in one cluster."""

    def __init__(self, simulator: Simulator, instance: Any) -> None:
        self.simulator = simulator
        self.instance = instance
        self.content = instance.content
        self.stub = instance._stub
        (self.cluster,) = self.all(vim.ClusterComputeResource)
        self.first, self.second = self.all(vim.HostSystem)

    def all(self, kind: Any) -> list[Any]:
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        try:
            return sorted(view.view, key=lambda obj: obj.name)
        finally:
            view.Destroy()

    def config(self) -> Any:
        return eam.Agency.ConfigInfo(
            agencyName="ContrailVM-Agency",
            agentName="ContrailVM",
            agentConfig=[eam.Agent.ConfigInfo(ovfPackageUrl=URL)],
            scope=eam.Agency.ComputeResourceScope(computeResource=[self.cluster]),
        )

    def deployed(self) -> Any:
        agency = eam_manager(self.simulator, self.instance).CreateAgency(self.config(), "enabled")
        wait_for(lambda: agency.QueryRuntime().status == "green" and len(agency.QueryAgent()) == 2)
        return agency

    def agent_vm(self, host: Any) -> Any:
        return next(vm for vm in host.vm if vm.config.managedBy is not None)

    def stimulus(self, **body: Any) -> Any:
        """A verb of the control endpoint."""
        return self.control("stimuli", body)["result"]

    def control(self, what: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"https://{self.simulator.host}:{self.simulator.port}/simulator/{what}",
            data=json.dumps(body).encode(),
            headers={"X-Simulator-Token": self.simulator.control_token},
        )
        context = ssl.create_default_context(cafile=str(self.simulator.ca_file))
        with urllib.request.urlopen(request, context=context, timeout=5) as answer:
            return json.load(answer)

    def tenant(self, host: Any, **changes: Any) -> Any:
        return vim.VirtualMachine(self.stimulus(verb="add_tenant", host=host._moId, **changes), self.stub)


@pytest.fixture
def bench(make_simulator: Callable[..., Simulator]) -> Iterator[Bench]:
    simulator = make_simulator(hosts=2, clusters=1, knobs=Knobs(agent_vm_settings_preset=True))
    simulator.vcenter.eam.ovf = NoDownload()
    with connected(simulator) as instance:
        yield Bench(simulator, instance)
    assert_no_leaks(simulator)


def test_s13_standby_and_back(bench: Bench) -> None:
    """PowerDownHostToStandBy_Task moves the tenant, the agent VM goes off last; PowerUpHostFromStandBy_Task."""
    agency = bench.deployed()
    tenant, agent_vm = bench.tenant(bench.first), bench.agent_vm(bench.first)
    WaitForTask(bench.first.PowerDownHostToStandBy_Task(timeoutSec=30))
    runtime = bench.first.runtime
    assert (runtime.standbyMode, runtime.powerState, runtime.connectionState) == ("in", "standBy", "notResponding")
    assert tenant.runtime.host == bench.second
    assert (agent_vm.runtime.host, agent_vm.runtime.powerState) == (bench.first, "poweredOff")
    WaitForTask(bench.first.PowerUpHostFromStandBy_Task(timeoutSec=30))
    assert bench.first.runtime.standbyMode == "none"
    wait_for(lambda: agency.QueryRuntime().status == "green")
    kinds = [task.info.descriptionId for task in bench.first.recentTask]
    assert kinds.count("HostSystem.enterStandbyMode") == kinds.count("HostSystem.exitStandbyMode") == 1


def test_s14_s15_s16_crash_failover_and_slots(bench: Bench) -> None:
    """HA starts the tenant elsewhere and counts it; the agent VM stays with its host and is in no slot."""
    config = vim.cluster.ConfigSpecEx(dasConfig=vim.cluster.DasConfigInfo(enabled=True))
    WaitForTask(bench.cluster.ReconfigureComputeResource_Task(spec=config, modify=True))
    agency = bench.deployed()
    tenant, agent_vm = bench.tenant(bench.first), bench.agent_vm(bench.first)
    info = bench.cluster.RetrieveDasAdvancedRuntimeInfo()
    assert (info.totalVms, info.totalGoodHosts, len(info.hostSlots)) == (1, 2, 2)
    assert bench.cluster.summary.usageSummary.totalVmCount == 3
    bench.control("knobs", {"slots_count_agents": True})
    assert bench.cluster.RetrieveDasAdvancedRuntimeInfo().totalVms == 3
    bench.stimulus(verb="crash", host=bench.first.name)
    wait_for(lambda: tenant.runtime.host == bench.second and tenant.runtime.powerState == "poweredOn")
    assert (agent_vm.runtime.host, agent_vm.runtime.connectionState) == (bench.first, "disconnected")
    bench.stimulus(verb="recover", host=bench.first.name)
    wait_for(lambda: agency.QueryRuntime().status == "green")


def test_s11_s12_drs_and_agents(bench: Bench) -> None:
    """No agent, no tenant: InsufficientAgentVmsDeployed decodes to its class, in a task and in a result."""
    bench.deployed()
    for host in (bench.first, bench.second):
        WaitForTask(bench.agent_vm(host).PowerOff())
    tenant = bench.tenant(bench.first, on=False)
    with pytest.raises(vim.fault.InsufficientAgentVmsDeployed) as caught:
        WaitForTask(tenant.PowerOn())
    assert (caught.value.hostName, caught.value.requiredNumAgentVms) == (bench.first.name, 1)
    (datacenter,) = bench.all(vim.Datacenter)
    task = datacenter.PowerOnMultiVM_Task(vm=[tenant])
    WaitForTask(task)
    (refused,) = task.info.result.notAttempted
    assert isinstance(refused.fault, vim.fault.InsufficientAgentVmsDeployed)
    bench.control("knobs", {"drs_ignores_agents": True})
    WaitForTask(tenant.PowerOn())
    WaitForTask(tenant.MigrateVM_Task(host=bench.second, priority="defaultPriority"))
    assert tenant.runtime.host == bench.second


def test_s20_cards_of_a_vm(bench: Bench) -> None:
    """A distributed adapter with a given address and a PCI card, in one reconfiguration; it starts when reserved."""
    vm = bench.tenant(bench.first, on=False)
    group = next(net for net in bench.first.network if isinstance(net, vim.dvs.DistributedVirtualPortgroup))
    port = vim.dvs.PortConnection(switchUuid=group.config.distributedVirtualSwitch.uuid, portgroupKey=group.key)
    ethernet = vim.vm.device.VirtualVmxnet3(
        key=-1,
        backing=vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=port),
        addressType="manual",
        macAddress="00:50:56:11:22:33",
    )
    active = next(info for info in bench.first.config.pciPassthruInfo if info.passthruActive)
    card = next(card for card in bench.first.hardware.pciDevice if card.id == active.id)
    backing = vim.vm.device.VirtualPCIPassthrough.DeviceBackingInfo(
        id=card.id,
        deviceId=f"{card.deviceId & 0xFFFF:x}",
        systemId="x",
        vendorId=card.vendorId,
        deviceName=card.deviceName,
    )
    passthrough = vim.vm.device.VirtualPCIPassthrough(key=-2, backing=backing)
    changes = [vim.vm.device.VirtualDeviceSpec(operation="add", device=device) for device in (ethernet, passthrough)]
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=changes)))
    cards = [one for one in vm.config.hardware.device if isinstance(one, vim.vm.device.VirtualEthernetCard)]
    assert cards[-1].macAddress == "00:50:56:11:22:33"
    assert cards[-1].backing.port.portgroupKey == group.key
    with pytest.raises(vim.fault.GenericVmConfigFault):
        WaitForTask(vm.PowerOn())
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(memoryReservationLockedToMax=True)))
    WaitForTask(vm.PowerOn())


class Identity:
    """A client certificate that nobody signed but its own authority, and stubs that show it."""

    def __init__(self, folder: Path, name: str) -> None:
        issued = trustme.CA().issue_cert(f"{name}.example")
        self.file = folder / f"{name}.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(self.file)
        self.pem = issued.cert_chain_pems[0].bytes().decode()

    def instance(self, simulator: Simulator) -> Any:
        context = ssl.create_default_context(cafile=str(simulator.ca_file))
        context.load_cert_chain(self.file)
        stub = SoapStubAdapter(
            host=simulator.host, port=simulator.port, version="vim.version.v8_0_2_0", sslContext=context, poolSize=0
        )
        return vim.ServiceInstance("ServiceInstance", stub)


def extension() -> Any:
    return vim.Extension(
        key=KEY,
        version="1",
        description=vim.Description(label="x", summary="x"),
        lastHeartbeatTime=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )


@pytest.mark.parametrize("given", [True, False], ids=["as PEM", "from the connection"])
def test_an_extension_logs_in_with_its_certificate(bench: Bench, tmp_path: Path, given: bool) -> None:
    """Registered, certificate set, logged in: vCenter says extension, EAM lets it see its own and mark its VMs."""
    mine, other = Identity(tmp_path, "mine"), Identity(tmp_path, "other")
    bench.content.extensionManager.RegisterExtension(extension())
    instance = mine.instance(bench.simulator)
    sessions = instance.content.sessionManager
    with pytest.raises(vim.fault.InvalidLogin):
        sessions.LoginExtensionByCertificate(KEY)
    if given:
        bench.content.extensionManager.SetExtensionCertificate(KEY, mine.pem)
    else:
        sessions.Login(bench.simulator.user, bench.simulator.password)
        instance.content.extensionManager.SetExtensionCertificate(KEY)
        sessions.Logout()
    with pytest.raises(vim.fault.InvalidLogin):
        other.instance(bench.simulator).content.sessionManager.LoginExtensionByCertificate(KEY)
    session = sessions.LoginExtensionByCertificate(KEY)
    assert (session.userName, session.extensionSession) == (KEY, True)
    theirs = bench.deployed()
    manager = eam_manager(bench.simulator, instance)
    assert list(manager.QueryAgency()) == []
    config = bench.config()
    config.agencyName = "Mine"
    config.manuallyMarkAgentVmAvailableAfterProvisioning = True
    agency = manager.CreateAgency(config, "enabled")
    assert (agency.QuerySolutionId(), agency.owner) == (KEY, None)
    assert list(manager.QueryAgency()) == [agency]
    for agent in wait_for(lambda: len(agency.QueryAgent()) == 2 and agency.QueryAgent()):
        wait_for(lambda agent=agent: agent.QueryRuntime().vmHook)
        agent.MarkAsAvailable()
    wait_for(lambda: agency.QueryRuntime().status == "green")
    with pytest.raises(eam.fault.NotAuthorized):
        type(theirs)(theirs._moId, manager._stub).QueryRuntime()
    Disconnect(instance)
    # Whoever unregisters an extension loses its agencies and all their VMs.
    bench.content.extensionManager.UnregisterExtension(KEY)
    wait_for(
        lambda: [one._moId for one in eam_manager(bench.simulator, bench.instance).QueryAgency()] == [theirs._moId]
    )
    assert len(bench.all(vim.VirtualMachine)) == 2


def test_without_a_certificate_no_extension_logs_in(bench: Bench) -> None:
    """NoClientCertificate, for the login and for setting the certificate of the connection; PEM must be PEM."""
    manager = bench.content.extensionManager
    manager.RegisterExtension(extension())
    for call in (manager.SetExtensionCertificate, lambda key: plain(bench).LoginExtensionByCertificate(key)):
        with pytest.raises(vim.fault.NoClientCertificate):
            call(KEY)
    with pytest.raises(vmodl.fault.InvalidArgument):
        manager.SetExtensionCertificate(KEY, "no certificate")
    with pytest.raises(vim.fault.NotFound):
        manager.SetExtensionCertificate("net.example.nobody", "no certificate")


def plain(bench: Bench) -> Any:
    context = ssl.create_default_context(cafile=str(bench.simulator.ca_file))
    stub = SoapStubAdapter(
        host=bench.simulator.host,
        port=bench.simulator.port,
        version="vim.version.v8_0_2_0",
        sslContext=context,
        poolSize=0,
    )
    return vim.ServiceInstance("ServiceInstance", stub).content.sessionManager


def test_a_service_account_is_its_extension(bench: Bench) -> None:
    """Since 8.0 update 2: who logs in with the account has the extension's identity and the account's privileges."""
    bench.simulator.add_user("svc-contrail@vsphere.local", "secret", {"EAM.Modify"})
    manager = bench.content.extensionManager
    manager.RegisterExtension(extension())
    with pytest.raises(vmodl.fault.InvalidArgument):
        manager.SetServiceAccount(KEY, "nobody@vsphere.local")
    manager.SetServiceAccount(KEY, "svc-contrail@vsphere.local")
    with connected(bench.simulator, "svc-contrail@vsphere.local", "secret") as instance:
        session = instance.content.sessionManager.currentSession
        assert (session.userName, session.extensionSession) == (KEY, True)
        agency = eam_manager(bench.simulator, instance).CreateAgency(bench.config(), "enabled")
        assert agency.QuerySolutionId() == KEY
        with pytest.raises(vim.fault.NoPermission):
            vim.HostSystem(bench.first._moId, instance._stub).PowerDownHostToStandBy_Task(timeoutSec=1)
    bench.simulator.knobs.change({"api_version": "8.0.1.0"})
    with pytest.raises(vmodl.fault.MethodNotFound):
        manager.SetServiceAccount(KEY, "svc-contrail@vsphere.local")
