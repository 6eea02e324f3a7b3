# SPDX-License-Identifier: Apache-2.0
"""Election through a real ZooKeeper: who leads, for how long, and how it ends.

Proves the promises about leadership (P5, P6) for the part itself; with whole daemons the chaos rig does.
"""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
import trustme
from kazoo.client import KazooClient
from kazoo.handlers.gevent import SequentialGeventHandler

from tests.support.proxy import Proxy
from tests.support.rabbit import free_port, wait_for
from tests.support.zookeeper import ZooKeeperNode
from vcenter_eam_plugin.cluster.client import ZooKeeper, ZooKeeperSettings
from vcenter_eam_plugin.cluster.election import EPOCH_MOST, Election, Stored
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.shared import shared

UUID = "52a1d1c2-0000-4000-8000-000000000001"
SESSION = 4.0
"""Seconds; the servers' tick of 0.5 s would grant 1 s, which a busy machine can miss."""


class Candidate:
    """One instance: a session of its own, an election, and clocks that the test may move."""

    def __init__(self, name: str, hosts: str, root: str, **tls: Path | bool) -> None:
        log = logging.getLogger(f"test.{name}")
        self.settings = ZooKeeperSettings(hosts=hosts, timeout=SESSION, **tls)  # type: ignore[arg-type]
        self.zookeeper = ZooKeeper.connect_to(self.settings, log)
        self.skipped = 0.0
        """Seconds by which the monotonic clock is ahead: what a process sees that was stopped for so long."""
        self.wall = 1_700_000_000.0
        self.least = 0
        self.told: list[bool] = []
        """Whether we led, each time that we were told to look."""
        self.election = Election(
            self.zookeeper,
            UUID,
            name,
            least=lambda: self.least,
            clock=lambda: time.monotonic() + self.skipped,
            wall_clock=lambda: self.wall,
            log=log,
            root=root,
        )

    def start(self) -> None:
        self.zookeeper.start()
        self.election.start(lambda: self.told.append(self.leads))

    def stop(self) -> None:
        self.election.stop(5.0)
        self.zookeeper.stop(5.0)

    @property
    def leads(self) -> bool:
        return self.election.term() is not None

    @property
    def epoch(self) -> int:
        term = self.election.term()
        assert term is not None
        assert term.epoch is not None
        return term.epoch

    def when_shaken(self) -> list[bool]:
        """Whether the term was over, at once after each change of the connection's state (all listeners were told)."""
        over: list[bool] = []
        self.zookeeper.client.add_listener(
            lambda _: gevent.spawn(lambda: over.append(self.election.term() is None)) and None
        )
        return over

    def wait_until_leading(self) -> int:
        wait_for(lambda: self.leads, 30, "the lead")
        return self.epoch


MakeCandidate = Callable[..., Candidate]


@pytest.fixture
def candidate(zookeeper: ZooKeeperNode, zookeeper_root: str) -> Iterator[MakeCandidate]:
    """``candidate("a")``: started, and stopped at the end."""
    made: list[Candidate] = []

    def make(name: str, hosts: str | None = None, *, start: bool = True) -> Candidate:
        one = Candidate(name, hosts or zookeeper.address, zookeeper_root)
        made.append(one)
        if start:
            one.start()
        return one

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def proxy(zookeeper: ZooKeeperNode) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", zookeeper.port)).running() as running:
        yield running


def test_one_leads_and_the_other_waits(candidate: MakeCandidate) -> None:
    """P5: at most one; the standby sees who leads."""
    one = candidate("one:1")
    first = one.wait_until_leading()
    other = candidate("other:2")
    wait_for(lambda: other.election.leader() == "one:1", what="the standby knows the leader")
    assert not other.leads
    assert one.election.leader() == "one:1"
    assert (one.election.trouble(), other.election.trouble()) == ("", "")
    assert first == 1_700_000_000_000, "the time in ms, when nothing greater is stored"


def test_p06_a_clean_stop_lets_the_next_in_at_once(candidate: MakeCandidate) -> None:
    """P6: well below the session's time-out: nobody waits for a session that is over."""
    one, other = candidate("one"), candidate("other", start=False)
    epoch = one.wait_until_leading()
    other.start()
    wait_for(lambda: other.election.leader() == "one", what="the other stands")
    began = time.monotonic()
    one.stop()
    assert other.wait_until_leading() > epoch
    took = time.monotonic() - began
    print(f"take-over after a clean stop: {took:.3f} s")
    assert took < SESSION / 2
    assert other.told == [True], "it is told, and need not ask now and then"


