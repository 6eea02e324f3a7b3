# SPDX-License-Identifier: Apache-2.0
"""What a client has followed equals what it would read anew, whatever happened in between.

The wire side keeps encoded values until told of a change, and tells clients only of what it was told: an object that
changes a value in silence would make every client wrong for ever. So a whole story is followed and compared.
"""

from __future__ import annotations

import re
from typing import Any

from pyVmomi import vim

from tests.support.simulator_calls import PC, Bench
from vcenter_eam_plugin.simulator.property_collector import encode
from vcenter_eam_plugin.simulator.property_paths import read

KINDS = (
    vim.HostSystem,
    vim.VirtualMachine,
    vim.ComputeResource,
    vim.Folder,
    vim.Datacenter,
    vim.Datastore,
    vim.Network,
    vim.ResourcePool,
)
_NO_NEWS = re.compile("<(timestamp|guestState)>[^<]*")
"""Fields that change without being told: when the value was read, and what the guest tools said last."""
_AGGREGATES = {
    (vim.ComputeResource, "summary"),
    (vim.ComputeResource, "datastore"),
    (vim.ComputeResource, "network"),
    (vim.Datacenter, "datastore"),
    (vim.Datacenter, "network"),
    (vim.Datastore, "vm"),
    (vim.Network, "vm"),
}
"""Sums over other objects, current when first read; no client of ours follows them."""
NOW = PC.WaitOptions(maxWaitSeconds=0)


class Mirror:
    """Follows everything, whole, and remembers the last told values as XML."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        view = bench.content.viewManager.CreateContainerView(bench.content.rootFolder, list(KINDS), True)
        step = PC.TraversalSpec(type=vim.view.ContainerView, path="view")
        self._collector = bench.content.propertyCollector
        self._collector.CreateFilter(
            PC.FilterSpec(
                objectSet=[PC.ObjectSpec(obj=view, skip=True, selectSet=[step])],
                propSet=[PC.PropertySpec(type=kind, all=True) for kind in KINDS],
            ),
            False,
        )
        self._version = ""
        self.objects: set[str] = set()

    def follow(self) -> None:
        while (update := self._collector.WaitForUpdatesEx(self._version, NOW)) is not None:
            self._version = update.version
            for one in update.filterSet[0].objectSet:
                (self.objects.discard if one.kind == "leave" else self.objects.add)(one.obj._moId)

    def differences(self) -> list[str]:
        """What the server would say now and has not said."""
        bench = self._bench
        encoder = bench.simulator.dispatcher._encoder(bench.stub.version, "urn:vim25")
        found: list[str] = []
        [one] = next(s for s in bench.simulator.sessions.active).objects["propertyCollector"].filters.values()
        for moid, told in one._known.items():
            obj: Any = bench.world.objects[moid]
            for path, xml in told.items():
                if any(issubclass(obj.vmodl, kind) and path == name for kind, name in _AGGREGATES):
                    continue
                now = encode(obj.vmodl, path, read(obj, path), encoder)
                if _NO_NEWS.sub("", xml) != _NO_NEWS.sub("", now):
                    found.append(f"{moid} {path}")
        alive = {obj.moid for obj in bench.world.objects.values() if issubclass(obj.vmodl, KINDS)}
        found += sorted(alive ^ (self.objects | {bench.simulator.vcenter.root.moid}))
        return found


def test_s09_s10_a_story_is_followed_to_the_letter() -> None:
    bench = Bench(hosts=3, clusters=2, tenants_per_host=1)
    mirror = Mirror(bench)
    mirror.follow()
    do = bench.simulator.vcenter.stimuli
    first, second = bench.hosts[:2]
    tenant = bench.world.objects[first.get("vm")[0]._moId]
    steps = [
        lambda: do.power_off(tenant),
        lambda: do.power_on(tenant),
        lambda: do.suspend(tenant),
        lambda: do.rename(tenant, "renamed"),
        lambda: do.disconnect(second),
        lambda: do.reconnect(second),
        lambda: do.enter_maintenance(second),
        lambda: do.exit_maintenance(second),
        lambda: do.crash(second),
        lambda: do.recover(second),
        lambda: do.reboot(second),
        lambda: do.add_cluster("New", "DC0"),
        lambda: do.add_host("New", "esx-99.example"),
        lambda: do.set_agent_settings(second, "shared-dc0", "VM Network"),
        lambda: do.enter_maintenance("esx-99.example"),
        lambda: do.move_host("esx-99.example", "ClusterA"),
        lambda: do.remove_host("esx-99.example"),
        lambda: do.remove_cluster("New"),
        lambda: do.destroy(tenant),
    ]
    for number, step in enumerate(steps):
        step()
        for _ in range(3):
            bench.clock.advance(0.05)
            mirror.follow()
            assert (number, mirror.differences()) == (number, [])
        bench.clock.advance(5)
        mirror.follow()
        assert (number, mirror.differences()) == (number, [])
    assert bench.simulator.errors == []
    bench.simulator.stop()
