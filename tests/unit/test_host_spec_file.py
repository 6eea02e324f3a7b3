# SPDX-License-Identifier: Apache-2.0
"""S20, bad input: the host specification file; each mistake with file, line and reason, other hosts go on."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.host_spec import HostIdentity, HostSpecs, NetworkKind
from vcenter_eam_plugin.host_spec_file import load, parse

ROOT = Path(__file__).parents[2]

GOOD = """\
defaults:
  cpus: 4
  memory_mb: 8192
  networks:
    - port_group: VM Network
    - pg: vm_pg
      sw_type: dvs
      switch_name: vm_dvs
  guestinfo:
    contrail.host: "{host}"
    contrail.ntp: 10.0.0.1
patterns:
  - match: {host: "rack2-*", datacenter: dc1}
    pci_passthrough: [0000:04:00.0]
hosts:
  - esxi_name: esx-01
    datacenter: dc1
    cluster: A
    mac: 00:50:56:05:10:20
    datastore: datastore1
    guestinfo: {contrail.address: 10.0.0.5, contrail.ntp: ~}
  - esxi_name: esx-02
    mac: [derived, 00-50-56-05-BA-BB]
    sr_iov:
      - {device: "8086:1592", port_group: sriov_pg, mac: 00:50:56:05:ba:bc}
