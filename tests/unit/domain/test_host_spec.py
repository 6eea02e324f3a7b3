# SPDX-License-Identifier: Apache-2.0
"""S20: what each host's ContrailVM is to look like, from defaults, patterns and entries; names and addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.host_spec import (
    HostEntry,
    HostIdentity,
    HostSpecs,
    Layer,
    Match,
    NicSpec,
    Pattern,
    PciSpec,
    SriovSpec,
    derived_mac,
    fill,
    is_model,
    pci_id,
    vm_name,
)
from vcenter_eam_plugin.domain.settings_rules import SettingsRules

VCENTER = "6d2b0c0e-8f2d-4f5c-9a63-0f4e6b6c1a11"


def host(name: str = "esx-01", number: int = 12, cluster: str = "A", datacenter: str = "DC0") -> HostIdentity:
    return HostIdentity(key=f"host-{number}.{VCENTER}", name=name, cluster=cluster, datacenter=datacenter)


def test_without_a_file_a_contrailvm_is_named_and_nothing_else() -> None:
    spec = HostSpecs().for_host(host())
    assert spec.vm_name == "ContrailVM-DC0-esx-01"
    assert (spec.cpus, spec.memory_mb, spec.networks, spec.exact_networks, spec.sr_iov) == (None, None, (), False, None)
    assert not spec.needs_devices


def test_name_keeps_prefix_and_length() -> None:
    """CVM finds a ContrailVM by the beginning of its name, and vCenter takes 80 characters."""
    assert vm_name("{host}", host()) == "ContrailVM-esx-01"
    assert vm_name("ContrailVM-{datacenter}-{host}", host("h" * 65)) == f"ContrailVM-DC0-{'h' * 65}"
    one = vm_name("ContrailVM-{datacenter}-{host}", host("h" * 99 + "1"))
    other = vm_name("ContrailVM-{datacenter}-{host}", host("h" * 99 + "2"))
    assert len(one) == len(other) == 80
    assert one != other


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_name_is_allowed_by_vcenter(name: str, template: str) -> None:
    made = vm_name(template, host(name))
    assert made.startswith("ContrailVM")
    assert len(made) <= 80


def test_braces_that_are_no_placeholder_stay() -> None:
    """Bug: str.format of an operator's text would raise, or reach into objects."""
    assert fill("{{x}} {host.name} {0} {cluster}", host()) == "{{x}} {host.name} {0} A"


def test_later_layers_replace_earlier_ones() -> None:
    specs = HostSpecs(
        defaults=Layer(cpus=4, memory_mb=4096, guestinfo={"guestinfo.a": "1", "guestinfo.b": "{host}"}),
        patterns=[Pattern(match=Match(host="ESX-*", cluster="A"), layer=Layer(cpus=8, guestinfo={"guestinfo.a": "2"}))],
        hosts=[HostEntry(name="esx-01", line=9, layer=Layer(memory_mb=8192, guestinfo={"guestinfo.b": None}))],
    )
    written = specs.for_host(host())
    assert (written.cpus, written.memory_mb, dict(written.guestinfo)) == (8, 8192, {"guestinfo.a": "2"})
    unwritten = specs.for_host(host("esx-02", 13))
    assert (unwritten.cpus, unwritten.memory_mb) == (8, 4096)
    assert dict(unwritten.guestinfo) == {"guestinfo.a": "2", "guestinfo.b": "esx-02"}
    assert specs.for_host(host("esx-02", 13, cluster="B")).cpus == 4


def test_lists_of_one_host_never_reach_another() -> None:
    """Bugs 1782297 and 1796214 of the former tools: NIC and PCI lists leaked from host to host."""
    specs = HostSpecs(
        defaults=Layer(networks=(NicSpec(port_group="fab"),)),
        hosts=[
            HostEntry(
                name="esx-01",
                line=5,
                layer=Layer(
                    networks=(NicSpec(port_group="x"), NicSpec(port_group="y")),
                    pci_passthrough=(PciSpec(device="0000:04:00.0"),),
                ),
            )
        ],
    )
    first, second = specs.for_host(host()), specs.for_host(host("esx-02", 13))
    assert [nic.port_group for nic in first.networks] == ["x", "y"]
    assert [nic.port_group for nic in second.networks] == ["fab"]
    assert first.reserve_memory
    assert first.needs_devices
    assert second.pci_passthrough is None
    assert not second.reserve_memory


def test_same_host_name_in_two_datacenters() -> None:
    specs = HostSpecs(
        hosts=[
            HostEntry(name="esx-01", line=1, datacenter="DC0", layer=Layer(cpus=2)),
            HostEntry(name="esx-01", line=2, datacenter="DC1", layer=Layer(cpus=3)),
        ]
    )
    assert specs.for_host(host()).cpus == 2
    assert specs.for_host(host(datacenter="dc1")).cpus == 3
    assert specs.for_host(host(datacenter="DC2")).cpus is None


