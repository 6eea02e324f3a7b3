# SPDX-License-Identifier: Apache-2.0
"""S20: each new ContrailVM is held, off, until it is what the host specification says; each respawn gets the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from pyVmomi import vim

from tests.support.bench import Bench
from tests.support.scenario import assert_can_be_followed
from tests.support.simulator import connected
from vcenter_eam_plugin.config import Mode
from vcenter_eam_plugin.domain.host_spec import derived_mac
from vcenter_eam_plugin.simulator.knobs import Knobs

FILE = """
defaults:
  cpus: 4
  memory_mb: 8192
  networks:
    - port_group: VM Network
    - port_group: fab-pg
      type: standard
    - port_group: dvpg-dc0
      type: distributed
  guestinfo:
    contrail.hostname: "{host}"
patterns:
  - match: {cluster: ClusterB}
    cpus: 8
"""
GIVEN = "00:50:56:05:ba:ba"
FIRST = f"""
hosts:
  - esxi_name: esx-01.dc0.example
    mac: {GIVEN}
    guestinfo:
      contrail.address: 10.0.0.5
"""

MakeHeld = Callable[..., Bench]


@pytest.fixture
def make_held(make_bench: Callable[..., Bench]) -> MakeHeld:
    """``make_held(text, hosts=...)``: started with this host specification and a hold after provisioning."""

    def make(text: str = FILE, *, hosts: int = 3, clusters: int = 2, start: bool = True, **knobs: Any) -> Bench:
        bench = make_bench(hosts=hosts, clusters=clusters, knobs=Knobs(mark_allowed_for_users=True, **knobs))
        write(bench, text)
        if start:
            restart(bench)
        return bench

    return make


def spec_file(bench: Bench) -> Path:
    bench.directory.mkdir(parents=True, exist_ok=True)
    return bench.directory / "hosts.yaml"


def write(bench: Bench, text: str) -> None:
    spec_file(bench).write_text(text, "utf-8")


def restart(bench: Bench, **changes: Any) -> None:
    if bench.service is not None:
        bench.stop()
    bench.start(**{"hold_after_provisioning": True, "host_spec_file": spec_file(bench), **changes})


def cards(vm: Any) -> list[tuple[str, str, str]]:
    """Type, network and MAC address of each adapter, in order."""
    found = []
    for device in vm.prop_config().hardware.device:
        if isinstance(device, vim.vm.device.VirtualEthernetCard):
            backing = device.backing
            network = getattr(backing, "deviceName", None) or backing.port.portgroupKey
            found.append((type(device).__name__.rpartition(".")[2], network, device.macAddress))
    return found


def extra(vm: Any) -> dict[str, str]:
    return {option.key: option.value for option in vm.prop_config().extraConfig if option.key.startswith("guestinfo.c")}


def shape(vm: Any) -> tuple[Any, ...]:
    hardware = vm.prop_config().hardware
    return vm.name, hardware.numCPU, hardware.memoryMB, cards(vm), extra(vm)


def reason(bench: Bench, host: str) -> str:
    return next(str(m["reason"]) for m in reversed(bench.messages) if m["key"] and m["esxi"]["name"] == host)


def reconfigurations(bench: Bench) -> int:
    return len(bench.writes("ReconfigVM_Task"))


def test_each_contrailvm_is_made_what_the_file_says_before_its_first_power_on(make_held: MakeHeld) -> None:
    """S20: name, sizes, adapters in order, MAC addresses given or derived, and values for the guest."""
    bench = make_held(FILE + FIRST)
    bench.wait_until_active()
    distributed = next(n for n in bench.simulator.world.objects.values() if getattr(n, "name", "") == "dvpg-dc0").moid
    for host in bench.vcenter.hosts():
        vm, key = bench.vcenter.agent_vm(host), f"{host.moid}.{bench.unit.session.instance_uuid}"
        name, cpus, memory, adapters, info = shape(vm)
        assert name == f"ContrailVM-DC0-{host.name}"
        assert (cpus, memory) == (8 if host.parent.name == "ClusterB" else 4, 8192)
        assert [(kind, network) for kind, network, _ in adapters] == [
            ("VirtualVmxnet3", "VM Network"), ("VirtualVmxnet3", "fab-pg"), ("VirtualVmxnet3", distributed),
        ]  # fmt: skip
        derived = [derived_mac(key, n) for n in range(3)]
        first = host.name == "esx-01.dc0.example"
        assert [mac for _, _, mac in adapters] == ([GIVEN, *derived[1:]] if first else derived)
        assert info == {"guestinfo.contrail.hostname": host.name} | (
            {"guestinfo.contrail.address": "10.0.0.5"} if first else {}
        )
        assert "PROVISIONED" in bench.heard(host.name)
        assert vm.boots == 1, "it was never started as something else"
    assert reconfigurations(bench) == 3
    assert len(bench.writes("MarkAsAvailable")) == 3
    assert bench.alarms() == {}
    assert_can_be_followed(bench.messages)


def test_a_respawned_contrailvm_gets_the_same_again(make_held: MakeHeld) -> None:
    """S20: another VM under the same name, with the same addresses."""
    bench = make_held(FILE + FIRST)
    bench.wait_until_active()
    name = bench.names()[0]
    vm = bench.vcenter.agent_vm(name)
    before = shape(vm)
    bench.vcenter.destroy(vm)
    bench.wait_for(lambda: bench.state(name) == "MISSING", "it is missed")
    bench.wait_until_active(name)
    again = bench.vcenter.agent_vm(name)
    assert again is not vm
    assert shape(again) == before
    assert reconfigurations(bench) == 4


def test_a_restart_changes_nothing_of_what_stands(make_held: MakeHeld) -> None:
    """S20: it is applied to held ContrailVMs alone, whatever the file says by now."""
    bench = make_held()
    bench.wait_until_active()
    before, writes = [shape(bench.vcenter.agent_vm(name)) for name in bench.names()], len(bench.writes())
    write(bench, FILE.replace("cpus: 4", "cpus: 6"))
    restart(bench)
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches again")
    bench.wait_for(lambda: not len(bench.unit.pipeline.workers.queue), "everything was looked at")
    assert len(bench.writes()) == writes
    assert [shape(bench.vcenter.agent_vm(name)) for name in bench.names()] == before


def test_without_a_file_it_is_named_and_let_go(make_held: MakeHeld) -> None:
    """S20: the name is what other tools of Contrail look for."""
    bench = make_held(hosts=1, clusters=1, start=False)
    restart(bench, host_spec_file=None)
    bench.wait_until_active()
    (name,) = bench.names()
    assert bench.vcenter.agent_vm(name).name == f"ContrailVM-DC0-{name}"
    assert reconfigurations(bench) == 0


def held_and_left_alone(bench: Bench) -> Any:
    """A new host in ClusterB whose ContrailVM is deployed and held, and nobody acts on it."""
    bench.wait_until_active()
    bench.unit.gate.pause()
    host = bench.vcenter.add_host("ClusterB")
    bench.vcenter.set_agent_settings(host, datastore="shared-dc0", network="VM Network")
    bench.wait_for_state(host.name, "PROVISIONED")
    assert reason(bench, host.name) == "held before its first power-on"
    return host


def test_held_while_the_service_was_away_it_is_customised_when_it_is_back(make_held: MakeHeld) -> None:
    """S20: the hook is EAM's to remember; a restart in the middle of it loses nothing."""
    bench = make_held()
    host = held_and_left_alone(bench)
    restart(bench)
    bench.unit.activate()  # the pause that left it alone outlives the restart
    bench.wait_until_active(host.name)
    vm = bench.vcenter.agent_vm(host)
    assert shape(vm)[:3] == (f"ContrailVM-DC0-{host.name}", 8, 8192)
    assert vm.boots == 1


