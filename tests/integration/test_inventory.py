# SPDX-License-Identifier: Apache-2.0
"""S17: hosts and agent VMs by PropertyCollector; after any gap a whole listing, deletions included.

The first part runs against both servers; what needs host changes, versions or suspect reads runs against our
simulator alone (``test_vcsim_gaps`` shows why).
"""

from __future__ import annotations

import itertools
from typing import Any

import gevent
import pytest
from pyVmomi import vim

from tests.support.vcenters import Admin, VCenter, Watch, wait_for, watching
from vcenter_eam_plugin.domain.errors import PrivilegeMissing, ProtocolError
from vcenter_eam_plugin.domain.facts import ConnectionState, HostPower, HostTask, StandbyMode, VmPower
from vcenter_eam_plugin.vsphere import session as session_module
from vcenter_eam_plugin.vsphere import stream as module
from vcenter_eam_plugin.vsphere.scope import list_compute_resources


@pytest.fixture
def cluster(admin: Admin) -> str:
    """Path of a cluster with hosts."""
    return next(one.path for one in list_compute_resources(admin.session) if one.is_cluster and one.hosts)


# --- on both servers ---------------------------------------------------------------------------------------


def test_s17_first_observation_is_the_whole_scope(vcenter: VCenter, admin: Admin, cluster: str) -> None:
    """S17: hosts of the clusters in scope and of no others, with their state; VMs only when asked for."""
    with vcenter.session() as session, watching(session, cluster) as watch:
        first = watch.first_listing()
        assert first.complete
        (compute,) = first.compute_resources
        assert compute == watch.scope[0]
        assert len(compute.hosts) == 3
        assert sorted(host.moref for host in first.hosts) == sorted(compute.hosts)
        assert {host.compute_resource for host in first.hosts} == {compute.moref}
        assert {(h.connection, h.power, h.standby, h.in_maintenance, h.task) for h in first.hosts} == {
            (ConnectionState.CONNECTED, HostPower.POWERED_ON, StandbyMode.NONE, False, None)
        }
        assert first.vms == ()
        assert watch.inventory.status()["live"]


def test_s17_followed_vm_changes_are_seen(vcenter: VCenter, admin: Admin, cluster: str) -> None:
    """S17: only followed VMs are reported: entering, modified, and gone."""
    with vcenter.session() as session, watching(session, cluster) as watch:
        watch.first_listing()
        host = watch.scope[0].hosts[0]
        vms = [vm for one in watch.scope[0].hosts for vm in admin.vms_of(one)]
        watch.inventory.follow_vms(vms[:1])
        seen = wait_for(lambda: watch.vm(vms[0]), "the followed VM")
        assert seen.power is VmPower.POWERED_ON
        assert seen.host in watch.scope[0].hosts, host
        admin.power(vms[1], on=False)
        admin.power(vms[0], on=False)
        wait_for(lambda: watch.vm(vms[0]).power is VmPower.POWERED_OFF, "the power-off")
        assert watch.vm(vms[1]) is None
        admin.power(vms[0], on=True)
        wait_for(lambda: watch.vm(vms[0]).power is VmPower.POWERED_ON, "the power-on")
        admin.power(vms[0], on=False)
        admin.destroy(vms[0])
        wait_for(lambda: watch.vm(vms[0]) is None, "the removal")
        assert len(watch.listings()) == 1


def test_vm_that_does_not_exist_is_reported_gone(vcenter: VCenter, admin: Admin, cluster: str) -> None:
    """An agent may name a VM that was deleted a moment before: that must not break the stream."""
    with vcenter.session() as session, watching(session, cluster) as watch:
        watch.first_listing()
        vms = [vm for host in watch.scope[0].hosts for vm in admin.vms_of(host)]
        watch.inventory.follow_vms([*vms[:1], "vm-999999"])
        wait_for(lambda: watch.vm(vms[0]), "the VM that exists")
        assert watch.vm("vm-999999") is None
        assert watch.inventory.live