def test_p06_a_dead_leader_is_replaced_when_its_session_ends(candidate: MakeCandidate, proxy: Proxy) -> None:
    """P6: no sooner than the old one has stopped believing, no later than the session's time-out and two seconds."""
    one = candidate("one", f"127.0.0.1:{proxy.port}")
    epoch = one.wait_until_leading()
    other = candidate("other")
    wait_for(lambda: other.election.leader() == "one", what="the other stands")
    proxy.half_open()
    began = time.monotonic()
    while one.leads:
        assert not other.leads, "two lead at once"
        gevent.sleep(0.005)
    ended = time.monotonic()
    assert other.wait_until_leading() > epoch
    took = time.monotonic() - began
    print(f"the old one stopped after {ended - began:.2f} s, the new one led after {took:.2f} s")
    assert took > ended - began
    assert took < SESSION + 2.0 + 2.0  # a second and more for a machine that has other things to do
    proxy.heal()
    wait_for(lambda: one.election.leader() == "other", 30, "the old one is back, and a standby")
    assert not one.leads


def test_p05_suspended_ends_the_term_at_once(candidate: MakeCandidate, proxy: Proxy) -> None:
    """P5: a connection that is cut leaves the session alive for seconds; who is not sure stops all the same."""
    one = candidate("one", f"127.0.0.1:{proxy.port}")
    epoch = one.wait_until_leading()
    term = one.election.term()
    lost = one.when_shaken()
    proxy.refuse()
    proxy.cut()
    wait_for(lambda: lost, what="kazoo notices")
    assert lost[0]
    assert not one.leads
    assert one.told == [True, False]
    assert "cannot be reached" in one.election.trouble()
    proxy.heal()
    again = one.wait_until_leading()
    assert again > epoch, "the session lived on and the lock was kept, but it is a new term"
    assert one.election.term() is not term
    assert one.election.trouble() == ""


def test_p05_a_process_that_was_stopped_knows_by_the_clock(candidate: MakeCandidate) -> None:
    """P5: on its way back nothing has told it yet; the first question after the pause is answered with no."""
    one = candidate("one")
    epoch = one.wait_until_leading()
    one.skipped = SESSION
    assert one.election.term() is None
    assert one.wait_until_leading() > epoch


def test_p05_a_lock_that_somebody_deleted_is_lost(candidate: MakeCandidate, zookeeper_root: str) -> None:
    """P5: whatever the connection says, the node in ZooKeeper decides."""
    one = candidate("one")
    epoch = one.wait_until_leading()
    term = one.election.term()
    (node,) = one.zookeeper.client.get_children(f"{zookeeper_root}/{UUID}/candidates")
    one.zookeeper.client.delete(f"{zookeeper_root}/{UUID}/candidates/{node}")
    wait_for(lambda: one.election.term() is not term, 20, "the term's end")
    assert one.wait_until_leading() > epoch, "it stands again"


def test_p05_an_expired_session_ends_the_term_and_is_replaced(candidate: MakeCandidate) -> None:
    """P5, and kazoo's known hang after LOST -> CONNECTED: the candidate stands again by itself."""
    one = candidate("one")
    epoch = one.wait_until_leading()
    session = one.zookeeper.client.client_id
    ended = one.when_shaken()
    # The same session from elsewhere, closed: the servers then end it for both.
    thief = KazooClient(one.settings.hosts, timeout=SESSION, client_id=session, handler=SequentialGeventHandler())
    thief.start()
    thief.stop()
    thief.close()
    wait_for(lambda: ended, 30, "the session's end is noticed")
    assert ended[0]
    assert one.wait_until_leading() > epoch
    assert one.zookeeper.client.client_id != session