def test_in_observe_mode_it_stays_held_and_is_told(make_held: MakeHeld) -> None:
    """S20: until somebody activates."""
    bench = make_held()
    host = held_and_left_alone(bench)
    writes = len(bench.writes())
    restart(bench, mode=Mode.OBSERVE)
    bench.wait_for(lambda: bench.unit.pipeline and bench.unit.pipeline.fleet.given_out, "it watches again")
    gevent.sleep(0.5)
    assert bench.state(host.name) == "PROVISIONED"
    assert len(bench.writes()) == writes
    bench.unit.activate()
    bench.wait_until_active(host.name)


REFUSED = FILE + "\nhosts:\n  - esxi_name: esx-01.dc0.example\n    memroy_mb: 4096\n"


# --- what goes wrong -----------------------------------------------------------------------------------------


def assert_held(bench: Bench, name: str, *words: str) -> None:
    """It stays off and held, the state's reason says why, and the others go on."""
    others = [other for other in bench.names() if other != name]
    bench.wait_until_active(*others)
    bench.wait_for(lambda: bench.state(name) == "PROVISIONED" and "hook step failed: " in reason(bench, name), "why")
    for word in words:
        assert word in reason(bench, name)
    assert not bench.vcenter.agent_vm(name).on
    assert any(alarm.startswith("act:") for alarm in bench.alarms())
    assert {bench.state(other) for other in others} == {"ACTIVE"}


def test_a_port_group_that_is_not_there_holds_this_host_alone(make_held: MakeHeld, quick_retries: None) -> None:
    """S20: found before anything is changed; with the file mended it goes on."""
    name = "esx-02.dc0.example"
    entry = f"\nhosts:\n  - esxi_name: {name}\n    networks:\n      - port_group: no-such-pg\n"
    bench = make_held(FILE + entry)
    assert_held(bench, name, "no-such-pg", "fab-pg")
    assert extra(bench.vcenter.agent_vm(name)) == {}, "nothing of it was changed"
    write(bench, FILE)
    restart(bench)
    bench.wait_until_active(name)
    assert bench.vcenter.agent_vm(name).boots == 1