def test_vm_that_is_followed_while_a_listing_is_read_breaks_nothing(
    vcenter: VCenter, admin: Admin, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: at a restart EAM's answer came between two pages of the listing, which then lacked a VM that exists."""
    monkeypatch.setattr(module, "PAGE", 1)
    with vcenter.session() as session, watching(session, cluster) as watch:
        vms = [vm for host in watch.first_listing().hosts for vm in admin.vms_of(host.moref)]
        read = module.Stream._applied
        following: list[Any] = []

        def eam_answers(stream: Any, result: Any) -> Any:
            if not following and result.truncated:
                following.append(gevent.spawn(watch.inventory.follow_vms, vms))
                wait_for(lambda: following[0].ready() or stream._view_lock.linkcount(), "it is done, or waits")
            return read(stream, result)

        monkeypatch.setattr(module.Stream, "_applied", eam_answers)
        watch.inventory.refresh()
        watch.next_listing(1)
        assert following
        wait_for(lambda: all(watch.vm(vm) for vm in vms), "the followed VMs")
        assert len(watch.listings()) == 2
        assert watch.inventory.last_error is None


def test_new_scope_is_listed_whole(vcenter: VCenter, admin: Admin) -> None:
    """S04: a cluster added to the scope is listed at once, and nothing waits for a time-out."""
    clusters = [one for one in list_compute_resources(admin.session) if one.is_cluster]
    with vcenter.session(wait_seconds=30) as session, watching(session, clusters[0].path) as watch:
        watch.first_listing()
        watch.inventory.set_scope([clusters[0].moref, clusters[1].moref])
        listing = watch.next_listing(1)
        assert {one.moref for one in listing.compute_resources} == {clusters[0].moref, clusters[1].moref}
        assert {host.moref for host in listing.hosts} == {*clusters[0].hosts, *clusters[1].hosts}
        watch.inventory.set_scope([clusters[1].moref])
        listing = watch.next_listing(2)
        assert {host.moref for host in listing.hosts} == set(clusters[1].hosts)


def test_p7_ended_session_is_a_gap_and_is_healed(vcenter: VCenter, admin: Admin, cluster: str) -> None:
    """P7, S02: what happened while the session was gone is found by the listing after it, deletions included."""
    with vcenter.session() as session, watching(session, cluster) as watch:
        first = watch.first_listing()
        vms = [vm for one in first.hosts for vm in admin.vms_of(one.moref)]
        watch.inventory.follow_vms(vms[:2])
        wait_for(lambda: watch.vm(vms[0]) and watch.vm(vms[1]), "the followed VMs")
        admin.kill_sessions_but_own()
        admin.power(vms[0], on=False)
        admin.destroy(vms[0])
        admin.power(vms[1], on=False)
        watch.next_listing(1)
        wait_for(lambda: watch.vm(vms[0]) is None, "the removal in the gap")
        wait_for(lambda: watch.vm(vms[1]).power is VmPower.POWERED_OFF, "the power-off in the gap")
        assert watch.inventory.last_error is not None
        assert "session" in str(watch.inventory.last_error)


def test_p7_cut_network_is_told_and_healed(vcenter: VCenter, admin: Admin, cluster: str) -> None:
    """P7: not live while the network is away, with the reason; listed again when it is back, in the same session."""
    with (
        vcenter.proxy() as proxy,
        vcenter.session(port=proxy.port) as session,
        watching(session, cluster) as watch,
    ):
        watch.first_listing()
        proxy.refuse()
        wait_for(lambda: not watch.inventory.live and watch.inventory.last_error, "the loss to be noticed")
        assert watch.inventory.stale_since is not None
        assert watch.inventory.status()["last_error"]
        proxy.heal()
        watch.next_listing(1)
        assert session.generation == 1
        assert watch.inventory.stale_since is None


def test_p7_dead_peer_is_noticed(vcenter: VCenter, admin: Admin, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: a half-open connection says nothing for ever; the wait's own time-out ends it."""
    monkeypatch.setattr(session_module, "WAIT_MARGIN_SECONDS", 0.5)
    with (
        vcenter.proxy() as proxy,
        vcenter.session(port=proxy.port, call_timeout=1.0) as session,
        watching(session, cluster) as watch,
    ):
        watch.first_listing()
        proxy.half_open()
        wait_for(lambda: not watch.inventory.live, "the dead peer to be noticed", 5)
        proxy.heal()
        watch.next_listing(1)


def test_stop_ends_a_blocked_wait_at_once(vcenter: VCenter, cluster: str) -> None:
    """SIGTERM within 5 s: the wait is cancelled, not waited for."""
    with vcenter.session(wait_seconds=60) as session:
        with watching(session, cluster) as watch:
            watch.first_listing()
            gevent.sleep(0.1)  # the stop shall meet a wait that is under way
            with gevent.Timeout(2):
                watch.stop()
        assert not watch.inventory.live
        assert watch.inventory.last_error is None


def test_cancel_that_comes_too_early_is_sent_again(
    vcenter: VCenter, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen here: a cancel that overtakes the wait it is meant for has no effect, and a new scope waited 30 s."""
    with vcenter.session(wait_seconds=30) as session, watching(session, cluster) as watch:
        watch.first_listing()
        cancel = module.Stream.cancel
        lost: list[module.Stream] = []

        def unlucky(stream: module.Stream) -> None:
            if stream in lost:
                cancel(stream)
            lost.append(stream)

        monkeypatch.setattr(module.Stream, "cancel", unlucky)
        with gevent.Timeout(5):
            watch.inventory.refresh()
            watch.next_listing(1)
        with gevent.Timeout(5):
            watch.stop()


def test_stop_before_the_server_ever_answered(vcenter: VCenter, cluster: str) -> None:
    """A daemon that is told to end while vCenter is away ends all the same."""
    with (
        vcenter.proxy() as proxy,
        vcenter.session(port=proxy.port, call_timeout=0.5) as session,
        watching(session, cluster) as watch,
    ):
        watch.first_listing()
        proxy.refuse()
        wait_for(lambda: watch.inventory.last_error is not None, "the loss to be noticed")
        with gevent.Timeout(4):
            watch.stop()
        proxy.heal()


def test_removed_session_objects_do_not_pile_up(vcenter: VCenter, admin: Admin, cluster: str) -> None:
    """P10: each listing anew gives its predecessor's collector and views back."""
    with vcenter.session() as session, watching(session, cluster) as watch:
        watch.first_listing()
        for n in range(1, 4):
            watch.inventory.refresh()
            watch.next_listing(n)
        if vcenter.simulator is not None:
            assert len(vcenter.simulator.collectors()) == 1


# --- on our simulator alone --------------------------------------------------------------------------------


@pytest.fixture
def watch(simulator_vcenter: VCenter):
    """The first cluster of our simulator, watched and listed."""
    with simulator_vcenter.session() as session:
        path = next(one.path for one in list_compute_resources(session) if one.is_cluster)
        with watching(session, path) as watch:
            watch.first_listing()
            yield watch


def test_s10_entering_maintenance_is_seen_as_a_task(simulator_vcenter: VCenter, watch: Watch) -> None:
    """S10: inMaintenanceMode stays false until the task is done; the host counts as entering from its start."""
    stimuli = simulator_vcenter.simulator.vcenter.stimuli
    host = watch.scope[0].hosts[0]
    stimuli.enter_maintenance(simulator_vcenter.simulator.world.objects[host])
    wait_for(lambda: watch.host(host).in_maintenance, "maintenance")
    wait_for(lambda: watch.host(host).task is None, "the end of the task")
    stimuli.exit_maintenance(simulator_vcenter.simulator.world.objects[host])
    wait_for(lambda: not watch.host(host).in_maintenance, "the way out")
    wait_for(lambda: watch.host(host).task is None, "the end of the task")
    history = [
        (facts.task, facts.in_maintenance) for one in watch.observed for facts in one.hosts if facts.moref == host
    ]
    entering = history.index((HostTask.ENTERING_MAINTENANCE, False))
    inside = next(n for n, (_, inside) in enumerate(history) if inside)
    assert entering < inside
    assert HostTask.EXITING_MAINTENANCE in {task for task, _ in history[inside:]}
    assert history[-1] == (None, False)


def test_s17_task_that_runs_since_before_the_start_is_seen(simulator_vcenter: VCenter) -> None:
    """A restart in the middle of an evacuation: the first listing already says that the host is on its way in."""
    simulator = simulator_vcenter.simulator
    simulator.knobs.change({"evacuate": 600.0})  # it runs for as long as this test may take
    simulator.vcenter.stimuli.enter_maintenance(simulator.vcenter.stimuli.hosts()[0])
    host = simulator.vcenter.stimuli.hosts()[0].moid
    with simulator_vcenter.session() as session:
        path = next(one.path for one in list_compute_resources(session) if host in one.hosts)
        with watching(session, path) as watch:
            first = watch.first_listing()
            facts = next(one for one in first.hosts if one.moref == host)
            assert (facts.task, facts.in_maintenance) == (HostTask.ENTERING_MAINTENANCE, False)


def test_s09_added_host_appears_and_removed_host_is_gone(simulator_vcenter: VCenter, watch: Watch) -> None:
    """S09, S17: hosts come and go by the cluster's list; no new filter is needed."""
    stimuli = simulator_vcenter.simulator.vcenter.stimuli
    cluster = simulator_vcenter.simulator.world.objects[watch.scope[0].moref]
    host = stimuli.add_host(cluster)
    wait_for(lambda: watch.host(host.moid), "the added host")
    wait_for(lambda: host.moid in watch.compute_resource(cluster.moid).hosts, "the cluster's list with it")
    stimuli.remove_host(host)
    wait_for(lambda: watch.host(host.moid) is None, "the removed host to go")
    assert any(host.moid in one.gone for one in watch.observed)
    assert len(watch.listings()) == 1


def test_s04_host_moved_out_of_scope_is_gone_and_back_again(simulator_vcenter: VCenter, watch: Watch) -> None:
    """S04: a host that moves to another cluster leaves, and comes back as itself."""
    simulator = simulator_vcenter.simulator
    stimuli = simulator.vcenter.stimuli
    inside = simulator.world.objects[watch.scope[0].moref]
    outside = next(one for one in stimuli.clusters() if one is not inside)
    host = simulator.world.objects[watch.scope[0].hosts[0]]
    stimuli.move_host(host, outside)
    wait_for(lambda: watch.host(host.moid) is None, "the host to leave")
    stimuli.move_host(host, inside)
    wait_for(lambda: watch.host(host.moid), "the host to come back")
    assert watch.host(host.moid).compute_resource == inside.moid


def test_s17_disconnected_host_is_seen(simulator_vcenter: VCenter, watch: Watch) -> None:
    stimuli = simulator_vcenter.simulator.vcenter.stimuli
    host = simulator_vcenter.simulator.world.objects[watch.scope[0].hosts[0]]
    stimuli.disconnect(host)
    wait_for(lambda: watch.host(host.moid).connection is ConnectionState.DISCONNECTED, "the disconnection")
    stimuli.reconnect(host)
    wait_for(lambda: watch.host(host.moid).connection is ConnectionState.CONNECTED, "the connection")


def test_unset_property_reads_as_unset(simulator_vcenter: VCenter, watch: Watch) -> None:
    """Falsy values are data: a setting that is cleared again must not keep its old value."""
    world = simulator_vcenter.simulator.world
    host = world.objects[watch.scope[0].hosts[0]]
    manager = host.get("configManager").esxAgentHostManager
    datastore = host.get("datastore")[0]
    with simulator_vcenter.session() as session:
        remote = vim.host.EsxAgentHostManager(manager._GetMoId(), session.vim_stub())
        wanted = vim.host.EsxAgentHostManager.ConfigInfo(agentVmDatastore=vim.Datastore(datastore._GetMoId()))
        session.call(remote.EsxAgentHostManagerUpdateConfig, wanted, idempotent=False)
        wait_for(lambda: watch.host(host.moid).agent_datastore == datastore._GetMoId(), "the setting")
        session.call(
            remote.EsxAgentHostManagerUpdateConfig, vim.host.EsxAgentHostManager.ConfigInfo(), idempotent=False
        )
        wait_for(lambda: watch.host(host.moid).agent_datastore is None, "the setting to go")


def test_p7_lost_collector_version_lists_again(simulator_vcenter: VCenter, watch: Watch) -> None:
    """P7: InvalidCollectorVersion ends the stream, and a whole listing follows within the same session."""
    simulator_vcenter.simulator.faults.inject("collector_lost")
    watch.next_listing(1)
    assert watch.session.generation == 1


@pytest.mark.parametrize("fault", ["truncated_response", "garbled_response", "http_503"])
def test_p7_broken_answers_list_again(simulator_vcenter: VCenter, watch: Watch, fault: str) -> None:
    """P7: whatever is wrong with one answer, the stream is begun anew and nothing is believed of it."""
    simulator_vcenter.simulator.faults.inject(fault, method="WaitForUpdatesEx", count=1)
    watch.next_listing(1)
    assert {host.moref for host in watch.listings()[-1].hosts} == set(watch.scope[0].hosts)


def test_lost_answer_is_sent_again(simulator_vcenter: VCenter, watch: Watch) -> None:
    """The server repeats an update set that was not acknowledged: a lost answer is asked for again, and is no gap."""
    simulator = simulator_vcenter.simulator
    simulator.faults.inject("lost_response", method="WaitForUpdatesEx", count=1)
    host = simulator.world.objects[watch.scope[0].hosts[0]]
    simulator.vcenter.stimuli.disconnect(host)
    wait_for(lambda: watch.host(host.moid).connection is ConnectionState.DISCONNECTED, "the disconnection")
    assert len(watch.listings()) == 1


@pytest.mark.parametrize("fault", ["empty_reads", "missing_set"])
def test_p8_suspect_reads_say_nothing_is_gone(simulator_vcenter: VCenter, watch: Watch, fault: str) -> None:
    """P8: an answer without objects, or with everything in missingSet, is an alarm and never a deletion."""
    simulator_vcenter.simulator.faults.inject(fault)
    watch.inventory.refresh()
    wait_for(lambda: not watch.inventory.live and watch.inventory.last_error, "the suspect read to be noticed")
    simulator_vcenter.simulator.faults.clear(fault)
    watch.next_listing(1)
    assert [one.gone for one in watch.observed if one.gone] == []
    for listing in watch.listings():
        assert {host.moref for host in listing.hosts} == set(watch.scope[0].hosts)


@pytest.mark.parametrize("skip", range(6))
def test_p8_one_empty_answer_anywhere_in_a_listing(
    simulator_vcenter: VCenter, watch: Watch, skip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: a listing takes several requests; whichever comes back empty, no listing lacks a host or its place."""
    faults = simulator_vcenter.simulator.faults
    reads = itertools.count()
    take = faults.take

    def only_one(path: str, method: str) -> dict[str, Any]:
        hits = take(path, method)
        reading = method in {"RetrievePropertiesEx", "WaitForUpdatesEx", "Fetch"}
        return hits if reading and next(reads) == skip else {}

    monkeypatch.setattr(faults, "take", only_one)
    faults.inject("empty_reads")
    watch.inventory.refresh()
    watch.next_listing(1)
    for listing in watch.listings():
        assert listing.compute_resources == watch.listings()[0].compute_resources
        assert {host.moref for host in listing.hosts} == set(watch.scope[0].hosts)


@pytest.mark.parametrize("left_out", ["everything", "cluster", "host"])
def test_p8_first_set_that_leaves_something_out_is_not_used(
    simulator_vcenter: VCenter, watch: Watch, left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: what should be in a listing and is not must be proven gone; else the listing is made again."""
    kinds = {"everything": object, "cluster": vim.ClusterComputeResource, "host": vim.HostSystem}
    call = watch.session.call
    lost: list[Any] = []

    def lossy(fn: Any, *args: Any, **kw: Any) -> Any:
        result = call(fn, *args, **kw)
        for one in getattr(result, "filterSet", None) or ():
            kept = [update for update in one.objectSet if not isinstance(update.obj, kinds[left_out])]
            if not lost or lost[0] is result:
                lost[:] = [result]
                one.objectSet[:] = kept
        return result

    monkeypatch.setattr(watch.session, "call", lossy)
    watch.inventory.refresh()
    watch.next_listing(1)
    assert lost
    assert "left out" in str(watch.inventory.last_error)
    for listing in watch.listings():
        assert listing.compute_resources == watch.listings()[0].compute_resources
        assert {host.moref for host in listing.hosts} == set(watch.scope[0].hosts)


def test_p7_silence_of_an_ended_session_is_not_peace(
    simulator_vcenter: VCenter, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: some servers answer an expired session "nothing new" for ever; after each silence the session is proven."""
    answers = iter([False])
    alive = watch.session.alive
    monkeypatch.setattr(watch.session, "alive", lambda: next(answers, None) is None and alive())
    watch.next_listing(1)
    assert watch.session.generation == 2


def test_events_refused_do_not_stop_the_inventory(simulator_vcenter: VCenter, watch: Watch) -> None:
    """Events are hints: an account that may not read them still sees everything, later."""
    simulator_vcenter.simulator.faults.inject(
        "raise_fault", method="CreateCollectorForEvents", fault="vim.fault.NoPermission"
    )
    watch.inventory.refresh()
    watch.next_listing(1)


def test_missing_privilege_is_named(simulator_vcenter: VCenter, watch: Watch) -> None:
    """Bad input: an account without a privilege hears which one; nothing is published meanwhile."""
    simulator_vcenter.simulator.faults.inject(
        "raise_fault", method="CreatePropertyCollector", fault="vim.fault.NoPermission"
    )
    watch.inventory.refresh()
    wait_for(lambda: isinstance(watch.inventory.last_error, PrivilegeMissing), "the missing privilege")
    assert not watch.inventory.live


def test_many_hosts_come_in_pages(simulator_vcenter: VCenter, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first set that is truncated is read to its end before anything is called complete."""
    monkeypatch.setattr(module, "PAGE", 2)
    watch.inventory.refresh()
    assert {host.moref for host in watch.next_listing(1).hosts} == set(watch.scope[0].hosts)


def waits(vcenter: VCenter) -> int:
    """How often anybody asked for updates."""
    clients = vcenter.simulator.dispatcher.traffic.as_dict().values()
    return sum(client["calls"].get("PropertyCollector.WaitForUpdatesEx", 0) for client in clients)


def test_next_page_is_asked_for_while_one_is_taken_in(
    simulator_vcenter: VCenter, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vCenter makes a page while we work on the one before; with a page at a time each would wait for the other."""
    monkeypatch.setattr(module, "PAGE", 1)
    taken_in, overlapped = module.Stream._applied, []

    def slow(stream: Any, result: Any) -> Any:
        if result.truncated:
            asked = waits(simulator_vcenter)
            wait_for(lambda: waits(simulator_vcenter) > asked, "the next page to be asked for")
            overlapped.append(asked)
        return taken_in(stream, result)

    monkeypatch.setattr(module.Stream, "_applied", slow)
    watch.inventory.refresh()
    assert {host.moref for host in watch.next_listing(1).hosts} == set(watch.scope[0].hosts)
    assert len(overlapped) >= len(watch.scope[0].hosts)


def test_who_fails_at_a_page_has_asked_for_nothing_that_comes_later(
    simulator_vcenter: VCenter, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request for the page after it ends with the stream; the next stream lists everything."""
    monkeypatch.setattr(module, "PAGE", 1)
    taken_in, failed = module.Stream._applied, []

    def once(stream: Any, result: Any) -> Any:
        if result.truncated and not failed:
            slow = simulator_vcenter.simulator.faults.inject("slow", method="WaitForUpdatesEx", delay=30, count=1)
            wait_for(lambda: slow.hits, "the request for the next page, which takes long")
            failed.append(stream._asked)
            raise ProtocolError("that page means nothing")
        return taken_in(stream, result)

    monkeypatch.setattr(module.Stream, "_applied", once)
    watch.inventory.refresh()
    assert {host.moref for host in watch.next_listing(1).hosts} == set(watch.scope[0].hosts)
    assert failed[0].dead


def test_without_scope_nothing_is_listed(simulator_vcenter: VCenter, watch: Watch) -> None:
    """A listing of nothing would say that every host is gone."""
    watch.inventory.set_scope([])
    wait_for(lambda: not watch.inventory.live, "the stream to end")
    watch.inventory.set_scope([watch.scope[0].moref])
    watch.next_listing(1)
    assert all(one.hosts for one in watch.listings())