def test_epochs_grow_whatever_clocks_and_files_say(candidate: MakeCandidate) -> None:
    """P5: greater than what ZooKeeper stores, and than our own outbox has seen, also when a clock goes back."""
    one = candidate("one")
    first = one.wait_until_leading()
    one.stop()
    late = candidate("late", start=False)
    late.wall -= 86_400
    late.start()
    assert late.wait_until_leading() == first + 1
    late.stop()
    ahead = candidate("ahead", start=False)
    ahead.least = first + 1_000
    ahead.start()
    assert ahead.wait_until_leading() == first + 1_001


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"not a number", b"-5 me", b"9" * 5000, b"1e30", "٣".encode()])
def test_junk_at_the_epochs_node_stops_nobody(candidate: MakeCandidate, zookeeper_root: str, junk: bytes) -> None:
    """ZooKeeper is open to whoever reaches it: what is not ours counts as nothing, and is replaced."""
    one = candidate("one", start=False)
    one.zookeeper.client.start()
    one.zookeeper.client.create(f"{zookeeper_root}/{UUID}/epoch", junk, makepath=True)
    one.start()
    assert one.wait_until_leading() == 1_700_000_000_000


@pytest.mark.parametrize("stored", [Stored(), Stored(17, "host.example:4711"), Stored(EPOCH_MOST - 1, "ä b")])
def test_what_is_stored_reads_back(stored: Stored) -> None:
    """The node's text is ours to read also in a later release."""
    assert Stored.decode(stored.encode()) == stored


def test_a_hosts_client_is_used_and_left_alone(zookeeper: ZooKeeperNode, zookeeper_root: str) -> None:
    """Design 7: ``zookeeper_client`` is lent: neither started nor stopped, and nothing of ours stays on it."""
    lent = KazooClient(zookeeper.address, timeout=SESSION, handler=SequentialGeventHandler())
    lent.start()
    try:
        election = Election(
            ZooKeeper.of_host(lent),
            UUID,
            "guest",
            least=lambda: 0,
            clock=time.monotonic,
            wall_clock=time.time,
            log=logging.getLogger("test.guest"),
            root=zookeeper_root,
        )
        election.start()
        wait_for(lambda: election.term() is not None, 30, "the lead")
        election.stop(5.0)
        assert election.term() is None
        assert lent.connected
        assert lent.get_children(f"{zookeeper_root}/{UUID}/candidates") == []
    finally:
        lent.stop()
        lent.close()


def test_a_stopped_candidate_leaves_nothing(candidate: MakeCandidate, zookeeper_root: str) -> None:
    """Contrail's own bug: a leader that ended without closing its session came back to a lead that it still held."""
    one = candidate("one")
    one.wait_until_leading()
    one.stop()
    other = candidate("other")
    other.wait_until_leading()
    assert len(other.zookeeper.client.get_children(f"{zookeeper_root}/{UUID}/candidates")) == 1
    assert [name for name, greenlet in one.zookeeper.greenlets().items() if not greenlet.dead] == []


def test_without_zookeeper_nobody_leads_and_a_late_one_is_found(candidate: MakeCandidate, proxy: Proxy) -> None:
    """A start before ZooKeeper's: a standby with a reason, and a leader as soon as there is somebody to ask."""
    proxy.refuse()
    one = candidate("one", f"127.0.0.1:{proxy.port}")
    nowhere = candidate("nowhere", f"127.0.0.1:{free_port()}")
    wait_for(lambda: "refused" in nowhere.election.trouble(), what="the reason")
    assert "cannot be reached" in one.election.trouble()
    assert (one.leads, nowhere.leads) == (False, False)
    proxy.heal()
    one.wait_until_leading()
    assert one.election.trouble() == ""


