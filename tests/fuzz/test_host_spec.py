# SPDX-License-Identifier: Apache-2.0
"""The host specification: whatever the YAML, hosts or a ConfigurationError, in bounded time and memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.generate import damaged, in_time, one_sentence
from vcenter_eam_plugin import host_spec_file
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.domain.host_spec import HostIdentity, HostSpecs

GOOD = b"""
defaults:
  cpus: 4
  memory_mb: 4096
  networks:
    - {port_group: mgmt}
  guestinfo: {site: north}
patterns:
  - match: {cluster: "prod-*"}
    reserve_memory: true
    datastore: [fast-*]
hosts:
  - esxi_name: esx-1
    cluster: prod-a
    vm_name: "ContrailVM-{host}"
    mac: [00:50:56:00:00:01, derived]
    networks:
      - {port_group: fabric, switch: dvs, type: distributed}
      - {port_group: data}
    sr_iov:
      - {device: "0000:04:00.0", port_group: vf}
    pci_passthrough: ["8086:1572", "0000:05:00.1"]
    guestinfo:
      guestinfo.address: 10.0.0.1
"""
HOST = HostIdentity(key="host-1.0", name="esx-1", cluster="prod-a", datacenter="DC0", vcenter="vc")
SIZE = 50_000
"""Characters of the large inputs: what is not bounded shows in the seconds and MB that they take."""

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5), st.dates(),
    st.sampled_from(["esx-1", "derived", "00:50:56:00:00:01", "8086:1572", "{host}", "{nope}", "~", "-----BEGIN RSA"]),
)  # fmt: skip
KEYS = st.sampled_from(
    ["defaults", "patterns", "hosts", "match", "esxi_name", "name", "cluster", "host", "cpus", "memory_mb", "mac",
     "sr_iov", "networks", "port_group", "device", "type", "pci_passthrough", "guestinfo", "datastore", "vm_name",
     "password"]
) | st.text(max_size=8)  # fmt: skip
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)


def read(text: str) -> HostSpecs | None:
    """The hosts, or ``None`` when a ConfigurationError said why not."""
    with in_time(text):
        try:
            specs = host_spec_file.parse(text, "hosts.yaml")
            problems = specs.problems
            assert sum(map(len, problems)) < 100_000
            specs.unmatched([HOST])
            specs.for_host(HOST)
        except ConfigurationError as exc:
            one_sentence(exc, most=100_000).encode()
            return None
    return specs


@given(
    content=damaged(
        GOOD, telling=(b": ", b"- ", b"&a ", b"*a", b"!!python/object:os.system ", b"<<: ", b"? ", b"|\n", b"\t")
    )
)
@example(content=GOOD)
@example(content=b'hosts: [{esxi_name: "\\ud800"}]')
@example(content=b"hosts: [{esxi_name: esx-1, guestinfo: {a: !!binary zz}}]")
@example(content=b"? [a, {b: c}]\n: d\n")
def test_damaged_files(content: bytes) -> None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return  # load() tells the line; test_host_spec_file has it
    read(text)


@given(tree=TREES)
def test_any_tree(tree: Any) -> None:
    read(yaml.safe_dump(tree, allow_unicode=True))


@given(
    hosts=st.lists(st.dictionaries(KEYS, TREES, max_size=4), max_size=4),
    defaults=st.dictionaries(KEYS, TREES, max_size=4),
)
def test_any_hosts(hosts: list[dict[str, Any]], defaults: dict[str, Any]) -> None:
    entries = [{"esxi_name": "esx-1", **entry} for entry in hosts]
    read(yaml.safe_dump({"defaults": defaults, "hosts": entries}))


def repeated(head: str, each: str, size: int = SIZE) -> str:
    return head + each * (size // len(each))


LARGE = {
    "the same host again and again": repeated("hosts:\n", "- esxi_name: esx-1\n"),
    "one address for all": "hosts:\n"
    + "".join(f"- {{esxi_name: e{n}, mac: 00:50:56:00:00:01}}\n" for n in range(1000)),
    "one host with many addresses": "hosts:\n- esxi_name: esx-1\n  mac: [" + "00:50:56:00:00:01," * 2_500 + "]\n",
    "one host with many devices": "hosts:\n- esxi_name: esx-1\n  pci_passthrough: ["
    + ",".join(f"'{n:x}:0.0'" for n in range(1, 255)) * 20
    + "]\n",
    "many unknown keys": "hosts:\n- esxi_name: esx-1\n" + "".join(f"  key{n}: 1\n" for n in range(4_000)),
    "many entries without a name": repeated("hosts:\n", "- cpus: 1\n"),
    "an endless key": f"? {'k' * SIZE}\n: 1\n",
    "an endless value": f"hosts: [{{esxi_name: esx-1, cpus: {'9' * SIZE}}}]\n",
    "an endless name": f"hosts: [{{esxi_name: {'e' * SIZE}, cpus: x}}]\n",
    "nested": "[" * SIZE,
    "nested keys": "? " * SIZE,
    "many anchors": repeated("", "&a [] \n- "),
    "many documents": repeated("", "---\na: 1\n"),
    "many tags": repeated("%TAG ! tag:x,2000:\n", "--- !x {}\n"),
    "many empty items": repeated("hosts:\n", "-\n"),
    "many patterns": "patterns:\n" + "- {match: {host: '*'}, cpus: 1}\n" * 1250 + "hosts: []\n",
}


@pytest.mark.parametrize("what", LARGE)
def test_large_files_take_bounded_time_and_memory(what: str) -> None:
    """50 kB, where 8 MB are allowed: what grows with the square would take hours there, and all memory."""
    tracemalloc.start()
    try:
        read(LARGE[what])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400 * SIZE, f"{peak >> 20} MiB for {SIZE >> 10} KiB"