"""


def host(name: str, number: int = 12) -> HostIdentity:
    return HostIdentity(key=f"host-{number}.vc", name=name, cluster="A", datacenter="dc1", vcenter="vc.example")


def problems_of(text: str) -> str:
    """What is wrong with the whole file."""
    with pytest.raises(ConfigurationError) as raised:
        parse(text, "f.yaml")
    return str(raised.value)


def test_a_good_file() -> None:
    specs = parse(GOOD, "f.yaml")
    assert specs.problems == ()
    first = specs.for_host(host("esx-01"))
    # 00:50:56:05:10:20 is a number to the base of 60 for YAML itself
    assert first.networks[0].mac == "00:50:56:05:10:20"
    assert first.networks[1].kind is NetworkKind.DISTRIBUTED
    assert first.networks[1].switch == "vm_dvs"
    assert dict(first.guestinfo) == {"guestinfo.contrail.host": "esx-01", "guestinfo.contrail.address": "10.0.0.5"}
    assert first.datastores == ("datastore1",)
    second = specs.for_host(host("esx-02", 13))
    assert second.networks[1].mac == "00:50:56:05:ba:bb"
    assert second.sr_iov is not None
    assert second.reserve_memory
    third = specs.for_host(host("rack2-07", 14))
    assert third.pci_passthrough is not None
    assert [one.device for one in third.pci_passthrough] == ["0000:04:00.0"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "hosts:\n", "defaults: {}\nhosts: []\n"])
def test_an_empty_file_says_nothing(text: str) -> None:
    assert parse(text, "f.yaml").for_host(host("esx-01")).cpus is None


def test_the_example_of_the_documentation_is_good() -> None:
    """docs/host-spec.md: what stands there can be used, key for key."""
    page = (ROOT / "docs/host-spec.md").read_text("utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    specs = parse(example, "docs/host-spec.md")
    assert specs.problems == ()
    assert specs.for_host(host("esx-01.example")).cpus == 4


def test_every_key_is_documented() -> None:
    from vcenter_eam_plugin import host_spec_file  # noqa: PLC0415 - its tables are the source

    page = (ROOT / "docs/host-spec.md").read_text("utf-8")
    for key in (*host_spec_file._LAYER_KEYS, *host_spec_file._SELECTORS, *host_spec_file._ADAPTER_KEYS, "device"):
        assert f"`{key}`" in page


@pytest.mark.parametrize(
    ("entry", "line", "says"),
    [
        ("cpu: 4", 5, "unknown key 'cpu'; did you mean cpus?"),
        ("cpus: many", 5, "'many' is not a whole number"),
        ("cpus: 0", 5, "'0' is not a whole number from 1"),
        ("memory_mb: 4097", 5, "not a multiple of 4"),
        ("mac: 00:50:56:05:ba", 5, "is not a MAC address"),
        ("mac: 01:50:56:05:ba:ba", 5, "multicast"),
        ("mac: 00:50:56:80:ba:ba", 5, "vCenter gives these out itself"),
        ("networks:\n      - port_group: x\n        mac: nonsense", 7, "is not a MAC address"),
        ("networks:\n      - portgroup: x", 6, "did you mean port_group?"),
        ("networks:\n      - {port_group: x, type: nsx}", 6, "allowed: standard, distributed, dvs"),
        ("networks: vm_pg", 5, "networks must be a list"),
        ("pci_passthrough: [vmnic4]", 5, "'vmnic4' is neither an address"),
        ("pci_passthrough: ['04:00.0', '0000:04:00.0']", 5, "given twice"),
        ("sr_iov: [{device: '8086:1592'}]", 5, "needs device and port_group"),
        ("guestinfo: {root_password: hunter2}", 5, "guestinfo.root_password is refused: its name says"),
        ("guestinfo: {authToken: hunter2}", 5, "is refused: its name says"),
        ("guestinfo: {api: 'https://admin:hunter2@10.0.0.1/'}", 5, "a URL with a password"),
        ("guestinfo: {host: '-----BEGIN RSA PRIVATE KEY-----'}", 5, "its value is a private key"),
        ("guestinfo: {ovfEnv: x}", 5, "belongs to VMware Tools"),
        ("guestinfo: {'a b': x}", 5, "cannot be a guestinfo key"),
        ("guestinfo: {a: ''}", 5, "an empty value"),
        ("guestinfo: {a: '{hostname}'}", 5, "unknown placeholder {hostname}"),
        ("vm_name: 'ContrailVM-{moref}'", 5, "unknown placeholder {moref}"),
        ("password: hunter2", 5, "the plugin never logs in to a host"),
        ("username: root", 5, "the plugin never logs in to a host"),
        ("cpus: 4\n    cpus: 5", 6, "cpus is given twice"),
        ("reserve_memory: maybe", 5, "neither true nor false"),
        ("datastore: !!binary aGk=\n    cpus: [1]", 6, "a single plain value"),
        ("mac: [00:50:56:05:ba:b1, 00:50:56:05:ba:b1]", 4, "00:50:56:05:ba:b1 is given twice"),
        ("mac: 00:50:56:05:ba:b1\n    networks: [{mac: 00:50:56:05:ba:b2}]", 5, "under mac and under networks"),
    ],
)
def test_a_mistake_in_one_entry_refuses_that_host_alone(entry: str, line: int, says: str) -> None:
    """Bad input: unknown key, bad MAC, bad PCI id, credential ...: file, line, reason; no secret in the sentence."""
    text = f"defaults:\n  cpus: 2\nhosts:\n  - esxi_name: esx-01\n    {entry}\n  - esxi_name: esx-02\n    cpus: 3\n"
    specs = parse(text, "f.yaml")
    assert specs.for_host(host("esx-02", 13)).cpus == 3
    assert specs.for_host(host("esx-03", 14)).cpus == 2
    with pytest.raises(ConfigurationError) as raised:
        specs.for_host(host("esx-01"))
    told = str(raised.value)
    assert f"f.yaml, line {line}: host esx-01: " in told
    assert says in told
    assert "hunter2" not in told
    assert any(says in problem for problem in specs.problems)


def test_the_same_mac_twice_refuses_both_hosts() -> None:
    """Bad input: a duplicate MAC; each of the two is told where the other one is."""
    text = (
        "hosts:\n  - {esxi_name: esx-01, mac: 00:50:56:05:ba:ba}\n"
        "  - esxi_name: esx-02\n    networks: [{mac: 00:50:56:05:BA:BA}]\n  - {esxi_name: esx-03, cpus: 3}\n"
    )
    specs = parse(text, "f.yaml")
    with pytest.raises(ConfigurationError, match=r"line 2: host esx-01: .*that of esx-02 in line 3"):
        specs.for_host(host("esx-01"))
    with pytest.raises(ConfigurationError, match=r"line 3: host esx-02: .*that of esx-01 in line 2"):
        specs.for_host(host("esx-02", 13))
    assert specs.for_host(host("esx-03", 14)).cpus == 3


def test_the_same_host_twice_refuses_that_host_unless_told_apart() -> None:
    twice = parse("hosts:\n  - {esxi_name: esx-01, cpus: 1}\n  - {esxi_name: ESX-01, datacenter: dc1}\n", "f.yaml")
    with pytest.raises(ConfigurationError, match="described twice; see ESX-01 in line 3"):
        twice.for_host(host("esx-01"))
    apart = parse(
        "hosts:\n  - {esxi_name: esx-01, datacenter: dc1, cpus: 1}\n  - {esxi_name: esx-01, datacenter: dc2}\n",
        "f.yaml",
    )
    assert apart.for_host(host("esx-01")).cpus == 1


def test_entries_of_another_vcenter_do_not_fit() -> None:
    specs = parse("hosts:\n  - {esxi_name: esx-01, vcenter_server: other.example, cpus: 1}\n", "f.yaml")
    assert specs.for_host(host("esx-01")).cpus is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("defaults:\n  cpus: x\n", "f.yaml, line 2: 'x' is not a whole number"),
        ("default:\n  cpus: 4\n", "f.yaml, line 1: unknown key 'default'; did you mean defaults?"),
        ("defaults:\n  mac: 00:50:56:05:ba:ba\n", "would go to several hosts"),
        ("patterns:\n  - cpus: 4\n", "f.yaml, line 2: a pattern needs match"),
        ("patterns:\n  - match: {}\n    cpus: 4\n", "what holds for all hosts belongs to defaults"),
        ("defaults:\n  vm_name: ContrailVM\n", "vm_name of several hosts needs {host}"),
        ("hosts:\n  - cpus: 4\n", "f.yaml, line 2: a host's entry needs esxi_name"),
        ("hosts:\n  esx-01: {cpus: 4}\n", "f.yaml, line 2: hosts must be a list"),
        ("- a\n", "f.yaml, line 1: the file must be a mapping"),
        ("hosts: [\n", "f.yaml, line 2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("hosts:\n\t- x\n", "f.yaml, line 2: not valid YAML"),
        ("defaults: &a\n  cpus: 4\npatterns:\n  - *a\n", "anchors and aliases"),
    ],
)
def test_a_mistake_that_concerns_more_than_one_host_refuses_the_file(text: str, says: str) -> None:
    assert says in problems_of(text)


def test_all_mistakes_are_told_at_once() -> None:
    told = problems_of("defaults:\n  cpus: x\n  memory_mb: y\nother: 1\n")
    assert told.index("line 2") < told.index("line 3") < told.index("line 4")


def test_aliases_cannot_make_a_small_file_endless() -> None:
    """Nine levels of ten aliases each are a thousand million values to whoever follows them."""
    lines = ["defaults:", "  guestinfo:", "    a0: &a0 [x]"]
    lines += [f"    a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    began = time.monotonic()
    problems_of("\n".join(lines))
    assert time.monotonic() - began < 5


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load(tmp_path / "missing.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"hosts:\n  - \xff\n")
    with pytest.raises(ConfigurationError, match=r"binary\.yaml, line 2: not UTF-8"):
        load(binary)
    deep = tmp_path / "deep.yaml"
    deep.write_text("[" * 100_000)
    with pytest.raises(ConfigurationError, match="not valid YAML"):
        load(deep)


def test_a_large_fleet_is_read_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    entry = (
        "  - esxi_name: esx-{n}\n    mac: [00:50:56:00:{a:02x}:{b:02x}, derived]\n"
        "    guestinfo: {{address: 10.0.{a}.{b}}}\n"
    )
    path.write_text(
        "defaults:\n  networks: [{port_group: a}, {port_group: b}]\nhosts:\n"
        + "".join(entry.format(n=n, a=n // 256, b=n % 256) for n in range(2500))
    )
    began = time.monotonic()
    specs = load(path)
    assert time.monotonic() - began < 20
    assert specs.problems == ()
    assert specs.for_host(host("esx-2499")).networks[0].mac == "00:50:56:00:09:c3"


@given(st.text(max_size=300) | st.text(alphabet="abcehimnorstuwx:-{}[]&*!#|>'\"\n 0159.,~", max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever stands in the file: an answer, or our error with the file's name; nothing else."""
    try:
        specs = parse(text, "f.yaml")
    except ConfigurationError as refused:
        told = str(refused)
    else:
        told = f"f.yaml {isinstance(specs, HostSpecs)}"
    assert "f.yaml" in told