def test_an_error_that_kazoo_does_not_foresee_is_survived(
    candidate: MakeCandidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kazoo ends its session for good then; a resident service cannot."""
    monkeypatch.setattr("vcenter_eam_plugin.cluster.client.LOOK", 0.2)
    one = candidate("one")
    epoch = one.wait_until_leading()
    connection = one.zookeeper.client._connection
    whole = connection._connect_attempt

    def broken(*arguments: object) -> object:
        connection._connect_attempt = whole
        raise RuntimeError("a bug of somebody's")

    connection._connect_attempt = broken
    one.zookeeper.client._connection._socket.shutdown(2)
    wait_for(connection.connection_stopped.is_set, what="kazoo gives up")
    wait_for(lambda: one.leads and one.epoch > epoch, 30, "a new lead")


# --- what people decided ---------------------------------------------------------------------------------


class Memory:
    """A decision in memory: whether it is paused."""

    def __init__(self, paused: bool = False) -> None:
        self.paused = paused

    def take(self, paused: bool) -> None:
        self.paused = paused

    def offer(self, candidate: Candidate) -> None:
        candidate.election.share({"pause": shared(bool, lambda: self.paused, self.take)})


def test_what_was_decided_holds_for_the_next_leader_before_its_term(candidate: MakeCandidate) -> None:
    """An operator's pause must not end because another machine took over; nor must its end be forgotten."""
    one, other = candidate("one", start=False), candidate("other", start=False)
    first, second = Memory(), Memory()
    first.offer(one)
    second.offer(other)
    one.start()
    one.wait_until_leading()
    other.start()
    wait_for(lambda: other.election.leader() == "one", what="the other stands")
    first.paused = True
    one.election.decided()
    wait_for(lambda: one.election._agreed["pause"] == b"true", what="it is written")
    assert not second.paused, "only a leader needs it"
    seen: list[bool] = []
    second.take = lambda paused: (seen.append(other.leads), setattr(second, "paused", paused))  # type: ignore[method-assign]
    second.offer(other)
    one.stop()
    other.wait_until_leading()
    assert second.paused
    assert seen == [False], "before the term, not after it"


def test_what_was_decided_while_nobody_led_is_kept_and_handed_on(candidate: MakeCandidate, proxy: Proxy) -> None:
    """A pause that was asked for during an outage of ZooKeeper is not undone by the end of the outage."""
    one = candidate("one", f"127.0.0.1:{proxy.port}", start=False)
    memory = Memory()
    memory.offer(one)
    one.start()
    one.wait_until_leading()
    proxy.refuse()
    wait_for(lambda: not one.leads, 30, "the lead is lost")
    memory.paused = True
    proxy.heal()
    one.wait_until_leading()
    assert memory.paused
    wait_for(lambda: one.election._agreed["pause"] == b"true", what="it is written")


def test_a_decision_that_cannot_be_read_elects_nobody(candidate: MakeCandidate, zookeeper_root: str) -> None:
    """It may forbid something: better nobody acts, and says why."""
    one = candidate("one", start=False)
    Memory().offer(one)
    one.zookeeper.client.start()
    path = f"{zookeeper_root}/{UUID}/decided/pause"
    one.zookeeper.client.create(path, b"perhaps", makepath=True)
    one.start()
    wait_for(lambda: path in one.election.trouble(), what="the reason")
    assert not one.leads
    one.zookeeper.client.delete(path)
    one.wait_until_leading()


# --- TLS --------------------------------------------------------------------------------------------------


def test_tls_is_verified_and_serves(zookeeper_tls: ZooKeeperNode, zookeeper_root: str) -> None:
    """Design 7: an election over TLS, with the CA of the configuration."""
    one = Candidate(
        "one", f"localhost:{zookeeper_tls.tls_port}", zookeeper_root, tls=True, ca_file=zookeeper_tls.ca_file
    )
    one.start()
    try:
        one.wait_until_leading()
        assert one.zookeeper.client._connection._socket.version() in {"TLSv1.2", "TLSv1.3"}
    finally:
        one.stop()


@pytest.mark.parametrize(("what", "why"), [("authority", "issuer"), ("system", "issuer"), ("name", "mismatch")])
def test_tls_that_is_not_trusted_elects_nobody(
    zookeeper_tls: ZooKeeperNode, zookeeper_root: str, tmp_path: Path, what: str, why: str
) -> None:
    """Another authority, none of our own (the system's), or a certificate for another name: nothing is said to it."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    ca_file = {"authority": other, "system": None, "name": zookeeper_tls.ca_file}[what]
    address = f"{'127.0.0.1' if what == 'name' else 'localhost'}:{zookeeper_tls.tls_port}"
    one = Candidate("one", address, zookeeper_root, tls=True, ca_file=ca_file)
    one.start()
    try:
        wait_for(lambda: why in one.election.trouble(), what="the reason")
        assert not one.leads
    finally:
        one.stop()


def test_tls_files_that_cannot_be_read_are_refused_at_the_start(tmp_path: Path) -> None:
    """Bad input is refused early: kazoo would try again for ever."""
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    with pytest.raises(ConfigurationError, match="zookeeper_ssl_ca_cert"):
        ZooKeeper.connect_to(ZooKeeperSettings(hosts="localhost:1", tls=True, ca_file=junk), logging.getLogger("test"))