def test_a_device_that_the_host_has_not_holds_this_host_alone(make_held: MakeHeld) -> None:
    """S20: a PCI id with a slip of the pen."""
    name = "esx-01.dc0.example"
    bench = make_held(FILE + f"\nhosts:\n  - esxi_name: {name}\n    pci_passthrough: ['8086:dead']\n")
    assert_held(bench, name, "8086:dead")


def test_an_entry_that_is_refused_holds_this_host_and_says_file_and_line(make_held: MakeHeld) -> None:
    """Bug: a refused entry was an alarm, and the state's reason did not say why the ContrailVM is held."""
    name = "esx-01.dc0.example"
    bench = make_held(REFUSED, agent_vm_settings_preset=True)
    assert_held(bench, name, "hosts.yaml, line 19", "memroy_mb")
    assert "memroy_mb" in bench.alarms()["host-spec"]


def test_a_refused_host_gets_no_settings_either(make_held: MakeHeld) -> None:
    """S20, S09: what it is to get is not known; the others go on, and it is said what it waits for."""
    bench = make_held(REFUSED)
    refused, *others = bench.names()
    bench.wait_until_active(*others)
    bench.wait_for_state(refused, "BLOCKED")
    (host,) = [host for host in bench.vcenter.hosts() if host.name == refused]
    assert "hosts.yaml, line 19" in str(bench.unit.pipeline.status()["waiting"][host.moid])
    assert len(bench.writes("EsxAgentHostManagerUpdateConfig")) == len(others)


def give_mac(bench: Bench, vm: Any, mac: str) -> None:
    """As a person would, in vCenter."""
    with connected(bench.simulator) as instance:
        there = vim.VirtualMachine(vm.moid, instance._stub)
        card = next(d for d in there.config.hardware.device if isinstance(d, vim.vm.device.VirtualEthernetCard))
        card.addressType, card.macAddress = "manual", mac
        change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=card)
        task = there.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change]))
        bench.wait_for(lambda: task.info.state == "success", "the address is set")


def test_an_address_that_another_vm_has_holds_this_host_alone(make_held: MakeHeld, quick_retries: None) -> None:
    """S20: vCenter refuses it; when the other VM is gone, it goes on by itself."""
    bench = make_held(FILE + FIRST, start=False)
    other = bench.vcenter.add_tenant(bench.vcenter.hosts()[2], on=False)
    give_mac(bench, other, GIVEN)
    restart(bench)
    assert_held(bench, "esx-01.dc0.example", GIVEN)
    bench.vcenter.destroy(other)
    bench.wait_until_active("esx-01.dc0.example")
    assert cards(bench.vcenter.agent_vm("esx-01.dc0.example"))[0][2] == GIVEN
    assert bench.alarms() == {}


def test_a_reconfiguration_that_vcenter_refuses_for_a_while_is_tried_again(make_held: MakeHeld) -> None:
    """S20: what time heals needs nobody; the customisation is the same however often it is begun."""
    bench = make_held(hosts=2, clusters=1, start=False)
    bench.simulator.faults.inject("http_503", method="ReconfigVM_Task", count=3)
    restart(bench)
    bench.wait_until_active()
    for name in bench.names():
        assert shape(bench.vcenter.agent_vm(name))[1:3] == (4, 8192)
        assert bench.vcenter.agent_vm(name).boots == 1
    assert bench.alarms() == {}


def test_a_host_that_goes_into_maintenance_while_held_is_provisioned_afterwards(
    make_held: MakeHeld, quick_retries: None
) -> None:
    """S20, S10: nothing is done on a host that goes; the customisation follows when it is back."""
    name = "esx-01.dc0.example"
    bench = make_held(FILE + f"\nhosts:\n  - esxi_name: {name}\n    pci_passthrough: ['8086:dead']\n")
    assert_held(bench, name)
    bench.vcenter.enter_maintenance(name)
    bench.wait_for_state(name, "MAINTENANCE")
    write(bench, FILE)
    restart(bench)
    gevent.sleep(0.5)
    assert bench.state(name) == "MAINTENANCE"
    bench.vcenter.exit_maintenance(name)
    bench.wait_until_active(name)
    assert shape(bench.vcenter.agent_vm(name))[1] == 4


def test_with_passed_through_cards_all_memory_is_reserved(make_held: MakeHeld) -> None:
    """S20: or vCenter would not start it; devices by vendor and device, the next that is free each."""
    bench = make_held(FILE + "    pci_passthrough: ['8086:158b', '8086:158b']\n", hosts=2, clusters=2)
    bench.wait_until_active()
    (host,) = [h for h in bench.vcenter.hosts() if h.parent.name == "ClusterB"]
    config = bench.vcenter.agent_vm(host).prop_config()
    devices = [d.backing.id for d in config.hardware.device if isinstance(d, vim.vm.device.VirtualPCIPassthrough)]
    assert devices == ["0000:5e:00.0", "0000:5e:00.1"]
    assert config.memoryReservationLockedToMax