def test_addresses_given_and_derived() -> None:
    specs = HostSpecs(
        defaults=Layer(networks=(NicSpec(port_group="a"), NicSpec(port_group="b"))),
        hosts=[HostEntry(name="esx-01", line=1, layer=Layer(macs=("00:50:56:05:ba:ba",)))],
    )
    nics = specs.for_host(host()).networks
    assert [nic.mac for nic in nics] == ["00:50:56:05:ba:ba", derived_mac(host().key, 1)]
    assert [nic.port_group for nic in nics] == ["a", "b"]


def test_mac_alone_touches_that_adapter_alone() -> None:
    """As esxi_info has it: one MAC and no networks; the adapters are otherwise left as EAM made them."""
    spec = HostSpecs(hosts=[HostEntry(name="esx-01", line=1, layer=Layer(macs=("00:50:56:05:ba:ba",)))]).for_host(
        host()
    )
    assert [(nic.port_group, nic.mac) for nic in spec.networks] == [(None, "00:50:56:05:ba:ba")]
    assert not spec.exact_networks


def test_derived_addresses_are_in_vmwares_manual_range_and_stable() -> None:
    """A respawned ContrailVM has its predecessor's addresses; the value is part of what operators rely on."""
    assert derived_mac(f"host-12.{VCENTER}", 0) == derived_mac(f"host-12.{VCENTER}", 0)
    assert derived_mac("host-12.vc", 0) == "00:50:56:13:d2:70"
    for key in ("host-1.vc", "host-999999.vc", "nonsense", f"host-262143.{VCENTER}"):
        octets = [int(part, 16) for part in derived_mac(key, 15).split(":")]
        assert octets[:3] == [0x00, 0x50, 0x56]
        assert octets[3] <= 0x3F


@given(st.sets(st.tuples(st.integers(0, 200_000), st.integers(0, 15)), max_size=200))
def test_derived_addresses_of_one_vcenter_are_all_different(pairs: set[tuple[int, int]]) -> None:
    """A hash into 22 bits would collide in a fleet of some thousand adapters; counting on does not."""
    assert len({derived_mac(f"host-{number}.{VCENTER}", nic) for number, nic in pairs}) == len(pairs)


def test_derived_address_that_was_given_to_somebody_is_refused() -> None:
    specs = HostSpecs(
        source="f.yaml",
        defaults=Layer(networks=(NicSpec(port_group="a", line=2),)),
        hosts=[HostEntry(name="esx-09", line=7, layer=Layer(macs=(derived_mac(host().key, 0),)))],
    )
    with pytest.raises(ConfigurationError, match=r"f\.yaml, line 2: host esx-01: .*given to esx-09 in line 7"):
        specs.for_host(host())
    assert specs.for_host(host("esx-02", 13)).networks


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (Layer(networks=(NicSpec(),), macs=(None, None)), "2 addresses, but there are 1 networks"),
        (Layer(networks=(NicSpec(),) * 9, sr_iov=(SriovSpec(device="8086:1592", port_group="p"),) * 2), "11 network"),
        (Layer(reserve_memory=False, pci_passthrough=(PciSpec(device="0000:04:00.0"),)), "reserve_memory is off"),
        (
            Layer(
                pci_passthrough=(PciSpec(device="0000:04:00.0"),),
                sr_iov=(SriovSpec(device="0000:04:00.0", port_group="p"),),
            ),
            "under pci_passthrough and under sr_iov",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_for_that_host(layer: Layer, says: str) -> None:
    specs = HostSpecs(source="f.yaml", hosts=[HostEntry(name="esx-01", line=1, layer=layer)])
    with pytest.raises(ConfigurationError, match=says):
        specs.for_host(host())
    assert specs.for_host(host("esx-02", 13)).vm_name == "ContrailVM-DC0-esx-02"


def test_entries_that_fit_no_host_are_named() -> None:
    specs = HostSpecs(source="f.yaml", hosts=[HostEntry(name="esx-01", line=1), HostEntry(name="exs-02", line=4)])
    assert specs.unmatched([host()]) == ("f.yaml, line 4: no such host: exs-02",)


def test_settings_of_a_host_go_before_the_rules() -> None:
    rules = SettingsRules(datastores=("shared*",), networks=("fab*",))
    assert HostSpecs().for_host(host()).settings_rules(rules) == rules
    own = HostSpecs(hosts=[HostEntry(name="esx-01", line=1, layer=Layer(datastores=("local-1",)))]).for_host(host())
    assert own.settings_rules(rules) == SettingsRules(datastores=("local-1",), networks=("fab*",))


@pytest.mark.parametrize(
    ("text", "normal"),
    [("0000:04:00.0", "0000:04:00.0"), ("4:0.1", "0000:04:00.1"), ("0000:3B:00.0", "0000:3b:00.0"), ("8086:1572",) * 2],
)
def test_pci_ids_have_one_form(text: str, normal: str) -> None:
    assert pci_id(text) == normal
    assert is_model(normal) == ("." not in normal)


@pytest.mark.parametrize("text", ["", "vmnic4", "0000:04:00", "0000:04:00.9", "80861572", "0000:100:00.0"])
def test_what_is_no_pci_id(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        pci_id(text)
